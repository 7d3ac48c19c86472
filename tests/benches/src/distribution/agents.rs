//! Model agents: what the protocol of the SDK puts on the wire, one append in flight, results before starts, each with the
//! check on the last withdrawal that the agent has heard of; and a cache of keys.

use std::collections::{BTreeMap, VecDeque};

use super::workload::{Cache, Crew};

/// One agent.
pub struct ModelAgent {
    slots: usize,
    cache: Option<Cache>,
    /// Keys in its cache, the one used last at the end.
    keys: VecDeque<u32>,
    /// By sequence of the assignment, hence in the order of arrival.
    held: BTreeMap<u64, Held>,
    /// Sequence of the last withdrawal that it has heard of.
    fence: u64,
    appending: bool,
    pub done: Done,
}

/// What an agent has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Time that its slots were in use, in microseconds.
    pub busy: u64,
    pub tasks: u64,
    /// Tasks whose key was in the cache.
    pub warm: u64,
    /// Tasks whose key was not.
    pub cold: u64,
}

struct Held {
    task: usize,
    phase: Phase,
    /// Withdrawn while its start was on the way: the answer decides.
    doomed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Starting,
    Running,
    Finishing,
}

/// What an agent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub assignment: u64,
    pub task: usize,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Started,
    Completed,
}

impl ModelAgent {
    /// One that holds nothing.
    pub fn new(crew: &Crew, cache: Option<Cache>) -> Self {
        Self {
            slots: crew.slots as usize,
            cache,
            keys: VecDeque::new(),
            held: BTreeMap::new(),
            fence: 0,
            appending: false,
            done: Done::default(),
        }
    }

    /// An assignment came.
    pub fn assigned(&mut self, assignment: u64, task: usize) {
        let held = Held {
            task,
            phase: Phase::Waiting,
            doomed: false,
        };
        self.held.insert(assignment, held);
    }

    /// A withdrawal without `force` came.
    pub fn withdrawn(&mut self, sequence: u64, assignment: u64) {
        self.fence = sequence;
        match self.held.get_mut(&assignment) {
            Some(held) if held.phase == Phase::Waiting => {
                self.held.remove(&assignment);
            }
            Some(held) if held.phase == Phase::Starting => held.doomed = true,
            // It has started before: the withdrawal is void.
            _ => {}
        }
    }

    /// The task of an assignment that it holds.
    pub fn task(&self, assignment: u64) -> Option<usize> {
        self.held.get(&assignment).map(|held| held.task)
    }

    /// A task has run to its end.
    pub fn ran(&mut self, assignment: u64) {
        if let Some(held) = self.held.get_mut(&assignment) {
            held.phase = Phase::Finishing;
        }
    }

    /// What it appends now, with the withdrawal that it has heard of last.
    pub fn append(&mut self) -> Option<(Vec<Write>, u64)> {
        if self.appending {
            return None;
        }
        let used = |held: &&Held| matches!(held.phase, Phase::Starting | Phase::Running);
        let free = self
            .slots
            .saturating_sub(self.held.values().filter(used).count());
        let write = |(&assignment, held): (&u64, &mut Held), kind| Write {
            assignment,
            task: held.task,
            kind,
        };
        let finishing = self
            .held
            .iter_mut()
            .filter(|(_, held)| held.phase == Phase::Finishing);
        let mut writes: Vec<Write> = finishing.map(|of| write(of, Kind::Completed)).collect();
        let waiting = self
            .held
            .iter_mut()
            .filter(|(_, held)| held.phase == Phase::Waiting);
        for of in waiting.take(free) {
            of.1.phase = Phase::Starting;
            writes.push(write(of, Kind::Started));
        }
        self.appending = !writes.is_empty();
        self.appending.then_some((writes, self.fence))
    }

    /// The log has taken what it appended: what runs from now on.
    pub fn taken(&mut self, writes: &[Write]) -> Vec<Write> {
        self.appending = false;
        for write in writes {
            match write.kind {
                Kind::Completed => {
                    self.held.remove(&write.assignment);
                }
                Kind::Started => {
                    if let Some(held) = self.held.get_mut(&write.assignment) {
                        held.phase = Phase::Running;
                        held.doomed = false;
                    }
                }
            }
        }
        let started = writes.iter().filter(|write| write.kind == Kind::Started);
        started.copied().collect()
    }

