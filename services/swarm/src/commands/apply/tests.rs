//! What a file changes, and that the second time it changes nothing.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::{
    diff::{self, Change, Current},
    doing,
    file::{APPLIED, Declared},
};
use crate::{
    exit::{Code, Outcome},
    yaml,
};

const FILE: &str = "\
name: s
description: d
topology: ring
topology_configuration: {token_timeout_ms: 2000}
configuration: {min_agents: 1, retry: {base_ms: 7}}
agents:
  - agent_type: reader
    agent_name: r
    count: 3
    capabilities: [b, a]
    slots: 2
    adapter: exec
    command: [cat]
    metadata: {team: x}
";

fn read(text: &str) -> Declared {
    yaml::parsed("test.yaml", text).unwrap_or_else(|failure| panic!("{text}: {failure}"))
}

fn changes(declared: &Declared, current: Option<&Current>) -> Vec<Change> {
    declared.check().expect("good");
    let topology = declared.topology(None, current).expect("possible");
    diff::changes(declared, topology.as_ref(), current)
}

/// What there is after a file was applied: the gateway's part, played as it answers.
fn applied(declared: &Declared) -> Current {
    let all = changes(declared, None);
    let Some(Change::Create { body }) = all.first() else {
        panic!("{all:?}")
    };
    let settings = declared.settings().expect("good").unwrap_or_default();
    let topology = declared
        .topology(None, None)
        .expect("possible")
        .unwrap_or_default();
    let mut current = Current {
        id: "id".to_owned(),
        swarm: json!({"id": "id", "name": body["name"], "description": body["description"], "configuration": settings}),
        shape: json!({"topology": topology.kind(), "configuration": topology.configuration().to_value()}),
        agents: Vec::new(),
    };
    add(declared, &all, &mut current);
    current
}

fn add(declared: &Declared, changes: &[Change], current: &mut Current) {
    for change in changes {
        let Change::Add { group, names, .. } = change else {
            continue;
        };
        let group = &declared.agents.as_ref().expect("agents")[*group];
        for name in names {
            let body = group.body(name, 1);
            let count = current.agents.len();
            current.agents.push(json!({"id": format!("a{count}"), "agent_type": body["agent_type"], "agent_name": name,
                "capabilities": body["capabilities"], "slots": body["slots"], "waiting_limit": body["waiting"], "metadata": body["metadata"],
                "status": "idle", "draining": null}));
        }
    }
}

fn names(current: &Current) -> Vec<&str> {
    let agents = current.agents.iter();
    agents
        .map(|agent| agent["agent_name"].as_str().expect("a name"))
        .collect()
}

#[test]
fn given_nothing_then_all_of_it_is_made_and_the_second_time_nothing_differs() {
    let declared = read(FILE);
    let all = changes(&declared, None);
    assert_eq!(all.len(), 2, "{all:?}");
    let Change::Create { body } = &all[0] else {
        panic!("{all:?}")
    };
    assert_eq!(
        (&body["name"], &body["topology"]),
        (&json!("s"), &json!("ring"))
    );
    assert_eq!(body["topology_configuration"]["token_timeout_ms"], 2_000);
    assert_eq!(
        body["configuration"],
        json!({"min_agents": 1, "retry": {"base_ms": 7}})
    );
    let current = applied(&declared);
    assert_eq!(names(&current), ["r-1", "r-2", "r-3"]);
    assert_eq!(current.agents[0]["metadata"]["team"], "x");
    assert_eq!(changes(&declared, Some(&current)), []);
}

