//! An open question from the fold, as the read model would have it.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use swarm_coordinator_core::{Question, Swarm};
use swarm_events::{
    CommandId, Json, Timestamp,
    message::{Answered, AnsweredBy, Answerer},
};
use swarm_projections::queries::QuestionRow;

fn time(at: Timestamp) -> DateTime<Utc> {
    at.to_chrono().unwrap_or_default()
}

const fn word(answerer: Answerer) -> &'static str {
    match answerer {
        Answerer::Anybody => "anybody",
        Answerer::Leader => "leader",
        Answerer::Role(role) => role.as_str(),
    }
}

type Jsonb = sqlx::types::Json<Box<RawValue>>;

fn carried(json: &Json) -> Option<Jsonb> {
    let text = json.as_str().to_owned();
    RawValue::from_string(text).ok().map(sqlx::types::Json)
}
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A question that waits. Which task it is about only the read model knows.
pub fn open(swarm: &Swarm, id: CommandId, question: &Question) -> QuestionRow {
    let choices = Json::from_value(&question.choices).unwrap_or_default();
    QuestionRow {
        id: id.0,
        organization_id: swarm.place.org.0,
        swarm_id: swarm.place.swarm.0,
        agent_id: question.agent.0,
        incarnation: signed(question.incarnation),
        assignment: question.assignment.map(signed),
        task_id: None,
        answerer: word(question.answerer).to_owned(),
        question: question.question.clone(),
        choices: carried(&choices).unwrap_or_else(|| sqlx::types::Json(RawValue::NULL.to_owned())),
        default: question.default.as_ref().and_then(carried),
        status: "open".to_owned(),
        answer: None,
        answered_by: None,
        answered_by_id: None,
        reason: None,
        asked_at: time(question.asked_at),
        due_at: time(question.due),
        ended_at: None,
        asked_seq: signed(question.asked_seq),
        last_seq: signed(question.asked_seq),
    }
}

/// The question with its answer.
pub fn answered(
    row: QuestionRow,
    answered: &Answered,
    at: Timestamp,
    sequence: u64,
) -> QuestionRow {
    let (status, by, id) = match answered.by {
        AnsweredBy::Person(user) => ("answered", Some("person"), user.map(|user| user.0)),
        AnsweredBy::Agent(agent) => ("answered", Some("agent"), Some(agent.0)),
        AnsweredBy::Default => ("fell_back", None, None),
    };
    QuestionRow {
        status: status.to_owned(),
        answer: carried(&answered.answer),
        answered_by: by.map(str::to_owned),
        answered_by_id: id,
        reason: None,
        ended_at: Some(time(at)),
        last_seq: signed(sequence),
        ..row
    }
}
