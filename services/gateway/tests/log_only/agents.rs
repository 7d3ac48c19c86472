//! Agents by order: added, shown, changed, restarted, removed, scaled; what hosts say is played by the test.

use crate::support::{Stage, hosts::Host};
use serde_json::{Value, json};
use swarm_events::{AgentId, InstanceId, org::Role};
use uuid::Uuid;

fn exec() -> Value {
    json!({"agent_type": "analyzer", "adapter": "exec", "command": ["wc", "-l"]})
}
fn with(more: &Value) -> Value {
    let mut body = exec();
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn an_agent_is_added_and_shown_from_the_log_as_its_host_starts_it() {
    let stage = Stage::without_database().await;
    let place = stage
        .swarm(json!({"name": "a", "configuration": {"agent_slots": 3}}))
        .await;
    let path = format!("/v1/swarms/{}/agents", place.swarm);
    let body = json!({"agent_type": "analyzer", "agent_name": "ann", "capabilities": ["b", "a", "b"], "adapter": "exec",
        "command": "grep -c 'two words'", "restart": "on_failure", "metadata": {"team": 7}});
    let added = stage.admin.post(&path, &body).await;
    assert_eq!(added.status, 201, "{}", added.body);
    let id = added.id();
    assert_eq!(added.header("location"), format!("{path}/{id}"));
    for (field, expected) in [
        ("status", json!("pending")),
        ("agent_name", json!("ann")),
        ("capabilities", json!(["a", "b"])),
        ("adapter", json!("exec")),
        ("slots", json!(3)),
        ("incarnation", json!(0)),
        ("instance_id", Value::Null),
        ("started_at", Value::Null),
        ("metadata", json!({"team": 7})),
        ("swarm_id", json!(place.swarm)),
    ] {
        assert_eq!(added.body[field], expected, "{field} in {}", added.body);
    }
    assert_eq!(added.body["restart_policy"]["restart"], "on_failure");

    // PostgreSQL is away: the log answers.
    let agent = AgentId(id);
    let at = format!("{path}/{id}");
    let host = Host::new(&stage, "node-1");
    let spawn = host.requested(place, agent).await;
    assert_eq!(spawn.spec.command, ["grep", "-c", "two words"]);
    let shown = stage.admin.get(&at).await;
    assert_eq!(
        (shown.status, shown.text("status")),
        (200, "pending"),
        "{}",
        shown.body
    );
    assert!(
        shown.text("status_reason").contains("no host has taken"),
        "{}",
        shown.body
    );
    host.claim(place, agent, spawn.spawn).await;
    host.launch(place, agent, spawn.spawn, 4_711).await;
    let shown = host.shown(&at, |agent| agent["pid"] == 4_711).await;
    assert_eq!(
        (&shown["status"], &shown["host"]["name"], &shown["spawn"]),
        (&json!("starting"), &json!("node-1"), &json!(1))
    );
    host.join(place, agent, spawn.spawn).await;
    let shown = host.shown(&at, |agent| agent["status"] == "idle").await;
    assert_eq!(
        (&shown["incarnation"], &shown["agent_name"]),
        (&json!(1), &json!("ann"))
    );
    assert_eq!(shown["status_reason"], Value::Null, "{shown}");
    // What is not there is not there, and lists say since when they are stale.
    let unknown = format!("{path}/{}", Uuid::now_v7());
    stage
        .admin
        .get(&unknown)
        .await
        .refused(404, "unknown-agent", Some("id"));
    let list = stage.admin.get(&path).await;
    list.refused(503, "read-models-unavailable", None);
    assert!(list.body["stale_since"].is_string(), "{}", list.body);

    // It crashes: the process is told of, and why it is not started at once.
    host.exit(place, agent, spawn.spawn, 3).await;
    let shown = host
        .shown(&at, |agent| agent["last_exit"].is_object())
        .await;
    assert_eq!(
        (
            &shown["last_exit"]["code"],
            &shown["last_exit"]["last_output"],
            &shown["crashes"]
        ),
        (&json!(3), &json!("oh\n"), &json!(1))
    );
    let again = host.requested_again(place, agent, 1).await;
    assert_eq!((again.spawn, again.crashes), (2, 1));
    let shown = host.shown(&at, |agent| agent["spawn"] == 2).await;
    assert_eq!(shown["restarts"], 1, "{shown}");
}

#[tokio::test]
async fn several_agents_are_added_at_once_and_a_repeat_under_a_key_adds_none() {
    let stage = Stage::without_database().await;
    let settings = json!({"name": "a", "configuration": {"max_agents": 4}});
    let place = stage.swarm(settings).await;
    let (path, admin) = (format!("/v1/swarms/{}/agents", place.swarm), &stage.admin);
    let three = with(&json!({"agent_name": "w", "count": 3}));
    let added = admin.post_keyed(&path, &three, "k").await;
    assert_eq!(added.status, 201, "{}", added.body);
    let names = added.body["items"].as_array().expect("items").iter();
    let names: Vec<_> = names.map(|item| item["agent_name"].clone()).collect();
    assert_eq!(names, ["w-1", "w-2", "w-3"]);
    assert!(added.headers.contains_key("swarm-key-remembered-ms"));
    let again = admin.post_keyed(&path, &three, "k").await;
    assert_eq!((again.status, &again.body), (201, &added.body));
    assert_eq!(again.sequence(), added.sequence());
    let other = with(&json!({"agent_name": "w", "count": 2}));
    let other = admin.post_keyed(&path, &other, "k").await;
    other.refused(422, "key-reused", Some("Idempotency-Key"));
    assert_eq!(stage.stored("swarm.evt.*.*.*.agent.added.*").await.len(), 3);
    // One has room, the other not; a name is taken.
    let two = admin.post(&path, &with(&json!({"count": 2}))).await;
    assert_eq!(two.status, 201, "{}", two.body);
    let items = two.body["items"].as_array().expect("items");
    let refused: Vec<_> = items
        .iter()
        .filter_map(|item| item["problem"]["code"].as_str())
        .collect();
    assert_eq!(refused, ["max-agents"], "{}", two.body);
    let full = admin.post(&path, &exec()).await;
    full.refused(409, "max-agents", Some("configuration.max_agents"));
    let taken = admin
        .post(&path, &with(&json!({"agent_name": "w-1"})))
        .await;
    taken.refused(409, "name-taken", Some("agent_name"));
}

#[tokio::test]
async fn what_is_wrong_with_an_agent_is_refused_by_its_field_and_nothing_is_stored() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (swarm, admin) = (format!("/v1/swarms/{}", place.swarm), &stage.admin);
    let path = format!("{swarm}/agents");
    let added = admin.post(&path, &exec()).await;
    let agent = format!("{path}/{}", added.id());
    // Its own reconciliation has been met: from here on nothing may come.
    Host::new(&stage, "h")
        .requested(place, AgentId(added.id()))
        .await;
    let before = stage.last_sequence().await;
    for (more, code, field) in [
        (json!({"colour": 1}), "unknown-field", "colour"),
        (json!({"agent_type": ""}), "empty", "agent_type"),
        (
            json!({"agent_type": "t".repeat(51)}),
            "too-long",
            "agent_type",
        ),
        (
            json!({"agent_name": "n".repeat(101)}),
            "too-long",
            "agent_name",
        ),
        (
            json!({"agent_name": "a\nb"}),
            "control-character",
            "agent_name",
        ),
        (json!({"capabilities": [""]}), "empty", "capabilities[0]"),
        (
            json!({"capabilities": (0..65).collect::<Vec<_>>().iter().map(i32::to_string).collect::<Vec<_>>()}),
            "too-many",
            "capabilities",
        ),
        (json!({"adapter": "ssh"}), "wrong-value", "adapter"),
        (json!({"adapter": null}), "not-for-adapter", "command"),
        (json!({"command": []}), "missing", "command"),
        (json!({"command": ""}), "missing", "command"),
        (json!({"command": "say 'no"}), "wrong-value", "command"),
        (
            json!({"command": ["a\u{0}b"]}),
            "control-character",
            "command[0]",
        ),
        (
            json!({"command": ["x".repeat(32 * 1024 + 1)]}),
            "too-long",
            "command",
        ),
        (json!({"url": "http://h/x"}), "not-for-adapter", "url"),
        (json!({"adapter": "webhook"}), "not-for-adapter", "command"),
        (
            json!({"adapter": "webhook", "command": [], "url": "ftp://h"}),
            "wrong-scheme",
            "url",
        ),
        (
            json!({"adapter": "webhook", "command": []}),
            "missing",
            "url",
        ),
        (json!({"slots": 0}), "out-of-range", "slots"),
        (json!({"slots": -1}), "out-of-range", "slots"),
        (json!({"waiting": 1_025}), "out-of-range", "waiting"),
        (json!({"count": 0}), "out-of-range", "count"),
        (json!({"count": 1_001}), "out-of-range", "count"),
        (json!({"count": -3}), "out-of-range", "count"),
        (json!({"count": "many"}), "wrong-value", "count"),
        (json!({"env": {"1A": "x"}}), "wrong-format", "env.1A"),
        (json!({"env": {"A": 1}}), "wrong-value", "env.A"),
        (json!({"restart": "sometimes"}), "wrong-value", "restart"),
        (
            json!({"restart": {"limit": 1}}),
            "unknown-field",
            "restart.limit",
        ),
        (
            json!({"limits": {"memory_kib": 1}}),
            "out-of-range",
            "limits.memory_kib",
        ),
        (
            json!({"limits": {"disk": 1}}),
            "unknown-field",
            "limits.disk",
        ),
        (json!({"metadata": []}), "wrong-type", "metadata"),
    ] {
        let came = admin.post(&path, &with(&more)).await;
        assert_eq!(
            (came.status, came.body["field"].as_str()),
            (422, Some(field)),
            "{more}: {}",
            came.body
        );
        came.refused(422, code, Some(field));
    }
    admin
        .post_text(&path, "no")
        .await
        .refused(400, "malformed-json", Some("body"));
    admin
        .post(&path, &json!({}))
        .await
        .refused(422, "missing-field", Some("agent_type"));
    for (body, code, field) in [
        (json!({}), "nothing-to-change", "body"),
        (json!({"agent_type": "t"}), "unknown-field", "agent_type"),
        (json!({"slots": null}), "null", "slots"),
        (json!({"slots": -1}), "wrong-type", "slots"),
        (json!({"capabilities": "a"}), "wrong-type", "capabilities"),
    ] {
        admin
            .put(&agent, &body)
            .await
            .refused(422, code, Some(field));
    }
    for (body, code, field) in [
        (json!({"grace_ms": -1}), "out-of-range", "grace_ms"),
        (
            json!({"force": true, "grace_ms": 5}),
            "contradiction",
            "grace_ms",
        ),
        (json!({"now": true}), "unknown-field", "now"),
        (json!({"reason": "r".repeat(1_001)}), "too-long", "reason"),
    ] {
        let came = admin.post(&format!("{agent}/restart"), &body).await;
        came.refused(422, code, Some(field));
    }
    for (body, code, field) in [
        (json!({}), "missing", "desired"),
        (json!({"desired": 1, "delta": 1}), "contradiction", "delta"),
        (json!({"desired": -1}), "out-of-range", "desired"),
        (json!({"desired": 10_001}), "out-of-range", "desired"),
        (json!({"delta": -1_001}), "out-of-range", "delta"),
        (
            json!({"desired": 1, "agent_type": " "}),
            "wrong-length",
            "agent_type",
        ),
        (json!({"wanted": 1}), "unknown-field", "wanted"),
    ] {
        admin
            .post(&format!("{swarm}/scale"), &body)
            .await
            .refused(422, code, Some(field));
    }
    for (query, field) in [
        ("?force=yes", "?force"),
        ("?grace_ms=-1", "?grace_ms"),
        ("?force=true&grace_ms=1", "?grace_ms"),
        ("?grace=1", "?grace"),
    ] {
        let came = admin.delete(&format!("{agent}{query}")).await;
        assert_eq!(
            (came.status, came.body["field"].as_str()),
            (400, Some(field)),
            "{}",
            came.body
        );
    }
    for (query, field) in [
        ("?lines=1001", "?lines"),
        ("?lines=-1", "?lines"),
        ("?follow=1", "?follow"),
    ] {
        let came = admin.get(&format!("{agent}/logs{query}")).await;
        came.refused(400, "bad-parameter", Some(field));
    }
    stage.nothing_came_since(before).await;
}

