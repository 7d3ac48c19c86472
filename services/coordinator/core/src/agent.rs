//! An agent, as the log tells of it, and the status that follows.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};
use swarm_events::{
    InstanceId, Timestamp,
    agent::{Cause, Exit, Profile, StopThen},
};
use uuid::Uuid;

use crate::managed::{Draining, Lifecycle, Managed, Phase, Quarantine};

/// Whether an agent belongs to its swarm: the coordinator's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Membership {
    /// It is wanted, and no process of it has joined yet, or the last one has gone.
    Expected,
    /// It does.
    Live,
    /// It left by its own word.
    Left,
    /// It was removed.
    Removed,
}

/// Whether an agent's process is held to be alive: health's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// It is.
    Alive,
    /// It has been silent for a while.
    Suspected,
    /// It is held to be dead.
    Failed,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// What its process said of itself; before one has joined, what its spec says.
    pub profile: Profile,
    /// Number of its joins so far: its current (or last) incarnation; 0 if none has joined.
    pub incarnation: u64,
    /// Its current (or last) process; nil if none has joined.
    pub instance: InstanceId,
    /// When its `added`, or else its first `joined`, was stored.
    pub created_at: Timestamp,
    /// When its last `joined` was stored; zero if there is none.
    pub joined_at: Timestamp,
    /// Stream sequence of that `joined`, 0 if there is none.
    pub joined_seq: u64,
    /// Sequence of the `joined` since which it has belonged to the swarm without a break: its age among the others.
    pub arrived_seq: u64,
    /// The request for a process to which that incarnation belongs; 0 if it was started by hand.
    pub joined_spawn: u64,
    /// Membership.
    pub membership: Membership,
    /// When its last incarnation left or was removed, or it was taken out.
    pub left_at: Option<Timestamp>,
    /// Why.
    pub left_reason: Option<String>,
    /// Liveness.
    pub liveness: Liveness,
    /// What is wanted of it, if it was added; `None`: it came by itself.
    pub managed: Option<Managed>,
    /// It has been told to go.
    pub draining: Option<Draining>,
    /// Why it gets no new work, by cause.
    pub quarantine: BTreeMap<Cause, Quarantine>,
    /// Log time since which it has been quarantined without a break.
    pub quarantined_since: Option<Timestamp>,
    /// Sequence of the `failed` that asks for its removal.
    pub(crate) lost: Option<u64>,
    /// It is to be told to go, and why.
    pub(crate) dismissed: Option<Dismissed>,
    /// The host of its live incarnation said that its process ended.
    pub(crate) process_ended: bool,
    /// Its process had ended when its join was met: nobody else would say so.
    pub(crate) stillborn: bool,
    /// Id and sequence of the event that changed it last: what the answer to its state names as its cause.
    pub(crate) changed: (Uuid, u64),
    /// Deciding on it failed: nothing is decided until something changes it.
    pub(crate) set_aside: bool,
}

/// An order to go that follows from another event than the agent's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dismissed {
    pub(crate) reason: String,
    /// Its policy does not start it again: its process is stopped at once, and an order may start it anew.
    pub(crate) by_policy: bool,
}

impl Agent {
    /// It belongs to the swarm.
    pub fn is_live(&self) -> bool {
        self.membership == Membership::Live
    }
    /// It belongs to the swarm, and nothing speaks against its being alive.
    pub fn is_healthy(&self) -> bool {
        self.is_live() && self.liveness == Liveness::Alive
    }
    /// It was added, and is to run.
    pub fn is_wanted(&self) -> bool {
        self.managed.as_ref().is_some_and(|m| m.wanted)
    }
    /// It is to go for good.
    pub fn is_leaving(&self) -> bool {
        self.dismissed.is_some()
            || self
                .draining
                .as_ref()
                .is_some_and(|d| d.then == StopThen::Remove)
    }
    /// It belongs to the swarm, or is to: it counts against `max_agents`, and its name is its own.
    pub fn holds_place(&self) -> bool {
        self.is_live() || self.is_wanted()
    }
    /// Something about it makes its swarm degraded: it is suspected, failed, quarantined or crash-looping.
    pub(crate) fn is_troubled(&self) -> bool {
        let live = self.is_live();
        live && (self.liveness != Liveness::Alive || !self.quarantine.is_empty())
            || self.is_wanted() && self.managed.as_ref().is_some_and(Managed::is_given_up)
    }

