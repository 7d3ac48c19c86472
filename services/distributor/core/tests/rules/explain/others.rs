//! Tasks that no agent can have yet, that an agent has, and that have ended.

use swarm_distributor_core::explain::{DEPENDENCIES_SHOWN_MAX, Deciding, Next, Reason};
use swarm_events::{
    decider::{Decider, REMEMBERED_MS},
    subject::CommandVerb,
    task::{DependencyType, WithdrawReason},
};

use super::{explain, scene, told};
use crate::scene::Scene;

#[test]
fn a_part_of_a_graph_waits_for_the_others() {
    let mut s = scene();
    s.part("g", 0, 3, "a", &[]);
    s.part("g", 1, 3, "b", &[]);
    assert_eq!(
        told(&mut s, "a"),
        [
            "It waits for its graph: 2 of 3 tasks have been met. If some are still missing at +60000ms, the whole graph is \
             rejected."
        ]
    );
    s.part("g", 2, 3, "c", &[]);
    assert_eq!(
        told(&mut s, "a"),
        ["All 3 tasks of its graph are there: whether it is accepted is being decided."]
    );
    let Reason::Staged(staged) = explain(&mut s, "a").reason else {
        panic!("it is staged");
    };
    assert_eq!((staged.met, staged.of, staged.deciding), (3, 3, true));
}

#[test]
fn a_task_names_the_open_ones_that_it_depends_on() {
    let mut s = scene();
    s.join("A");
    s.part("g", 0, 4, "a", &[]);
    s.part("g", 1, 4, "b", &[]);
    s.part("g", 2, 4, "c", &[]);
    let edges = [
        ("a", DependencyType::Completion),
        ("b", DependencyType::Data),
        ("c", DependencyType::Success),
    ];
    s.part("g", 3, 4, "d", &edges);
    s.run("a");
    assert_eq!(
        told(&mut s, "d"),
        [
            "It waits for 2 of the 3 tasks that it depends on.",
            "Task b must complete, and give its result; it is assigned at agent A.",
            "Task c must complete; it is queued."
        ]
    );
}

#[test]
fn at_most_twenty_open_dependencies_are_listed() {
    for (open, more) in [
        (DEPENDENCIES_SHOWN_MAX, None),
        (DEPENDENCIES_SHOWN_MAX + 1, Some("1 task more are open.")),
    ] {
        let mut s = scene();
        let names: Vec<String> = (0..open).map(|n| n.to_string()).collect();
        let of = open as u32 + 1;
        for (index, name) in (0..).zip(&names) {
            s.part("g", index, of, name, &[]);
        }
        let edges: Vec<(&str, DependencyType)> = names
            .iter()
            .map(|name| (name.as_str(), DependencyType::Completion))
            .collect();
        s.part("g", of - 1, of, "last", &edges);
        s.world.settle();
        let Reason::Dependencies(dependencies) = explain(&mut s, "last").reason else {
            panic!("it is pending");
        };
        assert_eq!(
            (dependencies.open as usize, dependencies.items.len()),
            (open, DEPENDENCIES_SHOWN_MAX)
        );
        let last = told(&mut s, "last").pop();
        let listed = last.as_deref() == Some("Task 19 must end, either way; it is queued.");
        assert_eq!(more.is_none(), listed, "{last:?}");
        if more.is_some() {
            assert_eq!(last.as_deref(), more);
        }
    }
}

#[test]
fn between_attempts_it_says_until_when_and_why() {
    let mut s = Scene::with(|c| {
        c.retry.base_ms = 1_000;
        c.retry.cap_ms = 1_000;
    });
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.fail_attempt("t", true);
    assert_eq!(
        told(&mut s, "t"),
        [
            "Its attempt failed, and it gets another one: exit code 1",
            "The event that says so is being written. If this answer stays, no distributor decides for this swarm: see \
             `swarm status`."
        ]
    );
    s.world.settle();
    let Reason::Delay(delay) = explain(&mut s, "t").reason else {
        panic!("it is delayed");
    };
    assert!((1_000..=1_250).contains(&delay.left_ms), "{delay:?}");
    assert_eq!(delay.next_attempt, 2);
    let told = told(&mut s, "t");
    assert!(told[0].ends_with("before attempt 2 of 3."), "{told:?}");
    assert_eq!(told[1], "The attempt before failed: exit code 1");
}

