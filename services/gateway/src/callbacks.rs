//! `POST /swarms/{id}/agents/{agent}/callbacks/{assignment}`: late answers of those who work on a task elsewhere. The token
//! that came with the task is all that they need and have; the agent that gave it out checks it.

use std::time::Duration;

use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use swarm_events::{AgentId, Place, Problem, SwarmId, subject};

use crate::{
    answer::Reply,
    app::Shared,
    bus::BusError,
    json::{read, whole},
    params::id,
    problem::{Answer, ApiProblem, ProblemDocument},
};

/// Largest body, in bytes: with its envelope it must fit into one message of nats-server (1 MiB). Larger results are stored
/// elsewhere and called back by reference.
pub const CALLBACK_BYTES_MAX: usize = 768 * 1024;
/// How long the agent may take: it only looks the token up.
pub const AGENT_WAIT: Duration = Duration::from_secs(5);

/// What the agent is asked.
#[derive(Serialize)]
struct Asked<'a> {
    assignment: u64,
    token: &'a str,
    body: &'a RawValue,
}

/// What it answers.
#[derive(Deserialize)]
struct Answered {
    status: u16,
    #[serde(default)]
    problem: Option<Problem>,
}

/// Hands a late answer to the agent whose task it is about.
#[utoipa::path(post, path = "/v1/swarms/{id}/agents/{agent}/callbacks/{assignment}", tag = "agents",
    params(("id" = Uuid, Path), ("agent" = Uuid, Path), ("assignment" = u64, Path)),
    responses((status = 200, description = "taken"),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn call(
    State(app): State<Shared>,
    Path((swarm, agent, assignment)): Path<(String, String, String)>,
    request: Request,
) -> Answer<Reply> {
    let token = token(request.headers())?;
    let (swarm, agent): (SwarmId, AgentId) = (id("swarm", &swarm)?, id("agent", &agent)?);
    let assignment: u64 = id("assignment", &assignment)?;
    let place = place(&app, swarm, agent)?;
    let bytes = whole(request.into_body(), CALLBACK_BYTES_MAX).await?;
    let body: Box<RawValue> = read(&bytes)?;
    let asked = Asked {
        assignment,
        token: &token,
        body: &body,
    };
    let payload = serde_json::to_vec(&asked).map_err(|error| {
        ApiProblem::from(Problem::new("bad-callback", error.to_string()).field("body"))
    })?;
    let Some(bus) = &app.bus else {
        return Err(unheard("the gateway has no connection to the bus"));
    };
    let answer = bus.request(subject::callback(place, agent), payload.into(), AGENT_WAIT);
    let answer = answer.await.map_err(|error| match error {
        BusError::Nobody(_) => unheard("the agent's process does not run"),
        BusError::Late(_) => unheard("the agent's process does not answer"),
        BusError::Refused(why) | BusError::Missing(why) => unheard(&why),
    })?;
    let answered: Answered = serde_json::from_slice(&answer)
        .map_err(|error| unheard(&format!("the agent's answer cannot be read: {error}")))?;
    match (StatusCode::from_u16(answered.status), answered.problem) {
        (Ok(StatusCode::OK), None) => Ok(Reply::json(StatusCode::OK, &json!({"accepted": true}))),
        (Ok(status), Some(problem)) if status.is_client_error() || status.is_server_error() => {
            Err(ApiProblem::new(status, problem))
        }
        _ => Err(unheard("the agent's answer is none")),
    }
}

fn unheard(why: &str) -> ApiProblem {
    let problem = Problem::new("agent-gone", why)
        .field("agent")
        .cure("call again in a moment; if the agent has gone for good, its task is given to another one, with another token");
    ApiProblem::new(StatusCode::GATEWAY_TIMEOUT, problem).retry_after(1)
}

/// The token, which is no API key.
fn token(headers: &HeaderMap) -> Answer<String> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        })
        .filter(|token| !token.is_empty());
    bearer.map(str::to_owned).ok_or_else(|| {
        let problem = Problem::new("no-token", "the request carries no token")
            .field("Authorization")
            .cure("send the header Authorization: Bearer <callback.token of the task>");
        ApiProblem::new(StatusCode::UNAUTHORIZED, problem)
    })
}

/// The swarm of that id that has the agent: whoever calls back has no key that would name the organization.
fn place(app: &Shared, swarm: SwarmId, agent: AgentId) -> Answer<Place> {
    let fold = app.fold.read();
    let mut known = false;
    let all = fold.organizations().iter();
    for found in all.filter_map(|(org, _)| fold.swarm(org, swarm)) {
        known = true;
        if found.agents.contains_key(&agent) {
            return Ok(found.place);
        }
    }
    Err(if known {
        ApiProblem::unknown("agent", agent)
    } else {
        ApiProblem::unknown("swarm", swarm)
    })
}
