//! Topologies: an order to change one, and what the state demands by itself: seats for those who came, elections, the steps of
//! a change until it holds or is given up, and suggestions.
//!
//! A change goes in steps, so that the new topology is whole before it holds: `topology_planned`, a seat for every live agent,
//! `topology_changed`. Until then the old one holds, and agents that come meanwhile are seated in both.

use swarm_events::{
    Json, Place, Problem, Timestamp,
    command::ChangeTopology,
    decider::Decision,
    planted::{self, Bug},
    subject::{AgentVerb, SwarmVerb},
    topology::{LeaderElected, Topology, TopologyChanged, TopologyKept, TopologyPlanned},
};
use swarm_topology::{Planned, lacking};

use super::{
    Outcome,
    join::{about, words},
    one,
    swarm::about as about_swarm,
};
use crate::{
    Coordinator, Plan, Swarm,
    plan::{Scopes, SwarmKey},
    settling::{Flight, Settling, topology_scope},
    topology::{ChangeUnderWay, TOPOLOGY_CHANGE_MS_MAX},
};

/// A patch that is left out changes nothing.
pub(super) fn options(patch: &Json) -> Json {
    if patch.is_null() {
        Json::object()
    } else {
        patch.clone()
    }
}

impl Coordinator {
    pub(super) fn change_topology(&self, place: Place, order: &ChangeTopology) -> Outcome {
        let swarm = self.open_swarm(place)?;
        let reason = words("reason", order.reason.as_deref().unwrap_or("by order"))?;
        let (after, planned) = swarm.preview(order.topology, &options(&order.configuration))?;
        one(plan_of(swarm, after, &planned, reason))
    }

    /// What a rule of adaptation demanded when it spoke. What has come between refuses it.
    pub(super) fn adapt(&self, place: Place, after: &Topology, reason: &str) -> Outcome {
        let swarm = self.open_swarm(place)?;
        let (after, planned) = swarm.preview(after.kind(), &after.configuration())?;
        one(plan_of(swarm, after, &planned, reason.to_owned()))
    }

    /// Writes what the swarms' topologies demand.
    pub(super) fn settle(
        &self,
        plan: &mut Plan,
        waiting: &Scopes,
        room: &mut usize,
        out: &mut Vec<Decision>,
    ) {
        let unsettled: Vec<SwarmKey> = plan.topologies.unsettled.iter().copied().collect();
        for key in unsettled {
            if *room == 0 {
                return;
            }
            let scope = topology_scope(key);
            if !plan.is_free(&scope) || !waiting.free(&scope) {
                continue;
            }
            let found = self.swarm(key.0, key.1).filter(|s| s.deleted_at.is_none());
            let Some((swarm, settling)) =
                found.and_then(|swarm| Some((swarm, plan.topologies.by_swarm.get_mut(&key)?)))
            else {
                plan.topologies.unsettled.remove(&key);
                continue;
            };
            let Some(decisions) = next(swarm, settling, self.head.now, *room) else {
                plan.topologies.unsettled.remove(&key);
                continue;
            };
            *room -= decisions.len().min(*room);
            for (flight, decision) in decisions {
                out.push(decision);
                plan.start_settling(key, flight);
            }
        }
    }
}

/// What is to be written next: nothing yet (an empty list), or nothing at all.
fn next(
    swarm: &Swarm,
    settling: &mut Settling,
    now: Timestamp,
    room: usize,
) -> Option<Vec<(Flight, Decision)>> {
    if !swarm.is_open() || swarm.settle_aside {
        settling.todo.clear();
        let change = swarm.change.as_ref()?;
        if settling.is_under_way() {
            return Some(Vec::new());
        }
        let problem = if swarm.is_open() {
            Problem::new("stuck", "deciding on it failed").cure("order another one")
        } else {
            Problem::new("swarm-stopping", "the swarm is being terminated")
        };
        return Some(vec![kept(swarm, change, problem)]);
    }
    if !settling.todo.is_empty() {
        return Some(seats(swarm, settling, room));
    }
    if settling.is_under_way() {
        return Some(Vec::new());
    }
    let standing = settling.changes(&swarm.shape);
    if !standing.is_empty() {
        let generation = swarm.shape.generation();
        settling.todo = standing.into_iter().map(|c| (generation, c)).collect();
        return Some(seats(swarm, settling, room));
    }
    settling.is_settled();
    if let Some(election) = swarm.shape.elect(&settling.members) {
        let incarnation = |id| swarm.agents.get(&id).map_or(0, |agent| agent.incarnation);
        let elected = LeaderElected {
            leader: election.leader,
            incarnation: election.leader.map_or(0, incarnation),
            before: swarm.shape.leader(),
            reason: election.reason,
            eligible: election.eligible,
        };
        let decision = about_swarm(swarm.place, SwarmVerb::LeaderElected, elected).uncaused();
        return Some(vec![(Flight::Leader, decision)]);
    }
    if let Some(change) = &swarm.change {
        return Some(go_on(swarm, change, settling, now, room));
    }
    settling.is_staged();
    let suggestion = swarm.suggestion()?;
    let decision = about_swarm(swarm.place, SwarmVerb::TopologySuggested, suggestion).uncaused();
    Some(vec![(Flight::Suggestion, decision)])
}

