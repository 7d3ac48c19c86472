//! The shell around the core: it keeps the watch in step with the log.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use swarm_events::{
    Input, Partition, Subject,
    control::Observed,
    decider::{Decider, Verdict},
    subject::SwarmVerb,
};
use swarm_health_core::Health;
use swarm_runtime::Shell;
use tokio::sync::mpsc;

use crate::watch::Watch;

/// The watch, shared between the deciding loop and the ears, and the clock that both go by.
#[derive(Clone)]
pub(crate) struct SharedWatch {
    watch: Arc<Mutex<Watch>>,
    /// A bit for each partition that is watched here; the others are another replica's.
    owned: Arc<AtomicU64>,
    started: Instant,
}

impl SharedWatch {
    pub(crate) fn new() -> Self {
        Self {
            watch: Arc::default(),
            owned: Arc::default(),
            started: Instant::now(),
        }
    }
    /// The watch. It is left whole by every method, so a panic elsewhere does not spoil it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }
    /// Whether the agents of `partition` are watched here.
    pub(crate) fn owns(&self, partition: Partition) -> bool {
        self.owned.load(Ordering::Relaxed) & bit(partition) != 0
    }
}

const fn bit(partition: Partition) -> u64 {
    1 << partition.number()
}

pub(crate) struct HealthShell {
    pub(crate) watch: SharedWatch,
    pub(crate) observations: Option<mpsc::Receiver<(Partition, Observed)>>,
}

impl Shell<Health> for HealthShell {
    fn met(&mut self, state: &Health, input: &Input, verdict: Verdict) {
        let Input::Event(recorded) = input else {
            return;
        };
        if verdict != Verdict::Applied {
            return;
        }
        let now = self.watch.now();
        match recorded.subject {
            Subject::Agent(place, _, agent) => {
                if let Some(swarm) = state.swarm(place.org, place.swarm) {
                    self.watch.lock().sync(swarm, agent, now);
                }
            }
            // Its figures come every second, and change nothing of who is watched.
            Subject::Swarm(_, SwarmVerb::Measured | SwarmVerb::Sampled) => {}
            Subject::Swarm(place, _) => {
                if let Some(swarm) = state.swarm(place.org, place.swarm) {
                    self.watch.lock().sync_swarm(swarm, now);
                }
            }
            _ => {}
        }
    }

    fn owned(&mut self, state: &Health) {
        let now = self.watch.now();
        let partition = state.head().partition;
        self.watch.lock().adopt(state, partition, now);
        self.watch.owned.fetch_or(bit(partition), Ordering::Relaxed);
    }

    fn lost(&mut self, partition: Partition) {
        self.watch
            .owned
            .fetch_and(!bit(partition), Ordering::Relaxed);
        self.watch.lock().give_up(partition);
    }

    fn observations(&mut self) -> Option<mpsc::Receiver<(Partition, Observed)>> {
        self.observations.take()
    }
}
