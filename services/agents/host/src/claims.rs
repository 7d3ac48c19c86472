//! Claiming a request in the log, under a check that only the first claim passes.

use std::time::Duration;

use swarm_agent_host_core::Key;
use swarm_events::{
    Body, Event, EventId, Input, Timestamp,
    agent::{HostName, SpawnClaimed},
    envelope::Source,
    read,
    subject::{AgentVerb, Subject},
};
use swarm_log::{AppendError, Fence, Log, Message};
use uuid::Uuid;

/// Another write under the same check is in flight (clusters only): asked again after this.
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// First and longest pause after an answer that never came.
const DOUBT_PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`DOUBT_PAUSE_MIN`].
const DOUBT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is known when nothing more is to be sent. Whose claim holds, the tail tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// Ours is stored.
    Stored,
    /// Somebody's claim of this request is stored, perhaps ours.
    Taken,
}

/// An event of this host about an agent, because of `causation`.
pub(crate) fn message(
    host: &HostName,
    id: EventId,
    key: Key,
    verb: AgentVerb,
    causation: Option<EventId>,
    body: impl Into<Body>,
) -> Result<Message, serde_json::Error> {
    let subject = Subject::Agent(key.place, verb, key.agent);
    let mut event = Event::new(
        id,
        Source::Host(host.instance),
        Timestamp::from(chrono::Utc::now()),
        &subject,
        key.agent.0,
        body,
    );
    event.causation = causation.map(|id| id.0);
    Ok(Message {
        subject: subject.to_string(),
        payload: event.to_json()?.into(),
        // For retries: the server knows a repeat by it.
        message_id: Some(id.to_string()),
        fence: None,
    })
}

/// A request that is to be claimed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    /// Its number.
    pub(crate) spawn: u64,
    /// The event that holds it.
    pub(crate) id: EventId,
    /// Sequence of that event.
    pub(crate) requested_at: u64,
    /// Sequence of the last claim met on the subject, 0 if none.
    pub(crate) last_claim: u64,
}

/// Publishes the claim until its outcome is known. It names the request as its cause.
///
/// A message whose acknowledgement is lost is sent again as it is: stored once, it fails its own check the second time.
pub(crate) async fn claim(
    log: &impl Log,
    host: &HostName,
    key: Key,
    open: Open,
) -> Result<Claimed, serde_json::Error> {
    let spawn = open.spawn;
    let claim = SpawnClaimed {
        spawn,
        host: host.clone(),
    };
    let id = EventId(Uuid::now_v7());
    let mut message = message(host, id, key, AgentVerb::SpawnClaimed, Some(open.id), claim)?;
    let subject = message.subject.clone();
    let mut sequence = open.last_claim;
    let mut pause = DOUBT_PAUSE_MIN;
    loop {
        message.fence = Some(Fence {
            subject: subject.as_str().into(),
            sequence,
        });
        let outcome = log.append(vec![message.clone()]).await.pop();
        match outcome {
            Some(Ok(_)) => return Ok(Claimed::Stored),
            Some(Err(AppendError::FenceBusy { .. })) => {
                tokio::time::sleep(BUSY_PAUSE).await;
                continue;
            }
            Some(Err(AppendError::Fenced { .. })) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, agent = %key.agent, spawn, "a claim is in doubt")
            }
            None => {}
        }
        // What is there is the truth, whatever the answer was.
        match log.last_of(&subject).await {
            Ok(Some(last)) => {
                if last.sequence > open.requested_at && claims(&last, spawn) {
                    return Ok(Claimed::Taken);
                }
                if last.sequence != sequence {
                    sequence = last.sequence;
                    continue;
                }
            }
            Ok(None) if sequence != 0 => {
                sequence = 0;
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the last claim cannot be read yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(DOUBT_PAUSE_MAX);
    }
}

/// Whether a stored message claims the request `spawn` or a newer one.
fn claims(message: &swarm_log::StoredMessage, spawn: u64) -> bool {
    let time = Timestamp::from_micros(message.time_micros);
    let read = read::read(message.sequence, time, &message.subject, &message.payload);
    matches!(read, Input::Event(recorded)
        if matches!(&recorded.event.body, Body::AgentSpawnClaimed(claim) if claim.spawn >= spawn))
}
