//! Tasks that agents give back.

use swarm_distributor_core::DECLINES_MAX;
use swarm_events::{
    configuration::Algorithm,
    decider::Verdict,
    subject::CommandVerb,
    subject::TaskVerb,
    task::{AffinityOutcome, DECLINE_REASON_BYTES_MAX, Declined, PassedOver},
};

use crate::scene::Scene;

/// The base of the default retry policy, whose factor is 2.
const BASE_MS: u64 = 500;

/// The longest wait after the n-th decline.
fn wait_ms(n: u8) -> u64 {
    let plain = BASE_MS << (n - 1);
    plain + plain / 4
}

/// Passes from deadline to deadline, as an owner is woken, until the task is with an agent; answers with how long that took.
fn waits_ms(s: &mut Scene, task: &str) -> u64 {
    let from = s.world.now;
    while s.status(task) == "queued" {
        let due = s.world.next_deadline().expect("it is offered some time");
        s.world.later(due.millis_since(s.world.now).max(1));
    }
    assert_eq!(s.status(task), "assigned");
    s.world.now.millis_since(from)
}

#[test]
fn a_declined_task_goes_to_another_and_costs_no_attempt() {
    for started in [false, true] {
        // Given
        let mut s = Scene::new();
        s.join_as("A", 5, 5, &[]);
        s.submit("t");
        s.news();
        s.join("B");
        let queued_at = s.view("t").queued_at;
        if started {
            s.start("t");
        }
        // When
        assert_eq!(s.decline("t"), Verdict::Applied);
        // Then
        assert_eq!(s.news(), ["assigned t to B"], "A has the lower load");
        let assigned = s.assignment("t").2;
        assert_eq!(assigned.attempt, 1);
        assert_eq!(assigned.passed_over.get(&PassedOver::Declined), Some(&1));
        assert_eq!(s.view("t").queued_at, queued_at, "it keeps its place");
        assert_eq!(s.view("t").declines, 1);
        assert_eq!((s.agent("A").failed, s.agent("A").fast_failures), (0, 0));
        s.run_held("t");
        s.folds_agree();
    }
}

#[test]
fn it_waits_for_another_agent_and_is_in_nobodys_way() {
    // Given: A has declined it, B is busy.
    let mut s = Scene::new();
    s.join("B");
    s.submit("long");
    s.world.settle();
    s.start("long");
    s.join("A");
    s.submit("t");
    s.news();
    assert_eq!(s.decline("t"), Verdict::Applied);
    assert_eq!(s.news(), [""; 0]);
    assert_eq!(s.status("t"), "queued");
    // When: what comes later finds A.
    s.submit("u");
    assert_eq!(s.news(), ["assigned u to A"]);
    s.run_held("u");
    assert_eq!(s.news(), [""; 0]);
    // Then
    s.complete("long");
    assert_eq!(s.news(), ["assigned t to B"]);
}

#[test]
fn without_another_it_comes_back_to_who_declined_it() {
    let others: [fn(&mut Scene); 4] = [
        |s| s.leave("B"),
        |s| {
            s.fail("B");
        },
        |s| {
            s.drain("B");
        },
        |s| {
            s.update("B", 1, 0, &[]);
        },
    ];
    for gone in others {
        // Given
        let mut s = Scene::new();
        s.join_as("B", 1, 0, &["x"]);
        s.submit_as("long", |t| t.required_capabilities = vec!["x".into()]);
        s.world.settle();
        s.start("long");
        s.join_as("A", 1, 0, &["x"]);
        s.submit_as("t", |t| t.required_capabilities = vec!["x".into()]);
        s.world.settle();
        s.decline("t");
        s.news();
        s.world.later(wait_ms(1));
        assert_eq!(s.status("t"), "queued", "there is another");
        // When
        gone(&mut s);
        // Then
        let news = s.news();
        assert!(news.contains(&"assigned t to A".to_owned()), "{news:?}");
    }
}

#[test]
fn when_the_other_goes_it_does_not_come_back_before_its_wait_is_over() {
    // Given: A has just declined it, B is busy.
    let mut s = Scene::new();
    s.join("B");
    s.submit("long");
    s.world.settle();
    s.start("long");
    s.join("A");
    s.submit("t");
    s.news();
    s.decline("t");
    s.world.settle();
    // When
    s.drain("B");
    s.world.later(BASE_MS - 1);
    // Then
    assert_eq!(s.status("t"), "queued");
    s.world.later(wait_ms(1) - (BASE_MS - 1));
    assert_eq!(s.status("t"), "assigned");
    s.folds_agree();
}

