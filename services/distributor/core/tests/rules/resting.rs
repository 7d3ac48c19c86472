//! Agents that are to go, or that health has in quarantine: no new work, what waits goes to others, what runs goes on.

use swarm_events::{
    agent::{Cause, StopThen, Stopping},
    configuration::Algorithm,
    decider::Verdict,
    subject::AgentVerb,
    task::{AffinityOutcome, PassedOver},
};

use crate::scene::Scene;

/// What may make an agent rest.
const WAYS: [fn(&mut Scene, &str) -> Verdict; 2] = [
    |s, agent| s.drain(agent),
    |s, agent| s.quarantine(agent, Cause::ErrorRate),
];

/// A runs `1`, and `2` waits there.
fn one_runs_one_waits() -> Scene {
    let mut s = Scene::new();
    s.join_as("A", 1, 1, &[]);
    s.submit("1");
    s.submit("2");
    s.news();
    assert_eq!(s.start("1"), Verdict::Applied);
    s
}

#[test]
fn what_waits_goes_to_others_and_what_runs_goes_on() {
    for rest in WAYS {
        // Given
        let mut s = one_runs_one_waits();
        let queued_at = s.view("2").queued_at;
        // When
        assert_eq!(rest(&mut s, "A"), Verdict::Applied);
        // Then
        assert_eq!(
            s.news(),
            ["withdrawn 2 from A: Drain, queue if not started"]
        );
        assert_eq!(s.view("2").queued_at, queued_at, "it keeps its place");
        assert_eq!(s.view("2").attempt_count, 0);
        s.join("B");
        s.submit("3");
        assert_eq!(s.news(), ["assigned 2 to B"]);
        assert_eq!(s.complete("1"), Verdict::Applied);
        assert_eq!(s.news(), [""; 0], "A is free and gets nothing");
        assert_eq!(s.status("3"), "queued");
        s.folds_agree();
    }
}

#[test]
fn a_start_that_was_first_keeps_its_task() {
    for rest in WAYS {
        // Given: the withdrawal is decided on, and not stored.
        let mut s = one_runs_one_waits();
        s.complete("1");
        rest(&mut s, "A");
        s.world.decide(64);
        // When
        assert_eq!(s.start("2"), Verdict::Applied);
        // Then
        let news = s.news();
        assert_eq!(
            news,
            ["void (started): withdrawn 2 from A: Drain, queue if not started"]
        );
        assert_eq!(s.complete("2"), Verdict::Applied);
    }
}

#[test]
fn an_assignment_that_crosses_is_taken_back() {
    for rest in WAYS {
        // Given: an assignment to A is under way.
        let mut s = Scene::new();
        s.join("A");
        s.submit("t");
        s.world.decide(64);
        // When
        rest(&mut s, "A");
        s.join("B");
        // Then
        assert_eq!(
            s.news(),
            [
                "assigned t to A",
                "withdrawn t from A: Drain, queue if not started",
                "assigned t to B"
            ]
        );
    }
}

#[test]
fn a_new_owner_takes_back_what_the_old_one_did_not() {
    for rest in WAYS {
        let mut s = one_runs_one_waits();
        s.news();
        rest(&mut s, "A");
        s.world.decide(64);
        // The decision is lost with its owner.
        s.world.claim();
        assert_eq!(
            s.news(),
            ["withdrawn 2 from A: Drain, queue if not started"]
        );
    }
}

#[test]
fn an_agent_is_given_work_again_when_no_cause_holds() {
    let mut s = Scene::new();
    s.join("A");
    s.quarantine("A", Cause::Memory);
    s.quarantine("A", Cause::Stuck);
    s.submit("t");
    assert_eq!(s.news(), [""; 0]);
    assert_eq!(s.release("A", Cause::Memory), Verdict::Applied);
    assert_eq!(s.news(), [""; 0], "the other cause holds");
    assert_eq!(
        s.release("A", Cause::Memory),
        Verdict::Void("not-quarantined")
    );
    assert_eq!(s.release("A", Cause::Stuck), Verdict::Applied);
    assert_eq!(s.news(), ["assigned t to A"]);
    s.folds_agree();
}

#[test]
fn a_new_process_begins_anew() {
    for rest in WAYS {
        let mut s = Scene::new();
        s.join("A");
        rest(&mut s, "A");
        s.submit("t");
        assert_eq!(s.news(), [""; 0]);
        s.join("A");
        assert_eq!(s.news(), ["assigned t to A"]);
    }
}

#[test]
fn a_word_about_another_process_is_void() {
    let mut s = Scene::new();
    s.join("A");
    let stopping = |incarnation| Stopping {
        incarnation,
        spawn: 0,
        grace_ms: 0,
        then: StopThen::Restart,
        reason: "test".to_owned(),
    };
    assert_eq!(
        s.member("A", AgentVerb::Stopping, stopping(2)),
        Verdict::Void("other-incarnation")
    );
    // One that none has joined has nothing to give back.
    assert_eq!(
        s.member("A", AgentVerb::Stopping, stopping(0)),
        Verdict::Ignored
    );
    assert_eq!(
        s.member("nobody", AgentVerb::Stopping, stopping(0)),
        Verdict::Ignored
    );
    s.submit("t");
    assert_eq!(s.news(), ["assigned t to A"]);
}

