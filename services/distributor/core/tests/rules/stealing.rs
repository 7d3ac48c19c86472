//! Idle agents take over what waits at busy ones, and the log's order referees.

use swarm_distributor_core::{STEAL_AFTER_MS, STEALS_MAX};
use swarm_events::{configuration::Algorithm, decider::Verdict, subject::CommandVerb};

use crate::scene::Scene;

/// A has something to do and something that waits; B comes and has nothing.
fn busy_and_idle(algorithm: Algorithm) -> Scene {
    let mut s = Scene::with(|c| c.distribution_algorithm = algorithm);
    s.join_as("A", 1, 2, &[]);
    s.submit("1");
    s.submit("2");
    s.news();
    assert_eq!(s.start("1"), Verdict::Applied);
    s.join_as("B", 1, 2, &[]);
    s
}

const FILLING: [Algorithm; 4] = [
    Algorithm::LeastLoaded,
    Algorithm::RoundRobin,
    Algorithm::CapabilityMatch,
    Algorithm::Affinity,
];

#[test]
fn an_idle_agent_takes_over_what_waits_at_a_busy_one() {
    for algorithm in FILLING {
        let mut s = busy_and_idle(algorithm);
        assert_eq!(
            s.news(),
            [""; 0],
            "{algorithm:?}: not within the first 50 ms"
        );
        s.world.later(STEAL_AFTER_MS);
        assert_eq!(
            s.news(),
            [
                "withdrawn 2 from A: Steal, queue if not started",
                "assigned 2 to B"
            ],
            "{algorithm:?}"
        );
        let (agent, a) = (s.agent_id("B"), s.agent_id("A"));
        let (to, _, assigned) = s.assignment("2");
        assert_eq!((to, assigned.stolen_from), (agent, Some(a)));
        assert_eq!(s.view("2").attempt_count, 0);
        assert_eq!(s.start("2"), Verdict::Applied);
        s.folds_agree();
    }
}

#[test]
fn the_deadline_names_when_a_steal_is_due() {
    let mut s = busy_and_idle(Algorithm::LeastLoaded);
    s.world.settle();
    let due = s.world.next_deadline().expect("a steal is due");
    let waited = due.millis_since(s.world.state.head().now);
    assert!(waited <= STEAL_AFTER_MS, "{waited}");
}

#[test]
fn a_start_before_the_withdrawal_makes_it_void() {
    let mut s = busy_and_idle(Algorithm::LeastLoaded);
    s.world.now = s.world.now.plus_millis(STEAL_AFTER_MS);
    s.wake();
    assert_eq!(s.world.decide(1), 1, "the withdrawal is under way");
    s.complete("1");
    s.start("2");
    assert_eq!(
        s.news(),
        ["void (started): withdrawn 2 from A: Steal, queue if not started"]
    );
    assert_eq!(s.complete("2"), Verdict::Applied);
    let counters = s.world.state.counters(s.place).expect("the swarm");
    assert_eq!((counters.steals, counters.completed), (0, 2));
    // What was kept for the thief is free again.
    s.submit("3");
    s.submit("4");
    assert_eq!(s.news(), ["assigned 3 to A", "assigned 4 to B"]);
}

#[test]
fn a_start_after_the_withdrawal_is_void() {
    let mut s = busy_and_idle(Algorithm::LeastLoaded);
    let (a, before, assigned) = s.assignment("2");
    s.world.later(STEAL_AFTER_MS);
    assert_eq!(s.news().len(), 2);
    let late = swarm_events::task::Started {
        assignment: before,
        incarnation: assigned.incarnation,
    };
    let verdict = s.by_agent("2", a, swarm_events::subject::TaskVerb::Started, late);
    assert_eq!(verdict, Verdict::Void("late"));
    assert_eq!(s.start("2"), Verdict::Applied);
}

#[test]
fn the_best_ranked_is_taken_over_first_and_one_for_each_free_slot() {
    let mut s = Scene::new();
    s.join_as("A", 1, 3, &[]);
    for (task, priority) in [("1", 5), ("low", 2), ("high", 9), ("mid", 5)] {
        s.submit_as(task, |t| t.priority = priority);
    }
    s.news();
    let first = s.first_of("A");
    s.start(&first);
    s.world.later(STEAL_AFTER_MS);
    s.join_as("B", 2, 0, &[]);
    let news = s.news();
    // The most important one runs; of those that wait the best ranked go first, and the last one stays.
    assert_eq!(
        news,
        [
            "withdrawn 1 from A: Steal, queue if not started",
            "withdrawn mid from A: Steal, queue if not started",
            "assigned 1 to B",
            "assigned mid to B"
        ]
    );
}

#[test]
fn what_the_idle_one_cannot_do_stays() {
    let mut s = Scene::new();
    s.join_as("A", 1, 2, &["gpu"]);
    for task in ["1", "2"] {
        s.submit_as(task, |t| t.required_capabilities = vec!["gpu".into()]);
    }
    s.news();
    s.start("1");
    s.join("B");
    s.world.later(10 * STEAL_AFTER_MS);
    assert_eq!(s.news(), [""; 0]);
    s.join_as("C", 1, 0, &["gpu"]);
    assert_eq!(s.news().len(), 2);
}

