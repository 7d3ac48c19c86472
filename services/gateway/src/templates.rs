//! `/topologies`: topologies under a name. Four are the system's and everybody's; an organization adds its own. They are in the
//! gateway's own fold, so they are there while PostgreSQL is down.

mod input;
pub mod system;

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::Serialize;
use swarm_coordinator_core::Template;
use swarm_events::{
    Body, Json, OrgId, Partition, Problem, Subject,
    command::{DeleteTemplate, SaveTemplate},
    configuration::AGENTS_MAX,
    subject::CommandVerb,
    topology::Topology,
};
use swarm_projections::templates::{SYSTEM, SystemTopology, template_id};
use utoipa::ToSchema;
use uuid::Uuid;

pub use input::{TemplateInput, TemplatePatch};

use crate::{
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    command::{self, Sending},
    idempotency::Key,
    json,
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::{refusal, unexpected},
    topology::wanted::{Wanted, patch, word},
};

/// A topology under a name: the columns of `swarm_topologies`, and what it is good for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Template, example = json!({"id": "0190f7a0-0000-8000-8000-000000000001", "name": "pipeline",
    "description": "One after another", "best_for": "Invoices in the order in which they came", "topology_type": "ring",
    "configuration": {"order": "sequential", "token_timeout_ms": 20_000, "skip_unhealthy": true}, "is_system": false,
    "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"}))]
pub struct TemplateAnswer {
    /// Follows from the organization and the name.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// What it is good for.
    pub best_for: Option<String>,
    /// `star`, `mesh`, `hierarchical` or `ring`.
    pub topology_type: &'static str,
    /// All its options, defaults filled in.
    #[schema(value_type = crate::openapi::TopologyOptions)]
    pub configuration: Json,
    /// Every organization has it, and none changes it.
    pub is_system: bool,
    /// When it was first saved; null of the system's.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was saved last; null of the system's.
    pub updated_at: Option<DateTime<Utc>>,
}

/// A page of templates.
#[derive(Serialize, ToSchema)]
pub struct TemplatePage {
    /// The system's first, then the organization's own by name.
    pub items: Vec<TemplateAnswer>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

impl From<&SystemTopology> for TemplateAnswer {
    fn from(system: &SystemTopology) -> Self {
        Self {
            id: template_id(None, system.name()),
            name: system.name().to_owned(),
            description: Some(system.description.to_owned()),
            best_for: Some(system.best_for.to_owned()),
            topology_type: word(system.topology.kind()),
            configuration: system.topology.configuration(),
            is_system: true,
            created_at: None,
            updated_at: None,
        }
    }
}

fn shown(org: OrgId, name: &str, template: &Template) -> TemplateAnswer {
    TemplateAnswer {
        id: template_id(Some(org), name),
        name: name.to_owned(),
        description: template.description.clone(),
        best_for: template.best_for.clone(),
        topology_type: word(template.topology.kind()),
        configuration: template.topology.configuration(),
        is_system: false,
        created_at: template.created_at.to_chrono(),
        updated_at: template.updated_at.to_chrono(),
    }
}

/// An organization's own template.
fn own(app: &App, org: OrgId, name: &str) -> Option<Template> {
    let fold = app.fold.read();
    fold.organization(org)?.templates.get(name).cloned()
}

/// The topology that a request names by its template.
///
/// # Errors
/// 422 if there is none.
pub(crate) fn named(app: &App, org: OrgId, name: &str) -> Answer<Topology> {
    if let Some(system) = system::find(name) {
        return Ok(system.topology.clone());
    }
    own(app, org, name)
        .map(|template| template.topology)
        .ok_or_else(|| {
            let detail = format!("there is no template {name:?} in this organization");
            Problem::new("unknown-template", detail)
                .field("template")
                .cure("list the templates: GET /topologies")
                .into()
        })
}

fn unknown(name: &str) -> ApiProblem {
    let detail = format!("there is no template {name:?} in this organization");
    let problem = Problem::new("unknown-template", detail)
        .field("name")
        .cure("list the templates: GET /topologies");
    ApiProblem::new(StatusCode::NOT_FOUND, problem)
}

/// The system's own are nobody's to change.
fn not_of_the_system(name: &str) -> Answer<()> {
    if !system::is_taken(name) {
        return Ok(());
    }
    let problem = Problem::new(
        "reserved-name",
        format!("{name} is one of the system's templates"),
    )
    .field("name")
    .cure("save what you want under another name");
    Err(ApiProblem::new(StatusCode::CONFLICT, problem))
}

/// Lists the templates.
#[utoipa::path(get, path = "/v1/topologies", tag = "topologies",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = TemplatePage),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn list(State(app): State<Shared>, caller: Caller, uri: Uri) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let mut params = Params::of(&uri)?;
    let page = params.page()?;
    params.done()?;
    let after = page.cursor.as_deref().map(after).transpose()?;
    let fold = app.fold.read();
    let templates = fold.organization(caller.org).map(|org| &org.templates);
    let of_system = SYSTEM.iter().map(TemplateAnswer::from);
    let own = templates
        .into_iter()
        .flatten()
        .map(|(name, template)| shown(caller.org, name, template));
    let behind = |item: &TemplateAnswer| {
        let Some((is_system, name)) = &after else {
            return true;
        };
        rank(item.is_system, &item.name) > rank(*is_system, name)
    };
    let limit = usize::try_from(page.limit.unwrap_or(1)).unwrap_or(usize::MAX);
    let mut rest = of_system.chain(own).filter(behind);
    let items: Vec<_> = rest.by_ref().take(limit).collect();
    let last = items.last().filter(|_| rest.next().is_some());
    let next_cursor = last.map(|item| cursor(item.is_system, &item.name));
    Ok(Reply::json(
        StatusCode::OK,
        &TemplatePage { items, next_cursor },
    ))
}

