//! Outages of the servers below: decisions go on without PostgreSQL, and everything comes back after nats-server.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Installation, PATIENCE, count, eventually, kill, script};

const ECHO: &str = "#!/bin/sh\ncat > /dev/null\necho '{\"ok\": true}'\n";

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_tasks_go_on_and_lists_say_since_when_they_are_stale() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("no-database", json!({})).await;
    let echo = script(swarm.dir(), "echo.sh", ECHO);
    let _agent = Agent::start(&swarm, &id, "a", &[], &echo);
    swarm.until_idle(&id, 1).await;
    let tasks = format!("/v1/swarms/{id}/tasks");

    // Stopped, not killed: the supervisor would start a killed one again at once. Its children hold the connections.
    let postgres = swarm.pid("postgres").expect("runs");
    let children = children(postgres);
    for pid in children.iter().chain([&postgres]) {
        kill(*pid, rustix::process::Signal::STOP);
    }
    let submitted = swarm
        .post(&tasks, &json!({"task_type": "t", "payload": {}}))
        .await;
    let stale = eventually("lists answer 503", PATIENCE, || async {
        let (status, body) = swarm.request(reqwest::Method::GET, &tasks, None).await?;
        (status == 503).then_some(body)
    })
    .await;
    assert!(stale["stale_since"].is_string(), "{stale}");
    let done = eventually("the task completes, by the log", PATIENCE, || async {
        let events = swarm
            .replay(&["--swarm", &id, "--type", "task.completed"])
            .await;
        events
            .into_iter()
            .find(|line| line["event"]["subject"] == submitted["id"])
    })
    .await;
    let health = swarm.get(&format!("/v1/swarms/{id}/health")).await;
    assert_eq!(health["status"], "active", "{health}");

    for pid in children.iter().chain([&postgres]) {
        kill(*pid, rustix::process::Signal::CONT);
    }
    let shown = eventually("the projector catches up", PATIENCE, || async {
        let (status, body) = swarm.request(reqwest::Method::GET, &tasks, None).await?;
        (status == 200 && body["items"][0]["status"] == "completed").then_some(body)
    })
    .await;
    assert_eq!(
        shown["items"].as_array().map(Vec::len),
        Some(1),
        "{shown} {done}"
    );
}

fn children(pid: u32) -> Vec<u32> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_is_started_again_and_the_tables_catch_up() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("killed-database", json!({})).await;
    let echo = script(swarm.dir(), "echo.sh", ECHO);
    let _agent = Agent::start(&swarm, &id, "a", &[], &echo);
    swarm.until_idle(&id, 1).await;
    swarm.kill_service("postgres").await;
    for _ in 0..10 {
        swarm
            .post(
                &format!("/v1/swarms/{id}/tasks"),
                &json!({"task_type": "t", "payload": {}}),
            )
            .await;
    }
    let tasks = swarm.until_ended(&id, 10, PATIENCE).await;
    assert!(
        tasks.iter().all(|task| task["status"] == "completed"),
        "{tasks:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_of_nats_server_everything_reconnects_and_nothing_is_lost_or_doubled() {
    const BEFORE: usize = 40;
    const AFTER: usize = 20;
    // A killed nats-server keeps what it acknowledged only if it was flushed.
    let dir = crate::support::folder();
    std::fs::create_dir(dir.path().join("data")).expect("made");
    std::fs::set_permissions(
        dir.path().join("data"),
        std::os::unix::fs::PermissionsExt::from_mode(0o711),
    )
    .expect("ours");
    let swarm = Installation::start_in(dir, &["--durability", "always"]).await;
    let id = swarm.swarm("nats", json!({})).await;
    let work = script(
        swarm.dir(),
        "work.sh",
        "#!/bin/sh\ncat > /dev/null\nsleep 0.1\necho '{\"ok\": true}'\n",
    );
    let _agents: Vec<Agent> = (0..2)
        .map(|n| Agent::start(&swarm, &id, &format!("a{n}"), &[], &work))
        .collect();
    swarm.until_idle(&id, 2).await;
    let path = format!("/v1/swarms/{id}/tasks");
    let one = json!({"task_type": "t", "payload": {}, "max_attempts": 10});
    for _ in 0..BEFORE {
        swarm.post(&path, &one).await;
    }
    swarm.kill_service("nats-server").await;
    swarm.until_ready().await;
    for _ in 0..AFTER {
        swarm.post(&path, &one).await;
    }
    let tasks = swarm
        .until_ended(&id, BEFORE + AFTER, Duration::from_secs(120))
        .await;
    let other: Vec<&Value> = tasks
        .iter()
        .filter(|task| task["status"] != "completed")
        .collect();
    assert!(other.is_empty(), "{other:?}");
    let once = format!(
        "SELECT count(*) FROM swarm_events WHERE swarm_id = '{id}' AND event_type = 'task_completed'"
    );
    assert_eq!(
        count(swarm.field("database_url"), &once).await,
        (BEFORE + AFTER) as i64
    );
}
