//! The swarm's blackboard: values under keys that all its agents, and people, read and write.

use std::{fmt, sync::Arc};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    kv::{CreateErrorKind, Entry as Kept, Operation, Store, UpdateErrorKind},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use serde::Serialize;
use swarm_events::{Json, Problem, subject::Place};
use swarm_log::definitions::{
    BLACKBOARD_BUCKET, BLACKBOARD_BYTES_MAX, BLACKBOARD_DELETED_FOR, BLACKBOARD_OWN,
    check_blackboard_key,
};
use tokio::sync::OnceCell;

use crate::link::Link;

/// Keys that one request of a list brings.
const LIST_BATCH: usize = 1_000;
/// The server forgets the consumer of a list this long after it was read.
const LIST_INACTIVE: std::time::Duration = std::time::Duration::from_secs(5);

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// What stands there.
    pub value: Json,
    /// Rises with each write of any key; names this one in [`Blackboard::update`].
    pub revision: u64,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoardChange {
    /// A value was written.
    Put(Entry),
    /// It was deleted.
    Deleted {
        /// Its key.
        key: String,
        /// The revision of the deletion.
        revision: u64,
    },
}

/// Why a blackboard does not do as it is told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BoardError {
    /// The key is none.
    #[error("{0}")]
    Key(Problem),
    /// The value is too large.
    #[error(
        "value: it has {bytes} bytes, more than the limit of {BLACKBOARD_BYTES_MAX}: put it in a store, and its name here"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The value is no JSON.
    #[error("value: {0}")]
    NoJson(String),
    /// There is a value under the key already.
    #[error("{key}: there is a value already; update it by its revision")]
    Exists {
        /// The key.
        key: String,
    },
    /// Somebody wrote meanwhile, or deleted it.
    #[error("{key}: its revision is not {revision} any more; read it again")]
    Changed {
        /// The key.
        key: String,
        /// As it was given.
        revision: u64,
    },
    /// The bus does not answer: what was written may or may not stand.
    #[error("the blackboard does not answer: {0}")]
    Unreachable(String),
    /// There is no swarm here.
    #[error("there is no swarm here, and no blackboard")]
    NoSwarm,
}

/// What keeps the values: a swarm's bus, or a test.
#[async_trait]
pub(crate) trait Board: Send + Sync + 'static {
    async fn get(&self, key: &str) -> Result<Option<Entry>, BoardError>;
    /// `revision`: `None` whatever stands there, 0 if nothing does.
    async fn put(&self, key: &str, value: Json, revision: Option<u64>) -> Result<u64, BoardError>;
    async fn delete(&self, key: &str, revision: Option<u64>) -> Result<(), BoardError>;
    async fn keys(&self, prefix: &str) -> Result<Vec<String>, BoardError>;
    async fn watch(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<BoardChange, BoardError>>, BoardError>;
}

/// The swarm's blackboard. Keys are letters, digits and `-/_=` in tokens between dots; values are JSON. A value stands until it
/// is replaced or deleted, whatever becomes of who wrote it.
#[derive(Clone)]
pub struct Blackboard(pub(crate) Option<Arc<dyn Board>>);
impl fmt::Debug for Blackboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blackboard").finish_non_exhaustive()
    }
}

fn value(value: impl Serialize) -> Result<Json, BoardError> {
    let json = Json::from_value(&value).map_err(|error| BoardError::NoJson(error.to_string()))?;
    let bytes = json.len();
    if bytes > BLACKBOARD_BYTES_MAX {
        return Err(BoardError::TooLarge { bytes });
    }
    Ok(json)
}

impl Blackboard {
    fn board(&self, key: &str) -> Result<&Arc<dyn Board>, BoardError> {
        check_blackboard_key(key).map_err(BoardError::Key)?;
        self.0.as_ref().ok_or(BoardError::NoSwarm)
    }

