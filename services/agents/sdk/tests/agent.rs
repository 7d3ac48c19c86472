//! An agent against a real nats-server.

mod support;

use std::sync::Arc;

use serde_json::json;
use swarm_agent_sdk::{Link, Stopped, TaskContext, TaskError};
use swarm_events::{
    Body, Json,
    envelope::Source,
    ids::AgentId,
    subject::{Subject, TaskVerb},
    task::{Carried, RESULT_BYTES_MAX},
};
use swarm_log::Log;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use support::{Swarm, double, held, json};

#[tokio::test]
async fn a_task_is_started_and_its_result_stored_under_the_agents_name() {
    let mut swarm = Swarm::new().await;
    let agent = swarm
        .joined(
            swarm
                .builder()
                .name("doubler")
                .capabilities(["b", "a", "b"])
                .handler("double", double),
        )
        .await;
    let assignment = swarm.assign("double", json!(21), 1).await;
    let started = swarm.until_started(assignment).await;
    let result = swarm.until_completed(assignment).await;
    assert_eq!(json(&result), json!(42));
    let event = &swarm
        .seen
        .iter()
        .find(|r| r.sequence == started)
        .expect("seen")
        .event;
    assert_eq!(event.source, Source::Agent(swarm.agent));
    let assigned = &swarm
        .seen
        .iter()
        .find(|r| r.sequence == assignment)
        .expect("seen")
        .event;
    assert_eq!(event.causation, Some(assigned.id.0));
    let join = swarm.seen.iter().find_map(|r| {
        if let Body::Join(join) = &r.event.body {
            Some(join)
        } else {
            None
        }
    });
    assert_eq!(join.expect("seen").capabilities, ["a", "b"]);
    assert_eq!(agent.stop().await.expect("stops"), Stopped::Left);
}

