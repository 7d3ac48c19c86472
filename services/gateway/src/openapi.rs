//! `/openapi.json`: made from the handlers and types themselves.

use std::sync::LazyLock;

use axum::{http::header, response::IntoResponse};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use crate::{
    agents, blackboard, bulk, callbacks, explain, figures, health, live, messages, orders,
    organization, probes, problem, questions, scale, submission, submit, swarms, tasks, templates,
    topology,
};

/// Stands for the schemas of the events crate, which are generated from the types that the log stores.
macro_rules! stands_for {
    ($($(#[$doc:meta])* $name:ident),+) => {$(
        $(#[$doc])*
        #[derive(ToSchema)]
        pub struct $name;
    )+};
}
stands_for! {
    /// A swarm's settings.
    Configuration,
    /// A topology's name.
    TopologyKind,
    /// Options of a star: a hub and its workers.
    Star,
    /// Options of a mesh: peers.
    Mesh,
    /// Options of a tree.
    Hierarchical,
    /// Options of a ring: a circle with a token.
    Ring,
    /// What a dependency waits for.
    DependencyType,
    /// What a verdict on an agent's life rests on.
    Evidence,
    /// How an agent does its work.
    Adapter,
    /// When a process that ended is started again.
    RestartPolicy,
    /// What an agent's process tree may use.
    ResourceLimits,
    /// What a quarantine rests on.
    Figures,
    /// When an agent is held to be silent, stuck or unfit.
    HealthPolicy,
    /// An edge of a graph.
    Dependency,
    /// Why a task is where it is.
    TaskExplanation
}

/// Options of a topology: those of the kind that it is.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum TopologyOptions {
    /// A hub and its workers.
    Star(Star),
    /// Peers.
    Mesh(Mesh),
    /// A tree.
    Hierarchical(Hierarchical),
    /// A circle with a token.
    Ring(Ring),
}

/// What `POST …/tasks` takes.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "it is a schema, and never made")]
pub enum SubmissionInput {
    /// One task alone.
    One(submission::TaskInput),
    /// Several, taken or refused together.
    Many(submission::GraphInput),
}

/// What `POST …/tasks` answers.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "it is a schema, and never made")]
pub enum SubmissionAnswer {
    /// One task alone.
    One(submit::TaskAccepted),
    /// A graph.
    Many(submit::GraphAccepted),
}

struct BearerKey;
impl Modify for BearerKey {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, swk_…"))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Swarm",
        description = "Swarms of agents and their tasks. Every path below /v1/swarms is there without /v1 too. Errors are \
                       RFC 9457 problems that name the field and the cure. A write answers with swarm-seq, the stream \
                       sequence that it reached; a read with ?min_seq= of it sees the write.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        swarms::create, swarms::list, swarms::show, swarms::update, swarms::delete,
        agents::list, agents::show, agents::add, agents::update, agents::remove, agents::restart, agents::logs::show, callbacks::call,
        scale::scale, topology::show, topology::update,
        templates::list, templates::create, templates::show, templates::update, templates::delete,
        organization::show, organization::update,
        submit::submit, bulk::submit, tasks::list, tasks::show, tasks::show_anywhere,
        explain::show, explain::show_anywhere,
        orders::cancel, orders::delete, orders::retry, orders::discard,
        orders::cancel_many, orders::retry_many, orders::discard_many,
        messages::send, messages::list, messages::follow,
        questions::list, questions::show, questions::answer,
        blackboard::list, blackboard::show, blackboard::put, blackboard::delete,
        health::show, figures::show, live::follow, probes::live, probes::ready, probes::metrics,
    ),
    components(schemas(
        problem::ProblemDocument, submission::TaskInput, submission::GraphInput, submit::TaskAccepted,
        submit::GraphAccepted, orders::OrdersAnswer, orders::CancelledGraph, Configuration, TopologyKind, TopologyOptions, Star, Mesh, Hierarchical, Ring, DependencyType, Evidence, Dependency,
        TaskExplanation, agents::AgentAnswer, agents::AddedAgents, Adapter, RestartPolicy, ResourceLimits, Figures, HealthPolicy,
    )),
    security(("key" = [])),
    modifiers(&BearerKey),
)]
struct Document;

