//! Who gets which task, in which order.

use swarm_events::{
    Json,
    task::{Carried, PassedOver},
};

use crate::scene::Scene;

#[test]
fn a_task_goes_from_submitted_to_assigned() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    assert_eq!(s.news(), ["assigned t to A"]);
    assert_eq!(s.status("t"), "assigned");
    s.folds_agree();
}

#[test]
fn a_task_waits_until_an_agent_has_a_slot() {
    let mut s = Scene::new();
    s.submit("t");
    assert_eq!(s.news(), [""; 0]);
    assert_eq!(s.status("t"), "queued");
    s.join("A");
    s.submit("u");
    assert_eq!(s.news(), ["assigned t to A"]);
    s.run("t");
    assert_eq!(s.news(), ["assigned u to A"]);
}

#[test]
fn slots_promised_are_slots_taken() {
    let mut s = Scene::new();
    s.join_as("A", 2, 0, &[]);
    for name in ["t", "u", "v"] {
        s.submit(name);
    }
    // All three are decided on before any decision is met.
    assert_eq!(s.world.decide(64), 3, "two assignments and the figures");
    assert_eq!(
        s.world.decide(64),
        0,
        "what is under way is not decided again"
    );
    assert_eq!(s.news(), ["assigned t to A", "assigned u to A"]);
}

#[test]
fn the_least_loaded_agent_goes_first_and_ties_go_to_the_first_that_joined() {
    let mut s = Scene::new();
    s.join_as("B", 2, 0, &[]);
    s.join_as("A", 4, 0, &[]);
    for name in ["1", "2", "3", "4", "5", "6"] {
        s.submit(name);
    }
    // Scores: 0 and 0, 500 and 0, 500 and 250, 500 and 500, 1000 (full) and 500, …
    assert_eq!(
        s.news(),
        [
            "assigned 1 to B",
            "assigned 2 to A",
            "assigned 3 to A",
            "assigned 4 to B",
            "assigned 5 to A",
            "assigned 6 to A"
        ]
    );
}

#[test]
fn a_waiting_place_is_taken_only_when_no_slot_is_free() {
    let mut s = Scene::new();
    s.join_as("A", 1, 1, &[]);
    s.join_as("B", 1, 0, &[]);
    for name in ["1", "2", "3", "4"] {
        s.submit(name);
    }
    assert_eq!(
        s.news(),
        ["assigned 1 to A", "assigned 2 to B", "assigned 3 to A"]
    );
    assert_eq!(s.status("4"), "queued");
}

#[test]
fn only_an_agent_with_every_capability_may_take_a_task() {
    let mut s = Scene::new();
    s.join_as("plain", 9, 0, &[]);
    s.join_as("half", 9, 0, &["gpu"]);
    s.submit_as("t", |t| {
        t.required_capabilities = vec!["gpu".into(), "browser".into()]
    });
    s.submit("u");
    assert_eq!(
        s.news(),
        ["assigned u to plain"],
        "a task that waits holds up no other"
    );
    assert_eq!(s.status("t"), "queued");
    s.join_as("whole", 1, 0, &["zip", "browser", "gpu"]);
    assert_eq!(s.news(), ["assigned t to whole"]);
    let (_, _, assigned) = s.assignment("t");
    assert_eq!(assigned.passed_over.get(&PassedOver::Capability), Some(&2));
}

