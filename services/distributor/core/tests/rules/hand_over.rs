//! Tasks that go to another swarm: there they are done, here they end, exactly once whatever is repeated, lost or called off.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};
use swarm_events::{
    Body, Event, Input, InstanceId, Service, Subject, SwarmId, TaskId,
    command::{HandBack, Outcome},
    decider::Verdict,
    envelope::Source,
    subject::{
        CommandVerb::{Cancel, CancelGraph, Retry},
        SwarmVerb, TaskVerb,
    },
    swarm::Deleted,
    task::{
        DependencyType::{Completion, Data, Success},
        HAND_OVERS_MAX, Origin, handed_id,
    },
    topology::Topology,
};
use uuid::Uuid;

use crate::scene::Scene;

fn swarm(n: u128) -> SwarmId {
    SwarmId(Uuid::from_u128(n))
}
const THERE: u128 = 0xC;

/// The swarm that hands over, and the one that does it, each in a partition of its own, with an agent each.
fn two() -> (Scene, Scene) {
    let mut here = Scene::new();
    let mut there = Scene::at(swarm(THERE), Topology::default(), |_| {});
    assert_ne!(here.place.partition, there.place.partition);
    here.join("A");
    there.join("Z");
    (here, there)
}
fn hand(here: &mut Scene, task: &str) {
    here.submit_as(task, |t| t.hand_to = Some(swarm(THERE)));
}
/// The name in `there` of a task of `here`, of that generation.
fn known(here: &mut Scene, there: &mut Scene, task: &str, generation: u32) -> String {
    let origin = Origin {
        swarm_id: here.place.swarm,
        task_id: here.task_id(task),
        generation,
        hops: 1,
    };
    let name = format!("{task} from here, generation {generation}");
    there.call(&name, handed_id(&origin).0);
    name
}
fn error(s: &mut Scene, task: &str) -> String {
    s.view(task).error.unwrap_or_default()
}

#[test]
fn a_task_for_another_swarm_is_done_there_and_ends_here_with_its_result() {
    let (mut here, mut there) = two();
    hand(&mut here, "t");
    assert_eq!(here.news(), ["handed over t: 1"]);
    let view = here.view("t");
    assert_eq!(view.status.as_str(), "pending");
    assert_eq!((view.hand_to, view.handed_over), (Some(swarm(THERE)), true));
    assert_eq!(here.mail(&mut there), 1);
    let name = known(&mut here, &mut there, "t", 1);
    assert_eq!(there.news(), [format!("assigned {name} to Z")]);
    let origin = there.view(&name).origin.expect("it is done for another");
    assert_eq!(
        (origin.swarm_id, origin.task_id),
        (here.place.swarm, here.task_id("t"))
    );
    there.run_held(&name);
    assert_eq!(there.mail(&mut here), 1);
    assert_eq!(here.news(), ["handed back t: 1"]);
    assert_eq!(here.status("t"), "completed");
    assert_eq!((here.letters().len(), there.letters().len()), (0, 0));
    let counters = here.world.state.counters(here.place).expect("known");
    assert_eq!((counters.completed, counters.pending), (1, 0));
    here.folds_agree();
    there.folds_agree();
}

#[test]
fn correlation_and_trace_go_along_and_come_back() {
    let (mut here, mut there) = two();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let about = here.id("t");
    let mut task = crate::scene::plain();
    task.hand_to = Some(swarm(THERE));
    let subject = Subject::Task(here.place, TaskVerb::Submitted, None);
    let id = swarm_events::EventId(here.world.id());
    let source = Source::Client("test".to_owned());
    let mut event = Event::new(id, source, here.world.now, &subject, about, task);
    event.traceparent = Some(trace.to_owned());
    event.correlation = Some(Uuid::from_u128(77));
    here.world.event(&subject, &event);
    here.world.settle();
    let letters = here.letters();
    assert_eq!(letters[0].2.traceparent.as_deref(), Some(trace));
    assert_eq!(letters[0].2.correlation, Some(Uuid::from_u128(77)));
    here.mail(&mut there);
    let name = known(&mut here, &mut there, "t", 1);
    there.run_held(&name);
    there.world.settle();
    let back = &there.letters()[0].2;
    assert_eq!(back.traceparent.as_deref(), Some(trace));
    assert_eq!(back.correlation, Some(Uuid::from_u128(77)));
    there.mail(&mut here);
    let ended = here.world.inputs().find_map(|input| match input {
        Input::Event(r) if matches!(r.event.body, Body::TaskHandedBack(_)) => Some(r.event),
        _ => None,
    });
    assert_eq!(
        ended.expect("handed back").correlation,
        Some(Uuid::from_u128(77))
    );
}

