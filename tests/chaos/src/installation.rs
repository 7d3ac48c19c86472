//! A real installation: `swarm up` in a folder of its own, and what a scene asks of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use swarm_events::OrgId;
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{
    catalog::Part,
    disk::Mounted,
    process::{self, MARK, Signal},
};

/// What `swarm up` and `swarm down` may take on a busy machine.
const UP_PATIENCE: Duration = Duration::from_secs(150);
/// What processes may take to be there again, or to be gone.
const PROCESS_PATIENCE: Duration = Duration::from_secs(60);
/// How often what is no event is looked at: process table, probes, `connection.json`.
const LOOK: Duration = Duration::from_millis(50);
/// Room for the log: the server reserves it, and several installations may share a small disk.
const LOG_BYTES_MAX: &str = "1073741824";
/// Ports of one installation lie in a block of this size…
const PORTS: u16 = 32;
/// …below the range that operating systems take ports for outgoing connections from, so that what is started again finds
/// its port free, and below the ranges that Swarm itself chooses free ports from.
const PORTS_FROM: u16 = 11_000;
const PORTS_TO: u16 = 15_000;

/// What is started.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `swarm` program.
    pub program: PathBuf,
    /// Where the folder is made.
    pub root: PathBuf,
    /// Processes of each service.
    pub replicas: u16,
    /// Three nats-servers instead of one.
    pub cluster: bool,
    /// nats-servers that are not the installation's own.
    pub foreign: Option<Foreign>,
    /// Whether the folder stays.
    pub keep: bool,
}

/// nats-servers of the runner's own.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// All addresses, separated by commas.
    pub nats_url: String,
    /// Credentials with all rights.
    pub creds: PathBuf,
    /// Credentials of the system account.
    pub system_creds: PathBuf,
    /// Copies of every stream.
    pub replicas: usize,
}

/// The part of `connection.json` that the runner uses.
#[derive(Clone, Debug, Deserialize)]
pub struct Address {
    /// The gateway.
    pub api_url: String,
    /// All gateways.
    #[serde(default)]
    pub api_urls: Vec<String>,
    /// The admin's key.
    pub api_key: String,
    /// nats-server, or several separated by commas.
    pub nats_url: String,
    /// The operator's credentials.
    pub nats_creds: Option<PathBuf>,
    /// PostgreSQL.
    pub database_url: String,
    /// The organization.
    pub org_id: Option<OrgId>,
    /// Process ids by name.
    #[serde(default)]
    pub pids: BTreeMap<String, u32>,
    /// Probes by name.
    #[serde(default)]
    pub probes: BTreeMap<String, String>,
}

/// A running installation. When dropped, nothing of it is left.
pub struct Installation {
    plan: Plan,
    mark: String,
    ports: u16,
    http: reqwest::Client,
    /// Who must run, by name.
    names: Mutex<BTreeSet<String>>,
    /// Unmounted after its users are gone, and before the folder is removed.
    disk: Option<Mounted>,
    // Last: gone after those who write to it.
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Installation {
    /// A folder of its own, in which nothing runs yet.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn prepare(plan: Plan) -> anyhow::Result<Self> {
        swarm_log::tls::choose();
        let dir = tempfile::Builder::new()
            .prefix("swarm-chaos-")
            .tempdir_in(&plan.root)?;
        let path = dir.path().to_owned();
        // Open to the user that PostgreSQL runs as when this runs as root.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        fs::create_dir(path.join("data"))?;
        fs::set_permissions(path.join("data"), fs::Permissions::from_mode(0o711))?;
        Ok(Self {
            mark: uuid::Uuid::now_v7().to_string(),
            ports: free_ports()?,
            http: reqwest::Client::new(),
            names: Mutex::default(),
            disk: None,
            dir: Some(dir),
            path,
            plan,
        })
    }

