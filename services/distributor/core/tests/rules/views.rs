//! Rows for the read models.

use swarm_distributor_core::{Distributor, Status, Touched};
use swarm_events::task::DependencyType::Data;

use crate::scene::Scene;

/// A stranger's fold of the log, row by row, as the projector does it.
fn rows(s: &Scene) -> (Distributor, Touched) {
    let mut state = Distributor::new(s.place.partition);
    let mut touched = Touched::default();
    for input in s.world.inputs() {
        state.evolve_traced(&input, &mut touched);
    }
    (state, touched)
}

#[test]
fn the_last_view_of_an_ended_task_is_whole() {
    let mut s = Scene::new();
    s.join_as("A", 1, 0, &["x"]);
    s.submit_as("t", |t| {
        t.priority = 8;
        t.required_capabilities = vec!["x".into()];
        t.max_attempts = Some(7);
    });
    s.world.settle();
    s.world.later(10);
    s.start("t");
    s.world.later(10);
    s.complete("t");
    let (id, agent) = (s.task_id("t"), s.agent_id("A"));
    let (state, touched) = rows(&s);
    assert_eq!(state, s.world.state, "tracing changes nothing");
    let view = &touched.ended[&(s.place, id)];
    assert_eq!(view.task_type, "count");
    assert_eq!(
        (view.priority, view.max_attempts, view.attempt_count),
        (8, 7, 1)
    );
    assert_eq!(view.required_capabilities, ["x"]);
    assert_eq!((view.status, view.agent), (Status::Completed, Some(agent)));
    assert_eq!(
        view.result,
        Some(s.world.log.last().expect("stored").sequence)
    );
    assert_eq!(view.completed_at, Some(s.world.now));
    let started = view.started_at.expect("started");
    assert_eq!(s.world.now.millis_since(started), 10);
    assert!(touched.agents.contains(&(s.place, agent)));
    assert!(touched.swarms.contains(&s.place));
}

#[test]
fn a_retried_task_has_no_last_view() {
    let mut s = Scene::new();
    s.submit("t");
    s.command(swarm_events::subject::CommandVerb::Cancel, "t");
    s.world.settle();
    let id = s.task_id("t");
    let (_, touched) = rows(&s);
    assert_eq!(
        touched.ended[&(s.place, id)].error.as_deref(),
        Some("cancelled by command")
    );
    s.command(swarm_events::subject::CommandVerb::Retry, "t");
    s.world.settle();
    let (state, touched) = rows(&s);
    assert!(touched.ended.is_empty());
    let view = state.task(s.place, id).expect("it lives");
    assert_eq!(
        (view.status, view.generation, view.error),
        (Status::Queued, 2, None)
    );
}

#[test]
fn what_depends_on_a_task_is_touched_with_it() {
    let mut s = Scene::new();
    s.join("A");
    s.part("g", 0, 2, "a", &[]);
    s.part("g", 1, 2, "b", &[("a", Data)]);
    s.world.settle();
    let (mut state, _) = rows(&s);
    s.start("a");
    s.complete("a");
    let mut touched = Touched::default();
    for input in s.world.inputs().skip(s.world.log.len() - 2) {
        state.evolve_traced(&input, &mut touched);
    }
    let (a, b) = (s.task_id("a"), s.task_id("b"));
    assert_eq!(
        touched.tasks.iter().map(|t| t.1).collect::<Vec<_>>(),
        [a, b]
    );
    let view = state.task(s.place, b).expect("it lives");
    assert_eq!(view.status, Status::Queued);
    assert_eq!(view.dependencies[0].task_id, a);
    assert_eq!(state.tasks(s.place).count(), 1);
}

#[test]
fn an_agents_view_names_its_tasks() {
    let mut s = Scene::new();
    s.join_as("A", 1, 1, &[]);
    s.submit("t");
    s.submit("u");
    s.world.settle();
    s.start("t");
    let (agent, t, u) = (s.agent_id("A"), s.task_id("t"), s.task_id("u"));
    let view = s.world.state.agent(s.place, agent).expect("known");
    assert_eq!((view.running, view.waiting), (vec![t], vec![u]));
    s.complete("t");
    let view = s.world.state.agent(s.place, agent).expect("known");
    assert_eq!((view.completed, view.failed), (1, 0));
}
