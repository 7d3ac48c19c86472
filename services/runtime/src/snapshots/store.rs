//! Snapshots in the object store.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use swarm_events::Partition;
use swarm_log::{Log, LogError, LogInfo};
use tracing::{debug, warn};

use super::{
    EVERY,
    format::{DecodeError, Meta, Wanted, decode},
    thin::surplus,
};

/// Larger snapshots are decoded on a thread of their own where there is a tokio runtime: a megabyte takes about 2 ms.
pub const DECODE_INLINE_BYTES_MAX: usize = 1024 * 1024;
/// A sequence in a name has as many digits as `u64::MAX`, so that names sort as sequences do.
const DIGITS: usize = 20;

/// A state to go on from.
#[derive(Debug)]
pub struct Loaded<S> {
    /// What it is of.
    pub meta: Meta,
    /// The fold of the log up to and including `meta.sequence`.
    pub state: S,
    /// Size of the object.
    pub bytes: usize,
}

/// Why a start must not go on.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The log ends before a snapshot of it.
    #[error(
        "the log went back behind a snapshot: it ends at sequence {last}, and {name} is of {sequence}; restore the log, or, \
         if what it has lost is really given up, delete the objects that start with {prefix}"
    )]
    Behind {
        /// The snapshot.
        name: String,
        /// Its sequence.
        sequence: u64,
        /// The log's last sequence.
        last: u64,
        /// What to delete.
        prefix: String,
    },
    /// There are snapshots, and all that can be read are of another log.
    #[error(
        "the log went back behind a snapshot: {name} is of a log created at {found} µs since 1970, and this one was created \
         at {created}; restore that log, or, if it is really given up, delete the objects that start with {prefix}"
    )]
    OtherLog {
        /// The newest of them.
        name: String,
        /// When its log was created.
        found: i64,
        /// When this log was created.
        created: i64,
        /// What to delete.
        prefix: String,
    },
    /// The log's beginning is gone, and no snapshot stands in for it.
    #[error(
        "the log begins at sequence {first}, and no snapshot of {what} covers what came before: restore the snapshots or the \
         beginning of the log"
    )]
    Incomplete {
        /// First sequence that is held.
        first: u64,
        /// What would have to be folded.
        what: String,
    },
    /// The log or its object store cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Whether a fold from the log's first event is a fold of everything.
///
/// # Errors
/// The beginning is gone, so that `what` would be folded from half a history.
pub fn whole_history(info: &LogInfo, what: &str) -> Result<(), SnapshotError> {
    // An empty stream has 0 or 1 here.
    if info.first_sequence <= 1 {
        return Ok(());
    }
    Err(SnapshotError::Incomplete {
        first: info.first_sequence,
        what: what.to_owned(),
    })
}

