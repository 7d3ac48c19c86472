//! `/swarms`

mod check;
mod view;

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use serde::{Deserialize, Serialize};
use swarm_events::{
    Body, Json, Place, Problem, Subject, SwarmId, UserId,
    command::{Create, Delete, Update},
    configuration::{Configuration, TopologyKind},
    subject::{CommandVerb, TaskVerb},
};
use swarm_projections::queries::{self, Page, SwarmFilter, SwarmRow};
use utoipa::ToSchema;
use uuid::Uuid;

use check::{check_configuration, check_description, check_free, check_name, read_patch};
use view::View;

pub use check::SwarmPatch;
pub(crate) use check::present;

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
    reading, templates,
    topology::wanted::{Wanted, patch},
};

/// What creates a swarm.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "images", "topology": "hierarchical", "topology_configuration": {"parent_child_ratio": 8},
    "configuration": {"distribution_algorithm": "affinity", "queue_limit": 10_000, "shed_from_percent": 80}}))]
pub struct SwarmInput {
    /// 1 to 100 characters, unique among the organization's swarms that are not deleted.
    pub name: String,
    /// At most 10,000 bytes.
    pub description: Option<String>,
    /// `star` if absent.
    #[schema(value_type = Option<crate::openapi::TopologyKind>)]
    pub topology: Option<TopologyKind>,
    /// A merge patch (RFC 7396) over that topology's default options, or over the template's.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<crate::openapi::TopologyOptions>)]
    pub topology_configuration: Option<Json>,
    /// The name of a template of a topology, instead of `topology`.
    pub template: Option<String>,
    /// A merge patch (RFC 7396) over the default configuration.
    #[schema(value_type = Option<crate::openapi::Configuration>)]
    pub configuration: Option<Json>,
}

/// A swarm as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct SwarmAnswer {
    /// The columns of the read model.
    #[serde(flatten)]
    pub swarm: SwarmRow,
    /// The NATS subject to which a `task.submitted` CloudEvent for this swarm can be published directly.
    pub events_subject: String,
}

/// A page of swarms.
#[derive(Debug, Serialize, ToSchema)]
pub struct SwarmPage {
    /// In the order of their creation.
    pub items: Vec<SwarmAnswer>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

impl From<SwarmRow> for SwarmAnswer {
    fn from(swarm: SwarmRow) -> Self {
        let place = Place::new(swarm.organization_id.into(), swarm.id.into());
        Self {
            events_subject: Subject::Task(place, TaskVerb::Submitted, None).to_string(),
            swarm,
        }
    }
}

/// The refusal in an outcome, if it is one.
pub fn refusal(outcome: &Outcome) -> Option<ApiProblem> {
    let problem = match &outcome.event.body {
        Body::SwarmRefused(refused) => &refused.problem,
        Body::OrgRefused(refused) => &refused.problem,
        Body::TaskRefused(refused) => &refused.problem,
        _ => return None,
    };
    Some(ApiProblem::decided(problem.clone()).with("seq", outcome.sequence))
}

/// An outcome that is neither what was asked for nor a refusal.
pub fn unexpected(outcome: &Outcome) -> ApiProblem {
    let detail = format!(
        "the command was answered by {}",
        outcome.event.body.type_name()
    );
    ApiProblem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        Problem::new("unexpected-outcome", detail).cure("see the events of the swarm"),
    )
    .with("seq", outcome.sequence)
}

/// A swarm of the caller's organization, from the fold.
///
/// # Errors
/// 404
pub fn known(app: &App, caller: &Caller, text: &str) -> Answer<Place> {
    let swarm: SwarmId = id("swarm", text)?;
    let fold = app.fold.read();
    fold.swarm(caller.org, swarm)
        .map(|swarm| swarm.place)
        .ok_or_else(|| ApiProblem::unknown("swarm", swarm))
}

/// As [`known`], and it takes tasks and agents.
///
/// # Errors
/// 404, or 409 if it is being terminated or was deleted.
pub fn open(app: &App, caller: &Caller, text: &str) -> Answer<(Place, Configuration)> {
    let swarm: SwarmId = id("swarm", text)?;
    let fold = app.fold.read();
    let found = fold
        .swarm(caller.org, swarm)
        .ok_or_else(|| ApiProblem::unknown("swarm", swarm))?;
    let (code, detail) = match (found.deleted_at, found.stopping) {
        (Some(_), _) => ("swarm-deleted", "the swarm was deleted"),
        (None, Some(_)) => ("swarm-stopping", "the swarm is being terminated"),
        (None, None) => return Ok((found.place, found.configuration.clone())),
    };
    let problem = Problem::new(code, detail)
        .field("id")
        .cure("use another swarm, or create one");
    Err(ApiProblem::new(StatusCode::CONFLICT, problem))
}

