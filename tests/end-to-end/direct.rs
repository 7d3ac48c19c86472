//! Direct publishers: a CloudEvent on its subject is a first-class way in.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Agent, Installation, PATIENCE, eventually, script};

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_event_published_by_a_plain_client_is_executed() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("direct", json!({})).await;
    let echo = script(
        swarm.dir(),
        "echo.py",
        "#!/usr/bin/env python3\nimport json, sys\nprint(json.dumps(json.load(sys.stdin)[\"payload\"]))\n",
    );
    let _agent = Agent::start(&swarm, &id, "a", &[], &echo);
    swarm.until_idle(&id, 1).await;

    let shown = swarm.get(&format!("/v1/swarms/{id}")).await;
    let subject = shown["events_subject"]
        .as_str()
        .expect("where to publish")
        .to_owned();
    let client = async_nats::ConnectOptions::with_credentials_file(swarm.field("nats_creds"))
        .await
        .expect("credentials")
        .connect(swarm.field("nats_url"))
        .await
        .expect("connected");
    let task = Uuid::now_v7();
    let event = json!({
        "specversion": "1.0", "id": Uuid::now_v7(), "source": "/test/plain-client",
        "type": "swarm.task.submitted.v1", "subject": task, "datacontenttype": "application/json",
        "org": swarm.field("org_id"), "swarm": id, "data": {"task_type": "echo", "payload": {"hello": "world"}},
    });
    let publish = |event: serde_json::Value| {
        let (client, subject) = (client.clone(), subject.clone());
        async move {
            let ack = client
                .request(subject, event.to_string().into())
                .await
                .expect("the stream answers");
            let ack: serde_json::Value = serde_json::from_slice(&ack.payload).expect("JSON");
            ack["seq"]
                .as_u64()
                .unwrap_or_else(|| panic!("not stored: {ack}"))
        }
    };
    publish(event.clone()).await;
    let shown = eventually("the task has completed", PATIENCE, || async {
        let (status, task) = swarm
            .request(reqwest::Method::GET, &format!("/v1/tasks/{task}"), None)
            .await?;
        (status == 200 && task["status"] == "completed").then_some(task)
    })
    .await;
    assert_eq!(shown["result"], json!({"hello": "world"}));

    // The same id with other content is refused and touches nothing; what is no event stops nobody.
    let mut other = event.clone();
    other["id"] = json!(Uuid::now_v7());
    other["data"]["payload"] = json!({"hello": "mars"});
    let repeated = publish(other).await;
    let broken = client
        .request(subject.clone(), "{no json".into())
        .await
        .expect("the stream answers");
    let broken: serde_json::Value = serde_json::from_slice(&broken.payload).expect("JSON");
    for refused in [repeated, broken["seq"].as_u64().expect("stored")] {
        eventually("its refusal is in the log", PATIENCE, || async {
            let events = swarm.replay(&["--type", "task.refused"]).await;
            events
                .iter()
                .any(|line| line["event"]["data"]["refused_seq"] == refused)
                .then_some(())
        })
        .await;
    }
    let next = swarm
        .post(
            &format!("/v1/swarms/{id}/tasks"),
            &json!({"task_type": "echo", "payload": {"n": 1}}),
        )
        .await;
    let tasks = swarm.until_ended(&id, 2, PATIENCE).await;
    assert!(
        tasks.iter().all(|task| task["status"] == "completed"),
        "{tasks:?}"
    );
    assert!(
        tasks
            .iter()
            .any(|task| task["id"] == next["id"] && task["result"]["n"] == 1),
        "{tasks:?}"
    );
    assert!(
        tasks
            .iter()
            .any(|task| task["result"] == json!({"hello": "world"})),
        "the first is untouched: {tasks:?}"
    );
}
