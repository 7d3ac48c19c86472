//! How many agents a swarm has: by order, and at least as many as its settings want.

use std::cmp::Reverse;

use swarm_events::{
    AgentId, Place, Problem,
    agent::{Added, TYPE_CHARS_MAX},
    command::Scale,
    decider::Decision,
    planted::{self, Bug},
    subject::{AgentVerb, SwarmVerb},
    swarm::{SCALE_STEP_MAX, Scaled},
};
use uuid::Uuid;

use super::{
    Outcome,
    join::{about, most_agents, room_for, words},
    one,
    swarm::about as about_swarm,
};
use crate::{
    Agent, Coordinator, Plan, Swarm, check,
    membership::derived_name,
    plan::{Scopes, swarm_scope},
    scale::{agent_of, copied},
};

impl Coordinator {
    pub(super) fn scale(&self, place: Place, order: &Scale, command: Uuid) -> Outcome {
        let swarm = self.open_swarm(place)?;
        let reason = words("reason", order.reason.as_deref().unwrap_or("by order"))?;
        let kind = order.agent_type.as_deref();
        if let Some(kind) = kind {
            check::text("agent_type", kind, TYPE_CHARS_MAX)?;
        }
        let mut counted: Vec<(&AgentId, &Agent)> = swarm.agents.iter().collect();
        counted.retain(|(_, agent)| agent.is_scaled());
        let all = counted.len();
        counted.retain(|(_, agent)| kind.is_none_or(|kind| agent.profile.agent_type == kind));
        let before = counted.len();
        let (field, desired) = desired(order, before)?;
        let step = desired.abs_diff(before);
        if step > SCALE_STEP_MAX {
            let detail = format!("{step} agents at once, at most {SCALE_STEP_MAX} are allowed");
            return Err(Problem::new("too-many", detail)
                .field(field)
                .cure("go there in several steps"));
        }
        within_limits(swarm, field, all - before + desired)?;
        let mut scaled = Scaled {
            before: count(before),
            desired: count(desired),
            like: None,
            add: Vec::new(),
            remove: Vec::new(),
            reason,
        };
        if desired > before {
            room_for(swarm, step)?;
            let like = alike(swarm, kind).ok_or_else(nothing_alike)?;
            scaled.add = new_agents(swarm, like, command, 0, step);
            scaled.like = Some(like);
        } else {
            counted.sort_by_key(|(id, agent)| (rank(agent), Reverse(age(agent)), Reverse(**id)));
            scaled.remove = counted.iter().take(step).map(|(id, _)| **id).collect();
        }
        one(about_swarm(place, SwarmVerb::Scaled, scaled))
    }

    /// Adds agents to swarms that have fewer than they are to have at least.
    pub(super) fn fill_up(
        &self,
        plan: &mut Plan,
        waiting: &mut Scopes,
        room: &mut usize,
        out: &mut Vec<Decision>,
    ) {
        let short: Vec<_> = plan.short.iter().copied().collect();
        for key in short {
            if *room == 0 {
                return;
            }
            let scope = swarm_scope(key);
            if !plan.is_free(&scope) {
                // What comes in goes on behind it, or it might never come to it.
                waiting.hold(&scope);
                continue;
            }
            let Some((swarm, like)) = self
                .swarm(key.0, key.1)
                .and_then(|swarm| Some((swarm, swarm.template?)))
            else {
                continue;
            };
            let missing = swarm.missing().min(*room);
            let Some(spec) = swarm.spec_of(like).filter(|_| missing > 0) else {
                continue;
            };
            let ids = new_agents(swarm, like, key.1.0, swarm.made, missing);
            for id in &ids {
                let mut spec = copied(spec);
                spec.agent_name = Some(derived_name(&spec.agent_type, *id));
                let reason = "min_agents".to_owned();
                let added = Added { spec, reason };
                out.push(about(swarm.place, AgentVerb::Added, *id, added).uncaused());
            }
            *room -= ids.len();
            plan.start_short(key, ids.len());
        }
    }
}

