//! `./dev bench pipeline`: Swarm end to end beside the bare JetStream pipeline, in one run on the same servers.

mod bare;
mod history;
pub mod load;
mod memory;
pub mod swarm;
mod timeline;
mod writer;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use swarm_events::AgentId;
use swarm_servers::Durability;
use uuid::Uuid;

use self::{
    bare::Bare,
    load::{Load, Pace},
    swarm::{Agents, Swarm},
    timeline::Figures,
};
use crate::{
    installation::{self, Access, Installation, word},
    machine,
};

/// The paced run: as many tasks a second.
const PACED_RATE: u32 = 500;
/// Tasks before the measured ones: connections, caches and estimates settle.
const WARM_UP_TASKS: u64 = 2_000;

/// What is aimed at with the server's default sync.
const TARGET_RATE: f64 = 3_000.0;
/// 99th percentile of the time to assignment at the paced rate.
const TARGET_ASSIGNED_P99: Duration = Duration::from_millis(20);
/// Memory of the distributor for a queued task of 300 bytes.
const TARGET_TASK_BYTES: u64 = 1_536;

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Durability modes
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::Speed, Mode::Always])]
    durability: Vec<Mode>,
    /// What runs
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Form::Bare, Form::Swarm, Form::Memory])]
    forms: Vec<Form>,
    /// Agents, all of one process
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    agents: u32,
    /// Tasks that an agent runs at once
    #[arg(long, default_value_t = 4)]
    slots: u32,
    /// Tasks that may wait at an agent
    #[arg(long, default_value_t = 4)]
    waiting: u32,
    /// Tasks of a run at full speed
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u64).range(1..))]
    tasks: u64,
    /// Tasks open at once at full speed
    #[arg(long, default_value_t = 1_000)]
    open: usize,
    /// Messages in one atomic batch of the bare pipeline, with `always` (Swarm's client takes up to 500)
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    bare_batch: u16,
    /// Seconds of the run at 500 tasks/s
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    paced_seconds: u64,
    /// GiB of old messages that the log holds before
    #[arg(long, default_value_t = 0.0)]
    history_gib: f64,
    /// Queued tasks of the memory measurement
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    queued: u64,
    /// Folder on the disk to measure on (default: beside the build)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The `swarm` binary (default: the one beside this program)
    #[arg(long, value_name = "FILE")]
    swarm: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The server's default: flushed every two minutes
    Speed,
    /// Each write is on the disk before it is acknowledged
    Always,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// JetStream alone
    Bare,
    /// All of Swarm
    Swarm,
    /// The distributor's memory for queued tasks
    Memory,
}

/// Measures and prints.
///
/// # Errors
/// A server or service does not start, or a task does not complete.
pub fn run(options: &Options) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let (root, binary) = installation::places(options.dir.as_deref(), options.swarm.as_deref())?;
    if options.forms.iter().any(|form| *form != Form::Bare) {
        installation::ensure_built(&binary)?;
    }
    let (fsync_p50, fsync_p99) = machine::fsync_times(&root)?;
    println!("machine     {}", machine::describe());
    println!(
        "disk        fsync of 4 KiB: p50 {}, p99 {}",
        millis(fsync_p50),
        millis(fsync_p99)
    );
    println!(
        "swarm       {}, tree at {}",
        env!("CARGO_PKG_VERSION"),
        machine::commit()
    );
    println!(
        "services    child processes of {}{}",
        binary.file_name().unwrap_or_default().display(),
        if options.swarm.is_some() {
            ", given by --swarm: perhaps of another commit"
        } else {
            ""
        }
    );
    println!(
        "load        {} agents of one process ({} slots, {} waiting places each), payload {} bytes; \
         at full speed {} tasks with at most {} open, else {PACED_RATE} tasks/s for {} s",
        options.agents,
        options.slots,
        options.waiting,
        swarm::PAYLOAD_BYTES,
        options.tasks,
        options.open,
        options.paced_seconds
    );
    for (index, mode) in options.durability.iter().enumerate() {
        let durability = match mode {
            Mode::Speed => Durability::Speed,
            Mode::Always => Durability::Always,
        };
        let installation = Installation::start(&root, durability, Access::Open).await?;
        if index == 0 {
            println!("servers     {}", installation.versions().await?);
        }
        let (fsync, _) = machine::fsync_times(&root)?;
        println!(
            "\ndurability {} (disk now: fsync {}){}",
            word(durability),
            millis(fsync),
            if options.history_gib > 0.0 {
                format!(", on {} GiB of older messages", options.history_gib)
            } else {
                String::new()
            }
        );
        let installation = mode_figures(options, installation, &binary).await?;
        installation.stop().await;
    }
    if options.forms.contains(&Form::Memory) {
        let mut installation = Installation::start(&root, Durability::Speed, Access::Open).await?;
        installation.start_services(&binary).await?;
        let bytes = memory::bytes_per_task(&installation, options.queued).await?;
        println!(
            "\nmemory      {bytes} bytes of the distributor for each of {} queued tasks {}",
            options.queued,
            target(
                bytes <= TARGET_TASK_BYTES,
                &format!("at most {TARGET_TASK_BYTES}")
            )
        );
        installation.stop().await;
    }
    Ok(())
}

