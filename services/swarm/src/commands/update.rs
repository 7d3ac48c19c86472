//! `swarm update`

use serde_json::{Map, Value};

use super::create::{ConfigurationArgs, put};
use crate::{
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::Format,
};

/// Arguments of `swarm update`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id
    pub swarm: String,
    /// New name
    #[arg(long)]
    pub name: Option<String>,
    /// New description
    #[arg(long)]
    pub description: Option<String>,
    /// Settings
    #[command(flatten)]
    pub configuration: ConfigurationArgs,
    /// A setting to go back to its default
    #[arg(long, value_name = "NAME")]
    pub unset: Vec<String>,
}

/// The merge patch (RFC 7396): what is absent stays, null resets.
fn patch(args: &Args) -> Outcome<Value> {
    let mut patch = Map::new();
    for (name, value) in [("name", &args.name), ("description", &args.description)] {
        if let Some(value) = value {
            patch.insert(name.to_owned(), Value::String(value.clone()));
        }
    }
    let mut configuration = args.configuration.merged()?.unwrap_or_default();
    for name in &args.unset {
        put(&mut configuration, name, Value::Null)
            .map_err(|part| Failure::usage(format!("--unset {name}: {part} is no object")))?;
    }
    if !configuration.is_empty() {
        patch.insert("configuration".to_owned(), Value::Object(configuration));
    }
    if patch.is_empty() {
        return Err(Failure::usage(
            "nothing to change: give --name, --description, --algorithm, --set, --unset or --config",
        ));
    }
    Ok(Value::Object(patch))
}

/// Changes a swarm.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let patch = patch(&args)?;
    let api = super::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let swarm = api.put(&format!("/v1/swarms/{id}"), &patch).await?;
    api.settle().await;
    output.object(&swarm)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exit::Code;

    #[test]
    fn only_what_is_given_is_in_the_patch() {
        let mut args = Args {
            swarm: "s".into(),
            name: None,
            description: None,
            configuration: ConfigurationArgs::default(),
            unset: Vec::new(),
        };
        assert_eq!(patch(&args).expect_err("empty").code, Code::Usage);
        args.unset.push("retry.cap_ms".into());
        args.name = Some("t".into());
        let expected = json!({"name": "t", "configuration": {"retry": {"cap_ms": null}}});
        assert_eq!(patch(&args).expect("good"), expected);
    }
}
