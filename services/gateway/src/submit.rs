//! `POST /swarms/{id}/tasks`: one task, stored and answered at once; or a graph, answered with the distributor's outcome.

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use serde::Serialize;
use swarm_events::{
    Body, Event, EventId, GraphId, Place, Subject, TaskId,
    configuration::Configuration,
    subject::TaskVerb,
    task::{Dependency, Submitted},
    topology::Role,
};
use swarm_log::Message;
use swarm_projections::queries;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    admission::{self, RETRY_AFTER_SECONDS},
    answer::Reply,
    app::{App, OUTCOME_TIMEOUT, Shared},
    auth::{Action, Caller, May},
    command::{event_at, first_of, message, refused, store, store_one},
    fold::outcomes::Outcome,
    idempotency::{self, Key},
    json,
    problem::{Answer, ApiProblem, ProblemDocument},
    reading,
    submission::{self, Plan, Submission},
    swarms::{open, unexpected},
};

/// Tasks of one request that are handed to the log at a time: a few of its batches, so that other writers get their turn.
pub(crate) const PARTS_AT_A_TIME: usize = 250;
/// Bodies from this size on are read and checked beside the threads that serve: the largest ones take some hundred
/// milliseconds, and this one takes about as long as handing it over and back.
const ASIDE_FROM_BYTES: usize = 64 * 1024;

/// A task that was taken.
#[derive(Serialize, ToSchema)]
pub struct TaskAccepted {
    /// The task.
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// Its swarm.
    pub swarm_id: Uuid,
    /// Its graph, if it came with others or names others.
    pub graph_id: Option<Uuid>,
    /// The name under which the submission knew it.
    pub key: Option<String>,
    /// The task that it is a part of.
    pub parent_task_id: Option<Uuid>,
    /// What kind of work.
    pub task_type: String,
    /// 1 to 10.
    pub priority: u8,
    /// What an agent must have.
    pub required_capabilities: Vec<String>,
    /// `queued`, or `pending` if it waits for other tasks.
    pub status: &'static str,
    /// No attempt yet.
    pub attempt_count: u32,
    /// Attempts at the most.
    pub max_attempts: u32,
    /// Run limit of an attempt in milliseconds.
    pub timeout_ms: u64,
    /// How long it may wait from when it is queued to its start, in milliseconds; 0: for ever.
    pub queue_timeout_ms: u64,
    /// How long an attempt may go without progress, in milliseconds; 0: up to its run limit.
    pub progress_timeout_ms: u64,
    /// Tasks with the same key like the same agent.
    pub affinity_key: Option<String>,
    /// What must come first.
    #[schema(value_type = Vec<crate::openapi::Dependency>)]
    pub depends_on: Vec<Dependency>,
    /// Only an agent with this role takes it.
    #[schema(value_type = Option<String>)]
    pub required_role: Option<Role>,
    /// The swarm that is to do it.
    pub hand_to: Option<Uuid>,
}

/// The tasks of a graph that was taken, in the order in which they came.
#[derive(Serialize, ToSchema)]
pub struct GraphAccepted {
    /// The tasks.
    pub items: Vec<TaskAccepted>,
    /// The graph.
    pub graph_id: Uuid,
}

