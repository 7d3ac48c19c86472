//! Publishing with an acknowledgement, without waiting for it: one reply subscription for all publishes of a process.
//!
//! The client library's own publish futures wait for permits and cost a timer each; here one task drains all acks, and a loss of
//! the connection fails at once whatever is in flight.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Counters, wire::Outcome};
use crate::{LogError, connect::Connection};

/// How often overdue acks are looked for: a fraction of the ack timeout.
const SWEEP: Duration = Duration::from_millis(250);

/// Takes the outcome of a publish, on the task that drains acks: must not block.
pub(crate) type OnOutcome = Box<dyn FnOnce(Outcome) + Send>;

struct Pending {
    deadline: Instant,
    /// The connection's losses when it was sent: more by now, and it may be lost.
    losses: u64,
    on_outcome: OnOutcome,
    _permit: Option<OwnedSemaphorePermit>,
}

pub(crate) struct Acks {
    connection: Connection,
    inbox: String,
    next: AtomicU64,
    /// By number, hence by age, hence by deadline.
    pending: Mutex<BTreeMap<u64, Pending>>,
    timeout: Duration,
    counters: Arc<Counters>,
}

impl Acks {
    /// Subscribes and starts the draining task, which ends when `done` is cancelled and nothing is in flight.
    pub(crate) async fn start(
        connection: &Connection,
        timeout: Duration,
        counters: Arc<Counters>,
        done: CancellationToken,
    ) -> Result<Arc<Self>, LogError> {
        let inbox = connection.client().new_inbox();
        let replies = connection
            .client()
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| {
                LogError::Unreachable(format!("cannot subscribe to acknowledgements: {error}"))
            })?;
        let acks = Arc::new(Self {
            connection: connection.clone(),
            inbox,
            next: AtomicU64::new(0),
            pending: Mutex::default(),
            timeout,
            counters,
        });
        tokio::spawn(acks.clone().drain(replies, done));
        Ok(acks)
    }

    /// Publishes and returns when the client has the message; `on_outcome` is called once, now or later.
    pub(crate) async fn publish(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        permit: Option<OwnedSemaphorePermit>,
        on_outcome: OnOutcome,
    ) {
        let losses = self.connection.losses();
        if !self.connection.is_connected() {
            return on_outcome(Outcome::Lost("not connected".to_owned()));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let deadline = Instant::now() + self.timeout;
        self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(
            number,
            Pending {
                deadline,
                losses,
                on_outcome,
                _permit: permit,
            },
        );
        let reply = format!("{}.{number}", self.inbox);
        let sent = self.connection.client().publish_with_reply_and_headers(
            subject.to_owned(),
            reply,
            headers,
            payload,
        );
        match timeout_at(deadline, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.resolve(number, Outcome::Lost(error.to_string())),
            Err(_) => self.resolve(
                number,
                Outcome::Lost("the connection takes no messages".to_owned()),
            ),
        }
    }

    /// Publishes a message of a batch that asks for no acknowledgement; `false` if it was certainly not sent.
    pub(crate) async fn publish_silent(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> bool {
        if !self.connection.is_connected() {
            return false;
        }
        let sent =
            self.connection
                .client()
                .publish_with_headers(subject.to_owned(), headers, payload);
        matches!(tokio::time::timeout(self.timeout, sent).await, Ok(Ok(())))
    }

    async fn drain(self: Arc<Self>, mut replies: Subscriber, done: CancellationToken) {
        let mut state = self.connection.watch();
        let mut watching = true;
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                reply = replies.next() => match reply {
                    Some(reply) => {
                        let number = reply.subject.rsplit('.').next().and_then(|token| token.parse().ok());
                        if let Some(number) = number {
                            self.resolve(number, Outcome::parse(&reply));
                        }
                    }
                    None => {
                        self.fail("the connection is closed", |_| true);
                        return;
                    }
                },
                changed = state.changed(), if watching => {
                    watching = changed.is_ok();
                    let losses = state.borrow_and_update().losses;
                    self.fail("the connection was lost", |pending| pending.losses < losses);
                }
                _ = sweep.tick() => {
                    let now = Instant::now();
                    self.fail("no acknowledgement in time", |pending| pending.deadline <= now);
                    if done.is_cancelled() && self.lock().is_empty() {
                        return;
                    }
                }
            }
        }
    }

    fn resolve(&self, number: u64, outcome: Outcome) {
        let pending = self.lock().remove(&number);
        if let Some(pending) = pending {
            self.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
            (pending.on_outcome)(outcome);
        }
    }

    fn fail(&self, cause: &str, which: impl Fn(&Pending) -> bool) {
        let failed: Vec<u64> = self
            .lock()
            .iter()
            .filter(|(_, pending)| which(pending))
            .map(|(number, _)| *number)
            .collect();
        for number in failed {
            self.resolve(number, Outcome::Lost(cause.to_owned()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
