//! What is promised of the questions that agents ask: each ends once, and none by itself before its time.

use std::collections::BTreeMap;

use swarm_events::{
    AgentId, Body, CommandId, Recorded, Service, Timestamp,
    decider::Remembered,
    message::{Answered, AnsweredBy, Asked, Unanswered},
};

use super::{Checker, processes::LATE_MS, swarm::Swarm};
use crate::Invariant;

type Outcome = Result<(), &'static str>;

/// A question that waits for its answer.
#[derive(Debug)]
struct Question {
    agent: AgentId,
    incarnation: u64,
    has_default: bool,
    /// When its time is over, at the earliest.
    due: Timestamp,
}

/// The questions of a swarm.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: BTreeMap<CommandId, Question>,
    ended: Remembered,
}

impl Swarm {
    /// Whether the one that asked surely was there for someone who had met everything up to `cause`, and still is.
    fn still_asks(&self, question: &Question, cause: u64) -> bool {
        let agent = self.agents.get(&question.agent);
        let then = agent.and_then(|agent| agent.seen_at(cause));
        let same = then.is_some_and(|seen| seen.incarnation == question.incarnation);
        same && self.stays(question.agent, cause)
    }
}

/// What is wrong with the end of an open question.
fn ended_badly(
    swarm: &Swarm,
    question: &Question,
    body: &Body,
    (cause, now): (u64, Option<Timestamp>),
) -> Option<String> {
    let by_itself = match body {
        Body::AgentAnswered(answered) => answered.by == AnsweredBy::Default,
        _ => true,
    };
    if !by_itself {
        return None;
    }
    let unanswered = matches!(body, Body::AgentUnanswered(_));
    if unanswered && !swarm.still_asks(question, cause) {
        return None;
    }
    if question.has_default == unanswered {
        let has = if unanswered { "a" } else { "no" };
        return Some(format!("it has {has} default"));
    }
    let due = question.due;
    now.filter(|now| *now < due)
        .map(|now| format!("it had time until {due}, and it was {now}"))
}

impl Checker {
    /// An event about a question. `None`: it is about something else.
    pub(super) fn question_event(
        &mut self,
        number: usize,
        agent: AgentId,
        recorded: &Recorded,
    ) -> Option<Outcome> {
        let body = &recorded.event.body;
        match body {
            Body::AgentAsked(asked) => Some(self.asked(number, agent, recorded, asked)),
            Body::AgentAnswered(Answered { question_id, .. })
            | Body::AgentUnanswered(Unanswered { question_id, .. }) => {
                Some(self.question_ends(number, *question_id, recorded))
            }
            _ => None,
        }
    }

    fn asked(
        &mut self,
        number: usize,
        agent: AgentId,
        recorded: &Recorded,
        asked: &Asked,
    ) -> Outcome {
        let swarm = &mut self.swarms[number];
        let found = swarm.agents.get(&agent).ok_or("unknown-agent")?;
        if found.incarnation != asked.incarnation {
            return Err("other-incarnation");
        }
        let (id, questions) = (asked.question_id, &mut swarm.questions);
        if questions.open.contains_key(&id) || questions.ended.get(id.0).is_some() {
            return Err("question-exists");
        }
        let question = Question {
            agent,
            incarnation: asked.incarnation,
            has_default: asked.default.is_some(),
            due: recorded.time.plus_millis(asked.timeout_ms),
        };
        questions.open.insert(id, question);
        Ok(())
    }

    fn question_ends(&mut self, number: usize, id: CommandId, recorded: &Recorded) -> Outcome {
        let sequence = recorded.sequence;
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let now = self.times.at(cause);
        let swarm = &mut self.swarms[number];
        // Who has lost none of its decisions knows how each question ended.
        let whole = self.homes[swarm.home].owners[Service::Coordinator as usize].is_whole();
        let Some(question) = swarm.questions.open.remove(&id) else {
            if swarm.questions.ended.get(id.0).is_none() {
                return Err("unknown-question");
            }
            self.notes.checked(Invariant::QuestionsEndOnce);
            if whole {
                self.notes
                    .broken(Invariant::QuestionsEndOnce, sequence, || {
                        format!("question {id} has ended already")
                    });
            }
            return Err("already-answered");
        };
        swarm.questions.ended.insert(id.0, sequence, recorded.time);
        let wrong = ended_badly(swarm, &question, &recorded.event.body, (cause, now));
        self.notes.checked(Invariant::QuestionsEndOnce);
        if let Some(wrong) = wrong {
            self.notes
                .broken(Invariant::QuestionsEndOnce, sequence, || {
                    format!("question {id} ends by itself: {wrong}")
                });
        }
        Ok(())
    }

    /// At rest no question is open whose time is over.
    pub(super) fn questions_are_over(&mut self, last: u64) {
        let late = self.last.1.minus_millis(LATE_MS);
        for swarm in self.swarms.iter().filter(|swarm| !swarm.stopping()) {
            let mut open = swarm.questions.open.iter();
            if let Some((id, question)) = open.find(|(_, question)| question.due < late) {
                let due = question.due;
                self.notes.broken(Invariant::QuestionsEndOnce, last, || {
                    format!("question {id} had time until {due}, and has not ended")
                });
            }
        }
    }
}