#[test]
fn given_another_setting_then_it_alone_is_set_and_what_is_not_named_goes_back() {
    let declared = read(FILE);
    let current = applied(&declared);
    let other = read(
        &FILE
            .replace("min_agents: 1, retry: {base_ms: 7}", "max_agents: 9")
            .replace("description: d", "description: e"),
    );
    let all = changes(&other, Some(&current));
    let set: Vec<(&str, &Value, &Value)> = all
        .iter()
        .map(|change| match change {
            Change::Set {
                field,
                before,
                after,
            } => (field.as_str(), before, after),
            other => panic!("{other:?}"),
        })
        .collect();
    let defaults =
        serde_json::to_value(swarm_events::configuration::Configuration::default()).expect("JSON");
    assert_eq!(
        set,
        [
            ("description", &json!("d"), &json!("e")),
            (
                "configuration.max_agents",
                &defaults["max_agents"],
                &json!(9)
            ),
            (
                "configuration.min_agents",
                &json!(1),
                &defaults["min_agents"]
            ),
            (
                "configuration.retry.base_ms",
                &json!(7),
                &defaults["retry"]["base_ms"]
            ),
        ]
    );
    let patch = diff::patch(&all).expect("a patch");
    assert_eq!(patch["configuration"]["max_agents"], 9);
    assert_eq!(
        patch["configuration"]["retry"]["base_ms"],
        defaults["retry"]["base_ms"]
    );
    assert_eq!(patch["description"], "e");
    // A section that is left out is left alone.
    let bare = read("name: s");
    assert_eq!(changes(&bare, Some(&current)), []);
}

#[test]
fn given_another_topology_or_option_then_it_is_asked_for_as_a_whole() {
    let declared = read(FILE);
    let current = applied(&declared);
    for (section, kind, option, value) in [
        (
            "topology: mesh\ntopology_configuration: {neighbours: 6}",
            "mesh",
            "neighbours",
            json!(6),
        ),
        ("topology: ring", "ring", "token_timeout_ms", json!(5_000)),
        (
            "topology_configuration: {order: load}",
            "ring",
            "token_timeout_ms",
            json!(5_000),
        ),
    ] {
        let text = FILE.replace(
            "topology: ring\ntopology_configuration: {token_timeout_ms: 2000}",
            section,
        );
        let all = changes(&read(&text), Some(&current));
        assert_eq!(all.len(), 1, "{all:?}");
        let body = diff::topology_body(&all).expect("a topology");
        assert_eq!(
            (&body["topology"], &body["configuration"][option]),
            (&json!(kind), &value),
            "{section}"
        );
        assert!(all[0].line().contains("topology"), "{}", all[0].line());
    }
}

#[test]
fn given_parents_that_are_no_longer_wanted_then_they_are_taken_out() {
    let text = "name: s\ntopology: hierarchical\ntopology_configuration: {parents: {a: b, c: b}}";
    let current = applied(&read(text));
    let all = changes(&read(&text.replace("a: b, ", "")), Some(&current));
    let body = diff::topology_body(&all).expect("a topology");
    assert_eq!(
        body["configuration"]["parents"],
        json!({"a": null, "c": "b"})
    );
}

#[test]
fn given_a_template_then_its_options_are_begun_from() {
    let declared = read("name: s\ntemplate: t\ntopology_configuration: {order: load}");
    let template = json!({"topology_type": "ring", "configuration": {"token_timeout_ms": 9}});
    let topology = declared
        .topology(Some(&template), None)
        .expect("possible")
        .expect("one");
    let options = topology.configuration().to_value();
    assert_eq!(
        (&options["order"], &options["token_timeout_ms"]),
        (&json!("load"), &json!(9))
    );
    assert_eq!(declared.template(), Some("t"));
}

