//! One service as a process of the real binary: started, signalled, ended.

use std::{
    ffi::OsString,
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// A service first folds the whole log, and the projector writes it: minutes on a long one.
const READY_PATIENCE: Duration = Duration::from_secs(900);
/// How often readiness is looked at.
const READY_LOOK: Duration = Duration::from_millis(50);
/// What a stop may take before it becomes a kill.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// An answer of a probe that has not come by then counts as none.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// Lines of a log that an error message quotes.
const LOG_LINES: usize = 20;

/// How a service is started.
pub struct Launch<'a> {
    /// The `swarm` binary.
    pub binary: &'a Path,
    /// The service.
    pub service: &'static str,
    /// The process's own name: of its log file, and of the replica if `named`.
    pub name: String,
    /// Whether the process is told its name as that of a replica.
    pub named: bool,
    /// Where its probes (and the API, if it serves that) are; a free port if not given.
    pub address: Option<SocketAddr>,
    /// Settings by environment.
    pub env: Vec<(&'static str, OsString)>,
    /// Where its log goes.
    pub dir: &'a Path,
}

/// A running service process. Dropping it kills it.
pub struct Process {
    pub name: String,
    pub service: &'static str,
    pub address: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it. It ends by itself when this process does.
    ///
    /// # Errors
    /// The binary cannot be run, or no port is free.
    pub fn start(launch: Launch<'_>) -> anyhow::Result<Self> {
        let address = match launch.address {
            Some(address) => address,
            None => free_address()?,
        };
        let path = launch.dir.join(format!("{}.log", launch.name));
        // Goes on where the process before it stopped.
        let log = File::options().create(true).append(true).open(&path)?;
        let mut command = Command::new(launch.binary);
        for (variable, _) in std::env::vars_os() {
            if variable
                .to_str()
                .is_some_and(|name| name.starts_with("SWARM_"))
            {
                command.env_remove(variable);
            }
        }
        if launch.named {
            command.env("SWARM_REPLICA_NAME", &launch.name);
        }
        let child = command
            .args(["service", launch.service, "--until-stdin-closes"])
            .envs(launch.env)
            .env("SWARM_PROBE_ADDR", address.to_string())
            .env("SWARM_API_ADDR", address.to_string())
            .envs(std::env::var("SWARM_BENCH_LOG").map(|filter| ("SWARM_LOG", filter)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", launch.binary.display()))?;
        Ok(Self {
            name: launch.name,
            service: launch.service,
            address,
            child,
            log: path,
        })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It ends, or takes too long; the end of its log is in the message.
    pub async fn until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_PATIENCE;
        while !ready(self.address).await {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!(
                    "{} is not ready; its log ends with:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            sleep(READY_LOOK).await;
        }
        Ok(())
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It does not run any more.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
            .with_context(|| format!("{} does not run", self.name))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it has ended, for as long as a stop may take; then it is killed.
    pub async fn ended(&mut self) {
        if timeout(STOP_GRACE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await; // gone already: as well
        }
    }

    /// Asks it to end in good order, without waiting for that.
    pub fn close(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Its last lines.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// The first few lines that it wrote with a warning or an error.
    pub fn complaints(&self, most: usize) -> Vec<String> {
        std::fs::read_to_string(&self.log)
            .unwrap_or_default()
            .lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .take(most)
            .map(|line| format!("{}: {line}", self.name))
            .collect()
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn ready(addr: SocketAddr) -> bool {
    let asked = async {
        let mut connection = TcpStream::connect(addr).await?;
        let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        connection.write_all(request).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    matches!(timeout(PROBE_PATIENCE, asked).await, Ok(Ok(answer)) if answer.starts_with(b"HTTP/1.1 200"))
}
