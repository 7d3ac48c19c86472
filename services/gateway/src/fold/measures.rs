//! The distributor's figures of each swarm, as last measured.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Timestamp,
    swarm::{AgentLoad, Measured},
};

/// Window over which a throughput is reckoned, in milliseconds: long enough to smooth batches, short enough to follow load.
pub const WINDOW_MS: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Point {
    time: Timestamp,
    completed: u64,
    failed: u64,
}

/// A swarm's figures. A type of its own: an event leaves out what is zero, which a snapshot's encoding cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Waiting for others.
    pub pending: u64,
    /// Waiting for an agent.
    pub queued: u64,
    /// Given to an agent and not started.
    pub assigned: u64,
    /// Running.
    pub running: u64,
    /// Completed so far.
    pub completed: u64,
    /// Failed so far.
    pub failed: u64,
    /// Cancelled so far.
    pub cancelled: u64,
    /// Age of the oldest queued one in milliseconds.
    pub oldest_wait_ms: u64,
    /// Queued, and no live agent has the capabilities.
    pub unmet: u64,
    /// Assignments so far to the agent that their affinity likes.
    pub affinity_hits: u64,
    /// Assignments so far that could not go there.
    pub affinity_misses: u64,
    /// Tasks so far that an idle agent took over from a busy one.
    pub steals: u64,
    /// Attempts so far after the first of a task.
    pub retries: u64,
}

impl From<&Measured> for Figures {
    fn from(measured: &Measured) -> Self {
        let Measured {
            pending,
            queued,
            assigned,
            running,
            completed,
            failed,
            cancelled,
            oldest_wait_ms,
            unmet,
            affinity_hits,
            affinity_misses,
            steals,
            retries,
            agents: _,
            types: _,
            capabilities: _,
        } = *measured;
        Self {
            pending,
            queued,
            assigned,
            running,
            completed,
            failed,
            cancelled,
            oldest_wait_ms,
            unmet,
            affinity_hits,
            affinity_misses,
            steals,
            retries,
        }
    }
}

/// What was measured of a swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Stream sequence of the last one.
    pub sequence: u64,
    /// Sequence up to which it counts: what its service had met when it measured.
    pub counted: u64,
    /// Its time.
    pub time: Timestamp,
    /// The figures of the swarm.
    pub last: Figures,
    /// Each agent's load, as last told.
    pub agents: BTreeMap<AgentId, AgentLoad>,
    /// Points of the last [`WINDOW_MS`], and the one before.
    points: VecDeque<Point>,
}

/// Rates over a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Length of the window in milliseconds.
    pub window_ms: u64,
    /// Tasks completed a second.
    pub throughput: f64,
    /// Share of failed ones among those that completed or failed; `None` if none did.
    pub error_rate: Option<f64>,
}

impl Measure {
    /// Takes a measurement over.
    pub fn apply(&mut self, sequence: u64, counted: u64, time: Timestamp, measured: &Measured) {
        self.sequence = sequence;
        self.counted = counted;
        self.time = self.time.max(time);
        self.agents
            .extend(measured.agents.iter().map(|(agent, load)| (*agent, *load)));
        self.last = Figures::from(measured);
        let point = Point {
            time: self.time,
            completed: measured.completed,
            failed: measured.failed,
        };
        self.points.push_back(point);
        let horizon = self.time.minus_millis(WINDOW_MS);
        while self
            .points
            .get(1)
            .is_some_and(|second| second.time <= horizon)
        {
            self.points.pop_front();
        }
    }
    /// Tasks that waited.
    pub const fn waiting(&self) -> u64 {
        self.last.pending + self.last.queued
    }
    /// What happened in the last window; `None` until two measurements tell.
    pub fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.points.front()?, self.points.back()?);
        let window_ms = last.time.millis_since(first.time);
        if window_ms == 0 {
            return None;
        }
        let completed = last.completed.saturating_sub(first.completed);
        let failed = last.failed.saturating_sub(first.failed);
        let ended = completed + failed;
        Some(Rates {
            window_ms,
            throughput: completed as f64 * 1_000.0 / window_ms as f64,
            error_rate: (ended > 0).then(|| failed as f64 / ended as f64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::ZERO.plus_millis(second * 1_000)
    }
    fn measured(completed: u64, failed: u64) -> Measured {
        Measured {
            completed,
            failed,
            pending: 2,
            queued: 3,
            ..Measured::default()
        }
    }

    #[test]
    fn rates_come_from_two_measurements_and_from_nothing_else() {
        let mut measure = Measure::default();
        assert_eq!(measure.rates(), None);
        measure.apply(5, 4, at(10), &measured(100, 0));
        assert_eq!(measure.rates(), None);
        measure.apply(9, 8, at(12), &measured(130, 10));
        let rates = measure.rates().expect("two points");
        assert_eq!(
            (rates.window_ms, rates.throughput, rates.error_rate),
            (2_000, 15.0, Some(0.25))
        );
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more() {
        let mut measure = Measure::default();
        for second in [0, 1, 30, 70, 100] {
            measure.apply(second, second, at(second), &measured(second * 10, 0));
        }
        // The window reaches back to 40 s; the last point at or before it is the one at 30 s.
        assert_eq!(measure.rates().expect("points").window_ms, 70_000);
        assert_eq!(measure.rates().expect("points").throughput, 10.0);
    }
}
