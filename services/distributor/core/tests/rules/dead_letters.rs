//! Dead letters: what has failed for good can be retried, or put away.

use swarm_distributor_core::{Status, Touched};
use swarm_events::{
    Body,
    decider::Verdict,
    subject::CommandVerb::{Cancel, Discard, Retry},
    task::DependencyType::{Completion, Success},
};
use uuid::Uuid;

use crate::scene::Scene;

/// A swarm in which "t" has failed for good.
fn dead() -> Scene {
    let mut s = Scene::new();
    s.join_as("A", 4, 0, &["x"]);
    s.submit_as("t", |t| {
        t.required_capabilities = vec!["x".into()];
        t.priority = 7;
    });
    s.world.settle();
    s.start("t");
    s.fail_attempt("t", false);
    assert_eq!(s.news(), ["assigned t to A", "failed t: exit code 1"]);
    s
}

fn code(s: &Scene, command: Uuid) -> String {
    match s.world.answer(command).body {
        Body::TaskRefused(refused) => refused.problem.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dead_letter_is_put_away_and_stays_failed() {
    let mut s = dead();
    let command = s.command(Discard, "t");
    assert_eq!(s.news(), ["discarded t: generation 1"]);
    assert!(matches!(
        s.world.answer(command).body,
        Body::TaskDiscarded(_)
    ));
    let view = s.view("t");
    assert_eq!(view.status, Status::Failed);
    assert!(view.discarded && !view.dead_lettered);
    s.folds_agree();
}

#[test]
fn what_was_put_away_cannot_be_retried_or_put_away_again() {
    let mut s = dead();
    s.command(Discard, "t");
    s.news();
    let retry = s.command(Retry, "t");
    let discard = s.command(Discard, "t");
    assert_eq!(
        s.news(),
        [
            "refused t: not-retryable ×1",
            "refused t: no-dead-letter ×1"
        ]
    );
    assert_eq!(code(&s, retry), "not-retryable");
    let Body::TaskRefused(refused) = s.world.answer(discard).body else {
        panic!("not refused");
    };
    assert!(refused.problem.detail.contains("put away already"));
}

#[test]
fn only_dead_letters_are_put_away() {
    let mut s = dead();
    s.submit("queued");
    s.submit("done");
    s.submit("cancelled");
    let up = s.edges(&[("t", Success)]);
    s.submit_as("failed for another", |t| t.depends_on = up);
    s.command(Cancel, "cancelled");
    s.run("done");
    s.news();
    for (name, expected) in [
        ("queued", "task-not-ended"),
        ("done", "no-dead-letter"),
        ("cancelled", "no-dead-letter"),
        ("failed for another", "no-dead-letter"),
        ("nobody", "unknown-task"),
    ] {
        let command = s.command(Discard, name);
        s.world.settle();
        assert_eq!(code(&s, command), expected, "{name}");
    }
}

#[test]
fn a_repeated_command_is_void() {
    let mut s = dead();
    s.command(Discard, "t");
    let last = s.world.log.last().expect("stored").clone();
    assert_eq!(
        s.world.store(&last.subject, last.payload),
        Verdict::Void("repeat")
    );
    assert_eq!(s.news(), ["discarded t: generation 1"]);
}

#[test]
fn a_retry_and_a_discard_that_cross_are_answered_both_by_facts() {
    // The retry is stored first: the discard waits until it is met, so that nothing void answers it.
    let mut s = dead();
    s.command(Retry, "t");
    s.world.decide(64);
    let discard = s.command(Discard, "t");
    s.world.decide(64);
    assert_eq!(
        s.news(),
        [
            "retried t: generation 2",
            "refused t: task-not-ended ×1",
            "assigned t to A",
        ]
    );
    assert_eq!(code(&s, discard), "task-not-ended");
    // The discard is stored first.
    let mut s = dead();
    s.command(Discard, "t");
    s.world.decide(64);
    let retry = s.command(Retry, "t");
    s.world.decide(64);
    assert_eq!(
        s.news(),
        ["discarded t: generation 1", "refused t: not-retryable ×1",]
    );
    assert_eq!(code(&s, retry), "not-retryable");
    s.folds_agree();
}

#[test]
fn a_chain_that_failed_is_retried_at_once() {
    let mut s = dead();
    let up = s.edges(&[("t", Success)]);
    s.submit_as("next", |t| t.depends_on = up);
    let up = s.edges(&[("next", Success)]);
    s.submit_as("last", |t| t.depends_on = up);
    s.news();
    // All are stored before anything is decided: each waits for the one that it depends on.
    for name in ["t", "next", "last"] {
        s.command(Retry, name);
    }
    s.world.decide(64);
    assert_eq!(
        s.news(),
        [
            "retried t: generation 2",
            "retried next: generation 2",
            "assigned t to A",
            "retried last: generation 2",
        ]
    );
    s.run("t");
    s.run("next");
    s.run("last");
    for name in ["t", "next", "last"] {
        assert_eq!(s.view(name).status, Status::Completed, "{name}");
    }
    s.folds_agree();
}

#[test]
fn a_lost_discard_is_made_again() {
    let mut s = dead();
    s.command(Discard, "t");
    s.world.decide(64);
    s.world.claim();
    assert_eq!(s.news(), ["discarded t: generation 1"]);
}

#[test]
fn a_retried_dead_letter_starts_clean() {
    let mut s = dead();
    let command = s.command(Retry, "t");
    assert_eq!(s.news(), ["retried t: generation 2", "assigned t to A"]);
    assert!(matches!(s.world.answer(command).body, Body::TaskRetried(_)));
    let view = s.view("t");
    assert_eq!(
        (view.generation, view.attempt_count, view.priority),
        (2, 0, 7)
    );
    assert_eq!(view.required_capabilities, ["x"]);
    assert_eq!((view.error, view.because_of), (None, None));
    assert!(!view.dead_lettered && view.failure_path.is_empty());
    s.run("t");
    assert_eq!(s.status("t"), "completed");
}

#[test]
fn what_failed_for_another_starts_clean_too() {
    let mut s = Scene::new();
    s.join_as("A", 4, 0, &[]);
    s.part("g", 0, 2, "up", &[]);
    s.part("g", 1, 2, "down", &[("up", Success)]);
    s.world.settle();
    s.start("up");
    s.fail_attempt("up", false);
    s.world.settle();
    let up = s.task_id("up");
    assert_eq!(s.view("down").failure_path, [up]);
    s.command(Retry, "up");
    s.world.settle();
    s.command(Retry, "down");
    s.world.settle();
    let view = s.view("down");
    assert_eq!(view.status, Status::Pending);
    assert!(view.failure_path.is_empty() && view.because_of.is_none());
    s.run("up");
    assert_eq!(s.status("down"), "assigned");
    s.folds_agree();
}

#[test]
fn tasks_that_name_what_was_put_away_are_judged_as_for_any_failure() {
    let mut s = dead();
    s.command(Discard, "t");
    s.news();
    let needs = s.edges(&[("t", Success)]);
    let after = s.edges(&[("t", Completion)]);
    s.submit_as("needs it", |t| t.depends_on = needs);
    s.submit_as("comes after", |t| t.depends_on = after);
    assert_eq!(
        s.news(),
        [
            "failed needs it: task t, which it depends on, has failed",
            "assigned comes after to A",
        ]
    );
}

#[test]
fn the_view_of_what_is_put_away_is_whole() {
    let mut s = dead();
    s.command(Discard, "t");
    s.world.settle();
    let mut state = swarm_distributor_core::Distributor::new(s.place.partition);
    let mut touched = Touched::default();
    let mut last = None;
    let key = (s.place, s.task_id("t"));
    for input in s.world.inputs() {
        touched.clear();
        state.evolve_traced(&input, &mut touched);
        if touched.tasks.contains(&key) {
            last = touched.ended.get(&key).cloned();
        }
    }
    let view = last.expect("touched, with its last view");
    assert!(view.discarded && !view.dead_lettered);
    assert_eq!((view.task_type.as_str(), view.priority), ("count", 7));
    assert_eq!(view.error.as_deref(), Some("exit code 1"));
    assert!(view.completed_at.is_some());
}

#[test]
fn a_task_with_no_capabilities_left_frees_their_name() {
    // Nothing of a dead letter is held once it is put away: the next class may have its number.
    let mut s = dead();
    s.command(Discard, "t");
    s.news();
    s.submit_as("u", |t| t.required_capabilities = vec!["y".into()]);
    s.news();
    assert_eq!(s.view("u").required_capabilities, ["y"]);
    assert_eq!(s.status("u"), "queued", "nobody has y");
}
