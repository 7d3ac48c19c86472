//! Agents that answer what others ask, against a real nats-server.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use swarm_agent_sdk::{
    ANSWERS_MAX, AgentBuilder, AnswerError, Answerer, ReceivedQuestion, Role, TaskError,
};
use swarm_events::{
    Body, Json, Problem,
    ids::{AgentId, CommandId},
    message::{Answer, Answered, AnsweredBy, Asked, Unanswered},
    subject::{AgentVerb, CommandVerb, Service, Subject, SwarmVerb},
    swarm::Refused,
    topology::{LeaderElected, Seated},
};
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

use support::Swarm;

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the coordinator writes of questions, by hand.
impl Swarm {
    async fn decide(
        &self,
        verb: AgentVerb,
        about: AgentId,
        cause: Option<Uuid>,
        body: impl Into<Body>,
    ) -> u64 {
        let subject = Subject::Agent(self.place, verb, about);
        self.append(self.decision(Service::Coordinator, subject, about.0, cause, body))
            .await
    }
    async fn of_swarm(&self, verb: SwarmVerb, cause: Option<Uuid>, body: impl Into<Body>) -> u64 {
        let (subject, about) = (Subject::Swarm(self.place, verb), self.place.swarm.0);
        self.append(self.decision(Service::Coordinator, subject, about, cause, body))
            .await
    }
    async fn asked(&self, asker: AgentId, question: &str, answerer: Answerer) -> CommandId {
        let question_id = CommandId(Uuid::now_v7());
        let asked = Asked {
            question_id,
            incarnation: 1,
            assignment: None,
            answerer,
            question: question.to_owned(),
            choices: vec!["yes".to_owned(), "no".to_owned()],
            default: None,
            timeout_ms: 600_000,
        };
        self.decide(AgentVerb::Asked, asker, Some(question_id.0), asked)
            .await;
        question_id
    }
    async fn answered(&self, asker: AgentId, question_id: CommandId, by: AgentId, cause: Uuid) {
        let answered = Answered {
            question_id,
            answer: json!("yes").into(),
            by: AnsweredBy::Agent(by),
        };
        self.decide(AgentVerb::Answered, asker, Some(cause), answered)
            .await;
    }
    async fn refused(&self, answer: Uuid, code: &str) {
        let refused = Refused {
            command_id: Some(CommandId(answer)),
            refused_subject: Subject::Command(self.place, CommandVerb::Answer).to_string(),
            refused_seq: 1,
            count: 1,
            problem: Problem::new(code, "as the test wants it"),
        };
        self.of_swarm(SwarmVerb::Refused, Some(answer), refused)
            .await;
    }
    async fn lead(&self, leader: Option<AgentId>) {
        let elected = LeaderElected {
            leader,
            incarnation: 1,
            before: None,
            reason: "by hand".to_owned(),
            eligible: 1,
        };
        self.of_swarm(SwarmVerb::LeaderElected, None, elected).await;
    }
    async fn seat(&self, agent: AgentId, role: Role) {
        let seated = json!({
            "generation": 1, "reason": "by hand",
            "seat": {"role": role, "level": 0, "place": 1, "standby": false, "works": true},
        });
        let seated: Seated = serde_json::from_value(seated).expect("a seat");
        self.decide(AgentVerb::Seated, agent, None, seated).await;
    }
    /// The next answer that an agent gives.
    async fn until_answer(&mut self) -> (Uuid, Answer) {
        self.until("an answer", |r| match &r.event.body {
            Body::Answer(answer) => Some((r.event.id.0, answer.clone())),
            _ => None,
        })
        .await
    }
}

type Told = mpsc::UnboundedReceiver<ReceivedQuestion>;

/// Tells what came, and answers `yes`.
fn agreeing(builder: AgentBuilder) -> (AgentBuilder, Told) {
    let (tell, told) = mpsc::unbounded_channel();
    let builder = builder.on_question(move |question: ReceivedQuestion| {
        let tell = tell.clone();
        async move {
            tell.send(question)?;
            Ok(Some("yes"))
        }
    });
    (builder, told)
}

async fn next(told: &mut Told) -> ReceivedQuestion {
    let next = timeout(PATIENCE, told.recv()).await;
    next.expect("a question did not come").expect("it runs")
}

