//! What every request shares.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::postgres::PgPool;
use swarm_events::{InstanceId, Timestamp, envelope::Source};
use swarm_projections::progress::Progress;
use swarm_runtime::snapshots::EVERY;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    bus::Bus, explain::followers::Followers, fold::SharedFold, port::Port,
    topology::traffic::Watched,
};

/// How long an outcome is awaited before the caller gets its id instead (504): a claim by a standby takes about 3 s, an
/// election in a cluster of nats-server up to 9 s.
pub const OUTCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits for `?min_seq=`. The projector is behind by less than a second unless it rebuilds.
pub const PROJECTION_WAIT: Duration = Duration::from_secs(10);
/// How long a read of something that is not there waits for the projection before it says so.
pub const MISS_WAIT: Duration = Duration::from_secs(2);
/// Most live event streams at a time: each is a consumer on the log, and each consumer makes every publish slower.
pub const LIVE_STREAMS_MAX: usize = 256;

/// [`App`] as handlers hold it.
pub type Shared = Arc<App>;

/// Where the tail of the log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TailState {
    /// It has met everything that was stored when it began.
    pub caught_up: bool,
    /// Since when it has had no source; `None` while it has one.
    pub interrupted_since: Option<DateTime<Utc>>,
}

/// State of the process.
pub struct App {
    /// The log.
    pub log: Port,
    /// The bus, for what is not in the log; `None` over a simulated one.
    pub bus: Option<Bus>,
    /// What the log says.
    pub fold: Arc<SharedFold>,
    /// The read models.
    pub pool: PgPool,
    /// How far they are.
    pub progress: Progress,
    /// Who writes what this gateway publishes.
    pub source: Source,
    /// The partitions whose tasks are followed, to explain them.
    pub explain: Followers,
    /// The swarms whose messages are counted as they come, since somebody looks at their topology.
    pub watched: Watched,
    /// Room for live streams.
    pub live: Arc<Semaphore>,
    /// Cancelled when the process stops: ends live streams.
    pub stop: CancellationToken,
    /// The tail.
    pub tail: watch::Sender<TailState>,
    /// Stream events from one snapshot of the fold to the next.
    pub snapshot_every: u64,
    /// Figures for Prometheus.
    pub metrics: PrometheusHandle,
}

impl App {
    /// The state around `log` and the read models in `pool`.
    pub fn new(
        log: Port,
        pool: PgPool,
        metrics: PrometheusHandle,
        stop: CancellationToken,
    ) -> Self {
        let instance = InstanceId(Uuid::now_v7());
        Self {
            log,
            bus: None,
            fold: Arc::default(),
            progress: Progress::follow(pool.clone(), stop.clone()),
            pool,
            source: Source::Client(format!("/swarm/gateway/{instance}")),
            explain: Followers::default(),
            watched: Watched::default(),
            live: Arc::new(Semaphore::new(LIVE_STREAMS_MAX)),
            stop,
            tail: watch::Sender::new(TailState::default()),
            snapshot_every: EVERY,
            metrics,
        }
    }
    /// With the bus, too.
    #[must_use]
    pub fn with_bus(mut self, bus: Bus) -> Self {
        self.bus = Some(bus);
        self
    }
    /// The wall clock, for what people read.
    pub fn now() -> Timestamp {
        Utc::now().into()
    }
    /// Where the tail stands.
    pub fn tail_state(&self) -> TailState {
        *self.tail.borrow()
    }
}
