//! Completion, success and data; failures that pass on.

use swarm_events::{
    decider::Verdict,
    subject::CommandVerb,
    task::DependencyType::{Completion, Data, Success},
};

use crate::scene::Scene;

/// A graph of `up` and one task for each kind of dependency on it.
fn fan() -> Scene {
    let mut s = Scene::new();
    s.part("g", 0, 4, "up", &[]);
    s.part("g", 1, 4, "after", &[("up", Completion)]);
    s.part("g", 2, 4, "ok", &[("up", Success)]);
    s.part("g", 3, 4, "data", &[("up", Data)]);
    assert_eq!(s.news(), ["accepted g"]);
    s
}

#[test]
fn dependents_wait_and_then_all_run() {
    let mut s = fan();
    for name in ["after", "ok", "data"] {
        assert_eq!(s.status(name), "pending");
    }
    s.join_as("A", 9, 0, &[]);
    assert_eq!(s.news(), ["assigned up to A"]);
    s.run("up");
    let mut news = s.news();
    news.sort();
    assert_eq!(
        news,
        [
            "assigned after to A",
            "assigned data to A",
            "assigned ok to A"
        ]
    );
    s.folds_agree();
}

#[test]
fn a_failed_task_fails_what_needs_its_success_and_releases_what_waits_for_its_end() {
    let mut s = fan();
    s.join_as("A", 9, 0, &[]);
    s.world.settle();
    s.start("up");
    s.news();
    s.fail_attempt("up", false);
    let mut news = s.news();
    news.sort();
    assert_eq!(
        news,
        [
            "assigned after to A",
            "failed data: task up, which it depends on, has failed: exit code 1",
            "failed ok: task up, which it depends on, has failed: exit code 1",
            "failed up: exit code 1",
        ]
    );
    let view = s.view("data");
    assert_eq!(view.because_of, Some(s.task_id("up")));
    assert!(!view.dead_lettered);
}

#[test]
fn failures_pass_down_a_chain_in_bounded_turns() {
    let mut s = Scene::new();
    let last = 30;
    s.part("g", 0, last + 1, "0", &[]);
    for n in 1..=last {
        s.part(
            "g",
            n,
            last + 1,
            &n.to_string(),
            &[(&(n - 1).to_string(), Success)],
        );
    }
    s.news();
    s.command(CommandVerb::Cancel, "0");
    for _ in 0..200 {
        assert!(s.world.decide(2) <= 2);
        while s.world.deliver().is_some() {}
    }
    for n in 1..=last {
        assert_eq!(s.status(&n.to_string()), "failed", "{n}");
    }
}

#[test]
fn a_task_waits_for_all_of_its_dependencies() {
    let mut s = Scene::new();
    s.part("g", 0, 3, "a", &[]);
    s.part("g", 1, 3, "b", &[]);
    s.part("g", 2, 3, "c", &[("a", Data), ("b", Completion)]);
    s.join("A");
    s.run("a");
    assert_eq!(s.status("c"), "pending");
    s.run("b");
    assert_eq!(s.status("c"), "assigned");
}

#[test]
fn a_later_task_may_name_live_and_ended_ones() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("ended");
    s.run("ended");
    s.submit("live");
    s.world.settle();
    let edges = s.edges(&[("ended", Data), ("live", Success)]);
    s.submit_as("t", |t| t.depends_on = edges);
    s.news();
    assert_eq!(s.status("t"), "pending");
    s.run("live");
    assert_eq!(s.news(), ["assigned t to A"]);
    s.folds_agree();
}

#[test]
fn a_dependency_on_an_unknown_task_is_rejected_by_name() {
    let mut s = Scene::new();
    let edges = s.edges(&[("nobody", Completion)]);
    s.submit_as("t", |t| t.depends_on = edges);
    assert_eq!(s.news(), ["rejected t: depends_on[0].task_id"]);
    let parent = s.task_id("nobody");
    s.submit_as("u", |t| t.parent_task_id = Some(parent));
    assert_eq!(s.news(), ["rejected u: parent_task_id"]);
}

#[test]
fn a_parent_is_no_dependency() {
    let mut s = Scene::new();
    s.join_as("A", 2, 0, &[]);
    s.submit("parent");
    let parent = s.task_id("parent");
    s.submit_as("child", |t| t.parent_task_id = Some(parent));
    assert_eq!(s.news(), ["assigned parent to A", "assigned child to A"]);
    assert_eq!(s.view("child").parent, Some(parent));
}

#[test]
fn a_cancelled_dependent_is_forgotten_by_its_dependency() {
    let mut s = fan();
    s.command(CommandVerb::Cancel, "ok");
    s.join_as("A", 9, 0, &[]);
    s.run("up");
    assert_eq!(s.status("ok"), "cancelled");
    assert_eq!(s.start("after"), Verdict::Applied);
    s.folds_agree();
}

#[test]
fn ended_tasks_are_forgotten_after_a_day_unless_a_live_one_names_them() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("named");
    s.submit("unnamed");
    s.run("named");
    s.run("unnamed");
    let edges = s.edges(&[("named", Data)]);
    s.submit_as("t", |t| {
        t.depends_on = edges;
        t.required_capabilities = vec!["none-has-it".into()];
    });
    s.world.settle();
    s.world.later(25 * 3_600_000);
    let (named, unnamed) = (s.task_id("named"), s.task_id("unnamed"));
    assert!(s.world.state.task(s.place, named).is_some());
    assert!(s.world.state.task(s.place, unnamed).is_none());
    let edges = s.edges(&[("unnamed", Data)]);
    s.submit_as("u", |t| t.depends_on = edges);
    s.news();
    assert!(s.view("u").rejected);
    // The forgotten id cannot run again.
    s.submit("unnamed");
    assert_eq!(s.news(), ["refused unnamed: stale-id ×1"]);
    // With the last task that names it goes the memory of it.
    s.command(CommandVerb::Cancel, "t");
    s.world.settle();
    assert!(s.world.state.task(s.place, named).is_none());
    s.folds_agree();
}
