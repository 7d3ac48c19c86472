//! Which of many tasks are known already.

use sqlx::{FromRow, postgres::PgPool};
use swarm_events::{OrgId, SwarmId, TaskId};
use uuid::Uuid;

use super::QueryError;

/// A task that was submitted.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct SubmittedRow {
    /// The task.
    pub id: Uuid,
    /// Stream sequence of its submission.
    pub submitted_seq: i64,
    /// SHA-256 of the request that an `Idempotency-Key` came with.
    pub body_sha256: Option<String>,
}

/// Those of `tasks` that are there, in no particular order.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn submitted(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    tasks: &[TaskId],
) -> Result<Vec<SubmittedRow>, QueryError> {
    let ids: Vec<Uuid> = tasks.iter().map(|task| task.0).collect();
    let query = sqlx::query_as(
        "SELECT id, submitted_seq, body_sha256 FROM swarm_tasks \
         WHERE organization_id = $1 AND swarm_id = $2 AND id = ANY($3)",
    );
    Ok(query
        .bind(org.0)
        .bind(swarm.0)
        .bind(ids)
        .fetch_all(pool)
        .await?)
}
