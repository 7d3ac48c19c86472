//! A replica of a service: which partitions it folds, which of them it wants to own, and what must be done for that. Without
//! clock or IO, so that the loop on a real log and a simulation run the same code.
//!
//! A partition is folded by the first two live members in rendezvous order, and owned by the first of them that has folded
//! it to the end. It reaches its end in a *join*: a snapshot and the log behind it, folded beside the loop. Then it is
//! claimed, and the fence ends what its owner before still writes.

mod joins;
mod presence;
mod roles;

use std::{collections::BTreeSet, time::Duration};

use swarm_events::{
    Input, Partition, Timestamp,
    control::Observed,
    decider::{Decider, Decision, Verdict},
    envelope::Decided,
    ids::InstanceId,
    subject::PARTITIONS,
};

use super::{
    machine::{Machine, Met, Mode, Need},
    members::{Announcement, Members},
};
use crate::snapshots;

/// For each so many bytes of the last snapshot, as many events more: writing it takes time of the same order as reading them.
pub const SNAPSHOT_BYTES_STEP: u64 = 64 * 1024 * 1024;
/// Between two snapshots at least: all partitions are due at about the same time, and each takes a few milliseconds.
pub const SNAPSHOT_PAUSE: Duration = Duration::from_millis(50);
/// A replica that lost a partition to another does not claim it back before this: two that judge differently would take it
/// from each other without end.
pub const RECLAIM_AFTER: Duration = Duration::from_secs(1);
/// What a replica has just folded it does not claim before it has heard a renewal of everybody who is there: by their last
/// one they may not have folded it yet.
pub const SETTLE: Duration = Duration::from_millis(600);
/// A replica that leaves waits so long for others to take over.
pub const LEAVE_MAX: Duration = Duration::from_secs(3);
/// Changes of one's partitions are announced no more often than this, beside the renewals.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(20);
/// A replica that heard nothing of the log for so long was cut off.
pub const CUT_OFF_AFTER: Duration = Duration::from_millis(1_500);
/// A join that failed is tried again after this.
const JOIN_RETRY: Duration = Duration::from_millis(500);
/// Most observations that wait for a partition to be owned; what is over it is not recorded.
const OBSERVATIONS_MAX: usize = 64;

/// What must be done.
#[derive(Debug)]
pub enum Action {
    /// Put the presence key, and say when it is acknowledged ([`Replica::renewed`]).
    Announce(Box<Announcement>),
    /// Remove the presence key of a member: one's own at the end, or that of one that has been dead for long.
    Remove(InstanceId),
    /// Append what a machine needs.
    Append(Partition, Need),
    /// Append an observation under the epoch of the partition's claim.
    Observe(Partition, Observed),
    /// Fold these partitions to the log's end ([`Replica::joined`] or [`Replica::join_failed`]).
    Join(Vec<Partition>),
    /// Take a snapshot of this partition ([`Replica::snapshotted`]).
    Snapshot(Partition),
    /// Everything is handed over: end.
    End,
}

/// A partition that a join has folded.
#[derive(Debug)]
pub struct Joined<D> {
    /// Its state.
    pub state: D,
    /// Sequence and bytes of the snapshot that it started from, zeros if none.
    pub snapshot: (u64, u64),
}

struct Slot<D: Decider> {
    machine: Machine<D>,
    since: Timestamp,
    /// It is not claimed before this, unless nobody else is there.
    not_before: Duration,
    /// Sequence and bytes of its last snapshot.
    snapshot: (u64, u64),
}

/// A process of the service `D`.
pub struct Replica<D: Decider> {
    instance: InstanceId,
    name: Option<String>,
    started_at: Timestamp,
    universe: Vec<Partition>,
    members: Members,
    slots: Vec<Option<Slot<D>>>,
    /// When each machine wants to be polled, as of its last change: 64 deadlines need not be asked for at every input.
    due: Vec<Option<Duration>>,
    /// No machine wants to be polled before this.
    next_due: Option<Duration>,
    /// Partitions that hold what this version cannot fold.
    unfoldable: BTreeSet<Partition>,
    /// Last sequence of the stream that was met, and the highest store time.
    position: u64,
    log_time: Timestamp,
    /// All presence keys have been read once.
    complete: bool,
    joining: Option<BTreeSet<Partition>>,
    /// The join is to be started.
    join_asked: bool,
    join_not_before: Duration,
    leaving: Option<Duration>,
    ended: bool,
    counter: u64,
    announced: Option<Duration>,
    changed: bool,
    assess: bool,
    /// When it is to be assessed again by itself.
    assess_at: Option<Duration>,
    snapshot_every: u64,
    snapshot_not_before: Duration,
    snapshotting: bool,
    /// The last look found one due: there may be more.
    more_snapshots: bool,
    interrupted: Option<(Duration, Timestamp)>,
    observations: Vec<Observed>,
}

impl<D: Decider> Replica<D> {
    /// A replica that knows nothing yet. `universe`: the partitions that its service has, normally all.
    pub fn new(
        instance: InstanceId,
        name: Option<String>,
        started_at: Timestamp,
        universe: Vec<Partition>,
    ) -> Self {
        Self {
            instance,
            members: Members::new(instance, name.clone(), started_at),
            name,
            started_at,
            universe,
            slots: (0..PARTITIONS).map(|_| None).collect(),
            due: vec![None; usize::from(PARTITIONS)],
            next_due: None,
            unfoldable: BTreeSet::new(),
            position: 0,
            log_time: Timestamp::ZERO,
            complete: false,
            joining: None,
            join_asked: false,
            join_not_before: Duration::ZERO,
            leaving: None,
            ended: false,
            counter: 0,
            announced: None,
            changed: true,
            assess: true,
            assess_at: None,
            snapshot_every: snapshots::EVERY,
            snapshot_not_before: Duration::ZERO,
            snapshotting: false,
            more_snapshots: false,
            interrupted: None,
            observations: Vec::new(),
        }
    }

