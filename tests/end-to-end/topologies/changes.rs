//! A topology is changed into each of the others while work comes in and goes out.

use std::collections::BTreeSet;

use serde_json::json;

use super::{seated, shaped};
use crate::support::{Installation, PATIENCE, Record, Team};

/// Every ordered pair of two of them, once.
const CIRCUIT: [&str; 12] = [
    "mesh",
    "star",
    "hierarchical",
    "star",
    "ring",
    "mesh",
    "hierarchical",
    "mesh",
    "ring",
    "hierarchical",
    "ring",
    "star",
];
const AGENTS: usize = 6;
/// Clients that hand in tasks at the same time, and tasks of each: the last change comes before the load ends.
const CLIENTS: usize = 4;
const TASKS_EACH: usize = 45;
const TASKS: usize = CLIENTS * TASKS_EACH;
/// Completions between two changes.
const COMPLETIONS_BETWEEN: usize = 12;

/// Nothing is lost, nothing is done twice.
pub async fn all_pairs(swarm: &Installation) {
    let pairs: BTreeSet<_> = ["star"].iter().chain(&CIRCUIT).zip(&CIRCUIT).collect();
    assert_eq!(pairs.len(), 12, "each pair once");
    let id = shaped(
        swarm,
        "changing",
        "star",
        json!({}),
        json!({"agent_waiting": 2}),
    )
    .await;
    let team = Team::of(swarm, &id).await;
    for n in 0..AGENTS {
        team.join(swarm, &format!("agent-{n}"), |agent| agent).await;
    }
    seated(swarm, &id, AGENTS).await;
    let mut record = Record::of(swarm, &id).await;
    let client = |number: usize| {
        let id = &id;
        async move {
            for n in 0..TASKS_EACH {
                let task = json!({
                    "task_type": "t", "payload": {"work_ms": 10}, "priority": (number + 3 * n) % 10 + 1,
                });
                swarm.task(id, task).await;
            }
        }
    };
    let clients = futures::future::join_all((0..CLIENTS).map(client));
    let changes = async {
        let path = format!("/v1/swarms/{id}/topology");
        for (turn, topology) in (1..).zip(CIRCUIT) {
            record
                .until_count("completed", turn * COMPLETIONS_BETWEEN)
                .await;
            let outcome = swarm.put(&path, &json!({"topology": topology})).await;
            assert_eq!(outcome["topology"], topology, "{outcome}");
            assert_eq!(outcome["generation"], turn + 1, "{outcome}");
            let shape = seated(swarm, &id, AGENTS).await;
            assert_eq!(shape["topology"], topology, "{shape}");
        }
    };
    tokio::join!(clients, changes);
    record.until_count("completed", TASKS).await;
    let tasks = swarm.until_ended(&id, TASKS, PATIENCE).await;
    assert!(
        tasks
            .iter()
            .all(|task| task["status"] == "completed" && task["attempt_count"] == 1),
        "{tasks:?}"
    );
    let runs = team.runs();
    let once: BTreeSet<&String> = runs.iter().map(|(_, task)| task).collect();
    assert_eq!((runs.len(), once.len()), (TASKS, TASKS));
    let changed = |event: &serde_json::Value| event["type"] == "swarm.swarm.topology_changed.v1";
    let changes = record.seen().iter().filter(|(_, event)| changed(event));
    assert_eq!(changes.count(), CIRCUIT.len());
}
