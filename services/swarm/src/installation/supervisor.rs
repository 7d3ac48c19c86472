//! `swarm up`: starts the servers and the services, keeps them running, stops them.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use swarm_gateway::{BootstrapError, admin_key, bootstrap};
use swarm_log::{
    connect::{ConnectSettings, Credentials, connect},
    definitions::Provision,
    jetstream::{Durability as LogDurability, JetStreamLog, LogSettings},
};
use swarm_runtime::settings::Settings;
use swarm_servers::Authority;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    DataDir, Member, ServiceName,
    child::{self, Spec},
    credentials, log_tail, members, numbered, ports, probe,
    servers::{self, NatsPorts},
    shared::Shared,
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
    /// Ports of our nats-server, or of the first of a cluster.
    pub nats_ports: NatsPorts,
    /// Three nats-servers instead of one.
    pub cluster: bool,
    /// Processes of each service.
    pub replicas: u16,
    /// Port of our PostgreSQL; 0 for any.
    pub postgres_port: u16,
    /// The settings file, for the services.
    pub settings_file: Option<PathBuf>,
}

/// Services that are told to end at the same time.
struct Stage {
    services: JoinSet<()>,
    stop: CancellationToken,
}

/// A running installation.
pub struct Supervisor {
    plan: Plan,
    shared: Arc<Shared>,
    /// In the order in which they end.
    stages: [Stage; STAGES],
    servers: JoinSet<()>,
    stop_servers: CancellationToken,
}

/// How many [`stage`]s there are.
const STAGES: usize = 3;

/// When a service ends: first those that take new work in or work on it, so that agents still leave in good order, then those that decide, then the one that writes down what they
/// decided.
const fn stage(service: ServiceName) -> usize {
    match service {
        ServiceName::Gateway | ServiceName::AgentHost => 0,
        ServiceName::Coordinator | ServiceName::Distributor | ServiceName::Health => 1,
        ServiceName::Projector => 2,
    }
}

/// Addresses that every service is told.
struct Addresses<'a> {
    nats: &'a str,
    database: &'a str,
    /// Of each gateway, the first one first.
    apis: &'a [SocketAddr],
}

