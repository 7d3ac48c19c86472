//! A live change through the whole system: how long nobody is given a task, by the store times of `assigned`.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};
use swarm_chaos::follow::as_input;
use swarm_events::{Body, Input, Json, Place, TaskId, task::Then};
use swarm_log::{Log, Tailed, jetstream::JetStreamLog};
use swarm_servers::Durability;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    failover::Fleet,
    installation::{self, Access, Installation},
    machine,
    pipeline::swarm::{SLEEP, submission_of},
};

const AGENTS: u32 = 100;
/// Tasks that wait in the queue all the time.
const QUEUED: u64 = 1_000;
/// What tasks take, in even steps from the shortest to the longest: 100 agents with a slot begin 400 a second then, which two
/// cores bear with room. Tasks of one length would all end at once, again and again after agents were filled at once, and the
/// gaps between would be as long as a task.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(450);
/// Lengths between the two. The next task has the length this many further: one of all lengths after as many tasks, and two
/// that follow each other are far apart.
const LENGTHS: u32 = 401;
const STRIDE: u32 = 248;
/// How often the queue is filled up.
const FILL_EVERY: Duration = Duration::from_millis(25);
/// How long nothing is changed before each change: the same figure is taken of that time.
const QUIET: Duration = Duration::from_secs(2);
/// A change, or a full queue, that has not come by then will not.
const PATIENCE: Duration = Duration::from_secs(60);
/// What assignment may pause at most.
const TARGET_MICROS: i64 = 100_000;
/// Every ordered pair of two of them, once, from a star on.
const CIRCUIT: [&str; 12] = [
    "mesh",
    "star",
    "hierarchical",
    "star",
    "ring",
    "mesh",
    "hierarchical",
    "mesh",
    "ring",
    "hierarchical",
    "ring",
    "star",
];

/// Where, and on what.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Options {
    /// Folder on the disk to measure live changes on (default: beside the build)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The `swarm` binary for live changes (default: the one beside this program)
    #[arg(long, value_name = "FILE")]
    swarm: Option<PathBuf>,
}

/// A change. Microseconds between store times.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    from: &'static str,
    to: &'static str,
    /// From `topology_planned` to `topology_changed`.
    took: i64,
    /// The longest time between two `assigned` in the last two seconds before the change.
    before: i64,
    /// The longest of those that overlap the time from `topology_planned` to the first `assigned` after `topology_changed`.
    pause: i64,
    /// Tasks that were taken back.
    withdrawn: Option<u64>,
}

/// Measures and prints.
///
/// # Errors
/// A server or service does not start, or a change does not come about.
pub fn run(options: &Options) -> anyhow::Result<Vec<Figures>> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<Vec<Figures>> {
    let (root, binary) = installation::places(options.dir.as_deref(), options.swarm.as_deref())?;
    installation::ensure_built(&binary)?;
    let (p50, p99) = machine::fsync_times(&root)?;
    let mut installation =
        Installation::start(&root, Durability::Always, Access::Credentials).await?;
    for service in [
        "coordinator",
        "distributor",
        "health",
        "projector",
        "gateway",
    ] {
        installation.start_replica(&binary, service, service)?;
    }
    installation.until_ready().await?;
    println!(
        "\na live change through the real services: {AGENTS} agents of one process, each with a slot and a waiting place, tasks \
         of {} to {} ms, {QUEUED} of them queued all the time; durability always (fsync of 4 KiB: p50 {:.2} ms, p99 {:.2} ms)",
        SHORTEST.as_millis(),
        LONGEST.as_millis(),
        p50.as_secs_f64() * 1e3,
        p99.as_secs_f64() * 1e3
    );
    println!(
        "  pause: the longest time between two `assigned`, by store time, around a change; before: the same in the {} s before \
         it; a ring hands out one task after the other, so its own gaps are as long as its tasks",
        QUIET.as_secs()
    );
    let fleet = Fleet::start(&installation, 1, AGENTS, 1).await?;
    let place = *fleet.places.first().context("there is no swarm")?;
    let watch = Watch::start(&fleet.log, place);
    let load = Load::start(fleet.log.clone(), place, watch.seen.clone());
    let url = format!(
        "http://{}/v1/swarms/{}/topology",
        installation.address("gateway")?,
        place.swarm
    );
    println!(
        "  {:<30} {:>12} {:>12} {:>12} {:>10}",
        "change", "took ms", "before ms", "pause ms", "withdrawn"
    );
    let http = reqwest::Client::new();
    let mut all = Vec::new();
    let mut from = "star";
    for to in CIRCUIT {
        watch.full().await?;
        load.check()?;
        sleep(QUIET).await;
        let body = json!({"topology": to});
        let answer = http.put(&url).bearer_auth(&fleet.api_key).json(&body);
        let answer = answer.send().await?;
        let status = answer.status();
        let said: Value = answer.json().await?;
        ensure!(status.is_success(), "PUT {url}: {status} {said}");
        let generation = said["generation"].as_u64().context("no generation")?;
        let (took, before, pause) = watch.gaps(generation).await?;
        let figures = Figures {
            from,
            to,
            took,
            before,
            pause,
            withdrawn: said["withdrawn"].as_u64(),
        };
        row(&figures);
        all.push(figures);
        from = to;
    }
    let judged = all.iter().filter(|one| one.from != "ring");
    let worst = judged.map(|one| one.pause).max().unwrap_or(0);
    println!(
        "  longest pause of a change that does not begin at a ring: {} ms ({}: below {} ms), load then {}",
        ms(worst),
        if worst < TARGET_MICROS {
            "target met"
        } else {
            "TARGET MISSED"
        },
        TARGET_MICROS / 1_000,
        machine::load()
    );
    load.stop().await?;
    fleet.agents.stop();
    installation.stop().await;
    Ok(all)
}

