//! `./dev bench distribution`: the five algorithms on the same recorded workloads, with stealing and without.

mod agents;
pub mod engine;
pub mod figures;
pub mod random;
mod real;
pub mod seats;
mod table;
pub mod talk;
pub mod workload;

pub use table::{millis, name};

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use serde::Serialize;
use swarm_events::configuration::Algorithm;

use self::{
    figures::Figures,
    workload::{Kind, Workload},
};
use crate::machine;

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Workloads that are made from the seed
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    workloads: Vec<Kind>,
    /// A recorded workload instead of those
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Where their numbers come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of each workload's tasks and time, in percent
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    scale: u32,
    /// Records the workloads in this folder, one file of JSON lines each
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Writes all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Instead: a short workload on real servers, the real services and agents of the SDK
    #[arg(long)]
    real: bool,
    #[command(flatten)]
    real_options: real::RealOptions,
}

/// All that was measured, for programs.
#[derive(Serialize)]
struct Report {
    machine: String,
    commit: String,
    seed: u64,
    scale_percent: u32,
    /// What was modelled.
    model: String,
    unit: &'static str,
    workloads: Vec<Measured>,
}

#[derive(Serialize)]
struct Measured {
    workload: String,
    about: String,
    tasks: usize,
    figures: Vec<Figures>,
    claims: Vec<table::Claim>,
}

/// Measures and prints.
///
/// # Errors
/// A task does not end, or a file cannot be read or written.
pub fn run(options: &Options) -> anyhow::Result<()> {
    println!("machine     {}", machine::describe());
    println!(
        "swarm       {} at {}",
        env!("CARGO_PKG_VERSION"),
        machine::commit()
    );
    if options.real {
        return real::run(&options.real_options, options.seed);
    }
    let workloads = match &options.replay {
        Some(file) => vec![Workload::read(file)?],
        None => {
            let kinds = options.workloads.iter();
            kinds
                .map(|kind| kind.make(options.seed, options.scale))
                .collect()
        }
    };
    if let Some(dir) = &options.record {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        for workload in &workloads {
            let file = dir.join(format!("{}.jsonl", workload.header.workload));
            workload.write(&file)?;
        }
    }
    let model = format!(
        "the real core in virtual time: {} ms from a writer to the log and {} ms from there to its readers; model agents \
         with the start check, one append in flight; no heartbeats, faults or lost messages; deciding takes no time",
        table::millis(engine::STORE_MICROS.unsigned_abs()),
        table::millis(engine::DELIVER_MICROS.unsigned_abs()),
    );
    println!("model       {model}");
    println!(
        "waits       from submitted to started, in ms; deviations of the agents' loads in percent of the mean"
    );
    let mut report = Report {
        machine: machine::describe(),
        commit: machine::commit(),
        seed: options.seed,
        scale_percent: options.scale,
        model,
        unit: "microseconds",
        workloads: Vec::new(),
    };
    for workload in &workloads {
        report.workloads.push(measure(workload)?);
    }
    if let Some(file) = &options.json {
        let to = std::fs::File::create(file)
            .with_context(|| format!("cannot write {}", file.display()))?;
        serde_json::to_writer_pretty(to, &report)?;
    }
    Ok(())
}

fn measure(workload: &Workload) -> anyhow::Result<Measured> {
    let header = &workload.header;
    println!(
        "\n{} (seed {}): {} tasks, {} ms of work; {}",
        header.workload,
        header.seed,
        workload.tasks.len(),
        workload.work() / 1_000,
        header.about
    );
    table::head(workload);
    let began = Instant::now();
    let mut all = Vec::new();
    for algorithm in Algorithm::ALL {
        for stealing in [false, true] {
            let outcome = engine::run(workload, algorithm, stealing)
                .with_context(|| format!("{} under {algorithm:?}", header.workload))?;
            let figures = Figures::of(workload, &outcome, algorithm, stealing);
            table::row(workload, &figures);
            all.push(figures);
        }
    }
    let claims = table::claims(&header.workload, &all);
    for claim in &claims {
        println!("  {claim}");
    }
    println!("  (in {:.1} s)", began.elapsed().as_secs_f64());
    Ok(Measured {
        workload: header.workload.clone(),
        about: header.about.clone(),
        tasks: workload.tasks.len(),
        figures: all,
        claims,
    })
}
