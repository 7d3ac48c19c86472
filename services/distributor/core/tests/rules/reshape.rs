//! Changes of the topology while work goes on.

use swarm_events::{
    decider::Verdict,
    topology::{Hierarchical, Mesh, Ring, Role, Star, Topology},
};

use crate::scene::{Scene, shape::seat};

fn all() -> [Topology; 4] {
    [
        Topology::Star(Star::default()),
        Topology::Mesh(Mesh::default()),
        Topology::Hierarchical(Hierarchical::default()),
        Topology::Ring(Ring::default()),
    ]
}

/// Three agents that work, with seats that fit any of them.
fn scene(topology: &Topology) -> Scene {
    let mut s = Scene::shaped(topology.clone());
    for name in ["A", "B", "C"] {
        s.join_as(name, 1, 1, &[]);
    }
    let generation = s.generation();
    seats(&mut s, generation);
    s
}
fn seats(s: &mut Scene, generation: u64) {
    let top = s.agent_id("A");
    for (place, name) in (0..).zip(["A", "B", "C"]) {
        let mut seat = seat(
            if place == 0 {
                Role::Coordinator
            } else {
                Role::Worker
            },
            place,
        );
        seat.parent = (place > 0).then_some(top);
        assert_eq!(s.seat_in(generation, name, Some(seat)), Verdict::Applied);
    }
}

#[test]
fn what_has_not_started_goes_by_the_rules_of_a_ring_from_its_beginning_on() {
    let mut s = scene(&all()[0]);
    for task in ["1", "2", "3", "4", "5"] {
        s.submit(task);
    }
    s.news();
    let first = s.first_of("A");
    s.start(&first);
    let ring = Topology::Ring(Ring::default());
    let generation = s.plan_topology(&ring);
    seats(&mut s, generation);
    assert_eq!(s.news(), [""; 0], "it does not hold yet");
    s.change_topology(generation, &ring);
    let news = s.news();
    let withdrawn = news
        .iter()
        .filter(|n| n.contains("Topology, queue if not started"));
    assert_eq!(withdrawn.count(), 4, "{news:?}");
    let assigned: Vec<&String> = news.iter().filter(|n| n.starts_with("assigned")).collect();
    assert_eq!(
        assigned,
        ["assigned 2 to C"],
        "B has something left to give back: {news:?}"
    );
    assert_eq!(s.complete(&first), Verdict::Applied, "what runs goes on");
    s.plans_agree();
    for (task, next) in [("2", "3 to A"), ("3", "4 to B"), ("4", "5 to C")] {
        s.run_held(task);
        assert_eq!(s.news(), [format!("assigned {next}")]);
    }
    s.run_held("5");
    s.folds_agree();
}

#[test]
fn a_change_that_is_not_completed_changes_nothing() {
    let mut s = scene(&all()[0]);
    for task in ["1", "2", "3", "4"] {
        s.submit(task);
    }
    s.news();
    let ring = Topology::Ring(Ring::default());
    let generation = s.plan_topology(&ring);
    seats(&mut s, generation);
    s.keep_topology(generation);
    assert_eq!(s.news(), [""; 0]);
    for task in ["1", "2", "3", "4"] {
        s.run(task);
    }
    s.plans_agree();
}

#[test]
fn an_agent_without_a_seat_in_the_new_topology_gives_back_what_it_has_not_started() {
    let mut s = scene(&all()[0]);
    s.submit("1");
    s.submit("2");
    assert_eq!(s.news(), ["assigned 1 to A", "assigned 2 to B"]);
    let mesh = Topology::Mesh(Mesh::default());
    let generation = s.plan_topology(&mesh);
    let place = seat(Role::Worker, 2);
    assert_eq!(s.seat_in(generation, "C", Some(place)), Verdict::Applied);
    s.start("2");
    s.change_topology(generation, &mesh);
    assert_eq!(
        s.news(),
        [
            "withdrawn 1 from A: Topology, queue if not started",
            "assigned 1 to C"
        ]
    );
    assert_eq!(s.complete("2"), Verdict::Applied);
}

/// With tasks that run, wait at agents, wait in the queue, and are tried again.
#[test]
fn no_change_among_all_pairs_loses_or_doubles_a_task() {
    for before in all() {
        for after in all() {
            let mut s = scene(&before);
            let tasks: Vec<String> = (0..9).map(|n| format!("{n}")).collect();
            for task in &tasks {
                s.submit_as(task, |t| t.max_attempts = Some(9));
            }
            s.news();
            let first = s.first_of("A");
            s.start(&first);
            s.fail_attempt(&first, true);
            s.world.settle();
            let held = tasks
                .iter()
                .find(|t| s.view(t).status.as_str() == "assigned");
            let running = held.cloned();
            if let Some(task) = &running {
                s.start(task);
            }
            let generation = s.plan_topology(&after);
            seats(&mut s, generation);
            s.world.decide(3);
            s.change_topology(generation, &after);
            s.plans_agree();
            for _ in 0..200 {
                for task in &tasks {
                    match s.status(task) {
                        "assigned" => {
                            s.start(task);
                        }
                        "running" => {
                            s.complete(task);
                        }
                        _ => {}
                    }
                    s.world.settle();
                }
                if tasks.iter().all(|t| s.view(t).status.ended()) {
                    break;
                }
                s.world.later(100);
            }
            for task in &tasks {
                let (from, to) = (before.kind(), after.kind());
                assert_eq!(s.status(task), "completed", "{task}: {from:?} to {to:?}");
            }
            s.plans_agree();
            s.folds_agree();
        }
    }
}