#[test]
fn it_is_handed_over_once_what_it_depends_on_has_ended() {
    let (mut here, mut there) = two();
    here.submit("first");
    let edges = here.edges(&[("first", Success)]);
    here.submit_as("t", |t| {
        t.hand_to = Some(swarm(THERE));
        t.depends_on = edges;
    });
    assert_eq!(here.news(), ["assigned first to A"]);
    here.run_held("first");
    assert_eq!(here.news(), ["handed over t: 1"]);
    here.mail(&mut there);
    let edges = here.edges(&[("t", Data)]);
    here.submit_as("after", |t| t.depends_on = edges);
    let name = known(&mut here, &mut there, "t", 1);
    there.run(&name);
    there.mail(&mut here);
    assert_eq!(here.news(), ["handed back t: 1", "assigned after to A"]);
}

#[test]
fn what_fails_there_fails_here_and_can_be_retried_as_another_task_there() {
    let (mut here, mut there) = two();
    hand(&mut here, "t");
    here.mail(&mut there);
    let name = known(&mut here, &mut there, "t", 1);
    there.world.settle();
    there.start(&name);
    there.fail_attempt(&name, false);
    there.mail(&mut here);
    assert_eq!(here.status("t"), "failed");
    assert_eq!(error(&mut here, "t"), "exit code 1");
    assert!(here.view("t").dead_lettered);
    here.command(Retry, "t");
    here.mail(&mut there);
    let again = known(&mut here, &mut there, "t", 2);
    there.run(&again);
    there.mail(&mut here);
    assert_eq!(here.status("t"), "completed");
    here.folds_agree();
}

#[test]
fn what_is_cancelled_here_is_cancelled_there() {
    for running in [false, true] {
        let (mut here, mut there) = two();
        hand(&mut here, "t");
        here.mail(&mut there);
        let name = known(&mut here, &mut there, "t", 1);
        if running {
            there.begin(&name);
        }
        let command = here.command(Cancel, "t");
        here.world.settle();
        assert!(matches!(
            here.world.answer(command).body,
            Body::TaskCancelled(_)
        ));
        assert_eq!(here.status("t"), "cancelled");
        assert_eq!(here.mail(&mut there), 1);
        assert_eq!(there.status(&name), "cancelled");
        // What comes back finds it ended.
        assert_eq!(there.mail(&mut here), 1);
        assert_eq!(
            here.news().last().map(String::as_str),
            Some("refused t: task-ended ×1")
        );
        assert_eq!(here.letters().len(), 0);
    }
}

#[test]
fn what_is_cancelled_there_is_cancelled_here_and_nobody_is_told_again() {
    let (mut here, mut there) = two();
    hand(&mut here, "t");
    here.mail(&mut there);
    let name = known(&mut here, &mut there, "t", 1);
    there.command(Cancel, &name);
    there.mail(&mut here);
    assert_eq!(here.status("t"), "cancelled");
    assert_eq!(error(&mut here, "t"), "cancelled by command");
    assert_eq!(here.letters().len(), 0);
}

#[test]
fn a_graph_or_a_swarm_that_is_called_off_calls_off_what_it_handed_over() {
    let (mut here, mut there) = two();
    here.part("g", 0, 1, "one", &[]);
    here.world.settle();
    let graph = swarm_events::GraphId(here.id("h"));
    here.submit_as("t", |t| {
        t.hand_to = Some(swarm(THERE));
        t.graph = Some(swarm_events::task::GraphPart {
            id: graph,
            index: 0,
            of: 1,
        });
    });
    here.mail(&mut there);
    let name = known(&mut here, &mut there, "t", 1);
    here.command(CancelGraph, "h");
    here.mail(&mut there);
    assert_eq!(
        (here.status("t"), there.status(&name)),
        ("cancelled", "cancelled")
    );
    hand(&mut here, "u");
    here.mail(&mut there);
    let name = known(&mut here, &mut there, "u", 1);
    here.stop_swarm();
    here.mail(&mut there);
    assert_eq!(
        (here.status("u"), there.status(&name)),
        ("cancelled", "cancelled")
    );
}

