//! `/swarms/{id}/tasks/{task}/explain` and `/tasks/{task}/explain`: why this agent, or why it still waits and what would
//! change that.
//!
//! The answer is the distributor core's, from a fold of the task's partition that the gateway keeps for a while
//! ([`followers`]), as of the log's end at the request; PostgreSQL is not needed for it. What was said when a task was
//! assigned or ended is read from the log where it stands ([`assignment`], [`answer`]).

pub mod answer;
pub mod assignment;
mod follower;
pub mod followers;
mod lookup;

use std::time::Instant;

use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
};
use swarm_events::{Place, Problem, TaskId};

use crate::{
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    command::unread,
    params::{Params, id},
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::known,
};
use answer::TaskExplanation;

/// Explains where a task of a swarm stands: why this agent, or why it still waits and what would change that.
#[utoipa::path(get, path = "/v1/swarms/{id}/tasks/{task}/explain", tag = "tasks",
    params(("id" = Uuid, Path), ("task" = Uuid, Path), ("min_seq" = Option<u64>, Query)),
    responses((status = 200, body = crate::openapi::TaskExplanation),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json", description = "The partition's tasks are still being read; ask again")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let min_seq = min_seq(&uri)?;
    let place = known(&app, &caller, &swarm)?;
    let task: TaskId = id("task", &task)?;
    reached(&app, min_seq).await?;
    let explained = explain(&app, place, task).await?;
    let answer = match explained {
        Some(answer) => answer,
        None => answer::forgotten(&app, place, task).await?,
    };
    Ok(Reply::json(StatusCode::OK, &answer))
}

/// Explains where a task stands by its id alone.
#[utoipa::path(get, path = "/v1/tasks/{task}/explain", tag = "tasks",
    params(("task" = Uuid, Path), ("min_seq" = Option<u64>, Query)),
    responses((status = 200, body = crate::openapi::TaskExplanation),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "Several swarms have a task with this id"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json", description = "The partition's tasks are still being read; ask again")))]
pub async fn show_anywhere(
    State(app): State<Shared>,
    caller: Caller,
    Path(task): Path<String>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let min_seq = min_seq(&uri)?;
    let task: TaskId = id("task", &task)?;
    reached(&app, min_seq).await?;
    let places = lookup::places(&app, &caller, task).await?;
    let place = match places.as_slice() {
        [] => return Err(answer::unknown(&app, task)),
        [one] => *one,
        several => {
            let swarms: Vec<String> = several.iter().map(|p| p.swarm.to_string()).collect();
            let problem = Problem::new(
                "ambiguous-task",
                format!("{} swarms have a task {task}", swarms.len()),
            )
            .field("id")
            .cure("name the swarm: GET /v1/swarms/{id}/tasks/{task}/explain");
            return Err(ApiProblem::new(StatusCode::CONFLICT, problem).with("swarm_ids", swarms));
        }
    };
    let explained = explain(&app, place, task).await?;
    let answer = match explained {
        Some(answer) => answer,
        None => answer::forgotten(&app, place, task).await?,
    };
    Ok(Reply::json(StatusCode::OK, &answer))
}

fn min_seq(uri: &Uri) -> Answer<Option<u64>> {
    let mut params = Params::of(uri)?;
    let min_seq = params.min_seq()?;
    params.done()?;
    Ok(min_seq)
}

/// Every answer reflects the log up to its end at the request, so that a write whose sequence is asked for is seen if only
/// the log has it.
async fn reached(app: &App, min_seq: Option<u64>) -> Answer<()> {
    let Some(wanted) = min_seq else {
        return Ok(());
    };
    let info = app.log.info().await.map_err(|error| unread(&error))?;
    if wanted <= info.last_sequence {
        return Ok(());
    }
    let detail = format!(
        "the log ends at sequence {}, before {wanted}",
        info.last_sequence
    );
    let cure =
        "give ?min_seq= the swarm-seq of a write to this installation, or ask again in a moment";
    Err(ApiProblem::unavailable("log-behind", detail, cure)
        .with("reached_seq", info.last_sequence)
        .with("wanted_seq", wanted))
}

/// What the fold says, with what the log says of its assignment; `None` if the fold does not know the task.
async fn explain(app: &Shared, place: Place, task: TaskId) -> Answer<Option<TaskExplanation>> {
    let started = Instant::now();
    let tasks = app.explain.caught_up(&app.log, place.partition).await?;
    let Some(explanation) = tasks.explain(place, task) else {
        return Ok(None);
    };
    let answer = answer::complete(app, place, explanation).await?;
    metrics::histogram!("swarm_gateway_explain_seconds").record(started.elapsed().as_secs_f64());
    Ok(Some(answer))
}
