//! The writer: one task per process, fed in call order.
//!
//! On a single node with default sync it publishes each message plainly, many in flight. Otherwise it groups
//! ([`super::group`]). Acks are drained by another task ([`super::acks`]): a task that both publishes and drains stops when
//! the permits run out.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Counters, Durability, LogSettings,
    acks::Acks,
    group,
    wire::{self, BatchPlace, Outcome, codes},
};
use crate::{AppendError, Appended, LogError, Message, connect::Connection};

/// Publishes in flight in pipelined mode. Enough to hide a round trip at 60,000/s, few enough for the 64k replies that a
/// subscription holds.
const PIPELINED_MAX: usize = 4_096;

pub(crate) type Answer = Result<Appended, AppendError>;

/// What `append` and `append_atomic` hand over.
pub(crate) enum Job {
    Each(Vec<Item>),
    Atomic {
        messages: Vec<Message>,
        answer: oneshot::Sender<Answer>,
    },
}

impl Job {
    pub(crate) fn each(messages: Vec<Message>, answer: oneshot::Sender<Vec<Answer>>) -> Self {
        let state = Collected {
            outcomes: vec![None; messages.len()],
            left: messages.len(),
            answer: Some(answer),
        };
        let collector = Arc::new(Mutex::new(state));
        let item = |(index, message)| Item {
            message,
            index,
            collector: collector.clone(),
        };
        Self::Each(messages.into_iter().enumerate().map(item).collect())
    }
}

/// One message of an `append`, and where its outcome goes.
pub(crate) struct Item {
    pub(crate) message: Message,
    index: usize,
    collector: Arc<Mutex<Collected>>,
}

pub(crate) struct Collected {
    outcomes: Vec<Option<Answer>>,
    left: usize,
    answer: Option<oneshot::Sender<Vec<Answer>>>,
}

impl Item {
    pub(crate) fn resolve(self, outcome: Answer, counters: &Counters) {
        counters.count(&outcome, 1);
        let mut collected = self
            .collector
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        collected.outcomes[self.index] = Some(outcome);
        collected.left -= 1;
        if collected.left == 0
            && let Some(answer) = collected.answer.take()
        {
            let outcomes = std::mem::take(&mut collected.outcomes);
            let _ = answer.send(outcomes.into_iter().flatten().collect()); // nobody waits: the message is stored all the same
        }
    }
}

/// What both kinds of writer share.
pub(crate) struct Sender {
    pub(crate) acks: Arc<Acks>,
    pub(crate) settings: LogSettings,
    pub(crate) counters: Arc<Counters>,
}

pub(super) async fn start(
    connection: &Connection,
    settings: LogSettings,
    counters: Arc<Counters>,
) -> Result<mpsc::UnboundedSender<Job>, LogError> {
    let done = CancellationToken::new();
    let acks = Acks::start(
        connection,
        settings.ack_timeout,
        counters.clone(),
        done.clone(),
    )
    .await?;
    let (jobs, queue) = mpsc::unbounded_channel();
    let sender = Sender {
        acks,
        settings,
        counters,
    };
    tokio::spawn(async move {
        let _done = done.drop_guard();
        if sender.settings.durability == Durability::Speed && sender.settings.replicas <= 1 {
            pipelined(sender, queue).await;
        } else {
            group::run(sender, queue).await;
        }
    });
    Ok(jobs)
}

async fn pipelined(sender: Sender, mut queue: mpsc::UnboundedReceiver<Job>) {
    let permits = Arc::new(Semaphore::new(PIPELINED_MAX));
    while let Some(job) = queue.recv().await {
        match job {
            Job::Each(items) => {
                for item in items {
                    let Ok(permit) = permits.clone().acquire_owned().await else {
                        return;
                    };
                    sender.publish_item(item, Some(permit)).await;
                }
            }
            Job::Atomic { messages, answer } => {
                if let Some(refusal) = check_all(&messages) {
                    sender
                        .counters
                        .count(&Err(refusal.clone()), messages.len() as u64);
                    let _ = answer.send(Err(refusal));
                    continue;
                }
                // Not awaited: what follows may be in flight behind the commit, and is stored behind it.
                let outcome = sender.start_batch(messages.iter()).await;
                let counters = sender.counters.clone();
                tokio::spawn(async move {
                    let result = batch_result(received(outcome).await, &messages);
                    counters.count(&result, messages.len() as u64);
                    let _ = answer.send(result);
                });
            }
        }
    }
}

