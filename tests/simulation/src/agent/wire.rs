//! What a model agent writes, and what it reads of the log.

use std::sync::Arc;

use futures::FutureExt;
use swarm_agent_sdk::protocol::{
    Assignment, Fact, Outcome, Stop, Verdict, Write, WriteKind, Written,
};
use swarm_events::{
    Body, Event, Recorded, Subject, TaskId, Timestamp,
    envelope::Source,
    planted::{self, Bug},
    subject::TaskVerb,
    task,
};
use swarm_log::{AppendError, Fence, Log, Message};

use super::ModelAgent;
use crate::clock::Clock;

impl ModelAgent {
    pub(super) fn append(&self, clock: &Clock, writes: &[Write]) -> Vec<(u64, Written)> {
        let fence = self.subject(TaskVerb::Withdrawn);
        let messages = writes
            .iter()
            .map(|write| {
                let (verb, body): (TaskVerb, Body) = match &write.kind {
                    WriteKind::Started => (
                        TaskVerb::Started,
                        task::Started {
                            assignment: write.assignment.sequence,
                            incarnation: self.incarnation,
                        }
                        .into(),
                    ),
                    WriteKind::Ended(Outcome::Completed(result)) => (
                        TaskVerb::Completed,
                        task::Completed {
                            assignment: write.assignment.sequence,
                            incarnation: self.incarnation,
                            result: result.clone(),
                        }
                        .into(),
                    ),
                    WriteKind::Ended(Outcome::Failed { error, retryable }) => (
                        TaskVerb::AttemptFailed,
                        task::AttemptFailed {
                            assignment: write.assignment.sequence,
                            incarnation: self.incarnation,
                            error: error.clone(),
                            retryable: *retryable,
                        }
                        .into(),
                    ),
                    WriteKind::Ended(Outcome::Split(parts)) => (
                        TaskVerb::Split,
                        task::Split {
                            assignment: write.assignment.sequence,
                            incarnation: self.incarnation,
                            parts: parts.clone(),
                        }
                        .into(),
                    ),
                    WriteKind::Ended(Outcome::Declined { reason }) => (
                        TaskVerb::Declined,
                        task::Declined {
                            assignment: write.assignment.sequence,
                            incarnation: self.incarnation,
                            reason: reason.clone(),
                        }
                        .into(),
                    ),
                };
                let subject = Subject::Task(self.place, verb, Some(self.id));
                let time = Timestamp::from_micros(clock.wall());
                let event = Event::new(
                    write.id,
                    Source::Agent(self.id),
                    time,
                    &subject,
                    write.assignment.task.0,
                    body,
                );
                Message {
                    subject: subject.to_string(),
                    payload: event.to_json().expect("JSON").into(),
                    message_id: Some(write.id.to_string()),
                    fence: (!planted::is(Bug::NoStartCheck) || write.kind != WriteKind::Started)
                        .then(|| Fence {
                            subject: fence.clone().into(),
                            sequence: write.fence,
                        }),
                }
            })
            .collect();
        let results = self.log.append(messages).now_or_never().unwrap_or_default();
        writes
            .iter()
            .zip(results)
            .map(|(write, result)| {
                let written = match result {
                    Ok(appended) => Written::Stored(appended.sequence),
                    Err(AppendError::Fenced { .. }) => Written::Fenced,
                    Err(AppendError::FenceBusy { .. }) => Written::Busy,
                    Err(AppendError::Unknown { .. }) => Written::Unknown,
                    Err(AppendError::Full { .. }) => Written::Full,
                    Err(e) => Written::Refused(e.to_string()),
                };
                (write.assignment.sequence, written)
            })
            .collect()
    }
}

pub(super) fn fact(recorded: &Recorded) -> Fact {
    match &recorded.event.body {
        Body::TaskAssigned(data) => Fact::Assigned(Arc::new(Assignment {
            sequence: recorded.sequence,
            task: TaskId(recorded.event.about),
            event: recorded.event.id,
            correlation: recorded.event.correlation,
            traceparent: recorded.event.traceparent.clone(),
            data: data.clone(),
        })),
        Body::TaskWithdrawn(w) => Fact::Withdrawn {
            assignment: w.assignment,
            incarnation: w.incarnation,
            force: w.force,
        },
        _ => Fact::Unreadable,
    }
}

pub(super) fn verdict(recorded: &Recorded) -> Option<Verdict> {
    Some(match &recorded.event.body {
        Body::AgentJoined(j) => Verdict::Joined {
            incarnation: j.incarnation,
            instance: j.instance,
        },
        Body::AgentFailed(f) => Verdict::Failed {
            incarnation: f.incarnation,
        },
        Body::AgentRemoved(r) => Verdict::Removed {
            incarnation: r.incarnation,
            reason: r.reason.clone(),
        },
        Body::AgentLeft(l) => Verdict::Removed {
            incarnation: l.incarnation,
            reason: l.reason.clone(),
        },
        Body::AgentStopping(s) => Verdict::Stopping {
            incarnation: s.incarnation,
            stop: Stop {
                grace_ms: s.grace_ms,
                then: s.then,
                reason: s.reason.clone(),
            },
        },
        Body::AgentUpdated(u) => Verdict::Slots {
            incarnation: u.incarnation,
            slots: u.profile.slots,
        },
        _ => return None,
    })
}
