//! `swarm agent`

mod add;
mod logs;
mod run;
mod table;

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use crate::{
    api::Api,
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::Format,
};

/// Commands on agents.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Run an agent here, whose work is a command of any language
    Run(run::Args),
    /// Add agents, whose processes the agent hosts start
    Add(Box<add::Args>),
    /// List the agents of a swarm
    List(ListArgs),
    /// Change what an agent can do while it runs
    Update(UpdateArgs),
    /// Start an agent's process anew; it finishes what it has first
    Restart(RestartArgs),
    /// Take an agent out of its swarm; it finishes what it has first
    Remove(RemoveArgs),
    /// Show what an agent's process writes
    Logs(logs::Args),
}

/// Arguments of `swarm agent list`.
#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// Only agents in this state
    #[arg(long, value_parser = PossibleValuesParser::new(
        ["pending", "starting", "idle", "busy", "unhealthy", "stopped"]))]
    pub status: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// An agent of a swarm.
#[derive(clap::Args, Debug)]
pub struct AgentArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// Name or id of the agent
    pub agent: String,
}

/// Arguments of `swarm agent update`.
#[derive(clap::Args, Debug)]
pub struct UpdateArgs {
    /// Which
    #[command(flatten)]
    pub which: AgentArgs,
    /// New name
    #[arg(long)]
    pub name: Option<String>,
    /// Something that it can do; all of them are given
    #[arg(
        long = "capability",
        value_name = "CAPABILITY",
        conflicts_with = "no_capabilities"
    )]
    pub capabilities: Vec<String>,
    /// It can do nothing in particular
    #[arg(long)]
    pub no_capabilities: bool,
    /// Tasks at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: Option<u32>,
    /// Tasks that may wait at it beyond its slots
    #[arg(long, value_name = "N")]
    pub waiting: Option<u32>,
    /// A JSON object that is merged into its metadata; null takes a member away
    #[arg(long, value_name = "JSON")]
    pub metadata: Option<String>,
}

/// Arguments of `swarm agent restart`.
#[derive(clap::Args, Debug)]
pub struct RestartArgs {
    /// Which
    #[command(flatten)]
    pub which: AgentArgs,
    /// How
    #[command(flatten)]
    pub how: GoingArgs,
    /// Why
    #[arg(long)]
    pub reason: Option<String>,
}

/// Arguments of `swarm agent remove`.
#[derive(clap::Args, Debug)]
pub struct RemoveArgs {
    /// Which
    #[command(flatten)]
    pub which: AgentArgs,
    /// How
    #[command(flatten)]
    pub how: GoingArgs,
}

/// How an agent goes.
#[derive(clap::Args, Debug)]
pub struct GoingArgs {
    /// At once: its work goes to others
    #[arg(long)]
    pub force: bool,
    /// How long it may take to finish what it has [default: the swarm's drain_grace_ms]
    #[arg(long, value_name = "DURATION", value_parser = crate::progress::parse_duration, conflicts_with = "force")]
    pub grace: Option<std::time::Duration>,
}

