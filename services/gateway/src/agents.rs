//! `/swarms/{id}/agents`

use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
};
use serde::Serialize;
use swarm_events::{AgentId, Body, Subject, command::RemoveAgent, subject::CommandVerb};
use swarm_projections::queries::{self, AgentRow};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    answer::Reply,
    app::Shared,
    auth::{Action, Caller, May},
    command::{self, Sending},
    params::{Params, id},
    problem::{Answer, ApiProblem, ProblemDocument},
    reading,
    swarms::{known, refusal, unexpected},
};

/// What an agent can be.
const STATUSES: [&str; 6] = [
    "pending",
    "starting",
    "idle",
    "busy",
    "unhealthy",
    "stopped",
];

/// A page of agents.
#[derive(Serialize, ToSchema)]
pub struct AgentPage {
    /// In the order in which they first joined.
    pub items: Vec<AgentRow>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

/// An agent that was removed.
#[derive(Serialize, ToSchema)]
pub struct RemovedAgent {
    /// The agent.
    pub id: Uuid,
    /// Its swarm.
    pub swarm_id: Uuid,
    /// `stopped`
    pub status: &'static str,
    /// Why.
    pub stop_reason: String,
    /// The incarnation that was removed.
    pub incarnation: u64,
}

/// Lists a swarm's agents, stopped ones too.
#[utoipa::path(get, path = "/v1/swarms/{id}/agents", tag = "agents",
    params(("id" = Uuid, Path), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query),
        ("min_seq" = Option<u64>, Query), ("status" = Option<String>, Query)),
    responses((status = 200, body = AgentPage),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let mut params = Params::of(&uri)?;
    let (page, min_seq) = (params.page()?, params.min_seq()?);
    let status = params.one_of("status", &STATUSES)?;
    params.done()?;
    let place = known(&app, &caller, &swarm)?;
    reading::until(&app, min_seq).await?;
    let page = queries::agents(&app.pool, place.org, place.swarm, status.as_deref(), &page).await;
    Ok(Reply::json(
        StatusCode::OK,
        &page.map_err(|error| reading::failed(&app, error))?,
    ))
}

/// Shows an agent.
#[utoipa::path(get, path = "/v1/swarms/{id}/agents/{agent}", tag = "agents",
    params(("id" = Uuid, Path), ("agent" = Uuid, Path), ("min_seq" = Option<u64>, Query)),
    responses((status = 200, body = AgentRow),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, agent)): Path<(String, String)>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let mut params = Params::of(&uri)?;
    let min_seq = params.min_seq()?;
    params.done()?;
    let place = known(&app, &caller, &swarm)?;
    let agent: AgentId = id("agent", &agent)?;
    reading::until(&app, min_seq).await?;
    let row = reading::find(&app, || {
        queries::agent(&app.pool, place.org, place.swarm, agent)
    })
    .await?;
    Ok(Reply::json(
        StatusCode::OK,
        &row.ok_or_else(|| ApiProblem::unknown("agent", agent))?,
    ))
}

/// Removes an agent: its work goes to others.
#[utoipa::path(delete, path = "/v1/swarms/{id}/agents/{agent}", tag = "agents",
    params(("id" = Uuid, Path), ("agent" = Uuid, Path)),
    responses((status = 202, body = RemovedAgent, headers(("swarm-seq" = u64))),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn remove(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, agent)): Path<(String, String)>,
) -> Answer<Reply> {
    caller.may(Action::Operate)?;
    let place = known(&app, &caller, &swarm)?;
    let agent: AgentId = id("agent", &agent)?;
    let sending = Sending {
        subject: Subject::Command(place, CommandVerb::RemoveAgent),
        id: Uuid::now_v7(),
        about: agent.0,
        body: RemoveAgent {
            reason: None,
            force: true,
            grace_ms: None,
        }
        .into(),
        keyed: false,
        request: None,
        also: None,
    };
    let outcome = command::send(&app, sending).await?;
    let Body::AgentRemoved(removed) = &outcome.event.body else {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    };
    let answer = RemovedAgent {
        id: agent.0,
        swarm_id: place.swarm.0,
        status: "stopped",
        stop_reason: removed.reason.clone(),
        incarnation: removed.incarnation,
    };
    Ok(Reply::json(StatusCode::ACCEPTED, &answer).sequence(outcome.sequence))
}
