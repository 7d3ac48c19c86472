//! Processes of the installation, killed and paused.

use std::collections::BTreeMap;

use anyhow::Context;
use tokio::time::sleep;

use super::{AWAY, Wings, name_of};
use crate::{
    catalog::{Part, Target},
    process::{self, Signal},
    stage::{Figures, Needs, Stage},
};

/// SIGKILL to all at the same moment; over when other processes are there and ready.
pub async fn kill(stage: &Stage<'_>, targets: &[Target]) -> anyhow::Result<()> {
    let mut victims = BTreeMap::new();
    for target in targets {
        let name = name_of(stage, *target).await?;
        let pid = stage.installation.pid(&name)?;
        victims.insert(name, pid);
    }
    for pid in victims.values() {
        process::signal(*pid, Signal::KILL)?;
    }
    stage.installation.until_ready(&victims).await
}

/// SIGSTOP, and SIGCONT after a while; over when everything is ready.
pub async fn pause(stage: &Stage<'_>, target: Target) -> anyhow::Result<()> {
    let pid = stage.installation.pid(&name_of(stage, target).await?)?;
    // PostgreSQL's processes are several.
    let mut pids = match target.part {
        Part::Postgres => process::children(pid),
        _ => Vec::new(),
    };
    pids.push(pid);
    for pid in &pids {
        // A worker may have ended since.
        let _ = process::signal(*pid, Signal::STOP);
    }
    // The fault itself takes this long: nothing is waited for.
    sleep(AWAY).await;
    for pid in &pids {
        let _ = process::signal(*pid, Signal::CONT);
    }
    stage.installation.until_ready(&BTreeMap::new()).await
}

/// SIGKILL of the supervisor: all of its children go, and `swarm up` brings everything back on the same data.
pub async fn kill_supervisor(
    name: &str,
    wings: Wings<'_>,
) -> anyhow::Result<(Figures, Vec<String>)> {
    let mut stage = Stage::set(wings.installation, wings.bus, name, Needs::default()).await?;
    let children: Vec<u32> = stage.installation.address()?.pids.into_values().collect();
    process::signal(stage.installation.supervisor()?, Signal::KILL)?;
    stage
        .installation
        .until_gone(children)
        .await
        .context("a child outlives its supervisor")?;
    stage.installation.up().await?;
    stage.recovered().await?;
    Ok((stage.close().await?, Vec::new()))
}
