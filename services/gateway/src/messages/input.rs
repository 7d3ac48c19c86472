//! What `POST …/messages` takes, and whom a word means.

use axum::http::StatusCode;
use serde::Deserialize;
use swarm_coordinator_core::Swarm;
use swarm_events::{
    AgentId, Json, Problem,
    message::{MESSAGE_BYTES_MAX, Stage, TOPIC_BYTES_MAX},
    subject::{Recipient, Sender, topic_key},
};
use swarm_log::definitions::MESSAGE_AGE_MAX;
use utoipa::ToSchema;

use crate::{
    json,
    problem::{Answer, ApiProblem},
};

/// Longest time within which a message is to be handled, in milliseconds: it is not kept for longer.
pub const EXPIRES_MS_MAX: u64 = MESSAGE_AGE_MAX.as_secs() * 1_000;
/// The words that are no agent's name where a recipient is meant.
const WORDS: &str = "leader, coordinator, supervisor, worker, all, people";

/// A message from people.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"to": "leader", "body": {"note": "the second half is urgent"}, "receipt": "handled", "expires_ms": 60_000}))]
pub struct MessageInput {
    /// An agent by id or name, `leader`, a role (`coordinator`, `supervisor`, `worker`), `all`, or `people`. If it is absent, those
    /// who have subscribed to the topic.
    #[serde(default)]
    pub to: Option<String>,
    /// What it is about; 1 to 200 bytes.
    #[serde(default)]
    pub topic: Option<String>,
    /// Any JSON, at most 64 KiB.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub body: Json,
    /// Whether an answer is expected.
    #[serde(default)]
    pub request: bool,
    /// The receipt that is wanted: `delivered` (a process of the recipient has read it) or `handled` (its handler has come to
    /// its end).
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub receipt: Option<Stage>,
    /// After so many milliseconds nobody is to handle it any more; at most a day, for as long as messages are kept.
    #[serde(default)]
    pub expires_ms: Option<i64>,
}

/// A message that may be sent.
#[derive(Clone, Debug)]
pub struct Checked {
    /// To whom.
    pub to: Recipient,
    /// What was given.
    pub topic: Option<String>,
    /// What was given.
    pub body: Json,
    /// What was given.
    pub request: bool,
    /// What was given.
    pub receipt: Option<Stage>,
    /// What was given.
    pub expires_ms: Option<u64>,
}

fn wrong(code: &str, field: &str, detail: impl Into<String>, cure: &str) -> ApiProblem {
    Problem::new(code, detail).field(field).cure(cure).into()
}

