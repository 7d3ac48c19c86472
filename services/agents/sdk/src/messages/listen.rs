//! What comes in: hints first, the stream where they were lost, and the cursor that outlives the process.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{
    HeaderMap, Message,
    jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::SelectAll};
use swarm_events::{
    Body, Input,
    permissions::blackboard_key,
    subject::{Recipient, Sender, Subject, filter},
};
use swarm_log::{
    StoredMessage,
    definitions::{BLACKBOARD_BUCKET, BLACKBOARD_CURSORS, MESSAGE_AGE_MAX, MESSAGES_STREAM},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    Carrier,
    bus::Bus,
    cursor::{Cursor, Gaps, Saved},
    desk::{Dispatch, Incoming},
};
use crate::live;

/// Messages that one reading of the stream brings at the most; the next one goes on.
const PAGE_MAX: u64 = 2_000;
/// And bytes: a page is held in memory.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Limit for a page: a lost answer is asked for again.
const PAGE_WAIT: Duration = Duration::from_secs(20);
/// The server forgets the consumer of a page this long after it was read.
const CONSUMER_INACTIVE: Duration = Duration::from_secs(5);
/// Pause before a page that could not be read is asked for again.
const PAGE_PAUSE: Duration = Duration::from_millis(500);
/// How often the stream is looked at though no hint came: one may be lost when a cluster's leader steps down. First, and last.
const LOOKS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How often it is kept up to where messages are handled. What was handled since comes again after a crash.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// With so many messages handled above what is known to be complete, the stream is looked at: what is kept stays small.
const REMEMBERED_MAX: usize = 512;
/// Hints that are put by while the stream is read. Beyond it the stream is read again.
const HELD_MAX: usize = 4_096;
/// How long it is kept up to where an agent was: longer than any message. Who was away for longer begins anew.
const CURSOR_AGE_MAX: Duration = Duration::from_secs(2 * MESSAGE_AGE_MAX.as_secs());

/// A part of the stream, in order.
struct Page {
    from: u64,
    messages: Vec<StoredMessage>,
    /// Nothing that matches was stored behind it.
    all: bool,
}

pub(super) struct Listener {
    bus: Arc<Bus>,
    live: SelectAll<async_nats::Subscriber>,
    doubts: tokio::sync::watch::Receiver<u64>,
    /// When the stream was made.
    stream: i64,
    cursor: Cursor,
    gaps: Gaps,
    dispatch: Dispatch,
    page: Option<BoxFuture<'static, Result<Page, String>>>,
    held: VecDeque<Message>,
    /// There is something to be read behind what was.
    wanted: bool,
    not_before: Instant,
    look_at: Instant,
    look_pause: Duration,
    keep_at: Instant,
    kept: Saved,
    /// Something may be other than what is kept.
    moved: bool,
}

impl Listener {
    /// Subscribes, and finds out where the process before left off.
    pub(super) async fn open(bus: Arc<Bus>) -> Result<Self, String> {
        let mut doubts = bus.link.doubts();
        doubts.mark_unchanged();
        let mut live = SelectAll::new();
        for subject in filter::messages(bus.place(), bus.me.agent, true) {
            let subscribed = bus.link.client().subscribe(subject).await;
            live.push(subscribed.map_err(|error| error.to_string())?);
        }
        let context = bus.link.log().context();
        let stream = context
            .get_stream(MESSAGES_STREAM)
            .await
            .map_err(|error| format!("the stream {MESSAGES_STREAM} cannot be read: {error}"))?;
        let info = stream.cached_info();
        let made = i64::try_from(info.created.unix_timestamp_nanos() / 1_000).unwrap_or(0);
        let bucket = context
            .get_key_value(BLACKBOARD_BUCKET)
            .await
            .map_err(|error| format!("the bucket {BLACKBOARD_BUCKET} cannot be read: {error}"))?;
        let key = cursor_key(&bus);
        let key = key
            .strip_prefix(&format!("$KV.{BLACKBOARD_BUCKET}."))
            .unwrap_or(&key);
        let before = bucket.get(key).await.map_err(|error| error.to_string())?;
        let saved = before
            .and_then(|bytes| serde_json::from_slice::<Saved>(&bytes).ok())
            .filter(|saved| saved.stream == made)
            .unwrap_or(Saved {
                stream: made,
                // Who was never here hears what is said from now on, or since it joined.
                at: bus.since.unwrap_or(info.state.last_sequence),
                done: Vec::new(),
            });
        let now = Instant::now();
        let carrier: Arc<dyn Carrier> = bus.clone();
        bus.kept.send_replace(false);
        Ok(Self {
            live,
            doubts,
            stream: made,
            cursor: Cursor::new(&saved),
            gaps: Gaps::default(),
            dispatch: Dispatch::new(carrier),
            page: None,
            held: VecDeque::new(),
            wanted: true,
            not_before: now,
            look_at: now + LOOKS.0,
            look_pause: LOOKS.0,
            keep_at: now,
            kept: Saved::default(),
            moved: true,
            bus,
        })
    }

