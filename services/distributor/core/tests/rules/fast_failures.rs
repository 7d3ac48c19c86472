//! Attempts that fail right after their start, one after another: the agent is barred, then on probation.

use swarm_distributor_core::BARRED_MS;
use swarm_events::{agent::Cause, decider::Verdict, task::PassedOver};

use crate::scene::Scene;

/// Two failures within 100 ms are too many.
fn scene() -> Scene {
    Scene::with(|c| {
        c.health.fast_failures_max = 2;
        c.health.fast_failure_ms = 100;
        c.retry.base_ms = 0;
        c.max_attempts = 99;
    })
}

/// Its agent starts a task, and it fails after so long.
fn fails_after(s: &mut Scene, task: &str, millis: u64, retryable: bool) {
    s.world.settle();
    assert_eq!(s.start(task), Verdict::Applied, "{task}");
    s.world.now = s.world.now.plus_millis(millis);
    assert_eq!(s.fail_attempt(task, retryable), Verdict::Applied);
}

/// A is barred: `t` has failed twice there, and waits.
fn barred() -> Scene {
    let mut s = scene();
    s.join_as("A", 3, 3, &[]);
    s.submit("t");
    for _ in 0..2 {
        fails_after(&mut s, "t", 0, true);
    }
    s.world.settle();
    s.news();
    s
}

#[test]
fn an_agent_that_fails_fast_too_often_gets_no_more_at_once() {
    // Given
    let mut s = scene();
    s.join_as("A", 1, 1, &[]);
    for task in ["t", "u", "v"] {
        s.submit(task);
    }
    fails_after(&mut s, "t", 100, true);
    fails_after(&mut s, "u", 100, false);
    assert_eq!(
        s.agent("A").fast_failures,
        1,
        "without a retry it says nothing of the agent"
    );
    s.world.settle();
    // When: what is over at the limit has failed fast.
    let (a, _, _) = s.assignment("v");
    assert_eq!(a, s.agent_id("A"));
    s.news();
    fails_after(&mut s, "v", 100, true);
    // Then
    assert_eq!(s.agent("A").fast_failures, 2);
    assert!(s.agent("A").barred_until.is_some());
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: Drain, queue if not started",
            "retried v: generation 1"
        ],
        "and what waits there goes to others"
    );
    s.join_as("B", 2, 0, &[]);
    s.news();
    let passed_over = s.assignment("t").2.passed_over;
    assert_eq!(passed_over.get(&PassedOver::FailedFast), Some(&1));
    s.folds_agree();
}

#[test]
fn a_failure_past_the_limit_is_none_and_a_success_clears() {
    let mut s = scene();
    s.join_as("A", 3, 0, &[]);
    s.submit("t");
    fails_after(&mut s, "t", 0, true);
    fails_after(&mut s, "t", 101, true);
    assert_eq!(s.agent("A").fast_failures, 1);
    s.submit("u");
    s.run("u");
    assert_eq!(s.agent("A").fast_failures, 0);
    fails_after(&mut s, "t", 0, true);
    assert_eq!(s.agent("A").fast_failures, 1);
    assert_eq!(s.agent("A").barred_until, None);
}

#[test]
fn a_bar_ends_by_itself_and_leaves_one_task_at_a_time() {
    // Given
    let mut s = barred();
    s.submit("u");
    s.world.later(BARRED_MS - 1);
    assert_eq!(s.news(), [""; 0]);
    // When
    s.world.later(1);
    // Then
    assert_eq!(s.news(), ["assigned t to A"], "with three slots, one only");
    assert!(s.agent("A").half_open);
    // And one more bars it again.
    fails_after(&mut s, "t", 0, true);
    assert!(s.agent("A").barred_until.is_some());
    assert_eq!(s.news(), ["retried t: generation 1"]);
    s.folds_agree();
}

