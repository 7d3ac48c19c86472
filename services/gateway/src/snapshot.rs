//! Snapshots of the gateway's fold: a start is a snapshot and the tail behind it.
//!
//! Every gateway keeps them, each only if no other one has lately. The fold is encoded by the tail's own task while nothing
//! is applied, under a lock that lets every request go on reading; what it encoded is stored in the background.

use futures::future::pending;
use swarm_events::Partition;
use swarm_log::{Log, LogError, LogInfo};
use swarm_runtime::snapshots::{
    EncodeError, Meta, SnapshotError, Store, Wanted, encode, whole_history,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::{
    app::App,
    fold::{FORMAT, Fold},
};

/// What these snapshots are called by.
pub const KIND: &str = "gateway";
/// After a snapshot that failed the next is tried this part of an interval later, so that an outage is not hammered.
const RETRY_PART: u64 = 10;

/// The fold is of all partitions.
fn partition() -> Partition {
    Partition::all()
        .next()
        .unwrap_or_else(|| Partition::of(uuid::Uuid::nil()))
}

/// Where a fold begins.
pub struct Start {
    /// The state.
    pub fold: Fold,
    /// First sequence that is not in it.
    pub from: u64,
    /// The log.
    pub info: LogInfo,
}

/// The newest snapshot, or the log's beginning.
///
/// # Errors
/// See [`SnapshotError`]: above all, a log that went back, and half a history without a snapshot.
pub async fn start<L: Log>(log: &L) -> Result<Start, SnapshotError> {
    let info = log.info().await?;
    let wanted = Wanted {
        kind: KIND.to_owned(),
        partition: partition(),
        stream_created_micros: info.created_micros,
        format: FORMAT,
    };
    if let Some(loaded) = Store::new(log.clone())
        .newest::<Fold>(&wanted, None)
        .await?
    {
        info!(
            sequence = loaded.meta.sequence,
            bytes = loaded.bytes,
            "folding on from a snapshot"
        );
        return Ok(Start {
            fold: loaded.state,
            from: loaded.meta.sequence + 1,
            info,
        });
    }
    whole_history(&info, "the gateway's state")?;
    Ok(Start {
        fold: Fold::default(),
        from: info.first_sequence.max(1),
        info,
    })
}

/// Stores a snapshot.
pub(crate) async fn put<L: Log>(log: L, meta: Meta, bytes: Vec<u8>) -> Result<(), LogError> {
    Store::new(log).put(&meta, bytes).await
}

/// Sequence of the newest snapshot that is there.
pub(crate) async fn newest<L: Log>(log: L) -> Result<Option<u64>, LogError> {
    let sequences = Store::new(log).sequences(KIND, partition()).await?;
    Ok(sequences.last().copied())
}

enum Job {
    /// Looks whether another gateway has been at it.
    Look(AbortOnDropHandle<Result<Option<u64>, LogError>>),
    /// Stores the snapshot of a sequence.
    Put(u64, AbortOnDropHandle<Result<(), LogError>>),
}

/// What became of a job.
pub(crate) enum Done {
    Looked(Result<Option<u64>, LogError>),
    Put(u64, Result<(), LogError>),
}

/// When the next snapshot is due, and what is done about it.
pub(crate) struct Taking {
    created_micros: i64,
    every: u64,
    due: u64,
    job: Option<Job>,
}

impl Taking {
    /// The next is due `every` events after where the fold began.
    pub(crate) fn new(start: &Start, every: u64) -> Self {
        Self {
            created_micros: start.info.created_micros,
            every,
            due: start.fold.sequence().saturating_add(every),
            job: None,
        }
    }

    /// To be called when something was applied: looks for another gateway's snapshot if one is due.
    pub(crate) fn consider(&mut self, app: &App) {
        if self.job.is_some() || app.fold.read().sequence() < self.due {
            return;
        }
        let log = app.log.clone();
        let look = tokio::spawn(async move { log.newest_snapshot().await });
        self.job = Some(Job::Look(AbortOnDropHandle::new(look)));
    }

    /// What became of the job; for ever if there is none. May be dropped and called again.
    pub(crate) async fn done(&mut self) -> Done {
        let done = match &mut self.job {
            None => pending().await,
            Some(Job::Look(job)) => Done::Looked(job.await.unwrap_or_else(gave_up)),
            Some(Job::Put(sequence, job)) => {
                Done::Put(*sequence, job.await.unwrap_or_else(gave_up))
            }
        };
        self.job = None;
        done
    }

    /// Goes on with what became of a job. The caller applies nothing meanwhile, so that nobody waits to write.
    pub(crate) async fn go_on(&mut self, app: &App, done: Done) {
        let sequence = app.fold.read().sequence();
        match done {
            Done::Looked(Ok(Some(newest))) if newest.saturating_add(self.every) > sequence => {
                self.due = newest.saturating_add(self.every);
            }
            Done::Looked(Ok(_)) => match self.encode(app).await {
                Ok((meta, bytes)) => {
                    let (log, sequence) = (app.log.clone(), meta.sequence);
                    let put = tokio::spawn(async move { log.put_snapshot(meta, bytes).await });
                    self.job = Some(Job::Put(sequence, AbortOnDropHandle::new(put)));
                }
                Err(error) => self.failed(sequence, &error),
            },
            Done::Put(of, Ok(())) => {
                metrics::gauge!("swarm_gateway_snapshot_sequence").set(of as f64);
                self.due = of.saturating_add(self.every);
            }
            Done::Looked(Err(error)) | Done::Put(_, Err(error)) => self.failed(sequence, &error),
        }
    }

    async fn encode(&self, app: &App) -> Result<(Meta, Vec<u8>), EncodeOrJoin> {
        let (fold, created) = (app.fold.clone(), self.created_micros);
        let encoded = tokio::task::spawn_blocking(move || {
            let fold = fold.read();
            let meta = Meta {
                kind: KIND.to_owned(),
                partition: partition(),
                sequence: fold.sequence(),
                stream_created_micros: created,
                format: FORMAT,
            };
            encode(&meta, &*fold).map(|bytes| (meta, bytes))
        });
        Ok(encoded.await??)
    }

    fn failed(&mut self, sequence: u64, error: &(dyn std::error::Error + 'static)) {
        warn!(sequence, error, "no snapshot was taken");
        self.due = sequence.saturating_add((self.every / RETRY_PART).max(1));
    }
}

#[derive(Debug, thiserror::Error)]
enum EncodeOrJoin {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("encoding ended: {0}")]
    Join(#[from] tokio::task::JoinError),
}

fn gave_up<T>(error: tokio::task::JoinError) -> Result<T, LogError> {
    Err(LogError::Unreachable(format!("the task ended: {error}")))
}
