//! A projector on a log, and all tables as text.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgPool};
use swarm_log::Log;
use swarm_projections::{
    projector::{Pace, ProjectorError, run},
    status::{ProjectorState, ProjectorStatus},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

/// A projector that runs.
pub struct Projector {
    pub status: ProjectorStatus,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ProjectorError>>,
}

impl Projector {
    pub fn start<L: Log>(log: &L, url: &str, pace: Pace) -> Self {
        let (status, stop) = (ProjectorStatus::default(), CancellationToken::new());
        let (log, url) = (log.clone(), url.to_owned());
        let (of, until) = (status.clone(), stop.clone());
        let task = tokio::spawn(async move { run(log, &url, pace, of, until).await });
        Self { status, stop, task }
    }

    /// Waits until its state is as wanted.
    pub async fn until(&self, what: &str, mut wanted: impl FnMut(&ProjectorState) -> bool) {
        let mut watch = self.status.watch();
        let reached = tokio::time::timeout(PATIENCE, watch.wait_for(|state| wanted(state))).await;
        assert!(reached.is_ok(), "{what}: {:?}", self.status.get());
    }

    pub async fn until_committed(&self, sequence: u64) {
        self.until("committed", |state| state.committed >= sequence)
            .await;
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.ended().await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Ends it wherever it is, as a crash does.
    pub async fn kill(self) {
        self.task.abort();
        let ended = self.task.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }

    pub async fn ended(self) -> Result<(), ProjectorError> {
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("it ends")
            .expect("it does not panic")
    }
}

/// Projects the whole log into the database and stops.
pub async fn project<L: Log>(log: &L, url: &str, pace: Pace) {
    let projector = Projector::start(log, url, pace);
    let last = log
        .info()
        .await
        .unwrap_or_else(|error| panic!("{error}"))
        .last_sequence;
    projector.until_committed(last).await;
    projector.stop().await;
}

pub async fn pool(url: &str) -> PgPool {
    PgPool::connect(url)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Every row of a table as JSON, in the order of its text.
pub async fn dump(pool: &PgPool, table: &str) -> Vec<String> {
    let sql = format!("SELECT to_jsonb(t)::text AS row FROM {table} t ORDER BY 1");
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_all(pool)
        .await
        .unwrap_or_else(|error| panic!("{table}: {error}"))
}

/// Every row of every table.
pub async fn dump_all(url: &str) -> BTreeMap<&'static str, Vec<String>> {
    let pool = pool(url).await;
    let mut all = BTreeMap::new();
    for table in swarm_projections::migrate::TABLES
        .into_iter()
        .chain(["projection_checkpoint"])
    {
        all.insert(table, dump(&pool, table).await);
    }
    all
}

/// The same, one row at a time, so that a difference is readable.
pub fn assert_same(
    left: &BTreeMap<&'static str, Vec<String>>,
    right: &BTreeMap<&'static str, Vec<String>>,
) {
    for (table, rows) in left {
        let others = &right[table];
        for (a, b) in rows.iter().zip(others) {
            assert_eq!(a, b, "{table}");
        }
        assert_eq!(rows.len(), others.len(), "{table}");
    }
}
