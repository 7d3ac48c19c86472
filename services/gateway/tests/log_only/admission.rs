//! Queues that are full: of a swarm, for a priority, of an organization.

use crate::support::{Client, Stage};
use serde_json::{Value, json};
use swarm_events::Place;

fn task(priority: u8) -> Value {
    json!({"task_type": "t", "payload": {}, "priority": priority})
}

fn tasks_of(place: Place) -> String {
    format!("/v1/swarms/{}/tasks", place.swarm)
}

fn limited(name: &str, limit: u64, shed_from_percent: u32) -> Value {
    let configuration = json!({"queue_limit": limit, "shed_from_percent": shed_from_percent});
    json!({"name": name, "configuration": configuration})
}

/// Every way to hand `tasks` in must be refused so, and store nothing.
async fn refused_each_way(
    stage: &Stage,
    client: &Client,
    path: &str,
    tasks: &[Value],
    code: &str,
    field: &str,
) {
    let before = stage.last_sequence().await;
    let many = json!({"tasks": tasks});
    let mut ways = vec![
        (path.to_owned(), many.clone()),
        (format!("{path}/bulk"), many),
    ];
    if let [task] = tasks {
        ways.push((path.to_owned(), task.clone()));
    }
    for (path, body) in ways {
        let came = client.post(&path, &body).await;
        came.refused(429, code, Some(field));
        assert_eq!(came.header("retry-after"), "1", "{path}");
        assert!(came.body["waiting"].is_u64(), "{}", came.body);
    }
    stage.nothing_came_since(before).await;
}

