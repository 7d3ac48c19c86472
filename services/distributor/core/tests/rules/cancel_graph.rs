//! Calling a graph off: one event answers the command and marks what lives; each of it is then cancelled in its turn.

use swarm_distributor_core::GRAPH_PARTS_MS_MAX;
use swarm_events::{
    Body, GraphId, Json, Subject,
    decider::Verdict,
    subject::CommandVerb::{Cancel, CancelGraph, Discard, Retry},
    task::DependencyType::{Completion, Success},
};
use uuid::Uuid;

use crate::scene::Scene;

/// An accepted graph with a running, an assigned, a queued and a pending task, each needing the one before but the first
/// three.
fn scene() -> Scene {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join_as("A", 1, 1, &[]);
    s.part("g", 0, 4, "running", &[]);
    s.part("g", 1, 4, "assigned", &[]);
    s.part("g", 2, 4, "queued", &[]);
    s.part("g", 3, 4, "pending", &[("running", Success)]);
    s.world.settle();
    let running = s.first_of("A");
    assert_eq!(running, "running");
    s.start("running");
    s.news();
    for name in ["running", "assigned", "queued", "pending"] {
        assert_eq!(s.status(name), name);
    }
    s
}

fn code(s: &Scene, command: Uuid) -> String {
    match s.world.answer(command).body {
        Body::TaskRefused(refused) => {
            assert_eq!(refused.problem.field.as_deref(), Some("graph_id"));
            refused.problem.code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_that_lives_of_a_graph_is_cancelled() {
    let mut s = scene();
    s.submit("other");
    s.news();
    let command = s.command(CancelGraph, "g");
    let news = s.news();
    assert_eq!(news[0], "called off g: cancelled by command ×4");
    let mut rest = news[1..].to_vec();
    rest.sort();
    assert_eq!(
        rest,
        [
            "assigned other to A",
            "cancelled assigned: cancelled by command",
            "cancelled pending: cancelled by command",
            "cancelled queued: cancelled by command",
            "cancelled running: cancelled by command",
            "withdrawn assigned from A: Cancelled, end",
            "withdrawn running from A: Cancelled, end",
        ]
    );
    // The first answer is that of the whole; what follows names the command, too.
    let answers = s.world.answers(command);
    assert!(matches!(&answers[0].body, Body::TaskGraphCancelled(c) if c.tasks == 4));
    assert_eq!(answers.len(), 7);
    assert_eq!(answers[0].about, s.id("g"));
    s.folds_agree();
}

#[test]
fn the_reason_of_the_command_is_that_of_each_task() {
    let mut s = scene();
    let graph_id = GraphId(s.id("g"));
    let body = swarm_events::command::CancelGraph {
        graph_id,
        reason: Some("not wanted".to_owned()),
    };
    let subject = Subject::Command(s.place, CancelGraph);
    s.world.client(subject, graph_id.0, body);
    let news = s.news();
    assert_eq!(news[0], "called off g: not wanted ×4");
    for name in ["running", "assigned", "queued", "pending"] {
        assert!(news.contains(&format!("cancelled {name}: not wanted")));
        assert_eq!(s.view(name).error.as_deref(), Some("not wanted"));
    }
}

#[test]
fn a_result_that_comes_before_its_withdrawal_stands() {
    let mut s = scene();
    s.command(CancelGraph, "g");
    s.world.decide(64);
    s.world.deliver();
    // The marks are set, the withdrawals are decided on and not stored.
    s.world.decide(64);
    assert_eq!(s.complete("running"), Verdict::Applied);
    let news = s.news();
    assert_eq!(s.status("running"), "completed");
    assert!(
        news.contains(&"void (unknown-task): withdrawn running from A: Cancelled, end".to_owned())
    );
    // What waited for it is cancelled all the same.
    assert_eq!(s.status("pending"), "cancelled");
    s.folds_agree();
}

#[test]
fn a_failed_attempt_of_a_graph_that_is_called_off_is_not_tried_again() {
    let mut s = scene();
    s.command(CancelGraph, "g");
    s.world.decide(64);
    s.world.deliver();
    s.fail_attempt("running", true);
    let news = s.news();
    assert!(
        news.contains(&"cancelled running: cancelled by command".to_owned()),
        "{news:?}"
    );
    assert_eq!(s.status("pending"), "cancelled");
}

#[test]
fn dependents_in_a_called_off_graph_are_cancelled_and_others_fail() {
    let mut s = Scene::new();
    s.part("g", 0, 3, "up", &[]);
    s.part("g", 1, 3, "down", &[("up", Success)]);
    s.part("g", 2, 3, "after", &[("down", Completion)]);
    s.world.settle();
    s.part("h", 0, 1, "outside", &[("down", Success)]);
    s.news();
    s.command(CancelGraph, "g");
    let news = s.news();
    assert_eq!(
        news,
        [
            "called off g: cancelled by command ×3",
            "cancelled up: cancelled by command",
            "cancelled down: cancelled by command",
            "cancelled after: cancelled by command",
            "failed outside: task down, which it depends on, has been cancelled: cancelled by command",
        ]
    );
    s.folds_agree();
}

#[test]
fn it_is_written_in_bounded_turns() {
    let mut s = Scene::new();
    let of = 300;
    for n in 0..of {
        s.part("g", n, of, &n.to_string(), &[]);
    }
    s.news();
    s.command(CancelGraph, "g");
    assert_eq!(s.world.decide(64), 1);
    s.world.deliver();
    assert_eq!(s.world.decide(64), 64);
    assert_eq!(s.world.decide(64), 64);
    assert_eq!(s.news().len(), 1 + of as usize);
    assert_eq!(s.world.state.backlog(), 0);
    s.folds_agree();
}

#[test]
fn what_is_lost_on_the_way_is_written_again() {
    let mut s = scene();
    let command = s.command(CancelGraph, "g");
    s.world.decide(64);
    s.world.claim();
    s.world.decide(64);
    s.world.deliver();
    s.world.decide(64);
    s.world.deliver();
    s.world.claim();
    s.news();
    for name in ["running", "assigned", "queued", "pending"] {
        assert_eq!(s.status(name), "cancelled", "{name}");
    }
    let calls = s.world.answers(command);
    let calls = calls
        .iter()
        .filter(|event| matches!(event.body, Body::TaskGraphCancelled(_)));
    assert_eq!(calls.count(), 1);
    s.folds_agree();
}

#[test]
fn a_repeated_command_is_void_and_a_second_one_finds_nothing() {
    let mut s = scene();
    s.command(CancelGraph, "g");
    let stored = s.world.log.last().expect("stored").clone();
    assert_eq!(
        s.world.store(&stored.subject, stored.payload),
        Verdict::Void("repeat")
    );
    // A second command while the first is under way.
    let second = s.command(CancelGraph, "g");
    s.news();
    assert_eq!(code(&s, second), "graph-ended");
    let third = s.command(CancelGraph, "g");
    s.news();
    assert_eq!(code(&s, third), "graph-ended");
    let unknown = s.command(CancelGraph, "nobody");
    s.news();
    assert_eq!(code(&s, unknown), "unknown-graph");
}

#[test]
fn ended_parts_stay_as_they_are() {
    let mut s = Scene::new();
    s.join("A");
    s.part("g", 0, 2, "done", &[]);
    s.part("g", 1, 2, "next", &[("done", Success)]);
    s.run("done");
    s.news();
    s.command(CancelGraph, "g");
    let news = s.news();
    assert_eq!(news[0], "called off g: cancelled by command ×1");
    assert_eq!(
        (s.status("done"), s.status("next")),
        ("completed", "cancelled")
    );
}

#[test]
fn what_is_retried_later_lives_until_it_is_called_off_again() {
    let mut s = Scene::new();
    s.part("g", 0, 2, "a", &[]);
    s.part("g", 1, 2, "b", &[]);
    s.world.settle();
    s.command(CancelGraph, "g");
    s.news();
    s.command(Retry, "a");
    assert_eq!(s.news(), ["retried a: generation 2"]);
    assert_eq!((s.status("a"), s.status("b")), ("queued", "cancelled"));
    s.command(CancelGraph, "g");
    assert_eq!(
        s.news(),
        [
            "called off g: cancelled by command ×1",
            "cancelled a: cancelled by command"
        ]
    );
    s.folds_agree();
}

#[test]
fn a_retry_while_a_graph_is_called_off_lives_on() {
    // "done" failed before; the retry is stored after the graph was called off.
    let mut s = Scene::new();
    s.join("A");
    s.part("g", 0, 2, "failed", &[]);
    s.part("g", 1, 2, "other", &[]);
    s.world.settle();
    s.start("failed");
    s.fail_attempt("failed", false);
    s.leave("A");
    s.news();
    s.command(CancelGraph, "g");
    s.world.decide(64);
    s.command(Retry, "failed");
    s.world.decide(64);
    s.news();
    assert_eq!(
        (s.status("failed"), s.status("other")),
        ("queued", "cancelled")
    );
    s.folds_agree();
}

#[test]
fn a_graph_whose_parts_have_not_all_come_is_rejected_whole() {
    let mut s = Scene::new();
    s.part("g", 0, 2, "a", &[]);
    s.news();
    let command = s.command(CancelGraph, "g");
    assert_eq!(s.news(), ["rejected g: graph.id"]);
    let Body::TaskGraphRejected(rejected) = s.world.answer(command).body else {
        panic!("not rejected");
    };
    assert_eq!(rejected.problem.code, "cancelled");
    assert!(s.view("a").rejected);
    // What comes too late ends, too, and nothing is left to wait for.
    s.part("g", 1, 2, "b", &[]);
    assert_eq!(s.news(), ["rejected b: graph.id"]);
    s.world.later(GRAPH_PARTS_MS_MAX);
    assert_eq!(s.news(), [""; 0]);
    s.folds_agree();
}

#[test]
fn a_command_that_meets_an_acceptance_waits_for_it() {
    let mut s = Scene::new();
    s.part("g", 0, 2, "a", &[]);
    s.part("g", 1, 2, "b", &[]);
    s.world.decide(64);
    s.command(CancelGraph, "g");
    s.world.decide(64);
    assert_eq!(
        s.news(),
        [
            "accepted g",
            "called off g: cancelled by command ×2",
            "cancelled a: cancelled by command",
            "cancelled b: cancelled by command",
        ]
    );
    // The same with a rejection.
    s.part("h", 0, 2, "c", &[("d", Success)]);
    s.part("h", 1, 2, "d", &[("c", Success)]);
    s.world.decide(64);
    let command = s.command(CancelGraph, "h");
    s.world.decide(64);
    s.news();
    assert_eq!(code(&s, command), "graph-ended");
    s.folds_agree();
}

#[test]
fn a_single_cancel_beside_it_is_answered() {
    let mut s = scene();
    s.command(CancelGraph, "g");
    let single = s.command(Cancel, "running");
    s.news();
    assert_eq!(s.status("running"), "cancelled");
    assert!(!s.world.answers(single).is_empty());
    s.folds_agree();
}

#[test]
fn an_agent_that_is_lost_meanwhile_changes_nothing() {
    let mut s = scene();
    s.command(CancelGraph, "g");
    s.world.decide(64);
    s.world.deliver();
    s.world.decide(64);
    s.fail("A");
    s.news();
    for name in ["running", "assigned", "queued", "pending"] {
        assert_eq!(s.status(name), "cancelled", "{name}");
    }
    s.folds_agree();
}

#[test]
fn a_command_that_cannot_be_read_is_refused_by_name() {
    for verb in [CancelGraph, Discard] {
        let mut s = Scene::new();
        let subject = Subject::Command(s.place, verb);
        let about = s.id("g");
        let event = swarm_events::Event::new(
            swarm_events::ids::EventId(s.world.id()),
            swarm_events::envelope::Source::Client("test".to_owned()),
            s.world.now,
            &subject,
            about,
            swarm_events::command::Retry {
                task_id: swarm_events::TaskId(about),
            },
        );
        let text = String::from_utf8(event.to_json().expect("JSON")).expect("text");
        let text = text
            .replace("swarm.cmd.retry.v1", &format!("swarm.cmd.{verb}.v1"))
            .replace("task_id", "something");
        let _ = Json::parse(&text).expect("still JSON");
        s.world.store(&subject.to_string(), text.into_bytes());
        s.world.settle();
        let answer = s.world.answer(event.id.0);
        let Body::TaskRefused(refused) = answer.body else {
            panic!("{answer:?}");
        };
        assert_eq!(refused.command_id.map(|id| id.0), Some(event.id.0));
    }
}
