//! `./dev bench replicas`: what a further replica takes off the others, with the traffic of many swarms.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use swarm_events::subject::Service;
use tokio::time::{Instant, sleep};

use super::{
    Setting, block_on, fleet::Fleet, members::Members, print_verdict, replica_name, watch::Watch,
};
use crate::{
    installation::Installation,
    machine::cpu_seconds,
    pipeline::{
        load::{Gate, Load, Pace},
        swarm::submit,
    },
};

/// The services whose replicas are not counted here, one each.
const OTHERS: [&str; 2] = ["coordinator", "health"];
/// Under steady load for so long before it is measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// What was submitted has ended by then, or never does.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// The most replicas of the distributor: one, then two, up to so many
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=8))]
    replicas: u32,
    /// Swarms, evenly over the partitions
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u8).range(1..=64))]
    swarms: u8,
    /// Tasks a second, the same for every number of replicas
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Seconds at that rate
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Tasks of the run at full speed
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    tasks: u64,
    /// Tasks open at once at full speed
    #[arg(long, default_value_t = 2_000)]
    open: usize,
    #[command(flatten)]
    setting: Setting,
}

/// Measures and prints.
///
/// # Errors
/// A server or service does not start, or tasks do not complete.
pub fn run(options: &Options) -> anyhow::Result<()> {
    block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let (mut installation, binary) = options.setting.prepare().await?;
    for service in OTHERS {
        installation.start_replica(&binary, service, service)?;
    }
    let mut names = vec![replica_name("distributor", 1)];
    installation.start_replica(&binary, "distributor", &names[0])?;
    installation.until_ready().await?;
    let reader = installation.log("bench watch").await?;
    let (watch, members) = (Watch::follow(&reader), Members::follow(&reader));
    let setting = &options.setting;
    let fleet = Fleet::start(&installation, options.swarms, setting.agents, setting.slots).await?;
    println!(
        "load        {} swarms with {} agents each; {} tasks/s for {} s, then {} tasks at full speed with at most {} open",
        options.swarms, setting.agents, options.rate, options.seconds, options.tasks, options.open
    );
    println!(
        "replicas  run          tasks/s  processor seconds per 1,000 tasks, and share of the decisions, of each replica"
    );
    let mut accepted = HashSet::new();
    let mut at_full_speed = 0;
    for number in 1..=options.replicas {
        if number > 1 {
            let name = replica_name("distributor", number);
            installation.start_replica(&binary, "distributor", &name)?;
            installation.until_replica_ready(&name).await?;
            names.push(name);
        }
        members.steady(&watch, Service::Distributor, &names).await?;

        let steady = fleet.submit(options.rate)?;
        sleep(WARM_UP).await;
        let before = Look::now(&installation, &watch, &members, &names)?;
        sleep(Duration::from_secs(options.seconds)).await;
        let after = Look::now(&installation, &watch, &members, &names)?;
        after.row(&before, &names, &format!("{}/s", options.rate));
        accepted.extend(steady.stop().await?);

        let gate = Gate::new(Load {
            tasks: options.tasks,
            pace: Pace::Open(options.open),
        });
        let load = Load {
            tasks: options.tasks,
            pace: Pace::Open(options.open),
        };
        // The last of the steady ones; what is missing is counted below.
        let steady_ones = accepted.len() + at_full_speed;
        let all_ended = || watch.ended() >= steady_ones;
        watch.until(END_PATIENCE, all_ended).await?;
        let before = Look::now(&installation, &watch, &members, &names)?;
        fleet.agents.hold(gate.clone());
        tokio::try_join!(
            submit(&fleet.log, &fleet.places, &gate, load),
            gate.all(options.tasks)
        )?;
        // The last handlers have returned; their results are on the way to the log.
        at_full_speed += usize::try_from(options.tasks)?;
        let all_ended = || watch.ended() >= accepted.len() + at_full_speed;
        watch.until(END_PATIENCE, all_ended).await?;
        let after = Look::now(&installation, &watch, &members, &names)?;
        after.row(&before, &names, "full speed");
        watch.read_all(&fleet.log).await?;
    }
    let verdict = watch.verdict(&fleet.log, &accepted).await?;
    print_verdict(&verdict);
    println!("memory      {}", installation.memory());
    fleet.agents.stop();
    installation.stop().await;
    Ok(())
}

/// Processor time and decisions of each replica at one moment.
struct Look {
    at: Instant,
    /// Tasks that have ended.
    ended: usize,
    cpu: BTreeMap<String, f64>,
    decided: BTreeMap<String, u64>,
}

impl Look {
    fn now(
        installation: &Installation,
        watch: &Watch,
        members: &Members,
        names: &[String],
    ) -> anyhow::Result<Self> {
        let mut look = Self {
            at: Instant::now(),
            ended: watch.ended(),
            cpu: BTreeMap::new(),
            decided: BTreeMap::new(),
        };
        for name in names {
            let cpu = cpu_seconds(installation.pid_of(name)?);
            look.cpu.insert(name.clone(), cpu);
        }
        for (instance, count) in watch.shares() {
            if let Some(name) = members.name_of(instance) {
                *look.decided.entry(name).or_default() += count;
            }
        }
        Ok(look)
    }

    fn row(&self, before: &Self, names: &[String], run: &str) {
        let tasks = (self.ended - before.ended) as f64;
        let of = |map: &BTreeMap<String, u64>, name: &str| map.get(name).copied().unwrap_or(0);
        let decided = |name: &str| of(&self.decided, name) - of(&before.decided, name);
        let all: u64 = names.iter().map(|name| decided(name)).sum();
        let cpu = |name: &String| {
            let at = |look: &Self| look.cpu.get(name).copied().unwrap_or(0.0);
            (at(self) - at(before)) * 1_000.0 / tasks.max(1.0)
        };
        let each: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    "{name} {:.3} s, {:.0} %",
                    cpu(name),
                    decided(name) as f64 * 100.0 / all.max(1) as f64
                )
            })
            .collect();
        println!(
            "{:<9} {run:<10} {:>9.0}  {}; together {:.3} s",
            names.len(),
            tasks / (self.at - before.at).as_secs_f64(),
            each.join("; "),
            names.iter().map(cpu).sum::<f64>()
        );
    }
}
