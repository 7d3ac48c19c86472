//! What the log says while replicas come and go: who owns what, when something waited and when something was decided, and
//! whether every promise held. One reader of everything, from the first message on.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use futures::StreamExt;
use swarm_audit::{Checker, Invariant, Violation};
use swarm_events::{
    Body, Input, InstanceId, Partition, Recorded, Subject, TaskId, Timestamp,
    envelope::Source,
    read,
    subject::{Service, TaskVerb},
    task::Then,
};
use swarm_log::{Log, Tailed, jetstream::JetStreamLog};
use tokio::{task::AbortHandle, time::sleep};

use super::gaps::{Gap, Record, Step, longest};

/// Records older than this, by the newest, are forgotten: no run is looked at later.
const REMEMBERED_MICROS: i64 = 180_000_000;
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long tasks may take to end once nothing disturbs them any more.
const END_PATIENCE: Duration = Duration::from_secs(120);

/// The last claim of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub instance: InstanceId,
    pub epoch: u64,
    /// Store time in microseconds since the Unix epoch.
    pub at: i64,
}

/// Follows the log. Clones are one.
#[derive(Clone)]
pub struct Watch(Arc<Inner>);

struct Inner {
    seen: Mutex<Seen>,
    reader: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Default)]
struct Seen {
    last: u64,
    problem: Option<String>,
    claims: BTreeMap<(Service, Partition), Claim>,
    /// Of the distributor: tasks and assignments. Of the coordinator: commands and answers.
    records: BTreeMap<Service, VecDeque<Record>>,
    /// Last decision by partition: whose, and when.
    decided: BTreeMap<(Service, Partition), (InstanceId, i64)>,
    /// Assignments by who decided on them.
    shares: BTreeMap<InstanceId, u64>,
    /// When each task that somebody asks for was assigned first.
    assigned: HashMap<TaskId, i64>,
    ended: HashSet<TaskId>,
    checker: Checker,
}

/// The time now as the server's store times have it: both are of this machine's clock.
pub fn now_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or_default()
}

/// What became of the tasks, by the whole log.
#[derive(Debug)]
pub struct Verdict {
    /// Tasks whose submission was acknowledged.
    pub accepted: usize,
    /// Of these, the ones that never ended.
    pub lost: usize,
    /// Tasks with a second end, or held twice at once.
    pub doubled: usize,
    /// Everything else that the audit found.
    pub others: Vec<Violation>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.others.is_empty()
    }
}