async fn mode_figures(
    options: &Options,
    mut installation: Installation,
    binary: &Path,
) -> anyhow::Result<Installation> {
    println!(
        "form     run         tasks/s  submitted to assigned p50        p99   to started p50  to completed p50  fsync before, after"
    );
    let warm_up = Load {
        tasks: WARM_UP_TASKS,
        pace: Pace::Open(options.open),
    };
    let full = Load {
        tasks: options.tasks,
        pace: Pace::Open(options.open),
    };
    let paced = Load {
        tasks: options.paced_seconds * u64::from(PACED_RATE),
        pace: Pace::PerSecond(PACED_RATE),
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a size that a person typed"
    )]
    let history_bytes = (options.history_gib.max(0.0) * f64::from(1 << 30)) as u64;
    let mut floor = None;
    if options.forms.contains(&Form::Bare) {
        let url = installation.nats_url();
        let bare = Bare::prepare(
            &url,
            installation.durability,
            u64::from(options.agents),
            options.bare_batch.into(),
        )
        .await?;
        if history_bytes > 0 {
            bare.fill(history_bytes, history::MESSAGE_BYTES).await?;
        }
        bare.run(warm_up).await?;
        let disk = Disk::before(installation.dir())?;
        let figures = bare.run(full).await?;
        let disk = disk.after(installation.dir())?;
        row("bare", "full speed", &figures, disk);
        let paced_disk = Disk::before(installation.dir())?;
        let at_pace = bare.run(paced).await?;
        row(
            "bare",
            "500/s",
            &at_pace,
            paced_disk.after(installation.dir())?,
        );
        floor = Some((figures, disk));
    }
    if !options.forms.contains(&Form::Swarm) {
        return Ok(installation);
    }
    let place = swarm::new_place();
    let ids: Vec<AgentId> = (0..options.agents)
        .map(|_| AgentId(Uuid::now_v7()))
        .collect();
    if history_bytes > 0 {
        let log = installation.log("bench past").await?;
        history::fill(&log, place, &ids, history_bytes).await?;
    }
    let began = std::time::Instant::now();
    installation.start_services(binary).await?;
    let started = began.elapsed();
    let configuration = serde_json::json!({ "max_agents": 10_000, "max_workers": 10_000 });
    let swarm = Swarm::create(&installation, place, configuration).await?;
    let crew: Vec<_> = ids.iter().map(|id| (place, *id)).collect();
    let (slots, waiting) = (options.slots, options.waiting);
    let agents = Agents::start(&installation, &swarm.log, &crew, slots, waiting).await?;
    let mut completed = 0;
    let from = swarm.put_through(&agents, warm_up).await?;
    swarm.figures(from, warm_up.tasks).await?;
    completed += warm_up.tasks;
    let disk = Disk::before(installation.dir())?;
    let (before, began) = (installation.usage(), std::time::Instant::now());
    let from = swarm.put_through(&agents, full).await?;
    let (after, took) = (installation.usage(), began.elapsed());
    let disk_at_full_speed = disk.after(installation.dir())?;
    let lag = swarm.caught_up(&installation.database_url()).await?;
    let at_full_speed = swarm.figures(from, full.tasks).await?;
    completed += full.tasks;
    row("swarm", "full speed", &at_full_speed, disk_at_full_speed);
    let disk = Disk::before(installation.dir())?;
    let from = swarm.put_through(&agents, paced).await?;
    let paced_lag = swarm.caught_up(&installation.database_url()).await?;
    let at_pace = swarm.figures(from, paced.tasks).await?;
    completed += paced.tasks;
    row("swarm", "500/s", &at_pace, disk.after(installation.dir())?);
    swarm.caught_up(&installation.database_url()).await?;
    swarm
        .projected(&installation.database_url(), completed)
        .await?;
    if let Some((floor, disk)) = floor {
        let comparable =
            installation.durability == Durability::Speed || disk.is_like(disk_at_full_speed);
        println!(
            "ratio    {:.2} of the bare pipeline{}",
            at_full_speed.rate() / floor.rate(),
            if comparable {
                ""
            } else {
                ", which found another disk: it says nothing"
            }
        );
    }
    println!("used     {}", after.since(&before, took, full.tasks));
    println!("memory   {}", installation.memory());
    println!(
        "others   services ready after {}; read models complete {} after the last result at full speed, {} at 500/s",
        seconds(started),
        seconds(lag),
        seconds(paced_lag)
    );
    if installation.durability == Durability::Speed {
        println!(
            "targets  {} {}",
            target(at_full_speed.rate() >= TARGET_RATE, "3,000 tasks/s"),
            target(
                at_pace.assigned_p99 < TARGET_ASSIGNED_P99,
                "p99 below 20 ms at 500/s"
            )
        );
    }
    for complaint in installation.complaints() {
        println!("log      {complaint}");
    }
    agents.stop();
    Ok(installation)
}

