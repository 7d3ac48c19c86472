//! Graphs at their limits: ten thousand tasks, the widest reduce, the widest fan, the longest chain, the longest cycle.

use std::fmt::Write as _;

use swarm_distributor_core::GRAPH_DEPENDENCIES_MAX;
use swarm_events::{
    Body, GraphId, Input,
    decider::Verdict,
    subject::CommandVerb::CancelGraph,
    task::{
        DEPENDENCIES_MAX, Dependency,
        DependencyType::{self, Data, Success},
        GRAPH_TASKS_MAX, GraphPart,
    },
};

use crate::scene::Scene;

/// The largest graph, each task with the edges that `edges` says, and each edge of that kind.
fn largest(kind: DependencyType, edges: impl Fn(u32) -> Vec<u32>) -> Scene {
    let mut s = Scene::new();
    let of = GRAPH_TASKS_MAX;
    let names: Vec<String> = (0..of).map(|n| n.to_string()).collect();
    let ids: Vec<_> = names.iter().map(|name| s.task_id(name)).collect();
    let id = GraphId(s.id("g"));
    for index in 0..of {
        let depends_on = edges(index)
            .into_iter()
            .map(|on| Dependency {
                task_id: ids[on as usize],
                dependency_type: kind,
                alias: None,
            })
            .collect();
        let verdict = s.submit_as(&names[index as usize], |t| {
            t.graph = Some(GraphPart { id, index, of });
            t.depends_on = depends_on;
        });
        assert_eq!(verdict, Verdict::Applied);
    }
    s
}

fn pending(s: &Scene) -> u64 {
    s.world.state.counters(s.place).expect("known").pending
}

#[test]
fn the_longest_chain_is_accepted_and_its_failure_runs_down_it() {
    let mut s = largest(Success, |n| n.checked_sub(1).into_iter().collect());
    assert_eq!(s.news(), ["accepted g"]);
    assert_eq!(pending(&s), u64::from(GRAPH_TASKS_MAX) - 1);
    s.join("A");
    s.world.settle();
    s.start("0");
    s.fail_attempt("0", false);
    s.world.settle();
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(counters.failed, u64::from(GRAPH_TASKS_MAX));
    let last = s.view(&(GRAPH_TASKS_MAX - 1).to_string());
    assert_eq!(s.named(&last.failure_path[0].to_string()), "0");
}

#[test]
fn the_widest_fan_is_accepted_and_released_at_once() {
    let mut s = largest(Success, |n| if n == 0 { vec![] } else { vec![0] });
    assert_eq!(s.news(), ["accepted g"]);
    s.join("A");
    s.world.settle();
    s.start("0");
    s.complete("0");
    assert_eq!(pending(&s), 0);
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(counters.queued, u64::from(GRAPH_TASKS_MAX) - 1);
}

#[test]
fn the_widest_reduces_are_accepted() {
    let wide = DEPENDENCIES_MAX as u32;
    let mut s = largest(Data, |n| {
        if n % wide == wide - 1 {
            (n + 1 - wide..n).collect()
        } else {
            vec![]
        }
    });
    assert_eq!(s.news(), ["accepted g"]);
    assert_eq!(pending(&s), u64::from(GRAPH_TASKS_MAX / wide));
}

#[test]
fn the_widest_fan_is_called_off_whole() {
    let mut s = largest(Success, |n| if n == 0 { vec![] } else { vec![0] });
    s.news();
    s.command(CancelGraph, "g");
    s.world.settle();
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(counters.cancelled, u64::from(GRAPH_TASKS_MAX));
    assert_eq!(counters.pending + counters.queued + counters.ending, 0);
}

#[test]
fn the_longest_cycle_is_found_and_named_at_both_ends() {
    let of = GRAPH_TASKS_MAX;
    let mut s = largest(Success, |n| vec![(n + 1) % of]);
    assert_eq!(s.news(), ["rejected g: tasks[0].depends_on"]);
    let error = s.view_error();
    assert!(error.contains("0 → 1 → 2 → "), "{error}");
    assert!(error.contains(" → … (9980 more) → 0"), "{error}");
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!((counters.failed, counters.staged), (u64::from(of), 0));
}

