//! A small model of the log, the distributor and the network, to drive the protocol through faults.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use swarm_events::{
    Json,
    configuration::Algorithm,
    ids::{EventId, TaskId},
    task::{Assigned, Carried},
};
use uuid::Uuid;

use super::*;

pub(super) const INCARNATION: u64 = 3;
pub(super) const JOINED: u64 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Joined,
    Assigned,
    Withdrawn { assignment: u64, force: bool },
    Started { assignment: u64, id: EventId },
    Ended { assignment: u64, id: EventId },
}

pub(super) fn assignment(sequence: u64, incarnation: u64) -> Arc<Assignment> {
    Arc::new(Assignment {
        sequence,
        task: TaskId(Uuid::from_u128(sequence.into())),
        event: EventId(Uuid::from_u128(u128::from(sequence) << 64)),
        correlation: None,
        traceparent: None,
        data: Assigned {
            path: Vec::new(),
            step: swarm_events::task::Step::Work,
            turn: None,
            task_type: "t".to_owned(),
            payload: Carried::Inline(Json::object()),
            inputs: None,
            attempt: 1,
            generation: 1,
            incarnation,
            priority: 5,
            timeout_ms: 1_000,
            algorithm: Algorithm::LeastLoaded,
            candidates: Vec::new(),
            passed_over: BTreeMap::new(),
            affinity: None,
            stolen_from: None,
            queued_at: None,
        },
    })
}

pub(super) fn ids() -> Box<dyn FnMut() -> EventId + Send> {
    let mut number = 0u128;
    Box::new(move || {
        number += 1;
        EventId(Uuid::from_u128(number))
    })
}

pub(super) struct World {
    pub(super) protocol: Protocol,
    pub(super) log: Vec<Entry>,
    pub(super) now: Millis,
    /// Republished and not delivered: subject, sequence, the one before.
    hints: [VecDeque<(u64, u64)>; 2],
    append: Option<Vec<Write>>,
    ghosts: Vec<Write>,
    catch_ups: Vec<(Own, u64)>,
    check: Option<bool>,
    look_ups: Vec<Write>,
    pub(super) running: BTreeSet<u64>,
    pub(super) runs: BTreeMap<u64, u32>,
}

