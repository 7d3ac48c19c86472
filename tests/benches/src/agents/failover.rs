//! `./dev bench failover`: an agent is killed or stopped, a host is killed; how long until its work is started elsewhere. The
//! agent that leads is killed; how long until another one does. And how often a busy machine looks like a dead agent.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use serde_json::{Value, json};
use swarm_chaos::{
    audit,
    process::{self, Signal},
};
use swarm_events::{AgentId, TaskId};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    seen::{Running, Seen},
    world::{Setting, Swarm, World},
};
use crate::{
    failover::{now_micros, spread::Spread},
    machine,
};

/// 99th percentile of the time from SIGKILL to `started` elsewhere.
const TARGET_KILLED: Duration = Duration::from_secs(1);
/// The same from SIGSTOP, at default settings.
const TARGET_HUNG: Duration = Duration::from_secs(5);
/// Work that takes longer than this to be started elsewhere has not been taken over.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(60);
/// What the signalled agent or host may take to be replaced.
const REPLACED_PATIENCE: Duration = Duration::from_secs(120);
/// How long a task works, in milliseconds.
const WORK_MS: u64 = 400;
/// Share of the agents that the load keeps busy by default, in percent. A lost host leaves half of them with its tasks beside
/// their own and with all that is new: until the loss is noticed that comes to 1.4 times the share, which must stay below the
/// half, or what is measured is the wait for a free slot.
const LOAD_PERCENT: u64 = 25;
/// How often tasks are submitted.
const SUBMIT_EVERY: Duration = Duration::from_millis(200);
/// Only work that was just started is a victim: it must not end while the signal is under way.
const FRESH_MICROS: i64 = 150_000;
/// Signals come at all moments of a heartbeat interval: each run's is this much later.
const PHASE_STEP: Duration = Duration::from_millis(137);
/// A heartbeat interval.
const PHASE: Duration = Duration::from_secs(1);
/// Hosts.
const HOSTS: u16 = 2;
/// Work may finish before the signal takes effect; then another victim is looked for.
const VICTIMS_MAX: u32 = 20;

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Runs of each kind
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// What is done
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Kill, Kind::Hang, Kind::Host, Kind::Leader])]
    kinds: Vec<Kind>,
    /// Agents, over two hosts
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(4..=200))]
    agents: u32,
    /// Share of the agents that the load keeps busy, in percent
    #[arg(long, default_value_t = LOAD_PERCENT, value_parser = clap::value_parser!(u64).range(1..=100))]
    load_percent: u64,
    /// Minutes on a machine kept at full CPU, in which every verdict is a false one
    #[arg(long, default_value_t = 10)]
    busy_minutes: u64,
    #[command(flatten)]
    setting: Setting,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// SIGKILL of an agent
    Kill,
    /// SIGSTOP of an agent
    Hang,
    /// SIGKILL of a host with all its agents
    Host,
    /// SIGKILL of the agent that leads, until another one is elected
    Leader,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL of an agent",
            Self::Hang => "SIGSTOP of an agent",
            Self::Host => "SIGKILL of a host",
            Self::Leader => "SIGKILL of the leader",
        }
    }
    const fn target(self) -> Duration {
        match self {
            Self::Kill | Self::Host | Self::Leader => TARGET_KILLED,
            Self::Hang => TARGET_HUNG,
        }
    }
}

/// Measures and prints.
pub(super) async fn measure(options: &Options) -> anyhow::Result<()> {
    // Half of the agents on each host, also after one was lost: the other one has no room for more.
    let half = options.agents.div_ceil(u32::from(HOSTS));
    let world = World::start(&options.setting, HOSTS, half).await?;
    let swarm = world.swarm("failover", json!({})).await?;
    let count = usize::try_from(options.agents)?;
    let spec = json!({
        "agent_type": "sleeper", "adapter": "exec",
        "command": ["sleep", format!("{}.{:03}", WORK_MS / 1_000, WORK_MS % 1_000)],
        // They are killed on purpose, again and again.
        "restart": {"restart": "always", "crash_limit": 0, "backoff_ms": 100, "backoff_cap_ms": 100},
    });
    swarm.add(count, &spec).await?;
    println!(
        "load        {count} agents on {HOSTS} hosts, each a process with one slot that runs `sleep`; tasks of {WORK_MS} ms keep \
         {} % of them busy; default settings (heartbeats every second)",
        options.load_percent
    );
    println!(
        "measured    from the signal to the store time of `started` at another agent; of a host the last of all tasks that its \
         agents ran; of the leader to that of `leader_elected` with another one"
    );
    let swarm = Arc::new(swarm);
    let submitted = Arc::new(AtomicU64::new(0));
    let kept_busy = u64::from(options.agents) * options.load_percent;
    let load = Load::start(swarm.clone(), kept_busy, submitted);
    // A host that is killed before the load has begun loses nothing.
    swarm
        .follower
        .until("the load has begun", TAKEOVER_PATIENCE, |seen| {
            (seen.ended.len() >= count).then_some(())
        })
        .await?;
    let mut rows = Vec::new();
    for kind in &options.kinds {
        rows.push(runs(&world, &swarm, *kind, options.runs, count).await?);
    }
    if options.busy_minutes > 0 {
        rows.push(busy(&swarm, Duration::from_secs(60 * options.busy_minutes)).await?);
    }
    let tasks = load.stop().await?;
    swarm.ended(&tasks, REPLACED_PATIENCE).await?;
    println!("\n{:<22} runs       min      p50      p99", "what");
    for row in rows {
        println!("{row}");
    }
    let audit = audit::run(&world.installation, swarm.place.partition, 0).await?;
    println!(
        "audit       {} tasks, {} lost, {} doubled; {}",
        tasks.len(),
        audit.lost,
        audit.doubled,
        audit
            .broken
            .as_deref()
            .map_or("every promise kept".to_owned(), |what| format!(
                "BROKEN: {what}"
            ))
    );
    world.stop().await
}

