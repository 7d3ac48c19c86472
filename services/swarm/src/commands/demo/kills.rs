//! Kills processes of the installation, one after the other while tasks run, and measures by the log what each kill cost.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use futures::StreamExt;
use rustix::process::Signal;
use swarm_events::{Place, Subject, subject::TaskVerb};
use swarm_log::{Log, Tailed};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Stage, say};
use crate::{
    connection::ConnectionFile,
    exit::{Failure, Outcome},
    installation::{
        SERVICES,
        child::signal,
        probe,
        servers::{NATS, POSTGRES},
    },
};

/// Stands for every process.
pub const ALL: &str = "all";
/// What one kill takes until the next, so that tasks are still running at the last one: the process starts again, folds
/// what it needs, and work is seen to go on.
const EACH: Duration = Duration::from_secs(4);
/// How long a killed process may take to be back at work.
const BACK_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked whether it is, while nothing happens in the log.
const LOOK: Duration = Duration::from_millis(50);
/// Ends of tasks between two kills, at least: work goes on, not just one task.
const ENDS_BETWEEN: usize = 3;

/// A kill, and what it cost.
#[derive(Debug)]
pub struct Killed {
    /// The process.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// The longest time without an assignment, and without an end of a task, from the kill on until the process was back.
    pub gaps: Gaps,
}

/// Longest times without something, by the log's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Without an assignment.
    pub assigned: Duration,
    /// Without an end.
    pub ended: Duration,
}

/// All kills, and how it was before the first.
#[derive(Debug, Default)]
pub struct Kills {
    /// The longest times before the first kill: what is usual here.
    pub usual: Gaps,
    /// In order.
    pub killed: Vec<Killed>,
}

/// What to kill: the names that were given, with `all` spelled out. An unknown one is a mistake.
pub fn names(wanted: &[String], data: &Path) -> Outcome<Vec<String>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let running = ConnectionFile::read(data)?.unwrap_or_default().pids;
    let mut order: Vec<&str> = SERVICES.iter().map(|service| service.as_str()).collect();
    order.extend([NATS, POSTGRES]);
    // Services first, all replicas of one after each other, then the servers.
    let place = |name: &String| order.iter().position(|kind| name.starts_with(kind));
    let mut all: Vec<String> = running.into_keys().collect();
    all.sort_by_key(|name| (place(name), name.len(), name.clone()));
    let mut names = Vec::new();
    for name in wanted {
        if name == ALL {
            names.extend(all.iter().cloned());
        } else if all.contains(name) {
            names.push(name.clone());
        } else {
            return Err(Failure::usage(format!(
                "--kill {name}: no such process; there are {ALL}, {}",
                all.join(", ")
            )));
        }
    }
    Ok(names)
}

/// How long each of `tasks` has to take so that `agents` are still at work at the last of `kills`.
pub fn pace(least: Duration, kills: usize, agents: u16, tasks: usize) -> Duration {
    let kills = u32::try_from(kills).unwrap_or(u32::MAX);
    if kills == 0 {
        return least;
    }
    let work = EACH.saturating_mul(kills.saturating_add(1));
    let tasks = u32::try_from(tasks.max(1)).unwrap_or(u32::MAX);
    least.max(work.saturating_mul(u32::from(agents)) / tasks)
}

/// Kills each of `names` once work is under way, and waits after each until it is back and work goes on. `over` says that
/// all tasks have ended.
pub async fn in_turn(
    stage: &Stage,
    place: Place,
    names: &[String],
    over: CancellationToken,
) -> Outcome<Kills> {
    let mut kills = Kills::default();
    let mut watch = Watch::of(stage, place).await?;
    for name in names {
        let work = async {
            let (assigned, ended) = watch.counts();
            watch
                .until(|now| now.0 > assigned && now.1 >= ended + ENDS_BETWEEN)
                .await?;
            if kills.killed.is_empty() {
                kills.usual = watch.seen.gaps(0);
            }
            kill(stage, name, &mut watch).await
        };
        let killed = tokio::select! {
            killed = work => killed?,
            () = over.cancelled() => return Err(Failure::failed(format!(
                "the tasks were over before work had gone on after the kill of {name}: give a larger --pace"
            ))),
        };
        kills.killed.push(killed);
    }
    Ok(kills)
}

async fn kill(stage: &Stage, name: &str, watch: &mut Watch) -> Outcome<Killed> {
    let data = stage.target.data.as_path();
    let pid = pid_of(data, name)?.with_context(|| format!("{name} does not run"))?;
    let at = now_micros();
    signal(pid, Signal::KILL);
    say(&format!("killed {name} (process {pid})"));
    let deadline = Instant::now() + BACK_PATIENCE;
    while !is_back(data, name, pid).await? {
        if Instant::now() > deadline {
            return Err(Failure::timeout(format!("{name} has not come back")));
        }
        watch.next(LOOK).await?;
    }
    let (assigned, ended) = watch.counts();
    watch
        .until(|now| now.0 > assigned && now.1 > ended)
        .await
        .map_err(|failure| Failure::timeout(format!("after the kill of {name}: {failure}")))?;
    Ok(Killed {
        name: name.to_owned(),
        pid,
        gaps: watch.seen.gaps(at),
    })
}

fn pid_of(data: &Path, name: &str) -> Outcome<Option<u32>> {
    let file = ConnectionFile::read(data)?.unwrap_or_default();
    Ok(file.pids.get(name).copied())
}

