//! Presence in a KV bucket in memory: plain publishes, and a push consumer of our own keeping.
//!
//! The client library's watch notices a dead node after about 30 s; this one after 1.5 s.

use std::{collections::BTreeSet, time::Duration};

use async_nats::{
    HeaderMap, RequestErrorKind, StatusCode, Subscriber,
    header::NATS_LAST_CONSUMER,
    jetstream::{
        Context,
        consumer::{AckPolicy, Consumer, DeliverPolicy, ReplayPolicy, push},
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::wire::{Delivery, Outcome};
use crate::{
    LogError, PresenceNews,
    connect::{Connection, ConnectionState},
    definitions::{PRESENCE_BUCKET, TAIL_HEARTBEAT, TAIL_SILENCE_MAX},
    presence::check,
    provision::provision_in_memory,
};

/// No answer for this long: two renewals are due by then, and a later one says more.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);
/// Limit for creating the consumer, so that a lost answer is asked for again soon.
const BUILD_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between attempts to rebuild.
const REBUILD_PAUSE: Duration = Duration::from_millis(100);
/// The server forgets the consumer this long after the watch has ended.
const CONSUMER_INACTIVE: Duration = Duration::from_secs(5);
/// How KV buckets spell a removal, see ADR-8 of the NATS architecture.
const OPERATION: &str = "KV-Operation";

fn subject(key: &str) -> String {
    format!("$KV.{PRESENCE_BUCKET}.{key}")
}

fn stream_name() -> String {
    format!("KV_{PRESENCE_BUCKET}")
}

/// Where presence is written to.
pub(super) struct Bucket<'a> {
    pub(super) connection: &'a Connection,
    pub(super) context: &'a Context,
    /// Copies of the bucket.
    pub(super) replicas: usize,
}

impl Bucket<'_> {
    pub(super) async fn put(&self, key: &str, value: Bytes) -> Result<(), LogError> {
        check(key, value.len())?;
        self.write(key, HeaderMap::new(), value).await
    }

    pub(super) async fn remove(&self, key: &str) -> Result<(), LogError> {
        check(key, 0)?;
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "DEL");
        self.write(key, headers, Bytes::new()).await
    }

    async fn write(&self, key: &str, headers: HeaderMap, value: Bytes) -> Result<(), LogError> {
        match write(self.connection, key, headers.clone(), value.clone()).await {
            // A single server forgets what it keeps in memory with its definition when it is restarted.
            Err(Unwritten::NoBucket) => {
                provision_in_memory(self.context, self.replicas).await?;
                write(self.connection, key, headers, value)
                    .await
                    .map_err(LogError::from)
            }
            outcome => outcome.map_err(LogError::from),
        }
    }
}

/// Why a key was not written.
enum Unwritten {
    /// Nobody takes it.
    NoBucket,
    Other(LogError),
}
impl From<Unwritten> for LogError {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::NoBucket => {
                Self::Unreachable("no server takes presence keys now (no responders)".to_owned())
            }
            Unwritten::Other(error) => error,
        }
    }
}

async fn write(
    connection: &Connection,
    key: &str,
    headers: HeaderMap,
    value: Bytes,
) -> Result<(), Unwritten> {
    let lost = |cause: &str| {
        let text = format!("presence key {key} is not stored: {cause}");
        Unwritten::Other(LogError::Unreachable(text))
    };
    // The client would keep it and send it when it is back, when it is no longer true.
    if !connection.is_connected() {
        return Err(lost("not connected"));
    }
    let request = async_nats::Request::new()
        .headers(headers)
        .payload(value)
        .timeout(Some(ACK_TIMEOUT));
    let answer = connection
        .client()
        .send_request(subject(key), request)
        .await
        .map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Unwritten::NoBucket,
            _ => lost(&error.to_string()),
        })?;
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Unwritten::NoBucket);
    }
    match Outcome::parse(&answer) {
        Outcome::Stored { .. } => Ok(()),
        Outcome::Lost(cause) => Err(lost(&cause)),
        Outcome::Refused {
            code, description, ..
        } => Err(Unwritten::Other(LogError::Refused(format!(
            "presence key {key}: error {code}: {description}"
        )))),
    }
}

struct Watch {
    connection: Connection,
    context: Context,
    prefix: String,
    source: Option<Source>,
    /// Keys told as put and not as removed since.
    known: BTreeSet<String>,
}

