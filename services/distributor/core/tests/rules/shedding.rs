//! Shedding: from a share of the queue limit on, what is less urgent is refused first. Nothing accepted is dropped.

use swarm_distributor_core::QUEUE_RETRY_AFTER_MS;
use swarm_events::{Body, Input, subject::CommandVerb::Retry};

use crate::scene::Scene;

/// Ten may wait; from six on it sheds.
fn scene() -> Scene {
    Scene::with(|c| {
        c.queue_limit = 10;
        c.shed_from_percent = 55;
    })
}

impl Scene {
    fn submit_at(&mut self, name: &str, priority: u8) {
        self.submit_as(name, |t| t.priority = priority);
    }
    fn fill(&mut self, count: u32) {
        for n in 0..count {
            self.submit_at(&format!("fill {n}"), 10);
        }
        assert_eq!(self.news(), [""; 0]);
    }
}

#[test]
fn each_priority_has_its_share_of_the_queue() {
    // 55 % of ten at priority 1, the whole at 10, five percent more with each step.
    for (priority, share) in [(1, 5), (2, 6), (5, 7), (9, 9), (10, 10)] {
        let mut s = scene();
        s.fill(share - 1);
        s.submit_at("fits", priority);
        assert_eq!(s.news(), [""; 0], "priority {priority}");
        s.submit_at("does not", priority);
        let field = if priority == 10 {
            "configuration.queue_limit"
        } else {
            "priority"
        };
        assert_eq!(s.news(), [format!("rejected does not: {field}")]);
        assert_eq!(s.status("fits"), "queued");
        s.folds_agree();
    }
}

#[test]
fn a_shed_task_says_when_to_try_again() {
    let mut s = scene();
    s.fill(6);
    s.submit_at("t", 1);
    s.news();
    let rejected = s.world.inputs().find_map(|input| match input {
        Input::Event(recorded) => match recorded.event.body {
            Body::TaskRejected(rejected) => Some(rejected),
            _ => None,
        },
        Input::Unreadable(_) => None,
    });
    let rejected = rejected.expect("met");
    assert_eq!(rejected.problem.code, "shed");
    assert_eq!(rejected.retry_after_ms, Some(QUEUE_RETRY_AFTER_MS));
    assert!(rejected.problem.cure.is_some());
}

#[test]
fn a_full_queue_is_called_full_for_everybody() {
    let mut s = scene();
    s.fill(10);
    s.submit_at("t", 1);
    assert_eq!(s.news(), ["rejected t: configuration.queue_limit"]);
}

#[test]
fn without_shedding_all_priorities_have_the_whole_queue() {
    let mut s = Scene::with(|c| c.queue_limit = 10);
    s.fill(9);
    s.submit_at("t", 1);
    assert_eq!(s.news(), [""; 0]);
}

#[test]
fn a_graph_with_a_part_that_is_shed_is_rejected_whole() {
    let mut s = scene();
    s.fill(5);
    let id = swarm_events::GraphId(s.id("g"));
    for (index, priority) in [(0, 10), (1, 1)] {
        s.submit_as(&format!("part {index}"), |t| {
            t.priority = priority;
            t.graph = Some(swarm_events::task::GraphPart { id, index, of: 2 });
        });
    }
    assert_eq!(s.news(), ["rejected g: priority"]);
    assert!(s.view("part 0").rejected);
}

#[test]
fn a_retry_needs_room_for_its_priority() {
    let mut s = scene();
    s.join("A");
    s.submit_at("t", 1);
    s.world.settle();
    s.start("t");
    s.fail_attempt("t", false);
    s.leave("A");
    s.news();
    s.fill(5);
    s.command(Retry, "t");
    assert_eq!(s.news(), ["refused t: shed ×1"]);
}

#[test]
fn what_was_accepted_stays_when_a_swarm_begins_to_shed() {
    let mut s = Scene::with(|c| c.queue_limit = 10);
    for n in 0..10 {
        s.submit_at(&n.to_string(), 1);
    }
    let configuration = swarm_events::configuration::Configuration {
        queue_limit: 10,
        shed_from_percent: 10,
        ..Default::default()
    };
    s.configure(configuration);
    assert_eq!(s.news(), [""; 0]);
    s.submit_at("t", 1);
    assert_eq!(s.news(), ["rejected t: configuration.queue_limit"]);
    assert_eq!(s.world.state.backlog(), 10);
}
