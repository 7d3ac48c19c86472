//! Writes a batch: all of its rows and the checkpoint in one transaction, or nothing.

use std::sync::LazyLock;

use chrono::{Days, NaiveDate};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgTransaction};

use crate::{
    CHECKPOINT,
    batch::Batch,
    columns::{Statement, insert, update, upsert},
    event_row::Events,
    migrate::TimeTables,
    progress::CHANNEL,
    session::{Session, partition_of_day},
    tables::{
        AgentLoads, Agents, AttemptChanges, Dependencies, Discards, EndedQuestions, Figures, Keys,
        NewAttempts, NewQuestions, NewTasks, Orgs, Outcomes, Samples, Swarms, TaskChanges,
        Topologies, Users,
    },
};

/// Why a batch is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The checkpoint is not where this projector left it: someone else wrote, or the database went back.
    #[error(
        "the checkpoint is not at sequence {0}, where this projector left it: another one has written"
    )]
    Conflict(u64),
    /// PostgreSQL refused or went away.
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
}

const IN_SWARM: &[&str] = &["organization_id", "swarm_id", "id"];
const IN_ORG: &[&str] = &["organization_id", "id"];

static EVENTS: LazyLock<String> = LazyLock::new(|| insert("swarm_events", Events::COLUMNS));
/// A repeated id after its horizon is a new task: its row is that of the new one, and the edges and attempts of the old one
/// go.
static NEW_TASKS: LazyLock<String> = LazyLock::new(|| {
    let insert = upsert("swarm_tasks", NewTasks::COLUMNS, IN_SWARM, &[]);
    format!(
        "WITH done AS ({insert} RETURNING swarm_tasks.organization_id, swarm_tasks.swarm_id, swarm_tasks.id, \
         swarm_tasks.xmax::text <> '0' AS replaced), \
         gone AS (DELETE FROM task_attempts a USING done WHERE done.replaced AND a.organization_id = done.organization_id \
         AND a.swarm_id = done.swarm_id AND a.task_id = done.id) \
         DELETE FROM task_dependencies d USING done \
         WHERE done.replaced AND d.organization_id = done.organization_id AND d.swarm_id = done.swarm_id AND d.task_id = done.id"
    )
});
static TASKS: LazyLock<String> = LazyLock::new(|| {
    let rules = [
        ("result", "COALESCE(u.result::jsonb, t.result)"),
        ("progressed", ""),
        (
            "progress_percent",
            "CASE WHEN u.progressed THEN u.progress_percent ELSE t.progress_percent END",
        ),
        (
            "progress_message",
            "CASE WHEN u.progressed THEN u.progress_message ELSE t.progress_message END",
        ),
        (
            "progressed_at",
            "CASE WHEN u.progressed THEN u.progressed_at ELSE t.progressed_at END",
        ),
        ("afresh", ""),
        (
            "parts",
            "CASE WHEN u.afresh THEN u.parts ELSE COALESCE(u.parts, t.parts) END",
        ),
        (
            "handed_task_id",
            "CASE WHEN u.afresh THEN u.handed_task_id ELSE COALESCE(u.handed_task_id, t.handed_task_id) END",
        ),
        (
            "handed_at",
            "CASE WHEN u.afresh THEN u.handed_at ELSE COALESCE(u.handed_at, t.handed_at) END",
        ),
    ];
    update("swarm_tasks", TaskChanges::COLUMNS, IN_SWARM, &rules)
});
static DISCARDS: LazyLock<String> =
    LazyLock::new(|| update("swarm_tasks", Discards::COLUMNS, IN_SWARM, &[]));
static NEW_ATTEMPTS: LazyLock<String> =
    LazyLock::new(|| insert("task_attempts", NewAttempts::COLUMNS));
