//! What works without PostgreSQL: keys, writes, their outcomes, health and live events.

mod support;

use serde_json::{Value, json};
use support::{Stage, events};
use swarm_events::{AgentId, InstanceId, Subject, org::Role, subject::TaskVerb, task::Started};
use swarm_gateway::{BootstrapError, admin_key, bootstrap};
use uuid::Uuid;

#[tokio::test]
async fn the_first_organization_is_made_once_and_a_lost_key_can_be_replaced() {
    let stage = Stage::without_database().await;
    let again = bootstrap(stage.log.clone(), "second").await;
    assert!(
        matches!(again, Err(BootstrapError::Exists { org_id }) if org_id == stage.org),
        "{again:?}"
    );
    let made = admin_key(stage.log.clone(), stage.org)
        .await
        .expect("another key");
    assert_ne!(made.api_key, stage.admin.key);
    stage
        .eventually(|app| app.fold.read().caller(&made.api_key).is_some())
        .await;
    let client = stage.client(&made.api_key);
    assert_eq!(
        client
            .post("/v1/swarms", &json!({"name": "a"}))
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn requests_need_a_key_that_holds() {
    let stage = Stage::without_database().await;
    let response = stage
        .admin
        .http
        .get(format!("{}/v1/swarms", stage.url))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(
        response.headers()["www-authenticate"],
        "Bearer realm=\"swarm\""
    );
    stage.client("swk_wrong").get("/v1/swarms").await.refused(
        401,
        "unknown-key",
        Some("Authorization"),
    );
    let basic = stage
        .admin
        .http
        .get(format!("{}/swarms", stage.url))
        .header("Authorization", "Basic eDp5");
    stage
        .admin
        .send(basic)
        .await
        .refused(401, "bad-authorization", Some("Authorization"));
    for open in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
        let response = stage
            .admin
            .http
            .get(format!("{}{open}", stage.url))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "{open}");
    }
}

#[tokio::test]
async fn roles_and_organizations_bound_what_a_key_may_do() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "mine"})).await;
    let swarm = format!("/v1/swarms/{}", place.swarm);
    let task = json!({"task_type": "count", "payload": {}});
    let missing = format!("{swarm}/tasks/{}", Uuid::now_v7());
    for (role, submit, configure, operate) in [
        (Role::User, 202, 403, 403),
        (Role::Analyst, 403, 403, 403),
        (Role::Developer, 202, 200, 403),
        (Role::Operator, 202, 200, 404),
    ] {
        let client = stage.with_role(role).await;
        assert_eq!(
            client.get(&format!("{swarm}/health")).await.status,
            200,
            "{role:?}"
        );
        assert_eq!(
            client.post(&format!("{swarm}/tasks"), &task).await.status,
            submit,
            "{role:?}"
        );
        assert_eq!(
            client
                .put(&swarm, &json!({"description": "d"}))
                .await
                .status,
            configure,
            "{role:?}"
        );
        assert_eq!(client.delete(&missing).await.status, operate, "{role:?}");
    }
    let analyst = stage.with_role(Role::Analyst).await;
    let refused = analyst.post("/v1/swarms", &json!({"name": "x"})).await;
    refused.refused(403, "forbidden", Some("Authorization"));
    assert!(
        refused.text("cure").contains("developer"),
        "{}",
        refused.body
    );

    let (_, stranger) = stage.other_org().await;
    for (came, what) in [
        (stranger.get(&format!("{swarm}/health")).await, "health"),
        (stranger.get(&format!("{swarm}/events")).await, "events"),
        (
            stranger.post(&format!("{swarm}/tasks"), &task).await,
            "submit",
        ),
        (stranger.put(&swarm, &json!({"name": "x"})).await, "update"),
        (stranger.delete(&swarm).await, "delete"),
    ] {
        assert_eq!(came.status, 404, "{what}: {}", came.body);
        came.refused(404, "unknown-swarm", Some("id"));
    }
}

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
        |(_, name, _)| name == "swarm.task.submitted.v1",
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

