//! Streams beside the log: what is stored in them, page by page or as it comes, and storing one message more.

use std::time::Duration;

use async_nats::{
    HeaderMap, Request, RequestErrorKind,
    jetstream::{
        self,
        consumer::{Consumer, DeliverPolicy, pull},
        stream::{LastRawMessageErrorKind, RawMessageErrorKind},
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Deserialize;
use swarm_events::Timestamp;
use swarm_log::definitions::tail_consumer;
use tokio::time::{Instant, sleep, timeout};

use super::{Bus, BusError};

/// How long one look into a stream may take: it is local to nats-server.
const READ_WAIT: Duration = Duration::from_secs(5);
/// How long an acknowledgement is awaited before the message is sent again.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// How long nobody's taking a message is looked into: who knows of no such stream says so at once, and while a stream is
/// without its leader nothing may be said at all, and the message is better sent again.
const MISSING_WAIT: Duration = Duration::from_millis(500);
/// Pause before a message without acknowledgement is sent again.
const RESEND_PAUSE: Duration = Duration::from_millis(50);
/// Most bytes of a page: with the most messages of the largest size it would be 80 MB.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The server forgets the consumer of a page after this long, should its deletion be lost.
const PAGE_CONSUMER_INACTIVE: Duration = Duration::from_secs(10);
/// Descriptions of status 409 with which a page is full.
const PAGE_FULL: [&str; 2] = ["MaxBytes", "Batch Completed"];

/// JetStream error codes that mean something of their own here.
mod codes {
    /// The last message of the subject is another one.
    pub(super) const WRONG_LAST_SEQUENCE: u64 = 10071;
    /// Another checked write on the subject is in flight (clusters): it may well be the other one that wins.
    pub(super) const CHECK_IN_FLIGHT: u64 = 10164;
    /// The message is larger than the stream takes.
    pub(super) const TOO_LARGE: u64 = 10054;
    /// Store failed (among it: maximum bytes), resources, storage, memory exceeded.
    pub(super) const FULL: [u64; 4] = [10077, 10023, 10047, 10028];
    /// JetStream or the cluster is not ready.
    pub(super) const NOT_READY: [u64; 3] = [10008, 10009, 10005];
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its sequence.
    pub sequence: u64,
    /// When nats-server stored it, by its clock.
    pub at: Timestamp,
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// What it says.
    pub payload: Bytes,
}

/// A page of a stream.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// In the order in which they were stored.
    pub items: Vec<Stored>,
    /// There are more behind them.
    pub more: bool,
}

/// A message was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its sequence.
    pub sequence: u64,
    /// It was stored before, under the same id.
    pub duplicate: bool,
}

/// Why a message was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeepError {
    /// The last message of the subject is another one than the caller has seen.
    #[error("the last message of {0} is another one")]
    Changed(String),
    /// The stream is full.
    #[error("nats-server has no room: {0}")]
    Full(String),
    /// It is larger than the stream takes.
    #[error("it is larger than the stream takes: {0}")]
    TooLarge(String),
    /// No stream takes it.
    #[error("no stream of nats-server takes it: {0}")]
    Missing(String),
    /// Something else.
    #[error("nats-server: {0}")]
    Refused(String),
    /// Whether it is stored is not known.
    #[error("nats-server does not say whether it is stored: {0}")]
    Unknown(String),
}

/// What nats-server says to a publish.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AckError>,
}
#[derive(Deserialize)]
struct AckError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What nats-server says of a stream that there is not, whatever was asked of it.
const NO_STREAM: &str = "stream not found";

fn refused(error: impl std::fmt::Display) -> BusError {
    let text = error.to_string();
    if text.contains(NO_STREAM) {
        BusError::Missing(text)
    } else {
        BusError::Refused(text)
    }
}

fn micros(nanos: i128) -> Timestamp {
    Timestamp::from_micros(i64::try_from(nanos / 1_000).unwrap_or(i64::MAX))
}

/// A delivered message, and how many are behind it.
fn delivered(message: jetstream::Message) -> Result<(Stored, u64), BusError> {
    let info = message.info().map_err(refused)?;
    let (sequence, pending) = (info.stream_sequence, info.pending);
    let at = micros(info.published.unix_timestamp_nanos());
    let message = message.message;
    let stored = Stored {
        sequence,
        at,
        subject: message.subject.to_string(),
        headers: message.headers.unwrap_or_default(),
        payload: message.payload,
    };
    Ok((stored, pending))
}

impl Bus {
    /// JetStream, over the same connection.
    pub(crate) const fn context(&self) -> &jetstream::Context {
        &self.1
    }

    /// The messages of `stream` on subjects that match `filters`, from the sequence `from` on: at most `most`, and
    /// [`PAGE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// See [`BusError`].
    pub async fn page(
        &self,
        stream: &str,
        filters: &[String],
        from: u64,
        most: usize,
    ) -> Result<Found, BusError> {
        self.look(stream, tail_consumer(filters, from), most).await
    }

