//! Ends that are no results: failures that travel, dead letters, cancellations that reach processes, limits of time.

use serde_json::{Value, json};

use super::shop::{Shop, until_gone};
use crate::support::{Installation, PATIENCE, Record, Team, eventually, said};

/// Each in a swarm of its own.
pub async fn all(swarm: &Installation) {
    tokio::join!(
        a_failure_travels(swarm),
        parts_of_a_parent(swarm),
        dead_letters(swarm),
        cancelled_processes(swarm),
        limits_of_time(swarm),
        waiting_too_long_at_an_agent(swarm),
    );
}

/// A task that fails takes those with it that needed its result, and each shows how that came; mended, they are retried.
async fn a_failure_travels(swarm: &Installation) {
    let mut shop = Shop::open(swarm, "failure").await;
    let task = |key: &str, kind: &str, after: Value| json!({"key": key, "task_type": kind, "payload": {}, "max_attempts": 1, "depends_on": after});
    let graph = json!({"tasks": [
        task("a", "broken", json!([])),
        task("b", "t", json!([{"key": "a", "dependency_type": "success"}])),
        task("c", "t", json!([{"key": "b", "dependency_type": "data", "as": "b"}])),
        task("d", "t", json!([{"key": "c", "dependency_type": "success"}])),
        task("after", "t", json!([{"key": "a", "dependency_type": "completion"}])),
    ]});
    let made = swarm.post(&shop.path(""), &graph).await;
    let ids: Vec<&str> = made["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|task| task["id"].as_str().expect("an id"))
        .collect();
    let [a, b, c, d, after] = ids[..] else {
        panic!("five tasks: {made}");
    };
    for (task, path) in [(a, &[][..]), (b, &[a]), (c, &[a, b]), (d, &[a, b, c])] {
        let (_, failed) = shop.record.task("failed", task).await;
        let told = failed["data"]["path"].clone();
        let told = if told.is_null() { json!([]) } else { told };
        assert_eq!(told, json!(path), "{failed}");
        let shown = shop.ended(swarm, task, "failed").await;
        assert_eq!(shown["failure_path"], json!(path), "{shown}");
        assert_eq!(shown["because_of"], json!(path.last()), "{shown}");
        // A person can mend the cause; what came of it is not theirs to look at.
        assert_eq!(shown["dead_lettered"], path.is_empty(), "{shown}");
    }
    shop.record.task("completed", after).await;
    let shown = swarm.cli(&["task", "show", d]).await;
    assert!(shown.status.success(), "{}", said(&shown));
    for id in [a, b, c] {
        assert!(said(&shown).contains(id), "{id}: {}", said(&shown));
    }
    let shown = swarm.cli_json(&["task", "show", d]).await;
    assert_eq!(shown["failure_path"], json!([a, b, c]));
    let why = swarm.get(&shop.path(&format!("/{d}/explain"))).await;
    assert_eq!(why["reason"]["kind"], "ended", "{why}");
    assert_eq!(why["reason"]["path"], json!([a, b, c]), "{why}");

    // Mended, all of it lives again by one call.
    std::fs::write(shop.dir.join("mended"), "").expect("written");
    let body = json!({"task_ids": [a, b, c, d]});
    let answer = swarm.post(&shop.path("/retry"), &body).await;
    for item in answer["items"].as_array().expect("a list") {
        assert!(item["status"].is_string(), "{answer}");
    }
    for task in [a, b, c, d] {
        let shown = shop.ended(swarm, task, "completed").await;
        assert_eq!(shown["failure_path"], json!([]), "{shown}");
    }
}

/// A task knows what has become of its parts.
async fn parts_of_a_parent(swarm: &Installation) {
    let mut shop = Shop::open(swarm, "parts").await;
    let parent = json!({"task_type": "family", "payload": {}});
    let parent = swarm.task(&shop.id, parent).await;
    let mut parts = Vec::new();
    for kind in ["t", "hopeless", "t", "family"] {
        let part = json!({"task_type": kind, "payload": {}, "parent_task_id": parent});
        parts.push(swarm.task(&shop.id, part).await);
    }
    for (verb, part) in [
        ("completed", &parts[0]),
        ("failed", &parts[1]),
        ("completed", &parts[2]),
        ("started", &parts[3]),
    ] {
        shop.record.task(verb, part).await;
    }
    let path = shop.path(&format!("/{parent}"));
    let expected = json!({"total": 4, "completed": 2, "failed": 1, "cancelled": 0, "open": 1});
    eventually("it knows of its parts", PATIENCE, || async {
        (swarm.get(&path).await["children"] == expected).then_some(())
    })
    .await;
    // Called off in one call, with an outcome for each.
    let body = json!({"task_ids": [parent, parts[3], parts[0]]});
    let answer = swarm.post(&shop.path("/cancel"), &body).await;
    let items = answer["items"].as_array().expect("a list");
    assert_eq!(items.len(), 3, "{answer}");
    for item in &items[..2] {
        assert_eq!(item["status"], "cancelled", "{answer}");
    }
    assert_eq!(items[2]["id"], parts[0].as_str(), "{answer}");
    assert!(items[2]["problem"]["code"].is_string(), "{answer}");
    let expected = json!({"total": 4, "completed": 2, "failed": 1, "cancelled": 1, "open": 0});
    eventually("it knows of their ends", PATIENCE, || async {
        (swarm.get(&path).await["children"] == expected).then_some(())
    })
    .await;
}

/// Dead letters are listed, inspected with all attempts and errors, retried or put away.
async fn dead_letters(swarm: &Installation) {
    let mut shop = Shop::open(swarm, "letters").await;
    let task = |kind: &str, attempts: u32| json!({"task_type": kind, "payload": {}, "max_attempts": attempts});
    let retried = swarm.task(&shop.id, task("broken", 2)).await;
    let put_away = swarm.task(&shop.id, task("broken", 1)).await;
    let good = swarm.task(&shop.id, task("t", 1)).await;
    for dead in [&retried, &put_away] {
        let (_, failed) = shop.record.task("failed", dead).await;
        assert_eq!(failed["data"]["dead_lettered"], true, "{failed}");
    }
    shop.record.task("completed", &good).await;
    let list = shop.path("?dead_lettered=true");
    let letters = || async {
        let listed = swarm.get(&list).await;
        let ids = listed["items"].as_array().expect("a list").iter();
        ids.map(|task| task["id"].clone()).collect::<Vec<_>>()
    };
    eventually("both are listed", PATIENCE, || async {
        (letters().await == [json!(retried), json!(put_away)]).then_some(())
    })
    .await;

    // Every attempt with its error, the newest first.
    let shown = swarm.get(&shop.path(&format!("/{retried}"))).await;
    let attempts = shown["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 2, "{shown}");
    for (attempt, number) in attempts.iter().zip([2, 1]) {
        assert_eq!(
            (
                &attempt["number"],
                &attempt["generation"],
                &attempt["outcome"]
            ),
            (&json!(number), &json!(1), &json!("failed")),
            "{shown}"
        );
        let error = attempt["error"].as_str().expect("an error");
        let words = format!("exited with code 3: attempt {number} met a broken machine");
        assert!(error.ends_with(&words), "{error}");
        assert!(attempt["started_at"].is_string() && attempt["ended_at"].is_string());
    }

    // Mended, it is retried; what is unknown is named beside it.
    std::fs::write(shop.dir.join("mended"), "").expect("written");
    let nobody = "0190f7a0-0000-7000-8000-000000000001";
    let body = json!({"task_ids": [nobody, retried]});
    let answer = swarm.post(&shop.path("/retry"), &body).await;
    let items = answer["items"].as_array().expect("a list");
    assert_eq!(items.len(), 2, "{answer}");
    assert_eq!(items[0]["id"], nobody, "{answer}");
    assert!(items[0]["problem"]["code"].is_string(), "{answer}");
    assert_eq!(items[1]["id"], retried.as_str(), "{answer}");
    assert!(items[1]["status"].is_string(), "{answer}");
    shop.record.task("completed", &retried).await;
    let shown = shop.ended(swarm, &retried, "completed").await;
    assert_eq!(shown["generation"], 2, "{shown}");
    assert_eq!(shown["dead_lettered"], false, "{shown}");
    let attempts = shown["attempts"].as_array().expect("a list");
    let told: Vec<(&Value, &Value)> = attempts
        .iter()
        .map(|one| (&one["generation"], &one["outcome"]))
        .collect();
    let (done, failed) = (json!("completed"), json!("failed"));
    assert_eq!(
        told,
        [
            (&json!(2), &done),
            (&json!(1), &failed),
            (&json!(1), &failed)
        ]
    );

    // The other is put away: it stays failed and cannot be retried any more.
    let answer = swarm.cli_json(&["task", "discard", &put_away]).await;
    assert_eq!(
        (&answer["id"], &answer["status"]),
        (&json!(put_away), &json!("failed")),
        "{answer}"
    );
    shop.record.task("discarded", &put_away).await;
    eventually("no dead letter is left", PATIENCE, || async {
        letters().await.is_empty().then_some(())
    })
    .await;
    let shown = swarm.get(&shop.path(&format!("/{put_away}"))).await;
    assert_eq!(
        (
            &shown["status"],
            &shown["dead_lettered"],
            &shown["discarded"]
        ),
        (&json!("failed"), &json!(false), &json!(true)),
        "{shown}"
    );
    let again = swarm
        .ask(
            reqwest::Method::POST,
            &shop.path(&format!("/{put_away}/retry")),
            Some(&json!({})),
        )
        .await
        .expect("answers");
    assert_eq!(
        (again.status, &again.body["code"]),
        (409, &json!("not-retryable")),
        "{again:?}"
    );
}

/// A cancelled task's processes go, children included; a graph is called off by one call.
async fn cancelled_processes(swarm: &Installation) {
    let mut shop = Shop::open(swarm, "cancelled").await;
    let family = json!({"task_type": "family", "payload": {}});
    let one = swarm.task(&shop.id, family.clone()).await;
    let pids = shop.family(&one).await;
    let path = shop.path(&format!("/{one}/cancel"));
    let answer = swarm.post(&path, &json!({"reason": "not wanted"})).await;
    assert_eq!(answer["status"], "cancelled", "{answer}");
    until_gone(&pids).await;
    let (_, withdrawn) = shop.record.task("withdrawn", &one).await;
    assert_eq!(
        (&withdrawn["data"]["reason"], &withdrawn["data"]["force"]),
        (&json!("cancelled"), &json!(true)),
        "{withdrawn}"
    );
    let (_, cancelled) = shop.record.task("cancelled", &one).await;
    assert_eq!(cancelled["data"]["reason"], "not wanted");

    let mut tasks = vec![family.clone(), family];
    for (n, task) in tasks.iter_mut().enumerate() {
        task["key"] = json!(format!("f{n}"));
    }
    for n in 0..6 {
        let after = json!([{"key": "f0"}, {"key": "f1"}]);
        tasks.push(
            json!({"key": format!("w{n}"), "task_type": "t", "payload": {}, "depends_on": after}),
        );
    }
    let made = swarm.post(&shop.path(""), &json!({ "tasks": tasks })).await;
    let graph = made["graph_id"].as_str().expect("a graph").to_owned();
    let ids: Vec<&str> = made["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|task| task["id"].as_str().expect("an id"))
        .collect();
    let mut pids = shop.family(ids[0]).await;
    pids.extend(shop.family(ids[1]).await);
    let call = json!({"graph_id": graph, "reason": "the whole of it"});
    let answer = swarm.post(&shop.path("/cancel"), &call).await;
    assert_eq!(
        (&answer["graph_id"], &answer["tasks"]),
        (&json!(graph), &json!(8)),
        "{answer}"
    );
    let (_, event) = shop.record.task("graph_cancelled", &graph).await;
    assert_eq!(event["data"]["tasks"], 8, "{event}");
    for id in &ids {
        let (_, cancelled) = shop.record.task("cancelled", id).await;
        assert_eq!(cancelled["data"]["reason"], "the whole of it");
    }
    until_gone(&pids).await;
    let list = shop.path(&format!("?graph_id={graph}&status=cancelled"));
    eventually("all are shown as cancelled", PATIENCE, || async {
        let listed = swarm.get(&list).await;
        (listed["items"].as_array()?.len() == 8).then_some(())
    })
    .await;
    let again = swarm
        .ask(
            reqwest::Method::POST,
            &shop.path("/cancel"),
            Some(&json!({ "graph_id": graph })),
        )
        .await
        .expect("answers");
    assert_eq!(
        (again.status, &again.body["code"], &again.body["field"]),
        (409, &json!("graph-ended"), &json!("graph_id")),
        "{again:?}"
    );
    // The agent is not the worse for it.
    let next = swarm
        .task(&shop.id, json!({"task_type": "t", "payload": {}}))
        .await;
    shop.record.task("completed", &next).await;
}

/// A wait that is too long, silence that is too long, and an error that no other attempt cures.
async fn limits_of_time(swarm: &Installation) {
    let mut shop = Shop::open(swarm, "times").await;
    let nobody = json!({
        "task_type": "t", "payload": {}, "required_capabilities": ["nobody-has-this"], "queue_timeout_ms": 200,
    });
    let never = swarm.task(&shop.id, nobody).await;
    let silent = json!({"task_type": "family", "payload": {}, "progress_timeout_ms": 1_500, "max_attempts": 1});
    let silent = swarm.task(&shop.id, silent).await;
    let pids = shop.family(&silent).await;
    let chatty = json!({"task_type": "chatty", "payload": {}, "progress_timeout_ms": 1_500, "max_attempts": 1});
    let chatty = swarm.task(&shop.id, chatty).await;
    let hopeless = json!({"task_type": "hopeless", "payload": {}, "max_attempts": 5});
    let hopeless = swarm.task(&shop.id, hopeless).await;

    let (_, failed) = shop.record.task("failed", &never).await;
    let told = &failed["data"];
    assert_eq!(
        (&told["error"], &told["dead_lettered"], &told["attempts"]),
        (
            &json!("it waited longer than its queue_timeout_ms"),
            &json!(true),
            &json!(0)
        ),
        "{failed}"
    );

    let (_, withdrawn) = shop.record.task("withdrawn", &silent).await;
    let told = &withdrawn["data"];
    assert_eq!(
        (&told["reason"], &told["force"], &told["then"]),
        (&json!("no_progress"), &json!(true), &json!("end")),
        "{withdrawn}"
    );
    let (_, failed) = shop.record.task("failed", &silent).await;
    assert_eq!(failed["data"]["dead_lettered"], true, "{failed}");
    let why = failed["data"]["error"].as_str().expect("an error");
    assert!(why.contains("progress"), "{why}");
    until_gone(&pids).await;
    let shown = shop.ended(swarm, &silent, "failed").await;
    assert_eq!(
        shown["attempts"][0]["outcome"], "withdrawn:no_progress",
        "{shown}"
    );

    let (_, failed) = shop.record.task("failed", &hopeless).await;
    assert_eq!(
        (
            &failed["data"]["attempts"],
            &failed["data"]["dead_lettered"]
        ),
        (&json!(1), &json!(true)),
        "{failed}"
    );
    let shown = shop.ended(swarm, &hopeless, "failed").await;
    let attempts = shown["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 1, "{shown}");
    assert_eq!(attempts[0]["retryable"], false, "{shown}");
    let error = attempts[0]["error"].as_str().expect("an error");
    assert!(error.contains("there is no such user"), "{error}");

    // Two seconds of work under a limit of one and a half: what tells of its progress is let be.
    shop.record.task("completed", &chatty).await;
    let told = shop.record.all("progressed");
    assert!(told.iter().any(|(_, event)| event["subject"] == chatty));
    assert!(
        !shop
            .record
            .all("withdrawn")
            .iter()
            .any(|(_, event)| event["subject"] == chatty)
    );
}

/// The limit of the wait counts to the start, not to the assignment.
async fn waiting_too_long_at_an_agent(swarm: &Installation) {
    let configuration = json!({"agent_slots": 1, "agent_waiting": 1});
    let id = swarm.swarm("patience", configuration).await;
    let (team, mut record) = (Team::of(swarm, &id).await, Record::of(swarm, &id).await);
    team.join(swarm, "A", |agent| agent).await;
    let held = json!({"task_type": "t", "payload": {"hold": "it"}});
    let first = swarm.task(&id, held.clone()).await;
    record.task("started", &first).await;
    let mut second = held;
    second["queue_timeout_ms"] = json!(1_000);
    let second = swarm.task(&id, second).await;
    record.assigned(&second).await;
    let (_, withdrawn) = record.task("withdrawn", &second).await;
    let told = &withdrawn["data"];
    assert_eq!(
        (&told["reason"], &told["force"], &told["then"]),
        (&json!("queue_timeout"), &json!(false), &json!("end")),
        "{withdrawn}"
    );
    let (_, failed) = record.task("failed", &second).await;
    assert_eq!(
        failed["data"]["error"], "it waited longer than its queue_timeout_ms",
        "{failed}"
    );
    // It never ran, and what did is not touched.
    team.release("it");
    record.task("completed", &first).await;
    let runs: Vec<String> = team.runs().into_iter().map(|(_, task)| task).collect();
    assert_eq!(runs, [first]);
}