#[tokio::test]
async fn orders_about_agents_need_an_operator() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let swarm = format!("/v1/swarms/{}", place.swarm);
    let unknown = format!("{swarm}/agents/{}", Uuid::now_v7());
    for (role, allowed) in [
        (Role::User, false),
        (Role::Analyst, false),
        (Role::Developer, false),
        (Role::Operator, true),
        (Role::Admin, true),
    ] {
        let client = stage.with_role(role).await;
        let came = [
            (client.post(&format!("{swarm}/agents"), &exec()).await, 201),
            (client.put(&unknown, &json!({"slots": 2})).await, 404),
            (client.delete(&unknown).await, 404),
            (
                client.post(&format!("{unknown}/restart"), &json!({})).await,
                404,
            ),
            (
                client
                    .post(&format!("{swarm}/scale"), &json!({"delta": 0}))
                    .await,
                200,
            ),
        ];
        for (at, (came, status)) in came.into_iter().enumerate() {
            let expected = if allowed { status } else { 403 };
            assert_eq!(came.status, expected, "{role:?}, order {at}: {}", came.body);
        }
        assert_eq!(client.get(&unknown).await.status, 404, "{role:?} may look");
    }
    let (_, stranger) = stage.other_org().await;
    for came in [
        stranger.post(&format!("{swarm}/agents"), &exec()).await,
        stranger
            .post(&format!("{swarm}/scale"), &json!({"desired": 1}))
            .await,
        stranger.get(&format!("{unknown}/logs")).await,
    ] {
        came.refused(404, "unknown-swarm", Some("id"));
    }
}

