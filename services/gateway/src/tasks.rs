//! `/swarms/{id}/tasks` and `/tasks/{id}`: reading, cancelling, retrying. Handing in is in [`crate::submit`].

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use serde::{Deserialize, Serialize};
use swarm_events::{
    Body, Place, Problem, Subject, TaskId,
    command::{Cancel, Retry},
    subject::CommandVerb,
};
use swarm_projections::queries::{self, DependencyRow, TaskFilter, TaskRow};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    answer::Reply,
    app::Shared,
    auth::{Action, Caller, May},
    command::{self, Sending},
    fold::keyed::cancellation_of,
    idempotency::Key,
    json,
    params::{Params, id},
    problem::{Answer, ApiProblem, ProblemDocument},
    reading,
    swarms::{known, refusal, unexpected},
};

/// Longest reason of a cancellation, in bytes: a sentence or two.
pub const REASON_BYTES_MAX: usize = 1_000;

/// A page of tasks.
#[derive(Serialize, ToSchema)]
pub struct TaskPage {
    /// In the order of their submission.
    pub items: Vec<TaskRow>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

/// A task with what it waits for.
#[derive(Serialize, ToSchema)]
pub struct TaskAnswer {
    /// The columns of the read model.
    #[serde(flatten)]
    pub task: TaskRow,
    /// What it waits for, or waited for.
    pub depends_on: Vec<DependencyRow>,
}

/// A task after a command.
#[derive(Serialize, ToSchema)]
pub struct TaskState {
    /// The task.
    pub id: Uuid,
    /// Its swarm.
    pub swarm_id: Uuid,
    /// Its status.
    pub status: &'static str,
    /// The generation that ended or began.
    pub generation: u32,
}

/// Why a task is cancelled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelInput {
    /// At most 1,000 bytes.
    pub reason: Option<String>,
}