/// A consumer and what it has delivered.
struct Source {
    messages: Subscriber,
    watch: watch::Receiver<ConnectionState>,
    losses: u64,
    consumer_sequence: u64,
    heard: Instant,
    /// Whether [`PresenceNews::Complete`] is due, or was told.
    complete: Completion,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Completion {
    Open,
    Due,
    Told,
}

pub(super) fn watch(
    connection: Connection,
    context: Context,
    prefix: String,
) -> impl Stream<Item = PresenceNews> + Send {
    let watch = Watch {
        connection,
        context,
        prefix,
        source: None,
        known: BTreeSet::new(),
    };
    stream::unfold(watch, |mut watch| async move {
        let news = watch.next().await;
        Some((news, watch))
    })
}

impl Watch {
    async fn next(&mut self) -> PresenceNews {
        loop {
            let source = match &mut self.source {
                Some(source) => source,
                empty => {
                    match timeout(
                        BUILD_TIMEOUT,
                        Source::build(&self.connection, &self.context, &self.prefix),
                    )
                    .await
                    {
                        Ok(Ok(source)) => empty.insert(source),
                        Ok(Err(cause)) => {
                            tracing::debug!(%cause, "presence cannot be watched yet");
                            sleep(REBUILD_PAUSE).await;
                            continue;
                        }
                        Err(_) => {
                            tracing::debug!("presence cannot be watched yet: no answer");
                            continue;
                        }
                    }
                }
            };
            if source.complete == Completion::Due {
                source.complete = Completion::Told;
                return PresenceNews::Complete;
            }
            match source.next().await {
                Ok(None) => {} // complete
                Ok(Some((message, delivery))) => {
                    if let Some(news) = self.news(&message, &delivery) {
                        return news;
                    }
                }
                Err(cause) => {
                    tracing::debug!(%cause, "presence watch interrupted");
                    self.source = None;
                }
            }
        }
    }

    fn news(&mut self, message: &async_nats::Message, delivery: &Delivery) -> Option<PresenceNews> {
        let key = message
            .subject
            .strip_prefix(&subject(""))
            .filter(|key| key.starts_with(&self.prefix))?
            .to_owned();
        let removed = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(OPERATION))
            .is_some_and(|operation| matches!(operation.as_str(), "DEL" | "PURGE"));
        if removed {
            return self
                .known
                .remove(&key)
                .then_some(PresenceNews::Removed { key });
        }
        self.known.insert(key.clone());
        Some(PresenceNews::Put {
            key,
            value: message.payload.clone(),
            written_micros: delivery.time_micros,
        })
    }
}

impl Source {
    async fn build(
        connection: &Connection,
        context: &Context,
        prefix: &str,
    ) -> Result<Self, String> {
        let watch = connection.watch();
        let losses = watch.borrow().losses;
        if !connection.is_connected() {
            return Err("not connected".to_owned());
        }
        let client = connection.client();
        let inbox = client.new_inbox();
        let messages = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| error.to_string())?;
        let config = push::Config {
            deliver_subject: inbox,
            description: Some("Swarm: presence".to_owned()),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            filter_subject: filter(prefix),
            idle_heartbeat: TAIL_HEARTBEAT,
            inactive_threshold: CONSUMER_INACTIVE,
            num_replicas: 1,
            memory_storage: true,
            ..push::Config::default()
        };
        let consumer: Consumer<_> = context
            .create_consumer_on_stream(config, stream_name())
            .await
            .map_err(|error| error.to_string())?;
        let empty = consumer.cached_info().num_pending == 0;
        Ok(Self {
            messages,
            watch,
            losses,
            consumer_sequence: 0,
            heard: Instant::now(),
            complete: if empty {
                Completion::Due
            } else {
                Completion::Open
            },
        })
    }

    /// The next message, or `None` when everything has been told. An error says why the source is no longer to be trusted.
    async fn next(&mut self) -> Result<Option<(async_nats::Message, Delivery)>, String> {
        loop {
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
                    if delivery.pending == 0 && self.complete == Completion::Open {
                        self.complete = Completion::Due;
                    }
                    return Ok(Some((message, delivery)));
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {
                    let last = message
                        .headers
                        .as_ref()
                        .and_then(|headers| headers.get(NATS_LAST_CONSUMER))
                        .and_then(|last| last.as_str().parse::<u64>().ok());
                    if last.is_some_and(|last| last != self.consumer_sequence) {
                        return Err(format!("a gap after {}", self.consumer_sequence));
                    }
                    // Idle: nothing is left to tell. (What waited when the consumer was made may have been replaced.)
                    if self.complete == Completion::Open {
                        self.complete = Completion::Due;
                        return Ok(None);
                    }
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
}

/// The narrowest filter that covers keys with `prefix`: its whole tokens.
fn filter(prefix: &str) -> String {
    let tokens = prefix.rfind('.').map_or("", |dot| &prefix[..=dot]);
    format!("{}>", subject(tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_keeps_whole_tokens() {
        assert_eq!(filter("health."), "$KV.swarm_presence.health.>");
        assert_eq!(filter("health.ab"), "$KV.swarm_presence.health.>");
        assert_eq!(filter("he"), "$KV.swarm_presence.>");
        assert_eq!(filter(""), "$KV.swarm_presence.>");
    }
}
