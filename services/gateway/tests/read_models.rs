//! Reads: what was written is in the lists, page by page, and they come back after an outage of PostgreSQL.

mod support;

use serde_json::{Value, json};
use support::{Came, Client, Stage, talk::question};
use swarm_events::{Body, Subject, subject::TaskVerb, task::Submitted};
use uuid::Uuid;

/// All items of a list, page by page.
async fn pages(client: &Client, path: &str, limit: usize) -> Vec<Value> {
    let mut items = Vec::new();
    let mut next = format!("{path}&limit={limit}");
    loop {
        let page = client.get(&next).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let some = page.body["items"].as_array().expect("items").clone();
        assert!(some.len() <= limit);
        items.extend(some);
        match page.body["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}&limit={limit}&cursor={cursor}"),
            None => return items,
        }
    }
}

fn names(items: &[Value], name: &str) -> Vec<Value> {
    items.iter().map(|item| item[name].clone()).collect()
}

#[tokio::test]
async fn swarms_are_created_listed_changed_and_deleted() {
    let stage = Stage::whole().await;
    let admin = &stage.admin;
    let mut last: Option<Came> = None;
    for name in ["a", "b", "c"] {
        let body = json!({"name": name, "description": "d", "configuration": {"max_agents": 7, "queue_limit": 9}});
        last = Some(admin.post("/v1/swarms", &body).await);
    }
    let last = last.expect("three");
    let all = pages(admin, &format!("/v1/swarms?min_seq={}", last.sequence()), 2).await;
    assert_eq!(names(&all, "name"), [json!("a"), json!("b"), json!("c")]);
    // What the write answered is what is read.
    let path = last.header("location").to_owned();
    let shown = admin.get(&path).await;
    assert_eq!((shown.status, &shown.body), (200, &last.body));
    let subject = shown.text("events_subject");
    assert!(
        subject.starts_with("swarm.evt.")
            && subject.ends_with(&format!("{}.task.submitted", last.id())),
        "{subject}"
    );
    for column in [
        "organization_id",
        "topology",
        "configuration",
        "leader_agent_id",
        "agent_count",
        "created_by",
        "created_at",
        "updated_at",
    ] {
        assert!(shown.body.get(column).is_some(), "{column} is missing");
    }

    // PUT merges: absent keeps, null resets.
    let patch =
        json!({"description": null, "configuration": {"max_agents": 8, "queue_limit": null}});
    let changed = admin.put(&path, &patch).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let shown = admin
        .get(&format!("{path}?min_seq={}", changed.sequence()))
        .await;
    assert_eq!(shown.body, changed.body);
    let configuration = &shown.body["configuration"];
    assert_eq!(
        (&shown.body["name"], &shown.body["description"]),
        (&json!("c"), &Value::Null)
    );
    assert_eq!(
        (&configuration["max_agents"], &configuration["queue_limit"]),
        (&json!(8), &json!(100_000))
    );

    let deleted = admin.delete(&path).await;
    assert_eq!(
        (deleted.status, deleted.text("status")),
        (202, "stopping"),
        "{}",
        deleted.body
    );
    let task = json!({"task_type": "t", "payload": {}});
    let late = admin.post(&format!("{path}/tasks"), &task).await;
    assert!(
        matches!(
            late.body["code"].as_str(),
            Some("swarm-stopping" | "swarm-deleted")
        ),
        "{}",
        late.body
    );
    assert_eq!(late.status, 409);
    stage
        .eventually(|app| {
            app.fold
                .read()
                .swarm(stage.org, last.id().into())
                .is_some_and(|s| s.deleted_at.is_some())
        })
        .await;
    let end = stage.app.fold.read().sequence();
    let shown = admin.get(&format!("{path}?min_seq={end}")).await;
    assert_eq!(
        (shown.status, shown.text("status")),
        (200, "inactive"),
        "{}",
        shown.body
    );
    assert_eq!(
        names(&pages(admin, "/v1/swarms?deleted=false", 2).await, "name"),
        [json!("a"), json!("b")]
    );
    assert_eq!(pages(admin, "/v1/swarms?deleted=true", 2).await.len(), 3);
    admin
        .get("/v1/swarms?cursor=nonsense")
        .await
        .refused(400, "bad-parameter", Some("?cursor"));

    let (_, stranger) = stage.other_org().await;
    assert_eq!(
        pages(&stranger, "/v1/swarms?deleted=true", 2).await,
        Vec::<Value>::new()
    );
    stranger
        .get(&path)
        .await
        .refused(404, "unknown-swarm", Some("id"));
    let ready = admin.get("/readyz").await;
    assert!(
        ready.body["postgres"]["time_tables"].is_string(),
        "{}",
        ready.body
    );
}

