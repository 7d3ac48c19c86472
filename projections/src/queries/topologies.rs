//! Topologies under a name.

use sqlx::postgres::PgPool;
use swarm_events::OrgId;

use super::{Page, PageRequest, QueryError, TopologyRow, cursor};

/// A page of the topologies that an organization may name: the system's, then its own in the order of their ids, which no
/// change of them moves.
///
/// # Errors
/// See [`QueryError`].
pub async fn topologies(
    pool: &PgPool,
    org: OrgId,
    page: &PageRequest,
) -> Result<Page<TopologyRow>, QueryError> {
    let (limit, after, last) = page.checked_pair(cursor::TOPOLOGIES)?;
    let query = sqlx::query_as(
        "SELECT * FROM swarm_topologies WHERE (is_system OR organization_id = $1) \
         AND (CASE WHEN is_system THEN 0 ELSE 1 END, id) > ($2, $3) \
         ORDER BY CASE WHEN is_system THEN 0 ELSE 1 END, id LIMIT $4",
    );
    let rows = query
        .bind(org.0)
        .bind(after)
        .bind(last)
        .bind(limit + 1)
        .fetch_all(pool)
        .await?;
    Ok(Page::of_pairs(
        rows,
        limit,
        cursor::TOPOLOGIES,
        |row: &TopologyRow| (i64::from(!row.is_system), row.id),
    ))
}

/// The topology of this name: the system's, or else the organization's own.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn topology(
    pool: &PgPool,
    org: OrgId,
    name: &str,
) -> Result<Option<TopologyRow>, QueryError> {
    let query = sqlx::query_as(
        "SELECT * FROM swarm_topologies WHERE name = $2 AND (is_system OR organization_id = $1) \
         ORDER BY is_system DESC LIMIT 1",
    );
    Ok(query.bind(org.0).bind(name).fetch_optional(pool).await?)
}
