//! Tasks that go to another swarm: there they are done, here they end, exactly once whatever is repeated, lost or called off.

mod random;
mod refused;

use swarm_events::{
    Body, Event, Input, Subject, SwarmId,
    decider::Verdict,
    envelope::Source,
    subject::{
        CommandVerb::{Cancel, CancelGraph, Retry},
        SwarmVerb, TaskVerb,
    },
    swarm::Deleted,
    task::{
        DependencyType::{Data, Success},
        Origin, handed_id,
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
