//! Who belongs to which agent: the process trees below this one, what they use, and what of them left its group.
//!
//! This process is the reaper of orphans below it. An orphan is an agent's if it is in the group of the agent's process, if it
//! was once seen in its tree, or if its environment says so.

use std::{
    collections::BTreeMap,
    process::{Child, Command},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use procfs::process::Process;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};
use swarm_agent_host_core::Key;
use swarm_agent_sdk::{Figures, Meter};
use tokio::time::{Instant, sleep};

use crate::environment::{AGENT_ID, AGENT_SPAWN};

/// A killed process is gone in a moment.
const GONE_WAIT: Duration = Duration::from_secs(2);
const GONE_PAUSE: Duration = Duration::from_millis(5);
/// Name under which the watchdog of an agent's commands runs: it ends by itself once it has killed them.
const WATCHDOG: &str = "swarm-watchdog";

/// Start time of a process since boot, in clock ticks: tells two of the same id apart.
type Started = u64;

struct Entry {
    key: Key,
    spawn: u64,
    meter: Arc<Meter>,
    figures: Figures,
    /// Members of its tree that are in other groups.
    strays: BTreeMap<i32, Started>,
}

/// The processes that this host has started and not yet seen off, by the leader of their group.
#[derive(Default)]
pub(crate) struct Census {
    entries: Mutex<BTreeMap<i32, Entry>>,
    /// Every child of this process is ours to wait for.
    reaps_all: bool,
}

