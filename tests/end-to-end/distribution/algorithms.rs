//! Each algorithm shows its rule in the log: who was chosen, among whom, by which scores.

use serde_json::{Value, json};

use crate::support::{Installation, PATIENCE, Record, Team, eventually, said};

/// What one capability that a task does not need adds to an agent's score under `capability_match`.
const SURPLUS: i64 = 10_000_000;

fn held(name: &str) -> Value {
    json!({"task_type": "t", "payload": {"hold": name}})
}

/// A swarm whose agents keep what they are given, so that only the algorithm decides.
async fn by(swarm: &Installation, algorithm: &str) -> (String, Team, Record) {
    let configuration = json!({"distribution_algorithm": algorithm, "stealing": false});
    let id = swarm.swarm(algorithm, configuration).await;
    let (team, record) = (Team::of(swarm, &id).await, Record::of(swarm, &id).await);
    (id, team, record)
}

/// All five, each in a swarm of its own.
pub async fn all(swarm: &Installation) {
    tokio::join!(
        round_robin(swarm),
        capability_match(swarm),
        least_loaded(swarm),
        affinity(swarm),
        priority_queue(swarm),
    );
}

async fn round_robin(swarm: &Installation) {
    let (id, team, mut record) = by(swarm, "round_robin").await;
    let mut agents = Vec::new();
    for name in ["A", "B", "C"] {
        let joined = team.join(swarm, name, |agent| agent.slots(1).waiting(2));
        agents.push(joined.await);
    }
    let (a, b, c) = (&agents[0], &agents[1], &agents[2]);
    let mut tasks = Vec::new();
    for (name, expected) in [("1", a), ("2", b), ("3", c), ("4", a)] {
        let task = swarm.task(&id, held(name)).await;
        let assigned = record.assigned(&task).await;
        assert_eq!(&assigned.agent, expected, "task {name}: {assigned:?}");
        assert_eq!(assigned.algorithm, "round_robin");
        assert_eq!(assigned.candidates.len(), 3, "{assigned:?}");
        tasks.push(task);
    }
    // A has done both of its tasks and is free, and still it is the turn of B, which is not.
    for name in ["1", "4"] {
        team.release(name);
    }
    for task in [&tasks[0], &tasks[3]] {
        record.task("completed", task).await;
    }
    let fifth = swarm.task(&id, held("5")).await;
    let fifth = record.assigned(&fifth).await;
    assert_eq!(&fifth.agent, b, "{fifth:?}");
    let order: Vec<&String> = fifth.candidates.iter().map(|(agent, _)| agent).collect();
    assert_eq!(order, [b, c, a], "the circle");
    // The scores are the numbers of their last turns.
    assert_eq!(fifth.scores(), [2, 3, 4]);
}

async fn capability_match(swarm: &Installation) {
    let (id, team, mut record) = by(swarm, "capability_match").await;
    let mut agents = Vec::new();
    // The one that can most joins first: by joining, or by load, it would get the first task.
    for (name, can) in [
        ("expert", &["gpu", "ocr", "text"][..]),
        ("reader", &["ocr", "text"]),
        ("clerk", &["text"]),
    ] {
        let joined = team.join(swarm, name, |agent| {
            agent.slots(2).waiting(0).capabilities(can.iter().copied())
        });
        agents.push(joined.await);
    }
    let (expert, reader, clerk) = (&agents[0], &agents[1], &agents[2]);
    for (needs, expected, scores) in [
        ("text", clerk, &[0, SURPLUS, 2 * SURPLUS][..]),
        ("text", clerk, &[500, SURPLUS, 2 * SURPLUS]),
        ("text", reader, &[SURPLUS, 2 * SURPLUS]),
        ("gpu", expert, &[2 * SURPLUS]),
    ] {
        let mut task = held("never");
        task["required_capabilities"] = json!([needs]);
        let task = swarm.task(&id, task).await;
        let assigned = record.assigned(&task).await;
        assert_eq!(&assigned.agent, expected, "{assigned:?}");
        assert_eq!(assigned.scores(), scores, "{assigned:?}");
        assert_eq!(assigned.algorithm, "capability_match");
        let lacking = assigned.data["passed_over"]["capability"].as_u64();
        assert_eq!(lacking.unwrap_or(0), if needs == "gpu" { 2 } else { 0 });
    }
}

async fn least_loaded(swarm: &Installation) {
    let (id, team, mut record) = by(swarm, "least_loaded").await;
    let joined = team.join(swarm, "A", |agent| agent.slots(4).waiting(0));
    let a = joined.await;
    let joined = team.join(swarm, "B", |agent| agent.slots(2).waiting(0));
    let b = joined.await;
    // Thousandths of the slots taken; of equals the first to have joined.
    for (expected, scores) in [
        (&a, [0, 0]),
        (&b, [0, 250]),
        (&a, [250, 500]),
        (&a, [500, 500]),
        (&b, [500, 750]),
    ] {
        let task = swarm.task(&id, held("never")).await;
        let assigned = record.assigned(&task).await;
        assert_eq!(&assigned.agent, expected, "{assigned:?}");
        assert_eq!(assigned.scores(), scores, "{assigned:?}");
        assert_eq!(assigned.algorithm, "least_loaded");
    }
}

