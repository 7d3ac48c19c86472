//! Chaos on real processes: starts the real system with replicas, loads it, injects a fault, waits until everything that
//! was accepted has ended, and has `swarm audit` judge the log.
//!
//! A [`catalog::Scene`] is an act on a ground. Scenes of the same ground share an installation as long as they pass, each
//! with a swarm of its own: the log grows, and every audit reads all of it. After a scene that failed the next one gets a
//! fresh installation, so that one failure is not counted twice.

pub mod acts;
pub mod agents;
pub mod audit;
pub mod bus;
pub mod catalog;
pub mod cluster;
pub mod disk;
pub mod fold;
pub mod follow;
pub mod installation;
pub mod load;
pub mod process;
pub mod proxy;
pub mod replica;
pub mod report;
pub mod stage;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::time::timeout;

use crate::{
    acts::{CannotPlay, Wings},
    bus::Bus,
    catalog::{Ground, Scene},
    cluster::Cluster,
    installation::{Installation, Plan},
    report::{Row, Verdict},
};

/// No scene takes longer: every wait in it has a limit of its own, and this one is for what was forgotten.
const SCENE_PATIENCE: Duration = Duration::from_secs(400);

/// How a run is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `swarm` program.
    pub program: PathBuf,
    /// Where folders are made.
    pub root: PathBuf,
    /// Where the logs of scenes that failed go.
    pub evidence: PathBuf,
    /// Processes of each service.
    pub replicas: u16,
    /// Folders stay.
    pub keep: bool,
    /// Each scene gets a fresh installation.
    pub fresh: bool,
}

/// A ground with everything on it. What is dropped first stands first.
struct House {
    ground: Ground,
    bus: Bus,
    cluster: Option<Cluster>,
    installation: Installation,
}

impl House {
    async fn build(ground: Ground, options: &Options) -> anyhow::Result<Self> {
        let plan = Plan {
            program: options.program.clone(),
            root: options.root.clone(),
            replicas: options.replicas,
            cluster: ground == Ground::Cluster,
            foreign: None,
            keep: options.keep,
        };
        let mut installation = Installation::prepare(plan)?;
        if ground == Ground::SmallDisk {
            installation.put_on_small_disk()?;
        }
        let cluster = match ground {
            Ground::Wired => {
                let cluster = Cluster::start(&installation).await?;
                installation.set_foreign(cluster.foreign());
                Some(cluster)
            }
            _ => None,
        };
        installation.up().await?;
        let bus = Bus::open(&installation.address()?, installation.stream_replicas()).await?;
        Ok(Self {
            ground,
            bus,
            cluster,
            installation,
        })
    }

    /// Stops everything in good order and looks that nothing is left.
    async fn leave(self) -> anyhow::Result<()> {
        self.installation.down().await?;
        if let Some(cluster) = self.cluster {
            cluster.stop().await?;
        }
        self.installation.finish()
    }
}

/// Plays scenes one after another and calls `seen` with each row.
pub async fn run(scenes: &[Scene], options: &Options, mut seen: impl FnMut(&Row)) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut house: Option<House> = None;
    for (index, scene) in scenes.iter().enumerate() {
        let began = Instant::now();
        let mut row = Row::new(&scene.name);
        let other = |house: &House| options.fresh || house.ground != scene.ground;
        if house.as_ref().is_some_and(other)
            && let Some(house) = house.take()
            && let Err(error) = house.leave().await
            && let Some(last) = rows.last_mut()
        {
            last.fail(format!("{error:#}"));
        }
        if house.is_none() {
            match House::build(scene.ground, options).await {
                Ok(built) => house = Some(built),
                Err(error) => judge_error(&mut row, &error),
            }
        }
        if let Some(house) = &house {
            let played = timeout(SCENE_PATIENCE, play(scene, house, &mut row)).await;
            match played.unwrap_or_else(|_| Err(anyhow::anyhow!("the scene has no end"))) {
                Ok(()) => {}
                Err(error) => judge_error(&mut row, &error),
            }
        }
        if row.verdict == Verdict::Failed
            && let Some(house) = house.take()
        {
            let logs = options.evidence.join(&scene.name);
            row.notes.push(match house.installation.save_logs(&logs) {
                Ok(()) => format!("logs: {}", logs.display()),
                Err(error) => format!("the logs cannot be saved: {error:#}"),
            });
        }
        if index + 1 == scenes.len()
            && let Some(house) = house.take()
            && let Err(error) = house.leave().await
        {
            row.fail(format!("{error:#}"));
        }
        row.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        seen(&row);
        rows.push(row);
    }
    rows
}

fn judge_error(row: &mut Row, error: &anyhow::Error) {
    row.fail(format!("{error:#}"));
    if error.downcast_ref::<CannotPlay>().is_some() {
        row.verdict = Verdict::Skipped;
    }
}

async fn play(scene: &Scene, house: &House, row: &mut Row) -> anyhow::Result<()> {
    let wings = Wings {
        installation: &house.installation,
        bus: &house.bus,
        cluster: house.cluster.as_ref(),
    };
    let (figures, notes) = acts::play(&scene.name, &scene.act, wings).await?;
    row.notes.extend(notes);
    row.tasks = figures.tasks;
    row.lost = figures.lost.len();
    row.doubled = figures.doubled.len();
    row.cancelled = figures.cancelled;
    row.without_decisions_ms = u64::try_from(figures.gap.as_millis()).ok();
    let few = |texts: &[String]| texts.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    if row.lost > 0 {
        row.fail(format!("{} tasks lost: {}", row.lost, few(&figures.lost)));
    }
    if row.doubled > 0 {
        row.fail(format!("doubled: {}", few(&figures.doubled)));
    }
    if figures.failed > 0 {
        row.fail(format!("{} tasks failed or were rejected", figures.failed));
    }
    if figures.unanswered > 0 {
        row.fail(format!("{} commands have no answer", figures.unanswered));
    }
    let partition = figures.place.partition;
    let audit = audit::run(&house.installation, partition, figures.from)
        .await
        .context("no audit")?;
    row.audited_gap_ms = Some(audit.without_decisions_ms);
    // Of the whole log; the swarms of the scenes before were at rest.
    row.lost = row.lost.max(usize::try_from(audit.lost)?);
    row.doubled = row.doubled.max(usize::try_from(audit.doubled)?);
    row.audit = Some(audit.broken.clone().unwrap_or_else(|| "passed".to_owned()));
    if let Some(broken) = audit.broken {
        row.fail(format!("audit: {broken}"));
    }
    if row.lost + row.doubled > 0 {
        row.fail("the audit counts tasks that were lost or doubled");
    }
    let mut strangers = house.installation.strangers()?;
    let own: Vec<u32> = house.cluster.iter().flat_map(Cluster::pids).collect();
    strangers.retain(|pid, _| !own.contains(pid));
    if !strangers.is_empty() {
        row.fail(format!("processes left behind: {strangers:?}"));
    }
    Ok(())
}
