//! Rules about questions: the first answer counts, the timeout ends them, and so does the end of the one that asked.

mod support;

use std::collections::BTreeSet;

use support::{
    Given, agent,
    hosts::each_way,
    join, org, pair, place,
    topologies::{json, of_type},
    user,
};
use swarm_coordinator_core::{CHOICE_BYTES_MAX, Coordinator, ENDED_QUESTIONS_MAX, Touched};
use swarm_events::{
    Body, CommandId, Input,
    configuration::TopologyKind::{Hierarchical, Mesh, Star},
    decider::Decider,
    message::{
        Answer, AnsweredBy, Answerer, Ask, CHOICES_MAX, MESSAGE_BYTES_MAX, QUESTION_BYTES_MAX,
        QUESTION_TIMEOUT_MS_MAX, QUESTIONS_OPEN_MAX,
    },
    subject::CommandVerb,
    topology::Role,
};
use uuid::Uuid;

fn ask(question: &str) -> Ask {
    Ask {
        incarnation: 1,
        assignment: None,
        answerer: Answerer::Anybody,
        question: question.into(),
        choices: Vec::new(),
        default: None,
        timeout_ms: 60_000,
    }
}
fn choices(of: &[&str]) -> Ask {
    Ask {
        choices: of.iter().map(|word| (*word).to_owned()).collect(),
        ..ask("which?")
    }
}

impl Given {
    fn ask(&mut self, a: u128, order: Ask) -> Uuid {
        let id = self.send(1, CommandVerb::Ask, agent(a).0, order);
        self.settle();
        id
    }
    fn answer(&mut self, id: Uuid, answer: &str) -> Uuid {
        self.answer_as(id, answer, None)
    }
    fn answer_as(&mut self, id: Uuid, answer: &str, by: Option<(u128, u64)>) -> Uuid {
        let order = Answer {
            question_id: CommandId(id),
            answer: json(answer),
            user_id: Some(user()),
            agent: by.map(|(a, incarnation)| (agent(a), incarnation)),
        };
        self.command(1, CommandVerb::Answer, order)
    }
    fn open(&self) -> Vec<Uuid> {
        let open = self.swarm(1).questions();
        open.map(|(id, _)| id.0).collect()
    }
    /// How a question ended: the answer and by whom, or why there is none.
    fn ends(&self, id: Uuid) -> Vec<Result<(String, AnsweredBy), String>> {
        self.valid(|_, body| match body {
            Body::AgentAnswered(a) if a.question_id.0 == id => {
                Some(Ok((a.answer.to_string(), a.by)))
            }
            Body::AgentUnanswered(u) if u.question_id.0 == id => Some(Err(u.reason.clone())),
            _ => None,
        })
    }
}

