//! The distributor's pure core: which task goes to which agent, and how each ends exactly once.
//!
//! [`Distributor`] is the fold of a partition; its decisions are answers to what the fold shows undone.
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod view;

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Input, Partition, Place, TaskId,
    decider::{Head, Verdict},
};

pub use view::{AgentView, Counters, DependencyView, Status, TaskView, Touched};

/// The state of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distributor {
    head: Head,
}

impl Distributor {
    /// The empty state of a partition.
    pub fn new(partition: Partition) -> Self {
        Self {
            head: Head::new(partition),
        }
    }
    /// Time, sequence, claims.
    pub const fn head(&self) -> &Head {
        &self.head
    }
    /// Applies an input as `Decider::evolve` does, and notes which rows it changed.
    pub fn evolve_traced(&mut self, input: &Input, touched: &mut Touched) -> Verdict {
        let _ = (input, touched);
        Verdict::Ignored
    }
    /// The view of a task: in full while it lives or can be retried; of other ended ones, what is still remembered
    /// (the full last view was in [`Touched::ended`]).
    pub fn task(&self, place: Place, id: TaskId) -> Option<TaskView> {
        let _ = (place, id);
        None
    }
    /// All live tasks of a swarm, in the order of their places in memory.
    pub fn tasks(&self, place: Place) -> impl Iterator<Item = TaskView> {
        let _ = place;
        std::iter::empty()
    }
    /// The view of an agent, also of one that has left.
    pub fn agent(&self, place: Place, id: AgentId) -> Option<AgentView> {
        let _ = (place, id);
        None
    }
    /// All agents of a swarm by id.
    pub fn agents(&self, place: Place) -> impl Iterator<Item = AgentView> {
        let _ = place;
        std::iter::empty()
    }
    /// Counters of a swarm.
    pub fn counters(&self, place: Place) -> Option<Counters> {
        let _ = place;
        None
    }
    /// Swarms known here.
    pub fn swarms(&self) -> impl Iterator<Item = Place> {
        std::iter::empty()
    }
}