#[tokio::test]
async fn tasks_are_read_as_they_were_handed_in_whichever_way_they_came() {
    let stage = Stage::whole().await;
    let admin = &stage.admin;
    let place = stage.swarm(json!({"name": "a"})).await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let body = json!({"tasks": [
        {"key": "a", "task_type": "count", "payload": {"n": 1}, "priority": 9, "required_capabilities": ["x"]},
        {"key": "sum", "task_type": "sum", "payload": [2], "depends_on": [{"key": "a", "dependency_type": "data", "as": "left"}]}]});
    let came = admin.post(&tasks, &body).await;
    let (first, second) = (
        came.body["items"][0]["id"].as_str().expect("an id"),
        &came.body["items"][1]["id"],
    );
    let shown = admin
        .get(&format!("{tasks}/{first}?min_seq={}", came.sequence()))
        .await;
    assert_eq!(
        (
            shown.status,
            &shown.body["payload"],
            &shown.body["priority"]
        ),
        (200, &json!({"n": 1}), &json!(9))
    );
    assert_eq!((shown.text("status"), shown.text("key")), ("queued", "a"));
    let shown = admin
        .get(&format!("/v1/tasks/{}", second.as_str().expect("an id")))
        .await;
    assert_eq!(shown.text("status"), "pending");
    let edge = json!([{"task_id": second, "depends_on_task_id": first, "dependency_type": "data", "as": "left"}]);
    assert_eq!(shown.body["depends_on"], edge);

    // Published straight to the subject that the swarm shows.
    let direct: Submitted =
        serde_json::from_value(json!({"task_type": "direct", "payload": {"by": "nats"}}))
            .expect("a task");
    let id = Uuid::now_v7();
    let sequence = stage
        .publish(
            &Subject::Task(place, TaskVerb::Submitted, None),
            id,
            Body::from(direct),
        )
        .await;
    let shown = admin
        .get(&format!("/v1/tasks/{id}?min_seq={sequence}"))
        .await;
    assert_eq!(
        (shown.status, &shown.body["payload"], shown.text("status")),
        (200, &json!({"by": "nats"}), "queued")
    );

    let all = pages(admin, &format!("{tasks}?min_seq={sequence}"), 2).await;
    assert_eq!(
        names(&all, "task_type"),
        [json!("count"), json!("sum"), json!("direct")]
    );
    let graph = pages(
        admin,
        &format!("{tasks}?graph_id={}", came.text("graph_id")),
        1,
    )
    .await;
    assert_eq!(names(&graph, "key"), [json!("a"), json!("sum")]);
    let pending = pages(admin, &format!("{tasks}?status=pending"), 5).await;
    assert_eq!((pending.len(), &pending[0]["id"]), (1, second));
    let cancelled = admin.delete(&format!("{tasks}/{first}")).await;
    let shown = admin
        .get(&format!("{tasks}/{first}?min_seq={}", cancelled.sequence()))
        .await;
    assert_eq!(shown.text("status"), "cancelled");

    let unknown = Uuid::now_v7();
    admin
        .get(&format!("{tasks}/{unknown}"))
        .await
        .refused(404, "unknown-task", Some("id"));
    admin
        .get(&format!("/v1/tasks/{unknown}"))
        .await
        .refused(404, "unknown-task", Some("id"));
    admin
        .get("/v1/tasks/x")
        .await
        .refused(404, "unknown-task", Some("id"));
    let (_, stranger) = stage.other_org().await;
    stranger
        .get(&format!("/v1/tasks/{first}"))
        .await
        .refused(404, "unknown-task", Some("id"));
}

