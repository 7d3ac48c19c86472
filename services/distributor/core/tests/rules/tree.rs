//! Trees: how a task goes down, what stays below a supervisor, and who takes over from whom.

use swarm_distributor_core::STEAL_AFTER_MS;
use swarm_events::{
    decider::Verdict,
    task::PassedOver,
    topology::{Hierarchical, Role, Seat, Topology},
};

use crate::scene::{Scene, shape::seat};

/// A coordinator with the supervisors `left` and `right`, and two workers below each. Those above do not work.
fn tree() -> Scene {
    let mut s = Scene::shaped(Topology::Hierarchical(Hierarchical::default()));
    for name in ["top", "left", "right"] {
        s.join(name);
    }
    s.seat_below("top", Role::Coordinator, None, 0, false);
    s.seat_below("left", Role::Supervisor, Some("top"), 1, false);
    s.seat_below("right", Role::Supervisor, Some("top"), 2, false);
    for (place, (name, parent)) in
        (3..).zip([("a", "left"), ("b", "left"), ("c", "right"), ("d", "right")])
    {
        s.join_as(name, 1, 1, &[name]);
        s.seat_below(name, Role::Worker, Some(parent), place, true);
    }
    s
}
fn submit(s: &mut Scene, names: &[&str]) {
    for name in names {
        s.submit(name);
    }
}

#[test]
fn a_task_goes_down_to_the_part_with_the_most_room() {
    let mut s = tree();
    submit(&mut s, &["1", "2", "3", "4"]);
    assert_eq!(
        s.news(),
        [
            "assigned 1 to a",
            "assigned 2 to c",
            "assigned 3 to b",
            "assigned 4 to d"
        ]
    );
    let path = [s.agent_id("top"), s.agent_id("right")];
    let (_, _, assigned) = s.assignment("2");
    assert_eq!(assigned.path, path);
    // a has no free slot, b has; above them nobody works.
    assert_eq!(assigned.passed_over[&PassedOver::Topology], 3 + 2);
    s.plans_agree();
    s.folds_agree();
}

#[test]
fn the_share_counts_and_not_the_number() {
    let mut s = tree();
    // The left part has more slots now: half of them are as much as one of two on the right.
    s.update("a", 5, 0, &["a"]);
    submit(&mut s, &["1", "2", "3", "4"]);
    s.news();
    let holders: Vec<String> = ["1", "2", "3", "4"].iter().map(|t| s.holder(t)).collect();
    let right = holders
        .iter()
        .filter(|h| ["c", "d"].contains(&h.as_str()))
        .count();
    assert_eq!((holders[0].as_str(), right), ("a", 1), "{holders:?}");
}

#[test]
fn it_goes_where_what_it_needs_is() {
    let mut s = tree();
    for task in ["1", "2", "3"] {
        s.submit_as(task, |t| t.required_capabilities = vec!["d".into()]);
    }
    assert_eq!(s.news(), ["assigned 1 to d", "assigned 2 to d"]);
    submit(&mut s, &["4"]);
    assert_eq!(s.news(), ["assigned 4 to a"]);
    s.start("1");
    s.complete("1");
    assert_eq!(s.news(), ["assigned 3 to d"]);
    s.plans_agree();
}

#[test]
fn a_supervisor_that_works_is_one_of_its_own_children() {
    let mut s = Scene::shaped(Topology::Hierarchical(Hierarchical::default()));
    s.join("top");
    s.seat_below("top", Role::Coordinator, None, 0, true);
    submit(&mut s, &["1"]);
    assert_eq!(s.news(), ["assigned 1 to top"], "one agent always suffices");
    s.start("1");
    s.join("left");
    s.seat_below("left", Role::Supervisor, Some("top"), 1, true);
    s.join("a");
    s.seat_below("a", Role::Worker, Some("left"), 2, true);
    submit(&mut s, &["2", "3"]);
    assert_eq!(s.news(), ["assigned 2 to left", "assigned 3 to a"]);
    let top = s.agent_id("top");
    assert_eq!(s.assignment("2").2.path, [top]);
    s.plans_agree();
}

/// `left` has split `t` into three parts.
fn split() -> Scene {
    let mut s = tree();
    for name in ["a", "b"] {
        s.update(name, 1, 0, &[name]);
    }
    s.submit_as("t", |t| t.required_role = Some(Role::Supervisor));
    assert_eq!(s.news(), ["assigned t to left"]);
    s.start("t");
    assert_eq!(s.split("t", &["1", "2", "3"]), Verdict::Applied);
    s
}

#[test]
fn parts_of_a_supervisors_task_are_done_below_it() {
    let mut s = split();
    assert_eq!(
        s.news(),
        ["assigned t/1 to a", "assigned t/2 to b"],
        "the other part of the tree is idle, and not for these"
    );
    s.plans_agree();
    s.run_held("t/2");
    assert_eq!(s.news(), ["assigned t/3 to b"]);
    s.run_held("t/3");
    s.run_held("t/1");
    assert_eq!(s.news(), ["assigned t to left"], "its reduce");
    s.folds_agree();
}

