use serde_json::{Value, json};

use super::*;

fn planned(body: &Value) -> Answer<Plan> {
    let submission = Submission::read(body.to_string().as_bytes())?;
    plan(
        submission,
        |n| Uuid::from_u128(100 + u128::from(n)),
        GraphId(Uuid::from_u128(7)),
        Some("hash"),
    )
}

fn refusal(body: &Value) -> (u16, String, String) {
    let refused = planned(body).expect_err("must be refused");
    assert!(
        refused.problem.cure.is_some(),
        "no cure: {}",
        refused.problem
    );
    (
        refused.status.as_u16(),
        refused.problem.code.clone(),
        refused.problem.field.clone().unwrap_or_default(),
    )
}

fn with(name: &str, value: Value) -> Value {
    let mut task = json!({"task_type": "count", "payload": {}});
    task[name] = value;
    task
}

#[test]
fn a_plain_task_has_no_graph_and_the_defaults() {
    let plan = planned(&json!({"task_type": "count", "payload": [1]})).expect("good");
    let (id, task) = &plan.tasks[0];
    assert_eq!(
        (plan.graph, plan.many, *id),
        (None, false, TaskId(Uuid::from_u128(100)))
    );
    assert_eq!(
        (task.priority, task.payload.as_str(), task.graph),
        (5, "[1]", None)
    );
    assert_eq!(task.body_sha256.as_deref(), Some("hash"));
}

#[test]
fn tasks_name_each_other_by_key_in_any_order() {
    let plan = planned(&json!({"tasks": [
        {"key": "sum", "task_type": "sum", "payload": {}, "depends_on": [
            {"key": "a", "dependency_type": "data", "as": "left"}, {"task_id": "0190f7a0-0000-7000-8000-000000000001"}]},
        {"key": "a", "task_type": "count", "payload": {}},
    ]}))
    .expect("good");
    assert_eq!(plan.graph, Some(GraphId(Uuid::from_u128(7))));
    let sum = &plan.tasks[0].1;
    assert_eq!(sum.depends_on[0].task_id, plan.tasks[1].0);
    assert_eq!(
        (
            sum.depends_on[0].dependency_type,
            sum.depends_on[0].alias.as_deref()
        ),
        (DependencyType::Data, Some("left"))
    );
    assert_eq!(
        sum.depends_on[1].dependency_type,
        DependencyType::Completion
    );
    let part = plan.tasks[1].1.graph.expect("a part");
    assert_eq!((part.index, part.of), (1, 2));
}

#[test]
fn one_task_that_names_others_is_a_graph_of_one() {
    for name in ["parent_task_id", "depends_on"] {
        let id = json!("0190f7a0-0000-7000-8000-000000000001");
        let value = if name == "depends_on" {
            json!([{"task_id": id}])
        } else {
            id
        };
        let plan = planned(&with(name, value)).expect("good");
        assert_eq!((plan.graph.is_some(), plan.many), (true, false));
        assert_eq!(plan.tasks[0].1.graph.map(|part| part.of), Some(1));
    }
}

