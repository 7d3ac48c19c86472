//! `/swarms`

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use swarm_coordinator_core::{Swarm, SwarmStatus};
use swarm_events::{
    Body, Json, Place, Problem, Subject, SwarmId, Timestamp, UserId,
    command::{Create, Delete, Update},
    configuration::{Configuration, TopologyKind},
    subject::{CommandVerb, TaskVerb},
    swarm::{DESCRIPTION_BYTES_MAX, NAME_CHARS_MAX},
};
use swarm_projections::queries::{self, Page, SwarmFilter, SwarmRow};
use utoipa::ToSchema;
use uuid::Uuid;

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
};

/// What creates a swarm.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwarmInput {
    /// 1 to 100 characters, unique among the organization's swarms that are not deleted.
    pub name: String,
    /// At most 10,000 bytes.
    pub description: Option<String>,
    /// `star` if absent.
    #[schema(value_type = Option<crate::openapi::TopologyKind>)]
    pub topology: Option<TopologyKind>,
    /// A merge patch (RFC 7396) over the default configuration.
    #[schema(value_type = Option<crate::openapi::Configuration>)]
    pub configuration: Option<Json>,
}

/// What changes a swarm: a JSON merge patch (RFC 7396). Absent keeps, null resets to the default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwarmPatch {
    /// A swarm always has a name.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Json>,
    /// Text or null.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Json>,
    /// Settings to change.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<crate::openapi::Configuration>)]
    pub configuration: Option<Json>,
}

/// Tells null from absent.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
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

fn time(at: Timestamp) -> DateTime<Utc> {
    at.to_chrono().unwrap_or_default()
}

/// What is shown of a swarm, as the log tells it.
struct View<'a> {
    place: Place,
    name: &'a str,
    description: Option<&'a str>,
    topology: TopologyKind,
    configuration: &'a Configuration,
    status: SwarmStatus,
    live_agents: usize,
    created_by: Option<UserId>,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
    created_seq: u64,
}

impl<'a> View<'a> {
    fn of(swarm: &'a Swarm) -> Self {
        Self {
            place: swarm.place,
            name: &swarm.name,
            description: swarm.description.as_deref(),
            topology: swarm.topology,
            configuration: &swarm.configuration,
            status: swarm.status(),
            live_agents: swarm.live_agents(),
            created_by: swarm.created_by,
            created_at: swarm.created_at,
            updated_at: swarm.updated_at,
            deleted_at: swarm.deleted_at,
            created_seq: swarm.created_seq,
        }
    }

    /// The swarm as it was when it was created: a repeat of the request is answered the same.
    fn created(outcome: &'a Outcome) -> Option<Self> {
        let (Body::SwarmCreated(created), Some(place)) =
            (&outcome.event.body, outcome.subject.place())
        else {
            return None;
        };
        Some(Self {
            place,
            name: &created.name,
            description: created.description.as_deref(),
            topology: created.topology,
            configuration: &created.configuration,
            // No agent has ever joined: the coordinator's rule for that.
            status: if created.configuration.min_agents == 0 {
                SwarmStatus::Inactive
            } else {
                SwarmStatus::Starting
            },
            live_agents: 0,
            created_by: created.created_by,
            created_at: outcome.time,
            updated_at: outcome.time,
            deleted_at: None,
            created_seq: outcome.sequence,
        })
    }

    /// The row that the read model has of it.
    fn answer(&self, last_seq: u64) -> Answer<SwarmAnswer> {
        let unwritable = |error: serde_json::Error| {
            ApiProblem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Problem::new("unwritable-swarm", error.to_string()),
            )
        };
        let raw = |text: String| {
            RawValue::from_string(text)
                .map(sqlx::types::Json)
                .map_err(unwritable)
        };
        let topology = serde_json::to_value(self.topology).map_err(unwritable)?;
        let row = SwarmRow {
            id: self.place.swarm.0,
            organization_id: self.place.org.0,
            name: self.name.to_owned(),
            description: self.description.map(str::to_owned),
            topology: topology.as_str().unwrap_or_default().to_owned(),
            topology_configuration: raw("{}".to_owned())?,
            configuration: raw(serde_json::to_string(self.configuration).map_err(unwritable)?)?,
            status: self.status.as_str().to_owned(),
            leader_agent_id: None,
            agent_count: i32::try_from(self.live_agents).unwrap_or(i32::MAX),
            partition: i16::from(self.place.partition.number()),
            created_by: self.created_by.map(|user| user.0),
            created_at: time(self.created_at),
            updated_at: time(self.updated_at),
            deleted_at: self.deleted_at.map(time),
            created_seq: i64::try_from(self.created_seq).unwrap_or(i64::MAX),
            last_seq: i64::try_from(last_seq).unwrap_or(i64::MAX),
        };
        Ok(row.into())
    }
}

