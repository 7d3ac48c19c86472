//! Whether a message may go to the swarm that it names, and what goes there.

use swarm_coordinator_core::Swarm;
use swarm_events::{
    AgentId, EventId, Place, Subject, Timestamp,
    ids::derived,
    message::{Abroad, MESSAGE_BYTES_MAX, Purpose, Sent, Stage},
    subject::{AgentVerb, Recipient, Sender, SwarmVerb},
};
use uuid::Uuid;

use crate::messages::Read;

/// What is said in a swarm, from abroad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where.
    pub place: Place,
    /// To whom.
    pub to: Recipient,
    /// Under which id: the message's own, so that an answer names what its receiver knows.
    pub id: EventId,
    /// Its sender.
    pub about: Uuid,
    /// What it says.
    pub sent: Sent,
    /// What all of it follows from.
    pub correlation: Option<Uuid>,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
    /// It tells the sender that its message was not taken.
    pub is_refusal: bool,
}

/// A message does not go where it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, in words.
    pub detail: String,
    /// Subjects of the log by which it would be known what is not: it may have come a moment ago.
    pub told_by: Vec<String>,
}

impl Refused {
    /// For this reason.
    pub fn new(detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            told_by: Vec::new(),
        }
    }

    /// What its sender is told. Nobody is told of a receipt that does not arrive.
    pub fn receipt(&self, read: &Read) -> Option<Delivery> {
        let Sender::Agent(agent) = read.from else {
            return None;
        };
        if matches!(read.sent.purpose, Purpose::Receipt { .. }) {
            return None;
        }
        let purpose = Purpose::Receipt {
            of: read.id.0,
            stage: Stage::Refused,
            detail: Some(self.detail.clone()),
        };
        Some(Delivery {
            place: read.place,
            to: Recipient::Agent(agent),
            id: EventId(derived("refusal", &[read.id.0.as_bytes()])),
            about: read.place.swarm.0,
            sent: Sent {
                incarnation: 0,
                purpose,
                topic: None,
                receipt: None,
                expires_ms: None,
                // A receipt from abroad says from where; without it nobody would hear it.
                abroad: read.sent.abroad.or(Some(Abroad {
                    swarm_id: read.place.swarm,
                    agent_id: None,
                })),
                body: swarm_events::Json::null(),
            },
            correlation: read.correlation,
            traceparent: read.traceparent.clone(),
            is_refusal: true,
        })
    }
}

/// The place that a message names: a swarm of its own organization.
pub fn target(read: &Read, to: Abroad) -> Place {
    Place::new(read.place.org, to.swarm_id)
}

/// What `read`, which was stored at `stored`, becomes in the other swarm, which is `found` if the organization has it.
///
/// # Errors
/// Why it does not go there.
pub fn judge(
    found: Option<&Swarm>,
    read: &Read,
    to: Abroad,
    stored: Timestamp,
    now: Timestamp,
) -> Result<Delivery, Refused> {
    let place = target(read, to);
    if place == read.place {
        return Err(Refused::new(
            "it names its own swarm: send it there without abroad",
        ));
    }
    if read.sent.body.len() > MESSAGE_BYTES_MAX {
        return Err(Refused::new(format!(
            "its body has {} bytes, more than {MESSAGE_BYTES_MAX}",
            read.sent.body.len()
        )));
    }
    let Some(swarm) = found else {
        let detail = format!("there is no swarm {} in this organization", to.swarm_id);
        return Err(Refused {
            told_by: vec![Subject::Swarm(place, SwarmVerb::Created).to_string()],
            ..Refused::new(detail)
        });
    };
    if swarm.deleted_at.is_some() {
        return Err(Refused::new(format!("swarm {} was deleted", to.swarm_id)));
    }
    if swarm.stopping.is_some() {
        return Err(Refused::new(format!(
            "swarm {} is being terminated",
            to.swarm_id
        )));
    }
    let recipient = match to.agent_id {
        None => Recipient::Leader,
        Some(agent) => {
            there(swarm, place, agent)?;
            Recipient::Agent(agent)
        }
    };
    let waited = now.millis_since(stored);
    let expires_ms = match read.sent.expires_ms {
        Some(ms) if ms <= waited => {
            return Err(Refused::new(format!(
                "it was to be handled within {ms} ms, and came here after {waited}"
            )));
        }
        // On the way it has aged; there it is new.
        Some(ms) => Some(ms - waited),
        None => None,
    };
    Ok(Delivery {
        place,
        to: recipient,
        id: read.id,
        about: read.about,
        sent: Sent {
            expires_ms,
            abroad: Some(Abroad {
                swarm_id: read.place.swarm,
                agent_id: match read.from {
                    Sender::Agent(agent) => Some(agent),
                    Sender::People | Sender::Abroad => None,
                },
            }),
            ..read.sent.clone()
        },
        correlation: read.correlation,
        traceparent: read.traceparent.clone(),
        is_refusal: false,
    })
}

