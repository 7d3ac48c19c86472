//! Lost decisions, late meetings, new claims.

use swarm_events::{decider::Verdict, subject::CommandVerb, task::DependencyType::Success};

use crate::scene::Scene;

#[test]
fn lost_decisions_are_made_again_after_a_new_claim() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    assert!(s.world.decide(64) > 0);
    s.world.claim();
    assert_eq!(s.news(), ["assigned t to A"]);
    s.folds_agree();
}

#[test]
fn half_of_a_batch_may_be_lost() {
    let mut s = Scene::new();
    s.join_as("A", 9, 0, &[]);
    for name in ["1", "2", "3"] {
        s.submit(name);
    }
    s.world.decide(64);
    s.world.deliver();
    s.world.claim();
    let mut news = s.news();
    news.sort();
    assert_eq!(
        news,
        ["assigned 1 to A", "assigned 2 to A", "assigned 3 to A"]
    );
}

#[test]
fn every_kind_of_open_mark_survives_a_claim() {
    let mut s = Scene::new();
    s.join_as("A", 2, 0, &[]);
    s.submit("running");
    s.submit("failing");
    s.world.settle();
    s.start("running");
    s.start("failing");
    s.fail_attempt("failing", false);
    s.submit_as("invalid", |t| t.priority = 0);
    s.part("g", 0, 1, "part", &[]);
    s.command(CommandVerb::Cancel, "running");
    s.command(CommandVerb::Cancel, "nobody");
    s.news();

    let mut s = {
        // The same once more, with all decisions lost.
        let mut s = Scene::new();
        s.join_as("A", 2, 0, &[]);
        s.submit("running");
        s.submit("failing");
        s.world.settle();
        s.start("running");
        s.start("failing");
        s.news();
        s.fail_attempt("failing", false);
        s.submit_as("invalid", |t| t.priority = 0);
        s.part("g", 0, 1, "part", &[]);
        s.command(CommandVerb::Cancel, "running");
        s.command(CommandVerb::Cancel, "nobody");
        s.world.decide(64);
        s.world.claim();
        s
    };
    assert_eq!(
        s.news(),
        [
            "failed failing: exit code 1",
            "rejected invalid: priority",
            "accepted g",
            "withdrawn running from A: Cancelled, end",
            "refused nobody: unknown-task ×1",
            "assigned part to A",
            "cancelled running: cancelled by command",
        ]
    );
    s.folds_agree();
}

#[test]
fn a_withdrawal_and_a_failure_that_cross_end_in_one_retry() {
    let mut s = Scene::new();
    s.join("A");
    s.submit_as("t", |t| t.timeout_ms = Some(100));
    s.world.settle();
    s.start("t");
    s.news();
    s.world.now = s.world.now.plus_millis(100);
    s.world.control(
        swarm_events::Service::Distributor,
        swarm_events::subject::ControlVerb::Woken,
        swarm_events::control::Woken {},
    );
    s.world.decide(64);
    assert_eq!(s.fail_attempt("t", true), Verdict::Applied);
    assert_eq!(
        s.news(),
        [
            "void (no-such-assignment): withdrawn t from A: Timeout, retry",
            "retried t: generation 1"
        ]
    );
}

#[test]
fn an_assignment_to_an_agent_that_restarts_meanwhile_is_taken_back() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.decide(64);
    s.join("A");
    assert_eq!(
        s.news(),
        [
            "assigned t to A",
            "withdrawn t from A: AgentRestarted, queue",
            "assigned t to A"
        ]
    );
    assert_eq!(s.assignment("t").2.attempt, 1);
}

#[test]
fn a_chain_survives_claims_between_all_steps() {
    let mut s = Scene::new();
    s.join("A");
    s.part("g", 0, 2, "a", &[]);
    s.part("g", 1, 2, "b", &[("a", Success)]);
    for task in ["a", "b"] {
        for _ in 0..3 {
            s.world.claim();
            s.world.settle();
        }
        s.start(task);
        s.world.claim();
        s.complete(task);
        s.world.claim();
    }
    assert_eq!((s.status("a"), s.status("b")), ("completed", "completed"));
    s.folds_agree();
}

#[test]
fn a_retry_that_comes_second_does_not_undo_what_is_under_way() {
    let mut s = Scene::new();
    s.submit("t");
    s.command(CommandVerb::Cancel, "t");
    s.world.settle();
    s.world.later(1_000);
    s.join("A");
    s.news();
    s.command(CommandVerb::Retry, "t");
    s.command(CommandVerb::Retry, "t");
    // The second waits until the first is met, which brings the task back.
    s.world.decide(64);
    s.world.deliver();
    s.world.decide(64);
    assert_eq!(
        s.news(),
        [
            "retried t: generation 2",
            "refused t: task-not-ended ×1",
            "assigned t to A",
        ],
        "assigned once"
    );
}
