//! What was met, what is open, and what must hold at rest.

use std::{collections::BTreeMap, sync::Arc};

use swarm_events::{AgentId, InstanceId, Place, Service, TaskId, Timestamp, topology::Topology};

use super::{
    Checker, Owner, Tally,
    processes::{LATE_MS, Lack, Unfulfilled},
    swarm::{self, Task},
    wishes::Phase,
};
use crate::{Gap, Invariant};

/// How much was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages, whatever they are.
    pub messages: u64,
    /// Messages that are no events.
    pub unreadable: u64,
    /// Tasks that came to be (rejected ones among them; of graphs, those that were accepted).
    pub accepted: u64,
    /// Valid ends. A task that a person retried may have several, one in each generation.
    pub ended: u64,
    /// Generations that persons' retries opened.
    pub reopened: u64,
    /// Ends beyond the first within a generation.
    pub doubled: u64,
    /// Starts of an assignment beyond the first.
    pub started_again: u64,
    /// Graphs that were decided on.
    pub graphs: u64,
    /// Waiting tasks that were taken over from busy agents.
    pub steals: u64,
    /// Steals that came after the start, and so took nothing.
    pub steals_void: u64,
    /// Commands, without repeats.
    pub commands: u64,
}

/// Something that was begun and is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenItem {
    /// Sequence of what began it.
    pub sequence: u64,
    /// When that was stored.
    pub since: Timestamp,
    /// What it is and how it stands.
    pub what: String,
}

/// What is not finished yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Tasks without an end, oldest first.
    pub tasks: Vec<OpenItem>,
    /// Commands without an answer.
    pub commands: Vec<OpenItem>,
    /// Graphs without a decision.
    pub graphs: Vec<OpenItem>,
}
impl Open {
    /// Nothing is open.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.commands.is_empty() && self.graphs.is_empty()
    }
}