    pub(super) async fn run(mut self) {
        let closed = self.bus.closed.clone();
        loop {
            for sequence in self.dispatch.start() {
                self.done(sequence);
            }
            self.read_on();
            let keep_at = self.keep_at;
            let keeps = self.moved;
            let wake = if self.page.is_none() && self.is_due() {
                self.not_before
            } else {
                self.look_at
            };
            tokio::select! {
                () = closed.cancelled() => break,
                sequence = self.dispatch.ended() => self.done(sequence),
                page = read(&mut self.page) => self.met(page),
                Some(message) = self.live.next() => self.hear(message),
                Ok(()) = self.doubts.changed() => self.wanted = true,
                () = sleep_until(keep_at), if keeps => self.keep().await,
                () = sleep_until(wake) => {
                    if Instant::now() >= self.look_at {
                        self.look_pause = (self.look_pause * 2).min(LOOKS.1);
                        self.wanted = true;
                    }
                }
            }
        }
        // What has come to its end by now is handled, and need not come again.
        while let Some(sequence) = self.dispatch.ended().now_or_never() {
            self.done(sequence);
        }
        self.keep().await;
        self.bus.kept.send_replace(true);
    }

    /// Whether the stream is to be read: behind what is known, or what was left in it.
    fn is_due(&self) -> bool {
        let again = self.dispatch.inbox.behind().is_some() && self.dispatch.inbox.has_room();
        let room = !self.cursor.is_full();
        room && (again || self.wanted)
    }

    fn read_on(&mut self) {
        if self.page.is_some() || !self.is_due() || Instant::now() < self.not_before {
            return;
        }
        let inbox = &self.dispatch.inbox;
        let from = match inbox.behind().filter(|_| inbox.has_room()) {
            Some(behind) => behind,
            None => self.cursor.read() + 1,
        };
        // A reading that begins at what was left out may end before what is not known yet.
        self.wanted &= from != self.cursor.read() + 1;
        self.look_at = Instant::now() + self.look_pause;
        self.dispatch.inbox.begin(from);
        let bus = self.bus.clone();
        self.page = Some(
            async move {
                timeout(PAGE_WAIT, page(&bus, from))
                    .await
                    .unwrap_or_else(|_| Err("no answer".to_owned()))
            }
            .boxed(),
        );
    }

    /// A hint came.
    fn hear(&mut self, message: Message) {
        if self.page.is_some() {
            if self.held.len() < HELD_MAX {
                self.held.push_back(message);
            } else {
                self.held.clear();
                self.wanted = true;
            }
            return;
        }
        let Some((stored, previous)) = live::republished(&message) else {
            tracing::warn!(subject = %message.subject, "a live message without its place in the stream is ignored");
            return;
        };
        if self.cursor.knows(stored.sequence) {
            return;
        }
        self.look_pause = LOOKS.0;
        let read = self.cursor.read();
        if self.gaps.is_full()
            || self
                .gaps
                .missed(&stored.subject, stored.sequence, previous, read)
        {
            self.wanted = true;
            return; // the reading brings it
        }
        self.offer(&stored);
        self.settle(0);
        if self.cursor.remembered() >= REMEMBERED_MAX {
            self.wanted = true;
        }
    }

    /// A part of the stream has been read.
    fn met(&mut self, page: Result<Page, String>) {
        self.page = None;
        match page {
            Ok(page) => {
                let mut to = page.from.saturating_sub(1);
                for stored in &page.messages {
                    to = to.max(stored.sequence);
                    if !self.cursor.knows(stored.sequence) {
                        self.offer(stored);
                    }
                }
                self.dispatch.inbox.end(to, page.all);
                let extends = page.from <= self.cursor.read() + 1;
                if extends {
                    self.settle(to);
                    self.gaps.read(self.cursor.read());
                }
                self.wanted |= extends && !page.all;
            }
            Err(error) => {
                tracing::debug!(error, "the messages cannot be read now");
                self.dispatch.inbox.end(0, false);
                self.not_before = Instant::now() + PAGE_PAUSE;
                self.wanted = true;
            }
        }
        for message in std::mem::take(&mut self.held) {
            self.hear(message);
        }
    }

    /// A message that was not met before: it waits to be handled, or in the stream, or is for others.
    fn offer(&mut self, stored: &StoredMessage) {
        let sequence = stored.sequence;
        let Some(incoming) = self.incoming(stored) else {
            return self.cursor.done(sequence);
        };
        if self.bus.desk.take_answer(&incoming) {
            return self.cursor.done(sequence);
        }
        let from = incoming.from;
        if self.cursor.is_full() {
            return self.dispatch.inbox.leave(&from, sequence);
        }
        let mut out = Vec::new();
        let noted = incoming.clone();
        if self
            .dispatch
            .inbox
            .offer(&from, sequence, incoming, &mut out)
        {
            self.cursor.open(sequence);
            self.dispatch.admitted(&noted);
        }
        for gone in out {
            self.cursor.drop(gone);
        }
    }

