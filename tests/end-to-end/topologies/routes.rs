//! Who gets which task, by each of the four.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{edges, node, refused, seated, shaped};
use crate::support::{Assignment, Installation, Record, Team};

/// Work that takes a moment.
fn work(task_type: &str) -> Value {
    json!({"task_type": task_type, "payload": {"work_ms": 10}})
}

/// The hub takes what asks for a hub, workers the rest, up to the most workers.
pub async fn star(swarm: &Installation) {
    let options = json!({"max_workers": 2});
    let id = shaped(swarm, "star", "star", options, json!({})).await;
    let team = Team::of(swarm, &id).await;
    let mut workers = Vec::new();
    for name in ["one", "two", "three"] {
        workers.push(team.join(swarm, name, |agent| agent).await);
    }
    let hub = team
        .join(swarm, "hub", |agent| agent.agent_type("coordinator"))
        .await;
    let mut record = Record::of(swarm, &id).await;
    // The first one had been drafted as a hub; the one made for it takes its place.
    record
        .until("the hub has its place", |_, event| {
            event["type"] == "swarm.agent.seated.v1"
                && event["subject"] == hub
                && event["data"]["seat"]["role"] == "coordinator"
        })
        .await;
    let shape = seated(swarm, &id, 4).await;
    assert_eq!(node(&shape, &hub)["works"], false, "{shape}");
    assert_eq!(
        node(&shape, &workers[2])["works"],
        false,
        "beyond max_workers: {shape}"
    );
    for (a, b) in edges(&shape) {
        assert!(a == hub || b == hub, "{a} and {b} are no hub: {shape}");
    }
    assert_eq!(edges(&shape).len(), 3, "{shape}");

    let mut tasks = BTreeSet::new();
    for _ in 0..12 {
        tasks.insert(swarm.task(&id, work("common")).await);
    }
    let mut judge = work("judge");
    judge["required_role"] = "coordinator".into();
    let judged = swarm.task(&id, judge).await;
    record.until_count("completed", 13).await;
    for event in record.all("assigned") {
        let assigned = Assignment::read(event);
        if assigned.task == judged {
            assert_eq!(assigned.agent, hub);
            continue;
        }
        assert!(workers[..2].contains(&assigned.agent), "{assigned:?}");
    }
}

/// Work goes over to neighbours only.
pub async fn mesh(swarm: &Installation) {
    let options = json!({"connections": [["A", "B"], ["C", "D"]], "gossip_interval_ms": 100});
    let configuration = json!({"agent_waiting": 1, "distribution_algorithm": "round_robin"});
    let id = shaped(swarm, "mesh", "mesh", options, configuration).await;
    let team = Team::of(swarm, &id).await;
    let mut agents = Vec::new();
    for name in ["A", "B", "C", "D"] {
        agents.push(team.join(swarm, name, |agent| agent).await);
    }
    let shape = seated(swarm, &id, 4).await;
    let pair = |a: usize, b: usize| {
        let (a, b) = (agents[a].clone(), agents[b].clone());
        if a < b { (a, b) } else { (b, a) }
    };
    let mut wanted = vec![pair(0, 1), pair(2, 3)];
    wanted.sort();
    assert_eq!(edges(&shape), wanted, "{shape}");

    // Each runs one and has one waiting. Each is held up under the name of where it is.
    let mut record = Record::of(swarm, &id).await;
    for n in 0..8 {
        let task = json!({"task_type": "t", "payload": {"hold": format!("task {n}")}});
        swarm.task(&id, task).await;
    }
    record.until_count("started", 4).await;
    record.until_count("assigned", 8).await;
    let running: BTreeSet<String> = subjects(&record, "started");
    let held = |record: &Record, agent: &str, runs: bool| -> usize {
        let of = record.all("assigned").into_iter().position(|event| {
            let assigned = Assignment::read(event);
            assigned.agent == agent && running.contains(&assigned.task) == runs
        });
        of.expect("each has both")
    };
    // C finishes both of its own; D is its only neighbour and goes on with what it has. What waits at A and B is not for C.
    for runs in [true, false] {
        let n = held(&record, &agents[2], runs);
        team.release(&format!("task {n}"));
    }
    // A round later C has taken over from D, and from nobody else.
    let (_, taken) = record
        .until("C takes something over", |_, event| {
            event["data"]["stolen_from"].is_string()
        })
        .await;
    assert_eq!(taken["data"]["stolen_from"], agents[3], "{taken}");
    assert_eq!(
        taken["data"]["candidates"][0]["agent_id"], agents[2],
        "{taken}"
    );
    for n in 0..8 {
        team.release(&format!("task {n}"));
    }
    record.until_count("completed", 8).await;
    for event in record.all("assigned") {
        let assigned = Assignment::read(event);
        let Some(from) = assigned.data["stolen_from"].as_str() else {
            continue;
        };
        let side = |agent: &str| agents.iter().position(|one| one == agent).map(|at| at / 2);
        assert_eq!(
            side(from),
            side(&assigned.agent),
            "no neighbours: {assigned:?}"
        );
    }
}

fn subjects(record: &Record, verb: &str) -> BTreeSet<String> {
    let all = record.all(verb).into_iter();
    all.map(|(_, event)| event["subject"].as_str().expect("a task").to_owned())
        .collect()
}