impl Checker {
    /// Tasks that came to be.
    pub fn accepted(&self) -> usize {
        self.counts.accepted as usize
    }
    /// How much was met, within the range.
    pub fn counts(&self) -> Counts {
        Counts {
            ended: self.ended,
            ..self.counts
        }
    }
    /// How often each promise was checked and found broken, those never checked included.
    pub fn tallies(&self) -> impl Iterator<Item = (Invariant, Tally)> {
        Invariant::ALL
            .iter()
            .map(|&i| (i, self.notes.tallies.get(&i).copied().unwrap_or_default()))
    }
    /// Events that changed nothing, by the name of the precondition that failed.
    pub fn voids(&self) -> &BTreeMap<&'static str, u64> {
        &self.notes.voids
    }
    /// Who owned what: service and partition with its claims, those without a claim left out.
    pub fn owners(&self) -> impl Iterator<Item = (Service, u8, &Owner)> {
        Service::ALL.iter().flat_map(move |&service| {
            (0u8..).zip(&self.homes).filter_map(move |(p, home)| {
                let owner = &home.owners[service as usize];
                (owner.claimed > 0).then_some((service, p, owner))
            })
        })
    }
    /// First and last sequence met, and the highest store time.
    pub const fn met(&self) -> (u64, u64, Timestamp) {
        (self.first, self.last.0, self.last.1)
    }
    /// The longest times without a decision while work was waiting, longest first. A wait that still lasts is among them,
    /// up to the last message met.
    pub fn gaps(&self) -> Vec<Gap> {
        self.waits
            .as_ref()
            .map(|waits| waits.longest(self.last))
            .unwrap_or_default()
    }

    fn open_tasks(&self) -> impl Iterator<Item = (&TaskId, &Task)> {
        self.swarms.iter().flat_map(|swarm| {
            swarm.tasks.iter().filter(|(_, task)| {
                !task.state.ended()
                    && !task.uncertain
                    && !matches!(task.state, swarm::State::Staged(_))
            })
        })
    }

    /// What is begun and not finished, oldest first.
    pub fn open(&self) -> Open {
        let mut tasks: Vec<OpenItem> = self
            .open_tasks()
            .map(|(id, task)| OpenItem {
                sequence: task.submitted,
                since: task.submitted_at,
                what: format!("{id} {:?}", task.state),
            })
            .collect();
        let mut commands: Vec<OpenItem> = self
            .commands
            .iter()
            .map(|(id, open)| OpenItem {
                sequence: open.sequence,
                since: open.since,
                what: format!("{id} {}", open.verb),
            })
            .collect();
        let mut graphs: Vec<OpenItem> = self
            .swarms
            .iter()
            .flat_map(|swarm| &swarm.graphs)
            .filter(|(_, graph)| graph.certain)
            .map(|(id, graph)| OpenItem {
                sequence: graph.first,
                since: graph.first_at,
                what: format!("{id} {} of {} parts", graph.parts.len(), graph.of),
            })
            .collect();
        for list in [&mut tasks, &mut commands, &mut graphs] {
            list.sort_by_key(|item| item.sequence);
        }
        Open {
            tasks,
            commands,
            graphs,
        }
    }

    /// What must hold once everything is quiet: nothing is open. `last` is the sequence at which that is judged.
    pub fn finish(&mut self, last: u64) {
        let open = self.open();
        self.notes.inside = true;
        self.all_called_off(last);
        self.seats_are_settled(last);
        self.quarantines_are_over(last);
        self.questions_are_over(last);
        self.wishes_are_fulfilled(last);
        if self.counts.accepted > 0 {
            self.notes.checked(Invariant::EveryTaskEnds);
        }
        if !open.tasks.is_empty() {
            let first: Vec<&str> = open.tasks.iter().take(5).map(|t| &*t.what).collect();
            self.notes.broken(Invariant::EveryTaskEnds, last, || {
                format!("{} open, {}", open.tasks.len(), first.join("; "))
            });
        }
        self.nothing_waits_too_long(last);
        for item in &open.graphs {
            self.notes
                .broken(Invariant::GraphsDecided, item.sequence, || {
                    format!("graph {} is not decided on", item.what)
                });
        }
        for item in &open.commands {
            self.notes
                .broken(Invariant::CommandsAnswered, item.sequence, || {
                    format!("command {} has no answer", item.what)
                });
        }
        self.violations.append(&mut self.notes.violations);
    }

    /// At rest nothing is wanted that somebody could have done.
    fn wishes_are_fulfilled(&mut self, last: u64) {
        let late = self.last.1.minus_millis(LATE_MS);
        for unfulfilled in self.unfulfilled().collect::<Vec<_>>() {
            self.notes.checked(unfulfilled.invariant);
            if let Lack::Open(since) = unfulfilled.lack
                && since < late
            {
                let what = format!("{} since {since}", unfulfilled.what);
                self.notes.broken(unfulfilled.invariant, last, || what);
            }
        }
    }

    fn unfulfilled(&self) -> impl Iterator<Item = Unfulfilled> {
        let (now, hosts) = (self.last.1, !self.hosts.is_empty());
        let swarms = self.swarms.iter();
        swarms.flat_map(move |swarm| swarm.unfulfilled(now, hosts))
    }

    /// What agents are wanted to be and are not yet, in words.
    pub fn wishes(&self) -> Vec<String> {
        self.unfulfilled()
            .filter(|unfulfilled| unfulfilled.lack != Lack::Hopeless)
            .map(|unfulfilled| unfulfilled.what)
            .collect()
    }

    /// The host in whose hands the process of a request is, if that is the current one and is wanted.
    pub fn host_of(&self, place: Place, agent: AgentId, spawn: u64) -> Option<InstanceId> {
        let number = self.numbers.get(&(place.org, place.swarm))?;
        let turn = self.swarms[*number].wishes.get(&agent)?.now;
        match turn.phase {
            Phase::Claimed(host) | Phase::Running(host) if turn.spawn == spawn => Some(host),
            _ => None,
        }
    }

    /// Whether everything that was begun is finished.
    pub fn quiet(&self) -> bool {
        self.commands.is_empty()
            && self.open_tasks().next().is_none()
            && self
                .swarms
                .iter()
                .all(|swarm| swarm.graphs.values().all(|graph| !graph.certain))
    }

    /// What a task requires, whether it is queued, and from when on; `None` if it is not there.
    pub(crate) fn readiness(
        &self,
        swarm: usize,
        id: TaskId,
    ) -> Option<(Arc<[String]>, bool, Timestamp)> {
        let state = self.swarms.get(swarm)?;
        let task = state.tasks.get(&id)?;
        let ready = task.state == swarm::State::Waiting
            && !task.uncertain
            && task.hand_to.is_none()
            && state.unmet(id, u64::MAX).is_none();
        Some((task.facts.required.clone(), ready, task.ready_at))
    }

    /// Whether an agent is free that can take a task of one of these requirements.
    pub(crate) fn can_serve<'a>(
        &self,
        swarm: usize,
        mut classes: impl Iterator<Item = &'a Arc<[String]>>,
    ) -> bool {
        let Some(state) = self.swarms.get(swarm) else {
            return false;
        };
        let Some(shape) = state.shape.as_deref() else {
            return false;
        };
        if matches!(shape.topology(), Topology::Ring(_)) {
            // What waits for its turn does not wait for a decision.
            return false;
        }
        classes.any(|required| {
            state.agents.iter().any(|(id, agent)| {
                agent.free()
                    && shape.works(*id)
                    && required
                        .iter()
                        .all(|word| agent.capabilities.binary_search(word).is_ok())
            })
        })
    }
}
