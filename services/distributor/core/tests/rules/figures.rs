//! `measured`: at most once a second, only while figures move, only agents that moved; and once after each change of the
//! topology.

use std::collections::BTreeMap;

use swarm_distributor_core::MEASURE_MS;
use swarm_events::{
    Body, Input,
    swarm::{AgentLoad, MEASURED_NAMES_MAX, Measured, OTHER_NAMES, Outcomes, SAMPLE_AGENTS_MAX},
    topology::{Mesh, Ring, Role, Star, Topology},
};

use crate::scene::{Scene, shape::seat};

fn figures(s: &mut Scene) -> Vec<Measured> {
    s.world.settle();
    let all: Vec<Measured> = s
        .world
        .inputs()
        .filter_map(|input| match input {
            Input::Event(recorded) => match recorded.event.body {
                Body::SwarmMeasured(measured) => Some(measured),
                _ => None,
            },
            Input::Unreadable(_) => None,
        })
        .collect();
    all
}

#[test]
fn figures_are_written_once_a_second_while_they_move() {
    let mut s = Scene::new();
    s.submit("1");
    assert_eq!(figures(&mut s).len(), 1);
    for n in 2..10 {
        s.submit(&n.to_string());
    }
    s.world.later(MEASURE_MS - 1);
    assert_eq!(figures(&mut s).len(), 1);
    s.world.later(1);
    let all = figures(&mut s);
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].queued, 9);
    assert_eq!(all[1].oldest_wait_ms, MEASURE_MS);
    s.world.later(10 * MEASURE_MS);
    assert_eq!(figures(&mut s).len(), 2, "nothing moved");
    assert_eq!(s.world.next_deadline(), None);
}

#[test]
fn figures_count_what_is_there() {
    let mut s = Scene::new();
    s.join_as("A", 2, 1, &["x"]);
    for name in ["1", "2", "3", "4"] {
        s.submit(name);
    }
    s.submit_as("unmet", |t| t.required_capabilities = vec!["nobody".into()]);
    s.world.settle();
    s.start("1");
    s.start("2");
    s.complete("1");
    s.fail_attempt("2", false);
    s.world.settle();
    s.world.later(MEASURE_MS);
    let last = figures(&mut s).pop().expect("figures");
    assert_eq!((last.queued, last.unmet, last.pending), (1, 1, 0));
    assert_eq!((last.assigned, last.running), (2, 0));
    assert_eq!((last.completed, last.failed, last.cancelled), (1, 1, 0));
    let load = AgentLoad {
        running: 0,
        waiting: 2,
        completed: 1,
        failed: 1,
        ..AgentLoad::default()
    };
    assert_eq!(last.agents.into_values().collect::<Vec<_>>(), [load]);
}

#[test]
fn figures_that_moved_back_are_not_written_and_the_next_are() {
    let mut s = Scene::new();
    s.submit("t");
    assert_eq!(figures(&mut s).len(), 1);
    s.join("A");
    s.world.settle();
    s.leave("A");
    s.world.settle();
    s.world.later(MEASURE_MS);
    assert_eq!(figures(&mut s).len(), 1, "queued as before");
    s.submit("u");
    assert_eq!(figures(&mut s).len(), 2);
}

#[test]
fn given_a_change_of_the_topology_then_figures_follow_all_that_it_takes_back() {
    let mut s = Scene::shaped(Topology::Star(Star::default()));
    for (place, name) in (0..).zip(["A", "B"]) {
        s.join_as(name, 1, 1, &[]);
        s.seat(name, seat(Role::Worker, place));
    }
    let ring = Topology::Ring(Ring::default());
    let mesh = Topology::Mesh(Mesh::default());
    // Nothing is there that could move, and the last figures are younger than a second.
    for after in [&ring, &mesh] {
        let before = figures(&mut s).len();
        let generation = s.plan_topology(after);
        for (place, name) in (0..).zip(["A", "B"]) {
            s.seat_in(generation, name, Some(seat(Role::Worker, place)));
        }
        assert_eq!(figures(&mut s).len(), before, "it does not hold yet");
        s.change_topology(generation, after);
        assert_eq!(figures(&mut s).len(), before + 1, "{after:?}");
    }
    for name in ["1", "2", "3", "4"] {
        s.submit(name);
    }
    s.world.settle();
    let generation = s.plan_topology(&ring);
    for (place, name) in (0..).zip(["A", "B"]) {
        s.seat_in(generation, name, Some(seat(Role::Worker, place)));
    }
    let from = s.world.inputs().count();
    s.change_topology(generation, &ring);
    s.world.settle();
    let kinds = s.world.inputs().skip(from).filter_map(|input| match input {
        Input::Event(recorded) => match recorded.event.body {
            Body::TaskWithdrawn(_) => Some("withdrawn"),
            Body::SwarmMeasured(_) => Some("measured"),
            _ => None,
        },
        Input::Unreadable(_) => None,
    });
    let kinds: Vec<_> = kinds.collect();
    let withdrawn = kinds.iter().take_while(|kind| **kind == "withdrawn");
    assert_eq!(withdrawn.count(), 4, "{kinds:?}");
    assert_eq!(kinds.get(4), Some(&"measured"), "{kinds:?}");
    s.plans_agree();
    s.folds_agree();
}