impl World {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            protocol: Protocol::new(slots, INCARNATION, JOINED, (0, 0), ids()),
            log: vec![Entry::Joined],
            now: 0,
            hints: [VecDeque::new(), VecDeque::new()],
            append: None,
            ghosts: Vec::new(),
            catch_ups: Vec::new(),
            check: None,
            look_ups: Vec::new(),
            running: BTreeSet::new(),
            runs: BTreeMap::new(),
        }
    }

    fn entries(&self) -> impl DoubleEndedIterator<Item = (u64, &Entry)> {
        (1u64..).zip(&self.log).collect::<Vec<_>>().into_iter()
    }
    fn is(own: Own, entry: &Entry) -> bool {
        match own {
            Own::Assigned => *entry == Entry::Assigned,
            Own::Withdrawn => matches!(entry, Entry::Withdrawn { .. }),
        }
    }
    fn last(&self, own: Own) -> u64 {
        self.entries()
            .rev()
            .find(|(_, entry)| Self::is(own, entry))
            .map_or(0, |(sequence, _)| sequence)
    }
    fn store(&mut self, entry: Entry) -> u64 {
        let own = [Own::Assigned, Own::Withdrawn]
            .into_iter()
            .find(|own| Self::is(*own, &entry));
        let previous = own.map(|own| (own, self.last(own)));
        self.log.push(entry);
        let sequence = self.log.len() as u64;
        if let Some((own, previous)) = previous {
            self.hints[own as usize].push_back((sequence, previous));
        }
        sequence
    }
    pub(super) fn started(&self, a: u64) -> Option<u64> {
        self.entries()
            .find(|(_, e)| matches!(e, Entry::Started { assignment, .. } if *assignment == a))
            .map(|(sequence, _)| sequence)
    }
    pub(super) fn ended(&self, a: u64) -> usize {
        self.log
            .iter()
            .filter(|e| matches!(e, Entry::Ended { assignment, .. } if *assignment == a))
            .count()
    }
    /// The withdrawal of `a` that holds: with force, or before it was started.
    pub(super) fn taken(&self, a: u64) -> Option<u64> {
        let started = self.started(a).unwrap_or(u64::MAX);
        self.entries()
            .find(|(at, e)| {
                matches!(e, Entry::Withdrawn { assignment, force } if *assignment == a && (*force || *at < started))
            })
            .map(|(sequence, _)| sequence)
    }
    pub(super) fn assignments(&self) -> Vec<u64> {
        self.entries()
            .filter(|(_, e)| **e == Entry::Assigned)
            .map(|(sequence, _)| sequence)
            .collect()
    }
    fn open(&self) -> Vec<u64> {
        self.assignments()
            .into_iter()
            .filter(|a| self.taken(*a).is_none() && self.ended(*a) == 0)
            .collect()
    }

    pub(super) fn assign(&mut self, most: usize) {
        if self.open().len() < most {
            self.store(Entry::Assigned);
        }
    }
    /// Without `force` it may come after the start, of which whoever takes away has not heard: then it is void, and its place
    /// on the subject counts all the same.
    pub(super) fn withdraw(&mut self, pick: usize, force: bool) {
        let open = self.open();
        if !open.is_empty() {
            self.store(Entry::Withdrawn {
                assignment: open[pick % open.len()],
                force,
            });
        }
    }

    fn fact(&self, own: Own, sequence: u64) -> Fact {
        match (own, &self.log[sequence as usize - 1]) {
            (Own::Assigned, _) => Fact::Assigned(assignment(sequence, INCARNATION)),
            (Own::Withdrawn, Entry::Withdrawn { assignment, force }) => Fact::Withdrawn {
                assignment: *assignment,
                incarnation: INCARNATION,
                force: *force,
            },
            other => panic!("not an own message: {other:?}"),
        }
    }
    pub(super) fn hint(&mut self, own: Own, deliver: bool) {
        if let Some((sequence, previous)) = self.hints[own as usize].pop_front()
            && deliver
        {
            let fact = self.fact(own, sequence);
            self.protocol
                .heard(own, sequence, Via::Live { previous }, fact);
        }
    }

    /// The server takes a write: what it answers. A single node checks before it looks for duplicates.
    fn take(&mut self, write: &Write) -> Written {
        if self.last(Own::Withdrawn) != write.fence {
            return Written::Fenced;
        }
        let a = write.assignment.sequence;
        let entry = match write.kind {
            WriteKind::Started => Entry::Started {
                assignment: a,
                id: write.id,
            },
            WriteKind::Ended(ref outcome) => {
                let told = match outcome {
                    Outcome::Completed(_) => 0,
                    Outcome::Failed { .. } => 1,
                    Outcome::Declined { .. } => 2,
                    Outcome::Split(_) => 3,
                };
                assert_eq!(told, a % 3, "another end than its handler's");
                Entry::Ended {
                    assignment: a,
                    id: write.id,
                }
            }
        };
        let sequence = self.stored(write.id).unwrap_or_else(|| self.store(entry));
        Written::Stored(sequence)
    }
    fn stored(&self, id: EventId) -> Option<u64> {
        self.entries()
            .find(|(_, e)| matches!(e, Entry::Started { id: i, .. } | Entry::Ended { id: i, .. } if *i == id))
            .map(|(sequence, _)| sequence)
    }
    pub(super) fn append(&mut self, fault: u8) {
        let Some(writes) = self.append.take() else {
            return;
        };
        let outcomes = writes
            .into_iter()
            .map(|write| {
                let a = write.assignment.sequence;
                let written = match fault {
                    1 => {
                        self.take(&write);
                        Written::Unknown
                    }
                    2 => Written::Unknown,
                    3 => {
                        self.ghosts.push(write);
                        Written::Unknown
                    }
                    4 => Written::Busy,
                    5 => Written::Full,
                    _ => self.take(&write),
                };
                (a, written)
            })
            .collect();
        self.protocol.written(self.now, outcomes);
    }
    pub(super) fn ghost(&mut self) {
        if let Some(write) = self.ghosts.pop() {
            self.take(&write);
        }
    }
    pub(super) fn catch_up(&mut self) {
        let Some((own, from)) = self.catch_ups.pop() else {
            return;
        };
        let found: Vec<u64> = self
            .entries()
            .filter(|(at, e)| *at >= from && Self::is(own, e))
            .map(|(sequence, _)| sequence)
            .collect();
        for sequence in found {
            let fact = self.fact(own, sequence);
            self.protocol.heard(own, sequence, Via::CatchUp, fact);
        }
        self.protocol.caught_up(self.now, own, true);
    }
    pub(super) fn check(&mut self, fails: bool) {
        let Some(assigned) = self.check.take() else {
            return;
        };
        let found = (!fails).then(|| {
            (
                assigned.then(|| self.last(Own::Assigned)),
                self.last(Own::Withdrawn),
            )
        });
        self.protocol.checked(self.now, found);
    }
    pub(super) fn look_up(&mut self) {
        if let Some(write) = self.look_ups.pop() {
            let found = self.stored(write.id);
            self.protocol
                .looked_up(self.now, write.assignment.sequence, Some(found));
        }
    }
    pub(super) fn finish(&mut self, pick: usize) {
        let picked = self
            .running
            .iter()
            .nth(pick % self.running.len().max(1))
            .copied();
        if let Some(a) = picked {
            self.running.remove(&a);
            // By the assignment, so that a run that heals meets all of them, too.
            let outcome = match a % 3 {
                0 => Outcome::Completed(Carried::Inline(Json::null())),
                1 => Outcome::failed("no", true),
                _ => Outcome::declined("not mine"),
            };
            self.protocol.finished(a, outcome);
        }
    }

    /// Does what the protocol asks for, as far as it needs no network.
    pub(super) fn act(&mut self) {
        for action in self.protocol.next(self.now) {
            match action {
                Do::CatchUp { own, from } => self.catch_ups.push((own, from)),
                Do::Check { assigned, .. } => {
                    assert!(self.check.replace(assigned).is_none(), "two checks at once")
                }
                Do::Append(writes) => {
                    assert!(self.append.replace(writes).is_none(), "two appends at once")
                }
                Do::LookUp(write) => self.look_ups.push(write),
                Do::Run(assignment) => {
                    *self.runs.entry(assignment.sequence).or_default() += 1;
                    self.running.insert(assignment.sequence);
                }
                Do::Kill { assignment } => {
                    // Its handler may have ended in the meantime.
                    assert!(self.runs.contains_key(&assignment), "killed what never ran");
                    self.running.remove(&assignment);
                }
            }
        }
    }

    /// No more faults, and time goes on, until nothing is left to do.
    pub(super) fn heal(&mut self) {
        while !self.ghosts.is_empty() {
            self.ghost();
        }
        for _ in 0..200 {
            self.act();
            self.append(0);
            self.act();
            self.look_up();
            self.catch_up();
            self.check(false);
            self.finish(0);
            self.act();
            self.now = self.now.max(self.protocol.wake_at().min(self.now + 5_000));
        }
    }
}
