//! Tasks, graphs, their commands and repeats.

use crate::support::{Stage, events};
use serde_json::{Value, json};
use swarm_events::{AgentId, InstanceId, subject::TaskVerb, task::Started};
use uuid::Uuid;

#[tokio::test]
async fn graphs_are_answered_with_the_distributors_outcome() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let body = json!({"tasks": [
        {"key": "a", "task_type": "count", "payload": {}},
        {"key": "sum", "task_type": "sum", "payload": {}, "depends_on": [{"key": "a", "dependency_type": "data", "as": "left"}]}]});
    let came = stage.admin.post(&tasks, &body).await;
    assert_eq!(came.status, 202, "{}", came.body);
    let (first, second) = (&came.body["items"][0], &came.body["items"][1]);
    assert_eq!(
        (&first["status"], &second["status"]),
        (&json!("queued"), &json!("pending"))
    );
    assert_eq!(second["depends_on"][0]["task_id"], first["id"]);
    assert_eq!(
        came.header("location"),
        format!("{tasks}?graph_id={}", came.text("graph_id"))
    );
    let accepted = stage.stored("swarm.evt.*.*.*.task.graph_accepted").await;
    assert_eq!(accepted[0]["subject"], came.body["graph_id"]);

    // One that follows on a task of the graph, and some that cannot.
    let follow =
        |id: &Value| json!({"task_type": "t", "payload": {}, "depends_on": [{"task_id": id}]});
    let came = stage.admin.post(&tasks, &follow(&first["id"])).await;
    assert_eq!(
        (came.status, came.text("status")),
        (202, "pending"),
        "{}",
        came.body
    );
    let unknown = json!(Uuid::now_v7());
    let came = stage.admin.post(&tasks, &follow(&unknown)).await;
    came.refused(422, "unknown-task", Some("depends_on[0].task_id"));
    let came = stage
        .admin
        .post(
            &tasks,
            &json!({"tasks": [{"task_type": "t", "payload": {}}, follow(&unknown)]}),
        )
        .await;
    came.refused(422, "unknown-task", Some("tasks[1].depends_on[0].task_id"));
    assert!(
        came.text("detail")
            .contains(unknown.as_str().expect("text")),
        "{}",
        came.body
    );
}

#[tokio::test]
async fn a_task_is_cancelled_and_retried_by_command() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let task = json!({"task_type": "count", "payload": {}});
    let ids = [
        stage.admin.post(&tasks, &task).await.id(),
        stage.admin.post(&tasks, &task).await.id(),
    ];
    let came = stage
        .admin
        .post(
            &format!("{tasks}/{}/cancel", ids[0]),
            &json!({"reason": "no more"}),
        )
        .await;
    assert_eq!(
        (came.status, came.text("status")),
        (202, "cancelled"),
        "{}",
        came.body
    );
    let ended = stage.stored("swarm.evt.*.*.*.task.cancelled").await;
    assert_eq!(
        (&ended[0]["subject"], &ended[0]["data"]["reason"]),
        (&json!(ids[0]), &json!("no more"))
    );
    assert_eq!(
        stage
            .admin
            .delete(&format!("{tasks}/{}", ids[1]))
            .await
            .status,
        202
    );

    stage
        .admin
        .delete(&format!("{tasks}/{}", ids[0]))
        .await
        .refused(409, "task-ended", Some("task_id"));
    let unknown = Uuid::now_v7();
    stage
        .admin
        .delete(&format!("{tasks}/{unknown}"))
        .await
        .refused(404, "unknown-task", Some("task_id"));
    let again = stage
        .admin
        .post(&format!("{tasks}/{}/retry", ids[0]), &json!({}))
        .await;
    assert_eq!(
        (again.status, &again.body["generation"]),
        (202, &json!(2)),
        "{}",
        again.body
    );
    let open = stage
        .admin
        .post(&format!("{tasks}/{}/retry", ids[0]), &json!({}))
        .await;
    open.refused(409, "task-not-ended", Some("task_id"));
    let long = json!({"reason": "x".repeat(1_001)});
    stage
        .admin
        .post(&format!("{tasks}/{}/cancel", ids[0]), &long)
        .await
        .refused(422, "too-long", Some("reason"));
}

