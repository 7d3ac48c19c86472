//! What is promised of topologies in the choice of agents: who may take what, and who may take over from whom.

use swarm_events::{
    AgentId, Timestamp,
    task::{Assigned, Then, Withdrawn},
    topology::{Role, Topology},
};

use super::{
    cause::{Facts, Post, View},
    swarm::Swarm,
};

/// The role of an agent's seat. In a star those without one are workers, as agents were before there were seats.
fn role(view: &View, agent: AgentId) -> Option<Role> {
    let shape = view.shape.as_deref()?;
    let star = matches!(shape.topology(), Topology::Star(_));
    shape.role(agent).or(star.then_some(Role::Worker))
}

/// An agent for which `is` holds, that surely was to get work as usual.
fn someone(
    swarm: &Swarm,
    view: &View,
    cause: u64,
    is: impl Fn(AgentId, &Post) -> bool,
) -> Option<AgentId> {
    let mut posts = view.agents.iter();
    posts
        .find(|(id, post)| !post.lapsed && is(**id, post) && swarm.works_at(id, cause))
        .map(|(id, _)| *id)
}

/// Why an agent's seat is not one for a task that asks for this role, and for a place below this agent. Where it cannot be
/// told surely, it is.
pub(super) fn off_limits(
    swarm: &Swarm,
    view: &View,
    agent: AgentId,
    (wanted, within): (Option<Role>, Option<AgentId>),
    cause: u64,
) -> Option<String> {
    let shape = view.shape.as_deref()?;
    if let Some(wanted) = wanted {
        if role(view, agent) != Some(wanted) {
            // The leader stands in where nobody has the role.
            if shape.leader() != Some(agent) {
                return Some(format!("it is no {}", wanted.as_str()));
            }
            let other = someone(swarm, view, cause, |id, _| role(view, id) == Some(wanted));
            if let Some(other) = other {
                return Some(format!("agent {other} is a {}", wanted.as_str()));
            }
        }
    } else if !shape.works(agent) {
        return Some("its seat is not one for work".to_owned());
    }
    let top = within.filter(|top| !shape.is_below(*top, agent))?;
    let below = |id, _: &Post| shape.is_below(top, id) && shape.works(id);
    let other = someone(swarm, view, cause, below)?;
    Some(format!(
        "it is to be done below {top}, where agent {other} is"
    ))
}

/// The same of a task.
pub(super) fn misrouted(
    swarm: &Swarm,
    view: &View,
    agent: AgentId,
    facts: &Facts,
    cause: u64,
) -> Option<String> {
    off_limits(swarm, view, agent, (facts.role, facts.within), cause)
}

/// What is wrong with the way that an assignment is said to have come down a tree.
pub(super) fn astray(view: &View, agent: AgentId, assigned: &Assigned) -> Option<String> {
    let shape = view.shape.as_deref()?;
    let path = match shape.topology() {
        Topology::Hierarchical(_) => shape.path(agent),
        _ => Vec::new(),
    };
    (assigned.path != path).then(|| {
        format!(
            "it is said to have come by {:?}, and comes by {path:?}",
            assigned.path
        )
    })
}

/// Why a thief may not take over from an agent by the topology, what waits there since `at`.
pub(super) fn no_thief(
    view: &View,
    thief: AgentId,
    holder: AgentId,
    (at, now): (Timestamp, Timestamp),
) -> Option<String> {
    let shape = view.shape.as_deref()?;
    if !shape.may_steal(thief, holder) {
        return Some(format!("the topology does not let agent {thief}"));
    }
    let Topology::Mesh(mesh) = shape.topology() else {
        return None;
    };
    let round = i64::try_from(mesh.gossip_interval_ms.saturating_mul(1_000)).ok()?;
    let of = |time: Timestamp| time.as_micros().checked_div_euclid(round);
    let (told, now) = (of(at)?, of(now)?);
    (told == now).then(|| "nobody has been told that it waits there".to_owned())
}

/// What is wrong with a withdrawal because of the topology.
pub(super) fn taken_in_vain(
    view: &View,
    agent: AgentId,
    facts: &Facts,
    (started, by_turn): (bool, bool),
    withdrawn: &Withdrawn,
) -> Option<String> {
    if withdrawn.force || withdrawn.then != Then::Queue {
        return Some("it must have no force and lead back to the queue".to_owned());
    }
    if started {
        return Some("it had started".to_owned());
    }
    let shape = view.shape.as_deref()?;
    let fits = match facts.role {
        Some(wanted) => role(view, agent) == Some(wanted) || shape.leader() == Some(agent),
        None => shape.works(agent),
    };
    (fits && (by_turn || !view.is_ring())).then(|| "its agent may have it".to_owned())
}

/// Whether two agents are in one group, within which an algorithm chooses.
pub(super) fn together(view: &View, one: AgentId, other: AgentId) -> bool {
    match view.shape.as_deref() {
        Some(shape) if matches!(shape.topology(), Topology::Hierarchical(_)) => {
            shape.group(one) == shape.group(other)
        }
        _ => true,
    }
}
