//! Holds the tables against the log: the rows that the log gives are made a second time, from its beginning to exactly the
//! committed sequence, and both are compared as wholes.
//!
//! All of it happens in one transaction with one view of the database, so it is right under load. The second rows are in
//! temporary tables of that connection, which are gone with it. Batches have another size than the projector's: rows must
//! not depend on where a batch ends.

use futures::StreamExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgTransaction};
use swarm_events::subject::filter;
use swarm_log::{Log, LogError, Tailed};

use crate::{
    batch::Batch,
    changes::Changes,
    fold::{Fold, Newer},
    migrate::TABLES,
    pg,
    projector::BATCH_BYTES_MAX,
    results::resolve,
    session::{FOLD_VERSION, SETTINGS, checkpoint, created},
    status::ProjectorStatus,
    write::put_rows,
};

/// Messages of a batch: no divisor of the projector's.
const BATCH_MESSAGES: usize = 1_733;
/// Rows that are shown of each difference.
pub const ROWS_SHOWN_MAX: i64 = 5;

/// How one table compares.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Table {
    /// Its name.
    pub table: &'static str,
    /// Rows that the log gives.
    pub rows: i64,
    /// Rows that the log gives and the table does not hold.
    pub missing: i64,
    /// Rows that the table holds and the log does not give.
    pub surplus: i64,
    /// The first [`ROWS_SHOWN_MAX`] of both, as JSON.
    pub shown: Vec<String>,
}

/// How the tables compare.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// The committed sequence, up to which the log was folded.
    pub sequence: u64,
    /// Each table.
    pub tables: Vec<Table>,
}
impl Verified {
    /// Whether all tables are equal.
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(|t| t.missing == 0 && t.surplus == 0)
    }
}

