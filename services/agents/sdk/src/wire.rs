//! What an agent writes.

use std::time::{SystemTime, UNIX_EPOCH};

use swarm_events::{
    Body, Event, Timestamp,
    envelope::Source,
    ids::{AgentId, EventId, InstanceId},
    subject::{Place, Subject, TaskVerb},
    task,
};
use swarm_log::{Fence, Message};
use uuid::Uuid;

use crate::{
    messages::Trace,
    protocol::{Assignment, Outcome, Write, WriteKind},
};

/// Who speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) place: Place,
    pub(crate) agent: AgentId,
    pub(crate) instance: InstanceId,
}

/// The wall clock, for people who read the event.
pub(crate) fn wall_clock() -> Timestamp {
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

impl Identity {
    pub(crate) fn task_subject(&self, verb: TaskVerb) -> Subject {
        Subject::Task(self.place, verb, Some(self.agent))
    }

    /// A message that carries `body`. The id serves retries: the server knows a repeat by it.
    pub(crate) fn message(
        &self,
        id: EventId,
        subject: &Subject,
        about: Uuid,
        causes: Option<&Assignment>,
        body: Body,
    ) -> Result<Message, serde_json::Error> {
        let mut event = Event::new(
            id,
            Source::Agent(self.agent),
            wall_clock(),
            subject,
            about,
            body,
        );
        if let Some(assignment) = causes {
            event.causation = Some(assignment.event.0);
            event.correlation = assignment.correlation;
        }
        Ok(Message {
            subject: subject.to_string(),
            payload: event.to_json()?.into(),
            message_id: Some(id.to_string()),
            fence: None,
        })
    }

    /// The same, as part of the trace of what it follows from.
    pub(crate) fn traced(
        &self,
        id: EventId,
        subject: &Subject,
        about: Uuid,
        trace: &Trace,
        body: Body,
    ) -> Result<Message, serde_json::Error> {
        let source = Source::Agent(self.agent);
        let mut event = Event::new(id, source, wall_clock(), subject, about, body);
        event.causation = trace.causation;
        event.correlation = trace.correlation;
        event.traceparent.clone_from(&trace.traceparent);
        Ok(Message {
            subject: subject.to_string(),
            payload: event.to_json()?.into(),
            message_id: Some(id.to_string()),
            fence: None,
        })
    }

    /// The subject on which `write` goes.
    pub(crate) fn subject_of(&self, write: &Write) -> Subject {
        self.task_subject(match write.kind {
            WriteKind::Started => TaskVerb::Started,
            WriteKind::Ended(Outcome::Completed(_)) => TaskVerb::Completed,
            WriteKind::Ended(Outcome::Failed { .. }) => TaskVerb::AttemptFailed,
            WriteKind::Ended(Outcome::Declined { .. }) => TaskVerb::Declined,
            WriteKind::Ended(Outcome::Split(_)) => TaskVerb::Split,
        })
    }

    /// A write of the protocol, under its check.
    pub(crate) fn checked(
        &self,
        write: &Write,
        incarnation: u64,
    ) -> Result<Message, serde_json::Error> {
        let assignment = write.assignment.sequence;
        let body: Body = match &write.kind {
            WriteKind::Started => task::Started {
                assignment,
                incarnation,
            }
            .into(),
            WriteKind::Ended(Outcome::Completed(result)) => task::Completed {
                assignment,
                incarnation,
                result: result.clone(),
            }
            .into(),
            WriteKind::Ended(Outcome::Failed { error, retryable }) => task::AttemptFailed {
                assignment,
                incarnation,
                error: error.clone(),
                retryable: *retryable,
            }
            .into(),
            WriteKind::Ended(Outcome::Split(parts)) => task::Split {
                assignment,
                incarnation,
                parts: parts.clone(),
            }
            .into(),
            WriteKind::Ended(Outcome::Declined { reason }) => task::Declined {
                assignment,
                incarnation,
                reason: reason.clone(),
            }
            .into(),
        };
        let about = write.assignment.task.0;
        let mut message = self.message(
            write.id,
            &self.subject_of(write),
            about,
            Some(&write.assignment),
            body,
        )?;
        message.fence = Some(Fence {
            subject: self.task_subject(TaskVerb::Withdrawn).to_string().into(),
            sequence: write.fence,
        });
        Ok(message)
    }
}
