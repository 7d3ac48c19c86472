//! The bare pipeline's publisher: nothing but what JetStream asks for, in the way that is fast for the durability mode.
//! Written apart from Swarm's log client, which it is the measure of.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::StreamExt;
use swarm_servers::Durability;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::timeout,
};
use uuid::Uuid;

/// Publishes in flight, as in Swarm's client.
const IN_FLIGHT_MAX: usize = 4_096;
/// A batch costs about 3 ms whatever its size: below this, single publishes are faster even when each waits for the disk.
const BATCH_FROM: usize = 4;
/// After a batch, that many messages are awaited again for this long, as in Swarm's client.
const BATCH_WAIT: Duration = Duration::from_millis(2);

/// Called with the stream sequence once the message is stored, on the task that drains acknowledgements.
pub type Stored = Box<dyn FnOnce(u64) + Send>;

/// A message to store.
pub struct Job {
    pub subject: String,
    pub payload: Bytes,
    /// Subject, and the sequence that its last message must have.
    pub fence: Option<(String, u64)>,
    pub stored: Stored,
}

/// Where jobs go; they are published in this order.
pub type Jobs = mpsc::UnboundedSender<Job>;

type Waiting = Arc<Mutex<HashMap<u64, Vec<Stored>>>>;

struct Writer {
    client: Client,
    inbox: String,
    waiting: Waiting,
    room: Arc<Semaphore>,
    answered: Arc<Notify>,
    next: u64,
    batch_max: usize,
}

/// Starts a writer on a connection of its own; it ends with the last sender. A refusal ends the process: a benchmark that
/// lost a message has no result. `batch_max`: messages in an atomic batch at the most, where writes wait for the disk.
///
/// # Errors
/// The connection fails.
pub async fn start(url: &str, durability: Durability, batch_max: usize) -> anyhow::Result<Jobs> {
    let client = async_nats::connect(url)
        .await
        .context("nats-server cannot be reached")?;
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(format!("{inbox}.*")).await?;
    let writer = Writer {
        client,
        inbox,
        waiting: Arc::default(),
        room: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
        answered: Arc::default(),
        next: 0,
        batch_max,
    };
    let (waiting, room, answered) = (
        writer.waiting.clone(),
        writer.room.clone(),
        writer.answered.clone(),
    );
    tokio::spawn(async move {
        while let Some(reply) = replies.next().await {
            let number = reply
                .subject
                .rsplit('.')
                .next()
                .and_then(|token| token.parse().ok());
            let stored = number.and_then(|number: u64| {
                waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&number)
            });
            let last = sequence(&reply.payload).unwrap_or_else(|| {
                eprintln!(
                    "the bare pipeline was refused: {}",
                    String::from_utf8_lossy(&reply.payload)
                );
                std::process::exit(1);
            });
            let Some(stored) = stored else { continue };
            room.add_permits(1);
            let first = last + 1 - stored.len() as u64;
            for (sequence, stored) in (first..).zip(stored) {
                stored(sequence);
            }
            answered.notify_one();
        }
    });
    let (jobs, received) = mpsc::unbounded_channel();
    match durability {
        Durability::Speed => tokio::spawn(writer.pipeline(received)),
        Durability::Always => tokio::spawn(writer.group(received)),
    };
    Ok(jobs)
}

/// `seq` of an acknowledgement, `None` of a refusal.
fn sequence(ack: &[u8]) -> Option<u64> {
    let ack: serde_json::Value = serde_json::from_slice(ack).ok()?;
    if ack.get("error").is_some() {
        return None;
    }
    ack.get("seq")?.as_u64()
}

impl Writer {
    async fn pipeline(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = jobs.recv().await {
            self.publish(job, HeaderMap::new()).await;
        }
    }

    /// One group in flight at a time: what arrives meanwhile makes the next.
    async fn group(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut group = Vec::new();
        let mut last_batch = 0;
        loop {
            if jobs.recv_many(&mut group, self.batch_max).await == 0 {
                return;
            }
            let more = async {
                while group.len() < last_batch {
                    let room = self.batch_max - group.len();
                    if jobs.recv_many(&mut group, room).await == 0 {
                        return;
                    }
                }
            };
            let _ = timeout(BATCH_WAIT, more).await; // what came in time counts
            last_batch = 0;
            if group.len() >= BATCH_FROM {
                last_batch = group.len();
                self.batch(std::mem::take(&mut group)).await;
            } else {
                for job in group.drain(..) {
                    self.publish(job, HeaderMap::new()).await;
                }
            }
            while !self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty()
            {
                self.answered.notified().await;
            }
        }
    }

    async fn batch(&mut self, jobs: Vec<Job>) {
        let id = Uuid::new_v4().simple().to_string();
        let mut stored = Vec::with_capacity(jobs.len());
        let count = jobs.len();
        for (index, job) in jobs.into_iter().enumerate() {
            let mut headers = fenced(job.fence.as_ref(), HeaderMap::new());
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
            stored.push(job.stored);
            if index + 1 < count {
                let sent = self
                    .client
                    .publish_with_headers(job.subject, headers, job.payload)
                    .await;
                fail_on(sent);
            } else {
                headers.insert("Nats-Batch-Commit", "1");
                self.send(
                    job.subject,
                    headers,
                    job.payload,
                    std::mem::take(&mut stored),
                )
                .await;
            }
        }
    }

    async fn publish(&mut self, job: Job, headers: HeaderMap) {
        let headers = fenced(job.fence.as_ref(), headers);
        self.send(job.subject, headers, job.payload, vec![job.stored])
            .await;
    }

    async fn send(
        &mut self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        stored: Vec<Stored>,
    ) {
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
        self.next += 1;
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(self.next, stored);
        let reply = format!("{}.{}", self.inbox, self.next);
        let sent = if headers.is_empty() {
            self.client
                .publish_with_reply(subject, reply, payload)
                .await
        } else {
            self.client
                .publish_with_reply_and_headers(subject, reply, headers, payload)
                .await
        };
        fail_on(sent);
    }
}

fn fenced(fence: Option<&(String, u64)>, mut headers: HeaderMap) -> HeaderMap {
    if let Some((subject, sequence)) = fence {
        headers.insert("Nats-Expected-Last-Subject-Sequence", sequence.to_string());
        headers.insert(
            "Nats-Expected-Last-Subject-Sequence-Subject",
            subject.as_str(),
        );
    }
    headers
}

fn fail_on<E: std::fmt::Display>(sent: Result<(), E>) {
    if let Err(error) = sent {
        eprintln!("the bare pipeline cannot publish: {error}");
        std::process::exit(1);
    }
}
