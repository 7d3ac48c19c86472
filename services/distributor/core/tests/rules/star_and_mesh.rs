//! Stars and meshes: who works, roles and who stands in for them, and what neighbours take over from each other.

use swarm_distributor_core::STEAL_AFTER_MS;
use swarm_events::{
    decider::Verdict,
    task::PassedOver,
    topology::{ConnectionStrategy, Mesh, Role, Seat, Star, Topology},
};

use crate::scene::{Scene, shape::seat};

fn star() -> Scene {
    Scene::shaped(Topology::Star(Star::default()))
}
fn hub(place: u64) -> Seat {
    Seat {
        works: false,
        ..seat(Role::Coordinator, place)
    }
}

#[test]
fn a_hub_that_was_made_for_it_gets_no_tasks() {
    let mut s = star();
    s.join_as("H", 5, 0, &[]);
    s.seat("H", hub(0));
    s.join("A");
    s.seat("A", seat(Role::Worker, 1));
    s.submit("1");
    s.submit("2");
    assert_eq!(s.news(), ["assigned 1 to A"]);
    let (_, _, assigned) = s.assignment("1");
    assert_eq!(assigned.passed_over, [(PassedOver::Topology, 1)].into());
    assert_eq!((assigned.path, assigned.turn), (Vec::new(), None));
    s.folds_agree();
}

#[test]
fn in_a_star_those_without_a_seat_work_and_elsewhere_they_wait_for_one() {
    let all = [
        Topology::Star(Star::default()),
        Topology::Mesh(Mesh::default()),
        Topology::Hierarchical(Default::default()),
        Topology::Ring(Default::default()),
    ];
    for topology in all {
        let works = matches!(topology, Topology::Star(_));
        let mut s = Scene::shaped(topology.clone());
        s.join("A");
        s.submit("1");
        let news = s.news();
        assert_eq!(news.is_empty(), !works, "{topology:?}: {news:?}");
        if !works {
            s.seat("A", seat(Role::Worker, 0));
            assert_eq!(s.news(), ["assigned 1 to A"], "{topology:?}");
        }
        s.plans_agree();
    }
}

#[test]
fn a_role_is_asked_of_those_who_have_it_whether_they_work_or_not() {
    let mut s = star();
    s.join("H");
    s.seat("H", hub(0));
    s.join("A");
    s.seat("A", seat(Role::Worker, 1));
    s.submit_as("for the hub", |t| t.required_role = Some(Role::Coordinator));
    s.submit_as("for the hub, too", |t| {
        t.required_role = Some(Role::Coordinator)
    });
    s.submit_as("for workers", |t| t.required_role = Some(Role::Worker));
    assert_eq!(
        s.news(),
        ["assigned for the hub to H", "assigned for workers to A"]
    );
    s.run_held("for the hub");
    assert_eq!(s.news(), ["assigned for the hub, too to H"]);
    s.plans_agree();
}

#[test]
fn the_leader_stands_in_for_a_role_that_no_live_agent_has() {
    let mut s = star();
    for (place, name) in (0..).zip(["A", "B"]) {
        s.join(name);
        s.seat(name, seat(Role::Worker, place));
    }
    s.submit_as("1", |t| t.required_role = Some(Role::Supervisor));
    assert_eq!(s.news(), [""; 0], "nobody has the role, and nobody leads");
    assert_eq!(s.elect(Some("B")), Verdict::Applied);
    assert_eq!(s.news(), ["assigned 1 to B"]);
    s.run_held("1");
    // Somebody has it now: the leader does not get it any more, busy though that one be.
    s.join("S");
    s.seat("S", seat(Role::Supervisor, 2));
    for task in ["2", "3"] {
        s.submit_as(task, |t| t.required_role = Some(Role::Supervisor));
    }
    assert_eq!(s.news(), ["assigned 2 to S"]);
    s.run_held("2");
    assert_eq!(s.news(), ["assigned 3 to S"]);
    s.start("3");
    s.fail("S");
    let news = s.news();
    assert_eq!(news[0], "withdrawn 3 from S: AgentFailed, queue");
    assert_eq!(news[1], "assigned 3 to B", "the leader again: {news:?}");
    s.plans_agree();
    // Another leader: what the old one has not started goes there.
    assert_eq!(s.elect(Some("A")), Verdict::Applied);
    assert_eq!(
        s.news(),
        [
            "withdrawn 3 from B: Topology, queue if not started",
            "assigned 3 to A"
        ]
    );
    s.folds_agree();
}

