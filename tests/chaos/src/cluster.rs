//! Three nats-servers of the runner's own, each route between them through a proxy.
//!
//! Each server names its proxy to the others as its own address (`advertise`), so that routes which the servers make of
//! their own accord go through a proxy too. Who dials is known by the process that holds the other end.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, ensure};
use swarm_log::connect::{ConnectSettings, Credentials, connect};
use swarm_servers::{Authority, find_nats};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    installation::{Foreign, Installation, free_ports},
    process::{self, MARK, Signal},
    proxy::{Cut, Proxy, Switch},
};

/// The product's own configuration of a cluster.
const TEMPLATE: &str = include_str!("../../../nats/config/cluster.conf");
/// Servers.
const NODES: u16 = 3;
/// What they may take to find each other.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// What a server may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// What a server may take to answer a question.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How often health is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Which wires are cut: all of one node's, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wires {
    /// The node, from 0.
    pub node: Option<(usize, Cut)>,
}

/// A running cluster. Killed when dropped.
pub struct Cluster {
    nodes: Vec<Node>,
    switch: Switch<Wires>,
    _proxies: Vec<Proxy>,
    creds: PathBuf,
    system_creds: PathBuf,
}

struct Node {
    name: String,
    child: Child,
    ports: Ports,
}

#[derive(Clone, Copy)]
struct Ports {
    client: u16,
    monitor: u16,
    web: u16,
    route: u16,
    proxy: u16,
}

impl Ports {
    /// Of the node with this number, from a block of free ones.
    const fn of(first: u16, number: u16) -> Self {
        let first = first + 5 * number;
        Self {
            client: first,
            monitor: first + 1,
            web: first + 2,
            route: first + 3,
            proxy: first + 4,
        }
    }
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

impl Cluster {
    /// Starts one in the folder of an installation, and waits until it is healthy.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start(installation: &Installation) -> anyhow::Result<Self> {
        let dir = installation.dir().join("wired");
        let authority = Authority::load_or_create(&dir.join("keys"))?;
        let program = tokio::task::spawn_blocking(|| find_nats(None)).await??;
        let first = free_ports()?;
        let pids: Arc<OnceLock<Vec<u32>>> = Arc::default();
        let switch = Switch::new(Wires::default());
        let mut proxies = Vec::new();
        for number in 0..NODES {
            let ports = Ports::of(first, number);
            let (pids, to) = (pids.clone(), usize::from(number));
            let dialler = move |from: SocketAddr| {
                let dialler = pids.get().and_then(|pids| holder_of(from.port(), pids));
                move |wires: &Wires| {
                    let (node, cut) = wires.node?;
                    (node == to || Some(node) == dialler).then_some(cut)
                }
            };
            proxies.push(
                Proxy::start(local(ports.proxy), local(ports.route), &switch, dialler).await?,
            );
        }
        let mut nodes = Vec::new();
        for number in 0..NODES {
            nodes.push(Node::start(
                &program,
                &dir,
                number,
                first,
                &authority,
                installation.mark(),
            )?);
        }
        let started: Vec<u32> = nodes.iter().filter_map(|node| node.child.id()).collect();
        ensure!(started.len() == nodes.len(), "a nats-server ended at once");
        let _ = pids.set(started);
        let cluster = Self {
            nodes,
            switch,
            _proxies: proxies,
            creds: authority.write_admin_creds()?,
            system_creds: authority.write_system_creds()?,
        };
        let deadline = Instant::now() + READY_PATIENCE;
        for node in &cluster.nodes {
            while !node.is_healthy().await {
                ensure!(Instant::now() < deadline, "{} is not healthy", node.name);
                sleep(LOOK).await;
            }
        }
        Ok(cluster)
    }

    /// How an installation finds it.
    pub fn foreign(&self) -> Foreign {
        let urls: Vec<String> = self.nodes.iter().map(Node::url).collect();
        Foreign {
            nats_url: urls.join(","),
            creds: self.creds.clone(),
            system_creds: self.system_creds.clone(),
            replicas: usize::from(NODES),
        }
    }

    /// How many servers there are.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The servers' processes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes
            .iter()
            .filter_map(|node| node.child.id())
            .collect()
    }

    /// The number of the server of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn index_of(&self, name: &str) -> anyhow::Result<usize> {
        let found = self.nodes.iter().position(|node| node.name == name);
        found.with_context(|| format!("there is no server {name}"))
    }

    /// Cuts and mends wires between the servers.
    pub fn cut(&self, wires: Wires) {
        self.switch.set(wires);
    }

    /// The leader of the log's stream, as one of the servers sees it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn leader_seen_by(&self, index: usize) -> anyhow::Result<Option<String>> {
        let node = self.nodes.get(index).context("no such server")?;
        let mut settings = ConnectSettings::new(node.url(), "swarm chaos watch");
        settings.creds = Some(Credentials::File(self.creds.clone()));
        let ask = async {
            let connection = connect(settings).await?;
            let context = async_nats::jetstream::new(connection.client().clone());
            let stream = context.get_stream(swarm_events::subject::STREAM).await?;
            let cluster = stream.cached_info().cluster.as_ref();
            anyhow::Ok(cluster.and_then(|cluster| cluster.leader.clone()))
        };
        timeout(ANSWER_PATIENCE, ask).await?
    }

    /// Stops every server.
    ///
    /// # Errors
    /// One does not end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            if let Some(pid) = node.child.id() {
                process::signal(pid, Signal::TERM)?;
            }
        }
        for node in &mut self.nodes {
            timeout(STOP_PATIENCE, node.child.wait())
                .await
                .with_context(|| format!("{} does not stop", node.name))??;
        }
        Ok(())
    }
}