fn delete(s: &mut Scene) {
    let subject = Subject::Swarm(s.place, SwarmVerb::Deleted);
    let place = s.place;
    s.coordinator(subject, place.swarm.0, Deleted {});
}

#[test]
fn a_swarm_that_is_gone_going_full_or_refuses_hands_back_with_the_reason() {
    let stopping = |there: &mut Scene| there.stop_swarm();
    let deleted = |there: &mut Scene| {
        there.stop_swarm();
        delete(there);
    };
    let full = |there: &mut Scene| {
        there.configure(swarm_events::configuration::Configuration {
            queue_limit: 1,
            ..Default::default()
        });
        there.leave("Z");
        there.submit("other");
    };
    type Given<'a> = &'a dyn Fn(&mut Scene);
    let cases: [(&str, Given<'_>); 3] = [
        ("is being terminated", &stopping),
        ("there is no swarm", &deleted),
        ("queue_limit is 1", &full),
    ];
    for (why, make) in cases {
        let (mut here, mut there) = two();
        make(&mut there);
        there.world.settle();
        hand(&mut here, "t");
        here.mail(&mut there);
        there.mail(&mut here);
        assert_eq!(here.status("t"), "failed", "{why}");
        let error = error(&mut here, "t");
        assert!(error.contains(why), "{error}");
        assert!(here.view("t").dead_lettered);
        there.folds_agree();
    }
    // Never created, in that organization.
    let (mut here, mut there) = two();
    here.submit_as("t", |t| t.hand_to = Some(swarm(0xDEAD)));
    here.world.settle();
    let (sequence, subject, event) = here.letters().remove(0);
    // Whoever folds that partition: the world there only checks that it is its own.
    let mut nowhere = Scene::at(swarm(0xF00D), Topology::default(), |_| {});
    let _ = (&mut there, &mut nowhere);
    let mut world = swarm_events::testing::World::<swarm_distributor_core::Distributor>::new(
        subject.partition(),
    );
    world.event(&subject, &event);
    world.settle();
    here.delivered(vec![sequence]);
    let source = Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(5)));
    let posts: Vec<_> = world.state.letters(0).collect();
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0].reads(), None);
    let (subject, event) = posts[0].event(source, world.now, Err(String::new()));
    here.world.event(&subject, &event);
    here.world.settle();
    assert_eq!(here.status("t"), "failed");
    assert!(error(&mut here, "t").contains("there is no swarm"));
}

#[test]
fn a_swarm_that_is_deleted_meanwhile_hands_back() {
    let (mut here, mut there) = two();
    hand(&mut here, "t");
    here.mail(&mut there);
    let name = known(&mut here, &mut there, "t", 1);
    there.begin(&name);
    there.stop_swarm();
    there.world.settle();
    delete(&mut there);
    there.mail(&mut here);
    assert_eq!(here.status("t"), "cancelled");
    assert_eq!(error(&mut here, "t"), "the swarm is being terminated");
}

#[test]
fn repeats_of_everything_change_nothing() {
    let (mut here, mut there) = two();
    hand(&mut here, "t");
    here.world.settle();
    let there_is = here.letters().remove(0);
    for _ in 0..3 {
        here.world.claim();
        there.world.event(&there_is.1, &there_is.2);
        assert_eq!(
            here.letters().len(),
            1,
            "not delivered, as far as the log says"
        );
    }
    assert_eq!(there.world.state.tasks(there.place).count(), 1);
    here.mail(&mut there);
    let name = known(&mut here, &mut there, "t", 1);
    there.run(&name);
    let back = there.letters().remove(0);
    for _ in 0..3 {
        there.world.claim();
        here.world.event(&back.1, &back.2);
        here.world.settle();
        assert_eq!(
            there.letters()[0].2.id,
            back.2.id,
            "it has the same id each time"
        );
    }
    there.mail(&mut here);
    assert_eq!(here.news(), ["handed over t: 1", "handed back t: 1"]);
    // Also when the ended task is handed over once more.
    assert_eq!(
        there.world.event(&there_is.1, &there_is.2),
        Verdict::Void("repeat")
    );
    assert_eq!(there.letters().len(), 0);
    here.folds_agree();
    there.folds_agree();
}

