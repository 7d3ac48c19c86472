//! Following the stream: a pull consumer of our own keeping, rebuilt whenever it falls silent or leaves a gap.
//!
//! The client library's ordered consumer notices a dead node after about 30 s; this one after 1.5 s.

use std::{collections::VecDeque, time::Duration};

use async_nats::{
    StatusCode, Subscriber,
    jetstream::{
        Context, ErrorCode, consumer::Consumer, context::GetStreamErrorKind,
        stream::ConsumerErrorKind,
    },
};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::wire::{self, Delivery};
use crate::{
    LogError, StoredMessage, Tailed,
    connect::{Connection, ConnectionState},
    definitions::{
        EVENTS_STREAM, TAIL_BATCH, TAIL_BATCH_BYTES, TAIL_HEARTBEAT, TAIL_PULL_EXPIRES,
        TAIL_SILENCE_MAX, last_first_consumer, tail_consumer,
    },
};

/// Limit for creating the consumer, so that a lost answer is asked for again soon.
const BUILD_TIMEOUT: Duration = Duration::from_secs(2);
/// First and last pause between attempts to rebuild.
const REBUILD_PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`REBUILD_PAUSE_MIN`].
const REBUILD_PAUSE_MAX: Duration = Duration::from_millis(500);
/// A restarted server may not know its streams for a moment; one that does not for this long has lost them.
const STREAM_MISSING_MAX: Duration = Duration::from_secs(30);

/// Descriptions of status 409 with which one pull request ends; with any other the consumer does.
const REQUEST_ENDED: [&str; 2] = ["MaxBytes", "Batch Completed"];

struct Tail {
    connection: Connection,
    context: Context,
    filters: Vec<String>,
    /// Next sequence to ask for.
    next: u64,
    /// Begin with the last message of each subject.
    last_first: bool,
    state: State,
}

enum State {
    New,
    Running(Box<Source>),
    /// Interrupted was yielded; to be rebuilt.
    Broken,
    /// Resumed was yielded; goes on with the new source.
    Rebuilt(Box<Source>),
    Ended,
}

/// A consumer and its open pull requests.
struct Source {
    messages: Subscriber,
    inbox: String,
    next_request: String,
    name: String,
    context: Context,
    watch: watch::Receiver<ConnectionState>,
    losses: u64,
    /// Open pull requests, oldest first, with the messages that each may still bring.
    requests: VecDeque<(u64, usize)>,
    request_number: u64,
    consumer_sequence: u64,
    heard: Instant,
    /// Messages that were stored when the consumer was made and are still to come; `None` once that was told.
    behind: Option<u64>,
}

#[derive(Serialize)]
struct PullRequest {
    batch: usize,
    max_bytes: usize,
    /// Nanoseconds.
    expires: u128,
    /// Nanoseconds.
    idle_heartbeat: u128,
}

pub(super) fn tail(
    connection: Connection,
    context: Context,
    filters: Vec<String>,
    from: u64,
    last_first: bool,
) -> impl Stream<Item = Result<Tailed, LogError>> + Send {
    let tail = Tail {
        connection,
        context,
        filters,
        next: from.max(1),
        last_first,
        state: State::New,
    };
    stream::unfold(tail, |mut tail| async move {
        if matches!(tail.state, State::Ended) {
            return None;
        }
        let item = tail.step().await;
        if item.is_err() {
            tail.state = State::Ended;
        }
        Some((item, tail))
    })
}

enum BuildError {
    /// Trying again may help.
    Later(String),
    StreamMissing,
    Never(LogError),
}

