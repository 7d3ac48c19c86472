//! Agents join and leave, and those that are held to be dead are removed.

use swarm_events::{
    AgentId, Json, OrgId, Place, Problem, Subject, SwarmId,
    agent::{Evidence, Joined, Left, LivenessRule, Profile, Removed},
    command::{Join, Leave},
    configuration::TopologyKind,
    decider::Decision,
    subject::AgentVerb,
    swarm::DESCRIPTION_BYTES_MAX,
};

use super::{Answer, Outcome, one};
use crate::{
    Agent, Coordinator, Plan, Swarm, check,
    membership::{canonical, derived_name, profile_of},
    plan::Joining,
};

impl Coordinator {
    pub(super) fn join(&self, place: Place, agent: AgentId, order: &Join, plan: &Plan) -> Outcome {
        let swarm = self.open_swarm(place)?;
        let known = swarm.agents.get(&agent);
        if swarm.is_current(agent, order.instance) {
            return Err(same_process(known));
        }
        may_speak(known, order)?;
        let profile = canonical(joining_profile(swarm, agent, known, order)?);
        check::profile(&profile)?;
        let Some(joining) = promise(swarm, agent, &profile.agent_name, plan)? else {
            return Ok(Answer::Wait);
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

/// Whether a process may speak for the agent. One that a host started may as long as it is the current one; an agent that
/// has been told to go takes no new process.
fn may_speak(known: Option<&Agent>, order: &Join) -> Result<(), Problem> {
    let superseded = |detail: String, cure: &str| {
        Err(Problem::new("superseded", detail).field("spawn").cure(cure))
    };
    let end = "end this process; what is wanted of the agent is done by another, or nothing is";
    let managed = known.and_then(|agent| agent.managed.as_ref());
    if let Some(agent) = known
        && (agent.draining.is_some() || agent.dismissed.is_some())
    {
        return superseded("the agent has been told to go".to_owned(), end);
    }
    let Some(managed) = managed else {
        return match order.spawn {
            None => Ok(()),
            Some(_) => superseded("no host was asked to start this agent".to_owned(), end),
        };
    };
    if !managed.wanted {
        return superseded("the agent is not wanted any more".to_owned(), end);
    }
    if order.agent_type != managed.spec.agent_type {
        let detail = format!("the agent was added as {}", managed.spec.agent_type);
        return Err(Problem::new("other-type", detail)
            .field("agent_type")
            .cure("join with that type, or under another agent id"));
    }
    match (managed.has_adapter(), order.spawn) {
        (false, None) => Ok(()),
        (false, Some(_)) => superseded(
            "this agent is started by hand, not by a host".to_owned(),
            end,
        ),
        (true, None) => superseded(
            "a host starts the processes of this agent".to_owned(),
            "join under another agent id, or add an agent without an adapter to be started by hand",
        ),
        (true, Some(spawn)) if spawn != managed.spawn || managed.host().is_none() => superseded(
            format!("process {spawn} of the agent is not the current one"),
            end,
        ),
        (true, Some(_)) => Ok(()),
    }
}

/// What the agent is from here on. The name of one that was added is its own whatever its process says; what its process
/// leaves out comes from its settings.
fn joining_profile(
    swarm: &Swarm,
    agent: AgentId,
    known: Option<&Agent>,
    order: &Join,
) -> Result<Profile, Problem> {
    let metadata = if order.metadata.is_null() {
        Json::object()
    } else {
        order.metadata.clone()
    };
    let own = Profile {
        agent_type: order.agent_type.clone(),
        agent_name: match &order.agent_name {
            Some(name) => name.clone(),
            None => derived_name(&order.agent_type, agent),
        },
        capabilities: order.capabilities.clone(),
        slots: order.slots.unwrap_or(swarm.configuration.agent_slots),
        waiting: order.waiting.unwrap_or(swarm.configuration.agent_waiting),
        metadata,
    };
    let Some(managed) = known.and_then(|agent| agent.managed.as_ref()) else {
        return Ok(own);
    };
    // What it says is checked like any other's, also where it gives way.
    check::profile(&own)?;
    let wanted = profile_of(agent, &managed.spec, &swarm.configuration);
    Ok(Profile {
        agent_name: wanted.agent_name,
        capabilities: if own.capabilities.is_empty() {
            wanted.capabilities
        } else {
            own.capabilities
        },
        slots: order.slots.unwrap_or(wanted.slots),
        waiting: order.waiting.unwrap_or(wanted.waiting),
        metadata: if own.metadata == Json::object() {
            wanted.metadata
        } else {
            own.metadata
        },
        ..own
    })
}

/// A place and a name in the swarm for an agent that is to have them. `None`: others under way might take them, so they are
/// waited for, because a refusal rests on facts.
pub(super) fn promise(
    swarm: &Swarm,
    agent: AgentId,
    name: &str,
    plan: &Plan,
) -> Result<Option<Joining>, Problem> {
    if let Some(other) = swarm.agent_named(name).filter(|other| *other != agent) {
        return Err(
            Problem::new("name-taken", format!("agent {other} has this name"))
                .field("agent_name")
                .cure("choose another name, or remove that agent"),
        );
    }
    let has_place = |agent: &AgentId| swarm.agents.get(agent).is_some_and(Agent::holds_place);
    let adds = !has_place(&agent);
    if adds {
        room_for(swarm, 1)?;
    }
    let mut promised = 0;
    for (other, joining) in plan.joining((swarm.place.org, swarm.place.swarm)) {
        if joining.name == name && *other != agent {
            return Ok(None);
        }
        // As it is now: what had a place when it was promised may have lost it since.
        promised += usize::from(!has_place(other));
    }
    if adds && swarm.places_taken() + promised >= most_agents(swarm).1 {
        return Ok(None);
    }
    Ok(Some(Joining {
        name: name.to_owned(),
    }))
}

/// The setting that bounds the number of agents, and its value.
pub(super) fn most_agents(swarm: &Swarm) -> (&'static str, usize) {
    let settings = &swarm.configuration;
    let workers =
        swarm.topology().kind() == TopologyKind::Star && settings.max_workers < settings.max_agents;
    let (name, most) = if workers {
        ("max_workers", settings.max_workers)
    } else {
        ("max_agents", settings.max_agents)
    };
    (name, usize::try_from(most).unwrap_or(usize::MAX))
}

/// Whether the swarm may have so many more agents.
pub(super) fn room_for(swarm: &Swarm, more: usize) -> Result<(), Problem> {
    let (name, most) = most_agents(swarm);
    let taken = swarm.places_taken();
    if taken.saturating_add(more) <= most {
        return Ok(());
    }
    let going = swarm.agents.values().filter(|agent| agent.is_leaving());
    let going = going.filter(|agent| agent.holds_place()).count();
    let mut detail = format!("the swarm has {taken} agents, {name} is {most}");
    if more > 1 {
        detail = format!("{more} more are wanted, and {detail}");
    }
    if going > 0 {
        detail.push_str(&format!("; {going} of them are about to go"));
    }
    Err(Problem::new(&name.replace('_', "-"), detail)
        .field(format!("configuration.{name}"))
        .cure(format!("raise {name}, or remove an agent")))
}

/// A reason given in words, which an event carries.
pub(super) fn words(field: &str, text: &str) -> Result<String, Problem> {
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
