//! Agents that really run: some of the SDK in this process, some as `swarm agent run` with a command.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

use anyhow::Context;
use swarm_agent_sdk::{Agent, TaskContext, TaskError};
use swarm_events::{AgentId, Json, Place};
use tokio::{
    process::Child,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    bus::Bus,
    installation::Installation,
    process::{self, Signal},
};

/// What an agent of the SDK does for each task: it takes a moment, so that something is always under way.
const WORK: Duration = Duration::from_millis(30);
/// Tasks that an agent of the SDK runs at once.
const SLOTS: u32 = 3;
/// What an exec agent does.
const SCRIPT: &str = "#!/bin/sh\ncat > /dev/null\necho '{\"ok\": true}'\n";
/// What an agent may take to drain and leave: its grace is half a minute.
const LEAVE_PATIENCE: Duration = Duration::from_secs(40);

/// An agent of the SDK in this process, on a connection of its own.
pub struct Inside {
    /// Its id.
    pub id: AgentId,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Inside {
    /// Starts one.
    pub fn start(bus: &Bus, place: Place) -> Self {
        let id = AgentId(Uuid::now_v7());
        let stop = CancellationToken::new();
        let agent = Agent::builder(bus.link().clone(), place.org, place.swarm)
            .id(id)
            .agent_type("chaos")
            .slots(SLOTS)
            .any_handler(|_: TaskContext, payload: Json| async move {
                sleep(WORK).await;
                Ok::<_, TaskError>(payload)
            });
        let told = stop.clone();
        let task = tokio::spawn(async move {
            agent.run(told).await?;
            Ok(())
        });
        Self { id, stop, task }
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It ended with one.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.task).await?
    }

    /// Lets it drain and leave.
    ///
    /// # Errors
    /// It does not, or ended before with an error.
    pub async fn leave(self) -> anyhow::Result<()> {
        self.stop.cancel();
        timeout(LEAVE_PATIENCE, self.task)
            .await
            .with_context(|| format!("agent {} does not leave", self.id))??
            .with_context(|| format!("agent {} ended with an error", self.id))
    }
}

/// A process of `swarm agent run`. Killed when dropped.
pub struct Outside {
    /// Its id.
    pub id: AgentId,
    child: Child,
}

impl Outside {
    /// Starts one.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(installation: &Installation, place: Place) -> anyhow::Result<Self> {
        let id = AgentId(Uuid::now_v7());
        let script = installation.data().join("chaos-work.sh");
        if !script.exists() {
            fs::write(&script, SCRIPT)?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        }
        let log = fs::File::create(installation.data().join(format!("logs/agent-{id}.log")))?;
        let child = installation
            .swarm()
            .args(["agent", "run", "--swarm", &place.swarm.to_string()])
            .args(["--org", &place.org.to_string(), "--id", &id.to_string()])
            .args(["--type", "chaos", "--slots", "1", "--"])
            .arg(&script)
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("an agent cannot be started")?;
        Ok(Self { id, child })
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Lets it drain and leave; one that was killed has done so.
    ///
    /// # Errors
    /// It does not end.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            // It may be gone by now, which is as well.
            let _ = process::signal(pid, Signal::TERM);
        }
        timeout(LEAVE_PATIENCE, self.child.wait())
            .await
            .with_context(|| format!("agent {} does not leave", self.id))??;
        Ok(())
    }
}