#[test]
fn given_fewer_or_more_agents_then_the_last_ones_go_and_free_numbers_are_taken() {
    let declared = read(FILE);
    let mut current = applied(&declared);
    let fewer = changes(&read(&FILE.replace("count: 3", "count: 1")), Some(&current));
    let [
        Change::Remove {
            agents,
            before,
            after,
            ..
        },
    ] = &fewer[..]
    else {
        panic!("{fewer:?}")
    };
    assert_eq!((*before, *after), (3, 1));
    let gone: Vec<&str> = agents.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(gone, ["r-2", "r-3"]);
    // The one in the middle has gone, another group's agent has a name of ours, and one that goes counts no more.
    current.agents[1]["status"] = json!("stopped");
    current.agents[2]["draining"] = json!({"then": "remove"});
    let mut stranger = current.agents[0].clone();
    stranger["agent_type"] = json!("other");
    stranger["agent_name"] = json!("r-2");
    current.agents.push(stranger);
    let more = changes(&declared, Some(&current));
    let [Change::Add { names, before, .. }] = &more[..] else {
        panic!("{more:?}")
    };
    assert_eq!(
        (*before, names.as_slice()),
        (1, &["r-3".to_owned(), "r-4".to_owned()][..])
    );
    // Nobody's: other types, and names that only begin alike.
    let none = changes(&read(&FILE.replace("count: 3", "count: 0")), Some(&current));
    let [Change::Remove { agents, .. }] = &none[..] else {
        panic!("{none:?}")
    };
    assert_eq!(agents.len(), 1);
}

#[test]
fn given_agents_that_differ_then_they_are_told_or_started_anew() {
    let declared = read(FILE);
    let mut current = applied(&declared);
    let told = changes(
        &read(&FILE.replace("[b, a]", "[c]").replace("team: x", "team: y")),
        Some(&current),
    );
    assert_eq!(told.len(), 3, "{told:?}");
    let Change::Update { patch, .. } = &told[0] else {
        panic!("{told:?}")
    };
    assert_eq!(
        *patch,
        json!({"capabilities": ["c"], "metadata": {"team": "y"}})
    );
    let anew = changes(&read(&FILE.replace("[cat]", "[sort]")), Some(&current));
    assert!(
        anew.iter()
            .all(|change| matches!(change, Change::Replace { .. }))
            && anew.len() == 3,
        "{anew:?}"
    );
    // Of what was not started by a file it is not known how it was.
    for agent in &mut current.agents {
        agent["metadata"]
            .as_object_mut()
            .map(|all| all.remove(APPLIED));
    }
    assert_eq!(
        changes(&read(&FILE.replace("[cat]", "[sort]")), Some(&current)),
        []
    );
}

#[test]
fn a_group_of_one_has_its_name_without_a_number() {
    let text = "name: s\nagents: [{agent_type: t}, {agent_type: u, count: 2}]";
    let current = applied(&read(text));
    assert_eq!(names(&current), ["t", "u-1", "u-2"]);
    assert_eq!(changes(&read(text), Some(&current)), []);
    let more = changes(
        &read("name: s\nagents: [{agent_type: t, count: 2}]"),
        Some(&current),
    );
    let [Change::Add { names, .. }] = &more[..] else {
        panic!("{more:?}")
    };
    assert_eq!(names, &["t-1"]);
}

#[test]
fn a_file_is_refused_by_its_field_and_with_a_cure() {
    let long = "x".repeat(101);
    for (text, field) in [
        ("name: ''".to_owned(), "name"),
        (format!("name: {long}"), "name"),
        (
            "name: s\ntopology: star\ntemplate: t".to_owned(),
            "topology",
        ),
        (
            "name: s\ntopology: mesh\ntopology_configuration: {neighbours: 3}".to_owned(),
            "topology_configuration.neighbours",
        ),
        (
            "name: s\nconfiguration: {max_agents: 0}".to_owned(),
            "configuration.max_agents",
        ),
        (
            "name: s\nconfiguration: {max_agent: 1}".to_owned(),
            "max_agent",
        ),
        (
            "name: s\nconfiguration: {max_agents: 3}\ntopology: hierarchical".to_owned(),
            "topology_configuration.levels",
        ),
        (
            "name: s\nagents: [{agent_type: t, count: 1001}]".to_owned(),
            "agents[0].count",
        ),
        (
            "name: s\nagents: [{agent_type: t}, {agent_type: t}]".to_owned(),
            "agents[1].agent_name",
        ),
        (
            "name: s\nagents: [{agent_type: t}, {agent_type: u, agent_name: t-2}]".to_owned(),
            "agents[1].agent_name",
        ),
    ] {
        let declared = read(&text);
        let problem = declared
            .check()
            .and_then(|()| declared.topology(None, None).map(drop));
        let problem = problem.expect_err(&text).to_string();
        assert!(
            problem.contains(field) && problem.contains(" ("),
            "{text}: {problem}"
        );
    }
    for (text, field) in [
        ("topology: star", "name"),
        ("name: s\ntopology: cube", "topology"),
        ("name: s\nagent: []", "agent"),
        ("name: s\nagents: [{count: 1}]", "agents[0]"),
        (
            "name: s\nagents: [{agent_type: t, cuont: 1}]",
            "agents[0].cuont",
        ),
        (
            "name: s\nagents: [{agent_type: t, count: -1}]",
            "agents[0].count",
        ),
    ] {
        let failure = yaml::parsed::<Declared>("test.yaml", text).expect_err(text);
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.message.contains(field), "{text}: {failure}");
    }
    read("name: s\nagents: [{agent_type: t, count: 1000}]")
        .check()
        .expect("at the limit");
}

