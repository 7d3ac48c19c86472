//! The algorithm is changed while work comes in and goes out.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use serde_json::{Value, json};

use crate::support::{Assignment, Installation, PATIENCE, Record, Team, is};

const ALGORITHMS: [&str; 5] = [
    "round_robin",
    "capability_match",
    "least_loaded",
    "affinity",
    "priority_queue",
];
/// Clients that hand in tasks at the same time, and tasks of each.
const CLIENTS: usize = 8;
const TASKS_EACH: usize = 50;
const TASKS: usize = CLIENTS * TASKS_EACH;
/// Completions between two switches: twelve switches, each algorithm twice, end before the load does.
const COMPLETIONS_BETWEEN: usize = 30;
/// Low enough that ageing matters within the run.
const STEP_MS: i64 = 100;

/// Switching between all algorithms under load loses, repeats and reorders nothing.
pub async fn live_switches(swarm: &Installation) {
    let configuration = json!({"distribution_algorithm": "least_loaded", "priority_step_ms": STEP_MS, "agent_waiting": 1});
    let id = swarm.swarm("switched", configuration).await;
    let team = Team::of(swarm, &id).await;
    for name in ["A", "B", "C", "D"] {
        team.join(swarm, name, |agent| agent.slots(2)).await;
    }
    let mut record = Record::of(swarm, &id).await;

    // Eight places of 40 ms each: tasks come faster than they go, so that there is a queue with an order.
    let client = |number: usize| {
        let id = &id;
        async move {
            for n in 0..TASKS_EACH {
                let task = json!({
                    "task_type": "t", "payload": {"work_ms": 40}, "priority": (number + 3 * n) % 10 + 1,
                    "affinity_key": format!("k{}", n % 7),
                });
                swarm.task(id, task).await;
            }
        }
    };
    let clients = futures::future::join_all((0..CLIENTS).map(client));
    let switches = async {
        let turns = ALGORITHMS.iter().cycle().take(2 * ALGORITHMS.len());
        for (turn, algorithm) in (1..).zip(turns) {
            record
                .until_count("completed", turn * COMPLETIONS_BETWEEN)
                .await;
            let rule = json!({"configuration": {"distribution_algorithm": algorithm}});
            let shown = swarm.put(&format!("/v1/swarms/{id}"), &rule).await;
            assert_eq!(shown["configuration"]["distribution_algorithm"], *algorithm);
        }
    };
    tokio::join!(clients, switches);

    // Nothing is lost.
    record.until_count("completed", TASKS).await;
    let tasks = swarm.until_ended(&id, TASKS, PATIENCE).await;
    assert!(
        tasks
            .iter()
            .all(|task| task["status"] == "completed" && task["attempt_count"] == 1),
        "{tasks:?}"
    );
    // Nothing is done twice: by what the agents did, not by what was said of it.
    let runs = team.runs();
    let once: BTreeSet<&String> = runs.iter().map(|(_, task)| task).collect();
    assert_eq!((runs.len(), once.len()), (TASKS, TASKS));
    by_the_rule_of_its_moment(&record);
    in_order(&record);
}

/// Each assignment names the algorithm that was set where it was decided, and each algorithm had its share.
fn by_the_rule_of_its_moment(record: &Record) {
    let mut rules = vec![(0, "least_loaded".to_owned())];
    for (at, event) in record.seen() {
        if event["type"] == "swarm.swarm.updated.v4" {
            let rule = &event["data"]["configuration"]["distribution_algorithm"];
            rules.push((*at, rule.as_str().expect("a rule").to_owned()));
        }
    }
    assert_eq!(
        rules.len(),
        1 + 2 * ALGORITHMS.len(),
        "each switch is an event"
    );
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for event in record.all("assigned") {
        let cause = event.1["causeseq"].as_u64().expect("a decision");
        let rule = rules.iter().rev().find(|(at, _)| *at <= cause);
        let assigned = Assignment::read(event);
        assert_eq!(
            Some(&assigned.algorithm),
            rule.map(|(_, rule)| rule),
            "{assigned:?}"
        );
        *by.entry(assigned.algorithm).or_default() += 1;
    }
    for algorithm in ALGORITHMS {
        let count = by.get(algorithm).copied().unwrap_or(0);
        assert!(count >= COMPLETIONS_BETWEEN / 2, "{algorithm}: {by:?}");
    }
}

/// Each assignment is of the task that came first by rank, of all that were queued where it was decided.
fn in_order(record: &Record) {
    let mut queued_at = BTreeMap::new();
    for event in record.all("assigned") {
        let at = event.1["data"]["queued_at"].as_str().expect("when");
        let at = DateTime::parse_from_rfc3339(at).expect("a time");
        queued_at.insert(subject(&event.1), at.timestamp_micros());
    }
    // Rank and sequence of the submission, and since when it is in the queue.
    let mut queue: BTreeMap<(i64, u64), (String, u64)> = BTreeMap::new();
    let mut ranks = BTreeMap::new();
    let mut started = BTreeSet::new();
    let (mut waited, mut overtaken) = (0, 0);
    for (at, event) in record.seen() {
        let task = subject(event);
        if is(event, "submitted") {
            let priority = event["data"]["priority"].as_i64().expect("a priority");
            let rank = (queued_at[&task] - priority * STEP_MS * 1_000, *at);
            ranks.insert(task.clone(), rank);
            queue.insert(rank, (task, *at));
        } else if is(event, "started") {
            started.insert(event["data"]["assignment"].as_u64());
        } else if is(event, "withdrawn") && !started.contains(&event["data"]["assignment"].as_u64())
        {
            queue.insert(ranks[&task], (task, *at));
        } else if is(event, "assigned") {
            let cause = event["causeseq"].as_u64().expect("a decision");
            let known = || queue.iter().filter(|(_, (_, since))| *since <= cause);
            let first = known().next().expect("it was queued");
            assert_eq!(first.1.0, task, "at {at}: {first:?} was before {task}");
            waited += usize::from(known().count() > 1);
            let rank = *first.0;
            overtaken += usize::from(known().any(|((_, sequence), _)| *sequence < rank.1));
            queue.remove(&rank);
        }
    }
    // Else the order says nothing.
    assert!(waited > TASKS / 4, "a queue had built up {waited} times");
    assert!(overtaken > 0, "priorities were never in play");
}

fn subject(event: &Value) -> String {
    event["subject"].as_str().unwrap_or_default().to_owned()
}
