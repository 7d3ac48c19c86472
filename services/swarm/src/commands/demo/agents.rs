//! The demo's agents: processes like any that a user starts.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use rustix::process::Signal;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    connection::Target,
    demo::graph,
    exit::{Failure, Outcome},
    installation::{child::signal, log_tail},
};

/// What an agent may take to drain.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// Lines of an agent's log in a message.
const LOG_LINES: usize = 5;

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

struct Running {
    child: Child,
    log: PathBuf,
}

/// The agent processes, by name.
pub struct Agents {
    target: Target,
    logs: PathBuf,
    running: BTreeMap<String, Running>,
}

impl Agents {
    /// None yet; they will find the server of `target`, and write to `dir`.
    pub fn new(target: &Target, dir: &Path) -> Self {
        Self {
            target: target.clone(),
            logs: dir.join("logs"),
            running: BTreeMap::new(),
        }
    }

    /// Starts `count` agents whose command is this program's worker.
    pub fn start(&mut self, count: u16, swarm: &str, pace: Duration) -> Outcome {
        let program = std::env::current_exe().context("this program's own path is unknown")?;
        for number in 1..=count {
            let name = format!("demo-{number}");
            let log = self.logs.join(format!("agent-{number}.log"));
            let file =
                File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
            let mut command = own_program(&self.target.data)?;
            if let Some(url) = &self.target.nats_url {
                command.arg("--nats-url").arg(url);
            }
            if !self.target.api_urls.is_empty() {
                command.arg("--api-url").arg(self.target.api_urls.join(","));
            }
            if let Some(creds) = &self.target.nats_creds {
                command.arg("--nats-creds").arg(creds);
            }
            if let Some(key) = &self.target.api_key {
                // Not on the command line, which every user of the machine can read.
                command.env("SWARM_API_KEY", key);
            }
            command
                .args([
                    "agent", "run", "--swarm", swarm, "--name", &name, "--type", "analyzer",
                ])
                .args(["--capability", graph::CAPABILITY, "--"])
                .arg(&program)
                .args(["demo-worker", "--pace", &format!("{}ms", pace.as_millis())])
                .env("NO_COLOR", "1")
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file)
                .process_group(0)
                .kill_on_drop(false);
            let child = command.spawn().context("cannot start an agent")?;
            self.running.insert(name, Running { child, log });
        }
        Ok(())
    }

    /// An agent that ended by itself is an error.
    pub fn check(&mut self) -> Outcome {
        for (name, agent) in &mut self.running {
            if let Some(status) = agent.child.try_wait()? {
                let tail = log_tail(&agent.log, LOG_LINES);
                return Err(Failure::failed(format!(
                    "agent {name} has ended ({status}): {tail}"
                )));
            }
        }
        Ok(())
    }

    /// Process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.running
            .values()
            .filter_map(|agent| agent.child.id())
            .collect()
    }

    /// Process id of the agent with this name.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.running.get(name)?.child.id()
    }

    /// SIGKILL, as by a crash, and waits until the process is gone.
    pub async fn kill(&mut self, name: &str) -> Outcome {
        if let Some(mut agent) = self.running.remove(name) {
            agent.child.kill().await?;
        }
        Ok(())
    }

    /// Asks all to drain, and kills what does not.
    pub async fn stop(&mut self) {
        for pid in self.pids() {
            signal(pid, Signal::TERM);
        }
        for agent in self.running.values_mut() {
            if timeout(STOP_GRACE, agent.child.wait()).await.is_err() {
                let _ = agent.child.kill().await;
            }
        }
        self.running.clear();
    }

    /// From here on they are nobody's.
    pub fn leave_running(&mut self) {
        self.running.clear();
    }
}

impl Drop for Agents {
    /// Whatever path led here: what is still ours is ended.
    fn drop(&mut self) {
        for pid in self.pids() {
            signal(pid, Signal::TERM);
        }
    }
}
