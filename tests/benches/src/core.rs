//! `./dev bench core`: the pure distributor core, without a log, a network or JSON.

mod bench;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use swarm_distributor_core::Distributor;
use swarm_events::{
    configuration::{Algorithm, QUEUE_LIMIT_MAX},
    decider::{Decider, REMEMBERED_MAX},
};

use self::bench::{Bench, Setup};
use crate::{distribution::name, machine};

/// Assignments per second that are aimed at with up to a hundred agents.
const TARGET_RATE: f64 = 300_000.0;
/// The same with more.
const TARGET_RATE_MANY: f64 = 100_000.0;
/// Bytes of state and plan that a queued task may take.
const TARGET_TASK_BYTES: u64 = 1_536;
/// What an assignment may take longer with a full queue, in percent of the time with a short one.
const TARGET_DEPTH_PERCENT: u64 = 150;
/// Size of a task's payload.
const PAYLOAD_BYTES: usize = 300;
/// A run whose rate is known by then is cut short.
const RUN_MAX: Duration = Duration::from_secs(5);
/// Times that all agents are given work in the comparison of queues.
const DEPTH_ROUNDS: usize = 400;
/// The short queue of that comparison.
const SHORT_QUEUE: u64 = 1_000;
/// Different keys where tasks have any, unless each has its own.
const KEYS: u64 = 1_000;
/// Live changes of the algorithm, five to a circle, and tasks that are run through after each.
const CIRCLES: u32 = 12;
const SWITCH_TASKS: u64 = 20_000;

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Only this (default: all of them, each in a process of its own)
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Algorithms
    #[arg(long, value_delimiter = ',', value_parser = algorithm)]
    algorithms: Vec<Algorithm>,
    /// Tasks that are run through for each figure of the rates
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    tasks: u64,
    /// Tasks that wait in the queue all the time
    #[arg(long, default_value_t = 1_000)]
    backlog: u64,
    /// Tasks that an agent runs at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    slots: u32,
    /// Queued tasks of the full queue
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=QUEUE_LIMIT_MAX))]
    queued: u64,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Bytes for each queued task
    Memory,
    /// The same where each has an affinity key of its own
    MemoryKeys,
    /// Assignments per second with 100 and 10,000 agents
    Rate,
    /// Time for an assignment with a short and a full queue
    Depth,
    /// Memory after many live changes of the algorithm
    Switch,
}
impl Part {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Memory, "memory"),
        (Self::MemoryKeys, "memory-keys"),
        (Self::Rate, "rate"),
        (Self::Depth, "depth"),
        (Self::Switch, "switch"),
    ];
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let known = Algorithm::ALL.into_iter();
    let found = known.clone().find(|algorithm| name(*algorithm) == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = known.map(name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// Measures and prints.
///
/// # Errors
/// The core does not do what it must, so that the figures would mean nothing.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(part) = options.part {
        return match part {
            Part::Memory => memory(options.queued, 0),
            Part::MemoryKeys => memory(options.queued, options.queued),
            Part::Rate => rates(options),
            Part::Depth => depths(options),
            Part::Switch => switches(),
        };
    }
    println!("machine     {}", machine::describe());
    println!(
        "swarm       {} at {}",
        env!("CARGO_PKG_VERSION"),
        machine::commit()
    );
    for (_, part) in Part::ALL {
        // A heap that was used before would hide what the next part takes.
        let status = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--part", part])
            .status()
            .with_context(|| format!("{part} cannot be started"))?;
        ensure!(status.success(), "{part}: {status}");
    }
    Ok(())
}

/// A partition's state with so many queued tasks.
///
/// # Errors
/// The core does not queue them.
pub fn queued(tasks: u64) -> anyhow::Result<Distributor> {
    Ok(queue(tasks, 0, Algorithm::LeastLoaded)?.state)
}

/// A swarm without agents and so many queued tasks, of so many keys.
fn queue(tasks: u64, keys: u64, algorithm: Algorithm) -> anyhow::Result<Bench> {
    let mut bench = Bench::new(Setup {
        algorithm,
        agents: 0,
        slots: 1,
        sets: 0,
        keys,
    })?;
    bench.submit(tasks);
    ensure!(bench.state.backlog() == tasks, "tasks are missing");
    Ok(bench)
}

