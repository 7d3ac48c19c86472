use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::write_secret;
use crate::process::{Launch, Process, end_leftover, lock};
use crate::{Authority, ServerError, find_nats, ports};

/// Sets the port for clients.
pub const SETTING_NATS_PORT: &str = "SWARM_NATS_PORT";
/// Sets the port for WebSocket clients.
pub const SETTING_NATS_WS_PORT: &str = "SWARM_NATS_WS_PORT";
/// Sets the monitoring port.
pub const SETTING_NATS_MONITOR_PORT: &str = "SWARM_NATS_MONITOR_PORT";

const SINGLE: &str = include_str!("../../config/single.conf");
const CLUSTER: &str = include_str!("../../config/cluster.conf");

/// A server with a large store reads all of it before it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// A server of a cluster is healthy when the others are there and it has caught up with them, which a large log and slow
/// disks draw out. Ending it earlier would begin that anew.
const CLUSTER_READY_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// What a stop may take before it becomes a kill; with `always` nothing acknowledged is lost.
const STOP_GRACE: Duration = Duration::from_secs(20);
/// How often another "any port" is tried when somebody took the first.
const PORT_TRIES: u32 = 5;
/// Go's garbage collector works harder near this; without it the server grows under load
/// until the machine has no more. At least this much, for a useful cache of blocks.
const MEMORY_LIMIT_MIN: u64 = 512 << 20;
/// What all streams may hold together if nobody says otherwise: all of an installation's default sizes, several times. Only a
/// bound: nothing is set aside on the disk. nats-server's own default, three quarters of what is free, makes it depend on what
/// else lies on the disk whether streams of the same size are taken.
const FILE_STORE_BYTES_DEFAULT: u64 = 64 << 30;
/// The name under which the servers of a cluster join each other.
const ROUTE_USER: &str = "swarm";

/// What an acknowledged write has survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Each write is on the disk before it is acknowledged.
    #[default]
    Always,
    /// The server's default: to the disk every two minutes. A power cut can take what was
    /// acknowledged since.
    Speed,
}

/// One server of a cluster of three.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// This server's port for the others.
    pub port: u16,
    /// `nats://host:port` of all three servers. With [`NatsSettings::auth`] they ask each other for
    /// [`Authority::cluster_password`], which is put in here.
    pub routes: Vec<String>,
}

/// How a nats-server is started.
#[derive(Clone)]
pub struct NatsSettings {
    /// The program; found or fetched if not given.
    pub bin: Option<PathBuf>,
    /// Holds the configuration, the log, the pid file and the streams.
    pub data_dir: PathBuf,
    /// The name in the cluster and in figures.
    pub name: String,
    /// The address to listen on.
    pub host: String,
    /// For clients; 0 picks a free one, here and below.
    pub port: u16,
    /// For WebSocket clients.
    pub ws_port: u16,
    /// For health and figures.
    pub monitor_port: u16,
    /// Whether writes wait for the disk.
    pub durability: Durability,
    /// Who may connect. None: everybody, for tests.
    pub auth: Option<Authority>,
    /// The most bytes in all streams.
    pub max_file_store: u64,
    /// GOMEMLIMIT in bytes; None: a quarter of the machine's memory, shared with the servers of
    /// its cluster that run on the same host.
    pub memory_limit: Option<u64>,
    /// Set for a server of a cluster.
    pub cluster: Option<ClusterSettings>,
}

impl NatsSettings {
    /// The defaults of an installation, with everything in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            bin: None,
            data_dir: data_dir.into(),
            name: "swarm".into(),
            host: "127.0.0.1".into(),
            port: 7422,
            ws_port: 7480,
            monitor_port: 7423,
            durability: Durability::Always,
            auth: None,
            max_file_store: FILE_STORE_BYTES_DEFAULT,
            memory_limit: None,
            cluster: None,
        }
    }
}

/// A running nats-server, ready when this exists. Dropping it kills it.
pub struct NatsServer {
    settings: NatsSettings,
    process: Process,
    /// None only while it restarts.
    lock: Option<fs::File>,
}

impl NatsServer {
    /// Starts a server and waits until it is healthy, streams included.
    ///
    /// The servers of a cluster are started at the same time (`join_all`): one alone is not healthy before another is
    /// there. Each has its own `data_dir`, `name` and ports, and the same `routes`.
    pub async fn start(settings: NatsSettings) -> Result<Self, ServerError> {
        let mut server = Self::launch(settings).await?;
        server.until_healthy().await?;
        Ok(server)
    }

