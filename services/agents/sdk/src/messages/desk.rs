//! Where what comes in is met: who waits for an answer, who handles what, and what is said about it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use futures::{FutureExt, future::BoxFuture};
use swarm_events::{
    Json, Timestamp,
    configuration::MessagePolicy,
    ids::{AgentId, EventId},
    message::{Purpose, Sent, Stage},
    subject::{Recipient, Sender, topic_key},
    task::ERROR_BYTES_MAX,
};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinSet},
};
use uuid::Uuid;

use super::{
    Carrier, Outgoing, Receipt, ReceivedMessage, Speaker, To, Trace, inbox::Inbox, speaker,
};
use crate::handler::TaskError;

/// Messages that are handled at the same time, each of another sender.
pub const HANDLERS_MAX: usize = 16;
/// Ids of messages that are known as handled, beyond their sequences: a courier may store one twice.
const RECENT_MAX: usize = 10_000;

/// Handles a message.
pub(crate) type OnMessage =
    Arc<dyn Fn(ReceivedMessage) -> BoxFuture<'static, Result<(), TaskError>> + Send + Sync>;

/// What an agent does with messages.
#[derive(Clone, Default)]
pub(crate) struct OnMessages {
    /// Those that no topic's handler takes.
    pub(crate) other: Option<OnMessage>,
    pub(crate) topics: BTreeMap<String, OnMessage>,
}
impl OnMessages {
    pub(crate) fn is_empty(&self) -> bool {
        self.other.is_none() && self.topics.is_empty()
    }
}

/// What comes back.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Json),
    Receipt(Receipt),
}

/// A message as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) id: Uuid,
    pub(crate) sequence: u64,
    pub(crate) time: Timestamp,
    pub(crate) from: Sender,
    pub(crate) to: Recipient,
    pub(crate) sent: Sent,
    pub(crate) correlation: Option<Uuid>,
    pub(crate) traceparent: Option<String>,
}

/// Who waits for an answer.
struct Waiter {
    /// Only this agent's counts, if it is one that was asked.
    by: Option<AgentId>,
    answers: mpsc::UnboundedSender<Answer>,
}

pub(crate) struct Desk {
    handlers: OnMessages,
    waiting: Mutex<BTreeMap<Uuid, Waiter>>,
    subscribed: Mutex<BTreeMap<String, Vec<mpsc::Sender<ReceivedMessage>>>>,
    per_second_max: AtomicU32,
    inbox_max: AtomicU32,
    /// Whether the swarm's settings have been read.
    limited: watch::Sender<bool>,
    sent: AtomicU64,
    read: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answers to one message.
pub(crate) struct Answers {
    desk: Arc<Desk>,
    id: Uuid,
    answers: mpsc::UnboundedReceiver<Answer>,
}
impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("of", &self.id).finish()
    }
}
impl Answers {
    /// The next one; pending for ever if there is none.
    pub(crate) async fn next(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}
impl Drop for Answers {
    fn drop(&mut self) {
        lock(&self.desk.waiting).remove(&self.id);
    }
}

impl Desk {
    pub(crate) fn new(handlers: OnMessages) -> Arc<Self> {
        let policy = MessagePolicy::default();
        Arc::new(Self {
            handlers,
            waiting: Mutex::default(),
            subscribed: Mutex::default(),
            per_second_max: AtomicU32::new(policy.per_second_max),
            inbox_max: AtomicU32::new(policy.inbox_max),
            limited: watch::channel(false).0,
            sent: AtomicU64::new(0),
            read: AtomicU64::new(0),
        })
    }

