//! What is promised of ends: how a failure came to a task, graphs that are called off, dead letters that are put away.

use swarm_events::{
    Recorded, TaskId,
    task::{DependencyType, Discarded, FAILURE_PATH_MAX, Failed},
};

use super::{
    Checker,
    parts::is_part,
    swarm::{End, State, Swarm, Task},
};
use crate::Invariant;

/// What a task ends with that waited too long in the queue.
const WAITED_TOO_LONG: &str = "it waited longer than its queue_timeout_ms";

impl Checker {
    /// Judges how a failure is said to have come to a task.
    pub(super) fn failure_path(
        &mut self,
        number: usize,
        id: TaskId,
        recorded: &Recorded,
        failed: &Failed,
    ) {
        if failed.error == WAITED_TOO_LONG {
            self.waited_too_long(number, id, recorded);
        }
        if failed.because_of.is_none() && failed.path.is_empty() {
            return;
        }
        self.notes.checked(Invariant::FailurePaths);
        if let Some(wrong) = misled(&self.swarms[number], id, failed) {
            self.notes
                .broken(Invariant::FailurePaths, recorded.sequence, || {
                    format!("{id} failed by {:?}: {wrong}", failed.path)
                });
        }
    }

    /// A graph is called off: those of its tasks that live are to end, in this generation.
    pub(super) fn graph_cancelled(
        &mut self,
        number: usize,
        recorded: &Recorded,
    ) -> Result<(), &'static str> {
        let swarm = &mut self.swarms[number];
        let members = swarm.members.get(&recorded.event.about);
        let members: Vec<TaskId> = members.into_iter().flatten().copied().collect();
        let mut any = false;
        for id in members {
            let Some(task) = self.swarms[number].tasks.get_mut(&id) else {
                continue;
            };
            if !task.state.ended() && !task.ending && !task.doomed && !task.is_called_off() {
                any = true;
                task.called_off = (task.generation, recorded.sequence);
                self.tell(number, id, recorded.sequence);
                self.touch(number, id);
            }
        }
        if any {
            Ok(())
        } else {
            Err("nothing-to-cancel")
        }
    }

    /// A task goes on, which it must not if its graph was called off in this generation.
    pub(super) fn called_off(&mut self, number: usize, id: TaskId, recorded: &Recorded) {
        let Some(task) = self.swarms[number].tasks.get(&id) else {
            return;
        };
        if task.graph.is_some() {
            self.notes.checked(Invariant::GraphsCalledOff);
        }
        if !task.is_called_off() {
            return;
        }
        let at = task.called_off.1;
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        if cause >= at {
            let what = recorded.event.body.type_name();
            let (invariant, whose) = match task.part_of {
                Some(_) => (Invariant::PartsEndOnce, "which is a part, and"),
                None => (Invariant::GraphsCalledOff, "whose graph"),
            };
            self.notes.broken(invariant, recorded.sequence, || {
                format!("{what} of {id}, {whose} was called off at {at}")
            });
        }
    }

    /// Every task of a graph that was called off has ended.
    pub(super) fn all_called_off(&mut self, last: u64) {
        for swarm in &self.swarms {
            let members = swarm.members.values().flatten();
            for id in members {
                if let Some(task) = swarm.tasks.get(id)
                    && task.is_called_off()
                    && !task.state.ended()
                {
                    self.notes.broken(Invariant::GraphsCalledOff, last, || {
                        format!(
                            "{id} is {:?}, and its graph was called off at {}",
                            task.state, task.called_off.1
                        )
                    });
                }
            }
        }
    }

    pub(super) fn discarded(
        &mut self,
        number: usize,
        id: TaskId,
        state: State,
        recorded: &Recorded,
        discarded: &Discarded,
    ) -> Result<(), &'static str> {
        self.notes.checked(Invariant::DiscardedStays);
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let Some(task) = self.swarms[number].tasks.get_mut(&id) else {
            return Err("unknown-task");
        };
        if state == State::Ended(End::Retryable)
            && task.dead_letter
            && task.generation == discarded.generation
        {
            task.dead_letter = false;
            task.turned = recorded.sequence;
            task.state = State::Ended(End::Discarded);
            return Ok(());
        }
        // Another command on it may have been answered meanwhile.
        if cause >= task.turned {
            self.notes
                .broken(Invariant::DiscardedStays, recorded.sequence, || {
                    format!("{id} is put away, and is no dead letter: {state:?}")
                });
        }
        Err("no-dead-letter")
    }
}

fn demands(task: &Task, other: TaskId) -> bool {
    task.edges
        .iter()
        .any(|edge| edge.task == other && edge.kind != DependencyType::Completion)
}

/// What is wrong with a path, as far as its tasks are still remembered.
fn misled(swarm: &Swarm, id: TaskId, failed: &Failed) -> Option<String> {
    let path = &failed.path;
    let (Some(first), Some(last)) = (path.first(), path.last()) else {
        return Some(format!("nothing leads from {:?}", failed.because_of));
    };
    if failed.because_of != Some(*last) {
        return Some(format!("it does not lead to {:?}", failed.because_of));
    }
    if path.len() > FAILURE_PATH_MAX {
        return Some(format!("it is longer than {FAILURE_PATH_MAX}"));
    }
    let pairs = path.iter().zip(path[1..].iter().chain([&id]));
    for (n, (from, to)) in pairs.enumerate() {
        // Of a longer path the first cause and those nearest are told.
        let cut = n == 0 && path.len() == FAILURE_PATH_MAX;
        if let Some(task) = swarm.tasks.get(to).filter(|_| !cut)
            && !demands(task, *from)
            && !is_part(swarm.tasks.get(from), *to)
        {
            return Some(format!(
                "{to} does not depend on the success of {from}, and has it for no part"
            ));
        }
        if let Some(task) = swarm.tasks.get(from).filter(|task| !task.loose)
            && !ended_badly(task)
        {
            return Some(format!("{from} has not failed"));
        }
    }
    let first = swarm.tasks.get(first).filter(|task| !task.loose)?;
    (!(first.ended_by_itself || first.state == State::Ended(End::Rejected)))
        .then(|| "its first task failed because of another".to_owned())
}

fn ended_badly(task: &Task) -> bool {
    task.ended_badly || task.state == State::Ended(End::Rejected)
}
