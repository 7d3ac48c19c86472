//! `swarm org`: the organization of the API key.

use serde_json::{Map, Value, json};

use crate::{
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::Format,
};

/// Commands on the organization.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Show it
    Show,
    /// Change it; an admin's key is needed
    Set(SetArgs),
}

/// Arguments of `swarm org set`.
#[derive(clap::Args, Debug)]
pub struct SetArgs {
    /// New name
    #[arg(long)]
    pub name: Option<String>,
    /// Most tasks that may wait in all its swarms together; `none` for no limit
    #[arg(long, value_name = "N|none")]
    pub queue_limit: Option<String>,
}

const PATH: &str = "/v1/organization";

/// Runs a command on the organization.
pub async fn run(command: Command, server: &ServerArgs, output: Format) -> Outcome {
    match command {
        Command::Show => output.object(&super::api(server)?.get(PATH, &[]).await?),
        Command::Set(args) => {
            let patch = patch(&args)?;
            output.object(&super::api(server)?.put(PATH, &patch).await?)
        }
    }
}

/// The merge patch (RFC 7396): what is absent stays, null resets.
fn patch(args: &SetArgs) -> Outcome<Value> {
    let mut patch = Map::new();
    if let Some(name) = &args.name {
        patch.insert("name".to_owned(), json!(name));
    }
    if let Some(limit) = &args.queue_limit {
        let limit = match limit.as_str() {
            "none" => Value::Null,
            number => json!(number.parse::<u64>().map_err(|_| {
                Failure::usage(format!(
                    "--queue-limit {number}: give a number of tasks, or none"
                ))
            })?),
        };
        patch.insert("queue_limit".to_owned(), limit);
    }
    if patch.is_empty() {
        return Err(Failure::usage(
            "nothing to change: give --name or --queue-limit",
        ));
    }
    Ok(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Code;

    fn made(limit: Option<&str>) -> Outcome<Value> {
        patch(&SetArgs {
            name: None,
            queue_limit: limit.map(str::to_owned),
        })
    }

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(made(Some("7")).expect("good"), json!({"queue_limit": 7}));
        assert_eq!(
            made(Some("none")).expect("good"),
            json!({"queue_limit": null})
        );
        for bad in [Some("-1"), Some("x"), None] {
            assert_eq!(made(bad).expect_err("bad").code, Code::Usage);
        }
    }
}
