//! JSON Schemas of typed handlers, which the agent shows under its metadata.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, schema_for};
use serde_json::{Map, Value, json};
use swarm_events::Json;

/// Member of the metadata under which each task type has its `input` and `output`.
pub const TASK_TYPES: &str = "task_types";
pub use swarm_events::agent::METADATA_BYTES_MAX;

/// What a handler takes and gives.
#[derive(Clone, Debug)]
pub(crate) struct Types {
    input: Schema,
    output: Schema,
}

impl Types {
    pub(crate) fn of<In: JsonSchema, Out: JsonSchema>() -> Self {
        Self {
            input: schema_for!(In),
            output: schema_for!(Out),
        }
    }

    fn to_value(&self) -> Value {
        json!({"input": self.input, "output": self.output})
    }
}

/// The metadata with the schemas of those task types that it does not describe itself.
///
/// # Errors
/// In words, when it is no object, or together too large.
pub(crate) fn described(metadata: &Json, types: &BTreeMap<String, Types>) -> Result<Json, String> {
    if types.is_empty() {
        return bounded(metadata.clone(), types);
    }
    let Value::Object(mut members) = metadata.to_value() else {
        return Err("metadata: it must be a JSON object".to_owned());
    };
    let own = members
        .entry(TASK_TYPES)
        .or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(own) = own else {
        return Err(format!(
            "metadata.{TASK_TYPES}: it must be a JSON object with one member for each task type"
        ));
    };
    for (task_type, types) in types {
        own.entry(task_type).or_insert_with(|| types.to_value());
    }
    bounded(Value::Object(members).into(), types)
}

fn bounded(metadata: Json, types: &BTreeMap<String, Types>) -> Result<Json, String> {
    let bytes = metadata.len();
    if bytes <= METADATA_BYTES_MAX {
        return Ok(metadata);
    }
    let largest = types
        .iter()
        .map(|(name, types)| (types.to_value().to_string().len(), name))
        .max();
    let (part, cure) = largest.map_or_else(Default::default, |(bytes, name)| {
        (
            format!("; the schemas of task type {name} alone have {bytes}"),
            ", or leave the schemas out with without_schemas()",
        )
    });
    Err(format!(
        "metadata: {bytes} bytes are more than the limit of {METADATA_BYTES_MAX}{part}: make it smaller{cure}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(names: &[&str]) -> BTreeMap<String, Types> {
        let one = Types::of::<Vec<u8>, String>();
        names
            .iter()
            .map(|name| ((*name).to_owned(), one.clone()))
            .collect()
    }
    fn of(metadata: Value, names: &[&str]) -> Result<Value, String> {
        described(&metadata.into(), &types(names)).map(|json| json.to_value())
    }

    #[test]
    fn each_task_type_shows_what_it_takes_and_gives() {
        let shown = of(json!({"a": 1}), &["sum"]).expect("small");
        assert_eq!(shown["a"], 1);
        assert_eq!(shown["task_types"]["sum"]["input"]["type"], "array");
        assert_eq!(shown["task_types"]["sum"]["output"]["type"], "string");
    }

    #[test]
    fn what_the_author_says_of_a_type_stands() {
        let own = json!({"task_types": {"sum": {"input": true}}});
        let shown = of(own, &["sum", "max"]).expect("small");
        assert_eq!(shown["task_types"]["sum"], json!({"input": true}));
        assert_eq!(shown["task_types"]["max"]["output"]["type"], "string");
    }

    #[test]
    fn metadata_that_cannot_hold_them_is_refused_by_name() {
        for (metadata, words) in [
            (json!([]), "metadata: it must be a JSON object"),
            (json!({"task_types": 1}), "metadata.task_types: it must be"),
        ] {
            let error = of(metadata, &["sum"]).expect_err("refused");
            assert!(error.contains(words), "{error}");
        }
        // Without schemas anything that is JSON may stand there.
        assert_eq!(of(json!([]), &[]), Ok(json!([])));
    }

    #[test]
    fn at_the_limit_it_is_taken_and_one_byte_beyond_it_is_not() {
        let without = of(json!({"x": ""}), &["sum"])
            .expect("small")
            .to_string()
            .len();
        let filled = |more: usize| json!({"x": "x".repeat(METADATA_BYTES_MAX - without + more)});
        assert!(of(filled(0), &["sum"]).is_ok());
        let error = of(filled(1), &["sum"]).expect_err("too large");
        assert!(
            error.contains("metadata: 16385 bytes are more than the limit of 16384"),
            "{error}"
        );
        assert!(
            error.contains("task type sum alone") && error.contains("without_schemas()"),
            "{error}"
        );
    }
}
