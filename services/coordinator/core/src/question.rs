//! Questions that agents ask, and how they end: with the first answer, at their timeout, or with the one that asked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Body, CommandId, Json, Recorded, Timestamp,
    message::{Answered, AnsweredBy, Answerer, Asked, Unanswered},
    planted::{self, Bug},
};
use uuid::Uuid;

use crate::{Swarm, fold::Void};

/// Most ended questions of a swarm that are remembered, so that a late answer hears what became of its question.
pub const ENDED_QUESTIONS_MAX: usize = 1_000;

/// A question that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The agent that asks.
    pub agent: AgentId,
    /// Its incarnation.
    pub incarnation: u64,
    /// The assignment that it is about.
    pub assignment: Option<u64>,
    /// Who is to answer.
    pub answerer: Answerer,
    /// In words.
    pub question: String,
    /// The answers to choose from; without any, any JSON is one.
    pub choices: Vec<String>,
    /// The answer if there is none in time.
    pub default: Option<Json>,
    /// When it was stored.
    pub asked_at: Timestamp,
    /// Until when it waits, by log time.
    pub due: Timestamp,
    /// Stream sequence of `asked`.
    pub asked_seq: u64,
    /// The task submission or command that it goes back to.
    pub(crate) correlation: Option<Uuid>,
}

/// The questions of a swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Questions {
    pub(crate) open: BTreeMap<CommandId, Question>,
    by_agent: BTreeSet<(AgentId, CommandId)>,
    /// By the sequence of their end: the question, and who answered.
    ended: BTreeMap<u64, (CommandId, Option<AnsweredBy>)>,
    ended_by_id: BTreeMap<CommandId, u64>,
}

impl Questions {
    /// The open questions of an agent.
    pub(crate) fn of(&self, agent: AgentId) -> impl Iterator<Item = CommandId> {
        let first = (agent, CommandId(Uuid::nil()));
        let own = self.by_agent.range(first..);
        own.take_while(move |(of, _)| *of == agent)
            .map(|(_, id)| *id)
    }

    /// Who answered an ended question, if anybody did; `None` if it is open, unknown, or forgotten.
    pub(crate) fn ended(&self, id: CommandId) -> Option<Option<AnsweredBy>> {
        let sequence = self.ended_by_id.get(&id)?;
        self.ended.get(sequence).map(|(_, by)| *by)
    }

    fn end(
        &mut self,
        id: CommandId,
        agent: AgentId,
        by: Option<AnsweredBy>,
        sequence: u64,
    ) -> Result<(), Void> {
        match self.open.get(&id) {
            Some(question) if question.agent == agent => {}
            Some(_) => return Err("other-agent"),
            None if self.ended_by_id.contains_key(&id) => return Err("already-answered"),
            None => return Err("unknown-question"),
        }
        if !planted::is(Bug::AnsweredTwice) {
            self.open.remove(&id);
            self.by_agent.remove(&(agent, id));
        }
        self.ended.insert(sequence, (id, by));
        self.ended_by_id.insert(id, sequence);
        while self.ended.len() > ENDED_QUESTIONS_MAX {
            let Some((_, (oldest, _))) = self.ended.pop_first() else {
                break;
            };
            self.ended_by_id.remove(&oldest);
        }
        Ok(())
    }
}

impl Swarm {
    /// The questions that wait for an answer, by id.
    pub fn questions(&self) -> impl Iterator<Item = (CommandId, &Question)> {
        self.questions.open.iter().map(|(id, found)| (*id, found))
    }
    /// One of them.
    pub fn question(&self, id: CommandId) -> Option<&Question> {
        self.questions.open.get(&id)
    }

    /// From when on a question ends by itself, by log time: its timeout, or at once if the one that asked is gone.
    pub(crate) fn question_due(&self, question: &Question) -> Timestamp {
        if self.is_incarnation(question.agent, question.incarnation) {
            question.due
        } else {
            Timestamp::ZERO
        }
    }

    /// Whether this incarnation of the agent belongs to the swarm.
    pub(crate) fn is_incarnation(&self, agent: AgentId, incarnation: u64) -> bool {
        let found = self.agents.get(&agent);
        found.is_some_and(|found| found.is_live() && found.incarnation == incarnation)
    }

    /// Applies an event about a question, or finds it void. Answers with the question; `None` if it is about none.
    pub(crate) fn evolve_question(
        &mut self,
        agent: AgentId,
        recorded: &Recorded,
        now: Timestamp,
    ) -> Result<Option<CommandId>, Void> {
        match &recorded.event.body {
            Body::AgentAsked(asked) => {
                self.asked(agent, asked, recorded, now)?;
                Ok(Some(asked.question_id))
            }
            Body::AgentAnswered(Answered {
                question_id, by, ..
            }) => {
                let by = Some(*by);
                self.questions
                    .end(*question_id, agent, by, recorded.sequence)?;
                Ok(Some(*question_id))
            }
            Body::AgentUnanswered(Unanswered { question_id, .. }) => {
                self.questions
                    .end(*question_id, agent, None, recorded.sequence)?;
                Ok(Some(*question_id))
            }
            _ => Ok(None),
        }
    }

    fn asked(
        &mut self,
        agent: AgentId,
        asked: &Asked,
        recorded: &Recorded,
        now: Timestamp,
    ) -> Result<(), Void> {
        let id = asked.question_id;
        let known = &self.questions;
        if known.open.contains_key(&id) || known.ended_by_id.contains_key(&id) {
            return Err("question-exists");
        }
        if !self.is_incarnation(agent, asked.incarnation) {
            return Err("other-incarnation");
        }
        let question = Question {
            agent,
            incarnation: asked.incarnation,
            assignment: asked.assignment,
            answerer: asked.answerer,
            question: asked.question.clone(),
            choices: asked.choices.clone(),
            default: asked.default.clone(),
            asked_at: recorded.time,
            due: now.plus_millis(asked.timeout_ms),
            asked_seq: recorded.sequence,
            correlation: recorded.event.correlation,
        };
        self.questions.open.insert(id, question);
        self.questions.by_agent.insert((agent, id));
        Ok(())
    }
}
