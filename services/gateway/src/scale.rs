//! `/swarms/{id}/scale`: as many agents as are wanted.

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use serde::Serialize;
use swarm_events::{Body, Subject, subject::CommandVerb};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    agents::ScaleInput,
    answer::Reply,
    app::Shared,
    auth::{Action, Caller, May},
    command::{self, Sending},
    idempotency::Key,
    json,
    problem::{Answer, ProblemDocument},
    swarms::{open, refusal, unexpected},
};

/// What was decided.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"swarm_id": "0190f7a0-0000-7000-8000-000000000001", "before": 3, "desired": 5,
    "add": ["0190f7a0-0000-7000-8000-000000000002", "0190f7a0-0000-7000-8000-000000000003"], "remove": []}))]
pub struct ScaleAnswer {
    /// The swarm.
    pub swarm_id: Uuid,
    /// Agents (of the type) that were wanted or live before.
    pub before: u32,
    /// How many are wanted.
    pub desired: u32,
    /// Agents that are new: hosts start their processes from here on.
    pub add: Vec<Uuid>,
    /// Agents that go as soon as they have finished what they have.
    pub remove: Vec<Uuid>,
}

/// Adds agents like the one that was added last, or takes agents out, until there are as many as wanted. The answer says what
/// was decided; the swarm's health shows how far it is.
#[utoipa::path(post, path = "/v1/swarms/{id}/scale", tag = "swarms", request_body = ScaleInput,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key is the same request, for as long as swarm-key-remembered-ms says")),
    responses((status = 200, body = ScaleAnswer, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "Outside min_agents and max_agents, or there is no agent that new ones could be like"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn scale(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Operate)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let order = ScaleInput::read(&bytes)?;
    let (place, _) = open(&app, &caller, &swarm)?;
    let route = format!("POST /v1/swarms/{}/scale", place.swarm);
    let key = Key::of(&headers, caller.org, &route, &bytes)?;
    let subject = Subject::Command(place, CommandVerb::Scale);
    let sending = Sending::new(subject, place.swarm.0, order)
        .keyed(key.as_ref())
        .of_request(key.as_ref());
    let outcome = command::send(&app, sending).await?;
    let Body::SwarmScaled(scaled) = &outcome.event.body else {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    };
    let ids = |agents: &[swarm_events::AgentId]| agents.iter().map(|agent| agent.0).collect();
    let answer = ScaleAnswer {
        swarm_id: place.swarm.0,
        before: scaled.before,
        desired: scaled.desired,
        add: ids(&scaled.add),
        remove: ids(&scaled.remove),
    };
    Ok(Reply::json(StatusCode::OK, &answer)
        .sequence(outcome.sequence)
        .keyed(key.is_some()))
}