impl Census {
    pub(crate) fn new(reaps_all: bool) -> Self {
        Self {
            entries: Mutex::default(),
            reaps_all,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process. Nothing is reaped meanwhile: a child that is not known yet would look like an orphan.
    pub(crate) fn spawn(
        &self,
        key: Key,
        spawn: u64,
        command: &mut Command,
    ) -> std::io::Result<Child> {
        let mut entries = self.lock();
        let child = command.spawn()?;
        let entry = Entry {
            key,
            spawn,
            meter: Arc::default(),
            figures: Figures::default(),
            strays: BTreeMap::new(),
        };
        entries.insert(i32::try_from(child.id()).unwrap_or(0), entry);
        Ok(child)
    }

    /// What each agent's processes used when they were last looked at.
    pub(crate) fn figures(&self) -> Vec<(Key, Figures)> {
        let entries = self.lock();
        let figures = entries.values().map(|entry| (entry.key, entry.figures));
        figures.collect()
    }

    /// Looks at all processes; blocks on `/proc`.
    pub(crate) fn look(&self) {
        let mut adopted: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        let meters: Vec<(i32, Arc<Meter>)> = {
            let mut entries = self.lock();
            for child in children() {
                self.place(&mut entries, &child, &mut adopted);
            }
            let meters = entries.iter().map(|(id, entry)| (*id, entry.meter.clone()));
            meters.collect()
        };
        for (leader, meter) in meters {
            let mut roots = vec![leader];
            roots.extend(adopted.remove(&leader).unwrap_or_default());
            let mut strays = Vec::new();
            let figures = meter.figures_of(roots, |stat| {
                if stat.pgrp != leader {
                    strays.push((stat.pid, stat.starttime));
                }
            });
            if let Some(entry) = self.lock().get_mut(&leader) {
                entry.figures = figures;
                entry.strays.extend(strays);
                entry.strays.retain(|pid, started| is(*pid, *started));
            }
        }
    }

    /// Finds out whose an own child is, and takes a dead one that is nobody's out of the process table.
    fn place(
        &self,
        entries: &mut BTreeMap<i32, Entry>,
        child: &procfs::process::Stat,
        adopted: &mut BTreeMap<i32, Vec<i32>>,
    ) {
        if entries.contains_key(&child.pid) {
            return;
        }
        if entries.contains_key(&child.pgrp) {
            // Dead ones are counted when the group ends.
            adopted.entry(child.pgrp).or_default().push(child.pid);
            return;
        }
        if child.state == 'Z' {
            if self.reaps_all
                && let Some(pid) = Pid::from_raw(child.pid)
            {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG); // somebody else was faster
            }
            return;
        }
        let owner = entries.iter_mut().find(|(_, entry)| {
            entry.strays.get(&child.pid) == Some(&child.starttime)
                || is_marked(child.pid, entry.key, entry.spawn)
        });
        if let Some((leader, entry)) = owner {
            entry.strays.insert(child.pid, child.starttime);
            adopted.entry(*leader).or_default().push(child.pid);
        }
    }

    /// Notes who is in the tree of `leader` but not in its group, before its end makes orphans of them; blocks on `/proc`.
    pub(crate) fn note(&self, leader: Pid) {
        let leader = leader.as_raw_nonzero().get();
        let mut strays = Vec::new();
        Meter::default().figures_of(vec![leader], |stat| {
            if stat.pgrp != leader {
                strays.push((stat.pid, stat.starttime));
            }
        });
        if let Some(entry) = self.lock().get_mut(&leader) {
            entry.strays.extend(strays);
        }
    }

    /// Kills what left the group of `leader`, whose process has ended; answers how many that were. The entry is gone then.
    pub(crate) async fn sweep(self: &Arc<Self>, leader: Pid) -> u32 {
        let id = leader.as_raw_nonzero().get();
        let census = self.clone();
        let killed = tokio::task::spawn_blocking(move || census.kill_strays(id)).await;
        let (killed, watchdogs) = killed.unwrap_or_default();
        let until = Instant::now() + GONE_WAIT;
        let mut left: Vec<(i32, Started)> = killed.iter().chain(&watchdogs).copied().collect();
        loop {
            left.retain(|(pid, started)| {
                if let Some(pid) = Pid::from_raw(*pid) {
                    let _ = waitpid(Some(pid), WaitOptions::NOHANG); // not a child of ours: its parent waits
                }
                is(*pid, *started)
            });
            if left.is_empty() || Instant::now() > until {
                break;
            }
            sleep(GONE_PAUSE).await;
        }
        for (pid, started) in left {
            tracing::warn!(pid, "a process that an agent left behind is still there");
            kill(pid, started);
        }
        self.lock().remove(&id);
        u32::try_from(killed.len()).unwrap_or(u32::MAX)
    }

    /// Who was killed, and the watchdogs that end by themselves.
    #[allow(clippy::type_complexity, reason = "two lists of the same")]
    fn kill_strays(&self, leader: i32) -> (Vec<(i32, Started)>, Vec<(i32, Started)>) {
        let (roots, key, spawn) = {
            let entries = self.lock();
            let Some(entry) = entries.get(&leader) else {
                return Default::default();
            };
            (entry.strays.clone(), entry.key, entry.spawn)
        };
        let mut roots: Vec<i32> = roots
            .into_iter()
            .filter(|(pid, started)| is(*pid, *started))
            .map(|(pid, _)| pid)
            .collect();
        let marked = children()
            .into_iter()
            .filter(|child| child.pgrp != leader && is_marked(child.pid, key, spawn));
        roots.extend(marked.map(|child| child.pid));
        roots.sort_unstable();
        roots.dedup();
        let mut all = BTreeMap::new();
        Meter::default().figures_of(roots, |stat| {
            if stat.state != 'Z' {
                all.insert(stat.pid, stat.starttime);
            }
        });
        let (watchdogs, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(pid, _)| is_watchdog(*pid));
        let killed = others
            .into_iter()
            .filter(|(pid, started)| kill(*pid, *started));
        (killed.collect(), watchdogs)
    }
}

/// The children of this process.
fn children() -> Vec<procfs::process::Stat> {
    let Ok(tasks) = Process::myself().and_then(|own| own.tasks()) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| task.children().ok())
        .flatten()
        .filter_map(|pid| Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok())
        .collect()
}

/// Whether this very process still runs.
fn is(pid: i32, started: Started) -> bool {
    Process::new(pid)
        .and_then(|process| process.stat())
        .is_ok_and(|stat| stat.starttime == started && stat.state != 'Z')
}

fn is_marked(pid: i32, key: Key, spawn: u64) -> bool {
    let Ok(environment) = Process::new(pid).and_then(|process| process.environ()) else {
        return false;
    };
    let says = |name: &str, value: String| {
        let found = environment.get(std::ffi::OsStr::new(name));
        found.is_some_and(|found| found.to_str() == Some(&value))
    };
    says(AGENT_ID, key.agent.to_string()) && says(AGENT_SPAWN, spawn.to_string())
}

fn is_watchdog(pid: i32) -> bool {
    let words = Process::new(pid).and_then(|process| process.cmdline());
    words.is_ok_and(|words| words.last().is_some_and(|word| word == WATCHDOG))
}

/// Kills this very process: its id is checked while a handle to it is held.
fn kill(pid: i32, started: Started) -> bool {
    let Some(id) = Pid::from_raw(pid) else {
        return false;
    };
    let Ok(handle) = pidfd_open(id, PidfdFlags::empty()) else {
        return false;
    };
    is(pid, started) && pidfd_send_signal(handle, Signal::KILL).is_ok()
}