/// Lists a swarm's tasks in the order of their submission.
#[utoipa::path(get, path = "/v1/swarms/{id}/tasks", tag = "tasks",
    params(("id" = Uuid, Path), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query),
        ("min_seq" = Option<u64>, Query), ("status" = Option<String>, Query), ("task_type" = Option<String>, Query),
        ("dead_lettered" = Option<bool>, Query), ("graph_id" = Option<Uuid>, Query), ("agent_id" = Option<Uuid>, Query)),
    responses((status = 200, body = TaskPage),
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
        status: params.text("status"),
        task_type: params.text("task_type"),
        dead_lettered: params.value("dead_lettered", "give true or false")?,
        graph_id: params.value("graph_id", "give the id of a graph")?,
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

/// Shows a task of a swarm.
#[utoipa::path(get, path = "/v1/swarms/{id}/tasks/{task}", tag = "tasks",
    params(("id" = Uuid, Path), ("task" = Uuid, Path), ("min_seq" = Option<u64>, Query)),
    responses((status = 200, body = TaskAnswer),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let min_seq = only_min_seq(&uri)?;
    let place = known(&app, &caller, &swarm)?;
    let task: TaskId = id("task", &task)?;
    reading::until(&app, min_seq).await?;
    let row = reading::find(&app, || {
        queries::task(&app.pool, place.org, place.swarm, task)
    })
    .await?;
    whole(&app, row.ok_or_else(|| ApiProblem::unknown("task", task))?).await
}

/// Shows a task by its id alone.
#[utoipa::path(get, path = "/v1/tasks/{task}", tag = "tasks",
    params(("task" = Uuid, Path), ("min_seq" = Option<u64>, Query)),
    responses((status = 200, body = TaskAnswer),
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
    let min_seq = only_min_seq(&uri)?;
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
        (Some(row), None) => whole(&app, row).await,
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

fn only_min_seq(uri: &Uri) -> Answer<Option<u64>> {
    let mut params = Params::of(uri)?;
    let min_seq = params.min_seq()?;
    params.done()?;
    Ok(min_seq)
}

async fn whole(app: &Shared, task: TaskRow) -> Answer<Reply> {
    let (org, swarm, id) = (
        task.organization_id.into(),
        task.swarm_id.into(),
        TaskId(task.id),
    );
    let depends_on = queries::dependencies(&app.pool, org, swarm, id)
        .await
        .map_err(|error| reading::failed(app, error))?;
    Ok(Reply::json(
        StatusCode::OK,
        &TaskAnswer { task, depends_on },
    ))
}

/// Calls a task off. A running one is killed at its agent.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks/{task}/cancel", tag = "tasks", request_body = Option<CancelInput>,
    params(("id" = Uuid, Path), ("task" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = TaskState, headers(("swarm-seq" = u64))),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn cancel(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Operate)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let input: CancelInput = if bytes.trim_ascii().is_empty() {
        CancelInput::default()
    } else {
        json::read(&bytes)?
    };
    if input
        .reason
        .as_ref()
        .is_some_and(|reason| reason.len() > REASON_BYTES_MAX)
    {
        let detail = format!("has more than {REASON_BYTES_MAX} bytes");
        return Err(Problem::new("too-long", detail)
            .field("reason")
            .cure("shorten it")
            .into());
    }
    let place = known(&app, &caller, &swarm)?;
    let task: TaskId = id("task", &task)?;
    let route = format!("POST /v1/swarms/{}/tasks/{task}/cancel", place.swarm);
    let key = Key::of(&headers, caller.org, &route, &bytes)?;
    call_off(&app, place, task, input.reason, key).await
}

/// Calls a task off.
#[utoipa::path(delete, path = "/v1/swarms/{id}/tasks/{task}", tag = "tasks",
    params(("id" = Uuid, Path), ("task" = Uuid, Path)),
    responses((status = 202, body = TaskState, headers(("swarm-seq" = u64))),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn delete(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
) -> Answer<Reply> {
    caller.may(Action::Operate)?;
    let place = known(&app, &caller, &swarm)?;
    call_off(&app, place, id("task", &task)?, None, None).await
}

async fn call_off(
    app: &Shared,
    place: Place,
    task: TaskId,
    reason: Option<String>,
    key: Option<Key>,
) -> Answer<Reply> {
    let sending = Sending {
        subject: Subject::Command(place, CommandVerb::Cancel),
        id: key.as_ref().map_or_else(Uuid::now_v7, Key::own_id),
        about: task.0,
        body: Cancel {
            task_id: task,
            reason,
        }
        .into(),
        keyed: key.is_some(),
    };
    let outcome = command::send(app, sending, &[cancellation_of(place, task)]).await?;
    let Body::TaskCancelled(cancelled) = &outcome.event.body else {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    };
    let state = TaskState {
        id: task.0,
        swarm_id: place.swarm.0,
        status: "cancelled",
        generation: cancelled.generation,
    };
    Ok(Reply::json(StatusCode::ACCEPTED, &state)
        .sequence(outcome.sequence)
        .keyed(key.is_some()))
}

/// Gives a task that ended without a result another generation.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks/{task}/retry", tag = "tasks",
    params(("id" = Uuid, Path), ("task" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = TaskState, headers(("swarm-seq" = u64))),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn retry(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    caller.may(Action::Operate)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    if !bytes.trim_ascii().is_empty() {
        json::read::<Nothing>(&bytes)?;
    }
    let (place, _) = crate::swarms::open(&app, &caller, &swarm)?;
    let task: TaskId = id("task", &task)?;
    let route = format!("POST /v1/swarms/{}/tasks/{task}/retry", place.swarm);
    let key = Key::of(&headers, caller.org, &route, &bytes)?;
    let sending = Sending {
        subject: Subject::Command(place, CommandVerb::Retry),
        id: key.as_ref().map_or_else(Uuid::now_v7, Key::own_id),
        about: task.0,
        body: Retry { task_id: task }.into(),
        keyed: key.is_some(),
    };
    let outcome = command::send(&app, sending, &[]).await?;
    let Body::TaskRetried(retried) = &outcome.event.body else {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    };
    let state = TaskState {
        id: task.0,
        swarm_id: place.swarm.0,
        status: "queued",
        generation: retried.generation,
    };
    Ok(Reply::json(StatusCode::ACCEPTED, &state)
        .sequence(outcome.sequence)
        .keyed(key.is_some()))
}
