//! What is promised of a ring: the order of its tasks, and the way of its token.

use swarm_events::{AgentId, TaskId, Timestamp, task::Assigned, topology::RingOrder};

use super::{
    cause::{Seen, Standing, View},
    routes::sits_for,
    swarm::Swarm,
};

/// Tasks before the one that is assigned that are looked at: those that nobody can take stay in front.
const ORDER_LOOK_MAX: usize = 256;

/// What is wrong with an assignment in a ring, for someone who had met everything up to `cause`.
pub(super) fn out_of_turn(
    swarm: &Swarm,
    view: &View,
    (agent, id): (AgentId, TaskId),
    seen: &Seen,
    assigned: &Assigned,
    (cause, now): (u64, Timestamp),
) -> Option<String> {
    let Some(ring) = view.ring() else {
        return assigned
            .turn
            .map(|turn| format!("{id} is assigned in turn {turn}, and there is no ring"));
    };
    let Some(turn) = assigned.turn else {
        return Some(format!("{id} is assigned out of turn"));
    };
    if view.promises() > 0 {
        return Some(format!("{id} is assigned, and another turn was under way"));
    }
    if let Some(token) = view.token {
        if turn <= token.turn {
            return Some(format!("turn {turn} comes after turn {}", token.turn));
        }
        let over = token.since.plus_millis(ring.token_timeout_ms);
        let stands = view.tasks.get(&token.task).is_some_and(|seen| {
            matches!(seen.standing, Standing::Held { assignment, .. } if assignment == token.assignment)
        });
        if stands && now < over {
            return Some(format!(
                "{id} is assigned at {now}, and agent {} has the token for {} until {over}",
                token.agent, token.task
            ));
        }
        if token.task != id
            && ring.order == RingOrder::Sequential
            && let Some(other) = passed_over(swarm, view, token.place, agent, id, seen, cause)
        {
            return Some(format!(
                "the token goes from agent {} to agent {agent}, and agent {other} is between them",
                token.agent
            ));
        }
        if token.task == id && token.agent == agent {
            // Another attempt, before all others.
            return None;
        }
    }
    let before = view.by_submission.iter().take(ORDER_LOOK_MAX);
    let mut before = before.take_while(|(submitted, _)| *submitted < seen.facts.submitted);
    let (_, other) = before.find(|(_, other)| {
        view.tasks.get(other).is_some_and(|waits| {
            view.agents
                .keys()
                .any(|agent| may_take(swarm, view, *agent, *other, waits, cause))
        })
    })?;
    Some(format!(
        "{id} is assigned, and {other} was submitted before it"
    ))
}

/// Whether an agent surely could be given a task.
fn may_take(
    swarm: &Swarm,
    view: &View,
    agent: AgentId,
    id: TaskId,
    waits: &Seen,
    cause: u64,
) -> bool {
    let post = view.agents.get(&agent);
    post.is_some_and(|post| {
        !post.lapsed && post.load() == 0 && post.slots > 0 && post.can(&waits.facts.required)
    }) && !swarm.has_declined(agent, id)
        && swarm.works_at(&agent, cause)
        && sits_for(swarm, view, agent, &waits.facts, cause)
}

/// Who is between a place in the circle and an agent and could have been given it.
fn passed_over(
    swarm: &Swarm,
    view: &View,
    from: Option<u64>,
    to: AgentId,
    id: TaskId,
    seen: &Seen,
    cause: u64,
) -> Option<AgentId> {
    let shape = view.shape.as_deref()?;
    // A place in the circle is not known.
    let from = from?;
    shape.seat(to)?;
    let next = shape.next_after_place(Some(from), |agent| {
        agent == to || may_take(swarm, view, agent, id, seen, cause)
    })?;
    (next != to).then_some(next)
}