impl Sender {
    pub(crate) async fn publish_item(
        &self,
        item: Item,
        permit: Option<tokio::sync::OwnedSemaphorePermit>,
    ) {
        if let Err(refusal) = wire::check(&item.message) {
            return item.resolve(Err(refusal), &self.counters);
        }
        let headers = wire::headers(&item.message, self.settings.content_type.as_deref(), None);
        let (subject, payload) = (item.message.subject.clone(), item.message.payload.clone());
        let counters = self.counters.clone();
        let on_outcome = Box::new(move |outcome: Outcome| {
            let result = outcome.into_result(&item.message.subject, item.message.fence.as_ref());
            item.resolve(result, &counters);
        });
        self.acks
            .publish(&subject, headers, payload, permit, on_outcome)
            .await;
    }

    /// Publishes one message; the receiver has its outcome.
    pub(crate) async fn start_one(&self, message: &Message) -> oneshot::Receiver<Outcome> {
        self.start_batch(std::iter::once(message)).await
    }

    /// Sends `messages` as one atomic batch (one message alone: plainly). Only the commit asks for an ack.
    pub(crate) async fn start_batch<'a>(
        &self,
        messages: impl ExactSizeIterator<Item = &'a Message>,
    ) -> oneshot::Receiver<Outcome> {
        let (answer, outcome) = oneshot::channel();
        let mut answer = Some(answer);
        let count = messages.len();
        let id = Uuid::new_v4().simple().to_string();
        if count > 1 {
            self.counters.batches.fetch_add(1, Ordering::Relaxed);
            self.counters
                .batched
                .fetch_add(count as u64, Ordering::Relaxed);
        }
        for (index, message) in messages.enumerate() {
            let last = index + 1 == count;
            let place = (count > 1).then_some(BatchPlace {
                id: &id,
                sequence: index + 1,
                last,
            });
            let headers = wire::headers(message, self.settings.content_type.as_deref(), place);
            let payload = message.payload.clone();
            if last {
                let answer = answer.take();
                let on_outcome = Box::new(move |outcome| {
                    let _ = answer.and_then(|answer| answer.send(outcome).err()); // nobody waits
                });
                self.acks
                    .publish(&message.subject, headers, payload, None, on_outcome)
                    .await;
            } else if !self
                .acks
                .publish_silent(&message.subject, headers, payload)
                .await
            {
                break; // without its commit the batch is dropped by the server
            }
        }
        outcome
    }
}

/// The first reason why one of `messages` must not be sent.
pub(crate) fn check_all(messages: &[Message]) -> Option<AppendError> {
    messages
        .iter()
        .find_map(|message| wire::check(message).err())
}

/// The answer for a whole batch. The server does not say which fence failed: its words name the sequence it found, so the
/// first fence that expects another one is reported.
pub(crate) fn batch_result(outcome: Outcome, messages: &[Message]) -> Answer {
    let mut fences = messages.iter().filter_map(|message| message.fence.as_ref());
    let fence = match &outcome {
        Outcome::Refused {
            code: codes::WRONG_LAST_SEQUENCE,
            description,
            ..
        } => {
            let found = description
                .rsplit(' ')
                .next()
                .and_then(|word| word.parse::<u64>().ok());
            fences
                .clone()
                .find(|fence| Some(fence.sequence) != found)
                .or_else(|| fences.next())
        }
        _ => fences.next(),
    };
    outcome.into_result(
        messages.first().map_or("", |message| &message.subject),
        fence,
    )
}

pub(crate) async fn received(outcome: oneshot::Receiver<Outcome>) -> Outcome {
    outcome
        .await
        .unwrap_or_else(|_| Outcome::Lost("not connected".to_owned()))
}