#[test]
fn an_agent_that_rests_takes_nothing_over() {
    for rest in WAYS {
        let mut s = one_runs_one_waits();
        s.join("B");
        rest(&mut s, "B");
        s.world.later(swarm_distributor_core::STEAL_AFTER_MS);
        assert_eq!(s.news(), [""; 0]);
        assert_eq!(s.status("2"), "assigned");
    }
}

#[test]
fn what_is_taken_over_for_an_agent_that_rests_then_goes_to_another() {
    for rest in WAYS {
        // Given: B is about to take it over.
        let mut s = one_runs_one_waits();
        s.join("B");
        s.world.now = s
            .world
            .now
            .plus_millis(swarm_distributor_core::STEAL_AFTER_MS);
        s.wake();
        s.world.decide(64);
        // When
        rest(&mut s, "B");
        s.join("C");
        // Then
        assert_eq!(
            s.news(),
            [
                "withdrawn 2 from A: Steal, queue if not started",
                "assigned 2 to C"
            ]
        );
    }
}

#[test]
fn the_circle_goes_on_around_an_agent_that_rests() {
    // Given: A, B and C have had their turns in this order.
    let mut s = Scene::with(|c| c.distribution_algorithm = Algorithm::RoundRobin);
    for agent in ["A", "B", "C"] {
        s.join_as(agent, 9, 0, &[]);
    }
    for task in ["1", "2", "3"] {
        s.submit(task);
    }
    s.news();
    // When
    s.quarantine("B", Cause::Cpu);
    for task in ["4", "5", "6"] {
        s.submit(task);
    }
    // Then: `2` waited at B, and is the first in the queue.
    assert_eq!(
        s.news(),
        [
            "withdrawn 2 from B: Drain, queue if not started",
            "assigned 4 to A",
            "assigned 5 to C",
            "assigned 6 to A",
            "assigned 2 to C",
        ]
    );
    // When it is back, it is its turn, once.
    s.release("B", Cause::Cpu);
    for task in ["7", "8", "9"] {
        s.submit(task);
    }
    assert_eq!(
        s.news(),
        ["assigned 7 to B", "assigned 8 to A", "assigned 9 to C"]
    );
}

#[test]
fn a_key_moves_away_from_an_agent_that_rests() {
    for rest in WAYS {
        // Given: A is the key's home.
        let mut s = Scene::with(|c| c.distribution_algorithm = Algorithm::Affinity);
        s.join_as("A", 4, 0, &[]);
        s.submit("1");
        s.news();
        s.join_as("B", 4, 0, &[]);
        s.submit("2");
        assert_eq!(s.news(), ["assigned 2 to A"]);
        s.start("1");
        s.start("2");
        // When
        rest(&mut s, "A");
        s.submit("3");
        // Then
        assert_eq!(s.news(), ["assigned 3 to B"]);
        assert_eq!(s.assignment("3").2.affinity, Some(AffinityOutcome::New));
    }
}

#[test]
fn an_assignment_counts_those_that_rest() {
    let mut s = Scene::new();
    for agent in ["A", "B", "C", "D"] {
        s.join(agent);
    }
    s.drain("A");
    s.quarantine("B", Cause::Memory);
    s.quarantine("C", Cause::Stuck);
    s.submit("t");
    assert_eq!(s.news(), ["assigned t to D"]);
    let passed_over = s.assignment("t").2.passed_over;
    assert_eq!(passed_over.get(&PassedOver::Draining), Some(&1));
    assert_eq!(passed_over.get(&PassedOver::Quarantined), Some(&2));
    assert!(s.agent("A").draining);
    assert_eq!(s.agent("B").quarantine.len(), 1);
}

#[test]
fn an_agent_that_rests_and_is_lost_has_everything_taken_away() {
    for rest in WAYS {
        let mut s = one_runs_one_waits();
        rest(&mut s, "A");
        s.fail("A");
        assert_eq!(
            s.news(),
            [
                "withdrawn 2 from A: AgentFailed, queue",
                "withdrawn 1 from A: AgentFailed, queue"
            ]
        );
    }
}

#[test]
fn a_task_that_has_waited_too_long_fails_and_is_not_given_back() {
    let mut s = Scene::with(|c| c.queue_timeout_ms = 1_000);
    s.join_as("A", 1, 1, &[]);
    s.submit("1");
    s.submit("2");
    s.world.settle();
    s.start("1");
    s.news();
    s.world.now = s.world.now.plus_millis(1_000);
    s.drain("A");
    assert_eq!(
        s.news(),
        [
            "withdrawn 2 from A: QueueTimeout, end if not started",
            "failed 2: it waited longer than its queue_timeout_ms"
        ]
    );
}
