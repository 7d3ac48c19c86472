//! The partitions whose tasks this gateway follows at the moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use swarm_events::{Partition, Problem};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

pub use super::follower::{Begun, begin};
use super::follower::{FollowError, Follower, Tasks, WAITING_MAX};
use crate::{
    port::Port,
    problem::{Answer, ApiProblem},
};

/// How long an answer waits for its partition. A snapshot of a million tasks takes up to 3.3 s to load and the tail behind it
/// a second or two; a request that must wait for another start takes twice that.
pub const WAIT: Duration = Duration::from_secs(15);
/// How long a partition is followed after the last question: people ask again within minutes, and a start costs seconds at
/// worst, while a consumer in wait costs each publish a little.
pub const IDLE: Duration = Duration::from_secs(120);
/// Most partitions that are followed at a time, the least recently asked for going first: each remembers up to 200,000
/// ended tasks, some 50 MB.
pub const PARTITIONS_MAX: usize = 8;
/// Most waiting tasks in all of them, at 671 bytes each; the partition that was asked for last is followed whatever it holds.
pub const TASKS_MAX: u64 = 1_000_000;
/// Partitions that are started at a time: each takes a core, and up to 400 MB for its snapshot beside the state.
pub const STARTS_MAX: usize = 2;

/// What bounds them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`WAIT`].
    pub wait: Duration,
    /// See [`IDLE`].
    pub idle: Duration,
    /// See [`PARTITIONS_MAX`].
    pub partitions: usize,
    /// See [`TASKS_MAX`].
    pub tasks: u64,
    /// See [`STARTS_MAX`].
    pub starts: usize,
}
impl Default for Limits {
    fn default() -> Self {
        Self {
            wait: WAIT,
            idle: IDLE,
            partitions: PARTITIONS_MAX,
            tasks: TASKS_MAX,
            starts: STARTS_MAX,
        }
    }
}

struct Held {
    follower: Arc<Follower>,
    used: Instant,
}

/// The partitions that are followed.
pub struct Followers {
    limits: Limits,
    starts: Arc<Semaphore>,
    held: Mutex<BTreeMap<Partition, Held>>,
}
impl Default for Followers {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// A fold that has met everything that was stored when it was asked for.
pub(super) struct CaughtUp(Arc<Follower>);
impl std::ops::Deref for CaughtUp {
    type Target = Tasks;
    fn deref(&self) -> &Tasks {
        &self.0.tasks
    }
}

impl Followers {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            starts: Arc::new(Semaphore::new(limits.starts)),
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Partition, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions that are followed now.
    pub fn followed(&self) -> Vec<Partition> {
        let held = self.held();
        let alive = held.iter().filter(|(_, held)| held.follower.alive());
        alive.map(|(partition, _)| *partition).collect()
    }

    /// How many are followed at the most.
    pub const fn most(&self) -> usize {
        self.limits.partitions
    }

    /// The tasks of `partition` as of the log's end now, or later.
    ///
    /// # Errors
    /// 503 if they cannot be read or too many wait for them; 504 if reading them takes too long: it goes on meanwhile.
    pub(super) async fn caught_up(&self, log: &Port, partition: Partition) -> Answer<CaughtUp> {
        let follower = self.follower(log, partition);
        let Some(told) = follower.ask() else {
            return Err(busy(partition));
        };
        match timeout(self.limits.wait, told).await {
            Ok(Ok(Ok(()))) => Ok(CaughtUp(follower)),
            Ok(Ok(Err(error))) => Err(unreadable(partition, &error)),
            // It ended without a word: another one took its room, or it was idle just now.
            Ok(Err(_)) => Err(busy(partition)),
            Err(_) => Err(late(partition, self.limits.wait)),
        }
    }

    /// The follower of a partition, made if there is none.
    fn follower(&self, log: &Port, partition: Partition) -> Arc<Follower> {
        let mut held = self.held();
        held.retain(|_, held| held.follower.alive());
        let now = Instant::now();
        let follower = match held.get_mut(&partition) {
            Some(known) => {
                known.used = now;
                known.follower.clone()
            }
            None => {
                metrics::counter!("swarm_gateway_explain_starts_total").increment(1);
                let (starts, idle) = (self.starts.clone(), self.limits.idle);
                let follower = Arc::new(Follower::start(log.clone(), partition, starts, idle));
                held.insert(
                    partition,
                    Held {
                        follower: follower.clone(),
                        used: now,
                    },
                );
                follower
            }
        };
        self.make_room(&mut held, partition);
        metrics::gauge!("swarm_gateway_explain_partitions").set(held.len() as f64);
        follower
    }

    /// Drops those that were asked for longest ago until the rest are within the limits.
    fn make_room(&self, held: &mut BTreeMap<Partition, Held>, keep: Partition) {
        loop {
            let tasks: u64 = held
                .values()
                .map(|held| held.follower.tasks.backlog())
                .sum();
            if held.len() <= self.limits.partitions && tasks <= self.limits.tasks {
                return;
            }
            let eldest = held
                .iter()
                .filter(|(partition, _)| **partition != keep)
                .min_by_key(|(_, held)| held.used)
                .map(|(partition, _)| *partition);
            let Some(eldest) = eldest else {
                return;
            };
            // Whoever still reads them holds them a little longer.
            held.remove(&eldest);
        }
    }
}

fn busy(partition: Partition) -> ApiProblem {
    ApiProblem::unavailable(
        "explanations-busy",
        format!(
            "more than {WAITING_MAX} requests wait for the tasks of partition {partition}, or they had to make room for others"
        ),
        "ask again in a moment",
    )
}

fn unreadable(partition: Partition, error: &FollowError) -> ApiProblem {
    let detail = format!("the tasks of partition {partition} cannot be read: {error}");
    match error {
        FollowError::Newer(_) => {
            ApiProblem::unavailable("newer-version", detail, "upgrade the gateway")
        }
        FollowError::Read(_) => ApiProblem::unavailable(
            "log-unreachable",
            detail,
            "check that nats-server runs, and see the gateway's log",
        ),
    }
}

fn late(partition: Partition, waited: Duration) -> ApiProblem {
    let detail = format!(
        "the tasks of partition {partition} were not read to the log's end within {} ms",
        waited.as_millis()
    );
    let problem = Problem::new("explanation-late", detail).cure(
        "ask again in a moment: reading goes on meanwhile; if it does not help, see GET /readyz",
    );
    ApiProblem::new(StatusCode::GATEWAY_TIMEOUT, problem).retry_after(1)
}
