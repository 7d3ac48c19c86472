//! `swarm blackboard`

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    api::{Condition, segment, with_query},
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::{self, Column, Format},
    sse,
};

/// Commands on a swarm's blackboard.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Print the value under a key
    Get(KeyArgs),
    /// Write a value under a key
    Put(PutArgs),
    /// Delete a key
    Delete(DeleteArgs),
    /// List keys with their values
    List(ListArgs),
    /// Print the keys that there are, and then each change, until Ctrl-C
    Watch(WatchArgs),
}

/// A key.
#[derive(clap::Args, Debug)]
pub struct KeyArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// The key: letters, digits and -/_= in tokens between dots
    pub key: String,
}

/// Arguments of `swarm blackboard put`.
#[derive(clap::Args, Debug)]
pub struct PutArgs {
    /// Which
    #[command(flatten)]
    pub at: KeyArgs,
    /// JSON, @FILE with JSON, - for JSON from stdin, or plain text
    pub value: String,
    /// Only if it is at this revision
    #[arg(long, value_name = "REVISION", conflicts_with = "create")]
    pub if_revision: Option<u64>,
    /// Only if it is not there
    #[arg(long)]
    pub create: bool,
}

/// Arguments of `swarm blackboard delete`.
#[derive(clap::Args, Debug)]
pub struct DeleteArgs {
    /// Which
    #[command(flatten)]
    pub at: KeyArgs,
    /// Only if it is at this revision
    #[arg(long, value_name = "REVISION")]
    pub if_revision: Option<u64>,
}

/// Arguments of `swarm blackboard list`.
#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// Only keys that begin with this
    #[arg(long)]
    pub prefix: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub limit: usize,
}

/// Arguments of `swarm blackboard watch`.
#[derive(clap::Args, Debug)]
pub struct WatchArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// Only keys that begin with this
    #[arg(long)]
    pub prefix: Option<String>,
    /// Begin behind this revision
    #[arg(long, value_name = "REVISION")]
    pub after: Option<u64>,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

const COLUMNS: [Column; 4] = [
    ("KEY", "/key"),
    ("REVISION", "/revision"),
    ("UPDATED", "/updated_at"),
    ("VALUE", "/value"),
];

fn path(swarm: &str, key: &str) -> String {
    format!("/v1/swarms/{swarm}/blackboard/{}", segment(key))
}

/// Runs a command on a blackboard.
pub async fn run(command: Command, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    match command {
        Command::Get(KeyArgs { swarm, key }) => {
            let path = path(&api.swarm_id(&swarm).await?, &key);
            let asked = api.conditional(Method::GET, &path, None, Condition::None);
            let (revision, text) = asked.await?;
            match output {
                // As it was written, for a pipe.
                Format::Table => output::line(&text),
                Format::Json => {
                    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
                    output.object(&json!({"key": key, "revision": revision, "value": value}))
                }
            }
        }
        Command::Put(args) => {
            let value = super::text_or_json(&args.value)?;
            let path = path(&api.swarm_id(&args.at.swarm).await?, &args.at.key);
            let condition = match args.if_revision {
                Some(revision) => Condition::At(revision),
                None if args.create => Condition::Absent,
                None => Condition::None,
            };
            let asked = api.conditional(Method::PUT, &path, Some(&value), condition);
            let (_, text) = asked.await?;
            let written = serde_json::from_str(&text)
                .map_err(|error| Failure::failed(format!("the answer is not JSON: {error}")))?;
            output.object(&written)
        }
        Command::Delete(args) => {
            let path = path(&api.swarm_id(&args.at.swarm).await?, &args.at.key);
            let condition = args.if_revision.map_or(Condition::None, Condition::At);
            api.conditional(Method::DELETE, &path, None, condition)
                .await?;
            Ok(())
        }
        Command::List(args) => {
            let id = api.swarm_id(&args.swarm).await?;
            let query: Vec<_> = args
                .prefix
                .map(|text| ("prefix", text))
                .into_iter()
                .collect();
            let path = format!("/v1/swarms/{id}/blackboard");
            let keys = api.list(&path, &query, Some(args.limit)).await?;
            output.list(&keys, &COLUMNS)
        }
        Command::Watch(args) => {
            let id = api.swarm_id(&args.swarm).await?;
            let query = [("follow", Some("true".to_owned())), ("prefix", args.prefix)];
            let path = with_query(&format!("/v1/swarms/{id}/blackboard"), &query);
            let mut events = sse::follow(api, path, args.after);
            let mut left = args.limit.unwrap_or(u64::MAX);
            while left > 0 {
                let Some(event) = events.recv().await else {
                    break;
                };
                let event = event?;
                let Ok(entry) = serde_json::from_str::<Value>(&event.data) else {
                    continue;
                };
                let change = event.event.as_deref().unwrap_or("put");
                output::line(&line(change, &entry, output))?;
                left -= 1;
            }
            Ok(())
        }
    }
}

fn line(change: &str, entry: &Value, output: Format) -> String {
    if output == Format::Json {
        let mut entry = entry.clone();
        entry["change"] = json!(change);
        return entry.to_string();
    }
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    let value = match &entry["value"] {
        Value::Null => text("value_base64").to_owned(),
        value => value.to_string(),
    };
    format!(
        "{:>8}  {}  {change:<6}  {}  {value}",
        entry["revision"].to_string(),
        text("updated_at"),
        text("key"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_change_the_key_and_the_value() {
        let entry = json!({"key": "plan", "revision": 7, "updated_at": "now", "value": {"n": 1}});
        assert_eq!(
            line("put", &entry, Format::Table),
            "       7  now  put     plan  {\"n\":1}"
        );
        let gone = json!({"key": "plan", "revision": 8, "updated_at": "now"});
        assert!(line("delete", &gone, Format::Table).contains("delete  plan"));
        let read: Value = serde_json::from_str(&line("delete", &gone, Format::Json)).expect("JSON");
        assert_eq!(
            (&read["change"], &read["revision"]),
            (&json!("delete"), &json!(8))
        );
    }
}