async fn affinity(swarm: &Installation) {
    let (id, team, mut record) = by(swarm, "affinity").await;
    let mut agents = Vec::new();
    for name in ["A", "B", "C"] {
        let joined = team.join(swarm, name, |agent| agent.slots(2).waiting(0));
        agents.push(joined.await);
    }
    let (a, b, c) = (&agents[0], &agents[1], &agents[2]);
    let mut tasks = Vec::new();
    for (name, key, expected, outcome) in [
        ("1", "x", a, "new"),
        ("2", "y", b, "new"),
        ("3", "x", a, "hit"),
        ("4", "y", b, "hit"),
        // A has no place left: it goes elsewhere, and the key stays at home.
        ("5", "x", c, "miss"),
    ] {
        let mut task = held(name);
        task["affinity_key"] = json!(key);
        let task = swarm.task(&id, task).await;
        let assigned = record.assigned(&task).await;
        assert_eq!(&assigned.agent, expected, "task {name}: {assigned:?}");
        assert_eq!(assigned.data["affinity"], outcome, "task {name}");
        assert_eq!(assigned.algorithm, "affinity");
        tasks.push(task);
    }
    team.release("1");
    record.task("completed", &tasks[0]).await;
    let mut back = held("6");
    back["affinity_key"] = json!("x");
    let back = swarm.task(&id, back).await;
    let back = record.assigned(&back).await;
    assert_eq!((&back.agent, &back.data["affinity"]), (a, &json!("hit")));
    // Without a key the type is the key.
    let typed = json!({"task_type": "ocr", "payload": {}});
    let first = swarm.task(&id, typed.clone()).await;
    record.task("completed", &first).await;
    let first = record.assigned(&first).await;
    let second = swarm.task(&id, typed).await;
    let second = record.assigned(&second).await;
    assert_eq!(first.data["affinity"], "new", "{first:?}");
    assert_eq!(second.data["affinity"], "hit", "{second:?}");
    assert_eq!(first.agent, second.agent);
    // Four hits and a miss; what had no home yet is neither.
    let path = format!("/v1/swarms/{id}/metrics");
    eventually("the hit rate is measured", PATIENCE, || async {
        let figures = swarm.get(&path).await;
        (figures["metrics"]["affinity_hit_rate"] == json!(0.8)).then_some(())
    })
    .await;
}

async fn priority_queue(swarm: &Installation) {
    let (id, team, mut record) = by(swarm, "priority_queue").await;
    let joined = team.join(swarm, "A", |agent| agent.slots(1).waiting(5));
    let a = joined.await;
    let first = swarm.task(&id, held("first")).await;
    let (started, _) = record.task("started", &first).await;
    let second = swarm.task(&id, held("second")).await;
    let third = swarm.task(&id, held("third")).await;
    let mut urgent = held("urgent");
    urgent["priority"] = json!(10);
    let urgent = swarm.task(&id, urgent).await;
    // Five places are free at the agent, and nothing is given to it.
    let agent = format!("/v1/swarms/{id}/agents/{a}");
    let (shown, tasks) = eventually("all are stored", PATIENCE, || async {
        let tasks = swarm.get(&format!("/v1/swarms/{id}/tasks")).await;
        let all = tasks["items"].as_array().expect("a list").clone();
        let shown = swarm.get(&agent).await;
        (all.len() == 4 && shown["running"] == 1).then_some((shown, all))
    })
    .await;
    assert_eq!(shown["queue_depth"], 0, "{shown}");
    assert_eq!(shown["waiting_since"], Value::Null, "{shown}");
    assert_eq!(shown["waiting_limit"], 5, "{shown}");
    let queued = tasks.iter().filter(|task| task["status"] == "queued");
    assert_eq!(queued.count(), 3, "{tasks:?}");
    // So what came last and is urgent gets the next slot.
    team.release("first");
    let next = record.assigned_after(started).await;
    assert_eq!(
        (&next.task, next.algorithm.as_str()),
        (&urgent, "priority_queue")
    );
    record.task("started", &urgent).await;

    // Under another rule the places are used: by a live switch, at once.
    let rule = json!({"configuration": {"distribution_algorithm": "least_loaded"}});
    swarm.put(&format!("/v1/swarms/{id}"), &rule).await;
    for task in [&second, &third] {
        let assigned = record.assigned(task).await;
        assert_eq!(assigned.algorithm, "least_loaded");
    }
    let shown = eventually("two wait at the agent", PATIENCE, || async {
        let shown = swarm.get(&agent).await;
        (shown["queue_depth"] == 2).then_some(shown)
    })
    .await;
    assert!(shown["waiting_since"].is_string(), "{shown}");
    let listed = swarm.cli(&["agent", "list", &id]).await;
    // One runs, and two wait.
    assert!(said(&listed).contains("1/1 +2"), "{}", said(&listed));
    let listed = swarm.cli_json(&["agent", "list", &id]).await;
    let row = &listed["items"][0];
    assert_eq!(
        (&row["queue_depth"], &row["waiting_since"]),
        (&json!(2), &shown["waiting_since"]),
        "{listed}"
    );
}
