//! Drives the machines of a process over a log.

mod beside;
mod settle;
mod writing;

pub use beside::SNAPSHOT_INLINE_BYTES_MAX;

use std::{
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use swarm_events::{
    Input, Partition, Problem, Timestamp,
    control::Observed,
    decider::{Decider, Decision, Verdict},
    ids::InstanceId,
    read,
    read::partition_of_subject,
    subject::{Service, filter},
};
use swarm_log::{
    AppendError, Appended, Log, LogError, PresenceNews, StoredMessage, Tailed,
    connect::ConnectSettings, filter::matches,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    join::{Folded, concerns_all, filters_of, may_concern_all, newer, reads_most},
    machine::{Met, Mode},
    members::Announcement,
    replica::{Action, Replica},
    status::LoopStatus,
};
use crate::snapshots::{self, SnapshotError};

/// The impure side of a deciding service.
pub trait Shell<D: Decider>: Send + 'static {
    /// After each input met in an owned partition; `state` has it already. Cheap and synchronous.
    fn met(&mut self, _state: &D, _input: &Input, _verdict: Verdict) {}
    /// The own claim was met: the partition is owned from here on.
    fn owned(&mut self, _state: &D) {}
    /// The partition is owned no more.
    fn lost(&mut self, _partition: Partition) {}
    /// Fills in what `decision.hydrate` names before the decision is appended.
    fn hydrate(
        &self,
        decision: Decision,
    ) -> impl Future<Output = Result<Decision, Problem>> + Send {
        async { Ok(decision) }
    }
    /// Observations to be appended, each to its partition's control subject. Asked for once, at the start.
    fn observations(&mut self) -> Option<mpsc::Receiver<(Partition, Observed)>> {
        None
    }
}

/// A service that needs nothing from its shell.
pub struct NoShell;
impl<D: Decider> Shell<D> for NoShell {}

/// How a loop runs.
#[derive(Clone)]
pub struct LoopSettings {
    /// This process.
    pub instance: InstanceId,
    /// A name that outlives the process: the next process of this name takes the place of this one at once.
    pub name: Option<String>,
    /// The partitions of the service; which of them this process decides for depends on who else is there.
    pub partitions: Vec<Partition>,
    /// How to reach nats-server's system account, whose notices tell of closed connections. Without it a dead replica is
    /// found by its silence alone.
    pub notices: Option<ConnectSettings>,
    /// A partition's snapshot is due this many stream events after its last one.
    pub snapshot_every: u64,
    /// Where it shows its figures.
    pub status: Arc<LoopStatus>,
}
impl LoopSettings {
    /// All partitions, figures of its own.
    pub fn all(instance: InstanceId) -> Self {
        Self {
            instance,
            name: None,
            partitions: Partition::all().collect(),
            notices: None,
            snapshot_every: snapshots::EVERY,
            status: Arc::default(),
        }
    }
}

/// Why a loop ended other than by its stop token.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    /// The tail ended, which it never does by itself.
    #[error("the tail of the log ended")]
    TailEnded,
    /// The log went back behind a snapshot, or is another one.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// How long a stopping loop waits for the outcomes of what it has appended.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// An own acknowledged write that is not met within this time means that the tail is dead without knowing it.
const MET_WITHIN: Duration = Duration::from_secs(1);
/// Wait before the next try while the log takes no more (disk or stream full).
const FULL_RETRY: Duration = Duration::from_secs(1);
/// A renewal of the presence key that takes longer is given up for the next one.
const RENEWAL_MAX: Duration = Duration::from_secs(1);
/// Results of work beside the loop that may wait for it.
const BACKGROUND_MAX: usize = 64;
/// Longest message-free wait: whatever is due is then looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Decisions { cause: u64 },
    Claim,
    Control,
}

struct Outcome {
    partition: Partition,
    epoch: u64,
    kind: Kind,
    results: Vec<Result<Appended, AppendError>>,
}

/// What was done beside the loop.
enum Done<D> {
    Renewed(bool),
    Joined(Result<Folded<D>, SnapshotError>),
    Snapshot(Partition, Option<(u64, u64)>),
}