fn there(swarm: &Swarm, place: Place, agent: AgentId) -> Result<(), Refused> {
    match swarm.agents.get(&agent) {
        Some(found) if found.holds_place() => Ok(()),
        found => {
            let what = match found {
                Some(_) => "has left",
                None => "is not in",
            };
            Err(Refused {
                told_by: [AgentVerb::Joined, AgentVerb::Added]
                    .map(|verb| Subject::Agent(place, verb, agent).to_string())
                    .to_vec(),
                ..Refused::new(format!("agent {agent} {what} swarm {}", place.swarm))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_events::{Json, OrgId, SwarmId};

    use super::*;

    fn read(purpose: Purpose, from: Sender) -> Read {
        let id = Uuid::from_u128;
        Read {
            place: Place::new(OrgId(id(1)), SwarmId(id(2))),
            from,
            to: Recipient::Abroad,
            id: EventId(id(9)),
            about: id(4),
            correlation: Some(id(5)),
            traceparent: Some("00-trace".to_owned()),
            sent: Sent {
                incarnation: 3,
                purpose,
                topic: None,
                receipt: Some(Stage::Handled),
                expires_ms: Some(1_000),
                abroad: Some(Abroad {
                    swarm_id: SwarmId(id(7)),
                    agent_id: None,
                }),
                body: Json::null(),
            },
        }
    }
    const SENDER: Sender = Sender::Agent(AgentId(Uuid::from_u128(4)));

    fn judged(read: &Read) -> Result<Delivery, Refused> {
        let to = read.sent.abroad.expect("given");
        judge(None, read, to, Timestamp::ZERO, Timestamp::ZERO)
    }

    #[test]
    fn a_refusal_tells_the_sender_which_message_and_why() {
        let read = read(Purpose::Tell, SENDER);
        let refused = judged(&read).expect_err("no such swarm");
        assert!(refused.detail.contains("there is no swarm"), "{refused:?}");
        assert_eq!(refused.told_by.len(), 1);
        let told = refused.receipt(&read).expect("told");
        assert_eq!(
            (told.place, told.to),
            (read.place, Recipient::Agent(AgentId(Uuid::from_u128(4))))
        );
        let Purpose::Receipt { of, stage, detail } = &told.sent.purpose else {
            panic!("{told:?}");
        };
        assert_eq!((*of, *stage), (read.id.0, Stage::Refused));
        assert_eq!(detail.as_deref(), Some(refused.detail.as_str()));
        assert_eq!(told.traceparent, read.traceparent);
        assert_eq!(told.sent.abroad, read.sent.abroad);
        let again = refused.receipt(&read).expect("told");
        assert_eq!(again.id, told.id, "a second try is a repeat");
        assert_ne!(told.id, read.id);
    }

    #[test]
    fn nobody_is_told_of_a_receipt_that_does_not_arrive() {
        let receipt = Purpose::Receipt {
            of: Uuid::nil(),
            stage: Stage::Handled,
            detail: None,
        };
        let read = read(receipt, SENDER);
        assert_eq!(judged(&read).expect_err("refused").receipt(&read), None);
    }

    #[test]
    fn who_names_its_own_swarm_or_says_too_much_is_refused() {
        let mut own = read(Purpose::Tell, SENDER);
        own.sent.abroad = Some(Abroad {
            swarm_id: own.place.swarm,
            agent_id: None,
        });
        let refused = judged(&own).expect_err("its own");
        assert!(refused.detail.contains("its own swarm"), "{refused:?}");
        let mut large = read(Purpose::Tell, SENDER);
        let text = serde_json::Value::String("x".repeat(MESSAGE_BYTES_MAX - 1));
        large.sent.body = text.into();
        let refused = judged(&large).expect_err("too large");
        assert!(refused.detail.contains("65537 bytes"), "{refused:?}");
    }
}
