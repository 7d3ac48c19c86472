//! Keeps the fold at the end of the log.

use std::sync::Arc;

use chrono::Utc;
use futures::StreamExt;
use swarm_events::{Input, Timestamp, read};
use swarm_log::{LogError, StoredMessage, Tailed};
use swarm_runtime::snapshots::SnapshotError;

use crate::{
    app::{App, TailState},
    fold::filters,
    snapshot::Taking,
};

/// Messages that are folded under one lock: enough to catch up fast, few enough that no request waits for long.
const CHUNK: usize = 256;

/// Why the gateway ended.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// Reading the log went wrong for good.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state cannot be made from what the log and its snapshots hold.
    #[error(transparent)]
    Start(#[from] SnapshotError),
    /// The log ended, which it does only when the client is closed.
    #[error("the log's tail ended")]
    Ended,
}

/// What a message says.
pub fn input(message: &StoredMessage) -> Input {
    read(
        message.sequence,
        Timestamp::from_micros(message.time_micros),
        &message.subject,
        &message.payload,
    )
}

/// Follows the log until the process stops.
///
/// # Errors
/// See [`TailError`].
pub async fn follow(app: Arc<App>) -> Result<(), TailError> {
    let start = app.log.start().await?;
    let mut snapshots = Taking::new(&start, app.snapshot_every);
    let mut tail = app.log.tail(filters(), start.from).ready_chunks(CHUNK);
    app.fold.replace(start.fold);
    loop {
        let items = tokio::select! {
            () = app.stop.cancelled() => return Ok(()),
            done = snapshots.done() => {
                snapshots.go_on(&app, done).await;
                continue;
            }
            items = tail.next() => items.ok_or(TailError::Ended)?,
        };
        let mut inputs = Vec::with_capacity(items.len());
        for item in items {
            match item? {
                Tailed::Message(message) => inputs.push(input(&message)),
                Tailed::CaughtUp => {
                    app.fold.apply(inputs.drain(..));
                    app.tail.send_modify(|state| state.caught_up = true);
                }
                Tailed::Interrupted => {
                    tracing::warn!("the log's tail is interrupted");
                    app.tail.send_modify(|state: &mut TailState| {
                        state.interrupted_since.get_or_insert_with(Utc::now);
                    });
                }
                Tailed::Resumed => {
                    tracing::info!("the log's tail goes on");
                    app.tail.send_modify(|state| state.interrupted_since = None);
                }
            }
        }
        app.fold.apply(inputs);
        if app.tail_state().caught_up {
            snapshots.consider(&app);
        }
    }
}
