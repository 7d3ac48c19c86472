//! How far the tables have come, for a process that reads them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgListener, PgPool};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::queries::{QueryError, committed_sequence};

/// The channel on which the projector says that it has committed.
pub(crate) const CHANNEL: &str = "swarm_projection";
/// Longest wait for a notice before the checkpoint is looked up anyway: notices are hints, and a look-up costs next to
/// nothing. Also how soon an outage of PostgreSQL is noticed.
const LOOK_UP_INTERVAL: Duration = Duration::from_millis(500);
/// Wait before PostgreSQL is tried again: short, since writers wait for what they wrote.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// What is known of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Last stream sequence that is in the tables; 0 before the first.
    pub sequence: u64,
    /// Since when PostgreSQL has not answered, or never did. `None` while it answers.
    pub stale_since: Option<DateTime<Utc>>,
}

/// Follows the projection's checkpoint. Cheap to clone; ends with its stop token.
#[derive(Clone)]
pub struct Progress {
    known: watch::Receiver<Known>,
    // Ends the follower with the last clone.
    _follower: Arc<tokio_util::task::AbortOnDropHandle<()>>,
}

/// The tables did not come that far in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the read models are at sequence {reached}, not yet at {wanted}")]
pub struct Behind {
    /// What was waited for.
    pub wanted: u64,
    /// How far they are.
    pub reached: u64,
    /// Since when PostgreSQL has not answered, if that is the cause.
    pub stale_since: Option<DateTime<Utc>>,
}

impl Progress {
    /// Follows the checkpoint in `pool` until `stop`.
    pub fn follow(pool: PgPool, stop: CancellationToken) -> Self {
        let start = Known {
            sequence: 0,
            stale_since: Some(now()),
        };
        let (sender, known) = watch::channel(start);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(&pool, &sender) => {}
            }
        });
        Self {
            known,
            _follower: Arc::new(tokio_util::task::AbortOnDropHandle::new(task)),
        }
    }

    /// What is known now.
    pub fn known(&self) -> Known {
        *self.known.borrow()
    }

    /// Since when PostgreSQL has not answered; `None` while it does.
    pub fn stale_since(&self) -> Option<DateTime<Utc>> {
        self.known().stale_since
    }

    /// Waits until the tables hold everything up to `sequence`.
    ///
    /// # Errors
    /// They do not within `patience`.
    pub async fn wait_for_sequence(&self, sequence: u64, patience: Duration) -> Result<(), Behind> {
        let mut known = self.known.clone();
        let reached =
            known.wait_for(|known| known.sequence >= sequence && known.stale_since.is_none());
        match timeout_at(Instant::now() + patience, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => {
                let Known {
                    sequence: reached,
                    stale_since,
                } = self.known();
                Err(Behind {
                    wanted: sequence,
                    reached,
                    stale_since,
                })
            }
        }
    }
}

async fn follow(pool: &PgPool, sender: &watch::Sender<Known>) {
    loop {
        let Err(error) = follow_once(pool, sender).await;
        let fresh = sender.send_if_modified(|known| {
            let first = known.stale_since.is_none();
            known.stale_since.get_or_insert_with(now);
            first
        });
        if fresh {
            warn!(
                error = &error as &dyn std::error::Error,
                "the read models cannot be read"
            );
        }
        sleep(RETRY_DELAY).await;
    }
}

async fn follow_once(
    pool: &PgPool,
    sender: &watch::Sender<Known>,
) -> Result<std::convert::Infallible, QueryError> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        let sequence = committed_sequence(pool).await?.unwrap_or(0);
        sender.send_if_modified(|known| {
            let next = Known {
                sequence,
                stale_since: None,
            };
            if known.stale_since.is_some() {
                info!(sequence, "the read models can be read");
            }
            std::mem::replace(known, next) != next
        });
        if let Ok(notice) = timeout_at(Instant::now() + LOOK_UP_INTERVAL, listener.try_recv()).await
        {
            // `None`: the connection broke and was mended; the look-up above says what was missed.
            notice?;
        }
    }
}

/// The only clock here: since when a person has been reading old figures. It is in no table.
fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}
