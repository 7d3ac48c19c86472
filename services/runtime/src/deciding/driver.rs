//! Drives the machines of a process over a log.

mod settle;

use std::{
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use swarm_events::{
    Input, Partition, Problem, Subject, Timestamp,
    control::{Claimed, Observed, Woken},
    decider::{Decider, Decision, Verdict},
    ids::InstanceId,
    read,
    read::partition_of_subject,
    subject::{ControlVerb, Service, filter},
};
use swarm_log::{
    AppendError, Appended, Log, LogError, Message, StoredMessage, Tailed, filter::matches,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    encode::{control_message, decision_message, epoch_fence},
    machine::{Machine, Met, Mode, Need},
    status::LoopStatus,
};

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
#[derive(Clone, Debug)]
pub struct LoopSettings {
    /// This process.
    pub instance: InstanceId,
    /// The partitions that it wants to decide for.
    pub partitions: Vec<Partition>,
    /// Where it shows its figures.
    pub status: Arc<LoopStatus>,
}
impl LoopSettings {
    /// All partitions, figures of its own.
    pub fn all(instance: InstanceId) -> Self {
        Self {
            instance,
            partitions: Partition::all().collect(),
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
    /// A newer service wrote what this one cannot fold.
    #[error(
        "{subject} at sequence {sequence} was written by a newer version ({detail}): upgrade this service"
    )]
    Newer {
        /// Its subject.
        subject: String,
        /// Its sequence.
        sequence: u64,
        /// What is not known here.
        detail: String,
    },
}

/// How long a stopping loop waits for the outcomes of what it has appended.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// An own acknowledged write that is not met within this time means that the tail is dead without knowing it.
const MET_WITHIN: Duration = Duration::from_secs(1);
/// Wait before the next try while the log takes no more (disk or stream full).
const FULL_RETRY: Duration = Duration::from_secs(1);

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

/// Runs the service `D` over `log` until `stop`.
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
    let mut driver = Driver::<D, L, S>::new(log, shell, settings);
    let mut tail = driver.tail();
    loop {
        let wake_at = driver.next_poll();
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(outcome) = driver.outcomes.next(), if !driver.outcomes.is_empty() => driver.settle(outcome),
            // Before the tail, which may always have something while the load is high.
            Some((partition, observed)) = receive(&mut observations) => driver.observe(partition, observed),
            item = tail.next() => match item {
                None => return Err(LoopError::TailEnded),
                Some(item) => driver.tailed(item?).await?,
            },
            () = at(wake_at) => {}
        }
        driver.poll();
        if driver.tail_is_dead() {
            warn!(
                sequence = driver.sequence,
                "an acknowledged write was not met in time: the tail is rebuilt"
            );
            tail = driver.tail();
        }
    }
    driver.drain().await;
    Ok(())
}

/// Whether nearly everything in the log is an input of `service`: then it reads all of it and picks here, since a consumer
/// with several filters costs nats-server more for each message than everything else together.
const fn reads_most(service: Service) -> bool {
    matches!(service, Service::Distributor)
}

async fn receive<T>(receiver: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => pending().await,
    }
}
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

struct Driver<D: Decider, L: Log, S> {
    log: L,
    shell: S,
    settings: LoopSettings,
    machines: Vec<Option<Machine<D>>>,
    /// When each machine wants to be polled, as of its last change: 64 deadlines need not be asked for at every input.
    due: Vec<Option<Duration>>,
    outcomes: FuturesUnordered<futures::future::BoxFuture<'static, Outcome>>,
    started: Instant,
    sequence: u64,
    /// Last time that anything was met.
    met_at: Instant,
    /// The first acknowledged own write that is not met yet, and since when.
    acked: Option<(u64, Instant)>,
    /// Filters of what the service decides from, on any partition.
    inputs: Vec<String>,
}

impl<D: Decider, L: Log, S: Shell<D>> Driver<D, L, S> {
    fn new(log: L, shell: S, settings: LoopSettings) -> Self {
        let mut machines: Vec<Option<Machine<D>>> = Partition::all().map(|_| None).collect();
        for partition in &settings.partitions {
            machines[usize::from(partition.number())] =
                Some(Machine::new(*partition, settings.instance));
        }
        settings.status.set_wanted(settings.partitions.len() as u64);
        Self {
            log,
            shell,
            settings,
            machines,
            due: vec![None; usize::from(swarm_events::subject::PARTITIONS)],
            outcomes: FuturesUnordered::new(),
            started: Instant::now(),
            sequence: 0,
            met_at: Instant::now(),
            acked: None,
            inputs: filter::inputs(D::SERVICE, None),
        }
    }

    fn all_partitions(&self) -> bool {
        self.settings.partitions.len() == usize::from(swarm_events::subject::PARTITIONS)
    }

