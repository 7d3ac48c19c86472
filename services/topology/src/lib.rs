//! What the four topologies are: who sits where, who may take which task, who may talk to whom, and what changes when
//! somebody comes, goes or fails. Pure: a [`Shape`] is the fold of a swarm's events, and everything else follows from it.
//!
//! Coordinator, distributor, gateway, SDK, audit and simulation fold the same events into the same shape ([`Shape::apply`]).
//! The coordinator alone writes them: [`Shape::changes`] is what is missing, [`Shape::elect`] who is to lead. The rules are in
//! `rule`, one file for each kind; what follows from seats is in `route`.
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

mod elect;
mod fold;
mod layer;
mod links;
mod member;
mod plan;
mod route;
mod rule;
mod seats;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId,
    configuration::AGENTS_MAX,
    swarm::Created,
    topology::{Role, Seat, Seated, Topology},
};

pub use elect::Election;
pub use member::{Member, Members};
pub use plan::{Planned, lacking};
pub use route::MissingEdge;

use links::Links;
use rule::star::Lost;
use seats::Seats;

/// A swarm's topology as it stands: its options, who sits where, who leads, and the change that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// What holds.
    standing: Generation,
    /// What is to hold next.
    staged: Option<Generation>,
    /// The highest generation that was ever planned: a change that could not be completed uses its number up.
    used: u64,
    leader: Option<AgentId>,
    /// The swarm's own limit, where a star has none.
    max_workers: u32,
    /// It is folded from the last event of each subject, not from all.
    partial: bool,
}

/// A topology of one generation, and who sits where in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Generation {
    topology: Topology,
    number: u64,
    seats: Seats<'static>,
    /// The last place that anybody has had: no place is given twice.
    last_place: u64,
    /// Hubs that were lost in a star without failover: their places wait for them, the longest lost first.
    lost: Vec<Lost>,
    /// Follows from the topology.
    #[serde(skip_serializing)]
    links: Links,
}
/// A generation as it stands in snapshots.
#[derive(Deserialize)]
struct Stored {
    topology: Topology,
    number: u64,
    seats: Seats<'static>,
    last_place: u64,
    lost: Vec<Lost>,
}
impl From<Stored> for Generation {
    fn from(stored: Stored) -> Self {
        Self {
            links: Links::of(&stored.topology),
            topology: stored.topology,
            number: stored.number,
            seats: stored.seats,
            last_place: stored.last_place,
            lost: stored.lost,
        }
    }
}
impl Generation {
    fn new(topology: Topology, number: u64) -> Self {
        Self {
            links: Links::of(&topology),
            topology,
            number,
            seats: Seats::default(),
            last_place: 0,
            lost: Vec::new(),
        }
    }
    /// The topology with all its options.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }
    /// Its number, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }
    /// An agent's seat in it.
    pub fn seat(&self, agent: AgentId) -> Option<&Seat> {
        self.seats.get(agent)
    }
    /// All seats, by place.
    pub fn seats(&self) -> impl Iterator<Item = (AgentId, &Seat)> {
        self.seats.iter()
    }
    /// How many agents are seated.
    pub fn len(&self) -> usize {
        self.seats.len()
    }
    /// Whether nobody is seated.
    pub fn is_empty(&self) -> bool {
        self.seats.len() == 0
    }
}

/// A seat that is to be given, changed or, without one, taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub agent: AgentId,
    /// The seat.
    pub seat: Option<Seat>,
    /// Its name, if the topology's connections name it by that.
    pub named: Option<String>,
    /// By what rule.
    pub reason: String,
}
impl Change {
    /// The event that says so.
    pub fn seated(&self, generation: u64) -> Seated {
        Seated {
            generation,
            seat: self.seat,
            named: self.named.clone(),
            reason: self.reason.clone(),
        }
    }
}