#[tokio::test]
async fn a_repeat_under_the_same_key_is_the_same_request() {
    let stage = Stage::without_database().await;
    let admin = &stage.admin;
    let body = json!({"name": "a"});
    let first = admin.post_keyed("/v1/swarms", &body, "k1").await;
    let again = admin.post_keyed("/v1/swarms", &body, "k1").await;
    assert_eq!((first.status, &first.body), (201, &again.body));
    assert_eq!((again.status, first.sequence()), (201, again.sequence()));
    assert_eq!(again.header("swarm-key-remembered-ms"), "86400000");
    admin
        .post_keyed("/v1/swarms", &json!({"name": "b"}), "k1")
        .await
        .refused(422, "key-reused", Some("Idempotency-Key"));
    assert_eq!(stage.stored("swarm.evt.*.*.*.swarm.created").await.len(), 1);

    let tasks = format!("/v1/swarms/{}/tasks", first.id());
    let task = json!({"task_type": "t", "payload": {}});
    let graph = json!({"tasks": [task, {"task_type": "u", "payload": {}}]});
    for (key, body, other) in [("k1", &task, &graph), ("k2", &graph, &task)] {
        let first = admin.post_keyed(&tasks, body, key).await;
        let again = admin.post_keyed(&tasks, body, key).await;
        assert_eq!((first.status, &first.body), (202, &again.body));
        assert_eq!(first.sequence(), again.sequence());
        admin.post_keyed(&tasks, other, key).await.refused(
            422,
            "key-reused",
            Some("Idempotency-Key"),
        );
    }
    assert_eq!(
        stage.stored("swarm.evt.*.*.*.task.submitted").await.len(),
        3
    );

    let id = admin.post(&tasks, &task).await.id();
    let cancel = format!("{tasks}/{id}/cancel");
    let first = admin
        .post_keyed(&cancel, &json!({"reason": "r"}), "k")
        .await;
    let again = admin
        .post_keyed(&cancel, &json!({"reason": "r"}), "k")
        .await;
    assert_eq!(
        (first.status, &first.body, first.sequence()),
        (202, &again.body, again.sequence())
    );
    admin
        .post_keyed(&cancel, &json!({"reason": "s"}), "k")
        .await
        .refused(422, "key-reused", Some("Idempotency-Key"));
    let long = "k".repeat(256);
    admin.post_keyed(&cancel, &json!({}), &long).await.refused(
        400,
        "bad-idempotency-key",
        Some("Idempotency-Key"),
    );
}

#[tokio::test]
async fn concurrent_repeats_make_one_swarm() {
    let stage = Stage::without_database().await;
    let body = json!({"name": "a"});
    let all = (0..8).map(|_| stage.admin.post_keyed("/v1/swarms", &body, "same"));
    let all = futures::future::join_all(all).await;
    for came in &all {
        assert_eq!(
            (came.status, came.id()),
            (201, all[0].id()),
            "{}",
            came.body
        );
    }
    assert_eq!(stage.stored("swarm.evt.*.*.*.swarm.created").await.len(), 1);
}

#[tokio::test]
async fn a_running_task_is_cancelled_at_its_agent_and_the_caller_hears_of_its_end() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (agent, instance) = (AgentId(Uuid::now_v7()), InstanceId(Uuid::now_v7()));
    stage.join(place, agent, instance, "one").await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let id = stage
        .admin
        .post(&tasks, &json!({"task_type": "t", "payload": {}}))
        .await
        .id();
    let path = format!("/v1/swarms/{}/events?from=1", place.swarm);
    let assigned = |(_, name, _): &(u64, String, Value)| name == "swarm.task.assigned.v4";
    let told = events(&stage.admin, &path, None, assigned).await;
    let started = Started {
        assignment: told.last().expect("assigned").0,
        incarnation: 1,
    };
    stage
        .publish_as_agent(place, agent, TaskVerb::Started, id, started.into())
        .await;
    let cancel = format!("{tasks}/{id}/cancel");
    let came = stage.admin.post_keyed(&cancel, &json!({}), "k").await;
    assert_eq!(
        (came.status, came.text("status")),
        (202, "cancelled"),
        "{}",
        came.body
    );
    let withdrawn = stage.stored("swarm.evt.*.*.*.task.withdrawn.*").await;
    assert_eq!(
        (withdrawn.len(), &withdrawn[0]["data"]["force"]),
        (1, &json!(true))
    );
    let again = stage.admin.post_keyed(&cancel, &json!({}), "k").await;
    assert_eq!(
        (again.status, &again.body, again.sequence()),
        (202, &came.body, came.sequence())
    );
}

#[tokio::test]
async fn a_restart_of_nats_server_loses_and_repeats_nothing() {
    let mut stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let client = stage.admin.clone();
    let task = json!({"task_type": "t", "payload": {}});
    stage.nats.kill();
    let sending = {
        let (client, tasks, task) = (client.clone(), tasks.clone(), task.clone());
        tokio::spawn(async move { client.post(&tasks, &task).await })
    };
    stage.nats.restart().await;
    let came = sending.await.expect("no panic");
    assert_eq!(came.status, 202, "{}", came.body);
    let after = client.post(&tasks, &json!({"tasks": [task]})).await;
    assert_eq!(after.status, 202, "{}", after.body);
    let stored = stage.stored("swarm.evt.*.*.*.task.submitted").await;
    let ids: Vec<_> = stored.iter().map(|event| event["id"].clone()).collect();
    assert_eq!(
        ids.iter().filter(|id| **id == json!(came.id())).count(),
        1,
        "{ids:?}"
    );
    assert_eq!(ids.len(), 2, "{ids:?}");
}
