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
/// Below this a batch is never faster on a single node. From here on [`Costs`] decides.
const BATCH_FROM_SINGLE: usize = 4;
/// On a cluster a batch costs no more than a publish, and keeps one check in flight per subject.
const BATCH_FROM_CLUSTER: usize = 2;
/// Bounds the latency of the last in the group, and what is repeated one by one when a check refuses it. Batches are staged one
/// at a time per stream whatever their size, so under load the rate grows with them: end to end 870 tasks/s with 100 and 1,640
/// with 500 on a busy disk, and no difference in latency at 500 tasks/s.
const GROUP_MESSAGES_MAX: usize = 500;
/// Bounds what the server stages at once.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A plain publish and a batch on a single node with sync always, in seconds, as measured on an idle disk.
const COSTS_AT_FIRST: Costs = Costs {
    plain: 0.000_5,
    batch: 0.003_5,
};
/// Weight of the newest measurement.
const COST_WEIGHT: f64 = 0.2;
/// A batch that was passed over is tried again some time: its cost fades towards that of an idle disk.
const COST_FADING: f64 = 0.02;

/// What writing costs here and now. Staging a batch makes and flushes files of its own: about 3.5 ms on a quiet disk, 10 to
/// 20 ms on a busy one, so that no fixed size is right. With 8 callers on a shared disk: 3,650 messages/s by these costs, 2,690
/// when every group from 4 up is a batch.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// Seconds for each message.
    plain: f64,
    /// Seconds for a batch, whatever its size.
    batch: f64,
}

impl Costs {
    fn prefer_batch(&mut self, messages: usize) -> bool {
        if messages < BATCH_FROM_SINGLE {
            return false;
        }
        let prefer = self.plain * messages as f64 > self.batch;
        if !prefer {
            self.batch += (COSTS_AT_FIRST.batch - self.batch) * COST_FADING;
        }
        prefer
    }

    fn measured_plain(&mut self, messages: usize, took: Duration) {
        self.plain += (took.as_secs_f64() / messages as f64 - self.plain) * COST_WEIGHT;
    }

    fn measured_batch(&mut self, took: Duration) {
        self.batch += (took.as_secs_f64() - self.batch) * COST_WEIGHT;
    }
}

enum Waiting {
    One(Item),
    Atomic(Vec<Message>, oneshot::Sender<Answer>),
}

pub(super) async fn run(sender: Sender, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut queue = VecDeque::new();
    let mut costs = COSTS_AT_FIRST;
    // Size of the last group, if it was a batch.
    let mut last_batch = 0;
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
        if last_batch > 0 {
            let until = Instant::now() + GROUP_WAIT;
            while queue.len() < last_batch {
                match timeout_at(until, jobs.recv()).await {
                    Ok(Some(job)) => enqueue(&mut queue, job),
                    Ok(None) | Err(_) => break,
                }
            }
            tokio::task::yield_now().await; // those who were answered together ask together
            while let Ok(job) = jobs.try_recv() {
                enqueue(&mut queue, job);
            }
        }
        match queue.pop_front() {
            Some(Waiting::Atomic(messages, answer)) => {
                last_batch = 0;
                let result = send_batch(&sender, &messages).await;
                sender.counters.count(&result, messages.len() as u64);
                let _ = answer.send(result);
            }
            Some(Waiting::One(first)) => {
                let group = take_group(&mut queue, first);
                last_batch = send_group(&sender, &mut costs, group).await;
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

/// Sends the group and returns when every outcome is known, with its size if it was stored as a batch.
async fn send_group(sender: &Sender, costs: &mut Costs, group: Vec<Item>) -> usize {
    let mut items = Vec::with_capacity(group.len());
    for item in group {
        match wire::check(&item.message) {
            Ok(()) => items.push(item),
            Err(refusal) => item.resolve(Err(refusal), &sender.counters),
        }
    }
    let cluster = sender.settings.replicas > 1;
    let count = items.len();
    let as_batch = if cluster {
        count >= BATCH_FROM_CLUSTER
    } else {
        costs.prefer_batch(count)
    };
    if as_batch {
        let started = Instant::now();
        match settle(sender, || async {
            received(
                sender
                    .start_batch(items.iter().map(|item| &item.message))
                    .await,
            )
            .await
        })
        .await
        {
            Outcome::Stored { sequence, .. } => {
                costs.measured_batch(started.elapsed());
                let first = sequence.saturating_sub(count as u64 - 1);
                for (sequence, item) in (first..).zip(items) {
                    item.resolve(
                        Ok(Appended {
                            sequence,
                            duplicate: false,
                        }),
                        &sender.counters,
                    );
                }
                return count;
            }
            Outcome::Lost(cause) => {
                for item in items {
                    let unknown = wire::unknown(&item.message.subject, cause.clone());
                    item.resolve(Err(unknown), &sender.counters);
                }
                return 0;
            }
            // A check, a duplicate or a want of batch slots refused all of them: each is asked on its own.
            Outcome::Refused { .. } => {}
        }
    }
    if cluster {
        for item in items {
            let outcome = settle(sender, || async {
                received(sender.start_one(&item.message).await).await
            })
            .await;
            let result = outcome.into_result(&item.message.subject, item.message.fence.as_ref());
            item.resolve(result, &sender.counters);
        }
    } else {
        let started = Instant::now();
        let mut outcomes = Vec::with_capacity(count);
        for item in &items {
            outcomes.push(received(sender.start_one(&item.message).await));
        }
        let outcomes = join_all(outcomes).await;
        if count > 0 {
            costs.measured_plain(count, started.elapsed());
        }
        for (item, outcome) in items.into_iter().zip(outcomes) {
            let result = outcome.into_result(&item.message.subject, item.message.fence.as_ref());
            item.resolve(result, &sender.counters);
        }
    }
    0
}

async fn send_batch(sender: &Sender, messages: &[Message]) -> Result<Appended, AppendError> {
    if let Some(refusal) = check_all(messages) {
        return Err(refusal);
    }
    let outcome = settle(sender, || async {
        received(sender.start_batch(messages.iter()).await).await
    })
    .await;
    batch_result(outcome, messages)
}

/// Repeats `send` as it is while another checked write on the subject, or all batch slots, are in flight.
async fn settle<F: Future<Output = Outcome> + Send>(
    sender: &Sender,
    mut send: impl FnMut() -> F,
) -> Outcome {
    let deadline = Instant::now() + sender.settings.ack_timeout;
    let mut pause_ms = 1;
    loop {
        let outcome = send().await;
        let busy = outcome.is_busy()
            || matches!(
                outcome,
                Outcome::Refused {
                    code: codes::BATCHES_IN_FLIGHT,
                    ..
                }
            );
        if !busy || Instant::now() >= deadline {
            return outcome;
        }
        sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = pause_ms % 5 + 1; // 1 to 5 ms: the write in flight takes about one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_disk_makes_larger_batches_and_a_quiet_one_smaller_again() {
        let mut costs = COSTS_AT_FIRST;
        assert!(costs.prefer_batch(10) && !costs.prefer_batch(3));
        for _ in 0..30 {
            costs.measured_batch(Duration::from_millis(20));
        }
        assert!(!costs.prefer_batch(10) && costs.prefer_batch(100));
        assert!(
            (0..1_000).any(|_| costs.prefer_batch(10)),
            "tried again some time"
        );
    }
}
