//! Reads the read models. Every function is scoped to one organization: what belongs to another does not exist.
//!
//! Lists come in the order in which things were made, so that a page that was read stays as it was and a new row appears
//! at the end. A cursor is opaque: it is the place of the last row of the page before.

mod cursor;
mod questions;
mod rows;
mod submitted;
mod tasks;
mod topologies;

use sqlx::{Postgres, QueryBuilder, postgres::PgPool};
use swarm_events::{AgentId, OrgId, SwarmId};

pub use cursor::{Cursor, Page, PageRequest};
pub use questions::{QuestionFilter, question, questions};
pub use rows::{
    AgentRow, AttemptRow, Children, DependencyRow, ErrorRateRow, EventRow, FiguresRow, Jsonb,
    OrganizationRow, QuestionRow, SwarmRow, TaskRow, TopologyRow,
};
pub use submitted::{SubmittedRow, submitted};
pub use tasks::{
    ATTEMPTS_SHOWN_MAX, TaskDetails, TaskFilter, attempts, children, dependencies, dependents,
    task, task_details, tasks, tasks_by_id,
};
pub use topologies::{topologies, topology};

/// Rows of a page that names no number.
pub const PAGE_DEFAULT: u32 = 100;
/// Most rows of a page: with the largest payloads and results a page stays what a client can hold.
pub const PAGE_MAX: u32 = 1_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// `limit` is 0 or above [`PAGE_MAX`].
    #[error("limit: {0} is outside 1 to {PAGE_MAX}")]
    Limit(u32),
    /// `cursor` is not one of this list.
    #[error("cursor: not a cursor of this list (take next_cursor of the page before, as it is)")]
    Cursor,
    /// The tables are not there (yet): no projector has run, or it rebuilds.
    #[error("the read models are being made")]
    NotThere(#[source] sqlx::Error),
    /// PostgreSQL does not answer.
    #[error("PostgreSQL does not answer")]
    Unavailable(#[source] sqlx::Error),
    /// PostgreSQL answered with something else than rows.
    #[error("PostgreSQL refused a read")]
    Refused(#[source] sqlx::Error),
}
impl QueryError {
    /// Whether the same question may be answered later: a 503 and not a 500.
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NotThere(_))
    }
}
impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        // A column that is not there: the tables are of an older form, and are made anew when the new projector starts.
        if crate::pg::is_missing_table(&error) || matches!(error, sqlx::Error::ColumnNotFound(_)) {
            Self::NotThere(error)
        } else if crate::pg::is_unavailable(&error) {
            Self::Unavailable(error)
        } else {
            Self::Refused(error)
        }
    }
}

/// Which swarms.
#[derive(Clone, Debug, Default)]
pub struct SwarmFilter {
    /// Only with this status.
    pub status: Option<String>,
    /// Only with this name.
    pub name: Option<String>,
    /// Deleted ones too.
    pub deleted: bool,
}

/// An organization.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn organization(
    pool: &PgPool,
    org: OrgId,
) -> Result<Option<OrganizationRow>, QueryError> {
    let query =
        sqlx::query_as("SELECT id, name, queue_limit, created_at FROM organizations WHERE id = $1");
    Ok(query.bind(org.0).fetch_optional(pool).await?)
}

// The lists' `… >= 0` always holds: it is the predicate of their indexes (see migrations/postgres/0001).

/// A page of an organization's swarms.
///
/// # Errors
/// See [`QueryError`].
pub async fn swarms(
    pool: &PgPool,
    org: OrgId,
    filter: &SwarmFilter,
    page: &PageRequest,
) -> Result<Page<SwarmRow>, QueryError> {
    let (limit, after) = page.checked(cursor::SWARMS)?;
    let mut query = QueryBuilder::<Postgres>::new("SELECT * FROM swarms WHERE organization_id = ");
    query
        .push_bind(org.0)
        .push(" AND created_seq >= 0 AND created_seq > ")
        .push_bind(after);
    if let Some(status) = &filter.status {
        query.push(" AND status = ").push_bind(status);
    }
    if let Some(name) = &filter.name {
        query.push(" AND name = ").push_bind(name);
    }
    if !filter.deleted {
        query.push(" AND deleted_at IS NULL");
    }
    query
        .push(" ORDER BY created_seq LIMIT ")
        .push_bind(limit + 1);
    Ok(Page::of(
        query.build_query_as().fetch_all(pool).await?,
        limit,
        cursor::SWARMS,
        |row: &SwarmRow| row.created_seq,
    ))
}

