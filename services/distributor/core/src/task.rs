//! A task in the state: what it is, where it stands, and what is kept of it when it has ended.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use swarm_events::{
    GraphId, Json, Problem, SwarmId, TaskId, Timestamp,
    configuration::RetryPolicy,
    planted::{self, Bug},
    task::{DependencyType, Origin, Step},
};
use uuid::Uuid;

use crate::swarm::Settings;

/// Largest payload that the state holds, in bytes. Above it the sequence of `submitted` is enough: the shell reads it when
/// it assigns. A kibibyte keeps a million queued tasks within 1.5 GB and saves most assignments a read.
pub const PAYLOAD_HELD_BYTES_MAX: usize = 1024;

/// So often agents may decline a task in one generation; then it fails with the last reason. As many as an assignment names
/// candidates: a task that eight agents in a row do not want is for a person to look at.
pub const DECLINES_MAX: u8 = 8;

/// Who declined a task in this generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declines {
    /// How often it was declined: an agent may do so again, if there is no other.
    pub(crate) count: u8,
    /// Numbers of the agents, sorted.
    pub(crate) agents: Vec<u32>,
    /// What the last one said.
    pub(crate) reason: Box<str>,
    /// Before then none of them gets it again, though there be no other; zero once that is over.
    pub(crate) until: Timestamp,
}

/// An assignment as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Sequence of `assigned`.
    pub(crate) assignment: u64,
    /// Incarnation of the agent that it was given to.
    pub(crate) incarnation: u64,
    /// When it was assigned; from `started` on, when it was started.
    pub(crate) at: Timestamp,
    /// Number of the agent in its swarm.
    pub(crate) agent: u32,
    /// It was assigned in a turn of a ring's token.
    pub(crate) by_turn: bool,
}

/// Where a live task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// A part of a graph that has not been accepted.
    Staged,
    /// So many dependencies are open.
    Pending { open: u32 },
    /// It is queued again then.
    Delayed { until: Timestamp },
    /// It waits for an agent.
    Queued,
    /// It is an agent's.
    Assigned(Held),
    /// The agent works on it.
    Running(Held),
    /// Its attempt failed: `retried` or `failed` is to be written.
    Failing,
    /// Its end is to be written: the [`Outcome`] in [`More`].
    Ending,
    /// It was split, and so many of its parts are open.
    Parted { open: u32 },
    /// Another swarm is to do it: `handed_over` is to be written.
    Handing,
    /// Another swarm has it.
    Away,
}
impl Phase {
    pub(crate) const fn held(&self) -> Option<&Held> {
        match self {
            Self::Assigned(held) | Self::Running(held) => Some(held),
            _ => None,
        }
    }
}

/// An end that is still to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Failed {
        error: Box<str>,
        dead_lettered: bool,
        because_of: Option<TaskId>,
        /// How the failure came here, up to `because_of`.
        path: Box<[TaskId]>,
    },
    Cancelled {
        reason: Box<str>,
        by: Option<Uuid>,
    },
    Rejected {
        problem: Problem,
        retry_after_ms: Option<u64>,
    },
}

/// An edge to a task that must come first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edge {
    pub(crate) task: TaskId,
    pub(crate) kind: DependencyType,
    pub(crate) alias: Option<Box<str>>,
}

/// A part of a task that was split, at the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) key: Box<str>,
    pub(crate) id: TaskId,
    /// Sequence of its result; 0 while it is open.
    pub(crate) result: u64,
}

/// The parts of a task that was split, from then until this generation of it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// The assignment under which it was split.
    pub(crate) assignment: u64,
    /// Number of the agent that split it.
    pub(crate) agent: u32,
    pub(crate) pieces: Box<[Piece]>,
}

/// What a part knows of the task that it is a part of, which is its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartOf {
    /// The assignment under which that was split: parts of an earlier generation are nothing to a later one.
    pub(crate) assignment: u64,
    pub(crate) index: u32,
    /// 1 for a part of a task that is no part itself.
    pub(crate) depth: u8,
}

/// Another swarm is to do a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hand {
    pub(crate) to: SwarmId,
    /// It has been handed over, in this generation, and is not back.
    pub(crate) away: bool,
    pub(crate) trace: Option<Box<str>>,
}

/// A task is done for another swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct For {
    pub(crate) origin: Origin,
    pub(crate) trace: Option<Box<str>>,
}

