//! How many there are: counts, scaling, the least that is kept, places for agents that are started by hand.

use serde_json::json;

use super::crew::Crew;
use crate::support::{Agent, Installation, PATIENCE, eventually, said, script};

/// Each in a swarm of its own.
pub async fn all(swarm: &Installation) {
    tokio::join!(up_and_down(swarm), the_least_is_kept(swarm), by_hand(swarm));
}

async fn up_and_down(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "scale", json!({"max_agents": 6})).await;
    crew.refused("/scale", json!({"desired": 2}), "add").await;
    let body = json!({
        "agent_type": "exec", "agent_name": "unit", "adapter": "exec", "command": "sleep 0.2", "count": 2,
    });
    let added = swarm.post(&crew.path("/agents"), &body).await;
    let names: Vec<&str> = added["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|agent| agent["agent_name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["unit-1", "unit-2"]);
    swarm.until_idle(&crew.id, 2).await;
    let scaled = swarm
        .post(&crew.path("/scale"), &json!({"desired": 5}))
        .await;
    assert_eq!(
        (&scaled["before"], &scaled["desired"]),
        (&json!(2), &json!(5)),
        "{scaled}"
    );
    assert_eq!(scaled["add"].as_array().map(Vec::len), Some(3), "{scaled}");
    swarm.until_idle(&crew.id, 5).await;

    // Down while all of them work: nothing is lost.
    let task = json!({"task_type": "work", "payload": {}});
    swarm
        .post(&crew.path("/tasks/bulk"), &json!({"tasks": vec![task; 25]}))
        .await;
    let down = swarm.cli(&["scale", &crew.id, "-3", "--wait"]).await;
    assert!(down.status.success(), "{}", said(&down));
    crew.record.until_count("completed", 25).await;
    assert!(crew.record.all("attempt_failed").is_empty());
    eventually("two are left", PATIENCE, || async {
        let agents = swarm.try_pages(&crew.path("/agents?limit=500")).await?;
        let live = agents.iter().filter(|agent| agent["status"] != "stopped");
        (live.count() == 2).then_some(())
    })
    .await;
}

async fn the_least_is_kept(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "least", json!({"min_agents": 2})).await;
    let one = crew.exec("one", "echo '{}'").await;
    // The second one comes by the rule.
    let (_, added) = crew
        .record
        .until("another one is added", |_, event| {
            event["type"] == "swarm.agent.added.v1" && event["subject"] != one.as_str()
        })
        .await;
    let two = added["subject"].as_str().expect("an agent").to_owned();
    crew.idle(&one).await;
    crew.idle(&two).await;
    crew.until_status("active").await;
    crew.refused("/scale", json!({"desired": 1}), "min_agents")
        .await;
    // One that is taken out is replaced.
    crew.delete(&one, "").await;
    let (_, third) = crew
        .record
        .until("a third one is added", |_, event| {
            event["type"] == "swarm.agent.added.v1"
                && event["subject"] != one.as_str()
                && event["subject"] != two.as_str()
        })
        .await;
    crew.idle(third["subject"].as_str().expect("an agent"))
        .await;
}

/// A place that is kept for an agent which somebody starts.
async fn by_hand(swarm: &Installation) {
    let crew = Crew::of(swarm, "hand", json!({})).await;
    let place = crew
        .add(json!({"agent_type": "exec", "agent_name": "by-hand"}))
        .await;
    let shown = crew.in_status(&place, "pending").await;
    assert!(shown["pid"].is_null(), "{shown}");
    let work = script(swarm.dir(), "hand.sh", "#!/bin/sh\necho '{}'\n");
    let mut agent = Agent::start(swarm, &crew.id, "by-hand", &["--id", &place], &work);
    crew.in_status(&place, "idle").await;
    // No host can start it anew.
    let problem = crew
        .refused(&format!("/agents/{place}/restart"), json!({}), "restart")
        .await;
    assert!(
        problem.to_string().contains("itself") || problem["cure"].is_string(),
        "{problem}"
    );
    // Taken out, it goes by itself.
    crew.delete(&place, "").await;
    agent.wait().await;
    crew.in_status(&place, "stopped").await;
}
