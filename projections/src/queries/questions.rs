//! What agents asked.

use sqlx::{Postgres, QueryBuilder, postgres::PgPool};
use swarm_events::{AgentId, OrgId, SwarmId, ids::CommandId};

use super::{Page, PageRequest, QueryError, QuestionRow, cursor};

/// Which questions.
#[derive(Clone, Debug, Default)]
pub struct QuestionFilter {
    /// Only with this status: `open`, `answered`, `fell_back` or `unanswered`.
    pub status: Option<String>,
    /// Only of this agent.
    pub agent_id: Option<AgentId>,
}

/// A page of a swarm's questions, in the order in which they were asked; ended ones too.
///
/// # Errors
/// See [`QueryError`].
pub async fn questions(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    filter: &QuestionFilter,
    page: &PageRequest,
) -> Result<Page<QuestionRow>, QueryError> {
    let (limit, after) = page.checked(cursor::QUESTIONS)?;
    let mut query =
        QueryBuilder::<Postgres>::new("SELECT * FROM swarm_questions WHERE organization_id = ");
    query
        .push_bind(org.0)
        .push(" AND swarm_id = ")
        .push_bind(swarm.0)
        .push(" AND asked_seq > ")
        .push_bind(after);
    match filter.status.as_deref() {
        // Spelled out: only so is the partial index taken.
        Some("open") => drop(query.push(" AND status = 'open'")),
        Some(status) => {
            query
                .push(" AND asked_seq >= 0 AND status = ")
                .push_bind(status.to_owned());
        }
        None => drop(query.push(" AND asked_seq >= 0")),
    }
    if let Some(agent) = filter.agent_id {
        query.push(" AND agent_id = ").push_bind(agent.0);
    }
    query
        .push(" ORDER BY asked_seq LIMIT ")
        .push_bind(limit + 1);
    Ok(Page::of(
        query.build_query_as().fetch_all(pool).await?,
        limit,
        cursor::QUESTIONS,
        |row: &QuestionRow| row.asked_seq,
    ))
}

/// A question.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn question(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    question: CommandId,
) -> Result<Option<QuestionRow>, QueryError> {
    let query = sqlx::query_as(
        "SELECT * FROM swarm_questions WHERE organization_id = $1 AND swarm_id = $2 AND id = $3",
    );
    Ok(query
        .bind(org.0)
        .bind(swarm.0)
        .bind(question.0)
        .fetch_optional(pool)
        .await?)
}
