//! Agents that drain, are in quarantine, are barred, or have declined the task.

use swarm_distributor_core::explain::{Standing, What};
use swarm_events::agent::Cause;

use super::{explain, kinds, queued, scene, told};
use crate::scene::Scene;

fn standings(s: &mut Scene, task: &str) -> Vec<(String, Standing)> {
    let queued = queued(s, task);
    let line = |id: swarm_events::AgentId| s.named(&id.to_string());
    let items = queued.items.iter();
    items
        .map(|item| (line(item.agent_id), item.standing))
        .collect()
}

#[test]
fn one_in_quarantine_is_named_with_cause_and_end() {
    // Given
    let mut s = scene();
    s.join("A");
    s.join("B");
    s.drain("B");
    let until = s.world.now.plus_millis(5_000);
    s.quarantine_until("A", Cause::FastFailures, Some(until));
    s.submit("t");
    s.world.settle();
    // Then
    let found = queued(&mut s, "t");
    assert_eq!((found.agents.quarantined, found.agents.draining), (1, 1));
    assert_eq!(
        (
            found.items[0].quarantine[0].cause,
            found.items[0].quarantine[0].until
        ),
        (Cause::FastFailures, Some(until))
    );
    assert_eq!(kinds(&found), ["released", "agents"]);
    let told = told(&mut s, "t");
    assert_eq!(
        told[0],
        "It has waited 0 ms for a place at an agent: of the 2 that could take it, 1 is about to go and 1 is in quarantine."
    );
    assert_eq!(
        told[2],
        "It would be assigned if agent A, which is in quarantine for fast failures, is released: at +5000ms, or when health \
         says so."
    );
    // And it comes true.
    s.release("A", Cause::FastFailures);
    s.world.settle();
    assert_eq!(s.status("t"), "assigned");
}

#[test]
fn a_quarantine_without_an_end_ends_with_its_figures() {
    let mut s = scene();
    s.join("A");
    let until = s.world.now.plus_millis(5_000);
    s.quarantine_until("A", Cause::FastFailures, Some(until));
    s.quarantine("A", Cause::Memory);
    s.submit("t");
    s.world.settle();
    assert!(told(&mut s, "t").contains(
        &"It would be assigned if agent A, which is in quarantine for fast failures and its memory, is released: when its \
          figures are back below the limit."
            .to_owned()
    ));
    assert!(matches!(
        queued(&mut s, "t").would_be_assigned_if[0].what,
        What::Released { at: None, .. }
    ));
}

#[test]
fn one_that_is_barred_comes_back_at_a_time_that_is_told() {
    // Given
    let mut s = Scene::with(|c| {
        c.health.fast_failures_max = 1;
        c.retry.base_ms = 0;
    });
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.fail_attempt("t", true);
    s.world.settle();
    // Then
    let found = queued(&mut s, "t");
    assert_eq!(found.agents.failed_fast, 1);
    assert_eq!(found.items[0].fast_failures, 1);
    assert!(found.items[0].barred_until.is_some());
    assert_eq!(kinds(&found), ["released", "agents"]);
    let told = told(&mut s, "t");
    assert_eq!(
        told[0],
        "It has waited 0 ms for a place at an agent: of the one that could take it, 1 is barred for fast failures."
    );
    assert_eq!(
        told[2],
        "It would be assigned if agent A, which is barred because 1 attempt failed fast in a row, is given work again: at \
         +10000ms, or when health says so."
    );
    s.world.later(9_999);
    assert_eq!(s.status("t"), "queued");
    s.world.later(1);
    assert_eq!(s.status("t"), "assigned");
}

#[test]
fn who_declined_it_is_told_with_the_reason() {
    // Given: A has declined it, and B is busy.
    let mut s = scene();
    s.join("B");
    s.submit("long");
    s.world.settle();
    s.start("long");
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.decline("t");
    s.world.settle();
    // Then
    let found = queued(&mut s, "t");
    assert_eq!((found.agents.declined, found.agents.full), (1, 1));
    assert!(!found.assignable);
    assert_eq!(
        standings(&mut s, "t"),
        [
            ("B".to_owned(), Standing::Full),
            ("A".to_owned(), Standing::Declined)
        ]
    );
    let facts = explain(&mut s, "t").task.expect("it lives");
    assert_eq!(facts.declines, 1);
    assert_eq!(facts.decline_reason.as_deref(), Some("not mine"));
    let told = told(&mut s, "t");
    assert_eq!(
        told[0],
        "It has waited 0 ms for a place at an agent: of the 2 that could take it, 1 is full and 1 declined it."
    );
    assert_eq!(
        told.last().map(String::as_str),
        Some(
            "It was declined 1 time, the last time with: not mine. An agent that has declined it gets it again only if there \
             is no other that could, and not before +526ms."
        )
    );
    assert_eq!(kinds(&found), ["place", "place_by", "agents"]);
    assert!(told.contains(&"It would be assigned if a place came free at agent B.".to_owned()));
}

#[test]
fn it_is_told_when_it_goes_back_to_who_declined_it() {
    // Given
    let mut s = scene();
    s.join("A");
    s.submit("t");
    s.world.settle();
    let declined_at = s.world.now;
    s.decline("t");
    s.world.settle();
    // Then
    let found = queued(&mut s, "t");
    assert!(!found.assignable);
    assert_eq!(kinds(&found), ["again", "agents"]);
    let What::Again { at } = found.would_be_assigned_if[0].what else {
        panic!("{found:?}");
    };
    assert_eq!(
        told(&mut s, "t"),
        [
            "It has waited 0 ms for a place at an agent: of the one that could take it, 1 declined it.",
            "No task before it competes for the same agents: it is next.",
            "It would be assigned if its wait since it was declined were over: at +539ms it is offered again to who declined \
             it, as there is no other.",
            "It would be assigned if one more agent had a free slot.",
            "From +5000ms on no newly queued task goes before it, whatever its priority.",
            "It was declined 1 time, the last time with: not mine. An agent that has declined it gets it again only if there \
             is no other that could, and not before +539ms.",
        ]
    );
    // And it comes true.
    let wait_ms = at.millis_since(declined_at);
    s.world.later(wait_ms - 1);
    assert_eq!(s.status("t"), "queued");
    s.world.later(1);
    assert_eq!(s.status("t"), "assigned");
}

#[test]
fn what_waits_at_one_that_rests_is_being_taken_away() {
    let mut s = scene();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.quarantine("A", Cause::Cpu);
    assert!(
        told(&mut s, "t")
            .contains(&"It is being taken away: its agent is given no more work.".to_owned())
    );
}