#[test]
fn what_an_agent_has_not_started_goes_elsewhere_once_it_does_not_work_any_more() {
    let mut s = star();
    s.join_as("A", 1, 1, &[]);
    s.submit("1");
    s.submit("2");
    assert_eq!(s.news().len(), 2);
    s.start("1");
    s.seat("A", hub(0));
    assert_eq!(
        s.news(),
        ["withdrawn 2 from A: Topology, queue if not started"]
    );
    assert_eq!(s.complete("1"), Verdict::Applied, "what runs goes on");
    s.join("B");
    assert_eq!(s.news(), ["assigned 2 to B"]);
    assert_eq!(s.view("2").attempt_count, 0);
    s.folds_agree();
}

fn mesh(change: impl FnOnce(&mut Mesh)) -> Scene {
    let mut mesh = Mesh::default();
    change(&mut mesh);
    Scene::shaped(Topology::Mesh(mesh))
}

/// A runs one task and another one waits there.
fn busy(s: &mut Scene) {
    s.join_as("A", 1, 1, &[]);
    s.seat("A", seat(Role::Worker, 0));
    s.submit("1");
    s.submit("2");
    assert_eq!(s.news(), ["assigned 1 to A", "assigned 2 to A"]);
    s.start("1");
}

#[test]
fn in_a_mesh_what_waits_is_taken_over_once_a_round_has_told_of_it() {
    let mut s = mesh(|mesh| mesh.gossip_interval_ms = 700);
    // Rounds begin at multiples of the interval in the log's time.
    let into = u64::try_from(s.world.now.as_millis()).expect("after 1970") % 700;
    s.world.later(700 - into + 500);
    busy(&mut s);
    s.join("B");
    s.seat("B", seat(Role::Worker, 1));
    s.world.later(199);
    assert_eq!(s.news(), [""; 0]);
    s.world.settle();
    let due = s.world.next_deadline().expect("a round");
    assert!(due.millis_since(s.world.state.head().now) <= 1);
    s.world.later(1);
    assert_eq!(
        s.news(),
        [
            "withdrawn 2 from A: Steal, queue if not started",
            "assigned 2 to B"
        ]
    );
    s.plans_agree();
}

#[test]
fn a_round_that_begins_at_once_leaves_the_agent_its_first_moments() {
    let mut s = mesh(|mesh| mesh.gossip_interval_ms = 10);
    busy(&mut s);
    s.join("B");
    s.seat("B", seat(Role::Worker, 1));
    s.world.later(STEAL_AFTER_MS - 1);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    assert_eq!(s.news().len(), 2);
    // Without rounds the same moments are all.
    let mut s = mesh(|mesh| mesh.gossip_interval_ms = 0);
    busy(&mut s);
    s.join("B");
    s.seat("B", seat(Role::Worker, 1));
    s.world.later(STEAL_AFTER_MS - 1);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    assert_eq!(s.news().len(), 2);
}

/// A is busy with something that waits, B and D are busy, and C, which is no neighbour of A, is not.
fn square() -> Scene {
    let nearest = Mesh {
        connection_strategy: ConnectionStrategy::Nearest,
        neighbours: 2,
        gossip_interval_ms: 0,
        ..Mesh::default()
    };
    let mut s = Scene::shaped(Topology::Mesh(nearest));
    busy(&mut s);
    for (place, name) in [(1, "B"), (3, "D")] {
        s.join_as(name, 1, 0, &[name]);
        s.seat(name, seat(Role::Worker, place));
        let task = format!("of {name}");
        s.submit_as(&task, |t| t.required_capabilities = vec![name.to_owned()]);
        s.news();
        s.start(&task);
    }
    s.join("C");
    s.seat("C", seat(Role::Worker, 2));
    s
}

#[test]
fn only_neighbours_take_over_from_each_other() {
    let mut s = square();
    s.world.later(10 * STEAL_AFTER_MS);
    assert_eq!(s.news(), [""; 0], "C is on the other side of the circle");
    s.plans_agree();
    s.complete("of D");
    assert_eq!(
        s.news(),
        [
            "withdrawn 2 from A: Steal, queue if not started",
            "assigned 2 to D"
        ],
        "and not to C, which joined after it and is as idle"
    );
    let (a, (_, _, assigned)) = (s.agent_id("A"), s.assignment("2"));
    assert_eq!(assigned.stolen_from, Some(a));
    s.plans_agree();
    s.folds_agree();
}

#[test]
fn a_new_task_goes_to_anybody_in_a_mesh() {
    let mut s = square();
    s.submit("3");
    assert_eq!(s.news(), ["assigned 3 to C"]);
}
