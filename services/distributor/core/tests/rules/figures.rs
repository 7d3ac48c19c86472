//! `measured`: at most once a second, only while figures move, only agents that moved.

use swarm_distributor_core::MEASURE_MS;
use swarm_events::{
    Body, Input,
    swarm::{AgentLoad, Measured, SAMPLE_AGENTS_MAX},
};

use crate::scene::Scene;

fn figures(s: &mut Scene) -> Vec<Measured> {
    s.world.settle();
    let all: Vec<Measured> = s
        .world
        .inputs()
        .filter_map(|input| match input {
            Input::Event(recorded) => match recorded.event.body {
                Body::SwarmMeasured(measured) => Some(measured),
                _ => None,
            },
            Input::Unreadable(_) => None,
        })
        .collect();
    all
}

#[test]
fn figures_are_written_once_a_second_while_they_move() {
    let mut s = Scene::new();
    s.submit("1");
    assert_eq!(figures(&mut s).len(), 1);
    for n in 2..10 {
        s.submit(&n.to_string());
    }
    s.world.later(MEASURE_MS - 1);
    assert_eq!(figures(&mut s).len(), 1);
    s.world.later(1);
    let all = figures(&mut s);
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].queued, 9);
    assert_eq!(all[1].oldest_wait_ms, MEASURE_MS);
    s.world.later(10 * MEASURE_MS);
    assert_eq!(figures(&mut s).len(), 2, "nothing moved");
    assert_eq!(s.world.next_deadline(), None);
}

#[test]
fn figures_count_what_is_there() {
    let mut s = Scene::new();
    s.join_as("A", 2, 1, &["x"]);
    for name in ["1", "2", "3", "4"] {
        s.submit(name);
    }
    s.submit_as("unmet", |t| t.required_capabilities = vec!["nobody".into()]);
    s.world.settle();
    s.start("1");
    s.start("2");
    s.complete("1");
    s.fail_attempt("2", false);
    s.world.settle();
    s.world.later(MEASURE_MS);
    let last = figures(&mut s).pop().expect("figures");
    assert_eq!((last.queued, last.unmet, last.pending), (1, 1, 0));
    assert_eq!((last.assigned, last.running), (2, 0));
    assert_eq!((last.completed, last.failed, last.cancelled), (1, 1, 0));
    let load = AgentLoad {
        running: 0,
        waiting: 2,
        completed: 1,
        failed: 1,
        ..AgentLoad::default()
    };
    assert_eq!(last.agents.into_values().collect::<Vec<_>>(), [load]);
}

#[test]
fn figures_that_moved_back_are_not_written_and_the_next_are() {
    let mut s = Scene::new();
    s.submit("t");
    assert_eq!(figures(&mut s).len(), 1);
    s.join("A");
    s.world.settle();
    s.leave("A");
    s.world.settle();
    s.world.later(MEASURE_MS);
    assert_eq!(figures(&mut s).len(), 1, "queued as before");
    s.submit("u");
    assert_eq!(figures(&mut s).len(), 2);
}

#[test]
fn many_agents_come_in_parts() {
    let mut s = Scene::new();
    let agents = SAMPLE_AGENTS_MAX + 10;
    for n in 0..agents {
        s.join(&format!("A{n}"));
        s.submit(&format!("t{n}"));
    }
    s.world.settle();
    s.world.later(MEASURE_MS);
    let all = figures(&mut s);
    assert!(all.iter().all(|m| m.agents.len() <= SAMPLE_AGENTS_MAX));
    let named: usize = all.iter().map(|m| m.agents.len()).sum();
    assert_eq!(named, agents, "each once");
}
