//! A life as it should be: added, started, at work, killed and back, changed, restarted, drained, gone.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::crew::{Crew, until_gone};
use crate::support::{Installation, PATIENCE, eventually, kill, runs, said};

/// Each in a swarm of its own.
pub async fn all(swarm: &Installation) {
    tokio::join!(
        from_the_first_to_the_last_day(swarm),
        a_hanging_agent(swarm),
        what_it_writes(swarm),
        changes_while_it_runs(swarm),
        one_identity(swarm),
    );
}

async fn from_the_first_to_the_last_day(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "life", json!({})).await;
    let agent = crew
        .exec("worker", "read -r task; echo '{\"ok\":true}'")
        .await;
    let first = crew.idle(&agent).await;
    assert!(runs(first));
    let shown = crew.in_status(&agent, "idle").await;
    assert_eq!(
        (&shown["adapter"], &shown["spawn"], &shown["restarts"]),
        (&json!("exec"), &json!(1), &json!(0)),
        "{shown}"
    );
    assert!(
        shown["host"].is_string() || shown["host"].is_object(),
        "{shown}"
    );
    let task = crew.task(json!({})).await;
    crew.record.task("completed", &task).await;
    crew.until_status("active").await;

    // Killed, it is back as another process, and the log says how the first one ended.
    let before = crew.record.seen().last().map_or(0, |(at, _)| *at);
    kill(first, Signal::KILL);
    let (at, exited) = crew.record.agent_after(before, "exited", &agent).await;
    assert_eq!(exited["data"]["exit"]["signal"], 9, "{exited}");
    let (_, failed) = crew.record.agent_after(at, "failed", &agent).await;
    assert_eq!(failed["data"]["evidence"]["rule"], "exited", "{failed}");
    let (at, joined) = crew.record.agent_after(at, "joined", &agent).await;
    assert_eq!(joined["data"]["incarnation"], 2, "{joined}");
    let second = crew.idle(&agent).await;
    assert_ne!(first, second);
    let shown = crew.in_status(&agent, "idle").await;
    assert_eq!(shown["restarts"], 1, "{shown}");
    assert_eq!(shown["last_exit"]["signal"], 9, "{shown}");

    // Restarted by order, it finishes what it has first.
    let body = json!({"reason": "new settings"});
    let path = crew.path(&format!("/agents/{agent}/restart"));
    swarm.post(&path, &body).await;
    let (at, stopping) = crew.record.agent_after(at, "stopping", &agent).await;
    assert_eq!(stopping["data"]["then"], "restart", "{stopping}");
    let (at, left) = crew.record.agent_after(at, "left", &agent).await;
    assert_eq!(left["data"]["incarnation"], 2, "{left}");
    let (_, joined) = crew.record.agent_after(at, "joined", &agent).await;
    assert_eq!(joined["data"]["incarnation"], 3, "{joined}");
    until_gone(&[first, second]).await;
    let third = crew.idle(&agent).await;

    // Taken out while it works: the task ends well, then the process does.
    let slow = crew
        .exec("slow", "read -r task; sleep 1; echo '{\"slow\":true}'")
        .await;
    crew.idle(&slow).await;
    crew.delete(&agent, "").await;
    crew.in_status(&agent, "stopped").await;
    until_gone(&[third]).await;
    let task = crew.task(json!({})).await;
    crew.record.task("started", &task).await;
    let shown = crew.delete(&slow, "").await;
    assert!(shown["draining"].is_object(), "{shown}");
    let (_, completed) = crew.record.task("completed", &task).await;
    assert_eq!(
        completed["data"]["result"]["inline"]["slow"], true,
        "{completed}"
    );
    crew.in_status(&slow, "stopped").await;

    // By force, its task goes to another at once.
    let stuck = crew.exec("stuck", "sleep 1000").await;
    let process = crew.idle(&stuck).await;
    let task = crew.task(json!({})).await;
    let (at, _) = crew.record.task("started", &task).await;
    crew.delete(&stuck, "?force=true").await;
    let helper = crew.exec("helper", "echo '{\"helped\":true}'").await;
    let (_, completed) = crew.record.task_after(at, "completed", &task).await;
    assert_eq!(
        completed["source"],
        format!("/swarm/agent/{helper}"),
        "{completed}"
    );
    until_gone(&[process]).await;
}

