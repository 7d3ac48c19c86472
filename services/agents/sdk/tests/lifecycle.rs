//! How an agent comes and goes, against a real nats-server.

mod support;

use std::time::Duration;

use serde_json::json;
use swarm_agent_sdk::{Agent, AgentError, Stopped};
use swarm_events::{
    Body, Problem,
    subject::{AgentVerb, CommandVerb, Subject, TaskVerb},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use support::{Swarm, double, held, json};

#[tokio::test]
async fn held_to_be_dead_it_stops_all_work_and_joins_again_as_a_new_process() {
    let mut swarm = Swarm::new().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (_hold, go) = watch::channel(false);
    let agent = swarm.run(
        swarm
            .builder()
            .handler("hold", held(&said, &go))
            .handler("double", double),
    );
    let first = swarm.let_join(1).await;
    let old = swarm.assign("hold", json!({}), 1).await;
    assert_eq!(hear.recv().await, Some("began"));
    swarm.fail(1).await;
    assert_eq!(hear.recv().await, Some("cancelled"));
    let second = swarm.let_join(2).await;
    assert_ne!(first, second);
    let stale = swarm.assign("double", json!(1), 1).await;
    let fresh = swarm.assign("double", json!(3), 2).await;
    assert_eq!(json(&swarm.until_completed(fresh).await), json!(6));
    for assignment in [old, stale] {
        assert_eq!(swarm.count(TaskVerb::Completed, assignment), 0);
    }
    assert_eq!(swarm.count(TaskVerb::Started, stale), 0);
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn a_removal_ends_it_unless_it_follows_a_failure() {
    let mut swarm = Swarm::new().await;
    let agent = swarm
        .joined(swarm.builder().handler("double", double))
        .await;
    // The verdict itself is lost; what the coordinator made of it arrives.
    swarm
        .republish_only(Subject::Agent(swarm.place, AgentVerb::Removed, swarm.agent))
        .await;
    swarm.fail(1).await;
    swarm.remove(1, "held to be dead").await;
    swarm.republish_all().await;
    swarm.let_join(2).await;
    swarm.remove(2, "not needed").await;
    let ended = agent.end().await.expect("no error");
    assert_eq!(
        ended,
        Stopped::Removed {
            reason: "not needed".to_owned()
        }
    );
}

#[tokio::test]
async fn two_processes_with_one_identity_are_told() {
    let mut swarm = Swarm::new().await;
    let first = swarm
        .joined(swarm.builder().handler("double", double))
        .await;
    let second = swarm.run(swarm.builder().handler("double", double));
    let instance = swarm.let_join(2).await;
    match first.end().await {
        Err(error @ AgentError::Superseded { .. }) => {
            assert!(
                error.to_string().contains("two agents with one identity"),
                "{error}"
            );
            assert!(error.to_string().contains(&instance.to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    second.stop().await.expect("stops");
}

#[tokio::test]
async fn a_refusal_to_join_names_its_reason() {
    let mut swarm = Swarm::new().await;
    let agent = swarm.run(swarm.builder().handler("double", double));
    let problem = Problem::new("name-taken", "another agent has this name").field("agent_name");
    swarm.refuse_join(problem.clone()).await;
    match agent.end().await {
        Err(AgentError::Refused(refused)) => assert_eq!(refused, problem),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_server_is_an_error_that_names_the_address() {
    let swarm = Swarm::new().await;
    let mut link = swarm.link();
    link.nats_url = "nats://127.0.0.1:1".to_owned();
    link.first_connect_wait = Duration::from_millis(200);
    let error = Agent::builder(link, swarm.place.org, swarm.place.swarm)
        .run(CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_stop_lets_running_work_finish_and_then_leaves() {
    let mut swarm = Swarm::new().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (let_go, go) = watch::channel(false);
    let agent = swarm
        .joined(swarm.builder().waiting(1).handler("hold", held(&said, &go)))
        .await;
    let running = swarm.assign("hold", json!({}), 1).await;
    assert_eq!(hear.recv().await, Some("began"));
    let waiting = swarm.assign("hold", json!({}), 1).await;
    agent.stop.cancel();
    let_go.send(true).expect("the handler waits");
    swarm.until_completed(running).await;
    let leave = swarm
        .until("leave", |r| match (&r.event.body, r.subject) {
            (Body::Leave(leave), Subject::Command(_, CommandVerb::Leave)) => {
                Some((leave.incarnation, r.event.about))
            }
            _ => None,
        })
        .await;
    assert_eq!(leave, (1, swarm.agent.0));
    assert_eq!(agent.end().await.expect("stops"), Stopped::Left);
    // It may have been started before the stop was heard, never half done.
    assert_eq!(
        swarm.count(TaskVerb::Started, waiting),
        swarm.count(TaskVerb::Completed, waiting)
    );
}

#[tokio::test]
async fn work_that_outlasts_the_grace_is_cancelled_and_given_back() {
    let mut swarm = Swarm::new().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (_hold, go) = watch::channel(false);
    let agent = swarm
        .joined(
            swarm
                .builder()
                .drain_grace(Duration::from_millis(50))
                .handler("hold", held(&said, &go)),
        )
        .await;
    let running = swarm.assign("hold", json!({}), 1).await;
    assert_eq!(hear.recv().await, Some("began"));
    assert_eq!(agent.stop().await.expect("stops"), Stopped::Left);
    assert_eq!(hear.recv().await, Some("cancelled"));
    swarm
        .until("leave", |r| {
            matches!(r.event.body, Body::Leave(_)).then_some(())
        })
        .await;
    assert_eq!(swarm.count(TaskVerb::AttemptFailed, running), 0);
}
