//! `/swarms/{id}/messages`: what agents and people say to each other. It is kept in a stream of its own, for a day, and never
//! touches PostgreSQL.

mod input;
pub mod view;

use std::convert::Infallible;

use async_nats::{HeaderMap as NatsHeaders, header::NATS_MESSAGE_ID};
use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event as SseEvent, KeepAlive},
    },
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Serialize;
use swarm_events::{
    Event, EventId, Place, Problem, Subject,
    message::{Purpose, Sent, Stage},
    subject::{Recipient, Sender, topic_key},
};
use swarm_log::definitions::{MESSAGE_DUPLICATE_WINDOW, MESSAGES_STREAM};
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

pub use input::{EXPIRES_MS_MAX, MessageInput};
pub use view::{AbroadView, MessageView, Read};

use crate::{
    answer::Reply,
    app::{App, OUTCOME_TIMEOUT, Shared},
    auth::{Action, Caller, May},
    bus::{Bus, BusError, KeepError, Stored},
    idempotency::{self, Key},
    json, live,
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::{known, open},
};
use input::Checked;

/// Header of every stored message: what is stored are CloudEvents.
const CONTENT_TYPE: (&str, &str) = ("Content-Type", "application/cloudevents+json");

/// A message that was stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0190f7a0-0000-7000-8000-000000000001", "swarm_id": "0190f7a0-0000-7000-8000-000000000002",
    "sequence": 7, "from": "people", "to": "leader", "purpose": "tell"}))]
pub struct SentMessage {
    /// Its id; replies and receipts name it.
    pub id: Uuid,
    /// Its swarm.
    pub swarm_id: Uuid,
    /// Its sequence among the messages of the installation: what comes in answer is behind it.
    pub sequence: u64,
    /// `people`.
    pub from: &'static str,
    /// The recipient: an agent's id, `leader`, a role, `all`, `people`, or `topic`.
    pub to: String,
    /// The topic, if it was sent to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// `tell` or `request`.
    pub purpose: &'static str,
    /// The receipt that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub receipt: Option<Stage>,
}

/// A page of messages.
#[derive(Serialize, ToSchema)]
pub struct MessagePage {
    /// In the order in which they were stored.
    pub items: Vec<MessageView>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

/// The connection over which all of this goes.
pub(crate) fn bus(app: &App) -> Answer<Bus> {
    let none = || BusError::Refused("there is no connection".to_owned());
    app.bus.clone().ok_or_else(|| unreachable(&none()))
}

/// An installation of an earlier version lacks what came later.
fn not_provisioned(text: String) -> ApiProblem {
    ApiProblem::unavailable(
        "not-provisioned",
        text,
        "run `swarm up` once: it makes the streams that are missing",
    )
}

/// nats-server gave no answer.
pub(crate) fn unreachable(error: &BusError) -> ApiProblem {
    if let BusError::Missing(_) = error {
        return not_provisioned(error.to_string());
    }
    ApiProblem::unavailable(
        "bus-unreachable",
        error.to_string(),
        "check that nats-server runs",
    )
}

/// What was to be stored beside the log was not.
pub(crate) fn not_kept(error: &KeepError, field: &str) -> ApiProblem {
    let text = error.to_string();
    match error {
        KeepError::TooLarge(_) => ApiProblem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Problem::new("too-large", text)
                .field(field)
                .cure("store large data elsewhere and pass a reference to it"),
        ),
        KeepError::Full(_) => ApiProblem::new(
            StatusCode::INSUFFICIENT_STORAGE,
            Problem::new("no-room", text)
                .cure("delete what is not needed any more, or give nats-server more room; nothing was stored"),
        ),
        KeepError::Unknown(_) => ApiProblem::new(
            StatusCode::GATEWAY_TIMEOUT,
            Problem::new("bus-silent", text).cure("it may be stored all the same: read it, or send it again with the same Idempotency-Key"),
        ),
        KeepError::Missing(_) => not_provisioned(text),
        KeepError::Changed(_) | KeepError::Refused(_) => {
            ApiProblem::unavailable("bus-refused", text, "see the logs of nats-server and the gateway")
        }
    }
}

/// Says something to agents, as a person. It is answered when it is stored: who reads it says so by receipts, if they are
/// wanted.
#[utoipa::path(post, path = "/v1/swarms/{id}/messages", tag = "messages", request_body = MessageInput,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key is the same message, for as long as swarm-key-remembered-ms says")),
    responses((status = 202, body = SentMessage),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "The swarm takes nothing any more, or the agent has left it"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn send(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Talk)?;
    let (place, _) = open(&app, &caller, &swarm)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let input = MessageInput::read(&bytes)?;
    let message = {
        let fold = app.fold.read();
        let found = fold.swarm(place.org, place.swarm);
        input.checked(found.ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))?)?
    };
    let route = format!("POST /v1/swarms/{}/messages", place.swarm);
    let key = Key::of(&headers, caller.org, &route, &bytes)?;
    let id = key.as_ref().map_or_else(Uuid::now_v7, Key::own_id);
    let sequence = store(&app, place, id, &message, key.as_ref()).await?;
    let answer = SentMessage {
        id,
        swarm_id: place.swarm.0,
        sequence,
        from: "people",
        to: match message.to {
            Recipient::Topic(_) => "topic".to_owned(),
            to => to.to_string(),
        },
        topic: message.topic,
        purpose: if message.request { "request" } else { "tell" },
        receipt: message.receipt,
    };
    let reply = Reply::json(StatusCode::ACCEPTED, &answer);
    Ok(match key {
        Some(_) => reply.remembered(MESSAGE_DUPLICATE_WINDOW),
        None => reply,
    })
}

