//! Questions: asked by agents, answered by people or agents, ended by their timeout or with the one that asked.

use std::collections::BTreeSet;

use swarm_events::{
    AgentId, CommandId, Json, Place, Problem,
    decider::Decision,
    message::{
        Answer as AnswerOrder, Answered, AnsweredBy, Answerer, Ask, Asked, CHOICES_MAX,
        MESSAGE_BYTES_MAX, QUESTION_BYTES_MAX, QUESTION_TIMEOUT_MS_MAX, QUESTIONS_OPEN_MAX,
        Unanswered,
    },
    subject::AgentVerb,
};

use super::{Answer, Outcome, join::about, one};
use crate::{
    Coordinator, Plan, Question, Swarm, check,
    plan::{QuestionKey, Scopes, question_scopes, questions_scope},
};

/// Longest choice, in bytes: it is shown on a button, and the answer repeats it.
pub const CHOICE_BYTES_MAX: usize = 200;

impl Coordinator {
    pub(super) fn ask(
        &self,
        place: Place,
        agent: AgentId,
        order: &Ask,
        id: CommandId,
        plan: &Plan,
    ) -> Outcome {
        let swarm = self.open_swarm(place)?;
        speaks(swarm, agent, order.incarnation)?;
        check_question(order)?;
        let open = swarm.questions.open.len();
        if open >= QUESTIONS_OPEN_MAX {
            let detail = format!("{open} questions of the swarm wait for an answer already");
            return Err(Problem::new("too-many", detail)
                .field("question")
                .cure("have some answered, or ask with a shorter timeout"));
        }
        if open + plan.holders(questions_scope(place.org, place.swarm)) >= QUESTIONS_OPEN_MAX {
            // A refusal rests on facts: those under way may fail.
            return Ok(Answer::Wait);
        }
        let asked = Asked {
            question_id: id,
            incarnation: order.incarnation,
            assignment: order.assignment,
            answerer: order.answerer,
            question: order.question.clone(),
            choices: order.choices.clone(),
            default: order.default.clone(),
            timeout_ms: order.timeout_ms,
        };
        one(about(place, AgentVerb::Asked, agent, asked))
    }

    pub(super) fn answer_question(&self, place: Place, order: &AnswerOrder) -> Outcome {
        let swarm = self.known_swarm(place)?;
        let id = order.question_id;
        let Some(question) = swarm.question(id) else {
            return Err(not_open(swarm, id));
        };
        check_answer("answer", question_choices(question), &order.answer)?;
        let by = match order.agent {
            None => AnsweredBy::Person(order.user_id),
            Some((agent, incarnation)) => {
                speaks(swarm, agent, incarnation)?;
                may_answer(swarm, question, agent)?;
                AnsweredBy::Agent(agent)
            }
        };
        let answered = Answered {
            question_id: id,
            answer: order.answer.clone(),
            by,
        };
        one(about(place, AgentVerb::Answered, question.agent, answered))
    }

    /// Ends the questions that nobody answered in time, and those of which the one that asked is gone.
    pub(super) fn expire(
        &self,
        plan: &mut Plan,
        waiting: &Scopes,
        room: &mut usize,
        out: &mut Vec<Decision>,
    ) {
        for key in plan.due_questions(self.head.now) {
            if *room == 0 {
                return;
            }
            let scopes = question_scopes(key);
            if !plan.is_free(&scopes) || !waiting.free(&scopes) {
                continue;
            }
            let Some(decision) = self.expired(key) else {
                plan.schedule_question(key, None);
                continue;
            };
            out.push(decision);
            plan.start_question(key);
            *room -= 1;
        }
    }

    fn expired(&self, (org, swarm, id): QuestionKey) -> Option<Decision> {
        let swarm = self.swarm(org, swarm)?;
        let question = swarm.question(id)?;
        if swarm.question_due(question) > self.head.now {
            return None;
        }
        let waits = self.head.now >= question.due;
        let there = swarm.is_incarnation(question.agent, question.incarnation);
        let decision = match (&question.default, there) {
            (Some(default), true) => {
                let answered = Answered {
                    question_id: id,
                    answer: default.clone(),
                    by: AnsweredBy::Default,
                };
                about(swarm.place, AgentVerb::Answered, question.agent, answered)
            }
            (_, there) => {
                let reason = if there && waits {
                    let waited = question.due.millis_since(question.asked_at);
                    format!("nobody answered within {waited} ms, and it has no default")
                } else {
                    format!("incarnation {} that asked is gone", question.incarnation)
                };
                let unanswered = Unanswered {
                    question_id: id,
                    reason,
                };
                let verb = AgentVerb::Unanswered;
                about(swarm.place, verb, question.agent, unanswered)
            }
        };
        Some(decision.uncaused().correlated(question.correlation))
    }
}