/// Runs a replica of the service `D` over `log` until `stop`, then hands over what it owns.
///
/// # Errors
/// See [`LoopError`]; everything that passes by itself (a lost connection, a refused write) is settled inside.
pub async fn run<D: Decider, L: Log, S: Shell<D>>(
    log: L,
    mut shell: S,
    settings: LoopSettings,
    stop: CancellationToken,
) -> Result<(), LoopError> {
    let mut observations = shell.observations();
    let prefix = format!("{}.", D::SERVICE);
    let mut presence = log.watch_presence(&prefix);
    let mut notices = match settings.notices.clone() {
        Some(notices) => swarm_log::notices::follow(notices),
        None => futures::stream::pending().boxed(),
    };
    let (done, mut background) = mpsc::channel(BACKGROUND_MAX);
    let mut driver = Driver::<D, L, S>::new(log, shell, settings, done);
    let mut tail = futures::stream::pending().boxed();
    while !driver.ended {
        driver.poll().await;
        if let Some(from) = driver.resume_behind.take() {
            tail = driver.tail(from);
        }
        if driver.tail_is_dead() {
            warn!(
                sequence = driver.replica.position(),
                "an acknowledged write was not met in time: the tail is rebuilt"
            );
            tail = driver.tail(driver.replica.position());
        }
        let wake_at = driver.next_poll();
        tokio::select! {
            biased;
            () = stop.cancelled(), if !driver.leaving => driver.leave(),
            Some(outcome) = driver.outcomes.next(), if !driver.outcomes.is_empty() => driver.settle(outcome),
            Some(done) = background.recv() => driver.done(done)?,
            Some(news) = presence.next() => driver.presence(news),
            Some(name) = notices.next() => driver.notice(&name),
            // Before the tail, which may always have something while the load is high.
            Some((partition, observed)) = receive(&mut observations) => driver.observe(partition, observed),
            item = tail.next() => match item {
                None => return Err(LoopError::TailEnded),
                Some(item) => driver.tailed(item?).await,
            },
            () = sleep_until(wake_at) => {}
        }
    }
    driver.drain().await;
    Ok(())
}

async fn receive<T>(receiver: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => pending().await,
    }
}

struct Driver<D: Decider, L: Log, S> {
    log: L,
    shell: S,
    instance: InstanceId,
    status: Arc<LoopStatus>,
    replica: Replica<D>,
    outcomes: FuturesUnordered<BoxFuture<'static, Outcome>>,
    done: mpsc::Sender<Done<D>>,
    /// Joins, snapshots and renewals under way; they end with the loop.
    beside: JoinSet<()>,
    started: Instant,
    /// Last time that anything was met.
    met_at: Instant,
    /// The first acknowledged own write that is not met yet, and since when.
    acked: Option<(u64, Instant)>,
    /// Filters of what the service decides from, on any partition.
    inputs: Vec<String>,
    /// Where the tail is to be built anew.
    resume_behind: Option<u64>,
    /// A presence key that waits for the one before to be acknowledged.
    announcing: bool,
    announcement: Option<Box<Announcement>>,
    created_micros: i64,
    leaving: bool,
    ended: bool,
}

impl<D: Decider, L: Log, S: Shell<D>> Driver<D, L, S> {
    fn new(log: L, shell: S, settings: LoopSettings, done: mpsc::Sender<Done<D>>) -> Self {
        let replica = Replica::new(
            settings.instance,
            settings.name,
            wall_clock(),
            settings.partitions,
        )
        .with_snapshots_every(settings.snapshot_every);
        Self {
            log,
            shell,
            instance: settings.instance,
            status: settings.status,
            replica,
            outcomes: FuturesUnordered::new(),
            done,
            beside: JoinSet::new(),
            started: Instant::now(),
            met_at: Instant::now(),
            acked: None,
            inputs: filter::inputs(D::SERVICE, None),
            resume_behind: None,
            announcing: false,
            announcement: None,
            created_micros: 0,
            leaving: false,
            ended: false,
        }
    }

    fn tail(
        &mut self,
        behind: u64,
    ) -> futures::stream::BoxStream<'static, Result<Tailed, LogError>> {
        self.acked = None;
        self.met_at = Instant::now();
        self.log.tail(filters_of(D::SERVICE), behind + 1)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn leave(&mut self) {
        self.leaving = true;
        info!(service = %D::SERVICE, owned = self.replica.owned(), "handing over");
        self.replica.leave(self.now());
    }

    fn presence(&mut self, news: PresenceNews) {
        let now = self.now();
        match news {
            PresenceNews::Put {
                key,
                value,
                written_micros,
            } => match serde_json::from_slice::<Announcement>(&value) {
                Ok(said) => {
                    self.replica
                        .heard(said, Timestamp::from_micros(written_micros), now);
                }
                Err(error) => warn!(key, %error, "a presence key cannot be read"),
            },
            PresenceNews::Removed { key } => {
                if let Some(instance) = instance_in(&key, '.') {
                    self.replica.removed(instance);
                }
            }
            PresenceNews::Complete => self.replica.complete(now),
        }
    }

    fn notice(&mut self, name: &str) {
        if let Some(instance) = instance_in(name, ' ') {
            self.replica.noticed(instance, self.now());
        }
    }

    async fn tailed(&mut self, item: Tailed) {
        let now = self.now();
        match item {
            // A tail that took an interrupted one's place says nothing of the interruption: that it is read is enough.
            Tailed::Message(message) => {
                self.following(now);
                self.message(message).await;
            }
            Tailed::CaughtUp | Tailed::Resumed => self.following(now),
            Tailed::Interrupted => {
                self.status.set_interrupted(true);
                self.replica.interrupted(now, wall_clock());
                warn!(sequence = self.replica.position(), "cut off from the log");
            }
        }
    }

