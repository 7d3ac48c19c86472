//! Tasks in parts: the whole waits for them, makes one result of theirs, and ends exactly once whatever fails.

mod ends;
mod random;
mod reduce;
mod refused;

use swarm_distributor_core::PartsView;
use swarm_events::{
    Body, Input, SwarmId,
    decider::Verdict,
    task::{DependencyType::Data, Part, Step, part_id},
    topology::{Role, Topology},
};
use uuid::Uuid;

use crate::scene::{Scene, beyond::part};

/// A task `t` that runs at the only agent, which has room for more.
fn running() -> Scene {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join_as("A", 4, 0, &[]);
    s.submit("t");
    s.begin("t");
    s.news();
    s
}

/// `t` is split in two.
fn parted() -> Scene {
    let mut s = running();
    assert_eq!(s.split("t", &["a", "b"]), Verdict::Applied);
    s
}

fn error(s: &mut Scene, task: &str) -> String {
    let error = s.view(task).error.expect("an error");
    s.named(&error)
}

#[test]
fn a_split_ends_the_assignment_and_its_parts_exist_at_once() {
    let mut s = running();
    let (_, assignment, _) = s.assignment("t");
    assert_eq!(s.split("t", &["a", "b"]), Verdict::Applied);
    assert_eq!(s.status("t"), "pending");
    let view = s.view("t");
    assert_eq!(view.parts, Some(PartsView { open: 2, of: 2 }));
    assert_eq!(view.assignment, None);
    for (index, name) in [(0, "t/a"), (1, "t/b")] {
        let view = s.view(name);
        assert_eq!(view.status.as_str(), "queued");
        assert_eq!(view.parent, Some(s.task_id("t")));
        assert_eq!(view.part, Some(index));
        assert_eq!(view.id, part_id(s.task_id("t"), assignment, index));
    }
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(
        (counters.pending, counters.queued, counters.running),
        (1, 2, 0)
    );
    assert_eq!(s.agent("A").running.len(), 0);
    assert_eq!(s.news(), ["assigned t/a to A", "assigned t/b to A"]);
    s.folds_agree();
}

#[test]
fn when_all_parts_have_completed_their_results_become_one() {
    let mut s = parted();
    s.run("t/a");
    assert_eq!(s.status("t"), "pending");
    assert_eq!(s.view("t").parts, Some(PartsView { open: 1, of: 2 }));
    s.run_held("t/b");
    assert_eq!(s.view("t").step, Step::Reduce);
    assert_eq!(
        s.news(),
        ["assigned t/a to A", "assigned t/b to A", "assigned t to A"]
    );
    let (_, _, assigned) = s.assignment("t");
    assert_eq!(
        (assigned.step, assigned.attempt, assigned.generation),
        (Step::Reduce, 1, 1)
    );
    s.run_held("t");
    assert_eq!(s.status("t"), "completed");
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(
        (
            counters.completed,
            counters.failed,
            counters.pending,
            counters.queued
        ),
        (3, 0, 0, 0)
    );
    s.folds_agree();
}

#[test]
fn a_part_has_what_it_does_not_name_from_its_task_and_its_swarm() {
    let mut s = Scene::with(|c| {
        c.task_timeout_ms = 7_000;
        c.max_attempts = 2;
    });
    s.join("A");
    s.submit_as("t", |t| t.priority = 8);
    s.begin("t");
    let own = Part {
        priority: Some(2),
        max_attempts: Some(1),
        timeout_ms: Some(50),
        required_capabilities: vec!["x".to_owned()],
        ..part("own")
    };
    s.split_as("t", vec![part("plain"), own]);
    let plain = s.view("t/plain");
    assert_eq!((plain.priority, plain.max_attempts), (8, 2));
    let own = s.view("t/own");
    assert_eq!((own.priority, own.max_attempts), (2, 1));
    assert_eq!(own.required_capabilities, ["x"]);
    s.news();
    let (_, _, assigned) = s.assignment("t/plain");
    assert_eq!(assigned.timeout_ms, 7_000);
}

#[test]
fn parts_follow_from_the_same_submission() {
    let mut s = parted();
    s.world.settle();
    let correlation = |s: &mut Scene, name: &str| {
        let id = s.id(name);
        s.world
            .inputs()
            .find_map(|input| match input {
                Input::Event(r) if r.event.about == id => match r.event.body {
                    Body::TaskAssigned(_) => r.event.correlation,
                    _ => None,
                },
                _ => None,
            })
            .expect("assigned")
    };
    assert_eq!(correlation(&mut s, "t/a"), correlation(&mut s, "t"));
}

#[test]
fn what_depends_on_a_whole_waits_for_its_result() {
    let mut s = Scene::new();
    s.join_as("A", 4, 0, &[]);
    s.part("g", 0, 2, "t", &[]);
    s.part("g", 1, 2, "after", &[("t", Data)]);
    s.begin("t");
    s.split("t", &["a"]);
    s.run("t/a");
    assert_eq!(s.status("after"), "pending");
    s.run_held("t");
    s.run("after");
    assert_eq!(s.status("after"), "completed");
}

/// A tree of one coordinator and workers, each with its seat.
fn tree() -> Scene {
    let topology: Topology =
        serde_json::from_str(r#"{"topology": "hierarchical", "configuration": {}}"#)
            .expect("a tree");
    let mut s = Scene::at(SwarmId(Uuid::from_u128(0xB)), topology, |c| {
        c.stealing = false
    });
    for (place, name) in (0..).zip(["top", "left", "right", "under left"]) {
        s.join_as(name, 4, 0, &[]);
        let (role, parent) = match name {
            "top" => (Role::Coordinator, None),
            "left" | "right" => (Role::Supervisor, Some("top")),
            _ => (Role::Worker, Some("left")),
        };
        s.seat_below(name, role, parent, place, true);
    }
    s
}

#[test]
fn what_a_supervisor_splits_stays_below_it_however_often_it_is_split() {
    let mut s = tree();
    s.submit_as("t", |t| t.required_role = Some(Role::Supervisor));
    s.begin("t");
    let (agent, ..) = s.assignment("t");
    s.split("t", &["a"]);
    assert_eq!(s.view("t/a").within, Some(agent));
    s.begin("t/a");
    s.split("t/a", &["b"]);
    assert!(s.view("t/a/b").within.is_some());
    s.folds_agree();
}