#[test]
fn a_part_above_the_limit_is_refused_by_its_field() {
    let mut s = Scene::new();
    let id = GraphId(s.id("g"));
    s.submit_as("t", |t| {
        t.graph = Some(GraphPart {
            id,
            index: 0,
            of: GRAPH_TASKS_MAX + 1,
        });
    });
    s.world.later(swarm_distributor_core::GRAPH_PARTS_MS_MAX);
    assert_eq!(s.news(), ["rejected g: tasks[0].graph.of"]);
    // And so is part ten thousand and one of a graph that says that it has ten thousand.
    let id = GraphId(s.id("h"));
    s.submit_as("u", |t| {
        t.graph = Some(GraphPart {
            id,
            index: GRAPH_TASKS_MAX,
            of: GRAPH_TASKS_MAX,
        });
    });
    s.world.later(swarm_distributor_core::GRAPH_PARTS_MS_MAX);
    assert_eq!(
        s.news(),
        [format!("rejected h: tasks[{GRAPH_TASKS_MAX}].graph.index")]
    );
}

#[test]
fn a_graph_with_too_many_edges_is_refused_before_it_is_held() {
    let wide = DEPENDENCIES_MAX as u32;
    let parts = (GRAPH_DEPENDENCIES_MAX / DEPENDENCIES_MAX) as u32;
    let of = wide + parts + 1;
    let dense = |last_edges: u32| {
        let mut s = Scene::with(|c| c.queue_limit = 1_000_000);
        let ids: Vec<_> = (0..wide).map(|n| s.task_id(&n.to_string())).collect();
        let id = GraphId(s.id("g"));
        for index in 0..of {
            let edges = match index {
                n if n < wide => 0,
                n if n < of - 1 => wide,
                _ => last_edges,
            };
            let depends_on = ids[..edges as usize].iter().map(|&task_id| Dependency {
                task_id,
                dependency_type: Success,
                alias: None,
            });
            let depends_on = depends_on.collect();
            s.submit_as(&index.to_string(), |t| {
                t.graph = Some(GraphPart { id, index, of });
                t.depends_on = depends_on;
            });
        }
        s.news()
    };
    assert_eq!(dense(0), ["accepted g"]);
    assert_eq!(
        dense(1),
        [format!("rejected g: tasks[{}].depends_on", of - 1)]
    );
}

#[test]
fn a_task_that_waits_for_itself_is_named() {
    let mut s = Scene::new();
    let edges = s.edges(&[("t", Success)]);
    s.submit_as("t", |t| t.depends_on = edges);
    assert_eq!(s.news(), ["rejected t: depends_on[0].task_id"]);
    s.part("g", 0, 1, "u", &[("u", Success)]);
    assert_eq!(s.news(), ["rejected g: tasks[0].depends_on[0].task_id"]);
    let error = s.view_error();
    assert!(error.contains("task u cannot wait for itself"), "{error}");
}

/// What cannot be read as a submission: the refusal names the field.
#[test]
fn what_no_submission_may_say_is_refused_at_reading() {
    let mut text = String::new();
    for (member, needle) in [
        (r#""priority":-1"#, "priority"),
        (r#""priority":300"#, "priority"),
        (r#""timeout_ms":-5"#, "timeout_ms"),
        (r#""queue_timeout_ms":-5"#, "queue_timeout_ms"),
        (r#""progress_timeout_ms":1.5"#, "progress_timeout_ms"),
        (r#""max_attempts":-1"#, "max_attempts"),
        (
            r#""depends_on":[{"task_id":"nobody"}]"#,
            "depends_on[0].task_id",
        ),
        (
            r#""depends_on":[{"task_id":"018f4d2e-0000-7000-8000-000000000001","dependency_type":"maybe"}]"#,
            "depends_on[0].dependency_type",
        ),
    ] {
        let mut s = Scene::new();
        s.submit("t");
        let stored = s.world.log.last().expect("stored").clone();
        let payload = String::from_utf8(stored.payload).expect("text");
        let broken = payload.replacen(
            r#""task_type":"count""#,
            &format!(r#""task_type":"count",{member}"#),
            1,
        );
        let broken = if broken.matches("\"priority\"").count() > 1 {
            broken.replacen(r#","priority":5"#, "", 1)
        } else {
            broken
        };
        assert_ne!(payload, broken);
        s.world.store(&stored.subject, broken.into_bytes());
        s.world.later(1_000);
        let refused = s.world.inputs().find_map(|input| match input {
            Input::Event(recorded) => match recorded.event.body {
                Body::TaskRefused(refused) => Some(refused.problem),
                _ => None,
            },
            Input::Unreadable(_) => None,
        });
        let said = refused.map_or_else(String::new, |p| p.to_string());
        writeln!(text, "{needle}: {said}").expect("a string");
        assert!(said.contains(needle), "{text}");
    }
}