    /// The message, if this agent is meant by it.
    fn incoming(&self, stored: &StoredMessage) -> Option<Incoming> {
        let recorded = match live::read(stored) {
            Input::Event(recorded) => recorded,
            Input::Unreadable(unreadable) => {
                tracing::warn!(sequence = stored.sequence, problem = %unreadable.problem, "an unreadable message is passed over");
                return None;
            }
        };
        let Subject::Message(place, from, to) = recorded.subject else {
            return None;
        };
        let me = self.bus.me.agent;
        let meant = match to {
            Recipient::Agent(agent) => agent == me,
            Recipient::All => true,
            Recipient::Role(role) => self.bus.shape.with(|shape| shape.role(me)) == Some(role),
            Recipient::Leader => self.bus.shape.with(|shape| shape.leader()) == Some(me),
            Recipient::Topic(key) => self.bus.desk.heeds(key),
            Recipient::People | Recipient::Abroad => false,
        };
        let Body::MessageSent(sent) = recorded.event.body else {
            return None;
        };
        let own = from == Sender::Agent(me);
        (meant && !own && place == self.bus.place()).then_some(Incoming {
            id: recorded.event.id.0,
            sequence: stored.sequence,
            time: recorded.time,
            from,
            to,
            sent,
            correlation: recorded.event.correlation,
            traceparent: recorded.event.traceparent,
        })
    }

    fn done(&mut self, sequence: u64) {
        self.cursor.done(sequence);
        self.settle(0);
    }

    fn settle(&mut self, read: u64) {
        self.moved = true;
        let behind = self.dispatch.inbox.behind();
        self.cursor.settle(read, behind);
    }

    /// Keeps up to where messages are handled.
    async fn keep(&mut self) {
        self.keep_at = Instant::now() + KEEP_EVERY;
        let saved = self.cursor.saved(self.stream);
        if saved == self.kept {
            self.moved = false;
            return;
        }
        let Ok(payload) = serde_json::to_vec(&saved) else {
            return;
        };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-TTL", CURSOR_AGE_MAX.as_secs().to_string());
        let subject = cursor_key(&self.bus);
        let context = self.bus.link.log().context();
        let kept = async {
            let ack = context
                .publish_with_headers(subject, headers, payload.into())
                .await?;
            ack.await
        };
        match timeout(KEEP_EVERY, kept).await {
            Ok(Ok(_)) => {
                self.kept = saved;
                self.moved = false;
            }
            Ok(Err(error)) => tracing::debug!(%error, "the cursor is not kept now"),
            Err(_) => tracing::debug!("the cursor is not kept now"),
        }
    }
}

/// The page that is being read; pending for ever if none is.
async fn read(page: &mut Option<BoxFuture<'static, Result<Page, String>>>) -> Result<Page, String> {
    match page {
        Some(page) => page.await,
        None => std::future::pending().await,
    }
}

/// Subject of the key that says up to where the agent has handled its messages.
fn cursor_key(bus: &Bus) -> String {
    let key = format!("{BLACKBOARD_CURSORS}.{}", bus.me.agent);
    blackboard_key(bus.place(), &key)
}

/// Reads what may be for the agent from `from` on, by a short-lived consumer.
async fn page(bus: &Bus, from: u64) -> Result<Page, String> {
    let context = bus.link.log().context();
    let stream = context
        .get_stream_no_info(MESSAGES_STREAM)
        .await
        .map_err(|error| error.to_string())?;
    let consumer = stream
        .create_consumer(pull::Config {
            description: Some("Swarm: an agent's messages".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from.max(1),
            },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            filter_subjects: filter::messages(bus.place(), bus.me.agent, false),
            inactive_threshold: CONSUMER_INACTIVE,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        })
        .await
        .map_err(|error| error.to_string())?;
    let mut pending = consumer.cached_info().num_pending;
    let name = consumer.cached_info().name.clone();
    let mut messages = Vec::new();
    let mut bytes = 0;
    let room = |messages: &Vec<StoredMessage>, bytes| {
        (messages.len() as u64) < PAGE_MAX && bytes < PAGE_BYTES_MAX
    };
    while pending > 0 && room(&messages, bytes) {
        let most = usize::try_from(pending.min(PAGE_MAX)).unwrap_or(usize::MAX);
        let mut batch = consumer
            .fetch()
            .max_messages(most)
            .messages()
            .await
            .map_err(|error| error.to_string())?;
        let before = messages.len();
        while let Some(message) = batch.next().await {
            let message = message.map_err(|error| error.to_string())?;
            let info = message.info().map_err(|error| error.to_string())?;
            pending = info.pending;
            bytes += message.payload.len();
            messages.push(StoredMessage {
                sequence: info.stream_sequence,
                time_micros: i64::try_from(info.published.unix_timestamp_nanos() / 1_000)
                    .unwrap_or(0),
                subject: message.subject.as_str().into(),
                payload: message.payload.clone(),
                message_id: None,
            });
        }
        if messages.len() == before {
            break; // what was pending is not there any more: its age was over
        }
    }
    let all = pending == 0;
    tokio::spawn(async move {
        if let Err(error) = stream.delete_consumer(&name).await {
            tracing::debug!(%error, "a consumer is left to go by itself");
        }
    });
    Ok(Page {
        from,
        messages,
        all,
    })
}
