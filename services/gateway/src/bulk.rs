//! `POST /swarms/{id}/tasks/bulk`: many independent tasks, checked and admitted as a whole, stored together.

use std::collections::BTreeMap;

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use serde::Serialize;
use swarm_events::{Place, TaskId, configuration::Configuration, task::Submitted};
use swarm_log::AppendError;
use swarm_projections::queries;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    admission,
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    command::{refused, store},
    idempotency::{self, Key},
    json,
    problem::{Answer, ProblemDocument},
    reading,
    submission::{self, BulkInput},
    submit::{PARTS_AT_A_TIME, aside, check_hand_overs, check_same, part},
    swarms::open,
};

/// A task that was taken in bulk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BulkItem {
    /// The task.
    pub id: Uuid,
    /// `queued`. In a refusal midway also `not_stored`, or `unknown` if the log did not say.
    pub status: &'static str,
}

/// The tasks that were taken in bulk, in the order in which they came.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"items": [{"id": "0190f7a0-0000-7000-8000-000000000001", "status": "queued"}]}))]
pub struct BulkAnswer {
    /// The tasks.
    pub items: Vec<BulkItem>,
}

const QUEUED: &str = "queued";
const NOT_STORED: &str = "not_stored";
const UNKNOWN: &str = "unknown";

/// Hands in many independent tasks: checked as a whole, then stored one by one, so that a failure midway says which are stored.
/// A body of at most 32 MiB.
#[utoipa::path(post, path = "/v1/swarms/{id}/tasks/bulk", tag = "tasks", request_body = BulkInput,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key is the same submission, for as long as swarm-key-remembered-ms says; one that broke off is completed")),
    responses((status = 202, body = BulkAnswer, headers(("swarm-seq" = u64))),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, body = ProblemDocument, content_type = "application/problem+json", headers(("Retry-After" = u64))),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json", description = "`items` says which tasks are stored"),
        (status = 507, body = ProblemDocument, content_type = "application/problem+json", description = "`items` says which tasks are stored")))]
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
    let route = format!("POST /v1/swarms/{}/tasks/bulk", place.swarm);
    let (tasks, key) = aside(bytes, move |bytes| {
        let input: BulkInput = json::read(bytes)?;
        let key = Key::of(&headers, caller.org, &route, bytes)?;
        let id_of = |at: u64| key.as_ref().map_or_else(Uuid::now_v7, |key| key.id(at));
        let body_sha256 = key.as_ref().map(|key| key.body_sha256.as_str());
        Ok((submission::plan_bulk(input, id_of, body_sha256)?, key))
    })
    .await?;
    check_hand_overs(&app, place, &tasks, true)?;
    let stored = match &key {
        Some(key) => earlier(&app, place, key, &tasks).await?,
        None => BTreeMap::new(),
    };
    let sequence = take(&app, place, &configuration, &tasks, key.as_ref(), &stored).await?;
    let items = tasks
        .iter()
        .map(|(id, _)| BulkItem {
            id: id.0,
            status: QUEUED,
        })
        .collect();
    Ok(Reply::json(StatusCode::ACCEPTED, &BulkAnswer { items })
        .sequence(sequence)
        .keyed(key.is_some()))
}

/// What of these tasks is stored already, with its sequence: a repeat stores the rest. With PostgreSQL down all of it is stored
/// again, which the distributor finds to be repeats.
async fn earlier(
    app: &App,
    place: Place,
    key: &Key,
    tasks: &[(TaskId, Submitted)],
) -> Answer<BTreeMap<TaskId, u64>> {
    if reading::answering(app).is_err() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<TaskId> = tasks.iter().map(|(id, _)| *id).collect();
    let Ok(rows) = queries::submitted(&app.pool, place.org, place.swarm, &ids).await else {
        return Ok(BTreeMap::new());
    };
    let other = rows
        .iter()
        .any(|row| row.body_sha256.as_ref() != Some(&key.body_sha256));
    if other {
        return Err(idempotency::reused());
    }
    let sequence = |sequence: i64| u64::try_from(sequence).unwrap_or(0);
    let stored = rows.into_iter();
    Ok(stored
        .map(|row| (TaskId(row.id), sequence(row.submitted_seq)))
        .collect())
}

/// Admission of what is not stored yet, then storing. Answers with the last sequence.
async fn take(
    app: &App,
    place: Place,
    configuration: &Configuration,
    tasks: &[(TaskId, Submitted)],
    key: Option<&Key>,
    stored: &BTreeMap<TaskId, u64>,
) -> Answer<u64> {
    let new: Vec<&(TaskId, Submitted)> = tasks
        .iter()
        .filter(|(id, _)| !stored.contains_key(id))
        .collect();
    let before = stored.values().max().copied().unwrap_or(0);
    if new.is_empty() {
        return Ok(before);
    }
    let priorities = new.iter().map(|(_, task)| task.priority);
    let let_in = admission::admit(app, place, configuration, priorities)?;
    let mut progress = Progress {
        last: before,
        done: stored.keys().map(|id| (*id, QUEUED)).collect(),
    };
    // The first of a keyed submission goes alone, so that nothing else of a body under a used key is stored.
    let alone = usize::from(key.is_some());
    let (first, rest) = new.split_at(alone);
    for chunk in std::iter::once(first).chain(rest.chunks(PARTS_AT_A_TIME)) {
        let messages = chunk
            .iter()
            .map(|(id, task)| part(app, place, *id, task, None))
            .collect::<Answer<Vec<_>>>()?;
        if messages.is_empty() {
            continue;
        }
        let mut failure = None;
        for ((id, _), outcome) in chunk.iter().zip(store(app, messages).await) {
            let status = match outcome {
                Ok(stored) => {
                    progress.last = progress.last.max(stored.sequence);
                    if stored.duplicate && alone == chunk.len() {
                        check_same(app, stored.sequence, key).await?;
                    }
                    QUEUED
                }
                Err(error) => {
                    let unknown = matches!(error, AppendError::Unknown { .. });
                    failure.get_or_insert(error);
                    if unknown { UNKNOWN } else { NOT_STORED }
                }
            };
            progress.done.insert(*id, status);
        }
        if let Some(error) = failure {
            return Err(refused(&error).with("items", progress.items(tasks)));
        }
    }
    let_in.stored_one_by_one(progress.last);
    Ok(progress.last)
}

/// What is stored so far.
struct Progress {
    last: u64,
    done: BTreeMap<TaskId, &'static str>,
}

impl Progress {
    fn items(&self, tasks: &[(TaskId, Submitted)]) -> serde_json::Value {
        let item = |(id, _): &(TaskId, Submitted)| BulkItem {
            id: id.0,
            status: self.done.get(id).copied().unwrap_or(NOT_STORED),
        };
        let items: Vec<BulkItem> = tasks.iter().map(item).collect();
        serde_json::to_value(items).unwrap_or_default()
    }
}
