//! Agents join, leave and are removed.

use swarm_events::{
    AgentId, OrgId, Place, Problem, Subject, SwarmId,
    agent::{Evidence, Joined, Left, LivenessRule, Profile, Removed},
    command::{Join, Leave, RemoveAgent},
    configuration::TopologyKind,
    decider::Decision,
    subject::AgentVerb,
    swarm::DESCRIPTION_BYTES_MAX,
};

use super::{Answer, Outcome, one};
use crate::{
    Agent, Coordinator, Plan, Swarm, check,
    membership::{canonical, derived_name},
    plan::Joining,
};

impl Coordinator {
    pub(super) fn join(&self, place: Place, agent: AgentId, order: &Join, plan: &Plan) -> Outcome {
        let swarm = self.open_swarm(place)?;
        let known = swarm.agents.get(&agent);
        if swarm.is_current(agent, order.instance) {
            return Err(same_process(known));
        }
        let profile = canonical(Profile {
            agent_type: order.agent_type.clone(),
            agent_name: order
                .agent_name
                .clone()
                .unwrap_or_else(|| derived_name(&order.agent_type, agent)),
            capabilities: order.capabilities.clone(),
            slots: order.slots.unwrap_or(swarm.configuration.agent_slots),
            waiting: order.waiting.unwrap_or(swarm.configuration.agent_waiting),
            metadata: if order.metadata.is_null() {
                swarm_events::Json::object()
            } else {
                order.metadata.clone()
            },
        });
        check::profile(&profile)?;
        if let Some(other) = swarm.agent_named(&profile.agent_name)
            && other != agent
        {
            return Err(
                Problem::new("name-taken", format!("agent {other} has this name"))
                    .field("agent_name")
                    .cure("choose another name, or remove that agent"),
            );
        }
        let adds = !known.is_some_and(Agent::is_live);
        if adds {
            room_for_one(swarm)?;
        }
        // What other joins under way would take is waited for: a refusal rests on facts.
        let key = (place.org, place.swarm);
        let mut promised = 0;
        for (other, joining) in plan.joining(key) {
            if joining.name == profile.agent_name && *other != agent {
                return Ok(Answer::Wait);
            }
            promised += usize::from(joining.adds);
        }
        if adds && swarm.live_agents() + promised >= most_agents(swarm).1 {
            return Ok(Answer::Wait);
        }
        let joining = Joining {
            name: profile.agent_name.clone(),
            adds,
        };
        let joined = Joined {
            incarnation: known.map_or(0, |a| a.incarnation) + 1,
            instance: order.instance,
            profile,
        };
        let decision = about(place, AgentVerb::Joined, agent, joined);
        Ok(Answer::Join(Box::new(decision), joining))
    }

    pub(super) fn leave(&self, place: Place, agent: AgentId, order: &Leave) -> Outcome {
        let found = self.member(place, agent)?;
        if found.incarnation != order.incarnation {
            return Err(Problem::new(
                "other-incarnation",
                format!("the agent is in incarnation {} now", found.incarnation),
            )
            .field("incarnation"));
        }
        let reason = order.reason.as_deref().unwrap_or("left");
        let left = Left {
            incarnation: order.incarnation,
            reason: words("reason", reason)?,
        };
        one(about(place, AgentVerb::Left, agent, left))
    }

    pub(super) fn remove(&self, place: Place, agent: AgentId, order: &RemoveAgent) -> Outcome {
        let found = self.member(place, agent)?;
        let reason = order.reason.as_deref().unwrap_or("removed by command");
        let removed = Removed {
            incarnation: found.incarnation,
            reason: words("reason", reason)?,
        };
        one(about(place, AgentVerb::Removed, agent, removed))
    }

    /// The removal of an agent that health holds to be dead.
    pub(super) fn remove_lost(
        &self,
        org: OrgId,
        swarm: SwarmId,
        agent: AgentId,
        evidence: &Evidence,
    ) -> Answer {
        let Some((swarm, found)) = self
            .swarm(org, swarm)
            .and_then(|s| Some((s, s.agents.get(&agent)?)))
        else {
            return Answer::Wait;
        };
        let (age, limit) = (evidence.age_ms, evidence.limit_ms);
        let reason = match evidence.rule {
            LivenessRule::Disconnected => {
                format!(
                    "failed: its connection closed {age} ms ago and did not come back within {limit} ms"
                )
            }
            LivenessRule::Exited => "failed: its host says that its process ended".to_owned(),
            LivenessRule::Silence | LivenessRule::Heard => {
                format!("failed: silent for {age} ms, longer than the limit of {limit} ms")
            }
        };
        let removed = Removed {
            incarnation: found.incarnation,
            reason,
        };
        Answer::Decide(vec![about(swarm.place, AgentVerb::Removed, agent, removed)])
    }

    fn member(&self, place: Place, agent: AgentId) -> Result<&Agent, Problem> {
        let swarm = self.known_swarm(place)?;
        let found = swarm.agents.get(&agent).ok_or_else(|| {
            Problem::new("unknown-agent", format!("the swarm has no agent {agent}")).field("agent")
        })?;
        if !found.is_live() {
            let reason = found.left_reason.as_deref().unwrap_or("stopped");
            return Err(
                Problem::new("already-stopped", format!("the agent is gone ({reason})"))
                    .field("agent"),
            );
        }
        Ok(found)
    }
}

/// Why a process does not join twice. An agent takes `already-joined` for success: its first join stands.
fn same_process(known: Option<&Agent>) -> Problem {
    match known {
        Some(agent) if agent.is_live() => Problem::new(
            "already-joined",
            format!(
                "this process joined before, as incarnation {}",
                agent.incarnation
            ),
        )
        .field("instance"),
        _ => Problem::new("instance-ended", "this process left or was removed")
            .field("instance")
            .cure("join again under a new instance id"),
    }
}

/// The setting that bounds the number of agents, and its value.
fn most_agents(swarm: &Swarm) -> (&'static str, usize) {
    let settings = &swarm.configuration;
    let workers =
        swarm.topology == TopologyKind::Star && settings.max_workers < settings.max_agents;
    let (name, most) = if workers {
        ("max_workers", settings.max_workers)
    } else {
        ("max_agents", settings.max_agents)
    };
    (name, usize::try_from(most).unwrap_or(usize::MAX))
}

fn room_for_one(swarm: &Swarm) -> Result<(), Problem> {
    let (name, most) = most_agents(swarm);
    let live = swarm.live_agents();
    if live < most {
        return Ok(());
    }
    Err(Problem::new(
        &name.replace('_', "-"),
        format!("the swarm has {live} agents, {name} is {most}"),
    )
    .field(format!("configuration.{name}"))
    .cure(format!("raise {name}, or remove an agent")))
}

/// A reason given in words, which an event carries.
fn words(field: &str, text: &str) -> Result<String, Problem> {
    if text.len() > DESCRIPTION_BYTES_MAX {
        return Err(Problem::new(
            "too-long",
            format!(
                "has {} bytes, at most {DESCRIPTION_BYTES_MAX} are allowed",
                text.len()
            ),
        )
        .field(field)
        .cure("shorten it"));
    }
    Ok(text.to_owned())
}

pub(super) fn about(
    place: Place,
    verb: AgentVerb,
    agent: AgentId,
    body: impl Into<swarm_events::Body>,
) -> Decision {
    Decision::new(Subject::Agent(place, verb, agent), agent.0, body)
}
