//! Agents: `swarm agent run … -- ./script`, as a user starts them.

use std::{
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Child;

use super::{Installation, swarm};

/// Writes an executable script.
pub fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("ours");
    path
}

/// A running agent process; killed when dropped.
pub struct Agent {
    child: Child,
}

impl Agent {
    /// Starts one whose work is `command`; it writes to a log among the installation's.
    pub fn start(
        installation: &Installation,
        swarm_id: &str,
        name: &str,
        args: &[&str],
        command: &Path,
    ) -> Self {
        let log = installation
            .data()
            .join("logs")
            .join(format!("agent-{name}.log"));
        let log = File::create(log).expect("a log");
        let child = swarm(&installation.data())
            .args(["agent", "run", "--swarm", swarm_id, "--name", name])
            .args(args)
            .arg("--")
            .arg(command)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        Self { child }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("runs")
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().await.expect("ours")
    }
}
