//! `./dev bench NAME`: what Swarm does in a second, and what it takes for that. Nothing here is part of a product.

mod agents;
mod core;
mod distribution;
mod failover;
mod feed;
mod installation;
mod machine;
mod pipeline;
mod snapshot;
mod topologies;

use clap::{Parser, Subcommand};

/// Measures Swarm on this machine.
#[derive(Parser)]
#[command(name = "./dev bench", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Tasks per second and time to assignment, end to end, beside a bare JetStream pipeline on the same servers
    Pipeline(pipeline::Options),
    /// Time from the kill or hang of an agent, or the kill of a host, to the start of its work elsewhere; false alarms at full CPU
    Failover(agents::FailoverOptions),
    /// What the heartbeats of thousands of agents cost
    Heartbeats(agents::HeartbeatsOptions),
    /// Several agents against one: throughput, utilization, completion despite faults; a hundred agent processes
    Speedup(agents::SpeedupOptions),
    /// Time without decisions when the replica that decides is killed, stopped or told to go
    Takeover(failover::TakeoverOptions),
    /// Share of probes that are answered in time while everything is broken by a fixed script
    Availability(failover::AvailabilityOptions),
    /// What a further replica of the distributor takes off the others
    Replicas(failover::SharesOptions),
    /// A snapshot of a million queued tasks: taking it, storing it, and a start from it
    Snapshot(snapshot::Options),
    /// Decisions per second and bytes per queued task of the pure distributor core
    Core(core::Options),
    /// The five algorithms on the same workloads: makespan, waits, spread, affinity, steals
    Distribution(distribution::Options),
    /// The four topologies on the same workloads: makespan, waits, messages, steals, order; computing and changing them
    Topologies(topologies::Options),
}

fn main() -> anyhow::Result<()> {
    swarm_log::tls::choose();
    match Cli::parse().bench {
        Bench::Pipeline(options) => pipeline::run(&options),
        Bench::Failover(options) => agents::failover(&options),
        Bench::Heartbeats(options) => agents::heartbeats(&options),
        Bench::Speedup(options) => agents::speedup(&options),
        Bench::Takeover(options) => failover::takeover(&options),
        Bench::Availability(options) => failover::availability(&options),
        Bench::Replicas(options) => failover::shares(&options),
        Bench::Snapshot(options) => snapshot::run(&options),
        Bench::Core(options) => core::run(&options),
        Bench::Distribution(options) => distribution::run(&options),
        Bench::Topologies(options) => topologies::run(&options),
    }
}
