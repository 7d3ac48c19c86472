//! What is refused, and what goes on without PostgreSQL.

use crate::support::{Stage, events};
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn with_postgresql_down_reads_say_since_when_and_the_rest_goes_on() {
    let stage = Stage::without_database().await;
    let made = stage
        .admin
        .post(
            "/swarms",
            &json!({"name": "a", "configuration": {"min_agents": 2}}),
        )
        .await;
    assert_eq!((made.status, made.text("status")), (201, "starting"));
    let path = format!("/v1/swarms/{}", made.id());
    assert_eq!(made.header("location"), path);
    for read in [
        "/v1/swarms",
        path.as_str(),
        &format!("{path}/tasks"),
        &format!("{path}/agents"),
        &format!("{path}?min_seq=1"),
    ] {
        let came = stage.admin.get(read).await;
        came.refused(503, "read-models-unavailable", None);
        let since = chrono::DateTime::parse_from_rfc3339(came.text("stale_since")).expect("a time");
        assert!(since < chrono::Utc::now());
        assert!(came.headers.contains_key("retry-after"));
    }
    let task = stage
        .admin
        .post(
            &format!("{path}/tasks"),
            &json!({"task_type": "count", "payload": {}}),
        )
        .await;
    assert_eq!((task.status, task.text("status")), (202, "queued"));
    let health = stage.admin.get(&format!("{path}/health")).await;
    assert_eq!(
        (health.status, &health.body["agents"]["needed"]),
        (200, &json!(2))
    );
    let told = events(
        &stage.admin,
        &format!("{path}/events?from=1"),
        None,
        |(_, name, _)| name == "swarm.task.submitted.v2",
    )
    .await;
    assert_eq!(told.last().expect("some").2["id"], task.text("id"));
    let ready = stage.admin.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.body["postgres"]["connected"]),
        (200, &json!(false))
    );
    assert!(
        ready.body["postgres"]["stale_since"].is_string()
            && ready.body["projection"]["lag"].as_u64() > Some(0)
    );
}

#[tokio::test]
async fn bad_input_is_refused_by_name_and_nothing_of_it_is_stored() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let swarm = format!("/v1/swarms/{}", place.swarm);
    let tasks = format!("{swarm}/tasks");
    let before = stage.stored("swarm.cmd.>").await.len();
    let admin = &stage.admin;
    admin
        .post_text("/v1/swarms", "{\"name\": ")
        .await
        .refused(400, "malformed-json", Some("body"));
    admin
        .post_text(&tasks, "no")
        .await
        .refused(400, "malformed-json", Some("body"));
    admin
        .post("/v1/swarms", &json!({}))
        .await
        .refused(422, "missing-field", Some("name"));
    admin
        .post("/v1/swarms", &json!({"name": "b", "colour": 1}))
        .await
        .refused(422, "unknown-field", Some("colour"));
    admin
        .post("/v1/swarms", &json!({"name": 7}))
        .await
        .refused(422, "wrong-value", Some("name"));
    admin
        .post("/v1/swarms", &json!({"name": "x".repeat(101)}))
        .await
        .refused(422, "wrong-length", Some("name"));
    admin
        .post("/v1/swarms", &json!({"name": "b", "topology": "cube"}))
        .await
        .refused(422, "wrong-value", Some("topology"));
    for (configuration, code, field) in [
        (
            json!({"max_agents": 0}),
            "out-of-range",
            "configuration.max_agents",
        ),
        (
            json!({"max_agent": 1}),
            "unknown-field",
            "configuration.max_agent",
        ),
        (
            json!({"retry": {"base": 1}}),
            "unknown-field",
            "configuration.retry.base",
        ),
        (
            json!({"queue_limit": "many"}),
            "wrong-value",
            "configuration.queue_limit",
        ),
        (json!([]), "wrong-type", "configuration"),
    ] {
        let came = admin
            .post(
                "/v1/swarms",
                &json!({"name": "b", "configuration": configuration}),
            )
            .await;
        came.refused(422, code, Some(field));
        let came = admin
            .put(&swarm, &json!({"configuration": configuration}))
            .await;
        came.refused(422, code, Some(field));
    }
    admin
        .put(&swarm, &json!({"name": null}))
        .await
        .refused(422, "wrong-value", Some("name"));
    admin
        .put(&swarm, &json!({"topology": "mesh"}))
        .await
        .refused(422, "unknown-field", Some("topology"));
    admin
        .post("/v1/swarms", &json!({"name": "a"}))
        .await
        .refused(409, "name-taken", Some("name"));

    let too_large = "x".repeat(swarm_gateway::json::BODY_BYTES_MAX + 1);
    admin
        .post_text("/v1/swarms", &too_large)
        .await
        .refused(413, "body-too-large", Some("body"));
    let too_large = "x".repeat(swarm_gateway::json::SUBMISSION_BYTES_MAX + 1);
    admin
        .post_text(&tasks, &too_large)
        .await
        .refused(413, "body-too-large", Some("body"));
    let payload = json!({"tasks": [{"task_type": "t", "payload": "x".repeat(256 * 1024)}]});
    admin
        .post(&tasks, &payload)
        .await
        .refused(413, "payload-too-large", Some("tasks[0].payload"));
    let cycle = json!({"tasks": [
        {"key": "a", "task_type": "t", "payload": {}, "depends_on": [{"key": "b"}]},
        {"key": "b", "task_type": "t", "payload": {}, "depends_on": [{"key": "a"}]}]});
    let came = admin.post(&tasks, &cycle).await;
    came.refused(422, "cycle", Some("tasks[1].depends_on[0].key"));
    assert!(came.text("detail").contains("a → b → a"), "{}", came.body);

    let unknown = Uuid::now_v7();
    admin
        .post(&format!("/v1/swarms/{unknown}/tasks"), &json!({}))
        .await
        .refused(404, "unknown-swarm", Some("id"));
    admin
        .get("/v1/swarms/no-uuid/health")
        .await
        .refused(404, "unknown-swarm", Some("id"));
    admin
        .get("/v1/nothing")
        .await
        .refused(404, "unknown-path", Some("path"));
    admin
        .put("/v1/swarms", &json!({}))
        .await
        .refused(405, "wrong-method", Some("method"));
    admin
        .get("/v1/swarms?limit=0")
        .await
        .refused(400, "bad-parameter", Some("?limit"));
    admin
        .get("/v1/swarms?limt=1")
        .await
        .refused(400, "bad-parameter", Some("?limt"));
    admin
        .get(&format!("{swarm}/events?from=x"))
        .await
        .refused(400, "bad-parameter", Some("?from"));
    assert_eq!(stage.stored("swarm.cmd.>").await.len(), before);
    assert_eq!(
        stage.stored("swarm.evt.*.*.*.task.>").await,
        Vec::<Value>::new()
    );
}