#[tokio::test]
async fn graphs_are_answered_with_the_distributors_outcome() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let body = json!({"tasks": [
        {"key": "a", "task_type": "count", "payload": {}},
        {"key": "sum", "task_type": "sum", "payload": {}, "depends_on": [{"key": "a", "dependency_type": "data", "as": "left"}]}]});
    let came = stage.admin.post(&tasks, &body).await;
    assert_eq!(came.status, 202, "{}", came.body);
    let (first, second) = (&came.body["items"][0], &came.body["items"][1]);
    assert_eq!(
        (&first["status"], &second["status"]),
        (&json!("queued"), &json!("pending"))
    );
    assert_eq!(second["depends_on"][0]["task_id"], first["id"]);
    assert_eq!(
        came.header("location"),
        format!("{tasks}?graph_id={}", came.text("graph_id"))
    );
    let accepted = stage.stored("swarm.evt.*.*.*.task.graph_accepted").await;
    assert_eq!(accepted[0]["subject"], came.body["graph_id"]);

    // One that follows on a task of the graph, and some that cannot.
    let follow =
        |id: &Value| json!({"task_type": "t", "payload": {}, "depends_on": [{"task_id": id}]});
    let came = stage.admin.post(&tasks, &follow(&first["id"])).await;
    assert_eq!(
        (came.status, came.text("status")),
        (202, "pending"),
        "{}",
        came.body
    );
    let unknown = json!(Uuid::now_v7());
    let came = stage.admin.post(&tasks, &follow(&unknown)).await;
    came.refused(422, "unknown-task", Some("depends_on[0].task_id"));
    let came = stage
        .admin
        .post(
            &tasks,
            &json!({"tasks": [{"task_type": "t", "payload": {}}, follow(&unknown)]}),
        )
        .await;
    came.refused(422, "unknown-task", Some("tasks[1].depends_on[0].task_id"));
    assert!(
        came.text("detail")
            .contains(unknown.as_str().expect("text")),
        "{}",
        came.body
    );
}

#[tokio::test]
async fn a_task_is_cancelled_and_retried_by_command() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let task = json!({"task_type": "count", "payload": {}});
    let ids = [
        stage.admin.post(&tasks, &task).await.id(),
        stage.admin.post(&tasks, &task).await.id(),
    ];
    let came = stage
        .admin
        .post(
            &format!("{tasks}/{}/cancel", ids[0]),
            &json!({"reason": "no more"}),
        )
        .await;
    assert_eq!(
        (came.status, came.text("status")),
        (202, "cancelled"),
        "{}",
        came.body
    );
    let ended = stage.stored("swarm.evt.*.*.*.task.cancelled").await;
    assert_eq!(
        (&ended[0]["subject"], &ended[0]["data"]["reason"]),
        (&json!(ids[0]), &json!("no more"))
    );
    assert_eq!(
        stage
            .admin
            .delete(&format!("{tasks}/{}", ids[1]))
            .await
            .status,
        202
    );

    stage
        .admin
        .delete(&format!("{tasks}/{}", ids[0]))
        .await
        .refused(409, "task-ended", Some("task_id"));
    let unknown = Uuid::now_v7();
    stage
        .admin
        .delete(&format!("{tasks}/{unknown}"))
        .await
        .refused(404, "unknown-task", Some("task_id"));
    let again = stage
        .admin
        .post(&format!("{tasks}/{}/retry", ids[0]), &json!({}))
        .await;
    assert_eq!(
        (again.status, &again.body["generation"]),
        (202, &json!(2)),
        "{}",
        again.body
    );
    let open = stage
        .admin
        .post(&format!("{tasks}/{}/retry", ids[0]), &json!({}))
        .await;
    open.refused(409, "task-not-ended", Some("task_id"));
    let long = json!({"reason": "x".repeat(1_001)});
    stage
        .admin
        .post(&format!("{tasks}/{}/cancel", ids[0]), &long)
        .await
        .refused(422, "too-long", Some("reason"));
}