/// A task is handed down from the top; inner agents that are made for it do nothing else.
pub async fn tree(swarm: &Installation) {
    let options = json!({
        "levels": [
            {"role": "coordinator", "count": 1},
            {"role": "supervisor", "count": 2},
            {"role": "worker", "count": 4},
        ],
        "parent_child_ratio": 2,
    });
    let id = shaped(swarm, "tree", "hierarchical", options, json!({})).await;
    let team = Team::of(swarm, &id).await;
    let top = team
        .join(swarm, "top", |agent| agent.agent_type("coordinator"))
        .await;
    let mut middle = Vec::new();
    for name in ["left", "right"] {
        middle.push(
            team.join(swarm, name, |agent| agent.agent_type("supervisor"))
                .await,
        );
    }
    let mut workers = Vec::new();
    for n in 0..4 {
        workers.push(
            team.join(swarm, &format!("worker-{n}"), |agent| agent)
                .await,
        );
    }
    let shape = seated(swarm, &id, 7).await;
    assert_eq!(node(&shape, &top)["role"], "coordinator", "{shape}");
    assert_eq!(shape["leader_agent_id"], top, "{shape}");
    for supervisor in &middle {
        assert_eq!(node(&shape, supervisor)["parent"], top, "{shape}");
        let children = workers
            .iter()
            .filter(|worker| node(&shape, worker)["parent"] == **supervisor);
        assert_eq!(children.count(), 2, "the ratio is kept: {shape}");
    }
    let mut record = Record::of(swarm, &id).await;
    for _ in 0..24 {
        swarm.task(&id, work("common")).await;
    }
    record.until_count("completed", 24).await;
    let mut by = BTreeSet::new();
    for event in record.all("assigned") {
        let assigned = Assignment::read(event);
        let parent = node(&shape, &assigned.agent)["parent"].clone();
        assert_eq!(assigned.data["path"], json!([top, parent]), "{assigned:?}");
        by.insert(assigned.agent);
    }
    assert!(by.iter().all(|agent| workers.contains(agent)), "{by:?}");
    let dot = swarm.cli(&["topology", "show", &id, "-o", "dot"]).await;
    let dot = String::from_utf8(dot.stdout).expect("UTF-8");
    assert!(
        dot.starts_with("digraph") || dot.starts_with("graph"),
        "{dot}"
    );
    for agent in ["top", "left", "worker-3"] {
        assert!(dot.contains(agent), "{dot}");
    }
}

/// One after another in the order of submission, around the circle, whatever their priorities.
pub async fn ring(swarm: &Installation) {
    let id = shaped(swarm, "ring", "ring", json!({}), json!({})).await;
    let team = Team::of(swarm, &id).await;
    let mut agents = Vec::new();
    for name in ["first", "second", "third"] {
        agents.push(team.join(swarm, name, |agent| agent).await);
    }
    seated(swarm, &id, 3).await;
    let mut record = Record::of(swarm, &id).await;
    let mut submitted = Vec::new();
    for n in 0..9 {
        let mut task = work("t");
        task["priority"] = json!(n % 10 + 1);
        submitted.push(swarm.task(&id, task).await);
    }
    record.until_count("completed", 9).await;
    let order: Vec<Assignment> = record
        .all("assigned")
        .into_iter()
        .map(Assignment::read)
        .collect();
    let tasks: Vec<&String> = order.iter().map(|assigned| &assigned.task).collect();
    assert_eq!(tasks, submitted.iter().collect::<Vec<_>>());
    let mut ended = 0;
    for (turn, assigned) in (1_u64..).zip(&order) {
        assert_eq!(assigned.data["turn"], turn, "{assigned:?}");
        assert_eq!(
            assigned.agent,
            agents[(usize::try_from(turn).expect("small") - 1) % 3],
            "{assigned:?}"
        );
        assert!(assigned.sequence > ended, "two at a time: {assigned:?}");
        ended = record.task("completed", &assigned.task).await.0;
    }
}

/// Options that cannot be are refused by name, and nothing changes.
pub async fn what_cannot_be(swarm: &Installation) {
    let id = shaped(
        swarm,
        "refusals",
        "star",
        json!({}),
        json!({"max_agents": 4}),
    )
    .await;
    let path = format!("/v1/swarms/{id}/topology");
    let before = swarm.get(&path).await;
    let levels = |roles: &[&str]| -> Value {
        roles
            .iter()
            .map(|role| json!({"role": role, "count": 1}))
            .collect()
    };
    for (topology, options, field) in [
        ("star", json!({"coordinator_count": 4}), "coordinator_count"),
        ("star", json!({"hubs": 1}), "hubs"),
        ("mesh", json!({"neighbours": 3}), "neighbours"),
        ("mesh", json!({"routing": "loud"}), "routing"),
        (
            "hierarchical",
            json!({"parent_child_ratio": 0}),
            "parent_child_ratio",
        ),
        (
            "hierarchical",
            json!({"levels": levels(&["coordinator", "king", "worker"])}),
            "levels[1].role",
        ),
        (
            "hierarchical",
            json!({"levels": levels(&["worker", "coordinator"])}),
            "levels[0].role",
        ),
        (
            "hierarchical",
            json!({"levels": levels(&["coordinator", "worker"]), "parents": {"a": "b", "b": "a"}}),
            "parents",
        ),
        ("ring", json!({"token_timeout_ms": 0}), "token_timeout_ms"),
        ("cube", json!({}), "topology"),
    ] {
        let body = json!({"topology": topology, "configuration": options});
        refused(swarm, &path, body, field).await;
    }
    let after = swarm.get(&path).await;
    assert_eq!(after["generation"], before["generation"]);
    // What there is already is no change.
    refused(swarm, &path, json!({"topology": "star"}), "nothing").await;
}