    /// What the swarm allows.
    pub(crate) fn limit(&self, policy: MessagePolicy) {
        self.per_second_max
            .store(policy.per_second_max, Ordering::Relaxed);
        self.inbox_max.store(policy.inbox_max, Ordering::Relaxed);
        self.limited.send_replace(true);
    }
    /// Waits until the limits are known.
    pub(crate) async fn limits(&self) {
        let mut limited = self.limited.subscribe();
        let _ = limited.wait_for(|known| *known).await; // the other end is here
    }
    pub(crate) fn per_second_max(&self) -> u32 {
        self.per_second_max.load(Ordering::Relaxed)
    }
    pub(crate) fn inbox_max(&self) -> usize {
        usize::try_from(self.inbox_max.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
    /// How many messages this process has sent, and read.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed),
            self.read.load(Ordering::Relaxed),
        )
    }
    pub(crate) fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
    fn count_read(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for answers to `id` from now on.
    pub(crate) fn await_answers(self: &Arc<Self>, id: Uuid, by: Option<AgentId>) -> Answers {
        let (answers, hear) = mpsc::unbounded_channel();
        lock(&self.waiting).insert(id, Waiter { by, answers });
        Answers {
            desk: self.clone(),
            id,
            answers: hear,
        }
    }

    pub(crate) fn subscribe(&self, topic: String, sender: mpsc::Sender<ReceivedMessage>) {
        lock(&self.subscribed)
            .entry(topic)
            .or_default()
            .push(sender);
    }

    /// Whoever holds a subscription to the topic.
    fn subscribers(&self, topic: &str) -> Vec<mpsc::Sender<ReceivedMessage>> {
        let mut all = lock(&self.subscribed);
        let Some(of) = all.get_mut(topic) else {
            return Vec::new();
        };
        of.retain(|sender| !sender.is_closed());
        if of.is_empty() {
            all.remove(topic);
            return Vec::new();
        }
        of.clone()
    }

    /// Whether the agent heeds this topic.
    pub(crate) fn heeds(&self, key: u64) -> bool {
        let of = |topic: &String| topic_key(topic) == key;
        self.handlers.topics.keys().any(of) || lock(&self.subscribed).keys().any(of)
    }

    /// Takes an answer to whoever waits for it. `false`: it is no answer, and is to be handled.
    pub(crate) fn take_answer(&self, incoming: &Incoming) -> bool {
        let (of, stage) = match &incoming.sent.purpose {
            Purpose::Tell | Purpose::Request => return false,
            Purpose::Reply { to } => (*to, None),
            Purpose::Receipt { of, stage, detail } => (*of, Some((*stage, detail.clone()))),
        };
        self.count_read();
        let waiting = lock(&self.waiting);
        let (Some(waiter), Some(from)) = (
            waiting.get(&of),
            speaker(incoming.from, incoming.sent.abroad),
        ) else {
            return true; // nobody waits any more
        };
        if waiter.by.is_none_or(|by| from == Speaker::Agent(by)) {
            let answer = match stage {
                None => Answer::Reply(incoming.sent.body.clone()),
                Some((stage, detail)) => Answer::Receipt(Receipt {
                    from,
                    stage,
                    detail,
                }),
            };
            let _ = waiter.answers.send(answer); // whoever waited may have gone meanwhile
        }
        true
    }
}

/// What waits and what is being handled.
pub(crate) struct Dispatch {
    carrier: Arc<dyn Carrier>,
    pub(crate) inbox: Inbox<Sender, Incoming>,
    running: JoinSet<()>,
    busy: BTreeMap<Id, (Sender, u64)>,
    recent: BTreeSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Dispatch {
    pub(crate) fn new(carrier: Arc<dyn Carrier>) -> Self {
        let most = carrier.desk().inbox_max();
        Self {
            carrier,
            inbox: Inbox::new(most),
            running: JoinSet::new(),
            busy: BTreeMap::new(),
            recent: BTreeSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether a message of this id was handled before; from now on it was.
    fn is_repeat(&mut self, id: Uuid) -> bool {
        if !self.recent.insert(id) {
            return true;
        }
        self.order.push_back(id);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        false
    }

    /// A message has been let in: says so, if that was asked.
    pub(crate) fn admitted(&self, incoming: &Incoming) {
        self.carrier.desk().count_read();
        if incoming.sent.receipt == Some(Stage::Delivered) {
            let (carrier, incoming) = (self.carrier.clone(), incoming.clone());
            tokio::spawn(async move {
                // One without an edge is refused in its turn.
                if permitted(&*carrier, &incoming).await.is_ok() {
                    acknowledge(&*carrier, &incoming, Stage::Delivered, None).await;
                }
            });
        }
    }

    /// Starts handlers for those whose turn it is. Answers with the sequences of messages that were handled before under
    /// another one.
    pub(crate) fn start(&mut self) -> Vec<u64> {
        let mut repeats = Vec::new();
        self.inbox.resize(self.carrier.desk().inbox_max());
        while self.running.len() < HANDLERS_MAX {
            let busy: BTreeSet<Sender> = self.busy.values().map(|(sender, _)| *sender).collect();
            let Some((sender, sequence, incoming)) = self.inbox.next(|key| busy.contains(key))
            else {
                break;
            };
            if self.is_repeat(incoming.id) {
                repeats.push(sequence);
                continue;
            }
            let carrier = self.carrier.clone();
            let handling = self.running.spawn(handle(carrier, incoming));
            self.busy.insert(handling.id(), (sender, sequence));
        }
        repeats
    }

    /// The sequence of the next message that has been handled; pending for ever if none is.
    pub(crate) async fn ended(&mut self) -> u64 {
        loop {
            let id = match self.running.join_next_with_id().await {
                Some(Ok((id, ()))) => id,
                Some(Err(error)) => error.id(),
                None => std::future::pending().await,
            };
            if let Some((_, sequence)) = self.busy.remove(&id) {
                return sequence;
            }
        }
    }
}

/// Whether its sender may speak to this agent.
async fn permitted(carrier: &dyn Carrier, incoming: &Incoming) -> Result<(), String> {
    match incoming.from {
        Sender::Agent(from) => carrier
            .allows(from)
            .await
            .map_err(|missing| missing.to_string()),
        // What people and other swarms may say, the gateway decides.
        Sender::People | Sender::Abroad => Ok(()),
    }
}

async fn handle(carrier: Arc<dyn Carrier>, incoming: Incoming) {
    let direct = matches!(incoming.to, Recipient::Agent(_));
    let refuse = |why: String| {
        let (carrier, incoming) = (carrier.clone(), incoming.clone());
        async move {
            // To many: whoever has no edge, or nothing to do with it, is not meant.
            if direct {
                acknowledge(&*carrier, &incoming, Stage::Refused, Some(why)).await;
            }
        }
    };
    let age = carrier.now().as_micros() - incoming.time.as_micros();
    if let Some(expires) = incoming.sent.expires_ms
        && u64::try_from(age / 1_000).is_ok_and(|age| age >= expires)
    {
        return refuse(format!("it had expired: its {expires} ms were over")).await;
    }
    if let Err(missing) = permitted(&*carrier, &incoming).await {
        tracing::debug!(missing, "a message off the edges is refused");
        return refuse(missing).await;
    }
    let Some(from) = speaker(incoming.from, incoming.sent.abroad) else {
        return refuse("abroad: it does not say from which swarm it is".to_owned()).await;
    };
    let desk = carrier.desk();
    let topic = incoming.sent.topic.as_deref();
    let subscribers = topic.map_or_else(Vec::new, |topic| desk.subscribers(topic));
    let handler = match topic.and_then(|topic| desk.handlers.topics.get(topic)) {
        Some(handler) => Some(handler),
        // What is said to a topic is for those who have subscribed to it.
        None if matches!(incoming.to, Recipient::Topic(_)) => None,
        None => desk.handlers.other.as_ref(),
    };
    if handler.is_none() && subscribers.is_empty() {
        return refuse("the agent has nothing that handles it".to_owned()).await;
    }
    let message = ReceivedMessage {
        id: EventId(incoming.id),
        from,
        to: incoming.to,
        topic: incoming.sent.topic.clone(),
        body: incoming.sent.body.clone(),
        sequence: incoming.sequence,
        stored_at: incoming.time,
        wants_reply: incoming.sent.purpose == Purpose::Request,
        carrier: carrier.clone(),
        replied: Arc::new(AtomicBool::new(false)),
        trace: Trace {
            correlation: incoming.correlation.or(Some(incoming.id)),
            causation: Some(incoming.id),
            traceparent: incoming.traceparent.clone(),
        },
    };
    for subscriber in subscribers {
        let _ = subscriber.send(message.clone()).await; // whoever held it may have gone meanwhile
    }
    let replied = message.replied.clone();
    let ended = match handler {
        None => Ok(Ok(())),
        Some(handler) => {
            // The call itself may panic, too.
            let handler = handler.clone();
            AssertUnwindSafe(async move { handler(message).await })
                .catch_unwind()
                .await
        }
    };
    let wanted =
        incoming.sent.receipt == Some(Stage::Handled) || incoming.sent.purpose == Purpose::Request;
    let (stage, detail) = match ended {
        Ok(Ok(())) => (Stage::Handled, None),
        Ok(Err(error)) => (Stage::Failed, Some(error.message)),
        Err(_) => (Stage::Failed, Some("the handler panicked".to_owned())),
    };
    if let Some(detail) = &detail {
        tracing::warn!(message.id = %incoming.id, detail, "a message could not be handled");
    }
    let answered = replied.load(Ordering::Relaxed) && incoming.sent.receipt != Some(Stage::Handled);
    if wanted && !answered {
        acknowledge(&*carrier, &incoming, stage, detail).await;
    }
}

/// Tells the sender what became of its message, if it wants to know.
async fn acknowledge(
    carrier: &dyn Carrier,
    incoming: &Incoming,
    stage: Stage,
    detail: Option<String>,
) {
    let wanted = incoming.sent.receipt.is_some() || incoming.sent.purpose == Purpose::Request;
    let Some(to) = speaker(incoming.from, incoming.sent.abroad).filter(|_| wanted) else {
        return;
    };
    let detail = detail.map(|mut text| {
        let mut end = text.len().min(ERROR_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text
    });
    let out = Outgoing {
        id: Uuid::now_v7(),
        to: To::from(to),
        purpose: Purpose::Receipt {
            of: incoming.id,
            stage,
            detail,
        },
        topic: None,
        receipt: None,
        expires: None,
        body: Json::null(),
        trace: Trace {
            correlation: incoming.correlation,
            causation: Some(incoming.id),
            traceparent: incoming.traceparent.clone(),
        },
    };
    if let Err(error) = carrier.send(out).await {
        tracing::warn!(%error, "a receipt could not be sent");
    }
}