/// The disk's fsync time (median) before and after a run. A shared disk can be twenty times slower from one minute to the
/// next, and with `always` so is everything that is measured on it.
#[derive(Clone, Copy, Debug)]
struct Disk {
    before: Duration,
    after: Duration,
}

/// Two runs on disks whose fsync times differ by more than this factor are not compared.
const DISK_FACTOR_MAX: u32 = 2;

impl Disk {
    /// The disk of `dir`, before a run.
    fn before(dir: &Path) -> anyhow::Result<Self> {
        let now = machine::fsync_times(dir)?.0;
        Ok(Self {
            before: now,
            after: now,
        })
    }

    /// The same after the run.
    fn after(self, dir: &Path) -> anyhow::Result<Self> {
        let after = machine::fsync_times(dir)?.0;
        Ok(Self { after, ..self })
    }

    /// Whether all four times are within [`DISK_FACTOR_MAX`].
    fn is_like(self, other: Self) -> bool {
        let times = [self.before, self.after, other.before, other.after];
        let (least, most) = (times.iter().min(), times.iter().max());
        matches!((least, most), (Some(least), Some(most)) if *most <= *least * DISK_FACTOR_MAX)
    }
}

fn row(form: &str, run: &str, figures: &Figures, disk: Disk) {
    let repeats = match (figures.again.assigned, figures.again.completed) {
        (0, 0) => String::new(),
        (assigned, completed) => {
            format!("  ({assigned} assigned again, {completed} results again)")
        }
    };
    println!(
        "{form:<8} {run:<10} {:>8.0}  {:>25} {:>10} {:>16} {:>17}  {}, {}{repeats}",
        figures.rate(),
        millis(figures.assigned_p50),
        millis(figures.assigned_p99),
        millis(figures.started_p50),
        millis(figures.completed_p50),
        millis(disk.before),
        millis(disk.after)
    );
}

fn target(met: bool, what: &str) -> String {
    format!(
        "({}: {what})",
        if met { "target met" } else { "TARGET MISSED" }
    )
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_on_a_disk_that_changed_are_not_compared() {
        let disk = |before, after| Disk {
            before: Duration::from_micros(before),
            after: Duration::from_micros(after),
        };
        assert!(disk(200, 300).is_like(disk(400, 250)));
        assert!(!disk(200, 300).is_like(disk(401, 250)));
        assert!(!disk(200, 4_000).is_like(disk(200, 4_000)));
    }
}
