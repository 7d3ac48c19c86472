//! The servers and, as child processes, the services: as `swarm up` deploys them, in a folder that is thrown away.

mod process;

use std::{
    ffi::OsString,
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use swarm_events::{permissions::User, subject::Service};
use swarm_log::{
    connect::{ConnectSettings, Connection, Credentials, connect},
    definitions::Provision,
    jetstream::{self, JetStreamLog, LogSettings},
    provision::provision,
};
use swarm_servers::{Authority, Durability, NatsServer, NatsSettings, PgSettings, Postgres};
use tempfile::TempDir;

use self::process::{Launch, Process};
use crate::{
    machine::{self, Usage},
    pipeline::swarm::AGENT_THREADS,
};

/// The services under measurement. The gateway is not on the way of a task that is published directly.
const SERVICES: [&str; 4] = ["coordinator", "distributor", "health", "projector"];
/// Room for the log: well above what a run writes, below what a small disk has.
const LOG_BYTES_MAX: i64 = 16 << 30;

/// How the bus lets people in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone may do anything: the fastest server.
    Open,
    /// As deployed: each service has its own rights, and hears the server's notices.
    Credentials,
}

/// Servers, and the services once they are started.
pub struct Installation {
    pub durability: Durability,
    nats: NatsServer,
    postgres: Postgres,
    authority: Option<Authority>,
    processes: Vec<Process>,
    // Last: gone after those who write to it.
    dir: TempDir,
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

/// The folder to measure in (`dir`, else beside this program), and the binary to measure (`swarm`, else the one there).
///
/// # Errors
/// The folder cannot be made.
pub fn places(dir: Option<&Path>, swarm: Option<&Path>) -> anyhow::Result<(PathBuf, PathBuf)> {
    let me = std::env::current_exe()?;
    let beside = me.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let root = dir.map_or_else(|| beside.clone(), Path::to_path_buf);
    std::fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let binary = swarm.map_or_else(|| beside.join("swarm"), Path::to_path_buf);
    Ok((root, binary))
}

/// Says how to get a binary that is missing.
///
/// # Errors
/// It is missing.
pub fn ensure_built(binary: &Path) -> anyhow::Result<()> {
    ensure!(
        binary.is_file(),
        "{} is not there: build it first (cargo build --release -p swarm), or name another with --swarm",
        binary.display()
    );
    Ok(())
}

impl Installation {
    /// Starts nats-server and PostgreSQL in a new folder below `root`, and provisions the log.
    ///
    /// # Errors
    /// A server cannot be found, fetched or started.
    pub async fn start(
        root: &Path,
        durability: Durability,
        access: Access,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("swarm-bench-")
            .tempdir_in(root)?;
        // Open to the user that PostgreSQL runs as when this runs as root.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        let authority = match access {
            Access::Open => None,
            Access::Credentials => Some(Authority::load_or_create(&dir.path().join("keys"))?),
        };
        let mut settings = NatsSettings::new(dir.path().join("nats"));
        (settings.port, settings.ws_port, settings.monitor_port) = (0, 0, 0);
        settings.durability = durability;
        settings.auth.clone_from(&authority);
        let nats = NatsServer::start(settings).await?;
        let mut settings = PgSettings::new(dir.path().join("postgres"));
        settings.port = 0;
        let postgres = Postgres::start(settings).await?;
        let installation = Self {
            durability,
            nats,
            postgres,
            authority,
            processes: Vec::new(),
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

    /// Credentials with all rights, if the server asks for any.
    ///
    /// # Errors
    /// The keys cannot be read.
    pub fn admin(&self) -> anyhow::Result<Option<Credentials>> {
        Ok(match &self.authority {
            Some(authority) => Some(Credentials::File(authority.write_admin_creds()?)),
            None => None,
        })
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn connect(&self, name: &str) -> anyhow::Result<Connection> {
        let mut settings = ConnectSettings::new(self.nats.url(), name);
        settings.creds = self.admin()?;
        Ok(connect(settings).await?)
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

    /// Starts every service of `binary` once, as a child process, and waits until all are ready.
    ///
    /// # Errors
    /// One of them ends or does not get ready; the end of its log is in the message.
    pub async fn start_services(&mut self, binary: &Path) -> anyhow::Result<()> {
        for service in SERVICES {
            self.launch(binary, service, service, false)?;
        }
        self.until_ready().await
    }

    /// Starts the replica `name` of `service`, without waiting for it. One that ran under that name before is replaced,
    /// and its address is kept.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_replica(
        &mut self,
        binary: &Path,
        service: &'static str,
        name: &str,
    ) -> anyhow::Result<()> {
        self.launch(binary, service, name, true)
    }

    fn launch(
        &mut self,
        binary: &Path,
        service: &'static str,
        name: &str,
        named: bool,
    ) -> anyhow::Result<()> {
        let before = self.processes.iter().position(|one| one.name == name);
        let address = before.map(|at| self.processes.swap_remove(at).address);
        let process = Process::start(Launch {
            binary,
            service,
            name: name.to_owned(),
            named,
            address,
            env: self.env(service)?,
            dir: self.dir.path(),
        })?;
        self.processes.push(process);
        Ok(())
    }

    fn env(&self, service: &str) -> anyhow::Result<Vec<(&'static str, OsString)>> {
        let mut env: Vec<(&'static str, OsString)> = vec![
            ("SWARM_NATS_URL", self.nats_url().into()),
            ("SWARM_DATABASE_URL", self.database_url().into()),
            ("SWARM_DURABILITY", word(self.durability).into()),
            ("SWARM_REPLICAS", "1".into()),
        ];
        if let Some(authority) = &self.authority {
            let user = match service {
                "coordinator" => User::Service(Service::Coordinator),
                "distributor" => User::Service(Service::Distributor),
                "health" => User::Service(Service::Health),
                "projector" => User::Projector,
                _ => User::Gateway,
            };
            let rights = user.permissions();
            let rights = swarm_servers::Permissions {
                publish: rights.publish,
                subscribe: rights.subscribe,
                responses: false,
            };
            let creds = authority.write_creds(service, &rights)?;
            env.push(("SWARM_NATS_CREDS", creds.into()));
            if matches!(user, User::Service(_)) {
                let notices = authority.write_system_creds()?;
                env.push(("SWARM_NATS_SYS_CREDS", notices.into()));
            }
        }
        Ok(env)
    }

    /// Waits until every process is ready.
    ///
    /// # Errors
    /// One of them ends, or takes too long; the end of its log is in the message.
    pub async fn until_ready(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.until_ready().await?;
        }
        Ok(())
    }

    /// The same for the one process `name`.
    ///
    /// # Errors
    /// As [`Self::until_ready`].
    pub async fn until_replica_ready(&mut self, name: &str) -> anyhow::Result<()> {
        self.process_mut(name)?.until_ready().await
    }

    fn process(&self, name: &str) -> anyhow::Result<&Process> {
        let found = self.processes.iter().find(|process| process.name == name);
        found.with_context(|| format!("there is no process {name}"))
    }

    fn process_mut(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        let found = self
            .processes
            .iter_mut()
            .find(|process| process.name == name);
        found.with_context(|| format!("there is no process {name}"))
    }

    /// Where the process `name` serves its probes, and the API if it is a gateway.
    ///
    /// # Errors
    /// There is no such process.
    pub fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        Ok(self.process(name)?.address)
    }

