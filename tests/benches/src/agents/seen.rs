//! What one swarm's log tells of agents, their processes and what they run; kept up to date by a task of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use futures::StreamExt;
use swarm_chaos::follow::as_input;
use swarm_events::{AgentId, Body, Input, InstanceId, Place, Recorded, TaskId};
use swarm_log::{Log, Tailed, jetstream::JetStreamLog};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// An agent.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// Number of its joins.
    pub incarnation: u64,
    /// It is a member, and nothing speaks against it.
    pub ready: bool,
    /// Its process, if a host runs one.
    pub process: Option<Process>,
}

/// A process that a host started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The request that it answers.
    pub spawn: u64,
    /// Its id, which is also that of its group.
    pub pid: u32,
    /// The host.
    pub host: InstanceId,
}

/// An attempt that runs.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// The task.
    pub task: TaskId,
    /// Who works on it.
    pub agent: AgentId,
    /// Store time of its `started`, in microseconds.
    pub since: i64,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// It has a result.
    pub completed: bool,
    /// Store time, in microseconds.
    pub at: i64,
}

/// A verdict on an agent that may be a false one.
#[derive(Clone, Debug)]
pub struct Alarm {
    /// The agent.
    pub agent: AgentId,
    /// `suspected`, `failed` or `quarantined`, with what it rests on.
    pub what: String,
    /// It was held to be dead.
    pub failed: bool,
}

/// The fold.
#[derive(Debug, Default)]
pub struct Seen {
    pub agents: BTreeMap<AgentId, Agent>,
    pub running: BTreeMap<u64, Running>,
    /// The last start of each task: when, in microseconds, and by whom.
    pub started: BTreeMap<TaskId, (i64, AgentId)>,
    pub ended: BTreeMap<TaskId, End>,
    pub alarms: Vec<Alarm>,
    /// Microseconds that agents have spent on attempts that came to a result.
    pub busy: i64,
    pub crash_looping: BTreeSet<AgentId>,
    /// Bytes and number of health's samples.
    pub sampled: (u64, u64),
    /// Who leads, and the store time of the last election, in microseconds.
    pub led: Option<(AgentId, i64)>,
}

impl Seen {
    /// Agents that can take work.
    pub fn ready(&self) -> usize {
        self.agents.values().filter(|agent| agent.ready).count()
    }

    /// What the agents of `these` run now.
    pub fn runs(&self, these: &BTreeSet<AgentId>) -> Vec<Running> {
        let of_these = self
            .running
            .values()
            .filter(|run| these.contains(&run.agent));
        of_these.copied().collect()
    }

    fn meet(&mut self, recorded: &Recorded, bytes: usize) {
        let at = recorded.time.as_micros();
        let task = TaskId(recorded.event.about);
        let agent = recorded.subject.agent();
        match &recorded.event.body {
            Body::AgentJoined(joined) => {
                if let Some(agent) = self.known(agent) {
                    (agent.incarnation, agent.ready) = (joined.incarnation, true);
                }
            }
            Body::AgentLaunched(launched) => {
                if let Some(agent) = self.known(agent) {
                    agent.process = Some(Process {
                        spawn: launched.spawn,
                        pid: launched.pid,
                        host: launched.host.instance,
                    });
                }
            }
            Body::AgentExited(exited) => {
                if let Some(agent) = self.known(agent)
                    && agent.process.is_some_and(|one| one.spawn == exited.spawn)
                {
                    agent.process = None;
                }
            }
            Body::AgentLeft(_) | Body::AgentRemoved(_) => {
                if let Some(agent) = self.known(agent) {
                    agent.ready = false;
                }
            }
            Body::AgentSuspected(verdict) => {
                self.alarm(agent, "suspected", &verdict.evidence, false)
            }
            Body::AgentFailed(verdict) => {
                if let Some(agent) = self.known(agent) {
                    agent.ready = false;
                }
                self.alarm(agent, "failed", &verdict.evidence, true);
            }
            Body::AgentRecovered(_) => {
                if let Some(agent) = self.known(agent) {
                    agent.ready = true;
                }
            }
            Body::AgentQuarantined(verdict) => {
                self.alarm(agent, "quarantined", verdict, false);
            }
            Body::AgentCrashLooping(_) => self.crash_looping.extend(agent),
            Body::TaskStarted(started) => {
                if let Some(agent) = agent {
                    let since = at;
                    self.running
                        .insert(started.assignment, Running { task, agent, since });
                    self.started.insert(task, (at, agent));
                }
            }
            Body::TaskCompleted(completed) => {
                // Without a running attempt it is void.
                if let Some(run) = self.running.remove(&completed.assignment) {
                    self.busy += at - run.since;
                    let completed = true;
                    self.ended.insert(task, End { completed, at });
                }
            }
            Body::TaskAttemptFailed(failed) => {
                if let Some(run) = self.running.remove(&failed.assignment) {
                    self.busy += at - run.since;
                }
            }
            Body::TaskWithdrawn(withdrawn) if withdrawn.force => {
                self.running.remove(&withdrawn.assignment);
            }
            Body::TaskFailed(_) | Body::TaskCancelled(_) | Body::TaskRejected(_) => {
                let completed = false;
                self.ended.insert(task, End { completed, at });
            }
            Body::SwarmLeaderElected(elected) => {
                self.led = elected.leader.map(|leader| (leader, at));
            }
            Body::SwarmSampled(_) => {
                self.sampled.0 += bytes as u64;
                self.sampled.1 += 1;
            }
            _ => {}
        }
    }

    fn known(&mut self, agent: Option<AgentId>) -> Option<&mut Agent> {
        agent.map(|id| self.agents.entry(id).or_default())
    }

    fn alarm(
        &mut self,
        agent: Option<AgentId>,
        word: &str,
        evidence: &impl std::fmt::Debug,
        failed: bool,
    ) {
        if let Some(agent) = agent {
            let what = format!("{word} {evidence:?}");
            self.alarms.push(Alarm {
                agent,
                what,
                failed,
            });
        }
    }
}

/// Follows a swarm. Ends when dropped.
pub struct Follower {
    seen: Arc<Mutex<Seen>>,
    news: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows the swarm at `place` from the log's first event on.
    pub fn start(log: &JetStreamLog, place: Place) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (told, news) = watch::channel(0);
        let mut tail = log.tail(vec![format!("swarm.evt.{place}.>")], 1);
        let folding = seen.clone();
        let task = tokio::spawn(async move {
            while let Some(Ok(tailed)) = tail.next().await {
                if let Tailed::Message(stored) = tailed
                    && let Input::Event(recorded) = as_input(&stored)
                {
                    lock(&folding).meet(&recorded, stored.payload.len());
                    told.send_replace(stored.sequence);
                }
            }
        });
        Self { seen, news, task }
    }

    /// Asks the fold as it stands.
    pub fn see<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&lock(&self.seen))
    }

    /// Waits until the log shows `what`.
    ///
    /// # Errors
    /// It does not within `patience`, or the log cannot be read any more.
    pub async fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&Seen) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut news = self.news.clone();
        let deadline = Instant::now() + patience;
        loop {
            news.borrow_and_update();
            if let Some(found) = self.see(&mut look) {
                return Ok(found);
            }
            match timeout_at(deadline, news.changed()).await {
                Ok(changed) => changed.context("the log cannot be followed any more")?,
                Err(_) => bail!("not within {} s: {what}", patience.as_secs()),
            }
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