impl Swarm {
    /// How many agents are to be added so that there are as many as there are to be at least.
    pub(crate) fn missing(&self) -> usize {
        if !self.is_open() || self.template.is_none() || planted::is(Bug::MinAgentsForgotten) {
            return 0;
        }
        let least = usize::try_from(self.configuration.min_agents).unwrap_or(usize::MAX);
        let room = most_agents(self).1.saturating_sub(self.places_taken());
        least.saturating_sub(self.tally.standing).min(room)
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The field that says how many agents there are to be, and the number.
fn desired(order: &Scale, before: usize) -> Result<(&'static str, usize), Problem> {
    match (order.desired, order.delta) {
        (Some(desired), None) => Ok(("desired", usize::try_from(desired).unwrap_or(usize::MAX))),
        (None, Some(delta)) => {
            let sum = i64::try_from(before).unwrap_or(i64::MAX).checked_add(delta);
            let sum = sum.and_then(|sum| usize::try_from(sum).ok());
            let sum = sum.ok_or_else(|| {
                let detail = format!("{delta} to {before} agents is no number of agents");
                Problem::new("out-of-range", detail)
                    .field("delta")
                    .cure(format!("take away at most {before}"))
            })?;
            Ok(("delta", sum))
        }
        (Some(_), Some(_)) => Err(Problem::new("contradiction", "desired is given, too")
            .field("delta")
            .cure("give exactly one of desired and delta")),
        (None, None) => Err(
            Problem::new("missing", "neither desired nor delta is given")
                .field("desired")
                .cure("give exactly one of desired and delta"),
        ),
    }
}

/// Whether the swarm may have so many agents in all.
fn within_limits(swarm: &Swarm, field: &str, total: usize) -> Result<(), Problem> {
    let least = usize::try_from(swarm.configuration.min_agents).unwrap_or(usize::MAX);
    let (name, most) = most_agents(swarm);
    let (code, limit, words) = if total < least {
        ("min_agents", least, "fewer than")
    } else if total > most {
        (name, most, "more than")
    } else {
        return Ok(());
    };
    let detail = format!("the swarm would have {total} agents, {words} the {limit} of {code}");
    Err(Problem::new(&code.replace('_', "-"), detail)
        .field(field)
        .cure(format!("change the swarm's {code}, or the number")))
}

/// The agent whose settings new ones get: the one with an adapter that was added last.
fn alike(swarm: &Swarm, kind: Option<&str>) -> Option<AgentId> {
    let Some(kind) = kind else {
        return swarm.template;
    };
    let of_kind = swarm.agents.iter().filter_map(|(id, agent)| {
        let managed = agent.managed.as_ref().filter(|m| m.has_adapter())?;
        (managed.spec.agent_type == kind).then_some((managed.added_seq, *id))
    });
    of_kind.max().map(|(_, id)| id)
}

fn nothing_alike() -> Problem {
    Problem::new(
        "nothing-alike",
        "no agent that a host starts was added yet, after which new ones could be made",
    )
    .field("agent_type")
    .cure("add one first: POST /swarms/{id}/agents with a command")
}

/// The next `n` free ids that `cause` leads to.
fn new_agents(swarm: &Swarm, like: AgentId, cause: Uuid, from: u64, n: usize) -> Vec<AgentId> {
    let kind = swarm
        .agents
        .get(&like)
        .map(|a| a.profile.agent_type.as_str());
    let kind = kind.unwrap_or_default();
    let ids = (from..).map(|index| agent_of(cause, index));
    ids.filter(|id| swarm.is_free(*id, kind)).take(n).collect()
}

/// Who goes first: given up, then never joined, then the other ones that were added, then those that came by themselves.
fn rank(agent: &Agent) -> u8 {
    match &agent.managed {
        Some(managed) if managed.is_given_up() => 0,
        Some(_) if agent.incarnation == 0 => 1,
        Some(_) => 2,
        None => 3,
    }
}

/// The sequence since which it has been there.
fn age(agent: &Agent) -> u64 {
    agent
        .managed
        .as_ref()
        .map_or(agent.joined_seq, |managed| managed.added_seq)
}