/// What the names of the snapshots of a kind and partition begin with.
pub fn prefix_of(kind: &str, partition: Partition) -> String {
    format!("snapshot.{kind}.{partition}.")
}
/// A snapshot's name.
pub fn name_of(kind: &str, partition: Partition, sequence: u64) -> String {
    format!("{}{sequence:0DIGITS$}", prefix_of(kind, partition))
}
/// The sequence in a name that begins with `prefix`; `None` if it is no snapshot's name.
pub fn sequence_of(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let all = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

/// The snapshots of a kind at a moment.
#[derive(Clone, Debug)]
pub struct Catalogue {
    kind: String,
    sequences: BTreeMap<Partition, Vec<u64>>,
    info: LogInfo,
}

impl Catalogue {
    /// The log, as it was after the list was made.
    pub const fn info(&self) -> &LogInfo {
        &self.info
    }
}

/// The snapshots that a log's object store holds.
#[derive(Clone, Debug)]
pub struct Store<L> {
    log: L,
}

impl<L: Log> Store<L> {
    /// Those beside `log`.
    pub const fn new(log: L) -> Self {
        Self { log }
    }

    /// Sequences of the snapshots of a kind and partition, ascending, whether they can be read or not.
    ///
    /// # Errors
    /// The object store cannot be read.
    pub async fn sequences(&self, kind: &str, partition: Partition) -> Result<Vec<u64>, LogError> {
        let prefix = prefix_of(kind, partition);
        let names = self.log.list_objects(&prefix).await?;
        let mut sequences: Vec<u64> = names
            .iter()
            .filter_map(|name| sequence_of(name, &prefix))
            .collect();
        sequences.sort_unstable();
        Ok(sequences)
    }

    /// The newest that can be read at or below `at_most` (`None`: whatever there is). One that cannot is passed over for an
    /// older one, with a warning; `None`: there is none, and the whole log is to be folded (see [`whole_history`]).
    ///
    /// # Errors
    /// A snapshot lies past the log's end, or all that can be read are of another log; or the log cannot be reached.
    pub async fn newest<S: DeserializeOwned + Send + 'static>(
        &self,
        wanted: &Wanted,
        at_most: Option<u64>,
    ) -> Result<Option<Loaded<S>>, SnapshotError> {
        let catalogue = self.catalogue(&wanted.kind).await?;
        self.newest_in(&catalogue, wanted, at_most).await
    }

    /// What is there of a kind, for [`Store::newest_in`].
    ///
    /// # Errors
    /// The object store or the log cannot be read.
    pub async fn catalogue(&self, kind: &str) -> Result<Catalogue, LogError> {
        let names = self.log.list_objects(&format!("snapshot.{kind}.")).await?;
        let mut sequences: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
        for name in &names {
            let found = name.strip_prefix("snapshot.").and_then(|rest| {
                let partition = rest.strip_prefix(kind)?.get(1..3)?.parse().ok()?;
                Some((partition, sequence_of(name, &prefix_of(kind, partition))?))
            });
            if let Some((partition, sequence)) = found {
                sequences.entry(partition).or_default().push(sequence);
            }
        }
        for found in sequences.values_mut() {
            found.sort_unstable();
        }
        // In this order: what is there now cannot lie past an end that is asked for later.
        let info = self.log.info().await?;
        Ok(Catalogue {
            kind: kind.to_owned(),
            sequences,
            info,
        })
    }

    /// As [`Store::newest`], of what was listed before: many partitions, one list.
    ///
    /// # Errors
    /// See [`Store::newest`].
    pub async fn newest_in<S: DeserializeOwned + Send + 'static>(
        &self,
        catalogue: &Catalogue,
        wanted: &Wanted,
        at_most: Option<u64>,
    ) -> Result<Option<Loaded<S>>, SnapshotError> {
        debug_assert_eq!(catalogue.kind, wanted.kind, "a list of another kind");
        let info = &catalogue.info;
        let sequences = catalogue.sequences.get(&wanted.partition);
        let sequences = sequences.map_or(&[][..], Vec::as_slice);
        let prefix = prefix_of(&wanted.kind, wanted.partition);
        let name = |sequence| name_of(&wanted.kind, wanted.partition, sequence);
        if let Some(&sequence) = sequences.last().filter(|last| **last > info.last_sequence) {
            return Err(SnapshotError::Behind {
                name: name(sequence),
                sequence,
                last: info.last_sequence,
                prefix,
            });
        }
        let mut stranger = None;
        let mut own = false;
        for &sequence in sequences.iter().rev() {
            if at_most.is_some_and(|at_most| sequence > at_most) {
                continue;
            }
            let name = name(sequence);
            if sequence.saturating_add(1) < info.first_sequence {
                warn!(
                    name,
                    first = info.first_sequence,
                    "the log begins too late to go on from this snapshot"
                );
                break;
            }
            let bytes = match self.log.get_object(&name).await {
                Ok(Some(bytes)) => bytes,
                // Thinned by somebody else since it was listed.
                Ok(None) => continue,
                Err(LogError::Unreachable(cause)) => {
                    return Err(LogError::Unreachable(cause).into());
                }
                Err(error) => {
                    warn!(name, %error, "a snapshot cannot be read; trying an older one");
                    continue;
                }
            };
            let size = bytes.len();
            match decode_apart(wanted.clone(), bytes).await {
                Ok((meta, _)) if meta.sequence != sequence => {
                    warn!(
                        name,
                        says = meta.sequence,
                        "a snapshot is under a wrong name; trying an older one"
                    );
                }
                Ok((meta, state)) => {
                    return Ok(Some(Loaded {
                        meta,
                        state,
                        bytes: size,
                    }));
                }
                Err(Unusable::Decode(DecodeError::Stream { found, .. })) => {
                    warn!(name, "a snapshot is of another log");
                    stranger.get_or_insert((name, found));
                }
                Err(error) => {
                    own |= matches!(error, Unusable::Decode(DecodeError::Format { .. }));
                    warn!(name, %error, "a snapshot cannot be used; trying an older one");
                }
            }
        }
        match stranger {
            Some((name, found)) if !own => Err(SnapshotError::OtherLog {
                name,
                found,
                created: wanted.stream_created_micros,
                prefix,
            }),
            _ => Ok(None),
        }
    }

    /// Stores a snapshot, then thins those of its kind and partition: see [`super::thin`]. Several processes may do this at
    /// once.
    ///
    /// # Errors
    /// It could not be stored. That an old one could not be deleted is a warning: the next one tries again.
    pub async fn put(&self, meta: &Meta, bytes: Vec<u8>) -> Result<(), LogError> {
        let name = name_of(&meta.kind, meta.partition, meta.sequence);
        let size = bytes.len();
        self.log.put_object(&name, Bytes::from(bytes)).await?;
        debug!(name, bytes = size, "snapshot stored");
        if let Err(error) = self.thin(&meta.kind, meta.partition).await {
            warn!(name, %error, "old snapshots could not be deleted");
        }
        Ok(())
    }

    async fn thin(&self, kind: &str, partition: Partition) -> Result<(), LogError> {
        for sequence in surplus(&self.sequences(kind, partition).await?, EVERY) {
            self.log
                .delete_object(&name_of(kind, partition, sequence))
                .await?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("reading it panicked")]
    Panic,
}

/// Decodes without holding up what else runs on this thread.
async fn decode_apart<S: DeserializeOwned + Send + 'static>(
    wanted: Wanted,
    bytes: Bytes,
) -> Result<(Meta, S), Unusable> {
    let runtime = tokio::runtime::Handle::try_current();
    match runtime {
        Ok(runtime) if bytes.len() > DECODE_INLINE_BYTES_MAX => runtime
            .spawn_blocking(move || decode(&wanted, &bytes))
            .await
            .map_err(|_| Unusable::Panic)?
            .map_err(Unusable::Decode),
        _ => Ok(decode(&wanted, &bytes)?),
    }
}
