//! The shape of a swarm: who has which place, what is said, and how it is changed.

use std::time::Duration;

use crate::support::{PATIENCE, Stage};
use futures::StreamExt;
use serde_json::{Value, json};
use swarm_events::{
    AgentId, Event, EventId, InstanceId, Json, Place, Subject,
    envelope::Source,
    message::{Purpose, Sent},
    org::Role,
    subject::{Recipient, Sender, TaskVerb},
    task::Started,
};
use swarm_gateway::app::App;
use swarm_log::{Log, Tailed, jetstream::JetStreamLog};
use tokio::time::timeout;
use uuid::Uuid;

/// Lets agents of these names join, one after another, and waits until each has its place.
async fn agents(stage: &Stage, place: Place, names: &[&str]) -> Vec<AgentId> {
    let mut agents = Vec::new();
    for name in names {
        let agent = AgentId(Uuid::now_v7());
        stage
            .join(place, agent, InstanceId(Uuid::now_v7()), name)
            .await;
        let seated = |app: &App| {
            let fold = app.fold.read();
            let swarm = fold.swarm(place.org, place.swarm);
            swarm.is_some_and(|swarm| swarm.shape.seat(agent).is_some())
        };
        stage.eventually(seated).await;
        agents.push(agent);
    }
    let led = |app: &App| {
        let fold = app.fold.read();
        let swarm = fold.swarm(place.org, place.swarm);
        swarm.is_some_and(|swarm| swarm.leader().is_some())
    };
    stage.eventually(led).await;
    agents
}

fn path(place: Place) -> String {
    format!("/v1/swarms/{}/topology", place.swarm)
}

fn node(shape: &Value, agent: AgentId) -> &Value {
    let nodes = shape["nodes"].as_array().expect("nodes");
    let found = nodes
        .iter()
        .find(|node| node["agent_id"] == agent.to_string());
    found.unwrap_or_else(|| panic!("no node of {agent} in {shape}"))
}