    /// Starts everything in a folder of its own.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        let installation = Self::prepare(plan)?;
        installation.up().await?;
        Ok(installation)
    }

    /// `swarm up`, on the same ports and data each time.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn up(&self) -> anyhow::Result<()> {
        let mut command = self.swarm();
        command
            .args(["up", "--detach"])
            .args(["--replicas", &self.plan.replicas.to_string()])
            .args(["--api-addr", &format!("127.0.0.1:{}", self.ports)])
            .args(["--postgres-port", &(self.ports + 20).to_string()])
            .env("SWARM_LOG_BYTES_MAX", LOG_BYTES_MAX);
        match &self.plan.foreign {
            Some(foreign) => {
                command
                    .args(["--nats-url", &foreign.nats_url])
                    .arg("--nats-creds")
                    .arg(&foreign.creds)
                    .env("SWARM_NATS_SYS_CREDS", &foreign.system_creds)
                    .env("SWARM_REPLICAS", foreign.replicas.to_string());
            }
            None => {
                for (flag, step) in [
                    ("--nats-port", 4),
                    ("--nats-monitor-port", 5),
                    ("--nats-ws-port", 10),
                ] {
                    command.args([flag, &(self.ports + step).to_string()]);
                }
            }
        }
        if self.plan.cluster {
            command.args([
                "--cluster",
                "--nats-route-port",
                &(self.ports + 13).to_string(),
            ]);
        }
        let up = timeout(UP_PATIENCE, command.output())
            .await
            .context("swarm up takes too long")??;
        ensure!(
            up.status.success(),
            "swarm up: {} {}",
            up.status,
            String::from_utf8_lossy(&up.stderr),
        );
        *self.names() = self.address()?.pids.into_keys().collect();
        Ok(())
    }

    /// The program, pointed at this installation, with nothing in its environment that names another.
    pub fn swarm(&self) -> Command {
        let mut command = Command::new(&self.plan.program);
        clean(&mut command);
        command
            .arg("--data")
            .arg(self.data())
            .env(MARK, &self.mark)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }
    /// The folder that holds the data folder.
    pub fn dir(&self) -> &Path {
        &self.path
    }
    /// What it was started as.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }
    /// Copies of every stream.
    pub fn stream_replicas(&self) -> usize {
        match &self.plan.foreign {
            Some(foreign) => foreign.replicas,
            None if self.plan.cluster => 3,
            None => 1,
        }
    }

    /// `connection.json` as it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn address(&self) -> anyhow::Result<Address> {
        let path = self.data().join("connection.json");
        let text = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// The gateways' addresses.
    ///
    /// # Errors
    /// `connection.json` cannot be read.
    pub fn gateways(&self) -> anyhow::Result<Vec<String>> {
        let address = self.address()?;
        Ok(if address.api_urls.is_empty() {
            vec![address.api_url]
        } else {
            address.api_urls
        })
    }

    /// The process of a service or server.
    ///
    /// # Errors
    /// It does not run now.
    pub fn pid(&self, name: &str) -> anyhow::Result<u32> {
        let pids = self.address()?.pids;
        pids.get(name)
            .copied()
            .with_context(|| format!("{name} does not run"))
    }

    /// Whether there is a process of this name.
    pub fn has(&self, name: &str) -> bool {
        self.names().contains(name)
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What marks everything that belongs to this installation.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// The supervisor's process.
    ///
    /// # Errors
    /// It does not run.
    pub fn supervisor(&self) -> anyhow::Result<u32> {
        let text = fs::read_to_string(self.data().join("lock")).context("no supervisor runs")?;
        text.trim().parse().context("the lock names no process")
    }

    /// What a probe of a service or of nats-server says, `None` if nobody answers.
    pub async fn probe(&self, name: &str) -> Option<(bool, String)> {
        let base = self.address().ok()?.probes.get(name)?.clone();
        let path = if name.starts_with(Part::Nats.as_str()) {
            "healthz"
        } else {
            "readyz"
        };
        let answer = self
            .http
            .get(format!("{base}/{path}"))
            .timeout(Duration::from_secs(2))
            .send()
            .await
            .ok()?;
        let ready = answer.status().is_success();
        Some((ready, answer.text().await.ok()?))
    }

    /// Waits until every process runs, as another one than in `before`, and says that it is ready.
    ///
    /// # Errors
    /// One of them does not.
    pub async fn until_ready(&self, before: &BTreeMap<String, u32>) -> anyhow::Result<()> {
        let deadline = Instant::now() + PROCESS_PATIENCE;
        loop {
            let Some(missing) = self.not_ready(before).await else {
                return Ok(());
            };
            if Instant::now() > deadline {
                bail!(
                    "not ready after {} s: {missing}",
                    PROCESS_PATIENCE.as_secs(),
                );
            }
            sleep(LOOK).await;
        }
    }

    async fn not_ready(&self, before: &BTreeMap<String, u32>) -> Option<String> {
        let Ok(address) = self.address() else {
            return Some("connection.json".to_owned());
        };
        let names = self.names().clone();
        for name in &names {
            match address.pids.get(name) {
                Some(pid) if process::runs(*pid) && before.get(name) != Some(pid) => {}
                _ => return Some(format!("{name} does not run")),
            }
            if address.probes.contains_key(name) {
                match self.probe(name).await {
                    Some((true, _)) => {}
                    Some((false, detail)) => return Some(format!("{name}: {detail}")),
                    None => return Some(format!("{name} does not answer")),
                }
            }
        }
        None
    }

    /// Waits until all of these processes have ended.
    ///
    /// # Errors
    /// One of them has not.
    pub async fn until_gone(&self, pids: impl IntoIterator<Item = u32>) -> anyhow::Result<()> {
        let deadline = Instant::now() + PROCESS_PATIENCE;
        for pid in pids {
            while process::runs(pid) {
                ensure!(
                    Instant::now() < deadline,
                    "process {pid} is still there after {} s",
                    PROCESS_PATIENCE.as_secs()
                );
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Processes that neither the supervisor keeps nor PostgreSQL started, with their command lines.
    ///
    /// # Errors
    /// `connection.json` cannot be read.
    pub fn strangers(&self) -> anyhow::Result<BTreeMap<u32, String>> {
        let mut kept: BTreeSet<u32> = self.address()?.pids.into_values().collect();
        let supervisor = self.supervisor()?;
        let workers = kept.clone();
        kept.insert(supervisor);
        let mut found = process::marked(&self.mark, &self.path);
        found.retain(|pid, _| !kept.contains(pid) && !process::descends(*pid, &workers));
        Ok(found)
    }

    /// Runs a command of the command line and answers with its exit code and what it said.
    ///
    /// # Errors
    /// It cannot be run, or takes longer than `patience`.
    pub async fn cli(
        &self,
        args: &[&str],
        patience: Duration,
    ) -> anyhow::Result<(Option<i32>, String, String)> {
        let output = timeout(patience, self.swarm().args(args).output())
            .await
            .with_context(|| format!("swarm {args:?} takes too long"))??;
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// Puts a small file system below nats-server, before it is started.
    ///
    /// # Errors
    /// It cannot be mounted here.
    pub fn put_on_small_disk(&mut self) -> anyhow::Result<()> {
        self.disk = Some(Mounted::below(self)?);
        Ok(())
    }

    /// Uses nats-servers of the runner's own from the next start on.
    pub fn set_foreign(&mut self, foreign: Foreign) {
        self.plan.foreign = Some(foreign);
    }

    /// `swarm down`: stops everything in good order.
    ///
    /// # Errors
    /// It does not.
    pub async fn down(&self) -> anyhow::Result<()> {
        let (code, _, said) = self.cli(&["down"], UP_PATIENCE).await?;
        ensure!(code == Some(0), "swarm down: {said}");
        Ok(())
    }

    /// After everything was stopped: looks whether anything is left, and removes the folder.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(self) -> anyhow::Result<()> {
        let left = process::marked(&self.mark, &self.path);
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }

    /// Copies every log into `to`.
    ///
    /// # Errors
    /// They cannot be read, or not be written there.
    pub fn save_logs(&self, to: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(to)?;
        let mut folders = vec![self.data().join("logs"), self.data().join("nats")];
        for parent in ["data/nats-cluster", "wired"] {
            let nodes = fs::read_dir(self.path.join(parent));
            folders.extend(nodes.into_iter().flatten().flatten().map(|e| e.path()));
        }
        for folder in folders {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_none_or(|extension| extension != "log") {
                    continue;
                }
                // Nodes of a cluster have logs of the same name.
                let (folder, file) = (folder.file_name().unwrap_or_default(), entry.file_name());
                let name = format!("{}-{}", folder.display(), file.display());
                fs::copy(&path, to.join(name))?;
            }
        }
        Ok(())
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        // However the scene ended: what carries the mark is ours and goes. A stopped process ends by SIGKILL too.
        for _ in 0..KILL_ROUNDS {
            let left = process::marked(&self.mark, &self.path);
            if left.is_empty() {
                break;
            }
            for pid in left.into_keys() {
                // Gone meanwhile is as well.
                let _ = process::signal(pid, Signal::KILL);
            }
        }
        if self.plan.keep
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept: {}", dir.keep().display());
        }
    }
}

/// A killed supervisor may just have started something; a few rounds find it.
const KILL_ROUNDS: usize = 200;

/// Nothing in the environment names another server; where the programs are may be said.
pub fn clean(command: &mut Command) {
    const KEPT: [&str; 4] = [
        "SWARM_CACHE",
        "SWARM_LOG",
        "SWARM_NATS_SERVER_BIN",
        "SWARM_POSTGRES_BIN_DIR",
    ];
    for (name, _) in std::env::vars_os() {
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("SWARM_") && !KEPT.contains(&name));
        if ours {
            command.env_remove(name);
        }
    }
}

/// The first port of a block in which nobody listens.
///
/// # Errors
/// There is none.
pub fn free_ports() -> anyhow::Result<u16> {
    /// What is chosen is not taken at once: the next caller looks elsewhere.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let blocks = (PORTS_TO - PORTS_FROM) / PORTS;
    // Two runners that start together seldom look at the same block.
    let start = u16::try_from(std::process::id() % u32::from(blocks))?
        + NEXT.fetch_add(1, Ordering::Relaxed) % blocks;
    for step in 0..blocks {
        let first = PORTS_FROM + (start + step) % blocks * PORTS;
        if (first..first + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(first);
        }
    }
    bail!("no {PORTS} ports in a row are free from {PORTS_FROM} to {PORTS_TO}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_with_a_taken_port_is_passed_over() {
        let first = free_ports().expect("a block");
        let _taken = TcpListener::bind(("127.0.0.1", first + PORTS - 1)).expect("free");
        let other = free_ports().expect("another");
        assert!(other.abs_diff(first) >= PORTS, "{first} {other}");
    }
}
