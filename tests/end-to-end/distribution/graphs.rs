//! The largest graph there may be.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use swarm_events::task::GRAPH_TASKS_MAX;
use uuid::Uuid;

use crate::support::{Door, Installation, PATIENCE, Record, Team, eventually};

const GRAPH: usize = GRAPH_TASKS_MAX as usize;
/// How long it may take from the first byte to its acceptance: a debug build on two busy cores needs some seconds.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(30);

/// One task that everything else waits for.
fn largest() -> Vec<Value> {
    let root = json!({"key": "root", "task_type": "t", "payload": {}, "required_capabilities": ["nobody-has-this"]});
    let after = json!([{"key": "root"}]);
    let rest = (1..GRAPH).map(|_| json!({"task_type": "t", "payload": {}, "depends_on": after}));
    std::iter::once(root).chain(rest).collect()
}

/// Taken as a whole by both doors, and called off as a whole.
pub async fn taken_and_called_off(swarm: &Installation) {
    let id = swarm.swarm("large", json!({})).await;
    let mut record = Record::of(swarm, &id).await;

    // By the API.
    let asked = Instant::now();
    let body = json!({ "tasks": largest() });
    let made = swarm.post(&format!("/v1/swarms/{id}/tasks"), &body).await;
    let took = asked.elapsed();
    assert!(took < ACCEPTED_WITHIN, "{took:?}");
    assert_eq!(made["items"].as_array().expect("a list").len(), GRAPH);
    let by_api = made["graph_id"].as_str().expect("a graph").to_owned();

    // As parts on the bus, the last one first: order does not matter.
    let graph = Uuid::now_v7().to_string();
    let ids: Vec<String> = (0..GRAPH).map(|_| Uuid::now_v7().to_string()).collect();
    let door = Door::of(swarm, &id).await;
    let part = |index: usize| {
        let mut data = json!({
            "task_type": "t", "payload": {}, "graph": {"id": graph, "index": index, "of": GRAPH},
        });
        if index == 0 {
            data["required_capabilities"] = json!(["nobody-has-this"]);
        } else {
            data["depends_on"] = json!([{"task_id": ids[0]}]);
        }
        (ids[index].as_str(), data)
    };
    let published = Instant::now();
    let parts = stream::iter((0..GRAPH).rev().map(part))
        .map(|(task, data)| {
            let door = &door;
            async move {
                door.publish(task, data).await;
                Ok::<_, Infallible>(())
            }
        })
        .buffer_unordered(500);
    let stored = parts.try_fold(0, |count, ()| async move { Ok(count + 1) });
    assert_eq!(stored.await, Ok(GRAPH));
    let (_, accepted) = record.task("graph_accepted", &graph).await;
    let took_direct = published.elapsed();
    assert_eq!(accepted["data"]["tasks"], GRAPH, "{accepted}");
    assert!(took_direct < ACCEPTED_WITHIN, "{took_direct:?}");

    // Each is called off by one call.
    for graph in [&by_api, &graph] {
        let body = json!({"graph_id": graph, "reason": "too much"});
        let answer = swarm
            .post(&format!("/v1/swarms/{id}/tasks/cancel"), &body)
            .await;
        assert_eq!(answer["tasks"], GRAPH, "{answer}");
    }
    record.until_count("cancelled", 2 * GRAPH).await;
    let figures = eventually("it is measured", PATIENCE, || async {
        let figures = swarm.get(&format!("/v1/swarms/{id}/metrics")).await;
        (figures["tasks"]["cancelled"] == 2 * GRAPH).then_some(figures)
    })
    .await;
    for open in ["pending", "queued", "assigned", "running"] {
        assert_eq!(figures["tasks"][open], 0, "{figures}");
    }
}

/// Worked off by agents that have nothing else to do.
pub async fn worked_off(swarm: &Installation) {
    let id = swarm.swarm("worked off", json!({})).await;
    let team = Team::of(swarm, &id).await;
    for name in ["A", "B"] {
        let capable = ["nobody-has-this"];
        let joined = team.join(swarm, name, |agent| {
            agent.slots(32).waiting(32).capabilities(capable)
        });
        joined.await;
    }
    let mut record = Record::of(swarm, &id).await;
    let body = json!({ "tasks": largest() });
    swarm.post(&format!("/v1/swarms/{id}/tasks"), &body).await;
    record.until_count("completed", GRAPH).await;
    assert_eq!(team.runs().len(), GRAPH, "each once");
}