#[tokio::test]
async fn what_is_open_is_told_to_whom_it_is_for_once_it_is() {
    // Given an agent with the rights of one, and what was asked before it came
    let mut swarm = Swarm::with_permissions().await;
    let (me, asker) = (swarm.agent, AgentId(Uuid::now_v7()));
    swarm.asked(me, "its own", Answerer::Anybody).await;
    let ended = swarm
        .asked(asker, "an answered one", Answerer::Anybody)
        .await;
    swarm
        .answered(asker, ended, AgentId(Uuid::now_v7()), Uuid::now_v7())
        .await;
    let for_leader = swarm.asked(asker, "for the leader", Answerer::Leader).await;
    let for_role = swarm
        .asked(asker, "for a role", Answerer::Role(Role::Supervisor))
        .await;
    let first = swarm.asked(asker, "for anybody", Answerer::Anybody).await;
    let (builder, mut told) = agreeing(swarm.builder());
    let running = swarm.joined(builder).await;

    // Then it is told what is for anybody, and answers as itself
    let question = next(&mut told).await;
    assert_eq!((question.id, question.from), (first, asker));
    assert_eq!(question.question, "for anybody");
    assert_eq!(question.choices, ["yes", "no"]);
    assert_eq!(question.deadline, question.asked_at.plus_millis(600_000));
    let (cause, answer) = swarm.until_answer().await;
    assert_eq!((answer.question_id, answer.agent), (first, Some((me, 1))));
    assert_eq!(answer.answer, Json::from(json!("yes")));
    assert!(!question.over.is_cancelled());
    swarm.answered(asker, first, me, cause).await;
    timeout(PATIENCE, question.over.cancelled())
        .await
        .expect("it has ended");
    // When it becomes the leader, what is for the leader
    swarm.lead(Some(me)).await;
    assert_eq!(next(&mut told).await.id, for_leader);
    let (cause, answer) = swarm.until_answer().await;
    assert_eq!(answer.question_id, for_leader);
    swarm.answered(asker, for_leader, me, cause).await;
    // When it gets the role, what is for that; it is not answered here
    swarm.seat(me, Role::Supervisor).await;
    assert_eq!(next(&mut told).await.id, for_role);
    assert_eq!(swarm.until_answer().await.1.question_id, for_role);
    // What is asked from now on comes as well
    let live = swarm.asked(asker, "live", Answerer::Leader).await;
    assert_eq!(next(&mut told).await.id, live);
    let (cause, answer) = swarm.until_answer().await;
    assert_eq!(answer.question_id, live);
    swarm.answered(asker, live, me, cause).await;
    running.stop().await.expect("stops");
    assert!(told.try_recv().is_err(), "nothing is told twice");

    // When it joins anew, then it is told what is open still, and nothing else
    let (builder, mut told) = agreeing(swarm.builder());
    let running = swarm.run(builder);
    swarm.let_join(2).await;
    assert_eq!(next(&mut told).await.id, for_role);
    let (_, answer) = swarm.until_answer().await;
    assert_eq!(answer.agent, Some((me, 2)));
    running.stop().await.expect("stops");
    assert!(told.try_recv().is_err(), "what has ended is told");
}