fn ms(micros: i64) -> String {
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

fn row(figures: &Figures) {
    let withdrawn = figures.withdrawn;
    println!(
        "  {:<30} {:>12} {:>12} {:>12} {:>10}",
        format!("{} to {}", figures.from, figures.to),
        ms(figures.took),
        ms(figures.before),
        ms(figures.pause),
        withdrawn.map_or_else(|| "not told".to_owned(), |tasks| tasks.to_string())
    );
}

/// What the log has said.
#[derive(Debug, Default)]
struct Seen {
    submitted: u64,
    /// Tasks that left the queue, less those that came back.
    gone: u64,
    /// Store times of `assigned`.
    assigned: Vec<i64>,
    /// Of each change when it was planned, and when it held.
    planned: Vec<(u64, i64)>,
    changed: Vec<(u64, i64)>,
}

impl Seen {
    fn meet(&mut self, at: i64, body: &Body) {
        match body {
            Body::TaskAssigned(_) => {
                self.assigned.push(at);
                self.gone += 1;
            }
            Body::TaskWithdrawn(withdrawn) if withdrawn.then == Then::Queue => {
                self.gone = self.gone.saturating_sub(1);
            }
            Body::SwarmTopologyPlanned(planned) => self.planned.push((planned.generation, at)),
            Body::SwarmTopologyChanged(changed) => self.changed.push((changed.generation, at)),
            _ => {}
        }
    }
    fn queued(&self) -> u64 {
        self.submitted.saturating_sub(self.gone)
    }

    /// How long the change took, the longest gap before it, and the longest one around it; `None` before an `assigned`
    /// follows it.
    fn gaps(&self, generation: u64) -> Option<(i64, i64, i64)> {
        let of = |all: &[(u64, i64)]| {
            let found = all.iter().find(|(one, _)| *one == generation);
            found.map(|(_, at)| *at)
        };
        let (planned, changed) = (of(&self.planned)?, of(&self.changed)?);
        let after = *self.assigned.iter().find(|at| **at > changed)?;
        let quiet = planned - i64::try_from(QUIET.as_micros()).ok()?;
        let longest = |from: i64, to: i64| {
            let pairs = self.assigned.iter().zip(self.assigned.iter().skip(1));
            let overlapping = pairs.filter(|(a, b)| **b > from && **a < to);
            overlapping.map(|(a, b)| b - a).max().unwrap_or(0)
        };
        Some((
            changed - planned,
            longest(quiet, planned),
            longest(planned, after),
        ))
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows the swarm.
struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    fn start(log: &JetStreamLog, place: Place) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let filters = [
            "task.assigned.*",
            "task.withdrawn.*",
            "swarm.topology_planned",
            "swarm.topology_changed",
        ];
        let filters = filters.map(|filter| format!("swarm.evt.{place}.{filter}"));
        let mut tail = log.tail(filters.to_vec(), 1);
        let folding = seen.clone();
        let task = tokio::spawn(async move {
            while let Some(Ok(tailed)) = tail.next().await {
                if let Tailed::Message(stored) = tailed
                    && let Input::Event(recorded) = as_input(&stored)
                {
                    let at = recorded.time.as_micros();
                    lock(&folding).meet(at, &recorded.event.body);
                }
            }
        });
        Self { seen, task }
    }

    async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Seen) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = look(&lock(&self.seen)) {
                return Ok(found);
            }
            sleep(FILL_EVERY).await;
        }
        bail!("not within {} s: {what}", PATIENCE.as_secs())
    }
    async fn full(&self) -> anyhow::Result<()> {
        let most = QUEUED * 9 / 10;
        self.until("a full queue", |seen| (seen.queued() >= most).then_some(()))
            .await
    }
    async fn gaps(&self, generation: u64) -> anyhow::Result<(i64, i64, i64)> {
        let what = format!("an assignment after change {generation}");
        self.until(&what, |seen| seen.gaps(generation)).await
    }
}

