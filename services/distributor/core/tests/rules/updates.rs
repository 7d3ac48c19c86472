//! Agents whose profile changes while they run.

use swarm_events::decider::Verdict;

use crate::scene::Scene;

#[test]
fn a_new_capability_brings_what_needs_it() {
    // Given
    let mut s = Scene::new();
    s.join_as("A", 1, 0, &["x"]);
    s.submit_as("t", |t| t.required_capabilities = vec!["y".into()]);
    assert_eq!(s.news(), [""; 0]);
    // When: in any order, with repeats
    assert_eq!(s.update("A", 1, 0, &["y", "x", "y"]), Verdict::Applied);
    // Then
    assert_eq!(s.news(), ["assigned t to A"]);
    s.folds_agree();
}

#[test]
fn a_capability_that_is_gone_brings_no_more_and_what_is_held_stays() {
    let mut s = Scene::new();
    s.join_as("A", 1, 1, &["x"]);
    for task in ["1", "2", "3"] {
        s.submit_as(task, |t| t.required_capabilities = vec!["x".into()]);
    }
    s.news();
    s.start("1");
    s.update("A", 1, 1, &[]);
    assert_eq!(s.news(), [""; 0]);
    s.run_held("2".to_owned().as_str());
    s.complete("1");
    assert_eq!(s.news(), [""; 0], "3 finds nobody");
    assert_eq!(s.status("3"), "queued");
}

#[test]
fn more_slots_are_filled_at_once() {
    let mut s = Scene::new();
    s.join_as("A", 1, 0, &[]);
    for task in ["1", "2", "3", "4"] {
        s.submit(task);
    }
    assert_eq!(s.news(), ["assigned 1 to A"]);
    s.update("A", 2, 1, &[]);
    assert_eq!(s.news(), ["assigned 2 to A", "assigned 3 to A"]);
    assert_eq!((s.agent("A").slots, s.agent("A").waiting_limit), (2, 1));
}

#[test]
fn fewer_slots_are_reached_as_what_is_held_ends() {
    // Given: two run and one waits.
    let mut s = Scene::new();
    s.join_as("A", 2, 1, &[]);
    for task in ["1", "2", "3", "4"] {
        s.submit(task);
    }
    s.news();
    s.start("1");
    s.start("2");
    // When
    s.update("A", 1, 0, &[]);
    // Then
    assert_eq!(s.news(), [""; 0], "nothing is taken away");
    s.complete("1");
    s.complete("2");
    assert_eq!(s.news(), [""; 0], "the one that waited fills the slot");
    s.run_held("3");
    assert_eq!(s.news(), ["assigned 4 to A"]);
}

#[test]
fn a_slot_more_starts_the_clock_of_what_waits() {
    // Given: the only slot is taken, and one waits for it.
    let mut s = Scene::new();
    s.join_as("A", 1, 1, &[]);
    s.submit("1");
    s.submit("2");
    s.world.settle();
    s.start("1");
    s.world.later(10_000);
    s.news();
    // When
    s.update("A", 2, 1, &[]);
    s.world.later(swarm_distributor_core::START_LIMIT_MS - 1);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    // Then
    assert_eq!(
        s.news()[0],
        "withdrawn 2 from A: StartLimit, queue if not started"
    );
}

#[test]
fn what_waits_is_taken_over_when_its_agent_has_fewer_slots() {
    let mut s = Scene::new();
    s.join_as("A", 2, 0, &[]);
    s.submit("1");
    s.submit("2");
    s.world.settle();
    s.start("1");
    s.join("B");
    s.world.later(1_000);
    s.news();
    s.update("A", 1, 1, &[]);
    assert_eq!(
        s.news(),
        [
            "withdrawn 2 from A: Steal, queue if not started",
            "assigned 2 to B"
        ]
    );
}

#[test]
fn a_profile_of_another_process_is_void() {
    let mut s = Scene::new();
    s.join_as("A", 1, 0, &[]);
    s.join_as("A", 1, 0, &[]);
    let old = swarm_events::agent::Updated {
        incarnation: 1,
        profile: swarm_events::agent::Profile {
            agent_type: "exec".to_owned(),
            agent_name: "A".to_owned(),
            capabilities: Vec::new(),
            slots: 9,
            waiting: 9,
            metadata: swarm_events::Json::object(),
        },
    };
    assert_eq!(
        s.member("A", swarm_events::subject::AgentVerb::Updated, old),
        Verdict::Void("other-incarnation")
    );
    assert_eq!(s.agent("A").slots, 1);
}
