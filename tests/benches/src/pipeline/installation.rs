//! The servers and, as child processes, the services: as `swarm up` deploys them, in a folder that is thrown away.

use std::{
    fs::Permissions,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use swarm_log::{
    connect::{ConnectSettings, Connection, connect},
    definitions::Provision,
    jetstream::{self, JetStreamLog, LogSettings},
    provision::provision,
};
use swarm_servers::{Durability, NatsServer, NatsSettings, PgSettings, Postgres};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::machine::{self, Usage};

/// The services under measurement. The gateway is not on the way of a task that is published directly.
const SERVICES: [&str; 4] = ["coordinator", "distributor", "health", "projector"];
/// Room for the log: well above what a run writes, below what a small disk has.
const LOG_BYTES_MAX: i64 = 16 << 30;
/// A service first folds the whole log, and the projector writes it: minutes on a long one.
const READY_PATIENCE: Duration = Duration::from_secs(900);
/// What a stop may take before it becomes a kill.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// How often readiness is looked at.
const READY_LOOK: Duration = Duration::from_millis(50);

/// Servers, and the services once they are started.
pub struct Installation {
    pub durability: Durability,
    nats: NatsServer,
    postgres: Postgres,
    services: Vec<Service>,
    // Last: gone after those who write to it.
    dir: TempDir,
}

struct Service {
    name: &'static str,
    child: Child,
}

/// `always` or `speed`.
pub const fn word(durability: Durability) -> &'static str {
    match durability {
        Durability::Always => "always",
        Durability::Speed => "speed",
    }
}

/// The log client's word for it.
pub const fn of_log(durability: Durability) -> jetstream::Durability {
    match durability {
        Durability::Always => jetstream::Durability::Always,
        Durability::Speed => jetstream::Durability::Speed,
    }
}