/// Hands in one task or, as `{"tasks": […]}`, several that may name each other by key. A task alone is answered when it is
/// stored; tasks that name others, when the distributor has accepted or rejected them.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks", tag = "tasks",
    request_body(content = inline(crate::openapi::SubmissionInput)),
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key is the same submission, for as long as swarm-key-remembered-ms says")),
    responses((status = 202, body = inline(crate::openapi::SubmissionAnswer), headers(("swarm-seq" = u64), ("Location" = String))),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, body = ProblemDocument, content_type = "application/problem+json", headers(("Retry-After" = u64))),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn submit(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Submit)?;
    // Before megabytes are read for a swarm that takes none.
    let (place, configuration) = open(&app, &caller, &swarm)?;
    let bytes = json::whole(body, json::SUBMISSION_BYTES_MAX).await?;
    let route = format!("POST /v1/swarms/{}/tasks", place.swarm);
    let planning = {
        let (headers, org) = (headers, caller.org);
        move |bytes: &[u8]| {
            let submission = Submission::read(bytes)?;
            let key = Key::of(&headers, org, &route, bytes)?;
            let graph = GraphId(key.as_ref().map_or_else(Uuid::now_v7, Key::own_id));
            let id_of = |at: u64| key.as_ref().map_or_else(Uuid::now_v7, |key| key.id(at));
            let body_sha256 = key.as_ref().map(|key| key.body_sha256.as_str());
            let plan = submission::plan(submission, id_of, graph, body_sha256)?;
            Ok((plan, key))
        }
    };
    let (plan, key) = aside(bytes, planning).await?;
    check_hand_overs(&app, place, &plan.tasks, plan.many)?;
    let sequence = match &key {
        // A repeat is answered as the first time, whatever has become of the queue since.
        Some(key) => match earlier(&app, place, key, &plan).await? {
            Some(sequence) => sequence,
            None => take(&app, place, &configuration, &plan, Some(key)).await?,
        },
        None => take(&app, place, &configuration, &plan, None).await?,
    };
    Ok(reply(place, &configuration, plan, sequence).keyed(key.is_some()))
}

/// As [`submission::check_hand_overs`], with the swarms of the organization.
pub(crate) fn check_hand_overs(
    app: &App,
    place: Place,
    tasks: &[(TaskId, Submitted)],
    many: bool,
) -> Answer<()> {
    let fold = app.fold.read();
    let known = |swarm| fold.swarm(place.org, swarm).is_some();
    submission::check_hand_overs(tasks, many, place.swarm, known)
}

/// Reads and checks a body, a large one on a thread of its own.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: Bytes,
    work: impl FnOnce(&[u8]) -> Answer<T> + Send + 'static,
) -> Answer<T> {
    if bytes.len() < ASIDE_FROM_BYTES {
        return work(&bytes);
    }
    match tokio::task::spawn_blocking(move || work(&bytes)).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process stops.
            Err(_) => Err(ApiProblem::unavailable(
                "stopping",
                "the gateway stops",
                "ask another gateway, or this one when it is back",
            )),
        },
    }
}

/// Admission, then storing.
async fn take(
    app: &App,
    place: Place,
    configuration: &Configuration,
    plan: &Plan,
    key: Option<&Key>,
) -> Answer<u64> {
    let priorities = plan.tasks.iter().map(|(_, task)| task.priority);
    let let_in = admission::admit(app, place, configuration, priorities)?;
    let sequence = match plan.graph {
        None => one(app, place, plan, key).await?,
        Some(graph) => all(app, place, plan, graph, key).await?,
    };
    let_in.stored(sequence);
    Ok(sequence)
}

pub(crate) fn part(
    app: &App,
    place: Place,
    id: TaskId,
    task: &Submitted,
    graph: Option<GraphId>,
) -> Answer<Message> {
    let subject = Subject::Task(place, TaskVerb::Submitted, None);
    let mut event = Event::new(
        EventId(id.0),
        app.source.clone(),
        App::now(),
        &subject,
        id.0,
        task.clone(),
    );
    event.correlation = Some(graph.map_or(id.0, |graph| graph.0));
    message(&subject, &event)
}

/// Stores a plain task.
async fn one(app: &App, place: Place, plan: &Plan, key: Option<&Key>) -> Answer<u64> {
    let (id, task) = &plan.tasks[0];
    let stored = store_one(app, part(app, place, *id, task, None)?).await?;
    if stored.duplicate {
        check_same(app, stored.sequence, key).await?;
    }
    Ok(stored.sequence)
}