#[test]
fn whoever_alone_could_take_it_gets_it_again_after_a_wait_that_grows() {
    for started in [false, true] {
        // Given
        let mut s = Scene::new();
        s.join("A");
        s.submit("t");
        assert_eq!(s.news(), ["assigned t to A"]);
        for n in 1..DECLINES_MAX {
            let plain_ms = BASE_MS << (n - 1);
            if started {
                s.start("t");
            }
            // When
            s.decline("t");
            s.world.settle();
            // Then
            assert_eq!(s.status("t"), "queued", "decline {n}");
            let wait_ms = waits_ms(&mut s, "t");
            assert!(
                (plain_ms..=plain_ms + plain_ms / 4).contains(&wait_ms),
                "decline {n}: {wait_ms} ms"
            );
            s.folds_agree();
        }
    }
}

#[test]
fn the_wait_is_capped_as_that_of_a_retry_and_none_if_retries_have_none() {
    let mut s = Scene::with(|c| (c.retry.base_ms, c.retry.cap_ms) = (1_000, 2_000));
    s.join("A");
    s.submit("t");
    s.news();
    for _ in 1..DECLINES_MAX {
        s.decline("t");
        s.world.settle();
        s.world.later(2_500);
        assert_eq!(s.status("t"), "assigned");
    }
    let mut s = Scene::with(|c| c.retry.base_ms = 0);
    s.join("A");
    s.submit("t");
    s.news();
    s.decline("t");
    assert_eq!(s.news(), ["assigned t to A"]);
}

#[test]
fn an_agent_that_appears_meanwhile_takes_it_at_once() {
    let appears: [fn(&mut Scene); 3] = [
        |s| {
            s.join_as("B", 1, 0, &["x"]);
        },
        |s| {
            s.join_as("B", 1, 0, &["x", "y"]);
        },
        |s| {
            s.update("C", 1, 0, &["x"]);
        },
    ];
    for appears in appears {
        // Given: A alone could take it, and has declined it.
        let mut s = Scene::new();
        s.join_as("A", 1, 0, &["x"]);
        s.join_as("C", 1, 0, &[]);
        s.submit_as("t", |t| t.required_capabilities = vec!["x".into()]);
        s.news();
        s.decline("t");
        assert_eq!(s.news(), [""; 0]);
        // When
        appears(&mut s);
        // Then
        let news = s.news();
        assert_eq!(news.len(), 1, "{news:?}");
        assert!(news[0] == "assigned t to B" || news[0] == "assigned t to C");
        // And the end of the wait changes nothing.
        s.world.later(wait_ms(1));
        assert_eq!(s.news(), [""; 0]);
        s.run_held("t");
        s.folds_agree();
    }
}

#[test]
fn while_it_waits_its_agent_gets_other_work() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.news();
    s.decline("t");
    s.submit("u");
    assert_eq!(s.news(), ["assigned u to A"]);
    s.run_held("u");
    s.world.later(wait_ms(1));
    assert_eq!(s.news(), ["assigned t to A"]);
}

#[test]
fn a_task_that_ends_meanwhile_leaves_no_deadline() {
    // Given
    let mut s = Scene::with(|c| c.retry.base_ms = 60_000);
    s.join("A");
    s.submit("t");
    s.news();
    s.decline("t");
    s.world.settle();
    // When
    s.command(CommandVerb::Cancel, "t");
    s.world.settle();
    // Then: nothing is left but the figures.
    assert_eq!(s.status("t"), "cancelled");
    assert!(s.world.run_out() < 60_000);
    s.folds_agree();
}

#[test]
fn others_that_only_rest_are_waited_for() {
    for suspected in [false, true] {
        let mut s = Scene::new();
        s.join("A");
        s.submit("t");
        s.news();
        s.join("B");
        if suspected {
            s.suspect("B");
        } else {
            s.quarantine("B", swarm_events::agent::Cause::Stuck);
        }
        s.decline("t");
        assert_eq!(s.news(), [""; 0]);
        assert_eq!(s.status("t"), "queued");
    }
}

#[test]
fn one_that_comes_later_gets_it() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.news();
    s.decline("t");
    assert_eq!(s.news(), [""; 0]);
    s.world.later(wait_ms(1));
    assert_eq!(s.news(), ["assigned t to A"], "there is no other");
    s.decline("t");
    s.join("B");
    assert_eq!(s.news(), ["assigned t to B"]);
    assert_eq!(s.view("t").declines, 2);
}