#[test]
fn an_assignment_explains_itself() {
    let mut s = Scene::new();
    for name in ["A", "B", "C", "D", "E"] {
        s.join_as(name, 1, 0, &[]);
    }
    s.submit("1");
    s.world.settle();
    let suspected = swarm_events::agent::Suspected {
        incarnation: 1,
        evidence: crate::scene::evidence(),
    };
    s.health("B", swarm_events::subject::AgentVerb::Suspected, suspected);
    s.submit_as("2", |t| {
        t.payload = Json::parse(r#"{"n": 2}"#).unwrap();
        t.priority = 7;
        t.timeout_ms = Some(1234);
    });
    s.world.settle();
    let (agent, _, assigned) = s.assignment("2");
    assert_eq!(agent, s.agent_id("C"));
    assert_eq!(
        assigned.payload,
        Carried::Inline(Json::parse(r#"{"n": 2}"#).unwrap())
    );
    assert_eq!((assigned.priority, assigned.timeout_ms), (7, 1234));
    assert_eq!(
        (assigned.attempt, assigned.generation, assigned.incarnation),
        (1, 1, 1)
    );
    let candidates: Vec<_> = assigned.candidates.iter().map(|c| c.agent_id).collect();
    assert_eq!(candidates, ["C", "D", "E"].map(|n| s.agent_id(n)));
    assert_eq!(assigned.passed_over.get(&PassedOver::Full), Some(&1));
    assert_eq!(assigned.passed_over.get(&PassedOver::Unhealthy), Some(&1));
}

#[test]
fn an_assignment_names_at_most_eight_candidates() {
    let mut s = Scene::new();
    for n in 0..20 {
        let capability = format!("c{}", n % 3);
        s.join_as(&format!("A{n}"), 1, 0, &[capability.as_str()]);
    }
    s.submit("t");
    s.world.settle();
    let (agent, _, assigned) = s.assignment("t");
    assert_eq!(assigned.candidates.len(), 8);
    assert_eq!(assigned.candidates[0].agent_id, agent);
    assert_eq!(
        agent,
        s.agent_id("A0"),
        "the first that joined, over all kinds"
    );
}

#[test]
fn higher_priority_goes_first_and_waiting_weighs_as_much_as_steps_of_it() {
    let mut s = Scene::with(|c| c.priority_step_ms = 1_000);
    s.submit_as("old", |t| t.priority = 1);
    s.world.later(1_500);
    s.submit_as("low", |t| t.priority = 1);
    s.submit_as("two", |t| t.priority = 2);
    s.submit_as("ten", |t| t.priority = 10);
    s.submit_as("tie", |t| t.priority = 2);
    // `old` has waited 1.5 s: worth one and a half steps, so it goes before `two` and after `ten`.
    s.join_as("A", 9, 0, &[]);
    let order = ["ten", "old", "two", "tie", "low"].map(|n| format!("assigned {n} to A"));
    assert_eq!(s.news(), order);
}

#[test]
fn the_order_holds_over_tasks_with_different_requirements() {
    let mut s = Scene::new();
    for (n, capability) in ["a", "b", "a", "c", "b"].into_iter().enumerate() {
        s.submit_as(&n.to_string(), |t| {
            t.required_capabilities = vec![capability.into()]
        });
        s.world.later(1);
    }
    s.join_as("A", 9, 0, &["a", "b"]);
    assert_eq!(
        s.news(),
        [
            "assigned 0 to A",
            "assigned 1 to A",
            "assigned 2 to A",
            "assigned 4 to A"
        ]
    );
}

#[test]
fn a_changed_step_reorders_what_waits() {
    let mut s = Scene::with(|c| c.priority_step_ms = 0);
    s.submit_as("first", |t| t.priority = 1);
    s.world.later(10);
    s.submit_as("urgent", |t| t.priority = 10);
    let configuration = swarm_events::configuration::Configuration {
        priority_step_ms: 60_000,
        ..Default::default()
    };
    s.configure(configuration);
    s.join_as("A", 9, 0, &[]);
    assert_eq!(s.news(), ["assigned urgent to A", "assigned first to A"]);
}

#[test]
fn a_large_payload_is_read_again_when_it_is_assigned() {
    let limit = swarm_distributor_core::PAYLOAD_HELD_BYTES_MAX;
    let text = |bytes: usize| Json::parse(&format!("\"{}\"", "x".repeat(bytes - 2))).unwrap();
    let mut s = Scene::new();
    s.submit_as("held", |t| t.payload = text(limit));
    s.submit_as("over", |t| t.payload = text(limit + 1));
    s.join_as("A", 2, 0, &[]);
    s.world.settle();
    assert_eq!(s.assignment("held").2.payload, Carried::Inline(text(limit)));
    let submitted = s.view("over").submitted;
    assert_eq!(
        s.assignment("over").2.payload,
        Carried::AtSequence(submitted)
    );
}