    /// Its life cycle as it is shown.
    pub fn lifecycle(&self) -> Lifecycle {
        if self.is_live() {
            return if self.liveness == Liveness::Alive && self.quarantine.is_empty() {
                Lifecycle::Ready
            } else {
                Lifecycle::Unhealthy
            };
        }
        match &self.managed {
            Some(managed) if managed.wanted => match managed.phase {
                Phase::Idle | Phase::Requested { .. } => Lifecycle::Pending,
                Phase::Claimed { .. } | Phase::Running { .. } => Lifecycle::Starting,
                Phase::GivenUp => Lifecycle::Unhealthy,
            },
            _ => Lifecycle::Stopped,
        }
    }

    /// Why its status is what it is, in words; `None` if there is nothing to say.
    pub fn status_reason(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(draining) = &self.draining {
            let then = match draining.then {
                StopThen::Remove => "it is removed",
                StopThen::Restart => "its process is started anew",
            };
            parts.push(format!(
                "told to go ({}): has until {}, then {then}",
                draining.reason,
                draining.due()
            ));
        }
        if self.is_live() {
            match self.liveness {
                Liveness::Alive => {}
                Liveness::Suspected => parts.push("suspected: not heard for a while".to_owned()),
                Liveness::Failed => parts.push("failed: held to be dead".to_owned()),
            }
            parts.extend(
                self.quarantine
                    .iter()
                    .map(|(cause, q)| quarantined(*cause, q)),
            );
        } else if let Some(managed) = self.managed.as_ref().filter(|m| m.wanted) {
            parts.push(waiting_for(managed));
        } else if let Some(reason) = &self.left_reason {
            parts.push(reason.clone());
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// Why a wanted agent does not work yet.
fn waiting_for(managed: &Managed) -> String {
    let spawn = managed.spawn;
    match &managed.phase {
        Phase::Idle if !managed.has_adapter() => {
            "waits for its process, which is started by hand".to_owned()
        }
        Phase::Idle => match (managed.restart_due, &managed.last_exit) {
            (Some(due), Some(last)) if managed.crashes > 0 => format!(
                "crashed {} times in a row, last by {}: started again at {due}",
                managed.crashes,
                ended_by(&last.exit)
            ),
            (Some(due), _) => format!("started again at {due}"),
            (None, _) => "its process is about to be requested".to_owned(),
        },
        Phase::Requested { since } => {
            let mut text = format!("no host has taken process {spawn} since {since}");
            if let Some((host, problem)) = &managed.declined {
                let _ = write!(text, "; host {} declined: {problem}", host.name);
            }
            text
        }
        Phase::Claimed { host, since } => {
            format!("host {} starts process {spawn} since {since}", host.name)
        }
        Phase::Running {
            host, pid, since, ..
        } => format!(
            "process {spawn} (pid {pid} on host {}) runs since {since} and has not joined",
            host.name
        ),
        Phase::GivenUp => {
            let last = managed.last_exit.as_ref();
            let how = last.map_or_else(|| "an unknown end".to_owned(), |l| ended_by(&l.exit));
            format!(
                "crash-looping: given up after {} crashes in a row, last by {how}; restart it to try again",
                managed.crashes
            )
        }
    }
}

/// How a process ended, in words.
pub(crate) fn ended_by(exit: &Exit) -> String {
    if exit.out_of_memory {
        return "the memory limit".to_owned();
    }
    match (exit.code, exit.signal, &exit.error) {
        (_, _, Some(error)) => format!("not starting: {error}"),
        (Some(code), _, _) => format!("exit code {code}"),
        (_, Some(signal), _) => format!("signal {signal}"),
        _ => "an unknown end".to_owned(),
    }
}

/// What a quarantine rests on, in words.
pub(crate) fn quarantined(cause: Cause, quarantine: &Quarantine) -> String {
    let figures = quarantine.figures;
    let (value, limit) = (figures.value, figures.limit);
    let what = match cause {
        Cause::FastFailures => {
            format!("{value} attempts failed fast in a row, the limit is {limit}")
        }
        Cause::ErrorRate => format!(
            "{value} % of {} attempts failed, the limit is {limit} %",
            figures.attempts
        ),
        Cause::Memory => format!("uses {value} KiB of memory, the limit is {limit} KiB"),
        Cause::Cpu => {
            format!("uses {value} hundredths of a percent of one core, the limit is {limit}")
        }
        Cause::Stuck => {
            format!("a task has shown no progress for {value} ms, the limit is {limit} ms")
        }
    };
    match quarantine.until {
        Some(until) => format!(
            "quarantined since {} until {until}: {what}",
            quarantine.since
        ),
        None => format!("quarantined since {}: {what}", quarantine.since),
    }
}