#[tokio::test]
async fn a_repeat_under_the_same_key_is_the_same_request() {
    let stage = Stage::without_database().await;
    let admin = &stage.admin;
    let body = json!({"name": "a"});
    let first = admin.post_keyed("/v1/swarms", &body, "k1").await;
    let again = admin.post_keyed("/v1/swarms", &body, "k1").await;
    assert_eq!((first.status, &first.body), (201, &again.body));
    assert_eq!((again.status, first.sequence()), (201, again.sequence()));
    assert_eq!(again.header("swarm-key-remembered-ms"), "86400000");
    admin
        .post_keyed("/v1/swarms", &json!({"name": "b"}), "k1")
        .await
        .refused(422, "key-reused", Some("Idempotency-Key"));
    assert_eq!(stage.stored("swarm.evt.*.*.*.swarm.created").await.len(), 1);

    let tasks = format!("/v1/swarms/{}/tasks", first.id());
    let task = json!({"task_type": "t", "payload": {}});
    let graph = json!({"tasks": [task, {"task_type": "u", "payload": {}}]});
    for (key, body, other) in [("k1", &task, &graph), ("k2", &graph, &task)] {
        let first = admin.post_keyed(&tasks, body, key).await;
        let again = admin.post_keyed(&tasks, body, key).await;
        assert_eq!((first.status, &first.body), (202, &again.body));
        assert_eq!(first.sequence(), again.sequence());
        admin.post_keyed(&tasks, other, key).await.refused(
            422,
            "key-reused",
            Some("Idempotency-Key"),
        );
    }
    assert_eq!(
        stage.stored("swarm.evt.*.*.*.task.submitted").await.len(),
        3
    );

    let id = admin.post(&tasks, &task).await.id();
    let cancel = format!("{tasks}/{id}/cancel");
    let first = admin
        .post_keyed(&cancel, &json!({"reason": "r"}), "k")
        .await;
    let again = admin
        .post_keyed(&cancel, &json!({"reason": "r"}), "k")
        .await;
    assert_eq!(
        (first.status, &first.body, first.sequence()),
        (202, &again.body, again.sequence())
    );
    admin
        .post_keyed(&cancel, &json!({"reason": "s"}), "k")
        .await
        .refused(422, "key-reused", Some("Idempotency-Key"));
    let long = "k".repeat(256);
    admin.post_keyed(&cancel, &json!({}), &long).await.refused(
        400,
        "bad-idempotency-key",
        Some("Idempotency-Key"),
    );
}

#[tokio::test]
async fn concurrent_repeats_make_one_swarm() {
    let stage = Stage::without_database().await;
    let body = json!({"name": "a"});
    let all = (0..8).map(|_| stage.admin.post_keyed("/v1/swarms", &body, "same"));
    let all = futures::future::join_all(all).await;
    for came in &all {
        assert_eq!(
            (came.status, came.id()),
            (201, all[0].id()),
            "{}",
            came.body
        );
    }
    assert_eq!(stage.stored("swarm.evt.*.*.*.swarm.created").await.len(), 1);
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

#[tokio::test]
async fn live_events_go_on_where_a_client_left_off() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let other = stage.swarm(json!({"name": "b"})).await;
    let (tasks, path) = (
        format!("/v1/swarms/{}/tasks", place.swarm),
        format!("/v1/swarms/{}/events", place.swarm),
    );
    let task = json!({"task_type": "t", "payload": {}});
    let mut sequences = Vec::new();
    for _ in 0..3 {
        sequences.push(stage.admin.post(&tasks, &task).await.sequence());
        stage
            .admin
            .post(&format!("/v1/swarms/{}/tasks", other.swarm), &task)
            .await;
    }
    let is_submitted = |name: &str| name == "swarm.task.submitted.v1";
    let all = events(&stage.admin, &format!("{path}?from=1"), None, |(id, ..)| {
        *id == sequences[2]
    })
    .await;
    assert_eq!(all[0].1, "swarm.swarm.created.v1");
    let told: Vec<u64> = all
        .iter()
        .filter(|(_, name, _)| is_submitted(name))
        .map(|(id, ..)| *id)
        .collect();
    assert_eq!(told, sequences);
    assert!(
        all.iter()
            .all(|(_, _, data)| data["swarm"] == json!(place.swarm))
    );
    let rest = events(
        &stage.admin,
        &format!("{path}?from=1"),
        Some(sequences[0]),
        |(id, ..)| *id == sequences[2],
    )
    .await;
    let told: Vec<u64> = rest
        .iter()
        .filter(|(_, name, _)| is_submitted(name))
        .map(|(id, ..)| *id)
        .collect();
    assert_eq!(told, sequences[1..]);
    // Malformed messages are not shown, and do not end the stream.
    stage
        .publish_raw(
            &Subject::Task(place, TaskVerb::Submitted, None).to_string(),
            b"no event",
        )
        .await;
    let refused = |(_, name, _): &(u64, String, Value)| name == "swarm.task.refused.v1";
    let told = events(&stage.admin, &path, Some(sequences[2]), refused).await;
    assert_eq!(
        told.last().expect("some").2["data"]["problem"]["code"],
        "malformed-event"
    );
}

