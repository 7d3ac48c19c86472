//! `swarm up`: starts the servers and the services, keeps them running, stops them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use swarm_gateway::{BootstrapError, admin_key, bootstrap};
use swarm_log::{
    connect::{ConnectSettings, Credentials, connect},
    definitions::Provision,
    jetstream::{Durability as LogDurability, JetStreamLog, LogSettings},
};
use swarm_runtime::settings::{Durability, Settings};
use swarm_servers::{Authority, NatsServer, NatsSettings, PgSettings, Postgres, ServerError};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    DataDir, SERVICES, ServiceName,
    child::{self, Spec},
    credentials, log_tail, ports, probe,
};
use crate::{connection::ConnectionFile, exit::Failure};

/// How long the services may take to be ready. A long log is folded first.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// How often readiness is looked at.
const READY_LOOK: Duration = Duration::from_millis(50);
/// A service that died this often before it was ever ready will not come up.
const START_TRIES: u32 = 4;
/// Name of the first organization.
pub const ORGANIZATION: &str = "default";
/// How long the gateway may take to know a new key.
const KEY_PATIENCE: Duration = Duration::from_secs(10);
/// Lines of a service's log in the message when it cannot start.
const LOG_LINES: usize = 8;
/// First and longest pause before a server that died is started again.
const SERVER_RESTART_MIN: Duration = Duration::from_millis(200);
/// See [`SERVER_RESTART_MIN`].
const SERVER_RESTART_MAX: Duration = Duration::from_secs(10);

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The data folder.
    pub data: DataDir,
    /// Settings; addresses in it count where the flags below say so.
    pub settings: Settings,
    /// nats-server is somebody else's, at `settings.nats_url`.
    pub foreign_nats: bool,
    /// PostgreSQL is somebody else's, at `settings.database_url`.
    pub foreign_database: bool,
    /// Ports of our nats-server: clients, WebSocket, monitoring; 0 for any.
    pub nats_ports: (u16, u16, u16),
    /// Port of our PostgreSQL; 0 for any.
    pub postgres_port: u16,
    /// The settings file, for the services.
    pub settings_file: Option<PathBuf>,
}

/// What the tasks that keep processes running share: `connection.json`, and who died how often.
pub struct Shared {
    data: DataDir,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: ConnectionFile,
    deaths: BTreeMap<String, u32>,
    /// Written at every change from here on: before, the file of the last run stays as it is.
    published: bool,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if state.published
            && let Err(error) = state.connection.write(self.data.path())
        {
            tracing::error!("{error:#}");
        }
    }
    /// `name` runs as `pid`.
    pub fn started(&self, name: &str, pid: u32) {
        self.change(|state| {
            state.connection.pids.insert(name.to_owned(), pid);
        });
    }
    /// `name` has ended without being told to.
    pub fn died(&self, name: &str) {
        self.change(|state| {
            state.connection.pids.remove(name);
            *state.deaths.entry(name.to_owned()).or_default() += 1;
        });
    }
    /// `name` has ended as it was told to.
    pub fn ended(&self, name: &str) {
        self.change(|state| {
            state.connection.pids.remove(name);
        });
    }
    fn deaths(&self, name: &str) -> u32 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.deaths.get(name).copied().unwrap_or(0)
    }
    /// `connection.json` as it stands.
    pub fn connection(&self) -> ConnectionFile {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .connection
            .clone()
    }
}

/// A running installation.
pub struct Supervisor {
    plan: Plan,
    shared: Arc<Shared>,
    services: JoinSet<()>,
    servers: JoinSet<()>,
    stop_services: CancellationToken,
    stop_servers: CancellationToken,
}

impl Supervisor {
    /// A supervisor that has started nothing yet.
    pub fn new(plan: Plan) -> Self {
        let shared = Shared {
            data: plan.data.clone(),
            state: Mutex::default(),
        };
        Self {
            plan,
            shared: Arc::new(shared),
            services: JoinSet::new(),
            servers: JoinSet::new(),
            stop_services: CancellationToken::new(),
            stop_servers: CancellationToken::new(),
        }
    }