#[test]
fn anybody_does_them_once_nobody_is_below_it_any_more() {
    let mut s = split();
    s.news();
    s.leave("a");
    s.unseat("a");
    s.news();
    assert_eq!(s.status("t/1"), "queued", "b is still there, and busy");
    s.leave("b");
    s.unseat("b");
    let news = s.news();
    for task in ["t/1", "t/2", "t/3"] {
        assert!(["c", "d"].contains(&s.holder(task).as_str()), "{news:?}");
    }
    s.plans_agree();
}

#[test]
fn a_part_whose_only_ones_below_have_declined_goes_elsewhere() {
    let mut s = split();
    s.news();
    s.leave("b");
    s.unseat("b");
    s.news();
    s.decline("t/1");
    let news = s.news();
    assert!(
        news.iter()
            .any(|n| n == "assigned t/1 to c" || n == "assigned t/1 to d"),
        "{news:?}"
    );
    s.plans_agree();
}

#[test]
fn children_of_the_same_parent_take_over_from_each_other_and_nobody_else() {
    let mut s = tree();
    submit(&mut s, &["1", "2", "3", "4"]);
    s.news();
    for task in ["1", "2", "3", "4"] {
        s.start(task);
    }
    submit(&mut s, &["5"]);
    assert_eq!(s.news(), ["assigned 5 to a"], "behind 1");
    s.complete("2");
    s.complete("4");
    s.world.later(10 * STEAL_AFTER_MS);
    assert_eq!(s.news(), [""; 0], "c and d are children of another one");
    s.plans_agree();
    s.complete("3");
    assert_eq!(
        s.news(),
        [
            "withdrawn 5 from a: Steal, queue if not started",
            "assigned 5 to b"
        ]
    );
}

#[test]
fn a_lost_supervisors_children_go_on_below_another_one() {
    let mut s = tree();
    submit(&mut s, &["1", "2", "3", "4"]);
    s.news();
    for task in ["1", "2", "3", "4"] {
        s.start(task);
    }
    s.fail("left");
    s.unseat("left");
    s.plans_agree();
    // In any order: a before there is another place for it, b after it.
    s.seat_below("a", Role::Worker, Some("right"), 3, true);
    s.plans_agree();
    s.seat_below("b", Role::Supervisor, Some("top"), 4, true);
    s.plans_agree();
    assert_eq!(s.complete("1"), Verdict::Applied, "what runs goes on");
    s.complete("3");
    submit(&mut s, &["5", "6"]);
    let news = s.news();
    assert_eq!(news, ["assigned 5 to b", "assigned 6 to a"]);
    let path = [s.agent_id("top"), s.agent_id("right")];
    assert_eq!(s.assignment("6").2.path, path);
    s.folds_agree();
}

#[test]
fn seats_that_contradict_each_other_for_a_moment_lose_nothing() {
    let mut s = tree();
    // Each names the other as its parent, and then neither.
    s.seat_below("left", Role::Supervisor, Some("right"), 1, false);
    s.seat_below("right", Role::Supervisor, Some("left"), 2, false);
    submit(&mut s, &["1", "2", "3", "4"]);
    assert_eq!(s.news().len(), 4);
    s.plans_agree();
    s.seat_below("right", Role::Supervisor, None, 2, false);
    s.plans_agree();
    for task in ["1", "2", "3", "4"] {
        s.run_held(task);
    }
    s.folds_agree();
}

#[test]
fn who_comes_below_it_later_does_them_too() {
    let mut s = split();
    assert_eq!(s.news(), ["assigned t/1 to a", "assigned t/2 to b"]);
    let (left, right) = (s.agent_id("left"), s.agent_id("right"));
    s.seat(
        "right",
        Seat {
            level: 2,
            parent: Some(left),
            works: false,
            ..seat(Role::Supervisor, 2)
        },
    );
    assert_eq!(s.news(), ["assigned t/3 to c"]);
    let top = s.agent_id("top");
    assert_eq!(s.assignment("t/3").2.path, [top, left, right]);
    s.plans_agree();
}

#[test]
fn what_is_to_be_done_below_somebody_is_reduced_there_too_whoever_split_it() {
    let mut s = tree();
    for name in ["a", "b"] {
        s.leave(name);
        s.unseat(name);
    }
    s.submit_as("t", |t| t.required_role = Some(Role::Supervisor));
    s.begin("t");
    s.split("t", &["1"]);
    s.news();
    // Nobody is below `left`: one of the others has it, and splits it.
    let other = s.holder("t/1");
    s.start("t/1");
    s.split("t/1", &["x"]);
    s.news();
    s.start("t/1/x");
    s.join_as("e", 1, 1, &["e"]);
    s.seat_below("e", Role::Worker, Some("left"), 9, true);
    s.complete("t/1/x");
    assert_eq!(
        s.news(),
        ["assigned t/1 to e"],
        "its parts' results are made one below left again, and not by {other}"
    );
    s.plans_agree();
}
