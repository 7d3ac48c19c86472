//! Time: the world's, and what a process makes of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, rngs::StdRng};
use swarm_events::Timestamp;
use uuid::{Builder, Uuid};

/// Virtual time, shared by everything that runs.
#[derive(Clone, Debug)]
pub struct Clock {
    micros: Arc<AtomicU64>,
    base: i64,
}
impl Clock {
    /// A clock whose start is at `base` microseconds since the Unix epoch.
    pub fn new(base: i64) -> Self {
        Self {
            micros: Arc::default(),
            base,
        }
    }
    pub fn micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed)
    }
    /// What a right wall clock shows.
    pub fn wall(&self) -> i64 {
        self.base + i64::try_from(self.micros()).unwrap_or(i64::MAX)
    }
    pub fn advance(&self, micros: u64) {
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// A process's clocks: they start anywhere, run at a speed of their own, and disagree about the time of day.
#[derive(Clone, Copy, Debug)]
pub struct OwnClock {
    began: u64,
    per_mille: u64,
    wall_off: i64,
}
impl OwnClock {
    /// Up to a quarter slow or fast, and up to ten seconds off.
    pub fn draw(clock: &Clock, rng: &mut StdRng) -> Self {
        Self {
            began: clock.micros(),
            per_mille: rng.random_range(800..=1_250),
            wall_off: rng.random_range(-10_000_000..=10_000_000),
        }
    }
    /// Time since the process began, as it measures it.
    pub fn monotonic(self, clock: &Clock) -> Duration {
        Duration::from_micros((clock.micros() - self.began) * self.per_mille / 1_000)
    }
    /// The time of day, as it has it.
    pub fn wall(self, clock: &Clock) -> Timestamp {
        Timestamp::from_micros(clock.wall() + self.wall_off)
    }
}

/// A UUIDv7 of the virtual time.
pub fn new_id(clock: &Clock, rng: &mut StdRng) -> Uuid {
    let millis = u64::try_from(clock.wall() / 1_000).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &rng.random()).into_uuid()
}
