//! The servers below: nodes of a cluster, and a full disk.

use anyhow::{Context, bail, ensure};
use tokio::time::{Duration, Instant, sleep, timeout};

use super::{AWAY, CannotPlay, Wings};
use crate::{
    catalog::Nodes,
    cluster::{Cluster, Wires, name_at},
    disk::SmallDisk,
    load::Pace,
    process::{self, Signal},
    proxy::Cut,
    stage::{Figures, Needs, PATIENCE, Stage},
};

/// SIGKILL of nodes; over when they are there again.
pub async fn kill_nodes(stage: &Stage<'_>, which: Nodes) -> anyhow::Result<String> {
    let address = stage.installation.address()?;
    let leader = stage
        .bus
        .stream_leader()
        .await?
        .ok_or_else(|| CannotPlay("the stream has no leader: it is no cluster".to_owned()))?;
    let mut names = Vec::new();
    // The addresses stand in the order of the nodes' numbers.
    for (index, url) in address.nats_url.split(',').enumerate() {
        let name = match index {
            0 => "nats-server".to_owned(),
            index => format!("nats-server-{}", index + 1),
        };
        names.push((name, name_at(url.trim()).await? == leader));
    }
    let (leaders, followers): (Vec<_>, Vec<_>) = names.into_iter().partition(|(_, leads)| *leads);
    let victims: Vec<String> = match which {
        Nodes::Leader => leaders,
        Nodes::Follower => followers.into_iter().take(1).collect(),
        Nodes::Two => leaders
            .into_iter()
            .chain(followers.into_iter().take(1))
            .collect(),
    }
    .into_iter()
    .map(|(name, _)| name)
    .collect();
    ensure!(!victims.is_empty(), "no node of {} leads", address.nats_url);
    let mut killed = std::collections::BTreeMap::new();
    for name in &victims {
        killed.insert(name.clone(), stage.installation.pid(name)?);
    }
    for pid in killed.values() {
        process::signal(*pid, Signal::KILL)?;
    }
    stage.installation.until_ready(&killed).await?;
    Ok(format!("killed {}", victims.join(" and ")))
}

/// Cuts the stream's leader off the other nodes, and mends it.
pub async fn cut_node(
    stage: &Stage<'_>,
    cluster: Option<&Cluster>,
    how: Cut,
) -> anyhow::Result<String> {
    let cluster = cluster.context("no cluster of the runner's own")?;
    let leader = stage.bus.stream_leader().await?.context("no leader")?;
    let node = cluster.index_of(&leader)?;
    cluster.cut(Wires {
        node: Some((node, how)),
    });
    let began = Instant::now();
    // Over when another leads: the runner's own connection may be at the node that is cut off, and then asks in vain.
    let elected = timeout(PATIENCE, async {
        loop {
            if let Ok(Some(now)) = cluster.leader_seen_by((node + 1) % cluster.size()).await
                && now != leader
            {
                return now;
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let took = began.elapsed();
    sleep(AWAY.saturating_sub(took)).await;
    cluster.cut(Wires::default());
    match elected {
        Ok(now) => Ok(format!(
            "{leader} cut off, {now} leads after {:.1} s",
            took.as_secs_f64()
        )),
        Err(_) => bail!("no other leader after {} s", PATIENCE.as_secs()),
    }
}

/// Fills the disk below nats-server until it takes no more, makes it larger, and starts nats-server again.
pub async fn fill_disk(name: &str, wings: Wings<'_>) -> anyhow::Result<(Figures, Vec<String>)> {
    let disk = SmallDisk::below(wings.installation)?;
    let needs = Needs {
        pace: Pace {
            padding: PADDING,
            ..Pace::default()
        },
        ..Needs::default()
    };
    let mut stage = Stage::set(wings.installation, wings.bus, name, needs).await?;
    // The fault: nothing more is taken, clients are told so, and nats-server says why.
    let told = timeout(PATIENCE, async {
        loop {
            let trouble = stage.load.trouble();
            if disk.is_full() && trouble.keys().any(|text| is_clear(text)) {
                return trouble;
            }
            sleep(LOOK).await;
        }
    })
    .await
    .map_err(|_| {
        let (trouble, free) = (stage.load.trouble(), disk.free_bytes());
        anyhow::anyhow!("with {free} bytes left clients are told nothing clear: {trouble:?}")
    })?;
    let health = stage.installation.probe("nats-server").await;
    ensure!(
        matches!(&health, Some((false, why)) if why.contains("no space left")),
        "nats-server does not say what is wrong: {health:?}"
    );
    let accepted = stage.load.accepted();
    sleep(AWAY).await;
    let during = stage.load.accepted() - accepted;
    ensure!(during == 0, "{during} tasks were taken with a full disk");
    disk.enlarge()?;
    let pid = stage.installation.pid("nats-server")?;
    process::signal(pid, Signal::KILL)?;
    stage
        .installation
        .until_ready(&[("nats-server".to_owned(), pid)].into())
        .await?;
    stage.recovered().await?;
    let figures = stage.close().await?;
    Ok((figures, vec![format!("clients were told {told:?}")]))
}

/// How often the disk and what clients were told are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The gateway's words for a log that takes nothing, or the log's own.
fn is_clear(text: &str) -> bool {
    text.starts_with("full") || (text.starts_with("gateway: 50") && text.contains("log-"))
}

/// Each task of this scene fills as much of the disk as hundreds of ordinary ones.
const PADDING: usize = 30_000;