/// What few tasks have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct More {
    pub(crate) parent: Option<TaskId>,
    pub(crate) affinity: Option<Box<str>>,
    pub(crate) correlation: Option<Uuid>,
    pub(crate) graph: Option<(GraphId, u32)>,
    pub(crate) depends: Box<[Edge]>,
    /// Its edges count at the tasks that they name.
    pub(crate) linked: bool,
    /// Live tasks for which the end of this one is an open dependency, by number.
    pub(crate) dependents: BTreeSet<u32>,
    /// Live tasks that name it, open or not: it is remembered as long.
    pub(crate) named: u32,
    /// Error of the last attempt, or why it ended.
    pub(crate) error: Option<Box<str>>,
    /// Whether another attempt could help ([`Phase::Failing`]).
    pub(crate) retryable: bool,
    /// Its agent's result could not be used: the assignment is to be withdrawn.
    pub(crate) bad_result: bool,
    /// Its graph was called off: it is to be cancelled, wherever it stands.
    pub(crate) called_off: bool,
    pub(crate) outcome: Option<Outcome>,
    /// The task whose end made it fail (ended tasks).
    pub(crate) because_of: Option<TaskId>,
    /// How the failure came to it, the first cause first (ended tasks).
    pub(crate) path: Box<[TaskId]>,
    /// Its own limits, where it names any; 0: none.
    pub(crate) queue_timeout_ms: Option<u64>,
    pub(crate) progress_timeout_ms: Option<u64>,
    /// When the running attempt was last heard of.
    pub(crate) progressed_at: Timestamp,
    /// When an attempt that had begun was taken away without being counted as failed: the task keeps its place in the
    /// queue, and its queue limit begins anew then. 0: the limit counts from `queued_at`.
    pub(crate) requeued_at: Timestamp,
    /// How often idle agents took it over.
    pub(crate) steals: u8,
    /// Number of the agent from which it was taken over, until it starts.
    pub(crate) stolen_from: Option<u32>,
    /// Number of the agent that had it last, once it has it no more.
    pub(crate) last_agent: Option<u32>,
    pub(crate) declines: Option<Box<Declines>>,
    pub(crate) part: Option<PartOf>,
    pub(crate) parts: Option<Box<Parts>>,
    pub(crate) hand: Option<Box<Hand>>,
    pub(crate) done_for: Option<Box<For>>,
    /// How often its work was handed on from swarm to swarm to come here.
    pub(crate) hops: u8,
}

/// A live task, or the definition of an ended one that can be retried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    /// Id of its `submitted`: what decisions about it answer, if not a command.
    pub(crate) event: Uuid,
    /// Hash of its `submitted`.
    pub(crate) content: [u64; 2],
    /// Sequence of its `submitted`.
    pub(crate) submitted: u64,
    pub(crate) created_at: Timestamp,
    /// What its rank derives from; 0 before it was queued.
    pub(crate) queued_at: Timestamp,
    /// 0 before its first attempt.
    pub(crate) started_at: Timestamp,
    /// Sequence of the input that changed it last.
    pub(crate) changed: u64,
    pub(crate) phase: Phase,
    pub(crate) payload: Option<Json>,
    pub(crate) more: Option<Box<More>>,
    /// Number of its type among its swarm's.
    pub(crate) task_type: u32,
    /// Number of its set of required capabilities among its swarm's.
    pub(crate) class: u32,
    /// [`swarm_events::configuration::TIMEOUT_MS_MAX`] fits.
    pub(crate) timeout_ms: u32,
    pub(crate) generation: u32,
    /// [`swarm_events::configuration::ATTEMPTS_MAX`] fits.
    pub(crate) max_attempts: u8,
    /// Attempts started in this generation.
    pub(crate) attempts: u8,
    pub(crate) priority: u8,
}
impl Task {
    pub(crate) fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
    pub(crate) fn edges(&self) -> &[Edge] {
        self.more.as_ref().map_or(&[], |more| &more.depends)
    }
    /// It was taken away from a busy agent, and has not started anywhere since.
    pub(crate) fn stolen(&self) -> bool {
        self.more
            .as_ref()
            .is_some_and(|more| more.stolen_from.is_some())
    }
    pub(crate) fn correlation(&self) -> Uuid {
        self.more
            .as_ref()
            .and_then(|more| more.correlation)
            .unwrap_or(self.id.0)
    }
    pub(crate) fn part(&self) -> Option<PartOf> {
        self.more.as_ref()?.part
    }
    pub(crate) fn parts(&self) -> Option<&Parts> {
        self.more.as_ref()?.parts.as_deref()
    }
    pub(crate) fn hand(&self) -> Option<&Hand> {
        self.more.as_ref()?.hand.as_deref()
    }
    pub(crate) fn done_for(&self) -> Option<&For> {
        self.more.as_ref()?.done_for.as_deref()
    }
    pub(crate) fn hops(&self) -> u8 {
        self.more.as_ref().map_or(0, |more| more.hops)
    }
    /// What its next assignment is to do.
    pub(crate) fn step(&self) -> Step {
        match self.parts() {
            Some(_) => Step::Reduce,
            None => Step::Work,
        }
    }
    /// Number of the agent that its next assignment goes to if that can take it: who split a task reduces it.
    pub(crate) fn prefers(&self) -> Option<u32> {
        Some(self.parts()?.agent)
    }
    /// The phase in which it is once nothing is in its way.
    pub(crate) fn ready(&self) -> Phase {
        match self.hand() {
            Some(_) => Phase::Handing,
            None => Phase::Queued,
        }
    }
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.more.as_ref()?.outcome.as_ref()
    }
    pub(crate) fn graph(&self) -> Option<GraphId> {
        Some(self.more.as_ref()?.graph?.0)
    }
    pub(crate) fn called_off(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.called_off)
    }
    /// When the running attempt is taken away for its run limit.
    pub(crate) fn run_timeout_at(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Running(held) => Some(held.at.plus_millis(u64::from(self.timeout_ms))),
            _ => None,
        }
    }
    /// When the running attempt is taken away for want of progress.
    pub(crate) fn progress_timeout_at(&self, settings: &Settings) -> Option<Timestamp> {
        let Phase::Running(held) = &self.phase else {
            return None;
        };
        let more = self.more.as_deref();
        let limit = more
            .and_then(|more| more.progress_timeout_ms)
            .unwrap_or(settings.progress_timeout_ms);
        (limit > 0).then(|| self.heard_at(held).plus_millis(limit))
    }
    /// When the running attempt was last heard of. What an earlier attempt was heard of does not count.
    pub(crate) fn heard_at(&self, held: &Held) -> Timestamp {
        let more = self.more.as_deref();
        more.map_or(held.at, |more| more.progressed_at.max(held.at))
    }
    pub(crate) fn declines(&self) -> Option<&Declines> {
        self.more.as_deref()?.declines.as_deref()
    }
    /// When the running attempt is taken away, for whatever is due first.
    pub(crate) fn timeout_at(&self, settings: &Settings) -> Option<Timestamp> {
        let run = self.run_timeout_at().into_iter();
        run.chain(self.progress_timeout_at(settings)).min()
    }
    /// From when its queue limit counts.
    pub(crate) fn waits_from(&self) -> Timestamp {
        match self.more.as_deref() {
            Some(more) if more.requeued_at != Timestamp::ZERO => more.requeued_at,
            _ => self.queued_at,
        }
    }
    /// When it has waited too long for its start.
    pub(crate) fn queue_timeout_at(&self, settings: &Settings) -> Option<Timestamp> {
        if !matches!(self.phase, Phase::Queued | Phase::Assigned(_)) {
            return None;
        }
        let own = self.more.as_deref().and_then(|more| more.queue_timeout_ms);
        let limit = own.unwrap_or(settings.queue_timeout_ms);
        (limit > 0 && !planted::is(Bug::QueueTimeoutNever))
            .then(|| self.waits_from().plus_millis(limit))
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    Completed,
    Failed { dead_lettered: bool },
    Cancelled,
    Rejected,
}
impl How {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "been cancelled",
            Self::Rejected => "been rejected",
        }
    }
}

