//! What the fields of commands may hold. Every refusal names the field and the cure.

use serde_json::{Map, Value};
use swarm_events::{
    Json, Problem,
    agent::{self, Profile},
    configuration::{Configuration, SLOTS_MAX, WAITING_MAX},
    swarm::{DESCRIPTION_BYTES_MAX, NAME_CHARS_MAX},
};

/// Largest `scaling_policy`, in bytes: it is carried in every `updated`.
pub const SCALING_POLICY_BYTES_MAX: usize = 16 * 1024;
pub use swarm_events::agent::METADATA_BYTES_MAX;

/// A text of 1 to `max` characters without control characters.
pub(crate) fn text(field: &str, value: &str, max: usize) -> Result<(), Problem> {
    let count = value.chars().count();
    if count == 0 || value.trim().is_empty() {
        return Err(Problem::new("empty", "must not be empty")
            .field(field)
            .cure(format!("give 1 to {max} characters")));
    }
    if count > max {
        return Err(Problem::new(
            "too-long",
            format!("has {count} characters, at most {max} are allowed"),
        )
        .field(field)
        .cure("shorten it"));
    }
    if value.chars().any(char::is_control) {
        return Err(
            Problem::new("control-character", "holds a control character")
                .field(field)
                .cure("use printable characters"),
        );
    }
    Ok(())
}

/// A swarm's name.
pub(crate) fn swarm_name(name: &str) -> Result<(), Problem> {
    text("name", name, NAME_CHARS_MAX)
}

/// A swarm's description.
pub(crate) fn description(text: Option<&str>) -> Result<(), Problem> {
    description_of("description", text)
}

/// Free text that describes something.
pub(crate) fn description_of(field: &str, text: Option<&str>) -> Result<(), Problem> {
    bytes(field, text.map_or(0, str::len), DESCRIPTION_BYTES_MAX)
}

/// `current` under a merge patch. What serde finds wrong it does not name: it is the member that is refused alone, too.
pub(crate) fn merged(current: &Configuration, patch: &Json) -> Result<Configuration, Problem> {
    current.merged(patch).map_err(|problem| {
        if !is_unnamed(&problem) {
            return problem;
        }
        let named = culprit(current, &patch.to_value());
        named.unwrap_or(problem)
    })
}

fn is_unnamed(problem: &Problem) -> bool {
    problem.field.as_deref() == Some("configuration")
}

/// The refusal of a part of `patch`, with its path: a setting, or a member of one. Settings go no deeper.
fn culprit(current: &Configuration, patch: &Value) -> Option<Problem> {
    let alone =
        |name: &str, value: Value| Value::Object(Map::from_iter([(name.to_owned(), value)]));
    let refusal = |part: Value| {
        let problem = current.merged(&Json::from(part)).err();
        problem.filter(is_unnamed)
    };
    patch.as_object()?.iter().find_map(|(setting, value)| {
        let problem = refusal(alone(setting, value.clone()))?;
        let members = value.as_object().into_iter().flatten();
        let below = members.into_iter().find_map(|(member, value)| {
            let part = alone(setting, alone(member, value.clone()));
            let problem = refusal(part)?;
            Some(problem.field(format!("configuration.{setting}.{member}")))
        });
        Some(below.unwrap_or_else(|| problem.field(format!("configuration.{setting}"))))
    })
}

/// What the configuration's own check does not cover.
pub(crate) fn configuration(configuration: &Configuration) -> Result<(), Problem> {
    let len = configuration.scaling_policy.len();
    bytes(
        "configuration.scaling_policy",
        len,
        SCALING_POLICY_BYTES_MAX,
    )
}

/// A text of at most `max` bytes.
pub(crate) fn bytes(field: &str, len: usize, max: usize) -> Result<(), Problem> {
    if len > max {
        return Err(Problem::new(
            "too-long",
            format!("has {len} bytes, at most {max} are allowed"),
        )
        .field(field)
        .cure("shorten it"));
    }
    Ok(())
}

/// What a process says of itself.
pub(crate) fn profile(profile: &Profile) -> Result<(), Problem> {
    text("agent_type", &profile.agent_type, agent::TYPE_CHARS_MAX)?;
    text("agent_name", &profile.agent_name, agent::NAME_CHARS_MAX)?;
    let count = profile.capabilities.len();
    if count > agent::CAPABILITIES_MAX {
        let max = agent::CAPABILITIES_MAX;
        let detail = format!("{count} capabilities, at most {max} are allowed");
        return Err(Problem::new("too-many", detail)
            .field("capabilities")
            .cure("name fewer, broader ones"));
    }
    for (index, capability) in profile.capabilities.iter().enumerate() {
        let field = format!("capabilities[{index}]");
        text(&field, capability, agent::CAPABILITY_BYTES_MAX)?;
        bytes(&field, capability.len(), agent::CAPABILITY_BYTES_MAX)?;
    }
    range("slots", profile.slots, 1, SLOTS_MAX)?;
    range("waiting", profile.waiting, 0, WAITING_MAX)?;
    metadata(&profile.metadata)
}

/// A number from `low` to `high`.
pub(crate) fn range<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: T,
    low: T,
    high: T,
) -> Result<(), Problem> {
    if low <= value && value <= high {
        return Ok(());
    }
    Err(Problem::new(
        "out-of-range",
        format!("{value} is outside {low} to {high}"),
    )
    .field(field)
    .cure(format!("give a number from {low} to {high}")))
}

fn metadata(metadata: &Json) -> Result<(), Problem> {
    if !metadata.is_object() {
        return Err(Problem::new("wrong-type", "must be an object").field("metadata"));
    }
    bytes("metadata", metadata.len(), METADATA_BYTES_MAX)
}

/// A SHA-256 in lower-case hex.
pub(crate) fn sha256(field: &str, value: &str) -> Result<(), Problem> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if value.len() == 64 && value.bytes().all(hex) {
        return Ok(());
    }
    Err(Problem::new(
        "wrong-format",
        "must be a SHA-256: 64 lower-case hexadecimal digits",
    )
    .field(field))
}