    /// Sends a signal to the process `name`.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        self.process(name)?.signal(signal)
    }

    /// Waits until the process `name`, told to end, has ended.
    ///
    /// # Errors
    /// There is no such process.
    pub async fn wait_for(&mut self, name: &str) -> anyhow::Result<()> {
        self.process_mut(name)?.ended().await;
        Ok(())
    }

    /// The same, and it is not listed any more.
    ///
    /// # Errors
    /// There is no such process.
    pub async fn ended(&mut self, name: &str) -> anyhow::Result<()> {
        self.process_mut(name)?.ended().await;
        self.processes.retain(|process| process.name != name);
        Ok(())
    }

    /// Kills nats-server and starts it again on the same ports and data.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn crash_nats(&mut self) -> anyhow::Result<()> {
        self.nats.kill();
        Ok(self.nats.restart().await?)
    }

    /// Kills PostgreSQL and starts it again on the same port and data.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn crash_postgres(&mut self) -> anyhow::Result<()> {
        self.postgres.kill();
        Ok(self.postgres.restart().await?)
    }

    /// The last lines that each process of `service` wrote.
    pub fn log_tails(&self, service: &str) -> String {
        self.processes
            .iter()
            .filter(|process| process.service == service)
            .map(|process| format!("{}:\n{}\n", process.name, process.log_tail()))
            .collect()
    }

    /// Lines that the services wrote with a warning or an error, the first few of each.
    pub fn complaints(&self) -> Vec<String> {
        self.processes
            .iter()
            .flat_map(|process| process.complaints(3))
            .collect()
    }

    /// The process id of `name`.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid_of(&self, name: &str) -> anyhow::Result<u32> {
        let pid = self.process(name)?.pid();
        pid.with_context(|| format!("{name} does not run"))
    }

    /// Processor time so far: of the servers, the services, and this process's own threads.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        usage.add("nats-server", machine::cpu_seconds(self.nats.pid()));
        usage.add("PostgreSQL", machine::cpu_seconds(self.postgres.pid()));
        for process in &self.processes {
            if let Some(pid) = process.pid() {
                usage.add(&process.name, machine::cpu_seconds(pid));
            }
        }
        let agents = machine::thread_cpu_seconds(AGENT_THREADS);
        usage.add("agents", agents);
        usage.add("client", machine::thread_cpu_seconds("") - agents);
        usage
    }

    /// Resident memory of each service, in MiB.
    pub fn memory(&self) -> String {
        let of = |process: &Process| {
            let bytes = machine::resident_bytes(process.pid()?).ok()?;
            Some(format!("{} {} MiB", process.name, bytes >> 20))
        };
        self.processes
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
        for process in &mut self.processes {
            process.close();
        }
        for process in &mut self.processes {
            process.ended().await;
        }
        self.nats.stop().await;
        self.postgres.stop().await;
    }
}