impl GoingArgs {
    fn grace_ms(&self) -> Option<u64> {
        let millis = self.grace?.as_millis();
        Some(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

impl UpdateArgs {
    /// The merge patch (RFC 7396): what is absent stays.
    fn patch(&self) -> Outcome<Value> {
        let mut patch = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            patch.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("agent_name", self.name.as_ref().map(|name| json!(name)));
        let given = self.no_capabilities || !self.capabilities.is_empty();
        put("capabilities", given.then(|| json!(self.capabilities)));
        put("slots", self.slots.map(Value::from));
        put("waiting", self.waiting.map(Value::from));
        let metadata = self.metadata.as_deref().map(add::object).transpose()?;
        put("metadata", metadata.map(Value::Object));
        if patch.is_empty() {
            return Err(Failure::usage(
                "nothing to change: give --name, --capability, --slots, --waiting or --metadata",
            ));
        }
        Ok(Value::Object(patch))
    }
}

/// Runs a command on agents.
pub async fn run(command: Command, server: &ServerArgs, output: Format) -> Outcome {
    match command {
        Command::Run(args) => run::run(args, server).await,
        Command::Add(args) => add::run(*args, server, output).await,
        Command::List(args) => list(args, server, output).await,
        Command::Update(args) => {
            let patch = args.patch()?;
            let (api, path) = one(server, &args.which).await?;
            shown(&api, api.put(&path, &patch).await?, output).await
        }
        Command::Restart(args) => {
            let (api, path) = one(server, &args.which).await?;
            let mut body = json!({ "force": args.how.force });
            if let Some(grace) = args.how.grace_ms() {
                body["grace_ms"] = json!(grace);
            }
            if let Some(reason) = &args.reason {
                body["reason"] = json!(reason);
            }
            let path = format!("{path}/restart");
            shown(&api, api.post(&path, &body, None).await?, output).await
        }
        Command::Remove(args) => {
            let (api, path) = one(server, &args.which).await?;
            let query = match (args.how.force, args.how.grace_ms()) {
                (true, _) => "?force=true".to_owned(),
                (false, Some(grace)) => format!("?grace_ms={grace}"),
                (false, None) => String::new(),
            };
            let removed = api.delete(&format!("{path}{query}")).await?;
            shown(&api, removed, output).await
        }
        Command::Logs(args) => logs::run(args, server, output).await,
    }
}

async fn list(args: ListArgs, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let query: Vec<_> = args
        .status
        .map(|status| ("status", status))
        .into_iter()
        .collect();
    let path = format!("/v1/swarms/{id}/agents");
    let agents = api.list(&path, &query, args.limit).await?;
    match output {
        Format::Json => output.list(&agents, &[]),
        Format::Table => table::print(&agents),
    }
}

/// The gateway, and where the agent is there.
async fn one(server: &ServerArgs, which: &AgentArgs) -> Outcome<(Api, String)> {
    let api = super::api(server)?;
    let swarm = api.swarm_id(&which.swarm).await?;
    let agent = agent_id(&api, &swarm, &which.agent).await?;
    Ok((api, format!("/v1/swarms/{swarm}/agents/{agent}")))
}

/// Shows the agent after an order, once the lists do.
async fn shown(api: &Api, agent: Value, output: Format) -> Outcome {
    api.settle().await;
    output.object(&agent)
}

/// The agent of that id or name. What health tells is fresher than the lists, and there while PostgreSQL is not.
async fn agent_id(api: &Api, swarm: &str, name_or_id: &str) -> Outcome<String> {
    if uuid::Uuid::parse_str(name_or_id).is_ok() {
        return Ok(name_or_id.to_owned());
    }
    let health = api.get(&format!("/v1/swarms/{swarm}/health"), &[]).await?;
    let present = health["items"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(id) = named(present, name_or_id) {
        return Ok(id);
    }
    any_agent_id(api, swarm, name_or_id).await
}

/// The agent of that id or name: the one that lives, else the last that had the name.
pub async fn any_agent_id(api: &Api, swarm: &str, name_or_id: &str) -> Outcome<String> {
    if uuid::Uuid::parse_str(name_or_id).is_ok() {
        return Ok(name_or_id.to_owned());
    }
    let agents = api
        .list(&format!("/v1/swarms/{swarm}/agents"), &[], None)
        .await?;
    let last = || {
        let called = agents
            .iter()
            .rfind(|agent| agent["agent_name"] == name_or_id);
        called?["id"].as_str().map(str::to_owned)
    };
    named(&agents, name_or_id).or_else(last).ok_or_else(|| {
        Failure::not_found(format!(
            "no agent is called {name_or_id}: `swarm agent list` shows all"
        ))
    })
}

/// A name belongs to one live agent at a time.
fn named(agents: &[Value], name: &str) -> Option<String> {
    let live = |agent: &&Value| agent["agent_name"] == name && agent["status"] != "stopped";
    agents.iter().find(live)?["id"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::exit::Code;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }
    fn patch(line: &str) -> Outcome<Value> {
        let words = ["agent", "update", "s", "a"];
        let words = words.into_iter().chain(line.split_whitespace());
        match Line::try_parse_from(words).expect(line).command {
            Command::Update(args) => args.patch(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_means_the_agent_that_lives() {
        let agents = [
            json!({"id": "1", "agent_name": "a", "status": "stopped"}),
            json!({"id": "2", "agent_name": "a", "status": "idle"}),
        ];
        assert_eq!(named(&agents, "a").as_deref(), Some("2"));
        assert_eq!(named(&agents, "b"), None);
    }

    #[test]
    fn only_what_is_given_is_in_the_patch() {
        assert_eq!(
            patch("--capability x --capability y --slots 3").expect("good"),
            json!({"capabilities": ["x", "y"], "slots": 3})
        );
        assert_eq!(
            patch(r#"--no-capabilities --metadata {"a":null} --name n --waiting 0"#).expect("good"),
            json!({"capabilities": [], "metadata": {"a": null}, "agent_name": "n", "waiting": 0})
        );
        for bad in ["", "--metadata 7"] {
            assert_eq!(patch(bad).expect_err(bad).code, Code::Usage);
        }
    }

    #[test]
    fn force_and_a_grace_exclude_each_other() {
        let parsed = |line: &str| Line::try_parse_from(line.split(' '));
        assert!(parsed("agent remove s a --force --grace 5s").is_err());
        let Ok(Line {
            command: Command::Restart(args),
        }) = parsed("agent restart s a --grace 1500ms")
        else {
            panic!("it parses");
        };
        assert_eq!((args.how.force, args.how.grace_ms()), (false, Some(1_500)));
    }
}