async fn runs(
    world: &World,
    swarm: &Swarm,
    kind: Kind,
    runs: u32,
    agents: usize,
) -> anyhow::Result<String> {
    let mut times = Vec::new();
    let mut tasks = 0;
    for number in 0..runs {
        let run = run(world, swarm, kind, number, agents)
            .await
            .with_context(|| format!("{}, run {}", kind.words(), number + 1))?;
        println!(
            "  {:<20} run {:>2}: {}{}",
            kind.words(),
            number + 1,
            seconds(run.worst),
            of_tasks(run.tasks)
        );
        times.push(run.worst);
        tasks += run.tasks;
    }
    let spread: Spread = times.into_iter().collect();
    let p99 = Duration::from_micros(spread.percentile(99).unsigned_abs());
    let limit = kind.target();
    Ok(format!(
        "{:<22} {:>4}  {spread}  {} ({}: p99 below {} s), load then {}",
        kind.words(),
        spread.len(),
        of_tasks(tasks),
        if p99 < limit {
            "target met"
        } else {
            "TARGET MISSED"
        },
        limit.as_secs(),
        machine::load()
    ))
}

/// One run.
struct Run {
    /// The longest time of all tasks, in microseconds.
    worst: i64,
    /// Tasks that were taken over.
    tasks: usize,
}

async fn run(
    world: &World,
    swarm: &Swarm,
    kind: Kind,
    number: u32,
    agents: usize,
) -> anyhow::Result<Run> {
    settled(swarm, agents).await?;
    let phase = (PHASE_STEP * number).as_micros() % PHASE.as_micros();
    sleep(Duration::from_micros(u64::try_from(phase)?)).await;
    for _ in 0..VICTIMS_MAX {
        let (began, victims, lost) = match kind {
            Kind::Kill => one_agent(swarm, Signal::KILL).await?,
            Kind::Hang => one_agent(swarm, Signal::STOP).await?,
            Kind::Host => one_host(world, swarm, number).await?,
            Kind::Leader => {
                let worst = leader(swarm).await?;
                settled(swarm, agents).await?;
                return Ok(Run { worst, tasks: 0 });
            }
        };
        let Some(worst) = taken_over(swarm, began, &victims, &lost).await? else {
            settled(swarm, agents).await?;
            continue;
        };
        settled(swarm, agents).await?;
        return Ok(Run {
            worst,
            tasks: lost.len(),
        });
    }
    anyhow::bail!("no work ran long enough at any of {VICTIMS_MAX} victims")
}

type Lost = (i64, BTreeSet<AgentId>, Vec<Running>);

/// Signals an agent that has just begun with a task.
async fn one_agent(swarm: &Swarm, signal: Signal) -> anyhow::Result<Lost> {
    let (pid, run) = swarm
        .follower
        .until("an agent that has just begun", TAKEOVER_PATIENCE, |seen| {
            let fresh = now_micros() - FRESH_MICROS;
            let run = seen.running.values().rfind(|run| run.since > fresh)?;
            let process = seen.agents.get(&run.agent)?.process?;
            Some((process.pid, *run))
        })
        .await?;
    let began = now_micros();
    process::signal(pid, signal)?;
    Ok((began, BTreeSet::from([run.agent]), vec![run]))
}

/// Kills the agent that leads; the time until another one does, in microseconds.
async fn leader(swarm: &Swarm) -> anyhow::Result<i64> {
    let (pid, before) = swarm
        .follower
        .until("somebody leads", TAKEOVER_PATIENCE, |seen| {
            let (leader, _) = seen.led?;
            Some((seen.agents.get(&leader)?.process?.pid, leader))
        })
        .await?;
    let began = now_micros();
    process::signal(pid, Signal::KILL)?;
    swarm
        .follower
        .until("another one leads", TAKEOVER_PATIENCE, |seen| {
            let (leader, at) = seen.led?;
            (leader != before && at > began).then_some(at - began)
        })
        .await
}

