//! nats-server, one or a cluster of three, and PostgreSQL: started, started again when they die, stopped.

use std::{future::Future, process::ExitStatus, sync::Arc, time::Duration};

use swarm_runtime::settings::Durability;
use swarm_servers::{
    Authority, ClusterSettings, NatsServer, NatsSettings, PgSettings, Postgres, ServerError,
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{numbered, ports, shared::Shared, supervisor::Plan};
use crate::exit::{Failure, Outcome};

/// First and longest pause before a server that died is started again.
const RESTART_MIN: Duration = Duration::from_millis(200);
/// See [`RESTART_MIN`].
const RESTART_MAX: Duration = Duration::from_secs(10);
/// Servers of a cluster: the fewest of which one may be lost.
pub const CLUSTER_SERVERS: u16 = 3;
/// Name of nats-server in `connection.json`; further ones of a cluster are numbered.
pub const NATS: &str = "nats-server";
/// Name of PostgreSQL in `connection.json`.
pub const POSTGRES: &str = "postgres";

/// Ports of our nats-servers; 0 for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatsPorts {
    /// For clients.
    pub client: u16,
    /// For WebSocket clients.
    pub ws: u16,
    /// For health and figures.
    pub monitor: u16,
    /// For the other servers of a cluster.
    pub route: u16,
}

impl NatsPorts {
    /// Those of the server with this number, from 1: the clients' and the monitoring ports alternate (7422 and 7423, 7424 and
    /// 7425, …), the others follow each other. `None`: they would pass the last port there is.
    fn of(self, number: u16) -> Option<Self> {
        let after = |port: u16, step: u16| match port {
            0 => Some(0),
            port => port.checked_add(step),
        };
        let further = number.saturating_sub(1);
        Some(Self {
            client: after(self.client, 2 * further)?,
            ws: after(self.ws, further)?,
            monitor: after(self.monitor, 2 * further)?,
            route: after(self.route, further)?,
        })
    }
}

/// A server process that can be kept running.
pub trait Server: Send + 'static {
    /// Its process id.
    fn pid(&self) -> u32;
    /// Where it answers `/healthz`, if it does.
    fn probe(&self) -> Option<String>;
    /// Waits until it has ended by itself.
    fn wait(&mut self) -> impl Future<Output = ExitStatus> + Send;
    /// Starts it again on the same ports and data.
    fn restart(&mut self) -> impl Future<Output = Result<(), ServerError>> + Send;
    /// Stops it in good order.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

macro_rules! server {
    ($of:ty, $probe:expr) => {
        impl Server for $of {
            fn pid(&self) -> u32 {
                <$of>::pid(self)
            }
            fn probe(&self) -> Option<String> {
                $probe(self)
            }
            async fn wait(&mut self) -> ExitStatus {
                <$of>::wait(self).await
            }
            async fn restart(&mut self) -> Result<(), ServerError> {
                <$of>::restart(self).await
            }
            async fn stop(self) {
                <$of>::stop(self).await;
            }
        }
    };
}
server!(NatsServer, |server: &NatsServer| Some(server.monitor_url()));
server!(Postgres, |_| None);

/// Keeps a server running until `stop`, then stops it.
pub async fn keep(
    name: String,
    mut server: impl Server,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    'kept: loop {
        tokio::select! {
            status = server.wait() => {
                tracing::warn!(server = name, %status, "a server has ended and is started again");
            }
            () = stop.cancelled() => break,
        }
        shared.died(&name);
        let mut pause = RESTART_MIN;
        while let Err(error) = server.restart().await {
            tracing::error!(server = name, %error, "cannot be started");
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => break 'kept,
            }
            pause = (pause * 2).min(RESTART_MAX);
        }
        shared.started(&name, server.pid());
    }
    server.stop().await;
    shared.ended(&name);
}

/// What was started. Whatever came up is kept, so that it can be stopped in good order.
pub struct Started<S> {
    servers: Vec<(String, S)>,
    failure: Option<Failure>,
}

impl<S: Server> Started<S> {
    /// Keeps what came up; an error if not all did.
    pub fn keep(
        self,
        tasks: &mut JoinSet<()>,
        shared: &Arc<Shared>,
        stop: &CancellationToken,
    ) -> Outcome {
        for (name, server) in self.servers {
            shared.started(&name, server.pid());
            if let Some(base) = server.probe() {
                shared.change(|state| {
                    state.connection.probes.insert(name.clone(), base);
                });
            }
            tasks.spawn(keep(name, server, shared.clone(), stop.clone()));
        }
        self.failure.map_or(Ok(()), Err)
    }
}

impl Started<NatsServer> {
    /// Where clients connect, all addresses separated by commas.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self
            .servers
            .iter()
            .map(|(_, server)| server.url())
            .collect();
        urls.join(",")
    }
}
impl Started<Postgres> {
    /// Where clients connect.
    pub fn url(&self) -> String {
        self.servers
            .first()
            .map_or_else(String::new, |(_, server)| server.url())
    }
}

