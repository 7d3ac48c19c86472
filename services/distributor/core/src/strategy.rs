//! How an agent is chosen. To add an algorithm: a variant of `Algorithm`, a [`Strategy`] here, an arm in [`of`].
//!
//! Which task comes next is decided before, by rank alone, so that an algorithm never changes the order of tasks. Affinity
//! is the one that looks at the task, too: at where the last one of its key went (`affinity`).

use swarm_events::{
    configuration::Algorithm,
    planted::{self, Bug},
};

/// An agent's load with what is promised to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Tasks that it holds or is about to be given.
    pub held: u32,
    /// Tasks that it runs at once, at least 1.
    pub slots: u32,
    /// Number of the last assignment in the swarm that went to it; 0 if none did.
    pub turn: u64,
}

/// Gives each agent an integer score; the lowest wins.
pub trait Strategy: Sync {
    /// The score of an agent with this load, below [`SURPLUS_WEIGHT_MAX`] if the algorithm gives surplus a weight.
    fn score(&self, load: Load) -> i64;
    /// Who goes first among equal scores: the lowest. By default who joined first.
    fn tie(&self, _load: Load, joined: u64) -> u64 {
        joined
    }
    /// What each capability that an agent has beyond what the task needs adds to its score.
    fn surplus_weight(&self) -> i64 {
        0
    }
    /// Whether any free slot goes before any waiting place.
    fn slots_first(&self) -> bool {
        true
    }
    /// Whether tasks wait at agents at all.
    fn fills_places(&self) -> bool {
        true
    }
}

/// Above every load in thousandths: the most slots and waiting places of an agent, at one slot, are two millions.
pub const SURPLUS_WEIGHT_MAX: i64 = 10_000_000;

/// The share of its slots that an agent has taken: in thousandths.
const fn share(load: Load) -> i64 {
    share_of(load.held as u64, load.slots as u64)
}
/// The share of so many slots that so many tasks take: in thousandths.
pub(crate) const fn share_of(held: u64, slots: u64) -> i64 {
    let slots = if slots == 0 { 1 } else { slots };
    (held * 1_000 / slots) as i64
}

/// The agent with the smallest share of its slots taken.
#[derive(Clone, Copy, Debug)]
pub struct LeastLoaded;
impl Strategy for LeastLoaded {
    fn score(&self, load: Load) -> i64 {
        share(load)
    }
}

/// As [`LeastLoaded`], for tasks whose key has no home yet or whose home is full; among equals the agent whose last turn is
/// longest ago, so that keys find their homes all over the swarm and not at who joined first.
#[derive(Clone, Copy, Debug)]
pub struct Affinity;
impl Strategy for Affinity {
    fn score(&self, load: Load) -> i64 {
        share(load)
    }
    fn tie(&self, load: Load, _joined: u64) -> u64 {
        load.turn
    }
}

/// The agent whose last turn is longest ago, whatever its load: a circle over all that have a slot or a waiting place.
#[derive(Clone, Copy, Debug)]
pub struct RoundRobin;
impl Strategy for RoundRobin {
    fn score(&self, load: Load) -> i64 {
        i64::try_from(load.turn).unwrap_or(i64::MAX)
    }
    fn slots_first(&self) -> bool {
        false
    }
}

/// The agent with the fewest capabilities that the task does not need, so that those who can more stay free for what only
/// they can do; among equals by load.
#[derive(Clone, Copy, Debug)]
pub struct CapabilityMatch;
impl Strategy for CapabilityMatch {
    fn score(&self, load: Load) -> i64 {
        share(load)
    }
    fn surplus_weight(&self) -> i64 {
        SURPLUS_WEIGHT_MAX
    }
}

/// By load, with free slots only: what is submitted last and urgent gets the next slot, because nothing waits at an agent
/// before it.
#[derive(Clone, Copy, Debug)]
pub struct PriorityQueue;
impl Strategy for PriorityQueue {
    fn score(&self, load: Load) -> i64 {
        share(load)
    }
    fn fills_places(&self) -> bool {
        planted::is(Bug::WaitsUnderPriorityQueue)
    }
}

/// In a ring the token decides: tasks wait for their turn in the queue, and not at agents, where turns would be overtaken.
#[derive(Clone, Copy, Debug)]
pub struct Turns;
impl Strategy for Turns {
    fn score(&self, load: Load) -> i64 {
        share(load)
    }
    fn fills_places(&self) -> bool {
        false
    }
}

/// The strategy of an algorithm, in a ring or elsewhere.
pub fn within(ring: bool, algorithm: Algorithm) -> &'static dyn Strategy {
    if ring { &Turns } else { of(algorithm) }
}

/// The strategy of an algorithm.
pub fn of(algorithm: Algorithm) -> &'static dyn Strategy {
    match algorithm {
        Algorithm::LeastLoaded => &LeastLoaded,
        Algorithm::Affinity => &Affinity,
        Algorithm::RoundRobin => &RoundRobin,
        Algorithm::CapabilityMatch => &CapabilityMatch,
        Algorithm::PriorityQueue => &PriorityQueue,
    }
}

#[cfg(test)]
mod tests {
    use swarm_events::configuration::{SLOTS_MAX, WAITING_MAX};

    use super::*;

    const fn load(held: u32, slots: u32, turn: u64) -> Load {
        Load { held, slots, turn }
    }

    #[test]
    fn least_loaded_compares_shares_and_not_counts() {
        assert!(LeastLoaded.score(load(2, 4, 0)) < LeastLoaded.score(load(1, 1, 0)));
        assert_eq!(
            LeastLoaded.score(load(1, 2, 9)),
            LeastLoaded.score(load(2, 4, 0))
        );
    }

    #[test]
    fn round_robin_looks_at_turns_alone() {
        assert!(RoundRobin.score(load(9, 1, 3)) < RoundRobin.score(load(0, 1, 4)));
    }

    #[test]
    fn no_load_outweighs_one_surplus_capability() {
        let fullest = load(SLOTS_MAX + WAITING_MAX, 1, 0);
        assert!(CapabilityMatch.score(fullest) < CapabilityMatch.surplus_weight());
    }
}
