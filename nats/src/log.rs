//! The `Log` trait and its values.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

use crate::PresenceNews;

/// A message as the stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Stream sequence, rising by at least one from message to message.
    pub sequence: u64,
    /// The server's store time in microseconds since the Unix epoch. It can step back (clock changes, leader changes).
    pub time_micros: i64,
    /// Full subject.
    pub subject: Arc<str>,
    /// The body as published.
    pub payload: Bytes,
    /// `Nats-Msg-Id`, when the publisher set one.
    pub message_id: Option<Arc<str>>,
}

/// The condition under which a message may be stored: the last message of `subject` has this sequence (0: none exists).
///
/// Sent as `Nats-Expected-Last-Subject-Sequence` and `-Subject`. The subject is always a literal, never a wildcard:
/// on a cluster a wildcard lets conflicting writes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The literal subject that is looked up.
    pub subject: Arc<str>,
    /// The sequence its last message must have.
    pub sequence: u64,
}

/// A message to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Full subject, one that the stream covers.
    pub subject: String,
    /// Body, at most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Bytes,
    /// `Nats-Msg-Id`: set by clients and agents for their retries, never on decisions.
    pub message_id: Option<String>,
    /// Refuses the message unless it holds.
    pub fence: Option<Fence>,
}

/// Largest body that the log takes: nats-server's `max_payload` of 1 MiB less room for headers.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024 - 16 * 1024;

/// A stored message's acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it (or, for a duplicate, the first copy) is stored.
    pub sequence: u64,
    /// The server knew the message id: counts only if the message at `sequence` is the caller's own.
    pub duplicate: bool,
}

/// Why a message was not stored, or why that is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// JetStream error 10071: the fence does not hold (any more).
    #[error("{subject} has moved past sequence {expected}")]
    Fenced {
        /// The fence's subject.
        subject: Arc<str>,
        /// The sequence that the caller expected.
        expected: u64,
    },
    /// JetStream error 10164: another write checked against the same subject is in flight (clusters only). Resend as is.
    #[error("another write checked against {subject} is in flight")]
    FenceBusy {
        /// The fence's subject.
        subject: Arc<str>,
    },
    /// The body is over the limit; nothing was sent.
    #[error(
        "the message for {subject} has {bytes} bytes, more than the limit of {limit}: pass large data by reference"
    )]
    TooLarge {
        /// Where it was to go.
        subject: String,
        /// Its size.
        bytes: usize,
        /// [`PAYLOAD_BYTES_MAX`].
        limit: usize,
    },
    /// The stream or its disk is full: nothing was stored.
    #[error("the log is full: {description}; free disk space or raise the stream's max_bytes")]
    Full {
        /// The server's words.
        description: String,
    },
    /// No acknowledgement (timeout, disconnect, client error): the message may or may not be stored, now or later.
    #[error("no acknowledgement for {subject}: {cause}")]
    Unknown {
        /// Where it was to go.
        subject: String,
        /// What the client said.
        cause: String,
    },
    /// Any other refusal by the server: nothing was stored.
    #[error("the server refused the message for {subject} with error {code}: {description}")]
    Refused {
        /// Where it was to go.
        subject: String,
        /// JetStream `err_code` (0 if none).
        code: u64,
        /// The server's words.
        description: String,
    },
}

/// Reading went wrong for good (a broken connection is mended inside and not reported here).
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The stream does not exist or differs from what we need.
    #[error("{0}")]
    Incompatible(String),
    /// The server could not be reached or did not answer in time.
    #[error("the log cannot be reached: {0}")]
    Unreachable(String),
    /// Anything else the server said.
    #[error("the log refused: {0}")]
    Refused(String),
}

/// What a tail yields.
#[derive(Clone, Debug)]
pub enum Tailed {
    /// The next message that matches, in sequence order, none skipped, none repeated.
    Message(StoredMessage),
    /// Everything stored when this was asked has been yielded: nothing that matches waits behind it.
    CaughtUp,
    /// The tail lost its source (no heartbeat for 1.5 s, a disconnect) and is being rebuilt from its last sequence.
    Interrupted,
    /// The tail was rebuilt after [`Tailed::Interrupted`] and goes on without a gap.
    Resumed,
}