fn resident() -> anyhow::Result<u64> {
    machine::resident_bytes(std::process::id())
}

fn memory(tasks: u64, keys: u64) -> anyhow::Result<()> {
    let before = resident()?;
    let algorithm = if keys > 0 {
        Algorithm::Affinity
    } else {
        Algorithm::LeastLoaded
    };
    let mut bench = queue(tasks, keys, algorithm)?;
    let bytes = resident()?.saturating_sub(before) / tasks;
    println!(
        "memory      {bytes} bytes of state and plan for each of {tasks} queued tasks of {PAYLOAD_BYTES} bytes{} ({})",
        if keys > 0 {
            ", each with an affinity key of its own"
        } else {
            ""
        },
        target(bytes <= TARGET_TASK_BYTES, "at most 1,536"),
    );
    let claim = Instant::now();
    bench.plan = bench.state.plan();
    let claim = claim.elapsed();
    println!(
        "            queued at {:.0} tasks/s; a claim makes the plan anew in {:.0} ms",
        per_second(tasks, bench.spent),
        claim.as_secs_f64() * 1_000.0
    );
    Ok(())
}

/// Pools of the rates: agents, and different sets of capabilities among them.
const POOLS: [(u32, u32); 5] = [
    (100, 0),
    (100, 100),
    (10_000, 0),
    (10_000, 1_000),
    (10_000, 10_000),
];

fn rates(options: &Options) -> anyhow::Result<()> {
    println!(
        "assignments for each second of one core (its own time, not the wall's). Counted is one for each task; timed is all \
         that the core does for it: meeting submitted, assigned, started and completed with the owner's indexes, deciding \
         after each, and the swarm's figures. {} waiting, {} slots; under affinity {KEYS} keys. With sets, most tasks need a \
         capability",
        options.backlog, options.slots
    );
    print!("            {:<16}", "algorithm");
    for (agents, sets) in POOLS {
        let pool = match sets {
            0 => format!("{agents} agents"),
            _ => format!("{agents} of {sets} sets"),
        };
        print!(" {pool:>20}");
    }
    println!();
    let mut missed = 0;
    for algorithm in algorithms(options) {
        print!("            {:<16}", name(algorithm));
        for (agents, sets) in POOLS {
            let rate = rate(options, algorithm, agents, sets)?;
            let aim = if agents <= 100 {
                TARGET_RATE
            } else {
                TARGET_RATE_MANY
            };
            missed += u32::from(rate < aim);
            print!(
                " {:>20}",
                format!("{rate:.0}{}", if rate < aim { " !" } else { "" })
            );
        }
        println!();
    }
    println!(
        "            ({}, marked with !)",
        target(
            missed == 0,
            "300,000/s with 100 agents, 100,000/s with 10,000"
        )
    );
    Ok(())
}

fn algorithms(options: &Options) -> Vec<Algorithm> {
    if options.algorithms.is_empty() {
        Algorithm::ALL.to_vec()
    } else {
        options.algorithms.clone()
    }
}

const fn keys_of(algorithm: Algorithm) -> u64 {
    match algorithm {
        Algorithm::Affinity => KEYS,
        _ => 0,
    }
}

/// Assignments for each second of one core.
fn rate(options: &Options, algorithm: Algorithm, agents: u32, sets: u32) -> anyhow::Result<f64> {
    let mut bench = Bench::new(Setup {
        algorithm,
        agents,
        slots: options.slots,
        sets,
        keys: keys_of(algorithm),
    })?;
    bench.submit(options.backlog + u64::from(agents * options.slots));
    bench.deliver();
    bench.reset();
    put_through(&mut bench, options.tasks, u64::from(agents * options.slots))?;
    Ok(per_second(bench.assigned, bench.spent))
}

/// Runs so many tasks through, in turns of at most `turn`; fewer if it takes too long.
fn put_through(bench: &mut Bench, tasks: u64, turn: u64) -> anyhow::Result<()> {
    let until = bench.completed + tasks;
    while bench.completed < until && bench.spent < RUN_MAX {
        let before = bench.completed;
        bench.run_all();
        bench.submit(bench.completed - before);
        bench.deliver();
        ensure!(
            bench.completed > before && bench.completed - before <= turn,
            "{} of {tasks} tasks, and it stands still",
            bench.completed
        );
    }
    ensure!(bench.voids == 0, "{} events were void", bench.voids);
    Ok(())
}