    /// Takes snapshots this many stream events apart.
    #[must_use]
    pub const fn with_snapshots_every(mut self, events: u64) -> Self {
        self.snapshot_every = events;
        self
    }

    /// The process.
    pub const fn instance(&self) -> InstanceId {
        self.instance
    }
    /// Last sequence met; the log is read from the next one on.
    pub const fn position(&self) -> u64 {
        self.position
    }
    /// Whether a first join has come to its end: from then on the log is followed.
    pub fn follows(&self) -> bool {
        self.complete && (self.position > 0 || self.slots.iter().any(Option::is_some))
    }
    /// The machine of a partition that is folded here.
    pub fn machine(&self, partition: Partition) -> Option<&Machine<D>> {
        self.slots[index(partition)]
            .as_ref()
            .map(|slot| &slot.machine)
    }
    /// The machine of a partition, to tell it what came of its appends. [`Replica::touched`] must follow.
    pub fn machine_mut(&mut self, partition: Partition) -> Option<&mut Machine<D>> {
        self.slots[index(partition)]
            .as_mut()
            .map(|slot| &mut slot.machine)
    }
    /// Partitions that are folded here.
    pub fn folded(&self) -> impl Iterator<Item = Partition> + '_ {
        self.universe
            .iter()
            .copied()
            .filter(|p| self.slots[index(*p)].is_some())
    }
    /// How many partitions it decides for.
    pub fn owned(&self) -> usize {
        self.slots
            .iter()
            .flatten()
            .filter(|slot| matches!(slot.machine.mode(), Mode::Owner { .. }))
            .count()
    }
    /// How many it should decide for, as it judges.
    pub fn wanted(&self) -> usize {
        self.universe
            .iter()
            .filter(|p| self.owner_of(**p) == Some(self.instance))
            .count()
    }
    /// Partitions that hold what this version cannot fold.
    pub const fn unfoldable(&self) -> &BTreeSet<Partition> {
        &self.unfoldable
    }
    /// The members as judged here.
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// The log is not heard. `wall` is by this process's clock.
    pub fn interrupted(&mut self, now: Duration, wall: Timestamp) {
        self.interrupted.get_or_insert((now, wall));
        self.changed = true;
    }
    /// The log is heard again.
    pub fn resumed(&mut self, now: Duration, wall: Timestamp) {
        let Some((at, since)) = self.interrupted.take() else {
            return;
        };
        self.changed = true;
        // If others are there, one of them has seen it.
        if self.members.is_alone() && now.saturating_sub(at) >= CUT_OFF_AFTER {
            self.observations.push(Observed::CutOff {
                instance: self.instance,
                since,
                until: Some(wall),
            });
        }
    }

    /// Takes note of a message that was read, of whatever partition.
    pub fn passed(&mut self, sequence: u64, time: Timestamp) {
        self.position = self.position.max(sequence);
        self.log_time = self.log_time.max(time);
    }
    /// Whether `partition` is folded here and has not met `sequence` yet.
    pub fn wants(&self, partition: Partition, sequence: u64) -> bool {
        self.slots[index(partition)]
            .as_ref()
            .is_some_and(|slot| slot.machine.state().head().sequence < sequence)
    }
    /// Folds an input of `partition`; `None` if it is not folded here, or has met it.
    pub fn fold(
        &mut self,
        partition: Partition,
        input: &Input,
        now: Duration,
    ) -> Option<(Verdict, Met)> {
        if !self.wants(partition, input.sequence()) {
            return None;
        }
        let slot = self.slots[index(partition)].as_mut()?;
        let (verdict, met) = slot.machine.fold(input, now);
        match met {
            Met::Nothing => {}
            Met::Owned => {}
            Met::Lost => slot.not_before = now + RECLAIM_AFTER,
        }
        if met != Met::Nothing {
            slot.since = input.time();
            self.changed = true;
            self.assess = true;
        }
        self.touched(partition);
        Some((verdict, met))
    }
    /// A newer version wrote something of `partition`: it is folded no further, and never claimed here.
    pub fn cannot_fold(&mut self, partition: Partition) {
        self.slots[index(partition)] = None;
        self.due[index(partition)] = None;
        self.unfoldable.insert(partition);
        self.changed = true;
        self.assess = true;
    }
    /// Answers of the partition's owner.
    pub fn decide(&mut self, partition: Partition, now: Duration) -> Vec<(Decision, Decided)> {
        let Some(slot) = self.slots[index(partition)].as_mut() else {
            return Vec::new();
        };
        let before = slot.machine.is_stuck();
        let decisions = slot.machine.decide(now);
        if before != slot.machine.is_stuck() {
            self.changed = true;
            self.assess = true;
        }
        decisions
    }
    /// A machine was told something: its deadline may be another.
    pub fn touched(&mut self, partition: Partition) {
        let due = self.slots[index(partition)]
            .as_ref()
            .and_then(|slot| slot.machine.next_poll());
        self.due[index(partition)] = due;
        if let Some(due) = due {
            self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
        }
    }
}

fn index(partition: Partition) -> usize {
    usize::from(partition.number())
}