#[test]
fn a_success_on_probation_opens_all_places() {
    let mut s = barred();
    s.submit("u");
    s.submit("v");
    s.world.later(BARRED_MS);
    assert_eq!(s.news(), ["assigned t to A"]);
    s.start("t");
    s.complete("t");
    assert!(!s.agent("A").half_open);
    assert_eq!(s.news(), ["assigned u to A", "assigned v to A"]);
}

#[test]
fn healths_quarantine_takes_the_place_of_the_bar() {
    // Given
    let mut s = barred();
    s.quarantine("A", Cause::FastFailures);
    assert_eq!(s.agent("A").barred_until, None);
    // When
    s.world.later(2 * BARRED_MS);
    assert_eq!(s.news(), [""; 0], "health says when it is over");
    s.submit("u");
    s.release("A", Cause::FastFailures);
    // Then
    assert_eq!(s.news().len(), 1, "one at a time");
    assert!(s.agent("A").half_open);
    s.folds_agree();
}

#[test]
fn what_fails_in_quarantine_bars_nobody_beyond_it() {
    // Given: A runs two more when it is put into quarantine.
    let mut s = scene();
    s.join_as("A", 4, 0, &[]);
    for task in ["t", "u", "v"] {
        s.submit(task);
    }
    s.world.settle();
    for task in ["t", "u", "v"] {
        s.start(task);
    }
    s.fail_attempt("t", true);
    s.fail_attempt("u", true);
    s.quarantine("A", Cause::FastFailures);
    // When
    s.fail_attempt("v", true);
    // Then
    assert_eq!(s.agent("A").fast_failures, 3);
    assert_eq!(s.agent("A").barred_until, None);
}

#[test]
fn settings_that_allow_more_let_an_agent_go_at_once() {
    for (max, ms) in [(0, 100), (3, 100)] {
        let mut s = barred();
        s.configure(swarm_events::configuration::Configuration {
            health: swarm_events::configuration::HealthPolicy {
                fast_failures_max: max,
                fast_failure_ms: ms,
                ..Default::default()
            },
            ..Default::default()
        });
        assert_eq!(s.news(), ["assigned t to A"], "{max}");
        assert!(!s.agent("A").half_open);
    }
}

#[test]
fn a_rule_that_is_off_counts_nothing_or_bars_nobody() {
    for (max, ms, counted) in [(2, 0, 0), (0, 100, 9)] {
        let mut s = Scene::with(|c| {
            c.health.fast_failures_max = max;
            c.health.fast_failure_ms = ms;
            c.retry.base_ms = 0;
            c.max_attempts = 99;
        });
        s.join("A");
        s.submit("t");
        for _ in 0..9 {
            fails_after(&mut s, "t", 0, true);
        }
        assert_eq!(s.agent("A").fast_failures, counted);
        assert_eq!(s.agent("A").barred_until, None);
    }
}

#[test]
fn a_new_process_is_not_barred_for_the_old_one() {
    let mut s = barred();
    s.join_as("A", 3, 3, &[]);
    assert_eq!(s.news(), ["assigned t to A"]);
    assert_eq!(s.agent("A").fast_failures, 0);
    s.world.later(BARRED_MS);
    s.folds_agree();
}

#[test]
fn what_still_waits_when_a_bar_is_over_stays() {
    // Given: three wait at A, and nobody decides while it is barred.
    let mut s = scene();
    s.join_as("A", 1, 3, &[]);
    for task in ["t", "u", "v", "w"] {
        s.submit(task);
    }
    fails_after(&mut s, "t", 0, true);
    s.world.settle();
    s.start("u");
    s.fail_attempt("u", true);
    assert!(s.agent("A").barred_until.is_some());
    assert_eq!(s.agent("A").waiting.len(), 3);
    // When
    s.world.now = s.world.now.plus_millis(BARRED_MS);
    s.wake();
    // Then: only the first has had a free slot for too long.
    assert_eq!(s.agent("A").barred_until, None);
    s.world.decide_twice(64).expect("as if made anew");
    let taken = s.news();
    let drained = |line: &String| line.contains("Drain");
    assert!(!taken.iter().any(drained), "{taken:?}");
}