#[test]
fn everything_at_its_limit_is_taken_and_refused_beyond() {
    let payload = |bytes: usize| Value::String("x".repeat(bytes - 2));
    for (name, good, bad, status) in [
        (
            "task_type",
            json!("ü".repeat(50)),
            json!("ü".repeat(51)),
            422,
        ),
        ("task_type", json!("t"), json!(""), 422),
        ("task_type", json!("t"), json!("a\u{0}b"), 422),
        (
            "payload",
            payload(PAYLOAD_BYTES_MAX),
            payload(PAYLOAD_BYTES_MAX + 1),
            413,
        ),
        ("priority", json!(1), json!(0), 422),
        ("priority", json!(10), json!(11), 422),
        ("max_attempts", json!(100), json!(101), 422),
        ("max_attempts", json!(1), json!(0), 422),
        (
            "timeout_ms",
            json!(TIMEOUT_MS_MAX),
            json!(TIMEOUT_MS_MAX + 1),
            422,
        ),
        ("timeout_ms", json!(1), json!(-1), 422),
        ("timeout_ms", json!(1), json!(0), 422),
        (
            "queue_timeout_ms",
            json!(TIMEOUT_MS_MAX),
            json!(TIMEOUT_MS_MAX + 1),
            422,
        ),
        ("queue_timeout_ms", json!(0), json!(-1), 422),
        (
            "progress_timeout_ms",
            json!(TIMEOUT_MS_MAX),
            json!(TIMEOUT_MS_MAX + 1),
            422,
        ),
        ("progress_timeout_ms", json!(0), json!(-1), 422),
        (
            "required_capabilities",
            json!(["c".repeat(CAPABILITY_BYTES_MAX)]),
            json!(vec!["c"; CAPABILITIES_MAX + 1]),
            422,
        ),
        (
            "affinity_key",
            json!("k".repeat(200)),
            json!("k".repeat(201)),
            422,
        ),
        ("key", json!("k".repeat(200)), json!(""), 422),
        (
            "required_capabilities",
            json!(vec!["c"; 64]),
            json!(vec!["c"; 65]),
            422,
        ),
    ] {
        assert!(planned(&with(name, good)).is_ok(), "{name} at its limit");
        let (got, _, field) = refusal(&with(name, bad));
        assert_eq!((got, field.as_str()), (status, name));
    }
    for wrong in ["", &"c".repeat(CAPABILITY_BYTES_MAX + 1), "a\u{7}"] {
        assert_eq!(
            refusal(&with("required_capabilities", json!(["ok", wrong]))).2,
            "required_capabilities[1]"
        );
    }
}

#[test]
fn a_graph_has_one_to_ten_thousand_tasks() {
    let tasks =
        |count: usize| json!({"tasks": vec![json!({"task_type": "t", "payload": null}); count]});
    assert_eq!(planned(&tasks(1)).expect("one").tasks.len(), 1);
    assert_eq!(
        planned(&tasks(10_000)).expect("ten thousand").tasks.len(),
        10_000
    );
    for count in [0, 10_001] {
        let (status, code, field) = refusal(&tasks(count));
        assert_eq!(
            (status, code.as_str(), field.as_str()),
            (422, "graph-size", "tasks")
        );
    }
}

#[test]
fn a_wrong_field_is_named_by_its_path() {
    let graph =
        |task: Value| json!({"tasks": [{"key": "a", "task_type": "t", "payload": {}}, task]});
    let edge = |edges: Value| {
        graph(json!({"key": "b", "task_type": "t", "payload": {}, "depends_on": edges}))
    };
    for (body, code, field) in [
        (
            graph(with("priority", json!(11))),
            "out-of-range",
            "tasks[1].priority",
        ),
        (
            graph(with("prio", json!(1))),
            "unknown-field",
            "tasks[1].prio",
        ),
        (
            graph(with("key", json!("a"))),
            "duplicate-key",
            "tasks[1].key",
        ),
        (
            graph(json!({"task_type": "t"})),
            "missing-field",
            "tasks[1].payload",
        ),
        (
            graph(json!({"payload": 1})),
            "missing-field",
            "tasks[1].task_type",
        ),
        (
            edge(json!([{"key": "c"}])),
            "unknown-key",
            "tasks[1].depends_on[0].key",
        ),
        (
            edge(json!([{"key": "b"}])),
            "self-dependency",
            "tasks[1].depends_on[0].key",
        ),
        (
            edge(json!([{"key": "a"}, {"key": "a"}])),
            "duplicate-dependency",
            "tasks[1].depends_on[1].key",
        ),
        (
            edge(json!([{}])),
            "missing-field",
            "tasks[1].depends_on[0].task_id",
        ),
        (
            edge(json!([{"task_id": "x"}])),
            "wrong-value",
            "tasks[1].depends_on[0].task_id",
        ),
        (
            edge(json!([{"key": "a", "dependency_type": "maybe"}])),
            "wrong-value",
            "tasks[1].depends_on[0].dependency_type",
        ),
        (
            edge(json!([{"key": "a", "as": ""}])),
            "wrong-length",
            "tasks[1].depends_on[0].as",
        ),
        (
            edge(json!([{"key": "a", "task_id": "0190f7a0-0000-7000-8000-000000000001"}])),
            "two-targets",
            "tasks[1].depends_on[0].key",
        ),
        (
            edge(json!([
                {"key": "a", "as": "x", "dependency_type": "data"},
                {"task_id": "0190f7a0-0000-7000-8000-000000000001", "as": "x", "dependency_type": "data"}
            ])),
            "duplicate-alias",
            "tasks[1].depends_on[1].as",
        ),
    ] {
        assert_eq!(
            refusal(&body),
            (422, code.to_owned(), field.to_owned()),
            "{body}"
        );
    }
}

