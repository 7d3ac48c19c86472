//! Tasks in parts: the whole waits for them, makes one result of theirs, and ends exactly once whatever fails.

use proptest::{prelude::*, sample::Index};
use swarm_distributor_core::PartsView;
use swarm_events::{
    Body, Input, Json, SwarmId, TaskId,
    agent::CAPABILITIES_MAX,
    configuration::Algorithm,
    decider::Verdict,
    subject::CommandVerb::{Cancel, CancelGraph, Discard, Retry},
    task::{
        AffinityOutcome,
        DependencyType::{Data, Success},
        PARTS_MAX, PAYLOAD_BYTES_MAX, Part, SPLIT_DEPTH_MAX, Step, part_id,
    },
    topology::{Role, Seat, Seated, Topology},
};
use uuid::Uuid;

use crate::scene::{Scene, beyond::part};

/// A task `t` that runs at the only agent, which has room for more.
fn running() -> Scene {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join_as("A", 4, 0, &[]);
    s.submit("t");
    s.begin("t");
    s.news();
    s
}

/// `t` is split in two.
fn parted() -> Scene {
    let mut s = running();
    assert_eq!(s.split("t", &["a", "b"]), Verdict::Applied);
    s
}

fn error(s: &mut Scene, task: &str) -> String {
    let error = s.view(task).error.expect("an error");
    s.named(&error)
}

#[test]
fn a_split_ends_the_assignment_and_its_parts_exist_at_once() {
    let mut s = running();
    let (_, assignment, _) = s.assignment("t");
    assert_eq!(s.split("t", &["a", "b"]), Verdict::Applied);
    assert_eq!(s.status("t"), "pending");
    let view = s.view("t");
    assert_eq!(view.parts, Some(PartsView { open: 2, of: 2 }));
    assert_eq!(view.assignment, None);
    for (index, name) in [(0, "t/a"), (1, "t/b")] {
        let view = s.view(name);
        assert_eq!(view.status.as_str(), "queued");
        assert_eq!(view.parent, Some(s.task_id("t")));
        assert_eq!(view.part, Some(index));
        assert_eq!(view.id, part_id(s.task_id("t"), assignment, index));
    }
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(
        (counters.pending, counters.queued, counters.running),
        (1, 2, 0)
    );
    assert_eq!(s.agent("A").running.len(), 0);
    assert_eq!(s.news(), ["assigned t/a to A", "assigned t/b to A"]);
    s.folds_agree();
}

#[test]
fn when_all_parts_have_completed_their_results_become_one() {
    let mut s = parted();
    s.run("t/a");
    assert_eq!(s.status("t"), "pending");
    assert_eq!(s.view("t").parts, Some(PartsView { open: 1, of: 2 }));
    s.run_held("t/b");
    assert_eq!(s.view("t").step, Step::Reduce);
    assert_eq!(
        s.news(),
        ["assigned t/a to A", "assigned t/b to A", "assigned t to A"]
    );
    let (_, _, assigned) = s.assignment("t");
    assert_eq!(
        (assigned.step, assigned.attempt, assigned.generation),
        (Step::Reduce, 1, 1)
    );
    s.run_held("t");
    assert_eq!(s.status("t"), "completed");
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(
        (
            counters.completed,
            counters.failed,
            counters.pending,
            counters.queued
        ),
        (3, 0, 0, 0)
    );
    s.folds_agree();
}

#[test]
fn a_part_has_what_it_does_not_name_from_its_task_and_its_swarm() {
    let mut s = Scene::with(|c| {
        c.task_timeout_ms = 7_000;
        c.max_attempts = 2;
    });
    s.join("A");
    s.submit_as("t", |t| t.priority = 8);
    s.begin("t");
    let own = Part {
        priority: Some(2),
        max_attempts: Some(1),
        timeout_ms: Some(50),
        required_capabilities: vec!["x".to_owned()],
        ..part("own")
    };
    s.split_as("t", vec![part("plain"), own]);
    let plain = s.view("t/plain");
    assert_eq!((plain.priority, plain.max_attempts), (8, 2));
    let own = s.view("t/own");
    assert_eq!((own.priority, own.max_attempts), (2, 1));
    assert_eq!(own.required_capabilities, ["x"]);
    s.news();
    let (_, _, assigned) = s.assignment("t/plain");
    assert_eq!(assigned.timeout_ms, 7_000);
}

