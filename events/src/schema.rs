//! Documents generated from the types: a JSON Schema for each type, and an AsyncAPI document for the whole bus.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::{
    body::Body,
    subject::{CommandVerb, TaskVerb},
};

/// The JSON Schema (draft 2020-12) of the `data` of the type `name`; `None` if there is no such type.
pub fn data_schema(name: &str) -> Option<Value> {
    let kind = Body::TYPES.iter().find(|t| t.name == name)?;
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let schema = (kind.schema)(&mut generator);
    let mut document = schema.to_value();
    // A struct becomes a reference into the definitions; both stand in one document.
    let definitions = generator.take_definitions(true);
    if let Some(object) = document.as_object_mut() {
        object.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        object.insert("title".to_owned(), json!(name));
        if !definitions.is_empty() {
            object.insert("$defs".to_owned(), Value::Object(definitions));
        }
    }
    Some(document)
}

/// Address of the channel on which a type is published, with its parameters in braces.
fn address(name: &str) -> String {
    let mut parts = name.split('.').skip(1);
    let (aggregate, verb) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    match aggregate {
        "org" => format!("swarm.evt.{{partition}}.{{org}}.org.{verb}"),
        "cmd" if verb.parse().is_ok_and(|verb: CommandVerb| verb.of_org()) => {
            format!("swarm.cmd.{{partition}}.{{org}}.org.{verb}")
        }
        "cmd" => format!("swarm.cmd.{{partition}}.{{org}}.{{swarm}}.{verb}"),
        "ctl" => format!("swarm.ctl.{{service}}.{{partition}}.{verb}"),
        "agent" => format!("swarm.evt.{{partition}}.{{org}}.{{swarm}}.agent.{verb}.{{agent}}"),
        "task" if verb.parse().is_ok_and(TaskVerb::names_agent) => {
            format!("swarm.evt.{{partition}}.{{org}}.{{swarm}}.task.{verb}.{{agent}}")
        }
        _ => format!("swarm.evt.{{partition}}.{{org}}.{{swarm}}.{aggregate}.{verb}"),
    }
}

/// The AsyncAPI 3.0 document of the event stream. Schemas are referenced as files beside it.
pub fn asyncapi() -> Value {
    let mut channels = serde_json::Map::new();
    let mut messages = serde_json::Map::new();
    let mut operations = serde_json::Map::new();
    for kind in Body::TYPES {
        let address = address(kind.name);
        let parameters: serde_json::Map<String, Value> = address
            .split('.')
            .filter_map(|token| token.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| (name.to_owned(), json!({})))
            .collect();
        let reference = json!({"$ref": format!("#/components/messages/{}", kind.name)});
        channels.insert(
            kind.name.to_owned(),
            json!({"address": address, "parameters": parameters, "messages": {kind.name: reference}}),
        );
        messages.insert(
            kind.name.to_owned(),
            json!({
                "name": kind.name,
                "contentType": crate::envelope::CONTENT_TYPE,
                "payload": {
                    "type": "object",
                    "required": ["specversion", "id", "source", "type", "subject", "data"],
                    "properties": {
                        "type": {"const": kind.name},
                        "data": {"$ref": format!("schemas/{}.json", kind.name)},
                    },
                },
            }),
        );
        operations.insert(
            format!("receive.{}", kind.name),
            json!({"action": "receive", "channel": {"$ref": format!("#/channels/{}", kind.name)}}),
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Swarm events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything that the stream swarm_events holds: structured-mode CloudEvents 1.0 in JSON.",
        },
        "defaultContentType": crate::envelope::CONTENT_TYPE,
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    })
}
