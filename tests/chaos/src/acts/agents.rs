//! Agents, killed and paused.

use anyhow::Context;
use tokio::time::sleep;

use super::AWAY;
use crate::{
    process::{self, Signal},
    stage::{PATIENCE, Stage},
};

/// SIGKILL; over when the log says that it is gone. Another takes its place.
pub async fn kill(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let victim = stage.outside.pop().context("no agent to kill")?;
    let pid = victim.pid().context("the agent does not run")?;
    process::signal(pid, Signal::KILL)?;
    stage
        .follower
        .until("the agent is found dead", PATIENCE, |fold| {
            fold.is_gone(victim.id, 1).then_some(())
        })
        .await?;
    victim.leave().await
}

/// SIGSTOP until the log says that it is gone and a while longer, then SIGCONT: its work was given to others, what it still
/// says does not count, and it joins again.
pub async fn pause(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let victim = stage.outside.last().context("no agent to pause")?;
    let (id, pid) = (victim.id, victim.pid().context("the agent does not run")?);
    process::signal(pid, Signal::STOP)?;
    sleep(AWAY).await;
    let gone = stage
        .follower
        .until("the paused agent is found dead", PATIENCE, |fold| {
            fold.is_gone(id, 1).then_some(())
        })
        .await;
    process::signal(pid, Signal::CONT)?;
    gone?;
    stage
        .follower
        .until("the agent joins again", PATIENCE, |fold| {
            fold.is_member(id).then_some(())
        })
        .await
}
