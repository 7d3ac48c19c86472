//! An agent in the state: its incarnation, its process, and what was found of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{
    InstanceId, Timestamp,
    agent::{Cause, Figures, HostName, Joined},
    swarm::AgentLoad,
};
use uuid::Uuid;

use crate::window::{Rate, Window};

/// Whether an agent's process is held to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// It is.
    Alive,
    /// It has been silent for a while.
    Suspected,
    /// It is held to be dead.
    Failed,
}

/// The process that a host was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The current request; 0 if there was none.
    pub spawn: u64,
    /// How far it is.
    pub phase: Phase,
    /// It is not started again after a verdict on its incarnation: its host keeps the claim until it was told to go.
    pub(crate) is_final: bool,
    /// It was told to go, or is to be: what becomes of its incarnation takes no claim away.
    pub(crate) told: bool,
}

/// How far a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// No host has claimed it.
    Open,
    /// A host starts it.
    Claimed(HostName),
    /// It runs there.
    Running(HostName),
    /// It has ended.
    Exited {
        /// The event that says so.
        event: Uuid,
        /// Its sequence.
        sequence: u64,
    },
    /// Its host was lost, and the claim with it.
    HostLost,
    /// It was told to go before a host claimed it.
    Withdrawn,
    /// It was taken out by a verdict on its incarnation, and counts as ended; this host has not said yet how it did.
    TakenOut(InstanceId),
}
impl Process {
    /// A request that no host has claimed.
    pub(crate) const fn open(spawn: u64, is_final: bool) -> Self {
        Self {
            spawn,
            phase: Phase::Open,
            is_final,
            told: false,
        }
    }

    /// The host whose claim holds.
    pub const fn host(&self) -> Option<&HostName> {
        self.phase.host()
    }
}

impl Phase {
    /// The host whose claim holds.
    pub(crate) const fn host(&self) -> Option<&HostName> {
        match self {
            Self::Claimed(host) | Self::Running(host) => Some(host),
            Self::Open
            | Self::Exited { .. }
            | Self::HostLost
            | Self::Withdrawn
            | Self::TakenOut(_) => None,
        }
    }
}

/// Why an agent gets no new work, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Log time at which it began.
    pub since: Timestamp,
    /// Log time at which it is over; absent: when the figures are back below the limit.
    pub until: Option<Timestamp>,
    /// What it rests on.
    pub figures: Figures,
    /// The event that began it, which its end names as its cause.
    pub(crate) event: Uuid,
}

/// What a sample said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Resident memory of the process tree, in KiB.
    pub memory_kib: u64,
    /// CPU of the process tree, in hundredths of a percent of one core.
    pub cpu_centipercent: u32,
    /// The last heartbeat that the log tells of.
    pub last_heartbeat_at: Timestamp,
    /// The sample.
    pub(crate) event: Uuid,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Current (or last) incarnation; 0: none has joined.
    pub incarnation: u64,
    /// Its process.
    pub instance: InstanceId,
    /// It belongs to the swarm.
    pub member: bool,
    /// Liveness.
    pub liveness: Liveness,
    /// What a host was asked to run.
    pub process: Process,
    /// The request that the current incarnation came from; 0: it was started by hand.
    pub spawn: u64,
    /// The event that told of the end of that process, until it is judged or the incarnation has gone. A newer request may
    /// come before that.
    pub(crate) ended: Option<Uuid>,
    /// Why it gets no new work.
    pub quarantine: BTreeMap<Cause, Quarantine>,
    /// Of the current incarnation.
    pub usage: Option<Usage>,
    /// Its figures in the last `measured` that named it. `completed` and `failed` go on from one incarnation to the next.
    pub load: AgentLoad,
    /// That `measured`.
    pub(crate) measured: Uuid,
    pub(crate) window: Window,
    /// Sequence of its last `joined`: figures from before it say nothing of this incarnation.
    pub(crate) joined: u64,
    /// `load` counts from the incarnation on. What an earlier one did last comes with the first figures of this one, so that
    /// these are only where counting begins.
    pub(crate) counts: bool,
    /// Quarantines for fast failures one after another, without a completed task between.
    pub(crate) in_a_row: u32,
    /// Fast failures that have been dealt with: only more of them mean anything.
    pub(crate) dealt_with: u32,
    /// Sequence of the last end of a quarantine for fast failures.
    pub(crate) released: u64,
    /// Sequence of the observation that is not answered yet.
    pub(crate) open: Option<u64>,
}

impl Agent {
    /// Nobody yet: no incarnation, no process.
    pub(crate) fn new(window_ms: u64) -> Self {
        Self {
            incarnation: 0,
            instance: InstanceId(Uuid::nil()),
            member: false,
            liveness: Liveness::Alive,
            process: Process::open(0, false),
            spawn: 0,
            ended: None,
            quarantine: BTreeMap::new(),
            usage: None,
            load: AgentLoad::default(),
            measured: Uuid::nil(),
            window: Window::new(window_ms),
            joined: 0,
            counts: true,
            in_a_row: 0,
            dealt_with: 0,
            released: 0,
            open: None,
        }
    }

    /// Takes a new incarnation, which starts clean: `sequence` is that of `joined`, `cause` that of what it was decided on.
    /// Answers with the observation of the old one that is settled by it.
    pub(crate) fn begin(
        &mut self,
        joined: &Joined,
        sequence: u64,
        cause: u64,
        window_ms: u64,
    ) -> Option<u64> {
        let (spawn, ended) = match self.process.phase {
            Phase::Claimed(_) | Phase::Running(_) => (self.process.spawn, None),
            // Its end crossed its joining: the process is gone already. Who joins after an end was started by hand.
            Phase::Exited { event, sequence } if cause < sequence => {
                (self.process.spawn, Some(event))
            }
            Phase::Open
            | Phase::Exited { .. }
            | Phase::HostLost
            | Phase::Withdrawn
            | Phase::TakenOut(_) => (0, None),
        };
        let open = self.open.take();
        let earlier = std::mem::replace(self, Self::new(window_ms));
        self.incarnation = joined.incarnation;
        self.instance = joined.instance;
        self.member = true;
        self.process = earlier.process;
        self.spawn = spawn;
        self.ended = ended;
        self.load = AgentLoad {
            completed: earlier.load.completed,
            failed: earlier.load.failed,
            ..AgentLoad::default()
        };
        self.joined = sequence;
        self.counts = earlier.incarnation == 0;
        open
    }

    /// It is no member any more. Answers with the observation that is settled by it.
    pub(crate) fn go(&mut self) -> Option<u64> {
        self.member = false;
        self.ended = None;
        self.quarantine.clear();
        self.open.take()
    }

    /// It is watched: a member that is not held to be dead.
    pub fn is_watched(&self) -> bool {
        self.member && self.liveness != Liveness::Failed
    }

    /// Its current incarnation came from this request.
    pub(crate) const fn is_of(&self, spawn: u64) -> bool {
        spawn != 0 && self.spawn == spawn
    }

    /// It may get new work, as far as health can tell.
    pub fn is_fit(&self) -> bool {
        self.member && self.liveness == Liveness::Alive && self.quarantine.is_empty()
    }

    /// How many of its attempts failed within the swarm's window. Of the current incarnation.
    pub fn rate(&self, now: Timestamp) -> Rate {
        self.window.rate(now)
    }

    /// The end of the process of the current incarnation, which nobody has judged yet: the event that told of it.
    pub(crate) fn unjudged_exit(&self) -> Option<Uuid> {
        self.ended.filter(|_| self.is_watched())
    }
}
