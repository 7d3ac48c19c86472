//! The log on NATS JetStream.

mod acks;
mod group;
mod objects;
mod presence;
mod tail;
pub(crate) mod wire;
mod writer;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{
    Context, ErrorCode,
    message::StreamMessage,
    stream::{DirectGetError, DirectGetErrorKind, RawMessageError, RawMessageErrorKind, Stream},
};
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::BoxStream,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    AppendError, Appended, BATCH_MESSAGES_MAX, Log, LogError, LogInfo, Message, PresenceNews,
    StoredMessage, Tailed,
    connect::Connection,
    definitions::{EVENTS_STREAM, OBJECTS_BUCKET, SNAPSHOT_PREFIX, SNAPSHOTS_BUCKET, bucket_of},
    provision::check_server,
};

/// No acknowledgement for this long: the outcome is unknown. Well above a cluster's usual hiccups; an election (4 to 9 s) may
/// exceed it, and then claiming again settles the doubt.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// What the server does before it acknowledges, which decides how writes are made fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every write is flushed to disk (`sync_interval: always`): what waits is grouped into atomic batches.
    Always,
    /// The disk is flushed now and then: on a single node plain pipelined publishes are fastest.
    Speed,
}

/// How to write.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The server's flush policy.
    pub durability: Durability,
    /// Copies of the stream. More than one means a cluster: one checked write in flight per subject, writes grouped.
    pub replicas: usize,
    /// `Content-Type` header of every message, `None` for none.
    pub content_type: Option<String>,
    /// How long an acknowledgement is awaited.
    pub ack_timeout: Duration,
}

impl LogSettings {
    /// Settings for CloudEvents in structured mode, with [`ACK_TIMEOUT`].
    pub fn new(durability: Durability, replicas: usize) -> Self {
        Self {
            durability,
            replicas,
            content_type: Some("application/cloudevents+json".to_owned()),
            ack_timeout: ACK_TIMEOUT,
        }
    }
}

/// Figures of the writer since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Messages acknowledged as stored (duplicates included).
    pub appended: u64,
    /// Messages refused: fences, limits, full disk.
    pub refused: u64,
    /// Messages whose outcome is unknown.
    pub unknown: u64,
    /// Atomic batches sent.
    pub batches: u64,
    /// Messages sent in them.
    pub batched: u64,
    /// Publishes that wait for their acknowledgement now (a batch counts once).
    pub in_flight: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) batched: AtomicU64,
    pub(crate) in_flight: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, outcome: &Result<Appended, AppendError>, messages: u64) {
        let counter = match outcome {
            Ok(_) => &self.appended,
            Err(AppendError::Unknown { .. }) => &self.unknown,
            Err(_) => &self.refused,
        };
        counter.fetch_add(messages, Ordering::Relaxed);
    }
}

/// The log on JetStream. Clones share one writer, so that the calls of a process take effect in one order.
#[derive(Clone)]
pub struct JetStreamLog {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Connection,
    context: Context,
    stream: Stream,
    cluster: bool,
    replicas: usize,
    stores: objects::Stores,
    /// Unbounded, since `append` must take its place in the order without waiting. Callers bound it by awaiting outcomes.
    jobs: mpsc::UnboundedSender<writer::Job>,
    counters: Arc<Counters>,
}

impl Inner {
    async fn store(
        &self,
        bucket: &str,
    ) -> Result<&async_nats::jetstream::object_store::ObjectStore, LogError> {
        self.stores.open(&self.context, bucket).await
    }

    fn presence(&self) -> presence::Bucket<'_> {
        presence::Bucket {
            connection: &self.connection,
            context: &self.context,
            replicas: self.replicas,
        }
    }
}

