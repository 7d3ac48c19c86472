//! Replicas: how long a partition goes without decisions when its owner ends, how much of the time the whole is there for its
//! clients, and what a further replica takes off the others.

mod availability;
mod fleet;
mod gaps;
mod members;
mod probes;
mod script;
mod shares;
pub mod spread;
mod takeover;
mod watch;

use std::{collections::BTreeMap, path::PathBuf};

use swarm_servers::Durability;

use crate::{
    installation::{self, Access, Installation, word},
    machine,
};

use self::watch::Verdict;
pub use self::{
    availability::{Options as AvailabilityOptions, run as availability},
    shares::{Options as SharesOptions, run as shares},
    takeover::{Options as TakeoverOptions, run as takeover},
};
pub use self::{fleet::Fleet, watch::now_micros};

/// Where, on what and for whom: the same for every measurement of replicas.
#[derive(clap::Args, Debug)]
pub struct Setting {
    /// When the server acknowledges a write
    #[arg(long, value_enum, default_value_t = Mode::Always)]
    durability: Mode,
    /// Agents of each swarm, all of one process
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    agents: u32,
    /// Tasks that an agent runs at once; as many may wait at it
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    slots: u32,
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

impl Setting {
    /// Starts the servers and prints what stands above every figure.
    ///
    /// # Errors
    /// A server does not start, or the binary is missing.
    async fn prepare(&self) -> anyhow::Result<(Installation, PathBuf)> {
        let (root, binary) = installation::places(self.dir.as_deref(), self.swarm.as_deref())?;
        installation::ensure_built(&binary)?;
        let durability = match self.durability {
            Mode::Speed => Durability::Speed,
            Mode::Always => Durability::Always,
        };
        let (p50, p99) = machine::fsync_times(&root)?;
        let installation = Installation::start(&root, durability, Access::Credentials).await?;
        println!("machine     {}", machine::describe());
        println!(
            "disk        fsync of 4 KiB: p50 {:.2} ms, p99 {:.2} ms; durability {}",
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            word(durability)
        );
        println!(
            "swarm       {}, tree at {}",
            env!("CARGO_PKG_VERSION"),
            machine::commit()
        );
        println!("servers     {}", installation.versions().await?);
        Ok((installation, binary))
    }
}

/// The name of replica `number` (from 1) of `service`, as `swarm up` names them.
fn replica_name(service: &str, number: u32) -> String {
    match number {
        1 => service.to_owned(),
        _ => format!("{service}-{number}"),
    }
}

/// Runs a measurement on threads of its own.
///
/// # Errors
/// Those of `measurement`.
fn block_on(measurement: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measurement)
}

/// What became of all tasks: every violation by kind, the first few in full.
fn print_verdict(verdict: &Verdict) {
    println!(
        "audit       {} tasks accepted, {} lost, {} doubled, {} other violations {}",
        verdict.accepted,
        verdict.lost,
        verdict.doubled,
        verdict.others.len(),
        target(verdict.is_clean(), "0 lost, 0 doubled")
    );
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for violation in &verdict.others {
        *kinds
            .entry(format!("{:?}", violation.invariant))
            .or_default() += 1;
    }
    for (kind, count) in kinds {
        println!("audit       {kind}: {count}");
    }
    for violation in verdict.others.iter().take(5) {
        println!("audit       {violation}");
    }
}

fn target(met: bool, what: &str) -> String {
    format!(
        "({}: {what})",
        if met { "target met" } else { "TARGET MISSED" }
    )
}
