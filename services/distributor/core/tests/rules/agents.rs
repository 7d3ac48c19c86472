//! Agents that go, come back, fall silent or do not start.

use swarm_distributor_core::{BARRED_MS, LAPSES_MAX, START_LIMIT_MS};
use swarm_events::{
    agent::{Left, Recovered, Removed, Suspected},
    decider::Verdict,
    subject::{AgentVerb, TaskVerb},
    task::Started,
};

use crate::scene::{Scene, evidence};

#[test]
fn an_agent_that_is_lost_before_it_started_costs_no_attempt() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.news();
    s.join("B");
    s.fail("A");
    assert_eq!(
        s.news(),
        ["withdrawn t from A: AgentFailed, queue", "assigned t to B"]
    );
    assert_eq!(s.assignment("t").2.attempt, 1);
    s.folds_agree();
}

#[test]
fn an_agent_that_is_lost_after_it_started_costs_one() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.news();
    s.join("B");
    s.fail("A");
    assert_eq!(
        s.news(),
        ["withdrawn t from A: AgentFailed, queue", "assigned t to B"]
    );
    assert_eq!(s.assignment("t").2.attempt, 2);
}

#[test]
fn a_task_whose_attempts_died_with_their_agents_fails() {
    let mut s = Scene::new();
    s.submit_as("t", |t| t.max_attempts = Some(1));
    s.join("A");
    s.world.settle();
    s.start("t");
    s.news();
    s.fail("A");
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: AgentFailed, end",
            "failed t: its agent failed while it ran"
        ]
    );
    assert!(s.view("t").dead_lettered);
}

#[test]
fn leaving_and_removal_give_work_back() {
    for removed in [false, true] {
        let mut s = Scene::new();
        s.join_as("A", 2, 0, &[]);
        s.submit("t");
        s.submit("u");
        s.world.settle();
        s.start("u");
        s.news();
        let reason = "test".to_owned();
        let word = if removed {
            s.member(
                "A",
                AgentVerb::Removed,
                Removed {
                    incarnation: 1,
                    reason,
                },
            );
            "AgentRemoved"
        } else {
            s.member(
                "A",
                AgentVerb::Left,
                Left {
                    incarnation: 1,
                    reason,
                },
            );
            "AgentLeft"
        };
        assert_eq!(
            s.news(),
            [
                format!("withdrawn t from A: {word}, queue"),
                format!("withdrawn u from A: {word}, queue")
            ]
        );
        assert_eq!((s.status("t"), s.status("u")), ("queued", "queued"));
    }
}

#[test]
fn a_new_incarnation_has_the_old_ones_work_withdrawn() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.news();
    assert_eq!(s.join("A"), Verdict::Applied);
    assert_eq!(s.complete("t"), Verdict::Void("old-incarnation"));
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: AgentRestarted, queue",
            "assigned t to A"
        ]
    );
    assert_eq!(s.assignment("t").2.incarnation, 2);
}

#[test]
fn a_verdict_on_another_incarnation_is_void() {
    let mut s = Scene::new();
    s.join("A");
    s.join("A");
    let failed = swarm_events::agent::Failed {
        incarnation: 1,
        evidence: evidence(),
    };
    assert_eq!(
        s.health("A", AgentVerb::Failed, failed),
        Verdict::Void("other-incarnation")
    );
    s.submit("t");
    assert_eq!(s.news(), ["assigned t to A"]);
}

#[test]
fn a_suspected_agent_gets_no_new_work_and_keeps_what_it_has() {
    let mut s = Scene::new();
    s.join_as("A", 2, 0, &[]);
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.news();
    s.health(
        "A",
        AgentVerb::Suspected,
        Suspected {
            incarnation: 1,
            evidence: evidence(),
        },
    );
    s.submit("u");
    assert_eq!(s.news(), [""; 0]);
    s.health(
        "A",
        AgentVerb::Recovered,
        Recovered {
            incarnation: 1,
            evidence: evidence(),
        },
    );
    assert_eq!(s.news(), ["assigned u to A"]);
    assert_eq!(s.complete("t"), Verdict::Applied);
}

