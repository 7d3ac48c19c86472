//! `./dev bench speedup`: what several agents do better than one, by the product's own measures.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use swarm_events::{AgentId, TaskId};

use super::{
    service::Service,
    world::{Setting, Swarm, World},
};
use crate::machine;

/// What a latency-bound task waits for.
const LATENCY: Duration = Duration::from_millis(200);
/// Throughput of eight agents, as a multiple of one agent's.
const TARGET_THROUGHPUT: f64 = 3.0;
/// Mean share of the time in which an agent works, in percent.
const TARGET_UTILIZATION: f64 = 70.0;
/// Graphs completed whole by the swarm, as a multiple of what a single agent without retries completes: half a graph is worth
/// nothing to whoever asked for it.
const TARGET_COMPLETION: f64 = 1.4;
/// What all tasks of a part may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// In one of so many attempts the agent's process is killed in the middle of its work.
const FAULT_ONE_IN: u32 = 10;

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Parts
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Latency, Part::Faults, Part::Hundred])]
    parts: Vec<Part>,
    /// Agents beside the single one
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=100))]
    agents: u32,
    /// Latency-bound tasks for each agent
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    tasks: u32,
    /// Graphs of twelve tasks
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    graphs: u32,
    #[command(flatten)]
    setting: Setting,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Tasks that wait for a local HTTP service
    Latency,
    /// Graphs, with agents that die in one of ten attempts
    Faults,
    /// A hundred agent processes in one swarm
    Hundred,
}

/// Measures and prints.
pub(super) async fn measure(options: &Options) -> anyhow::Result<()> {
    let world = World::start(&options.setting, 1, 200).await?;
    for part in &options.parts {
        match part {
            Part::Latency => latency(&world, options).await?,
            Part::Faults => faults(&world, options).await?,
            Part::Hundred => hundred(&world).await?,
        }
    }
    world.stop().await
}

/// What some tasks took.
struct Figures {
    /// Tasks that completed.
    completed: usize,
    /// From the first start to the last end.
    took: Duration,
    /// Share of that time in which an agent worked, in percent.
    utilization: f64,
}

impl Figures {
    fn of(swarm: &Swarm, tasks: &[TaskId], agents: usize) -> Self {
        swarm.follower.see(|seen| {
            let first = tasks
                .iter()
                .filter_map(|task| Some(seen.started.get(task)?.0))
                .min();
            let last = tasks
                .iter()
                .filter_map(|task| Some(seen.ended.get(task)?.at))
                .max();
            let micros = last.unwrap_or(0) - first.unwrap_or(0);
            let completed = tasks
                .iter()
                .filter(|task| seen.ended.get(task).is_some_and(|end| end.completed))
                .count();
            Self {
                completed,
                took: Duration::from_micros(micros.unsigned_abs()),
                utilization: 100.0 * seen.busy as f64 / (micros as f64 * agents as f64),
            }
        })
    }

    fn rate(&self) -> f64 {
        self.completed as f64 / self.took.as_secs_f64()
    }
}

async fn latency(world: &World, options: &Options) -> anyhow::Result<()> {
    let service = Service::start(LATENCY).await?;
    println!(
        "\nlatency     tasks that call a local HTTP service which answers after {} ms; webhook agents with one slot each",
        LATENCY.as_millis()
    );
    let spec = json!({"agent_type": "caller", "adapter": "webhook", "url": service.url()});
    let mut found = Vec::new();
    for agents in [1, options.agents] {
        let swarm = world.swarm(&format!("latency {agents}"), json!({})).await?;
        let agents = usize::try_from(agents)?;
        swarm.add(agents, &spec).await?;
        let one = json!({"task_type": "call", "payload": {"n": 1}});
        let many = vec![one; agents * usize::try_from(options.tasks)?];
        let tasks = swarm.submit_many(many).await?;
        swarm.ended(&tasks, PATIENCE).await?;
        let figures = Figures::of(&swarm, &tasks, agents);
        ensure!(figures.completed == tasks.len(), "not all tasks completed");
        println!(
            "{agents:>4} agents  {:>6} tasks in {:>7.2} s: {:>6.2} tasks/s, utilization {:.1} %",
            tasks.len(),
            figures.took.as_secs_f64(),
            figures.rate(),
            figures.utilization
        );
        found.push(figures);
    }
    if let [one, many] = &found[..] {
        let ratio = many.rate() / one.rate();
        println!(
            "throughput  {ratio:.2} times {}, utilization {:.1} % {}",
            target(
                ratio >= TARGET_THROUGHPUT,
                &format!("at least {TARGET_THROUGHPUT}")
            ),
            many.utilization,
            target(
                many.utilization >= TARGET_UTILIZATION,
                &format!("at least {TARGET_UTILIZATION} %")
            )
        );
    }
    Ok(())
}

/// Twelve tasks: one, of which five make use, of each of which one makes use, and one that needs all of those.
fn graph(number: u32) -> Value {
    let task = |key: String, needs: Vec<String>| {
        let depends_on: Vec<Value> = needs
            .iter()
            .map(|key| json!({"key": key, "dependency_type": "success"}))
            .collect();
        json!({"key": key, "task_type": "step", "payload": {"graph": number}, "depends_on": depends_on})
    };
    let mut tasks = vec![task("first".into(), Vec::new())];
    for branch in 0..5 {
        tasks.push(task(format!("a{branch}"), vec!["first".into()]));
        tasks.push(task(format!("b{branch}"), vec![format!("a{branch}")]));
    }
    let all = (0..5).map(|branch| format!("b{branch}")).collect();
    tasks.push(task("last".into(), all));
    json!({ "tasks": tasks })
}