#[test]
fn many_agents_come_in_parts() {
    let mut s = Scene::new();
    let agents = SAMPLE_AGENTS_MAX + 10;
    for n in 0..agents {
        s.join(&format!("A{n}"));
        s.submit(&format!("t{n}"));
    }
    s.world.settle();
    s.world.later(MEASURE_MS);
    let all = figures(&mut s);
    assert!(all.iter().all(|m| m.agents.len() <= SAMPLE_AGENTS_MAX));
    let named: usize = all.iter().map(|m| m.agents.len()).sum();
    assert_eq!(named, agents, "each once");
}

/// Figures by name, all that was told of them put together.
fn by_name(s: &mut Scene) -> [BTreeMap<String, Outcomes>; 2] {
    let mut sums = [BTreeMap::new(), BTreeMap::new()];
    for measured in figures(s) {
        sums[0].extend(measured.types);
        sums[1].extend(measured.capabilities);
    }
    sums
}

#[test]
fn attempts_are_counted_by_type_and_capability() {
    // Given
    let mut s = Scene::new();
    s.join_as("A", 9, 0, &["x", "y"]);
    let mut submit = |name: &str, task_type: &str, needs: &[&str]| {
        s.submit_as(name, |t| {
            t.task_type = task_type.to_owned();
            t.required_capabilities = needs.iter().map(|n| (*n).to_owned()).collect();
            t.timeout_ms = Some(500);
            t.max_attempts = Some(1);
        });
        s.world.settle();
        s.start(name);
    };
    submit("completed", "a", &["x", "y"]);
    submit("failed", "a", &["x"]);
    submit("timed out", "b", &[]);
    submit("cancelled", "c", &["y"]);
    // When
    s.complete("completed");
    s.fail_attempt("failed", false);
    s.command(swarm_events::subject::CommandVerb::Cancel, "cancelled");
    s.world.settle();
    s.world.later(500);
    s.world.settle();
    s.world.later(MEASURE_MS);
    // Then
    let [types, capabilities] = by_name(&mut s);
    let outcomes = |completed, failed| Outcomes { completed, failed };
    let told = |sums: BTreeMap<String, Outcomes>| sums.into_iter().collect::<Vec<_>>();
    assert_eq!(
        told(types),
        [
            ("a".to_owned(), outcomes(1, 1)),
            ("b".to_owned(), outcomes(0, 1))
        ],
        "what was called off has neither completed nor failed"
    );
    assert_eq!(
        told(capabilities),
        [
            ("x".to_owned(), outcomes(1, 1)),
            ("y".to_owned(), outcomes(1, 0))
        ]
    );
    let agent = figures(&mut s).pop().expect("figures").agents;
    let load = agent.into_values().next().expect("A");
    assert_eq!((load.completed, load.failed), (1, 2));
    s.folds_agree();
}

#[test]
fn names_whose_figures_did_not_move_are_not_told_again() {
    let mut s = Scene::new();
    s.join("A");
    s.submit_as("1", |t| t.task_type = "a".to_owned());
    s.run("1");
    s.world.later(MEASURE_MS);
    assert_eq!(figures(&mut s).pop().expect("figures").types.len(), 1);
    s.submit_as("2", |t| t.task_type = "b".to_owned());
    s.run("2");
    s.world.later(MEASURE_MS);
    let types = figures(&mut s).pop().expect("figures").types;
    assert_eq!(types.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn names_are_bounded() {
    let mut s = Scene::new();
    s.join("A");
    for n in 0..MEASURED_NAMES_MAX + 9 {
        let name = format!("t{n}");
        s.submit_as(&name, |t| t.task_type = format!("type {n}"));
        s.run(&name);
    }
    s.world.later(MEASURE_MS);
    let [types, _] = by_name(&mut s);
    assert_eq!(types.len(), MEASURED_NAMES_MAX);
    assert_eq!(types[OTHER_NAMES].completed, 10, "one place is theirs");
    assert!(
        figures(&mut s)
            .iter()
            .all(|m| m.types.len() <= MEASURED_NAMES_MAX)
    );
}

#[test]
fn fast_failures_are_told() {
    let mut s = Scene::with(|c| c.retry.base_ms = 0);
    s.join("A");
    s.submit("t");
    for _ in 0..2 {
        s.world.settle();
        s.start("t");
        s.fail_attempt("t", true);
    }
    s.world.settle();
    s.world.later(MEASURE_MS);
    let agents = figures(&mut s).pop().expect("figures").agents;
    let load = agents.into_values().next().expect("A");
    assert_eq!((load.failed, load.fast_failures), (2, 2));
    // A new process begins anew, and that is told, too.
    s.join("A");
    s.world.settle();
    s.world.later(MEASURE_MS);
    let agents = figures(&mut s).pop().expect("figures").agents;
    assert_eq!(agents.into_values().next().expect("A").fast_failures, 0);
}