/// The order of the list.
fn rank(is_system: bool, name: &str) -> (usize, &str) {
    let at = SYSTEM.iter().position(|system| system.name() == name);
    match at {
        Some(at) if is_system => (at, ""),
        _ => (SYSTEM.len(), name),
    }
}

fn cursor(is_system: bool, name: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}{name}", if is_system { 's' } else { 'o' }))
}

/// The item behind which a page begins.
fn after(cursor: &str) -> Answer<(bool, String)> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        match text.split_at_checked(1)? {
            ("s", name) => Some((true, name.to_owned())),
            ("o", name) => Some((false, name.to_owned())),
            _ => None,
        }
    };
    read().ok_or_else(|| {
        let problem = Problem::new("bad-parameter", "it is no cursor of this list")
            .field("?cursor")
            .cure("use next_cursor of the page before, or leave it out");
        ApiProblem::new(StatusCode::BAD_REQUEST, problem)
    })
}

/// Shows a template.
#[utoipa::path(get, path = "/v1/topologies/{name}", tag = "topologies", params(("name" = String, Path)),
    responses((status = 200, body = TemplateAnswer),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    Params::of(&uri)?.done()?;
    if let Some(system) = system::find(&name) {
        return Ok(Reply::json(StatusCode::OK, &TemplateAnswer::from(system)));
    }
    let template = own(&app, caller.org, &name).ok_or_else(|| unknown(&name))?;
    Ok(Reply::json(
        StatusCode::OK,
        &shown(caller.org, &name, &template),
    ))
}

/// Saves a topology under a name that is free.
#[utoipa::path(post, path = "/v1/topologies", tag = "topologies", request_body = TemplateInput,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key is the same request, for as long as swarm-key-remembered-ms says")),
    responses((status = 201, body = TemplateAnswer, headers(("swarm-seq" = u64), ("Location" = String))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "The name is taken"),
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
    let input = TemplateInput::read(&bytes)?;
    not_of_the_system(&input.name)?;
    let key = Key::of(&headers, caller.org, "POST /v1/topologies", &bytes)?;
    // A repeat finds the name taken by itself.
    let met = |key: &Key| app.fold.read().keyed(key.own_id()).command.is_some();
    let is_repeat = key.as_ref().is_some_and(met);
    if !is_repeat && own(&app, caller.org, &input.name).is_some() {
        let detail = format!("there is a template {:?}", input.name);
        let problem = Problem::new("name-taken", detail)
            .field("name")
            .cure("choose another name, or change that one: PUT /topologies/{name}");
        return Err(ApiProblem::new(StatusCode::CONFLICT, problem));
    }
    let topology = input.topology()?;
    let order = SaveTemplate {
        name: input.name,
        description: input.description,
        best_for: input.best_for,
        topology: topology.kind(),
        configuration: patch(None, &topology),
    };
    save(&app, &caller, order, StatusCode::CREATED, key.as_ref()).await
}

