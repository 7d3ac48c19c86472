//! `/swarms/{id}/events`: what happens in a swarm, as Server-Sent Events straight from the log.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use swarm_events::{Place, Problem, subject::filter};
use swarm_log::{StoredMessage, Tailed};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    app::{App, LIVE_STREAMS_MAX, Shared},
    auth::{Action, Caller, May},
    command::unread,
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::known,
};

/// A comment this often: proxies cut silent connections after half a minute or more.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);
/// Clients come back after this long.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Follows the events of a swarm. The event's id is its stream sequence, its name its CloudEvents type, its data the
/// CloudEvent. Goes on behind `Last-Event-ID`, else at `from`, else at what is stored from now on.
#[utoipa::path(get, path = "/v1/swarms/{id}/events", tag = "swarms",
    params(("id" = uuid::Uuid, Path), ("from" = Option<u64>, Query, description = "First stream sequence"),
        ("Last-Event-ID" = Option<u64>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json", description = "Too many live streams")))]
pub async fn follow(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer<Response> {
    caller.may(Action::Read)?;
    let mut params = Params::of(&uri)?;
    let from = params.value("from", "give a stream sequence")?;
    params.done()?;
    let place = known(&app, &caller, &swarm)?;
    let permit = permit(&app)?;
    let first = match (last_event_id(&headers)?, from) {
        (Some(last), _) => last.saturating_add(1),
        (None, Some(from)) => from,
        (None, None) => app
            .log
            .info()
            .await
            .map_err(|error| unread(&error))?
            .last_sequence
            .saturating_add(1),
    };
    Ok(Sse::new(events(app, place, first, permit))
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response())
}

/// Room for one more live stream.
///
/// # Errors
/// 503 if there are as many as there may be.
pub(crate) fn permit(app: &App) -> Answer<OwnedSemaphorePermit> {
    let permit = app.live.clone().try_acquire_owned();
    metrics::gauge!("swarm_gateway_live_streams")
        .set((LIVE_STREAMS_MAX - app.live.available_permits()) as f64);
    permit.map_err(|_| {
        let detail =
            format!("{LIVE_STREAMS_MAX} live streams are open here, as many as there may be");
        ApiProblem::unavailable(
            "too-many-streams",
            detail,
            "close one, or ask another gateway",
        )
    })
}

/// Where a client that comes back goes on.
///
/// # Errors
/// 400 if that is no number.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(header) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let parsed = header
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    parsed.map(Some).ok_or_else(|| {
        let problem = Problem::new("bad-parameter", "it is no event's id")
            .field("Last-Event-ID")
            .cure("send the id of the last event, or leave the header out");
        ApiProblem::new(StatusCode::BAD_REQUEST, problem)
    })
}

/// The stream; it ends with the process, or when the log cannot be read.
fn events(
    app: Shared,
    place: Place,
    first: u64,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    // An id without data: a client that is cut off before the first event still comes back to the right place.
    let hello = Event::default()
        .id(first.saturating_sub(1).to_string())
        .retry(RETRY);
    let tail = app.log.tail(filter::swarm(place), first.max(1));
    let stop = app.stop.clone();
    let told = tail
        .take_until(async move { stop.cancelled_owned().await })
        .take_while(|item| {
            let going = item.is_ok();
            if let Err(error) = item {
                tracing::warn!(%error, "a live stream ended");
            }
            std::future::ready(going)
        })
        .filter_map(move |item| {
            // The permit lives as long as the stream.
            let _ = &permit;
            std::future::ready(match item {
                Ok(Tailed::Message(message)) => told(&message),
                _ => None,
            })
        });
    stream::once(std::future::ready(hello)).chain(told).map(Ok)
}

/// A message as an event. What is no CloudEvent is not shown: its refusal by the service that met it is.
fn told(message: &StoredMessage) -> Option<Event> {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    let typed: Typed = serde_json::from_slice(&message.payload).ok()?;
    let text = std::str::from_utf8(&message.payload).ok()?;
    // Publishers may break lines between the tokens, and a carriage return would end a line for a reader of the stream.
    let data = if text.contains(['\n', '\r']) {
        compact(text)?
    } else {
        text.to_owned()
    };
    if typed.r#type.contains(['\n', '\r']) {
        return None;
    }
    Some(
        Event::default()
            .id(message.sequence.to_string())
            .event(typed.r#type)
            .data(data),
    )
}

/// The same JSON on one line. Within its texts line breaks are escaped, so only space between tokens is replaced.
fn compact(text: &str) -> Option<String> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    Some(raw.get().replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn shown(payload: &str) -> Option<String> {
        let message = StoredMessage {
            sequence: 7,
            time_micros: 0,
            subject: "swarm.evt.00.o.s.task.submitted".into(),
            payload: Bytes::from(payload.to_owned()),
            message_id: None,
        };
        told(&message).map(|event| format!("{event:?}"))
    }

    #[test]
    fn an_event_spans_one_line_of_data() {
        let shown = shown("{\"type\": \"swarm.task.submitted.v2\",\r\n \"data\": \"a\\nb\"}")
            .expect("an event");
        assert!(
            shown.contains("id: 7") && shown.contains("event: swarm.task.submitted.v2"),
            "{shown}"
        );
        assert!(!shown.contains("\\r"), "{shown}");
    }

    #[test]
    fn what_is_no_event_is_not_shown() {
        for payload in [
            "",
            "x",
            "[1]",
            "{}",
            "{\"type\": 1}",
            "{\"type\":\"a\\nid: 9\"}",
        ] {
            assert_eq!(shown(payload), None, "{payload}");
        }
    }
}
