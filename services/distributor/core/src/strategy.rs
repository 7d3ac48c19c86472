//! How an agent is chosen. To add an algorithm: a variant of `Algorithm`, a [`Strategy`] here, an arm in [`of`].

use swarm_events::configuration::Algorithm;

/// An agent's load with what is promised to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Tasks that it holds or is about to be given.
    pub held: u32,
    /// Tasks that it runs at once, at least 1.
    pub slots: u32,
}

/// Gives each agent an integer score; the lowest wins, ties go to the agent that joined first. A free slot always goes
/// before a waiting place.
pub trait Strategy {
    /// The score of an agent with this load.
    fn score(&self, load: Load) -> i64;
}

/// The agent with the smallest share of its slots taken: in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct LeastLoaded;
impl Strategy for LeastLoaded {
    fn score(&self, load: Load) -> i64 {
        i64::from(load.held) * 1_000 / i64::from(load.slots.max(1))
    }
}

/// The strategy of an algorithm.
pub fn of(algorithm: Algorithm) -> &'static dyn Strategy {
    match algorithm {
        _ => &LeastLoaded,
    }
}