    /// The same without what the messages say.
    ///
    /// # Errors
    /// See [`BusError`].
    pub async fn headers(
        &self,
        stream: &str,
        filters: &[String],
        from: u64,
        most: usize,
    ) -> Result<Found, BusError> {
        let config = pull::Config {
            headers_only: true,
            ..tail_consumer(filters, from)
        };
        self.look(stream, config, most).await
    }

    async fn look(
        &self,
        stream: &str,
        config: pull::Config,
        most: usize,
    ) -> Result<Found, BusError> {
        let look = async {
            let config = pull::Config {
                description: Some("Swarm: page".to_owned()),
                inactive_threshold: PAGE_CONSUMER_INACTIVE,
                ..config
            };
            let made = self.1.create_consumer_on_stream(config, stream).await;
            let consumer: Consumer<pull::Config> = made.map_err(refused)?;
            let found = if consumer.cached_info().num_pending == 0 {
                Ok(Found::default())
            } else {
                fetch(&consumer, most).await
            };
            // One that is left over goes by itself, later.
            let name = &consumer.cached_info().name;
            let _ = self.1.delete_consumer_from_stream(name, stream).await;
            found
        };
        let late = |_| BusError::Late(stream.to_owned());
        timeout(READ_WAIT, look).await.map_err(late)?
    }

    /// The subjects of `stream` that match `filter` and have a message.
    ///
    /// # Errors
    /// See [`BusError`].
    pub async fn subjects(&self, stream: &str, filter: &str) -> Result<Vec<String>, BusError> {
        let look = async {
            let found = self.1.get_stream_no_info(stream).await.map_err(refused)?;
            let subjects = found.info_with_subjects(filter).await.map_err(refused)?;
            let names = subjects.map_ok(|(subject, _)| subject);
            names.try_collect().await.map_err(refused)
        };
        let late = |_| BusError::Late(stream.to_owned());
        timeout(READ_WAIT, look).await.map_err(late)?
    }

    /// The messages of `stream` on subjects that match `filters`, from the sequence `from` on, as they come. It ends with an
    /// error when nats-server is away for long; before that it finds the place where it left off by itself.
    ///
    /// # Errors
    /// See [`BusError`].
    pub async fn follow(
        &self,
        stream: &str,
        filters: &[String],
        from: u64,
    ) -> Result<impl Stream<Item = Result<Stored, BusError>> + Send + use<>, BusError> {
        let config = pull::OrderedConfig {
            description: Some("Swarm: live".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from.max(1),
            },
            filter_subjects: filters.to_vec(),
            ..pull::OrderedConfig::default()
        };
        let begin = async {
            let made = self.1.create_consumer_on_stream(config, stream).await;
            let consumer: Consumer<pull::OrderedConfig> = made.map_err(refused)?;
            consumer.messages().await.map_err(refused)
        };
        let late = |_| BusError::Late(stream.to_owned());
        let messages = timeout(READ_WAIT, begin).await.map_err(late)??;
        Ok(messages.map(|message| {
            let (stored, _) = delivered(message.map_err(refused)?)?;
            Ok(stored)
        }))
    }

    /// Sequence of the last message of `stream`, 0 if it is empty.
    ///
    /// # Errors
    /// See [`BusError`].
    pub async fn last_sequence(&self, stream: &str) -> Result<u64, BusError> {
        let look = async {
            let stream = self.1.get_stream(stream).await.map_err(refused)?;
            Ok(stream.cached_info().state.last_sequence)
        };
        let late = |_| BusError::Late(stream.to_owned());
        timeout(READ_WAIT, look).await.map_err(late)?
    }

