//! The one connection that writes: it holds the lock, the tables are there, and the checkpoint is known.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use swarm_log::LogInfo;
use tokio::time::timeout;

use crate::{
    CHECKPOINT,
    migrate::{self, TABLES, TimeTables},
    pg,
};

/// Version of the rules by which rows are made of events. Raise it when a rule changes what stands in a row: tables of
/// another version are made anew.
pub(crate) const FOLD_VERSION: i32 = 4;
/// Names the projector's advisory lock: the letters `swarmpro` as a number.
const LOCK: i64 = 0x7377_6172_6d70_726f;
/// Longest wait for a connection: a host that is away must not look like one that is slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How PostgreSQL is to plan: by the keys. Every statement names its rows by their keys, and with no statistics yet (a new
/// table that grows by thousands of rows a second) the planner would rather read all of it.
///
/// And what is committed stays committed, whatever the server's default: readers have been told that it is there, and a
/// checkpoint that goes back costs a fold of the whole log.
pub(crate) const SETTINGS: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
     SET synchronous_commit = on; SET client_min_messages = warning; SET TIME ZONE 'UTC'";

/// Up to where the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) sequence: u64,
    pub(crate) stream_created: DateTime<Utc>,
    pub(crate) log_time: DateTime<Utc>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another projector is active.
    #[error("another projector is active")]
    Locked,
    /// PostgreSQL does not answer, or not as it should.
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    /// The tables cannot be brought up to date.
    #[error("the tables cannot be brought up to date: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// It takes too long.
    #[error("PostgreSQL does not answer within {CONNECT_TIMEOUT:?}")]
    Timeout,
}
impl From<sqlx::migrate::MigrateError> for OpenError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) => Self::Sql(error),
            other => Self::Migrate(other),
        }
    }
}

/// A connection that holds the lock. Dropping it gives the lock up.
pub(crate) struct Session {
    pub(crate) connection: PgConnection,
    pub(crate) kind: TimeTables,
    /// Days that have their partition.
    pub(crate) days: HashSet<NaiveDate>,
    pub(crate) checkpoint: Checkpoint,
}

impl Session {
    /// Connects, takes the lock, makes or mends the tables and reads the checkpoint. `log` is the log that the tables are
    /// made of.
    pub(crate) async fn open(options: &PgConnectOptions, log: &LogInfo) -> Result<Self, OpenError> {
        let connecting = timeout(CONNECT_TIMEOUT, options.connect());
        let mut connection = connecting.await.map_err(|_| OpenError::Timeout)??;
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut connection)
            .await?;
        if !locked {
            let _ = connection.close().await;
            return Err(OpenError::Locked);
        }
        let (kind, checkpoint) = match Self::read(&mut connection).await? {
            Some(found) => found,
            None => Self::make(&mut connection, log).await?,
        };
        sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
        let days = if kind == TimeTables::Native {
            days(&mut connection).await?
        } else {
            HashSet::new()
        };
        Ok(Self {
            connection,
            kind,
            days,
            checkpoint,
        })
    }

    /// Whether the tables are as this session left them.
    pub(crate) async fn is_intact(&mut self) -> Result<bool, sqlx::Error> {
        if missing_tables(&mut self.connection).await? > 0 {
            return Ok(false);
        }
        match checkpoint(&mut self.connection).await {
            Ok(found) => Ok(found == Some((self.checkpoint, FOLD_VERSION))),
            Err(error) if pg::is_missing_table(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The checkpoint of whole tables of our version; `None`: they are to be made anew.
    async fn read(
        connection: &mut PgConnection,
    ) -> Result<Option<(TimeTables, Checkpoint)>, OpenError> {
        let missing = missing_tables(connection).await?;
        if missing > 0 {
            return Ok(None);
        }
        let kind = migrate::migrate(connection).await?;
        match checkpoint(connection).await {
            Ok(Some((checkpoint, FOLD_VERSION))) => Ok(Some((kind, checkpoint))),
            Ok(_) => Ok(None),
            Err(error) if pg::is_missing_table(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn make(
        connection: &mut PgConnection,
        log: &LogInfo,
    ) -> Result<(TimeTables, Checkpoint), OpenError> {
        tracing::info!("making the read models' tables");
        let kind = migrate::remake(connection).await?;
        let checkpoint = Checkpoint {
            sequence: 0,
            stream_created: created(log),
            log_time: DateTime::default(),
        };
        sqlx::query("INSERT INTO projection_checkpoint (name, sequence, stream_created, log_time, fold_version) VALUES ($1, 0, $2, $3, $4)")
            .bind(CHECKPOINT)
            .bind(checkpoint.stream_created)
            .bind(checkpoint.log_time)
            .bind(FOLD_VERSION)
            .execute(&mut *connection)
            .await?;
        Ok((kind, checkpoint))
    }
}

/// How many of the tables are not there.
async fn missing_tables(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let names: Vec<_> = TABLES
        .iter()
        .chain(&["projection_checkpoint"])
        .copied()
        .collect();
    sqlx::query_scalar("SELECT count(*) FROM unnest($1::text[]) AS t WHERE to_regclass(t) IS NULL")
        .bind(names)
        .fetch_one(connection)
        .await
}

/// The checkpoint and the version of its rows.
pub(crate) async fn checkpoint(
    connection: &mut PgConnection,
) -> Result<Option<(Checkpoint, i32)>, sqlx::Error> {
    let query = "SELECT sequence, stream_created, log_time, fold_version FROM projection_checkpoint WHERE name = $1";
    let row: Option<(i64, DateTime<Utc>, DateTime<Utc>, i32)> = sqlx::query_as(query)
        .bind(CHECKPOINT)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|(sequence, stream_created, log_time, version)| {
        let sequence = u64::try_from(sequence).unwrap_or(0);
        (
            Checkpoint {
                sequence,
                stream_created,
                log_time,
            },
            version,
        )
    }))
}

/// The stream's creation time as PostgreSQL keeps it.
pub(crate) fn created(log: &LogInfo) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(log.created_micros).unwrap_or_default()
}

/// Days whose partition is there.
async fn days(connection: &mut PgConnection) -> Result<HashSet<NaiveDate>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'swarm_events'::regclass",
    )
    .fetch_all(connection)
    .await?;
    Ok(names
        .iter()
        .filter_map(|name| day_of_partition(name))
        .collect())
}

/// Name of the partition of a day.
pub(crate) fn partition_of_day(day: NaiveDate) -> String {
    day.format("swarm_events_%Y_%m_%d").to_string()
}
fn day_of_partition(name: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(name, "swarm_events_%Y_%m_%d").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_by_its_day() {
        let day = NaiveDate::from_ymd_opt(2026, 3, 9).expect("a day");
        assert_eq!(partition_of_day(day), "swarm_events_2026_03_09");
        assert_eq!(day_of_partition(&partition_of_day(day)), Some(day));
        assert_eq!(day_of_partition("swarm_events_old"), None);
    }
}
