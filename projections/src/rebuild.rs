//! `swarm projection rebuild`: the tables are dropped; the projector makes them anew from the log.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::time::sleep;

use crate::{migrate::TABLES, pg, session::checkpoint};

/// How often a rebuild tries to get hold of the tables: a reader or a writer may be in the middle of something.
const TRIES: u32 = 20;
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(250);

/// Drops every table of the read models. A projector that runs notices within a second, makes them anew and reads the log
/// from its beginning; else the next one to start does. Answers with the sequence at which the tables were (`None`: there
/// were none): when [`crate::queries::committed_sequence`] is there again, they hold what they held.
///
/// # Errors
/// PostgreSQL does not answer, or the tables are held by someone for good.
pub async fn rebuild(database_url: &str) -> Result<Option<u64>, RebuildError> {
    let options = crate::pool::projector_options(database_url)?;
    let mut connection = PgConnection::connect_with(&options).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        match drop_tables(&mut connection).await {
            Ok(sequence) => return Ok(sequence),
            // lock_not_available, deadlock_detected
            Err(error)
                if matches!(pg::code(&error).as_deref(), Some("55P03" | "40P01"))
                    && tries < TRIES =>
            {
                sleep(PAUSE).await
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Why the tables were not dropped.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The database URL is none.
    #[error(transparent)]
    Url(#[from] crate::pool::UrlError),
    /// PostgreSQL does not answer or refuses.
    #[error("the read models could not be dropped: {0}")]
    Sql(#[from] sqlx::Error),
}

async fn drop_tables(connection: &mut PgConnection) -> Result<Option<u64>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    transaction.execute("SET LOCAL lock_timeout = '2s'").await?;
    let there: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('projection_checkpoint')::text")
            .fetch_one(&mut *transaction)
            .await?;
    let mut sequence = None;
    if there.is_some() {
        // The projector writes this row first in each of its transactions: from here on it waits.
        transaction
            .execute("LOCK TABLE projection_checkpoint IN ACCESS EXCLUSIVE MODE")
            .await?;
        sequence = checkpoint(&mut transaction)
            .await?
            .map(|(checkpoint, _)| checkpoint.sequence);
    }
    let tables = TABLES.join(", ");
    let drop =
        format!("DROP TABLE IF EXISTS {tables}, projection_checkpoint, _sqlx_migrations CASCADE");
    // Only our own constants are in it.
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(sequence)
}