impl JetStreamLog {
    /// Opens the provisioned log and starts its writer.
    ///
    /// # Errors
    /// [`LogError::Incompatible`] when the server is too old or nothing was provisioned, [`LogError::Unreachable`] when it does
    /// not answer.
    pub async fn open(connection: &Connection, settings: LogSettings) -> Result<Self, LogError> {
        check_server(connection.client())?;
        let context = async_nats::jetstream::new(connection.client().clone());
        let stream =
            context
                .get_stream(EVENTS_STREAM)
                .await
                .map_err(|error| match error.kind() {
                    async_nats::jetstream::context::GetStreamErrorKind::JetStream(cause)
                        if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        LogError::Incompatible(format!(
                            "stream {EVENTS_STREAM} does not exist: provision it first"
                        ))
                    }
                    _ => LogError::Unreachable(format!(
                        "stream {EVENTS_STREAM} cannot be read: {error}"
                    )),
                })?;
        let stores = objects::Stores::default();
        stores
            .open(&context, OBJECTS_BUCKET)
            .await
            .map_err(|error| LogError::Incompatible(error.to_string()))?;
        let counters = Arc::new(Counters::default());
        let replicas = settings.replicas;
        let cluster = replicas > 1;
        let jobs = writer::start(connection, settings, counters.clone()).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                connection: connection.clone(),
                context,
                stream,
                cluster,
                replicas,
                stores,
                jobs,
                counters,
            }),
        })
    }

    /// The connection, for core NATS and for news of losses.
    pub fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// The NATS client.
    pub fn client(&self) -> &async_nats::Client {
        self.inner.connection.client()
    }

    /// The JetStream context.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    /// As [`Log::tail`], but it begins with the last message of each subject that matches, in sequence order; then comes
    /// [`Tailed::CaughtUp`], then everything that is stored from there on. After an interruption in between it may yield more
    /// than the last message of a subject, in sequence order still.
    pub fn tail_last_first(
        &self,
        filters: Vec<String>,
    ) -> BoxStream<'static, Result<Tailed, LogError>> {
        tail::tail(
            self.inner.connection.clone(),
            self.inner.context.clone(),
            filters,
            1,
            true,
        )
        .boxed()
    }

    /// Figures of this process's writer.
    pub fn stats(&self) -> LogStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.inner.counters;
        LogStats {
            appended: read(&counters.appended),
            refused: read(&counters.refused),
            unknown: read(&counters.unknown),
            batches: read(&counters.batches),
            batched: read(&counters.batched),
            in_flight: read(&counters.in_flight),
        }
    }
}