#[test]
fn a_cycle_is_named() {
    let task = |key: &str, after: &str| json!({"key": key, "task_type": "t", "payload": {}, "depends_on": [{"key": after}]});
    let body = json!({"tasks": [{"key": "free", "task_type": "t", "payload": {}}, task("a", "c"), task("b", "a"), task("c", "b")]});
    let problem = planned(&body).expect_err("a cycle").problem.clone();
    assert_eq!(problem.code, "cycle");
    assert!(
        problem.detail.contains("a → c → b → a"),
        "{}",
        problem.detail
    );
    assert_eq!(problem.field.as_deref(), Some("tasks[2].depends_on[0].key"));
    assert_eq!(
        problem.cure.as_deref(),
        Some("take one of these dependencies out")
    );
}

#[test]
fn a_long_cycle_is_found_without_recursion_and_described_in_short() {
    let tasks: Vec<Value> = (0..10_000)
        .map(|n| json!({"key": format!("k{n}"), "task_type": "t", "payload": {}, "depends_on": [{"key": format!("k{}", (n + 1) % 10_000)}]}))
        .collect();
    let problem = planned(&json!({"tasks": tasks}))
        .expect_err("a cycle")
        .problem
        .clone();
    assert_eq!(problem.code, "cycle");
    assert!(problem.detail.len() < 300, "{}", problem.detail);
}

#[test]
fn a_diamond_is_no_cycle() {
    let task = |key: &str, after: &[&str]| {
        let edges: Vec<Value> = after.iter().map(|key| json!({"key": key})).collect();
        json!({"key": key, "task_type": "t", "payload": {}, "depends_on": edges})
    };
    let body = json!({"tasks": [task("d", &["b", "c"]), task("b", &["a"]), task("c", &["a"]), task("a", &[])]});
    assert_eq!(planned(&body).expect("no cycle").tasks.len(), 4);
}

fn in_bulk(tasks: Value) -> Answer<Vec<(TaskId, Submitted)>> {
    let body = json!({"tasks": tasks}).to_string();
    let input = json::read(body.as_bytes())?;
    plan_bulk(
        input,
        |n| Uuid::from_u128(100 + u128::from(n)),
        Some("hash"),
    )
}

#[test]
fn tasks_in_bulk_stand_alone_and_keep_their_order() {
    let tasks = in_bulk(json!([
        {"task_type": "a", "payload": 1, "queue_timeout_ms": 0, "depends_on": []},
        {"task_type": "b", "payload": 2, "key": "k", "progress_timeout_ms": 9, "priority": 10},
        {"task_type": "c", "payload": 3, "key": "k"},
    ]))
    .expect("good");
    let ids: Vec<_> = tasks.iter().map(|(id, _)| id.0.as_u128()).collect();
    assert_eq!(ids, [100, 101, 102]);
    let (a, b) = (&tasks[0].1, &tasks[1].1);
    assert_eq!((a.queue_timeout_ms, a.progress_timeout_ms), (Some(0), None));
    assert_eq!((b.queue_timeout_ms, b.progress_timeout_ms), (None, Some(9)));
    for (_, task) in &tasks {
        assert_eq!(task.graph, None);
        assert_eq!(task.body_sha256.as_deref(), Some("hash"));
    }
}

