//! `./dev bench topologies`: the same workloads through the four topologies, and what it takes to compute and change one, in
//! the core and through the whole system.

mod change;
mod compute;
mod figures;
mod live;
mod workloads;

use std::time::Instant;

use anyhow::Context;
use serde::Serialize;
use swarm_events::topology::Topology;

use self::{
    figures::{Claim, Figures},
    workloads::Kind,
};
use crate::{
    distribution::{
        engine::{self, Setting},
        millis, talk,
    },
    machine,
};

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Workloads that are made from the seed
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    workloads: Vec<Kind>,
    /// Where their numbers come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of each workload's tasks and time, in percent
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    scale: u32,
    /// Agents whose topology is computed
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    agents: u32,
    /// Only computing and changing topologies
    #[arg(long)]
    shapes: bool,
    /// Only live changes, through real servers and services
    #[arg(long, conflicts_with = "shapes")]
    live: bool,
    #[command(flatten)]
    on: live::Options,
    /// Writes all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

#[derive(Serialize)]
struct Report {
    machine: String,
    commit: String,
    seed: u64,
    scale_percent: u32,
    model: String,
    unit: &'static str,
    workloads: Vec<Measured>,
    computing: Vec<compute::Figures>,
    changes: Vec<change::Figures>,
    live: Vec<live::Figures>,
}
#[derive(Serialize)]
struct Measured {
    workload: &'static str,
    about: &'static str,
    figures: Vec<Figures>,
    claims: Vec<Claim>,
}

/// The name that a topology has in the tables.
pub const fn name(topology: &Topology) -> &'static str {
    match topology {
        Topology::Star(_) => "star",
        Topology::Mesh(_) => "mesh",
        Topology::Hierarchical(_) => "hierarchical",
        Topology::Ring(_) => "ring",
    }
}

/// Measures and prints.
///
/// # Errors
/// A task does not end, or the core does not do what it must, so that the figures would mean nothing.
pub fn run(options: &Options) -> anyhow::Result<()> {
    println!("machine     {}", machine::describe());
    println!(
        "swarm       {} at {}",
        env!("CARGO_PKG_VERSION"),
        machine::commit()
    );
    let model = format!(
        "the real core in virtual time: {} ms from a writer to the log and {} ms from there to its readers; 100 model agents \
         with a slot and, if nothing else is said, 2 waiting places each; deciding takes no time; where agents talk, each message takes the shortest way \
         over edges, {} ms from agent to agent, and each agent on it {} ms to handle it or pass it on, one after another \
         (assumed, not measured)",
        millis(engine::STORE_MICROS.unsigned_abs()),
        millis(engine::DELIVER_MICROS.unsigned_abs()),
        millis((engine::STORE_MICROS + engine::DELIVER_MICROS).unsigned_abs()),
        millis(talk::HANDLE_MICROS.unsigned_abs()),
    );
    let mut report = Report {
        machine: machine::describe(),
        commit: machine::commit(),
        seed: options.seed,
        scale_percent: options.scale,
        model,
        unit: "microseconds",
        workloads: Vec::new(),
        computing: Vec::new(),
        changes: Vec::new(),
        live: Vec::new(),
    };
    if !options.shapes && !options.live {
        println!("model       {}", report.model);
        println!(
            "options     star with one hub, full mesh, tree with ratio 4 (25 above 75), ring in sequence; else the defaults"
        );
        for kind in &options.workloads {
            report.workloads.push(measure(*kind, options)?);
        }
    }
    if !options.live {
        report.computing = compute::run(options.agents)?;
        report.changes = change::run()?;
    }
    if options.live {
        report.live = live::run(&options.on)?;
    }
    if let Some(file) = &options.json {
        let to = std::fs::File::create(file)
            .with_context(|| format!("cannot write {}", file.display()))?;
        serde_json::to_writer_pretty(to, &report)?;
    }
    Ok(())
}

fn measure(kind: Kind, options: &Options) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let workload = kind.make(options.seed, options.scale);
    println!(
        "\n{}: {} tasks; {}",
        kind.name(),
        workload.tasks.len(),
        kind.about()
    );
    figures::head();
    let mut all = Vec::new();
    for topology in workloads::topologies() {
        let named = name(&topology);
        let setting = Setting {
            algorithm: kind.algorithm(),
            stealing: true,
            topology: Some(topology),
        };
        let outcome = engine::run_in(&workload, &setting)
            .with_context(|| format!("{} in a {named}", kind.name()))?;
        let figures = Figures::of(named, workload.tasks.len(), &outcome);
        figures.row();
        all.push(figures);
    }
    let claims = figures::claims(kind, &all);
    for claim in &claims {
        println!("  {claim}");
    }
    println!("  (in {:.1} s)", began.elapsed().as_secs_f64());
    Ok(Measured {
        workload: kind.name(),
        about: kind.about(),
        figures: all,
        claims,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tenth of each workload: every task ends once, whatever the topology, and a ring keeps the order.
    #[test]
    fn every_task_ends_once_in_every_topology_and_the_ring_keeps_the_order() -> anyhow::Result<()> {
        for kind in Kind::ALL {
            let workload = kind.make(3, 10);
            for topology in workloads::topologies() {
                let named = name(&topology);
                let setting = Setting {
                    algorithm: kind.algorithm(),
                    stealing: true,
                    topology: Some(topology),
                };
                let outcome = engine::run_in(&workload, &setting)
                    .with_context(|| format!("{} in a {named}", kind.name()))?;
                let parts = |entry: &crate::distribution::workload::Entry| {
                    1 + entry.split.as_ref().map_or(0, |split| split.parts.len())
                };
                let all: usize = workload.tasks.iter().map(parts).sum();
                assert_eq!(outcome.tasks.len(), all, "{} {named}", kind.name());
                assert!(outcome.tasks.iter().all(|track| track.ends == 1));
                let figures = Figures::of(named, workload.tasks.len(), &outcome);
                if named == "ring" {
                    assert_eq!(figures.disorder, 0, "{}", kind.name());
                    assert_eq!(figures.steals, 0, "{}", kind.name());
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_same_seed_gives_the_same_figures() -> anyhow::Result<()> {
        let workload = Kind::Talk.make(3, 10);
        for topology in workloads::topologies() {
            let setting = Setting {
                algorithm: Kind::Talk.algorithm(),
                stealing: true,
                topology: Some(topology),
            };
            let (one, two) = (
                engine::run_in(&workload, &setting)?,
                engine::run_in(&workload, &setting)?,
            );
            assert_eq!(one, two);
        }
        Ok(())
    }
}
