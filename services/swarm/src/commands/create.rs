//! `swarm create`

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value};

use super::topology::{lay_over, options};
use crate::{connection::ServerArgs, exit::Outcome, output::Format};

/// Arguments of `swarm create`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name, 1 to 100 characters
    pub name: String,
    /// What it is for
    #[arg(long)]
    pub description: Option<String>,
    /// How its agents are connected
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    pub topology: Option<String>,
    /// The topology of the template of this name
    #[arg(long, value_name = "NAME", conflicts_with = "topology")]
    pub template: Option<String>,
    /// The topology's options as one JSON object
    #[arg(long, value_name = "JSON")]
    pub topology_config: Option<String>,
    /// One option of the topology, such as max_workers=20; a value that is not JSON is text
    #[arg(long, value_name = "NAME=VALUE")]
    pub topology_set: Vec<String>,
    /// Settings
    #[command(flatten)]
    pub configuration: ConfigurationArgs,
    /// A repeat with the same key creates nothing new
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// The topologies, as the API names them.
pub const KINDS: [&str; 4] = ["star", "mesh", "hierarchical", "ring"];
/// The algorithms, as the API names them.
const ALGORITHMS: [&str; 5] = [
    "round_robin",
    "capability_match",
    "least_loaded",
    "affinity",
    "priority_queue",
];

/// Settings of a swarm, whole and one by one.
#[derive(clap::Args, Debug, Default)]
pub struct ConfigurationArgs {
    /// How an agent is chosen for a task
    #[arg(long, value_parser = PossibleValuesParser::new(ALGORITHMS))]
    pub algorithm: Option<String>,
    /// Settings as one JSON object
    #[arg(long, value_name = "JSON")]
    pub config: Option<String>,
    /// One setting, such as max_agents=20; a value that is not JSON is text
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

impl ConfigurationArgs {
    /// The settings, `None` if none was given.
    pub fn merged(&self) -> Outcome<Option<Map<String, Value>>> {
        let mut merged = options(self.config.as_deref(), &[], ("--config", "--set"))?;
        if let Some(algorithm) = &self.algorithm {
            merged.insert(
                "distribution_algorithm".to_owned(),
                Value::String(algorithm.clone()),
            );
        }
        lay_over(&mut merged, &self.set, "--set")?;
        Ok((!merged.is_empty()).then_some(merged))
    }
}

/// Sets `name`, whose dots lead into nested objects (`retry.base_ms`).
pub fn put(object: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), String> {
    match name.split_once('.') {
        None => {
            object.insert(name.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => {
            let inner = object
                .entry(first)
                .or_insert_with(|| Value::Object(Map::new()));
            match inner {
                Value::Object(inner) => put(inner, rest, value),
                _ => Err(first.to_owned()),
            }
        }
    }
}

fn body(args: &Args) -> Outcome<Value> {
    let mut body = Map::from_iter([("name".to_owned(), Value::String(args.name.clone()))]);
    for (name, value) in [
        ("description", &args.description),
        ("topology", &args.topology),
        ("template", &args.template),
    ] {
        if let Some(value) = value {
            body.insert(name.to_owned(), Value::String(value.clone()));
        }
    }
    let names = ("--topology-config", "--topology-set");
    let topology = options(args.topology_config.as_deref(), &args.topology_set, names)?;
    if !topology.is_empty() {
        body.insert("topology_configuration".to_owned(), Value::Object(topology));
    }
    if let Some(configuration) = args.configuration.merged()? {
        body.insert("configuration".to_owned(), Value::Object(configuration));
    }
    Ok(Value::Object(body))
}

/// Creates the swarm.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let body = body(&args)?;
    let api = super::api(server)?;
    let swarm = api
        .post("/v1/swarms", &body, args.idempotency_key.as_deref())
        .await?;
    api.settle().await;
    output.object(&swarm)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use swarm_events::configuration::Algorithm;

    use super::*;
    use crate::exit::Code;

    fn merged(config: Option<&str>, set: &[&str]) -> Outcome<Option<Map<String, Value>>> {
        ConfigurationArgs {
            algorithm: None,
            config: config.map(str::to_owned),
            set: set.iter().map(|s| (*s).to_owned()).collect(),
        }
        .merged()
    }

    #[test]
    fn single_settings_are_laid_over_the_whole() {
        let all = merged(
            Some(r#"{"max_agents":3,"retry":{"base_ms":1}}"#),
            &[
                "max_agents=4",
                "distribution_algorithm=least_loaded",
                "retry.cap_ms=9",
            ],
        );
        let expected = json!({
            "max_agents": 4, "distribution_algorithm": "least_loaded", "retry": {"base_ms": 1, "cap_ms": 9}
        });
        assert_eq!(all.expect("good").map(Value::Object), Some(expected));
        assert_eq!(merged(None, &[]).expect("good"), None);
    }

    #[test]
    fn an_algorithm_is_a_setting_like_the_others() {
        let all = ConfigurationArgs {
            algorithm: Some("affinity".into()),
            config: None,
            set: vec!["stealing=false".into()],
        };
        let expected = json!({"distribution_algorithm": "affinity", "stealing": false});
        assert_eq!(
            all.merged().expect("good").map(Value::Object),
            Some(expected)
        );
        let known = serde_json::to_value(Algorithm::ALL).expect("JSON");
        assert_eq!(known, json!(ALGORITHMS));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for (config, set) in [
            (Some("[1]"), "a=1"),
            (None, "a"),
            (Some(r#"{"a":1}"#), "a.b=1"),
        ] {
            assert_eq!(merged(config, &[set]).expect_err(set).code, Code::Usage);
        }
    }
}