/// Stores a graph and waits for its acceptance.
async fn all(
    app: &App,
    place: Place,
    plan: &Plan,
    graph: GraphId,
    key: Option<&Key>,
) -> Answer<u64> {
    let mut waiting = [app.fold.wait(graph.0)];
    let mut last = 0;
    let mut rest = plan.tasks.as_slice();
    if key.is_some()
        && let Some(((id, task), others)) = rest.split_first()
    {
        // Alone, so that nothing else of a body under a used key is stored.
        let stored = store_one(app, part(app, place, *id, task, Some(graph))?).await?;
        if stored.duplicate {
            check_same(app, stored.sequence, key).await?;
        }
        (last, rest) = (stored.sequence, others);
    }
    for chunk in rest.chunks(PARTS_AT_A_TIME) {
        let parts = chunk
            .iter()
            .map(|(id, task)| part(app, place, *id, task, Some(graph)));
        for outcome in store(app, parts.collect::<Answer<_>>()?).await {
            let stored = outcome.map_err(|error| refused(&error).with("id", graph.to_string()))?;
            last = last.max(stored.sequence);
        }
    }
    // Nobody can decide on it before its last part is stored.
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    let known = app.fold.read().keyed(graph.0).outcome;
    let outcome = match known {
        Some(sequence) => outcome_at(app, sequence).await?,
        None => first_of(&mut waiting, deadline, graph.0, last).await?,
    };
    accepted(&outcome, place, plan)
}

async fn outcome_at(app: &App, sequence: u64) -> Answer<Outcome> {
    let found = event_at(app, sequence).await?;
    found.map(Outcome::new).ok_or_else(|| {
        ApiProblem::unavailable(
            "log-gap",
            format!("the event at {sequence} is gone"),
            "list the swarm's tasks instead",
        )
    })
}

/// What the distributor said of the graph.
fn accepted(outcome: &Outcome, place: Place, plan: &Plan) -> Answer<u64> {
    match &outcome.event.body {
        _ if outcome.subject.place() != Some(place) => Err(unexpected(outcome)),
        Body::TaskGraphAccepted(_) => Ok(outcome.sequence),
        Body::TaskGraphRejected(rejected) => {
            let mut problem = rejected.problem.clone();
            let at = rejected
                .task_id
                .and_then(|task| plan.tasks.iter().position(|(id, _)| *id == task));
            problem.field = field_in(plan.many, at, problem.field);
            let mut refused = ApiProblem::decided(problem).with("seq", outcome.sequence);
            match refused.status {
                StatusCode::TOO_MANY_REQUESTS => refused = refused.retry_after(RETRY_AFTER_SECONDS),
                // It is about the content that came, not about the address.
                StatusCode::NOT_FOUND => refused.status = StatusCode::UNPROCESSABLE_ENTITY,
                _ => {}
            }
            Err(refused)
        }
        _ => Err(unexpected(outcome)),
    }
}

/// A field of the graph's task number `at` as a path in the body that came.
fn field_in(many: bool, at: Option<usize>, field: Option<String>) -> Option<String> {
    let prefix = at.map(|at| format!("tasks[{at}]"));
    match (many, prefix, field) {
        (false, Some(prefix), Some(field)) => Some(
            field
                .strip_prefix(&format!("{prefix}."))
                .map_or_else(|| field.clone(), str::to_owned),
        ),
        (true, Some(prefix), Some(field)) if !field.starts_with("tasks") => {
            Some(format!("{prefix}.{field}"))
        }
        (true, Some(prefix), None) => Some(prefix),
        (_, _, field) => field,
    }
}

/// What a submission under this key became before: beyond the server's window for duplicates the read model knows. With
/// PostgreSQL down it is stored again, which the distributor finds to be a repeat (or refuses, if the body differs).
async fn earlier(app: &App, place: Place, key: &Key, plan: &Plan) -> Answer<Option<u64>> {
    if reading::answering(app).is_err() {
        return Ok(None);
    }
    let Ok(Some(row)) = queries::task(&app.pool, place.org, place.swarm, plan.tasks[0].0).await
    else {
        return Ok(None);
    };
    if row.body_sha256.as_ref() != Some(&key.body_sha256) {
        return Err(idempotency::reused());
    }
    let Some(graph) = plan.graph else {
        return Ok(Some(u64::try_from(row.submitted_seq).unwrap_or(0)));
    };
    let known = app.fold.read().keyed(graph.0).outcome;
    match known {
        Some(sequence) => accepted(&outcome_at(app, sequence).await?, place, plan).map(Some),
        // Its parts are not all there, or it is not decided yet: sending them again does no harm.
        None => Ok(None),
    }
}

