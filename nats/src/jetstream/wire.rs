//! Headers, acknowledgements and errors as nats-server spells them.

use std::sync::Arc;

use async_nats::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        IntoHeaderName, NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID,
        NATS_BATCH_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID,
    },
    jetstream::message::StreamMessage,
};
use serde::Deserialize;

use crate::{AppendError, Appended, Message, PAYLOAD_BYTES_MAX, StoredMessage, definitions};

const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// JetStream error codes that mean something of their own here.
pub(crate) mod codes {
    /// The fence does not hold.
    pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;
    /// Another checked write on the subject is in flight (clusters).
    pub(crate) const CHECK_IN_FLIGHT: u64 = 10164;
    /// All batch slots of the stream or server are taken.
    pub(crate) const BATCHES_IN_FLIGHT: u64 = 10210;
    /// Store failed (among it: maximum bytes), resources, storage, memory exceeded.
    pub(crate) const FULL: [u64; 4] = [10077, 10023, 10047, 10028];
    /// JetStream or the cluster is not ready: whether it took the message is not known for sure.
    pub(crate) const NOT_READY: [u64; 3] = [10008, 10009, 10005];
}

/// What came of one publish.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Stored {
        sequence: u64,
        duplicate: bool,
    },
    Refused {
        code: u64,
        status: u64,
        description: String,
    },
    Lost(String),
}

impl Outcome {
    pub(crate) fn parse(message: &async_nats::Message) -> Self {
        #[derive(Deserialize)]
        struct Ack {
            #[serde(default)]
            seq: u64,
            #[serde(default)]
            duplicate: bool,
            error: Option<Error>,
        }
        #[derive(Deserialize)]
        struct Error {
            #[serde(default)]
            code: u64,
            #[serde(default)]
            err_code: u64,
            #[serde(default)]
            description: String,
        }
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Self::Lost("no server takes the subject now (no responders)".to_owned());
        }
        match serde_json::from_slice::<Ack>(&message.payload) {
            Ok(Ack {
                error: Some(error), ..
            }) => Self::Refused {
                code: error.err_code,
                status: error.code,
                description: error.description,
            },
            Ok(Ack { seq: 0, .. }) => {
                Self::Lost("an acknowledgement without a sequence".to_owned())
            }
            Ok(Ack { seq, duplicate, .. }) => Self::Stored {
                sequence: seq,
                duplicate,
            },
            Err(error) => Self::Lost(format!("an acknowledgement that cannot be read: {error}")),
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: codes::CHECK_IN_FLIGHT,
                ..
            }
        )
    }

    /// As the answer to `message`'s publisher.
    pub(crate) fn into_result(
        self,
        subject: &str,
        fence: Option<&crate::Fence>,
    ) -> Result<Appended, AppendError> {
        match self {
            Self::Stored {
                sequence,
                duplicate,
            } => Ok(Appended {
                sequence,
                duplicate,
            }),
            Self::Lost(cause) => Err(unknown(subject, cause)),
            Self::Refused {
                code,
                status,
                description,
            } => Err(match (code, fence) {
                (codes::WRONG_LAST_SEQUENCE, Some(fence)) => AppendError::Fenced {
                    subject: fence.subject.clone(),
                    expected: fence.sequence,
                },
                (codes::CHECK_IN_FLIGHT, Some(fence)) => AppendError::FenceBusy {
                    subject: fence.subject.clone(),
                },
                _ if codes::NOT_READY.contains(&code) => unknown(subject, description),
                _ if codes::FULL.contains(&code) || status == 503 => {
                    AppendError::Full { description }
                }
                _ => AppendError::Refused {
                    subject: subject.to_owned(),
                    code,
                    description,
                },
            }),
        }
    }
}

pub(crate) fn unknown(subject: &str, cause: impl Into<String>) -> AppendError {
    AppendError::Unknown {
        subject: subject.to_owned(),
        cause: cause.into(),
    }
}

