//! What only the owner knows of the swarms' topologies: who is there, what is to be looked at, and which seats are being
//! written. In no state: it is made anew at every claim.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use swarm_events::{AgentId, Body};
use swarm_topology::{Change, Members, Shape};

use crate::{
    Plan, Swarm,
    plan::{Mode, Scope, SwarmKey},
};

/// What is to be looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Look {
    /// Nothing has changed.
    #[default]
    Settled,
    /// What follows from these agents.
    Around(BTreeSet<AgentId>),
    /// Everything.
    All,
}
impl Look {
    fn at(&mut self, agent: AgentId) {
        match self {
            Self::Settled => *self = Self::Around(BTreeSet::from([agent])),
            Self::Around(agents) => {
                agents.insert(agent);
            }
            Self::All => {}
        }
    }
}

/// A decision about a topology that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flight {
    /// A seat of this generation.
    Seat(u64, AgentId),
    /// An election.
    Leader,
    /// The end of a change.
    End,
    /// A suggestion.
    Suggestion,
}
impl Flight {
    /// Which of them an event is, if it is one.
    fn of(body: &Body, agent: Option<AgentId>) -> Option<Self> {
        match (body, agent) {
            (Body::AgentSeated(seated), Some(agent)) => Some(Self::Seat(seated.generation, agent)),
            (Body::SwarmLeaderElected(_), _) => Some(Self::Leader),
            (Body::SwarmTopologyChanged(_) | Body::SwarmTopologyKept(_), _) => Some(Self::End),
            (Body::SwarmTopologySuggested(_), _) => Some(Self::Suggestion),
            _ => None,
        }
    }
}

/// A swarm's topology under the owner's eyes.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    pub(crate) members: Members,
    standing: Look,
    staged: Look,
    /// Seats that are still to be written, of those that were found at once, with their generation.
    pub(crate) todo: VecDeque<(u64, Change)>,
    in_flight: BTreeSet<Flight>,
}

impl Settling {
    /// That of a swarm of which nothing is known yet: everything is to be looked at.
    pub(crate) fn new(swarm: &Swarm) -> Self {
        Self {
            members: swarm.members(),
            standing: Look::All,
            staged: Look::All,
            ..Self::default()
        }
    }
    pub(crate) fn is_under_way(&self) -> bool {
        !self.in_flight.is_empty()
    }
    /// The seats in force that are to be written.
    pub(crate) fn changes(&self, shape: &Shape) -> Vec<Change> {
        match &self.standing {
            Look::Settled => Vec::new(),
            Look::Around(agents) => shape.changes_around(agents, &self.members),
            Look::All => shape.changes(&self.members),
        }
    }
    /// Those of the next generation.
    pub(crate) fn staged_changes(&self, shape: &Shape) -> Vec<Change> {
        match &self.staged {
            Look::Settled => Vec::new(),
            Look::Around(agents) => shape.staged_changes_around(agents, &self.members),
            Look::All => shape.staged_changes(&self.members),
        }
    }
    /// The seats in force are as they should be.
    pub(crate) fn is_settled(&mut self) {
        self.standing = Look::Settled;
    }
    /// So are those of the next generation, or there is none; one that is planned is looked at as a whole first.
    pub(crate) fn is_staged(&mut self) {
        self.staged = Look::Settled;
    }
    fn look_at(&mut self, agent: AgentId) {
        self.standing.at(agent);
        self.staged.at(agent);
        self.todo.clear();
    }
    fn look_at_all(&mut self) {
        self.standing = Look::All;
        self.staged = Look::All;
        self.todo.clear();
    }
}

/// The owner's eyes on topologies.
#[derive(Debug, Default)]
pub(crate) struct Topologies {
    pub(crate) by_swarm: BTreeMap<SwarmKey, Settling>,
    /// Those of which something may be to be written.
    pub(crate) unsettled: BTreeSet<SwarmKey>,
}

/// What a decision about a swarm's topology holds.
pub(crate) const fn topology_scope((org, swarm): SwarmKey) -> [(Scope, Mode); 1] {
    [(Scope::Swarm(org, swarm), Mode::Shared)]
}

impl Plan {
    /// Looks at everything in a swarm's topology.
    pub(crate) fn settle_all(&mut self, key: SwarmKey, swarm: &Swarm) {
        if swarm.deleted_at.is_some() {
            if !self.is_settling(key) {
                self.topologies.by_swarm.remove(&key);
            }
            self.topologies.unsettled.remove(&key);
            return;
        }
        match self.topologies.by_swarm.get_mut(&key) {
            Some(settling) => settling.look_at_all(),
            None => {
                let settling = Settling::new(swarm);
                self.topologies.by_swarm.insert(key, settling);
            }
        }
        self.topologies.unsettled.insert(key);
    }

    /// Takes note of an agent that may have changed.
    pub(crate) fn settle_agent(&mut self, key: SwarmKey, swarm: &Swarm, agent: AgentId) {
        let Some(settling) = self.topologies.by_swarm.get_mut(&key) else {
            self.settle_all(key, swarm);
            return;
        };
        let member = swarm.member(agent);
        if settling.members.get(agent) == member.as_ref() {
            return;
        }
        match member {
            Some(member) => settling.members.insert(member),
            None => {
                settling.members.remove(agent);
            }
        }
        settling.look_at(agent);
        self.topologies.unsettled.insert(key);
    }

    /// Something may be to be written that follows from no agent: a suggestion, the end of a change.
    pub(crate) fn unsettle(&mut self, key: SwarmKey) {
        if self.topologies.by_swarm.contains_key(&key) {
            self.topologies.unsettled.insert(key);
        }
    }

    fn is_settling(&self, key: SwarmKey) -> bool {
        let settling = self.topologies.by_swarm.get(&key);
        settling.is_some_and(Settling::is_under_way)
    }

    /// Notes decisions about a swarm's topology as under way.
    pub(crate) fn start_settling(&mut self, key: SwarmKey, flight: Flight) {
        let Some(settling) = self.topologies.by_swarm.get_mut(&key) else {
            return;
        };
        let first = settling.in_flight.is_empty();
        settling.in_flight.insert(flight);
        if first {
            self.hold(&topology_scope(key));
        }
    }

    /// Notes that such a decision was met. One that was void is not tried again before something changes: it would be void
    /// again.
    pub(crate) fn settling_met(
        &mut self,
        key: SwarmKey,
        body: &Body,
        agent: Option<AgentId>,
        void: bool,
    ) {
        let Some(flight) = Flight::of(body, agent) else {
            return;
        };
        let Some(settling) = self.topologies.by_swarm.get_mut(&key) else {
            return;
        };
        if !settling.in_flight.remove(&flight) {
            return;
        }
        let last = settling.in_flight.is_empty();
        if void {
            settling.look_at_all();
            self.topologies.unsettled.remove(&key);
        }
        if last {
            self.release(&topology_scope(key));
        }
    }
}
