//! `/swarms/{id}/agents`

mod input;
pub mod logs;
pub mod view;

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use serde::Serialize;
use swarm_coordinator_core::Swarm;
use swarm_events::{
    AgentId, Body, Place, Problem, Subject,
    agent::AgentSpec,
    command::{AddAgent, RemoveAgent, RestartAgent, UpdateAgent},
    configuration::{Configuration, TIMEOUT_MS_MAX},
    subject::CommandVerb,
};
use swarm_projections::queries::{self, AgentRow};
use utoipa::ToSchema;
use uuid::Uuid;

pub use input::{AgentInput, AgentPatch, COUNT_MAX, RestartInput, ScaleInput};
pub use view::AgentAnswer;

use crate::{
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    command::{self, Sending},
    fold::outcomes::Outcome,
    idempotency::Key,
    json,
    params::{Params, id},
    problem::{Answer, ApiProblem, ProblemDocument},
    reading,
    swarms::{known, open, refusal, unexpected},
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
/// Number of the first command of a request under a key; its agents count up from 0.
const COMMANDS: u64 = 1 << 32;

/// A page of agents.
#[derive(Serialize, ToSchema)]
pub struct AgentPage {
    /// In the order in which they first joined.
    pub items: Vec<AgentRow>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

/// What became of one agent of several.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum AddedItem {
    /// It was added.
    Agent(Box<AgentAnswer>),
    /// It was refused.
    Refused(RefusedAgent),
}

/// An agent that was not added.
#[derive(Serialize, ToSchema)]
pub struct RefusedAgent {
    /// The id that it would have had.
    pub id: Uuid,
    /// Why.
    pub problem: ProblemDocument,
}

/// Several agents that were added.
#[derive(Serialize, ToSchema)]
pub struct AddedAgents {
    /// In the order of their numbers.
    pub items: Vec<AddedItem>,
}

/// What `POST …/agents` answers.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "it is a schema, and never made")]
pub enum AddAnswer {
    /// One agent.
    One(AgentAnswer),
    /// Several.
    Many(AddedAgents),
}

/// A swarm of the caller's organization, and the id of an agent, which need not be there.
pub(crate) fn one(
    app: &App,
    caller: &Caller,
    swarm: &str,
    agent: &str,
) -> Answer<(Place, AgentId)> {
    Ok((known(app, caller, swarm)?, id("agent", agent)?))
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

/// Shows an agent. While PostgreSQL is away, or behind, the log is asked, which lacks what tasks alone tell.
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
    let min_seq = Params::only_min_seq(&uri)?;
    let (place, agent) = one(&app, &caller, &swarm, &agent)?;
    let row = async {
        reading::until(&app, min_seq).await?;
        reading::find(&app, || {
            queries::agent(&app.pool, place.org, place.swarm, agent)
        })
        .await
    };
    match row.await {
        Ok(Some(row)) => Ok(Reply::json(StatusCode::OK, &row)),
        Ok(None) => Err(ApiProblem::unknown("agent", agent)),
        Err(problem) => {
            let met = app.fold.read().sequence();
            if problem.status != StatusCode::SERVICE_UNAVAILABLE
                || min_seq.is_some_and(|seq| seq > met)
            {
                return Err(problem);
            }
            Ok(Reply::json(
                StatusCode::OK,
                &shown(&app, place, agent, met)?,
            ))
        }
    }
}

/// An agent from the fold.
fn shown(app: &App, place: Place, agent: AgentId, last_seq: u64) -> Answer<AgentAnswer> {
    let fold = app.fold.read();
    let found = fold
        .swarm(place.org, place.swarm)
        .and_then(|swarm| Some((swarm, swarm.agents.get(&agent)?)));
    let (swarm, found) = found.ok_or_else(|| ApiProblem::unknown("agent", agent))?;
    Ok(view::of(&fold, swarm, agent, found, last_seq))
}

/// Adds agents. With an adapter a host starts a process for each; without one it is a place for a process that is started by
/// hand. Each of several has its own outcome; the first refusal is answered if all are refused.
#[utoipa::path(post, path = "/v1/swarms/{id}/agents", tag = "agents", request_body = AgentInput,
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key is the same request, for as long as swarm-key-remembered-ms says")),
    responses((status = 201, body = inline(AddAnswer), headers(("swarm-seq" = u64), ("Location" = String))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "A name is taken, or there would be more agents than max_agents"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json", description = "`unknown_ids` names the agents whose outcome is not known yet, `items` holds the others'")))]
pub async fn add(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Operate)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let (place, settings) = open(&app, &caller, &swarm)?;
    let specs = AgentInput::read(&bytes, &settings)?;
    let route = format!("POST /v1/swarms/{}/agents", place.swarm);
    let key = Key::of(&headers, caller.org, &route, &bytes)?;
    let numbered = (0..).zip(specs);
    let (agents, sendings): (Vec<_>, Vec<_>) = numbered
        .map(|(at, spec)| adding(place, at, spec, key.as_ref()))
        .unzip();
    let answers = command::send_all(&app, sendings).await?;
    let sequence = answers
        .iter()
        .flatten()
        .map(|outcome| outcome.sequence)
        .max();
    let made = agents.into_iter().zip(answers).map(|(agent, answer)| {
        let made = answer.and_then(|outcome| made(place, agent, &settings, &outcome));
        (agent, made)
    });
    let reply = match <[_; 1]>::try_from(made.collect::<Vec<_>>()) {
        Ok([(agent, made)]) => {
            let location = format!("/v1/swarms/{}/agents/{agent}", place.swarm);
            Reply::json(StatusCode::CREATED, &made?).location(&location)
        }
        Err(several) => Reply::json(StatusCode::CREATED, &each(several)?),
    };
    let reply = reply.keyed(key.is_some());
    Ok(match sequence {
        Some(sequence) => reply.sequence(sequence),
        None => reply,
    })
}

/// The command that adds the agent number `at` of a request.
fn adding(place: Place, at: u64, spec: AgentSpec, key: Option<&Key>) -> (AgentId, Sending) {
    let agent = AgentId(key.map_or_else(Uuid::now_v7, |key| key.id(at)));
    let order = AddAgent {
        spec,
        body_sha256: key.map(|key| key.body_sha256.clone()),
    };
    let sending = Sending {
        subject: Subject::Command(place, CommandVerb::AddAgent),
        id: key.map_or_else(Uuid::now_v7, |key| key.id(COMMANDS + at)),
        about: agent.0,
        body: order.into(),
        keyed: key.is_some(),
        request: key.map(Key::request_id),
        also: None,
    };
    (agent, sending)
}

fn made(
    place: Place,
    agent: AgentId,
    settings: &Configuration,
    outcome: &Outcome,
) -> Answer<AgentAnswer> {
    let Body::AgentAdded(added) = &outcome.event.body else {
        return Err(refusal(outcome).unwrap_or_else(|| unexpected(outcome)));
    };
    let (at, sequence) = (outcome.time, outcome.sequence);
    Ok(view::added(
        place,
        agent,
        &added.spec,
        settings,
        at,
        sequence,
    ))
}

/// The outcomes of several agents.
fn each(several: Vec<(AgentId, Answer<AgentAnswer>)>) -> Answer<AddedAgents> {
    let all = several.len();
    let unknown: Vec<String> = several
        .iter()
        .filter(|(_, made)| made.as_ref().is_err_and(command::is_unknown))
        .map(|(agent, _)| agent.to_string())
        .collect();
    let first = several
        .iter()
        .find_map(|(_, made)| made.as_ref().err())
        .cloned();
    let none = several.iter().all(|(_, made)| made.is_err());
    let items = several.into_iter().map(|(agent, made)| match made {
        Ok(agent) => AddedItem::Agent(Box::new(agent)),
        Err(problem) => AddedItem::Refused(RefusedAgent {
            id: agent.0,
            problem: problem.document(),
        }),
    });
    let answer = AddedAgents {
        items: items.collect(),
    };
    if !unknown.is_empty() {
        let detail = format!("of {all} agents {} have no outcome yet", unknown.len());
        let problem = Problem::new("no-answer-yet", detail)
            .field("count")
            .cure("they will be answered once the service runs again: list the agents later, or repeat the request with the same Idempotency-Key");
        let items = serde_json::to_value(&answer.items).unwrap_or_default();
        return Err(ApiProblem::new(StatusCode::GATEWAY_TIMEOUT, problem)
            .with("unknown_ids", unknown)
            .with("items", items));
    }
    match first {
        Some(problem) if none => Err(problem),
        _ => Ok(answer),
    }
}

/// Takes an agent out: it gets no more work, finishes what it has, and goes; past its grace what is left of it is killed.
#[utoipa::path(delete, path = "/v1/swarms/{id}/agents/{agent}", tag = "agents",
    params(("id" = Uuid, Path), ("agent" = Uuid, Path),
        ("force" = Option<bool>, Query, description = "At once: its work goes to others"),
        ("grace_ms" = Option<u64>, Query, description = "How long it may take to finish; the swarm's drain_grace_ms if absent")),
    responses((status = 200, body = AgentAnswer, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn remove(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, agent)): Path<(String, String)>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Operate)?;
    let mut params = Params::of(&uri)?;
    let force = params.flag("force")?;
    let grace_ms = params.within("grace_ms", 0, TIMEOUT_MS_MAX)?;
    params.done()?;
    let (place, agent) = one(&app, &caller, &swarm, &agent)?;
    if force && grace_ms > Some(0) {
        let problem = Problem::new("contradiction", "force leaves no time")
            .field("?grace_ms")
            .cure("leave out one of force and grace_ms");
        return Err(ApiProblem::new(StatusCode::BAD_REQUEST, problem));
    }
    let order = RemoveAgent {
        reason: None,
        force,
        grace_ms,
    };
    let verb = CommandVerb::RemoveAgent;
    ordered(&app, place, agent, (verb, order.into()), None).await
}

/// Starts an agent's process anew: it gets no more work, finishes what it has, and goes first. One that was given up, or had
/// ended, starts too.
#[utoipa::path(post, path = "/v1/swarms/{id}/agents/{agent}/restart", tag = "agents", request_body = Option<RestartInput>,
    params(("id" = Uuid, Path), ("agent" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = AgentAnswer, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It is started by hand"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn restart(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, agent)): Path<(String, String)>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Operate)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let going = RestartInput::read(&bytes)?;
    let (place, agent) = one(&app, &caller, &swarm, &agent)?;
    let route = format!("POST /v1/swarms/{}/agents/{agent}/restart", place.swarm);
    let key = Key::of(&headers, caller.org, &route, &bytes)?;
    let order = RestartAgent {
        reason: going.reason,
        force: going.force,
        grace_ms: going.grace_ms,
    };
    let verb = CommandVerb::RestartAgent;
    ordered(&app, place, agent, (verb, order.into()), key).await
}

/// Changes what an agent can do while it runs, by a JSON merge patch.
#[utoipa::path(put, path = "/v1/swarms/{id}/agents/{agent}", tag = "agents", request_body = AgentPatch,
    params(("id" = Uuid, Path), ("agent" = Uuid, Path)),
    responses((status = 200, body = AgentAnswer, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn update(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, agent)): Path<(String, String)>,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Operate)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let patch = AgentPatch::read(&bytes)?;
    let (place, agent) = one(&app, &caller, &swarm, &agent)?;
    let order = UpdateAgent {
        incarnation: None,
        patch,
    };
    let verb = CommandVerb::UpdateAgent;
    ordered(&app, place, agent, (verb, order.into()), None).await
}

/// Sends an order about an agent, and shows the agent after it.
async fn ordered(
    app: &App,
    place: Place,
    agent: AgentId,
    (verb, body): (CommandVerb, Body),
    key: Option<Key>,
) -> Answer<Reply> {
    let sending = Sending::new(Subject::Command(place, verb), agent.0, body)
        .keyed(key.as_ref())
        .of_request(key.as_ref());
    let outcome = command::send(app, sending).await?;
    let of_agent = matches!(outcome.subject, Subject::Agent(_, _, about) if about == agent);
    if !of_agent {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    }
    let answer = shown(app, place, agent, outcome.sequence)?;
    Ok(Reply::json(StatusCode::OK, &answer)
        .sequence(outcome.sequence)
        .keyed(key.is_some()))
}

/// Agents that are shown as a part of the swarm: those that belong to it, are to, or have not quite gone.
pub(crate) fn present(
    swarm: &Swarm,
) -> impl Iterator<Item = (AgentId, &swarm_coordinator_core::Agent)> {
    let all = swarm.agents.iter().map(|(id, agent)| (*id, agent));
    all.filter(|(_, agent)| agent.holds_place() || agent.draining.is_some())
}
