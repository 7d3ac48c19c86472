//! How long a service decided nothing while work was waiting for it.
//!
//! Work waits for the distributor in a partition when a task is queued there (its dependencies met, its retry delay over)
//! and an agent that can take it is free; for the coordinator, when one of its commands has no answer; for health, from
//! an observation to its next decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_events::{
    Body, Recorded, Service, TaskId, Timestamp,
    control::Observed,
    read::{Writer, writer},
    subject::PARTITIONS,
};

use crate::Checker;

/// Gaps that are kept: the longest.
pub const GAPS_KEPT_MAX: usize = 20;

/// A time in which a service decided nothing in a partition, although work was waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub partition: u8,
    /// Sequence of what began it: the last decision, or what made work wait if that came later.
    pub from: u64,
    /// When that was stored.
    pub from_time: Timestamp,
    /// Sequence of the decision that ended it, or of the last message if none has.
    pub to: u64,
    /// Its length by store times, in microseconds.
    pub micros: u64,
    /// No decision has ended it.
    pub lasting: bool,
}

type Place = (u64, Timestamp);

#[derive(Debug, Default)]
struct Wait {
    /// Swarms with work that could be decided, or open commands.
    work: usize,
    since: Option<Place>,
    decided: Option<Place>,
    delayed: BTreeSet<(Timestamp, usize, TaskId)>,
    busy: BTreeSet<usize>,
}

#[derive(Debug)]
pub(crate) struct Waits {
    service: Service,
    homes: Vec<Wait>,
    /// Queued tasks of a swarm, by what they require.
    ready: BTreeMap<usize, BTreeMap<Arc<[String]>, BTreeSet<TaskId>>>,
    pub(crate) touched: Vec<(usize, TaskId)>,
    longest: Vec<Gap>,
}

impl Waits {
    pub(crate) fn new(service: Service) -> Self {
        Self {
            service,
            homes: (0..PARTITIONS).map(|_| Wait::default()).collect(),
            ready: BTreeMap::new(),
            touched: Vec::new(),
            longest: Vec::new(),
        }
    }

    /// A command of the coordinator is open, or answered.
    pub(crate) fn command(&mut self, home: usize, by: isize, at: Place) {
        if self.service == Service::Coordinator {
            self.work(home, by, at);
        }
    }

    fn work(&mut self, home: usize, by: isize, at: Place) {
        let wait = &mut self.homes[home];
        let before = wait.work;
        wait.work = before.saturating_add_signed(by);
        if wait.work == 0 {
            // A decision that answers is noted before what it answered is closed.
            self.close(home, at, false);
            self.homes[home].since = None;
        } else if before == 0 {
            wait.since = Some(at);
        }
    }

    /// Notes the time from the last decision, or since work has been waiting, to `at`.
    fn close(&mut self, home: usize, at: Place, lasting: bool) {
        let wait = &self.homes[home];
        let Some(since) = wait.since else {
            return;
        };
        let from = wait
            .decided
            .filter(|decided| decided.0 > since.0)
            .unwrap_or(since);
        let micros = at.1.as_micros().saturating_sub(from.1.as_micros());
        let gap = Gap {
            partition: home as u8,
            from: from.0,
            from_time: from.1,
            to: at.0,
            micros: u64::try_from(micros).unwrap_or(0),
            lasting,
        };
        let place = self.longest.partition_point(|g| g.micros >= gap.micros);
        if gap.micros > 0 && place < GAPS_KEPT_MAX {
            self.longest.insert(place, gap);
            self.longest.truncate(GAPS_KEPT_MAX);
        }
    }

    /// After the checker has met a message.
    pub(crate) fn met(
        &mut self,
        home: usize,
        recorded: &Recorded,
        swarm: Option<usize>,
        checker: &Checker,
    ) {
        let at = (recorded.sequence, recorded.time);
        if writer(&recorded.subject) == Writer::Service(self.service) {
            self.close(home, at, false);
            self.homes[home].decided = Some(at);
            if self.service == Service::Health {
                self.homes[home].since = None;
            }
        }
        match self.service {
            Service::Distributor => self.tasks(home, at, swarm, checker),
            Service::Health => {
                if matches!(
                    &recorded.event.body,
                    Body::Observed(Observed::Liveness { .. } | Observed::Samples { .. })
                ) {
                    self.homes[home].since.get_or_insert(at);
                }
            }
            _ => {}
        }
    }

    fn tasks(&mut self, home: usize, at: Place, swarm: Option<usize>, checker: &Checker) {
        let mut touched = std::mem::take(&mut self.touched);
        while let Some(&(due, number, id)) = self.homes[home].delayed.first()
            && due <= at.1
        {
            self.homes[home].delayed.pop_first();
            touched.push((number, id));
        }
        for &(number, id) in &touched {
            let Some((required, ready, due)) = checker.readiness(number, id) else {
                continue;
            };
            let classes = self.ready.entry(number).or_default();
            if ready && due <= at.1 {
                classes.entry(required).or_default().insert(id);
                continue;
            }
            if ready {
                self.homes[home].delayed.insert((due, number, id));
            }
            if let Some(ids) = classes.get_mut(&required) {
                ids.remove(&id);
                if ids.is_empty() {
                    classes.remove(&required);
                }
            }
        }
        let mut looked: BTreeSet<usize> = touched.iter().map(|&(number, _)| number).collect();
        looked.extend(swarm);
        for number in looked {
            let busy = self
                .ready
                .get(&number)
                .is_some_and(|classes| checker.can_serve(number, classes.keys()));
            let was = self.homes[home].busy.contains(&number);
            if busy && !was {
                self.homes[home].busy.insert(number);
                self.work(home, 1, at);
            } else if !busy && was {
                self.homes[home].busy.remove(&number);
                self.work(home, -1, at);
            }
        }
        touched.clear();
        self.touched = touched;
    }

    /// The longest gaps, those that last still up to `last`.
    pub(crate) fn longest(&self, last: Place) -> Vec<Gap> {
        let mut all = Self {
            service: self.service,
            homes: Vec::new(),
            ready: BTreeMap::new(),
            touched: Vec::new(),
            longest: self.longest.clone(),
        };
        for wait in &self.homes {
            all.homes.push(Wait {
                since: wait.since,
                decided: wait.decided,
                ..Wait::default()
            });
        }
        for home in 0..all.homes.len() {
            all.close(home, last, true);
        }
        all.longest
    }
}