/// A figure's median and the tenths above and below.
fn middle(mut samples: Vec<u64>) -> (u64, u64, u64) {
    samples.sort_unstable();
    let at = |tenths: usize| {
        let last = samples.len().saturating_sub(1);
        samples.get(last * tenths / 10).copied().unwrap_or(0)
    };
    (at(1), at(5), at(9))
}

fn depths(options: &Options) -> anyhow::Result<()> {
    println!(
        "queue       an assignment (decided, and met in the log) with {SHORT_QUEUE} and with {} queued tasks, 100 agents, in \
         turns: median of {DEPTH_ROUNDS} rounds of all agents, in ns (and the 10th and 90th percentile)",
        options.queued
    );
    for algorithm in algorithms(options) {
        let setup = Setup {
            algorithm,
            agents: 100,
            slots: 1,
            sets: 0,
            keys: keys_of(algorithm),
        };
        let mut samples = [Vec::new(), Vec::new()];
        let mut whole = [Vec::new(), Vec::new()];
        let mut benches = Vec::new();
        for depth in [SHORT_QUEUE, options.queued] {
            let mut bench = Bench::new(setup)?;
            bench.submit(depth);
            bench.deliver();
            benches.push(bench);
        }
        for _ in 0..DEPTH_ROUNDS {
            for ((bench, samples), whole) in benches.iter_mut().zip(&mut samples).zip(&mut whole) {
                let before = bench.spent;
                let (took, count) = bench.assign_together();
                ensure!(count == 100, "{count} of 100 agents were given work");
                samples.push(nanos(took) / count);
                bench.submit(count);
                whole.push(nanos(took + (bench.spent - before)) / count);
                ensure!(bench.voids == 0, "{} events were void", bench.voids);
            }
        }
        let [short, full] = samples.map(middle);
        let [short_whole, full_whole] = whole.map(|samples| middle(samples).1);
        let ratio = full.1 * 100 / short.1.max(1);
        println!(
            "            {:<16} {} ({}-{}) and {} ({}-{}): ratio {}.{:02} ({}); with its submission {short_whole} and \
             {full_whole}",
            name(algorithm),
            short.1,
            short.0,
            short.2,
            full.1,
            full.0,
            full.2,
            ratio / 100,
            ratio % 100,
            target(ratio <= TARGET_DEPTH_PERCENT, "at most 1.50"),
        );
    }
    Ok(())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn switches() -> anyhow::Result<()> {
    let agents = 100;
    let mut bench = Bench::new(Setup {
        algorithm: Algorithm::LeastLoaded,
        agents,
        slots: 1,
        sets: 50,
        keys: 10 * KEYS,
    })?;
    let circle = |bench: &mut Bench| {
        for algorithm in Algorithm::ALL {
            bench.switch(algorithm);
            bench.spent = Duration::ZERO;
            put_through(bench, SWITCH_TASKS, agents.into())?;
        }
        resident()
    };
    bench.submit(10_000);
    bench.deliver();
    // Until as many ended tasks are remembered as ever will be, and once more.
    let warm_up = REMEMBERED_MAX as u64 / SWITCH_TASKS / Algorithm::ALL.len() as u64 + 2;
    for _ in 0..warm_up {
        circle(&mut bench)?;
    }
    let before = resident()?;
    let mut after = before;
    for _ in 0..CIRCLES {
        after = circle(&mut bench)?;
    }
    println!(
        "switching   {} live changes of the algorithm with {SWITCH_TASKS} tasks after each: resident memory {} KiB before, {} \
         KiB after ({:+} KiB)",
        CIRCLES as usize * Algorithm::ALL.len(),
        before >> 10,
        after >> 10,
        (i128::from(after) - i128::from(before)) / 1_024
    );
    Ok(())
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn target(met: bool, what: &str) -> String {
    format!(
        "{}: {what}",
        if met { "target met" } else { "TARGET MISSED" }
    )
}