    fn tail(&mut self) -> futures::stream::BoxStream<'static, Result<Tailed, LogError>> {
        self.acked = None;
        let filters = if self.all_partitions() {
            if reads_most(D::SERVICE) {
                filter::all()
            } else {
                filter::inputs(D::SERVICE, None)
            }
        } else {
            let mut filters: Vec<String> = self
                .settings
                .partitions
                .iter()
                .flat_map(|p| filter::inputs(D::SERVICE, Some(*p)))
                .collect();
            filters.sort_unstable();
            filters.dedup();
            filters
        };
        self.log.tail(filters, self.sequence + 1)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn tailed(&mut self, item: Tailed) -> Result<(), LoopError> {
        match item {
            Tailed::Message(message) => self.message(message).await?,
            Tailed::CaughtUp => self.caught_up(),
            Tailed::Interrupted => {
                self.settings.status.set_interrupted(true);
                warn!(sequence = self.sequence, "cut off from the log");
            }
            Tailed::Resumed => {
                self.settings.status.set_interrupted(false);
                self.acked = None;
                info!(sequence = self.sequence, "following the log again");
            }
        }
        Ok(())
    }

    fn caught_up(&mut self) {
        if self.settings.status.caught_up() {
            return;
        }
        self.settings.status.set_caught_up();
        info!(
            sequence = self.sequence,
            "the log is folded to its end; claiming"
        );
        let now = self.now();
        for machine in self.machines.iter_mut().flatten() {
            machine.claim(now, "start");
            self.due[usize::from(machine.partition().number())] = machine.next_poll();
        }
    }

    async fn message(&mut self, message: StoredMessage) -> Result<(), LoopError> {
        self.sequence = message.sequence;
        self.met_at = Instant::now();
        self.settings.status.set_sequence(message.sequence);
        if self
            .acked
            .is_some_and(|(sequence, _)| sequence <= message.sequence)
        {
            self.acked = None;
        }
        // What is read beyond the service's inputs must not reach a state: another replica may not read it.
        if reads_most(D::SERVICE)
            && !self
                .inputs
                .iter()
                .any(|filter| matches(filter, &message.subject))
        {
            return Ok(());
        }
        let time = Timestamp::from_micros(message.time_micros);
        let input = read::read(message.sequence, time, &message.subject, &message.payload);
        if let Input::Unreadable(unreadable) = &input
            && unreadable.newer
        {
            return Err(LoopError::Newer {
                subject: unreadable.subject_text.clone(),
                sequence: unreadable.sequence,
                detail: unreadable.problem.to_string(),
            });
        }
        let for_all = matches!(&input, Input::Event(r) if matches!(r.subject, Subject::Org(..)));
        if for_all {
            for partition in Partition::all() {
                self.fold(partition, &input).await;
            }
        } else if let Some(partition) = partition_of_subject(&message.subject) {
            self.fold(partition, &input).await;
        }
        Ok(())
    }

    async fn fold(&mut self, partition: Partition, input: &Input) {
        let now = self.now();
        let Some(machine) = self.machines[usize::from(partition.number())].as_mut() else {
            return;
        };
        let (verdict, met) = machine.fold(input, now);
        if let Verdict::Void(why) = verdict {
            self.settings.status.add_voids(1);
            debug!(sequence = input.sequence(), why, "void");
        }
        match met {
            Met::Owned => {
                info!(%partition, epoch = input.sequence(), service = %D::SERVICE, "owned");
                self.shell.owned(machine.state());
            }
            Met::Lost => {
                warn!(%partition, by = input.sequence(), service = %D::SERVICE, "another replica has claimed");
                self.shell.lost(partition);
            }
            Met::Nothing => {}
        }
        if matches!(machine.mode(), Mode::Owner { .. }) {
            self.shell.met(machine.state(), input, verdict);
        }
        if met != Met::Nothing {
            self.count_owned();
        }
        self.decide(partition).await;
        self.reckon(partition);
    }

    fn reckon(&mut self, partition: Partition) {
        let number = usize::from(partition.number());
        self.due[number] = self.machines[number].as_ref().and_then(Machine::next_poll);
    }

    fn count_owned(&self) {
        let owned = self
            .machines
            .iter()
            .flatten()
            .filter(|m| matches!(m.mode(), Mode::Owner { .. }))
            .count();
        self.settings.status.set_owned(owned as u64);
    }