#[tokio::test]
async fn live_streams_are_bounded_and_end_with_the_process() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let path = format!("/v1/swarms/{}/events", place.swarm);
    // All but one place are taken.
    let most = u32::try_from(swarm_gateway::app::LIVE_STREAMS_MAX - 1).expect("small");
    let taken = stage
        .app
        .live
        .clone()
        .try_acquire_many_owned(most)
        .expect("free");
    let open = stage
        .admin
        .request(reqwest::Method::GET, &path)
        .send()
        .await
        .expect("the last place");
    assert_eq!(open.status().as_u16(), 200);
    stage
        .admin
        .get(&path)
        .await
        .refused(503, "too-many-streams", None);
    drop(taken);
    stage.app.stop.cancel();
    let ended = tokio::time::timeout(support::PATIENCE, stage.gateway)
        .await
        .expect("in time");
    assert!(ended.expect("no panic").is_ok());
    assert!(open.text().await.is_ok(), "the stream ends in order");
}

#[tokio::test]
async fn an_agent_is_shown_and_removed() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let agent = AgentId(Uuid::now_v7());
    stage
        .join(place, agent, InstanceId(Uuid::now_v7()), "one")
        .await;
    let path = format!("/v1/swarms/{}", place.swarm);
    let health = stage.admin.get(&format!("{path}/health")).await;
    assert_eq!(
        (
            health.text("status"),
            health.body["items"][0]["agent_name"].as_str()
        ),
        ("active", Some("one"))
    );
    assert_eq!(health.body["items"][0]["status"], "idle");
    let removed = stage.admin.delete(&format!("{path}/agents/{agent}")).await;
    assert_eq!(
        (removed.status, removed.text("status")),
        (202, "stopped"),
        "{}",
        removed.body
    );
    let health = stage.admin.get(&format!("{path}/health")).await;
    assert_eq!(
        (health.text("status"), &health.body["agents"]["stopped"]),
        ("degraded", &json!(1))
    );
    assert_eq!(
        stage
            .admin
            .delete(&format!("{path}/agents/{agent}"))
            .await
            .status,
        409
    );
    let unknown = Uuid::now_v7();
    assert_eq!(
        stage
            .admin
            .delete(&format!("{path}/agents/{unknown}"))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_running_task_is_cancelled_at_its_agent_and_the_caller_hears_of_its_end() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (agent, instance) = (AgentId(Uuid::now_v7()), InstanceId(Uuid::now_v7()));
    stage.join(place, agent, instance, "one").await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let id = stage
        .admin
        .post(&tasks, &json!({"task_type": "t", "payload": {}}))
        .await
        .id();
    let path = format!("/v1/swarms/{}/events?from=1", place.swarm);
    let assigned = |(_, name, _): &(u64, String, Value)| name == "swarm.task.assigned.v1";
    let told = events(&stage.admin, &path, None, assigned).await;
    let started = Started {
        assignment: told.last().expect("assigned").0,
        incarnation: 1,
    };
    stage
        .publish_as_agent(place, agent, TaskVerb::Started, id, started.into())
        .await;
    let cancel = format!("{tasks}/{id}/cancel");
    let came = stage.admin.post_keyed(&cancel, &json!({}), "k").await;
    assert_eq!(
        (came.status, came.text("status")),
        (202, "cancelled"),
        "{}",
        came.body
    );
    let withdrawn = stage.stored("swarm.evt.*.*.*.task.withdrawn.*").await;
    assert_eq!(
        (withdrawn.len(), &withdrawn[0]["data"]["force"]),
        (1, &json!(true))
    );
    let again = stage.admin.post_keyed(&cancel, &json!({}), "k").await;
    assert_eq!(
        (again.status, &again.body, again.sequence()),
        (202, &came.body, came.sequence())
    );
}

#[tokio::test]
async fn a_restart_of_nats_server_loses_and_repeats_nothing() {
    let mut stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let client = stage.admin.clone();
    let task = json!({"task_type": "t", "payload": {}});
    stage.nats.kill();
    let sending = {
        let (client, tasks, task) = (client.clone(), tasks.clone(), task.clone());
        tokio::spawn(async move { client.post(&tasks, &task).await })
    };
    stage.nats.restart().await;
    let came = sending.await.expect("no panic");
    assert_eq!(came.status, 202, "{}", came.body);
    let after = client.post(&tasks, &json!({"tasks": [task]})).await;
    assert_eq!(after.status, 202, "{}", after.body);
    let stored = stage.stored("swarm.evt.*.*.*.task.submitted").await;
    let ids: Vec<_> = stored.iter().map(|event| event["id"].clone()).collect();
    assert_eq!(
        ids.iter().filter(|id| **id == json!(came.id())).count(),
        1,
        "{ids:?}"
    );
    assert_eq!(ids.len(), 2, "{ids:?}");
}
