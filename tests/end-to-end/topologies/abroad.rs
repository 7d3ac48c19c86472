//! A task is handed to another swarm of the organization, and its result comes back under the same trace.

use serde_json::{Value, json};

use crate::support::{Installation, Record, Team};

pub async fn all(swarm: &Installation) {
    let home = swarm.swarm("home", json!({})).await;
    let away = swarm.swarm("away", json!({})).await;
    let team = Team::of(swarm, &away).await;
    team.join(swarm, "expert", |agent| agent).await;
    let mut here = Record::of(swarm, &home).await;
    let mut there = Record::of(swarm, &away).await;

    let hand = |payload: Value| json!({"task_type": "t", "payload": payload, "hand_to": away});
    let task = swarm.task(&home, hand(json!({"n": 1}))).await;
    let (_, handed) = here.task("handed_over", &task).await;
    let other = handed["data"]["task_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let (_, completed) = there.task("completed", &other).await;
    let (_, back) = here.task("handed_back", &task).await;
    assert_eq!(back["data"]["result"]["inline"]["by"], "expert", "{back}");
    let submitted = here.task("submitted", &task).await.1;
    for event in [&handed, &completed, &back] {
        assert_eq!(event["correlationid"], *task, "{event}");
    }
    assert_eq!(
        there.task("submitted", &other).await.1["traceparent"],
        submitted["traceparent"],
        "one trace"
    );
    let shown = swarm.get(&format!("/v1/tasks/{task}")).await;
    assert_eq!(shown["id"], *task, "{shown}");

    // Deleted while it works on it: that is said here, and nothing hangs.
    let task = swarm.task(&home, hand(json!({"hold": "for ever"}))).await;
    let (_, handed) = here.task("handed_over", &task).await;
    let other = handed["data"]["task_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    there.task("started", &other).await;
    let gone = swarm
        .request(reqwest::Method::DELETE, &format!("/v1/swarms/{away}"), None)
        .await
        .expect("answers");
    assert!((200..300).contains(&gone.0), "{gone:?}");
    let (_, end) = here
        .until("it ends here", |_, event| {
            event["subject"] == *task
                && (event["type"] == "swarm.task.failed.v1"
                    || event["type"] == "swarm.task.cancelled.v1")
        })
        .await;
    let why = end["data"].to_string();
    assert!(why.contains("swarm"), "{end}");

    // To one that is no more, or never was.
    let late = swarm.task(&home, hand(json!({}))).await;
    let (_, end) = here.task("failed", &late).await;
    assert!(end["data"]["error"].is_string(), "{end}");
    let own = json!({"task_type": "t", "payload": {}, "hand_to": home});
    let (status, problem) = swarm
        .request(
            reqwest::Method::POST,
            &format!("/v1/swarms/{home}/tasks"),
            Some(&own),
        )
        .await
        .expect("answers");
    assert!((400..500).contains(&status), "{problem}");
    assert!(problem.to_string().contains("hand_to"), "{problem}");
}