#[tokio::test]
async fn an_agent_is_changed_restarted_and_removed() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (path, admin) = (format!("/v1/swarms/{}/agents", place.swarm), &stage.admin);
    let host = Host::new(&stage, "h");
    let id = admin.post(&path, &exec()).await.id();
    let (agent, at) = (AgentId(id), format!("{path}/{id}"));
    host.run(place, agent).await;
    let patch = json!({"capabilities": ["z", "y"], "slots": 5, "metadata": {"v": 2}});
    let changed = admin.put(&at, &patch).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(
        (
            &changed.body["capabilities"],
            &changed.body["slots"],
            &changed.body["metadata"]["v"]
        ),
        (&json!(["y", "z"]), &json!(5), &json!(2))
    );
    admin
        .put(&at, &json!({"slots": 0}))
        .await
        .refused(422, "out-of-range", Some("slots"));

    let restart = json!({"reason": "a new version", "grace_ms": 60_000});
    let restarted = admin.post(&format!("{at}/restart"), &restart).await;
    assert_eq!(restarted.status, 200, "{}", restarted.body);
    let draining = &restarted.body["draining"];
    assert_eq!(
        (
            &draining["then"],
            &draining["reason"],
            &draining["grace_ms"]
        ),
        (&json!("restart"), &json!("a new version"), &json!(60_000))
    );
    let again = admin.post(&format!("{at}/restart"), &json!({})).await;
    again.refused(409, "already-stopping", Some("agent"));
    host.exit(place, agent, 1, 0).await;
    let next = host.requested_again(place, agent, 1).await;
    assert_eq!((next.spawn, next.crashes), (2, 0));

    let removed = admin.delete(&format!("{at}?grace_ms=60000")).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    // No host has its new process: there is nothing to wait for.
    let gone = host.shown(&at, |agent| agent["status"] == "stopped").await;
    assert_eq!(gone["stop_reason"], "removed by command", "{gone}");
    let late = admin.delete(&at).await;
    late.refused(409, "already-stopped", Some("agent"));

    // One that came by itself is told to go as well, and is restarted where it was started.
    let by_hand = AgentId(Uuid::now_v7());
    stage
        .join(place, by_hand, InstanceId(Uuid::now_v7()), "hand")
        .await;
    let at = format!("{path}/{by_hand}");
    let came = admin.post(&format!("{at}/restart"), &json!({})).await;
    came.refused(409, "by-hand", Some("agent"));
    let came = admin.delete(&at).await;
    assert_eq!(
        (came.status, &came.body["draining"]["then"]),
        (200, &json!("remove")),
        "{}",
        came.body
    );
    let came = admin.delete(&format!("{at}?force=true")).await;
    assert_eq!(
        (came.status, came.text("status")),
        (200, "stopped"),
        "{}",
        came.body
    );
}