    /// Starts everything and waits until it is ready. On an error [`Self::stop`] stops what had been started.
    pub async fn start(&mut self) -> Result<ConnectionFile, Failure> {
        let before = ConnectionFile::read(self.plan.data.path())?.unwrap_or_default();
        let authority = match self.plan.foreign_nats {
            true => None,
            false => Some(Authority::load_or_create(&self.plan.data.keys())?),
        };
        let (nats, database) = tokio::join!(self.nats(authority.as_ref()), self.database());
        // Whichever of the two came up is kept, so that `stop` stops it in good order.
        let (nats, database) = (self.keep_nats(nats), self.keep_database(database));
        let (nats_url, database_url) = (nats?, database?);
        let admin = match &authority {
            Some(authority) => {
                Some(authority.mint("provisioning", &swarm_servers::Permissions::all())?)
            }
            None => None,
        };
        self.provision(&nats_url, admin.map(Credentials::Text))
            .await?;
        let operator = match &authority {
            Some(authority) => Some(credentials::of_operator(authority)?),
            None => self.plan.settings.nats_creds.clone(),
        };
        let api_addr = self.api_addr()?;
        self.shared.change(|state| {
            state.connection.api_url = format!("http://{api_addr}");
            state.connection.nats_url.clone_from(&nats_url);
            state.connection.nats_creds.clone_from(&operator);
            state.connection.database_url.clone_from(&database_url);
            state.connection.api_key.clone_from(&before.api_key);
            state.connection.org_id = before.org_id;
        });
        for service in SERVICES {
            let spec = self.spec(
                service,
                &nats_url,
                &database_url,
                api_addr,
                authority.as_ref(),
            )?;
            self.services.spawn(child::keep(
                spec,
                self.shared.clone(),
                self.stop_services.clone(),
            ));
        }
        self.until_ready(&SERVICES).await?;
        self.organization(&nats_url, operator).await?;
        self.shared.change(|state| state.published = true);
        Ok(self.shared.connection())
    }

    /// Stops everything in good order: services first, then the servers that they write to.
    pub async fn stop(mut self) {
        self.stop_services.cancel();
        while self.services.join_next().await.is_some() {}
        self.stop_servers.cancel();
        while self.servers.join_next().await.is_some() {}
    }

    async fn nats(&self, authority: Option<&Authority>) -> Result<Option<NatsServer>, ServerError> {
        let Some(authority) = authority else {
            return Ok(None);
        };
        let mut settings = NatsSettings::new(self.plan.data.nats());
        (settings.port, settings.ws_port, settings.monitor_port) = self.plan.nats_ports;
        settings.durability = match self.plan.settings.durability {
            Durability::Always => swarm_servers::Durability::Always,
            Durability::Speed => swarm_servers::Durability::Speed,
        };
        settings.auth = Some(authority.clone());
        // The server's own default shrinks with the free disk, and a server whose limit lies below what its streams have
        // reserved does not open them.
        settings.max_file_store = disk_bytes(self.plan.data.path());
        NatsServer::start(settings).await.map(Some)
    }

    async fn database(&self) -> Result<Option<Postgres>, ServerError> {
        if self.plan.foreign_database {
            return Ok(None);
        }
        let mut settings = PgSettings::new(self.plan.data.postgres());
        settings.port = self.plan.postgres_port;
        Postgres::start(settings).await.map(Some)
    }

    fn keep_nats(
        &mut self,
        server: Result<Option<NatsServer>, ServerError>,
    ) -> Result<String, Failure> {
        let Some(mut server) = server? else {
            return Ok(self.plan.settings.nats_url.clone());
        };
        let (url, shared, stop) = (server.url(), self.shared.clone(), self.stop_servers.clone());
        shared.started("nats-server", server.pid());
        self.servers.spawn(async move {
            loop {
                tokio::select! {
                    status = server.wait() => tracing::warn!(%status, "nats-server has ended and is started again"),
                    () = stop.cancelled() => break,
                }
                shared.died("nats-server");
                let mut pause = SERVER_RESTART_MIN;
                while let Err(error) = server.restart().await {
                    tracing::error!(%error, "nats-server cannot be started");
                    tokio::select! { () = sleep(pause) => {}, () = stop.cancelled() => break }
                    pause = (pause * 2).min(SERVER_RESTART_MAX);
                }
                shared.started("nats-server", server.pid());
            }
            server.stop().await;
            shared.ended("nats-server");
        });
        Ok(url)
    }