/// Whether another process than `before` runs under this name and says that it is ready.
async fn is_back(data: &Path, name: &str, before: u32) -> Outcome<bool> {
    let file = ConnectionFile::read(data)?.unwrap_or_default();
    if file.pids.get(name).is_none_or(|pid| *pid == before) {
        return Ok(false);
    }
    match file.probes.get(name) {
        Some(base) if name.starts_with(NATS) => Ok(probe::ask(base, "/healthz").await.ready),
        Some(base) => Ok(probe::readyz(base).await.ready),
        // PostgreSQL is announced when it answers.
        None => Ok(true),
    }
}

/// Microseconds since the epoch: the clock of nats-server, which runs on this machine.
fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}

/// Store times of what was met.
#[derive(Debug, Default)]
struct Times {
    assigned: Vec<i64>,
    ended: Vec<i64>,
}

impl Times {
    /// The longest times between two neighbours of which the second came after `from`.
    fn gaps(&self, from: i64) -> Gaps {
        let longest = |times: &[i64]| {
            let gaps = times
                .windows(2)
                .filter(|pair| pair[1] > from)
                .map(|pair| pair[1].saturating_sub(pair[0]));
            Duration::from_micros(u64::try_from(gaps.max().unwrap_or(0)).unwrap_or(0))
        };
        Gaps {
            assigned: longest(&self.assigned),
            ended: longest(&self.ended),
        }
    }
}

/// The swarm's assignments and ends, as the log takes them.
struct Watch {
    tail: futures::stream::BoxStream<'static, Result<Tailed, swarm_log::LogError>>,
    seen: Times,
}

const ENDS: [TaskVerb; 4] = [
    TaskVerb::Completed,
    TaskVerb::Failed,
    TaskVerb::Cancelled,
    TaskVerb::Rejected,
];

impl Watch {
    async fn of(stage: &Stage, place: Place) -> Outcome<Self> {
        let log = stage.target.log("demo kills").await?;
        let filter = format!("swarm.evt.{place}.task.>");
        Ok(Self {
            tail: log.tail(vec![filter], 1),
            seen: Times::default(),
        })
    }

    /// How many tasks have been assigned, and how many have ended.
    fn counts(&self) -> (usize, usize) {
        (self.seen.assigned.len(), self.seen.ended.len())
    }

    /// Meets the next message, if one comes within `patience`.
    async fn next(&mut self, patience: Duration) -> Outcome<bool> {
        let Ok(next) = timeout(patience, self.tail.next()).await else {
            return Ok(false);
        };
        // An interruption mends itself.
        if let Tailed::Message(message) = next.context("the log's tail ended")?? {
            match Subject::parse(&message.subject) {
                Ok(Subject::Task(_, TaskVerb::Assigned, _)) => {
                    self.seen.assigned.push(message.time_micros);
                }
                Ok(Subject::Task(_, verb, _)) if ENDS.contains(&verb) => {
                    self.seen.ended.push(message.time_micros);
                }
                _ => {}
            }
        }
        Ok(true)
    }

    async fn until(&mut self, reached: impl Fn((usize, usize)) -> bool) -> Outcome {
        let deadline = Instant::now() + BACK_PATIENCE;
        while !reached(self.counts()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.next(left).await? {
                return Err(Failure::timeout(format!(
                    "no task was assigned and ended within {} s",
                    BACK_PATIENCE.as_secs()
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_from_the_last_one_before_the_kill() {
        let times = Times {
            assigned: vec![0, 100, 110, 900, 910],
            ended: vec![0, 5_000],
        };
        let gaps = times.gaps(120);
        assert_eq!(gaps.assigned, Duration::from_micros(790));
        assert_eq!(gaps.ended, Duration::from_micros(5_000));
        // A message that was under way at the kill does not hide what came after it.
        assert_eq!(times.gaps(105).assigned, Duration::from_micros(790));
        assert_eq!(times.gaps(905).assigned, Duration::from_micros(10));
        assert_eq!(Times::default().gaps(0), Gaps::default());
    }

    #[test]
    fn all_is_every_process_services_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut file = ConnectionFile::default();
        for name in [
            "postgres",
            "nats-server",
            "gateway-2",
            "gateway",
            "coordinator",
        ] {
            file.pids.insert(name.to_owned(), 1);
        }
        file.write(dir.path()).expect("written");
        let of = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            names(&wanted, dir.path())
        };
        let all = of(&["all"]).expect("known");
        assert_eq!(
            all,
            [
                "coordinator",
                "gateway",
                "gateway-2",
                "nats-server",
                "postgres"
            ]
        );
        let two = of(&["postgres", "gateway"]).expect("known");
        assert_eq!(two, ["postgres", "gateway"]);
        let failure = of(&["gateway-3"]).expect_err("unknown");
        assert!(failure.message.contains("gateway-2"), "{failure}");
        assert!(of(&[]).expect("nothing").is_empty());
    }

    #[test]
    fn the_pace_leaves_tasks_for_the_last_kill() {
        let least = Duration::from_millis(40);
        assert_eq!(pace(least, 0, 4, 10), least);
        // Two kills: 12 s of work for 4 agents and 100 tasks.
        assert_eq!(pace(least, 2, 4, 100), Duration::from_millis(480));
        assert_eq!(pace(least, 1, 2, 100_000), least);
    }
}