    /// What stands under `key`, if anything does.
    ///
    /// # Errors
    /// The key is none, or the bus does not answer.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, BoardError> {
        self.board(key)?.get(key).await
    }
    /// Writes a value, whatever stands there. The revision that it got.
    ///
    /// # Errors
    /// Key or value are none, the value is too large, or the bus does not answer.
    pub async fn put(&self, key: &str, new: impl Serialize) -> Result<u64, BoardError> {
        self.board(key)?.put(key, value(new)?, None).await
    }
    /// Writes a value where none is.
    ///
    /// # Errors
    /// There is one ([`BoardError::Exists`]); else as [`Self::put`].
    pub async fn create(&self, key: &str, new: impl Serialize) -> Result<u64, BoardError> {
        self.board(key)?.put(key, value(new)?, Some(0)).await
    }
    /// Replaces the value that was read at `revision`: of several who do so one succeeds.
    ///
    /// # Errors
    /// Another one stands there by now ([`BoardError::Changed`]); else as [`Self::put`].
    pub async fn update(
        &self,
        key: &str,
        new: impl Serialize,
        revision: u64,
    ) -> Result<u64, BoardError> {
        self.board(key)?.put(key, value(new)?, Some(revision)).await
    }
    /// Deletes it; at `revision` only, if that is given.
    ///
    /// # Errors
    /// Another one stands there by now ([`BoardError::Changed`]), or the bus does not answer.
    pub async fn delete(&self, key: &str, revision: Option<u64>) -> Result<(), BoardError> {
        self.board(key)?.delete(key, revision).await
    }
    /// The keys that begin with `prefix`, in their order; all with an empty one.
    ///
    /// # Errors
    /// The bus does not answer.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>, BoardError> {
        let board = self.0.as_ref().ok_or(BoardError::NoSwarm)?;
        let mut keys = board.keys(prefix).await?;
        keys.sort();
        Ok(keys)
    }
    /// What stands under the keys that begin with `prefix`, and then all that happens to them. It begins anew if the bus was
    /// gone for long; values can come twice.
    ///
    /// # Errors
    /// The bus does not answer.
    pub async fn watch(
        &self,
        prefix: &str,
    ) -> Result<impl Stream<Item = Result<BoardChange, BoardError>> + Send + Unpin, BoardError>
    {
        let board = self.0.as_ref().ok_or(BoardError::NoSwarm)?;
        board.watch(prefix).await
    }
}

/// The blackboard of a swarm on its bus.
pub(crate) struct OnBus {
    link: Link,
    place: Place,
    store: OnceCell<Store>,
}

fn unreachable(error: impl fmt::Display) -> BoardError {
    BoardError::Unreachable(error.to_string())
}

impl OnBus {
    pub(crate) fn new(link: Link, place: Place) -> Self {
        Self {
            link,
            place,
            store: OnceCell::new(),
        }
    }

    async fn store(&self) -> Result<&Store, BoardError> {
        self.store
            .get_or_try_init(|| async {
                let context = self.link.log().context();
                context.get_key_value(BLACKBOARD_BUCKET).await
            })
            .await
            .map_err(unreachable)
    }

    fn root(&self) -> String {
        format!("{}.{}.", self.place.org, self.place.swarm)
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.root())
    }

    /// The filter that brings every key that begins with `prefix`, and as few others as can be said by one.
    fn filter(&self, prefix: &str) -> String {
        let whole = prefix.rfind('.').map_or("", |dot| &prefix[..=dot]);
        format!("{}{whole}>", self.root())
    }
}

/// The key as its users know it, if it is theirs and begins with `prefix`.
fn own_key<'a>(root: &str, prefix: &str, key: &'a str) -> Option<&'a str> {
    let key = key.strip_prefix(root)?;
    (key.starts_with(prefix) && !key.starts_with(BLACKBOARD_OWN)).then_some(key)
}

fn entry(key: &str, kept: &Kept) -> Result<Entry, BoardError> {
    let text = std::str::from_utf8(&kept.value).map_err(unreachable)?;
    // People write JSON too: the gateway sees to it. What came otherwise is text.
    let value = Json::parse(text).unwrap_or_else(|_| serde_json::Value::from(text).into());
    Ok(Entry {
        key: key.to_owned(),
        value,
        revision: kept.revision,
    })
}

#[async_trait]
impl Board for OnBus {
    async fn get(&self, key: &str) -> Result<Option<Entry>, BoardError> {
        let found = self.store().await?.entry(self.key(key)).await;
        match found.map_err(unreachable)? {
            Some(kept) if kept.operation == Operation::Put => entry(key, &kept).map(Some),
            _ => Ok(None),
        }
    }