#[tokio::test]
async fn a_swarm_that_sheds_refuses_low_priorities_first() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(limited("a", 10, 50)).await;
    let (path, admin) = (tasks_of(place), &stage.admin);
    let limit = "configuration.queue_limit";
    let fill = json!({"tasks": vec![task(1); 5]});
    let came = admin.post(&format!("{path}/bulk"), &fill).await;
    assert_eq!(came.status, 202, "{}", came.body);
    refused_each_way(&stage, admin, &path, &[task(1)], "shed", limit).await;
    // The more urgent one is taken, and what comes behind it finds less room.
    let mixed = [task(10), task(9), task(2)];
    refused_each_way(&stage, admin, &path, &mixed, "shed", limit).await;
    let fill = json!({"tasks": vec![task(10); 4]});
    assert_eq!(admin.post(&path, &fill).await.status, 202);
    refused_each_way(&stage, admin, &path, &[task(9)], "shed", limit).await;
    let two = [task(10), task(10)];
    refused_each_way(&stage, admin, &path, &two, "queue-full", limit).await;
    assert_eq!(admin.post(&path, &task(10)).await.status, 202);
    refused_each_way(&stage, admin, &path, &[task(10)], "queue-full", limit).await;
    // The distributor's figures say the same.
    let measured = |app: &swarm_gateway::app::App| {
        let fold = app.fold.read();
        fold.measure(place).is_some_and(|m| m.last.queued == 10)
    };
    stage.eventually(measured).await;
    refused_each_way(&stage, admin, &path, &[task(1)], "queue-full", limit).await;
    // Shedding is switched off live.
    let free = json!({"configuration": {"shed_from_percent": null, "queue_limit": 11}});
    let swarm = format!("/v1/swarms/{}", place.swarm);
    assert_eq!(admin.put(&swarm, &free).await.status, 200);
    assert_eq!(admin.post(&path, &task(1)).await.status, 202);
    assert!(
        stage
            .stored("swarm.evt.*.*.*.task.rejected")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn an_organizations_limit_counts_all_its_swarms() {
    let stage = Stage::without_database().await;
    let (a, b) = (
        stage.swarm(json!({"name": "a"})).await,
        stage.swarm(json!({"name": "b"})).await,
    );
    let (of_a, of_b, admin) = (tasks_of(a), tasks_of(b), &stage.admin);
    let set = json!({"queue_limit": 4, "name": "Acme"});
    let came = admin.put("/v1/organization", &set).await;
    assert_eq!(
        (came.status, &came.body["queue_limit"], &came.body["name"]),
        (200, &json!(4), &json!("Acme")),
        "{}",
        came.body
    );
    assert!(came.sequence() > 0);
    let shown = admin.get("/organization").await;
    assert_eq!(shown.text("id"), stage.org.to_string());
    assert_eq!(shown.body["queue_limit"], json!(4));

    let two = json!({"tasks": [task(5), task(5)]});
    assert_eq!(admin.post(&of_a, &two).await.status, 202);
    let three = vec![task(10); 3];
    let limit = "organization.queue_limit";
    refused_each_way(&stage, admin, &of_b, &three, "queue-full", limit).await;
    let bulk = admin.post(&format!("{of_b}/bulk"), &two).await;
    assert_eq!(bulk.status, 202, "{}", bulk.body);
    for path in [&of_a, &of_b] {
        refused_each_way(&stage, admin, path, &[task(10)], "queue-full", limit).await;
    }
    let refused = admin.post(&of_a, &task(5)).await;
    assert_eq!(refused.body["waiting"], json!(4));
    assert!(refused.text("cure").contains("/v1/organization"));
    // The same from the distributor's figures alone.
    stage
        .eventually(|app| app.fold.read().waiting_of(stage.org) == 4)
        .await;
    refused_each_way(&stage, admin, &of_b, &[task(10)], "queue-full", limit).await;
    // Another organization is not concerned.
    let (_, stranger) = stage.other_org().await;
    let theirs = stranger.post("/v1/swarms", &json!({"name": "a"})).await;
    let path = format!("/v1/swarms/{}/tasks", theirs.id());
    assert_eq!(stranger.post(&path, &task(5)).await.status, 202);

    // What a deleted swarm leaves behind waits no more.
    let swarm = format!("/v1/swarms/{}", a.swarm);
    assert_eq!(admin.delete(&swarm).await.status, 202);
    stage
        .eventually(|app| app.fold.read().waiting_of(stage.org) == 2)
        .await;
    assert_eq!(admin.post(&of_b, &task(5)).await.status, 202);
    let none = admin
        .put("/organization", &json!({"queue_limit": null}))
        .await;
    assert_eq!(none.body["queue_limit"], Value::Null);
    let more = json!({"tasks": vec![task(5); 20]});
    assert_eq!(admin.post(&of_b, &more).await.status, 202);
}

#[tokio::test]
async fn submissions_at_the_same_time_do_not_share_the_last_place() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(limited("a", 10, 100)).await;
    let bulk = format!("{}/bulk", tasks_of(place));
    let two = json!({"tasks": [task(5), task(5)]});
    let all = (0..12).map(|_| stage.admin.post(&bulk, &two));
    let all = futures::future::join_all(all).await;
    let taken = all.iter().filter(|came| came.status == 202).count();
    assert_eq!(
        taken,
        5,
        "{:?}",
        all.iter().map(|c| c.status).collect::<Vec<_>>()
    );
    assert!(all.iter().all(|came| matches!(came.status, 202 | 429)));
    let stored = stage.stored("swarm.evt.*.*.*.task.submitted").await;
    assert_eq!(stored.len(), 10);
}

#[tokio::test]
async fn a_wrong_change_of_the_organization_is_refused_and_nothing_is_stored() {
    let stage = Stage::without_database().await;
    let before = stage.last_sequence().await;
    for (patch, code, field) in [
        (json!({"queue_limit": 0}), "out-of-range", "queue_limit"),
        (json!({"queue_limit": -5}), "out-of-range", "queue_limit"),
        (json!({"queue_limit": "many"}), "wrong-value", "queue_limit"),
        (json!({"name": null}), "wrong-value", "name"),
        (json!({"limit": 3}), "unknown-field", "limit"),
        (json!([]), "wrong-value", "body"),
    ] {
        let came = stage.admin.put("/v1/organization", &patch).await;
        came.refused(422, code, Some(field));
    }
    stage.nothing_came_since(before).await;
}
