//! What the protocol is told, and what it asks for.

use std::sync::Arc;

use swarm_events::{
    agent::StopThen,
    ids::{EventId, InstanceId, TaskId},
    task::Assigned,
};

#[cfg(doc)]
use super::Protocol;
use super::{Millis, Write};

/// An assignment as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its stream sequence: its name, and the fencing token.
    pub sequence: u64,
    /// The task.
    pub task: TaskId,
    /// Id of the `assigned` event.
    pub event: EventId,
    /// Its correlation.
    pub correlation: Option<uuid::Uuid>,
    /// The trace that it is part of (W3C Trace Context).
    pub traceparent: Option<String>,
    /// Its data.
    pub data: Assigned,
}

/// A subject of the agent's own that must be read without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Own {
    /// `task.assigned.<agent>`
    Assigned,
    /// `task.withdrawn.<agent>`
    Withdrawn,
}

/// What a message on one of them says.
#[derive(Clone, Debug)]
pub enum Fact {
    /// Work.
    Assigned(Arc<Assignment>),
    /// Work taken away.
    Withdrawn {
        /// Sequence of the assignment.
        assignment: u64,
        /// The incarnation it was given to.
        incarnation: u64,
        /// Also if it has started.
        force: bool,
    },
    /// It cannot be read. Its place on the subject counts all the same.
    Unreadable,
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Republished, with the sequence of the message before it on its subject (0: none).
    Live {
        /// That sequence.
        previous: u64,
    },
    /// Read in order, without a gap, from the sequence that [`Do::CatchUp`] named.
    CatchUp,
}

/// A verdict on the agent itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A process joined as this agent.
    Joined {
        /// Its incarnation.
        incarnation: u64,
        /// The process.
        instance: InstanceId,
    },
    /// It is held to be dead.
    Failed {
        /// The incarnation that is judged.
        incarnation: u64,
    },
    /// It was taken out, or left.
    Removed {
        /// The incarnation that is out.
        incarnation: u64,
        /// Why.
        reason: String,
    },
    /// It is to go.
    Stopping {
        /// The incarnation that goes.
        incarnation: u64,
        /// How.
        stop: Stop,
    },
    /// It may run more tasks at once from here on, or fewer.
    Slots {
        /// The incarnation that is meant.
        incarnation: u64,
        /// How many.
        slots: u32,
    },
}

/// The swarm's wish that the agent goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// How long what runs may take to end, in milliseconds.
    pub grace_ms: Millis,
    /// What comes after.
    pub then: StopThen,
    /// Why.
    pub reason: String,
}

/// Why the incarnation is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// Held to be dead: all work is given to others; a new incarnation may join.
    Failed,
    /// Removed.
    Removed {
        /// Why.
        reason: String,
    },
    /// Another process joined as this agent.
    Superseded {
        /// Its incarnation.
        incarnation: u64,
        /// The process.
        instance: InstanceId,
    },
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Do {
    /// Read the own subject `own` from `from` (inclusive) to its end: [`Protocol::heard`] for each message, then
    /// [`Protocol::caught_up`].
    CatchUp {
        /// Which subject.
        own: Own,
        /// First sequence to read.
        from: u64,
    },
    /// Read the last message of the own subjects: [`Protocol::checked`].
    Check {
        /// `assigned` too, not only `withdrawn`.
        assigned: bool,
        /// The verdicts on the agent too: [`Protocol::verdict`] for each.
        verdicts: bool,
    },
    /// Append these, in this order, in one call: [`Protocol::written`].
    Append(Vec<Write>),
    /// Find out whether the event `write.id` is stored behind its assignment: [`Protocol::looked_up`].
    LookUp(Write),
    /// It is started: run the handler, then [`Protocol::finished`].
    Run(Arc<Assignment>),
    /// Stop the handler; what it says is not wanted any more.
    Kill {
        /// The assignment.
        assignment: u64,
    },
}