#[test]
fn an_agent_that_failed_must_join_anew() {
    let mut s = Scene::new();
    s.join("A");
    s.fail("A");
    let recovered = Recovered {
        incarnation: 1,
        evidence: evidence(),
    };
    assert_eq!(
        s.health("A", AgentVerb::Recovered, recovered),
        Verdict::Void("failed")
    );
    s.submit("t");
    assert_eq!(s.news(), [""; 0]);
    s.join("A");
    assert_eq!(s.news(), ["assigned t to A"]);
}

#[test]
fn the_start_limit_withdraws_what_is_not_started_in_time() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.news();
    s.world.later(START_LIMIT_MS - 1);
    assert_eq!(s.news(), [""; 0]);
    s.join("B");
    s.world.later(1);
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: StartLimit, queue if not started",
            "assigned t to A"
        ],
        "one lapse may be a lost hint"
    );
    assert_eq!(s.assignment("t").2.attempt, 1);
}

#[test]
fn an_agent_that_lets_two_lapse_gets_no_more_until_it_writes() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    for _ in 0..LAPSES_MAX {
        s.world.settle();
        s.world.later(START_LIMIT_MS);
    }
    s.news();
    s.join("B");
    assert_eq!(s.news(), ["assigned t to B"]);
    s.submit("u");
    assert_eq!(s.news(), [""; 0], "A is free, and not trusted");
    // A late start is void, and a sign of life all the same.
    let a = s.agent_id("A");
    let late = Started {
        assignment: 1,
        incarnation: 1,
    };
    assert!(matches!(
        s.by_agent("t", a, TaskVerb::Started, late),
        Verdict::Void(_)
    ));
    assert_eq!(s.news(), ["assigned u to A"]);
}

#[test]
fn an_agent_that_let_two_lapse_gets_work_when_it_is_heard_again() {
    // Given: it was paused, let two lapse, and holds nothing that it could write of.
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    for _ in 0..LAPSES_MAX {
        s.world.settle();
        s.world.later(START_LIMIT_MS);
    }
    s.suspect("A");
    s.news();
    // When
    let recovered = Recovered {
        incarnation: 1,
        evidence: evidence(),
    };
    s.health("A", AgentVerb::Recovered, recovered);
    // Then
    assert_eq!(s.news(), ["assigned t to A"]);
}

#[test]
fn an_agent_that_let_two_lapse_is_tried_again_after_a_while() {
    // Given: it let two lapse and holds nothing, and health never doubted it.
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    for _ in 0..LAPSES_MAX {
        s.world.settle();
        s.world.later(START_LIMIT_MS);
    }
    s.news();
    s.world.later(BARRED_MS - 1);
    assert_eq!(s.news(), [""; 0]);
    // When
    s.world.later(1);
    // Then
    assert_eq!(s.news(), ["assigned t to A"]);
    s.world.later(START_LIMIT_MS);
    assert_eq!(
        s.news(),
        ["withdrawn t from A: StartLimit, queue if not started"],
        "one more lapse bars it again"
    );
}

#[test]
fn the_start_limit_does_not_run_while_the_agent_has_no_free_slot() {
    let mut s = Scene::new();
    s.join_as("A", 1, 1, &[]);
    s.submit("t");
    s.submit("u");
    s.world.settle();
    s.start("t");
    s.news();
    s.world.later(10 * START_LIMIT_MS);
    assert_eq!(s.news(), [""; 0]);
    s.complete("t");
    s.world.later(START_LIMIT_MS - 1);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    assert_eq!(
        s.news()[0],
        "withdrawn u from A: StartLimit, queue if not started"
    );
}

#[test]
fn a_start_that_was_first_makes_the_withdrawal_void() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.news();
    s.world.now = s.world.now.plus_millis(START_LIMIT_MS);
    // The limit is decided on, and the start is stored before the decision.
    s.world.control(
        swarm_events::Service::Distributor,
        swarm_events::subject::ControlVerb::Woken,
        swarm_events::control::Woken {},
    );
    s.world.decide(64);
    assert_eq!(s.start("t"), Verdict::Applied);
    assert_eq!(
        s.news(),
        ["void (started): withdrawn t from A: StartLimit, queue if not started"]
    );
    assert_eq!(s.complete("t"), Verdict::Applied);
}
