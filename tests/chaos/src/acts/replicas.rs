//! Replicas that come, go and lose their way to the log.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use super::{AWAY, Wings, name_of};
use crate::{
    catalog::{Part, Target},
    process::{self, Signal},
    proxy::{Cut, Proxy, Switch},
    replica::{Replica, service_of},
    stage::{Figures, Needs, PATIENCE, Stage},
};

/// The name under which the owner of the stage's partition is kept.
pub async fn owner(stage: &Stage<'_>, part: Part) -> anyhow::Result<Option<String>> {
    let service = service_of(part)?;
    let claim = stage
        .follower
        .see(|fold| fold.claim(service))
        .with_context(|| format!("no {part} has claimed the swarm's partition"))?;
    stage.bus.name_of(service, claim.instance).await
}

/// A third replica, connected through a proxy, owns the swarm's partition when its wire is cut. When the wire is mended it
/// is a zombie with held-back writes.
pub async fn cut(
    name: &str,
    part: Part,
    how: Cut,
    wings: Wings<'_>,
) -> anyhow::Result<(Figures, Vec<String>)> {
    let service = service_of(part)?;
    let address = wings.installation.address()?;
    let upstream: SocketAddr = address
        .nats_url
        .trim_start_matches("nats://")
        .parse()
        .context("nats-server's address")?;
    let switch = Switch::new(None);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let proxy = Proxy::start(any, upstream, &switch, |_| |cut: &Option<Cut>| *cut).await?;
    let replica = Replica::start(wings.installation, service, Some(proxy.address()))?;
    let partition = replica.until_owner(wings.bus).await?;
    let needs = Needs {
        partition: Some(partition),
        ..Needs::default()
    };
    let mut stage = Stage::set(wings.installation, wings.bus, name, needs).await?;
    let before = claim(&stage, part)?;
    switch.set(Some(how));
    let began = Instant::now();
    stage
        .follower
        .until("another replica takes over", PATIENCE, |fold| {
            let now = fold.claim(service)?;
            (now.instance != before).then_some(())
        })
        .await?;
    let took = began.elapsed();
    // A zombie by then, whatever the takeover took.
    sleep(AWAY.saturating_sub(began.elapsed())).await;
    switch.set(None);
    stage.recovered().await?;
    let figures = stage.close().await?;
    replica.leave().await?;
    Ok((figures, vec![format!("taken over after {}", seconds(took))]))
}

/// A third distributor comes and is told to go; then the owner of the swarm's partition is told to go.
pub async fn come_and_go(stage: &Stage<'_>) -> anyhow::Result<()> {
    let part = Part::Distributor;
    let third = Replica::start(stage.installation, service_of(part)?, None)?;
    third.until_owner(stage.bus).await?;
    third.leave().await?;
    let target = Target {
        part,
        standby: false,
    };
    let name = name_of(stage, target).await?;
    let (owner, pid) = (claim(stage, part)?, stage.installation.pid(&name)?);
    process::signal(pid, Signal::TERM)?;
    let service = service_of(part)?;
    stage
        .follower
        .until("another replica takes over", PATIENCE, |fold| {
            let now = fold.claim(service)?;
            (now.instance != owner).then_some(())
        })
        .await?;
    stage
        .installation
        .until_ready(&[(name.clone(), pid)].into())
        .await?;
    ensure!(
        !process::runs(pid),
        "{name} was told to go and is still there"
    );
    Ok(())
}

fn claim(stage: &Stage<'_>, part: Part) -> anyhow::Result<swarm_events::InstanceId> {
    let service = service_of(part)?;
    let claim = stage.follower.see(|fold| fold.claim(service));
    Ok(claim.context("nobody owns the swarm's partition")?.instance)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