async fn faults(world: &World, options: &Options) -> anyhow::Result<()> {
    println!(
        "\nfaults      {} graphs of twelve tasks; in one of {FAULT_ONE_IN} attempts the work kills its agent (SIGKILL)",
        options.graphs
    );
    // The agent is the command's parent. Which attempts are hit follows from a checksum of the task's id and the attempt's
    // number, so that a retry may go well.
    let script = format!(
        "read -r task; sum=$(printf %s \"$task\" | sed 's/.*\"id\": *\"\\([^\"]*\\)\".*\"attempt\": *\\([0-9]*\\).*/\\1 \\2/' | cksum | cut -d' ' -f1); \
         sleep 0.05; if [ $((sum % {FAULT_ONE_IN})) -eq 0 ]; then kill -KILL $PPID; sleep 5; fi; echo '{{\"done\":true}}'"
    );
    let spec = json!({
        "agent_type": "fragile", "adapter": "exec", "command": ["/bin/sh", "-c", script],
        "restart": {"restart": "always", "crash_limit": 0, "backoff_ms": 100, "backoff_cap_ms": 100},
    });
    let mut shares = Vec::new();
    for (words, agents, attempts) in [
        ("one agent, no retries", 1, 1),
        ("the swarm", options.agents, 5),
    ] {
        let settings = json!({"max_attempts": attempts, "retry": {"base_ms": 50, "cap_ms": 500}});
        let swarm = world.swarm(&format!("faults {agents}"), settings).await?;
        swarm.add(usize::try_from(agents)?, &spec).await?;
        let mut tasks = Vec::new();
        for number in 0..options.graphs {
            tasks.extend(swarm.submit(&graph(number)).await?);
        }
        swarm.ended(&tasks, PATIENCE).await?;
        let figures = Figures::of(&swarm, &tasks, usize::try_from(agents)?);
        let share = 100.0 * figures.completed as f64 / tasks.len() as f64;
        let whole = swarm.follower.see(|seen| {
            tasks
                .chunks(12)
                .filter(|graph| {
                    graph
                        .iter()
                        .all(|task| seen.ended.get(task).is_some_and(|end| end.completed))
                })
                .count()
        });
        println!(
            "{words:<22} {agents} agents: {} of {} tasks completed ({share:.1} %), {whole} of {} graphs whole, in {:.1} s",
            figures.completed,
            tasks.len(),
            options.graphs,
            figures.took.as_secs_f64()
        );
        shares.push((share, whole as f64));
    }
    if let [(one, one_whole), (many, many_whole)] = shares[..] {
        let ratio = many_whole / one_whole.max(1.0);
        println!(
            "completion  {ratio:.2} times the whole graphs, {:.2} times the tasks {}",
            many / one,
            target(
                ratio >= TARGET_COMPLETION,
                &format!("at least {TARGET_COMPLETION} by graphs")
            )
        );
    }
    Ok(())
}

async fn hundred(world: &World) -> anyhow::Result<()> {
    const AGENTS: usize = 100;
    const TASKS: usize = 1_000;
    println!("\nhundred     {AGENTS} agent processes in one swarm, {TASKS} tasks of `sleep 1`");
    let swarm = world.swarm("hundred", json!({})).await?;
    let spec = json!({"agent_type": "sleeper", "adapter": "exec", "command": ["sleep", "1"]});
    let began = std::time::Instant::now();
    swarm.add(AGENTS, &spec).await?;
    let ready = began.elapsed();
    let one = json!({"task_type": "sleep", "payload": {}});
    let tasks = swarm.submit_many(vec![one; TASKS]).await?;
    swarm.ended(&tasks, PATIENCE).await?;
    let figures = Figures::of(&swarm, &tasks, AGENTS);
    let workers: std::collections::BTreeSet<AgentId> = swarm
        .follower
        .see(|seen| seen.started.values().map(|(_, agent)| *agent).collect());
    let pids: Vec<u32> = swarm.follower.see(|seen| {
        seen.agents
            .values()
            .filter_map(|agent| Some(agent.process?.pid))
            .collect()
    });
    let memory: u64 = pids
        .iter()
        .filter_map(|pid| machine::resident_bytes(*pid).ok())
        .sum();
    let alarms = swarm.follower.see(|seen| seen.alarms.len());
    println!(
        "{:>4} agents  ready after {:.1} s; {} tasks in {:.2} s: {:.1} tasks/s, utilization {:.1} %, {} agents worked, {} MiB resident each, {alarms} alarms",
        pids.len(),
        ready.as_secs_f64(),
        figures.completed,
        figures.took.as_secs_f64(),
        figures.rate(),
        figures.utilization,
        workers.len(),
        (memory >> 20) / u64::try_from(pids.len().max(1))?,
    );
    Ok(())
}

fn target(met: bool, what: &str) -> String {
    format!(
        "({}: {what})",
        if met { "target met" } else { "TARGET MISSED" }
    )
}
