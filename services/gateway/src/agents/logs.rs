//! `/swarms/{id}/agents/{agent}/logs`: what an agent's process writes. The host that runs it keeps the last lines and is asked
//! for them; what comes after is heard as it is written. None of it is in the log.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use async_nats::Subscriber;
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use swarm_events::{
    AgentId, Place, Problem,
    subject::{agent_log, agent_log_tail},
};
use utoipa::ToSchema;

use super::one;
use crate::{
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    bus::{Bus, BusError},
    live,
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
};

/// Lines that are answered if the request does not say how many: a screen or two.
pub const LINES_DEFAULT: u32 = 100;
/// Most lines that are asked for.
pub const LINES_MAX: u32 = 1_000;
/// How long a host may take: it has the lines in memory.
const TAIL_WAIT: Duration = Duration::from_secs(2);

/// A line that a process wrote.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When its host read it.
    pub at: DateTime<Utc>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end.
    pub text: String,
}

/// The last lines.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogsAnswer {
    /// In the order in which they were written.
    pub items: Vec<LogLine>,
    /// Lines that its host did not keep: older ones, or more than it takes in a second.
    pub dropped: u64,
}

/// What a host answers.
#[derive(Debug, Default, Deserialize)]
struct Tail {
    lines: Vec<LogLine>,
    #[serde(default)]
    dropped: u64,
}

/// Shows the last lines that an agent's process wrote; with `follow` as server-sent events those that it goes on to write. An
/// event's id is the line's time in microseconds, its name `line` (or `dropped`, with a count), its data the line; it goes on
/// behind `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/swarms/{id}/agents/{agent}/logs", tag = "agents",
    params(("id" = uuid::Uuid, Path), ("agent" = uuid::Uuid, Path),
        ("lines" = Option<u32>, Query, description = "0 to 1,000; 100 if absent"),
        ("follow" = Option<bool>, Query), ("Last-Event-ID" = Option<u64>, Header)),
    responses((status = 200, body = LogsAnswer), (status = 200, content_type = "text/event-stream", body = String),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "No host runs this agent"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, agent)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer<Response> {
    caller.may(Action::Read)?;
    let mut params = Params::of(&uri)?;
    let lines = params
        .within("lines", 0, LINES_MAX)?
        .unwrap_or(LINES_DEFAULT);
    let follow = params.flag("follow")?;
    params.done()?;
    let (place, agent) = one(&app, &caller, &swarm, &agent)?;
    hosted(&app, place, agent)?;
    let bus = app.bus.clone().ok_or_else(no_bus)?;
    if !follow {
        let Tail { lines, dropped } = tail(&bus, place, agent, lines).await?;
        let answer = LogsAnswer {
            items: lines,
            dropped,
        };
        return Ok(Reply::json(StatusCode::OK, &answer).into_response());
    }
    let after = live::last_event_id(&headers)?;
    let permit = live::permit(&app)?;
    let subject = agent_log(place.org, place.swarm, agent);
    // What is written between the two is in both, and told once.
    let heard = bus.hear(subject).await.map_err(|error| unheard(&error))?;
    let tail = match tail_of(&bus, place, agent, lines).await {
        Ok(tail) => tail,
        // Its process is not started yet, or its host is gone: there is nothing to tell until one runs it.
        Err(BusError::Nobody(_)) => Tail::default(),
        Err(error) => return Err(unheard(&error)),
    };
    let events = events(&app, tail, heard, after).map(move |event| {
        // The permit lives as long as the stream.
        let _ = &permit;
        Ok::<_, Infallible>(event)
    });
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(live::HEARTBEAT))
        .into_response())
}

/// Refuses what no host runs.
fn hosted(app: &App, place: Place, agent: AgentId) -> Answer<()> {
    let fold = app.fold.read();
    let found = fold
        .swarm(place.org, place.swarm)
        .and_then(|swarm| swarm.agents.get(&agent));
    let Some(found) = found else {
        return Err(ApiProblem::unknown("agent", agent));
    };
    let adapter = found.managed.as_ref().and_then(|m| m.spec.adapter);
    if adapter.is_some() {
        return Ok(());
    }
    let problem = Problem::new(
        "not-hosted",
        "the agent is started by hand: no host has its output",
    )
    .field("agent")
    .cure("look where its process was started");
    Err(ApiProblem::new(StatusCode::CONFLICT, problem))
}

async fn tail(bus: &Bus, place: Place, agent: AgentId, lines: u32) -> Answer<Tail> {
    let told = tail_of(bus, place, agent, lines).await;
    told.map_err(|error| match error {
        BusError::Nobody(_) => ApiProblem::unavailable(
            "no-host-answers",
            "no agent host has the output of this agent: its process has not been started, or its host is gone",
            "see the agent's status, and the last_output of its last_exit",
        ),
        other => unheard(&other),
    })
}

