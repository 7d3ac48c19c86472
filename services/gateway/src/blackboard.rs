//! `/swarms/{id}/blackboard`: what the agents of a swarm share beside their messages. One bucket of nats-server, whose keys are
//! prefixed by organization and swarm; it never touches PostgreSQL.

mod entry;
pub mod sweep;
#[cfg(test)]
mod tests;

use async_nats::{HeaderMap as NatsHeaders, HeaderValue as NatsValue};
use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response, sse::Event as SseEvent},
};
use bytes::Bytes;
use serde::Serialize;
use swarm_events::{Json, Place, Problem, permissions::blackboard_key};
use swarm_log::definitions::{
    BLACKBOARD_BUCKET, BLACKBOARD_BYTES_MAX, BLACKBOARD_DELETED_FOR, BLACKBOARD_OWN,
    check_blackboard_key,
};
use tokio::time::Instant;
use utoipa::ToSchema;

pub use entry::{EntryPage, EntryView};
use entry::{Precondition, is_deleted, value_of};

use crate::{
    answer::Reply,
    app::{OUTCOME_TIMEOUT, Shared},
    auth::{Action, Caller, May},
    bus::{Bus, KeepError, Stored},
    json, live,
    messages::{bus, cursor, next_cursor, not_kept, told, unreachable},
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::{known, open},
};

/// The stream behind the bucket.
const STREAM: &str = "KV_swarm_blackboard";
const _: () = assert!(STREAM.len() == "KV_".len() + BLACKBOARD_BUCKET.len());
/// How often a write is tried whose key somebody else changes each time.
const TRIES_MAX: usize = 8;
/// Pages of the bucket that one page of a list looks through: keys of the system are passed over.
const LOOKS_MAX: usize = 16;
/// The revision that a write rests on.
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// What a message of the bucket does to its key; a value if absent.
const OPERATION: &str = "KV-Operation";
/// How long nats-server keeps a message, in seconds.
const TIME_TO_LIVE: &str = "Nats-TTL";

/// A key after it was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"key": "plan.step", "revision": 7, "bytes": 12}))]
pub struct Written {
    /// The key.
    pub key: String,
    /// Its revision, which is its ETag: it rises with each change of any blackboard.
    pub revision: u64,
    /// Size of the value.
    pub bytes: usize,
}

fn subject(place: Place, key: &str) -> String {
    blackboard_key(place, key)
}

/// A key that people may read or write.
fn checked(key: &str) -> Answer<()> {
    check_blackboard_key(key).map_err(|problem| {
        let cure = "give letters, digits and -/_= in tokens between dots, none of them empty, and no _ at the beginning";
        ApiProblem::from(problem.cure(cure))
    })
}

/// What stands under a key: its last message, if that is a value.
async fn current(bus: &Bus, place: Place, key: &str) -> Answer<Option<Stored>> {
    let last = bus.last_of_subject(STREAM, &subject(place, key)).await;
    last.map_err(|error| unreachable(&error))
}

fn absent(key: &str) -> ApiProblem {
    let problem = Problem::new("unknown-key", format!("there is nothing under {key}"))
        .field("key")
        .cure("list the keys that there are: GET …/blackboard");
    ApiProblem::new(StatusCode::NOT_FOUND, problem)
}

/// 412, with the revision that there is.
fn changed(field: &str, found: Option<u64>) -> ApiProblem {
    let detail = match found {
        Some(revision) => format!("the key is at revision {revision}"),
        None => "there is nothing under the key".to_owned(),
    };
    let problem = Problem::new("wrong-revision", detail)
        .field(field)
        .cure("read it again, and send the ETag that comes with it");
    ApiProblem::new(StatusCode::PRECONDITION_FAILED, problem).with("revision", found)
}