/// What is stored under the id of this submission's first task must be the same submission.
pub(crate) async fn check_same(app: &App, sequence: u64, key: Option<&Key>) -> Answer<()> {
    // Without a key the id is random: only an own resend can be its duplicate.
    let Some(key) = key else { return Ok(()) };
    let stored = event_at(app, sequence).await?;
    let same = stored.is_some_and(|stored| {
        matches!(&stored.event.body, Body::TaskSubmitted(task) if task.body_sha256.as_ref() == Some(&key.body_sha256))
    });
    if same {
        Ok(())
    } else {
        Err(idempotency::reused())
    }
}

fn reply(place: Place, configuration: &Configuration, plan: Plan, sequence: u64) -> Reply {
    let base = format!("/v1/swarms/{}/tasks", place.swarm);
    let graph = plan.graph;
    let mut items = plan
        .tasks
        .into_iter()
        .map(|(id, task)| taken(place, configuration, graph, id, task));
    if !plan.many
        && let Some(task) = items.next()
    {
        let location = format!("{base}/{}", task.id);
        return Reply::json(StatusCode::ACCEPTED, &task)
            .sequence(sequence)
            .location(&location);
    }
    let graph_id = graph.map_or_else(Uuid::nil, |graph| graph.0);
    let body = GraphAccepted {
        items: items.collect(),
        graph_id,
    };
    Reply::json(StatusCode::ACCEPTED, &body)
        .sequence(sequence)
        .location(&format!("{base}?graph_id={graph_id}"))
}

fn taken(
    place: Place,
    configuration: &Configuration,
    graph: Option<GraphId>,
    id: TaskId,
    task: Submitted,
) -> TaskAccepted {
    TaskAccepted {
        id: id.0,
        organization_id: place.org.0,
        swarm_id: place.swarm.0,
        graph_id: graph.map(|graph| graph.0),
        key: task.key,
        parent_task_id: task.parent_task_id.map(|task| task.0),
        task_type: task.task_type,
        priority: task.priority,
        required_capabilities: task.required_capabilities,
        status: if task.depends_on.is_empty() {
            "queued"
        } else {
            "pending"
        },
        attempt_count: 0,
        max_attempts: task.max_attempts.unwrap_or(configuration.max_attempts),
        timeout_ms: task.timeout_ms.unwrap_or(configuration.task_timeout_ms),
        queue_timeout_ms: task
            .queue_timeout_ms
            .unwrap_or(configuration.queue_timeout_ms),
        progress_timeout_ms: task
            .progress_timeout_ms
            .unwrap_or(configuration.progress_timeout_ms),
        affinity_key: task.affinity_key,
        depends_on: task.depends_on,
        required_role: task.required_role,
        hand_to: task.hand_to.map(|swarm| swarm.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distributors_fields_are_paths_in_the_body() {
        let field =
            |many, at, field: &str| field_in(many, at, Some(field.to_owned())).unwrap_or_default();
        assert_eq!(field(true, Some(3), "priority"), "tasks[3].priority");
        assert_eq!(
            field(true, Some(3), "tasks[3].depends_on[0].task_id"),
            "tasks[3].depends_on[0].task_id"
        );
        assert_eq!(
            field(false, Some(0), "tasks[0].depends_on[0].task_id"),
            "depends_on[0].task_id"
        );
        assert_eq!(field(false, Some(0), "parent_task_id"), "parent_task_id");
        assert_eq!(field(true, None, "tasks"), "tasks");
        assert_eq!(field_in(true, Some(2), None).as_deref(), Some("tasks[2]"));
        assert_eq!(field_in(false, Some(0), None), None);
    }
}
