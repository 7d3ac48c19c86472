//! Rings: whose turn it is.

use swarm_events::{
    decider::Verdict,
    subject::CommandVerb,
    task::PassedOver,
    topology::{Ring, RingOrder, Role, Topology},
};

use crate::scene::{Scene, shape::seat};

const TIMEOUT_MS: u64 = 5_000;

fn ring(change: impl FnOnce(&mut Ring), names: &[&str]) -> Scene {
    let mut ring = Ring {
        token_timeout_ms: TIMEOUT_MS,
        ..Ring::default()
    };
    change(&mut ring);
    let mut s = Scene::shaped(Topology::Ring(ring));
    s.side_by_side(names);
    s
}
fn submit(s: &mut Scene, names: &[&str]) {
    for name in names {
        s.submit(name);
    }
}
fn turn(s: &mut Scene, task: &str) -> Option<u64> {
    s.assignment(task).2.turn
}

#[test]
fn tasks_go_one_after_another_round_the_circle() {
    let mut s = ring(|_| {}, &["A", "B", "C"]);
    submit(&mut s, &["1", "2", "3", "4"]);
    for (number, (task, agent)) in (1..).zip([("1", "A"), ("2", "B"), ("3", "C"), ("4", "A")]) {
        assert_eq!(s.news(), [format!("assigned {task} to {agent}")]);
        assert_eq!(turn(&mut s, task), Some(number));
        s.run_held(task);
        s.plans_agree();
    }
    let (_, _, assigned) = s.assignment("1");
    assert_eq!(assigned.passed_over, [(PassedOver::Turn, 2)].into());
    s.folds_agree();
}

#[test]
fn the_order_is_that_of_the_submissions_whatever_the_priority() {
    let mut s = ring(|_| {}, &["A"]);
    for (task, priority) in [("1", 1), ("2", 10), ("3", 5)] {
        s.submit_as(task, |t| t.priority = priority);
    }
    for task in ["1", "2", "3"] {
        assert_eq!(s.news(), [format!("assigned {task} to A")], "a ring of one");
        s.run_held(task);
    }
}

#[test]
fn nothing_waits_at_an_agent_and_nothing_is_taken_over() {
    let mut s = ring(|_| {}, &[]);
    for (place, name) in [(0, "A"), (1, "B")] {
        s.join_as(name, 1, 5, &[]);
        s.seat(name, seat(Role::Worker, place));
    }
    submit(&mut s, &["1", "2", "3"]);
    assert_eq!(s.news(), ["assigned 1 to A"]);
    s.start("1");
    s.world.later(TIMEOUT_MS);
    assert_eq!(s.news(), ["assigned 2 to B"]);
    s.start("2");
    s.world.later(TIMEOUT_MS);
    assert_eq!(s.news(), [""; 0], "all slots are taken");
    s.complete("2");
    assert_eq!(s.news(), ["assigned 3 to B"], "A has no free slot");
    s.plans_agree();
}

#[test]
fn the_token_passes_on_after_its_timeout_although_its_task_runs() {
    let mut s = ring(|_| {}, &["A", "B"]);
    submit(&mut s, &["1", "2"]);
    s.news();
    s.start("1");
    let due = s.world.next_deadline().expect("the timeout");
    assert!(due.millis_since(s.world.state.head().now) <= TIMEOUT_MS);
    s.world.later(TIMEOUT_MS - 1);
    assert_eq!(s.news(), [""; 0]);
    s.plans_agree();
    s.world.later(1);
    assert_eq!(s.news(), ["assigned 2 to B"]);
    assert_eq!(s.complete("1"), Verdict::Applied);
    assert_eq!(s.complete("2"), Verdict::Void("not-started"));
    s.folds_agree();
}

#[test]
fn another_attempt_comes_first_and_stays_with_the_holder() {
    let mut s = ring(|_| {}, &["A", "B"]);
    submit(&mut s, &["1", "2"]);
    s.news();
    s.start("1");
    s.fail_attempt("1", true);
    assert_eq!(s.news(), ["retried 1: generation 1"]);
    s.plans_agree();
    let mut wait = 0;
    while s.status("1") == "pending" && wait < TIMEOUT_MS {
        s.world.later(50);
        wait += 50;
    }
    assert!((50..TIMEOUT_MS).contains(&wait));
    assert_eq!(s.news(), ["assigned 1 to A"]);
    assert_eq!(turn(&mut s, "1"), Some(2));
    // It does not get more time for that.
    s.start("1");
    s.world.later(TIMEOUT_MS - wait);
    assert_eq!(s.news(), ["assigned 2 to B"]);
    s.plans_agree();
}

#[test]
fn the_token_does_not_wait_for_another_attempt_beyond_its_timeout() {
    let mut s = Scene::at(
        swarm_events::SwarmId(uuid::Uuid::from_u128(0xB)),
        Topology::Ring(Ring {
            token_timeout_ms: 100,
            ..Ring::default()
        }),
        |c| c.retry.base_ms = 1_000,
    );
    s.side_by_side(&["A", "B"]);
    submit(&mut s, &["1", "2", "3"]);
    s.news();
    s.start("1");
    s.fail_attempt("1", true);
    s.news();
    s.world.later(100);
    assert_eq!(s.news(), ["assigned 2 to B"]);
    s.run_held("2");
    assert_eq!(s.news(), ["assigned 3 to A"]);
    s.run_held("3");
    s.world.later(1_250);
    assert_eq!(
        s.holder("1"),
        "B",
        "it has its turn when it is queued again"
    );
}

