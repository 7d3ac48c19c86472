//! A further replica of a service, started by the runner beside the supervised ones.

use std::{collections::BTreeMap, fs, net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use futures::StreamExt;
use swarm_events::{InstanceId, Partition, Service, Subject, subject::ControlVerb};
use swarm_log::{Log, Tailed};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    bus::Bus,
    catalog::Part,
    follow::{claim_in, last_claim},
    installation::{Installation, clean},
    process::{self, MARK, Signal},
};

/// What it is called among the replicas.
const NAME: &str = "chaos";
/// What it may take to fold the log and to claim, and to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running replica. Killed when dropped.
pub struct Replica {
    service: Service,
    child: Child,
}

/// The deciding service that a part is.
///
/// # Errors
/// It is none.
pub fn service_of(part: Part) -> anyhow::Result<Service> {
    Ok(match part {
        Part::Coordinator => Service::Coordinator,
        Part::Distributor => Service::Distributor,
        Part::Health => Service::Health,
        other => bail!("{other} owns no partitions"),
    })
}

impl Replica {
    /// Starts one that finds nats-server at `nats` (its real address if not given).
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(
        installation: &Installation,
        service: Service,
        nats: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let address = installation.address()?;
        let log = installation
            .data()
            .join(format!("logs/{service}-{NAME}.log"));
        let log = fs::File::options().create(true).append(true).open(log)?;
        let keys = installation.data().join("keys");
        let mut command = Command::new(&installation.plan().program);
        clean(&mut command);
        let child = command
            .args(["service", service.as_str()])
            .env(
                "SWARM_NATS_URL",
                nats.map_or(address.nats_url, |nats| format!("nats://{nats}")),
            )
            .env("SWARM_NATS_CREDS", keys.join(format!("{service}.creds")))
            .env("SWARM_NATS_SYS_CREDS", keys.join("system.creds"))
            .env("SWARM_DATABASE_URL", address.database_url)
            .env("SWARM_REPLICAS", installation.stream_replicas().to_string())
            .env("SWARM_REPLICA_NAME", format!("{service}-{NAME}"))
            .env("SWARM_PROBE_ADDR", "127.0.0.1:0")
            .env(MARK, installation.mark())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("another {service} cannot be started"))?;
        Ok(Self { service, child })
    }

    /// Waits until it owns partitions, and answers with one of them.
    ///
    /// # Errors
    /// It claims none in time.
    pub async fn until_owner(&self, bus: &Bus) -> anyhow::Result<Partition> {
        let wanted = format!("{}-{NAME}", self.service);
        let from = bus.log().info().await?.last_sequence + 1;
        let mut owners = BTreeMap::new();
        for partition in Partition::all() {
            if let Some(claim) = last_claim(bus.log(), self.service, partition).await? {
                owners.insert(partition, claim.instance);
            }
        }
        let mut claims = bus.log().tail(vec![claims_filter(self.service)], from);
        let mut is_wanted: BTreeMap<InstanceId, bool> = BTreeMap::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (partition, instance) in &owners {
                if !is_wanted.contains_key(instance) {
                    let name = bus.name_of(self.service, *instance).await?;
                    is_wanted.insert(*instance, name.as_deref() == Some(&wanted));
                }
                if is_wanted.get(instance) == Some(&true) {
                    return Ok(*partition);
                }
            }
            match timeout_at(deadline, claims.next()).await {
                Ok(Some(Ok(Tailed::Message(stored)))) => {
                    if let (Some(instance), Ok(subject)) =
                        (claim_in(&stored), Subject::parse(&stored.subject))
                    {
                        owners.insert(subject.partition(), instance);
                    }
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) => bail!("the log cannot be followed any more"),
                Err(_) => bail!(
                    "the new {} owns no partition after {} s",
                    self.service,
                    PATIENCE.as_secs()
                ),
            }
        }
    }

    /// Tells it to go, and waits until it has.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub async fn leave(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().context("the replica has ended by itself")?;
        process::signal(pid, Signal::TERM)?;
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .context("a replica that was told to go is still there")??;
        anyhow::ensure!(status.success(), "the replica ended with {status}");
        Ok(())
    }
}

/// The claims of a service on all partitions.
fn claims_filter(service: Service) -> String {
    let one = Subject::Control(
        service,
        Partition::of(uuid::Uuid::nil()),
        ControlVerb::Claimed,
    );
    let any = |token: &str| token.parse::<Partition>().is_ok();
    one.to_string()
        .split('.')
        .map(|token| if any(token) { "*" } else { token })
        .collect::<Vec<_>>()
        .join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_for_the_service_and_every_partition() {
        assert_eq!(claims_filter(Service::Health), "swarm.ctl.health.*.claimed");
    }
}
