//! Live events and health.

use crate::support::{PATIENCE, Stage, events};
use serde_json::{Value, json};
use swarm_events::{AgentId, InstanceId, Subject, subject::TaskVerb};
use uuid::Uuid;

#[tokio::test]
async fn live_events_go_on_where_a_client_left_off() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let other = stage.swarm(json!({"name": "b"})).await;
    let (tasks, path) = (
        format!("/v1/swarms/{}/tasks", place.swarm),
        format!("/v1/swarms/{}/events", place.swarm),
    );
    let task = json!({"task_type": "t", "payload": {}});
    let mut sequences = Vec::new();
    for _ in 0..3 {
        sequences.push(stage.admin.post(&tasks, &task).await.sequence());
        stage
            .admin
            .post(&format!("/v1/swarms/{}/tasks", other.swarm), &task)
            .await;
    }
    let is_submitted = |name: &str| name == "swarm.task.submitted.v2";
    let all = events(&stage.admin, &format!("{path}?from=1"), None, |(id, ..)| {
        *id == sequences[2]
    })
    .await;
    assert_eq!(all[0].1, "swarm.swarm.created.v4");
    let told: Vec<u64> = all
        .iter()
        .filter(|(_, name, _)| is_submitted(name))
        .map(|(id, ..)| *id)
        .collect();
    assert_eq!(told, sequences);
    assert!(
        all.iter()
            .all(|(_, _, data)| data["swarm"] == json!(place.swarm))
    );
    let rest = events(
        &stage.admin,
        &format!("{path}?from=1"),
        Some(sequences[0]),
        |(id, ..)| *id == sequences[2],
    )
    .await;
    let told: Vec<u64> = rest
        .iter()
        .filter(|(_, name, _)| is_submitted(name))
        .map(|(id, ..)| *id)
        .collect();
    assert_eq!(told, sequences[1..]);
    // Malformed messages are not shown, and do not end the stream.
    stage
        .publish_raw(
            &Subject::Task(place, TaskVerb::Submitted, None).to_string(),
            b"no event",
        )
        .await;
    let refused = |(_, name, _): &(u64, String, Value)| name == "swarm.task.refused.v1";
    let told = events(&stage.admin, &path, Some(sequences[2]), refused).await;
    assert_eq!(
        told.last().expect("some").2["data"]["problem"]["code"],
        "malformed-event"
    );
}

#[tokio::test]
async fn live_streams_are_bounded_and_end_with_the_process() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let path = format!("/v1/swarms/{}/events", place.swarm);
    // All but one place are taken.
    let most = u32::try_from(swarm_gateway::app::LIVE_STREAMS_MAX - 1).expect("small");
    let taken = stage
        .app
        .live
        .clone()
        .try_acquire_many_owned(most)
        .expect("free");
    let open = stage
        .admin
        .request(reqwest::Method::GET, &path)
        .send()
        .await
        .expect("the last place");
    assert_eq!(open.status().as_u16(), 200);
    stage
        .admin
        .get(&path)
        .await
        .refused(503, "too-many-streams", None);
    drop(taken);
    stage.app.stop.cancel();
    let ended = tokio::time::timeout(PATIENCE, stage.gateway)
        .await
        .expect("in time");
    assert!(ended.expect("no panic").is_ok());
    assert!(open.text().await.is_ok(), "the stream ends in order");
}

#[tokio::test]
async fn an_agent_is_shown_and_removed() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let agent = AgentId(Uuid::now_v7());
    stage
        .join(place, agent, InstanceId(Uuid::now_v7()), "one")
        .await;
    let path = format!("/v1/swarms/{}", place.swarm);
    let health = stage.admin.get(&format!("{path}/health")).await;
    assert_eq!(
        (
            health.text("status"),
            health.body["items"][0]["agent_name"].as_str()
        ),
        ("active", Some("one"))
    );
    assert_eq!(health.body["items"][0]["status"], "idle");
    let removed = stage
        .admin
        .delete(&format!("{path}/agents/{agent}?force=true"))
        .await;
    assert_eq!(
        (removed.status, removed.text("status")),
        (200, "stopped"),
        "{}",
        removed.body
    );
    let health = stage.admin.get(&format!("{path}/health")).await;
    assert_eq!(
        (health.text("status"), &health.body["agents"]["stopped"]),
        ("degraded", &json!(1))
    );
    assert_eq!(
        stage
            .admin
            .delete(&format!("{path}/agents/{agent}"))
            .await
            .status,
        409
    );
    let unknown = Uuid::now_v7();
    assert_eq!(
        stage
            .admin
            .delete(&format!("{path}/agents/{unknown}"))
            .await
            .status,
        404
    );
}
