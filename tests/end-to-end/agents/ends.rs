//! Processes that do what they should not.

use serde_json::json;

use super::crew::{Crew, until_gone};
use crate::support::{Installation, PATIENCE, eventually, runs, script};

/// Each in a swarm of its own.
pub async fn all(swarm: &Installation) {
    tokio::join!(
        it_crashes_again_and_again(swarm),
        it_does_not_exist(swarm),
        it_ends_well(swarm),
        it_ignores_sigterm(swarm),
        it_leaves_children(swarm),
        it_uses_too_much_memory(swarm),
        it_speaks_no_json(swarm),
        it_outlives_its_task(swarm),
        what_makes_no_sense(swarm),
    );
}

async fn it_crashes_again_and_again(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "crash", json!({})).await;
    let well = crew.exec("well", "echo '{}'").await;
    crew.idle(&well).await;
    let restart = json!({"restart": "always", "backoff_ms": 100, "crash_limit": 3});
    let folder = swarm.dir().join("mended");
    let command = format!(
        "test -e {0} && exec sleep 1000; echo the licence is missing >&2; exit 3",
        folder.display()
    );
    let agent = crew.process("crasher", &command, restart).await;
    let (at, given_up) = crew.record.agent("crash_looping", &agent).await;
    assert_eq!(given_up["data"]["crashes"], 3, "{given_up}");
    assert_eq!(given_up["data"]["exit"]["code"], 3, "{given_up}");
    let shown = crew.in_status(&agent, "unhealthy").await;
    let said = shown.to_string();
    assert!(said.contains("the licence is missing"), "{shown}");
    crew.until_status("degraded").await;
    let (_, exited) = crew.record.agent("exited", &agent).await;
    assert_eq!(
        exited["data"]["last_output"].as_str().map(str::trim),
        Some("the licence is missing"),
        "{exited}"
    );

    // Mended and asked for again, it starts.
    std::fs::write(&folder, "").expect("written");
    swarm
        .post(&crew.path(&format!("/agents/{agent}/restart")), &json!({}))
        .await;
    let (_, process) = crew.launched_after(at, &agent).await;
    eventually("it stays", PATIENCE, || async {
        runs(process).then_some(())
    })
    .await;
    crew.delete(&agent, "?force=true").await;
    until_gone(&[process]).await;
    crew.until_status("active").await;
}

async fn it_does_not_exist(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "missing", json!({})).await;
    let agent = crew
        .add(json!({
            "agent_type": "script", "adapter": "process", "command": ["/no/such/program"],
            "restart": {"restart": "always", "backoff_ms": 100, "crash_limit": 2},
        }))
        .await;
    let (_, exited) = crew.record.agent("exited", &agent).await;
    let error = exited["data"]["exit"]["error"].as_str().expect("an error");
    assert!(error.contains("/no/such/program"), "{exited}");
    crew.record.agent("crash_looping", &agent).await;
    crew.in_status(&agent, "unhealthy").await;
    crew.delete(&agent, "").await;
    crew.in_status(&agent, "stopped").await;
}

async fn it_ends_well(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "ends", json!({})).await;
    let agent = crew.process("once", "exit 0", json!("on_failure")).await;
    let (_, exited) = crew.record.agent("exited", &agent).await;
    assert_eq!(exited["data"]["exit"]["code"], 0, "{exited}");
    let shown = crew.in_status(&agent, "stopped").await;
    assert_eq!(shown["spawn"], 1, "it was started once: {shown}");
}

async fn it_ignores_sigterm(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "deaf", json!({})).await;
    // A process that runs is not one that has its trap yet: it says so by a file.
    let ready = swarm.dir().join("deaf");
    let deaf = format!(
        "trap '' TERM; echo > {}; while :; do sleep 0.1; done",
        ready.display()
    );
    let agent = crew.process("deaf", &deaf, json!("always")).await;
    let (at, process) = crew.launched_after(0, &agent).await;
    eventually("it has set its trap", PATIENCE, || async {
        ready.exists().then_some(())
    })
    .await;
    crew.delete(&agent, "?grace_ms=300").await;
    let (_, exited) = crew.record.agent_after(at, "exited", &agent).await;
    assert_eq!(exited["data"]["exit"]["signal"], 9, "{exited}");
    crew.in_status(&agent, "stopped").await;
    until_gone(&[process]).await;
}

async fn it_leaves_children(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "parent", json!({})).await;
    let file = swarm.dir().join("child");
    let leaves = format!("sleep 1000 & echo $! > {}; exit 0", file.display());
    let agent = crew.process("parent", &leaves, json!("never")).await;
    let (_, exited) = crew.record.agent("exited", &agent).await;
    assert_eq!(exited["data"]["left_behind"], 1, "{exited}");
    let child = std::fs::read_to_string(&file).expect("written");
    until_gone(&[child.trim().parse().expect("a number")]).await;
}

