//! kill -9 of each service in turn under load: every task ends exactly once.

use serde_json::{Value, json};

use crate::support::{
    Agent, Installation, PATIENCE, WORK, assert_each_completed_once, completions, eventually, kill,
    runs, script, submit,
};

#[tokio::test(flavor = "multi_thread")]
async fn killing_each_service_in_turn_under_load_loses_and_doubles_nothing() {
    const SERVICES: [&str; 6] = [
        "distributor",
        "coordinator",
        "health",
        "projector",
        "gateway",
        "agent-host",
    ];
    const TASKS: usize = 400;
    /// Completions between two kills.
    const STEP: usize = 20;
    let swarm = Installation::start().await;
    let id = swarm.swarm("kills", json!({})).await;
    let work = script(swarm.dir(), "work.sh", WORK);
    let _agents: Vec<Agent> = (0..3)
        .map(|n| Agent::start(&swarm, &id, &format!("a{n}"), &[], &work))
        .collect();
    swarm.until_idle(&id, 3).await;

    let load = submit(&swarm, &id, 0, TASKS);
    let trouble = async {
        let mut completed = 0;
        for service in SERVICES {
            // Tasks have completed since the last kill, and others are still to come: each kill hits a busy service.
            let goal = completed + STEP;
            completed = eventually("tasks complete", PATIENCE, || async {
                let completed = completions(&swarm, &id).await;
                (completed >= goal).then_some(completed)
            })
            .await;
            assert!(completed < TASKS, "{service}: the load was over too soon");
            swarm.kill_service(service).await;
        }
    };
    tokio::join!(load, trouble);

    assert_each_completed_once(&swarm, &id, TASKS).await;
    swarm.until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agents_task_is_done_by_another() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("agent", json!({})).await;
    let go = swarm.dir().join("go");
    let text = format!(
        "#!/bin/sh\nwhile ! test -e {}; do sleep 0.05; done\necho done\n",
        go.display()
    );
    let work = script(swarm.dir(), "work.sh", &text);
    let victim = Agent::start(&swarm, &id, "victim", &[], &work);
    swarm.until_idle(&id, 1).await;
    let task = swarm
        .post(
            &format!("/v1/swarms/{id}/tasks"),
            &json!({"task_type": "t", "payload": {}}),
        )
        .await;
    let task = task["id"].as_str().expect("an id").to_owned();
    let on = |status: &'static str, agent: Option<Value>| {
        let (swarm, task) = (&swarm, &task);
        eventually("the task runs", PATIENCE, move || {
            let agent = agent.clone();
            async move {
                let shown = swarm.get(&format!("/v1/tasks/{task}")).await;
                let other = agent.is_none_or(|agent| shown["assigned_agent_id"] != agent);
                (shown["status"] == status && other).then_some(shown)
            }
        })
    };
    let first = on("running", None).await["assigned_agent_id"].clone();
    kill(victim.pid(), rustix::process::Signal::KILL);
    let _heir = Agent::start(&swarm, &id, "heir", &[], &work);
    let second = on("running", Some(first)).await;
    assert_eq!(
        second["attempt_count"], 2,
        "it had started, so it counts: {second}"
    );
    std::fs::write(&go, "").expect("written");
    let tasks = swarm.until_ended(&id, 1, PATIENCE).await;
    assert_eq!(tasks[0]["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_leaves_no_orphans_and_can_be_started_again() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("orphans", json!({})).await;
    let status = swarm.cli_json(&["status"]).await;
    let supervisor =
        u32::try_from(status["supervisor_pid"].as_u64().expect("runs")).expect("a process id");
    let pids: Vec<u32> = status["services"]
        .as_array()
        .expect("services")
        .iter()
        .map(|service| u32::try_from(service["pid"].as_u64().expect("runs")).expect("a process id"))
        .collect();
    assert_eq!(pids.len(), 8, "six services and two servers: {status}");
    kill(supervisor, rustix::process::Signal::KILL);
    eventually("every child has ended", PATIENCE, || async {
        (!pids.iter().any(|pid| runs(*pid))).then_some(())
    })
    .await;
    let up = swarm
        .cli(&["up", "--detach", "--any-ports", "--durability", "speed"])
        .await;
    assert!(up.status.success(), "{}", crate::support::said(&up));
    // The log is the truth: the swarm is still there, and the key still holds.
    let shown = swarm.cli_json(&["show", &id]).await;
    assert_eq!(shown["name"], "orphans");
}