/// What is new is added: nothing of an assignment changes twice. What never started has no error, since the task's would be
/// that of an attempt before; one that was declined has its own.
static ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    let key = ["organization_id", "swarm_id", "task_id", "assignment"];
    let rules = [
        ("started_at", "COALESCE(u.started_at, t.started_at)"),
        ("ended_at", "COALESCE(u.ended_at, t.ended_at)"),
        ("outcome", "COALESCE(u.outcome, t.outcome)"),
        (
            "error",
            "CASE WHEN COALESCE(u.started_at, t.started_at) IS NOT NULL OR u.outcome = 'declined' \
             THEN COALESCE(u.error, t.error) ELSE t.error END",
        ),
        ("retryable", "COALESCE(u.retryable, t.retryable)"),
    ];
    update("task_attempts", AttemptChanges::COLUMNS, &key, &rules)
});
static FIGURES: LazyLock<String> = LazyLock::new(|| {
    let key = ["organization_id", "swarm_id"];
    upsert("swarm_figures", Figures::COLUMNS, &key, &[])
});
static DEPENDENCIES: LazyLock<String> = LazyLock::new(|| {
    let key = [
        "organization_id",
        "swarm_id",
        "task_id",
        "depends_on_task_id",
    ];
    upsert("task_dependencies", Dependencies::COLUMNS, &key, &[])
});
static AGENTS: LazyLock<String> = LazyLock::new(|| {
    upsert(
        "swarm_agents",
        Agents::COLUMNS,
        IN_SWARM,
        &["resource_usage", "created_seq"],
    )
});
static AGENT_LOADS: LazyLock<String> =
    LazyLock::new(|| update("swarm_agents", AgentLoads::COLUMNS, IN_SWARM, &[]));
static OUTCOMES: LazyLock<String> = LazyLock::new(|| {
    let key = ["organization_id", "swarm_id", "dimension", "name"];
    upsert("swarm_outcomes", Outcomes::COLUMNS, &key, &[])
});
static SAMPLES: LazyLock<String> =
    LazyLock::new(|| update("swarm_agents", Samples::COLUMNS, IN_SWARM, &[]));
static SWARMS: LazyLock<String> =
    LazyLock::new(|| upsert("swarms", Swarms::COLUMNS, IN_ORG, &["created_seq"]));
static TOPOLOGIES: LazyLock<String> =
    LazyLock::new(|| upsert("swarm_topologies", Topologies::COLUMNS, &["id"], &[]));
const GONE_TOPOLOGIES: &str = "DELETE FROM swarm_topologies WHERE id = ANY($1)";
static NEW_QUESTIONS: LazyLock<String> =
    LazyLock::new(|| upsert("swarm_questions", NewQuestions::COLUMNS, IN_SWARM, &[]));
static ENDED_QUESTIONS: LazyLock<String> =
    LazyLock::new(|| update("swarm_questions", EndedQuestions::COLUMNS, IN_SWARM, &[]));
static ORGS: LazyLock<String> =
    LazyLock::new(|| upsert("organizations", Orgs::COLUMNS, &["id"], &["created_seq"]));
static USERS: LazyLock<String> =
    LazyLock::new(|| upsert("users", Users::COLUMNS, IN_ORG, &["created_seq"]));
static KEYS: LazyLock<String> =
    LazyLock::new(|| upsert("api_keys", Keys::COLUMNS, IN_ORG, &["created_seq"]));

/// Writes `batch` behind the checkpoint that it starts from.
pub(crate) async fn write(session: &mut Session, batch: &Batch) -> Result<(), WriteError> {
    let mut transaction = session.connection.begin().await?;
    // First: it locks the row, and a rebuild waits for that lock before it drops anything. Readers hear of it at the commit.
    let moved = sqlx::query(
        "WITH moved AS (UPDATE projection_checkpoint SET sequence = $1, log_time = $2 \
         WHERE name = $3 AND sequence = $4 RETURNING sequence) SELECT pg_notify($5, sequence::text) FROM moved",
    )
    .bind(int8(batch.to))
    .bind(batch.log_time)
    .bind(CHECKPOINT)
    .bind(int8(batch.from))
    .bind(CHANNEL)
    .execute(&mut *transaction)
    .await?;
    if moved.rows_affected() != 1 {
        return Err(WriteError::Conflict(batch.from));
    }
    let new_days: Vec<NaiveDate> = match session.kind {
        TimeTables::Native => batch
            .days
            .difference(&session.days.iter().copied().collect())
            .copied()
            .collect(),
        // TimescaleDB makes its chunks itself.
        TimeTables::Timescale => Vec::new(),
    };
    for day in &new_days {
        make_partition(&mut transaction, *day).await?;
    }
    put_rows(&mut transaction, batch).await?;
    transaction.commit().await?;
    session.checkpoint.sequence = batch.to;
    session.checkpoint.log_time = batch.log_time;
    session.days.extend(new_days);
    Ok(())
}

