//! What agents do beside talking: the blackboard, questions, and parts.

use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use swarm_agent_sdk::{AnsweredBy, BoardChange, BoardError, Part, Step, TaskContext, TaskError};
use swarm_events::{
    Body, Json,
    message::{Answered, Unanswered},
    subject::{AgentVerb, Service, Subject},
};
use swarm_log::definitions::BLACKBOARD_BYTES_MAX;
use uuid::Uuid;

use crate::{
    scene::{Talks, soon},
    support::{self, Swarm},
};

#[tokio::test]
async fn a_blackboard_is_of_one_swarm_and_of_several_writers_one_succeeds() {
    let mut swarm = Swarm::with_permissions().await;
    let (running, handle) = swarm.talks(swarm.builder()).await;
    let board = handle.blackboard().await.expect("runs");
    let mut watch = board.watch("plan.").await.expect("watched");
    let first = board.create("plan.a", json!({"v": 1})).await.expect("new");
    let error = board.create("plan.a", 2).await.expect_err("there is one");
    assert!(
        matches!(&error, BoardError::Exists { key } if key == "plan.a"),
        "{error}"
    );
    let (a, b) = tokio::join!(
        board.update("plan.a", "a", first),
        board.update("plan.a", "b", first)
    );
    let error = match (a, b) {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
        other => panic!("{other:?}"),
    };
    assert!(
        matches!(error, BoardError::Changed { revision, .. } if revision == first),
        "{error}"
    );
    board.put("other", 1).await.expect("put");
    board.put("plan.b", 2).await.expect("put");
    // Another swarm's keys are nobody's business here.
    let bucket = swarm.log.context().get_key_value("swarm_blackboard").await;
    let foreign = format!("{}.{}.plan.x", swarm.place.org, Uuid::now_v7());
    bucket
        .expect("there")
        .put(foreign, "1".into())
        .await
        .expect("put");
    assert_eq!(
        board.keys("").await.expect("listed"),
        ["other", "plan.a", "plan.b"]
    );
    assert_eq!(
        board.keys("plan.").await.expect("listed"),
        ["plan.a", "plan.b"]
    );
    board.delete("plan.a", Some(1)).await.expect_err("old");
    board.delete("plan.a", None).await.expect("deleted");
    assert_eq!(board.get("plan.a").await.expect("read"), None);
    assert_eq!(board.keys("plan.").await.expect("listed"), ["plan.b"]);
    // Limits, by field.
    let largest = "x".repeat(BLACKBOARD_BYTES_MAX - 2);
    board
        .put("plan.large", &largest)
        .await
        .expect("at the limit");
    let error = board.put("plan.large", format!("{largest}x")).await;
    assert!(
        matches!(error, Err(BoardError::TooLarge { bytes }) if bytes == BLACKBOARD_BYTES_MAX + 1)
    );
    let error = board.put("_cursor.x", 1).await.expect_err("reserved");
    assert!(error.to_string().starts_with("key: "), "{error}");
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let change = soon("a change", watch.next()).await.expect("goes on");
        match change.expect("readable") {
            BoardChange::Put(entry) => seen.push(entry.key),
            BoardChange::Deleted { key, .. } => seen.push(format!("-{key}")),
        }
    }
    assert_eq!(
        seen,
        ["plan.a", "plan.a", "plan.b", "-plan.a", "plan.large"]
    );
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn a_question_waits_for_its_answer_and_says_who_gave_it() {
    let mut swarm = Swarm::new().await;
    let asking = swarm.builder().handler("ask", async |task: TaskContext, mode: String| {
        let mut question = task.ask("Go on?").choices(["yes", "no"]);
        if mode == "wrong" {
            question = question.default("perhaps");
        }
        let answered = question.timeout(Duration::from_secs(5)).await?;
        Ok::<_, TaskError>(json!({"answer": answered.answer, "person": answered.by == AnsweredBy::Person(None)}))
    });
    let (running, _) = swarm.talks(asking).await;
    let agent = swarm.agent;
    // A default that cannot be chosen never reaches the swarm.
    let wrong = swarm.assign("ask", json!("wrong"), 1).await;
    let (error, _) = swarm.until_failed(wrong).await;
    assert!(
        error.contains("default: it is none of the choices"),
        "{error}"
    );
    for answers in [true, false] {
        let assignment = swarm.assign("ask", json!(""), 1).await;
        let (id, ask) = swarm
            .until("a question", |r| match &r.event.body {
                Body::Ask(ask) => Some((r.event.id, ask.clone())),
                _ => None,
            })
            .await;
        assert_eq!((ask.assignment, ask.timeout_ms), (Some(assignment), 5_000));
        let (verb, body): (_, Body) = if answers {
            let answered = Answered {
                question_id: id.0.into(),
                answer: json!("yes").into(),
                by: AnsweredBy::Person(None),
            };
            (AgentVerb::Answered, answered.into())
        } else {
            let reason = "nobody was there".to_owned();
            let question_id = id.0.into();
            let none = Unanswered {
                question_id,
                reason,
            };
            (AgentVerb::Unanswered, none.into())
        };
        let subject = Subject::Agent(swarm.place, verb, agent);
        swarm
            .append(swarm.decision(Service::Coordinator, subject, agent.0, None, body))
            .await;
        if answers {
            let result = swarm.until_completed(assignment).await;
            assert_eq!(
                support::json(&result),
                json!({"answer": "yes", "person": true})
            );
        } else {
            let (error, _) = swarm.until_failed(assignment).await;
            assert!(
                error.contains("nobody answered: nobody was there"),
                "{error}"
            );
        }
    }
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn a_task_is_handed_on_in_parts() {
    let mut swarm = Swarm::new().await;
    let splitting = swarm
        .builder()
        .handler("sum", async |task: TaskContext, numbers: Vec<u64>| {
            assert_eq!(task.step(), Step::Work);
            let part = |(at, number): (usize, &u64)| Part {
                key: if numbers.len() == 2 {
                    "same".to_owned()
                } else {
                    format!("p{at}")
                },
                task_type: "one".to_owned(),
                payload: json!(number).into(),
                priority: None,
                required_capabilities: Vec::new(),
                required_role: None,
                max_attempts: None,
                timeout_ms: None,
            };
            task.split(numbers.iter().enumerate().map(part).collect())?;
            Ok::<_, TaskError>("this does not count")
        });
    let (running, _) = swarm.talks(splitting).await;
    let assignment = swarm.assign("sum", json!([1, 2, 3]), 1).await;
    let parts = swarm
        .until("a split", |r| match &r.event.body {
            Body::TaskSplit(split) if split.assignment == assignment => Some(split.parts.clone()),
            _ => None,
        })
        .await;
    let keys: Vec<_> = parts.iter().map(|part| part.key.as_str()).collect();
    assert_eq!(keys, ["p0", "p1", "p2"]);
    assert_eq!(parts[2].payload, Json::from(json!(3)));
    // What cannot be parts fails for good, by field.
    for (numbers, words) in [
        (json!([]), "parts: 0 parts, 1 to 1000 are taken"),
        (json!([1, 2]), "parts[1].key: same stands there twice"),
    ] {
        let assignment = swarm.assign("sum", numbers, 1).await;
        let (error, retryable) = swarm.until_failed(assignment).await;
        assert!(error.contains(words), "{error}");
        assert!(!retryable);
    }
    running.stop().await.expect("stops");
}