#[test]
fn a_task_that_is_declined_too_often_fails_with_the_last_reason() {
    // Given
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    for n in 1..DECLINES_MAX {
        assert_eq!(s.news(), ["assigned t to A"], "{n}");
        s.decline("t");
        s.world.settle();
        s.world.later(wait_ms(n));
    }
    assert_eq!(s.news(), ["assigned t to A"]);
    // When
    s.decline("t");
    // Then
    assert_eq!(
        s.news(),
        ["failed t: it was declined 8 times, the last time with: not mine"]
    );
    assert!(s.view("t").dead_lettered);
    assert_eq!(s.view("t").attempt_count, 0);
    // And a retry begins anew.
    s.join("B");
    s.command(CommandVerb::Retry, "t");
    assert_eq!(s.news(), ["retried t: generation 2", "assigned t to A"]);
    assert_eq!(s.view("t").declines, 0);
    s.folds_agree();
}

#[test]
fn a_declined_task_with_many_kinds_of_agents_finds_the_best_of_the_rest() {
    for algorithm in Algorithm::ALL {
        // Given: more kinds than are looked at one by one.
        let mut s = Scene::with(|c| c.distribution_algorithm = algorithm);
        for n in 0..12 {
            s.join_as(&format!("A{n}"), 2, 0, &["x", &format!("y{n:02}")]);
        }
        s.submit_as("t", |t| t.required_capabilities = vec!["x".into()]);
        s.world.settle();
        // When each declines it in turn, as many as may
        let mut had = std::collections::BTreeSet::new();
        for _ in 0..DECLINES_MAX {
            let agent = s.assignment("t").0;
            assert!(had.insert(agent), "{algorithm:?}: it came twice");
            s.decline("t");
            s.world.settle();
        }
        // Then
        assert_eq!(s.status("t"), "failed");
    }
}

#[test]
fn the_key_of_a_declined_task_finds_another_home() {
    let mut s = Scene::with(|c| c.distribution_algorithm = Algorithm::Affinity);
    s.join_as("A", 4, 0, &[]);
    s.submit("t");
    s.news();
    s.join_as("B", 4, 0, &[]);
    s.decline("t");
    assert_eq!(s.news(), ["assigned t to B"]);
    assert_eq!(s.assignment("t").2.affinity, Some(AffinityOutcome::New));
    s.submit("u");
    assert_eq!(s.news(), ["assigned u to B"]);
}

#[test]
fn who_declined_it_does_not_take_it_over() {
    for algorithm in [
        Algorithm::LeastLoaded,
        Algorithm::RoundRobin,
        Algorithm::CapabilityMatch,
        Algorithm::Affinity,
    ] {
        // Given: it waits at B, which is busy, and A has nothing to do.
        let mut s = Scene::with(|c| c.distribution_algorithm = algorithm);
        s.join_as("A", 1, 0, &[]);
        s.submit("t");
        s.news();
        s.join_as("B", 1, 1, &[]);
        s.submit("long");
        s.world.settle();
        s.start("long");
        s.decline("t");
        assert_eq!(s.news()[1..], ["assigned t to B"], "{algorithm:?}");
        // When
        s.world.later(1_000);
        // Then
        assert_eq!(s.news(), [""; 0], "{algorithm:?}");
        s.join("C");
        assert_eq!(
            s.news(),
            [
                "withdrawn t from B: Steal, queue if not started",
                "assigned t to C"
            ],
            "{algorithm:?}"
        );
    }
}

#[test]
fn a_word_on_another_assignment_is_void() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    let (agent, assignment, assigned) = s.assignment("t");
    let declined = |assignment, incarnation| Declined {
        assignment,
        incarnation,
        reason: "x".repeat(DECLINE_REASON_BYTES_MAX + 1),
    };
    let incarnation = assigned.incarnation;
    for (assignment, incarnation, why) in [
        (assignment + 1, incarnation, "late"),
        (assignment, incarnation + 1, "old-incarnation"),
    ] {
        assert_eq!(
            s.by_agent(
                "t",
                agent,
                TaskVerb::Declined,
                declined(assignment, incarnation)
            ),
            Verdict::Void(why)
        );
    }
    // A long reason is cut.
    assert_eq!(
        s.by_agent(
            "t",
            agent,
            TaskVerb::Declined,
            declined(assignment, incarnation)
        ),
        Verdict::Applied
    );
    assert_eq!(s.decline("t"), Verdict::Void("late"), "it counts once");
    s.folds_agree();
}

#[test]
fn a_declined_task_that_is_called_off_is_cancelled() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.news();
    s.command(CommandVerb::Cancel, "t");
    s.world.decide(64);
    s.decline("t");
    let news = s.news();
    assert_eq!(s.status("t"), "cancelled", "{news:?}");
}
