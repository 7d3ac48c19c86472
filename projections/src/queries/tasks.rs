//! Tasks: lists by filter, one with all that belongs to it.

use serde::Serialize;
use sqlx::{PgConnection, Postgres, QueryBuilder, postgres::PgPool};
use swarm_events::{AgentId, GraphId, OrgId, SwarmId, TaskId};
use utoipa::ToSchema;

use super::{AttemptRow, Children, DependencyRow, Page, PageRequest, QueryError, TaskRow, cursor};

/// Most attempts that are shown of a task, the newest: twice as many as a generation may have, since what was withdrawn
/// unstarted stands there, too. With the longest errors that is 1.6 MB. Older ones are in the events.
pub const ATTEMPTS_SHOWN_MAX: u32 = 200;

/// Which tasks. Each filter has its index; of several, one leads and the others pick from what it finds.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Only with this status.
    pub status: Option<String>,
    /// Only of this type.
    pub task_type: Option<String>,
    /// Only those that are (or are not) dead letters.
    pub dead_lettered: Option<bool>,
    /// Only of this graph.
    pub graph_id: Option<GraphId>,
    /// Only parts of this task.
    pub parent_task_id: Option<TaskId>,
    /// Only at this agent, or last at it.
    pub agent_id: Option<AgentId>,
}

/// A task with all that belongs to it, as of one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TaskDetails {
    /// The columns of the read model.
    #[serde(flatten)]
    pub task: TaskRow,
    /// What it waits for, or waited for.
    pub depends_on: Vec<DependencyRow>,
    /// Its assignments of all generations, the newest first, at most [`ATTEMPTS_SHOWN_MAX`].
    pub attempts: Vec<AttemptRow>,
    /// Its parts: tasks that name it as their parent.
    pub children: Children,
}

/// Rows of tasks, with the deadlines that hang on the swarm's present settings: changing those touches no task.
fn rows(query: &mut QueryBuilder<Postgres>, which: impl FnOnce(&mut QueryBuilder<Postgres>)) {
    query.push(
        "SELECT t.*, CASE WHEN t.parts IS NULL THEN 'work' ELSE 'reduce' END AS step, \
         LEAST(t.timeout_at, CASE WHEN t.status = 'running' AND l.progress_ms > 0 \
         THEN GREATEST(t.started_at, t.progressed_at) + l.progress_ms * INTERVAL '1 millisecond' END) AS timeout_due, \
         CASE WHEN l.queue_ms > 0 THEN t.waits_from + l.queue_ms * INTERVAL '1 millisecond' END AS queue_timeout_at \
         FROM (SELECT * FROM swarm_tasks WHERE organization_id = ",
    );
    which(query);
    query.push(
        ") t LEFT JOIN LATERAL (SELECT \
         COALESCE(t.queue_timeout_ms, (s.configuration->>'queue_timeout_ms')::bigint) AS queue_ms, \
         COALESCE(t.progress_timeout_ms, (s.configuration->>'progress_timeout_ms')::bigint) AS progress_ms \
         FROM swarms s WHERE s.organization_id = t.organization_id AND s.id = t.swarm_id) l ON TRUE \
         ORDER BY t.submitted_seq, t.part_order",
    );
}

/// The predicate of the index that is to be taken (see migrations/postgres/0003); the partial ones on columns that few
/// tasks have need none.
fn leading(filter: &TaskFilter) -> &'static str {
    let few = filter.dead_lettered == Some(true)
        || filter.graph_id.is_some()
        || filter.parent_task_id.is_some()
        || filter.agent_id.is_some();
    let completed = filter.status.as_deref() == Some("completed");
    match (&filter.status, &filter.task_type) {
        _ if few => "",
        // In the end nearly all tasks are completed: any type says more.
        (_, Some(_)) if completed => " AND priority <> -2",
        (Some(_), _) => " AND priority <> -1",
        (None, Some(_)) => " AND priority <> -2",
        (None, None) => " AND priority <> 0",
    }
}

/// The rows of a page and one more.
fn page_rows(
    query: &mut QueryBuilder<Postgres>,
    org: OrgId,
    swarm: SwarmId,
    filter: &TaskFilter,
    (after, part): (i64, i32),
    limit: i64,
) {
    rows(query, |query| {
        query.push_bind(org.0);
        query.push(" AND swarm_id = ").push_bind(swarm.0);
        query
            .push(" AND (submitted_seq, part_order) > (")
            .push_bind(after);
        query.push(", ").push_bind(part).push(")");
        query.push(leading(filter));
        if let Some(status) = &filter.status {
            let stage = match status.as_str() {
                "assigned" | "running" => "held",
                other => other,
            };
            query.push(" AND stage = ").push_bind(stage.to_owned());
            query.push(" AND status = ").push_bind(status.clone());
        }
        if let Some(task_type) = &filter.task_type {
            query.push(" AND task_type = ").push_bind(task_type.clone());
        }
        match filter.dead_lettered {
            // Spelled out: only so is the partial index taken.
            Some(true) => drop(query.push(" AND dead_lettered")),
            Some(false) => drop(query.push(" AND NOT dead_lettered")),
            None => {}
        }
        if let Some(graph) = filter.graph_id {
            query.push(" AND graph_id = ").push_bind(graph.0);
        }
        if let Some(parent) = filter.parent_task_id {
            query.push(" AND parent_task_id = ").push_bind(parent.0);
        }
        if let Some(agent) = filter.agent_id {
            query.push(" AND assigned_agent_id = ").push_bind(agent.0);
        }
        query
            .push(" ORDER BY submitted_seq, part_order LIMIT ")
            .push_bind(limit + 1);
    });
}