/// The document.
pub fn document() -> Value {
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_else(|_| json!({}));
    let settings =
        SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    generator.subschema_for::<swarm_events::configuration::Configuration>();
    generator.subschema_for::<swarm_events::configuration::TopologyKind>();
    generator.subschema_for::<swarm_events::topology::Star>();
    generator.subschema_for::<swarm_events::topology::Mesh>();
    generator.subschema_for::<swarm_events::topology::Hierarchical>();
    generator.subschema_for::<swarm_events::topology::Ring>();
    generator.subschema_for::<swarm_events::agent::Evidence>();
    generator.subschema_for::<swarm_events::agent::Adapter>();
    generator.subschema_for::<swarm_events::agent::RestartPolicy>();
    generator.subschema_for::<swarm_events::agent::ResourceLimits>();
    generator.subschema_for::<swarm_events::agent::Figures>();
    generator.subschema_for::<swarm_events::configuration::HealthPolicy>();
    generator.subschema_for::<swarm_events::task::Dependency>();
    generator.subschema_for::<explain::answer::TaskExplanation>();
    if let Some(schemas) = document
        .pointer_mut("/components/schemas")
        .and_then(Value::as_object_mut)
    {
        schemas.extend(generator.take_definitions(true));
    }
    document
}

static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The OpenAPI document.
pub async fn show() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    found.push(reference.clone());
                }
                members
                    .values()
                    .for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 30, "{} references", found.len());
        for reference in found {
            let pointer = reference
                .strip_prefix('#')
                .expect("a reference within the document");
            assert!(
                document.pointer(pointer).is_some(),
                "{reference} leads nowhere"
            );
        }
    }

    #[test]
    fn every_post_takes_a_key_and_every_operation_tells_of_problems() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        for path in ["bulk", "cancel", "retry", "discard"] {
            let path = format!("/v1/swarms/{{id}}/tasks/{path}");
            assert!(paths[&path]["post"].is_object(), "{path}");
        }
        for verb in ["get", "put"] {
            assert!(paths["/v1/organization"][verb].is_object(), "{verb}");
        }
        for (path, operations) in paths {
            let post = &operations["post"];
            if !post.is_object() {
                continue;
            }
            let parameters = post["parameters"].as_array().expect("parameters");
            let keyed = parameters.iter().any(|p| p["name"] == "Idempotency-Key");
            // An assignment is ended once: a callback's repeat needs no key.
            let named = path.contains("/callbacks/");
            assert!(keyed || named, "POST {path} takes no key");
            let responses = post["responses"].as_object().expect("responses");
            let problem = responses
                .values()
                .any(|response| response["content"]["application/problem+json"].is_object());
            assert!(problem, "POST {path} tells of no problem");
        }
        for name in [
            "TaskInput",
            "MessageInput",
            "AnswerInput",
            "GraphInput",
            "BulkInput",
            "SwarmInput",
            "CancelInput",
            "AgentInput",
            "ScaleInput",
            "CancelManyInput",
            "ManyInput",
            "OrganizationPatch",
            "TopologyInput",
            "TemplateInput",
            "TemplatePatch",
        ] {
            let schema = &document["components"]["schemas"][name];
            let example = schema.get("example").or_else(|| schema.get("examples"));
            assert!(example.is_some(), "{name} has no example: {schema}");
        }
    }

    #[test]
    fn every_setting_of_a_swarm_is_described() {
        let document = document();
        let properties = document
            .pointer("/components/schemas/Configuration/properties")
            .expect("properties");
        let defaults = serde_json::to_value(swarm_events::configuration::Configuration::default())
            .expect("JSON");
        for name in defaults.as_object().expect("an object").keys() {
            assert!(properties.get(name).is_some(), "{name} is not described");
        }
    }
}
