//! Partitions that come in by a join, and their snapshots.

use std::time::Duration;

use swarm_events::{Partition, decider::Decider};

use super::{
    JOIN_RETRY, Joined, Replica, SETTLE, SNAPSHOT_BYTES_STEP, SNAPSHOT_PAUSE, Slot, index,
};
use crate::deciding::{
    machine::{Machine, Mode},
    members::RENEW_EVERY,
};

impl<D: Decider> Replica<D> {
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
                not_before: now + SETTLE,
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

    pub(super) fn snapshot_due(&mut self, now: Duration) -> Option<Partition> {
        if self.snapshotting || now < self.snapshot_not_before {
            return None;
        }
        self.snapshot_not_before = now + SNAPSHOT_PAUSE;
        let due = self.folded().find(|partition| {
            let Some(slot) = &self.slots[index(*partition)] else {
                return false;
            };
            let (at, bytes) = slot.snapshot;
            let every = self.snapshot_every * (1 + bytes / SNAPSHOT_BYTES_STEP);
            self.position.saturating_sub(at) >= every
                && slot.machine.state().head().sequence > at
                && self.takes_snapshots(*partition, slot)
        });
        self.more_snapshots = due.is_some();
        due
    }
    /// The standby, which has nothing else to do; without one, the owner.
    pub(super) fn takes_snapshots(&self, partition: Partition, slot: &Slot<D>) -> bool {
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
}