/// Puts the rows of a batch into the tables.
pub(crate) async fn put_rows(to: &mut PgTransaction<'_>, batch: &Batch) -> Result<(), sqlx::Error> {
    rows(to, &EVENTS, batch.events.len(), |q| batch.events.bind(q)).await?;
    rows(to, &ORGS, batch.orgs.len(), |q| batch.orgs.bind(q)).await?;
    rows(to, &USERS, batch.users.len(), |q| batch.users.bind(q)).await?;
    rows(to, &KEYS, batch.keys.len(), |q| batch.keys.bind(q)).await?;
    rows(to, &SWARMS, batch.swarms.len(), |q| batch.swarms.bind(q)).await?;
    rows(to, &AGENTS, batch.agents.len(), |q| batch.agents.bind(q)).await?;
    rows(to, &AGENT_LOADS, batch.agent_loads.len(), |q| {
        batch.agent_loads.bind(q)
    })
    .await?;
    rows(to, &SAMPLES, batch.samples.len(), |q| batch.samples.bind(q)).await?;
    rows(to, &NEW_TASKS, batch.new_tasks.len(), |q| {
        batch.new_tasks.bind(q)
    })
    .await?;
    rows(to, &DEPENDENCIES, batch.dependencies.len(), |q| {
        batch.dependencies.bind(q)
    })
    .await?;
    rows(to, &TASKS, batch.tasks.len(), |q| batch.tasks.bind(q)).await?;
    rows(to, &DISCARDS, batch.discards.len(), |q| {
        batch.discards.bind(q)
    })
    .await?;
    rows(to, &NEW_ATTEMPTS, batch.new_attempts.len(), |q| {
        batch.new_attempts.bind(q)
    })
    .await?;
    rows(to, &ATTEMPTS, batch.attempt_changes.len(), |q| {
        batch.attempt_changes.bind(q)
    })
    .await?;
    rows(to, &FIGURES, batch.figures.len(), |q| batch.figures.bind(q)).await?;
    rows(to, &OUTCOMES, batch.outcomes.len(), |q| {
        batch.outcomes.bind(q)
    })
    .await?;
    let gone = &batch.gone_topologies;
    rows(to, GONE_TOPOLOGIES, gone.len(), |q| gone.bind(q)).await?;
    rows(to, &TOPOLOGIES, batch.topologies.len(), |q| {
        batch.topologies.bind(q)
    })
    .await?;
    let new = &batch.new_questions;
    rows(to, &NEW_QUESTIONS, new.len(), |q| new.bind(q)).await?;
    let ended = &batch.ended_questions;
    rows(to, &ENDED_QUESTIONS, ended.len(), |q| ended.bind(q)).await
}

async fn rows<'q>(
    transaction: &mut PgTransaction<'_>,
    sql: &'static str,
    count: usize,
    bind: impl FnOnce(Statement<'q>) -> Statement<'q>,
) -> Result<(), sqlx::Error> {
    if count > 0 {
        bind(sqlx::query(sql)).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// A partition is made beside the table and then attached, which lets readers go on; made in place it would wait for all
/// of them, and hold up those that come meanwhile.
async fn make_partition(connection: &mut PgConnection, day: NaiveDate) -> Result<(), sqlx::Error> {
    let name = partition_of_day(day);
    let next = day + Days::new(1);
    let sql = format!(
        "CREATE TABLE {name} (LIKE swarm_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS); \
         ALTER TABLE swarm_events ATTACH PARTITION {name} FOR VALUES FROM ('{day} 00:00:00Z') TO ('{next} 00:00:00Z')"
    );
    // Made of a date alone.
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await?;
    Ok(())
}

fn int8(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