#[tokio::test]
async fn a_shape_says_who_has_which_place_and_who_may_talk_to_whom() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let empty = stage.admin.get(&path(place)).await;
    assert_eq!(
        (empty.status, empty.text("topology")),
        (200, "star"),
        "{}",
        empty.body
    );
    assert_eq!(
        (&empty.body["nodes"], &empty.body["edges"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(
        (&empty.body["leader_agent_id"], &empty.body["generation"]),
        (&Value::Null, &json!(1))
    );

    let all = agents(&stage, place, &["eldest", "second", "third"]).await;
    let shape = stage.admin.get(&path(place)).await.body;
    assert_eq!(shape["nodes"].as_array().expect("nodes").len(), 3);
    let hub = node(&shape, all[0]);
    assert_eq!(
        (&hub["role"], &hub["level"], &hub["works"]),
        (&json!("coordinator"), &json!(0), &json!(true))
    );
    assert_eq!(
        (&hub["is_leader"], &hub["agent_name"]),
        (&json!(true), &json!("eldest"))
    );
    assert!(
        hub["reason"].as_str().is_some_and(|why| !why.is_empty()),
        "{hub}"
    );
    assert_eq!(shape["leader_agent_id"], all[0].to_string());
    assert!(shape["election"]["reason"].is_string(), "{shape}");
    assert_eq!(node(&shape, all[1])["role"], "worker");
    let edges = shape["edges"].as_array().expect("edges");
    let hub = json!(all[0].to_string());
    assert_eq!(edges.len(), 2, "{shape}");
    assert!(
        edges
            .iter()
            .all(|edge| edge["from"] == hub || edge["to"] == hub),
        "{shape}"
    );
    assert_eq!(
        (&shape["edges_truncated"], &shape["messages"]["kept"]),
        (&json!(false), &json!(0))
    );
    // The agent says of itself the same.
    let shown = stage
        .admin
        .get(&format!("/v1/swarms/{}/agents/{}", place.swarm, all[0]))
        .await;
    assert_eq!(shown.text("role"), "coordinator");

    let (_, stranger) = stage.other_org().await;
    stranger
        .get(&path(place))
        .await
        .refused(404, "unknown-swarm", Some("id"));
    stage
        .admin
        .get(&format!("{}?x=1", path(place)))
        .await
        .refused(400, "bad-parameter", Some("?x"));
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_the_change_does_it() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let all = agents(&stage, place, &["a", "b", "c"]).await;
    let before = stage.last_sequence().await;
    let body = json!({"topology": "ring", "configuration": {"token_timeout_ms": 50}, "reason": "in order"});
    let planned = stage
        .admin
        .put(&format!("{}?dry_run=true", path(place)), &body)
        .await;
    assert_eq!(
        (planned.status, planned.text("outcome")),
        (200, "planned"),
        "{}",
        planned.body
    );
    assert_eq!(
        (
            &planned.body["generation"],
            &planned.body["agents"],
            &planned.body["moves"]
        ),
        (&json!(2), &json!(3), &json!(1))
    );
    stage.nothing_came_since(before).await;

    let changed = stage.admin.put(&path(place), &body).await;
    assert_eq!(
        (changed.status, changed.text("outcome")),
        (200, "changed"),
        "{}",
        changed.body
    );
    for field in [
        "generation",
        "agents",
        "moves",
        "topology",
        "configuration",
        "before",
        "reason",
    ] {
        assert_eq!(changed.body[field], planned.body[field], "{field}");
    }
    assert_eq!(
        (
            changed.text("topology"),
            &changed.body["before"]["topology"]
        ),
        ("ring", &json!("star"))
    );
    assert_eq!(changed.body["configuration"]["token_timeout_ms"], 50);
    assert!(changed.body["took_ms"].is_u64() && changed.sequence() > before);
    let items = |body: &Value| {
        let items = body["items"].as_array().expect("items").clone();
        items
            .iter()
            .map(|item| (item["agent_id"].clone(), item["after"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(items(&changed.body), items(&planned.body));
    let shape = stage.admin.get(&path(place)).await.body;
    assert_eq!(
        (&shape["topology"], &shape["generation"]),
        (&json!("ring"), &json!(2))
    );
    assert_eq!(
        shape["edges"].as_array().expect("edges").len(),
        3,
        "{shape}"
    );
    assert_eq!(
        (&shape["change"], &shape["last_change"]["outcome"]),
        (&Value::Null, &json!("changed"))
    );
    assert_eq!(shape["last_change"]["reason"], "in order");
    assert!(
        all.iter()
            .all(|agent| node(&shape, *agent)["role"] == "worker"),
        "{shape}"
    );

    // What there is already is no change, asked for in whatever words.
    for query in ["", "?dry_run=true"] {
        for again in [
            &body,
            &json!({"configuration": {"token_timeout_ms": 50}}),
            &json!({"configuration": {}}),
        ] {
            let path = format!("{}{query}", path(place));
            stage
                .admin
                .put(&path, again)
                .await
                .refused(409, "nothing-changes", Some("topology"));
        }
    }
    let back = stage
        .admin
        .put(&path(place), &json!({"template": "star"}))
        .await;
    assert_eq!(
        (
            back.text("topology"),
            &back.body["configuration"]["max_workers"]
        ),
        ("star", &json!(50)),
        "{}",
        back.body
    );
    let reset = stage
        .admin
        .put(
            &path(place),
            &json!({"configuration": {"max_workers": null}}),
        )
        .await;
    assert_eq!(
        (
            &reset.body["generation"],
            &reset.body["configuration"]["max_workers"]
        ),
        (&json!(4), &Value::Null)
    );
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_its_field_and_nothing_is_stored() {
    let stage = Stage::without_database().await;
    let place = stage
        .swarm(json!({"name": "a", "configuration": {"max_agents": 4}}))
        .await;
    let user = stage.with_role(Role::User).await;
    let before = stage.last_sequence().await;
    let admin = &stage.admin;
    user.put(&path(place), &json!({"topology": "ring"}))
        .await
        .refused(403, "forbidden", Some("Authorization"));
    for (body, code, field) in [
        (json!({}), "nothing-to-change", "body"),
        (json!({"topology": "cube"}), "wrong-value", "topology"),
        (
            json!({"topology": "ring", "colour": 1}),
            "unknown-field",
            "colour",
        ),
        (
            json!({"template": "nobody's"}),
            "unknown-template",
            "template",
        ),
        (
            json!({"template": "ring", "topology": "star"}),
            "contradiction",
            "topology",
        ),
        (
            json!({"configuration": {"coordinator_count": 4}}),
            "too-many-coordinators",
            "configuration.coordinator_count",
        ),
        (
            json!({"topology": "hierarchical"}),
            "too-many-coordinators",
            "configuration.levels",
        ),
        (
            json!({"topology": "hierarchical", "configuration": {"parent_child_ratio": 0}}),
            "out-of-range",
            "configuration.parent_child_ratio",
        ),
        (
            json!({"topology": "ring", "reason": "x".repeat(1_001)}),
            "too-long",
            "reason",
        ),
    ] {
        for query in ["", "?dry_run=true"] {
            let came = admin.put(&format!("{}{query}", path(place)), &body).await;
            came.refused(422, code, Some(field));
        }
    }
    admin
        .put(
            &format!("{}?dry_run=maybe", path(place)),
            &json!({"topology": "ring"}),
        )
        .await
        .refused(400, "bad-parameter", Some("?dry_run"));
    // Workers that are named, and of whom none is there.
    let named = json!({"topology": "star", "configuration": {"workers": ["nobody"]}});
    admin
        .put(&format!("{}?dry_run=true", path(place)), &named)
        .await
        .refused(409, "nobody-there", Some("configuration.workers"));
    stage.nothing_came_since(before).await;
    for (body, code, field) in [
        (
            json!({"topology": "mesh", "topology_configuration": {"neighbours": 3}}),
            "odd",
            "topology_configuration.neighbours",
        ),
        (
            json!({"topology_configuration": {"ring": 1}}),
            "bad-configuration",
            "topology_configuration.ring",
        ),
        (
            json!({"topology": "mesh", "template": "star"}),
            "contradiction",
            "topology",
        ),
        (
            json!({"template": "hierarchical", "configuration": {"max_agents": 3}}),
            "too-many-coordinators",
            "topology_configuration.levels",
        ),
    ] {
        let mut body = body;
        body["name"] = json!("b");
        admin
            .post("/v1/swarms", &body)
            .await
            .refused(422, code, Some(field));
    }
}

#[tokio::test]
async fn a_change_says_how_many_tasks_it_took_back() {
    let stage = Stage::without_database().await;
    let place = stage
        .swarm(json!({"name": "a", "configuration": {"agent_waiting": 2}}))
        .await;
    let all = agents(&stage, place, &["a", "b"]).await;
    let nothing = stage
        .admin
        .put(&path(place), &json!({"topology": "mesh"}))
        .await;
    assert_eq!(nothing.body["withdrawn"], 0, "{}", nothing.body);
    let tasks: Vec<Value> = (0..5)
        .map(|n| json!({"task_type": "t", "payload": {"n": n}}))
        .collect();
    let came = stage
        .admin
        .post(
            &format!("/v1/swarms/{}/tasks", place.swarm),
            &json!({"tasks": tasks}),
        )
        .await;
    assert_eq!(came.status, 202, "{}", came.body);
    let held = |app: &App| {
        let fold = app.fold.read();
        let measure = fold.measure(place);
        measure.is_some_and(|measure| measure.last.assigned == 5)
    };
    stage.eventually(held).await;
    // One of them begins.
    let filter = format!("swarm.evt.{place}.task.assigned.{}", all[0]);
    let first = &stage.stored(&filter).await[0];
    let task: Uuid = first["subject"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .expect("an id");
    let assignment = first_of(&stage.log, &filter).await;
    let started = Started {
        assignment,
        incarnation: first["data"]["incarnation"].as_u64().expect("a number"),
    };
    stage
        .publish_as_agent(place, all[0], TaskVerb::Started, task, started.into())
        .await;
    let dry = format!("{}?dry_run=true", path(place));
    let ring = json!({"topology": "ring"});
    let planned = stage.admin.put(&dry, &ring).await;
    assert_eq!(planned.body["withdrawn"], Value::Null, "{}", planned.body);
    let changed = stage.admin.put(&path(place), &ring).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(changed.body["withdrawn"], 4, "{}", changed.body);
    assert!(changed.body["withdrawn_at_most"].is_u64());
    let filter = format!("swarm.evt.{place}.task.withdrawn.>");
    assert_eq!(stage.stored(&filter).await.len(), 4);
}

/// Sequence of the first message that a filter takes.
async fn first_of(log: &JetStreamLog, filter: &str) -> u64 {
    let mut tail = log.tail(vec![filter.to_owned()], 1);
    loop {
        let next = timeout(PATIENCE, tail.next()).await.expect("in time");
        if let Tailed::Message(message) = next.expect("open").expect("readable") {
            return message.sequence;
        }
    }
}

#[tokio::test]
async fn given_a_change_that_cannot_be_completed_then_the_old_topology_goes_on_and_the_answer_says_why()
 {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    agents(&stage, place, &["a"]).await;
    let named = json!({"configuration": {"workers": ["nobody"]}});
    let kept = stage.admin.put(&path(place), &named).await;
    assert_eq!(kept.status, 409, "{}", kept.body);
    assert_eq!(kept.text("field"), "configuration.workers");
    assert!(kept.body["cure"].is_string());
    let shape = stage.admin.get(&path(place)).await.body;
    assert_eq!(
        (&shape["generation"], &shape["configuration"]["workers"]),
        (&json!(1), &json!([]))
    );
}

/// Says something as that agent.
async fn say(stage: &Stage, place: Place, from: AgentId, to: Recipient) {
    let subject = Subject::Message(place, Sender::Agent(from), to);
    let sent = Sent {
        incarnation: 1,
        purpose: Purpose::Tell,
        topic: None,
        receipt: None,
        expires_ms: None,
        abroad: None,
        body: Json::object(),
    };
    let event = Event::new(
        EventId(Uuid::now_v7()),
        Source::Agent(from),
        App::now(),
        &subject,
        from.0,
        sent,
    );
    let context = async_nats::jetstream::new(stage.log.client().clone());
    let payload = event.to_json().expect("JSON");
    let stored = context
        .publish(subject.to_string(), payload.into())
        .await
        .expect("sent");
    stored.await.expect("stored");
}

#[tokio::test]
async fn what_is_said_is_counted_by_edge_and_watched_once_somebody_looks() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a", "topology": "mesh"})).await;
    let other = stage.swarm(json!({"name": "b"})).await;
    let all = agents(&stage, place, &["a", "b", "c"]).await;
    for (from, to) in [(0, 1), (0, 1), (1, 0), (1, 2)] {
        say(&stage, place, all[from], Recipient::Agent(all[to])).await;
    }
    say(&stage, place, all[0], Recipient::All).await;
    say(&stage, other, all[0], Recipient::Agent(all[1])).await;
    let shape = stage.admin.get(&path(place)).await.body;
    assert_eq!(
        shape["messages"],
        json!({"kept": 5, "per_second": null, "window_ms": null})
    );
    let between = |shape: &Value, a: usize, b: usize, field: &str| {
        let ends = [json!(all[a].to_string()), json!(all[b].to_string())];
        let edges = shape["edges"].as_array().expect("edges").clone();
        let edge = edges
            .into_iter()
            .find(|edge| ends.contains(&edge["from"]) && ends.contains(&edge["to"]));
        edge.expect("an edge")[field].clone()
    };
    assert_eq!(between(&shape, 0, 1, "messages"), 3);
    assert_eq!(between(&shape, 1, 2, "messages"), 1);
    assert_eq!(between(&shape, 0, 2, "messages"), 0);
    assert_eq!(node(&shape, all[0])["messages"], 3);
    assert_eq!(node(&shape, all[0])["per_second"], Value::Null);

    // From the first look on they are counted as they come.
    say(&stage, place, all[2], Recipient::Agent(all[1])).await;
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let watched = async {
        loop {
            look.tick().await;
            let shape = stage.admin.get(&path(place)).await.body;
            if shape["messages"]["per_second"].as_f64() > Some(0.0) {
                return shape;
            }
        }
    };
    let shape = timeout(PATIENCE, watched).await.expect("watched");
    let window = shape["messages"]["window_ms"].as_f64().expect("a window");
    let rate = shape["messages"]["per_second"].as_f64().expect("a rate");
    assert_eq!((rate * window / 1_000.0).round(), 1.0, "{shape}");
    assert_eq!(between(&shape, 1, 2, "per_second"), json!(rate));
    assert_eq!(between(&shape, 0, 1, "per_second"), 0.0);
}
