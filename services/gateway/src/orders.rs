//! Orders about tasks: cancel, retry and discard, one or many at a time, and a graph as a whole. Many are stored together and
//! awaited together, and each has its own outcome.

mod input;
#[cfg(test)]
mod tests;

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use serde::Serialize;
use swarm_events::{
    Body, GraphId, Place, Problem, Subject, TaskId,
    command::{Cancel, CancelGraph, Discard, Retry},
    subject::CommandVerb,
};
use utoipa::ToSchema;
use uuid::Uuid;

pub use input::{CancelInput, CancelManyInput, ManyInput, ORDERS_MAX};

use crate::{
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    command::{self, Sending},
    fold::{CANCELLED_GRAPH, keyed::cancellation_of, outcomes::Outcome},
    idempotency::Key,
    json,
    params::id,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::{known, open, refusal, unexpected},
};
use input::Target;

/// A task after an order.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"id": "0190f7a0-0000-7000-8000-000000000001", "swarm_id": "0190f7a0-0000-7000-8000-000000000002",
    "status": "queued", "generation": 2, "dead_lettered": false}))]
pub struct TaskState {
    /// The task.
    pub id: Uuid,
    /// Its swarm.
    pub swarm_id: Uuid,
    /// `cancelled` after a cancellation, `queued` after a retry, `failed` after it was discarded.
    pub status: &'static str,
    /// The generation that ended or began.
    pub generation: u32,
    /// False: no order leaves a dead letter behind.
    pub dead_lettered: bool,
}

/// What became of one order of many.
#[derive(Serialize, ToSchema)]
pub struct OrderItem {
    /// The task.
    pub id: Uuid,
    /// Its status, as after a single order; absent if the order was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    /// The generation that ended or began; absent if the order was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Why it was refused; absent if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProblemDocument>,
}

/// What became of many orders.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"items": [
    {"id": "0190f7a0-0000-7000-8000-000000000001", "status": "cancelled", "generation": 1},
    {"id": "0190f7a0-0000-7000-8000-000000000002", "problem": {"type": "urn:swarm:problem:task-ended", "title": "Task ended",
        "status": 409, "code": "task-ended", "detail": "the task has ended", "field": "task_id", "cure": "nothing is to be done"}}]}))]
pub struct OrdersAnswer {
    /// One for each task, in the order of the request.
    pub items: Vec<OrderItem>,
}

/// A graph that is called off.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"graph_id": "0190f7a0-0000-7000-8000-000000000003", "tasks": 42}))]
pub struct CancelledGraph {
    /// The graph.
    pub graph_id: Uuid,
    /// How many of its tasks had not ended: each is cancelled now. 0 if it was called off before it was accepted.
    pub tasks: u32,
}

/// What `POST …/tasks/cancel` answers.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum CancelManyAnswer {
    /// Tasks.
    Tasks(OrdersAnswer),
    /// A graph.
    Graph(CancelledGraph),
}

/// What is to be done about tasks.
#[derive(Clone, Debug)]
enum Order {
    Cancel(Option<String>),
    Retry,
    Discard,
}

impl Order {
    const fn word(&self) -> &'static str {
        match self {
            Self::Cancel(_) => "cancel",
            Self::Retry => "retry",
            Self::Discard => "discard",
        }
    }

    fn sending(
        &self,
        place: Place,
        task: TaskId,
        key: Option<Uuid>,
        request: Option<Uuid>,
    ) -> Sending {
        let task_id = task;
        let (verb, body, also) = match self {
            Self::Cancel(reason) => {
                let reason = reason.clone();
                // One that reaches a running agent comes by way of a withdrawal.
                let also = Some(cancellation_of(place, task));
                (CommandVerb::Cancel, Cancel { task_id, reason }.into(), also)
            }
            Self::Retry => (CommandVerb::Retry, Retry { task_id }.into(), None),
            Self::Discard => (CommandVerb::Discard, Discard { task_id }.into(), None),
        };
        Sending {
            subject: Subject::Command(place, verb),
            id: key.unwrap_or_else(Uuid::now_v7),
            about: task.0,
            body,
            keyed: key.is_some(),
            request,
            also,
        }
    }

    /// What the outcome says of the task.
    fn state(&self, place: Place, task: TaskId, outcome: &Outcome) -> Answer<TaskState> {
        let (status, generation) = match (self, &outcome.event.body) {
            (Self::Cancel(_), Body::TaskCancelled(cancelled)) => {
                ("cancelled", cancelled.generation)
            }
            (Self::Retry, Body::TaskRetried(retried)) => ("queued", retried.generation),
            (Self::Discard, Body::TaskDiscarded(discarded)) => ("failed", discarded.generation),
            _ => return Err(refusal(outcome).unwrap_or_else(|| unexpected(outcome))),
        };
        Ok(TaskState {
            id: task.0,
            swarm_id: place.swarm.0,
            status,
            generation,
            dead_lettered: false,
        })
    }
}

