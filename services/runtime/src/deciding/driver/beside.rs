//! What the loop has done beside it: renewals of the presence key, joins, snapshots.

use bytes::Bytes;
use swarm_events::{Partition, decider::Decider};
use swarm_log::Log;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::{Done, Driver, LoopError, RENEWAL_MAX, Shell, key_of};
use crate::{
    deciding::{join::fold_to_end, members::Announcement},
    snapshots::{EncodeError, Meta, SnapshotError, Store, encode, encode_bounded},
};

/// A state of at most so many bytes is encoded in the loop's own turn, in a few milliseconds. A larger one is folded again
/// beside it, so that the loop never waits.
pub const SNAPSHOT_INLINE_BYTES_MAX: usize = 1024 * 1024;

impl<D: Decider, L: Log, S: Shell<D>> Driver<D, L, S> {
    pub(super) fn done(&mut self, done: Done<D>) -> Result<(), LoopError> {
        let now = self.now();
        match done {
            Done::Renewed(acknowledged) => {
                self.announcing = false;
                if acknowledged {
                    self.replica.renewed(now);
                }
                if let Some(next) = self.announcement.take() {
                    self.announce(next);
                }
            }
            Done::Joined(Ok(folded)) => {
                self.created_micros = folded.created_micros;
                for (partition, detail) in folded.unfoldable {
                    error!(%partition, detail, "this partition is not folded");
                    self.replica.cannot_fold(partition);
                }
                info!(
                    service = %D::SERVICE, partitions = folded.joined.len(), upto = folded.upto,
                    "folded to the log's end"
                );
                self.resume_behind = self
                    .replica
                    .joined(folded.joined, folded.upto, now)
                    .or(self.resume_behind);
                self.status.set_caught_up();
                self.count();
            }
            Done::Joined(Err(
                error @ (SnapshotError::Behind { .. } | SnapshotError::OtherLog { .. }),
            )) => return Err(error.into()),
            Done::Joined(Err(error)) => {
                warn!(%error, "the log could not be folded; trying again");
                self.replica.join_failed(now);
            }
            Done::Snapshot(partition, taken) => {
                if let Some((sequence, bytes)) = taken {
                    debug!(%partition, sequence, bytes, "snapshot");
                }
                self.replica.snapshotted(partition, taken, now);
            }
        }
        Ok(())
    }

    /// One renewal at a time, and only the newest of those that wait.
    pub(super) fn announce(&mut self, announcement: Box<Announcement>) {
        if self.announcing {
            self.announcement = Some(announcement);
            return;
        }
        let value = match serde_json::to_vec(&announcement) {
            Ok(value) => Bytes::from(value),
            Err(error) => return error!(%error, "the presence key could not be written as JSON"),
        };
        self.announcing = true;
        self.count();
        let (log, done) = (self.log.clone(), self.done.clone());
        let key = key_of(D::SERVICE, announcement.instance);
        self.beside.spawn(async move {
            let put = timeout(RENEWAL_MAX, log.put_presence(&key, value)).await;
            if let Ok(Err(error)) = &put {
                debug!(%error, "the presence key was not renewed");
            }
            let _ = done.send(Done::Renewed(matches!(put, Ok(Ok(()))))).await;
        });
    }

    pub(super) fn join(&mut self, partitions: Vec<Partition>) {
        info!(service = %D::SERVICE, partitions = partitions.len(), "folding the log");
        let (log, done) = (self.log.clone(), self.done.clone());
        self.beside.spawn(async move {
            let folded = fold_to_end::<D, L>(&log, &partitions).await;
            let _ = done.send(Done::Joined(folded)).await;
        });
    }

    pub(super) fn snapshot(&mut self, partition: Partition) {
        let Some(machine) = self.replica.machine(partition) else {
            return;
        };
        let mut meta = Meta::of(machine.state(), self.created_micros);
        // Everything of the partition up to here is in it.
        meta.sequence = meta.sequence.max(self.replica.position());
        let encoded = encode_bounded(&meta, machine.state(), SNAPSHOT_INLINE_BYTES_MAX);
        let (log, done) = (self.log.clone(), self.done.clone());
        self.beside.spawn(async move {
            let taken = match encoded {
                Ok(bytes) => put(log, meta, bytes).await,
                Err(EncodeError::TooLarge { .. }) => fold_again::<D, L>(log, partition).await,
                Err(error) => Err(error.to_string()),
            };
            let taken = taken
                .inspect_err(|error| warn!(%partition, error, "no snapshot could be taken"))
                .ok();
            let _ = done.send(Done::Snapshot(partition, taken)).await;
        });
    }
}

async fn put<L: Log>(log: L, meta: Meta, bytes: Vec<u8>) -> Result<(u64, u64), String> {
    let taken = (meta.sequence, bytes.len() as u64);
    Store::new(log)
        .put(&meta, bytes)
        .await
        .map_err(|error| error.to_string())?;
    Ok(taken)
}

/// A snapshot of a large state: the last snapshot and what was stored since, folded beside the loop. It costs the memory of
/// a second state for a while, and the loop nothing.
async fn fold_again<D: Decider, L: Log>(
    log: L,
    partition: Partition,
) -> Result<(u64, u64), String> {
    let folded = fold_to_end::<D, L>(&log, &[partition])
        .await
        .map_err(|error| error.to_string())?;
    let Some(joined) = folded.joined.into_iter().next() else {
        return Err("it holds what a newer version wrote".to_owned());
    };
    let mut meta = Meta::of(&joined.state, folded.created_micros);
    meta.sequence = meta.sequence.max(folded.upto);
    let (meta, bytes) = tokio::task::spawn_blocking(move || {
        let bytes = encode(&meta, &joined.state);
        (meta, bytes)
    })
    .await
    .map_err(|error| error.to_string())?;
    put(log, meta, bytes.map_err(|error| error.to_string())?).await
}