/// The state of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInfo {
    /// First sequence that is still held (no code may assume 1).
    pub first_sequence: u64,
    /// Last sequence (0: empty).
    pub last_sequence: u64,
    /// Creation time in microseconds since the Unix epoch: names the incarnation of the stream.
    pub created_micros: i64,
    /// Bytes held.
    pub bytes: u64,
    /// Upper bound of `bytes`, -1 if unbounded.
    pub bytes_max: i64,
}

/// The source of truth: one totally ordered stream.
///
/// `append` takes effect in call order: of two calls on the same handle (or its clones) the messages of the first are
/// sent first. The returned future only waits for the outcome; dropping it does not take the messages back.
pub trait Log: Clone + Send + Sync + 'static {
    /// Appends each message on its own, pipelined or grouped into atomic batches, whichever the durability mode makes
    /// fast. One outcome for each message, in order. One message's refusal says nothing of its neighbours.
    ///
    /// On a cluster a message without an id can be stored more than once under one fence: a leader that comes back from a
    /// hang answers "in flight" to what its successor stores, and the message is sent again. What makes a repeat harmless
    /// is the reader's rule that a decision's ordinal rises within its epoch.
    fn append(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Vec<Result<Appended, AppendError>>>;

    /// Appends all of the messages or none (at most [`BATCH_MESSAGES_MAX`]); answers with the last one's sequence; the
    /// messages of a batch have consecutive sequences. A reader may see a prefix of the batch for a moment.
    fn append_atomic(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Result<Appended, AppendError>>;

    /// Follows the messages whose subject matches one of `filters` (NATS wildcards), from sequence `from` on (inclusive),
    /// for ever. Mends itself; yields an error only when going on is pointless.
    fn tail(&self, filters: Vec<String>, from: u64)
    -> BoxStream<'static, Result<Tailed, LogError>>;

    /// The message at `sequence`, `None` if there is none.
    fn get(
        &self,
        sequence: u64,
    ) -> impl Future<Output = Result<Option<StoredMessage>, LogError>> + Send;

    /// The last message of the literal `subject`, `None` if there is none.
    fn last_of(
        &self,
        subject: &str,
    ) -> impl Future<Output = Result<Option<StoredMessage>, LogError>> + Send;

    /// First and last sequence, age, size.
    fn info(&self) -> impl Future<Output = Result<LogInfo, LogError>> + Send;

    /// Puts an object (a snapshot, an over-long input) under `name`; replaces one that is there.
    fn put_object(
        &self,
        name: &str,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// The object under `name`, `None` if there is none.
    fn get_object(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<Bytes>, LogError>> + Send;

    /// Names of the objects that start with `prefix`, sorted.
    fn list_objects(
        &self,
        prefix: &str,
    ) -> impl Future<Output = Result<Vec<String>, LogError>> + Send;

    /// Deletes the object under `name`, if it is there.
    fn delete_object(&self, name: &str) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Puts `value` (at most [`crate::PRESENCE_VALUE_BYTES_MAX`] bytes) under `key` in the presence bucket, which is kept in
    /// memory only. Fails at once when the connection is down, so that nothing old is put later; after an error it may
    /// have been put or not.
    fn put_presence(
        &self,
        key: &str,
        value: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Removes `key` from the presence bucket; watchers hear of it.
    fn remove_presence(&self, key: &str) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Every key that starts with `prefix`: first those that are there, then [`PresenceNews::Complete`], then each change
    /// (quick changes of one key may be told as one), for ever. Mends itself: after an interruption it tells everything
    /// again, then `Complete`.
    fn watch_presence(&self, prefix: &str) -> BoxStream<'static, PresenceNews>;
}

/// nats-server takes at most 1,000 messages in one atomic batch.
pub const BATCH_MESSAGES_MAX: usize = 1_000;