/// A topic's name.
///
/// # Errors
/// 422 naming `topic`.
pub fn check_topic(topic: &str) -> Answer<()> {
    let good = (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && !topic.chars().any(char::is_control);
    if good {
        return Ok(());
    }
    Err(wrong(
        "bad-topic",
        "topic",
        format!("has {} bytes, or a control character in it", topic.len()),
        &format!("give 1 to {TOPIC_BYTES_MAX} bytes without control characters"),
    ))
}

/// The agent of that id, or else the one of that name that belongs to the swarm.
pub fn agent(swarm: &Swarm, text: &str) -> Option<AgentId> {
    if let Ok(id) = text.parse() {
        return swarm.agents.contains_key(&id).then_some(id);
    }
    let mut named = swarm
        .agents
        .iter()
        .filter(|(_, agent)| agent.profile.agent_name == text);
    // A name is free again once its agent is gone: the one that is there, else any.
    let there = named.clone().find(|(_, agent)| agent.holds_place());
    there.or_else(|| named.next_back()).map(|(id, _)| *id)
}

/// Whom `text` means as a recipient: an agent, or one of the words.
pub fn recipient(swarm: &Swarm, text: &str) -> Option<Recipient> {
    match text.parse() {
        Ok(Recipient::Agent(id)) => swarm
            .agents
            .contains_key(&id)
            .then_some(Recipient::Agent(id)),
        Ok(word) => Some(word),
        Err(()) => agent(swarm, text).map(Recipient::Agent),
    }
}

/// Whom `text` means as a sender: an agent, `people` or `abroad`.
pub fn sender(swarm: &Swarm, text: &str) -> Option<Sender> {
    match text.parse() {
        Ok(Sender::Agent(id)) => swarm.agents.contains_key(&id).then_some(Sender::Agent(id)),
        Ok(word) => Some(word),
        Err(()) => agent(swarm, text).map(Sender::Agent),
    }
}

impl MessageInput {
    /// Reads a body, and what can be told from it alone.
    ///
    /// # Errors
    /// 400, 413 or 422 naming the field.
    pub fn read(bytes: &[u8]) -> Answer<Self> {
        let input: Self = json::read(bytes)?;
        if input.body.len() > MESSAGE_BYTES_MAX {
            let detail = format!(
                "has {} bytes, more than {MESSAGE_BYTES_MAX}",
                input.body.len()
            );
            let problem = Problem::new("message-too-large", detail)
                .field("body")
                .cure("put it on the blackboard, and send its key");
            return Err(ApiProblem::new(StatusCode::PAYLOAD_TOO_LARGE, problem));
        }
        if let Some(topic) = &input.topic {
            check_topic(topic)?;
        }
        if input
            .receipt
            .is_some_and(|stage| !matches!(stage, Stage::Delivered | Stage::Handled))
        {
            return Err(wrong(
                "bad-receipt",
                "receipt",
                "no receipt of this kind can be asked for",
                "give delivered or handled, or leave it out",
            ));
        }
        match input.expires_ms {
            Some(ms) if !u64::try_from(ms).is_ok_and(|ms| (1..=EXPIRES_MS_MAX).contains(&ms)) => {
                Err(wrong(
                    "out-of-range",
                    "expires_ms",
                    format!("{ms} is outside 1 to {EXPIRES_MS_MAX}"),
                    &format!("give a number from 1 to {EXPIRES_MS_MAX}, or leave it out"),
                ))
            }
            _ => Ok(input),
        }
    }

    /// Finds its recipient in `swarm`.
    ///
    /// # Errors
    /// 422 for one that is not there, 409 for an agent that is gone for good.
    pub fn checked(self, swarm: &Swarm) -> Answer<Checked> {
        let to = match (self.to.as_deref(), self.topic.as_deref()) {
            (None, Some(topic)) => Recipient::Topic(topic_key(topic)),
            (None, None) => {
                return Err(wrong(
                    "missing-field",
                    "to",
                    "neither to nor topic is given",
                    &format!("give an agent's id or name, one of {WORDS}, or a topic"),
                ));
            }
            (Some(text), _) => one(swarm, text)?,
        };
        Ok(Checked {
            to,
            topic: self.topic,
            body: self.body,
            request: self.request,
            receipt: self.receipt,
            expires_ms: self.expires_ms.and_then(|ms| u64::try_from(ms).ok()),
        })
    }
}

fn one(swarm: &Swarm, text: &str) -> Answer<Recipient> {
    let Some(to) = recipient(swarm, text) else {
        let is_id = text.parse::<AgentId>().is_ok();
        let (code, what) = if is_id {
            ("unknown-agent", "agent of this id")
        } else {
            ("unknown-recipient", "agent of this name")
        };
        return Err(wrong(
            code,
            "to",
            format!("the swarm has no {what}: {text}"),
            &format!("give the id or name of one of its agents, or one of {WORDS}"),
        ));
    };
    match to {
        Recipient::Abroad => Err(wrong(
            "unknown-recipient",
            "to",
            "people talk to another swarm by its own address",
            "post the message to that swarm",
        )),
        Recipient::Agent(id) if !swarm.agents.get(&id).is_some_and(|a| a.holds_place()) => {
            let problem = Problem::new("agent-gone", format!("agent {id} has left the swarm"))
                .field("to")
                .cure("list the swarm's agents, and send it to one of them, or to the leader");
            Err(ApiProblem::new(StatusCode::CONFLICT, problem))
        }
        to => Ok(to),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(body: &serde_json::Value) -> (u16, String, String) {
        let problem = MessageInput::read(body.to_string().as_bytes())
            .map(drop)
            .expect_err("refused");
        assert!(problem.problem.cure.is_some(), "{body}: no cure");
        (
            problem.status.as_u16(),
            problem.problem.code.clone(),
            problem.problem.field.clone().unwrap_or_default(),
        )
    }

    #[test]
    fn what_is_wrong_by_itself_is_refused_by_its_field() {
        let long = "x".repeat(MESSAGE_BYTES_MAX - 1);
        for (body, status, code, field) in [
            (
                json!({"to": "a", "body": long}),
                413,
                "message-too-large",
                "body",
            ),
            (json!({"topic": ""}), 422, "bad-topic", "topic"),
            (
                json!({"topic": "x".repeat(TOPIC_BYTES_MAX + 1)}),
                422,
                "bad-topic",
                "topic",
            ),
            (json!({"topic": "a\nb"}), 422, "bad-topic", "topic"),
            (
                json!({"to": "a", "receipt": "refused"}),
                422,
                "bad-receipt",
                "receipt",
            ),
            (
                json!({"to": "a", "receipt": "read"}),
                422,
                "wrong-value",
                "receipt",
            ),
            (
                json!({"to": "a", "expires_ms": 0}),
                422,
                "out-of-range",
                "expires_ms",
            ),
            (
                json!({"to": "a", "expires_ms": EXPIRES_MS_MAX + 1}),
                422,
                "out-of-range",
                "expires_ms",
            ),
            (
                json!({"to": "a", "urgent": true}),
                422,
                "unknown-field",
                "urgent",
            ),
            (json!([]), 422, "wrong-value", "body"),
        ] {
            let expected = (status, code.to_owned(), field.to_owned());
            assert_eq!(refusal(&body), expected, "{body}");
        }
    }

    #[test]
    fn what_is_at_the_limit_is_taken() {
        let body = json!({"topic": "x".repeat(TOPIC_BYTES_MAX), "body": "x".repeat(MESSAGE_BYTES_MAX - 2),
            "expires_ms": EXPIRES_MS_MAX, "receipt": "delivered"});
        let input = MessageInput::read(body.to_string().as_bytes()).expect("good");
        assert_eq!(input.body.len(), MESSAGE_BYTES_MAX);
    }
}