    async fn decide(&mut self, partition: Partition) {
        loop {
            let now = self.now();
            let Some(machine) = self.machines[usize::from(partition.number())].as_mut() else {
                return;
            };
            let decisions = machine.decide(now);
            let Some((_, first)) = decisions.first() else {
                return;
            };
            let (epoch, cause) = (first.epoch, first.cause_sequence);
            let fence = epoch_fence(D::SERVICE, partition, epoch);
            let last_input = machine.last_input();
            let mut messages = Vec::with_capacity(decisions.len());
            for (decision, decided) in decisions {
                let about = decision.about;
                let decision = if decision.hydrate.is_some() {
                    self.shell.hydrate(decision).await
                } else {
                    Ok(decision)
                };
                let message = decision.and_then(|decision| {
                    let time = wall_clock();
                    let instance = self.settings.instance;
                    decision_message(
                        D::SERVICE,
                        instance,
                        fence.clone(),
                        decision,
                        decided,
                        last_input,
                        time,
                    )
                    .map_err(|e| Problem::new("not-json", e.to_string()))
                });
                match message {
                    Ok(message) => messages.push(message),
                    Err(problem) => {
                        // Nothing behind it in this turn may be appended: an ordinal would be missing in the middle.
                        error!(%partition, %about, %problem, "a decision could not be completed");
                        let now = self.now();
                        if let Some(machine) =
                            self.machines[usize::from(partition.number())].as_mut()
                        {
                            machine.doubt(epoch, now + FULL_RETRY);
                        }
                        break;
                    }
                }
            }
            self.settings.status.add_decisions(messages.len() as u64);
            self.append(partition, epoch, Kind::Decisions { cause }, messages);
            // Outcomes are looked at between turns, so that a refused write stops the deciding.
            while let Some(Some(outcome)) = self.outcomes.next().now_or_never() {
                self.settle(outcome);
            }
        }
    }

    fn append(&mut self, partition: Partition, epoch: u64, kind: Kind, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let outcome = self.log.append(messages);
        self.outcomes.push(
            async move {
                Outcome {
                    partition,
                    epoch,
                    kind,
                    results: outcome.await,
                }
            }
            .boxed(),
        );
    }

    fn observe(&mut self, partition: Partition, observed: Observed) {
        let Some(machine) = self.machines[usize::from(partition.number())].as_ref() else {
            return;
        };
        let Mode::Owner { epoch } = machine.mode() else {
            return;
        };
        self.control(
            partition,
            epoch,
            ControlVerb::Observed,
            observed,
            Kind::Control,
        );
    }

    fn control(
        &mut self,
        partition: Partition,
        expected: u64,
        verb: ControlVerb,
        body: impl Into<swarm_events::Body>,
        kind: Kind,
    ) {
        let fence = epoch_fence(D::SERVICE, partition, expected);
        match control_message(
            D::SERVICE,
            partition,
            verb,
            self.settings.instance,
            body,
            fence,
            wall_clock(),
        ) {
            Ok(message) => self.append(partition, expected, kind, vec![message]),
            Err(error) => {
                error!(%partition, %error, "a control message could not be written as JSON")
            }
        }
    }

    fn poll(&mut self) {
        let now = self.now();
        for number in 0..self.machines.len() {
            if self.due[number].is_none_or(|due| due > now) {
                continue;
            }
            let Some(machine) = self.machines[number].as_mut() else {
                continue;
            };
            let partition = machine.partition();
            let need = machine.poll(now);
            self.due[number] = machine.next_poll();
            match need {
                None => {}
                Some(Need::Claim {
                    expected,
                    reason,
                    rejects,
                }) => {
                    let claimed = Claimed {
                        instance: self.settings.instance,
                        decider_version: D::VERSION,
                        previous: expected,
                        reason: reason.to_owned(),
                        rejects,
                    };
                    self.control(
                        partition,
                        expected,
                        ControlVerb::Claimed,
                        claimed,
                        Kind::Claim,
                    );
                }
                Some(Need::Wake { epoch }) => {
                    self.control(
                        partition,
                        epoch,
                        ControlVerb::Woken,
                        Woken {},
                        Kind::Control,
                    );
                }
            }
        }
    }

    fn next_poll(&self) -> Option<Instant> {
        let machines = self
            .due
            .iter()
            .flatten()
            .min()
            .map(|due| self.started + *due);
        let tail = self
            .acked
            .map(|(_, since)| since.max(self.met_at) + MET_WITHIN);
        machines.into_iter().chain(tail).min()
    }

    fn tail_is_dead(&self) -> bool {
        self.acked
            .is_some_and(|(_, since)| since.max(self.met_at).elapsed() >= MET_WITHIN)
    }

    /// Waits for what was appended; what stays unknown is in the log or not, and the next owner sees which.
    async fn drain(&mut self) {
        let _ = tokio::time::timeout(DRAIN_MAX, async {
            while self.outcomes.next().await.is_some() {}
        })
        .await;
    }
}

fn wall_clock() -> Timestamp {
    Timestamp::from(chrono::Utc::now())
}
