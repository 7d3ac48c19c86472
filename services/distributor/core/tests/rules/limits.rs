//! Bad inputs and limits: each is refused by name, and nothing accepted is touched.

use swarm_distributor_core::{QUEUE_RETRY_AFTER_MS, SUMS_MAX};
use swarm_events::{
    Body, OrgId, Place, Subject,
    decider::Verdict,
    subject::{CommandVerb, TaskVerb},
};
use uuid::Uuid;

use crate::scene::{Scene, plain};

#[test]
fn an_invalid_task_ends_as_rejected_and_its_id_is_used() {
    let mut s = Scene::new();
    s.submit_as("t", |t| t.priority = 11);
    assert_eq!(s.news(), ["rejected t: priority"]);
    let view = s.view("t");
    assert!(view.rejected);
    s.submit_as("t", |t| t.priority = 10);
    assert_eq!(s.news(), ["refused t: id-in-use ×1"]);
    s.folds_agree();
}

#[test]
fn a_repeat_with_the_same_content_is_nothing_and_with_other_content_is_refused() {
    let mut s = Scene::new();
    assert_eq!(s.submit("t"), Verdict::Applied);
    assert_eq!(s.submit("t"), Verdict::Void("repeat"));
    s.submit_as("t", |t| t.priority = 9);
    assert_eq!(s.news(), ["refused t: id-in-use ×1"]);
    assert_eq!(s.view("t").priority, 5, "the first is untouched");
    s.join("A");
    s.run("t");
    assert_eq!(
        s.submit("t"),
        Verdict::Void("repeat"),
        "also when it has ended"
    );
}

#[test]
fn the_queue_limit_rejects_with_a_hint() {
    let mut s = Scene::with(|c| c.queue_limit = 2);
    for name in ["1", "2", "3"] {
        s.submit(name);
    }
    assert_eq!(s.news(), ["rejected 3: configuration.queue_limit"]);
    let rejected = s.world.inputs().find_map(|input| match input {
        swarm_events::Input::Event(r) => match r.event.body {
            Body::TaskRejected(rejected) => Some(rejected),
            _ => None,
        },
        swarm_events::Input::Unreadable(_) => None,
    });
    assert_eq!(
        rejected.expect("met").retry_after_ms,
        Some(QUEUE_RETRY_AFTER_MS)
    );
    s.join("A");
    s.world.settle();
    s.submit("4");
    s.news();
    assert_eq!(s.status("4"), "queued", "an assigned task waits no more");
}

#[test]
fn a_task_for_an_unknown_swarm_or_another_organizations_is_refused() {
    let mut s = Scene::new();
    let foreign = Place {
        org: OrgId(Uuid::from_u128(0xF0)),
        ..s.place
    };
    let task = s.id("t");
    let event = s.world.client(
        Subject::Task(foreign, TaskVerb::Submitted, None),
        task,
        plain(),
    );
    assert_eq!(s.news(), ["refused t: unknown-swarm ×1"]);
    let Body::TaskRefused(refused) = s.world.answer(event).body else {
        panic!("not refused");
    };
    assert!(refused.problem.cure.is_some());
    assert_eq!(s.world.state.counters(s.place).expect("known").queued, 0);
}

#[test]
fn an_id_from_the_future_is_refused() {
    let mut s = Scene::new();
    let now = s.world.now;
    s.world.now = now.plus_millis(6 * 60_000);
    let id = s.id("t");
    s.world.now = now;
    s.world.client(
        Subject::Task(s.place, TaskVerb::Submitted, None),
        id,
        plain(),
    );
    assert_eq!(s.news(), ["refused t: id-from-the-future ×1"]);
}

#[test]
fn ids_of_other_versions_are_taken_as_they_are() {
    let mut s = Scene::new();
    let id = swarm_events::id_of_key(s.place.org, "POST /v1/tasks", "k", 0);
    let verdict = s.world.client_as(
        Uuid::from_u128(5),
        Subject::Task(s.place, TaskVerb::Submitted, None),
        id,
        plain(),
    );
    assert_eq!(verdict, Verdict::Applied);
    assert_eq!(s.world.state.counters(s.place).expect("known").queued, 1);
}

#[test]
fn unreadable_messages_are_summed_by_source_and_second() {
    let mut s = Scene::new();
    // Second-aligned, so that all of them fall into one second.
    let micros = s.world.now.as_micros();
    s.world.now = swarm_events::Timestamp::from_micros(micros - micros % 1_000_000);
    let subject = Subject::Task(s.place, TaskVerb::Submitted, None).to_string();
    for n in 0..10 {
        let source = if n % 2 == 0 { "even" } else { "odd" };
        let text = format!(r#"{{"specversion": "1.0", "source": "{source}", "broken": {n}}}"#);
        s.world.store(&subject, text.into_bytes());
    }
    assert_eq!(s.news(), [""; 0]);
    s.world.later(999);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    let swarm = s.place.swarm;
    let words = format!("refused {swarm}: malformed-event ×5");
    assert_eq!(s.news(), [words.clone(), words]);
    s.world.later(5_000);
    assert_eq!(s.news(), [""; 0], "said once");
    s.folds_agree();
}

#[test]
fn a_flood_of_made_up_sources_is_summed_too() {
    let mut s = Scene::new();
    let subject = Subject::Task(s.place, TaskVerb::Submitted, None).to_string();
    for n in 0..SUMS_MAX + 50 {
        let text = format!(r#"{{"source": "{n}"}}"#);
        s.world.store(&subject, text.into_bytes());
    }
    s.world.later(1_000);
    let news = s.news();
    assert_eq!(news.len(), SUMS_MAX + 1);
    assert!(news.iter().any(|n| n.ends_with("×50")), "{news:?}");
}

#[test]
fn an_unreadable_command_is_refused_by_its_id() {
    let mut s = Scene::new();
    let id = s.world.id();
    let subject = Subject::Command(s.place, CommandVerb::Cancel).to_string();
    let text = format!(r#"{{"specversion": "9.9", "id": "{id}", "source": "x"}}"#);
    s.world.store(&subject, text.into_bytes());
    s.world.settle();
    let Body::TaskRefused(refused) = s.world.answer(id).body else {
        panic!("not refused");
    };
    assert_eq!(refused.command_id.map(|c| c.0), Some(id));
}

#[test]
fn a_refusal_that_cannot_be_read_is_not_refused_in_turn() {
    let mut s = Scene::new();
    let subject = Subject::Task(s.place, TaskVerb::Refused, None).to_string();
    assert_eq!(
        s.world.store(&subject, b"{}".to_vec()),
        Verdict::Void("unreadable")
    );
    s.world.later(5_000);
    assert_eq!(s.news(), [""; 0]);
}