#[test]
fn what_waits_at_an_agent_says_behind_what_and_who_may_take_it_over() {
    let mut s = scene();
    s.join_as("A", 1, 2, &[]);
    for name in ["t", "u", "v"] {
        s.submit(name);
    }
    s.world.settle();
    s.start("t");
    s.world.later(1_000);
    assert_eq!(
        told(&mut s, "v"),
        [
            "It has waited at agent A for 1 s, behind 1 that came before it: 1 of its 1 slots are taken.",
            "An agent that has a free slot, what the task needs and nothing else to take takes it over."
        ]
    );
    s.complete("t");
    s.world.settle();
    let told = told(&mut s, "u");
    assert_eq!(
        told,
        [
            "It has waited at agent A for 1 s and is the next to start there: 0 of its 1 slots are taken.",
            "The agent has a free slot for it: if it does not start it by +2000ms, another agent gets it."
        ]
    );
}

#[test]
fn what_runs_says_which_limits_apply() {
    let mut s = Scene::with(|c| c.progress_timeout_ms = 3_000);
    s.join("A");
    s.submit_as("t", |t| t.timeout_ms = Some(10_000));
    s.world.settle();
    s.start("t");
    s.world.later(1_000);
    s.progress("t");
    s.world.later(500);
    assert_eq!(
        told(&mut s, "t"),
        [
            "It has run at agent A for 1.5 s; this is attempt 1 of 3.",
            "Its run limit ends at +8500ms: if it still runs then, it is taken away.",
            "It was last heard of at -500ms: without progress by +2500ms it is taken away."
        ]
    );
    let assignment = s.assignment("t").1;
    let Reason::Running(held) = explain(&mut s, "t").reason else {
        panic!("it runs");
    };
    assert_eq!((held.assignment, held.running), (assignment, 1));
    // When it is called off
    s.command(CommandVerb::Cancel, "t");
    assert_eq!(
        told(&mut s, "t")[1],
        "It is being taken away: it was cancelled."
    );
}

#[test]
fn what_is_at_a_lost_agent_is_being_taken_away() {
    let mut s = scene();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.fail("A");
    let Reason::Running(held) = explain(&mut s, "t").reason else {
        panic!("it runs, as far as the log knows");
    };
    assert_eq!(held.taken_away_for, Some(WithdrawReason::AgentFailed));
}

#[test]
fn how_a_task_ended_is_told() {
    let mut s = Scene::with(|c| c.max_attempts = 1);
    s.join("A");
    s.submit("done");
    s.run("done");
    assert_eq!(told(&mut s, "done"), ["It completed at +0ms."]);
    assert!(explain(&mut s, "done").task.is_none());
    s.part("g", 0, 3, "first", &[]);
    s.part("g", 1, 3, "second", &[("first", DependencyType::Success)]);
    s.part("g", 2, 3, "third", &[("second", DependencyType::Success)]);
    s.world.settle();
    s.start("first");
    s.fail_attempt("first", true);
    s.world.settle();
    assert_eq!(
        told(&mut s, "first"),
        [
            "It failed at +0ms after 1 attempt: exit code 1",
            "It is a dead letter: retry it once the cause is mended, or discard it."
        ]
    );
    assert_eq!(
        told(&mut s, "second"),
        [
            "It failed at +0ms after 0 attempts: task first, which it depends on, has failed: exit code 1",
            "Task first failed first, and this one depends on it.",
            "A retry gives it another generation."
        ]
    );
    assert_eq!(
        told(&mut s, "third")[1],
        "The first to fail was task first; through 2 tasks the failure came here, by way of task second."
    );
    s.submit("off");
    s.world.settle();
    s.command(CommandVerb::Cancel, "off");
    s.world.settle();
    let told_off = told(&mut s, "off");
    assert!(
        told_off[0].starts_with("It was cancelled at +0ms"),
        "{told_off:?}"
    );
    let facts = explain(&mut s, "first").task.expect("it can be retried");
    assert_eq!((facts.attempts, facts.task_type.as_str()), (1, "count"));
}

