//! How a failure passes down: every task that fails for another names the way and what the first cause said.

use swarm_distributor_core::CAUSE_BYTES_MAX;
use swarm_events::{
    Body, Input, TaskId,
    subject::CommandVerb::{Cancel, Retry},
    task::{
        DependencyType::{Data, Success},
        FAILURE_PATH_MAX, Failed,
    },
};

use crate::scene::Scene;

/// The `failed` of a task.
fn failed(s: &mut Scene, name: &str) -> Failed {
    let id = s.id(name);
    let found = s.world.inputs().filter_map(|input| match input {
        Input::Event(recorded) if recorded.event.about == id => match recorded.event.body {
            Body::TaskFailed(failed) => Some(failed),
            _ => None,
        },
        _ => None,
    });
    found
        .last()
        .unwrap_or_else(|| panic!("{name} has not failed"))
}

fn names(s: &Scene, path: &[TaskId]) -> Vec<String> {
    path.iter().map(|id| s.named(&id.to_string())).collect()
}

/// A chain "0" → "1" → … → "last", running its first.
fn chain(last: u32) -> Scene {
    let mut s = Scene::new();
    s.join("A");
    s.part("g", 0, last + 1, "0", &[]);
    for n in 1..=last {
        let up = (n - 1).to_string();
        s.part("g", n, last + 1, &n.to_string(), &[(&up, Success)]);
    }
    s.world.settle();
    s.start("0");
    s.news();
    s
}

#[test]
fn the_path_goes_from_the_first_cause_to_the_one_before() {
    let mut s = chain(3);
    s.fail_attempt("0", false);
    assert_eq!(
        s.news(),
        [
            "failed 0: exit code 1",
            "failed 1: task 0, which it depends on, has failed: exit code 1",
            "failed 2: task 1, which it depends on, has failed; first, task 0 has failed: exit code 1",
            "failed 3: task 2, which it depends on, has failed; first, task 0 has failed: exit code 1",
        ]
    );
    for (name, path) in [("0", vec![]), ("1", vec!["0"]), ("3", vec!["0", "1", "2"])] {
        let event = failed(&mut s, name);
        assert_eq!(names(&s, &event.path), path);
        assert_eq!(event.because_of, event.path.last().copied());
        assert_eq!(event.dead_lettered, path.is_empty());
        assert_eq!(s.view(name).failure_path, event.path);
    }
    s.folds_agree();
}

#[test]
fn a_long_path_keeps_the_first_cause_and_the_nearest() {
    let last = FAILURE_PATH_MAX as u32 + 5;
    let mut s = chain(last);
    s.fail_attempt("0", false);
    s.news();
    let at_the_limit = failed(&mut s, &FAILURE_PATH_MAX.to_string());
    let all: Vec<String> = (0..FAILURE_PATH_MAX).map(|n| n.to_string()).collect();
    assert_eq!(names(&s, &at_the_limit.path), all);
    let beyond = failed(&mut s, &last.to_string());
    assert_eq!(beyond.path.len(), FAILURE_PATH_MAX);
    let nearest = last - (FAILURE_PATH_MAX as u32 - 1)..last;
    let expected: Vec<String> = ["0".to_owned()]
        .into_iter()
        .chain(nearest.map(|n| n.to_string()))
        .collect();
    assert_eq!(names(&s, &beyond.path), expected);
    assert!(
        s.named(&beyond.error)
            .ends_with("first, task 0 has failed: exit code 1")
    );
}

#[test]
fn a_cancelled_task_is_a_first_cause_too() {
    let mut s = chain(2);
    s.command(Cancel, "0");
    s.news();
    let event = failed(&mut s, "2");
    assert_eq!(names(&s, &event.path), ["0", "1"]);
    assert_eq!(
        s.named(&event.error),
        "task 1, which it depends on, has failed; first, task 0 has been cancelled: cancelled by command"
    );
}

#[test]
fn a_task_that_comes_after_the_failure_knows_the_whole_path() {
    let mut s = chain(2);
    s.fail_attempt("0", false);
    s.news();
    let edges = s.edges(&[("2", Data)]);
    s.submit_as("late", |t| t.depends_on = edges);
    assert_eq!(
        s.news(),
        [
            "failed late: task 2, which it depends on, has failed; first, task 0 has failed: exit code 1"
        ]
    );
    let event = failed(&mut s, "late");
    assert_eq!(names(&s, &event.path), ["0", "1", "2"]);
}

#[test]
fn a_first_cause_that_lives_again_is_named_without_its_error() {
    let mut s = chain(1);
    s.fail_attempt("0", false);
    s.news();
    s.command(Retry, "0");
    s.news();
    let edges = s.edges(&[("1", Data)]);
    s.submit_as("late", |t| t.depends_on = edges);
    assert_eq!(
        s.news(),
        ["failed late: task 1, which it depends on, has failed; the first was task 0"]
    );
}

#[test]
fn a_long_error_is_quoted_in_part_and_on_whole_characters() {
    let mut s = chain(2);
    let (agent, assignment, assigned) = s.assignment("0");
    // Two bytes each, and the limit falls into one of them.
    let error = format!("x{}", "ü".repeat(CAUSE_BYTES_MAX));
    let attempt = swarm_events::task::AttemptFailed {
        assignment,
        incarnation: assigned.incarnation,
        error: error.clone(),
        retryable: false,
    };
    s.by_agent(
        "0",
        agent,
        swarm_events::subject::TaskVerb::AttemptFailed,
        attempt,
    );
    s.world.settle();
    assert_eq!(failed(&mut s, "0").error, error, "its own error is whole");
    let event = failed(&mut s, "2");
    let quoted = &error[..CAUSE_BYTES_MAX - 1];
    assert!(event.error.ends_with(&format!("has failed: {quoted}")));
}