async fn store(
    app: &App,
    place: Place,
    id: Uuid,
    message: &Checked,
    key: Option<&Key>,
) -> Answer<u64> {
    let bus = bus(app)?;
    let subject = Subject::Message(place, Sender::People, message.to);
    let sent = Sent {
        incarnation: 0,
        purpose: if message.request {
            Purpose::Request
        } else {
            Purpose::Tell
        },
        topic: message.topic.clone(),
        receipt: message.receipt,
        expires_ms: message.expires_ms,
        abroad: None,
        body: message.body.clone(),
    };
    let mut event = Event::new(
        EventId(id),
        app.source.clone(),
        App::now(),
        &subject,
        place.swarm.0,
        sent,
    );
    event.correlation = Some(key.map_or(id, Key::request_id));
    let (headers, payload) = message_of(&event, &id.to_string())?;
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    let to = subject.to_string();
    let kept = bus.keep(MESSAGES_STREAM, &to, &headers, &payload, deadline);
    let kept = kept.await;
    let kept = kept.map_err(|error| not_kept(&error, "body").with("id", id.to_string()))?;
    if kept.duplicate && key.is_some() {
        let stored = bus.stored_at(MESSAGES_STREAM, kept.sequence).await;
        let stored = stored.map_err(|error| unreachable(&error))?;
        let same = stored.is_some_and(|stored| {
            Read::of(&stored)
                .is_ok_and(|read| read.correlation == event.correlation && stored.subject == to)
        });
        if !same {
            return Err(idempotency::reused());
        }
    }
    Ok(kept.sequence)
}

/// An event as it is stored, with the id under which nats-server knows a repeat.
pub(crate) fn message_of(event: &Event, message_id: &str) -> Answer<(NatsHeaders, Bytes)> {
    let payload = event.to_json().map_err(|error| {
        ApiProblem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Problem::new("unwritable-event", error.to_string()),
        )
    })?;
    let mut headers = NatsHeaders::new();
    headers.insert(NATS_MESSAGE_ID, message_id);
    headers.insert(CONTENT_TYPE.0, CONTENT_TYPE.1);
    Ok((headers, payload.into()))
}

/// Which messages are wanted.
struct Filter {
    subject: String,
    topic: Option<String>,
}

impl Filter {
    fn of(app: &App, place: Place, params: &mut Params) -> Answer<Self> {
        let (from, to) = (params.text("from"), params.text("to"));
        let topic = params.text("topic");
        let fold = app.fold.read();
        let swarm = fold
            .swarm(place.org, place.swarm)
            .ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))?;
        let from = match from {
            None => "*".to_owned(),
            Some(text) => input::sender(swarm, &text)
                .ok_or_else(|| nobody("from", &text, "people, abroad"))?
                .to_string(),
        };
        let to = match (to, &topic) {
            (None, None) => ">".to_owned(),
            (None, Some(topic)) => Recipient::Topic(topic_key(topic)).to_string(),
            (Some(text), _) => input::recipient(swarm, &text)
                .ok_or_else(|| {
                    let words = "leader, coordinator, supervisor, worker, all, people, abroad";
                    nobody("to", &text, words)
                })?
                .to_string(),
        };
        Ok(Self {
            subject: format!("swarm.msg.{place}.{from}.{to}"),
            topic,
        })
    }

    /// The message, if it is wanted; what cannot be read is not shown.
    fn shown(&self, app: &App, stored: &Stored) -> Option<MessageView> {
        let read = Read::of(stored).ok()?;
        if self.topic.is_some() && self.topic != read.sent.topic {
            return None;
        }
        let fold = app.fold.read();
        let swarm = fold.swarm(read.place.org, read.place.swarm);
        Some(read.view(stored, swarm))
    }
}

fn nobody(parameter: &str, text: &str, words: &str) -> ApiProblem {
    let detail = format!("{text} is no agent of this swarm");
    let problem = Problem::new("bad-parameter", detail)
        .field(format!("?{parameter}"))
        .cure(format!("give an agent's id or name, or one of {words}"));
    ApiProblem::new(StatusCode::BAD_REQUEST, problem)
}