impl Node {
    fn start(
        program: &Path,
        dir: &Path,
        number: u16,
        first: u16,
        authority: &Authority,
        mark: &str,
    ) -> anyhow::Result<Self> {
        let ports = Ports::of(first, number);
        let name = format!("wired-{}", number + 1);
        let data = dir.join(&name);
        fs::create_dir_all(&data)?;
        let routes: Vec<String> = (0..NODES)
            .map(|number| format!("nats://{}", local(Ports::of(first, number).proxy)))
            .collect();
        let values = [
            ("$SWARM_NATS_MAX_FILE_STORE", "4GB".to_owned()),
            ("$SWARM_NATS_SYNC_INTERVAL", "always".to_owned()),
            ("$SWARM_NATS_WEBSOCKET", quoted(local(ports.web))),
            ("$SWARM_NATS_MONITOR", quoted(local(ports.monitor))),
            ("$SWARM_NATS_STORE", format!("{:?}", data.join("jetstream"))),
            ("$SWARM_NATS_NAME", format!("{name:?}")),
            ("$SWARM_NATS_HOST", "\"127.0.0.1\"".to_owned()),
            ("$SWARM_NATS_PORT", ports.client.to_string()),
            ("$SWARM_NATS_ROUTES", format!("{routes:?}")),
            (
                "$SWARM_NATS_CLUSTER",
                format!(
                    "{}\n  advertise: {}",
                    quoted(local(ports.route)),
                    quoted(local(ports.proxy))
                ),
            ),
        ];
        let config = data.join("nats-server.conf");
        let text = configuration(&values, &authority.server_config()?);
        let mut options = fs::File::options();
        options.create(true).write(true).truncate(true).mode(0o600);
        std::io::Write::write_all(&mut options.open(&config)?, text.as_bytes())?;
        let log = fs::File::create(data.join("nats-server.log"))?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .env(MARK, mark)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { name, child, ports })
    }

    fn url(&self) -> String {
        format!("nats://{}", local(self.ports.client))
    }

    async fn is_healthy(&self) -> bool {
        let url = format!("http://{}/healthz", local(self.ports.monitor));
        swarm_log::tls::choose();
        let asked = reqwest::Client::new()
            .get(url)
            .timeout(ANSWER_PATIENCE)
            .send();
        asked.await.is_ok_and(|answer| answer.status().is_success())
    }
}

fn quoted(address: SocketAddr) -> String {
    format!("{:?}", address.to_string())
}

/// The template with its names filled in; a line whose name has no value goes.
fn configuration(values: &[(&str, String)], authority: &str) -> String {
    let mut text = String::new();
    for line in TEMPLATE.lines() {
        let code = line.trim_start();
        if code.starts_with('#') {
            continue;
        }
        if code.starts_with("include ") {
            text.push_str(authority);
            continue;
        }
        let Some((before, name)) = line.split_once('$') else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let value = values.iter().find(|(known, _)| known[1..] == *name.trim());
        if let Some((_, value)) = value {
            text.push_str(before);
            text.push_str(value);
            text.push('\n');
        }
    }
    text
}

/// Which of these processes holds the connection that comes from this port of this machine.
fn holder_of(port: u16, pids: &[u32]) -> Option<usize> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let wanted = format!(":{port:04X}");
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?;
        local.ends_with(&wanted).then(|| fields.get(9).copied())?
    })?;
    let wanted = format!("socket:[{inode}]");
    pids.iter().position(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        open.into_iter().flatten().flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str())
        })
    })
}

/// The name of the nats-server at `url`, as it says itself.
///
/// # Errors
/// It does not.
pub async fn name_at(url: &str) -> anyhow::Result<String> {
    let address = url.trim_start_matches("nats://");
    let ask = async {
        let stream = TcpStream::connect(address).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        anyhow::Ok(line)
    };
    let line = timeout(ANSWER_PATIENCE, ask)
        .await
        .with_context(|| format!("{url} does not say who it is"))??;
    let json = line.strip_prefix("INFO ").context("no nats-server")?;
    let info: serde_json::Value = serde_json::from_str(json)?;
    let name = info["server_name"].as_str();
    Ok(name.context("a nats-server without a name")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_every_value_and_no_name() {
        let names = [
            "$SWARM_NATS_MAX_FILE_STORE",
            "$SWARM_NATS_SYNC_INTERVAL",
            "$SWARM_NATS_WEBSOCKET",
            "$SWARM_NATS_MONITOR",
            "$SWARM_NATS_STORE",
            "$SWARM_NATS_NAME",
            "$SWARM_NATS_HOST",
            "$SWARM_NATS_PORT",
            "$SWARM_NATS_ROUTES",
            "$SWARM_NATS_CLUSTER",
        ];
        let values: Vec<(&str, String)> = names
            .iter()
            .map(|name| (*name, format!("<{}>", &name[1..])))
            .collect();
        let text = configuration(&values, "authority\n");
        for (name, value) in &values {
            assert!(text.contains(value), "{name}: {text}");
        }
        assert!(!text.contains('$'), "{text}");
        assert!(text.contains("authority"), "{text}");
    }

    #[tokio::test]
    async fn the_holder_of_a_connection_is_found() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound"))
            .await
            .expect("there");
        let port = stream.local_addr().expect("connected").port();
        assert_eq!(holder_of(port, &[1, std::process::id()]), Some(1));
        assert_eq!(holder_of(port, &[1]), None);
    }
}