/// Every field of a task that can be wrong, in each of the three ways to hand it in.
#[tokio::test]
async fn a_wrong_task_is_refused_by_its_field_whichever_way_it_comes() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (path, admin) = (format!("/v1/swarms/{}/tasks", place.swarm), &stage.admin);
    let before = stage.last_sequence().await;
    let with = |name: &str, value: Value| {
        let mut task = json!({"task_type": "t", "payload": {}});
        task[name] = value;
        task
    };
    let over = 30u64 * 24 * 3_600 * 1_000 + 1;
    for (name, value, code, at) in [
        ("priority", json!(0), "out-of-range", ""),
        ("priority", json!(11), "out-of-range", ""),
        ("priority", json!(-1), "out-of-range", ""),
        ("priority", json!(1.5), "wrong-value", ""),
        ("timeout_ms", json!(-1), "out-of-range", ""),
        ("timeout_ms", json!(0), "out-of-range", ""),
        ("queue_timeout_ms", json!(-1), "out-of-range", ""),
        ("queue_timeout_ms", json!(over), "out-of-range", ""),
        ("progress_timeout_ms", json!(-1), "out-of-range", ""),
        ("progress_timeout_ms", json!(over), "out-of-range", ""),
        ("max_attempts", json!(0), "out-of-range", ""),
        (
            "required_capabilities",
            json!(["ok", "c".repeat(101)]),
            "wrong-length",
            "[1]",
        ),
        (
            "required_capabilities",
            json!(vec!["c"; 65]),
            "too-many",
            "",
        ),
        ("task_type", json!("t".repeat(51)), "wrong-length", ""),
        ("colour", json!(1), "unknown-field", ""),
    ] {
        let task = with(name, value);
        let many = json!({"tasks": [with("priority", json!(1)), task]});
        let (alone, among) = (format!("{name}{at}"), format!("tasks[1].{name}{at}"));
        let came = admin.post(&path, &task).await;
        came.refused(422, code, Some(&alone));
        for path in [path.clone(), format!("{path}/bulk")] {
            let came = admin.post(&path, &many).await;
            came.refused(422, code, Some(&among));
        }
    }
    stage.nothing_came_since(before).await;
}