    /// Starts a server and waits only until it takes connections. A server of a cluster is
    /// healthy when the others are there, so all are started first.
    pub(crate) async fn launch(mut settings: NatsSettings) -> Result<Self, ServerError> {
        settings.bin = Some(match &settings.bin {
            Some(bin) => bin.clone(),
            None => tokio::task::spawn_blocking(|| find_nats(None))
                .await
                .expect("looking for nats-server does not panic")?,
        });
        prepare(&settings.data_dir)?;
        let lock = lock("nats-server", &settings.data_dir)?;
        end_leftover(
            "nats-server",
            &settings.pid_file(),
            &settings.config_file(),
            Signal::TERM,
            STOP_GRACE,
        )
        .await;
        let mut tries = 0;
        loop {
            tries += 1;
            let fixed = settings.with_ports()?;
            let mut process = fixed.spawn()?;
            let address = (fixed.host.clone(), fixed.port);
            let listening = process
                .until_ready(READY_PATIENCE, || {
                    let address = address.clone();
                    async move { TcpStream::connect(address).await.is_ok() }
                })
                .await;
            match listening {
                Ok(()) => {
                    return Ok(Self {
                        settings: fixed,
                        process,
                        lock: Some(lock),
                    });
                }
                // Between our look at the port and the server's.
                Err(ServerError::Exited { .. }) if process.log_has("address already in use") => {
                    if settings.any_port() && tries < PORT_TRIES {
                        continue;
                    }
                    return Err(ServerError::PortInUse {
                        server: "nats-server",
                        port: fixed.port,
                        setting: SETTING_NATS_PORT,
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn until_healthy(&mut self) -> Result<(), ServerError> {
        let (host, port) = (self.settings.host.clone(), self.settings.monitor_port);
        let patience = match self.settings.cluster {
            None => READY_PATIENCE,
            Some(_) => CLUSTER_READY_PATIENCE,
        };
        self.process
            .until_ready(patience, || healthy(host.clone(), port))
            .await
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.settings.host, self.settings.port)
    }

    /// Where WebSocket clients connect.
    pub fn ws_url(&self) -> String {
        format!("ws://{}:{}", self.settings.host, self.settings.ws_port)
    }

    /// Where health and figures are.
    pub fn monitor_url(&self) -> String {
        format!(
            "http://{}:{}",
            self.settings.host, self.settings.monitor_port
        )
    }

    /// The settings in use: every port is the real one.
    pub fn settings(&self) -> &NatsSettings {
        &self.settings
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until the server has ended by itself, and says how.
    pub async fn wait(&mut self) -> std::process::ExitStatus {
        self.process.wait().await
    }

    /// Stops it in good order.
    pub async fn stop(mut self) {
        self.process.stop(STOP_GRACE).await;
    }

    /// SIGKILL: as a crash. The data stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: it keeps its connections and answers nothing, as on a machine that hangs or is cut off. For tests.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT: ends [`NatsServer::pause`].
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Stops it in good order if it still runs, and starts it again on the same ports and data.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.process.stop(STOP_GRACE).await;
        self.lock.take();
        *self = Self::start(self.settings.clone()).await?;
        Ok(())
    }
}

impl NatsSettings {
    fn config_file(&self) -> PathBuf {
        self.data_dir.join("nats-server.conf")
    }

    fn pid_file(&self) -> PathBuf {
        self.data_dir.join("nats-server.pid")
    }

    fn any_port(&self) -> bool {
        self.port == 0 || self.ws_port == 0 || self.monitor_port == 0
    }

    fn with_ports(&self) -> Result<Self, ServerError> {
        let choose = |setting, port| ports::choose("nats-server", setting, &self.host, port);
        Ok(Self {
            port: choose(SETTING_NATS_PORT, self.port)?,
            ws_port: choose(SETTING_NATS_WS_PORT, self.ws_port)?,
            monitor_port: choose(SETTING_NATS_MONITOR_PORT, self.monitor_port)?,
            ..self.clone()
        })
    }

    fn spawn(&self) -> Result<Process, ServerError> {
        let config = self.config_file();
        write_secret(&config, &self.render()?)?;
        let memory = self
            .memory_limit
            .unwrap_or_else(|| default_memory_limit(self.servers_here()));
        Process::spawn(Launch {
            server: "nats-server",
            program: self.bin.clone().unwrap_or_default(),
            args: vec!["-c".into(), config.display().to_string()],
            env: vec![("GOMEMLIMIT", memory.to_string())],
            run_as: None,
            log: self.data_dir.join("nats-server.log"),
            pid_file: self.pid_file(),
            stop_signal: Signal::TERM,
        })
    }

    /// Servers of the cluster on this host, by their routes; 1 outside a cluster.
    fn servers_here(&self) -> u64 {
        let here = format!("//{}:", self.host);
        let routes = self.cluster.iter().flat_map(|cluster| &cluster.routes);
        let count = routes.filter(|route| route.contains(&here)).count();
        u64::try_from(count.max(1)).unwrap_or(1)
    }

    /// The checked-in configuration with its names filled in.
    fn render(&self) -> Result<String, ServerError> {
        let address = |port: u16| format!("{:?}", format!("{}:{port}", self.host));
        let mut values = vec![
            (
                "$SWARM_NATS_MAX_FILE_STORE",
                Some(self.max_file_store.to_string()),
            ),
            (
                "$SWARM_NATS_SYNC_INTERVAL",
                Some(match self.durability {
                    Durability::Always => "always".into(),
                    Durability::Speed => "\"2m\"".into(),
                }),
            ),
            ("$SWARM_NATS_WEBSOCKET", Some(address(self.ws_port))),
            ("$SWARM_NATS_MONITOR", Some(address(self.monitor_port))),
            (
                "$SWARM_NATS_STORE",
                Some(format!("{:?}", self.data_dir.join("jetstream"))),
            ),
            ("$SWARM_NATS_NAME", Some(format!("{:?}", self.name))),
            ("$SWARM_NATS_HOST", Some(format!("{:?}", self.host))),
            ("$SWARM_NATS_PORT", Some(self.port.to_string())),
        ];
        if let Some(cluster) = &self.cluster {
            let password = self.auth.as_ref().map(Authority::cluster_password);
            let routes: Vec<String> = cluster
                .routes
                .iter()
                .map(|route| with_password(route, password.as_deref()))
                .collect();
            values.push(("$SWARM_NATS_ROUTES", Some(format!("{routes:?}"))));
            values.push((
                "$SWARM_NATS_CLUSTER_AUTHORIZATION",
                password.map(|password| {
                    format!("{{ user: {ROUTE_USER:?}, password: {password:?}, timeout: 5 }}")
                }),
            ));
            // After the name that begins with it.
            values.push(("$SWARM_NATS_CLUSTER", Some(address(cluster.port))));
        }
        let template = if self.cluster.is_some() {
            CLUSTER
        } else {
            SINGLE
        };
        let mut text = String::new();
        for line in template.lines() {
            let mut line = line.to_owned();
            if line.starts_with("include ") {
                line = self
                    .auth
                    .as_ref()
                    .map_or(Ok(String::new()), Authority::server_config)?;
            }
            let code = !line.trim_start().starts_with('#');
            for (name, value) in values.iter().filter(|_| code) {
                if line.contains(name) {
                    // Without a value the line goes, and the server's own default holds.
                    line = value
                        .as_ref()
                        .map_or(String::new(), |value| line.replace(name, value));
                }
            }
            text.push_str(&line);
            text.push('\n');
        }
        Ok(text)
    }
}

fn prepare(data_dir: &Path) -> Result<(), ServerError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(ServerError::io("create", data_dir))
}

/// `nats://host:port` with the name and password of the cluster's servers.
fn with_password(route: &str, password: Option<&str>) -> String {
    match (route.split_once("://"), password) {
        (Some((scheme, address)), Some(password)) if !address.contains('@') => {
            format!("{scheme}://{ROUTE_USER}:{password}@{address}")
        }
        _ => route.to_owned(),
    }
}

/// A quarter of the machine's memory for `servers` of them together.
fn default_memory_limit(servers: u64) -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.map_or(2 << 30, |all| {
        (all * 1024 / 4 / servers).max(MEMORY_LIMIT_MIN)
    })
}

/// `GET /healthz`, by hand: one request to our own server is worth no HTTP client.
async fn healthy(host: String, port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect((host.as_str(), port)).await?;
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with(b"HTTP/1.1 200"))
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), ask).await;
    matches!(answer, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_one_host_share_its_memory() {
        let mut settings = NatsSettings::new("/data");
        assert_eq!(settings.servers_here(), 1);
        let routes = |hosts: [&str; 3]| {
            Some(ClusterSettings {
                port: 1,
                routes: hosts.map(|host| format!("nats://{host}:1")).to_vec(),
            })
        };
        settings.cluster = routes(["127.0.0.1"; 3]);
        assert_eq!(settings.servers_here(), 3);
        settings.cluster = routes(["127.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(settings.servers_here(), 1);
    }

    #[test]
    fn every_name_in_the_configuration_is_filled_in() {
        let mut settings = NatsSettings::new("/data/with space");
        settings.max_file_store = 1 << 30;
        let keys = tempfile::tempdir().expect("a folder");
        let authority = Authority::load_or_create(keys.path()).expect("makes keys");
        let password = authority.cluster_password();
        settings.auth = Some(authority);
        for cluster in [
            None,
            Some(ClusterSettings {
                port: 1,
                routes: vec!["nats://a:1".into()],
            }),
        ] {
            settings.cluster = cluster;
            let text = settings.render().expect("it renders");
            let code: Vec<_> = text
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'))
                .collect();
            assert!(!code.iter().any(|line| line.contains("$SWARM")), "{text}");
            assert!(code.contains(&"  sync_interval: always"), "{text}");
            // Both to join the others and to let them in.
            let named = code.iter().filter(|line| line.contains(&password)).count();
            assert_eq!(
                named,
                if settings.cluster.is_some() { 2 } else { 0 },
                "{text}"
            );
            assert!(
                code.contains(&"  store_dir: \"/data/with space/jetstream\""),
                "{text}"
            );
        }
    }
}
