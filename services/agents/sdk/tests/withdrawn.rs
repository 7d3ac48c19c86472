//! Work that is taken away, against a real nats-server.

mod support;

use serde_json::json;
use swarm_events::{
    Body, Json,
    ids::TaskId,
    subject::{Subject, TaskVerb},
    task::{Carried, WithdrawReason},
};
use swarm_log::Log;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use support::{Swarm, double, held, json};

#[tokio::test]
async fn what_was_withdrawn_unseen_cannot_be_started() {
    let mut swarm = Swarm::new().await;
    let agent = swarm
        .joined(swarm.builder().waiting(1).handler("double", double))
        .await;
    // The agent hears of assignments and never of withdrawals: only the server's check stands between.
    swarm
        .republish_only(Subject::Task(
            swarm.place,
            TaskVerb::Assigned,
            Some(swarm.agent),
        ))
        .await;
    let (task, assigned) = swarm.assignment("double", Carried::Inline(json!(1).into()), 1);
    // Both in one batch, so that the withdrawal stands before the agent can hear of the assignment.
    let next = swarm.log.info().await.expect("it is there").last_sequence + 1;
    let withdrawn = swarm.withdrawal(task, next, 1, false);
    swarm
        .log
        .append_atomic(vec![assigned, withdrawn])
        .await
        .expect("stored");
    let other = swarm.assign("double", json!(2), 1).await;
    swarm.until_completed(other).await;
    assert!(
        swarm
            .seen
            .iter()
            .any(|r| r.sequence == next && matches!(r.event.body, Body::TaskAssigned(_)))
    );
    assert_eq!(swarm.count(TaskVerb::Started, next), 0);
    assert_eq!(swarm.count(TaskVerb::Completed, next), 0);
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn what_waits_behind_running_work_and_is_taken_away_is_never_started() {
    let mut swarm = Swarm::new().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (let_go, go) = watch::channel(false);
    let agent = swarm
        .joined(
            swarm
                .builder()
                .slots(1)
                .waiting(3)
                .handler("hold", held(&said, &go))
                .handler("double", double),
        )
        .await;
    let running = swarm.assign("hold", json!({}), 1).await;
    assert_eq!(hear.recv().await, Some("began"));
    let mut taken = Vec::new();
    for reason in [WithdrawReason::Steal, WithdrawReason::QueueTimeout] {
        let (task, message) = swarm.assignment("double", Carried::Inline(json!(1).into()), 1);
        let waiting = swarm.append(message).await;
        swarm
            .append(swarm.withdrawal_for(reason, task, waiting, 1, false))
            .await;
        taken.push(waiting);
    }
    // One whose theft comes too late: it is void, and changes nothing for what runs.
    let (task, message) = swarm.assignment("double", Carried::Inline(json!(4).into()), 1);
    let last = swarm.append(message).await;
    swarm
        .append(swarm.withdrawal(TaskId(Uuid::nil()), running, 1, false))
        .await;
    let_go.send(true).expect("the handler waits");
    swarm.until_completed(running).await;
    assert_eq!(json(&swarm.until_completed(last).await), json!(8));
    swarm.append(swarm.withdrawal(task, last, 1, false)).await;
    let next = swarm.assign("double", json!(5), 1).await;
    swarm.until_completed(next).await;
    for waiting in taken {
        assert_eq!(swarm.count(TaskVerb::Started, waiting), 0);
    }
    for done in [running, last, next] {
        let times = (
            swarm.count(TaskVerb::Started, done),
            swarm.count(TaskVerb::Completed, done),
        );
        assert_eq!(times, (1, 1));
    }
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn work_without_progress_that_is_taken_away_is_stopped() {
    let mut swarm = Swarm::new().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (_hold, go) = watch::channel(false);
    let agent = swarm
        .joined(swarm.builder().handler("hold", held(&said, &go)))
        .await;
    for reason in [WithdrawReason::NoProgress, WithdrawReason::Timeout] {
        let (task, message) = swarm.assignment("hold", Carried::Inline(Json::null()), 1);
        let assignment = swarm.append(message).await;
        assert_eq!(hear.recv().await, Some("began"));
        swarm
            .append(swarm.withdrawal_for(reason, task, assignment, 1, true))
            .await;
        assert_eq!(hear.recv().await, Some("cancelled"));
    }
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn a_forced_withdrawal_cancels_the_handler_and_its_result_is_dropped() {
    let mut swarm = Swarm::new().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (_hold, go) = watch::channel(false);
    let agent = swarm
        .joined(
            swarm
                .builder()
                .handler("hold", held(&said, &go))
                .handler("double", double),
        )
        .await;
    let (task, message) = swarm.assignment("hold", Carried::Inline(Json::null()), 1);
    let assignment = swarm.append(message).await;
    assert_eq!(hear.recv().await, Some("began"));
    swarm
        .append(swarm.withdrawal(task, assignment, 1, true))
        .await;
    assert_eq!(hear.recv().await, Some("cancelled"));
    let next = swarm.assign("double", json!(1), 1).await;
    swarm.until_completed(next).await;
    assert_eq!(swarm.count(TaskVerb::AttemptFailed, assignment), 0);
    agent.stop().await.expect("stops");
}