#[test]
fn the_log_says_once_what_was_delivered() {
    let (mut here, _) = two();
    hand(&mut here, "t");
    here.world.settle();
    let sequence = here.letters()[0].0;
    assert_eq!(
        here.delivered(vec![sequence + 1]),
        Verdict::Void("nothing-to-deliver")
    );
    assert_eq!(here.delivered(vec![sequence]), Verdict::Applied);
    assert_eq!(
        here.delivered(vec![sequence]),
        Verdict::Void("nothing-to-deliver")
    );
    here.folds_agree();
}

#[test]
fn a_submission_that_says_wrong_things_of_other_swarms_is_rejected_by_field() {
    let (mut here, _) = two();
    let own = here.place.swarm;
    here.submit_as("self", |t| t.hand_to = Some(own));
    let edges = here.edges(&[("nothing", Completion), ("data", Data)]);
    here.submit("nothing");
    here.submit("data");
    here.submit_as("data there", |t| {
        t.hand_to = Some(swarm(THERE));
        t.depends_on = edges;
    });
    let origin = Origin {
        swarm_id: swarm(THERE),
        task_id: TaskId(Uuid::from_u128(1)),
        generation: 1,
        hops: 1,
    };
    // A client says that another swarm wants it.
    here.submit_as("made up", |t| t.origin = Some(origin));
    let mut rejected: Vec<String> = here
        .news()
        .into_iter()
        .filter(|n| n.starts_with("rejected"))
        .collect();
    rejected.sort();
    assert_eq!(
        rejected,
        [
            "rejected data there: depends_on[1].dependency_type",
            "rejected made up: origin",
            "rejected self: hand_to",
        ]
    );
    assert_eq!(
        here.letters().len(),
        0,
        "nobody is told of what nobody said"
    );
    // A distributor says it of another id, or of this swarm itself.
    let distributor = || Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(5)));
    let other = here.task_id("other");
    here.submitted_by(distributor(), other, |t| t.origin = Some(origin));
    let mine = Origin {
        swarm_id: own,
        ..origin
    };
    here.submitted_by(distributor(), handed_id(&mine), |t| t.origin = Some(mine));
    let both = Origin {
        generation: 2,
        ..origin
    };
    here.submitted_by(distributor(), handed_id(&both), |t| {
        t.origin = Some(both);
        t.hand_to = Some(swarm(0xD));
    });
    let rejected = here.news();
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    assert!(
        rejected
            .iter()
            .all(|n| n.starts_with("rejected") && n.ends_with("origin")),
        "{rejected:?}"
    );
    here.folds_agree();
}

#[test]
fn a_chain_of_hand_overs_ends_at_its_limit() {
    let mut s = Scene::new();
    s.join_as("A", 4, 0, &[]);
    let distributor = || Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(5)));
    let from = |generation, hops| Origin {
        swarm_id: swarm(THERE),
        task_id: TaskId(Uuid::from_u128(1)),
        generation,
        hops,
    };
    for (generation, hops, on) in [(1, HAND_OVERS_MAX - 1, true), (2, HAND_OVERS_MAX, false)] {
        let origin = from(generation, hops);
        s.submitted_by(distributor(), handed_id(&origin), |t| {
            t.origin = Some(origin)
        });
        s.news();
        // Whoever does it hands on what it makes of it.
        let name = format!("on {hops}");
        s.submit_as(&name, |t| {
            t.parent_task_id = Some(handed_id(&origin));
            t.hand_to = Some(swarm(THERE));
        });
        let news = s.news();
        let rejected = format!("rejected {name}: hand_to");
        assert_eq!(s.view(&name).handed_over, on);
        assert_eq!(news.contains(&rejected), !on, "{news:?}");
    }
    let said = s
        .letters()
        .into_iter()
        .find_map(|(_, _, event)| match event.body {
            Body::TaskSubmitted(task) => task.origin,
            _ => None,
        });
    assert_eq!(said.map(|origin| origin.hops), Some(HAND_OVERS_MAX));
    let beyond = from(3, HAND_OVERS_MAX + 1);
    s.submitted_by(distributor(), handed_id(&beyond), |t| {
        t.origin = Some(beyond)
    });
    assert!(
        s.news()
            .iter()
            .any(|n| n.starts_with("rejected") && n.ends_with("origin"))
    );
}