    /// The log has refused it: there is a withdrawal that was not heard of when it was sent.
    pub fn refused(&mut self, writes: &[Write]) {
        self.appending = false;
        for write in writes.iter().filter(|write| write.kind == Kind::Started) {
            match self.held.get_mut(&write.assignment) {
                Some(held) if held.doomed => {
                    self.held.remove(&write.assignment);
                }
                Some(held) => held.phase = Phase::Waiting,
                None => {}
            }
        }
    }

    /// How long a task takes here, in microseconds; its key is in the cache from now on.
    pub fn takes(&mut self, run: u64, key: Option<u32>) -> u64 {
        self.done.tasks += 1;
        let mut time = run;
        if let (Some(cache), Some(key)) = (self.cache, key) {
            let before = self.keys.iter().position(|kept| *kept == key);
            if let Some(at) = before {
                self.keys.remove(at);
                self.done.warm += 1;
            } else {
                self.done.cold += 1;
                time += cache.cold_micros;
            }
            self.keys.push_back(key);
            if self.keys.len() > cache.keys {
                self.keys.pop_front();
            }
        }
        self.done.busy += time;
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> ModelAgent {
        let crew = Crew {
            count: 1,
            slots: 1,
            waiting: 2,
            capabilities: Vec::new(),
        };
        let cache = Cache {
            keys: 2,
            cold_micros: 100,
        };
        ModelAgent::new(&crew, Some(cache))
    }

    fn write(assignment: u64, kind: Kind) -> Write {
        Write {
            assignment,
            task: assignment as usize,
            kind,
        }
    }

    #[test]
    fn it_starts_as_many_as_it_has_slots_in_the_order_of_arrival() {
        let mut agent = agent();
        agent.assigned(10, 10);
        agent.assigned(11, 11);
        let (writes, fence) = agent.append().expect("a free slot");
        assert_eq!((&*writes, fence), (&[write(10, Kind::Started)][..], 0));
        assert_eq!(agent.append(), None, "one append in flight");
        agent.taken(&writes);
        assert_eq!(agent.append(), None, "the slot is taken");
        agent.ran(10);
        let (writes, _) = agent.append().expect("a result");
        assert_eq!(
            writes,
            [write(10, Kind::Completed), write(11, Kind::Started)]
        );
    }

    #[test]
    fn a_start_that_loses_against_a_withdrawal_is_dropped_and_the_next_one_tried() {
        let mut agent = agent();
        agent.assigned(10, 10);
        agent.assigned(11, 11);
        let (writes, _) = agent.append().expect("a free slot");
        agent.withdrawn(12, 10);
        agent.refused(&writes);
        let (writes, fence) = agent.append().expect("the slot is still free");
        assert_eq!((&*writes, fence), (&[write(11, Kind::Started)][..], 12));
    }

    #[test]
    fn a_withdrawal_that_loses_against_a_start_changes_nothing() {
        let mut agent = agent();
        agent.assigned(10, 10);
        let (writes, _) = agent.append().expect("a free slot");
        agent.withdrawn(12, 10);
        assert_eq!(agent.taken(&writes), writes);
        agent.ran(10);
        let (writes, fence) = agent.append().expect("a result");
        assert_eq!((&*writes, fence), (&[write(10, Kind::Completed)][..], 12));
    }

    #[test]
    fn a_key_that_was_not_used_for_long_is_cold_again() {
        let mut agent = agent();
        let times: Vec<u64> = [1, 1, 2, 3, 2, 1]
            .into_iter()
            .map(|key| agent.takes(10, Some(key)))
            .collect();
        assert_eq!(times, [110, 10, 110, 110, 10, 110]);
        assert_eq!((agent.done.warm, agent.done.cold), (2, 4));
        assert_eq!(agent.done.busy, 460);
    }
}
