//! A replica of a service: which partitions it folds, which of them it wants to own, and what must be done for that. Without
//! clock or IO, so that the loop on a real log and a simulation run the same code.
//!
//! A partition is folded by the first two live members in rendezvous order, and owned by the first of them that has folded
//! it to the end. It reaches its end in a *join*: a snapshot and the log behind it, folded beside the loop. Then it is
//! claimed, and the fence ends what its owner before still writes.

use std::{collections::BTreeSet, time::Duration};

use swarm_events::{
    Input, Partition, Problem, Timestamp,
    control::Observed,
    decider::{Decider, Decision, Verdict},
    envelope::Decided,
    ids::InstanceId,
    subject::PARTITIONS,
};

use super::{
    machine::{Machine, Met, Mode, Need},
    members::{Announcement, FOLDERS, Held, Members, News, RENEW_EVERY, Role},
};
use crate::snapshots;

/// For each so many bytes of the last snapshot, as many events more: writing it takes time of the same order as reading them.
pub const SNAPSHOT_BYTES_STEP: u64 = 64 * 1024 * 1024;
/// Between two snapshots at least: all partitions are due at about the same time, and each takes a few milliseconds.
pub const SNAPSHOT_PAUSE: Duration = Duration::from_millis(50);
/// A replica that lost a partition to another does not claim it back before this: two that judge differently would take it
/// from each other without end.
pub const RECLAIM_AFTER: Duration = Duration::from_secs(1);
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
    lost_at: Option<Duration>,
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
    snapshot_not_before: Duration,
    snapshotting: bool,
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
            snapshot_not_before: Duration::ZERO,
            snapshotting: false,
            interrupted: None,
            observations: Vec::new(),
        }
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

    // ----- presence

    /// A presence key was read.
    pub fn heard(&mut self, said: Announcement, written: Timestamp, now: Duration) {
        if said.service != D::SERVICE.as_str() {
            return;
        }
        let news = self.members.heard(said, written, now);
        self.news(news);
        self.assess = true;
    }
    /// Every key that is there has been read.
    pub fn complete(&mut self, now: Duration) {
        self.complete = true;
        self.members.complete(now);
        let news = self.members.check(now);
        self.news(news);
        self.assess = true;
    }
    /// A presence key is gone.
    pub fn removed(&mut self, instance: InstanceId) {
        self.members.removed(instance);
        self.assess = true;
    }
    /// The own renewal was acknowledged.
    pub fn renewed(&mut self, now: Duration) {
        self.members.renewed(now);
    }
    /// nats-server says that a member's connection closed.
    pub fn noticed(&mut self, instance: InstanceId, now: Duration) {
        self.members.noticed(instance, now);
    }

    fn news(&mut self, news: impl IntoIterator<Item = News>) {
        for news in news {
            self.assess = true;
            // One of the living says it for all.
            if !self.members.is_first() || self.observations.len() == OBSERVATIONS_MAX {
                continue;
            }
            match news {
                News::Died {
                    instance,
                    since,
                    replaced: false,
                } => self.observations.push(Observed::CutOff {
                    instance,
                    since,
                    until: None,
                }),
                News::Died { replaced: true, .. } => {}
                News::Returned {
                    instance,
                    since,
                    until,
                } => self.observations.push(Observed::CutOff {
                    instance,
                    since,
                    until: Some(until),
                }),
            }
        }
    }

    /// Hands everything over and ends ([`Action::End`]).
    pub fn leave(&mut self, now: Duration) {
        if self.leaving.is_none() {
            self.leaving = Some(now);
            self.members.leave();
            self.changed = true;
            self.assess = true;
        }
    }

    // ----- the log

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
            Met::Owned => slot.lost_at = None,
            Met::Lost => slot.lost_at = Some(now),
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
    /// An input whose answer cannot be stored is set aside with the next claim.
    pub fn set_aside(
        &mut self,
        partition: Partition,
        sequence: u64,
        problem: Problem,
        now: Duration,
    ) {
        if let Some(machine) = self.machine_mut(partition) {
            machine.set_aside(sequence, problem, now);
            self.touched(partition);
        }
    }

    // ----- joins and snapshots

    /// Partitions that were asked for are folded up to `upto`. Answers with the sequence behind which the log is to be read
    /// from now on, if that is not where it is read already.
    pub fn joined(&mut self, joined: Vec<Joined<D>>, upto: u64, now: Duration) -> Option<u64> {
        self.joining = None;
        let first = !self.follows();
        for Joined { state, snapshot } in joined {
            let partition = state.head().partition;
            if self.unfoldable.contains(&partition) || self.slots[index(partition)].is_some() {
                continue;
            }
            let since = state.head().now;
            self.log_time = self.log_time.max(since);
            let machine = Machine::from_state(state, self.instance);
            self.slots[index(partition)] = Some(Slot {
                machine,
                since,
                lost_at: None,
                snapshot,
            });
        }
        self.changed = true;
        self.assess = true;
        self.assess(now);
        if first || upto < self.position {
            self.position = upto;
            return Some(upto);
        }
        None
    }
    /// A join failed; it is tried again.
    pub fn join_failed(&mut self, now: Duration) {
        self.joining = None;
        self.join_not_before = now + JOIN_RETRY;
        self.assess = true;
    }
    /// A snapshot was taken, or could not be: with its sequence and bytes.
    pub fn snapshotted(&mut self, partition: Partition, taken: Option<(u64, u64)>, now: Duration) {
        self.snapshotting = false;
        self.snapshot_not_before = now + SNAPSHOT_PAUSE;
        if let (Some(slot), Some(taken)) = (self.slots[index(partition)].as_mut(), taken) {
            slot.snapshot = taken;
        } else if taken.is_none() {
            self.snapshot_not_before = now + RENEW_EVERY * 4;
        }
    }

    fn snapshot_due(&mut self, now: Duration) -> Option<Partition> {
        if self.snapshotting || now < self.snapshot_not_before {
            return None;
        }
        self.snapshot_not_before = now + SNAPSHOT_PAUSE;
        self.folded().find(|partition| {
            let Some(slot) = &self.slots[index(*partition)] else {
                return false;
            };
            let (at, bytes) = slot.snapshot;
            let every = snapshots::EVERY * (1 + bytes / SNAPSHOT_BYTES_STEP);
            self.position.saturating_sub(at) >= every
                && slot.machine.state().head().sequence > at
                && self.takes_snapshots(*partition, slot)
        })
    }
    /// The standby, which has nothing else to do; without one, the owner.
    fn takes_snapshots(&self, partition: Partition, slot: &Slot<D>) -> bool {
        match slot.machine.mode() {
            Mode::Standby => true,
            Mode::Claiming => false,
            Mode::Owner { .. } => !self
                .members
                .order(partition)
                .iter()
                .any(|id| self.members.has_folded(*id, partition)),
        }
    }

    // ----- who does what

    /// The first live member in order that has folded `partition`.
    fn owner_of(&self, partition: Partition) -> Option<InstanceId> {
        self.members.order(partition).iter().copied().find(|id| {
            if *id == self.instance {
                self.slots[index(partition)].is_some()
            } else {
                self.members.has_folded(*id, partition)
            }
        })
    }

    fn assess(&mut self, now: Duration) {
        self.assess = false;
        self.assess_at = None;
        if !self.complete {
            return;
        }
        let stuck = self
            .universe
            .iter()
            .copied()
            .filter(|p| {
                self.unfoldable.contains(p) || self.machine(*p).is_some_and(Machine::is_stuck)
            })
            .collect();
        self.members.set_stuck(stuck);
        let mut join = BTreeSet::new();
        for at in 0..self.universe.len() {
            let partition = self.universe[at];
            let order = self.members.order(partition);
            let folders = &order[..order.len().min(FOLDERS)];
            let wanted = folders.contains(&self.instance);
            let others_fold = folders
                .iter()
                .all(|id| *id == self.instance || self.members.has_folded(*id, partition));
            let owner = self.owner_of(partition);
            let alone = folders.is_empty();
            let Some(slot) = self.slots[index(partition)].as_mut() else {
                if wanted && !self.unfoldable.contains(&partition) {
                    join.insert(partition);
                }
                continue;
            };
            match slot.machine.mode() {
                Mode::Standby if owner == Some(self.instance) => {
                    let due = slot.lost_at.map_or(now, |at| at + RECLAIM_AFTER);
                    if due > now {
                        self.assess_at = Some(self.assess_at.map_or(due, |at| at.min(due)));
                        continue;
                    }
                    let reason = if slot.machine.state().head().epoch(D::SERVICE).epoch == 0 {
                        "start"
                    } else {
                        "takeover"
                    };
                    slot.machine.claim(now, reason);
                }
                Mode::Standby if !wanted && others_fold && !alone => {
                    self.slots[index(partition)] = None;
                    self.changed = true;
                }
                // It has lost it before it was met: the one that is preferred claims.
                Mode::Claiming if self.leaving.is_some() => slot.machine.stand_by(),
                _ => {}
            }
            self.touched(partition);
        }
        if self.joining.is_none() && !join.is_empty() {
            if now >= self.join_not_before {
                self.joining = Some(join);
                self.join_asked = true;
            } else {
                let due = self.join_not_before;
                self.assess_at = Some(self.assess_at.map_or(due, |at| at.min(due)));
            }
        }
    }

    /// What must be done now. Called after each input; most often nothing.
    pub fn poll(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.ended {
            return actions;
        }
        if self.members.next_check(now).is_some_and(|due| due <= now) {
            let news = self.members.check(now);
            self.news(news);
        }
        if self.assess || self.assess_at.is_some_and(|at| at <= now) {
            self.assess(now);
        }
        if let (true, Some(join)) = (self.join_asked, &self.joining) {
            self.join_asked = false;
            actions.push(Action::Join(join.iter().copied().collect()));
        }
        if self.next_due.is_some_and(|due| due <= now) {
            self.poll_machines(now, &mut actions);
        }
        self.observe(&mut actions);
        if let Some(partition) = self.snapshot_due(now) {
            self.snapshotting = true;
            actions.push(Action::Snapshot(partition));
        }
        if self.announce_due(now) <= now {
            self.announced = Some(now);
            self.changed = false;
            self.counter += 1;
            actions.push(Action::Announce(Box::new(self.announcement())));
            if let Some(dead) = self.members.forgettable(now) {
                self.members.removed(dead);
                actions.push(Action::Remove(dead));
            }
        }
        if self.has_left(now) {
            self.ended = true;
            actions.push(Action::Remove(self.instance));
            actions.push(Action::End);
        }
        actions
    }

    fn poll_machines(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.next_due = None;
        for at in 0..self.universe.len() {
            let partition = self.universe[at];
            let is_due = self.due[index(partition)].is_some_and(|due| due <= now);
            if let (true, Some(slot)) = (is_due, self.slots[index(partition)].as_mut())
                && let Some(need) = slot.machine.poll(now)
            {
                actions.push(Action::Append(partition, need));
            }
            self.touched(partition);
        }
    }

    fn observe(&mut self, actions: &mut Vec<Action>) {
        if self.observations.is_empty() {
            return;
        }
        let owned = self.universe.iter().copied().find(|p| {
            self.machine(*p)
                .is_some_and(|m| matches!(m.mode(), Mode::Owner { .. }))
        });
        if let Some(partition) = owned {
            for observed in self.observations.drain(..) {
                actions.push(Action::Observe(partition, observed));
            }
        }
    }

    /// Everything is handed over, or there is nobody to hand it over to.
    fn has_left(&self, now: Duration) -> bool {
        let Some(since) = self.leaving else {
            return false;
        };
        // Others must have had the chance to hear of it.
        self.announced.is_some_and(|at| at >= since)
            && !self.changed
            && (now.saturating_sub(since) >= LEAVE_MAX
                || self.universe.iter().all(|p| {
                    let owns = self
                        .machine(*p)
                        .is_some_and(|m| !matches!(m.mode(), Mode::Standby));
                    !owns || self.owner_of(*p).is_none()
                }))
    }

    fn announce_due(&self, now: Duration) -> Duration {
        match self.announced {
            None => now,
            Some(at) if self.changed => at + ANNOUNCE_PAUSE,
            Some(at) => at + RENEW_EVERY,
        }
    }

    /// Monotonic time at which [`Replica::poll`] wants to be called.
    pub fn next_poll(&self, now: Duration) -> Duration {
        if self.assess || self.join_asked {
            return now;
        }
        let mut next = self.announce_due(now);
        let left = self.leaving.map(|since| since + LEAVE_MAX);
        for due in [
            self.next_due,
            self.members.next_check(now),
            self.assess_at,
            left,
        ]
        .into_iter()
        .flatten()
        {
            next = next.min(due);
        }
        next
    }

    fn announcement(&self) -> Announcement {
        let partitions = self
            .folded()
            .filter_map(|partition| {
                let slot = self.slots[index(partition)].as_ref()?;
                let role = match slot.machine.mode() {
                    Mode::Owner { .. } => Role::Owner,
                    Mode::Standby | Mode::Claiming => Role::Standby,
                };
                let epoch = slot.machine.state().head().epoch(D::SERVICE).epoch;
                Some((
                    partition,
                    Held {
                        role,
                        epoch,
                        since: slot.since,
                    },
                ))
            })
            .collect();
        let stuck = self
            .universe
            .iter()
            .copied()
            .filter(|p| {
                self.unfoldable.contains(p) || self.machine(*p).is_some_and(Machine::is_stuck)
            })
            .collect();
        Announcement {
            service: D::SERVICE.as_str().to_owned(),
            instance: self.instance,
            name: self.name.clone(),
            started_at: self.started_at,
            counter: self.counter,
            leaving: self.leaving.is_some(),
            sequence: self.position,
            log_time: self.log_time,
            partitions,
            stuck,
            cut_off_since: self.interrupted.map(|(_, since)| since),
        }
    }
}

fn index(partition: Partition) -> usize {
    usize::from(partition.number())
}