/// What one task after the other takes.
fn lengths() -> impl Iterator<Item = Duration> {
    let step = (LONGEST - SHORTEST) / (LENGTHS - 1);
    (0..LENGTHS)
        .cycle()
        .map(move |n| SHORTEST + step * (n * STRIDE % LENGTHS))
}

/// Keeps the queue full.
struct Load {
    task: JoinHandle<anyhow::Result<()>>,
}

impl Load {
    fn start(log: JetStreamLog, place: Place, seen: Arc<Mutex<Seen>>) -> Self {
        let task = tokio::spawn(async move {
            let mut lengths = lengths();
            loop {
                let missing = QUEUED.saturating_sub(lock(&seen).queued());
                let one = |_| {
                    let length = lengths.next().unwrap_or(SHORTEST);
                    let payload = Json::from_value(&json!({"micros": length.as_micros()}))?;
                    submission_of(place, TaskId(Uuid::now_v7()), SLEEP, &payload)
                };
                let messages = (0..missing).map(one).collect::<anyhow::Result<Vec<_>>>()?;
                for stored in log.append(messages).await {
                    stored?;
                    lock(&seen).submitted += 1;
                }
                sleep(FILL_EVERY).await;
            }
        });
        Self { task }
    }
    /// Whether it still goes on.
    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.task.is_finished(), "the log has refused a task");
        Ok(())
    }
    async fn stop(self) -> anyhow::Result<()> {
        self.task.abort();
        match self.task.await {
            Ok(ended) => ended,
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tasks_have_every_length_once_and_then_again() {
        let all: Vec<_> = lengths().take(2 * LENGTHS as usize).collect();
        let (first, second) = all.split_at(LENGTHS as usize);
        assert_eq!(first, second);
        let distinct: BTreeSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), first.len());
        assert_eq!(first.iter().min(), Some(&SHORTEST));
        assert_eq!(first.iter().max(), Some(&LONGEST));
    }

    #[test]
    fn every_pair_is_changed_once() {
        let froms = ["star"].iter().chain(&CIRCUIT);
        let pairs: BTreeSet<_> = froms.zip(&CIRCUIT).collect();
        assert_eq!(pairs.len(), 12);
    }

    #[test]
    fn the_pause_is_the_longest_gap_that_touches_the_change() {
        let second = 1_000_000;
        let mut seen = Seen {
            planned: vec![(2, 10 * second)],
            changed: vec![(2, 10 * second + 300)],
            ..Seen::default()
        };
        seen.assigned = vec![
            second,
            9 * second,
            9 * second + 50,
            10 * second - 100,
            10 * second + 100,
        ];
        assert_eq!(seen.gaps(2), None, "nothing was assigned after it");
        seen.assigned.extend([10 * second + 900, 20 * second]);
        let (took, before, pause) = seen.gaps(2).expect("all there");
        // The gap of eight seconds overlaps the two seconds before; the one after the first assignment is no part of it.
        assert_eq!((took, before, pause), (300, 8 * second, 800));
        assert_eq!(seen.gaps(3), None);
    }
}
