//! What is refused, and that nothing of it is stored; what is shed.

use reqwest::Method;
use serde_json::{Value, json};
use swarm_events::task::GRAPH_TASKS_MAX;
use uuid::Uuid;

use crate::support::{Answer, Door, Installation, PATIENCE, Record, Team, eventually, said};

/// Each in a swarm of its own.
pub async fn all(swarm: &Installation) {
    tokio::join!(
        refused_by_name(swarm),
        a_full_queue(swarm),
        shed_by_priority(swarm),
    );
}

async fn ask(swarm: &Installation, method: Method, path: &str, body: &Value) -> Answer {
    swarm
        .ask(method, path, Some(body))
        .await
        .expect("the gateway answers")
}

/// Last stream sequence of what is stored of a swarm: commands, answers and events of tasks, but not the measurements, which
/// come by themselves.
async fn last_stored(swarm: &Installation, id: &str) -> u64 {
    let all = swarm.replay(&["--swarm", id]).await;
    let told = all.iter().filter(|line| {
        let kind = line["event"]["type"].as_str().unwrap_or_default();
        !kind.starts_with("swarm.swarm.measured.")
    });
    let last = told.filter_map(|line| line["sequence"].as_u64()).max();
    last.expect("its creation at least")
}

async fn refused_by_name(swarm: &Installation) {
    let id = swarm.swarm("limits", json!({})).await;
    let (own, tasks) = (format!("/v1/swarms/{id}"), format!("/v1/swarms/{id}/tasks"));
    let with = |name: &str, value: Value| {
        let mut task = json!({"task_type": "t", "payload": {}});
        task[name] = value;
        task
    };
    let pair = |edges: Value| {
        json!({"tasks": [
            {"key": "a", "task_type": "t", "payload": {}},
            {"key": "b", "task_type": "t", "payload": {}, "depends_on": edges},
        ]})
    };
    let setting = |name: &str, value: Value| json!({"configuration": {name: value}});
    let before = last_stored(swarm, &id).await;
    let bulk = format!("{tasks}/bulk");
    let mixed = json!({"tasks": [with("priority", json!(3)), with("priority", json!(11))]});
    let named = json!({"tasks": [
        with("priority", json!(3)), with("depends_on", json!([{"task_id": Uuid::now_v7()}])),
    ]});
    for (path, body, field) in [
        (&tasks, with("priority", json!(0)), "priority"),
        (&tasks, with("priority", json!(11)), "priority"),
        (&tasks, with("priority", json!(-1)), "priority"),
        (&tasks, with("timeout_ms", json!(-1)), "timeout_ms"),
        (
            &tasks,
            with("queue_timeout_ms", json!(-1)),
            "queue_timeout_ms",
        ),
        (
            &tasks,
            with("progress_timeout_ms", json!(-5)),
            "progress_timeout_ms",
        ),
        (&tasks, with("max_attempts", json!(0)), "max_attempts"),
        (
            &tasks,
            with("required_capabilities", json!(["ok", "c".repeat(10_000)])),
            "required_capabilities[1]",
        ),
        (
            &tasks,
            pair(json!([{"key": "a", "dependency_type": "maybe"}])),
            "tasks[1].depends_on[0].dependency_type",
        ),
        (
            &tasks,
            pair(json!([{"key": "b"}])),
            "tasks[1].depends_on[0].key",
        ),
        (&bulk, mixed, "tasks[1].priority"),
        (&bulk, named, "tasks[1].depends_on"),
    ] {
        refused(swarm, Method::POST, path, &body, field).await;
    }
    for (body, field) in [
        (
            setting("distribution_algorithm", json!("by_magic")),
            "configuration.distribution_algorithm",
        ),
        (
            setting("priority_step_ms", json!(-1)),
            "configuration.priority_step_ms",
        ),
        (
            setting("queue_timeout_ms", json!(-1)),
            "configuration.queue_timeout_ms",
        ),
        (
            setting("shed_from_percent", json!(101)),
            "configuration.shed_from_percent",
        ),
    ] {
        refused(swarm, Method::PUT, &own, &body, field).await;
    }

    // A cycle is shown, so that whoever made it finds it.
    let task = |key: &str, after: &str| json!({"key": key, "task_type": "t", "payload": {}, "depends_on": [{"key": after}]});
    let cycle = json!({"tasks": [task("a", "c"), task("b", "a"), task("c", "b")]});
    let field = "tasks[1].depends_on[0].key";
    let shown = refused(swarm, Method::POST, &tasks, &cycle, field).await;
    let detail = shown.body["detail"].as_str().expect("in words");
    assert!(detail.contains("a → c → b → a"), "{detail}");

    // One more than a graph may have.
    let many = vec![json!({"task_type": "t", "payload": {}}); GRAPH_TASKS_MAX as usize + 1];
    let many = json!({ "tasks": many });
    for path in [&tasks, &bulk] {
        let shown = refused(swarm, Method::POST, path, &many, "tasks").await;
        let detail = shown.body["detail"].as_str().expect("in words");
        assert!(detail.contains("10001"), "{detail}");
    }

    // The command line names the field, too.
    let wrong = swarm
        .cli(&["task", "submit", &id, "--type", "t", "--priority", "11"])
        .await;
    assert!(!wrong.status.success(), "{}", said(&wrong));
    assert!(said(&wrong).contains("priority"), "{}", said(&wrong));

    assert_eq!(
        last_stored(swarm, &id).await,
        before,
        "something of what was refused is stored"
    );
    let listed = swarm.get(&tasks).await;
    assert_eq!(listed["items"], json!([]));
    let shown = swarm.get(&own).await;
    assert_eq!(
        shown["configuration"]["distribution_algorithm"],
        "least_loaded"
    );
}

