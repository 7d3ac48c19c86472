//! How a whole and its parts end, and how they start over.

use swarm_events::{
    Body,
    decider::Verdict,
    subject::CommandVerb::{Cancel, CancelGraph, Discard, Retry},
    task::{DependencyType::Success, Step},
};

use super::{error, parted};
use crate::scene::Scene;

#[test]
fn a_part_that_fails_for_good_fails_the_whole_and_calls_the_others_off() {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join_as("A", 2, 0, &[]);
    s.submit("t");
    s.begin("t");
    s.split("t", &["a", "b", "c"]);
    s.world.settle();
    s.start("t/a");
    s.start("t/b");
    s.news();
    s.fail_attempt("t/a", false);
    let news = s.news();
    let mut news: Vec<String> = news.iter().map(|text| s.named(text)).collect();
    news.sort();
    let mut expected = [
        "cancelled t/b: task t, of which it is a part, has ended",
        "cancelled t/c: task t, of which it is a part, has ended",
        "failed t/a: exit code 1",
        "failed t: task t/a, a part of it, has failed: exit code 1",
        "withdrawn t/b from A: Cancelled, end",
        "assigned t/c to A",
        "withdrawn t/c from A: Cancelled, end",
    ];
    expected.sort_unstable();
    assert_eq!(news, expected);
    let view = s.view("t");
    assert_eq!(view.because_of, Some(s.task_id("t/a")));
    assert_eq!(view.failure_path, [s.task_id("t/a")]);
    assert!(view.dead_lettered, "a person may retry the whole");
    assert!(!s.view("t/a").dead_lettered, "and no part of it");
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!((counters.failed, counters.cancelled), (2, 2));
    assert_eq!(counters.pending + counters.queued + counters.ending, 0);
    s.folds_agree();
}

#[test]
fn a_part_is_tried_again_before_it_fails_the_whole() {
    let mut s = parted();
    s.world.settle();
    s.start("t/a");
    s.fail_attempt("t/a", true);
    s.news();
    assert_eq!(s.status("t"), "pending");
    s.world.later(60_000);
    s.start("t/a");
    s.complete("t/a");
    s.run("t/b");
    s.run("t");
    assert_eq!(s.status("t"), "completed");
}

#[test]
fn a_part_that_somebody_cancels_fails_the_whole() {
    let mut s = parted();
    s.world.settle();
    s.command(Cancel, "t/b");
    s.world.settle();
    assert_eq!(s.status("t"), "failed");
    assert_eq!(
        error(&mut s, "t"),
        "task t/b, a part of it, has been cancelled: cancelled by command"
    );
    assert_eq!(s.status("t/a"), "cancelled");
}

#[test]
fn a_whole_that_is_cancelled_cancels_its_parts() {
    let mut s = parted();
    s.world.settle();
    s.start("t/a");
    s.news();
    let command = s.command(Cancel, "t");
    s.world.settle();
    assert!(matches!(
        s.world.answer(command).body,
        Body::TaskCancelled(_)
    ));
    for name in ["t", "t/a", "t/b"] {
        assert_eq!(s.status(name), "cancelled", "{name}");
    }
    assert_eq!(s.agent("A").running.len(), 0);
    assert_eq!(s.complete("t/a"), Verdict::Void("late"));
    s.folds_agree();
}

#[test]
fn a_graph_that_is_called_off_takes_the_parts_of_its_tasks_along() {
    let mut s = Scene::new();
    s.join_as("A", 4, 0, &[]);
    s.part("g", 0, 2, "t", &[]);
    s.part("g", 1, 2, "after", &[("t", Success)]);
    s.begin("t");
    s.split("t", &["a", "b"]);
    s.world.settle();
    s.command(CancelGraph, "g");
    s.world.settle();
    for name in ["t", "t/a", "t/b", "after"] {
        assert_eq!(s.status(name), "cancelled", "{name}");
    }
}

#[test]
fn a_stopping_swarm_cancels_whole_and_parts_once() {
    let mut s = parted();
    s.world.settle();
    s.stop_swarm();
    s.world.settle();
    for name in ["t", "t/a", "t/b"] {
        assert_eq!(s.status(name), "cancelled", "{name}");
    }
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(counters.cancelled, 3);
}

#[test]
fn a_whole_that_is_retried_starts_over() {
    let mut s = parted();
    s.world.settle();
    s.start("t/a");
    s.start("t/b");
    s.complete("t/b");
    s.fail_attempt("t/a", false);
    s.world.settle();
    assert_eq!(s.status("t"), "failed");
    let old = s.task_id("t/a");
    // A part alone cannot be retried, nor put away.
    let command = s.command(Retry, "t/a");
    s.world.settle();
    let Body::TaskRefused(refused) = s.world.answer(command).body else {
        panic!("not refused");
    };
    assert_eq!(refused.problem.code, "part-of-a-task");
    let command = s.command(Discard, "t/a");
    s.world.settle();
    assert!(matches!(s.world.answer(command).body, Body::TaskRefused(_)));
    s.command(Retry, "t");
    s.world.settle();
    let (_, _, assigned) = s.assignment("t");
    assert_eq!((assigned.step, assigned.generation), (Step::Work, 2));
    s.start("t");
    s.split("t", &["a", "b"]);
    assert_ne!(s.task_id("t/a"), old, "the parts are others");
    s.run("t/a");
    s.run_held("t/b");
    s.run("t");
    assert_eq!(s.status("t"), "completed");
    s.folds_agree();
}

#[test]
fn parts_of_an_earlier_generation_are_nothing_to_a_later_one() {
    let mut s = parted();
    s.world.settle();
    s.start("t/a");
    s.start("t/b");
    // The owner is slow: the whole has failed and is retried before its parts were called off.
    s.fail_attempt("t/a", false);
    s.world.decide(1);
    s.world.deliver();
    s.world.decide(1);
    s.world.deliver();
    assert_eq!(s.status("t"), "failed");
    assert_eq!(s.status("t/b"), "running");
    s.command(Retry, "t");
    assert_eq!(s.complete("t/b"), Verdict::Applied);
    s.world.settle();
    assert_eq!(s.status("t"), "assigned");
    assert_eq!(s.view("t").parts, None);
    s.run_held("t");
    assert_eq!(s.status("t"), "completed");
}