#[test]
fn parts_follow_from_the_same_submission() {
    let mut s = parted();
    s.world.settle();
    let correlation = |s: &mut Scene, name: &str| {
        let id = s.id(name);
        s.world
            .inputs()
            .find_map(|input| match input {
                Input::Event(r) if r.event.about == id => match r.event.body {
                    Body::TaskAssigned(_) => r.event.correlation,
                    _ => None,
                },
                _ => None,
            })
            .expect("assigned")
    };
    assert_eq!(correlation(&mut s, "t/a"), correlation(&mut s, "t"));
}

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
fn the_reduce_keeps_the_results_over_its_attempts_and_has_attempts_of_its_own() {
    let mut s = Scene::with(|c| {
        c.max_attempts = 2;
        c.stealing = false;
    });
    s.join_as("A", 2, 0, &[]);
    s.submit("t");
    // The work needs both attempts.
    s.begin("t");
    s.fail_attempt("t", true);
    s.world.settle();
    s.world.later(60_000);
    s.start("t");
    s.split("t", &["a"]);
    s.run("t/a");
    // So does the reduce.
    s.start("t");
    s.fail_attempt("t", true);
    s.world.settle();
    s.world.later(60_000);
    let (_, _, assigned) = s.assignment("t");
    assert_eq!((assigned.step, assigned.attempt), (Step::Reduce, 2));
    s.run_held("t");
    assert_eq!(s.status("t"), "completed");
}

#[test]
fn a_reduce_whose_agent_is_lost_goes_to_another_with_all_results() {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join("A");
    s.submit("t");
    s.begin("t");
    s.join("B");
    s.split("t", &["a"]);
    s.run("t/a");
    let (agent, ..) = s.assignment("t");
    assert_eq!(agent, s.agent_id("A"), "who split it makes one of it");
    s.start("t");
    s.fail("A");
    s.world.settle();
    let (agent, _, assigned) = s.assignment("t");
    assert_eq!((agent, assigned.step), (s.agent_id("B"), Step::Reduce));
    s.run_held("t");
    assert_eq!(s.status("t"), "completed");
}

#[test]
fn a_reduce_leaves_the_key_at_home_where_it_is() {
    let mut s = Scene::with(|c| {
        (c.stealing, c.distribution_algorithm) = (false, Algorithm::Affinity);
    });
    for agent in ["A", "B"] {
        s.join_as(agent, 1, 0, &[]);
    }
    for task in ["1", "t"] {
        s.submit_as(task, |t| t.affinity_key = Some("x".into()));
    }
    assert_eq!(s.news(), ["assigned 1 to A", "assigned t to B"]);
    s.run_held("1");
    s.start("t");
    s.split("t", &["a"]);
    s.run("t/a");
    // A, where its key is at home, is idle; B split it.
    assert_eq!(s.holder("t"), "B");
    let (_, _, assigned) = s.assignment("t");
    assert_eq!(assigned.step, Step::Reduce);
    assert_eq!(assigned.affinity, Some(AffinityOutcome::Miss));
    s.run_held("t");
    s.news();
    s.submit_as("2", |t| t.affinity_key = Some("x".into()));
    assert_eq!(s.news(), ["assigned 2 to A"]);
    let (agent, _, assigned) = s.assignment("2");
    assert_eq!(
        (agent, assigned.affinity),
        (s.agent_id("A"), Some(AffinityOutcome::Hit))
    );
    s.folds_agree();
}

