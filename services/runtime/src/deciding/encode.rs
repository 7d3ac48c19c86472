//! From decisions to messages.

use std::sync::Arc;

use swarm_events::{
    Body, Event, EventId, Partition, Service, Subject, Timestamp,
    decider::Decision,
    envelope::{Decided, Source},
    ids::InstanceId,
    subject::ControlVerb,
};
use swarm_log::{Fence, Message};
use uuid::Uuid;

/// The fence of everything decided under `epoch`: the server itself refuses it once another claim is stored.
pub fn epoch_fence(service: Service, partition: Partition, epoch: u64) -> Fence {
    let subject = Subject::Control(service, partition, ControlVerb::Claimed).to_string();
    Fence {
        subject: Arc::from(subject),
        sequence: epoch,
    }
}

/// A decision as a fenced message.
///
/// # Errors
/// Only if a carried JSON text is not JSON.
pub fn decision_message(
    service: Service,
    instance: InstanceId,
    fence: Fence,
    decision: Decision,
    decided: Decided,
    last_input: Option<Uuid>,
    time: Timestamp,
) -> Result<Message, serde_json::Error> {
    let id = EventId::of_decision(service.as_str(), decided.epoch, decided.ordinal);
    let source = Source::Service(service, instance);
    let mut event = Event::new(
        id,
        source,
        time,
        &decision.subject,
        decision.about,
        decision.body,
    );
    event.correlation = decision.correlation;
    event.causation = decision.causation.or(last_input);
    event.decided = Some(decided);
    Ok(Message {
        subject: decision.subject.to_string(),
        payload: event.to_json()?.into(),
        message_id: None,
        fence: Some(fence),
    })
}

/// A control message of a service to its own log.
///
/// # Errors
/// Never in practice: control events carry no foreign JSON.
pub fn control_message(
    service: Service,
    partition: Partition,
    verb: ControlVerb,
    instance: InstanceId,
    body: impl Into<Body>,
    fence: Fence,
    time: Timestamp,
) -> Result<Message, serde_json::Error> {
    let subject = Subject::Control(service, partition, verb);
    let source = Source::Service(service, instance);
    let event = Event::new(
        EventId(Uuid::now_v7()),
        source,
        time,
        &subject,
        Event::about_partition(partition),
        body,
    );
    Ok(Message {
        subject: subject.to_string(),
        payload: event.to_json()?.into(),
        message_id: None,
        fence: Some(fence),
    })
}
