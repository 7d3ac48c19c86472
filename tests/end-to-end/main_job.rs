//! The main job, with the stock API and agents in any language.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::support::{Agent, Events, Installation, PATIENCE, count, query_pairs, script};

const SHELL: &str = r#"#!/bin/sh
# Any program will do: the task comes on stdin, what is printed is the result.
cat > /dev/null
echo '{"by": "sh"}'
"#;

const PYTHON: &str = r#"#!/usr/bin/env python3
import json, sys
task = json.load(sys.stdin)
inputs = task.get("inputs") or {}
print(json.dumps({"by": "python", "n": task["payload"].get("n"), "inputs": sorted(inputs)}))
"#;

/// Fifty tasks: forty-eight of one kind, one that takes the results of three of them, and one after that.
fn graph() -> Value {
    let mut tasks: Vec<Value> = (0..48)
        .map(|n| json!({"key": format!("t{n}"), "task_type": "work", "payload": {"n": n}}))
        .collect();
    let data = |key: &str| json!({"key": key, "dependency_type": "data", "as": key});
    tasks.push(json!({
        "key": "sum", "task_type": "sum", "payload": {}, "required_capabilities": ["python"],
        "depends_on": [data("t0"), data("t1"), data("t47")],
    }));
    tasks.push(json!({
        "key": "last", "task_type": "last", "payload": {}, "depends_on": [{"key": "sum", "dependency_type": "success"}],
    }));
    json!({ "tasks": tasks })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_of_fifty_tasks_is_worked_off_by_agents_in_two_languages() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("main", json!({})).await;
    let sh = script(swarm.dir(), "agent.sh", SHELL);
    let python = script(swarm.dir(), "agent.py", PYTHON);
    let _agents = [
        Agent::start(&swarm, &id, "shell", &["--slots", "2"], &sh),
        Agent::start(&swarm, &id, "snake", &["--capability", "python"], &python),
    ];
    swarm.until_idle(&id, 2).await;
    let mut events = Events::of(&swarm, &id).await;

    let submitted = swarm
        .post(&format!("/v1/swarms/{id}/tasks"), &graph())
        .await;
    let items = submitted["items"]
        .as_array()
        .expect("one answer for each task");
    let ids: BTreeSet<String> = items
        .iter()
        .map(|task| task["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 50);

    // By SSE: each completes once, the last one last.
    let completed = events.until_completed(50, Duration::from_secs(120)).await;
    assert_eq!(completed.iter().cloned().collect::<BTreeSet<_>>(), ids);
    let last = items
        .iter()
        .find(|task| task["key"] == "last")
        .expect("there")["id"]
        .as_str();
    assert_eq!(completed.last().map(String::as_str), last);

    // By the API.
    let tasks = swarm.until_ended(&id, 50, PATIENCE).await;
    assert!(
        tasks.iter().all(|task| task["status"] == "completed"),
        "{tasks:?}"
    );
    assert!(
        tasks.iter().all(|task| task["attempt_count"] == 1),
        "{tasks:?}"
    );
    let sum = tasks
        .iter()
        .find(|task| task["task_type"] == "sum")
        .expect("there");
    assert_eq!(
        sum["result"],
        json!({"by": "python", "n": null, "inputs": ["t0", "t1", "t47"]})
    );
    let by = |name: &str| {
        tasks
            .iter()
            .filter(|task| task["result"]["by"] == name)
            .count()
    };
    assert!(
        by("sh") > 0 && by("python") > 0,
        "both took part: {} and {}",
        by("sh"),
        by("python")
    );

    // By SQL.
    let url = swarm.field("database_url");
    let states = query_pairs(
        url,
        &format!("SELECT id::text, status FROM swarm_tasks WHERE swarm_id = '{id}'"),
    )
    .await;
    assert_eq!(states.len(), 50);
    assert!(states.values().all(|status| status == "completed"));
    let once =
        "SELECT count(*) FROM swarm_events WHERE event_type = 'task_completed' AND swarm_id = ";
    assert_eq!(count(url, &format!("{once}'{id}'")).await, 50);
    let edges = format!("SELECT count(*) FROM task_dependencies WHERE swarm_id = '{id}'");
    assert_eq!(count(url, &edges).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_drains_on_sigterm_and_leaves() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("drain", json!({})).await;
    // The work waits for a file, so that the test decides when it is done.
    let go = swarm.dir().join("go");
    let text = format!(
        "#!/bin/sh\nwhile ! test -e {}; do sleep 0.05; done\necho done\n",
        go.display()
    );
    let slow = script(swarm.dir(), "slow.sh", &text);
    let mut agent = Agent::start(&swarm, &id, "a", &[], &slow);
    swarm.until_idle(&id, 1).await;
    let task = swarm
        .post(
            &format!("/v1/swarms/{id}/tasks"),
            &json!({"task_type": "t", "payload": {}}),
        )
        .await;
    let task = task["id"].as_str().expect("an id").to_owned();
    crate::support::eventually("the task runs", PATIENCE, || async {
        (swarm.get(&format!("/v1/tasks/{task}")).await["status"] == "running").then_some(())
    })
    .await;
    crate::support::kill(agent.pid(), rustix::process::Signal::TERM);
    std::fs::write(&go, "").expect("written");
    assert!(agent.wait().await.success(), "it ended in good order");
    let tasks = swarm.until_ended(&id, 1, PATIENCE).await;
    assert_eq!(tasks[0]["status"], "completed");
    assert_eq!(tasks[0]["result"], json!({"stdout": "done\n"}));
    crate::support::eventually("the agent is shown as stopped", PATIENCE, || async {
        let agents = swarm.get(&format!("/v1/swarms/{id}/agents")).await;
        (agents["items"][0]["status"] == "stopped").then_some(())
    })
    .await;
}
