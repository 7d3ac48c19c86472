//! The harness for tests of agents that talk: messages, the blackboard, questions and parts, without servers.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use serde_json::{Value, json};
use swarm_agent_sdk::{
    AgentBuilder, AnsweredBy, Answerer, AskError, BoardChange, BoardError, Part, ReceivedMessage,
    ReceivedQuestion, RequestError, Role, SendError, Stage, Step, TaskContext, TaskError, To,
    testing::{self, TestEnd, TestEvent, TestSwarm, TestTask},
};
use swarm_events::{configuration::TopologyKind, topology::Topology};
use tokio::sync::mpsc;

const HOUR: Duration = Duration::from_secs(3_600);

fn named(name: &str) -> AgentBuilder {
    testing::agent().name(name)
}

/// Replies with its name.
fn echo(name: &'static str) -> AgentBuilder {
    named(name).on_message(move |message: ReceivedMessage| async move {
        message.reply(json!([name, message.body])).await?;
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn agents_ask_each_other_from_their_tasks() {
    let asking = named("asking").handler("ask", async |task: TaskContext, whom: String| {
        let reply = task.messages().request(whom.as_str(), 7, HOUR).await?;
        Ok::<_, TaskError>(reply.to_value())
    });
    let swarm = TestSwarm::new([asking, echo("other")]);
    let task = swarm.submit(TestTask::new("ask", "other"));
    assert_eq!(task.end().await, TestEnd::Completed(json!(["other", 7])));
    let unknown = swarm.submit(TestTask::new("ask", "nobody").max_attempts(1));
    let TestEnd::Failed { error } = unknown.end().await else {
        panic!("nobody is there")
    };
    assert!(error.contains("nobody is unknown"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_topology_decides_who_talks_to_whom() {
    let agents = [echo("hub"), echo("one"), echo("two")];
    let swarm = TestSwarm::with_topology(agents, Topology::of(TopologyKind::Ring));
    let of = |name| swarm.messages(name).expect("an agent");
    let reply = of("hub").request("one", 1, HOUR).await.expect("the next");
    assert_eq!(reply.to_value(), json!(["one", 1]));
    let error = of("one").tell("hub", 1).await.expect_err("not the next");
    assert!(matches!(&error, SendError::NoEdge(_)), "{error}");
    assert!(error.to_string().contains("in a ring"), "{error}");
    assert!(swarm.messages("nobody").is_none());
}

#[tokio::test(start_paused = true)]
async fn receipts_and_timeouts_are_as_in_a_swarm() {
    let deaf = named("deaf");
    let slow = named("slow").on_message(|_| async {
        tokio::time::sleep(HOUR).await;
        Ok(())
    });
    let swarm = TestSwarm::new([named("one"), deaf, slow]);
    let messages = swarm.messages("one").expect("an agent");
    let mut to_deaf = messages
        .message("deaf")
        .receipt(Stage::Delivered)
        .send(1)
        .await
        .expect("sent");
    let stages = [to_deaf.receipt(HOUR).await, to_deaf.receipt(HOUR).await];
    let stages = stages.map(|receipt| receipt.expect("told").stage);
    assert!(
        stages.contains(&Stage::Delivered) && stages.contains(&Stage::Refused),
        "{stages:?}"
    );
    let waited = messages.request("slow", 1, HOUR / 2).await;
    assert!(
        matches!(waited, Err(RequestError::TimedOut(_))),
        "{waited:?}"
    );
    let silent = messages.request("slow", 1, 3 * HOUR).await;
    assert!(matches!(silent, Err(RequestError::NoReply)), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn who_talks_too_much_waits_on_the_tests_clock() {
    let (say, mut heard) = mpsc::unbounded_channel();
    let other = named("other").on_topic("news", move |message: ReceivedMessage| {
        let say = say.clone();
        async move {
            say.send(message.body.to_value())?;
            Ok(())
        }
    });
    let swarm = TestSwarm::new([named("one"), other]);
    let messages = swarm.messages("one").expect("an agent");
    let began = tokio::time::Instant::now();
    // The default: 200 in a second.
    for number in 0..401 {
        messages.publish("news", number).await.expect("sent");
    }
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    for number in 0..401 {
        assert_eq!(heard.recv().await, Some(json!(number)));
    }
    messages
        .tell(To::All, "not on a topic")
        .await
        .expect("sent");
}

#[tokio::test(start_paused = true)]
async fn a_person_answers_or_the_default_does() {
    let agent = named("a").handler("ask", async |task: TaskContext, default: bool| {
        let mut question = task.ask("Go on?").choices(["yes", "no"]).timeout(HOUR);
        if default {
            question = question.default("no");
        }
        match question.await {
            Ok(answered) => Ok(json!([answered.answer, answered.by == AnsweredBy::Default])),
            Err(AskError::Unanswered(why)) => Err(TaskError::permanent(why)),
            Err(error) => Err(error.into()),
        }
    });
    let swarm = TestSwarm::new([agent]);
    let long = |default| TestTask::new("ask", default).timeout(3 * HOUR);
    let task = swarm.submit(long(false));
    let question = swarm.question().await.expect("asked");
    assert_eq!(question.ask.question, "Go on?");
    assert!(!question.answer("perhaps"));
    let TestEnd::Failed { error } = task.end().await else {
        panic!("nobody answered")
    };
    assert!(
        error.contains("nobody answered within 3600000 ms"),
        "{error}"
    );
    let task = swarm.submit(long(false));
    assert!(swarm.question().await.expect("asked").answer("yes"));
    assert_eq!(task.end().await, TestEnd::Completed(json!(["yes", false])));
    let task = swarm.submit(long(true));
    assert_eq!(task.end().await, TestEnd::Completed(json!(["no", true])));
}

fn part(key: &str, payload: impl Into<Value>) -> Part {
    Part {
        key: key.to_owned(),
        task_type: "count".to_owned(),
        payload: payload.into().into(),
        priority: None,
        required_capabilities: Vec::new(),
        required_role: None,
        max_attempts: Some(1),
        timeout_ms: None,
    }
}

fn counting() -> AgentBuilder {
    named("a")
        .slots(4)
        .handler("count", async |_: TaskContext, text: String| {
            match text.as_str() {
                "" => Err(TaskError::permanent("no words")),
                text => Ok(text.split(' ').count()),
            }
        })
        .handler("sum", async |task: TaskContext, lines: Vec<String>| {
            if task.step() == Step::Reduce {
                let counts: BTreeMap<String, u64> = task.inputs()?;
                return Ok(json!({"sum": counts.values().sum::<u64>(), "lines": counts.len()}));
            }
            let parts = lines.iter().enumerate();
            let parts = parts.map(|(at, line)| part(&format!("line-{at}"), line.as_str()));
            task.split(parts.collect())?;
            Ok(json!(null))
        })
}

#[tokio::test(start_paused = true)]
async fn parts_are_done_and_their_results_become_one() {
    let swarm = TestSwarm::new([counting()]);
    let task = swarm.submit(TestTask::new("sum", json!(["a b", "c", "d e f"])));
    let end = TestEnd::Completed(json!({"sum": 6, "lines": 3}));
    assert_eq!(task.end().await, end);
    let split = |entry: &&testing::TestEntry| entry.event == TestEvent::Split { parts: 3 };
    assert_eq!(task.history().iter().filter(split).count(), 1);
    // A part that fails for good is the end of the whole.
    let task = swarm.submit(TestTask::new("sum", json!(["a b", ""])));
    let error = "part line-1: no words".to_owned();
    assert_eq!(task.end().await, TestEnd::Failed { error });
}

#[tokio::test(start_paused = true)]
async fn a_blackboard_is_compared_and_watched() {
    let agent = named("a").handler("count", async |task: TaskContext, (): ()| {
        let board = task.blackboard();
        loop {
            let there = board.get("count").await?;
            let (number, revision) = match &there {
                Some(entry) => (entry.value.to::<u64>()?, entry.revision),
                None => (0, 0),
            };
            let wrote = match revision {
                0 => board.create("count", number + 1).await,
                at => board.update("count", number + 1, at).await,
            };
            match wrote {
                Ok(_) => return Ok(()),
                Err(BoardError::Changed { .. } | BoardError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    });
    let swarm = TestSwarm::new([agent.slots(10)]);
    let board = swarm.blackboard();
    let mut watch = board.watch("c").await.expect("watched");
    board.put("other", 1).await.expect("put");
    let tasks: Vec<_> = (0..10)
        .map(|_| swarm.submit(TestTask::new("count", json!(null))))
        .collect();
    for task in tasks {
        assert_eq!(task.end().await, TestEnd::Completed(json!(null)));
    }
    let count = board.get("count").await.expect("read").expect("there");
    assert_eq!(count.value.to_value(), json!(10));
    board
        .delete("count", Some(count.revision))
        .await
        .expect("deleted");
    assert_eq!(board.keys("").await.expect("listed"), ["other"]);
    for number in 1..=10 {
        let change = watch.next().await.expect("goes on").expect("a change");
        assert!(
            matches!(change, BoardChange::Put(entry) if entry.value.to_value() == json!(number))
        );
    }
    let change = watch.next().await.expect("goes on").expect("a change");
    assert!(matches!(change, BoardChange::Deleted { key, .. } if key == "count"));
}

#[tokio::test]
async fn without_a_swarm_everything_says_so() {
    let (task, _) = TaskContext::detached("t", json!({}).into(), HOUR);
    let error = task.messages().tell(To::All, 1).await.expect_err("nobody");
    assert!(matches!(error, SendError::NoSwarm), "{error}");
    let error = task.blackboard().get("a").await.expect_err("none");
    assert!(matches!(error, BoardError::NoSwarm), "{error}");
    let error = task.ask("?").await.expect_err("nobody");
    assert!(matches!(error, AskError::NoSwarm), "{error}");
    task.split(vec![part("a", "b")]).expect("it could be");
}

/// Asks whom the payload names, and gives back the answer and whether an agent gave it.
fn asking(name: &str) -> AgentBuilder {
    named(name)
        .capabilities(["ask"])
        .handler("ask", async |task: TaskContext, whom: Answerer| {
            let answered = task
                .ask("Go on?")
                .choices(["yes", "no"])
                .of(whom)
                .timeout(HOUR)
                .await?;
            let by = matches!(answered.by, AnsweredBy::Agent(_));
            Ok::<_, TaskError>(json!([answered.answer, by]))
        })
}
/// Tells that it was asked, and answers that.
fn answering(
    name: &'static str,
    answer: Option<&'static str>,
    say: &mpsc::UnboundedSender<&'static str>,
) -> AgentBuilder {
    let say = say.clone();
    named(name).on_question(move |question: ReceivedQuestion| {
        let say = say.clone();
        async move {
            assert_eq!(question.question, "Go on?");
            say.send(name)?;
            Ok(answer)
        }
    })
}
fn ask(whom: impl serde::Serialize) -> TestTask {
    let whom = serde_json::to_value(whom).expect("JSON");
    TestTask::new("ask", whom)
        .requires(["ask"])
        .max_attempts(1)
        .timeout(3 * HOUR)
}

#[tokio::test(start_paused = true)]
async fn who_is_to_answer_a_question_is_told_it() {
    // Given a star whose hub leads it
    let (say, mut told) = mpsc::unbounded_channel();
    let hub = answering("hub", Some("yes"), &say);
    let worker = answering("worker", Some("no"), &say);
    let agents = [hub, worker, asking("asking")];
    let swarm = TestSwarm::with_topology(agents, Topology::of(TopologyKind::Star));
    let task = swarm.submit(ask(Answerer::Leader));
    assert_eq!(task.end().await, TestEnd::Completed(json!(["yes", true])));
    let task = swarm.submit(ask(Answerer::Role(Role::Worker)));
    assert_eq!(task.end().await, TestEnd::Completed(json!(["no", true])));
    assert_eq!(
        (told.recv().await, told.recv().await),
        (Some("hub"), Some("worker"))
    );
    assert!(told.try_recv().is_err());
    // Whoever asks is not asked itself, and a person may answer what nobody else does.
    let task = swarm.submit(ask(Answerer::Role(Role::Supervisor)));
    let question = loop {
        let question = swarm.question().await.expect("asked");
        if question.ask.answerer == Answerer::Role(Role::Supervisor) {
            break question;
        }
    };
    assert!(question.answer("no"));
    assert_eq!(task.end().await, TestEnd::Completed(json!(["no", false])));
}

#[tokio::test(start_paused = true)]
async fn of_several_answers_the_first_counts() {
    let (say, mut told) = mpsc::unbounded_channel();
    let silent = answering("silent", None, &say);
    let broken =
        named("broken").on_question(async |_| Err::<Option<Value>, _>(TaskError::permanent("no")));
    let slow = named("slow").on_question(async |question: ReceivedQuestion| {
        tokio::time::sleep(HOUR / 4).await;
        assert!(!question.over.is_cancelled());
        Ok(Some("yes"))
    });
    let (late, mut over) = mpsc::unbounded_channel();
    let slower = named("slower").on_question(move |question: ReceivedQuestion| {
        let late = late.clone();
        async move {
            question.over.cancelled().await;
            late.send(())?;
            Ok(Some("no"))
        }
    });
    let swarm = TestSwarm::new([silent, broken, slow, slower, asking("asking")]);
    let task = swarm.submit(ask(Answerer::Anybody));
    assert_eq!(task.end().await, TestEnd::Completed(json!(["yes", true])));
    assert_eq!(told.recv().await, Some("silent"));
    assert_eq!(over.recv().await, Some(()));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_lost_is_told_anew_what_is_open() {
    let (say, mut told) = mpsc::unbounded_channel();
    let first = named("first").on_question(move |_| {
        let say = say.clone();
        async move {
            say.send(())?;
            std::future::pending::<()>().await;
            Ok(None::<Value>)
        }
    });
    let swarm = TestSwarm::new([first, asking("asking")]);
    let task = swarm.submit(ask(Answerer::Leader));
    assert_eq!(told.recv().await, Some(()));
    swarm.lose("first");
    assert_eq!(told.recv().await, Some(()));
    assert!(swarm.question().await.expect("asked").answer("yes"));
    assert_eq!(task.end().await, TestEnd::Completed(json!(["yes", false])));
}