#[test]
fn only_the_swarm_that_has_it_hands_it_back() {
    let (mut here, mut there) = two();
    hand(&mut here, "t");
    let back = |here: &mut Scene, by: u128, generation: u32| {
        let task_id = here.task_id("t");
        let body = HandBack {
            task_id,
            generation,
            by: swarm(by),
            outcome: Outcome::Cancelled {
                reason: "no".to_owned(),
            },
        };
        let subject = Subject::Command(here.place, swarm_events::subject::CommandVerb::HandBack);
        let source = Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(5)));
        let id = here.world.id();
        let event = Event::new(
            swarm_events::EventId(id),
            source,
            here.world.now,
            &subject,
            task_id.0,
            body,
        );
        here.world.event(&subject, &event);
        here.world.settle();
        match here.world.answer(id).body {
            Body::TaskRefused(refused) => refused.problem.code,
            other => panic!("{other:?}"),
        }
    };
    here.world.settle();
    assert_eq!(back(&mut here, 0xD, 1), "not-handed-over");
    assert_eq!(back(&mut here, THERE, 2), "not-handed-over");
    here.mail(&mut there);
    let name = known(&mut here, &mut there, "t", 1);
    there.run(&name);
    there.mail(&mut here);
    assert_eq!(back(&mut here, THERE, 1), "task-ended");
    assert_eq!(here.status("t"), "completed");
}

#[test]
fn what_is_handed_over_counts_against_the_queue_limit_here() {
    let mut here = Scene::with(|c| {
        c.queue_limit = 2;
        c.shed_from_percent = 100;
    });
    for task in ["1", "2", "3"] {
        hand(&mut here, task);
    }
    assert_eq!(
        here.news(),
        [
            "handed over 1: 1",
            "handed over 2: 1",
            "rejected 3: configuration.queue_limit"
        ]
    );
}

#[derive(Clone, Debug)]
enum Op {
    Hand,
    Decide(bool, usize),
    Deliver(bool, usize),
    Claim(bool),
    /// A letter arrives, perhaps for the second time, and perhaps the log does not say so.
    Carry(bool, Index, bool),
    CancelHere(Index),
    CancelThere(Index),
    RetryHere(Index),
    RetryThere(Index),
    Start(Index),
    Complete(Index),
    Fail(Index),
    StopThere,
}

