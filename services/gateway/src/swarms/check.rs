//! What is refused before a command about a swarm is sent: the coordinator would refuse it too, a round trip later.

use axum::http::StatusCode;
use serde::Deserialize;
use swarm_events::{
    Json, Place, Problem,
    configuration::Configuration,
    swarm::{DESCRIPTION_BYTES_MAX, NAME_CHARS_MAX},
};
use utoipa::ToSchema;

use crate::{
    app::App,
    json,
    problem::{Answer, ApiProblem},
};

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
pub(crate) fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// Refuses a name that another swarm of the organization has. A partition's coordinator knows its own swarms only; the
/// gateway's fold knows all of them, but for those being created at this moment.
pub(super) fn check_free(app: &App, place: Place, name: &str) -> Answer<()> {
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

pub(super) fn check_name(name: &str) -> Answer<()> {
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

pub(super) fn check_description(text: &str) -> Answer<()> {
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

/// Checks a configuration patch over `current`, naming the field by its whole path. Answers with what it makes of it.
pub(super) fn check_configuration(current: &Configuration, patch: &Json) -> Answer<Configuration> {
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
        .map_err(|problem| ApiProblem::from(with_cure(problem)))
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

/// Reads and checks a patch; answers with it as it came, and the name in it.
pub(super) fn read_patch(bytes: &[u8], current: &Configuration) -> Answer<(Json, Option<String>)> {
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