/// A swarm.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn swarm(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
) -> Result<Option<SwarmRow>, QueryError> {
    let query = sqlx::query_as("SELECT * FROM swarms WHERE organization_id = $1 AND id = $2");
    Ok(query.bind(org.0).bind(swarm.0).fetch_optional(pool).await?)
}

/// A page of a swarm's agents, in the order in which they were made; those that never joined and stopped ones too.
///
/// # Errors
/// See [`QueryError`].
pub async fn agents(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    status: Option<&str>,
    page: &PageRequest,
) -> Result<Page<AgentRow>, QueryError> {
    let (limit, after, last) = page.checked_pair(cursor::AGENTS)?;
    let mut query =
        QueryBuilder::<Postgres>::new("SELECT * FROM swarm_agents WHERE organization_id = ");
    query
        .push_bind(org.0)
        .push(" AND swarm_id = ")
        .push_bind(swarm.0);
    query
        .push(" AND created_seq >= 0 AND (created_seq, id) > (")
        .push_bind(after)
        .push(", ")
        .push_bind(last)
        .push(")");
    if let Some(status) = status {
        query.push(" AND status = ").push_bind(status);
    }
    query
        .push(" ORDER BY created_seq, id LIMIT ")
        .push_bind(limit + 1);
    Ok(Page::of_pairs(
        query.build_query_as().fetch_all(pool).await?,
        limit,
        cursor::AGENTS,
        |row: &AgentRow| (row.created_seq, row.id),
    ))
}

/// An agent of a swarm.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn agent(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    agent: AgentId,
) -> Result<Option<AgentRow>, QueryError> {
    let query = sqlx::query_as(
        "SELECT * FROM swarm_agents WHERE organization_id = $1 AND swarm_id = $2 AND id = $3",
    );
    Ok(query
        .bind(org.0)
        .bind(swarm.0)
        .bind(agent.0)
        .fetch_optional(pool)
        .await?)
}

/// What the distributor last measured of a swarm; `None` before it measured anything.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn figures(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
) -> Result<Option<FiguresRow>, QueryError> {
    let query =
        sqlx::query_as("SELECT * FROM swarm_figures WHERE organization_id = $1 AND swarm_id = $2");
    Ok(query.bind(org.0).bind(swarm.0).fetch_optional(pool).await?)
}

/// Error rates over the swarm's life by task type, by required capability and by agent type, those with any attempts; the
/// highest first.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn error_rates(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
) -> Result<Vec<ErrorRateRow>, QueryError> {
    let query = sqlx::query_as(
        "SELECT jsonb_build_object(dimension, name) AS dimensions, \
         round(failed::numeric / (completed + failed), 4)::float8 AS metric_value, \
         completed + failed AS sample_count, completed, failed FROM ( \
         SELECT dimension, name, completed, failed FROM swarm_outcomes \
         WHERE organization_id = $1 AND swarm_id = $2 UNION ALL \
         SELECT 'agent_type', agent_type, sum(tasks_completed)::bigint, sum(tasks_failed)::bigint FROM swarm_agents \
         WHERE organization_id = $1 AND swarm_id = $2 GROUP BY agent_type) o \
         WHERE completed + failed > 0 ORDER BY 2 DESC, dimension, name",
    );
    Ok(query.bind(org.0).bind(swarm.0).fetch_all(pool).await?)
}

/// A page of a swarm's events, in the order of the log.
///
/// # Errors
/// See [`QueryError`].
pub async fn events(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    event_type: Option<&str>,
    page: &PageRequest,
) -> Result<Page<EventRow>, QueryError> {
    let (limit, after) = page.checked(cursor::EVENTS)?;
    let mut query = QueryBuilder::<Postgres>::new("SELECT * FROM swarm_events WHERE swarm_id = ");
    query
        .push_bind(swarm.0)
        .push(" AND organization_id = ")
        .push_bind(org.0);
    query.push(" AND seq > ").push_bind(after);
    if let Some(event_type) = event_type {
        query.push(" AND event_type = ").push_bind(event_type);
    }
    query.push(" ORDER BY seq LIMIT ").push_bind(limit + 1);
    Ok(Page::of(
        query.build_query_as().fetch_all(pool).await?,
        limit,
        cursor::EVENTS,
        |row: &EventRow| row.seq,
    ))
}

/// Up to which stream sequence the tables are. `None`: nothing has been projected yet.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn committed_sequence(pool: &PgPool) -> Result<Option<u64>, QueryError> {
    let query = sqlx::query_scalar("SELECT sequence FROM projection_checkpoint WHERE name = $1");
    let sequence: Option<i64> = query.bind(crate::CHECKPOINT).fetch_optional(pool).await?;
    Ok(sequence.map(|sequence| u64::try_from(sequence).unwrap_or(0)))
}
