//! Cancel and retry: every command gets an answer that names it.

use swarm_events::{
    Body, Place, Subject,
    decider::Verdict,
    subject::CommandVerb::{Cancel, Retry},
    task::{DependencyType, WithdrawReason},
};
use uuid::Uuid;

use crate::scene::Scene;

/// The code of the one refusal that answers a command.
fn refusal(s: &Scene, command: Uuid) -> String {
    match s.world.answer(command).body {
        Body::TaskRefused(refused) => {
            assert_eq!(refused.command_id.map(|id| id.0), Some(command));
            refused.problem.code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queued_task_is_cancelled_at_once() {
    let mut s = Scene::new();
    s.submit("t");
    let command = s.command(Cancel, "t");
    assert_eq!(s.news(), ["cancelled t: cancelled by command"]);
    assert!(matches!(
        s.world.answer(command).body,
        Body::TaskCancelled(_)
    ));
    s.join("A");
    assert_eq!(s.news(), [""; 0]);
    s.folds_agree();
}

#[test]
fn a_running_task_is_withdrawn_by_force_and_then_cancelled() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.news();
    let command = s.command(Cancel, "t");
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: Cancelled, end",
            "cancelled t: cancelled by command"
        ]
    );
    let answers = s.world.answers(command);
    assert_eq!(answers.len(), 2, "both name the command");
    assert!(
        matches!(&answers[0].body, Body::TaskWithdrawn(w) if w.reason == WithdrawReason::Cancelled)
    );
    s.submit("u");
    assert_eq!(s.news(), ["assigned u to A"], "its slot is free again");
}

#[test]
fn a_result_that_comes_first_wins_over_a_cancel() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.news();
    let command = s.command(Cancel, "t");
    s.world.decide(64);
    assert_eq!(s.complete("t"), Verdict::Applied);
    assert_eq!(
        s.news(),
        [
            "void (unknown-task): withdrawn t from A: Cancelled, end",
            "refused t: task-ended ×1"
        ]
    );
    assert_eq!(refusal(&s, command), "task-ended");
    assert_eq!(s.status("t"), "completed");
}

#[test]
fn a_cancel_waits_for_the_assignment_that_is_under_way() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.decide(64);
    s.command(Cancel, "t");
    assert_eq!(
        s.news(),
        [
            "assigned t to A",
            "withdrawn t from A: Cancelled, end",
            "cancelled t: cancelled by command"
        ]
    );
}

#[test]
fn unknown_and_ended_tasks_are_refused() {
    let mut s = Scene::new();
    let unknown = s.command(Cancel, "nothing");
    s.submit("t");
    s.command(Cancel, "t");
    s.world.settle();
    let ended = s.command(Cancel, "t");
    s.world.settle();
    assert_eq!(refusal(&s, unknown), "unknown-task");
    assert_eq!(refusal(&s, ended), "task-ended");
}

#[test]
fn a_command_is_handled_once() {
    let mut s = Scene::new();
    s.submit("t");
    let id = s.command(Cancel, "t");
    s.world.settle();
    let (task, place) = (s.task_id("t"), s.place);
    let cancel = swarm_events::command::Cancel {
        task_id: task,
        reason: None,
    };
    let again = s
        .world
        .client_as(id, Subject::Command(place, Cancel), task.0, cancel);
    assert_eq!(again, Verdict::Void("repeat"));
}

#[test]
fn commands_to_unknown_swarms_are_refused() {
    let mut s = Scene::new();
    let task_id = s.task_id("t");
    let place = Place {
        org: swarm_events::OrgId(Uuid::from_u128(0xF0)),
        ..s.place
    };
    let body = swarm_events::command::Retry { task_id };
    let command = s
        .world
        .client(Subject::Command(place, Retry), task_id.0, body);
    s.world.settle();
    assert_eq!(refusal(&s, command), "unknown-swarm");
}

#[test]
fn a_retry_opens_a_new_generation_that_ends_once_more() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.fail_attempt("t", false);
    s.news();
    let command = s.command(Retry, "t");
    assert_eq!(s.news(), ["retried t: generation 2", "assigned t to A"]);
    assert!(matches!(s.world.answer(command).body, Body::TaskRetried(_)));
    let (_, _, assigned) = s.assignment("t");
    assert_eq!((assigned.generation, assigned.attempt), (2, 1));
    let submitted = s.view("t").submitted;
    assert_eq!(
        assigned.payload,
        swarm_events::task::Carried::AtSequence(submitted)
    );
    assert_eq!(s.start("t"), Verdict::Applied);
    assert_eq!(s.complete("t"), Verdict::Applied);
    assert_eq!(s.status("t"), "completed");
    s.folds_agree();
}

#[test]
fn only_what_failed_or_was_cancelled_can_be_retried() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("live");
    let live = s.command(Retry, "live");
    s.run("live");
    let completed = s.command(Retry, "live");
    s.submit_as("bad", |t| t.priority = 99);
    s.world.settle();
    let rejected = s.command(Retry, "bad");
    s.world.settle();
    assert_eq!(refusal(&s, live), "task-not-ended");
    assert_eq!(refusal(&s, completed), "not-retryable");
    assert_eq!(refusal(&s, rejected), "not-retryable");
}

#[test]
fn two_retries_of_the_same_task_open_one_generation() {
    let mut s = Scene::new();
    s.submit("t");
    s.command(Cancel, "t");
    s.news();
    let (one, two) = (s.command(Retry, "t"), s.command(Retry, "t"));
    s.world.settle();
    assert!(matches!(s.world.answer(one).body, Body::TaskRetried(_)));
    assert_eq!(refusal(&s, two), "task-not-ended");
    assert_eq!(s.view("t").generation, 2);
}

#[test]
fn a_task_that_failed_for_its_dependency_is_retried_after_that_one() {
    let mut s = Scene::new();
    s.part("g", 0, 2, "up", &[]);
    s.part("g", 1, 2, "down", &[("up", DependencyType::Success)]);
    s.world.settle();
    s.command(Cancel, "up");
    s.world.settle();
    assert_eq!((s.status("up"), s.status("down")), ("cancelled", "failed"));
    let early = s.command(Retry, "down");
    s.world.settle();
    assert_eq!(refusal(&s, early), "dependency-without-result");
    s.command(Retry, "up");
    s.world.settle();
    s.command(Retry, "down");
    s.world.settle();
    assert_eq!((s.status("up"), s.status("down")), ("queued", "pending"));
    s.join("A");
    s.run("up");
    s.run("down");
    assert_eq!(s.status("down"), "completed");
    s.folds_agree();
}

#[test]
fn a_stopping_swarm_cancels_everything_in_turns() {
    let mut s = Scene::new();
    s.join("A");
    for n in 0..200 {
        s.submit(&format!("t{n}"));
    }
    s.part("g", 0, 2, "staged", &[]);
    s.world.settle();
    s.start("t0");
    s.submit_as("later", |t| t.priority = 1);
    s.stop_swarm();
    assert!(s.world.decide(16) <= 16);
    s.submit("too-late");
    s.world.settle();
    for n in 0..200 {
        assert_eq!(s.status(&format!("t{n}")), "cancelled");
    }
    assert_eq!(s.status("later"), "cancelled");
    assert_eq!(
        (s.status("staged"), s.status("too-late")),
        ("failed", "failed")
    );
    assert!(s.view("too-late").rejected);
    let retry = s.command(Retry, "t5");
    s.world.settle();
    assert_eq!(refusal(&s, retry), "swarm-stopping");
    s.folds_agree();
}