impl Installation {
    /// Starts nats-server and PostgreSQL in a new folder below `root`, and provisions the log.
    ///
    /// # Errors
    /// A server cannot be found, fetched or started.
    pub async fn start(root: &Path, durability: Durability) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("swarm-bench-")
            .tempdir_in(root)?;
        // Open to the user that PostgreSQL runs as when this runs as root.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        let mut settings = NatsSettings::new(dir.path().join("nats"));
        (settings.port, settings.ws_port, settings.monitor_port) = (0, 0, 0);
        settings.durability = durability;
        let nats = NatsServer::start(settings).await?;
        let mut settings = PgSettings::new(dir.path().join("postgres"));
        settings.port = 0;
        let postgres = Postgres::start(settings).await?;
        let installation = Self {
            durability,
            nats,
            postgres,
            services: Vec::new(),
            dir,
        };
        let connection = installation.connect("bench provisioning").await?;
        let context = async_nats::jetstream::new(connection.client().clone());
        let wanted = Provision {
            max_bytes: LOG_BYTES_MAX,
            ..Provision::default()
        };
        provision(&context, &wanted).await?;
        Ok(installation)
    }

    /// Where nats-server listens.
    pub fn nats_url(&self) -> String {
        self.nats.url()
    }

    /// The folder that all of it writes to.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where PostgreSQL listens.
    pub fn database_url(&self) -> String {
        self.postgres.url()
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn connect(&self, name: &str) -> anyhow::Result<Connection> {
        Ok(connect(ConnectSettings::new(self.nats.url(), name)).await?)
    }

    /// The log, over a connection of its own.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn log(&self, name: &str) -> anyhow::Result<JetStreamLog> {
        let connection = self.connect(name).await?;
        let settings = LogSettings::new(of_log(self.durability), 1);
        Ok(JetStreamLog::open(&connection, settings).await?)
    }

    /// Starts every service of `binary` as a child process and waits until all are ready.
    ///
    /// # Errors
    /// One of them ends or does not get ready; the end of its log is in the message.
    pub async fn start_services(&mut self, binary: &Path) -> anyhow::Result<()> {
        let mut probes = Vec::new();
        for name in SERVICES {
            let probe = free_address()?;
            let log = std::fs::File::create(self.log_of(name))?;
            let mut command = Command::new(binary);
            for (variable, _) in std::env::vars_os() {
                if variable
                    .to_str()
                    .is_some_and(|name| name.starts_with("SWARM_"))
                {
                    command.env_remove(variable);
                }
            }
            let child = command
                .args(["service", name, "--until-stdin-closes"])
                .env("SWARM_NATS_URL", self.nats_url())
                .env("SWARM_DATABASE_URL", self.database_url())
                .env("SWARM_DURABILITY", word(self.durability))
                .env("SWARM_REPLICAS", "1")
                .env("SWARM_PROBE_ADDR", probe.to_string())
                .envs(std::env::var("SWARM_BENCH_LOG").map(|filter| ("SWARM_LOG", filter)))
                .stdin(Stdio::piped())
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("{} cannot be started", binary.display()))?;
            self.services.push(Service { name, child });
            probes.push(probe);
        }
        let deadline = Instant::now() + READY_PATIENCE;
        for (index, probe) in probes.into_iter().enumerate() {
            while !ready(probe).await {
                let ended = match self.services.get_mut(index) {
                    Some(service) => service.child.try_wait()?.is_some(),
                    None => true,
                };
                if ended || Instant::now() > deadline {
                    let name = SERVICES.get(index).copied().unwrap_or_default();
                    bail!(
                        "{name} is not ready; its log ends with:\n{}",
                        self.log_tail(name)
                    );
                }
                sleep(READY_LOOK).await;
            }
        }
        Ok(())
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// The last lines that a service wrote.
    pub fn log_tail(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log_of(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Lines that the services wrote with a warning or an error, the first few of each.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for service in &self.services {
            let text = std::fs::read_to_string(self.log_of(service.name)).unwrap_or_default();
            let found = text
                .lines()
                .filter(|line| line.contains("WARN") || line.contains("ERROR"));
            complaints.extend(
                found
                    .take(3)
                    .map(|line| format!("{}: {line}", service.name)),
            );
        }
        complaints
    }

    /// The process of a service.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid_of(&self, name: &str) -> anyhow::Result<u32> {
        self.services
            .iter()
            .find(|service| service.name == name)
            .and_then(|service| service.child.id())
            .with_context(|| format!("{name} does not run"))
    }

    /// Processor time so far: of the servers, the services, and this process's own threads.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        usage.add("nats-server", machine::cpu_seconds(self.nats.pid()));
        usage.add("PostgreSQL", machine::cpu_seconds(self.postgres.pid()));
        for service in &self.services {
            if let Some(pid) = service.child.id() {
                usage.add(service.name, machine::cpu_seconds(pid));
            }
        }
        let agents = machine::thread_cpu_seconds(super::swarm::AGENT_THREADS);
        usage.add("agents", agents);
        usage.add("client", machine::thread_cpu_seconds("") - agents);
        usage
    }

    /// Resident memory of each service, in MiB.
    pub fn memory(&self) -> String {
        let of = |service: &Service| {
            let bytes = machine::resident_bytes(service.child.id()?).ok()?;
            Some(format!("{} {} MiB", service.name, bytes >> 20))
        };
        self.services
            .iter()
            .filter_map(of)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Versions of the servers.
    ///
    /// # Errors
    /// One of them does not answer.
    pub async fn versions(&self) -> anyhow::Result<String> {
        let connection = self.connect("bench").await?;
        let nats = connection.client().server_info().version;
        let pool = sqlx::PgPool::connect(&self.database_url()).await?;
        let postgres: String = sqlx::query_scalar("SHOW server_version")
            .fetch_one(&pool)
            .await?;
        pool.close().await;
        Ok(format!("nats-server {nats}, PostgreSQL {postgres}"))
    }

    /// Stops everything in order.
    pub async fn stop(mut self) {
        for service in &mut self.services {
            drop(service.child.stdin.take());
        }
        for service in &mut self.services {
            if timeout(STOP_GRACE, service.child.wait()).await.is_err() {
                let _ = service.child.kill().await;
            }
        }
        self.nats.stop().await;
        self.postgres.stop().await;
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
    matches!(timeout(Duration::from_secs(2), asked).await, Ok(Ok(answer)) if answer.starts_with(b"HTTP/1.1 200"))
}