#[test]
fn what_was_refused_and_what_is_forgotten() {
    let mut s = Scene::with(|c| c.queue_limit = 1);
    s.submit("a");
    s.submit("b");
    let Reason::Deciding(deciding) = explain(&mut s, "b").reason else {
        panic!("it is to be refused");
    };
    assert_eq!(deciding.next, Next::Reject);
    s.world.settle();
    let Reason::Ended(ended) = explain(&mut s, "b").reason else {
        panic!("it has ended");
    };
    assert!(ended.rejected && !ended.retryable);
    assert_eq!(
        told(&mut s, "b"),
        ["It was refused before any agent could have it at +0ms."]
    );
    s.world.later(REMEMBERED_MS + 1);
    let (id, place) = (s.task_id("b"), s.place);
    let state = &s.world.state;
    assert_eq!(state.explain(&state.plan(), place, id), None);
}

#[test]
fn a_swarm_that_is_terminated_calls_its_tasks_off() {
    let mut s = scene();
    s.submit("t");
    s.stop_swarm();
    let Reason::Deciding(Deciding { next, because, .. }) = explain(&mut s, "t").reason else {
        panic!("it is to be cancelled");
    };
    assert_eq!(
        (next, because.as_deref()),
        (Next::Cancel, Some("the swarm is being terminated"))
    );
    assert_eq!(explain(&mut s, "t").status.as_str(), "queued");
}

#[test]
fn a_discarded_dead_letter_says_so() {
    let mut s = Scene::with(|c| c.max_attempts = 1);
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.fail_attempt("t", true);
    s.world.settle();
    let task_id = s.task_id("t");
    let subject = swarm_events::Subject::Command(s.place, CommandVerb::Discard);
    let discard = swarm_events::command::Discard { task_id };
    s.world.client(subject, task_id.0, discard);
    s.world.settle();
    let Reason::Ended(ended) = explain(&mut s, "t").reason else {
        panic!("it has ended");
    };
    assert!(ended.discarded && !ended.retryable && !ended.dead_lettered);
    assert_eq!(
        told(&mut s, "t").last().map(String::as_str),
        Some("It was a dead letter, and a person has put it away.")
    );
}

#[test]
fn what_is_past_a_limit_is_being_taken_away() {
    let past = |s: &mut Scene, task: &str, millis: u64| {
        s.world.now = s.world.now.plus_millis(millis);
        s.wake();
        match explain(s, task).reason {
            Reason::Assigned(held) | Reason::Running(held) => held.taken_away_for,
            other => panic!("an agent has it: {other:?}"),
        }
    };
    let mut s = scene();
    s.join("A");
    s.submit_as("t", |t| t.timeout_ms = Some(1_000));
    s.world.settle();
    s.start("t");
    assert_eq!(past(&mut s, "t", 999), None);
    assert_eq!(past(&mut s, "t", 1), Some(WithdrawReason::Timeout));
    let mut s = Scene::with(|c| c.progress_timeout_ms = 500);
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    assert_eq!(past(&mut s, "t", 499), None);
    assert_eq!(past(&mut s, "t", 1), Some(WithdrawReason::NoProgress));
    let mut s = scene();
    s.join_as("A", 1, 1, &[]);
    s.submit("t");
    s.submit_as("u", |t| t.queue_timeout_ms = Some(700));
    s.world.settle();
    s.start("t");
    assert_eq!(past(&mut s, "u", 699), None);
    assert_eq!(past(&mut s, "u", 1), Some(WithdrawReason::QueueTimeout));
    let mut s = scene();
    s.join("A");
    s.submit("t");
    s.world.settle();
    assert_eq!(past(&mut s, "t", 1_999), None);
    assert_eq!(past(&mut s, "t", 1), Some(WithdrawReason::StartLimit));
}
