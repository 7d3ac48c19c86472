//! Starts, results, failures, timeouts.

use swarm_events::{
    Json,
    decider::Verdict,
    subject::TaskVerb,
    task::{Carried, Completed, RESULT_BYTES_MAX, Started},
};

use crate::scene::Scene;

/// One agent, one task, started.
fn started() -> Scene {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    assert_eq!(s.start("t"), Verdict::Applied);
    s.news();
    s
}

#[test]
fn a_task_completes_once() {
    let mut s = started();
    assert_eq!(s.status("t"), "running");
    assert_eq!(s.progress("t"), Verdict::Applied);
    assert_eq!(s.complete("t"), Verdict::Applied);
    assert_eq!(s.status("t"), "completed");
    assert_eq!(s.complete("t"), Verdict::Void("late"));
    assert_eq!(s.fail_attempt("t", true), Verdict::Void("late"));
    assert_eq!(s.news(), [""; 0]);
    s.folds_agree();
}

#[test]
fn a_result_needs_a_start() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    assert_eq!(s.complete("t"), Verdict::Void("not-started"));
    assert_eq!(s.start("t"), Verdict::Applied);
    assert_eq!(s.start("t"), Verdict::Void("started-already"));
}

#[test]
fn a_result_of_another_agent_or_assignment_is_void() {
    let mut s = started();
    s.join("B");
    let (a, b) = (s.agent_id("A"), s.agent_id("B"));
    let (_, assignment, _) = s.assignment("t");
    let result = |assignment| Completed {
        assignment,
        incarnation: 1,
        result: Carried::Inline(Json::object()),
    };
    assert_eq!(
        s.by_agent("t", b, TaskVerb::Completed, result(assignment)),
        Verdict::Void("late")
    );
    assert_eq!(
        s.by_agent("t", a, TaskVerb::Completed, result(assignment - 1)),
        Verdict::Void("late")
    );
    let other = s.agent_id("nobody");
    let start = Started {
        assignment,
        incarnation: 1,
    };
    assert_eq!(
        s.by_agent("t", other, TaskVerb::Started, start),
        Verdict::Void("unknown-agent")
    );
    assert_eq!(s.status("t"), "running");
}

#[test]
fn a_failed_attempt_is_retried_after_a_growing_wait() {
    let mut s = started();
    s.fail_attempt("t", true);
    assert_eq!(s.news(), ["retried t: generation 1"]);
    assert_eq!(s.status("t"), "pending");
    assert_eq!(s.view("t").error.as_deref(), Some("exit code 1"));
    s.world.later(499);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(126);
    assert_eq!(s.news(), ["assigned t to A"]);
    assert_eq!(s.assignment("t").2.attempt, 2);
    s.start("t");
    s.fail_attempt("t", true);
    s.news();
    s.world.later(999);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(251);
    assert_eq!(s.news(), ["assigned t to A"]);
}

#[test]
fn used_up_attempts_end_as_a_dead_letter() {
    let mut s = started();
    for _ in 0..2 {
        s.fail_attempt("t", true);
        s.world.settle();
        s.world.later(2_000);
        s.start("t");
    }
    s.news();
    s.fail_attempt("t", true);
    assert_eq!(s.news(), ["failed t: exit code 1"]);
    let view = s.view("t");
    assert!(view.dead_lettered);
    assert_eq!((view.attempt_count, view.status.as_str()), (3, "failed"));
}

#[test]
fn an_error_that_no_attempt_can_help_ends_at_once() {
    let mut s = started();
    s.fail_attempt("t", false);
    assert_eq!(s.news(), ["failed t: exit code 1"]);
    assert!(s.view("t").dead_lettered);
}

#[test]
fn a_timeout_is_counted_from_the_start_and_withdraws_by_force() {
    let mut s = Scene::new();
    s.join("A");
    s.submit_as("t", |t| {
        t.timeout_ms = Some(5_000);
        t.max_attempts = Some(2);
    });
    s.world.settle();
    s.world.later(1_000);
    s.start("t");
    s.news();
    let at = s.view("t").timeout_at.expect("it runs");
    assert_eq!(at.millis_since(s.world.now), 5_000);
    s.world.later(4_999);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    assert_eq!(s.news(), ["withdrawn t from A: Timeout, retry"]);
    assert_eq!(s.complete("t"), Verdict::Void("late"));
    s.world.later(700);
    assert_eq!(s.news(), ["assigned t to A"]);
    s.start("t");
    s.world.later(5_000);
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: Timeout, end",
            "failed t: it ran longer than its timeout_ms"
        ]
    );
}

#[test]
fn a_result_at_the_limit_is_taken_and_one_over_it_is_a_failed_attempt() {
    let result = |bytes: usize| {
        Carried::Inline(Json::parse(&format!("\"{}\"", "x".repeat(bytes - 2))).unwrap())
    };
    let mut s = started();
    assert_eq!(
        s.complete_with("t", result(RESULT_BYTES_MAX)),
        Verdict::Applied
    );
    assert_eq!(s.status("t"), "completed");

    let mut s = started();
    s.complete_with("t", result(RESULT_BYTES_MAX + 1));
    assert_eq!(s.news(), ["withdrawn t from A: BadResult, retry"]);
}

#[test]
fn a_task_that_failed_names_the_agent_that_had_it_last() {
    let mut s = started();
    let agent = s.agent_id("A");
    s.fail_attempt("t", false);
    s.world.settle();
    assert_eq!(s.status("t"), "failed");
    assert_eq!(s.view("t").agent, Some(agent));

    // Taken away at its run limit for good, it is the same.
    let mut s = Scene::new();
    s.join("A");
    s.submit_as("u", |t| {
        t.timeout_ms = Some(100);
        t.max_attempts = Some(1);
    });
    s.world.settle();
    s.start("u");
    s.world.later(100);
    let agent = s.agent_id("A");
    assert_eq!(s.status("u"), "failed");
    assert_eq!(s.view("u").agent, Some(agent));
    s.folds_agree();
}