    fn keep_database(
        &mut self,
        server: Result<Option<Postgres>, ServerError>,
    ) -> Result<String, Failure> {
        let Some(mut server) = server? else {
            return Ok(self.plan.settings.database_url.clone());
        };
        let (url, shared, stop) = (server.url(), self.shared.clone(), self.stop_servers.clone());
        shared.started("postgres", server.pid());
        self.servers.spawn(async move {
            loop {
                tokio::select! {
                    status = server.wait() => tracing::warn!(%status, "PostgreSQL has ended and is started again"),
                    () = stop.cancelled() => break,
                }
                shared.died("postgres");
                let mut pause = SERVER_RESTART_MIN;
                while let Err(error) = server.restart().await {
                    tracing::error!(%error, "PostgreSQL cannot be started");
                    tokio::select! { () = sleep(pause) => {}, () = stop.cancelled() => break }
                    pause = (pause * 2).min(SERVER_RESTART_MAX);
                }
                shared.started("postgres", server.pid());
            }
            server.stop().await;
            shared.ended("postgres");
        });
        Ok(url)
    }

    async fn provision(&self, nats_url: &str, creds: Option<Credentials>) -> Result<(), Failure> {
        let mut settings = ConnectSettings::new(nats_url, "swarm provisioning");
        settings.creds =
            creds.or_else(|| self.plan.settings.nats_creds.clone().map(Credentials::File));
        let connection = connect(settings).await?;
        let context = async_nats::jetstream::new(connection.client().clone());
        let provision = Provision {
            replicas: self.plan.settings.replicas,
            max_bytes: self.log_bytes_max(),
            ..Provision::default()
        };
        swarm_log::provision::provision(&context, &provision)
            .await
            .map_err(|error| {
                let mut text = error.to_string();
                if text.contains("insufficient storage") {
                    text.push_str(&format!(
                        "; the log asks for {} bytes: set SWARM_LOG_BYTES_MAX to less, or give nats-server more",
                        provision.max_bytes
                    ));
                }
                Failure::failed(text)
            })
    }

    /// The log's limit lies below half of the free disk: the server reserves it, and a full disk wedges a single node.
    fn log_bytes_max(&self) -> i64 {
        let wanted = self.plan.settings.log_bytes_max;
        if self.plan.foreign_nats {
            return wanted;
        }
        match free_bytes(self.plan.data.path()) {
            Some(free) => wanted.min(i64::try_from(free / 2).unwrap_or(i64::MAX)),
            None => wanted,
        }
    }

    fn api_addr(&self) -> Result<SocketAddr, Failure> {
        let wanted = self.plan.settings.api_addr;
        if wanted.port() == 0 {
            return ports::free(wanted.ip())
                .ok_or_else(|| Failure::failed("no port is free for the gateway"));
        }
        match std::net::TcpListener::bind(wanted) {
            Ok(_) => Ok(wanted),
            Err(error) => Err(Failure::failed(format!(
                "the gateway cannot listen on {wanted}: {error}; stop the other program, or choose another address with --api-addr"
            ))),
        }
    }

    fn spec(
        &self,
        service: ServiceName,
        nats_url: &str,
        database_url: &str,
        api_addr: SocketAddr,
        authority: Option<&Authority>,
    ) -> Result<Spec, Failure> {
        let settings = &self.plan.settings;
        let mut env = BTreeMap::from([
            ("SWARM_NATS_URL", nats_url.to_owned()),
            ("SWARM_DATABASE_URL", database_url.to_owned()),
            ("SWARM_API_ADDR", api_addr.to_string()),
            ("SWARM_API_URL", format!("http://{api_addr}")),
            ("SWARM_DURABILITY", settings.durability.as_str().to_owned()),
            ("SWARM_REPLICAS", settings.replicas.to_string()),
        ]);
        let creds = match authority {
            Some(authority) => Some(credentials::of_service(authority, service)?),
            None => settings.nats_creds.clone(),
        };
        if let Some(creds) = creds {
            env.insert("SWARM_NATS_CREDS", creds.display().to_string());
        }
        // Only health hears the server's own notices.
        let system = match (service, authority) {
            (ServiceName::Health, Some(authority)) => Some(authority.write_system_creds()?),
            (ServiceName::Health, None) => settings.nats_sys_creds.clone(),
            _ => None,
        };
        if let Some(system) = system {
            env.insert("SWARM_NATS_SYS_CREDS", system.display().to_string());
        }
        let probe = if service == ServiceName::Gateway {
            format!("http://{api_addr}")
        } else {
            let addr = ports::free(settings.probe_addr.ip()).ok_or_else(|| {
                Failure::failed(format!(
                    "no port is free for the probes of {}",
                    service.as_str()
                ))
            })?;
            env.insert("SWARM_PROBE_ADDR", addr.to_string());
            format!("http://{addr}")
        };
        self.shared.change(|state| {
            state
                .connection
                .probes
                .insert(service.as_str().to_owned(), probe);
        });
        let mut args = Vec::new();
        if let Some(file) = &self.plan.settings_file {
            args.extend(["--settings".to_owned(), file.display().to_string()]);
        }
        Ok(Spec {
            service,
            program: std::env::current_exe().context("this program's own path is unknown")?,
            args,
            env,
            log: self.plan.data.log_of(service.as_str()),
        })
    }