/// A page of a swarm's tasks.
///
/// # Errors
/// See [`QueryError`].
pub async fn tasks(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    filter: &TaskFilter,
    page: &PageRequest,
) -> Result<Page<TaskRow>, QueryError> {
    let (limit, after, part) = page.checked_numbers(cursor::TASKS)?;
    let mut query = QueryBuilder::new("");
    page_rows(&mut query, org, swarm, filter, (after, part), limit);
    Ok(Page::of_numbers(
        query.build_query_as().fetch_all(pool).await?,
        limit,
        cursor::TASKS,
        |row: &TaskRow| (row.submitted_seq, row.part.unwrap_or(0)),
    ))
}

/// A task of a swarm.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn task(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Option<TaskRow>, QueryError> {
    let mut connection = pool.acquire().await?;
    Ok(one(&mut connection, org, swarm, task).await?)
}

async fn one(
    connection: &mut PgConnection,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Option<TaskRow>, sqlx::Error> {
    let mut query = QueryBuilder::new("");
    rows(&mut query, |query| {
        query.push_bind(org.0);
        query.push(" AND id = ").push_bind(task.0);
        query.push(" AND swarm_id = ").push_bind(swarm.0);
    });
    query.build_query_as().fetch_optional(connection).await
}

/// The tasks with this id in all swarms of the organization: more than one only if a client used an id twice.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn tasks_by_id(
    pool: &PgPool,
    org: OrgId,
    task: TaskId,
) -> Result<Vec<TaskRow>, QueryError> {
    let mut query = QueryBuilder::new("");
    rows(&mut query, |query| {
        query.push_bind(org.0);
        query.push(" AND id = ").push_bind(task.0);
    });
    Ok(query.build_query_as().fetch_all(pool).await?)
}

/// A task of a swarm with all that belongs to it, read as of one moment: its status and its attempts agree.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn task_details(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Option<TaskDetails>, QueryError> {
    let mut moment = pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let Some(row) = one(&mut moment, org, swarm, task).await? else {
        return Ok(None);
    };
    let details = TaskDetails {
        task: row,
        depends_on: dependencies_of(&mut moment, org, swarm, task).await?,
        attempts: attempts_of(&mut moment, org, swarm, task).await?,
        children: children_of(&mut moment, org, swarm, task).await?,
    };
    moment.commit().await?;
    Ok(Some(details))
}

/// The assignments of a task, of all generations, the newest first, at most [`ATTEMPTS_SHOWN_MAX`].
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn attempts(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Vec<AttemptRow>, QueryError> {
    let mut connection = pool.acquire().await?;
    Ok(attempts_of(&mut connection, org, swarm, task).await?)
}

async fn attempts_of(
    connection: &mut PgConnection,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Vec<AttemptRow>, sqlx::Error> {
    let query = sqlx::query_as(
        "SELECT *, CASE WHEN started_at IS NOT NULL AND outcome IS DISTINCT FROM 'declined' THEN attempt END AS number \
         FROM task_attempts \
         WHERE organization_id = $1 AND swarm_id = $2 AND task_id = $3 ORDER BY assignment DESC LIMIT $4",
    );
    query
        .bind(org.0)
        .bind(swarm.0)
        .bind(task.0)
        .bind(i64::from(ATTEMPTS_SHOWN_MAX))
        .fetch_all(connection)
        .await
}

/// What has become of a task's parts; all zero if it has none.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn children(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Children, QueryError> {
    let mut connection = pool.acquire().await?;
    Ok(children_of(&mut connection, org, swarm, task).await?)
}

const CHILDREN: &str = "SELECT count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS completed, \
     count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled, \
     count(*) FILTER (WHERE status NOT IN ('completed', 'failed', 'cancelled')) AS open FROM swarm_tasks \
     WHERE organization_id = $1 AND swarm_id = $2 AND parent_task_id = $3";

async fn children_of(
    connection: &mut PgConnection,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Children, sqlx::Error> {
    let query = sqlx::query_as(CHILDREN);
    query
        .bind(org.0)
        .bind(swarm.0)
        .bind(task.0)
        .fetch_one(connection)
        .await
}

/// What a task waits for.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn dependencies(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Vec<DependencyRow>, QueryError> {
    let mut connection = pool.acquire().await?;
    Ok(dependencies_of(&mut connection, org, swarm, task).await?)
}

async fn dependencies_of(
    connection: &mut PgConnection,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Vec<DependencyRow>, sqlx::Error> {
    let query = sqlx::query_as(
        "SELECT * FROM task_dependencies WHERE organization_id = $1 AND swarm_id = $2 AND task_id = $3 \
         ORDER BY depends_on_task_id",
    );
    query
        .bind(org.0)
        .bind(swarm.0)
        .bind(task.0)
        .fetch_all(connection)
        .await
}

/// What waits for a task.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn dependents(
    pool: &PgPool,
    org: OrgId,
    swarm: SwarmId,
    task: TaskId,
) -> Result<Vec<DependencyRow>, QueryError> {
    let query = sqlx::query_as(
        "SELECT * FROM task_dependencies WHERE organization_id = $1 AND swarm_id = $2 AND depends_on_task_id = $3 \
         ORDER BY task_id",
    );
    Ok(query
        .bind(org.0)
        .bind(swarm.0)
        .bind(task.0)
        .fetch_all(pool)
        .await?)
}

#[cfg(test)]
mod tests;