fn question_choices(question: &Question) -> &[String] {
    &question.choices
}

/// Whether this incarnation may speak for the agent.
fn speaks(swarm: &Swarm, agent: AgentId, incarnation: u64) -> Result<(), Problem> {
    let Some(found) = swarm.agents.get(&agent) else {
        let detail = format!("the swarm has no agent {agent}");
        return Err(Problem::new("unknown-agent", detail)
            .field("agent")
            .cure("join the swarm first"));
    };
    if !found.is_live() || found.incarnation != incarnation {
        let detail = if found.is_live() {
            format!("the agent is in incarnation {} now", found.incarnation)
        } else {
            format!("incarnation {} of the agent is gone", found.incarnation)
        };
        return Err(Problem::new("other-incarnation", detail)
            .field("incarnation")
            .cure("speak as the current one, or join again"));
    }
    Ok(())
}

fn check_question(order: &Ask) -> Result<(), Problem> {
    let len = order.question.len();
    if order.question.trim().is_empty() {
        return Err(Problem::new("empty", "must not be empty")
            .field("question")
            .cure("say what is asked"));
    }
    check::bytes("question", len, QUESTION_BYTES_MAX)?;
    check::range("timeout_ms", order.timeout_ms, 1, QUESTION_TIMEOUT_MS_MAX)?;
    let count = order.choices.len();
    if count > CHOICES_MAX {
        let detail = format!("{count} choices, at most {CHOICES_MAX} are allowed");
        return Err(Problem::new("too-many", detail)
            .field("choices")
            .cure("offer fewer, or none, so that any answer is taken"));
    }
    let mut seen = BTreeSet::new();
    for (index, choice) in order.choices.iter().enumerate() {
        let field = format!("choices[{index}]");
        if choice.trim().is_empty() {
            return Err(Problem::new("empty", "must not be empty")
                .field(field)
                .cure("give it a word, or leave it out"));
        }
        check::bytes(&field, choice.len(), CHOICE_BYTES_MAX)?;
        if !seen.insert(choice) {
            return Err(Problem::new("repeated", "is there twice")
                .field(field)
                .cure("leave one of them out"));
        }
    }
    match &order.default {
        Some(default) => check_answer("default", &order.choices, default),
        None => Ok(()),
    }
}

/// An answer, or the default in its place.
fn check_answer(field: &str, choices: &[String], answer: &Json) -> Result<(), Problem> {
    check::bytes(field, answer.len(), MESSAGE_BYTES_MAX)?;
    if choices.is_empty() {
        return Ok(());
    }
    let word: Option<String> = answer.to().ok();
    if word.is_some_and(|word| choices.contains(&word)) {
        return Ok(());
    }
    Err(Problem::new("not-a-choice", "is none of the choices")
        .field(field)
        .cure(format!("give one of {}", choices.join(", "))))
}

fn may_answer(swarm: &Swarm, question: &Question, agent: AgentId) -> Result<(), Problem> {
    let (may, whom) = match question.answerer {
        Answerer::Anybody => return Ok(()),
        Answerer::Leader => (
            swarm.leader() == Some(agent),
            "the swarm's leader".to_owned(),
        ),
        Answerer::Role(role) => (
            swarm.shape.role(agent) == Some(role),
            format!("an agent with the role {}", role.as_str()),
        ),
    };
    if may {
        return Ok(());
    }
    Err(Problem::new(
        "not-yours",
        format!("the question is for {whom}, or a person"),
    )
    .field("agent")
    .cure("leave it to them"))
}

fn not_open(swarm: &Swarm, id: CommandId) -> Problem {
    let detail = match swarm.questions.ended(id) {
        Some(Some(AnsweredBy::Person(_))) => "a person has answered it".to_owned(),
        Some(Some(AnsweredBy::Agent(agent))) => format!("agent {agent} has answered it"),
        Some(Some(AnsweredBy::Default)) => {
            "nobody answered in time, and its default was taken".to_owned()
        }
        Some(None) => "it ended without an answer".to_owned(),
        None => {
            return Problem::new("unknown-question", format!("no question {id} is open"))
                .field("question_id")
                .cure("list the open ones: GET /swarms/{id}/questions?status=open");
        }
    };
    Problem::new("already-answered", detail)
        .field("question_id")
        .cure("nothing is to be done: the first answer counts")
}