fn op() -> impl Strategy<Value = Op> {
    let at = any::<Index>;
    prop_oneof![
        3 => Just(Op::Hand),
        6 => (any::<bool>(), 1..4usize).prop_map(|(h, n)| Op::Decide(h, n)),
        6 => (any::<bool>(), 1..4usize).prop_map(|(h, n)| Op::Deliver(h, n)),
        1 => any::<bool>().prop_map(Op::Claim),
        8 => (any::<bool>(), at(), any::<bool>()).prop_map(|(h, i, said)| Op::Carry(h, i, said)),
        2 => at().prop_map(Op::CancelHere),
        1 => at().prop_map(Op::CancelThere),
        1 => at().prop_map(Op::RetryHere),
        1 => at().prop_map(Op::RetryThere),
        4 => at().prop_map(Op::Start),
        3 => at().prop_map(Op::Complete),
        1 => at().prop_map(Op::Fail),
        1 => Just(Op::StopThere),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is repeated, lost or called off, on either side: each generation of a task that is handed over has exactly
    /// one end here.
    #[test]
    fn what_is_handed_over_has_exactly_one_end_here(ops in proptest::collection::vec(op(), 1..150), stop in any::<bool>()) {
        let mut here = Scene::with(|c| c.queue_limit = 12);
        let mut there = Scene::at(swarm(THERE), Topology::default(), |c| { c.queue_limit = 6; c.max_attempts = 1; });
        there.join_as("Z", 2, 1, &[]);
        let mut tasks: Vec<String> = Vec::new();
        let mut over: Vec<String> = Vec::new();
        let mut stopped = false;
        let pick = |names: &Vec<String>, at: &Index| (!names.is_empty()).then(|| names[at.index(names.len())].clone());
        for op in ops {
            // Those that are known there by now.
            let handed: Vec<(String, u32)> = tasks.iter().filter_map(|task| Some((task.clone(), here.try_view(task)?.generation))).collect();
            over.clear();
            for (task, generation) in handed {
                let name = known(&mut here, &mut there, &task, generation);
                if there.try_view(&name).is_some() { over.push(name); }
            }
            match op {
                Op::Hand => {
                    let name = format!("t{}", tasks.len());
                    hand(&mut here, &name);
                    tasks.push(name);
                }
                Op::Decide(at_home, n) => {
                    let scene = if at_home { &mut here } else { &mut there };
                    // How far a stopping swarm's tasks have been looked at is the plan's own.
                    if stopped && !at_home {
                        scene.world.decide(n);
                        continue;
                    }
                    let decided = scene.world.decide_twice(n);
                    prop_assert!(decided.is_ok(), "{decided:?}");
                }
                Op::Deliver(at_home, n) => {
                    let scene = if at_home { &mut here } else { &mut there };
                    for _ in 0..n { scene.world.deliver(); }
                }
                Op::Claim(at_home) => if at_home { here.world.claim() } else { there.world.claim() },
                Op::Carry(at_home, at, said) => {
                    let (from, to) = if at_home { (&mut here, &mut there) } else { (&mut there, &mut here) };
                    let letters = from.letters();
                    if letters.is_empty() { continue; }
                    let (sequence, subject, event) = &letters[at.index(letters.len())];
                    to.world.event(subject, event);
                    if said { from.delivered(vec![*sequence]); }
                }
                Op::CancelHere(at) => if let Some(name) = pick(&tasks, &at) { here.command(Cancel, &name); },
                Op::RetryHere(at) => if let Some(name) = pick(&tasks, &at) { here.command(Retry, &name); },
                Op::CancelThere(at) => if let Some(name) = pick(&over, &at) { there.command(Cancel, &name); },
                Op::RetryThere(at) => if let Some(name) = pick(&over, &at) { there.command(Retry, &name); },
                Op::Start(at) | Op::Complete(at) | Op::Fail(at)
                    if pick(&over, &at).is_none_or(|name| there.view(&name).assignment.is_none()) => {}
                Op::Start(at) => { there.start(&pick(&over, &at).expect("some")); }
                Op::Complete(at) => { there.complete(&pick(&over, &at).expect("some")); }
                Op::Fail(at) => { there.fail_attempt(&pick(&over, &at).expect("some"), false); }
                Op::StopThere => if stop { there.stop_swarm(); stopped = true; },
            }
        }
        for _ in 0..40 {
            here.mail(&mut there);
            there.world.later(2_000);
            for task in &tasks {
                let generation = here.view(task).generation;
                let name = known(&mut here, &mut there, task, generation);
                if there.try_view(&name).is_some_and(|view| view.assignment.is_some()) {
                    there.start(&name);
                    there.complete(&name);
                }
            }
            there.mail(&mut here);
            here.world.later(2_000);
        }
        let mut ends: BTreeMap<(Uuid, u32), usize> = BTreeMap::new();
        for (stored, verdict) in here.world.log.iter().zip(&here.world.verdicts) {
            let (Input::Event(r), Verdict::Applied) = (stored.input(), verdict) else { continue };
            let about = r.event.about;
            let generation = match r.event.body {
                Body::TaskHandedBack(e) => e.generation,
                Body::TaskFailed(e) => e.generation,
                Body::TaskCancelled(e) => e.generation,
                Body::TaskRejected(_) => 1,
                Body::TaskAssigned(_) => { prop_assert!(false, "it was assigned here"); 0 }
                _ => continue,
            };
            *ends.entry((about, generation)).or_default() += 1;
        }
        for task in &tasks {
            let view = here.view(task);
            prop_assert!(view.status.ended(), "{task}: {view:?}");
            let id = here.id(task);
            let mut generations = 0;
            for (_, count) in ends.range((id, 0)..=(id, u32::MAX)) {
                prop_assert_eq!(*count, 1, "{}", task);
                generations += 1;
            }
            prop_assert!(generations >= 1, "{}", task);
        }
        prop_assert!(here.letters().is_empty() && there.letters().is_empty());
        let counters = here.world.state.counters(here.place).expect("known");
        prop_assert_eq!(counters.pending + counters.queued + counters.ending, 0);
        here.folds_agree();
        there.folds_agree();
    }
}
