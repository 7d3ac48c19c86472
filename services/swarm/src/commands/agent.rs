//! `swarm agent`

mod run;

use serde_json::Value;

use crate::{
    api::Api,
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::{Column, Format},
};

/// Commands on agents.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Run an agent here, whose work is a command of any language
    Run(run::Args),
    /// List the agents of a swarm
    List {
        /// Name or id of the swarm
        swarm: String,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Take an agent out of its swarm; its work goes to others
    Remove {
        /// Name or id of the swarm
        swarm: String,
        /// Name or id of the agent
        agent: String,
    },
}

const COLUMNS: [Column; 12] = [
    ("NAME", "/agent_name"),
    ("TYPE", "/agent_type"),
    ("STATUS", "/status"),
    ("SLOTS", "/slots"),
    ("RUNNING", "/running"),
    ("QUEUE", "/queue_depth"),
    ("QUEUE LIMIT", "/waiting_limit"),
    ("WAITING SINCE", "/waiting_since"),
    ("CAPABILITIES", "/capabilities"),
    ("DONE", "/tasks_completed"),
    ("FAILED", "/tasks_failed"),
    ("ID", "/id"),
];

/// Runs a command on agents.
pub async fn run(command: Command, server: &ServerArgs, output: Format) -> Outcome {
    match command {
        Command::Run(args) => run::run(args, server).await,
        Command::List { swarm, limit } => {
            let api = super::api(server)?;
            let id = api.swarm_id(&swarm).await?;
            let agents = api
                .list(&format!("/v1/swarms/{id}/agents"), &[], limit)
                .await?;
            output.list(&agents, &COLUMNS)
        }
        Command::Remove { swarm, agent } => {
            let api = super::api(server)?;
            let id = api.swarm_id(&swarm).await?;
            let agent = agent_id(&api, &id, &agent).await?;
            let removed = api
                .delete(&format!("/v1/swarms/{id}/agents/{agent}"))
                .await?;
            api.settle().await;
            output.object(&removed)
        }
    }
}

async fn agent_id(api: &Api, swarm: &str, name_or_id: &str) -> Outcome<String> {
    if uuid::Uuid::parse_str(name_or_id).is_ok() {
        return Ok(name_or_id.to_owned());
    }
    let agents = api
        .list(&format!("/v1/swarms/{swarm}/agents"), &[], None)
        .await?;
    named(&agents, name_or_id).ok_or_else(|| {
        Failure::not_found(format!(
            "no live agent is called {name_or_id}: `swarm agent list` shows all"
        ))
    })
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_means_the_agent_that_lives() {
        let agents = [
            json!({"id": "1", "agent_name": "a", "status": "stopped"}),
            json!({"id": "2", "agent_name": "a", "status": "idle"}),
        ];
        assert_eq!(named(&agents, "a").as_deref(), Some("2"));
        assert_eq!(named(&agents, "b"), None);
    }
}
