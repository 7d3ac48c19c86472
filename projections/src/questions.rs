//! Questions of agents: what their events say, and their rows in `swarm_questions`.

use swarm_events::{
    AgentId, Json, Timestamp,
    ids::{CommandId, OrgId, SwarmId},
    message::{Answered, AnsweredBy, Answerer, Asked, Unanswered},
};
use uuid::Uuid;

use crate::{
    batch::{Batch, int8, json, stored, time},
    jsonb::text,
};

/// What the messages of a batch changed of a question.
#[derive(Default)]
pub(crate) struct QuestionChange {
    /// Sequence of the last event about it.
    pub(crate) sequence: u64,
    /// Set if it is new.
    pub(crate) asked: Option<Box<Question>>,
    pub(crate) end: Option<QuestionEnd>,
}

/// What stands in its `asked`.
pub(crate) struct Question {
    agent: AgentId,
    asked: Asked,
    /// Whose the assignment was that it is about.
    task: Option<Uuid>,
    at: Timestamp,
    due: Timestamp,
    sequence: u64,
}
impl Question {
    pub(crate) fn new(
        agent: AgentId,
        asked: &Asked,
        task: Option<Uuid>,
        (at, due): (Timestamp, Timestamp),
        sequence: u64,
    ) -> Self {
        Self {
            agent,
            asked: asked.clone(),
            task,
            at,
            due,
            sequence,
        }
    }
}

/// How it ended.
pub(crate) struct QuestionEnd {
    status: &'static str,
    answer: Option<Json>,
    by: Option<(&'static str, Option<Uuid>)>,
    reason: Option<String>,
    at: Timestamp,
}
impl QuestionEnd {
    pub(crate) fn answered(answered: &Answered, at: Timestamp) -> Self {
        let (status, by) = match answered.by {
            AnsweredBy::Person(user) => ("answered", Some(("person", user.map(|user| user.0)))),
            AnsweredBy::Agent(agent) => ("answered", Some(("agent", Some(agent.0)))),
            AnsweredBy::Default => ("fell_back", None),
        };
        Self {
            status,
            answer: Some(answered.answer.clone()),
            by,
            reason: None,
            at,
        }
    }
    pub(crate) fn unanswered(unanswered: &Unanswered, at: Timestamp) -> Self {
        Self {
            status: "unanswered",
            answer: None,
            by: None,
            reason: Some(unanswered.reason.clone()),
            at,
        }
    }
}

const OPEN: &str = "open";

const fn answerer(answerer: Answerer) -> &'static str {
    match answerer {
        Answerer::Anybody => "anybody",
        Answerer::Leader => "leader",
        Answerer::Role(role) => role.as_str(),
    }
}

impl Batch {
    /// Adds what changed of a question.
    pub(crate) fn question(
        &mut self,
        (org, swarm, id): (OrgId, SwarmId, CommandId),
        change: QuestionChange,
    ) {
        let (mut status, mut answer, mut by, mut reason, mut ended_at) =
            (OPEN, None, None, None, None);
        if let Some(end) = change.end {
            status = end.status;
            answer = end.answer.as_ref().map(stored);
            by = end.by;
            reason = end.reason.map(|reason| text(&reason).into_owned());
            ended_at = Some(time(end.at));
        }
        macro_rules! both {
            ($rows:ident) => {
                $rows.id.push(id.0);
                $rows.organization_id.push(org.0);
                $rows.swarm_id.push(swarm.0);
                $rows.status.push(status);
                $rows.answer.push(answer);
                $rows.answered_by.push(by.map(|(kind, _)| kind));
                $rows.answered_by_id.push(by.and_then(|(_, id)| id));
                $rows.reason.push(reason);
                $rows.ended_at.push(ended_at);
                $rows.last_seq.push(int8(change.sequence));
            };
        }
        let Some(question) = change.asked else {
            let rows = &mut self.ended_questions;
            both!(rows);
            return;
        };
        let (rows, asked) = (&mut self.new_questions, &question.asked);
        both!(rows);
        rows.agent_id.push(question.agent.0);
        rows.incarnation.push(int8(asked.incarnation));
        rows.assignment.push(asked.assignment.map(int8));
        rows.task_id.push(question.task);
        rows.answerer.push(answerer(asked.answerer));
        rows.question.push(text(&asked.question).into_owned());
        rows.choices.push(json(&asked.choices));
        rows.fallback.push(asked.default.as_ref().map(stored));
        rows.asked_at.push(time(question.at));
        rows.due_at.push(time(question.due));
        rows.asked_seq.push(int8(question.sequence));
    }
}

#[cfg(test)]
mod tests {
    use swarm_events::topology::Role;

    use super::*;

    #[test]
    fn words_fit_their_columns() {
        let roles = [Role::Worker, Role::Supervisor, Role::Coordinator];
        let all = roles.map(Answerer::Role);
        for each in all.into_iter().chain([Answerer::Anybody, Answerer::Leader]) {
            assert!(answerer(each).len() <= 20, "the column's width");
        }
        let by = [
            AnsweredBy::Person(None),
            AnsweredBy::Agent(AgentId(Uuid::nil())),
            AnsweredBy::Default,
        ];
        for by in by {
            let answered = Answered {
                question_id: CommandId(Uuid::nil()),
                answer: Json::default(),
                by,
            };
            let end = QuestionEnd::answered(&answered, Timestamp::ZERO);
            assert!(end.status != OPEN && end.status.len() <= 20);
            assert!(end.by.is_none_or(|(kind, _)| kind.len() <= 10));
        }
    }
}