#[test]
fn a_question_is_open_until_somebody_answers_it_and_the_first_answer_counts() {
    each_way(|| {
        let mut given = Given::a_topology(Star, "{}", 2);
        let mut order = ask("Which colour?");
        order.assignment = Some(7);
        let id = given.ask(2, order);
        assert_eq!(given.answered_by(id), "swarm.agent.asked.v1");
        assert_eq!(given.open(), [id]);
        let question = given.swarm(1).question(CommandId(id)).expect("open");
        assert_eq!((question.agent, question.incarnation), (agent(2), 1));
        assert_eq!(question.assignment, Some(7));
        assert_eq!(question.due.millis_since(question.asked_at), 60_000);
        let by = given.answer(id, r#"{"red": 1}"#);
        assert_eq!(given.answered_by(by), "swarm.agent.answered.v1");
        assert!(given.open().is_empty());
        let person = AnsweredBy::Person(Some(user()));
        assert_eq!(given.ends(id), [Ok((r#"{"red": 1}"#.to_owned(), person))]);
        let late = given.answer(id, "2");
        let problem = given.refusal(late);
        assert_eq!(problem.code, "already-answered");
        assert_eq!(problem.field.as_deref(), Some("question_id"));
        assert!(problem.detail.contains("a person"), "{problem}");
        given.later(60_000);
        assert_eq!(given.ends(id).len(), 1);
    });
}

#[test]
fn of_two_answers_at_once_the_first_counts() {
    let mut given = Given::a_topology(Star, "{}", 1);
    let id = given.ask(1, ask("now?"));
    let answers: Vec<Uuid> = ["1", "2"]
        .into_iter()
        .map(|answer| {
            let order = Answer {
                question_id: CommandId(id),
                answer: json(answer),
                user_id: None,
                agent: None,
            };
            let about = place(1).swarm.0;
            given.send(1, CommandVerb::Answer, about, order)
        })
        .collect();
    given.0.settle();
    let person = AnsweredBy::Person(None);
    assert_eq!(given.ends(id), [Ok(("1".to_owned(), person))]);
    assert_eq!(given.refusal(answers[1]).code, "already-answered");
}

#[test]
fn at_its_timeout_the_default_is_the_answer_and_without_one_there_is_none() {
    each_way(|| {
        let mut given = Given::a_topology(Star, "{}", 1);
        let mut order = choices(&["yes", "no"]);
        order.default = Some(json(r#""no""#));
        order.timeout_ms = 5_000;
        let with = given.ask(1, order);
        let mut order = ask("why?");
        order.timeout_ms = 7_000;
        let without = given.ask(1, order);
        let due = given.swarm(1).question(CommandId(with)).expect("open").due;
        assert_eq!(given.0.next_deadline(), Some(due));
        given.later(4_999);
        assert_eq!(given.open().len(), 2);
        given.later(1);
        let default = AnsweredBy::Default;
        assert_eq!(given.ends(with), [Ok((r#""no""#.to_owned(), default))]);
        given.later(2_000);
        let [Err(reason)] = &given.ends(without)[..] else {
            panic!("{:?}", given.ends(without));
        };
        assert!(reason.contains("7000 ms"), "{reason}");
        assert!(given.open().is_empty());
        for (id, words) in [(with, "default"), (without, "without an answer")] {
            let late = given.answer(id, r#""yes""#);
            let problem = given.refusal(late);
            assert_eq!(problem.code, "already-answered");
            assert!(problem.detail.contains(words), "{problem}");
        }
    });
}

#[test]
fn a_question_ends_with_the_incarnation_that_asked() {
    each_way(|| {
        let mut given = Given::a_topology(Star, "{}", 4);
        let asked: Vec<Uuid> = (1..=4)
            .map(|a| {
                let mut order = ask("still there?");
                // The default is for nobody any more.
                order.default = Some(json("1"));
                given.ask(a, order)
            })
            .collect();
        given.leave(1, 1);
        given.failed(2, 1);
        given.join(3, join(33, None));
        for id in &asked[..3] {
            let [Err(reason)] = &given.ends(*id)[..] else {
                panic!("{:?}", given.ends(*id));
            };
            assert!(reason.contains("incarnation 1"), "{reason}");
        }
        assert_eq!(given.open(), [asked[3]]);
        // A suspicion is no end.
        given.suspected(4, 1);
        assert_eq!(given.open(), [asked[3]]);
    });
}

#[test]
fn questions_end_before_their_swarm_does() {
    let mut given = Given::a_topology(Star, "{}", 3);
    let asked = [1, 2, 3].map(|a| given.ask(a, ask("well?")));
    given.delete(1);
    let id = given.ask(1, ask("and now?"));
    assert_eq!(given.refused(id), pair("swarm-stopping", "swarm"));
    given.measured(0);
    given.0.run_out();
    assert!(given.swarm(1).deleted_at.is_some());
    for id in asked {
        assert_eq!(given.ends(id).len(), 1);
    }
    let verbs: Vec<String> = given.valid(|subject, _| Some(subject.to_string()));
    let deleted = verbs.iter().position(|s| s.ends_with("swarm.deleted"));
    let last = verbs.iter().rposition(|s| s.contains("unanswered"));
    assert!(last < deleted, "{verbs:?}");
}

#[test]
fn only_a_choice_is_an_answer_where_there_are_choices() {
    let mut given = Given::a_topology(Star, "{}", 1);
    let id = given.ask(1, choices(&["red", "blue"]));
    for answer in [r#""green""#, "1", r#"["red"]"#, "null"] {
        let by = given.answer(id, answer);
        assert_eq!(given.refused(by), pair("not-a-choice", "answer"));
        let cure = given.refusal(by).cure.expect("a cure");
        assert!(cure.contains("red, blue"), "{cure}");
    }
    // However it is written.
    given.answer(id, r#""\u0072ed""#);
    assert_eq!(given.ends(id).len(), 1);
}

#[test]
fn a_question_for_the_leader_or_a_role_is_answered_by_them_or_a_person() {
    each_way(|| {
        let mut given = Given::a_topology(Hierarchical, "{}", 6);
        let supervisor = (1..=6).find(|a| given.role(*a) == Some(Role::Supervisor));
        let supervisor = supervisor.expect("there is one");
        let worker = (1..=6).find(|a| given.role(*a) == Some(Role::Worker));
        let worker = worker.expect("there is one");
        for (answerer, right) in [
            (Answerer::Leader, 1),
            (Answerer::Role(Role::Supervisor), supervisor),
        ] {
            let order = Ask {
                answerer,
                ..ask("may I?")
            };
            let id = given.ask(worker, order.clone());
            let by = given.answer_as(id, "1", Some((worker, 1)));
            assert_eq!(given.refused(by), pair("not-yours", "agent"));
            assert!(given.refusal(by).cure.is_some());
            given.answer_as(id, "1", Some((right, 1)));
            let agent = AnsweredBy::Agent(agent(right));
            assert_eq!(given.ends(id), [Ok(("1".to_owned(), agent))]);
            let id = given.ask(worker, order);
            given.answer(id, "2");
            assert_eq!(given.ends(id).len(), 1);
        }
        // Where anybody may, any agent may.
        let id = given.ask(worker, ask("who knows?"));
        given.answer_as(id, "1", Some((supervisor, 1)));
        assert_eq!(given.ends(id).len(), 1);
    });
}

#[test]
fn only_a_live_incarnation_asks_or_answers() {
    let mut given = Given::a_topology(Mesh, "{}", 2);
    let id = given.ask(1, ask("hello?"));
    given.join(2, join(22, None));
    for (incarnation, a, code, field) in [
        (1, 2, "other-incarnation", "incarnation"),
        (3, 2, "other-incarnation", "incarnation"),
        (1, 77, "unknown-agent", "agent"),
    ] {
        let order = Ask {
            incarnation,
            ..ask("hm?")
        };
        let asked = given.ask(a, order);
        assert_eq!(given.refused(asked), pair(code, field));
        assert!(given.refusal(asked).cure.is_some());
        let by = given.answer_as(id, "1", Some((a, incarnation)));
        assert_eq!(given.refused(by), pair(code, field));
    }
    given.leave(2, 2);
    let asked = given.ask(
        2,
        Ask {
            incarnation: 2,
            ..ask("hm?")
        },
    );
    assert_eq!(
        given.refused(asked),
        pair("other-incarnation", "incarnation")
    );
    assert_eq!(given.open(), [id]);
}

#[test]
fn a_question_is_refused_by_the_field_that_is_wrong_and_taken_at_its_limits() {
    let mut given = Given::a_topology(Star, "{}", 1);
    let of = |order: Ask, code: &'static str, field: &str| (order, code, field.to_owned());
    let many = |n: usize| Ask {
        choices: (0..n).map(|n| n.to_string()).collect(),
        ..ask("which?")
    };
    let timeout_ms = |timeout_ms| Ask {
        timeout_ms,
        ..ask("well?")
    };
    let default = |text: &str| Ask {
        default: Some(json(text)),
        ..choices(&["a", "b"])
    };
    let large = |bytes: usize| Ask {
        default: Some(json(&format!("\"{}\"", "x".repeat(bytes - 2)))),
        ..ask("well?")
    };
    let cases = [
        of(ask(""), "empty", "question"),
        of(ask(" \n"), "empty", "question"),
        of(
            ask(&"x".repeat(QUESTION_BYTES_MAX + 1)),
            "too-long",
            "question",
        ),
        of(timeout_ms(0), "out-of-range", "timeout_ms"),
        of(
            timeout_ms(QUESTION_TIMEOUT_MS_MAX + 1),
            "out-of-range",
            "timeout_ms",
        ),
        of(many(CHOICES_MAX + 1), "too-many", "choices"),
        of(choices(&["a", " "]), "empty", "choices[1]"),
        of(
            choices(&["a", &"b".repeat(CHOICE_BYTES_MAX + 1)]),
            "too-long",
            "choices[1]",
        ),
        of(choices(&["a", "b", "a"]), "repeated", "choices[2]"),
        of(default(r#""c""#), "not-a-choice", "default"),
        of(default("1"), "not-a-choice", "default"),
        of(large(MESSAGE_BYTES_MAX + 1), "too-long", "default"),
    ];
    for (order, code, field) in cases {
        let id = given.ask(1, order);
        assert_eq!(given.refused(id), (code.to_owned(), field));
        assert!(given.refusal(id).cure.is_some());
    }
    assert!(given.open().is_empty());
    for order in [
        ask(&"x".repeat(QUESTION_BYTES_MAX)),
        timeout_ms(1),
        timeout_ms(QUESTION_TIMEOUT_MS_MAX),
        many(CHOICES_MAX),
        choices(&["a", &"b".repeat(CHOICE_BYTES_MAX)]),
        default(r#""b""#),
        large(MESSAGE_BYTES_MAX),
    ] {
        let id = given.ask(1, order);
        assert_eq!(given.answered_by(id), "swarm.agent.asked.v1");
    }
    let id = given.ask(1, ask("well?"));
    let long = format!("\"{}\"", "x".repeat(MESSAGE_BYTES_MAX));
    let by = given.answer(id, &long);
    assert_eq!(given.refused(by), pair("too-long", "answer"));
}

#[test]
fn an_unknown_question_cannot_be_answered() {
    let mut given = Given::a_topology(Star, "{}", 1);
    let by = given.answer(Uuid::from_u128(5), "1");
    assert_eq!(given.refused(by), pair("unknown-question", "question_id"));
    assert!(given.refusal(by).cure.is_some());
    // One that was refused never was one.
    let id = given.ask(1, ask(""));
    let by = given.answer(id, "1");
    assert_eq!(given.refused(by), pair("unknown-question", "question_id"));
}

#[test]
fn a_swarm_has_a_limit_of_open_questions() {
    let mut given = Given::a_topology(Star, "{}", 1);
    let all: Vec<Uuid> = (0..=QUESTIONS_OPEN_MAX)
        .map(|n| given.send(1, CommandVerb::Ask, agent(1).0, ask(&format!("{n}?"))))
        .collect();
    // At once: none is refused before it is known that the others are there.
    given.0.settle();
    assert_eq!(given.open().len(), QUESTIONS_OPEN_MAX);
    let last = all[QUESTIONS_OPEN_MAX];
    assert_eq!(given.refused(last), pair("too-many", "question"));
    assert!(given.refusal(last).cure.is_some());
    given.answer(all[0], "1");
    let id = given.ask(1, ask("now?"));
    assert_eq!(given.answered_by(id), "swarm.agent.asked.v1");
    // What has ended is remembered up to a limit.
    for id in &all[1..QUESTIONS_OPEN_MAX] {
        given.answer(*id, "1");
    }
    assert_eq!(ENDED_QUESTIONS_MAX, QUESTIONS_OPEN_MAX);
    let by = given.answer(all[0], "2");
    assert_eq!(given.refusal(by).code, "already-answered");
    given.answer(id, "1");
    let by = given.answer(all[0], "2");
    assert_eq!(given.refusal(by).code, "unknown-question");
    let by = given.answer(all[1], "2");
    assert_eq!(given.refusal(by).code, "already-answered");
}

#[test]
fn a_traced_fold_names_the_questions() {
    let mut given = Given::a_topology(Star, "{}", 0);
    given.join(1, of_type(1, "exec"));
    let id = given.ask(1, ask("well?"));
    given.answer(id, "1");
    let mut state = Coordinator::new(support::P);
    let mut seen = Vec::new();
    for input in given.0.inputs() {
        let mut touched = Touched::default();
        state.evolve_traced(&input, &mut touched);
        let Input::Event(recorded) = &input else {
            continue;
        };
        if touched.questions == BTreeSet::from([(org(), place(1).swarm, CommandId(id))]) {
            seen.push(recorded.event.body.type_name());
        }
    }
    assert_eq!(seen, ["swarm.agent.asked.v1", "swarm.agent.answered.v1"]);
    assert_eq!(state, given.0.state);
}