#[test]
fn every_change_is_shown_to_people_and_programs() {
    let declared = read(FILE);
    let current = applied(&declared);
    let mut all = changes(&declared, None);
    let other = FILE
        .replace("ring", "mesh")
        .replace("{token_timeout_ms: 2000}", "{}")
        .replace("min_agents: 1", "min_agents: 2");
    all.extend(changes(
        &read(
            &other
                .replace("count: 3", "count: 2")
                .replace("slots: 2", "slots: 4"),
        ),
        Some(&current),
    ));
    all.extend(changes(
        &read(&FILE.replace("[cat]", "[sort]")),
        Some(&current),
    ));
    let actions: Vec<String> = all
        .iter()
        .map(|change| {
            change.json()["action"]
                .as_str()
                .expect("an action")
                .to_owned()
        })
        .collect();
    for action in ["create", "set", "add", "remove", "update", "replace"] {
        assert!(actions.iter().any(|one| one == action), "{actions:?}");
    }
    for change in &all {
        assert!(
            !change.line().is_empty() && change.json()["what"].is_string(),
            "{change:?}"
        );
    }
    let lines: Vec<String> = all.iter().map(Change::line).collect();
    assert!(
        lines
            .iter()
            .any(|line| line == "~ configuration.min_agents: 1 → 2"),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line == "- agents r: 3 → 2 (r-3)"),
        "{lines:?}"
    );
}

/// The ready ones, as they are shipped.
#[test]
fn every_example_is_a_swarm_that_can_be() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut kinds = Map::new();
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("a file").path();
        let declared: Declared = yaml::read(&path).unwrap_or_else(|failure| panic!("{failure}"));
        let all = changes(&declared, None);
        let Change::Create { body } = &all[0] else {
            panic!("{all:?}")
        };
        assert!(
            body["description"].is_string() && all.len() > 1,
            "{}",
            path.display()
        );
        kinds.insert(body["topology"].to_string(), Value::Null);
        assert_eq!(
            changes(&declared, Some(&applied(&declared))),
            [],
            "{}",
            path.display()
        );
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
}

/// The change of the topology, and the words for what comes before it.
fn order(changes: &[Change]) -> (Vec<&'static str>, Vec<String>) {
    let word = |change: &Change| match change {
        Change::Create { .. } | Change::Set { .. } => "set",
        Change::Topology { .. } => "topology",
        Change::Add { .. } => "add",
        Change::Update { .. } => "update",
        Change::Replace { .. } => "replace",
        Change::Remove { .. } => "remove",
    };
    let awaited = changes.iter().find_map(|change| match change {
        Change::Topology { awaited, .. } => Some(awaited.clone()),
        _ => None,
    });
    (
        changes.iter().map(word).collect(),
        awaited.unwrap_or_default(),
    )
}