#[tokio::test]
async fn failures_say_what_is_wrong_and_whether_a_retry_helps() {
    let mut swarm = Swarm::new().await;
    let builder = swarm
        .builder()
        .handler("double", double)
        .handler(
            "flaky",
            async |_: TaskContext, _: Json| -> Result<(), TaskError> {
                Err("x".parse::<u8>().unwrap_err().into())
            },
        )
        .handler(
            "hopeless",
            async |_: TaskContext, _: Json| -> Result<(), TaskError> {
                Err(TaskError::permanent("no such user"))
            },
        )
        .handler(
            "panic",
            async |_: TaskContext, _: Json| -> Result<(), TaskError> { panic!("oh no") },
        );
    let agent = swarm.joined(builder).await;
    for (task_type, payload, words, retryable) in [
        (
            "double",
            json!("no number"),
            "payload: not what double takes: invalid type: string",
            false,
        ),
        ("flaky", json!({}), "invalid digit found in string", true),
        ("hopeless", json!({}), "no such user", false),
        ("panic", json!({}), "the handler panicked: oh no", true),
    ] {
        let assignment = swarm.assign(task_type, payload, 1).await;
        let (error, retry) = swarm.until_failed(assignment).await;
        assert!(error.contains(words), "{error}");
        assert_eq!(retry, retryable, "{error}");
    }
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn an_assignment_whose_hint_was_lost_is_found_by_the_look_of_a_free_slot() {
    let mut swarm = Swarm::new().await;
    let agent = swarm
        .joined(swarm.builder().handler("double", double))
        .await;
    // One through the hint first, so that the agent is known to be at work.
    let first = swarm.assign("double", json!(1), 1).await;
    swarm.until_completed(first).await;
    swarm.republish_nothing().await;
    let lost = swarm.assign("double", json!(2), 1).await;
    assert_eq!(json(&swarm.until_completed(lost).await), json!(4));
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn a_gap_between_hints_is_read_from_the_log_in_order() {
    let mut swarm = Swarm::new().await;
    let agent = swarm
        .joined(swarm.builder().waiting(8).handler("double", double))
        .await;
    let first = swarm.assign("double", json!(1), 1).await;
    swarm.until_completed(first).await;
    swarm.republish_nothing().await;
    let mut lost = Vec::new();
    for number in 2..5 {
        lost.push(swarm.assign("double", json!(number), 1).await);
    }
    swarm.republish_all().await;
    lost.push(swarm.assign("double", json!(5), 1).await);
    for assignment in &lost {
        swarm.until_completed(*assignment).await;
    }
    for assignment in lost {
        assert_eq!(
            (
                swarm.count(TaskVerb::Started, assignment),
                swarm.count(TaskVerb::Completed, assignment)
            ),
            (1, 1)
        );
    }
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn work_goes_on_over_a_restart_of_the_server() {
    let mut swarm = Swarm::new().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (let_go, go) = watch::channel(false);
    let agent = swarm
        .joined(
            swarm
                .builder()
                .handler("hold", held(&said, &go))
                .handler("double", double),
        )
        .await;
    let assignment = swarm.assign("hold", json!({}), 1).await;
    assert_eq!(hear.recv().await, Some("began"));
    swarm.nats[0].kill();
    let_go.send(true).expect("the handler waits"); // it ends while nothing can be written
    swarm.nats[0].restart().await;
    assert_eq!(
        json(&swarm.until_completed(assignment).await),
        json!("done")
    );
    let mut losses = swarm.log.connection().watch();
    losses
        .wait_for(|state| state.connected)
        .await
        .expect("reconnects");
    let next = swarm.assign("double", json!(4), 1).await;
    assert_eq!(json(&swarm.until_completed(next).await), json!(8));
    assert_eq!(swarm.count(TaskVerb::Completed, assignment), 1);
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn an_agent_that_cannot_hear_stops_at_the_run_limit_by_itself() {
    let mut swarm = Swarm::new().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (_hold, go) = watch::channel(false);
    let agent = swarm
        .joined(swarm.builder().handler("hold", held(&said, &go)))
        .await;
    let (_, message) =
        swarm.assignment_to(swarm.agent, "hold", Carried::Inline(Json::null()), 1, 100);
    let assignment = swarm.append(message).await;
    assert_eq!(hear.recv().await, Some("began"));
    let (error, retryable) = swarm.until_failed(assignment).await;
    assert!(error.contains("limit of 100 ms") && retryable, "{error}");
    assert_eq!(hear.recv().await, Some("cancelled"));
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn the_credentials_of_one_agent_suffice_for_all_of_this() {
    let mut swarm = Swarm::with_permissions().await;
    let subject = Subject::Heartbeat(swarm.place, swarm.agent).to_string();
    let mut beats = swarm
        .log
        .client()
        .subscribe(subject)
        .await
        .expect("subscribes");
    let builder = swarm.builder().handler("double", double).handler(
        "large",
        async |task: TaskContext, bytes: usize| {
            task.progress(None, Some("repeating"));
            Ok::<_, TaskError>("x".repeat(bytes))
        },
    );
    let agent = swarm.joined(builder).await;
    let large = swarm.assign("large", json!(RESULT_BYTES_MAX), 1).await;
    swarm
        .until("progress", |r| {
            matches!(r.event.body, Body::TaskProgressed(_)).then_some(())
        })
        .await;
    assert!(matches!(
        swarm.until_completed(large).await,
        Carried::Object(_)
    ));
    swarm.republish_nothing().await;
    let lost = swarm.assign("double", json!(1), 1).await;
    swarm.until_completed(lost).await;
    assert!(futures::StreamExt::next(&mut beats).await.is_some());
    agent.stop().await.expect("stops");
    swarm
        .until("leave", |r| {
            matches!(r.event.body, Body::Leave(_)).then_some(())
        })
        .await;
}

#[tokio::test]
async fn large_values_go_by_reference_in_both_directions() {
    let mut swarm = Swarm::new().await;
    let agent = swarm
        .joined(swarm.builder().handler(
            "repeat",
            async |_: TaskContext, (text, times): (String, usize)| {
                Ok::<_, TaskError>(text.repeat(times))
            },
        ))
        .await;
    // A string of n bytes has n + 2 as JSON: the largest that fits, and one more.
    for (length, inline) in [(RESULT_BYTES_MAX - 2, true), (RESULT_BYTES_MAX - 1, false)] {
        let payload = Json::from(json!(["x", length]));
        swarm
            .log
            .put_object("payload/1", payload.as_str().to_owned().into())
            .await
            .expect("stored");
        let (_, message) = swarm.assignment("repeat", Carried::Object("payload/1".to_owned()), 1);
        let assignment = swarm.append(message).await;
        let result = swarm.until_completed(assignment).await;
        assert_eq!(matches!(result, Carried::Inline(_)), inline);
        if let Carried::Object(name) = &result {
            let bytes = swarm
                .log
                .get_object(name)
                .await
                .expect("readable")
                .expect("it is there");
            assert_eq!(bytes.len(), length + 2);
            // And the result of one task, by its sequence, as the payload of the next.
            let at = swarm.seen.last().expect("the result").sequence;
            let (_, message) = swarm.assignment("repeat", Carried::AtSequence(at), 1);
            let next = swarm.append(message).await;
            let (error, _) = swarm.until_failed(next).await;
            assert!(error.contains("payload: not what repeat takes"), "{error}");
        }
    }
    let (_, message) = swarm.assignment("repeat", Carried::Object("nowhere".to_owned()), 1);
    let assignment = swarm.append(message).await;
    let (error, retryable) = swarm.until_failed(assignment).await;
    assert!(error.contains("nowhere") && !retryable, "{error}");
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn progress_is_told_before_the_result() {
    let mut swarm = Swarm::new().await;
    let agent = swarm
        .joined(
            swarm
                .builder()
                .handler("steps", async |task: TaskContext, _: Json| {
                    task.progress(Some(200), Some("over the top"));
                    Ok::<_, TaskError>(task.fencing_token)
                }),
        )
        .await;
    let assignment = swarm.assign("steps", json!({}), 1).await;
    let told = swarm
        .until("progress", |r| match &r.event.body {
            Body::TaskProgressed(told) if told.assignment == assignment => {
                Some((told.percent, told.message.clone()))
            }
            Body::TaskCompleted(_) => panic!("the result came first"),
            _ => None,
        })
        .await;
    assert_eq!(told, (Some(100), Some("over the top".to_owned())));
    assert_eq!(
        json(&swarm.until_completed(assignment).await),
        json!(assignment)
    );
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn heartbeats_say_what_the_operating_system_says() {
    use futures::StreamExt;
    let mut swarm = Swarm::new().await;
    let subject = Subject::Heartbeat(swarm.place, swarm.agent).to_string();
    let mut beats = swarm
        .log
        .client()
        .subscribe(subject)
        .await
        .expect("subscribes");
    swarm.log.client().flush().await.expect("flushes");
    let agent = swarm.run(swarm.builder().handler("double", double));
    let instance = swarm.let_join(1).await;
    let mut last = 0;
    for _ in 0..3 {
        let message = beats.next().await.expect("a heartbeat");
        let beat: swarm_events::swarm::Heartbeat =
            serde_json::from_slice(&message.payload).expect("readable");
        assert_eq!(
            (beat.instance, beat.incarnation, beat.status.as_str()),
            (instance, 1, "idle")
        );
        assert!(
            beat.counter > last && beat.memory_kib > 1_000 && beat.active_connections > 0,
            "{beat:?}"
        );
        last = beat.counter;
    }
    agent.stop().await.expect("stops");
}

/// Gives `tasks` tasks to `agents` agents on one link and checks that each is done once.
async fn share_work(mut swarm: Swarm, agents: usize, tasks: usize, slots: u32) {
    let link = Arc::new(
        Link::open(&swarm.link(), "swarm-agents/test")
            .await
            .expect("opens"),
    );
    let stop = CancellationToken::new();
    let ids: Vec<AgentId> = (0..agents).map(|_| AgentId(Uuid::now_v7())).collect();
    let mut running = Vec::new();
    for agent in &ids {
        let builder = swarm
            .builder()
            .id(*agent)
            .slots(slots)
            .waiting(4)
            .handler("double", double);
        let (link, stop) = (link.clone(), stop.clone());
        running.push(tokio::spawn(
            async move { builder.run_on(&link, stop).await },
        ));
    }
    for _ in 0..agents {
        swarm.let_join_as(1, false).await;
    }
    let began = std::time::Instant::now();
    let messages = (0..tasks)
        .map(|n| {
            swarm
                .assignment_to(
                    ids[n % ids.len()],
                    "double",
                    Carried::Inline(json!(n).into()),
                    1,
                    30_000,
                )
                .1
        })
        .collect();
    let assigned: Vec<u64> = swarm
        .log
        .append(messages)
        .await
        .into_iter()
        .map(|appended| appended.expect("stored").sequence)
        .collect();
    let mut left = tasks;
    swarm
        .until("all results", |r| {
            left -= usize::from(matches!(r.event.body, Body::TaskCompleted(_)));
            (left == 0).then_some(())
        })
        .await;
    println!(
        "{:.0} tasks/s",
        tasks as f64 / began.elapsed().as_secs_f64()
    );
    for assignment in assigned {
        assert_eq!(
            (
                swarm.count(TaskVerb::Started, assignment),
                swarm.count(TaskVerb::Completed, assignment)
            ),
            (1, 1)
        );
    }
    stop.cancel();
    for agent in running {
        assert_eq!(
            agent.await.expect("no panic").expect("no error"),
            Stopped::Left
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_agents_share_one_link_and_each_task_is_done_once() {
    share_work(Swarm::new().await, 100, 3_000, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_where_every_write_is_flushed() {
    share_work(Swarm::durable().await, 100, 1_000, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_a_cluster_where_checks_of_one_agent_meet() {
    share_work(Swarm::on_cluster().await, 4, 200, 8).await;
}
