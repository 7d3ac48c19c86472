//! The grouping writer, for `sync_interval: always` and for clusters: what waits goes into one atomic batch.
//!
//! One group is in flight at a time. A batch that is refused is repeated one by one, and a later group stored meanwhile would
//! change the order. What arrives while a group is in flight makes the next one, so groups grow with the load and an idle
//! writer sends at once.

use std::{collections::VecDeque, time::Duration};

use futures::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout_at},
};

use super::{
    wire::{self, Outcome, codes},
    writer::{Answer, Item, Job, Sender, batch_result, check_all, received},
};
use crate::{AppendError, Appended, Message};

/// After a batch, that many messages are awaited again for at most this long: a batch costs about 3 ms to stage on a single
/// node whatever its size, so a fuller one pays.
const GROUP_WAIT: Duration = Duration::from_millis(2);
/// From here on a batch is faster than plain publishes on a single node, where staging one costs as much as several flushes.
const BATCH_FROM_SINGLE: usize = 4;
/// On a cluster a batch costs no more than a publish, and keeps one check in flight per subject.
const BATCH_FROM_CLUSTER: usize = 2;
/// Bounds the latency of the last in the group, and what is repeated one by one when a check refuses it.
const GROUP_MESSAGES_MAX: usize = 100;
/// Bounds what the server stages at once.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

enum Waiting {
    One(Item),
    Atomic(Vec<Message>, oneshot::Sender<Answer>),
}

pub(super) async fn run(sender: Sender, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut queue = VecDeque::new();
    let mut last_group = 0;
    loop {
        if queue.is_empty() {
            match jobs.recv().await {
                Some(job) => enqueue(&mut queue, job),
                None => return,
            }
        }
        while let Ok(job) = jobs.try_recv() {
            enqueue(&mut queue, job);
        }
        if last_group >= BATCH_FROM_SINGLE {
            let until = Instant::now() + GROUP_WAIT;
            while queue.len() < last_group {
                match timeout_at(until, jobs.recv()).await {
                    Ok(Some(job)) => enqueue(&mut queue, job),
                    Ok(None) | Err(_) => break,
                }
            }
        }
        match queue.pop_front() {
            Some(Waiting::Atomic(messages, answer)) => {
                last_group = 0;
                let result = send_batch(&sender, &messages).await;
                sender.counters.count(&result, messages.len() as u64);
                let _ = answer.send(result);
            }
            Some(Waiting::One(first)) => {
                let group = take_group(&mut queue, first);
                last_group = group.len();
                send_group(&sender, group).await;
            }
            None => {}
        }
    }
}

fn enqueue(queue: &mut VecDeque<Waiting>, job: Job) {
    match job {
        Job::Each(items) => queue.extend(items.into_iter().map(Waiting::One)),
        Job::Atomic { messages, answer } => queue.push_back(Waiting::Atomic(messages, answer)),
    }
}

fn take_group(queue: &mut VecDeque<Waiting>, first: Item) -> Vec<Item> {
    let mut bytes = first.message.payload.len();
    let mut group = vec![first];
    while group.len() < GROUP_MESSAGES_MAX
        && let Some(Waiting::One(next)) = queue.front()
        && bytes + next.message.payload.len() <= GROUP_BYTES_MAX
        && let Some(Waiting::One(next)) = queue.pop_front()
    {
        bytes += next.message.payload.len();
        group.push(next);
    }
    group
}

/// Sends the group and returns when every outcome is known.
async fn send_group(sender: &Sender, group: Vec<Item>) {
    let mut items = Vec::with_capacity(group.len());
    for item in group {
        match wire::check(&item.message) {
            Ok(()) => items.push(item),
            Err(refusal) => item.resolve(Err(refusal), &sender.counters),
        }
    }
    let cluster = sender.settings.replicas > 1;
    let batch_from = if cluster { BATCH_FROM_CLUSTER } else { BATCH_FROM_SINGLE };
    if items.len() >= batch_from {
        match settle(sender, || async { received(sender.start_batch(items.iter().map(|item| &item.message)).await).await }).await {
            Outcome::Stored { sequence, .. } => {
                let first = sequence.saturating_sub(items.len() as u64 - 1);
                for (sequence, item) in (first..).zip(items) {
                    item.resolve(Ok(Appended { sequence, duplicate: false }), &sender.counters);
                }
                return;
            }
            Outcome::Lost(cause) => {
                for item in items {
                    let unknown = wire::unknown(&item.message.subject, cause.clone());
                    item.resolve(Err(unknown), &sender.counters);
                }
                return;
            }
            // A check, a duplicate or a want of batch slots refused all of them: each is asked on its own.
            Outcome::Refused { .. } => {}
        }
    }
    if cluster {
        for item in items {
            let outcome = settle(sender, || async { received(sender.start_one(&item.message).await).await }).await;
            let result = outcome.into_result(&item.message.subject, item.message.fence.as_ref());
            item.resolve(result, &sender.counters);
        }
    } else {
        let mut outcomes = Vec::with_capacity(items.len());
        for item in &items {
            outcomes.push(received(sender.start_one(&item.message).await));
        }
        for (item, outcome) in items.into_iter().zip(join_all(outcomes).await) {
            let result = outcome.into_result(&item.message.subject, item.message.fence.as_ref());
            item.resolve(result, &sender.counters);
        }
    }
}

async fn send_batch(sender: &Sender, messages: &[Message]) -> Result<Appended, AppendError> {
    if let Some(refusal) = check_all(messages) {
        return Err(refusal);
    }
    let outcome = settle(sender, || async { received(sender.start_batch(messages.iter()).await).await }).await;
    batch_result(outcome, messages)
}

/// Repeats `send` as it is while another checked write on the subject, or all batch slots, are in flight.
async fn settle<F: Future<Output = Outcome> + Send>(sender: &Sender, mut send: impl FnMut() -> F) -> Outcome {
    let deadline = Instant::now() + sender.settings.ack_timeout;
    let mut pause_ms = 1;
    loop {
        let outcome = send().await;
        let busy = outcome.is_busy() || matches!(outcome, Outcome::Refused { code: codes::BATCHES_IN_FLIGHT, .. });
        if !busy || Instant::now() >= deadline {
            return outcome;
        }
        sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = pause_ms % 5 + 1; // 1 to 5 ms: the write in flight takes about one
    }
}