/// Calls a task off. A running one is killed at its agent.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks/{task}/cancel", tag = "tasks", request_body = Option<CancelInput>,
    params(("id" = Uuid, Path), ("task" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = TaskState, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn cancel(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Direct)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let order = Order::Cancel(CancelInput::read(&bytes)?);
    let place = known(&app, &caller, &swarm)?;
    one(&app, &caller, place, order, &task, &headers, &bytes).await
}

/// Calls a task off.
#[utoipa::path(delete, path = "/v1/swarms/{id}/tasks/{task}", tag = "tasks",
    params(("id" = Uuid, Path), ("task" = Uuid, Path)),
    responses((status = 202, body = TaskState, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn delete(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
) -> Answer<Reply> {
    caller.may(Action::Direct)?;
    let place = known(&app, &caller, &swarm)?;
    let none = HeaderMap::new();
    one(&app, &caller, place, Order::Cancel(None), &task, &none, b"").await
}

/// Gives a task that ended without a result another generation.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks/{task}/retry", tag = "tasks",
    params(("id" = Uuid, Path), ("task" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = TaskState, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn retry(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Direct)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    input::nothing(&bytes)?;
    let (place, _) = open(&app, &caller, &swarm)?;
    one(&app, &caller, place, Order::Retry, &task, &headers, &bytes).await
}

/// Puts a dead letter away for good: it stays failed, and cannot be retried any more.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks/{task}/discard", tag = "tasks",
    params(("id" = Uuid, Path), ("task" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = TaskState, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It is no dead letter"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn discard(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, task)): Path<(String, String)>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Direct)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    input::nothing(&bytes)?;
    let place = known(&app, &caller, &swarm)?;
    one(
        &app,
        &caller,
        place,
        Order::Discard,
        &task,
        &headers,
        &bytes,
    )
    .await
}

async fn one(
    app: &App,
    caller: &Caller,
    place: Place,
    order: Order,
    task: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Answer<Reply> {
    let task: TaskId = id("task", task)?;
    let (swarm, word) = (place.swarm, order.word());
    let route = format!("POST /v1/swarms/{swarm}/tasks/{task}/{word}");
    let key = Key::of(headers, caller.org, &route, body)?;
    let sending = order.sending(place, task, key.as_ref().map(Key::own_id), None);
    let outcome = command::send(app, sending).await?;
    let state = order.state(place, task, &outcome)?;
    Ok(Reply::json(StatusCode::ACCEPTED, &state)
        .sequence(outcome.sequence)
        .keyed(key.is_some()))
}

/// Calls many tasks off, each with its own outcome; or what has not ended of a graph, as a whole.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks/cancel", tag = "tasks", request_body = CancelManyInput,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = inline(CancelManyAnswer), headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json", description = "Unknown swarm, or nothing of the graph lives"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json", description = "`unknown_ids` names the tasks whose outcome is not known yet, `items` holds the others'")))]
pub async fn cancel_many(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Direct)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let (target, reason) = CancelManyInput::read(&bytes)?;
    let place = known(&app, &caller, &swarm)?;
    let key = key_of_many(&headers, &caller, place, "cancel", &bytes)?;
    match target {
        Target::Tasks(tasks) => many(&app, place, Order::Cancel(reason), tasks, key).await,
        Target::Graph(graph) => whole_graph(&app, place, graph, reason, key).await,
    }
}

/// Gives many tasks that ended without a result another generation, each with its own outcome.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks/retry", tag = "tasks", request_body = ManyInput,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = OrdersAnswer, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json", description = "`unknown_ids` names the tasks whose outcome is not known yet, `items` holds the others'")))]
pub async fn retry_many(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Direct)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let tasks = ManyInput::read(&bytes)?;
    let (place, _) = open(&app, &caller, &swarm)?;
    let key = key_of_many(&headers, &caller, place, "retry", &bytes)?;
    many(&app, place, Order::Retry, tasks, key).await
}

/// Puts many dead letters away for good, each with its own outcome.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks/discard", tag = "tasks", request_body = ManyInput,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = OrdersAnswer, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json", description = "`unknown_ids` names the tasks whose outcome is not known yet, `items` holds the others'")))]
pub async fn discard_many(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Direct)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let tasks = ManyInput::read(&bytes)?;
    let place = known(&app, &caller, &swarm)?;
    let key = key_of_many(&headers, &caller, place, "discard", &bytes)?;
    many(&app, place, Order::Discard, tasks, key).await
}

fn key_of_many(
    headers: &HeaderMap,
    caller: &Caller,
    place: Place,
    word: &str,
    body: &[u8],
) -> Answer<Option<Key>> {
    let route = format!("POST /v1/swarms/{}/tasks/{word}", place.swarm);
    Key::of(headers, caller.org, &route, body)
}

async fn many(
    app: &App,
    place: Place,
    order: Order,
    tasks: Vec<TaskId>,
    key: Option<Key>,
) -> Answer<Reply> {
    let request = key.as_ref().map_or_else(Uuid::now_v7, Key::request_id);
    let numbered = (0..).zip(&tasks);
    let sendings = numbered.map(|(at, task)| {
        let key = key.as_ref().map(|key| key.id(at));
        order.sending(place, *task, key, Some(request))
    });
    let answers = command::send_all(app, sendings.collect()).await?;
    let sequence = answers
        .iter()
        .filter_map(|answer| Some(answer.as_ref().ok()?.sequence))
        .max();
    let (mut items, mut unknown) = (Vec::with_capacity(tasks.len()), Vec::new());
    for (task, answer) in tasks.into_iter().zip(answers) {
        let state = answer.and_then(|outcome| order.state(place, task, &outcome));
        if state.as_ref().is_err_and(command::is_unknown) {
            unknown.push(task.to_string());
        }
        items.push(match state {
            Ok(state) => OrderItem {
                id: task.0,
                status: Some(state.status),
                generation: Some(state.generation),
                problem: None,
            },
            Err(problem) => OrderItem {
                id: task.0,
                status: None,
                generation: None,
                problem: Some(problem.document()),
            },
        });
    }
    let answer = OrdersAnswer { items };
    if !unknown.is_empty() {
        return Err(not_all_known(&answer, unknown));
    }
    let mut reply = Reply::json(StatusCode::OK, &answer).keyed(key.is_some());
    if let Some(sequence) = sequence {
        reply = reply.sequence(sequence);
    }
    Ok(reply)
}

/// 504 that names the tasks whose outcome is not known, beside what is known of the others.
fn not_all_known(answer: &OrdersAnswer, unknown: Vec<String>) -> ApiProblem {
    let (open, all) = (unknown.len(), answer.items.len());
    let detail = format!("of {all} orders {open} have no outcome yet");
    let problem = Problem::new("no-answer-yet", detail)
        .field("task_ids")
        .cure("they will be answered once the service runs again: read the tasks later, or repeat the request with the same Idempotency-Key");
    let items = serde_json::to_value(&answer.items).unwrap_or_default();
    ApiProblem::new(StatusCode::GATEWAY_TIMEOUT, problem)
        .with("unknown_ids", unknown)
        .with("items", items)
}

async fn whole_graph(
    app: &App,
    place: Place,
    graph: GraphId,
    reason: Option<String>,
    key: Option<Key>,
) -> Answer<Reply> {
    let order = CancelGraph {
        graph_id: graph,
        reason,
    };
    let subject = Subject::Command(place, CommandVerb::CancelGraph);
    let sending = Sending::new(subject, graph.0, order)
        .keyed(key.as_ref())
        .of_request(key.as_ref());
    let outcome = command::send(app, sending).await?;
    let tasks = match &outcome.event.body {
        Body::TaskGraphCancelled(cancelled) => cancelled.tasks,
        Body::TaskGraphRejected(rejected) if rejected.problem.code == CANCELLED_GRAPH => 0,
        _ => return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome))),
    };
    let answer = CancelledGraph {
        graph_id: graph.0,
        tasks,
    };
    Ok(Reply::json(StatusCode::OK, &answer)
        .sequence(outcome.sequence)
        .keyed(key.is_some()))
}
