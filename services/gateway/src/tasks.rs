//! `/swarms/{id}/tasks` and `/tasks/{id}`: reading. Handing in is in [`crate::submit`] and [`crate::bulk`], orders about tasks
//! in [`crate::orders`].

use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
};
use serde::Serialize;
use swarm_events::{Place, Problem, TaskId};
use swarm_projections::queries::{self, TaskDetails, TaskFilter, TaskRow};
use utoipa::ToSchema;

use crate::{
    answer::Reply,
    app::Shared,
    auth::{Action, Caller, May},
    params::{Params, id},
    problem::{Answer, ApiProblem, ProblemDocument},
    reading,
    swarms::known,
};

/// A page of tasks.
#[derive(Serialize, ToSchema)]
pub struct TaskPage {
    /// In the order of their submission.
    pub items: Vec<TaskRow>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

/// What a task can be.
const STATUSES: [&str; 7] = [
    "pending",
    "queued",
    "assigned",
    "running",
    "completed",
    "failed",
    "cancelled",
];

/// Lists a swarm's tasks in the order of their submission.
#[utoipa::path(get, path = "/v1/swarms/{id}/tasks", tag = "tasks",
    params(("id" = Uuid, Path), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query),
        ("min_seq" = Option<u64>, Query), ("status" = Option<String>, Query), ("task_type" = Option<String>, Query),
        ("dead_lettered" = Option<bool>, Query), ("graph_id" = Option<Uuid>, Query),
        ("parent_task_id" = Option<Uuid>, Query), ("agent_id" = Option<Uuid>, Query)),
    responses((status = 200, body = TaskPage),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let mut params = Params::of(&uri)?;
    let (page, min_seq) = (params.page()?, params.min_seq()?);
    let filter = TaskFilter {
        status: params.one_of("status", &STATUSES)?,
        task_type: params.text("task_type"),
        dead_lettered: params.value("dead_lettered", "give true or false")?,
        graph_id: params.value("graph_id", "give the id of a graph")?,
        parent_task_id: params.value("parent_task_id", "give the id of a task")?,
        agent_id: params.value("agent_id", "give the id of an agent")?,
    };
    params.done()?;
    let place = known(&app, &caller, &swarm)?;
    reading::until(&app, min_seq).await?;
    let page = queries::tasks(&app.pool, place.org, place.swarm, &filter, &page).await;
    Ok(Reply::json(
        StatusCode::OK,
        &page.map_err(|error| reading::failed(&app, error))?,
    ))
}

/// Shows a task of a swarm, with its attempts and what has become of its parts.
#[utoipa::path(get, path = "/v1/swarms/{id}/tasks/{task}", tag = "tasks",
    params(("id" = Uuid, Path), ("task" = Uuid, Path), ("min_seq" = Option<u64>, Query)),
    responses((status = 200, body = TaskDetails),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let min_seq = Params::only_min_seq(&uri)?;
    let place = known(&app, &caller, &swarm)?;
    let task: TaskId = id("task", &task)?;
    reading::until(&app, min_seq).await?;
    details(&app, place, task).await
}

/// Shows a task by its id alone.
#[utoipa::path(get, path = "/v1/tasks/{task}", tag = "tasks",
    params(("task" = Uuid, Path), ("min_seq" = Option<u64>, Query)),
    responses((status = 200, body = TaskDetails),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "Several swarms have a task with this id"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show_anywhere(
    State(app): State<Shared>,
    caller: Caller,
    Path(task): Path<String>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let min_seq = Params::only_min_seq(&uri)?;
    let task: TaskId = id("task", &task)?;
    reading::until(&app, min_seq).await?;
    let rows = reading::find(&app, || async {
        let rows = queries::tasks_by_id(&app.pool, caller.org, task).await?;
        Ok((!rows.is_empty()).then_some(rows))
    })
    .await?
    .unwrap_or_default();
    let mut rows = rows.into_iter();
    match (rows.next(), rows.next()) {
        (None, _) => Err(ApiProblem::unknown("task", task)),
        (Some(row), None) => {
            let place = Place::new(row.organization_id.into(), row.swarm_id.into());
            details(&app, place, task).await
        }
        (Some(first), Some(second)) => {
            let swarms: Vec<String> = [first, second]
                .into_iter()
                .chain(rows)
                .map(|row| row.swarm_id.to_string())
                .collect();
            let problem = Problem::new(
                "ambiguous-task",
                format!("{} swarms have a task {task}", swarms.len()),
            )
            .field("id")
            .cure("name the swarm: GET /v1/swarms/{id}/tasks/{task}");
            Err(ApiProblem::new(StatusCode::CONFLICT, problem).with("swarm_ids", swarms))
        }
    }
}

async fn details(app: &Shared, place: Place, task: TaskId) -> Answer<Reply> {
    let found = reading::find(app, || {
        queries::task_details(&app.pool, place.org, place.swarm, task)
    })
    .await?;
    let found = found.ok_or_else(|| ApiProblem::unknown("task", task))?;
    Ok(Reply::json(StatusCode::OK, &found))
}
