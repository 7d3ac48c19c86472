//! Reading what the server republishes, and what a direct get answers: the same headers.

use std::sync::Arc;

use async_nats::{HeaderMap, Message};
use swarm_events::{Body, Input, Recorded, Timestamp};
use swarm_log::StoredMessage;

use crate::protocol::{Assignment, Fact, Stop, Verdict};

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(async_nats::HeaderValue::as_str)
}

/// The message as the stream holds it, `None` if its headers do not say.
pub(crate) fn stored(message: &Message) -> Option<StoredMessage> {
    let headers = message.headers.as_ref()?;
    Some(StoredMessage {
        sequence: header(headers, "Nats-Sequence")?.parse().ok()?,
        time_micros: Timestamp::parse(header(headers, "Nats-Time-Stamp")?)
            .ok()?
            .as_micros(),
        subject: header(headers, "Nats-Subject")?.into(),
        payload: message.payload.clone(),
        message_id: header(headers, "Nats-Msg-Id").map(Into::into),
    })
}

/// A republished message: as stored, and the sequence of the one before it on its subject (0: none).
pub(crate) fn republished(message: &Message) -> Option<(StoredMessage, u64)> {
    let previous = header(message.headers.as_ref()?, "Nats-Last-Sequence")?
        .parse()
        .ok()?;
    Some((stored(message)?, previous))
}

/// Reads a stored message.
pub(crate) fn read(message: &StoredMessage) -> Input {
    swarm_events::read(
        message.sequence,
        Timestamp::from_micros(message.time_micros),
        &message.subject,
        &message.payload,
    )
}

/// What a message on `assigned` or `withdrawn` says.
pub(crate) fn fact(message: &StoredMessage) -> Fact {
    match read(message) {
        Input::Event(Recorded {
            sequence, event, ..
        }) => match event.body {
            Body::TaskAssigned(data) => Fact::Assigned(Arc::new(Assignment {
                sequence,
                task: event.about.into(),
                event: event.id,
                correlation: event.correlation,
                traceparent: event.traceparent,
                data,
            })),
            Body::TaskWithdrawn(data) => Fact::Withdrawn {
                assignment: data.assignment,
                incarnation: data.incarnation,
                force: data.force,
            },
            _ => Fact::Unreadable,
        },
        Input::Unreadable(unreadable) => {
            tracing::warn!(subject = %message.subject, sequence = message.sequence, problem = %unreadable.problem, "unreadable");
            Fact::Unreadable
        }
    }
}

/// What a message on `agent.<verb>` says, if the protocol heeds it.
pub(crate) fn verdict(message: &StoredMessage) -> Option<Verdict> {
    match read(message) {
        Input::Event(recorded) => verdict_of(&recorded.event.body),
        Input::Unreadable(_) => None,
    }
}

/// What an event about the agent itself says, if the protocol heeds it.
pub(crate) fn verdict_of(body: &Body) -> Option<Verdict> {
    Some(match body {
        Body::AgentJoined(data) => Verdict::Joined {
            incarnation: data.incarnation,
            instance: data.instance,
        },
        Body::AgentFailed(data) => Verdict::Failed {
            incarnation: data.incarnation,
        },
        Body::AgentRemoved(data) => Verdict::Removed {
            incarnation: data.incarnation,
            reason: data.reason.clone(),
        },
        Body::AgentLeft(data) => Verdict::Removed {
            incarnation: data.incarnation,
            reason: data.reason.clone(),
        },
        Body::AgentStopping(data) => Verdict::Stopping {
            incarnation: data.incarnation,
            stop: Stop {
                grace_ms: data.grace_ms,
                then: data.then,
                reason: data.reason.clone(),
            },
        },
        Body::AgentUpdated(data) => Verdict::Slots {
            incarnation: data.incarnation,
            slots: data.profile.slots,
        },
        // Quarantine is between the services: what runs goes on, and what waits is taken away by `withdrawn`.
        _ => return None,
    })
}
