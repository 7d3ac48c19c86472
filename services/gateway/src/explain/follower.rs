//! A fold of one partition's tasks that is kept at the log's end for whoever asks.
//!
//! It folds as the distributor does, with the same core, from the distributor's own newest snapshot, and decides nothing: its
//! plan holds the indexes alone. Whoever asks is answered when the tail says that everything stored when it was made has been
//! met. A tail says that once, so each batch of requests has the tail made anew from where the fold is: a consumer at the
//! end of the stream takes nats-server a millisecond or two, and there is never more than one for a partition.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use swarm_distributor_core::{Distributor, Plan, explain::Explanation};
use swarm_events::{Input, Partition, Place, Service, TaskId, decider::Decider, subject::filter};
use swarm_log::{Log, LogError, Tailed};
use swarm_runtime::snapshots::{SnapshotError, Store, Wanted, whole_history};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::{port::Port, tail::input};

/// Messages that are folded under one lock: a few milliseconds at the most, so that nobody who reads waits for long.
const CHUNK: usize = 256;
/// Requests that wait for one partition; with more, the next ones are refused until some are answered.
pub(super) const WAITING_MAX: usize = 1_024;

/// Where a fold begins.
pub struct Begun {
    /// The state.
    pub state: Distributor,
    /// First sequence that is not in it.
    pub from: u64,
}

/// The distributor's newest snapshot of a partition, or the log's beginning.
///
/// # Errors
/// See [`SnapshotError`].
pub async fn begin<L: Log>(log: L, partition: Partition) -> Result<Begun, SnapshotError> {
    let info = log.info().await?;
    let wanted = Wanted::of::<Distributor>(partition, info.created_micros);
    if let Some(loaded) = Store::new(log).newest::<Distributor>(&wanted, None).await? {
        return Ok(Begun {
            state: loaded.state,
            from: loaded.meta.sequence + 1,
        });
    }
    whole_history(&info, "the partition's tasks")?;
    Ok(Begun {
        state: Distributor::new(partition),
        from: info.first_sequence.max(1),
    })
}

/// Why a partition cannot be followed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// The log or its snapshots cannot be read.
    #[error("{0}")]
    Read(String),
    /// It holds what this version cannot fold.
    #[error("{0}")]
    Newer(String),
}
impl From<SnapshotError> for FollowError {
    fn from(error: SnapshotError) -> Self {
        Self::Read(error.to_string())
    }
}
impl From<LogError> for FollowError {
    fn from(error: LogError) -> Self {
        Self::Read(error.to_string())
    }
}

struct Folded {
    state: Distributor,
    plan: Plan,
}

/// The fold, as requests see it.
#[derive(Default)]
pub(super) struct Tasks {
    folded: RwLock<Option<Folded>>,
    /// Tasks that wait in it: what its memory goes by.
    backlog: AtomicU64,
}
impl Tasks {
    /// What the fold says of a task.
    pub(super) fn explain(&self, place: Place, task: TaskId) -> Option<Explanation> {
        let folded = self.folded.read().unwrap_or_else(PoisonError::into_inner);
        let folded = folded.as_ref()?;
        folded.state.explain(&folded.plan, place, task)
    }
    pub(super) fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }
    fn apply(&self, inputs: &mut Vec<Input>) {
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        let Some(folded) = folded.as_mut() else {
            return;
        };
        for input in inputs.drain(..) {
            folded.state.evolve(&input, Some(&mut folded.plan));
        }
        self.backlog
            .store(folded.state.backlog(), Ordering::Relaxed);
    }
    fn set(&self, folded: Option<Folded>) -> Option<Folded> {
        let backlog = folded.as_ref().map_or(0, |folded| folded.state.backlog());
        self.backlog.store(backlog, Ordering::Relaxed);
        let mut held = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, folded)
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // A million tasks take a while to free.
        if let (Some(folded), Ok(runtime)) = (self.set(None), tokio::runtime::Handle::try_current())
        {
            runtime.spawn_blocking(move || drop(folded));
        }
    }
}

/// Somebody who waits for the fold to have met what is stored now.
pub(super) type Asked = oneshot::Sender<Result<(), FollowError>>;

/// A fold that is followed.
pub(super) struct Follower {
    pub(super) tasks: Arc<Tasks>,
    asked: mpsc::Sender<Asked>,
    _task: AbortOnDropHandle<()>,
}

impl Follower {
    /// Begins to follow `partition`, and ends by itself when nobody has asked for `idle`.
    pub(super) fn start(
        log: Port,
        partition: Partition,
        starts: Arc<Semaphore>,
        idle: Duration,
    ) -> Self {
        let (sender, asked) = mpsc::channel(WAITING_MAX);
        let tasks = Arc::new(Tasks::default());
        let following = Following {
            log,
            partition,
            tasks: tasks.clone(),
            asked,
            waiting: Vec::new(),
            idle,
        };
        Self {
            tasks,
            asked: sender,
            _task: AbortOnDropHandle::new(tokio::spawn(following.run(starts))),
        }
    }