    /// The last message of `subject` in `stream`, by the word of the stream's leader: it knows of every acknowledged write.
    ///
    /// # Errors
    /// See [`BusError`].
    pub async fn last_of_subject(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<Stored>, BusError> {
        let look = async {
            let stream = self.1.get_stream_no_info(stream).await.map_err(refused)?;
            let last = stream.get_last_raw_message_by_subject(subject).await;
            match last {
                Ok(message) => Ok(Some(raw(message))),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(refused(error)),
            }
        };
        let late = |_| BusError::Late(subject.to_owned());
        timeout(READ_WAIT, look).await.map_err(late)?
    }

    /// The message of `stream` with this sequence; `None` if it is gone.
    ///
    /// # Errors
    /// See [`BusError`].
    pub async fn stored_at(&self, stream: &str, sequence: u64) -> Result<Option<Stored>, BusError> {
        let look = async {
            let stream = self.1.get_stream_no_info(stream).await.map_err(refused)?;
            match stream.get_raw_message(sequence).await {
                Ok(message) => Ok(Some(raw(message))),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(refused(error)),
            }
        };
        let late = |_| BusError::Late(stream.to_owned());
        timeout(READ_WAIT, look).await.map_err(late)?
    }

    /// Stores one message, and sends it again until `deadline` while nothing is known of it. That is safe for a message with
    /// an id (`Nats-Msg-Id`); one with an expected sequence may find its own first attempt, which shows as
    /// [`KeepError::Unknown`]. That there is no `stream` is said at once.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub async fn keep(
        &self,
        stream: &str,
        subject: &str,
        headers: &HeaderMap,
        payload: &Bytes,
        deadline: Instant,
    ) -> Result<Kept, KeepError> {
        let mut silence: Option<String> = None;
        let mut looked = false;
        loop {
            let (error, nothing) = match self.keep_once(subject, headers, payload).await {
                Ok(kept) => return Ok(kept),
                Err(Attempt::Failed(error)) => (error, false),
                Err(Attempt::NotStored(error)) => (error, true),
            };
            match (error, silence.take()) {
                (error @ KeepError::Missing(_), None)
                    if !std::mem::replace(&mut looked, true) && self.is_missing(stream).await =>
                {
                    return Err(error);
                }
                (error @ (KeepError::Unknown(_) | KeepError::Missing(_)), before) => {
                    if Instant::now() + RESEND_PAUSE >= deadline {
                        // An attempt of which nothing is known weighs more than one that nobody heard.
                        return Err(before.map_or(error, KeepError::Unknown));
                    }
                    silence = before.or(match error {
                        KeepError::Unknown(why) if !nothing => Some(why),
                        _ => None,
                    });
                    sleep(RESEND_PAUSE).await;
                }
                // It may be the first attempt that is in the way.
                (KeepError::Changed(_), Some(why)) => return Err(KeepError::Unknown(why)),
                (error, _) => return Err(error),
            }
        }
    }

    /// Whether nats-server says that there is no such stream: not merely nobody who answers for it.
    async fn is_missing(&self, stream: &str) -> bool {
        let said = timeout(MISSING_WAIT, self.last_sequence(stream)).await;
        matches!(said, Ok(Err(BusError::Missing(_))))
    }

    async fn keep_once(
        &self,
        subject: &str,
        headers: &HeaderMap,
        payload: &Bytes,
    ) -> Result<Kept, Attempt> {
        let request = Request::new()
            .payload(payload.clone())
            .headers(headers.clone())
            .timeout(Some(ACK_WAIT));
        let answered = self.0.send_request(subject.to_owned(), request).await;
        let answer = answered.map_err(|error| match error.kind() {
            RequestErrorKind::MaxPayloadExceeded => {
                Attempt::Failed(KeepError::TooLarge(error.to_string()))
            }
            // No stream listens, for a moment at least: a cluster elects, or nothing was provisioned.
            RequestErrorKind::NoResponders => {
                Attempt::NotStored(KeepError::Missing(error.to_string()))
            }
            _ => Attempt::Failed(KeepError::Unknown(error.to_string())),
        })?;
        let ack: Ack = serde_json::from_slice(&answer.payload)
            .map_err(|error| Attempt::Failed(KeepError::Unknown(format!("{subject}: {error}"))))?;
        let Some(error) = ack.error else {
            return Ok(Kept {
                sequence: ack.seq,
                duplicate: ack.duplicate,
            });
        };
        let (code, text) = (error.err_code, error.description);
        Err(match code {
            codes::CHECK_IN_FLIGHT => Attempt::NotStored(KeepError::Unknown(text)),
            codes::WRONG_LAST_SEQUENCE => Attempt::Failed(KeepError::Changed(subject.to_owned())),
            codes::TOO_LARGE => Attempt::Failed(KeepError::TooLarge(text)),
            _ if codes::NOT_READY.contains(&code) => Attempt::Failed(KeepError::Unknown(text)),
            _ if codes::FULL.contains(&code) => Attempt::Failed(KeepError::Full(text)),
            _ => Attempt::Failed(KeepError::Refused(format!("{text} ({code})"))),
        })
    }
}

/// Why an attempt to store a message did not.
enum Attempt {
    /// Nothing was stored: the next attempt is the first one again.
    NotStored(KeepError),
    /// Something may have been, if it is [`KeepError::Unknown`].
    Failed(KeepError),
}

fn raw(message: jetstream::message::StreamMessage) -> Stored {
    Stored {
        sequence: message.sequence,
        at: micros(message.time.unix_timestamp_nanos()),
        subject: message.subject.to_string(),
        headers: message.headers,
        payload: message.payload,
    }
}

async fn fetch(consumer: &Consumer<pull::Config>, most: usize) -> Result<Found, BusError> {
    let wanted = consumer
        .fetch()
        .max_messages(most)
        .max_bytes(PAGE_BYTES_MAX);
    let mut messages = wanted.messages().await.map_err(refused)?;
    let mut found = Found::default();
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => {
                let (stored, behind) = delivered(message)?;
                found.items.push(stored);
                found.more = behind > 0;
                if behind == 0 {
                    break;
                }
            }
            Err(error) => {
                let text = error.to_string();
                if PAGE_FULL.iter().any(|full| text.contains(full)) {
                    break;
                }
                return Err(BusError::Refused(text));
            }
        }
    }
    Ok(found)
}