impl Supervisor {
    /// A supervisor that has started nothing yet.
    pub fn new(plan: Plan) -> Self {
        let shared = Shared::new(plan.data.clone());
        Self {
            plan,
            shared: Arc::new(shared),
            stages: std::array::from_fn(|_| Stage {
                services: JoinSet::new(),
                stop: CancellationToken::new(),
            }),
            servers: JoinSet::new(),
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
        let (nats_url, database_url) = self.start_servers(authority.as_ref()).await?;
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
        let apis = self.api_addrs()?;
        let api_urls: Vec<String> = apis.iter().map(|addr| format!("http://{addr}")).collect();
        self.shared.change(|state| {
            state.connection.api_url.clone_from(&api_urls[0]);
            state.connection.api_urls = api_urls;
            state.connection.nats_url.clone_from(&nats_url);
            state.connection.nats_creds.clone_from(&operator);
            state.connection.database_url.clone_from(&database_url);
            state.connection.api_key.clone_from(&before.api_key);
            state.connection.org_id = before.org_id;
        });
        let addresses = Addresses {
            nats: &nats_url,
            database: &database_url,
            apis: &apis,
        };
        let members = members(self.plan.replicas);
        for member in members.clone() {
            let spec = self.spec(member, &addresses, authority.as_ref())?;
            let stage = &mut self.stages[stage(member.service)];
            stage
                .services
                .spawn(child::keep(spec, self.shared.clone(), stage.stop.clone()));
        }
        self.until_ready(members).await?;
        self.organization(&nats_url, operator).await?;
        self.shared.change(|state| state.published = true);
        Ok(self.shared.connection())
    }

    /// Stops everything in good order: services first, then the servers that they write to.
    pub async fn stop(mut self) {
        for stage in &mut self.stages {
            stage.stop.cancel();
            while stage.services.join_next().await.is_some() {}
        }
        self.stop_servers.cancel();
        while self.servers.join_next().await.is_some() {}
    }

    /// Starts what is not somebody else's; answers with the addresses of nats-server and PostgreSQL.
    async fn start_servers(
        &mut self,
        authority: Option<&Authority>,
    ) -> Result<(String, String), Failure> {
        let plan = &self.plan;
        let (nats, database) = tokio::join!(
            async {
                match authority {
                    Some(authority) => Some(servers::nats(plan, authority).await),
                    None => None,
                }
            },
            async {
                match plan.foreign_database {
                    false => Some(servers::database(plan).await),
                    true => None,
                }
            }
        );
        let nats_url = nats
            .as_ref()
            .map_or_else(|| plan.settings.nats_url.clone(), |nats| nats.url());
        let database_url = database
            .as_ref()
            .map_or_else(|| plan.settings.database_url.clone(), |one| one.url());
        // Whichever of the two came up is kept, so that `stop` stops it in good order.
        let (tasks, shared, stop) = (&mut self.servers, &self.shared, &self.stop_servers);
        let nats = nats.map_or(Ok(()), |nats| nats.keep(tasks, shared, stop));
        let database = database.map_or(Ok(()), |database| database.keep(tasks, shared, stop));
        nats.and(database)?;
        Ok((nats_url, database_url))
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

    /// Where each gateway listens: the first one as it was asked for, the others on the next ports that are free.
    fn api_addrs(&self) -> Result<Vec<SocketAddr>, Failure> {
        let wanted = self.plan.settings.api_addr;
        let none = || Failure::failed("no port is free for a gateway");
        let mut addrs = Vec::new();
        if wanted.port() == 0 {
            addrs.push(ports::free(wanted.ip()).ok_or_else(none)?);
        } else if let Err(error) = std::net::TcpListener::bind(wanted) {
            return Err(Failure::failed(format!(
                "the gateway cannot listen on {wanted}: {error}; stop the other program, or choose another address with --api-addr"
            )));
        } else {
            addrs.push(wanted);
        }
        for step in 1..self.plan.replicas.max(1) {
            let next = wanted
                .port()
                .checked_add(step)
                .filter(|_| wanted.port() != 0)
                .map(|port| SocketAddr::new(wanted.ip(), port))
                .filter(|addr| std::net::TcpListener::bind(addr).is_ok());
            let free = || ports::free(wanted.ip());
            addrs.push(next.or_else(free).ok_or_else(none)?);
        }
        Ok(addrs)
    }

    fn spec(
        &self,
        member: Member,
        addresses: &Addresses<'_>,
        authority: Option<&Authority>,
    ) -> Result<Spec, Failure> {
        let (settings, name) = (&self.plan.settings, member.name());
        let own = usize::from(member.number.saturating_sub(1));
        let api = match member.service {
            ServiceName::Gateway => addresses.apis[own],
            _ => addresses.apis[0],
        };
        let mut env = BTreeMap::from([
            ("SWARM_NATS_URL", addresses.nats.to_owned()),
            ("SWARM_DATABASE_URL", addresses.database.to_owned()),
            ("SWARM_API_ADDR", api.to_string()),
            ("SWARM_API_URL", format!("http://{api}")),
            ("SWARM_DURABILITY", settings.durability.as_str().to_owned()),
            ("SWARM_REPLICAS", settings.replicas.to_string()),
            // The process that replaces a dead one is known as the same replica.
            ("SWARM_REPLICA_NAME", name.clone()),
        ]);
        let creds = match authority {
            Some(authority) => Some(credentials::of_service(authority, member.service)?),
            None => settings.nats_creds.clone(),
        };
        if let Some(creds) = creds {
            env.insert("SWARM_NATS_CREDS", creds.display().to_string());
        }
        if member.service == ServiceName::AgentHost {
            env.extend(self.host_env(member, authority.is_some()));
        }
        // Those who decide hear the server's own notices: health of its agents, all of them of the other replicas.
        let system = match (stage(member.service), authority) {
            (1, Some(authority)) => Some(authority.write_system_creds()?),
            (1, None) => settings.nats_sys_creds.clone(),
            _ => None,
        };
        if let Some(system) = system {
            env.insert("SWARM_NATS_SYS_CREDS", system.display().to_string());
        }
        let probe = if member.service == ServiceName::Gateway {
            format!("http://{api}")
        } else {
            let addr = ports::free(settings.probe_addr.ip()).ok_or_else(|| {
                Failure::failed(format!("no port is free for the probes of {name}"))
            })?;
            env.insert("SWARM_PROBE_ADDR", addr.to_string());
            format!("http://{addr}")
        };
        self.shared.change(|state| {
            state.connection.probes.insert(name.clone(), probe);
        });
        let mut args = Vec::new();
        if let Some(file) = &self.plan.settings_file {
            args.extend(["--settings".to_owned(), file.display().to_string()]);
        }
        Ok(Spec {
            member,
            program: std::env::current_exe().context("this program's own path is unknown")?,
            args,
            env,
            log: self.plan.data.log_of(&name),
        })
    }

    /// Settings of an agent host. It is on the user's own machine: everything may run unless it is told otherwise.
    fn host_env(&self, member: Member, own_keys: bool) -> BTreeMap<&'static str, String> {
        let settings = &self.plan.settings;
        let machine = rustix::system::uname();
        let machine = machine.nodename().to_string_lossy();
        let name = settings.host_name.as_deref().unwrap_or(&machine);
        let allow = settings.host_allow.as_deref().unwrap_or("*");
        let dir = settings.host_dir.clone();
        let dir = dir.unwrap_or_else(|| self.plan.data.agents());
        let seed = match own_keys {
            true => Some(self.plan.data.keys().join(credentials::ACCOUNT_SEED)),
            false => settings.host_account_seed.clone(),
        };
        let mut env = BTreeMap::from([
            ("SWARM_HOST_NAME", numbered(name, member.number)),
            ("SWARM_HOST_ALLOW", allow.to_owned()),
            ("SWARM_HOST_PASS_ENV", settings.host_pass_env.clone()),
            (
                "SWARM_HOST_AGENTS_MAX",
                settings.host_agents_max.to_string(),
            ),
            ("SWARM_HOST_DIR", absolute(&dir)),
        ]);
        if let Some(user) = &settings.host_user {
            env.insert("SWARM_HOST_USER", user.clone());
        }
        if let Some(seed) = seed {
            env.insert("SWARM_HOST_ACCOUNT_SEED", absolute(&seed));
        }
        env
    }

    async fn until_ready(&self, members: impl Iterator<Item = Member>) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_PATIENCE;
        for member in members {
            let name = member.name();
            let probes = self.shared.connection().probes;
            let probe = probes.get(&name).cloned().unwrap_or_default();
            let log = self.plan.data.log_of(&name);
            loop {
                let answer = probe::readyz(&probe).await;
                // Another program on the same port would answer too.
                if answer.ready && self.shared.connection().pids.contains_key(&name) {
                    break;
                }
                if self.shared.deaths(&name) >= START_TRIES {
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

/// Agents work in other folders than this process.
fn absolute(path: &std::path::Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.display().to_string()
}

fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}
