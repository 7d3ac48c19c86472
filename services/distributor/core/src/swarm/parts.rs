//! Tasks that were split: what becomes of them when their parts end, and of the parts when they do.

use swarm_events::{
    TaskId,
    planted::{self, Bug},
};

use super::{Moment, Swarm};
use crate::{
    task::{How, Outcome, PartOf, Parts, Phase},
    trace::Trace,
};

/// What a failed task is to the one that fails for it.
pub(super) const PART: &str = "a part of it";

/// Why the parts of an ended task are cancelled.
pub(crate) fn part_off(parent: Option<TaskId>) -> String {
    match parent {
        Some(parent) => format!("task {parent}, of which it is a part, has ended"),
        None => "the task of which it is a part has ended".to_owned(),
    }
}

impl Parts {
    /// How many have not completed.
    pub(crate) fn open(&self) -> u32 {
        self.pieces.iter().filter(|piece| piece.result == 0).count() as u32
    }
    /// Names and sequences of the results.
    pub(crate) fn results(&self) -> impl Iterator<Item = (String, u64)> {
        self.pieces
            .iter()
            .map(|piece| (piece.key.to_string(), piece.result))
    }
}

impl Swarm {
    /// A part has ended: its parent goes on when it was the last, and fails if it has no result.
    pub(crate) fn part_ended(
        &mut self,
        (id, part, parent): (TaskId, PartOf, TaskId),
        how: How,
        moment: Moment,
        trace: &mut Trace,
    ) {
        let Some(&at) = self.live.get(&parent) else {
            return;
        };
        let Some(task) = self.tasks.get_mut(at) else {
            return;
        };
        // Of an earlier generation, or of a parent that ends already.
        let Phase::Parted { open } = task.phase else {
            return;
        };
        let called_off = task.called_off();
        let Some(more) = task.more.as_mut() else {
            return;
        };
        let Some(parts) = more
            .parts
            .as_mut()
            .filter(|parts| parts.assignment == part.assignment)
        else {
            return;
        };
        if how == How::Completed {
            if let Some(piece) = parts.pieces.get_mut(part.index as usize) {
                piece.result = moment.sequence;
            }
            let counts = 1 + u32::from(planted::is(Bug::PartCountsTwice));
            if open > counts {
                let open = open - counts;
                self.set_phase(at, Phase::Parted { open }, moment, trace);
                return;
            }
            // It keeps its place in the queue; how long it may wait counts from now.
            more.requeued_at = moment.now;
            self.set_phase(at, Phase::Queued, moment, trace);
            return;
        }
        if called_off {
            // It is cancelled, and does not fail for its parts.
            return;
        }
        let is_part = more.part.is_some();
        let outcome = match self.failure_of(id, PART) {
            // A person may retry the whole; of a part that was split in turn only its own whole.
            Outcome::Failed {
                error,
                because_of,
                path,
                ..
            } => Outcome::Failed {
                error,
                dead_lettered: !is_part,
                because_of,
                path,
            },
            other => other,
        };
        self.call_off_parts(at, moment, trace);
        self.doom(at, outcome, moment, trace);
    }

    /// The parts of a live task are to be cancelled, wherever they stand.
    fn call_off_parts(&mut self, at: u32, moment: Moment, trace: &mut Trace) {
        let parts = self
            .tasks
            .get_mut(at)
            .and_then(|task| task.more.as_mut()?.parts.take());
        if let Some(parts) = parts {
            self.call_off(&parts, moment, trace);
        }
    }

    /// These parts, whose parent ends, are to be cancelled, wherever they stand.
    pub(crate) fn call_off(&mut self, parts: &Parts, moment: Moment, trace: &mut Trace) {
        if planted::is(Bug::PartsOutliveFailure) {
            return;
        }
        for piece in &parts.pieces {
            let Some(&at) = self.live.get(&piece.id) else {
                continue;
            };
            let Some(task) = self.tasks.get_mut(at) else {
                continue;
            };
            if task.phase != Phase::Ending
                && task
                    .part()
                    .is_some_and(|part| part.assignment == parts.assignment)
            {
                task.more_mut().called_off = true;
                task.changed = moment.sequence;
                trace.task(self.number, at, piece.id);
            }
        }
    }
}