impl Tail {
    async fn step(&mut self) -> Result<Tailed, LogError> {
        loop {
            match std::mem::replace(&mut self.state, State::Broken) {
                State::New => self.state = State::Running(Box::new(self.build(false).await?)),
                State::Broken => {
                    self.state = State::Rebuilt(Box::new(self.build(true).await?));
                    return Ok(Tailed::Resumed);
                }
                State::Running(mut source) | State::Rebuilt(mut source) => {
                    if source.behind == Some(0) {
                        source.behind = None;
                        self.state = State::Running(source);
                        return Ok(Tailed::CaughtUp);
                    }
                    match source.next().await {
                        Ok((message, delivery)) => {
                            // Read again after a gap: told once already.
                            let repeated = delivery.stream_sequence < self.next;
                            source.behind = match source.behind {
                                Some(_) if delivery.pending == 0 => Some(0),
                                behind => behind.map(|left| left.saturating_sub(1)),
                            };
                            self.state = State::Running(source);
                            if repeated {
                                continue;
                            }
                            self.next = delivery.stream_sequence + 1;
                            return Ok(Tailed::Message(stored(message, &delivery)));
                        }
                        Err(cause) => {
                            tracing::debug!(%cause, next = self.next, "tail interrupted");
                            return Ok(Tailed::Interrupted); // the state is Broken
                        }
                    }
                }
                State::Ended => return Err(LogError::Refused("the tail has ended".to_owned())),
            }
        }
    }

    async fn build(&self, again: bool) -> Result<Source, LogError> {
        let started = Instant::now();
        let mut pause = REBUILD_PAUSE_MIN;
        loop {
            let cause = match timeout(BUILD_TIMEOUT, self.try_build(again)).await {
                Ok(Ok(source)) => return Ok(source),
                Ok(Err(BuildError::Never(error))) => return Err(error),
                Ok(Err(BuildError::StreamMissing))
                    if !again || started.elapsed() > STREAM_MISSING_MAX =>
                {
                    return Err(LogError::Incompatible(format!(
                        "stream {EVENTS_STREAM} does not exist"
                    )));
                }
                Ok(Err(BuildError::StreamMissing)) => "the stream is not there".to_owned(),
                Ok(Err(BuildError::Later(cause))) => cause,
                Err(_) => "no answer".to_owned(),
            };
            tracing::debug!(%cause, "tail cannot be built yet");
            sleep(pause).await;
            pause = (pause * 2).min(REBUILD_PAUSE_MAX);
        }
    }

    async fn try_build(&self, again: bool) -> Result<Source, BuildError> {
        let watch = self.connection.watch();
        let losses = watch.borrow().losses;
        if !self.connection.is_connected() {
            return Err(BuildError::Later("not connected".to_owned()));
        }
        if again {
            self.check_history().await?;
        }
        let client = self.connection.client();
        let inbox = client.new_inbox();
        let later = |error: &dyn std::fmt::Display| BuildError::Later(error.to_string());
        let messages = client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| later(&error))?;
        // Once anything was read, everything from there on is: the last messages come in sequence order, so none is missed.
        let config = if self.last_first && self.next == 1 {
            last_first_consumer(&self.filters)
        } else {
            tail_consumer(&self.filters, self.next)
        };
        let consumer: Consumer<_> = self
            .context
            .create_consumer_on_stream(config, EVENTS_STREAM)
            .await
            .map_err(|error| match error.kind() {
                ConsumerErrorKind::JetStream(cause)
                    if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    BuildError::StreamMissing
                }
                // 400: what we ask for is wrong (overlapping filters and the like), and will be the next time too.
                ConsumerErrorKind::JetStream(cause) if cause.code() == 400 => {
                    BuildError::Never(LogError::Refused(format!("the tail's consumer: {cause}")))
                }
                _ => later(&error),
            })?;
        let info = consumer.cached_info();
        let mut source = Source {
            messages,
            inbox,
            next_request: format!("$JS.API.CONSUMER.MSG.NEXT.{EVENTS_STREAM}.{}", info.name),
            name: info.name.clone(),
            context: self.context.clone(),
            watch,
            losses,
            requests: VecDeque::new(),
            request_number: 0,
            consumer_sequence: 0,
            heard: Instant::now(),
            behind: Some(info.num_pending),
        };
        source.pull().await.map_err(BuildError::Later)?;
        Ok(source)
    }

    /// A stream that ends before what was read has lost history (a power cut without sync, another disk): going on would mix two
    /// histories.
    async fn check_history(&self) -> Result<(), BuildError> {
        let stream = self
            .context
            .get_stream(EVENTS_STREAM)
            .await
            .map_err(|error| match error.kind() {
                GetStreamErrorKind::JetStream(cause)
                    if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    BuildError::StreamMissing
                }
                _ => BuildError::Later(error.to_string()),
            })?;
        let last = stream.cached_info().state.last_sequence;
        if last + 1 < self.next && self.next > 1 {
            return Err(BuildError::Never(LogError::Incompatible(format!(
                "stream {EVENTS_STREAM} ends at {last}, but {} was read from it before: it has lost history",
                self.next - 1
            ))));
        }
        Ok(())
    }
}