    /// Whether it still follows.
    pub(super) fn alive(&self) -> bool {
        !self.asked.is_closed()
    }

    /// Asks to be told when everything that is stored now has been met; `None` if too many wait already or it has ended.
    pub(super) fn ask(&self) -> Option<oneshot::Receiver<Result<(), FollowError>>> {
        let (sender, told) = oneshot::channel();
        self.asked.try_send(sender).ok()?;
        Some(told)
    }
}

struct Following {
    log: Port,
    partition: Partition,
    tasks: Arc<Tasks>,
    asked: mpsc::Receiver<Asked>,
    waiting: Vec<Asked>,
    idle: Duration,
}

impl Following {
    async fn run(mut self, starts: Arc<Semaphore>) {
        let ended = self.follow(&starts).await;
        // Whoever asks from here on starts another one.
        self.asked.close();
        if let Err(error) = &ended {
            warn!(partition = %self.partition, %error, "the partition's tasks cannot be followed");
            while let Ok(asked) = self.asked.try_recv() {
                self.waiting.push(asked);
            }
            for waiting in self.waiting.drain(..) {
                // Nobody waits any more: fine.
                let _ = waiting.send(Err(error.clone()));
            }
        }
        let folded = self.tasks.set(None);
        tokio::task::spawn_blocking(move || drop(folded));
        debug!(partition = %self.partition, "the partition's tasks are followed no more");
    }

    async fn follow(&mut self, starts: &Semaphore) -> Result<(), FollowError> {
        let Ok(start) = starts.acquire().await else {
            return Ok(());
        };
        let mut start = Some(start);
        let began = Instant::now();
        let begun = self.log.tasks(self.partition).await?;
        let (mut next, from) = (begun.from, begun.from);
        let folded = tokio::task::spawn_blocking(move || {
            let plan = begun.state.plan();
            Folded {
                state: begun.state,
                plan,
            }
        });
        let folded = folded
            .await
            .map_err(|error| FollowError::Read(error.to_string()))?;
        self.tasks.set(Some(folded));
        let mut used = Instant::now();
        loop {
            // What is stored when the tail is made covers everybody who has asked by now.
            while let Ok(asked) = self.asked.try_recv() {
                self.waiting.push(asked);
            }
            let filters = filter::inputs(Service::Distributor, Some(self.partition));
            let mut tail = self.log.tail(filters, next).ready_chunks(CHUNK);
            let mut caught_up = false;
            loop {
                tokio::select! {
                    items = tail.next() => {
                        let items = items.ok_or_else(|| FollowError::Read("the log's tail ended".to_owned()))?;
                        caught_up |= self.meet(items, &mut next)?;
                    }
                    asked = self.asked.recv(), if caught_up => {
                        let Some(asked) = asked else {
                            return Ok(());
                        };
                        used = Instant::now();
                        self.waiting.push(asked);
                        break;
                    }
                    () = sleep_until(used + self.idle), if caught_up => return Ok(()),
                }
                if caught_up && start.take().is_some() {
                    let seconds = began.elapsed().as_secs_f64();
                    metrics::histogram!("swarm_gateway_explain_start_seconds").record(seconds);
                    info!(partition = %self.partition, from, to = next, seconds, "the partition's tasks are followed");
                }
            }
        }
    }

    /// Folds what the tail brought. True: it has met everything that was stored when it was made, and who waited was told.
    fn meet(
        &mut self,
        items: Vec<Result<Tailed, LogError>>,
        next: &mut u64,
    ) -> Result<bool, FollowError> {
        let mut inputs = Vec::with_capacity(items.len());
        let mut caught_up = false;
        for item in items {
            match item? {
                Tailed::Message(message) => {
                    *next = message.sequence + 1;
                    let input = input(&message);
                    if let Input::Unreadable(unreadable) = &input
                        && unreadable.newer
                    {
                        return Err(FollowError::Newer(format!(
                            "{} at sequence {} was written by a newer version",
                            unreadable.subject_text, unreadable.sequence
                        )));
                    }
                    inputs.push(input);
                }
                Tailed::CaughtUp => {
                    self.tasks.apply(&mut inputs);
                    caught_up = true;
                    for waiting in self.waiting.drain(..) {
                        // Nobody waits any more: fine.
                        let _ = waiting.send(Ok(()));
                    }
                }
                Tailed::Interrupted => {
                    warn!(partition = %self.partition, "the tail of the partition's tasks is interrupted");
                }
                Tailed::Resumed => {}
            }
        }
        self.tasks.apply(&mut inputs);
        Ok(caught_up)
    }
}