impl Watch {
    /// Follows `log` from its first message on.
    pub fn follow(log: &JetStreamLog) -> Self {
        let mut tail = log.tail(vec![">".to_owned()], 1);
        Self(Arc::new_cyclic(|inner: &std::sync::Weak<Inner>| {
            let inner = inner.clone();
            let reader = tokio::spawn(async move {
                while let Some(tailed) = tail.next().await {
                    let Some(inner) = inner.upgrade() else { return };
                    let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    match tailed {
                        Ok(Tailed::Message(stored)) => {
                            let time = Timestamp::from_micros(stored.time_micros);
                            let input =
                                read(stored.sequence, time, &stored.subject, &stored.payload);
                            seen.meet(&input);
                        }
                        Ok(_) => {}
                        Err(error) => {
                            seen.problem = Some(error.to_string());
                            return;
                        }
                    }
                }
            });
            Inner {
                seen: Mutex::default(),
                reader: reader.abort_handle(),
            }
        }))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it still follows.
    ///
    /// # Errors
    /// The log cannot be read any more.
    pub fn check(&self) -> anyhow::Result<()> {
        match &self.seen().problem {
            Some(problem) => bail!("the log cannot be followed: {problem}"),
            None => Ok(()),
        }
    }

    /// The last claim of `partition`.
    pub fn owner(&self, service: Service, partition: Partition) -> Option<Claim> {
        self.seen().claims.get(&(service, partition)).copied()
    }

    /// The partitions that `instance` claimed last.
    pub fn owned_by(&self, service: Service, instance: InstanceId) -> Vec<Partition> {
        self.seen()
            .claims
            .iter()
            .filter(|((of, _), claim)| *of == service && claim.instance == instance)
            .map(|((_, partition), _)| *partition)
            .collect()
    }

    /// Who decided last in `partition`, and when.
    pub fn decided(&self, service: Service, partition: Partition) -> Option<(InstanceId, i64)> {
        self.seen().decided.get(&(service, partition)).copied()
    }

    /// The longest gap of `service` in `partition` within `from..=until`.
    pub fn gap(
        &self,
        service: Service,
        partition: Partition,
        from: i64,
        until: i64,
    ) -> Option<Gap> {
        let seen = self.seen();
        longest(seen.records.get(&service)?, partition, from, until)
    }

    /// Assignments so far by who decided on them.
    pub fn shares(&self) -> BTreeMap<InstanceId, u64> {
        self.seen().shares.clone()
    }

    /// When `task` was assigned first, in microseconds since the Unix epoch.
    pub fn assigned(&self, task: TaskId) -> Option<i64> {
        self.seen().assigned.get(&task).copied()
    }

    /// How many tasks have ended.
    pub fn ended(&self) -> usize {
        self.seen().ended.len()
    }

    /// Waits until `holds`, and says whether it did in time.
    ///
    /// # Errors
    /// The log cannot be read any more.
    pub async fn until(
        &self,
        patience: Duration,
        mut holds: impl FnMut() -> bool,
    ) -> anyhow::Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            self.check()?;
            if holds() {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until everything that `log` holds now was read.
    ///
    /// # Errors
    /// The log cannot be read any more.
    pub async fn read_all(&self, log: &JetStreamLog) -> anyhow::Result<()> {
        let last = log.info().await?.last_sequence;
        if !self
            .until(END_PATIENCE, || self.seen().last >= last)
            .await?
        {
            bail!("the log cannot be read to its end");
        }
        Ok(())
    }

    /// Waits until every task of `accepted` has ended and everything in `log` was read, then judges all of it.
    ///
    /// # Errors
    /// The log cannot be read any more.
    pub async fn verdict(
        &self,
        log: &JetStreamLog,
        accepted: &HashSet<TaskId>,
    ) -> anyhow::Result<Verdict> {
        let all_ended = || accepted.is_subset(&self.seen().ended);
        self.until(END_PATIENCE, all_ended).await?; // what has not ended is counted below
        self.read_all(log).await?;
        let mut seen = self.seen();
        let lost = accepted.difference(&seen.ended).count();
        let mut checker = std::mem::take(&mut seen.checker);
        let sequence = seen.last;
        drop(seen);
        checker.finish(sequence);
        let is_double = |violation: &Violation| {
            matches!(
                violation.invariant,
                Invariant::OneTerminal | Invariant::OneStandingAssignment
            )
        };
        let (doubled, others): (Vec<_>, Vec<_>) = checker.violations.drain(..).partition(is_double);
        Ok(Verdict {
            accepted: accepted.len(),
            lost,
            doubled: doubled.len(),
            others,
        })
    }
}

impl Seen {
    fn meet(&mut self, input: &Input) {
        self.last = input.sequence();
        self.checker.meet(input);
        if let Input::Event(recorded) = input {
            self.event(recorded);
        }
    }

    fn event(&mut self, recorded: &Recorded) {
        let (at, event) = (recorded.time.as_micros(), &recorded.event);
        if let (Subject::Control(service, partition, _), Body::Claimed(claimed)) =
            (&recorded.subject, &event.body)
        {
            let claim = Claim {
                instance: claimed.instance,
                epoch: recorded.sequence,
                at,
            };
            self.claims.insert((*service, *partition), claim);
            return;
        }
        let partition = recorded.subject.partition();
        if let (Some(_), Source::Service(service, instance)) = (event.decided, &event.source) {
            self.decided.insert((*service, partition), (*instance, at));
        }
        let step = match (&recorded.subject, &event.body) {
            (Subject::Task(_, verb, _), body) => {
                let id = TaskId(event.about);
                if matches!(
                    verb,
                    TaskVerb::Completed
                        | TaskVerb::Failed
                        | TaskVerb::Cancelled
                        | TaskVerb::Rejected
                ) {
                    self.ended.insert(id);
                }
                let step = match body {
                    Body::TaskSubmitted(_) => Step::Waits(event.about.as_u128()),
                    Body::TaskWithdrawn(withdrawn) if withdrawn.then == Then::Queue => {
                        Step::Waits(event.about.as_u128())
                    }
                    Body::TaskAssigned(_) => {
                        self.assigned.entry(id).or_insert(at);
                        if let Source::Service(_, instance) = &event.source {
                            *self.shares.entry(*instance).or_default() += 1;
                        }
                        Step::Decided(event.about.as_u128())
                    }
                    Body::TaskRejected(_) | Body::TaskFailed(_) | Body::TaskCancelled(_) => {
                        Step::Decided(event.about.as_u128())
                    }
                    _ => return,
                };
                (Service::Distributor, step)
            }
            (Subject::Command(_, verb), _) if verb.service() == Service::Coordinator => {
                (Service::Coordinator, Step::Waits(event.id.0.as_u128()))
            }
            _ => match (&event.source, event.causation) {
                (Source::Service(Service::Coordinator, _), Some(cause)) => {
                    (Service::Coordinator, Step::Decided(cause.as_u128()))
                }
                _ => return,
            },
        };
        let (service, step) = step;
        let records = self.records.entry(service).or_default();
        while records
            .front()
            .is_some_and(|first| first.at < at - REMEMBERED_MICROS)
        {
            records.pop_front();
        }
        records.push_back(Record {
            at,
            partition,
            step,
        });
    }
}