impl Shape {
    /// The first generation of a topology, with nobody seated yet.
    pub fn new(topology: Topology) -> Self {
        Self {
            standing: Generation::new(topology, 1),
            staged: None,
            used: 1,
            leader: None,
            max_workers: AGENTS_MAX,
            partial: false,
        }
    }
    /// That of a swarm which is created.
    pub fn of(created: &Created) -> Self {
        Self {
            max_workers: created.configuration.max_workers,
            ..Self::new(created.topology.clone())
        }
    }
    /// For whoever reads only the last event of each subject (`filter::shape`), and the live ones after that: generations may
    /// be skipped, and seats of a generation come without its plan. Apply the events by sequence.
    pub fn follower() -> Self {
        Self {
            partial: true,
            ..Self::new(Topology::default())
        }
    }

    /// The topology in force, with all its options.
    pub fn topology(&self) -> &Topology {
        &self.standing.topology
    }
    /// Its generation, from 1.
    pub fn generation(&self) -> u64 {
        self.standing.number
    }
    /// The generation that the next change gets.
    pub fn next_generation(&self) -> u64 {
        self.used.saturating_add(1)
    }
    /// Who leads.
    pub fn leader(&self) -> Option<AgentId> {
        self.leader
    }
    /// The generation in force.
    pub fn standing(&self) -> &Generation {
        &self.standing
    }
    /// The change that is under way.
    pub fn staged(&self) -> Option<&Generation> {
        self.staged.as_ref()
    }
    /// An agent's seat in force.
    pub fn seat(&self, agent: AgentId) -> Option<&Seat> {
        self.standing.seats.get(agent)
    }
    /// The seats in force, by place.
    pub fn seats(&self) -> impl Iterator<Item = (AgentId, &Seat)> {
        self.standing.seats.iter()
    }
    /// How many agents are seated.
    pub fn seated(&self) -> usize {
        self.standing.seats.len()
    }
    /// How many agents are given tasks that ask for no role.
    pub fn working(&self) -> usize {
        self.standing.seats.working()
    }
    /// What an agent is by its seat.
    pub fn role(&self, agent: AgentId) -> Option<Role> {
        self.seat(agent).map(|seat| seat.role)
    }

    /// The seats in force that the coordinator is to write next; none: settled. What is right stays.
    pub fn changes(&self, members: &Members) -> Vec<Change> {
        self.standing_changes(members, None)
    }
    /// The same, as far as it follows from these agents: they have come, gone, or something about them has changed since all
    /// was settled. Costs what it changes, not what there is.
    pub fn changes_around(&self, agents: &BTreeSet<AgentId>, members: &Members) -> Vec<Change> {
        self.standing_changes(members, Some(agents))
    }
    /// What a join changes. `members` has the agent.
    pub fn join(&self, agent: AgentId, members: &Members) -> Vec<Change> {
        self.changes_around(&BTreeSet::from([agent]), members)
    }
    /// What changes when an agent goes or fails. `members` has it no more.
    pub fn leave(&self, agent: AgentId, members: &Members) -> Vec<Change> {
        self.changes_around(&BTreeSet::from([agent]), members)
    }
    /// The seats of the next generation that the coordinator is to write next; none: all are seated in it, or no change is
    /// under way.
    pub fn staged_changes(&self, members: &Members) -> Vec<Change> {
        self.next_changes(members, None)
    }
    /// [`Self::changes_around`] for the next generation.
    pub fn staged_changes_around(
        &self,
        agents: &BTreeSet<AgentId>,
        members: &Members,
    ) -> Vec<Change> {
        self.next_changes(members, Some(agents))
    }

    fn standing_changes(
        &self,
        members: &Members,
        around: Option<&BTreeSet<AgentId>>,
    ) -> Vec<Change> {
        let (standing, staged) = (&self.standing, self.staged.as_ref());
        plan::changes(standing, staged, self.max_workers, members, around)
    }
    fn next_changes(&self, members: &Members, around: Option<&BTreeSet<AgentId>>) -> Vec<Change> {
        self.staged.as_ref().map_or_else(Vec::new, |staged| {
            let standing = Some(&self.standing);
            plan::changes(staged, standing, self.max_workers, members, around)
        })
    }
}
