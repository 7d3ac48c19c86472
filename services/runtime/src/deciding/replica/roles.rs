//! Which partitions a replica wants, and what is due for that.

use std::{collections::BTreeSet, time::Duration};

use swarm_events::{Partition, decider::Decider, ids::InstanceId};

use super::{ANNOUNCE_PAUSE, Action, LEAVE_MAX, Replica, index};
use crate::deciding::{
    machine::{Machine, Mode},
    members::{FOLDERS, RENEW_EVERY},
};

impl<D: Decider> Replica<D> {
    /// The first live member in order that has folded `partition`.
    pub(super) fn owner_of(&self, partition: Partition) -> Option<InstanceId> {
        self.members.order(partition).iter().copied().find(|id| {
            if *id == self.instance {
                self.slots[index(partition)].is_some()
            } else {
                self.members.has_folded(*id, partition)
            }
        })
    }

    /// Partitions that it cannot decide for.
    pub(super) fn stuck(&self) -> Vec<Partition> {
        self.universe
            .iter()
            .copied()
            .filter(|p| {
                self.unfoldable.contains(p) || self.machine(*p).is_some_and(Machine::is_stuck)
            })
            .collect()
    }

    pub(super) fn assess(&mut self, now: Duration) {
        self.assess = false;
        self.assess_at = None;
        if !self.complete {
            return;
        }
        let stuck = self.stuck();
        self.members.set_stuck(stuck);
        let is_alone = self.members.is_alone();
        let mut join = BTreeSet::new();
        for at in 0..self.universe.len() {
            let partition = self.universe[at];
            let order = self.members.order(partition);
            let folders = &order[..order.len().min(FOLDERS)];
            let wanted = folders.contains(&self.instance);
            let others_fold = folders
                .iter()
                .all(|id| *id == self.instance || self.members.has_folded(*id, partition));
            let kept = others_fold && !folders.is_empty();
            let owner = self.owner_of(partition);
            let Some(slot) = self.slots[index(partition)].as_mut() else {
                if wanted && !self.unfoldable.contains(&partition) {
                    join.insert(partition);
                }
                continue;
            };
            match slot.machine.mode() {
                Mode::Standby if owner == Some(self.instance) => {
                    let due = slot.not_before;
                    if due > now && !is_alone {
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
                Mode::Standby if !wanted && kept => {
                    self.slots[index(partition)] = None;
                    self.changed = true;
                }
                // Its claim is not met yet, and whoever takes over claims anyway.
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

    pub(super) fn poll_machines(&mut self, now: Duration, actions: &mut Vec<Action>) {
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

    pub(super) fn observe(&mut self, actions: &mut Vec<Action>) {
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
    pub(super) fn has_left(&self, now: Duration) -> bool {
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

    pub(super) fn announce_due(&self, now: Duration) -> Duration {
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
        let snapshot =
            (self.more_snapshots && !self.snapshotting).then_some(self.snapshot_not_before);
        for due in [
            self.next_due,
            self.members.next_check(now),
            self.assess_at,
            left,
            snapshot,
        ]
        .into_iter()
        .flatten()
        {
            next = next.min(due);
        }
        next
    }
}