#[tokio::test]
async fn a_swarm_is_scaled_within_its_limits() {
    let stage = Stage::without_database().await;
    let settings = json!({"name": "a", "configuration": {"min_agents": 1, "max_agents": 5}});
    let place = stage.swarm(settings).await;
    let (swarm, admin) = (format!("/v1/swarms/{}", place.swarm), &stage.admin);
    let scale = format!("{swarm}/scale");
    let nothing = admin.post(&scale, &json!({"desired": 2})).await;
    nothing.refused(409, "nothing-alike", Some("agent_type"));
    let first = admin.post(&format!("{swarm}/agents"), &exec()).await.id();
    let up = admin.post_keyed(&scale, &json!({"desired": 4}), "k").await;
    assert_eq!(up.status, 200, "{}", up.body);
    assert_eq!(
        (&up.body["before"], &up.body["desired"]),
        (&json!(1), &json!(4))
    );
    let added = up.body["add"].as_array().expect("a list");
    assert_eq!((added.len(), &up.body["remove"]), (3, &json!([])));
    let again = admin.post_keyed(&scale, &json!({"desired": 4}), "k").await;
    assert_eq!(
        (again.status, &again.body, again.sequence()),
        (200, &up.body, up.sequence())
    );
    let other = admin.post_keyed(&scale, &json!({"desired": 3}), "k").await;
    other.refused(422, "key-reused", Some("Idempotency-Key"));
    let new = admin
        .get(&format!(
            "{swarm}/agents/{}",
            added[0].as_str().expect("an id")
        ))
        .await;
    assert_eq!(
        (new.status, new.text("adapter")),
        (200, "exec"),
        "{}",
        new.body
    );
    for (body, code, field) in [
        (json!({"desired": 6}), "max-agents", "desired"),
        (json!({"delta": 2}), "max-agents", "delta"),
        (json!({"desired": 0}), "min-agents", "desired"),
    ] {
        admin
            .post(&scale, &body)
            .await
            .refused(409, code, Some(field));
    }
    let down = admin.post(&scale, &json!({"delta": -3})).await;
    assert_eq!(
        (down.status, &down.body["desired"]),
        (200, &json!(1)),
        "{}",
        down.body
    );
    let removed = down.body["remove"].as_array().expect("a list");
    assert!(
        removed.len() == 3 && !removed.contains(&json!(first)),
        "the youngest go: {}",
        down.body
    );
}