/// Shows the value under a key, as it was written. Its ETag is its revision.
#[utoipa::path(get, path = "/v1/swarms/{id}/blackboard/{key}", tag = "blackboard",
    params(("id" = uuid::Uuid, Path), ("key" = String, Path), ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it has not changed")),
    responses((status = 200, body = Object, description = "The value", headers(("ETag" = String))),
        (status = 304, description = "It has not changed"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer<Response> {
    caller.may(Action::Read)?;
    let place = known(&app, &caller, &swarm)?;
    checked(&key)?;
    let unless = Precondition::of(&headers)?;
    let found = current(&bus(&app)?, place, &key).await?;
    let found = found
        .filter(|stored| !is_deleted(stored))
        .ok_or_else(|| absent(&key))?;
    let same = match unless {
        Precondition::NotAt(revision) => revision == found.sequence,
        Precondition::Absent => true,
        _ => false,
    };
    let response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = match value_of(&found.payload) {
            Some(_) => "application/json",
            // An agent has put something else there.
            None => "application/octet-stream",
        };
        ([(header::CONTENT_TYPE, kind)], found.payload).into_response()
    };
    Ok(Reply::from(response)
        .revision(found.sequence)
        .into_response())
}

/// Writes any JSON, at most 64 KiB, under a key. With `If-Match` only if it is at that revision (`*`: if it is there), with
/// `If-None-Match: *` only if it is not there.
#[utoipa::path(put, path = "/v1/swarms/{id}/blackboard/{key}", tag = "blackboard", request_body = Object,
    params(("id" = uuid::Uuid, Path), ("key" = String, Path, description = "1 to 200 bytes: letters, digits and -/_= in tokens between dots, no _ at the beginning"),
        ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, body = Written, headers(("ETag" = String))),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It is at another revision: `revision` says at which"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 507, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn put(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, key)): Path<(String, String)>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Talk)?;
    let (place, _) = open(&app, &caller, &swarm)?;
    checked(&key)?;
    let only = Precondition::of(&headers)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let value: Json = json::read_any(&bytes)?;
    if value.len() > BLACKBOARD_BYTES_MAX {
        let detail = format!(
            "has {} bytes, more than {BLACKBOARD_BYTES_MAX}",
            value.len()
        );
        let problem = Problem::new("value-too-large", detail)
            .field("body")
            .cure("store large data elsewhere, and write a reference to it");
        return Err(ApiProblem::new(StatusCode::PAYLOAD_TOO_LARGE, problem));
    }
    let bus = bus(&app)?;
    let payload = Bytes::from(value.as_str().to_owned());
    let revision = write(&bus, place, &key, only, &NatsHeaders::new(), &payload).await?;
    let written = Written {
        key,
        revision,
        bytes: payload.len(),
    };
    Ok(Reply::json(StatusCode::OK, &written).revision(revision))
}

/// Deletes a key. With `If-Match` only if it is at that revision.
#[utoipa::path(delete, path = "/v1/swarms/{id}/blackboard/{key}", tag = "blackboard",
    params(("id" = uuid::Uuid, Path), ("key" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204, description = "It is deleted"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It is at another revision: `revision` says at which"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn delete(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    caller.may(Action::Talk)?;
    let place = known(&app, &caller, &swarm)?;
    checked(&key)?;
    let only = match Precondition::of(&headers)? {
        Precondition::None => Precondition::Present,
        Precondition::Absent | Precondition::NotAt(_) => {
            let problem = Problem::new("bad-header", "what is not there is not deleted")
                .field("If-None-Match")
                .cure("leave the header out");
            return Err(ApiProblem::new(StatusCode::BAD_REQUEST, problem));
        }
        only => only,
    };
    let bus = bus(&app)?;
    let found = current(&bus, place, &key).await?;
    if found.is_none_or(|stored| is_deleted(&stored)) {
        return Err(absent(&key));
    }
    write(&bus, place, &key, only, &deletion(), &Bytes::new()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The headers of the mark of a deletion.
fn deletion() -> NatsHeaders {
    let mut marks = NatsHeaders::new();
    marks.insert(OPERATION, "DEL");
    // The mark goes by itself, once everybody has seen it.
    marks.insert(
        TIME_TO_LIVE,
        NatsValue::from(BLACKBOARD_DELETED_FOR.as_secs()),
    );
    marks
}

/// Stores a message under a key, if the precondition holds; its revision.
async fn write(
    bus: &Bus,
    place: Place,
    key: &str,
    only: Precondition,
    headers: &NatsHeaders,
    payload: &Bytes,
) -> Answer<u64> {
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    let subject = subject(place, key);
    for _ in 0..TRIES_MAX {
        let expected = match only {
            Precondition::None => None,
            Precondition::At(revision) => Some(revision),
            Precondition::Present | Precondition::Absent | Precondition::NotAt(_) => {
                let last = current(bus, place, key).await?;
                let revision = last.as_ref().map_or(0, |last| last.sequence);
                let there = last.filter(|last| !is_deleted(last));
                let holds = match only {
                    Precondition::Present => there.is_some(),
                    Precondition::NotAt(other) => there.is_none_or(|it| it.sequence != other),
                    _ => there.is_none(),
                };
                if !holds {
                    let found = (only != Precondition::Present).then_some(revision);
                    return Err(changed(only.field(), found));
                }
                Some(revision)
            }
        };
        let mut headers = headers.clone();
        if let Some(expected) = expected {
            headers.insert(EXPECTED, NatsValue::from(expected));
        }
        let kept = bus.keep(STREAM, &subject, &headers, payload, deadline);
        match kept.await {
            Ok(kept) => return Ok(kept.sequence),
            Err(KeepError::Changed(_)) => {
                if let Precondition::At(_) = only {
                    let found = current(bus, place, key).await?;
                    let found = found.filter(|stored| !is_deleted(stored));
                    return Err(changed(only.field(), found.map(|stored| stored.sequence)));
                }
            }
            Err(error) => return Err(not_kept(&error, "body")),
        }
    }
    Err(ApiProblem::unavailable(
        "contended",
        format!("others changed {key} each of {TRIES_MAX} times"),
        "try again in a moment",
    ))
}

/// Which keys are wanted.
#[derive(Clone, Debug)]
struct Wanted {
    root: String,
    prefix: String,
}

impl Wanted {
    fn of(place: Place, prefix: Option<String>) -> Answer<Self> {
        let prefix = prefix.unwrap_or_default();
        // What a key may begin with: it need not end where a token does.
        let begun = prefix.strip_suffix('.').unwrap_or(&prefix);
        if !begun.is_empty()
            && let Err(problem) = check_blackboard_key(begun)
        {
            let problem = Problem::new("bad-parameter", problem.detail)
                .field("?prefix")
                .cure("give what keys begin with: letters, digits and -/_=. ");
            return Err(ApiProblem::new(StatusCode::BAD_REQUEST, problem));
        }
        Ok(Self {
            root: subject(place, ""),
            prefix,
        })
    }

    /// Whole tokens of the prefix are looked for by nats-server.
    fn filter(&self) -> String {
        let tokens = self.prefix.rfind('.').map_or("", |at| &self.prefix[..=at]);
        format!("{}{tokens}>", self.root)
    }

    /// The key of a message, if it is wanted.
    fn key<'a>(&self, stored: &'a Stored) -> Option<&'a str> {
        let key = stored.subject.strip_prefix(&self.root)?;
        (key.starts_with(&self.prefix) && !key.starts_with(BLACKBOARD_OWN)).then_some(key)
    }
}

/// Lists the keys of a swarm's blackboard with their values, the one that was changed last at the end. With `follow` as
/// server-sent events those that there are, and then each change: an event's id is the revision, its name `put` or `delete`,
/// its data the key with its value; it goes on behind `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/swarms/{id}/blackboard", tag = "blackboard",
    params(("id" = uuid::Uuid, Path), ("prefix" = Option<String>, Query, description = "What the keys begin with"),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query),
        ("follow" = Option<bool>, Query), ("Last-Event-ID" = Option<u64>, Header)),
    responses((status = 200, body = EntryPage), (status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer<Response> {
    caller.may(Action::Read)?;
    let place = known(&app, &caller, &swarm)?;
    let mut params = Params::of(&uri)?;
    let wanted = Wanted::of(place, params.text("prefix"))?;
    let follow = params.flag("follow")?;
    if follow {
        params.done()?;
        let after = live::last_event_id(&headers)?.unwrap_or(0);
        return watch(&app, wanted, after).await;
    }
    let (limit, from) = (params.limit()?, cursor(&mut params)?);
    params.done()?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = page(&bus(&app)?, &wanted, from, most).await?;
    Ok(Reply::json(StatusCode::OK, &page).into_response())
}

async fn page(bus: &Bus, wanted: &Wanted, mut from: u64, most: usize) -> Answer<EntryPage> {
    let filters = [wanted.filter()];
    let mut items = Vec::new();
    for _ in 0..LOOKS_MAX {
        let found = bus.page(STREAM, &filters, from, most - items.len()).await;
        let found = found.map_err(|error| unreachable(&error))?;
        items.extend(
            found
                .items
                .iter()
                .filter(|stored| !is_deleted(stored))
                .filter_map(|stored| Some(EntryView::of(wanted.key(stored)?, stored))),
        );
        let last = found.items.last().map(|last| last.sequence);
        match last.filter(|_| found.more) {
            None => {
                return Ok(EntryPage {
                    items,
                    next_cursor: None,
                });
            }
            Some(last) => from = last.saturating_add(1),
        }
        if items.len() >= most {
            break;
        }
    }
    Ok(EntryPage {
        items,
        next_cursor: Some(next_cursor(from - 1)),
    })
}

async fn watch(app: &Shared, wanted: Wanted, after: u64) -> Answer<Response> {
    let filters = [wanted.filter()];
    let shown = move |stored: &Stored| {
        let entry = EntryView::of(wanted.key(stored)?, stored);
        let name = if is_deleted(stored) { "delete" } else { "put" };
        // In JSON a text has no line break, but there may be some between the tokens of a value.
        let data = serde_json::to_string(&entry)
            .ok()?
            .replace(['\n', '\r'], " ");
        Some(SseEvent::default().event(name).data(data))
    };
    told(app, STREAM, &filters, Some(after), shown).await
}
