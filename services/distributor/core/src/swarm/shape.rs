//! The topology in the state: who may hold what, and who has a ring's token.

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Body, Place, Timestamp,
    decider::Verdict,
    topology::{Role, Topology},
};
use swarm_topology::Shape;

use super::{Moment, Swarm};
use crate::{
    agent::Agent,
    class::role_of,
    state::Distributor,
    task::{Held, Phase, Task},
    trace::Trace,
};

/// The token of a ring: the fold of its assignments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Turns so far.
    pub(crate) turns: u64,
    /// Number of the agent that had the last one.
    pub(crate) agent: Option<u32>,
    /// Its place in the circle then: it may have none any more.
    pub(crate) place: Option<u64>,
    /// The task for which it keeps the token: it holds it, or waits for another attempt at it.
    pub(crate) task: Option<u32>,
    /// When it got the token for that task.
    pub(crate) since: Timestamp,
    /// Since when nobody has kept it.
    pub(crate) free_at: Timestamp,
}

impl Swarm {
    /// A ring's options, if it is one.
    pub(crate) fn ring(&self) -> Option<&swarm_events::topology::Ring> {
        match self.shape.topology() {
            Topology::Ring(ring) => Some(ring),
            _ => None,
        }
    }

    /// Whether an agent that has not started a task is not to have it by its place in the topology.
    pub(crate) fn misplaced(&self, agent: &Agent, task: &Task, held: &Held) -> bool {
        let fits = match role_of(self.classes.get(task.class)) {
            // The leader stands in where nobody has the role.
            Some(role) => agent.role == Some(role) || self.shape.leader() == Some(agent.id),
            None => agent.works,
        };
        !fits || (!held.by_turn && self.ring().is_some())
    }

    /// Takes over what an agent's seat makes of it. In a star those who have none yet work.
    pub(crate) fn take_seat(&mut self, at: u32) {
        let Some(agent) = self.agents.get_mut(at as usize) else {
            return;
        };
        let star = matches!(self.shape.topology(), Topology::Star(_));
        agent.role = match self.shape.seat(agent.id) {
            Some(seat) => Some(seat.role),
            None => star.then_some(Role::Worker),
        };
        agent.works = self.shape.works(agent.id);
    }

    /// An event about the topology or the leader.
    pub(crate) fn reshape(&mut self, body: &Body, moment: Moment, trace: &mut Trace) -> Verdict {
        let (generation, leader) = (self.shape.generation(), self.shape.leader());
        let was_ring = self.ring().is_some();
        if let Err(why) = self.shape.apply(None, body) {
            return Verdict::Void(why);
        }
        if self.shape.generation() != generation {
            if !was_ring || self.ring().is_none() {
                self.token = Token {
                    turns: self.token.turns,
                    free_at: moment.now,
                    ..Token::default()
                };
            }
            for at in 0..self.agents.len() as u32 {
                self.take_seat(at);
            }
            self.measure_now();
            trace.swarm(self.number);
        }
        if self.shape.leader() != leader {
            for id in [leader, self.shape.leader()].into_iter().flatten() {
                if let Some(&at) = self.agent_numbers.get(&id) {
                    trace.judged(self.number, at);
                }
            }
        }
        Verdict::Applied
    }

    /// An agent's seat, in the topology that holds or in the next one.
    pub(crate) fn seated(&mut self, id: AgentId, body: &Body, trace: &mut Trace) -> Verdict {
        let before = self.shape.seat(id).copied();
        if let Err(why) = self.shape.apply(Some(id), body) {
            return Verdict::Void(why);
        }
        if self.shape.seat(id).copied() != before
            && let Some(&at) = self.agent_numbers.get(&id)
        {
            self.take_seat(at);
            trace.judged(self.number, at);
        }
        Verdict::Applied
    }

    /// An agent was given a task in a turn of the ring. Another attempt at the task for which it has the token does not give
    /// it more time.
    pub(crate) fn take_turn(&mut self, at: u32, agent: u32, turn: u64, moment: Moment) {
        if self.ring().is_none() {
            return;
        }
        let again = self.token.task == Some(at) && self.token.agent == Some(agent);
        let id = self.agents.get(agent as usize).map(|agent| agent.id);
        let place = id.and_then(|id| self.shape.seat(id)).map(|seat| seat.place);
        self.token = Token {
            turns: turn.max(self.token.turns),
            agent: Some(agent),
            place: place.or(self.token.place),
            task: Some(at),
            since: if again { self.token.since } else { moment.now },
            free_at: moment.now,
        };
    }

    /// The token passes on once its task is taken away from its agent, or given back. It stays for another attempt.
    pub(super) fn keep_token(&mut self, at: u32, before: Phase, phase: Phase, moment: Moment) {
        if self.token.task != Some(at) {
            return;
        }
        match phase {
            Phase::Assigned(_) | Phase::Running(_) | Phase::Failing | Phase::Delayed { .. } => {}
            // The wait before the other attempt is over.
            Phase::Queued if before.held().is_none() => {}
            _ => self.pass_token(at, moment),
        }
    }
    pub(super) fn pass_token(&mut self, at: u32, moment: Moment) {
        if self.token.task == Some(at) {
            self.token.task = None;
            self.token.free_at = moment.now;
        }
    }
}

impl Distributor {
    /// A swarm's topology, who sits where in it, and who leads.
    pub fn shape(&self, place: Place) -> Option<&Shape> {
        Some(&self.swarm_at(place)?.shape)
    }
}
