//! What is promised of topologies in the choice of agents: who may take what, and who may take over from whom.

use swarm_events::{
    AgentId, TaskId, Timestamp,
    task::{Assigned, Then, Withdrawn},
    topology::{Role, Topology},
};

use super::{
    cause::{Asked, Facts, Post, View},
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

/// An agent for which `is` holds, that may have been live: only who was none surely is out.
fn anyone(swarm: &Swarm, view: &View, cause: u64, is: impl Fn(AgentId, &Post) -> bool) -> bool {
    let mut posts = view.agents.iter();
    posts.any(|(id, post)| {
        let agent = swarm.agents.get(id);
        agent.is_some_and(|agent| agent.may_be_live_at(cause)) && is(*id, post)
    })
}

/// Whether an agent's seat is one for a task.
enum Fit {
    Yes,
    No(String),
    /// It hangs on whether another agent was live, which cannot be told surely.
    Unclear,
}

fn fit(
    swarm: &Swarm,
    view: &View,
    agent: AgentId,
    (required, wanted, within): (&[String], Option<Role>, Option<AgentId>),
    declined: impl Fn(AgentId) -> bool,
    cause: u64,
) -> Fit {
    let Some(shape) = view.shape.as_deref() else {
        return Fit::Yes;
    };
    let mut unclear = false;
    if let Some(wanted) = wanted {
        if role(view, agent) != Some(wanted) {
            // The leader stands in where nobody has the role.
            if shape.leader() != Some(agent) {
                return Fit::No(format!("it is no {}", wanted.as_str()));
            }
            let has = |id, _: &Post| role(view, id) == Some(wanted);
            if let Some(other) = someone(swarm, view, cause, has) {
                return Fit::No(format!("agent {other} is a {}", wanted.as_str()));
            }
            unclear |= anyone(swarm, view, cause, has);
        }
    } else if !shape.works(agent) {
        return Fit::No("its seat is not one for work".to_owned());
    }
    // Parts of the tree there are in a tree only.
    let tree = matches!(shape.topology(), Topology::Hierarchical(_));
    if let Some(top) = within.filter(|top| tree && !shape.is_below(*top, agent)) {
        let able = |id, post: &Post| shape.is_below(top, id) && post.can(required);
        let takes = |id| match wanted {
            Some(wanted) => role(view, id) == Some(wanted),
            None => shape.works(id),
        };
        let surely = |id, post: &Post| able(id, post) && takes(id) && !declined(id);
        if let Some(other) = someone(swarm, view, cause, surely) {
            return Fit::No(format!(
                "it is to be done below {top}, where agent {other} is"
            ));
        }
        let stands_in = |id| wanted.is_some() && shape.leader() == Some(id);
        unclear |= anyone(swarm, view, cause, |id, post| {
            able(id, post) && (takes(id) || stands_in(id))
        });
    }
    if unclear { Fit::Unclear } else { Fit::Yes }
}

/// Why an agent's seat surely is not one for a task.
pub(super) fn misrouted(
    swarm: &Swarm,
    view: &View,
    (agent, task): (AgentId, TaskId),
    facts: &Facts,
    cause: u64,
) -> Option<String> {
    let asked = (&*facts.required, facts.role, facts.within);
    let declined = |other| swarm.has_declined(other, task);
    match fit(swarm, view, agent, asked, declined, cause) {
        Fit::No(wrong) => Some(wrong),
        Fit::Yes | Fit::Unclear => None,
    }
}

/// Whether an agent's seat surely is one for tasks that ask for this.
pub(super) fn sits(swarm: &Swarm, view: &View, agent: AgentId, asked: &Asked, cause: u64) -> bool {
    let asked = (&*asked.0, asked.1, asked.2);
    matches!(fit(swarm, view, agent, asked, |_| false, cause), Fit::Yes)
}
/// The same of a task.
pub(super) fn sits_for(
    swarm: &Swarm,
    view: &View,
    agent: AgentId,
    facts: &Facts,
    cause: u64,
) -> bool {
    let asked = (&*facts.required, facts.role, facts.within);
    matches!(fit(swarm, view, agent, asked, |_| false, cause), Fit::Yes)
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