/// What is remembered of an ended task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) content: [u64; 2],
    pub(crate) submitted: u64,
    /// Sequence of the event that ended it; of a completed task, where its result is.
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
    pub(crate) how: How,
    /// Live tasks that name it.
    pub(crate) named: u32,
    /// Past the horizon: forgotten when nobody names it any more.
    pub(crate) overdue: bool,
    /// It was a dead letter, and a person has put it away.
    pub(crate) discarded: bool,
    /// What a retry needs; failed and cancelled tasks only.
    pub(crate) definition: Option<Box<Task>>,
}

/// The two halves of a content hash.
pub(crate) const fn halves(content: u128) -> [u64; 2] {
    [(content >> 64) as u64, content as u64]
}

/// The wait before the attempt that follows `attempts` failed ones, and before an agent is offered again what was declined
/// so often: the policy's, plus up to a quarter that derives from
/// the task's id, so that tasks that failed together do not come back together.
pub(crate) fn retry_delay_ms(policy: &RetryPolicy, attempts: u32, id: TaskId) -> u64 {
    let mut delay = policy.base_ms;
    for _ in 1..attempts {
        if delay >= policy.cap_ms {
            break;
        }
        delay = delay.saturating_mul(u64::from(policy.factor_percent)) / 100;
    }
    delay = delay.min(policy.cap_ms);
    // The finalizer of SplitMix64 over the id's random half.
    let mut mixed = id.0.as_u128() as u64 ^ u64::from(attempts).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    delay + (mixed ^ (mixed >> 31)) % (delay / 4 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_with_at_most_a_quarter_on_top() {
        let policy = RetryPolicy {
            base_ms: 100,
            factor_percent: 200,
            cap_ms: 1_000,
        };
        let id = TaskId(Uuid::from_u128(7));
        for (attempts, plain) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (4, 800),
            (5, 1_000),
            (90, 1_000),
        ] {
            let delay = retry_delay_ms(&policy, attempts, id);
            assert!(
                (plain..=plain + plain / 4).contains(&delay),
                "{attempts}: {delay}"
            );
            assert_eq!(delay, retry_delay_ms(&policy, attempts, id));
        }
    }

    #[test]
    fn tasks_that_failed_together_do_not_come_back_together() {
        let policy = RetryPolicy::default();
        let delays: std::collections::BTreeSet<u64> = (0..100)
            .map(|n| retry_delay_ms(&policy, 1, TaskId(Uuid::from_u128(n))))
            .collect();
        assert!(delays.len() > 40, "{delays:?}");
    }

    #[test]
    fn a_task_is_small() {
        assert!(size_of::<Task>() <= 192, "{}", size_of::<Task>());
        assert!(size_of::<Ended>() <= 72, "{}", size_of::<Ended>());
    }
}