/// Starts one nats-server or a cluster of three.
pub async fn nats(plan: &Plan, authority: &Authority) -> Started<NatsServer> {
    let mut started = Started {
        servers: Vec::new(),
        failure: None,
    };
    let settings = match nats_settings(plan, authority) {
        Ok(settings) => settings,
        Err(failure) => {
            started.failure = Some(failure);
            return started;
        }
    };
    // All at once: a server of a cluster is healthy only when the others are there.
    let starting = settings
        .into_iter()
        .enumerate()
        .map(|(index, settings)| async move {
            let number = u16::try_from(index + 1).unwrap_or(u16::MAX);
            (numbered(NATS, number), NatsServer::start(settings).await)
        });
    for (name, server) in futures::future::join_all(starting).await {
        match server {
            Ok(server) => started.servers.push((name, server)),
            Err(error) => started.failure = Some(Failure::failed(error.to_string())),
        }
    }
    started
}

fn nats_settings(plan: &Plan, authority: &Authority) -> Outcome<Vec<NatsSettings>> {
    let (single, cluster) = (plan.data.nats(), plan.data.nats_cluster());
    let (wanted, other, say) = match plan.cluster {
        false => (
            &single,
            &cluster,
            "the log of a cluster: start it with --cluster",
        ),
        true => (
            &cluster,
            &single,
            "the log of a single nats-server: start it without --cluster",
        ),
    };
    // Starting the other kind would show an empty log, and a server that finds streams of a single one in a cluster may
    // clear them away.
    if other.exists() && !wanted.exists() {
        return Err(Failure::failed(format!(
            "{} holds {say}, or choose another folder with --data",
            plan.data.path().display()
        )));
    }
    let common = |dir: std::path::PathBuf, ports: NatsPorts| {
        let mut settings = NatsSettings::new(dir);
        settings.port = ports.client;
        settings.ws_port = ports.ws;
        settings.monitor_port = ports.monitor;
        settings.durability = match plan.settings.durability {
            Durability::Always => swarm_servers::Durability::Always,
            Durability::Speed => swarm_servers::Durability::Speed,
        };
        settings.auth = Some(authority.clone());
        // A server whose limit lies below what its streams have reserved does not open them, so it must not shrink.
        if let Some(bytes) = disk_bytes(plan.data.path()) {
            settings.max_file_store = bytes;
        }
        settings
    };
    if !plan.cluster {
        return Ok(vec![common(single, plan.nats_ports)]);
    }
    let mut servers = Vec::new();
    for number in 1..=CLUSTER_SERVERS {
        let mut ports = plan.nats_ports.of(number).ok_or_else(|| {
            Failure::usage("the ports of a cluster count up from the given ones: give lower ones")
        })?;
        if ports.route == 0 {
            let free = ports::free(std::net::IpAddr::from([127, 0, 0, 1]));
            let free = free.ok_or_else(|| Failure::failed("no port is free for the cluster"))?;
            ports.route = free.port();
        }
        let mut settings = common(cluster.join(number.to_string()), ports);
        settings.name = numbered(NATS, number);
        servers.push((settings, ports.route));
    }
    let routes: Vec<String> = servers
        .iter()
        .map(|(settings, port)| format!("nats://{}:{port}", settings.host))
        .collect();
    let with_routes = |(mut settings, port): (NatsSettings, u16)| {
        settings.cluster = Some(ClusterSettings {
            port,
            routes: routes.clone(),
        });
        settings
    };
    Ok(servers.into_iter().map(with_routes).collect())
}

/// Starts PostgreSQL.
pub async fn database(plan: &Plan) -> Started<Postgres> {
    let mut settings = PgSettings::new(plan.data.postgres());
    settings.port = plan.postgres_port;
    match Postgres::start(settings).await {
        Ok(server) => Started {
            servers: vec![(POSTGRES.to_owned(), server)],
            failure: None,
        },
        Err(error) => Started {
            servers: Vec::new(),
            failure: Some(Failure::failed(error.to_string())),
        },
    }
}

/// Size of the disk, which stays the same from start to start.
fn disk_bytes(path: &std::path::Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_blocks.checked_mul(disk.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: NatsPorts = NatsPorts {
        client: 7422,
        ws: 7480,
        monitor: 7423,
        route: 7428,
    };

    #[test]
    fn the_ports_of_a_cluster_do_not_meet() {
        let three: Vec<NatsPorts> = (1..=CLUSTER_SERVERS)
            .filter_map(|n| DEFAULT.of(n))
            .collect();
        let all: std::collections::BTreeSet<u16> = three
            .iter()
            .flat_map(|ports| [ports.client, ports.ws, ports.monitor, ports.route])
            .collect();
        assert_eq!(all.len(), 12);
        assert_eq!((three[2].client, three[2].ws), (7426, 7482));
        assert_eq!((three[2].monitor, three[2].route), (7427, 7430));
        // PostgreSQL's and the gateway's defaults.
        assert!(!all.contains(&7432) && !all.contains(&7700));
    }

    #[test]
    fn any_port_stays_any_and_there_is_none_past_the_last() {
        let any = NatsPorts {
            client: 0,
            ws: 0,
            monitor: 0,
            route: 0,
        };
        assert_eq!(any.of(3), Some(any));
        let high = NatsPorts {
            client: u16::MAX - 3,
            ..DEFAULT
        };
        assert!(high.of(2).is_some() && high.of(3).is_none());
    }
}
