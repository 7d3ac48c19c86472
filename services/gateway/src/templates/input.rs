//! What saves a template.

use serde::{Deserialize, Deserializer};
use swarm_events::{
    Json, Problem,
    configuration::{AGENTS_MAX, TopologyKind},
    org::TEMPLATE_NAME_CHARS_MAX,
    swarm::DESCRIPTION_BYTES_MAX,
    topology::Topology,
};
use utoipa::ToSchema;

use crate::{json, problem::Answer, swarms::present, topology::wanted::Wanted};

/// A topology to be saved under a name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "pipeline", "description": "One after another", "best_for": "Invoices in the order in which they came",
    "topology": "ring", "configuration": {"token_timeout_ms": 20_000}}))]
pub struct TemplateInput {
    /// 1 to 50 printable characters; not the name of a topology.
    pub name: String,
    /// What it is, at most 10,000 bytes.
    pub description: Option<String>,
    /// What it is good for, at most 10,000 bytes.
    pub best_for: Option<String>,
    /// Which topology; `topology_type` is taken too.
    #[serde(alias = "topology_type")]
    #[schema(value_type = crate::openapi::TopologyKind)]
    pub topology: TopologyKind,
    /// A merge patch (RFC 7396) over its default options.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<crate::openapi::TopologyOptions>)]
    pub configuration: Option<Json>,
}

/// What changes a template: a JSON merge patch (RFC 7396). Absent keeps, null resets.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"best_for": "Invoices", "configuration": {"token_timeout_ms": null}}))]
pub struct TemplatePatch {
    /// What it is.
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// What it is good for.
    #[serde(default, deserialize_with = "some")]
    #[schema(value_type = Option<String>)]
    pub best_for: Option<Option<String>>,
    /// Which topology; `topology_type` is taken too. Another one without `configuration` has its defaults.
    #[serde(alias = "topology_type")]
    #[schema(value_type = Option<crate::openapi::TopologyKind>)]
    pub topology: Option<TopologyKind>,
    /// A merge patch over its options as they are, or over the defaults of another topology.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<crate::openapi::TopologyOptions>)]
    pub configuration: Option<Json>,
}

/// Tells null from absent.
fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Refuses a name that cannot be one.
pub(super) fn check_name(name: &str) -> Answer<()> {
    let chars = name.chars().count();
    let readable = !name.trim().is_empty() && !name.chars().any(char::is_control);
    if readable && chars <= TEMPLATE_NAME_CHARS_MAX {
        return Ok(());
    }
    let detail = format!("has {chars} characters, or nothing that can be read");
    Err(Problem::new("wrong-length", detail)
        .field("name")
        .cure(format!(
            "give 1 to {TEMPLATE_NAME_CHARS_MAX} printable characters"
        ))
        .into())
}

fn check_text(field: &str, text: Option<&String>) -> Answer<()> {
    let bytes = text.map_or(0, String::len);
    if bytes <= DESCRIPTION_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("has {bytes} bytes, more than {DESCRIPTION_BYTES_MAX}");
    Err(Problem::new("too-long", detail)
        .field(field)
        .cure("shorten it")
        .into())
}

impl TemplateInput {
    /// Reads a request.
    ///
    /// # Errors
    /// 400, or 422 naming the field.
    pub(super) fn read(bytes: &[u8]) -> Answer<Self> {
        let input: Self = json::read(bytes)?;
        check_name(&input.name)?;
        check_text("description", input.description.as_ref())?;
        check_text("best_for", input.best_for.as_ref())?;
        Ok(input)
    }

    /// The topology that is to be saved. How many agents the swarms will have is not known: each is checked for itself.
    ///
    /// # Errors
    /// 422 naming the option.
    pub(super) fn topology(&self) -> Answer<Topology> {
        Wanted {
            topology: Some(self.topology),
            configuration: self.configuration.as_ref(),
            template: None,
            field: "configuration",
        }
        .over(None, AGENTS_MAX)
    }
}

impl TemplatePatch {
    /// Reads a request.
    ///
    /// # Errors
    /// 400, or 422 naming the field.
    pub(super) fn read(bytes: &[u8]) -> Answer<Self> {
        let patch: Self = json::read(bytes)?;
        check_text("description", patch.description.iter().flatten().next())?;
        check_text("best_for", patch.best_for.iter().flatten().next())?;
        let Self {
            description,
            best_for,
            topology,
            configuration,
        } = &patch;
        if description.is_none()
            && best_for.is_none()
            && topology.is_none()
            && configuration.is_none()
        {
            return Err(Problem::new("nothing-to-change", "the patch is empty")
                .field("body")
                .cure("give description, best_for, topology or configuration")
                .into());
        }
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_template_is_refused_by_its_field() {
        let read = |body: &Value| {
            let input = TemplateInput::read(body.to_string().as_bytes())?;
            input.topology()
        };
        let whole = |name: &str, value: Value| {
            let mut body = json!({"name": "n", "topology": "ring"});
            body[name] = value;
            body
        };
        for (body, code, field) in [
            (json!({"topology": "ring"}), "missing-field", "name"),
            (json!({"name": "n"}), "missing-field", "topology"),
            (whole("name", json!("")), "wrong-length", "name"),
            (whole("name", json!(" ")), "wrong-length", "name"),
            (whole("name", json!("a\nb")), "wrong-length", "name"),
            (whole("name", json!("n".repeat(51))), "wrong-length", "name"),
            (whole("topology", json!("cube")), "wrong-value", "topology"),
            (
                whole("description", json!("x".repeat(10_001))),
                "too-long",
                "description",
            ),
            (
                whole("best_for", json!("x".repeat(10_001))),
                "too-long",
                "best_for",
            ),
            (whole("colour", json!(1)), "unknown-field", "colour"),
            (
                whole("configuration", json!([])),
                "wrong-type",
                "configuration",
            ),
            (
                whole("configuration", json!({"order": "down"})),
                "bad-configuration",
                "configuration.order",
            ),
            (
                whole("configuration", json!({"neighbours": 2})),
                "bad-configuration",
                "configuration.neighbours",
            ),
            (
                whole("configuration", json!({"token_timeout_ms": 0})),
                "out-of-range",
                "configuration.token_timeout_ms",
            ),
        ] {
            let problem = read(&body).expect_err(&body.to_string()).problem.clone();
            assert_eq!(
                (problem.code.as_str(), problem.field.as_deref()),
                (code, Some(field)),
                "{body}"
            );
            assert!(problem.cure.is_some(), "{body}");
        }
        let most = json!({"name": "ü".repeat(50), "topology_type": "ring", "description": "x".repeat(10_000), "best_for": null,
            "configuration": null});
        assert_eq!(
            read(&most).expect("at the limits"),
            Topology::of(TopologyKind::Ring)
        );
    }

    #[test]
    fn a_patch_tells_null_from_absent() {
        let read = |body: Value| TemplatePatch::read(body.to_string().as_bytes());
        let patch = read(json!({"description": null, "configuration": null})).expect("good");
        assert_eq!((patch.description, patch.best_for), (Some(None), None));
        assert!(patch.configuration.is_some_and(|json| json.is_null()));
        for (body, field) in [
            (json!({}), "body"),
            (json!({"name": "n"}), "name"),
            (json!({"description": 7}), "description"),
            (json!({"best_for": "x".repeat(10_001)}), "best_for"),
        ] {
            let problem = read(body.clone()).expect_err("bad").problem.clone();
            assert_eq!(problem.field.as_deref(), Some(field), "{body}");
        }
    }
}