async fn it_uses_too_much_memory(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "memory", json!({"max_attempts": 1})).await;
    // `tail` keeps what it reads of one endless line.
    let agent = crew
        .add(json!({
            "agent_type": "exec", "adapter": "exec", "limits": {"memory_kib": 65_536},
            "command": ["/bin/sh", "-c", "read -r task; head -c 400000000 /dev/zero | tail -c 400000000 | wc -c"],
        }))
        .await;
    crew.idle(&agent).await;
    let (_, launched) = crew.record.agent("launched", &agent).await;
    assert_ne!(launched["data"]["limited_by"], "nothing", "{launched}");
    let task = crew.task(json!({})).await;
    let ended = crew
        .record
        .until("the task does not succeed", |_, event| {
            event["subject"] == task.as_str()
                && ["swarm.task.failed.v1", "swarm.task.completed.v1"]
                    .contains(&event["type"].as_str().unwrap_or_default())
        })
        .await;
    // By rlimit the allocation fails and nothing is counted; by cgroup the process is killed.
    let text = ended.1["data"].to_string();
    assert!(!text.contains("400000000"), "{}", ended.1);
}

async fn it_speaks_no_json(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "text", json!({})).await;
    let agent = crew.exec("text", "echo '{\"half\":'").await;
    crew.idle(&agent).await;
    let task = crew.task(json!({})).await;
    let (_, completed) = crew.record.task("completed", &task).await;
    let result = &completed["data"]["result"]["inline"];
    assert_eq!(
        result["stdout"].as_str().map(str::trim),
        Some("{\"half\":"),
        "{completed}"
    );
}

/// The command is over, a child of it is not.
async fn it_outlives_its_task(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "outlives", json!({})).await;
    let file = swarm.dir().join("orphan");
    let text = format!(
        "#!/bin/sh\nsleep 1000 >/dev/null 2>&1 &\necho $! > {}\necho '{{}}'\n",
        file.display()
    );
    let command = script(swarm.dir(), "outlives.sh", &text);
    let agent = crew
        .add(json!({"agent_type": "exec", "adapter": "exec", "command": [command]}))
        .await;
    crew.idle(&agent).await;
    let task = crew.task(json!({})).await;
    crew.record.task("completed", &task).await;
    let orphan = std::fs::read_to_string(&file).expect("written");
    until_gone(&[orphan.trim().parse().expect("a number")]).await;
}

async fn what_makes_no_sense(swarm: &Installation) {
    let crew = Crew::of(swarm, "nonsense", json!({"max_agents": 3})).await;
    for (body, field) in [
        (json!({"adapter": "exec", "command": ["cat"]}), "agent_type"),
        (json!({"agent_type": "x", "adapter": "exec"}), "command"),
        (json!({"agent_type": "x", "adapter": "magic"}), "adapter"),
        (
            json!({"agent_type": "x", "adapter": "webhook", "url": "ftp://x"}),
            "url",
        ),
        (json!({"agent_type": "x", "adapter": "webhook"}), "url"),
        (
            json!({"agent_type": "x", "adapter": "exec", "command": ["cat"], "count": 0}),
            "count",
        ),
        (
            json!({"agent_type": "x", "adapter": "exec", "command": ["cat"], "count": 1_001}),
            "count",
        ),
        (
            json!({"agent_type": "x", "adapter": "exec", "command": ["cat"], "slots": 0}),
            "slots",
        ),
        (
            json!({"agent_type": "x", "adapter": "exec", "command": ["cat"], "colour": "red"}),
            "colour",
        ),
        (
            json!({"agent_type": "x", "adapter": "exec", "command": ["cat"], "restart": "sometimes"}),
            "restart",
        ),
    ] {
        crew.refused("/agents", body, field).await;
    }
    // Of more than there is room for, each that is too many has its own refusal.
    let body = json!({"agent_type": "x", "adapter": "exec", "command": ["cat"], "count": 4});
    let answer = swarm.post(&crew.path("/agents"), &body).await;
    let items = answer["items"].as_array().expect("a list");
    let refused = items.iter().filter(|item| item["problem"].is_object());
    assert_eq!((items.len(), refused.count()), (4, 1), "{answer}");
    for (body, field) in [
        (json!({}), "desired"),
        (json!({"desired": 1, "delta": 1}), "de"),
        (json!({"desired": -1}), "desired"),
        (json!({"desired": 4}), "max_agents"),
    ] {
        crew.refused("/scale", body, field).await;
    }
}
