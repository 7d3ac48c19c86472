//! `swarm health`

use serde_json::Value;

use crate::{
    connection::ServerArgs,
    exit::Outcome,
    output::{Column, Format},
};

/// Arguments of `swarm health`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id
    pub swarm: String,
}

const AGENTS: [Column; 9] = [
    ("AGENT", "/agent_name"),
    ("STATUS", "/status"),
    ("RUNNING", "/running"),
    ("DONE", "/tasks_completed"),
    ("FAILED", "/tasks_failed"),
    ("CPU %", "/cpu_percent"),
    ("MEMORY MB", "/memory_mb"),
    ("LAST HEARTBEAT", "/last_heartbeat_at"),
    ("ID", "/id"),
];

/// Shows a swarm's health: the whole first, then its agents.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let mut health = api.get(&format!("/v1/swarms/{id}/health"), &[]).await?;
    if output == Format::Json {
        return output.object(&health);
    }
    let agents = match health
        .as_object_mut()
        .and_then(|health| health.remove("items"))
    {
        Some(Value::Array(agents)) => agents,
        _ => Vec::new(),
    };
    output.object(&health)?;
    if agents.is_empty() {
        return Ok(());
    }
    output.list(&agents, &AGENTS)
}