#[test]
fn what_an_agent_is_about_to_start_stays() {
    let mut s = Scene::new();
    s.join_as("A", 2, 2, &[]);
    for task in ["1", "2"] {
        s.submit(task);
    }
    s.news();
    s.start("1");
    s.join("B");
    // A has a slot for it, and half a second is not beyond its start limit.
    s.world.later(500);
    assert_eq!(s.news(), [""; 0]);
}

#[test]
fn a_task_is_taken_over_three_times_at_the_most() {
    let mut s = Scene::new();
    s.join_as("A", 1, 1, &[]);
    s.submit("1");
    s.submit("t");
    s.news();
    s.start("1");
    let mut holder = "1".to_owned();
    for n in 0..STEALS_MAX {
        // The thief gets it, is kept busy before it starts it, and another one is idle.
        let thief = format!("B{n}");
        s.join_as(&thief, 1, 1, &[&thief]);
        s.world.later(STEAL_AFTER_MS);
        assert_eq!(s.news().len(), 2, "{n}");
        let other = format!("other {n}");
        s.submit_as(&other, |t| t.required_capabilities = vec![thief.clone()]);
        s.news();
        let (agent, ..) = s.assignment(&other);
        assert_eq!(agent, s.agent_id(&thief), "it has a waiting place left");
        s.start(&other);
        holder = other;
    }
    s.join_as("C", 1, 0, &[]);
    s.world.later(STEAL_AFTER_MS);
    assert_eq!(s.news(), [""; 0]);
    assert_eq!(s.view("t").steals, u32::from(STEALS_MAX));
    s.complete(&holder);
    assert_eq!(s.start("t"), Verdict::Applied);
}

#[test]
fn nothing_is_taken_over_where_stealing_is_off() {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join_as("A", 1, 2, &[]);
    s.submit("1");
    s.submit("2");
    s.news();
    s.start("1");
    s.join("B");
    s.world.later(10 * STEAL_AFTER_MS);
    assert_eq!(s.news(), [""; 0]);
    // Switched on, it happens at once.
    s.configure(swarm_events::configuration::Configuration::default());
    assert_eq!(s.news().len(), 2);
}

#[test]
fn a_cancellation_and_a_steal_do_not_get_in_each_others_way() {
    let mut s = busy_and_idle(Algorithm::LeastLoaded);
    s.world.now = s.world.now.plus_millis(STEAL_AFTER_MS);
    s.wake();
    assert_eq!(s.world.decide(1), 1, "the withdrawal is under way");
    s.command(CommandVerb::Cancel, "2");
    let news = s.news();
    assert_eq!(
        news[0], "withdrawn 2 from A: Steal, queue if not started",
        "{news:?}"
    );
    assert_eq!(s.status("2"), "cancelled", "{news:?}");
    s.folds_agree();
}

#[test]
fn the_victim_dies_while_a_steal_is_under_way() {
    let mut s = busy_and_idle(Algorithm::LeastLoaded);
    s.world.now = s.world.now.plus_millis(STEAL_AFTER_MS);
    s.wake();
    assert_eq!(s.world.decide(1), 1);
    s.fail("A");
    let news = s.news();
    assert_eq!(
        news,
        [
            "withdrawn 2 from A: Steal, queue if not started",
            "withdrawn 1 from A: AgentFailed, queue",
            "assigned 2 to B",
            "assigned 1 to B",
        ]
    );
}

#[test]
fn a_lost_steal_is_decided_again_after_a_claim() {
    let mut s = busy_and_idle(Algorithm::LeastLoaded);
    s.world.now = s.world.now.plus_millis(STEAL_AFTER_MS);
    s.wake();
    assert_eq!(s.world.decide(1), 1);
    s.world.claim();
    assert_eq!(s.news().len(), 2);
}

#[test]
fn what_is_taken_over_is_no_turn_of_the_thief() {
    let mut s = busy_and_idle(Algorithm::RoundRobin);
    s.world.later(STEAL_AFTER_MS);
    assert_eq!(s.news().len(), 2);
    s.run_held("2");
    // B had no turn yet, though it has done something.
    s.submit("3");
    s.submit("4");
    assert_eq!(s.news(), ["assigned 3 to B", "assigned 4 to A"]);
}

#[test]
fn nobody_wakes_for_a_steal_when_there_is_no_thief_any_more() {
    let mut s = busy_and_idle(Algorithm::LeastLoaded);
    s.world.settle();
    let steal = s.world.next_deadline().expect("a steal is due");
    s.leave("B");
    s.world.settle();
    let next = s.world.next_deadline().expect("the run limit");
    assert!(next > steal, "{next} is not after {steal}");
    if let Err(difference) = s.world.decide_twice(100) {
        panic!("{difference}");
    }
}
