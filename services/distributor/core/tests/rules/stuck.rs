//! Running tasks that show no progress: counted, told when their number changes, and never asked about for ever.

use swarm_distributor_core::MEASURE_MS;
use swarm_events::{
    Body, Input,
    configuration::{Configuration, HealthPolicy},
    swarm::{AgentLoad, Measured},
};

use crate::scene::Scene;

const AFTER_MS: u64 = 10_000;

fn scene() -> Scene {
    Scene::with(|c| c.health.stuck_after_ms = AFTER_MS)
}

fn figures(s: &mut Scene) -> Vec<Measured> {
    s.world.settle();
    let measured = |input| match input {
        Input::Event(recorded) => match recorded.event.body {
            Body::SwarmMeasured(measured) => Some(measured),
            _ => None,
        },
        Input::Unreadable(_) => None,
    };
    s.world.inputs().filter_map(measured).collect()
}

/// Its figures in the last `measured` that names it.
fn last(s: &mut Scene, agent: &str) -> AgentLoad {
    let id = s.agent_id(agent);
    let all = figures(s);
    let named = all.iter().rev().find_map(|m| m.agents.get(&id));
    *named.expect("it was measured")
}

/// A runs a task, of which was told.
fn running() -> Scene {
    let mut s = scene();
    s.join_as("A", 2, 0, &[]);
    s.submit_as("t", |t| t.timeout_ms = Some(3_600_000));
    s.world.settle();
    s.start("t");
    s.world.settle();
    s.world.later(MEASURE_MS);
    figures(&mut s);
    s
}

#[test]
fn a_task_without_progress_is_told_once() {
    // Given
    let mut s = running();
    let before = figures(&mut s).len();
    s.world.later(AFTER_MS - MEASURE_MS - 1);
    assert_eq!(figures(&mut s).len(), before);
    assert_eq!(s.agent("A").stuck, 0);
    // When
    s.world.later(1);
    // Then
    let load = last(&mut s, "A");
    assert_eq!((load.stuck, load.stuck_ms), (1, AFTER_MS));
    assert_eq!(s.agent("A").stuck, 1);
    // And not again, however long it takes.
    for _ in 0..100 {
        s.world.later(MEASURE_MS);
    }
    assert_eq!(figures(&mut s).len(), before + 1);
    s.folds_agree();
}

#[test]
fn the_deadline_names_when_a_task_will_be_stuck() {
    let mut s = running();
    s.world.settle();
    let due = s.world.next_deadline().expect("there is one");
    let wait = due.millis_since(s.world.state.head().now);
    assert!(wait <= AFTER_MS, "{wait}");
    s.complete("t");
    s.world.settle();
    s.world.later(MEASURE_MS);
    s.world.settle();
    assert_eq!(s.world.next_deadline(), None, "nothing runs");
}

#[test]
fn progress_puts_it_off_and_ends_it() {
    // Given
    let mut s = running();
    s.world.later(AFTER_MS / 2);
    s.progress("t");
    s.world.later(AFTER_MS - 1);
    s.world.settle();
    assert_eq!(s.agent("A").stuck, 0);
    s.world.later(1);
    assert_eq!(last(&mut s, "A").stuck, 1);
    // When
    s.progress("t");
    assert_eq!(s.agent("A").stuck, 0);
    s.world.later(MEASURE_MS);
    // Then
    let load = last(&mut s, "A");
    assert_eq!((load.stuck, load.stuck_ms), (0, 0));
    s.world.later(AFTER_MS);
    assert_eq!(last(&mut s, "A").stuck, 1, "it is looked at again");
}

#[test]
fn the_longest_is_told_and_the_end_of_a_task_is_the_end_of_it() {
    let mut s = running();
    s.submit_as("u", |t| t.timeout_ms = Some(3_600_000));
    s.world.settle();
    s.start("u");
    s.world.later(AFTER_MS - MEASURE_MS);
    assert_eq!(last(&mut s, "A").stuck, 1);
    s.world.later(MEASURE_MS);
    let load = last(&mut s, "A");
    assert_eq!((load.stuck, load.stuck_ms), (2, AFTER_MS + MEASURE_MS));
    s.complete("t");
    s.world.later(MEASURE_MS);
    assert_eq!(last(&mut s, "A").stuck, 1);
    s.fail_attempt("u", false);
    s.world.settle();
    s.world.later(MEASURE_MS);
    assert_eq!(last(&mut s, "A").stuck, 0);
}

#[test]
fn a_changed_limit_holds_for_what_runs() {
    let mut s = running();
    let set = |s: &mut Scene, stuck_after_ms| {
        s.configure(Configuration {
            health: HealthPolicy {
                stuck_after_ms,
                ..HealthPolicy::default()
            },
            ..Configuration::default()
        });
        s.world.later(MEASURE_MS);
    };
    set(&mut s, 1);
    assert_eq!(last(&mut s, "A").stuck, 1);
    set(&mut s, 0);
    assert_eq!(last(&mut s, "A").stuck, 0);
    s.world.later(10 * AFTER_MS);
    assert_eq!(last(&mut s, "A").stuck, 0, "the rule is off");
    set(&mut s, AFTER_MS);
    assert_eq!(last(&mut s, "A").stuck, 1);
    s.folds_agree();
}

#[test]
fn a_task_that_moved_to_another_agent_is_not_stuck_there() {
    let mut s = running();
    s.join("B");
    s.world.later(AFTER_MS);
    assert_eq!(s.agent("A").stuck, 1);
    s.fail("A");
    s.world.settle();
    s.start("t");
    s.world.settle();
    assert_eq!((s.agent("A").stuck, s.agent("B").stuck), (0, 0));
    s.world.later(AFTER_MS);
    assert_eq!(last(&mut s, "B").stuck, 1);
}