    async fn until_ready(&self, services: &[ServiceName]) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_PATIENCE;
        for service in services {
            let name = service.as_str();
            let probe = self
                .shared
                .connection()
                .probes
                .get(name)
                .cloned()
                .unwrap_or_default();
            let log = self.plan.data.log_of(name);
            loop {
                let answer = probe::readyz(&probe).await;
                // Another program on the same port would answer too.
                if answer.ready && self.shared.connection().pids.contains_key(name) {
                    break;
                }
                if self.shared.deaths(name) >= START_TRIES {
                    return Err(Failure::failed(format!(
                        "{name} cannot start; the end of {} says:\n{}",
                        log.display(),
                        log_tail(&log, LOG_LINES)
                    )));
                }
                if Instant::now() > deadline {
                    return Err(Failure::timeout(format!(
                        "{name} is not ready after {} s: {}; its log is {}",
                        READY_PATIENCE.as_secs(),
                        answer.detail,
                        log.display()
                    )));
                }
                sleep(READY_LOOK).await;
            }
        }
        Ok(())
    }

    /// Makes the first organization and its admin's key at the first start, and another key if that one was lost.
    async fn organization(&self, nats_url: &str, creds: Option<PathBuf>) -> Result<(), Failure> {
        let known = self.shared.connection();
        if known.org_id.is_some() && key_holds(&known.api_url, &known.api_key).await? {
            return Ok(());
        }
        let mut settings = ConnectSettings::new(nats_url, "swarm bootstrap");
        settings.creds = creds.map(Credentials::File);
        let connection = connect(settings).await?;
        let settings = LogSettings::new(LogDurability::Speed, self.plan.settings.replicas);
        let log = JetStreamLog::open(&connection, settings).await?;
        let made = match bootstrap(log.clone(), ORGANIZATION).await {
            Err(BootstrapError::Exists { org_id }) => admin_key(log, org_id).await,
            other => other,
        };
        let made = made.map_err(|error| Failure::failed(error.to_string()))?;
        self.shared.change(|state| {
            state.connection.org_id = Some(made.org_id);
            state.connection.api_key.clone_from(&made.api_key);
        });
        // The gateway learns of it from the log, a moment later.
        let deadline = Instant::now() + KEY_PATIENCE;
        while !key_holds(&known.api_url, &made.api_key).await? {
            if Instant::now() > deadline {
                return Err(Failure::timeout(
                    "the gateway does not take the admin's key",
                ));
            }
            sleep(READY_LOOK).await;
        }
        Ok(())
    }
}

/// Whether the gateway knows the key; anything but its refusal says yes.
async fn key_holds(api_url: &str, key: &str) -> Result<bool, Failure> {
    let response = reqwest::Client::new()
        .get(format!("{api_url}/v1/swarms?limit=1"))
        .bearer_auth(key)
        .timeout(KEY_PATIENCE)
        .send()
        .await
        .map_err(|error| Failure::failed(format!("the gateway does not answer: {error}")))?;
    Ok(response.status() != reqwest::StatusCode::UNAUTHORIZED)
}

/// Size of the disk, which stays the same from start to start.
fn disk_bytes(path: &std::path::Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_blocks.checked_mul(disk.f_frsize)
}

fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}
