//! What a projector says of itself: for `/readyz`, metrics and people.

use std::{sync::Arc, time::SystemTime};

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;

/// What a projector is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It looks for PostgreSQL.
    #[default]
    Connecting,
    /// Another projector is active; this one takes over when that one goes.
    Standby,
    /// It folds what is in the tables already.
    Folding,
    /// It writes.
    Writing,
    /// It has ended.
    Ended,
}

/// A projector's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProjectorState {
    /// What it is doing.
    pub phase: Phase,
    /// Last stream sequence that is in the tables.
    pub committed: u64,
    /// Last stream sequence that it has folded.
    pub folded: u64,
    /// Last stream sequence that it knows of.
    pub log_last: u64,
    /// Store time of the last event in the tables.
    pub log_time: Option<DateTime<Utc>>,
    /// Since when it has not been able to write. `None` while it is.
    pub stale_since: Option<DateTime<Utc>>,
    /// What went wrong last. Stays after it was mended.
    pub last_error: Option<String>,
    /// `native partitions` or `timescaledb hypertables`.
    pub time_tables: Option<&'static str>,
    /// Batches written by this process.
    pub batches: u64,
    /// Messages in them.
    pub messages: u64,
    /// Times that it folded anew from the beginning.
    pub folds: u64,
}
impl ProjectorState {
    /// Messages that are known and not in the tables.
    pub const fn lag(&self) -> u64 {
        self.log_last.saturating_sub(self.committed)
    }
    /// It writes and is not stuck.
    pub const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Writing | Phase::Standby) && self.stale_since.is_none()
    }
}

/// A handle to a projector's state: shared, cheap to clone.
#[derive(Clone, Debug)]
pub struct ProjectorStatus(Arc<watch::Sender<ProjectorState>>);

impl Default for ProjectorStatus {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(ProjectorState::default())))
    }
}

impl ProjectorStatus {
    /// The state now.
    pub fn get(&self) -> ProjectorState {
        self.0.borrow().clone()
    }
    /// Follows the state.
    pub fn watch(&self) -> watch::Receiver<ProjectorState> {
        self.0.subscribe()
    }
    pub(crate) fn change(&self, change: impl FnOnce(&mut ProjectorState)) {
        self.0.send_modify(change);
    }
    /// Notes an error that keeps it from writing; answers whether it is another one than before.
    pub(crate) fn trouble(&self, error: &str) -> bool {
        let mut fresh = false;
        self.change(|state| {
            fresh = state.stale_since.is_none() || state.last_error.as_deref() != Some(error);
            state.last_error = Some(error.to_owned());
            // The one clock here, for people: it is in no table.
            state
                .stale_since
                .get_or_insert_with(|| SystemTime::now().into());
        });
        fresh
    }
}