/// Refuses a name that another swarm of the organization has. A partition's coordinator knows its own swarms only; the
/// gateway's fold knows all of them, but for those being created at this moment.
fn check_free(app: &App, place: Place, name: &str) -> Answer<()> {
    let fold = app.fold.read();
    let other = fold
        .swarms_of(place.org)
        .find(|other| other.name == name && other.deleted_at.is_none() && other.place != place);
    let Some(other) = other else { return Ok(()) };
    let problem = Problem::new(
        "name-taken",
        format!("swarm {} has this name", other.place.swarm),
    )
    .field("name")
    .cure("choose another name, or delete that swarm");
    Err(ApiProblem::new(StatusCode::CONFLICT, problem))
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

fn check_name(name: &str) -> Answer<()> {
    let chars = name.chars().count();
    if (1..=NAME_CHARS_MAX).contains(&chars)
        && !name.trim().is_empty()
        && !name.chars().any(char::is_control)
    {
        return Ok(());
    }
    let detail = format!("has {chars} characters, or only blanks, or a control character");
    Err(Problem::new("wrong-length", detail)
        .field("name")
        .cure("give 1 to 100 printable characters")
        .into())
}

fn check_description(text: &str) -> Answer<()> {
    if text.len() <= DESCRIPTION_BYTES_MAX {
        return Ok(());
    }
    let detail = format!(
        "has {} bytes, more than {DESCRIPTION_BYTES_MAX}",
        text.len()
    );
    Err(Problem::new("too-long", detail)
        .field("description")
        .cure("shorten it")
        .into())
}

/// Checks a configuration patch over `current`, naming the field by its whole path.
fn check_configuration(current: &Configuration, patch: &Json) -> Answer<()> {
    // Every setting has a default, so that a patch without its nulls is a configuration by itself: its shape is checked
    // alone, where the path of a mistake is known.
    let shape: Result<Configuration, _> =
        serde_path_to_error::deserialize(without_nulls(patch.to_value()));
    if let Err(error) = shape.as_ref()
        && patch.is_object()
    {
        let path = match error.path().to_string() {
            path if path == "." => "configuration".to_owned(),
            path => format!("configuration.{path}"),
        };
        return Err(json::named(&path, &error.inner().to_string()).into());
    }
    current
        .merged(patch)
        .map_err(|problem| ApiProblem::from(with_cure(problem)))?;
    Ok(())
}

fn with_cure(problem: Problem) -> Problem {
    if problem.cure.is_some() {
        problem
    } else {
        problem.cure("see Configuration in /openapi.json")
    }
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name, without_nulls(value)))
                .collect()
        }
        other => other,
    }
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
    check_configuration(&Configuration::default(), &configuration)?;
    let key = Key::of(&headers, caller.org, "POST /v1/swarms", &bytes)?;
    let swarm = key.as_ref().map_or_else(Uuid::now_v7, |key| key.id(0));
    let place = Place::new(caller.org, SwarmId(swarm));
    check_free(&app, place, &input.name)?;
    let order = Create {
        name: input.name,
        description: input.description,
        topology: input.topology,
        configuration,
        created_by: Some(UserId(caller.user.0)),
        body_sha256: key.as_ref().map(|key| key.body_sha256.clone()),
    };
    let sending = sending(place, CommandVerb::Create, order.into(), key.as_ref());
    let outcome = command::send(&app, sending, &[]).await?;
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
    Sending {
        subject: Subject::Command(place, verb),
        id: key.map_or_else(Uuid::now_v7, Key::own_id),
        about: place.swarm.0,
        body,
        keyed: key.is_some(),
    }
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
        status: params.text("status"),
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
    let mut params = Params::of(&uri)?;
    let min_seq = params.min_seq()?;
    params.done()?;
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
    let outcome = command::send(
        &app,
        sending(place, CommandVerb::Update, Update { patch }.into(), None),
        &[],
    )
    .await?;
    if !matches!(outcome.event.body, Body::SwarmUpdated(_)) {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    }
    Ok(Reply::json(StatusCode::OK, &shown(&app, place, &outcome)?).sequence(outcome.sequence))
}

/// Reads and checks a patch; answers with it as it came, and the name in it.
fn read_patch(bytes: &[u8], current: &Configuration) -> Answer<(Json, Option<String>)> {
    let patch: SwarmPatch = json::read(bytes)?;
    let is_text = |field: &str, value: &Json| {
        value.to::<String>().map_err(|_| {
            ApiProblem::from(
                Problem::new("wrong-value", "must be a text")
                    .field(field)
                    .cure("give a JSON string"),
            )
        })
    };
    let name = patch
        .name
        .as_ref()
        .map(|name| is_text("name", name))
        .transpose()?;
    if let Some(name) = &name {
        check_name(name)?;
    }
    if let Some(description) = patch.description.as_ref().filter(|text| !text.is_null()) {
        check_description(&is_text("description", description)?)?;
    }
    if let Some(configuration) = patch
        .configuration
        .as_ref()
        .filter(|patch| !patch.is_null())
    {
        check_configuration(current, configuration)?;
    }
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let whole = Json::parse(text.trim());
    let whole =
        whole.map_err(|error| Problem::new("malformed-json", error.to_string()).field("body"))?;
    Ok((whole, name))
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
    let outcome = command::send(
        &app,
        sending(place, CommandVerb::Delete, Delete {}.into(), None),
        &[],
    )
    .await?;
    if !matches!(outcome.event.body, Body::SwarmStopping(_)) {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    }
    let mut answer = shown(&app, place, &outcome)?;
    // An empty swarm is deleted by the very next event; what was decided is its stopping.
    "stopping".clone_into(&mut answer.swarm.status);
    Ok(Reply::json(StatusCode::ACCEPTED, &answer).sequence(outcome.sequence))
}