async fn tail_of(bus: &Bus, place: Place, agent: AgentId, lines: u32) -> Result<Tail, BusError> {
    let subject = agent_log_tail(place.org, place.swarm, agent);
    let asked = Bytes::from(json!({ "lines": lines }).to_string());
    let told = bus.request(subject.clone(), asked, TAIL_WAIT).await?;
    let unreadable = |error: serde_json::Error| {
        BusError::Refused(format!("the answer on {subject} cannot be read: {error}"))
    };
    serde_json::from_slice(&told).map_err(unreadable)
}

/// The bus gave no answer.
fn unheard(error: &BusError) -> ApiProblem {
    let cure = "check that nats-server and the agent host run";
    ApiProblem::unavailable("bus-unreachable", error.to_string(), cure)
}

fn no_bus() -> ApiProblem {
    unheard(&BusError::Refused("there is no connection".to_owned()))
}

/// The lines that were told, against those that are heard: a line that was written while the host was asked is in both.
struct Told {
    lines: HashMap<LogLine, u32>,
    newest: Option<DateTime<Utc>>,
    after: Option<i64>,
}

impl Told {
    fn new(tail: &[LogLine], after: Option<u64>) -> Self {
        let mut lines = HashMap::new();
        for line in tail {
            *lines.entry(line.clone()).or_default() += 1;
        }
        Self {
            lines,
            newest: tail.iter().map(|line| line.at).max(),
            after: after.and_then(|after| i64::try_from(after).ok()),
        }
    }

    /// It was told to the client before, in an earlier stream.
    fn is_old(&self, line: &LogLine) -> bool {
        self.after
            .is_some_and(|after| line.at.timestamp_micros() <= after)
    }

    /// Whether a line that is heard is new.
    fn is_new(&mut self, line: &LogLine) -> bool {
        if self.newest.is_some_and(|newest| line.at > newest) {
            // Lines come in the order of their times: none of those that were told will come any more.
            self.lines = HashMap::new();
            self.newest = None;
        }
        match self.lines.get_mut(line) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => !self.is_old(line),
        }
    }
}

/// The stream; it ends with the process, or when the client is cut off from the bus for good.
fn events(
    app: &App,
    tail: Tail,
    heard: Subscriber,
    after: Option<u64>,
) -> impl Stream<Item = Event> + Send + use<> {
    let mut told = Told::new(&tail.lines, after);
    // Who comes back knows of them.
    let dropped = (tail.dropped > 0 && after.is_none()).then(|| {
        let data = json!({ "dropped": tail.dropped }).to_string();
        Event::default().event("dropped").data(data)
    });
    let begin: Vec<Event> = std::iter::once(Event::default().retry(live::RETRY))
        .chain(dropped)
        .chain(
            tail.lines
                .iter()
                .filter(|line| !told.is_old(line))
                .filter_map(event),
        )
        .collect();
    let stop = app.stop.clone();
    let goes_on = heard
        .take_until(async move { stop.cancelled_owned().await })
        .filter_map(move |message| {
            let line: Option<LogLine> = serde_json::from_slice(&message.payload).ok();
            let new = line.filter(|line| told.is_new(line));
            std::future::ready(new.as_ref().and_then(event))
        });
    stream::iter(begin).chain(goes_on)
}

fn event(line: &LogLine) -> Option<Event> {
    // In JSON a text has no line break.
    let data = serde_json::to_string(line).ok()?;
    let id = line.at.timestamp_micros().to_string();
    Some(Event::default().id(id).event("line").data(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(micros: i64, text: &str) -> LogLine {
        LogLine {
            at: DateTime::from_timestamp_micros(micros).expect("a time"),
            stream: "stdout".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_line_that_was_told_is_not_told_again() {
        let tail = [line(1, "a"), line(2, "b"), line(2, "b")];
        let mut told = Told::new(&tail, None);
        assert!(!told.is_new(&line(2, "b")));
        assert!(!told.is_new(&line(2, "b")));
        assert!(
            told.is_new(&line(2, "b")),
            "the process wrote it a third time"
        );
        assert!(told.is_new(&line(3, "a")));
        assert!(
            told.is_new(&line(3, "a")),
            "nothing is held back once time went on"
        );
    }

    #[test]
    fn who_comes_back_is_told_what_came_after() {
        let mut told = Told::new(&[line(1, "a"), line(2, "b")], Some(1));
        assert!(told.is_old(&line(1, "a")) && !told.is_old(&line(2, "b")));
        assert!(!told.is_new(&line(1, "x")) && told.is_new(&line(3, "c")));
    }

    #[test]
    fn a_hosts_answer_is_read() {
        let text = br#"{"lines": [{"at": "2026-01-01T00:00:00.000001Z", "stream": "stderr", "text": "x\ny"}], "dropped": 3}"#;
        let tail: Tail = serde_json::from_slice(text).expect("read");
        assert_eq!((tail.lines.len(), tail.dropped), (1, 3));
        let event = format!("{:?}", event(&tail.lines[0]).expect("an event"));
        assert!(
            event.contains("event: line") && event.contains(r"x\\ny"),
            "{event}"
        );
    }
}
