//! A message as it is shown.

use serde::Serialize;
use swarm_coordinator_core::Swarm;
use swarm_events::{
    AgentId, Body, EventId, Input, Json, Place, Problem, Timestamp,
    message::{Abroad, Purpose, Sent, Stage},
    read,
    read::Unreadable,
    subject::{Recipient, Sender, Subject},
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::bus::Stored;

/// The other end of a message, in another swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AbroadView {
    /// That swarm.
    pub swarm_id: Uuid,
    /// The agent there; null: its leader, or nobody in particular.
    pub agent_id: Option<Uuid>,
}
impl From<Abroad> for AbroadView {
    fn from(abroad: Abroad) -> Self {
        Self {
            swarm_id: abroad.swarm_id.0,
            agent_id: abroad.agent_id.map(|agent| agent.0),
        }
    }
}

/// A message.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0190f7a0-0000-7000-8000-000000000001", "sequence": 7, "at": "2026-01-01T00:00:00.000001Z",
    "swarm_id": "0190f7a0-0000-7000-8000-000000000002", "from": "people", "to": "0190f7a0-0000-7000-8000-000000000003",
    "to_name": "anna", "purpose": "tell", "receipt": "handled", "body": {"note": "the second half is urgent"}}))]
pub struct MessageView {
    /// Its id; replies and receipts name it.
    pub id: Uuid,
    /// Its sequence among the messages of the installation: where a stream goes on.
    pub sequence: u64,
    /// When it was stored.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Its swarm.
    pub swarm_id: Uuid,
    /// The sender: an agent's id, `people`, or `abroad`: an agent of another swarm.
    pub from: String,
    /// The sender's name, if it is an agent of this swarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_name: Option<String>,
    /// The recipient: an agent's id, `leader`, a role, `all`, `people`, `abroad`, or `topic`.
    pub to: String,
    /// The recipient's name, if it is an agent of this swarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_name: Option<String>,
    /// The topic, if it was sent to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// `tell`, `request`, `reply` or `receipt`.
    pub purpose: &'static str,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_reply_to: Option<Uuid>,
    /// The message that it is a receipt of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt_of: Option<Uuid>,
    /// In a receipt: `delivered` (a process of the recipient has read it), `handled` (its handler came to its end), `failed`
    /// (with an error), or `refused` (it was not taken).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub stage: Option<Stage>,
    /// In a receipt: why it was not taken, or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The receipt that the sender wants.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub receipt: Option<Stage>,
    /// After so many milliseconds from `at` nobody is to handle it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// The other end, of a message that goes to or came from another swarm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abroad: Option<AbroadView>,
    /// What it says.
    #[schema(value_type = Object)]
    pub body: Json,
}

/// A stored message, taken apart.
#[derive(Clone, Debug)]
pub struct Read {
    /// Where it was sent.
    pub place: Place,
    /// From whom.
    pub from: Sender,
    /// To whom.
    pub to: Recipient,
    /// Its id.
    pub id: EventId,
    /// The sender, or the swarm if people sent it.
    pub about: Uuid,
    /// What all of it follows from.
    pub correlation: Option<Uuid>,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
    /// What it says.
    pub sent: Sent,
}

impl Read {
    /// Reads a stored message.
    ///
    /// # Errors
    /// Why it is none.
    pub fn of(stored: &Stored) -> Result<Self, Box<Unreadable>> {
        let recorded = match read(stored.sequence, stored.at, &stored.subject, &stored.payload) {
            Input::Event(recorded) => recorded,
            Input::Unreadable(unreadable) => return Err(Box::new(unreadable)),
        };
        match (recorded.subject, recorded.event.body) {
            (Subject::Message(place, from, to), Body::MessageSent(sent)) => Ok(Self {
                place,
                from,
                to,
                id: recorded.event.id,
                about: recorded.event.about,
                correlation: recorded.event.correlation,
                traceparent: recorded.event.traceparent,
                sent,
            }),
            (subject, body) => Err(Box::new(Unreadable {
                sequence: stored.sequence,
                time: stored.at,
                subject_text: stored.subject.clone(),
                subject: Some(subject),
                id: Some(recorded.event.id),
                source: None,
                newer: false,
                problem: Problem::new("no-message", body.type_name()),
            })),
        }
    }

    /// As it is shown.
    pub fn view(self, stored: &Stored, swarm: Option<&Swarm>) -> MessageView {
        let name = |agent: AgentId| {
            let found = swarm.and_then(|swarm| swarm.agents.get(&agent));
            found.map(|agent| agent.profile.agent_name.clone())
        };
        let sent = self.sent;
        let (mut in_reply_to, mut receipt_of, mut stage, mut detail) = (None, None, None, None);
        let purpose = match sent.purpose {
            Purpose::Tell => "tell",
            Purpose::Request => "request",
            Purpose::Reply { to } => {
                in_reply_to = Some(to);
                "reply"
            }
            Purpose::Receipt {
                of,
                stage: reached,
                detail: why,
            } => {
                (receipt_of, stage, detail) = (Some(of), Some(reached), why);
                "receipt"
            }
        };
        MessageView {
            id: self.id.0,
            sequence: stored.sequence,
            at: stored.at,
            swarm_id: self.place.swarm.0,
            from: self.from.to_string(),
            from_name: match self.from {
                Sender::Agent(agent) => name(agent),
                _ => None,
            },
            to: match self.to {
                Recipient::Topic(_) => "topic".to_owned(),
                to => to.to_string(),
            },
            to_name: match self.to {
                Recipient::Agent(agent) => name(agent),
                _ => None,
            },
            topic: sent.topic,
            purpose,
            in_reply_to,
            receipt_of,
            stage,
            detail,
            receipt: sent.receipt,
            expires_ms: sent.expires_ms,
            abroad: sent.abroad.map(AbroadView::from),
            body: sent.body,
        }
    }
}