/// The next step of a change.
fn go_on(
    swarm: &Swarm,
    change: &ChangeUnderWay,
    settling: &mut Settling,
    now: Timestamp,
    room: usize,
) -> Vec<(Flight, Decision)> {
    // A swarm without agents may be prepared for those that it names.
    if !settling.members.is_empty()
        && let Some(problem) = lacking(&change.after, &settling.members)
    {
        return vec![kept(swarm, change, problem)];
    }
    let staged = settling.staged_changes(&swarm.shape);
    if staged.is_empty() || planted::is(Bug::ChangedTooSoon) {
        settling.is_staged();
        return vec![changed(swarm, change)];
    }
    if now >= change.due() {
        let detail = format!(
            "{} of {} agents have their place in it after {TOPOLOGY_CHANGE_MS_MAX} ms",
            swarm
                .shape
                .staged()
                .map_or(0, swarm_topology::Generation::len),
            settling.members.len(),
        );
        let problem = Problem::new("too-slow", detail)
            .field("topology")
            .cure("order it again");
        return vec![kept(swarm, change, problem)];
    }
    let generation = change.generation;
    settling.todo = staged.into_iter().map(|c| (generation, c)).collect();
    seats(swarm, settling, room)
}

fn seats(swarm: &Swarm, settling: &mut Settling, room: usize) -> Vec<(Flight, Decision)> {
    let count = settling.todo.len().min(room);
    let next = settling.todo.drain(..count);
    next.map(|(generation, change)| {
        let flight = Flight::Seat(generation, change.agent);
        let seated = change.seated(generation);
        let decision = about(swarm.place, AgentVerb::Seated, change.agent, seated);
        let staged = swarm.change.as_ref();
        let staged = staged.filter(|change| change.generation == generation);
        let decision = match staged {
            Some(change) => decision
                .caused_by(change.planned)
                .correlated(change.correlation),
            None => decision.uncaused(),
        };
        (flight, decision)
    })
    .collect()
}

fn plan_of(swarm: &Swarm, after: Topology, planned: &Planned, reason: String) -> Decision {
    let body = TopologyPlanned {
        generation: planned.generation,
        before: swarm.topology().clone(),
        after,
        agents: planned.agents,
        moves: planned.moves,
        reason,
    };
    about_swarm(swarm.place, SwarmVerb::TopologyPlanned, body)
}

fn changed(swarm: &Swarm, change: &ChangeUnderWay) -> (Flight, Decision) {
    let agents = swarm
        .shape
        .staged()
        .map_or(0, swarm_topology::Generation::len);
    let body = TopologyChanged {
        generation: change.generation,
        before: swarm.topology().clone(),
        after: change.after.clone(),
        agents: u32::try_from(agents).unwrap_or(u32::MAX),
        moves: swarm.shape.staged_moves(),
        reason: change.reason.clone(),
    };
    let decision = about_swarm(swarm.place, SwarmVerb::TopologyChanged, body);
    (Flight::End, caused(decision, change))
}

fn kept(swarm: &Swarm, change: &ChangeUnderWay, problem: Problem) -> (Flight, Decision) {
    let body = TopologyKept {
        generation: change.generation,
        kept: swarm.topology().clone(),
        problem,
    };
    let decision = about_swarm(swarm.place, SwarmVerb::TopologyKept, body);
    (Flight::End, caused(decision, change))
}

fn caused(decision: Decision, change: &ChangeUnderWay) -> Decision {
    let decision = decision.correlated(change.correlation);
    match change.cause {
        Some(cause) => decision.caused_by(cause),
        None => decision.uncaused(),
    }
}
