//! Promises of the questions that agents ask.

use swarm_events::{
    Body, CommandId, Json, Subject,
    message::{Answered, AnsweredBy, Answerer, Asked, Unanswered},
    subject::AgentVerb,
};
use uuid::Uuid;

use super::{given, scene::*};
use crate::Invariant;

const TIMEOUT_MS: u64 = 1_000;
const QUESTION: CommandId = CommandId(Uuid::from_u128(0x9e));
const PERSON: AnsweredBy = AnsweredBy::Person(None);

impl Scene {
    fn about_question(&mut self, verb: AgentVerb, body: impl Into<Body>) -> u64 {
        let subject = Subject::Agent(self.place, verb, agent(1));
        self.decide(COORDINATOR, subject, agent(1).0, body)
    }
    fn ask(&mut self, default: bool) -> u64 {
        let asked = Asked {
            question_id: QUESTION,
            incarnation: 1,
            assignment: None,
            answerer: Answerer::default(),
            question: "q".to_owned(),
            choices: Vec::new(),
            default: default.then(Json::default),
            timeout_ms: TIMEOUT_MS,
        };
        self.about_question(AgentVerb::Asked, asked)
    }
    fn answer(&mut self, by: AnsweredBy) -> u64 {
        let answered = Answered {
            question_id: QUESTION,
            answer: Json::default(),
            by,
        };
        self.about_question(AgentVerb::Answered, answered)
    }
    fn unanswered(&mut self) -> u64 {
        let unanswered = Unanswered {
            question_id: QUESTION,
            reason: "r".to_owned(),
        };
        self.about_question(AgentVerb::Unanswered, unanswered)
    }
}

fn asked(default: bool) -> Scene {
    let mut scene = given();
    scene.ask(default);
    scene
}

#[test]
fn given_a_question_when_it_is_answered_then_nothing_is_broken() {
    let mut scene = asked(true);
    scene.answer(PERSON);
    scene.later(TIMEOUT_MS + 10_000);
    let last = scene.measure(0);
    scene.checker.finish(last);
    scene.clean();
}

#[test]
fn given_an_answered_question_when_it_is_answered_again_or_ends_by_itself_then_that_is_found() {
    for second in [PERSON, AnsweredBy::Agent(agent(2)), AnsweredBy::Default] {
        let mut scene = asked(true);
        scene.answer(PERSON);
        let again = scene.later(TIMEOUT_MS).answer(second);
        scene.broken(Invariant::QuestionsEndOnce, again);
    }
    let mut scene = asked(false);
    scene.answer(PERSON);
    let again = scene.later(TIMEOUT_MS).unanswered();
    scene.broken(Invariant::QuestionsEndOnce, again);
}

#[test]
fn given_a_question_then_it_ends_by_itself_when_its_time_is_over_and_not_before() {
    for default in [true, false] {
        for early in [0, 1] {
            let mut scene = asked(default);
            scene.later(TIMEOUT_MS - early);
            // What time it is shows with what is stored.
            scene.measure(0);
            let end = match default {
                true => scene.answer(AnsweredBy::Default),
                false => scene.unanswered(),
            };
            match early {
                0 => scene.clean(),
                _ => scene.broken(Invariant::QuestionsEndOnce, end),
            }
        }
    }
}

#[test]
fn given_a_question_then_its_default_is_the_answer_exactly_if_it_has_one() {
    for default in [true, false] {
        let mut scene = asked(default);
        scene.later(TIMEOUT_MS);
        scene.measure(0);
        let end = match default {
            true => scene.unanswered(),
            false => scene.answer(AnsweredBy::Default),
        };
        scene.broken(Invariant::QuestionsEndOnce, end);
    }
}

#[test]
fn given_a_question_when_who_asked_is_gone_then_it_ends_at_once() {
    for default in [true, false] {
        let mut scene = asked(default);
        scene.join(agent(1), 2, 2);
        scene.unanswered();
        scene.clean();
    }
}

#[test]
fn given_a_question_when_it_does_not_end_then_that_is_found_at_rest() {
    for (wait, ends) in [(5_000, true), (5_001, false)] {
        let mut scene = asked(true);
        scene.later(TIMEOUT_MS + wait);
        let last = scene.measure(0);
        scene.checker.finish(last);
        match ends {
            true => scene.clean(),
            false => scene.broken(Invariant::QuestionsEndOnce, last),
        }
    }
}

#[test]
fn given_decisions_that_were_lost_then_a_second_end_is_nothing() {
    let mut scene = asked(true);
    scene.answer(PERSON);
    scene.epochs.entry(COORDINATOR).and_modify(|e| e.1 += 1);
    scene.answer(PERSON);
    scene.clean();
}