/// Why the tables could not be held against the log.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database URL is none.
    #[error(transparent)]
    Url(#[from] crate::pool::UrlError),
    /// There is nothing to compare.
    #[error("the read models are not there yet: start the projector")]
    NoTables,
    /// Other rules made the rows.
    #[error(
        "the rows were made by version {0} of the projector's rules, and this program has version {FOLD_VERSION}: \
         compare with the program that runs the projector"
    )]
    OtherVersion(i32),
    /// They belong to another log, or the log has lost what is in them.
    #[error("the tables were not made of this log: {0}")]
    OtherLog(String),
    /// PostgreSQL does not answer or refuses.
    #[error("the read models cannot be compared: {0}")]
    Sql(#[from] sqlx::Error),
    /// The log does not answer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A newer service wrote something that this program does not know.
    #[error(transparent)]
    Newer(#[from] Newer),
}

/// Compares the tables with the log.
///
/// # Errors
/// See [`VerifyError`]. That they differ is none.
pub async fn verify<L: Log>(log: &L, database_url: &str) -> Result<Verified, VerifyError> {
    let options = crate::pool::projector_options(database_url)?.application_name("swarm audit");
    let mut connection = PgConnection::connect_with(&options).await?;
    sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
    let mut transaction = connection
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await?;
    let found = match checkpoint(&mut transaction).await {
        Err(error) if pg::is_missing_table(&error) => None,
        found => found?,
    };
    let (checkpoint, version) = found.ok_or(VerifyError::NoTables)?;
    if version != FOLD_VERSION {
        return Err(VerifyError::OtherVersion(version));
    }
    let info = log.info().await?;
    if checkpoint.stream_created != created(&info) {
        return Err(VerifyError::OtherLog(format!(
            "they were made of a stream of {}, and this one is of {}",
            checkpoint.stream_created,
            created(&info)
        )));
    }
    if checkpoint.sequence > info.last_sequence {
        return Err(VerifyError::OtherLog(format!(
            "they are at sequence {}, and it ends at {}",
            checkpoint.sequence, info.last_sequence
        )));
    }
    let schema = begin(&mut transaction).await?;
    fill(
        log,
        info.first_sequence,
        checkpoint.sequence,
        &mut transaction,
    )
    .await?;
    // Whole tables are compared: not by their keys.
    sqlx::raw_sql("SET enable_seqscan = on; SET enable_hashjoin = on; SET enable_mergejoin = on")
        .execute(&mut *transaction)
        .await?;
    let mut tables = Vec::new();
    for table in TABLES {
        tables.push(compare(&mut transaction, &schema, table).await?);
    }
    transaction.rollback().await?;
    Ok(Verified {
        sequence: checkpoint.sequence,
        tables,
    })
}

/// Makes the temporary tables, which stand before those of the same name; answers with the schema of those.
async fn begin(transaction: &mut PgTransaction<'_>) -> Result<String, VerifyError> {
    let schema: Option<String> = sqlx::query_scalar(
        "SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = to_regclass('swarm_tasks')",
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let schema = schema.ok_or(VerifyError::NoTables)?;
    for table in TABLES {
        // Our own constants, and a name that PostgreSQL has quoted.
        let sql = format!(
            "CREATE TEMPORARY TABLE {table} (LIKE {schema}.{table} INCLUDING ALL) ON COMMIT DROP"
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut **transaction)
            .await?;
    }
    Ok(schema)
}

async fn fill<L: Log>(
    log: &L,
    first: u64,
    to: u64,
    transaction: &mut PgTransaction<'_>,
) -> Result<(), VerifyError> {
    let status = ProjectorStatus::default();
    let mut fold = Fold::new();
    let mut changes = Changes::default();
    let mut tail = log.tail(filter::all(), first);
    let mut from = 0;
    while fold.sequence < to {
        let end = match tail.next().await {
            None => return Err(LogError::Refused("the tail ended".to_owned()).into()),
            Some(item) => match item? {
                // The log has a hole at its end: nothing more comes up to the committed sequence.
                Tailed::Message(message) if message.sequence > to => true,
                Tailed::Message(message) => {
                    fold.meet(&message, Some(&mut changes))?;
                    message.sequence == to
                }
                Tailed::CaughtUp => true,
                Tailed::Interrupted | Tailed::Resumed => false,
            },
        };
        if end || changes.messages >= BATCH_MESSAGES || changes.bytes >= BATCH_BYTES_MAX {
            let mut batch = Batch::of(from, &fold, std::mem::take(&mut changes));
            resolve(log, &mut batch, &status).await;
            put_rows(transaction, &batch).await?;
            from = batch.to;
        }
        if end {
            break;
        }
    }
    Ok(())
}

async fn compare(
    transaction: &mut PgTransaction<'_>,
    schema: &str,
    table: &'static str,
) -> Result<Table, sqlx::Error> {
    let less = |a: &str, b: &str| {
        format!("SELECT * FROM {a}.{table} EXCEPT ALL SELECT * FROM {b}.{table}")
    };
    let (missing, surplus) = (less("pg_temp", schema), less(schema, "pg_temp"));
    // Our own constants, and a name that PostgreSQL has quoted.
    let counts = format!(
        "SELECT (SELECT count(*) FROM pg_temp.{table}), (SELECT count(*) FROM ({missing}) m), (SELECT count(*) FROM ({surplus}) s)"
    );
    let (rows, missing_rows, surplus_rows): (i64, i64, i64) = sqlx::query_as(AssertSqlSafe(counts))
        .fetch_one(&mut **transaction)
        .await?;
    let mut shown = Vec::new();
    for (word, sql, count) in [
        ("missing", &missing, missing_rows),
        ("surplus", &surplus, surplus_rows),
    ] {
        if count > 0 {
            let sql = format!("SELECT to_jsonb(d)::text FROM ({sql}) d LIMIT {ROWS_SHOWN_MAX}");
            let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_all(&mut **transaction)
                .await?;
            shown.extend(found.into_iter().map(|row| format!("{word}: {row}")));
        }
    }
    Ok(Table {
        table,
        rows,
        missing: missing_rows,
        surplus: surplus_rows,
        shown,
    })
}