impl Log for JetStreamLog {
    fn append(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Vec<Result<Appended, AppendError>>> {
        if messages.is_empty() {
            return ready(Vec::new()).boxed();
        }
        let lost: Vec<_> = messages
            .iter()
            .map(|message| message.subject.clone())
            .collect();
        let (answer, outcome) = oneshot::channel();
        let _ = self.inner.jobs.send(writer::Job::each(messages, answer)); // a dropped job answers below
        async move {
            outcome.await.unwrap_or_else(|_| {
                lost.iter()
                    .map(|subject| Err(wire::unknown(subject, "the writer ended")))
                    .collect()
            })
        }
        .boxed()
    }

    fn append_atomic(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Result<Appended, AppendError>> {
        let subject = messages
            .first()
            .map(|message| message.subject.clone())
            .unwrap_or_default();
        if let Some(refusal) = batch_size_refusal(&subject, messages.len()) {
            return ready(Err(refusal)).boxed();
        }
        let (answer, outcome) = oneshot::channel();
        let _ = self
            .inner
            .jobs
            .send(writer::Job::Atomic { messages, answer });
        async move {
            outcome
                .await
                .unwrap_or_else(|_| Err(wire::unknown(&subject, "the writer ended")))
        }
        .boxed()
    }

    fn tail(
        &self,
        filters: Vec<String>,
        from: u64,
    ) -> BoxStream<'static, Result<Tailed, LogError>> {
        tail::tail(
            self.inner.connection.clone(),
            self.inner.context.clone(),
            filters,
            from,
            false,
        )
        .boxed()
    }

    async fn get(&self, sequence: u64) -> Result<Option<StoredMessage>, LogError> {
        if self.inner.cluster {
            raw(self.inner.stream.get_raw_message(sequence).await)
        } else {
            direct(self.inner.stream.direct_get(sequence).await)
        }
    }

    async fn last_of(&self, subject: &str) -> Result<Option<StoredMessage>, LogError> {
        if self.inner.cluster {
            raw(self
                .inner
                .stream
                .get_last_raw_message_by_subject(subject)
                .await)
        } else {
            direct(self.inner.stream.direct_get_last_for_subject(subject).await)
        }
    }

    async fn info(&self) -> Result<LogInfo, LogError> {
        let info = self
            .inner
            .stream
            .get_info()
            .await
            .map_err(|error| LogError::Unreachable(error.to_string()))?;
        Ok(LogInfo {
            first_sequence: info.state.first_sequence,
            last_sequence: info.state.last_sequence,
            created_micros: wire::micros(info.created.unix_timestamp_nanos()),
            bytes: info.state.bytes,
            bytes_max: info.config.max_bytes,
        })
    }

    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<(), LogError> {
        objects::put(self.inner.store(bucket_of(name)).await?, name, bytes).await
    }

    async fn get_object(&self, name: &str) -> Result<Option<Bytes>, LogError> {
        objects::get(self.inner.store(bucket_of(name)).await?, name).await
    }

    async fn list_objects(&self, prefix: &str) -> Result<Vec<String>, LogError> {
        let mut names = Vec::new();
        for bucket in [OBJECTS_BUCKET, SNAPSHOTS_BUCKET] {
            let may_hold = bucket == bucket_of(prefix) || SNAPSHOT_PREFIX.starts_with(prefix);
            if may_hold {
                names.extend(objects::list(&self.inner.context, bucket, prefix).await?);
            }
        }
        names.sort();
        Ok(names)
    }

    async fn delete_object(&self, name: &str) -> Result<(), LogError> {
        let bucket = bucket_of(name);
        let store = self.inner.store(bucket).await?;
        objects::delete(&self.inner.context, (bucket, store), name).await
    }

    async fn put_presence(&self, key: &str, value: Bytes) -> Result<(), LogError> {
        self.inner.presence().put(key, value).await
    }

    async fn remove_presence(&self, key: &str) -> Result<(), LogError> {
        self.inner.presence().remove(key).await
    }

    fn watch_presence(&self, prefix: &str) -> BoxStream<'static, PresenceNews> {
        presence::watch(
            self.inner.connection.clone(),
            self.inner.context.clone(),
            prefix.to_owned(),
        )
        .boxed()
    }
}

/// The answer of a direct get, the cheapest way. Not for clusters: there a follower answers, which may lag behind what its caller
/// has been acknowledged.
fn direct(
    answer: Result<StreamMessage, DirectGetError>,
) -> Result<Option<StoredMessage>, LogError> {
    match answer {
        Ok(message) => Ok(Some(wire::stored(message))),
        Err(error) => match error.kind() {
            DirectGetErrorKind::NotFound => Ok(None),
            DirectGetErrorKind::InvalidSubject => Err(LogError::Refused(error.to_string())),
            _ => Err(LogError::Unreachable(error.to_string())),
        },
    }
}

/// The answer of the stream's leader.
fn raw(answer: Result<StreamMessage, RawMessageError>) -> Result<Option<StoredMessage>, LogError> {
    match answer {
        Ok(message) => Ok(Some(wire::stored(message))),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(cause) => Err(LogError::Refused(cause.to_string())),
            RawMessageErrorKind::InvalidSubject => Err(LogError::Refused(error.to_string())),
            RawMessageErrorKind::Other => Err(LogError::Unreachable(error.to_string())),
        },
    }
}

/// The refusal of an atomic batch that is empty or too long, in the server's terms (10199: batch too large).
pub(crate) fn batch_size_refusal(subject: &str, messages: usize) -> Option<AppendError> {
    let (code, description) = match messages {
        0 => (0, "an atomic batch needs at least one message".to_owned()),
        BATCH_MESSAGES_MAX.. if messages > BATCH_MESSAGES_MAX => (
            10199,
            format!(
                "an atomic batch of {messages} messages is over the limit of {BATCH_MESSAGES_MAX}"
            ),
        ),
        _ => return None,
    };
    Some(AppendError::Refused {
        subject: subject.to_owned(),
        code,
        description,
    })
}
