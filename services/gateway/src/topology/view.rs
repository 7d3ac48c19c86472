//! The shape of a swarm as the fold has it.

use std::collections::BTreeMap;

use swarm_coordinator_core::Swarm;
use swarm_events::AgentId;
use swarm_topology::Shape;

use super::{
    answer::{
        ChangeUnderWay, Edge, ElectionAnswer, LastChange, Move, Node, Place as Seated, Shown,
        Suggestion, TopologyAnswer, Traffic, time,
    },
    traffic::{Counts, Rates},
};
use crate::{
    agents::view::status_of,
    app::TailState,
    fold::{Fold, changes::Changes},
};

/// Most edges that are shown: a full mesh of 141 agents has so many, and nobody looks at more of them one by one.
pub const EDGES_MAX: usize = 10_000;
/// Most moves that are shown.
pub const MOVES_MAX: usize = 1_000;

/// What is said.
pub(super) struct Said {
    pub(super) kept: Option<Counts>,
    pub(super) rates: Option<Rates>,
}

impl Said {
    fn per_second(&self, count: impl FnOnce(&Counts) -> u64) -> Option<f64> {
        let rates = self.rates.as_ref()?;
        Some(rates.per_second(count(&rates.counts)))
    }
}

/// The whole answer.
pub(super) fn of(fold: &Fold, swarm: &Swarm, said: &Said, tail: TailState) -> TopologyAnswer {
    let shape = &swarm.shape;
    let nothing = Changes::default();
    let changes = fold.changes(swarm.place).unwrap_or(&nothing);
    let mut edges: Vec<Edge> = shape
        .edges()
        .take(EDGES_MAX + 1)
        .map(|(from, to)| edge(from, to, said))
        .collect();
    let edges_truncated = edges.len() > EDGES_MAX;
    edges.truncate(EDGES_MAX);
    let election = changes.election.as_ref().map(|election| ElectionAnswer {
        at: time(election.at),
        reason: election.reason.clone(),
        eligible: election.eligible,
    });
    TopologyAnswer {
        swarm_id: swarm.place.swarm.0,
        shown: Shown::from(shape.topology()),
        generation: shape.generation(),
        leader_agent_id: shape.leader().map(|leader| leader.0),
        election,
        nodes: nodes(fold, swarm, changes, said),
        edges,
        edges_truncated,
        messages: Traffic {
            kept: said.kept.as_ref().map(Counts::all),
            per_second: said.per_second(Counts::all),
            window_ms: said.rates.as_ref().map(|rates| rates.window_ms),
        },
        change: changes.planned.as_ref().map(ChangeUnderWay::from),
        last_change: changes.last.as_ref().map(LastChange::from),
        suggestions: changes.suggestions.iter().map(Suggestion::from).collect(),
        seq: fold.sequence(),
        at: time(fold.now()),
        stale_since: tail.interrupted_since,
    }
}

fn edge(from: AgentId, to: AgentId, said: &Said) -> Edge {
    Edge {
        from: from.0,
        to: to.0,
        messages: said.kept.as_ref().map(|kept| kept.between(from, to)),
        per_second: said.per_second(|counts| counts.between(from, to)),
    }
}

fn nodes(fold: &Fold, swarm: &Swarm, changes: &Changes, said: &Said) -> Vec<Node> {
    let shape = &swarm.shape;
    let measure = fold.measure(swarm.place);
    let kept = said.kept.as_ref().map(Counts::by_sender);
    let heard = said.rates.as_ref().map(|rates| rates.counts.by_sender());
    let of = |counts: &BTreeMap<AgentId, u64>, agent| counts.get(&agent).copied().unwrap_or(0);
    let seated = shape.seats().filter_map(|(id, seat)| {
        let agent = swarm.agents.get(&id)?;
        let load = measure.and_then(|measure| measure.agents.get(&id).copied());
        let load = load.unwrap_or_default();
        let rate = said.rates.as_ref().zip(heard.as_ref());
        Some(Node {
            agent_id: id.0,
            agent_name: agent.profile.agent_name.clone(),
            agent_type: agent.profile.agent_type.clone(),
            place: Seated::from(seat),
            reason: changes.reason(id).map(str::to_owned),
            is_leader: shape.leader() == Some(id),
            status: status_of(agent, load.running),
            running: load.running,
            waiting: load.waiting,
            slots: agent.profile.slots,
            messages: kept.as_ref().map(|kept| of(kept, id)),
            per_second: rate.map(|(rates, heard)| rates.per_second(of(heard, id))),
        })
    });
    let mut nodes: Vec<Node> = seated.collect();
    nodes.sort_by_key(|node| (node.place.level, node.place.place));
    nodes
}

/// Who has another place after a change than before.
pub(super) fn moves(swarm: &Swarm, before: &Shape, changes: Option<&Changes>) -> (Vec<Move>, bool) {
    let after = &swarm.shape;
    let gone = before
        .seats()
        .map(|(agent, _)| agent)
        .filter(|agent| after.seat(*agent).is_none());
    let agents = after.seats().map(|(agent, _)| agent).chain(gone);
    let moved = agents
        .filter(|agent| before.seat(*agent) != after.seat(*agent))
        .map(|agent| Move {
            agent_id: agent.0,
            agent_name: name(swarm, agent),
            before: before.seat(agent).map(Seated::from),
            after: after.seat(agent).map(Seated::from),
            reason: changes
                .and_then(|changes| changes.reason(agent))
                .unwrap_or_default()
                .to_owned(),
        });
    cut(moved)
}

/// Who would have another place.
pub(super) fn planned(swarm: &Swarm, planned: &swarm_topology::Planned) -> (Vec<Move>, bool) {
    let before = &swarm.shape;
    let moved = planned
        .changes
        .iter()
        .filter(|change| before.seat(change.agent).copied() != change.seat)
        .map(|change| Move {
            agent_id: change.agent.0,
            agent_name: name(swarm, change.agent),
            before: before.seat(change.agent).map(Seated::from),
            after: change.seat.as_ref().map(Seated::from),
            reason: change.reason.clone(),
        });
    cut(moved)
}

fn cut(moves: impl Iterator<Item = Move>) -> (Vec<Move>, bool) {
    let mut all: Vec<Move> = moves.take(MOVES_MAX + 1).collect();
    let is_cut = all.len() > MOVES_MAX;
    all.truncate(MOVES_MAX);
    (all, is_cut)
}

fn name(swarm: &Swarm, agent: AgentId) -> String {
    let found = swarm.agents.get(&agent);
    found.map_or_else(String::new, |agent| agent.profile.agent_name.clone())
}
