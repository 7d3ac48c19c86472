//! Graphs: staged parts, acceptance, rejection.

use swarm_distributor_core::GRAPH_PARTS_MS_MAX;
use swarm_events::{
    Body,
    decider::Verdict,
    task::DependencyType::{Data, Success},
};

use crate::scene::Scene;

#[test]
fn parts_are_invisible_until_all_are_met_in_any_order() {
    let mut s = Scene::new();
    s.join_as("A", 9, 0, &[]);
    s.part("g", 1, 3, "b", &[("a", Data)]);
    s.part("g", 2, 3, "c", &[]);
    assert_eq!(s.news(), [""; 0]);
    assert!(!s.view("c").accepted);
    s.part("g", 0, 3, "a", &[]);
    assert_eq!(
        s.news(),
        ["accepted g", "assigned c to A", "assigned a to A"]
    );
    assert!(s.view("b").accepted);
    s.folds_agree();
}

#[test]
fn a_repeated_part_is_nothing() {
    let mut s = Scene::new();
    assert_eq!(s.part("g", 0, 2, "a", &[]), Verdict::Applied);
    assert_eq!(s.part("g", 0, 2, "a", &[]), Verdict::Void("repeat"));
    s.part("g", 1, 2, "b", &[]);
    assert_eq!(s.news(), ["accepted g"]);
    assert_eq!(s.part("g", 1, 2, "b", &[]), Verdict::Void("repeat"));
}

#[test]
fn a_graph_that_stays_incomplete_is_rejected_after_a_minute() {
    let mut s = Scene::new();
    s.part("g", 0, 2, "a", &[]);
    s.world.settle();
    s.world.later(GRAPH_PARTS_MS_MAX - 1);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    assert_eq!(s.news(), ["rejected g: tasks"]);
    assert_eq!(s.status("a"), "failed");
    assert!(s.view("a").rejected);
    // What comes too late ends, too.
    s.part("g", 1, 2, "b", &[]);
    assert_eq!(s.news(), ["rejected b: graph.id"]);
    s.folds_agree();
}

#[test]
fn a_cycle_is_named() {
    let mut s = Scene::new();
    s.part("g", 0, 4, "free", &[]);
    s.part("g", 1, 4, "a", &[("free", Success), ("c", Data)]);
    s.part("g", 2, 4, "b", &[("a", Data)]);
    s.part("g", 3, 4, "c", &[("b", Data)]);
    assert_eq!(s.news(), ["rejected g: tasks[1].depends_on"]);
    let error = s.view_error();
    assert!(error.contains("a → c → b → a"), "{error}");
    for name in ["free", "a", "b", "c"] {
        assert!(s.view(name).rejected);
    }
}

#[test]
fn an_unknown_task_is_named_by_its_field() {
    let mut s = Scene::new();
    s.part("g", 0, 2, "a", &[]);
    s.part("g", 1, 2, "b", &[("a", Data), ("nobody", Data)]);
    assert_eq!(s.news(), ["rejected g: tasks[1].depends_on[1].task_id"]);
}

#[test]
fn a_part_of_a_graph_that_is_not_accepted_is_unknown_to_others() {
    let mut s = Scene::new();
    s.part("g", 0, 2, "staged", &[]);
    let edges = s.edges(&[("staged", Data)]);
    s.submit_as("t", |t| t.depends_on = edges);
    assert_eq!(s.news(), ["rejected t: depends_on[0].task_id"]);
}

#[test]
fn a_graph_may_name_tasks_of_earlier_ones() {
    let mut s = Scene::new();
    s.join_as("A", 9, 0, &[]);
    s.part("g", 0, 1, "a", &[]);
    s.run("a");
    s.part("h", 0, 2, "b", &[("a", Data)]);
    s.part("h", 1, 2, "c", &[("b", Data)]);
    s.news();
    assert_eq!((s.status("b"), s.status("c")), ("assigned", "pending"));
}

#[test]
fn an_id_that_exists_already_rejects_the_graph_and_leaves_the_first_alone() {
    let mut s = Scene::new();
    s.submit("t");
    s.part("g", 0, 2, "t", &[]);
    s.part("g", 1, 2, "u", &[]);
    assert_eq!(s.news(), ["rejected g: tasks[0].id"]);
    assert_eq!((s.status("t"), s.status("u")), ("queued", "failed"));
}

#[test]
fn an_invalid_part_rejects_the_graph_by_its_field() {
    let mut s = Scene::new();
    let id = swarm_events::GraphId(s.id("g"));
    s.submit_as("bad", |t| {
        t.priority = 0;
        t.graph = Some(swarm_events::task::GraphPart {
            id,
            index: 0,
            of: 2,
        });
    });
    s.part("g", 1, 2, "good", &[]);
    assert_eq!(s.news(), ["rejected g: tasks[0].priority"]);
    assert_eq!((s.status("bad"), s.status("good")), ("failed", "failed"));
}

#[test]
fn parts_must_agree() {
    let mut s = Scene::new();
    s.part("g", 0, 2, "a", &[]);
    s.part("g", 1, 3, "b", &[]);
    assert_eq!(s.news(), ["rejected g: tasks[1].graph.of"]);
    let mut s = Scene::new();
    s.part("g", 0, 2, "a", &[]);
    s.part("g", 0, 2, "b", &[]);
    s.part("g", 1, 2, "c", &[]);
    assert_eq!(s.news(), ["rejected g: tasks[0].graph.index"]);
    assert!(s.view("b").rejected);
}

#[test]
fn a_graph_over_the_queue_limit_is_rejected_whole() {
    let mut s = Scene::with(|c| c.queue_limit = 3);
    for n in 0..3 {
        s.part("fits", n, 3, &format!("f{n}"), &[]);
    }
    assert_eq!(s.news(), ["accepted fits"]);
    let mut s = Scene::with(|c| c.queue_limit = 2);
    for n in 0..3 {
        s.part("big", n, 3, &format!("b{n}"), &[]);
    }
    assert_eq!(s.news(), ["rejected big: configuration.queue_limit"]);
    assert_eq!(s.world.state.backlog(), 0);
}

impl Scene {
    /// The text of the last graph's rejection, ids as names.
    pub fn view_error(&self) -> String {
        let last = self.world.inputs().filter_map(|input| match input {
            swarm_events::Input::Event(recorded) => match recorded.event.body {
                Body::TaskGraphRejected(rejected) => Some(rejected.problem.to_string()),
                _ => None,
            },
            swarm_events::Input::Unreadable(_) => None,
        });
        self.named(&last.last().expect("a rejection"))
    }
}
