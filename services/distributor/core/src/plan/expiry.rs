//! Which queued tasks have waited longer than the swarm's `queue_timeout_ms`.
//!
//! A million tasks may go by that one setting, and it may change at any time. So none of them has a timer of its own: the
//! queues are in the order of waiting anyway, and the swarm has one timer, for the eldest head. Tasks with a limit of their
//! own have their own timers, and stand beside the others, where they hide nobody.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    Timestamp,
    planted::{self, Bug},
};

use super::ready::SwarmPlan;
use crate::{
    plan::Plan,
    state::Distributor,
    task::{More, Task},
};

/// A task's place in the queue of its class and priority: since when it is queued, sequence of its submission, number.
pub(crate) type Place = (Timestamp, u64, u32);

/// What a queued task's limit of waiting goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The swarm's setting, counted from its place in the queue.
    Place,
    /// The swarm's setting, counted from a later time.
    Since(Timestamp),
    /// A limit of its own, or none at all.
    Own,
}
impl Limit {
    pub(crate) fn of(task: &Task) -> Self {
        match task.more.as_deref() {
            Some(More {
                queue_timeout_ms: Some(_),
                ..
            }) => Self::Own,
            Some(more) if more.requeued_at != Timestamp::ZERO => Self::Since(more.requeued_at),
            _ => Self::Place,
        }
    }
}

/// Tasks of a class and priority in the order of waiting.
#[derive(Debug, Default)]
pub(crate) struct Line {
    by_place: BTreeSet<Place>,
    others: BTreeSet<Place>,
}
impl Line {
    pub(crate) fn insert(&mut self, place: Place, limit: Limit) {
        self.lot(limit).insert(place);
    }
    pub(crate) fn remove(&mut self, place: Place, limit: Limit) {
        self.lot(limit).remove(&place);
    }
    fn lot(&mut self, limit: Limit) -> &mut BTreeSet<Place> {
        match limit {
            Limit::Place => &mut self.by_place,
            Limit::Since(_) | Limit::Own => &mut self.others,
        }
    }
    pub(crate) fn first(&self) -> Option<&Place> {
        let firsts = [self.by_place.first(), self.others.first()];
        firsts.into_iter().flatten().min()
    }
    pub(crate) fn len(&self) -> usize {
        self.by_place.len() + self.others.len()
    }
    /// Its tasks in two ordered sets.
    pub(crate) fn sets(&self) -> [&BTreeSet<Place>; 2] {
        [&self.by_place, &self.others]
    }
}

/// One that may be the first to have waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Elder {
    /// The head of a queue: class, index of the priority.
    Head(u32, u8),
    /// A task whose limit counts from another time than its place.
    Task(u32),
}

/// A swarm's tasks that go by its setting.
#[derive(Debug, Default)]
pub(crate) struct Elders {
    /// 0: nobody waits too long.
    limit_ms: u64,
    order: BTreeSet<(Timestamp, Elder)>,
    /// Where the head of each queue stands in the order.
    heads: BTreeMap<(u32, u8), Timestamp>,
    /// The timer that is set for the first one; zero if none is.
    timer: Timestamp,
}

impl SwarmPlan {
    /// Takes over the setting.
    pub(crate) fn set_queue_limit_ms(&mut self, limit_ms: u64) {
        let before = std::mem::replace(&mut self.elders.limit_ms, limit_ms);
        if (before == 0) == (limit_ms == 0) {
            return;
        }
        for class in 0..self.classes.len() as u32 {
            for priority in 0..self.classes[class as usize].queues.len() as u8 {
                self.fix_elder(class, priority);
            }
        }
    }

    /// A task came into its queue, or left it.
    pub(crate) fn moved(&mut self, at: u32, place: (u32, u8), limit: Limit, came: bool) {
        match limit {
            Limit::Place => self.fix_elder(place.0, place.1),
            Limit::Since(from) if came => {
                self.elders.order.insert((from, Elder::Task(at)));
            }
            Limit::Since(from) => {
                self.elders.order.remove(&(from, Elder::Task(at)));
            }
            Limit::Own => {}
        }
    }

    fn fix_elder(&mut self, class: u32, priority: u8) {
        let elders = &mut self.elders;
        let queue = self.classes.get(class as usize);
        let head = queue
            .filter(|_| elders.limit_ms > 0)
            .and_then(|class| class.queues[priority as usize].by_place.first())
            .map(|&(from, ..)| from);
        let key = (class, priority);
        let before = match head {
            Some(from) => elders.heads.insert(key, from),
            None if elders.heads.is_empty() => None,
            None => elders.heads.remove(&key),
        };
        if before == head {
            return;
        }
        let elder = Elder::Head(class, priority);
        if let Some(from) = before {
            elders.order.remove(&(from, elder));
        }
        if let Some(from) = head {
            elders.order.insert((from, elder));
        }
    }

    /// The task that is the first to have waited too long, and when it has.
    pub(crate) fn first_out_of_time(&self) -> Option<(Timestamp, u32)> {
        if self.elders.limit_ms == 0 || !self.active || planted::is(Bug::QueueTimeoutNever) {
            return None;
        }
        let &(from, elder) = self.elders.order.first()?;
        let at = match elder {
            Elder::Task(at) => at,
            Elder::Head(class, priority) => {
                let queue = &self.classes.get(class as usize)?.queues[priority as usize];
                queue.by_place.first()?.2
            }
        };
        Some((from.plus_millis(self.elders.limit_ms), at))
    }
}

impl Plan {
    /// Sets the timer of a swarm's eldest task, or notes that it has waited too long.
    pub(crate) fn refresh_elders(&mut self, state: &Distributor, number: u32) {
        let Some(plan) = self.swarms.get_mut(number as usize) else {
            return;
        };
        let limit = plan.first_out_of_time().map(|(limit, _)| limit);
        let due = limit.is_some_and(|limit| limit <= state.head.now);
        let timer = limit.filter(|_| !due).unwrap_or(Timestamp::ZERO);
        let before = std::mem::replace(&mut plan.elders.timer, timer);
        if before != timer {
            if before != Timestamp::ZERO {
                self.elder_timers.remove(&(before, number));
            }
            if timer != Timestamp::ZERO {
                self.elder_timers.insert((timer, number));
            }
        }
        if due {
            self.outwaited.insert(number);
        } else if !self.outwaited.is_empty() {
            self.outwaited.remove(&number);
        }
    }

    /// Timers of eldest tasks that have passed.
    pub(crate) fn ring_elders(&mut self, state: &Distributor) {
        while let Some(&(when, swarm)) = self.elder_timers.first() {
            if when > state.head.now {
                break;
            }
            self.refresh_elders(state, swarm);
            // Nothing may ring for ever.
            self.elder_timers.remove(&(when, swarm));
        }
    }
}