#[tokio::test]
async fn an_idempotency_key_is_known_from_the_read_model_too() {
    let stage = Stage::whole().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let graph = json!({"tasks": [{"task_type": "t", "payload": {}}]});
    for (key, body) in [
        ("one", json!({"task_type": "t", "payload": {}})),
        ("many", graph),
    ] {
        let first = stage.admin.post_keyed(&tasks, &body, key).await;
        assert_eq!(
            stage
                .admin
                .get(&format!("{tasks}?min_seq={}", first.sequence()))
                .await
                .status,
            200
        );
        let (again, info) = (
            stage.admin.post_keyed(&tasks, &body, key).await,
            stage.app.log.info(),
        );
        assert_eq!(
            (again.status, &again.body, again.sequence()),
            (202, &first.body, first.sequence())
        );
        assert!(info.await.expect("the log").last_sequence >= first.sequence());
        let other = json!({"task_type": "other", "payload": {}});
        stage.admin.post_keyed(&tasks, &other, key).await.refused(
            422,
            "key-reused",
            Some("Idempotency-Key"),
        );
    }
    assert_eq!(
        stage.stored("swarm.evt.*.*.*.task.submitted").await.len(),
        2
    );
}

#[tokio::test]
async fn a_bulk_submission_that_broke_off_is_completed_by_its_repeat() {
    let stage = Stage::whole().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let bulk = format!("/v1/swarms/{}/tasks/bulk", place.swarm);
    let body = json!({"tasks": (0..20).map(|n| json!({"task_type": "t", "payload": n})).collect::<Vec<_>>()});
    let first = stage.admin.post_keyed(&bulk, &body, "k").await;
    assert_eq!(first.status, 202, "{}", first.body);
    let path = format!("/v1/swarms/{}/tasks", place.swarm);
    let seen = format!("{path}?min_seq={}", first.sequence());
    assert_eq!(pages(&stage.admin, &seen, 7).await.len(), 20);
    // All of it is known: nothing is stored, even if the queue takes nothing any more.
    let full = json!({"configuration": {"queue_limit": 1}});
    let swarm = format!("/v1/swarms/{}", place.swarm);
    assert_eq!(stage.admin.put(&swarm, &full).await.status, 200);
    let before = stage.last_sequence().await;
    let again = stage.admin.post_keyed(&bulk, &body, "k").await;
    assert_eq!(
        (again.status, &again.body, again.sequence()),
        (202, &first.body, first.sequence())
    );
    let other = json!({"tasks": [{"task_type": "other", "payload": {}}]});
    let came = stage.admin.post_keyed(&bulk, &other, "k").await;
    came.refused(422, "key-reused", Some("Idempotency-Key"));
    stage.nothing_came_since(before).await;
}

