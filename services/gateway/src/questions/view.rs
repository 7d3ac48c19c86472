//! A question as it is shown.

use serde::Serialize;
use swarm_coordinator_core::{Question, Swarm};
use swarm_events::{
    AgentId, CommandId, Json, Timestamp,
    message::{Answered, AnsweredBy, Answerer, Asked, Unanswered},
};
use utoipa::ToSchema;
use uuid::Uuid;

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AnsweredByView {
    /// `person`, `agent`, or `default`: nobody did in time, and it is the question's default.
    pub kind: &'static str,
    /// Whose key it was, if it was a person by the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Uuid>,
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Uuid>,
}

impl From<AnsweredBy> for AnsweredByView {
    fn from(by: AnsweredBy) -> Self {
        let (kind, user_id, agent_id) = match by {
            AnsweredBy::Person(user) => ("person", user.map(|user| user.0), None),
            AnsweredBy::Agent(agent) => ("agent", None, Some(agent.0)),
            AnsweredBy::Default => ("default", None, None),
        };
        Self {
            kind,
            user_id,
            agent_id,
        }
    }
}

/// A question.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0190f7a0-0000-7000-8000-000000000001", "swarm_id": "0190f7a0-0000-7000-8000-000000000002",
    "agent_id": "0190f7a0-0000-7000-8000-000000000003", "agent_name": "anna", "status": "open", "answerer": "anybody",
    "question": "Delete the old index?", "choices": ["yes", "no"], "default": "no", "timeout_ms": 60_000,
    "asked_at": "2026-01-01T00:00:00.000001Z", "due_at": "2026-01-01T00:01:00.000001Z"}))]
pub struct QuestionView {
    /// The question.
    pub id: Uuid,
    /// Its swarm.
    pub swarm_id: Uuid,
    /// The agent that asks.
    pub agent_id: Option<Uuid>,
    /// Its name.
    pub agent_name: Option<String>,
    /// Its incarnation.
    pub incarnation: u64,
    /// The assignment that it is about.
    pub assignment: Option<u64>,
    /// `open`, `answered`, or `unanswered`: nobody answered in time and it has no default, or the agent that asked is gone.
    pub status: &'static str,
    /// Who is to answer: `anybody`, `leader`, or a role. People may always.
    pub answerer: &'static str,
    /// In words.
    pub question: String,
    /// The answers to choose from; without any, any JSON is one.
    pub choices: Vec<String>,
    /// The answer if there is none in time.
    #[schema(value_type = Option<Object>)]
    pub default: Option<Json>,
    /// How long it waits, in milliseconds.
    pub timeout_ms: u64,
    /// When it was asked.
    #[schema(value_type = String, format = DateTime)]
    pub asked_at: Timestamp,
    /// Until when it waits.
    #[schema(value_type = String, format = DateTime)]
    pub due_at: Timestamp,
    /// The answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub answer: Option<Json>,
    /// Who gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<AnsweredByView>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
}

/// A page of questions.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QuestionPage {
    /// In the order in which they were asked.
    pub items: Vec<QuestionView>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

const fn word(answerer: Answerer) -> &'static str {
    match answerer {
        Answerer::Anybody => "anybody",
        Answerer::Leader => "leader",
        Answerer::Role(role) => role.as_str(),
    }
}

fn name(swarm: &Swarm, agent: AgentId) -> Option<String> {
    let found = swarm.agents.get(&agent);
    found.map(|agent| agent.profile.agent_name.clone())
}

impl QuestionView {
    /// One that waits.
    pub fn open(swarm: &Swarm, id: CommandId, question: &Question) -> Self {
        Self {
            id: id.0,
            swarm_id: swarm.place.swarm.0,
            agent_id: Some(question.agent.0),
            agent_name: name(swarm, question.agent),
            incarnation: question.incarnation,
            assignment: question.assignment,
            status: "open",
            answerer: word(question.answerer),
            question: question.question.clone(),
            choices: question.choices.clone(),
            default: question.default.clone(),
            timeout_ms: question.due.millis_since(question.asked_at),
            asked_at: question.asked_at,
            due_at: question.due,
            answer: None,
            answered_by: None,
            reason: None,
            ended_at: None,
        }
    }

    /// One as it was asked.
    pub fn asked(swarm: &Swarm, agent: AgentId, asked: &Asked, at: Timestamp) -> Self {
        Self {
            id: asked.question_id.0,
            swarm_id: swarm.place.swarm.0,
            agent_id: Some(agent.0),
            agent_name: name(swarm, agent),
            incarnation: asked.incarnation,
            assignment: asked.assignment,
            status: "open",
            answerer: word(asked.answerer),
            question: asked.question.clone(),
            choices: asked.choices.clone(),
            default: asked.default.clone(),
            timeout_ms: asked.timeout_ms,
            asked_at: at,
            due_at: at.plus_millis(asked.timeout_ms),
            answer: None,
            answered_by: None,
            reason: None,
            ended_at: None,
        }
    }

    /// With its answer.
    #[must_use]
    pub fn answered(mut self, answered: &Answered, at: Timestamp) -> Self {
        self.status = "answered";
        self.answer = Some(answered.answer.clone());
        self.answered_by = Some(answered.by.into());
        self.ended_at = Some(at);
        self
    }

    /// Ended without one.
    #[must_use]
    pub fn unanswered(mut self, unanswered: &Unanswered, at: Timestamp) -> Self {
        self.status = "unanswered";
        self.reason = Some(unanswered.reason.clone());
        self.ended_at = Some(at);
        self
    }
}