#[test]
fn what_depends_on_a_whole_waits_for_its_result() {
    let mut s = Scene::new();
    s.join_as("A", 4, 0, &[]);
    s.part("g", 0, 2, "t", &[]);
    s.part("g", 1, 2, "after", &[("t", Data)]);
    s.begin("t");
    s.split("t", &["a"]);
    s.run("t/a");
    assert_eq!(s.status("after"), "pending");
    s.run_held("t");
    s.run("after");
    assert_eq!(s.status("after"), "completed");
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

/// The field that a split is refused for.
fn refused(parts: Vec<Part>) -> Option<String> {
    let mut s = Scene::with(|c| c.queue_limit = 2_000);
    s.join("A");
    s.submit("t");
    s.begin("t");
    s.news();
    assert_eq!(s.split_as("t", parts), Verdict::Applied);
    if s.status("t") != "pending" || s.view("t").parts.is_some() {
        return None;
    }
    s.world.settle();
    let view = s.view("t");
    assert_eq!(view.status.as_str(), "failed");
    assert!(view.dead_lettered);
    assert_eq!(s.agent("A").failed, 1, "a failed attempt");
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(
        (counters.failed, counters.queued, counters.pending),
        (1, 0, 0)
    );
    let error = error(&mut s, "t");
    let fields = ["parts[", "parts"];
    let at = fields.iter().filter_map(|field| error.find(field)).min()?;
    let field = &error[at..];
    let end = field
        .find(|c: char| !c.is_ascii_alphanumeric() && !"[]._".contains(c))
        .unwrap_or(field.len());
    Some(field[..end].trim_end_matches('.').to_owned())
}

#[test]
fn a_split_that_cannot_be_is_refused_as_a_whole_and_names_the_field() {
    let text = |bytes: usize| Json::parse(&format!("\"{}\"", "x".repeat(bytes - 2))).expect("JSON");
    let many = |n: usize| (0..n).map(|n| part(&n.to_string())).collect::<Vec<_>>();
    let second = |change: fn(&mut Part)| {
        let mut parts = many(2);
        change(&mut parts[1]);
        parts
    };
    let cases = [
        ("parts", Vec::new()),
        ("parts", many(PARTS_MAX + 1)),
        ("parts[1].key", second(|p| p.key.clear())),
        ("parts[1].key", second(|p| p.key = "0".to_owned())),
        ("parts[1].task_type", second(|p| p.task_type.clear())),
        ("parts[1].priority", second(|p| p.priority = Some(11))),
        (
            "parts[1].max_attempts",
            second(|p| p.max_attempts = Some(0)),
        ),
        ("parts[1].timeout_ms", second(|p| p.timeout_ms = Some(0))),
        (
            "parts[1].required_capabilities",
            second(|p| p.required_capabilities = vec!["a".to_owned(); CAPABILITIES_MAX + 1]),
        ),
        (
            "parts[0].payload",
            vec![Part {
                payload: text(PAYLOAD_BYTES_MAX + 1),
                ..part("large")
            }],
        ),
    ];
    for (field, parts) in cases {
        assert_eq!(refused(parts).as_deref(), Some(field));
    }
    assert_eq!(refused(many(1)), None);
    assert_eq!(refused(many(PARTS_MAX)), None);
    assert_eq!(
        refused(vec![Part {
            payload: text(PAYLOAD_BYTES_MAX),
            ..part("large")
        }]),
        None
    );
}

#[test]
fn parts_count_against_the_queue_limit_all_or_none() {
    for (parts, fits) in [(3, true), (4, false)] {
        let mut s = Scene::with(|c| {
            c.queue_limit = 4;
            c.shed_from_percent = 100;
        });
        s.join("A");
        s.submit("t");
        s.begin("t");
        s.submit("waits");
        let parts = (0..parts).map(|n| part(&n.to_string())).collect();
        s.split_as("t", parts);
        s.world.settle();
        assert_eq!(s.status("t") == "pending", fits);
        if !fits {
            let error = error(&mut s, "t");
            assert!(
                error.contains("parts[3]") && error.contains("queue_limit"),
                "{error}"
            );
            assert_eq!(
                s.world.state.tasks(s.place).count(),
                1,
                "none of them exists"
            );
        }
    }
}

#[test]
fn what_is_split_again_and_again_comes_to_an_end() {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join("A");
    s.submit("t");
    let mut name = "t".to_owned();
    for _ in 0..SPLIT_DEPTH_MAX {
        s.begin(&name);
        s.split(&name, &["p"]);
        name = format!("{name}/p");
    }
    s.begin(&name);
    s.split(&name, &["p"]);
    s.world.settle();
    assert_eq!(s.status(&name), "failed");
    assert!(error(&mut s, &name).contains("8 deep"));
    assert_eq!(
        s.status("t"),
        "failed",
        "and with it all that it is a part of"
    );
    assert_eq!(s.view("t").failure_path.len(), usize::from(SPLIT_DEPTH_MAX));
    assert_eq!(s.world.state.tasks(s.place).count(), 0);
}

#[test]
fn a_reduce_is_not_split_again() {
    let mut s = parted();
    s.run("t/a");
    s.run_held("t/b");
    s.begin("t");
    s.split("t", &["c"]);
    s.world.settle();
    assert_eq!(s.status("t"), "failed");
    assert!(error(&mut s, "t").contains("answer the reduce with a result"));
}

#[test]
fn only_who_runs_a_task_splits_it_and_only_once() {
    let mut s = Scene::new();
    s.join_as("A", 4, 0, &[]);
    s.submit("t");
    s.world.settle();
    assert_eq!(s.split("t", &["a"]), Verdict::Void("not-started"));
    s.start("t");
    assert_eq!(s.split("t", &["a"]), Verdict::Applied);
    assert_eq!(s.split("t", &["a"]), Verdict::Void("late"));
    assert_eq!(s.complete("t"), Verdict::Void("late"));
    s.join("A");
    s.world.settle();
    assert_eq!(s.split("t", &["a"]), Verdict::Void("late"));
}

#[test]
fn nobody_can_submit_anything_under_the_id_of_a_part() {
    // Before the split: the id is taken, so nothing of it exists.
    let mut s = running();
    let (_, assignment, _) = s.assignment("t");
    let id = part_id(s.task_id("t"), assignment, 1);
    s.submitted_by(
        swarm_events::envelope::Source::Client("x".to_owned()),
        id,
        |_| {},
    );
    s.split("t", &["a", "b"]);
    s.world.settle();
    assert_eq!(s.status("t"), "failed");
    assert!(error(&mut s, "t").contains("parts[1]"));
    // After it: refused, and the part is untouched.
    let mut s = parted();
    let id = TaskId(s.id("t/a"));
    s.submitted_by(
        swarm_events::envelope::Source::Client("x".to_owned()),
        id,
        |t| t.priority = 9,
    );
    assert_eq!(
        s.news(),
        [
            "refused t/a: id-in-use ×1",
            "assigned t/a to A",
            "assigned t/b to A"
        ]
    );
    assert_eq!(s.view("t/a").priority, 5);
}

/// A tree of one coordinator and workers, each with its seat.
fn tree() -> Scene {
    let topology: Topology =
        serde_json::from_str(r#"{"topology": "hierarchical", "configuration": {}}"#)
            .expect("a tree");
    let mut s = Scene::at(SwarmId(Uuid::from_u128(0xB)), topology, |c| {
        c.stealing = false
    });
    for (place, name) in (0..).zip(["top", "left", "right", "under left"]) {
        s.join_as(name, 4, 0, &[]);
        let (role, level, parent) = match name {
            "top" => (Role::Coordinator, 0, None),
            "left" | "right" => (Role::Supervisor, 1, Some("top")),
            _ => (Role::Worker, 2, Some("left")),
        };
        let parent = parent.map(|parent| s.agent_id(parent));
        let seated = Seated {
            generation: 1,
            seat: Some(Seat {
                role,
                level,
                parent,
                place,
                standby: false,
                works: true,
            }),
            named: None,
            reason: "test".to_owned(),
        };
        assert_eq!(
            s.member(name, swarm_events::subject::AgentVerb::Seated, seated),
            Verdict::Applied
        );
    }
    s
}

#[test]
fn what_a_supervisor_splits_stays_below_it_however_often_it_is_split() {
    let mut s = tree();
    s.submit_as("t", |t| t.required_role = Some(Role::Supervisor));
    s.begin("t");
    let (agent, ..) = s.assignment("t");
    s.split("t", &["a"]);
    assert_eq!(s.view("t/a").within, Some(agent));
    s.begin("t/a");
    s.split("t/a", &["b"]);
    assert!(s.view("t/a/b").within.is_some());
    s.folds_agree();
}

#[derive(Clone, Debug)]
enum Op {
    Submit,
    Start(Index),
    Complete(Index),
    Split(Index, usize),
    FailAttempt(Index, bool),
    Cancel(Index),
    Retry(Index),
    LoseAgent(usize),
    Decide(usize),
    Deliver(usize),
    Claim,
    Later(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = any::<Index>;
    prop_oneof![
        2 => Just(Op::Submit),
        6 => at().prop_map(Op::Start),
        5 => at().prop_map(Op::Complete),
        5 => (at(), 1..4usize).prop_map(|(i, n)| Op::Split(i, n)),
        2 => (at(), any::<bool>()).prop_map(|(i, again)| Op::FailAttempt(i, again)),
        1 => at().prop_map(Op::Cancel),
        1 => at().prop_map(Op::Retry),
        1 => (0..3usize).prop_map(Op::LoseAgent),
        6 => (1..5usize).prop_map(Op::Decide),
        6 => (1..5usize).prop_map(Op::Deliver),
        1 => Just(Op::Claim),
        2 => (1..3_000u64).prop_map(Op::Later),
    ]
}

/// The tasks that live or lived, and how often each generation has ended, by the log alone.
fn ends(s: &Scene) -> std::collections::BTreeMap<Uuid, usize> {
    let mut ends = std::collections::BTreeMap::new();
    for (stored, verdict) in s.world.log.iter().zip(&s.world.verdicts) {
        let (Input::Event(recorded), Verdict::Applied) = (stored.input(), verdict) else {
            continue;
        };
        let about = recorded.event.about;
        match recorded.event.body {
            Body::TaskCompleted(_)
            | Body::TaskFailed(_)
            | Body::TaskCancelled(_)
            | Body::TaskRejected(_) => *ends.entry(about).or_default() += 1,
            // Another generation.
            Body::TaskRetried(retried) if retried.attempts == 0 && retried.generation > 1 => {
                *ends.entry(about).or_default() -= 1;
            }
            _ => {}
        }
        let open = ends.get(&about).copied().unwrap_or_default();
        assert!(open <= 1, "{about} ended twice");
    }
    ends
}

const AGENTS: [&str; 3] = ["A", "B", "C"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever happens, each task and each part ends exactly once, none is lost, and a whole ends after its parts decide
    /// how: it completes only if all of them have.
    #[test]
    fn wholes_and_parts_end_exactly_once(ops in proptest::collection::vec(op(), 1..120)) {
        let mut s = Scene::with(|c| {
            c.max_attempts = 2;
            c.queue_limit = 60;
        });
        for agent in AGENTS {
            s.join_as(agent, 2, 1, &[]);
        }
        let mut names: Vec<String> = Vec::new();
        let pick = |names: &Vec<String>, at: &Index| -> Option<String> {
            (!names.is_empty()).then(|| names[at.index(names.len())].clone())
        };
        for op in ops {
            match op {
                Op::Submit => {
                    let name = format!("t{}", names.len());
                    s.submit(&name);
                    names.push(name);
                }
                Op::Start(at) | Op::Complete(at) | Op::Split(at, _) | Op::FailAttempt(at, _)
                    if pick(&names, &at).is_none_or(|name| s.view(&name).assignment.is_none()) => {}
                Op::Start(at) => {
                    let name = pick(&names, &at).expect("some");
                    s.start(&name);
                }
                Op::Complete(at) => {
                    let name = pick(&names, &at).expect("some");
                    s.complete(&name);
                }
                Op::Split(at, parts) => {
                    let name = pick(&names, &at).expect("some");
                    let keys: Vec<String> = (0..parts).map(|n| format!("g{}p{n}", s.world.log.len())).collect();
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    if s.split(&name, &keys) == Verdict::Applied && s.view(&name).parts.is_some() {
                        names.extend(keys.iter().map(|key| format!("{name}/{key}")));
                    }
                }
                Op::FailAttempt(at, again) => {
                    let name = pick(&names, &at).expect("some");
                    s.fail_attempt(&name, again);
                }
                Op::Cancel(at) => {
                    if let Some(name) = pick(&names, &at) {
                        s.command(Cancel, &name);
                    }
                }
                Op::Retry(at) => {
                    if let Some(name) = pick(&names, &at) {
                        s.command(Retry, &name);
                    }
                }
                Op::LoseAgent(n) => {
                    s.join_as(AGENTS[n], 2, 1, &[]);
                }
                Op::Decide(limit) => {
                    let decided = s.world.decide_twice(limit);
                    prop_assert!(decided.is_ok(), "{decided:?}");
                }
                Op::Deliver(n) => (0..n).for_each(|_| { s.world.deliver(); }),
                Op::Claim => s.world.claim(),
                Op::Later(ms) => s.world.later(ms),
            }
        }
        // The faults are over: agents do what they are given.
        for _ in 0..200 {
            s.world.later(2_000);
            let held: Vec<String> = names.iter().filter(|name| s.view(name).assignment.is_some()).cloned().collect();
            for name in held {
                s.start(&name);
                s.complete(&name);
            }
        }
        s.world.settle();
        let ends = ends(&s);
        for name in &names {
            let id = s.id(name);
            let view = s.view(name);
            prop_assert!(view.status.ended(), "{name}: {view:?}");
            prop_assert_eq!(ends.get(&id), Some(&1), "{}", name);
        }
        let counters = s.world.state.counters(s.place).expect("known");
        prop_assert_eq!(counters.pending + counters.queued + counters.assigned + counters.running + counters.ending, 0);
        prop_assert_eq!(counters.completed + counters.failed + counters.cancelled,
            s.world.verdicts.iter().zip(&s.world.log).filter(|(v, m)| **v == Verdict::Applied && matches!(m.input(), Input::Event(r) if matches!(r.event.body, Body::TaskCompleted(_) | Body::TaskFailed(_) | Body::TaskCancelled(_) | Body::TaskRejected(_)))).count() as u64);
        s.folds_agree();
    }
}
