//! What happens in a scene: each act inflicts its fault on a swarm at work and returns when the fault is over.

mod agents;
mod noise;
mod processes;
mod replicas;
mod servers;

use std::time::Duration;

use crate::{
    bus::Bus,
    catalog::{Act, Part, Target},
    cluster::Cluster,
    installation::Installation,
    stage::{Needs, Stage},
};

/// How long something is paused or cut off: well above what it takes to be held to be dead (2 s for a replica, 4 s for an
/// agent), so that what comes back is a zombie.
pub const AWAY: Duration = Duration::from_secs(6);

/// Why a scene is not played.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CannotPlay(pub String);

/// What the acts have at hand beside the stage.
pub struct Wings<'a> {
    /// The installation.
    pub installation: &'a Installation,
    /// The runner's way to the log.
    pub bus: &'a Bus,
    /// The runner's own cluster, if it is played on one.
    pub cluster: Option<&'a Cluster>,
}

/// Plays an act on a stage of its own. Answers with what it comes to and what it has to say.
///
/// # Errors
/// Something does not come about; [`CannotPlay`] if the machine or the installation lacks what the act needs.
pub async fn play(
    name: &str,
    act: &Act,
    wings: Wings<'_>,
) -> anyhow::Result<(crate::stage::Figures, Vec<String>)> {
    let mut notes = Vec::new();
    match act {
        Act::KillSupervisor => return processes::kill_supervisor(name, wings).await,
        Act::CutService(part, cut) => {
            return replicas::cut(name, *part, *cut, wings).await;
        }
        Act::FillDisk => return servers::fill_disk(name, wings).await,
        _ => {}
    }
    let mut stage = Stage::set(wings.installation, wings.bus, name, Needs::default()).await?;
    match act {
        Act::Kill(targets) => processes::kill(&stage, targets).await?,
        Act::Pause(target) => processes::pause(&stage, *target).await?,
        Act::KillAgent => agents::kill(&mut stage).await?,
        Act::PauseAgent => agents::pause(&mut stage).await?,
        Act::KillNodes(nodes) => notes.push(servers::kill_nodes(&stage, *nodes).await?),
        Act::CutNode(cut) => notes.push(servers::cut_node(&stage, wings.cluster, *cut).await?),
        Act::Noise => notes.push(noise::make(&stage).await?),
        Act::Replicas => replicas::come_and_go(&stage).await?,
        Act::KillSupervisor | Act::CutService(..) | Act::FillDisk => {}
    }
    stage.recovered().await?;
    Ok((stage.close().await?, notes))
}

/// The name under which the process that works (or stands by) is kept.
async fn name_of(stage: &Stage<'_>, target: Target) -> anyhow::Result<String> {
    let names = names_of(stage, target.part);
    if names.len() < 2 {
        return match (names.first(), target.standby) {
            (Some(name), false) => Ok(name.clone()),
            _ => Err(CannotPlay(format!("there is no second {}", target.part)).into()),
        };
    }
    let working = match target.part {
        Part::Coordinator | Part::Distributor | Part::Health => {
            replicas::owner(stage, target.part).await?
        }
        Part::Projector => {
            let mut writing = None;
            for name in &names {
                let said = stage.installation.probe(name).await;
                if said.is_some_and(|(_, detail)| detail.contains("\"writing\"")) {
                    writing = Some(name.clone());
                }
            }
            writing
        }
        // All gateways work; the first is the one that its clients begin with.
        Part::Gateway | Part::Nats | Part::Postgres => names.first().cloned(),
    };
    let working =
        working.ok_or_else(|| anyhow::anyhow!("it cannot be told which {} works", target.part))?;
    if !target.standby {
        return Ok(working);
    }
    let other = names.into_iter().find(|name| *name != working);
    Ok(other.unwrap_or(working))
}

/// The names of a part's processes: `gateway`, `gateway-2`, ….
fn names_of(stage: &Stage<'_>, part: Part) -> Vec<String> {
    let mut names = vec![part.as_str().to_owned()];
    names.extend((2..=16).map(|number| format!("{part}-{number}")));
    names.retain(|name| stage.installation.has(name));
    names
}