#[test]
fn a_wrong_task_in_bulk_is_named_and_so_is_one_that_names_another() {
    let good = || json!({"task_type": "t", "payload": {}});
    let id = json!("0190f7a0-0000-7000-8000-000000000001");
    for (name, value, code, field) in [
        ("priority", json!(0), "out-of-range", "tasks[3].priority"),
        (
            "depends_on",
            json!([{"task_id": id}]),
            "names-others",
            "tasks[3].depends_on",
        ),
        (
            "parent_task_id",
            id.clone(),
            "names-others",
            "tasks[3].parent_task_id",
        ),
        ("key", json!(""), "wrong-length", "tasks[3].key"),
        ("prio", json!(1), "unknown-field", "tasks[3].prio"),
    ] {
        let tasks = json!([good(), good(), good(), with(name, value)]);
        let refused = in_bulk(tasks).expect_err(field);
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        let problem = &refused.problem;
        assert_eq!(
            (problem.code.as_str(), problem.field.as_deref()),
            (code, Some(field))
        );
        assert!(problem.cure.is_some());
    }
    let many = |count: usize| in_bulk(json!(vec![good(); count]));
    assert_eq!(many(10_000).expect("at the limit").len(), 10_000);
    for count in [0, 10_001] {
        let problem = many(count).expect_err("size").problem.clone();
        assert_eq!(
            (problem.code.as_str(), problem.field.as_deref()),
            ("bulk-size", Some("tasks"))
        );
    }
}

#[test]
fn a_task_names_a_role_and_the_swarm_that_is_to_do_it() {
    let swarm = Uuid::from_u128(9);
    let body =
        json!({"task_type": "t", "payload": {}, "required_role": "supervisor", "hand_to": swarm});
    let task = planned(&body).expect("good").tasks.remove(0).1;
    assert_eq!(
        (task.required_role, task.hand_to, task.origin),
        (Some(Role::Supervisor), Some(SwarmId(swarm)), None)
    );
    for (name, value, field) in [
        ("required_role", json!("boss"), "required_role"),
        ("hand_to", json!("x"), "hand_to"),
        // Only another swarm's distributor says so.
        ("origin", json!({}), "origin"),
    ] {
        let (status, _, found) = refusal(&with(name, value));
        assert_eq!((status, found.as_str()), (422, field), "{name}");
    }
}

#[test]
fn a_task_is_handed_to_another_swarm_of_the_organization_alone() {
    let (own, other) = (SwarmId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)));
    let refused = |to: SwarmId, many: bool| {
        let task = with("hand_to", json!(to));
        let body = if many {
            json!({"tasks": [with("priority", json!(1)), task]})
        } else {
            task
        };
        let plan = planned(&body).expect("good by itself");
        let checked = check_hand_overs(&plan.tasks, plan.many, own, |swarm| {
            swarm != SwarmId(Uuid::nil())
        });
        checked.err().map(|refused| {
            assert!(refused.problem.cure.is_some());
            let problem = refused.problem.clone();
            (
                refused.status.as_u16(),
                problem.code,
                problem.field.unwrap_or_default(),
            )
        })
    };
    assert_eq!(refused(other, false), None);
    assert_eq!(refused(other, true), None);
    let told = |code: &str, field: &str| Some((422, code.to_owned(), field.to_owned()));
    assert_eq!(refused(own, false), told("own-swarm", "hand_to"));
    assert_eq!(refused(own, true), told("own-swarm", "tasks[1].hand_to"));
    let unknown = SwarmId(Uuid::nil());
    assert_eq!(
        refused(unknown, true),
        told("unknown-swarm", "tasks[1].hand_to")
    );
}