#[tokio::test]
async fn tasks_are_found_by_each_filter_and_shown_with_all_that_belongs_to_them() {
    let stage = Stage::whole().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (tasks, admin) = (format!("/v1/swarms/{}/tasks", place.swarm), &stage.admin);
    let parent = admin
        .post(&tasks, &json!({"task_type": "parent", "payload": {}}))
        .await
        .id();
    let part = json!({"task_type": "part", "payload": {}, "parent_task_id": parent, "queue_timeout_ms": 60_000});
    let graph = admin.post(&tasks, &json!({"tasks": [part, part]})).await;
    assert_eq!(graph.status, 202, "{}", graph.body);
    let cancelled = graph.body["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let ended = admin.delete(&format!("{tasks}/{cancelled}")).await;
    let sequence = ended.sequence();
    for (filter, count) in [
        (format!("parent_task_id={parent}"), 2),
        (format!("graph_id={}", graph.text("graph_id")), 2),
        ("task_type=parent".to_owned(), 1),
        ("status=cancelled".to_owned(), 1),
        ("dead_lettered=true".to_owned(), 0),
        (format!("agent_id={}", Uuid::now_v7()), 0),
    ] {
        let found = pages(admin, &format!("{tasks}?min_seq={sequence}&{filter}"), 1).await;
        assert_eq!(found.len(), count, "{filter}");
    }
    for bad in [
        "status",
        "parent_task_id",
        "graph_id",
        "agent_id",
        "dead_lettered",
    ] {
        let came = admin.get(&format!("{tasks}?{bad}=x")).await;
        came.refused(400, "bad-parameter", Some(&format!("?{bad}")));
    }
    let shown = admin.get(&format!("{tasks}/{parent}")).await;
    assert_eq!(
        shown.body["children"],
        json!({"total": 2, "completed": 0, "failed": 0, "cancelled": 1, "open": 1})
    );
    assert_eq!(shown.body["attempts"], json!([]));
    let shown = admin.get(&format!("{tasks}/{cancelled}")).await;
    assert_eq!(shown.body["queue_timeout_ms"], 60_000);
    assert_eq!(shown.body["failure_path"], json!([]));
    assert_eq!(shown.text("graph_id"), graph.text("graph_id"));
}

#[tokio::test]
async fn after_an_outage_of_postgresql_lists_hold_what_was_written_meanwhile() {
    let mut stage = Stage::whole().await;
    let place = stage.swarm(json!({"name": "before"})).await;
    let tasks = format!("/v1/swarms/{}/tasks", place.swarm);
    let database = stage.postgres.as_mut().expect("started");
    database.kill();
    stage
        .eventually(|app| app.progress.stale_since().is_some())
        .await;
    let refused = stage.admin.get("/v1/swarms").await;
    refused.refused(503, "read-models-unavailable", None);
    assert!(refused.body["stale_since"].is_string());
    let task = stage
        .admin
        .post(&tasks, &json!({"task_type": "t", "payload": {}}))
        .await;
    assert_eq!(task.status, 202, "{}", task.body);
    let made = stage
        .admin
        .post("/v1/swarms", &json!({"name": "meanwhile"}))
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    stage.postgres.as_mut().expect("started").restart().await;
    stage
        .eventually(|app| app.progress.stale_since().is_none())
        .await;
    let all = pages(
        &stage.admin,
        &format!("/v1/swarms?min_seq={}", made.sequence()),
        10,
    )
    .await;
    assert_eq!(names(&all, "name"), [json!("before"), json!("meanwhile")]);
    assert_eq!(
        stage
            .admin
            .get(&format!("{tasks}/{}", task.id()))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn questions_are_listed_open_and_ended() {
    let stage = Stage::whole().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (anna, ben) = (
        stage.agent(place, "anna").await,
        stage.agent(place, "ben").await,
    );
    let path = format!("/v1/swarms/{}/questions", place.swarm);
    let mut asked = Vec::new();
    for (agent, text) in [
        (anna, "one?"),
        (anna, "two?"),
        (ben, "three?"),
        (ben, "four?"),
    ] {
        asked.push(json!(stage.ask(place, agent, question(text)).await));
    }
    let first = asked[0].as_str().expect("an id");
    let answer = format!("{path}/{first}/answer");
    let told = stage
        .admin
        .post_keyed(&answer, &json!({"answer": {"n": 7}}), "k")
        .await;
    assert_eq!((told.status, told.text("status")), (200, "answered"));
    // The one that asked goes, and its questions end without an answer.
    let agents = format!("/v1/swarms/{}/agents/{ben}?force=true", place.swarm);
    assert_eq!(stage.admin.delete(&agents).await.status, 200);
    stage
        .eventually(|app| {
            let fold = app.fold.read();
            let swarm = fold.swarm(place.org, place.swarm);
            swarm.is_some_and(|swarm| swarm.questions().count() == 1)
        })
        .await;
    let sequence = stage.last_sequence().await;
    let list = async |query: &str| {
        let path = format!("{path}?min_seq={sequence}{query}");
        names(&pages(&stage.admin, &path, 1).await, "id")
    };
    assert_eq!(list("").await, asked);
    assert_eq!(list("&status=open").await, asked[1..2]);
    assert_eq!(list("&status=answered").await, asked[..1]);
    assert_eq!(list("&status=unanswered").await, asked[2..]);
    assert_eq!(list(&format!("&agent_id={anna}")).await, asked[..2]);
    // What the answer said is what is read, and a repeat says it again.
    let shown = stage.admin.get(&format!("{path}/{first}")).await;
    assert_eq!((shown.status, &shown.body), (200, &told.body));
    let again = stage
        .admin
        .post_keyed(&answer, &json!({"answer": {"n": 7}}), "k")
        .await;
    assert_eq!((again.status, &again.body), (200, &told.body));
    let gone = asked[2].as_str().expect("an id");
    let shown = stage.admin.get(&format!("{path}/{gone}")).await;
    assert_eq!(shown.text("status"), "unanswered", "{}", shown.body);
    assert!(shown.text("reason").contains("gone"), "{}", shown.body);
    let late = stage
        .admin
        .post(&format!("{path}/{gone}/answer"), &json!({"answer": 1}))
        .await;
    late.refused(409, "already-answered", Some("question_id"));
    let unknown = stage.admin.get(&format!("{path}/{}", Uuid::now_v7())).await;
    unknown.refused(404, "unknown-question", Some("id"));
}