    async fn put(&self, key: &str, value: Json, revision: Option<u64>) -> Result<u64, BoardError> {
        let store = self.store().await?;
        let (name, bytes) = (self.key(key), Bytes::from(value.as_str().to_owned()));
        match revision {
            None => store.put(name, bytes).await.map_err(unreachable),
            Some(0) => store.create(name, bytes).await.map_err(|error| {
                if error.kind() == CreateErrorKind::AlreadyExists {
                    let key = key.to_owned();
                    return BoardError::Exists { key };
                }
                unreachable(error)
            }),
            Some(revision) => {
                let updated = store.update(name, bytes, revision).await;
                updated.map_err(|error| changed(key, revision, error))
            }
        }
    }

    async fn delete(&self, key: &str, revision: Option<u64>) -> Result<(), BoardError> {
        let store = self.store().await?;
        let name = self.key(key);
        match revision {
            None => {
                let deleted = store.purge_with_ttl(name, BLACKBOARD_DELETED_FOR).await;
                deleted.map_err(unreachable)
            }
            Some(revision) => {
                let deleted = store
                    .purge_expect_revision_with_ttl(name, revision, BLACKBOARD_DELETED_FOR)
                    .await;
                deleted.map_err(|error| changed(key, revision, error))
            }
        }
    }

    async fn keys(&self, prefix: &str) -> Result<Vec<String>, BoardError> {
        let store = self.store().await?;
        let root = format!("$KV.{BLACKBOARD_BUCKET}.{}", self.root());
        let consumer = store
            .stream
            .create_consumer(pull::Config {
                description: Some("Swarm: keys of a blackboard".to_owned()),
                deliver_policy: DeliverPolicy::LastPerSubject,
                ack_policy: AckPolicy::None,
                filter_subject: format!("$KV.{BLACKBOARD_BUCKET}.{}", self.filter(prefix)),
                headers_only: true,
                inactive_threshold: LIST_INACTIVE,
                num_replicas: 1,
                memory_storage: true,
                ..pull::Config::default()
            })
            .await
            .map_err(unreachable)?;
        let mut pending = consumer.cached_info().num_pending;
        let mut keys = Vec::new();
        while pending > 0 {
            let mut batch = consumer
                .fetch()
                .max_messages(LIST_BATCH)
                .messages()
                .await
                .map_err(unreachable)?;
            let mut came = false;
            while let Some(message) = batch.next().await {
                let message = message.map_err(unreachable)?;
                came = true;
                pending = message.info().map_err(unreachable)?.pending;
                let deleted = message
                    .headers
                    .as_ref()
                    .is_some_and(|headers| headers.get("KV-Operation").is_some());
                if let Some(key) = own_key(&root, prefix, message.subject.as_str())
                    && !deleted
                {
                    keys.push(key.to_owned());
                }
            }
            if !came {
                break;
            }
        }
        Ok(keys)
    }

    async fn watch(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<BoardChange, BoardError>>, BoardError> {
        let store = self.store().await?;
        let watch = store.watch_with_history(self.filter(prefix)).await;
        let (root, prefix) = (self.root(), prefix.to_owned());
        let changes = watch.map_err(unreachable)?.filter_map(move |news| {
            let change = match news {
                Err(error) => Some(Err(unreachable(error))),
                Ok(kept) => own_key(&root, &prefix, &kept.key).map(|key| match kept.operation {
                    Operation::Put => entry(key, &kept).map(BoardChange::Put),
                    Operation::Delete | Operation::Purge => Ok(BoardChange::Deleted {
                        key: key.to_owned(),
                        revision: kept.revision,
                    }),
                }),
            };
            std::future::ready(change)
        });
        Ok(changes.boxed())
    }
}

fn changed(key: &str, revision: u64, error: async_nats::jetstream::kv::UpdateError) -> BoardError {
    if error.kind() == UpdateErrorKind::WrongLastRevision {
        let key = key.to_owned();
        return BoardError::Changed { key, revision };
    }
    unreachable(error)
}