/// A process that hangs is silent; its work goes on elsewhere, and it is replaced.
async fn a_hanging_agent(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "hang", json!({"heartbeat_interval_ms": 250})).await;
    let agent = crew.exec("hangs", "sleep 0.2; echo '{}'").await;
    let process = crew.idle(&agent).await;
    kill(process, Signal::STOP);
    let (at, suspected) = crew.record.agent("suspected", &agent).await;
    assert_eq!(
        suspected["data"]["evidence"]["rule"], "silence",
        "{suspected}"
    );
    let task = crew.task(json!({})).await;
    let (at, failed) = crew.record.agent_after(at, "failed", &agent).await;
    let evidence = &failed["data"]["evidence"];
    assert!(
        evidence["age_ms"].as_u64() > evidence["limit_ms"].as_u64(),
        "{failed}"
    );
    crew.record.agent_after(at, "joined", &agent).await;
    crew.record.task("completed", &task).await;
    until_gone(&[process]).await;
}

/// What an agent's process writes is kept for a while, in bounds.
async fn what_it_writes(swarm: &Installation) {
    let crew = Crew::of(swarm, "words", json!({})).await;
    let script = "echo first word; echo second word >&2; n=0; while [ $n -lt 20000 ]; do echo flood $n; n=$((n+1)); done; exec sleep 1000";
    let agent = crew.process("talker", script, json!("never")).await;
    let path = crew.path(&format!("/agents/{agent}/logs?lines=10"));
    let kept = eventually("the end of the flood is kept", PATIENCE, || async {
        let (status, kept) = swarm.request(reqwest::Method::GET, &path, None).await?;
        let last = |kept: &Value| {
            kept["items"].as_array()?.last()?["text"]
                .as_str()
                .map(str::to_owned)
        };
        (status == 200 && (last(&kept)?.contains("flood 19999") || kept["dropped"].as_u64()? > 0))
            .then_some(kept)
    })
    .await;
    assert!(
        kept["items"].as_array().expect("a list").len() <= 10,
        "{kept}"
    );
    let printed = swarm.cli(&["agent", "logs", &crew.id, "talker"]).await;
    assert!(printed.status.success(), "{}", said(&printed));
    crew.delete(&agent, "?force=true").await;
    crew.in_status(&agent, "stopped").await;
}

/// Capabilities that change while it runs decide on the next task.
async fn changes_while_it_runs(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "change", json!({})).await;
    let agent = crew.exec("learner", "echo '{}'").await;
    crew.idle(&agent).await;
    let task = json!({"task_type": "work", "payload": {}, "required_capabilities": ["pdf"]});
    let task = swarm.task(&crew.id, task).await;
    let path = crew.path(&format!("/agents/{agent}"));
    let changed = swarm
        .put(&path, &json!({"capabilities": ["pdf", "text"]}))
        .await;
    assert_eq!(changed["capabilities"], json!(["pdf", "text"]), "{changed}");
    crew.record.agent("updated", &agent).await;
    crew.record.task("completed", &task).await;
}

/// Nobody takes the place of an agent that a host runs.
async fn one_identity(swarm: &Installation) {
    let crew = Crew::of(swarm, "identity", json!({})).await;
    let agent = crew.exec("original", "echo '{}'").await;
    let process = crew.idle(&agent).await;
    let second = swarm
        .cli(&[
            "agent", "run", "--swarm", &crew.id, "--id", &agent, "--", "cat",
        ])
        .await;
    assert!(!second.status.success(), "{}", said(&second));
    assert!(
        said(&second).contains("a host starts the processes of this agent"),
        "{}",
        said(&second)
    );
    assert!(runs(process));
    assert_eq!(crew.idle(&agent).await, process);
    // The same name for two is refused by field.
    let body = json!({"agent_type": "exec", "agent_name": "original", "adapter": "exec", "command": ["cat"]});
    crew.refused("/agents", body, "agent_name").await;
}