    /// The log is read again, if it was not.
    fn following(&mut self, now: Duration) {
        if !self.status.interrupted() {
            return;
        }
        self.status.set_interrupted(false);
        self.acked = None;
        self.replica.resumed(now, wall_clock());
        info!(
            sequence = self.replica.position(),
            "following the log again"
        );
    }

    async fn message(&mut self, message: StoredMessage) {
        let time = Timestamp::from_micros(message.time_micros);
        self.replica.passed(message.sequence, time);
        self.met_at = Instant::now();
        self.status.set_sequence(message.sequence);
        if self
            .acked
            .is_some_and(|(sequence, _)| sequence <= message.sequence)
        {
            self.acked = None;
        }
        let of_all = may_concern_all(D::SERVICE, &message.subject);
        let home = partition_of_subject(&message.subject);
        if !of_all && !home.is_some_and(|p| self.replica.wants(p, message.sequence)) {
            return;
        }
        // What is read beyond the service's inputs must not reach a state: another replica may not read it.
        if reads_most(D::SERVICE) && !self.inputs.iter().any(|f| matches(f, &message.subject)) {
            return;
        }
        let input = read::read(message.sequence, time, &message.subject, &message.payload);
        let concerned: Vec<Partition> = if of_all && concerns_all(&input) {
            self.replica.folded().collect()
        } else {
            home.into_iter().collect()
        };
        for partition in concerned {
            match newer(&input) {
                None => self.fold(partition, &input).await,
                Some(detail) => {
                    error!(%partition, detail, "this partition is given up");
                    self.shell.lost(partition);
                    self.replica.cannot_fold(partition);
                }
            }
        }
    }

    async fn fold(&mut self, partition: Partition, input: &Input) {
        let Some((verdict, met)) = self.replica.fold(partition, input, self.now()) else {
            return;
        };
        let Some(machine) = self.replica.machine(partition) else {
            return;
        };
        if let Verdict::Void(why) = verdict {
            self.status.add_voids(1);
            metrics::counter!("swarm_void_inputs_total", "service" => D::SERVICE.as_str(), "reason" => why)
                .increment(1);
            debug!(sequence = input.sequence(), why, "void");
        }
        match met {
            Met::Owned => {
                info!(%partition, epoch = input.sequence(), service = %D::SERVICE, "owned");
                self.shell.owned(machine.state());
            }
            Met::Lost => {
                info!(%partition, by = input.sequence(), service = %D::SERVICE, "another replica has claimed");
                self.shell.lost(partition);
            }
            Met::Nothing => {}
        }
        if matches!(machine.mode(), Mode::Owner { .. }) {
            self.shell.met(machine.state(), input, verdict);
        }
        if met != Met::Nothing {
            self.count();
        }
        self.decide(partition).await;
    }

    fn count(&self) {
        self.status.set_owned(self.replica.owned() as u64);
        self.status.set_wanted(self.replica.wanted() as u64);
        self.status
            .set_unfoldable(self.replica.unfoldable().len() as u64);
    }

    async fn poll(&mut self) {
        for action in self.replica.poll(self.now()) {
            match action {
                Action::Announce(announcement) => self.announce(announcement),
                Action::Remove(instance) => {
                    let key = key_of(D::SERVICE, instance);
                    let _ = timeout(RENEWAL_MAX, self.log.remove_presence(&key)).await;
                }
                Action::Append(partition, need) => self.need(partition, need),
                Action::Observe(partition, observed) => self.observe(partition, observed),
                Action::Join(partitions) => self.join(partitions),
                Action::Snapshot(partition) => self.snapshot(partition),
                Action::End => self.ended = true,
            }
        }
    }

    fn next_poll(&self) -> Instant {
        let now = self.now();
        let due = self.replica.next_poll(now).min(now + LOOK_EVERY);
        let tail = self
            .acked
            .map(|(_, since)| since.max(self.met_at) + MET_WITHIN);
        let due = self.started + due;
        tail.map_or(due, |tail| tail.min(due))
    }

    fn tail_is_dead(&self) -> bool {
        self.acked
            .is_some_and(|(_, since)| since.max(self.met_at).elapsed() >= MET_WITHIN)
    }

    /// Waits for what was appended; what stays unknown is in the log or not, and the next owner sees which.
    async fn drain(&mut self) {
        let _ = timeout(DRAIN_MAX, async {
            while self.outcomes.next().await.is_some() {}
        })
        .await;
    }
}

fn key_of(service: Service, instance: InstanceId) -> String {
    format!("{service}.{instance}")
}

/// The instance that stands behind the last separator of a presence key or of a connection's name.
fn instance_in(text: &str, separator: char) -> Option<InstanceId> {
    text.rsplit(separator).next()?.parse().ok()
}

fn wall_clock() -> Timestamp {
    Timestamp::from(chrono::Utc::now())
}