async fn refused(
    swarm: &Installation,
    method: Method,
    path: &str,
    body: &Value,
    field: &str,
) -> Answer {
    let answer = ask(swarm, method, path, body).await;
    let said = &answer.body;
    assert_eq!(
        (answer.status, said["field"].as_str()),
        (422, Some(field)),
        "{path}: {said}"
    );
    assert!(said["detail"].is_string(), "what is wrong: {said}");
    assert!(said["cure"].is_string(), "what to do about it: {said}");
    answer
}

/// 429, with a time after which to try again.
fn assert_full(answer: &Answer, code: &str, field: &str) {
    assert_eq!(answer.status, 429, "{}", answer.body);
    let after = answer.headers.get("retry-after").expect("Retry-After");
    let seconds: u64 = after
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(
        (&answer.body["code"], &answer.body["field"]),
        (&json!(code), &json!(field)),
        "{}",
        answer.body
    );
}

async fn a_full_queue(swarm: &Installation) {
    let id = swarm.swarm("narrow", json!({"queue_limit": 3})).await;
    let path = format!("/v1/swarms/{id}/tasks");
    let task = json!({"task_type": "t", "payload": {}, "priority": 10});
    for _ in 0..3 {
        swarm.task(&id, task.clone()).await;
    }
    let before = last_stored(swarm, &id).await;
    let full = ask(swarm, Method::POST, &path, &task).await;
    assert_full(&full, "queue-full", "configuration.queue_limit");
    let two = json!({"tasks": [task, task]});
    for path in [&path, &format!("{path}/bulk")] {
        let full = ask(swarm, Method::POST, path, &two).await;
        assert_full(&full, "queue-full", "configuration.queue_limit");
    }
    assert_eq!(last_stored(swarm, &id).await, before);
    // What waits is done, and there is room again.
    let team = Team::of(swarm, &id).await;
    team.join(swarm, "A", |agent| agent).await;
    let mut record = Record::of(swarm, &id).await;
    record.until_count("completed", 3).await;
    let taken = eventually("the next one is taken", PATIENCE, || async {
        let answer = ask(swarm, Method::POST, &path, &task).await;
        (answer.status != 429).then_some(answer)
    });
    let taken = taken.await;
    assert_eq!(taken.status, 202, "{}", taken.body);
    record.until_count("completed", 4).await;
}

/// With half of the queue kept for what is more important, priority 1 is refused at five of ten and priority 10 at ten.
async fn shed_by_priority(swarm: &Installation) {
    let configuration = json!({"queue_limit": 10, "shed_from_percent": 50});
    let id = swarm.swarm("shedding", configuration).await;
    let path = format!("/v1/swarms/{id}/tasks");
    let of = |priority: u8| json!({"task_type": "t", "payload": {}, "priority": priority});
    for _ in 0..5 {
        swarm.task(&id, of(1)).await;
    }
    let shed = ask(swarm, Method::POST, &path, &of(1)).await;
    assert_full(&shed, "shed", "configuration.queue_limit");
    // The distributor judges alike what did not come through the gateway.
    let mut record = Record::of(swarm, &id).await;
    let direct = Uuid::now_v7().to_string();
    let door = Door::of(swarm, &id).await;
    door.publish(&direct, of(1)).await;
    let (_, rejected) = record.task("rejected", &direct).await;
    assert_eq!(rejected["data"]["problem"]["code"], "shed", "{rejected}");
    assert!(rejected["data"]["retry_after_ms"].is_u64(), "{rejected}");
    // What is more important still finds room, up to the limit itself.
    for _ in 0..5 {
        swarm.task(&id, of(10)).await;
    }
    let full = ask(swarm, Method::POST, &path, &of(10)).await;
    assert_full(&full, "queue-full", "configuration.queue_limit");
    // Nothing that was taken was dropped for it.
    eventually("all that were taken wait", PATIENCE, || async {
        let listed = swarm.get(&format!("{path}?status=queued")).await;
        (listed["items"].as_array()?.len() == 10).then_some(())
    })
    .await;
}

/// The organization's own limit counts the queues of all its swarms: after [`all`], with whose queues it reckons.
pub async fn a_full_organization(swarm: &Installation) {
    let (one, two) = (
        swarm.swarm("one", json!({})).await,
        swarm.swarm("two", json!({})).await,
    );
    let task = json!({"task_type": "t", "payload": {}});
    for id in [&one, &two] {
        swarm.task(id, task.clone()).await;
    }
    // Ten wait in the swarm that sheds.
    let changed = swarm
        .put("/v1/organization", &json!({"queue_limit": 12}))
        .await;
    assert_eq!(changed["queue_limit"], 12, "{changed}");
    let full = ask(
        swarm,
        Method::POST,
        &format!("/v1/swarms/{two}/tasks"),
        &task,
    )
    .await;
    assert_full(&full, "queue-full", "organization.queue_limit");
    swarm
        .put("/v1/organization", &json!({"queue_limit": null}))
        .await;
    swarm.task(&two, task).await;
}
