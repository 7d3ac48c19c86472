//! Orders about agents: to add, to take out, to start anew, to change.

use serde_json::Value;
use swarm_events::{
    AgentId, Json, Place, Problem,
    agent::{Added, Profile, Removed, StopThen, Stopping, Updated},
    command::{AddAgent, RemoveAgent, RestartAgent, UpdateAgent},
    configuration::TIMEOUT_MS_MAX,
    subject::AgentVerb,
};

use super::{
    Answer, Outcome,
    join::{about, promise, words},
    one,
};
use crate::{
    Agent, Coordinator, Managed, Plan, Swarm, check,
    membership::{canonical, profile_of},
    spec,
};

impl Coordinator {
    pub(super) fn add(
        &self,
        place: Place,
        agent: AgentId,
        order: &AddAgent,
        content: u128,
        plan: &Plan,
    ) -> Outcome {
        let swarm = self.open_swarm(place)?;
        if let Some(found) = swarm.agents.get(&agent) {
            return Err(repeated(agent, found, order, content));
        }
        if let Some(sha256) = &order.body_sha256 {
            check::sha256("body_sha256", sha256)?;
        }
        spec::check(&order.spec)?;
        let profile = profile_of(agent, &order.spec, &swarm.configuration);
        check::profile(&profile)?;
        let Some(joining) = promise(swarm, agent, &profile.agent_name, plan)? else {
            return Ok(Answer::Wait);
        };
        let mut spec = order.spec.clone();
        spec.agent_name = Some(profile.agent_name);
        spec.capabilities = profile.capabilities;
        spec.metadata = profile.metadata;
        let added = Added {
            spec,
            reason: "by order".to_owned(),
        };
        let decision = about(place, AgentVerb::Added, agent, added);
        Ok(Answer::Join(Box::new(decision), joining))
    }

    pub(super) fn remove(&self, place: Place, agent: AgentId, order: &RemoveAgent) -> Outcome {
        let swarm = self.known_swarm(place)?;
        let found = known_agent(swarm, agent)?;
        let reason = order.reason.as_deref().unwrap_or("removed by command");
        let reason = words("reason", reason)?;
        let grace_ms = grace(swarm, order.force, order.grace_ms)?;
        let has_process = found.managed.as_ref().is_some_and(Managed::has_process);
        let is_there = found.holds_place() || found.is_leaving() && has_process;
        if !is_there {
            return Err(gone(found));
        }
        if found.is_leaving() && !order.force {
            return Err(going(found));
        }
        if found.managed.is_none() && order.force {
            let removed = Removed {
                incarnation: found.incarnation,
                reason,
            };
            return one(about(place, AgentVerb::Removed, agent, removed));
        }
        let stopping = stop_of(found, grace_ms, StopThen::Remove, reason);
        one(about(place, AgentVerb::Stopping, agent, stopping))
    }

    pub(super) fn restart(
        &self,
        place: Place,
        agent: AgentId,
        order: &RestartAgent,
        plan: &Plan,
    ) -> Outcome {
        let swarm = self.open_swarm(place)?;
        let found = known_agent(swarm, agent)?;
        let reason = order.reason.as_deref().unwrap_or("restarted by command");
        let reason = words("reason", reason)?;
        let grace_ms = grace(swarm, order.force, order.grace_ms)?;
        let Some(managed) = found.managed.as_ref().filter(|m| m.has_adapter()) else {
            return Err(
                Problem::new("by-hand", "the agent's process was started by hand")
                    .field("agent")
                    .cure("restart its process yourself"),
            );
        };
        if found.is_leaving() {
            return Err(going(found));
        }
        if !managed.wanted && !managed.ended {
            return Err(gone(found));
        }
        if found.draining.is_some() && !order.force {
            return Err(going(found));
        }
        // One that had ended takes up its place and its name again.
        let Some(joining) = promise(swarm, agent, &found.profile.agent_name, plan)? else {
            return Ok(Answer::Wait);
        };
        let stopping = stop_of(found, grace_ms, StopThen::Restart, reason);
        let decision = about(place, AgentVerb::Stopping, agent, stopping);
        Ok(Answer::Join(Box::new(decision), joining))
    }

    pub(super) fn update_agent(
        &self,
        place: Place,
        agent: AgentId,
        order: &UpdateAgent,
        plan: &Plan,
    ) -> Outcome {
        let swarm = self.open_swarm(place)?;
        let found = known_agent(swarm, agent)?;
        if !found.holds_place() {
            return Err(gone(found));
        }
        if order.incarnation.is_some_and(|n| n != found.incarnation) {
            return Err(Problem::new(
                "other-incarnation",
                format!("the agent is in incarnation {} now", found.incarnation),
            )
            .field("incarnation"));
        }
        let profile = canonical(patched(&found.profile, &order.patch)?);
        check::profile(&profile)?;
        let Some(joining) = promise(swarm, agent, &profile.agent_name, plan)? else {
            return Ok(Answer::Wait);
        };
        let updated = Updated {
            incarnation: found.incarnation,
            profile,
        };
        let decision = about(place, AgentVerb::Updated, agent, updated);
        Ok(Answer::Join(Box::new(decision), joining))
    }
}