#[test]
fn the_token_passes_on_with_any_end_and_with_its_agent() {
    let mut s = ring(|_| {}, &["A", "B", "C"]);
    submit(&mut s, &["1", "2", "3", "4"]);
    s.news();
    s.command(CommandVerb::Cancel, "1");
    let news = s.news();
    assert_eq!(news.last().unwrap(), "assigned 2 to B", "{news:?}");
    s.start("2");
    s.fail_attempt("2", false);
    let news = s.news();
    assert_eq!(news.last().unwrap(), "assigned 3 to C", "{news:?}");
    s.start("3");
    s.fail("C");
    s.unseat("C");
    // It is the first one again, and the circle goes on after the place that C had.
    let news = s.news();
    assert_eq!(news.last().unwrap(), "assigned 3 to A", "{news:?}");
    s.decline("3");
    assert_eq!(s.news(), ["assigned 3 to B"]);
    s.plans_agree();
    s.folds_agree();
}

#[test]
fn the_token_passes_an_agent_that_is_not_healthy() {
    let mut s = ring(|_| {}, &["A", "B", "C"]);
    submit(&mut s, &["1", "2"]);
    s.news();
    s.suspect("B");
    s.run_held("1");
    assert_eq!(s.news(), ["assigned 2 to C"]);
}

#[test]
fn or_waits_there_for_its_timeout() {
    for order in [RingOrder::Sequential, RingOrder::Load] {
        let mut s = ring(
            |ring| {
                ring.skip_unhealthy = false;
                ring.order = order;
            },
            &["A", "B", "C", "D"],
        );
        submit(&mut s, &["1", "2"]);
        s.news();
        s.suspect("B");
        s.suspect("C");
        s.run_held("1");
        assert_eq!(s.news(), [""; 0], "{order:?}");
        s.world.later(TIMEOUT_MS);
        assert_eq!(s.news(), [""; 0], "{order:?}: at C");
        s.plans_agree();
        s.world.later(TIMEOUT_MS - 1);
        assert_eq!(s.news(), [""; 0], "{order:?}");
        s.world.later(1);
        assert_eq!(s.news(), ["assigned 2 to D"], "{order:?}");
    }
}

#[test]
fn who_lacks_what_is_needed_is_passed() {
    let mut s = ring(|_| {}, &["A", "B"]);
    s.join_as("C", 1, 0, &["gpu"]);
    s.seat("C", seat(Role::Worker, 2));
    for task in ["1", "2"] {
        s.submit_as(task, |t| t.required_capabilities = vec!["gpu".into()]);
    }
    s.submit("3");
    assert_eq!(s.news(), ["assigned 1 to C"]);
    s.run_held("1");
    assert_eq!(s.news(), ["assigned 2 to C"], "3 waits for its turn");
    s.run_held("2");
    assert_eq!(s.news(), ["assigned 3 to A"]);
}

#[test]
fn what_nobody_can_do_does_not_stop_the_ring_and_comes_first_when_somebody_can() {
    let mut s = ring(|_| {}, &["A"]);
    s.submit_as("1", |t| t.required_capabilities = vec!["gpu".into()]);
    submit(&mut s, &["2", "3"]);
    assert_eq!(s.news(), ["assigned 2 to A"]);
    s.join_as("B", 1, 0, &["gpu"]);
    s.seat("B", seat(Role::Worker, 1));
    s.run_held("2");
    assert_eq!(s.news(), ["assigned 1 to B"]);
}

#[test]
fn by_load_it_goes_to_the_smallest_share_and_among_equals_round_the_circle() {
    let mut s = ring(|ring| ring.order = RingOrder::Load, &[]);
    for (place, name, slots) in [(0, "A", 2), (1, "B", 4), (2, "C", 4)] {
        s.join_as(name, slots, 0, &[]);
        s.seat(name, seat(Role::Worker, place));
    }
    submit(&mut s, &["1", "2", "3", "4"]);
    for (task, agent) in [("1", "A"), ("2", "B"), ("3", "C"), ("4", "B")] {
        assert_eq!(s.news(), [format!("assigned {task} to {agent}")]);
        s.start(task);
        // The turn is over, and the task runs on.
        s.world.later(TIMEOUT_MS);
    }
    s.plans_agree();
}

#[test]
fn a_claim_finds_whose_turn_it_is_in_the_log() {
    let mut s = ring(|_| {}, &["A", "B", "C"]);
    submit(&mut s, &["1", "2", "3"]);
    s.news();
    s.world.claim();
    assert_eq!(s.news(), [""; 0], "A has the token");
    s.start("1");
    s.complete("1");
    assert_eq!(s.world.decide(10), 1);
    s.world.claim();
    assert_eq!(
        s.news(),
        ["assigned 2 to B"],
        "what was lost is decided again"
    );
}
