//! The same question on the real thing, in short: a nats-server, the services as processes, agents of the SDK that sleep as
//! long as their tasks say.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use swarm_events::{
    AgentId, Body, EventId, Json, Subject, TaskId,
    configuration::Algorithm,
    subject::TaskVerb,
    task::{PRIORITY_DEFAULT, WithdrawReason},
};
use swarm_log::Log;
use swarm_servers::Durability;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use super::{
    figures::Waits,
    table::{millis, name, on},
    workload::{Kind, Workload},
};
use crate::{
    feed,
    installation::{self, Access, Installation},
    pipeline::{
        load::{Gate, Load, Pace},
        swarm::{Agents, SLEEP, Swarm, message, new_place, next},
    },
};

/// The workloads are made for so many agents.
const MADE_FOR: u32 = 100;
/// Share of the workload `skewed` that is run, in percent: some 20 s for each line.
const SCALE: u32 = 8;
/// Waiting places of an agent, as in `skewed`.
const WAITING: u32 = 2;

/// The real run.
#[derive(clap::Args, Debug)]
pub struct RealOptions {
    /// Agents of the real run
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    agents: u32,
    /// Folder on the disk to measure on (default: beside the build)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The `swarm` binary (default: the one beside this program)
    #[arg(long, value_name = "FILE")]
    swarm: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// A server or service does not start, or a task does not complete.
pub fn run(options: &RealOptions, seed: u64) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(options, seed))
}

async fn measure(options: &RealOptions, seed: u64) -> anyhow::Result<()> {
    let (root, binary) = installation::places(options.dir.as_deref(), options.swarm.as_deref())?;
    installation::ensure_built(&binary)?;
    let mut workload = Kind::Skewed.make(seed, SCALE);
    for task in &mut workload.tasks {
        // Fewer agents need longer.
        task.at = task.at * u64::from(MADE_FOR) / u64::from(options.agents);
    }
    println!(
        "real        {} tasks, {} ms of work at 75 % of {} agents (1 slot, {WAITING} waiting places), Pareto durations; sync \
         as by default",
        workload.tasks.len(),
        workload.work() / 1_000,
        options.agents
    );
    let mut installation = Installation::start(&root, Durability::Speed, Access::Open).await?;
    installation.start_services(&binary).await?;
    println!("servers     {}", installation.versions().await?);
    println!(
        "  {:<16} {:<8} {:>9} {:>8} {:>8} {:>8} {:>12}",
        "algorithm", "stealing", "makespan", "wait p50", "p95", "p99", "steals/void"
    );
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastLoaded] {
        for stealing in [false, true] {
            let found = one(
                &installation,
                &workload,
                options.agents,
                algorithm,
                stealing,
            )
            .await?;
            println!(
                "  {:<16} {:<8} {:>9} {:>8} {:>8} {:>8} {:>12}",
                name(algorithm),
                on(stealing),
                millis(found.makespan),
                millis(found.wait.p50),
                millis(found.wait.p95),
                millis(found.wait.p99),
                format!("{}/{}", found.steals, found.void_steals)
            );
        }
    }
    for complaint in installation.complaints() {
        println!("  {complaint}");
    }
    installation.stop().await;
    Ok(())
}

struct Found {
    makespan: u64,
    wait: Waits,
    steals: u64,
    void_steals: u64,
}

async fn one(
    installation: &Installation,
    workload: &Workload,
    agents: u32,
    algorithm: Algorithm,
    stealing: bool,
) -> anyhow::Result<Found> {
    let place = new_place();
    let configuration = serde_json::json!({
        "distribution_algorithm": algorithm,
        "stealing": stealing,
    });
    let swarm = Swarm::create(installation, place, configuration).await?;
    let crew: Vec<_> = (0..agents)
        .map(|_| (place, AgentId(Uuid::now_v7())))
        .collect();
    let agents = Agents::start(installation, &swarm.log, &crew, 1, WAITING).await?;
    let tasks = workload.tasks.len();
    let gate = Gate::new(Load {
        tasks: tasks as u64,
        pace: Pace::Open(0),
    });
    agents.hold(gate.clone());
    let from = swarm.log.info().await?.last_sequence + 1;
    tokio::try_join!(submit(&swarm, workload), gate.all(tasks as u64))?;
    let found = read(&swarm, from, tasks).await?;
    agents.stop();
    Ok(found)
}

/// Submits each task at its time.
async fn submit(swarm: &Swarm, workload: &Workload) -> anyhow::Result<()> {
    let began = Instant::now();
    let subject = Subject::Task(swarm.place, TaskVerb::Submitted, None);
    let mut appends = JoinSet::new();
    for entry in &workload.tasks {
        sleep_until(began + Duration::from_micros(entry.at)).await;
        let payload = Json::from_value(&serde_json::json!({ "micros": entry.run }))?;
        let mut task = feed::task(payload, PRIORITY_DEFAULT);
        SLEEP.clone_into(&mut task.task_type);
        let id = TaskId(Uuid::now_v7());
        let message = message(EventId(id.0), &subject, id.0, task.into())?;
        appends.spawn(swarm.log.append(vec![message]));
    }
    while let Some(stored) = appends.join_next().await {
        for outcome in stored? {
            outcome?;
        }
    }
    Ok(())
}

/// What became of the tasks, by the log alone.
async fn read(swarm: &Swarm, from: u64, tasks: usize) -> anyhow::Result<Found> {
    let place = swarm.place;
    let filters = [
        Subject::Task(place, TaskVerb::Submitted, None).to_string(),
        format!("swarm.evt.{place}.task.started.*"),
        format!("swarm.evt.{place}.task.completed.*"),
        format!("swarm.evt.{place}.task.withdrawn.*"),
    ];
    let mut tail = swarm.log.tail(filters.to_vec(), from);
    let mut submitted: BTreeMap<Uuid, i64> = BTreeMap::new();
    let mut started: BTreeMap<Uuid, (u64, i64)> = BTreeMap::new();
    let (mut completed, mut last) = (0, 0);
    let (mut steals, mut void_steals) = (0, 0);
    while completed < tasks {
        let Some(event) = next(&mut tail).await? else {
            bail!("{completed} of {tasks} tasks have completed, and the log says no more");
        };
        let (about, at) = (event.event.about, event.time.as_micros());
        match &event.event.body {
            Body::TaskSubmitted(_) => {
                submitted.insert(about, at);
            }
            Body::TaskStarted(e) => {
                let again = started.insert(about, (e.assignment, at));
                ensure!(again.is_none(), "task {about} was started twice");
            }
            Body::TaskWithdrawn(e) => {
                ensure!(
                    e.reason == WithdrawReason::Steal,
                    "task {about} was withdrawn: {:?}",
                    e.reason
                );
                // Before its start it holds, after it it is void.
                if started.get(&about).is_some_and(|s| s.0 == e.assignment) {
                    void_steals += 1;
                } else {
                    steals += 1;
                }
            }
            Body::TaskCompleted(_) => {
                completed += 1;
                last = at;
            }
            _ => {}
        }
    }
    let first = submitted.values().min().context("no task was submitted")?;
    let waits = submitted
        .iter()
        .filter_map(|(id, at)| Some(started.get(id)?.1.abs_diff(*at)));
    Ok(Found {
        makespan: last.abs_diff(*first),
        wait: Waits::of(waits),
        steals,
        void_steals,
    })
}
