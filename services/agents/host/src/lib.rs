//! The agent host: runs the processes of agents that the coordinator asks for.
//!
//! It holds no truth. What it runs is what the log says: a request that it claimed first (`swarm-agent-host-core`, `claims`), started as a
//! process group with a clean environment, a folder and credentials of its own (`process`), limited by cgroup v2 or rlimits,
//! stopped gracefully and then firmly, and reported as soon as it has ended (`reports`). A host that is killed takes its
//! processes along: a watchdog on a pipe sees to it.

mod allow;
mod beat;
mod census;
mod cgroup;
mod claims;
mod environment;
mod folder;
mod host;
mod output;
mod process;
mod reports;
mod user;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use swarm_agent_host_core::Key;
use swarm_events::{AgentId, InstanceId, subject::Place};
use swarm_log::LogError;

pub use allow::{Allow, WEBHOOK};
pub use beat::BEAT_INTERVAL;
pub use cgroup::{CgroupOf, Cgroups, Held};
pub use environment::LIMIT_MEMORY_KIB;
pub use host::{CLAIM_WAIT_MAX, CLAIM_WAIT_STEP, LEAVE_GRACE_MAX, run};
pub use output::{
    BYTES_PER_SECOND, LINE_BYTES_MAX, LINES_PER_SECOND, Line, Stream, TAIL_BYTES_MAX,
    TAIL_LINES_MAX, Tail,
};
pub use user::RunUser;

/// Makes the text of an agent's NATS credentials; `None` where nats-server asks for none. Blocks.
pub type Mint = Arc<dyn Fn(Place, AgentId) -> Result<Option<String>, String> + Send + Sync>;

/// Settings of a host.
#[derive(Clone)]
pub struct HostSettings {
    /// This process.
    pub instance: InstanceId,
    /// Its name, for people.
    pub name: String,
    /// What it may run.
    pub allow: Allow,
    /// How many processes at most.
    pub agents_max: u32,
    /// The user that agents run as; its own if absent.
    pub user: Option<RunUser>,
    /// Where agents' folders are made.
    pub dir: PathBuf,
    /// The `swarm` binary, which `exec` and `webhook` agents are.
    pub program: PathBuf,
    /// Where agents find nats-server.
    pub nats_url: String,
    /// Where the gateway is, for what is called back to an agent; left out of their environment if absent.
    pub api_url: Option<String>,
    /// Makes their credentials.
    pub mint: Mint,
    /// Whether to use cgroup v2 where it is there.
    pub cgroups: bool,
    /// The process does nothing but this: every dead child of it may be taken out of the process table.
    pub whole_process: bool,
    /// What it shows of itself.
    pub status: HostStatus,
}

/// What a host shows of itself, for its probes and its beat.
#[derive(Clone, Debug, Default)]
pub struct HostStatus(Arc<Shown>);

#[derive(Debug, Default)]
struct Shown {
    ready: AtomicBool,
    running: AtomicU32,
    room: AtomicU32,
    unreported: AtomicU32,
    limits: Mutex<String>,
}

impl HostStatus {
    /// It has met everything that the log asks for.
    pub fn ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }
    /// Processes that it has started and not yet seen off.
    pub fn running(&self) -> u32 {
        self.0.running.load(Ordering::Relaxed)
    }
    /// Processes that it may start beside them.
    pub fn room(&self) -> u32 {
        self.0.room.load(Ordering::Relaxed)
    }
    /// Agents of which the log has not yet taken every report.
    pub fn unreported(&self) -> u32 {
        self.0.unreported.load(Ordering::Relaxed)
    }
    /// How limits are held, in words.
    pub fn limits(&self) -> String {
        let limits = self.0.limits.lock();
        limits.unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn show(&self, ready: bool, running: usize, room: usize, unreported: usize) {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.0.ready.store(ready, Ordering::Relaxed);
        self.0.running.store(small(running), Ordering::Relaxed);
        self.0.room.store(small(room), Ordering::Relaxed);
        self.0
            .unreported
            .store(small(unreported), Ordering::Relaxed);
    }
    fn show_limits(&self, words: String) {
        *self.0.limits.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }
}

/// What agents wrote, of those that run here and of the last that did.
#[derive(Debug, Default)]
struct Tails(Mutex<TailsInner>);

#[derive(Debug, Default)]
struct TailsInner {
    tails: BTreeMap<Key, (u64, Arc<Tail>)>,
    uses: u64,
}

/// Agents whose last lines are kept: as many as may run, and as many that ran before.
const TAILS_KEPT: usize = 256;

impl Tails {
    fn get(&self, key: Key) -> Option<Arc<Tail>> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.tails.get(&key).map(|(_, tail)| tail.clone())
    }

    /// The tail of an agent of which a process starts.
    fn begin(&self, key: Key, running: usize) -> Arc<Tail> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let uses = inner.uses;
        let entry = inner.tails.entry(key).or_default();
        entry.0 = uses;
        let tail = entry.1.clone();
        while inner.tails.len() > running + TAILS_KEPT {
            let oldest = inner.tails.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            inner.tails.remove(&oldest);
        }
        tail
    }

    fn forget(&self, key: Key) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.tails.remove(&key);
    }
}

/// Why a host cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The log ended, or is not what it should be.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The folder for agents cannot be used.
    #[error("the folder of the agents cannot be used: {0}")]
    Folder(std::io::Error),
    /// The process that kills agents of a killed host cannot be started.
    #[error("no watchdog can be started, and agents would outlive a killed host: {0}")]
    Watchdog(std::io::Error),
    /// Orphans would escape.
    #[error("this process cannot become the reaper of orphans: {0}")]
    Reaper(std::io::Error),
}