/// Kills one of the hosts.
async fn one_host(world: &World, swarm: &Swarm, number: u32) -> anyhow::Result<Lost> {
    let name = match number % u32::from(HOSTS) {
        0 => "agent-host".to_owned(),
        rest => format!("agent-host-{}", rest + 1),
    };
    // Its agents may be ready before the installation has noted the new process of a host that was killed before.
    let of_host = |seen: &Seen| {
        let pid = world.installation.pid(&name).ok()?;
        let host = BTreeSet::from([pid]);
        let of_host: BTreeSet<AgentId> = seen
            .agents
            .iter()
            .filter(|(_, agent)| {
                agent
                    .process
                    .is_some_and(|one| process::descends(one.pid, &host))
            })
            .map(|(id, _)| *id)
            .collect();
        let lost = seen.runs(&of_host);
        (!of_host.is_empty()).then_some((pid, of_host, lost))
    };
    let (pid, victims, lost) = swarm
        .follower
        .until("the host runs agents", REPLACED_PATIENCE, of_host)
        .await?;
    let began = now_micros();
    process::signal(pid, Signal::KILL)?;
    Ok((began, victims, lost))
}

/// Waits until all that was lost is started elsewhere, or has ended after all; `None` if nothing of it had to be.
async fn taken_over(
    swarm: &Swarm,
    began: i64,
    victims: &BTreeSet<AgentId>,
    lost: &[Running],
) -> anyhow::Result<Option<i64>> {
    swarm
        .follower
        .until(
            "the lost work is started elsewhere",
            TAKEOVER_PATIENCE,
            |seen| {
                let mut worst = None;
                for run in lost {
                    match (seen.started.get(&run.task), seen.ended.get(&run.task)) {
                        (Some((at, agent)), _) if *at > began && !victims.contains(agent) => {
                            worst = worst.max(Some(at - began));
                        }
                        // A host's agents are there again at once: work on another process of one of them is elsewhere, too.
                        (Some((at, _)), _) if *at > began && *at > run.since => {
                            worst = worst.max(Some(at - began));
                        }
                        // Its result was under way already.
                        (_, Some(_)) => {}
                        _ => return None,
                    }
                }
                Some(worst)
            },
        )
        .await
}

/// Waits until all agents are ready again.
async fn settled(swarm: &Swarm, agents: usize) -> anyhow::Result<()> {
    swarm
        .follower
        .until("all agents are ready", REPLACED_PATIENCE, |seen| {
            let whole = |agent: &super::seen::Agent| agent.ready && agent.process.is_some();
            (seen.agents.values().filter(|agent| whole(agent)).count() == agents).then_some(())
        })
        .await
}

/// Counts verdicts while every core is kept busy.
async fn busy(swarm: &Swarm, how_long: Duration) -> anyhow::Result<String> {
    let before = swarm.follower.see(|seen| seen.alarms.len());
    let burners = Burners::start();
    println!("  every core kept busy for {} s", how_long.as_secs());
    sleep(how_long).await;
    let load = machine::load();
    drop(burners);
    let alarms = swarm.follower.see(|seen| seen.alarms[before..].to_vec());
    for alarm in alarms.iter().take(10) {
        println!("  alarm: agent {} {}", alarm.agent, alarm.what);
    }
    let failed = alarms.iter().filter(|alarm| alarm.failed).count();
    Ok(format!(
        "{:<22} {} verdicts on agents that were well, {failed} of them took work away ({}: no false failure), load then {load}",
        format!("{} s at full CPU", how_long.as_secs()),
        alarms.len(),
        if failed == 0 {
            "target met"
        } else {
            "TARGET MISSED"
        }
    ))
}

/// Threads that do nothing but use up processor time: one for each core.
struct Burners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let burn = |_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..cores).map(burn).collect();
        Self { stop, threads }
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it has no result
        }
    }
}

/// Tasks at a steady pace.
struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<anyhow::Result<Vec<TaskId>>>,
}

impl Load {
    /// `busy`: how many agents are kept busy, in hundredths of one.
    fn start(swarm: Arc<Swarm>, busy: u64, submitted: Arc<AtomicU64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let task = tokio::spawn(async move {
            let mut tasks = Vec::new();
            let mut ticks = interval(SUBMIT_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let began = Instant::now();
            while !told.load(Ordering::Relaxed) {
                ticks.tick().await;
                let elapsed = u64::try_from(began.elapsed().as_millis())?;
                let due = elapsed * busy / 100 / WORK_MS;
                let missing = due.saturating_sub(submitted.load(Ordering::Relaxed));
                if missing == 0 {
                    continue;
                }
                let one: Value = json!({"task_type": "sleep", "payload": {}, "max_attempts": 20});
                let many = vec![one; usize::try_from(missing)?];
                tasks.extend(swarm.submit_many(many).await?);
                submitted.fetch_add(missing, Ordering::Relaxed);
            }
            Ok(tasks)
        });
        Self { stop, task }
    }

    async fn stop(self) -> anyhow::Result<Vec<TaskId>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// Of the leader no task is measured.
fn of_tasks(tasks: usize) -> String {
    match tasks {
        0 => String::new(),
        tasks => format!(" of {tasks} tasks"),
    }
}

fn seconds(micros: i64) -> String {
    format!("{:.3} s", micros as f64 / 1e6)
}