#[tokio::test]
async fn wrong_dependencies_and_over_large_graphs_are_refused_before_anything_is_stored() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (path, admin) = (format!("/v1/swarms/{}/tasks", place.swarm), &stage.admin);
    let before = stage.last_sequence().await;
    let task = |key: &str, on: Value| json!({"key": key, "task_type": "t", "payload": {}, "depends_on": on});
    let pair = |on: Value| json!({"tasks": [task("a", json!([])), task("b", on)]});
    for (body, code, field) in [
        (
            pair(json!([{"key": "a", "dependency_type": "hope"}])),
            "wrong-value",
            "tasks[1].depends_on[0].dependency_type",
        ),
        (
            pair(json!([{"key": "b"}])),
            "self-dependency",
            "tasks[1].depends_on[0].key",
        ),
        (
            pair(json!([{"key": "c"}])),
            "unknown-key",
            "tasks[1].depends_on[0].key",
        ),
        (
            pair(json!([{"key": "a"}, {"key": "a"}])),
            "duplicate-dependency",
            "tasks[1].depends_on[1].key",
        ),
        (
            json!({"tasks": [task("a", json!([{"key": "b"}])), task("b", json!([{"key": "a"}]))]}),
            "cycle",
            "tasks[1].depends_on[0].key",
        ),
        (json!({"tasks": []}), "graph-size", "tasks"),
    ] {
        let came = admin.post(&path, &body).await;
        came.refused(422, code, Some(field));
    }
    let hope = admin
        .post(
            &path,
            &pair(json!([{"key": "a", "dependency_type": "hope"}])),
        )
        .await;
    for known in ["completion", "success", "data"] {
        assert!(hope.text("detail").contains(known), "{}", hope.body);
    }
    let many = json!({"tasks": vec![json!({"task_type": "t", "payload": 0}); 10_001]});
    let came = admin.post(&path, &many).await;
    came.refused(422, "graph-size", Some("tasks"));
    assert!(came.text("cure").contains("10000"), "{}", came.body);
    let bulk = format!("{path}/bulk");
    let came = admin.post(&bulk, &many).await;
    came.refused(422, "bulk-size", Some("tasks"));
    let came = admin.post(&bulk, &pair(json!([{"key": "a"}]))).await;
    came.refused(422, "names-others", Some("tasks[1].depends_on"));
    assert!(came.text("cure").contains("graph"), "{}", came.body);
    let too_large = "x".repeat(swarm_gateway::json::SUBMISSION_BYTES_MAX + 1);
    let came = admin.post_text(&bulk, &too_large).await;
    came.refused(413, "body-too-large", Some("body"));
    stage.nothing_came_since(before).await;
}

#[tokio::test]
async fn an_unknown_algorithm_is_refused_with_the_names_of_those_that_there_are() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (swarm, admin) = (format!("/v1/swarms/{}", place.swarm), &stage.admin);
    let names = [
        "least_loaded",
        "round_robin",
        "capability_match",
        "affinity",
        "priority_queue",
    ];
    let before = stage.last_sequence().await;
    for (setting, value, code) in [
        ("distribution_algorithm", json!("magic"), "wrong-value"),
        ("shed_from_percent", json!(0), "out-of-range"),
        ("shed_from_percent", json!(101), "out-of-range"),
        ("queue_timeout_ms", json!(-1), "wrong-value"),
        ("progress_timeout_ms", json!(-1), "wrong-value"),
        ("stealing", json!("yes"), "wrong-value"),
    ] {
        let patch = json!({"name": "b", "configuration": {setting: value}});
        let field = format!("configuration.{setting}");
        for came in [
            admin.post("/v1/swarms", &patch).await,
            admin.put(&swarm, &patch).await,
        ] {
            came.refused(422, code, Some(&field));
            if setting == "distribution_algorithm" {
                let told = names.iter().all(|name| came.text("detail").contains(name));
                assert!(told, "{}", came.body);
            }
        }
    }
    stage.nothing_came_since(before).await;
    for name in names {
        let patch = json!({"configuration": {"distribution_algorithm": name}});
        let came = admin.put(&swarm, &patch).await;
        assert_eq!(came.status, 200, "{}", came.body);
        assert_eq!(came.body["configuration"]["distribution_algorithm"], name);
    }
}

#[tokio::test]
async fn a_full_queue_is_refused_with_a_hint_before_anything_is_stored() {
    let stage = Stage::without_database().await;
    let place = stage
        .swarm(json!({"name": "a", "configuration": {"queue_limit": 2}}))
        .await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let task = json!({"task_type": "t", "payload": {}});
    for _ in 0..2 {
        assert_eq!(stage.admin.post(&tasks, &task).await.status, 202);
    }
    let refused = stage.admin.post(&tasks, &task).await;
    refused.refused(429, "queue-full", Some("configuration.queue_limit"));
    assert_eq!(
        (refused.header("retry-after"), &refused.body["waiting"]),
        ("1", &json!(2))
    );
    // The same once the distributor has measured it, and for a graph.
    stage
        .eventually(|app| {
            app.fold
                .read()
                .measure(place)
                .is_some_and(|measure| measure.last.queued == 2)
        })
        .await;
    let graph = json!({"tasks": [task]});
    stage.admin.post(&tasks, &graph).await.refused(
        429,
        "queue-full",
        Some("configuration.queue_limit"),
    );
    assert_eq!(
        stage.stored("swarm.evt.*.*.*.task.submitted").await.len(),
        2
    );
    let metrics = stage
        .admin
        .get(&format!("/v1/swarms/{}/metrics", place.swarm))
        .await;
    assert_eq!(
        (
            &metrics.body["metrics"]["queue_depth"],
            &metrics.body["tasks"]["queued"]
        ),
        (&json!(2.0), &json!(2))
    );
    assert!(
        metrics.body["metrics"].get("latency_p50").is_none(),
        "nothing tells it yet: {}",
        metrics.body
    );
}