/// The word by which an agent is told to go: with what there is of it.
pub(super) fn stop_of(agent: &Agent, grace_ms: u64, then: StopThen, reason: String) -> Stopping {
    let managed = agent.managed.as_ref().filter(|m| m.has_process());
    Stopping {
        incarnation: if agent.is_live() {
            agent.incarnation
        } else {
            0
        },
        spawn: managed.map_or(0, |m| m.spawn),
        grace_ms,
        then,
        reason,
    }
}

fn known_agent(swarm: &Swarm, agent: AgentId) -> Result<&Agent, Problem> {
    swarm.agents.get(&agent).ok_or_else(|| {
        Problem::new("unknown-agent", format!("the swarm has no agent {agent}")).field("agent")
    })
}

fn gone(agent: &Agent) -> Problem {
    let reason = agent.left_reason.as_deref().unwrap_or("stopped");
    Problem::new("already-stopped", format!("the agent is gone ({reason})")).field("agent")
}

fn going(agent: &Agent) -> Problem {
    let until = match &agent.draining {
        Some(draining) => format!(" and has until {}", draining.due()),
        None => String::new(),
    };
    Problem::new(
        "already-stopping",
        format!("the agent has been told to go{until}"),
    )
    .field("agent")
    .cure("wait for it, or use force")
}

/// How long an agent may take to go, in milliseconds.
fn grace(swarm: &Swarm, force: bool, grace_ms: Option<u64>) -> Result<u64, Problem> {
    let wanted = grace_ms.unwrap_or(swarm.configuration.drain_grace_ms);
    check::range("grace_ms", wanted, 0, TIMEOUT_MS_MAX)?;
    match (force, grace_ms) {
        (true, Some(1..)) => Err(Problem::new("contradiction", "force leaves no time")
            .field("grace_ms")
            .cure("leave out one of force and grace_ms")),
        (true, _) => Ok(0),
        (false, _) => Ok(wanted),
    }
}

/// Why an agent is not added a second time. A gateway takes `already-exists` for success.
fn repeated(agent: AgentId, found: &Agent, order: &AddAgent, content: u128) -> Problem {
    if let Some(managed) = &found.managed {
        let (same, keyed) = match (&managed.body_sha256, &order.body_sha256) {
            (Some(first), Some(second)) => (first == second, true),
            _ => (managed.content == content, false),
        };
        if same {
            let detail = format!("agent {agent} was added by the same request");
            return Problem::new("already-exists", detail).field("id");
        }
        if keyed {
            return Problem::new(
                "key-reused",
                format!("agent {agent} was added under this Idempotency-Key with another body"),
            )
            .field("Idempotency-Key")
            .cure("send the same body, or choose a new key");
        }
    }
    Problem::new("id-taken", format!("the swarm has an agent {agent}"))
        .field("id")
        .cure("choose a new id")
}

/// A profile under a merge patch.
fn patched(profile: &Profile, patch: &Json) -> Result<Profile, Problem> {
    let Value::Object(patch) = patch.to_value() else {
        return Err(Problem::new("wrong-type", "must be an object")
            .field("patch")
            .cure("give an object with what is to change"));
    };
    let mut profile = profile.clone();
    for (field, value) in patch {
        match (field.as_str(), value) {
            ("metadata", Value::Null) => profile.metadata = Json::object(),
            ("metadata", value) => {
                let mut whole = profile.metadata.to_value();
                merge(&mut whole, value);
                profile.metadata = whole.into();
            }
            ("agent_name" | "capabilities" | "slots" | "waiting", Value::Null) => {
                return Err(
                    Problem::new("null", "cannot be reset: an agent always has it")
                        .field(field)
                        .cure("give a value, or leave it out"),
                );
            }
            ("agent_name", Value::String(name)) => profile.agent_name = name,
            ("agent_name", _) => return Err(wrong_type(field, "a text")),
            ("capabilities", Value::Array(items)) => {
                let texts = items.into_iter().enumerate().map(|(n, item)| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(wrong_type(format!("capabilities[{n}]"), "a text")),
                });
                profile.capabilities = texts.collect::<Result<_, _>>()?;
            }
            ("capabilities", _) => return Err(wrong_type(field, "a list of texts")),
            ("slots", value) => profile.slots = number(field, &value)?,
            ("waiting", value) => profile.waiting = number(field, &value)?,
            (_, _) => {
                return Err(Problem::new(
                    "unknown-field",
                    "is no field of an agent that can be changed",
                )
                .field(field)
                .cure("change agent_name, capabilities, slots, waiting or metadata"));
            }
        }
    }
    Ok(profile)
}

fn wrong_type(field: impl Into<String>, what: &str) -> Problem {
    Problem::new("wrong-type", format!("must be {what}")).field(field)
}

fn number(field: String, value: &Value) -> Result<u32, Problem> {
    let found = value.as_u64().and_then(|n| u32::try_from(n).ok());
    found.ok_or_else(|| wrong_type(field, "a whole number that is not negative"))
}

/// RFC 7396. As deep as serde_json reads, which bounds it.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(object) = target.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            object.remove(&key);
        } else {
            merge(object.entry(key).or_insert(Value::Null), value);
        }
    }
}