/// Refuses what must not be sent at all.
pub(crate) fn check(message: &Message) -> Result<(), AppendError> {
    let subject = &message.subject;
    if message.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(AppendError::TooLarge {
            subject: subject.clone(),
            bytes: message.payload.len(),
            limit: PAYLOAD_BYTES_MAX,
        });
    }
    let refused = |description: &str| {
        Err(AppendError::Refused {
            subject: subject.clone(),
            code: 0,
            description: description.to_owned(),
        })
    };
    if !definitions::stores(subject) {
        return refused(
            "the log stores literal subjects below swarm.evt, swarm.cmd and swarm.ctl only",
        );
    }
    if message
        .fence
        .as_ref()
        .is_some_and(|fence| !definitions::stores(&fence.subject))
    {
        return refused("a fence looks at one literal subject of the log");
    }
    if message
        .message_id
        .as_ref()
        .is_some_and(|id| id.is_empty() || id.chars().any(char::is_control))
    {
        return refused("a message id is not empty and has no control characters");
    }
    Ok(())
}

/// Place of a message in an atomic batch, from 1.
pub(crate) struct BatchPlace<'a> {
    pub(crate) id: &'a str,
    pub(crate) sequence: usize,
    pub(crate) last: bool,
}

pub(crate) fn headers(
    message: &Message,
    content_type: Option<&str>,
    batch: Option<BatchPlace<'_>>,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(content_type) = content_type {
        headers.insert("Content-Type", content_type);
    }
    if let Some(id) = &message.message_id {
        headers.insert(NATS_MESSAGE_ID, id.as_str());
    }
    if let Some(fence) = &message.fence {
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            HeaderValue::from(fence.sequence),
        );
        headers.insert(EXPECTED_SUBJECT, &*fence.subject);
    }
    if let Some(place) = batch {
        headers.insert(NATS_BATCH_ID, place.id);
        headers.insert(
            NATS_BATCH_SEQUENCE,
            HeaderValue::from(place.sequence as u64),
        );
        if place.last {
            headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        }
    }
    headers
}

pub(crate) fn micros(nanos: i128) -> i64 {
    i64::try_from(nanos.div_euclid(1_000)).unwrap_or(i64::MAX)
}

pub(crate) fn stored(message: StreamMessage) -> StoredMessage {
    StoredMessage {
        sequence: message.sequence,
        time_micros: micros(message.time.unix_timestamp_nanos()),
        subject: message.subject.as_str().into(),
        message_id: message_id(&message.headers),
        payload: message.payload,
    }
}

pub(crate) fn message_id(headers: &HeaderMap) -> Option<Arc<str>> {
    headers
        .get(NATS_MESSAGE_ID.into_header_name())
        .map(|id| id.as_str().into())
}

/// What the reply subject of a delivered message says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) stream_sequence: u64,
    pub(crate) consumer_sequence: u64,
    pub(crate) time_micros: i64,
    pub(crate) pending: u64,
}

impl Delivery {
    /// `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time ns>.<pending>[.<token>]`
    pub(crate) fn parse(reply: &str) -> Option<Self> {
        let tokens: Vec<&str> = reply.split('.').collect();
        let at = match tokens.len() {
            9 => 5,
            11.. => 7,
            _ => return None,
        };
        if tokens[..2] != ["$JS", "ACK"] {
            return None;
        }
        Some(Self {
            stream_sequence: tokens[at].parse().ok()?,
            consumer_sequence: tokens[at + 1].parse().ok()?,
            time_micros: micros(tokens[at + 2].parse().ok()?),
            pending: tokens[at + 3].parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_reply_subjects_are_read() {
        let expected = Some(Delivery {
            stream_sequence: 12,
            consumer_sequence: 3,
            time_micros: 1_700_000_000_000_001,
            pending: 4,
        });
        assert_eq!(
            Delivery::parse("$JS.ACK.swarm_events.c.1.12.3.1700000000000001999.4"),
            expected
        );
        assert_eq!(
            Delivery::parse("$JS.ACK._.acc.swarm_events.c.1.12.3.1700000000000001999.4"),
            expected
        );
        assert_eq!(
            Delivery::parse("$JS.ACK._.acc.swarm_events.c.1.12.3.1700000000000001999.4.x"),
            expected
        );
        assert_eq!(Delivery::parse("_INBOX.a"), None);
    }
}
