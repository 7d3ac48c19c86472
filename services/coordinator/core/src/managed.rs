//! What is wanted of an agent, and what hosts make of it: its process, its going, its quarantine.

use serde::{Deserialize, Serialize};
use swarm_events::{
    InstanceId, Problem, Timestamp,
    agent::{
        AgentSpec, Exit, Figures, HostName, LimitedBy, Restart, RestartPolicy, SpawnReason,
        StopThen,
    },
    planted::{self, Bug},
};

/// An agent that was added: its settings are known before any process of it runs. With an adapter, hosts start its
/// process; without one it is a place for a process that is started by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managed {
    /// What it is; its name is filled in.
    pub spec: AgentSpec,
    /// It is to run. If not, it was taken out, or has ended and by its policy is not started again.
    pub wanted: bool,
    /// Requests for a process so far: the number of the current one, 0 if none.
    pub spawn: u64,
    /// What became of that request.
    pub phase: Phase,
    /// Crashes in a row.
    pub crashes: u32,
    /// Requests for a process after the first.
    pub restarts: u64,
    /// How a process of it ended last.
    pub last_exit: Option<LastExit>,
    /// The host that last declined the current request, and why.
    pub declined: Option<(HostName, Problem)>,
    /// When the next process is requested, by log time, if that must wait.
    pub restart_due: Option<Timestamp>,
    /// Limits that could not be set where the current process runs, by name.
    pub unlimited: Vec<String>,
    /// It has ended, and its policy does not start it again. A restart by order does.
    pub ended: bool,
    /// Stream sequence of `added`, or of the `scaled` that made it.
    pub added_seq: u64,
    /// Hash of the request body that added it under an `Idempotency-Key`.
    pub(crate) body_sha256: Option<String>,
    /// First 16 bytes of the SHA-256 of the spec as it was ordered.
    pub(crate) content: u128,
    /// Why the next process is requested.
    pub(crate) next: SpawnReason,
    /// The host of a process that was taken out before its end was known: what it says of that end still counts.
    pub(crate) unfit: Option<InstanceId>,
    /// The host of the current process was lost, and nobody has said what became of the process.
    pub(crate) host_lost: bool,
}

/// What became of the current request for a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// There is no process, and none is asked for.
    Idle,
    /// No host has taken it yet.
    Requested {
        /// When it was requested.
        since: Timestamp,
    },
    /// A host is about to start it.
    Claimed {
        /// Which.
        host: HostName,
        /// When it claimed it.
        since: Timestamp,
    },
    /// It runs.
    Running {
        /// Where.
        host: HostName,
        /// The process's id there.
        pid: u32,
        /// When it was launched.
        since: Timestamp,
        /// How its limits are held.
        limited_by: LimitedBy,
    },
    /// It ended too often in a row: only an order starts it again.
    GivenUp,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// When that was stored.
    pub at: Timestamp,
    /// How.
    pub exit: Exit,
    /// How long it had run, in milliseconds of the host's monotonic clock.
    pub uptime_ms: u64,
    /// The end of what it wrote.
    pub last_output: String,
}

/// An agent that has been told to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Log time at which it was told.
    pub since: Timestamp,
    /// How long it may take, in milliseconds.
    pub grace_ms: u64,
    /// What comes after.
    pub then: StopThen,
    /// Why.
    pub reason: String,
}
impl Draining {
    /// When it is removed if it has not gone by itself, by log time.
    pub const fn due(&self) -> Timestamp {
        self.since.plus_millis(self.grace_ms)
    }
}

/// Why an agent gets no new work for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// When the first of this cause without a break was stored.
    pub since: Timestamp,
    /// When it is over, by log time; `None`: when the figures are back below the limit.
    pub until: Option<Timestamp>,
    /// What it rests on.
    pub figures: Figures,
}

/// The life cycle as it is shown. A ready agent is busy if it runs a task, else idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// It is wanted, and there is no process of it.
    Pending,
    /// Its process is being started, or has not joined yet.
    Starting,
    /// It can work.
    Ready,
    /// It belongs to the swarm and gets no new work, or was given up.
    Unhealthy,
    /// It has gone.
    Stopped,
}

impl Managed {
    /// Hosts start its process.
    pub const fn has_adapter(&self) -> bool {
        self.spec.adapter.is_some()
    }
    /// The host that has its process in its hands.
    pub const fn host(&self) -> Option<&HostName> {
        match &self.phase {
            Phase::Claimed { host, .. } | Phase::Running { host, .. } => Some(host),
            Phase::Idle | Phase::Requested { .. } | Phase::GivenUp => None,
        }
    }
    /// A host has it, or is asked for it.
    pub const fn has_process(&self) -> bool {
        matches!(
            self.phase,
            Phase::Requested { .. } | Phase::Claimed { .. } | Phase::Running { .. }
        )
    }
    /// It ended too often in a row.
    pub const fn is_given_up(&self) -> bool {
        matches!(self.phase, Phase::GivenUp)
    }
    /// It has crashed as often in a row as it may.
    pub(crate) fn is_crash_looping(&self) -> bool {
        let limit = self.spec.restart.crash_limit;
        limit > 0 && self.crashes >= limit && !planted::is(Bug::CrashLoopForever)
    }
    /// It ended by its policy, and too soon for another to be tried in its place.
    pub(crate) fn ended_too_soon(&self) -> bool {
        let last = self.last_exit.as_ref();
        self.ended && last.is_some_and(|last| last.uptime_ms < self.spec.restart.stable_ms)
    }
    /// Notes an end that its policy judges: `crashed` if it came too soon. Answers whether it is started again.
    pub(crate) fn judge_end(&mut self, crashed: bool, succeeded: bool, now: Timestamp) -> bool {
        self.restart_due = None;
        let again = match self.spec.restart.restart {
            Restart::Always => true,
            Restart::OnFailure => !succeeded,
            Restart::Never => false,
        };
        if !again && !planted::is(Bug::PolicyIgnored) {
            self.wanted = false;
            self.ended = true;
            return false;
        }
        if crashed {
            self.crashes = self.crashes.saturating_add(1);
            let wait = backoff_ms(&self.spec.restart, self.crashes);
            self.restart_due =
                Some(now.plus_millis(wait)).filter(|_| !planted::is(Bug::BackoffSkipped));
        } else {
            self.crashes = 0;
        }
        true
    }
}

/// The wait after the `n`th crash in a row, in milliseconds.
pub(crate) fn backoff_ms(policy: &RestartPolicy, n: u32) -> u64 {
    let wait = 1u64
        .checked_shl(n.saturating_sub(1))
        .and_then(|factor| policy.backoff_ms.checked_mul(factor));
    wait.unwrap_or(u64::MAX).min(policy.backoff_cap_ms)
}