impl Source {
    /// The next message. An error says why the source is no longer to be trusted.
    async fn next(&mut self) -> Result<(async_nats::Message, Delivery), String> {
        loop {
            if self.requests.iter().map(|(_, left)| left).sum::<usize>() <= TAIL_BATCH / 2 {
                self.pull().await?;
            }
            // What waits already is read first: a reader that paused for a while has not lost its source.
            let deadline = (self.heard + TAIL_SILENCE_MAX).max(Instant::now() + TAIL_HEARTBEAT);
            let losses = self.losses;
            let received = tokio::select! {
                biased;
                received = timeout_at(deadline, self.messages.next()) => received,
                _ = self.watch.wait_for(|state| state.losses != losses) => return Err("the connection was lost".to_owned()),
            };
            let message = match received {
                Ok(Some(message)) => message,
                Ok(None) => return Err("the subscription ended".to_owned()),
                Err(_) => return Err("no heartbeat".to_owned()),
            };
            self.heard = Instant::now();
            match message.status {
                None | Some(StatusCode::OK) => {
                    let delivery = message
                        .reply
                        .as_deref()
                        .and_then(Delivery::parse)
                        .ok_or("a message without its place")?;
                    if delivery.consumer_sequence != self.consumer_sequence + 1 {
                        return Err(format!("a gap after {}", self.consumer_sequence));
                    }
                    self.consumer_sequence += 1;
                    if let Some((_, left)) = self.requests.front_mut() {
                        *left -= 1;
                        if *left == 0 {
                            self.requests.pop_front();
                        }
                    }
                    return Ok((message, delivery));
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                // A pull request ended: expired, its bytes are used up, or it is complete.
                Some(StatusCode::TIMEOUT) => self.end_request(&message),
                Some(StatusCode::REQUEST_TERMINATED)
                    if message
                        .description
                        .as_deref()
                        .is_some_and(|text| REQUEST_ENDED.iter().any(|end| text.contains(end))) =>
                {
                    self.end_request(&message);
                }
                Some(status) => {
                    return Err(format!(
                        "{status} {}",
                        message.description.as_deref().unwrap_or_default()
                    ));
                }
            }
        }
    }

    fn end_request(&mut self, message: &async_nats::Message) {
        let number = message
            .subject
            .rsplit('.')
            .next()
            .and_then(|token| token.parse::<u64>().ok());
        self.requests
            .retain(|(request, _)| Some(*request) != number);
    }

    async fn pull(&mut self) -> Result<(), String> {
        let request = PullRequest {
            batch: TAIL_BATCH,
            max_bytes: TAIL_BATCH_BYTES,
            expires: TAIL_PULL_EXPIRES.as_nanos(),
            idle_heartbeat: TAIL_HEARTBEAT.as_nanos(),
        };
        self.request_number += 1;
        let reply = format!("{}.{}", self.inbox, self.request_number);
        let body = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let client = self.context.client();
        client
            .publish_with_reply(self.next_request.clone(), reply, body.into())
            .await
            .map_err(|error| error.to_string())?;
        self.requests.push_back((self.request_number, TAIL_BATCH));
        Ok(())
    }
}

impl Drop for Source {
    /// Takes the consumer away, so that a reader that stops does not weigh on publishes until the server forgets it.
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (context, name) = (self.context.clone(), std::mem::take(&mut self.name));
            runtime.spawn(async move {
                let _ = context
                    .delete_consumer_from_stream(name, EVENTS_STREAM)
                    .await; // else the server forgets it in a minute
            });
        }
    }
}

fn stored(message: async_nats::Message, delivery: &Delivery) -> StoredMessage {
    StoredMessage {
        sequence: delivery.stream_sequence,
        time_micros: delivery.time_micros,
        subject: message.subject.as_str().into(),
        message_id: message.headers.as_ref().and_then(wire::message_id),
        payload: message.payload,
    }
}
