//! What an explanation reads of the queues.

use std::collections::BTreeSet;

use super::SwarmPlan;
use crate::plan::expiry::Place;

/// Tasks that need the same and have the same priority, in the order in which they go. (Those with a limit of waiting of
/// their own stand in a set beside the others.)
#[derive(Clone, Copy)]
pub(crate) struct Queue<'a> {
    /// The class: required capabilities, sorted (see [`crate::class::of_class`]).
    pub(crate) words: &'a str,
    /// Numbers of the kinds of agents that have all of them.
    pub(crate) kinds: &'a [u32],
    /// 1 to 10.
    pub(crate) priority: u8,
    /// When each was queued, sequence of its `submitted`, its number. Never empty.
    pub(crate) tasks: &'a BTreeSet<Place>,
}

impl SwarmPlan {
    /// Every set of queued tasks.
    pub(crate) fn queues(&self) -> impl Iterator<Item = Queue<'_>> {
        self.classes.iter().flat_map(|class| {
            let sets = (1u8..)
                .zip(&class.queues)
                .flat_map(|(priority, line)| line.sets().map(|tasks| (priority, tasks)));
            sets.filter(|(_, tasks)| !tasks.is_empty())
                .map(|(priority, tasks)| Queue {
                    words: class.words().unwrap_or_default(),
                    kinds: &class.kinds,
                    priority,
                    tasks,
                })
        })
    }

    /// The kind of an agent: agents with the same capabilities are of one.
    pub(crate) fn kind_of(&self, agent: u32) -> Option<u32> {
        self.agents.get(agent as usize)?.kind
    }
}