/// Lists the messages of a swarm in the order in which they were stored; they are kept for a day. A page ends before 4 MiB.
#[utoipa::path(get, path = "/v1/swarms/{id}/messages", tag = "messages",
    params(("id" = Uuid, Path),
        ("from" = Option<String>, Query, description = "An agent's id or name, `people` or `abroad`"),
        ("to" = Option<String>, Query, description = "An agent's id or name, `leader`, a role, `all`, `people` or `abroad`"),
        ("topic" = Option<String>, Query, description = "To whoever has subscribed to it; with `to` what is said there about it"),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = MessagePage),
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
    let place = known(&app, &caller, &swarm)?;
    let mut params = Params::of(&uri)?;
    let (limit, from) = (params.limit()?, cursor(&mut params)?);
    let filter = Filter::of(&app, place, &mut params)?;
    params.done()?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let filters = [filter.subject.clone()];
    let found = bus(&app)?
        .page(MESSAGES_STREAM, &filters, from, most)
        .await
        .map_err(|error| unreachable(&error))?;
    let last = found.items.last().map(|last| last.sequence);
    let answer = MessagePage {
        items: found
            .items
            .iter()
            .filter_map(|stored| filter.shown(&app, stored))
            .collect(),
        next_cursor: last.filter(|_| found.more).map(next_cursor),
    };
    Ok(Reply::json(StatusCode::OK, &answer))
}

/// Where a page begins that follows the message or key at `last`.
pub(crate) fn next_cursor(last: u64) -> String {
    format!("s{}", last.saturating_add(1))
}

/// `?cursor=`, as [`next_cursor`] makes them.
pub(crate) fn cursor(params: &mut Params) -> Answer<u64> {
    let Some(text) = params.text("cursor") else {
        return Ok(1);
    };
    let read = text.strip_prefix('s').and_then(|text| text.parse().ok());
    read.ok_or_else(|| {
        let problem = Problem::new(
            "bad-parameter",
            format!("{text:?} is no cursor of this list"),
        )
        .field("?cursor")
        .cure("use next_cursor of the page before, or leave it out");
        ApiProblem::new(StatusCode::BAD_REQUEST, problem)
    })
}

/// Follows the messages of a swarm as server-sent events. An event's id is the message's sequence, its name `message`, its data
/// the message. Goes on behind `Last-Event-ID`, else behind `after`, else with what is said from now on.
#[utoipa::path(get, path = "/v1/swarms/{id}/messages/stream", tag = "messages",
    params(("id" = Uuid, Path),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query), ("topic" = Option<String>, Query),
        ("after" = Option<u64>, Query, description = "Sequence of a message; 0: from the first one that is kept"),
        ("Last-Event-ID" = Option<u64>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn follow(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer<Response> {
    caller.may(Action::Read)?;
    let place = known(&app, &caller, &swarm)?;
    let mut params = Params::of(&uri)?;
    let after = params.value("after", "give the sequence of a message")?;
    let filter = Filter::of(&app, place, &mut params)?;
    params.done()?;
    let after = live::last_event_id(&headers)?.or(after);
    let filters = [filter.subject.clone()];
    let shown = {
        let app = app.clone();
        move |stored: &Stored| {
            let view = filter.shown(&app, stored)?;
            // In JSON a text has no line break, but what an agent has sent may have some between its tokens.
            let data = serde_json::to_string(&view)
                .ok()?
                .replace(['\n', '\r'], " ");
            Some(SseEvent::default().event("message").data(data))
        }
    };
    told(&app, MESSAGES_STREAM, &filters, after, shown).await
}

/// What is in `stream` behind `after` (`None`: from now on), and comes, as server-sent events: the id is the sequence.
pub(crate) async fn told(
    app: &Shared,
    stream: &str,
    filters: &[String],
    after: Option<u64>,
    mut shown: impl FnMut(&Stored) -> Option<SseEvent> + Send + 'static,
) -> Answer<Response> {
    let bus = bus(app)?;
    let permit = live::permit(app)?;
    let after = match after {
        Some(after) => after,
        None => bus
            .last_sequence(stream)
            .await
            .map_err(|error| unreachable(&error))?,
    };
    let tail = bus.follow(stream, filters, after.saturating_add(1)).await;
    let tail = tail.map_err(|error| unreachable(&error))?;
    // An id without data: a client that is cut off before the first event still comes back to the right place.
    let hello = SseEvent::default().id(after.to_string()).retry(live::RETRY);
    let stop = app.stop.clone();
    let events = tail
        .take_until(async move { stop.cancelled_owned().await })
        .take_while(|item| {
            if let Err(error) = item {
                tracing::warn!(%error, "a live stream ended");
            }
            std::future::ready(item.is_ok())
        })
        .filter_map(move |item| {
            // The permit lives as long as the stream.
            let _ = &permit;
            let event = item.ok().and_then(|stored| {
                let event = shown(&stored)?;
                Some(event.id(stored.sequence.to_string()))
            });
            std::future::ready(event)
        });
    let events = stream::once(std::future::ready(hello)).chain(events);
    Ok(Sse::new(events.map(Ok::<_, Infallible>))
        .keep_alive(KeepAlive::new().interval(live::HEARTBEAT))
        .into_response())
}
