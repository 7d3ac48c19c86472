//! The demo's agents: processes that the installation's host runs, as for any user.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::{process::Command, time::Instant};

use crate::{
    api::Api,
    demo::graph,
    exit::{Failure, Outcome},
    progress,
};

/// How long agents may take to be listed as idle.
const AGENTS_PATIENCE: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Crashes in a row after which the broken agent is given up: few, so that nobody has to wait.
const CRASHES: u32 = 3;
/// Its first wait between two starts, in milliseconds.
const BACKOFF_MS: u64 = 200;
/// What the broken agent says before it ends.
pub const COMPLAINT: &str = "the licence file is missing";

/// This program, with the installation in `data` and nothing of ours in its environment that would name another.
pub fn own_program(data: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        let kept = |name: &str| {
            !name.starts_with("SWARM_")
                || [
                    "SWARM_CACHE",
                    "SWARM_LOG",
                    "SWARM_NATS_SERVER_BIN",
                    "SWARM_POSTGRES_BIN_DIR",
                ]
                .contains(&name)
        };
        if !name.to_str().is_some_and(kept) {
            command.env_remove(name);
        }
    }
    command.arg("--data").arg(data);
    Ok(command)
}

/// Adds `count` agents whose command is this program's worker, and waits until they are idle.
pub async fn add(api: &Api, swarm: &str, count: u16, pace: Duration) -> Outcome {
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let body = json!({
        "agent_type": "analyzer",
        "agent_name": "demo",
        "capabilities": [graph::CAPABILITY],
        "adapter": "exec",
        "command": [program, "demo-worker", "--pace", format!("{}ms", pace.as_millis())],
        "count": count,
    });
    api.post(&format!("/v1/swarms/{swarm}/agents"), &body, None)
        .await?;
    until_idle(api, swarm, count.into()).await
}

/// Adds one that ends as soon as it is started.
pub async fn add_broken(api: &Api, swarm: &str) -> Outcome<String> {
    let body = json!({
        "agent_type": "analyzer",
        "agent_name": "demo-broken",
        "adapter": "process",
        "command": ["/bin/sh", "-c", format!("echo {COMPLAINT} >&2; exit 3")],
        "restart": {"restart": "always", "backoff_ms": BACKOFF_MS, "crash_limit": CRASHES},
    });
    let added = api
        .post(&format!("/v1/swarms/{swarm}/agents"), &body, None)
        .await?;
    let id = added["id"].as_str().context("the agent has no id")?;
    Ok(id.to_owned())
}

async fn until_idle(api: &Api, swarm: &str, wanted: usize) -> Outcome {
    let spinner = progress::spinner(format!("waiting for {wanted} agents"));
    let deadline = Instant::now() + AGENTS_PATIENCE;
    loop {
        let listed = api
            .list(&format!("/v1/swarms/{swarm}/agents"), &[], None)
            .await?;
        let of = |status: &str| {
            listed
                .iter()
                .filter(|agent| agent["status"] == status)
                .count()
        };
        if of("idle") >= wanted {
            spinner.finish_and_clear();
            super::say(&format!(
                "{wanted} agents, each a process that the agent host runs: {}",
                pids(&listed)
            ));
            return Ok(());
        }
        if Instant::now() > deadline {
            let reasons: Vec<&str> = listed
                .iter()
                .filter_map(|agent| agent["status_reason"].as_str())
                .collect();
            return Err(Failure::timeout(format!(
                "{} of {wanted} agents have joined; {}",
                of("idle"),
                reasons.join("; ")
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn pids(agents: &[Value]) -> String {
    let pids: Vec<String> = agents
        .iter()
        .filter_map(|agent| agent["pid"].as_u64())
        .map(|pid| pid.to_string())
        .collect();
    pids.join(", ")
}

/// Takes all agents out, on an installation that goes on without the demo.
pub async fn remove_all(api: &Api, swarm: &str) -> Outcome {
    let path = format!("/v1/swarms/{swarm}/agents");
    for agent in api.list(&path, &[], None).await? {
        if let Some(id) = agent["id"]
            .as_str()
            .filter(|_| agent["status"] != "stopped")
        {
            api.delete(&format!("{path}/{id}")).await?;
        }
    }
    Ok(())
}

/// Whether the process is that of the agent, here on this machine: only then may it be signalled.
pub fn is_process_of(pid: u32, agent: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let wanted = format!("SWARM_AGENT_ID={agent}");
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == wanted.as_bytes())
}