#[test]
fn given_a_topology_that_names_agents_of_the_file_then_it_waits_for_those_that_are_not_there() {
    let before = "name: s\ntopology: star\nagents: [{agent_type: w, count: 2, command: [cat]}]";
    let current = applied(&read(before));
    let agents =
        "agents: [{agent_type: w, count: 3, command: [cat]}, {agent_type: h, command: [cat]}]";
    for (topology, awaited) in [
        (
            "topology: star\ntopology_configuration: {workers: [w-1, w-3]}",
            &["w-3"][..],
        ),
        (
            "topology: star\ntopology_configuration: {coordinator: {agent_name: h}, workers: [w-3, x]}",
            &["h", "w-3"],
        ),
        (
            "topology: hierarchical\ntopology_configuration: {parents: {w-1: h, w-2: h}}",
            &["h"],
        ),
        (
            "topology: mesh\ntopology_configuration: {connections: [[w-3, w-1]]}",
            &["w-3"],
        ),
        // Nobody who comes: the change makes room for them first.
        (
            "topology: star\ntopology_configuration: {workers: [w-1, somebody]}",
            &[],
        ),
        ("topology: ring", &[]),
    ] {
        let declared = read(&format!("name: s\n{topology}\n{agents}"));
        let all = changes(&declared, Some(&current));
        let (words, names) = order(&all);
        assert_eq!(names, awaited, "{topology}");
        let expected = if awaited.is_empty() {
            ["topology", "add", "add"]
        } else {
            ["add", "add", "topology"]
        };
        assert_eq!(words, expected, "{topology}");
        // A dry run cannot ask what would become of it.
        assert_eq!(diff::topology_body(&all).is_some(), awaited.is_empty());
        let told = all.iter().map(Change::line).collect::<Vec<_>>().join("\n");
        assert_eq!(told.contains("are there)"), !awaited.is_empty(), "{told}");
    }
    // An earlier attempt has added it, and its process has not joined.
    let declared = read(&format!(
        "name: s\ntopology: star\ntopology_configuration: {{workers: [w-3]}}\n{agents}"
    ));
    let mut current = current;
    let all = changes(&declared, Some(&current));
    add(&declared, &all, &mut current);
    for (status, awaited) in [("starting", &["w-3"][..]), ("idle", &[])] {
        for agent in &mut current.agents {
            if agent["agent_name"] == "w-3" {
                agent["status"] = json!(status);
            }
        }
        let all = changes(&declared, Some(&current));
        let (words, names) = order(&all);
        assert_eq!(
            (words, names.as_slice()),
            (vec!["topology"], awaited_of(awaited).as_slice())
        );
    }
}

fn awaited_of(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn who_is_awaited_is_there_once_it_works_and_the_wait_ends() {
    let names = awaited_of(&["a", "b"]);
    let node = |name: &str, status: &str| json!({"agent_name": name, "status": status});
    let shapes = [
        json!({"nodes": [node("a", "idle"), node("c", "idle")]}),
        json!({"nodes": [node("a", "busy"), node("b", "starting")]}),
        json!({"nodes": [node("a", "busy"), node("b", "idle")]}),
    ];
    let looks = AtomicUsize::new(0);
    let shape = async || Ok(shapes[looks.fetch_add(1, Ordering::Relaxed)].clone());
    let there = doing::until_there(shape, &names, Duration::from_secs(60)).await;
    assert!(there.is_ok());
    assert_eq!(looks.load(Ordering::Relaxed), 3);
    // The limit: one look, and no wait.
    looks.store(0, Ordering::Relaxed);
    let shape = async || Ok(shapes[looks.fetch_add(1, Ordering::Relaxed)].clone());
    let late = doing::until_there(shape, &names, Duration::ZERO).await;
    let failure = late.expect_err("b is not there");
    assert_eq!(
        (failure.code, looks.load(Ordering::Relaxed)),
        (Code::Timeout, 1)
    );
    assert!(failure.message.contains("names b, and after"), "{failure}");
    // Nobody is awaited: nobody is asked.
    let nobody = async || -> Outcome<Value> { panic!("asked") };
    assert!(
        doing::until_there(nobody, &[], Duration::ZERO)
            .await
            .is_ok()
    );
}