#[tokio::test]
async fn an_answer_that_is_not_wanted_any_more_is_called_off() {
    let mut swarm = Swarm::new().await;
    let (me, asker) = (swarm.agent, AgentId(Uuid::now_v7()));
    let (tell, mut told) = mpsc::unbounded_channel();
    let builder = swarm
        .builder()
        .on_question(move |question: ReceivedQuestion| {
            let tell = tell.clone();
            async move {
                tell.send(question.clone())?;
                question.over.cancelled().await;
                Ok(None::<Value>)
            }
        });
    let running = swarm.joined(builder).await;
    // Given one that is ended by its asker, and one of which the leader is another one
    let gone = swarm
        .asked(asker, "no longer wanted", Answerer::Anybody)
        .await;
    swarm.lead(Some(me)).await;
    let lost = swarm.asked(asker, "for the leader", Answerer::Leader).await;
    let questions = [next(&mut told).await, next(&mut told).await];
    assert_eq!([questions[0].id, questions[1].id], [gone, lost]);
    let reason = "the asker is gone".to_owned();
    let question_id = gone;
    let unanswered = Unanswered {
        question_id,
        reason,
    };
    swarm
        .decide(AgentVerb::Unanswered, asker, None, unanswered)
        .await;
    timeout(PATIENCE, questions[0].over.cancelled())
        .await
        .expect("ended");
    assert!(!questions[1].over.is_cancelled());
    swarm.lead(None).await;
    timeout(PATIENCE, questions[1].over.cancelled())
        .await
        .expect("not its own");
    // When it leads once more, then it is told that one anew
    swarm.lead(Some(me)).await;
    assert_eq!(next(&mut told).await.id, lost);
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn what_was_not_answered_stays_open() {
    let mut swarm = Swarm::new().await;
    let asker = AgentId(Uuid::now_v7());
    let (tell, mut told) = mpsc::unbounded_channel();
    let builder = swarm
        .builder()
        .on_question(move |question: ReceivedQuestion| {
            let tell = tell.clone();
            assert_ne!(question.question, "panic at once");
            async move {
                tell.send(question.clone())?;
                match question.question.as_str() {
                    "left to others" => Ok(None),
                    "error" => Err(TaskError::permanent("as it was asked")),
                    "panic" => panic!("as it was asked"),
                    "no choice" => Ok(Some("perhaps")),
                    _ => Ok(Some("no")),
                }
            }
        });
    let running = swarm.joined(builder).await;
    for question in [
        "panic at once",
        "left to others",
        "error",
        "panic",
        "no choice",
    ] {
        swarm.asked(asker, question, Answerer::Anybody).await;
        if question != "panic at once" {
            assert_eq!(next(&mut told).await.question, question);
        }
    }
    // Only the last one is answered.
    let last = swarm.asked(asker, "and this", Answerer::Anybody).await;
    let (_, answer) = swarm.until_answer().await;
    assert_eq!(
        (answer.question_id, answer.answer),
        (last, json!("no").into())
    );
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn so_many_handlers_run_at_a_time_and_tasks_beside_them() {
    let mut swarm = Swarm::new().await;
    let asker = AgentId(Uuid::now_v7());
    let (tell, mut told) = mpsc::unbounded_channel();
    let builder = swarm
        .builder()
        .handler("double", support::double)
        .on_question(move |question: ReceivedQuestion| {
            let tell = tell.clone();
            async move {
                tell.send(question.clone())?;
                question.over.cancelled().await;
                Ok(None::<Value>)
            }
        });
    let running = swarm.joined(builder).await;
    // Given one question more than may be handled at a time, none of which comes to its end
    let mut asked = Vec::new();
    for number in 0..=ANSWERS_MAX {
        let question = format!("question {number}");
        asked.push(swarm.asked(asker, &question, Answerer::Anybody).await);
    }
    for id in &asked[..ANSWERS_MAX] {
        assert_eq!(next(&mut told).await.id, *id);
    }
    // Then tasks run all the same
    let assignment = swarm.assign("double", json!(4), 1).await;
    let result = swarm.until_completed(assignment).await;
    assert_eq!(support::json(&result), json!(8));
    assert!(told.try_recv().is_err(), "more handlers than may be");
    // When one of them ends, then it is the last one's turn
    let by = AgentId(Uuid::now_v7());
    swarm.answered(asker, asked[3], by, Uuid::now_v7()).await;
    assert_eq!(next(&mut told).await.id, asked[ANSWERS_MAX]);
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn hints_that_are_lost_are_read_from_the_log() {
    let mut swarm = Swarm::new().await;
    let (me, asker) = (swarm.agent, AgentId(Uuid::now_v7()));
    let (builder, mut told) = agreeing(swarm.builder());
    let running = swarm.joined(builder).await;
    let first = swarm.asked(asker, "heard", Answerer::Anybody).await;
    assert_eq!(next(&mut told).await.id, first);
    // When neither the question nor the election is republished
    swarm.republish_nothing().await;
    let lost = swarm.asked(asker, "for the leader", Answerer::Leader).await;
    swarm.lead(Some(me)).await;
    // Then a look at the log finds both
    assert_eq!(next(&mut told).await.id, lost);
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn an_agent_can_answer_later_and_the_first_answer_counts() {
    let mut swarm = Swarm::new().await;
    let (me, asker) = (swarm.agent, AgentId(Uuid::now_v7()));
    let (builder, handle) = swarm.builder().with_handle();
    let running = swarm.joined(builder).await;
    let id = swarm.asked(asker, "?", Answerer::Anybody).await;
    let give = || {
        let handle = handle.clone();
        tokio::spawn(async move { handle.answer(id, "yes").await })
    };
    // Another one's answer was first
    let given = give();
    let (cause, answer) = swarm.until_answer().await;
    assert_eq!((answer.question_id, answer.agent), (id, Some((me, 1))));
    swarm
        .answered(asker, id, AgentId(Uuid::now_v7()), Uuid::now_v7())
        .await;
    swarm.refused(cause, "already-answered").await;
    assert!(!given.await.expect("no panic").expect("no error"));
    // It was refused
    let given = give();
    let (cause, _) = swarm.until_answer().await;
    swarm.refused(cause, "not-yours").await;
    let error = given.await.expect("no panic").expect_err("refused");
    let AnswerError::Refused(problem) = &error else {
        panic!("{error}")
    };
    assert_eq!(problem.code, "not-yours");
    // It counts
    let given = give();
    let (cause, _) = swarm.until_answer().await;
    swarm.answered(asker, id, me, cause).await;
    assert!(given.await.expect("no panic").expect("no error"));
    running.stop().await.expect("stops");
    let gone = handle.answer(id, "yes").await.expect_err("it has ended");
    assert!(matches!(gone, AnswerError::NotRunning), "{gone}");
}
