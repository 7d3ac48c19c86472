//! A topology is changed into each of the others while work comes in and goes out.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use tokio::sync::watch;

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
/// Clients that hand in tasks at the same time, as long as there are changes to come.
const CLIENTS: usize = 4;
/// How often each of them does: together about as many as a ring gets done.
const PACE: Duration = Duration::from_millis(40);
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
    let (stop, stopped) = watch::channel(false);
    let client = |number: usize| {
        let (id, mut stopped) = (&id, stopped.clone());
        async move {
            let mut pace = tokio::time::interval(PACE);
            let mut count = 0;
            while !*stopped.borrow_and_update() {
                let task = json!({
                    "task_type": "t", "payload": {"work_ms": 10}, "priority": (number + 3 * count) % 10 + 1,
                });
                swarm.task(id, task).await;
                count += 1;
                pace.tick().await;
            }
            count
        }
    };
    let clients = futures::future::join_all((0..CLIENTS).map(client));
    let changes = async {
        let path = format!("/v1/swarms/{id}/topology");
        for (turn, topology) in (1..).zip(CIRCUIT) {
            let completed = record.all("completed").len();
            let wanted = completed + COMPLETIONS_BETWEEN;
            record.until_count("completed", wanted).await;
            let outcome = swarm.put(&path, &json!({"topology": topology})).await;
            assert_eq!(outcome["topology"], topology, "{outcome}");
            assert_eq!(outcome["generation"], turn + 1, "{outcome}");
            let shape = seated(swarm, &id, AGENTS).await;
            assert_eq!(shape["topology"], topology, "{shape}");
            let what = format!("change {turn}");
            let found =
                |_, event: &Value| is_change(event) && event["data"]["generation"] == turn + 1;
            record.until(&what, found).await;
        }
        stop.send_replace(true);
    };
    let (counts, ()) = tokio::join!(clients, changes);
    let total: usize = counts.iter().sum();
    record.until_count("completed", total).await;
    let tasks = swarm.until_ended(&id, total, PATIENCE).await;
    assert!(
        tasks
            .iter()
            .all(|task| task["status"] == "completed" && task["attempt_count"] == 1),
        "{tasks:?}"
    );
    let runs = team.runs();
    let once: BTreeSet<&String> = runs.iter().map(|(_, task)| task).collect();
    assert_eq!((runs.len(), once.len()), (total, total));
    let changes = record.seen().iter().filter(|(_, event)| is_change(event));
    assert_eq!(changes.count(), CIRCUIT.len());
}

fn is_change(event: &Value) -> bool {
    event["type"] == "swarm.swarm.topology_changed.v1"
}
