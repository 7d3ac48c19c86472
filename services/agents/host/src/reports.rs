//! What this host says of its processes: kept until the log has it, in order for each agent.
//!
//! Nothing of an agent is claimed while a report of it waits, and each process has two reports at the most; so the queue is
//! bounded by the number of processes. Refusals beyond [`WAITING_MAX`] are dropped: they are for people only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use swarm_agent_host_core::Key;
use swarm_events::{
    Body, EventId,
    agent::{HostName, SpawnDeclined},
    subject::AgentVerb,
};
use swarm_log::{AppendError, Log, Message};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::claims::message;

/// Reports that may wait before refusals are dropped.
pub(crate) const WAITING_MAX: usize = 4_096;
/// Reports sent together.
const TOGETHER_MAX: usize = 100;
/// First and longest pause after the log did not take a report.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(1);

type Waiting = Arc<Mutex<BTreeMap<Key, usize>>>;

/// The way in. Clones share one queue.
#[derive(Clone)]
pub(crate) struct Reports {
    host: HostName,
    queue: mpsc::UnboundedSender<(Key, Message)>,
    waiting: Waiting,
}

impl Reports {
    /// A queue that is emptied into `log` by a task of its own, which ends when all clones are gone and the queue is empty.
    /// `reported` is told of each agent of which nothing waits any more.
    pub(crate) fn start(
        log: impl Log,
        host: HostName,
        reported: mpsc::UnboundedSender<Key>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, inbox) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        let task = tokio::spawn(send_all(log, inbox, waiting.clone(), reported));
        let reports = Self {
            host,
            queue,
            waiting,
        };
        (reports, task)
    }

    /// Puts a report at the end of the queue.
    pub(crate) fn say(&self, key: Key, verb: AgentVerb, body: impl Into<Body>) {
        let id = EventId(Uuid::now_v7());
        match message(&self.host, id, key, verb, None, body) {
            Ok(message) => {
                *lock(&self.waiting).entry(key).or_default() += 1;
                if self.queue.send((key, message)).is_err() {
                    tracing::error!(agent = %key.agent, "a report is lost: the task that sends them has ended");
                }
            }
            Err(error) => tracing::error!(%error, agent = %key.agent, "a report cannot be written"),
        }
    }

    /// A refusal, unless too much waits.
    pub(crate) fn decline(&self, key: Key, declined: SpawnDeclined) {
        if lock(&self.waiting).len() < WAITING_MAX {
            self.say(key, AgentVerb::SpawnDeclined, declined);
        }
    }

    /// Whether a report of this agent waits.
    pub(crate) fn waits(&self, key: Key) -> bool {
        lock(&self.waiting).contains_key(&key)
    }

    /// How many agents have reports that wait.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, BTreeMap<Key, usize>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send_all(
    log: impl Log,
    mut inbox: mpsc::UnboundedReceiver<(Key, Message)>,
    waiting: Waiting,
    reported: mpsc::UnboundedSender<Key>,
) {
    let mut open: Vec<(Key, Message)> = Vec::new();
    let mut pause = RETRY_MIN;
    loop {
        if open.is_empty() {
            if inbox.recv_many(&mut open, TOGETHER_MAX).await == 0 {
                return;
            }
        } else {
            while open.len() < TOGETHER_MAX
                && let Ok(more) = inbox.try_recv()
            {
                open.push(more);
            }
        }
        // The first of each agent: what comes after it must not be stored before it.
        let mut agents = BTreeSet::new();
        let (now, later): (Vec<_>, Vec<_>) =
            open.drain(..).partition(|(key, _)| agents.insert(*key));
        let outcomes = log
            .append(now.iter().map(|(_, message)| message.clone()).collect())
            .await;
        let mut failed = false;
        for ((key, message), outcome) in now.into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => done(&waiting, key, &reported),
                Err(error @ AppendError::TooLarge { .. }) => {
                    tracing::error!(%error, agent = %key.agent, "a report is given up");
                    done(&waiting, key, &reported);
                }
                Err(error) => {
                    tracing::warn!(%error, agent = %key.agent, "a report waits");
                    failed = true;
                    open.push((key, message));
                }
            }
        }
        open.extend(later);
        if failed {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        } else {
            pause = RETRY_MIN;
        }
    }
}

fn done(waiting: &Waiting, key: Key, reported: &mpsc::UnboundedSender<Key>) {
    let mut waiting = lock(waiting);
    if let Some(count) = waiting.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            waiting.remove(&key);
            let _ = reported.send(key); // the host has ended: nobody waits for it
        }
    }
}