/// Changes a template by a JSON merge patch, or saves a new one under this name.
#[utoipa::path(put, path = "/v1/topologies/{name}", tag = "topologies", request_body = TemplatePatch, params(("name" = String, Path)),
    responses((status = 200, body = TemplateAnswer, headers(("swarm-seq" = u64))),
        (status = 201, body = TemplateAnswer, headers(("swarm-seq" = u64), ("Location" = String)), description = "There was none of this name"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It is one of the system's"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn update(
    State(app): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Configure)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let change = TemplatePatch::read(&bytes)?;
    input::check_name(&name)?;
    not_of_the_system(&name)?;
    let before = own(&app, caller.org, &name);
    let status = if before.is_some() {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    if before.is_none() && change.topology.is_none() {
        let problem = Problem::new(
            "missing-field",
            "topology is missing: there is no template of this name yet",
        )
        .field("topology")
        .cure("name the topology, or use the name of a template that there is");
        return Err(problem.into());
    }
    let kept = before.as_ref();
    let wanted = Wanted {
        topology: change.topology,
        configuration: change.configuration.as_ref(),
        template: None,
        field: "configuration",
    };
    let current = kept.map(|template| &template.topology);
    let topology = match current {
        // Nothing is said of it.
        Some(current) if wanted.topology.is_none() && wanted.configuration.is_none() => {
            current.clone()
        }
        current => wanted.over(current, AGENTS_MAX)?,
    };
    let order = SaveTemplate {
        name,
        description: change
            .description
            .unwrap_or_else(|| kept?.description.clone()),
        best_for: change.best_for.unwrap_or_else(|| kept?.best_for.clone()),
        topology: topology.kind(),
        // The coordinator lays it over the defaults: a template is saved as a whole.
        configuration: patch(None, &topology),
    };
    save(&app, &caller, order, status, None).await
}

async fn save(
    app: &App,
    caller: &Caller,
    order: SaveTemplate,
    status: StatusCode,
    key: Option<&Key>,
) -> Answer<Reply> {
    let name = order.name.clone();
    let sending = sending(caller, CommandVerb::SaveTemplate, order.into(), key);
    let outcome = command::send(app, sending).await?;
    let Body::OrgTemplateSaved(saved) = &outcome.event.body else {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    };
    let first = own(app, caller.org, &name).map_or(outcome.time, |template| template.created_at);
    let template = Template {
        description: saved.description.clone(),
        best_for: saved.best_for.clone(),
        topology: saved.topology.clone(),
        created_at: first.min(outcome.time),
        updated_at: outcome.time,
    };
    let reply = Reply::json(status, &shown(caller.org, &saved.name, &template))
        .sequence(outcome.sequence)
        .keyed(key.is_some());
    Ok(if status == StatusCode::CREATED {
        reply.location(&location(&saved.name))
    } else {
        reply
    })
}

/// Where a template is. Names are people's, and go percent-encoded.
fn location(name: &str) -> String {
    let mut path = "/v1/topologies/".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// Deletes a template. Swarms that were made from it keep their topology.
#[utoipa::path(delete, path = "/v1/topologies/{name}", tag = "topologies", params(("name" = String, Path)),
    responses((status = 200, body = TemplateAnswer, headers(("swarm-seq" = u64)), description = "The template as it was"),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It is one of the system's"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn delete(
    State(app): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<Reply> {
    caller.may(Action::Configure)?;
    not_of_the_system(&name)?;
    let before = own(&app, caller.org, &name).ok_or_else(|| unknown(&name))?;
    let order = DeleteTemplate { name: name.clone() };
    let sending = sending(&caller, CommandVerb::DeleteTemplate, order.into(), None);
    let outcome = command::send(&app, sending).await?;
    if !matches!(outcome.event.body, Body::OrgTemplateDeleted(_)) {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    }
    Ok(Reply::json(StatusCode::OK, &shown(caller.org, &name, &before)).sequence(outcome.sequence))
}

fn sending(caller: &Caller, verb: CommandVerb, body: Body, key: Option<&Key>) -> Sending {
    let subject = Subject::OrgCommand(Partition::of(caller.org.0), caller.org, verb);
    Sending::new(subject, caller.org.0, body).keyed(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_where_it_was() {
        for (is_system, name) in [(true, "star"), (false, "zürich"), (false, "")] {
            let read = after(&cursor(is_system, name)).expect("its own");
            assert_eq!(read, (is_system, name.to_owned()));
        }
        for bad in ["", "!", "eA", &URL_SAFE_NO_PAD.encode([255, 254])] {
            let problem = after(bad).expect_err(bad).problem.clone();
            assert_eq!(problem.field.as_deref(), Some("?cursor"));
        }
    }

    #[test]
    fn the_systems_come_first_and_in_their_own_order() {
        let ranks = [
            rank(true, "star"),
            rank(true, "mesh"),
            rank(true, "ring"),
            rank(false, "a"),
            rank(false, "star2"),
        ];
        assert!(ranks.is_sorted());
    }

    #[test]
    fn a_location_has_no_character_that_a_path_may_not_have() {
        assert_eq!(location("a b/ü"), "/v1/topologies/a%20b%2F%C3%BC");
    }
}