/// Creates a swarm.
#[utoipa::path(post, path = "/v1/swarms", tag = "swarms", request_body = SwarmInput,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key is the same request, for as long as swarm-key-remembered-ms says")),
    responses((status = 201, body = SwarmAnswer, headers(("swarm-seq" = u64), ("Location" = String))),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn create(
    State(app): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Configure)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let input: SwarmInput = json::read(&bytes)?;
    check_name(&input.name)?;
    check_description(input.description.as_deref().unwrap_or_default())?;
    let configuration = input.configuration.unwrap_or_default();
    let settings = check_configuration(&Configuration::default(), &configuration)?;
    let template = input.template.as_deref();
    let template = template
        .map(|name| templates::named(&app, caller.org, name))
        .transpose()?;
    let wanted = Wanted {
        topology: input.topology,
        configuration: input.topology_configuration.as_ref(),
        template: template.as_ref(),
        field: "topology_configuration",
    };
    let topology = wanted.over(None, settings.max_agents)?;
    let key = Key::of(&headers, caller.org, "POST /v1/swarms", &bytes)?;
    let swarm = key.as_ref().map_or_else(Uuid::now_v7, |key| key.id(0));
    let place = Place::new(caller.org, SwarmId(swarm));
    check_free(&app, place, &input.name)?;
    let order = Create {
        name: input.name,
        description: input.description,
        topology: Some(topology.kind()),
        topology_configuration: patch(None, &topology),
        configuration,
        created_by: Some(UserId(caller.user.0)),
        body_sha256: key.as_ref().map(|key| key.body_sha256.clone()),
    };
    let sending = sending(place, CommandVerb::Create, order.into(), key.as_ref());
    let outcome = command::send(&app, sending).await?;
    let view = View::created(&outcome)
        .ok_or_else(|| refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)))?;
    let answer = view.answer(outcome.sequence)?;
    let location = format!("/v1/swarms/{}", place.swarm);
    Ok(Reply::json(StatusCode::CREATED, &answer)
        .sequence(outcome.sequence)
        .location(&location)
        .keyed(key.is_some()))
}

fn sending(place: Place, verb: CommandVerb, body: Body, key: Option<&Key>) -> Sending {
    Sending::new(Subject::Command(place, verb), place.swarm.0, body).keyed(key)
}

/// Lists the organization's swarms in the order of their creation.
#[utoipa::path(get, path = "/v1/swarms", tag = "swarms",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query), ("min_seq" = Option<u64>, Query),
        ("status" = Option<String>, Query), ("name" = Option<String>, Query),
        ("deleted" = Option<bool>, Query, description = "Deleted ones too")),
    responses((status = 200, body = SwarmPage),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn list(State(app): State<Shared>, caller: Caller, uri: Uri) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let mut params = Params::of(&uri)?;
    let (page, min_seq) = (params.page()?, params.min_seq()?);
    let filter = SwarmFilter {
        status: params.one_of(
            "status",
            &["inactive", "starting", "active", "degraded", "stopping"],
        )?,
        name: params.text("name"),
        deleted: params
            .value("deleted", "give true or false")?
            .unwrap_or(false),
    };
    params.done()?;
    reading::until(&app, min_seq).await?;
    let rows = queries::swarms(&app.pool, caller.org, &filter, &page).await;
    let Page { items, next_cursor } = rows.map_err(|error| reading::failed(&app, error))?;
    let items = items.into_iter().map(SwarmAnswer::from).collect();
    Ok(Reply::json(
        StatusCode::OK,
        &SwarmPage { items, next_cursor },
    ))
}

/// Shows a swarm, deleted ones too.
#[utoipa::path(get, path = "/v1/swarms/{id}", tag = "swarms",
    params(("id" = Uuid, Path), ("min_seq" = Option<u64>, Query)),
    responses((status = 200, body = SwarmAnswer),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let min_seq = Params::only_min_seq(&uri)?;
    let place = known(&app, &caller, &swarm)?;
    reading::until(&app, min_seq).await?;
    let row = reading::find(&app, || queries::swarm(&app.pool, place.org, place.swarm)).await?;
    let row = row.ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))?;
    Ok(Reply::json(StatusCode::OK, &SwarmAnswer::from(row)))
}

/// Changes a swarm's name, description or configuration by a JSON merge patch.
#[utoipa::path(put, path = "/v1/swarms/{id}", tag = "swarms", request_body = SwarmPatch, params(("id" = Uuid, Path)),
    responses((status = 200, body = SwarmAnswer, headers(("swarm-seq" = u64))),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn update(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Configure)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let (place, current) = open(&app, &caller, &swarm)?;
    let (patch, name) = read_patch(&bytes, &current)?;
    if let Some(name) = name {
        check_free(&app, place, &name)?;
    }
    let update = sending(place, CommandVerb::Update, Update { patch }.into(), None);
    let outcome = command::send(&app, update).await?;
    if !matches!(outcome.event.body, Body::SwarmUpdated(_)) {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    }
    Ok(Reply::json(StatusCode::OK, &shown(&app, place, &outcome)?).sequence(outcome.sequence))
}

/// The swarm after a command, from the fold, which has met the outcome.
fn shown(app: &App, place: Place, outcome: &Outcome) -> Answer<SwarmAnswer> {
    let fold = app.fold.read();
    let swarm = fold
        .swarm(place.org, place.swarm)
        .ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))?;
    View::of(swarm).answer(outcome.sequence)
}

/// Terminates a swarm: its tasks are cancelled and its agents stopped; then it is inactive and stays readable.
#[utoipa::path(delete, path = "/v1/swarms/{id}", tag = "swarms", params(("id" = Uuid, Path)),
    responses((status = 202, body = SwarmAnswer, headers(("swarm-seq" = u64))),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn delete(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
) -> Answer<Reply> {
    caller.may(Action::Operate)?;
    let (place, _) = open(&app, &caller, &swarm)?;
    let delete = sending(place, CommandVerb::Delete, Delete {}.into(), None);
    let outcome = command::send(&app, delete).await?;
    if !matches!(outcome.event.body, Body::SwarmStopping(_)) {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    }
    let mut answer = shown(&app, place, &outcome)?;
    // An empty swarm is deleted by the very next event; what was decided is its stopping.
    "stopping".clone_into(&mut answer.swarm.status);
    Ok(Reply::json(StatusCode::ACCEPTED, &answer).sequence(outcome.sequence))
}
