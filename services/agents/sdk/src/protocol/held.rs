//! An assignment that the agent holds, and what it writes about it.

use std::sync::Arc;

use swarm_events::{
    ids::EventId,
    task::{Carried, DECLINE_REASON_BYTES_MAX, ERROR_BYTES_MAX, Part},
};

use super::Assignment;

/// How a handler ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Completed(Carried),
    /// Without.
    Failed {
        /// What went wrong, at most [`ERROR_BYTES_MAX`] bytes.
        error: String,
        /// Whether another attempt could help.
        retryable: bool,
    },
    /// Given back: another agent may take it, and it was no attempt.
    Declined {
        /// Why, at most [`DECLINE_REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// Handed on in parts: the results of these come back as the inputs of a further step.
    Split(Vec<Part>),
}

impl Outcome {
    /// A failed attempt; a longer text is cut.
    pub fn failed(error: impl Into<String>, retryable: bool) -> Self {
        Self::Failed {
            error: cut(error.into(), ERROR_BYTES_MAX),
            retryable,
        }
    }

    /// A task that is given back; a longer text is cut.
    pub fn declined(reason: impl Into<String>) -> Self {
        Self::Declined {
            reason: cut(reason.into(), DECLINE_REASON_BYTES_MAX),
        }
    }
}

/// `text` in at most `most` bytes, with a mark where it was cut.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let mark = " …";
        let mut end = most - mark.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(mark);
    }
    text
}

/// What a write says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// `task.started`
    Started,
    /// `task.completed`, `task.attempt_failed`, `task.declined` or `task.split`
    Ended(Outcome),
}

/// An event to be appended under a check on the last withdrawal.
#[derive(Clone, Debug)]
pub struct Write {
    /// Id of the event and of the message.
    pub id: EventId,
    /// The assignment that it is about.
    pub assignment: Arc<Assignment>,
    /// What it says.
    pub kind: WriteKind,
    /// Sequence that the last message of `task.withdrawn.<agent>` must have (0: none exists).
    pub fence: u64,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It stands at this sequence.
    Stored(u64),
    /// There is a withdrawal that is not known here.
    Fenced,
    /// Another checked write is in flight.
    Busy,
    /// It may or may not be stored.
    Unknown,
    /// The log is full.
    Full,
    /// Refused, for this reason.
    Refused(String),
}

pub(super) struct Pending {
    pub(super) id: EventId,
    fence: u64,
    /// A copy was sent whose outcome is not known: it is sent again as it was.
    pub(super) doubtful: bool,
    pub(super) in_flight: bool,
}

impl Pending {
    pub(super) const fn new(id: EventId) -> Self {
        Self {
            id,
            fence: 0,
            doubtful: false,
            in_flight: false,
        }
    }

    /// Whether a copy may be stored or become so.
    pub(super) const fn undecided(&self) -> bool {
        self.doubtful || self.in_flight
    }

    /// Marks it as sent, if it can be.
    pub(super) fn send(&mut self, fence: Option<u64>) -> bool {
        if self.in_flight {
            return false;
        }
        if !self.doubtful {
            match fence {
                Some(fence) => self.fence = fence,
                None => return false,
            }
        }
        self.in_flight = true;
        true
    }
}

pub(super) enum Phase {
    Waiting,
    Starting(Pending),
    Running,
    Finishing(Outcome, Pending),
}

pub(super) struct Held {
    pub(super) assignment: Arc<Assignment>,
    pub(super) phase: Phase,
    /// Withdrawn at this sequence, with or without force, while a write was undecided.
    pub(super) withdrawn: Option<(u64, bool)>,
}

impl Held {
    pub(super) const fn new(assignment: Arc<Assignment>) -> Self {
        Self {
            assignment,
            phase: Phase::Waiting,
            withdrawn: None,
        }
    }

    pub(super) fn pending(&mut self) -> Option<&mut Pending> {
        match &mut self.phase {
            Phase::Starting(pending) | Phase::Finishing(_, pending) => Some(pending),
            Phase::Waiting | Phase::Running => None,
        }
    }

    pub(super) fn write(&self) -> Option<Write> {
        let (kind, pending) = match &self.phase {
            Phase::Starting(pending) => (WriteKind::Started, pending),
            Phase::Finishing(outcome, pending) => (WriteKind::Ended(outcome.clone()), pending),
            Phase::Waiting | Phase::Running => return None,
        };
        Some(Write {
            id: pending.id,
            assignment: self.assignment.clone(),
            kind,
            fence: pending.fence,
        })
    }
}
