//! Rules of quarantine: who gets no new work, for how long, and by what figures.

mod support;

use std::collections::BTreeMap;

use support::{Scene, agent, figures, place};
use swarm_events::{
    Body, Subject,
    agent::{Cause, Left},
    configuration::HealthPolicy,
    control::Sighting,
    decider::{Decider, Verdict},
    subject::{AgentVerb, SwarmVerb},
    swarm::{AgentLoad, MEASURED_NAMES_MAX, Measured, Outcomes, Stopping},
};
use swarm_health_core::Liveness;

fn policy() -> HealthPolicy {
    HealthPolicy::default()
}
/// What the last decision says of a quarantine: cause, figures, and how long it lasts in milliseconds.
fn began(scene: &Scene) -> (Cause, swarm_events::agent::Figures, Option<u64>) {
    let Body::AgentQuarantined(q) = scene.last().body else {
        panic!("{:?}", scene.last())
    };
    let lasts = q.until.map(|until| until.millis_since(scene.world.now));
    (q.cause, q.figures, lasts)
}
fn ended(scene: &Scene) -> (Cause, swarm_events::agent::Figures) {
    let Body::AgentReleased(r) = scene.last().body else {
        panic!("{:?}", scene.last())
    };
    (r.cause, r.figures)
}

#[test]
fn fast_failures_in_a_row_are_a_quarantine_that_ends_by_itself() {
    let mut scene = Scene::with(policy(), 2);
    scene.fast(1, 0, 4);
    assert!(scene.decided().is_empty(), "one less than the limit");
    scene.fast(1, 0, 5);
    assert_eq!(
        began(&scene),
        (Cause::FastFailures, figures(5, 5, 5), Some(5_000))
    );
    assert!(!scene.agent(1).is_fit() && scene.agent(2).is_fit());
    let quarantine = scene.agent(1).quarantine[&Cause::FastFailures];
    assert_eq!(quarantine.since, scene.world.now);
    assert_eq!(quarantine.until, Some(scene.world.now.plus_millis(5_000)));
    assert_eq!(scene.world.next_deadline(), quarantine.until);
    scene.world.later(4_999);
    assert_eq!(scene.causes(1), [Cause::FastFailures]);
    scene.world.later(1);
    assert_eq!(ended(&scene), (Cause::FastFailures, figures(5, 5, 5)));
    let ends = scene.decided();
    assert_eq!(
        ends[1].causation,
        Some(ends[0].id.0),
        "an end names what it ends"
    );
    assert!(scene.causes(1).is_empty());
    assert_eq!(scene.world.next_deadline(), None);
}

#[test]
fn each_further_quarantine_is_twice_as_long_up_to_thirty_two_times() {
    let mut scene = Scene::with(policy(), 1);
    for (n, expected) in [1u64, 2, 4, 8, 16, 32, 32, 32].into_iter().enumerate() {
        // One more failure after the release is enough.
        scene.fast(1, 0, 5 + n as u32);
        assert_eq!(began(&scene).2, Some(5_000 * expected), "number {n}");
        assert_eq!(scene.world.run_out(), 5_000 * expected);
        let said = scene.decided().len();
        scene.fast(1, 0, 5 + n as u32);
        assert_eq!(
            scene.decided().len(),
            said,
            "what was dealt with counts no more"
        );
    }
}

#[test]
fn a_completed_task_begins_anew() {
    let mut scene = Scene::with(policy(), 1);
    scene.fast(1, 0, 5);
    scene.world.run_out();
    scene.fast(1, 0, 6);
    assert_eq!(began(&scene).2, Some(10_000));
    scene.world.run_out();
    scene.fast(1, 1, 0);
    scene.fast(1, 1, 4);
    assert!(scene.causes(1).is_empty());
    scene.fast(1, 1, 5);
    assert_eq!(began(&scene).2, Some(5_000));
    scene.world.run_out();
    // A success and as many failures as before, in one and the same report.
    scene.fast(1, 2, 5);
    assert_eq!(began(&scene).2, Some(5_000));
}

#[test]
fn figures_that_are_told_for_another_reason_are_no_new_failures() {
    let mut scene = Scene::with(policy(), 1);
    let load = |fast_failures, failed, stuck| AgentLoad {
        fast_failures,
        failed,
        stuck,
        stuck_ms: u64::from(stuck) * 60_001,
        ..AgentLoad::default()
    };
    scene.fast(1, 0, 5);
    // Another one fails while it is in quarantine.
    scene.load(1, load(6, 6, 0));
    scene.world.run_out();
    assert!(scene.causes(1).is_empty());
    // The count stands where it stood until a success; something is stuck, and a task fails late.
    for (failed, stuck) in [(6, 1), (7, 1), (7, 0)] {
        scene.load(1, load(6, failed, stuck));
        scene.takeover();
        scene.world.settle();
        assert!(!scene.causes(1).contains(&Cause::FastFailures));
        assert_eq!(scene.causes(1).contains(&Cause::Stuck), stuck == 1);
    }
    // Nor do settings make old failures new.
    scene.update(HealthPolicy {
        fast_failures_max: 3,
        ..policy()
    });
    scene.world.settle();
    assert!(scene.causes(1).is_empty());
    scene.load(1, load(7, 8, 0));
    scene.world.settle();
    assert_eq!(scene.causes(1), [Cause::FastFailures]);
}

#[test]
fn failures_from_before_the_release_do_not_count_again() {
    let mut scene = Scene::with(policy(), 1);
    scene.fast(1, 0, 5);
    let before = scene.world.state.head().sequence;
    scene.world.run_out();
    let late = AgentLoad {
        fast_failures: 7,
        ..AgentLoad::default()
    };
    let measured = |load| Measured {
        agents: BTreeMap::from([(agent(1), load)]),
        ..Measured::default()
    };
    scene.measured_at(before, measured(late));
    scene.world.settle();
    assert!(scene.causes(1).is_empty());
    scene.fast(1, 0, 8);
    assert_eq!(scene.causes(1), [Cause::FastFailures]);
}

#[test]
fn a_rule_that_is_switched_off_holds_nobody() {
    let mut scene = Scene::with(policy(), 1);
    scene.fast(1, 0, 5);
    scene.uses(1, 900, 900);
    let off = HealthPolicy {
        fast_failures_max: 0,
        ..policy()
    };
    scene.update(off);
    scene.world.settle();
    assert_eq!(ended(&scene), (Cause::FastFailures, figures(5, 0, 5)));
    scene.fast(1, 0, 500);
    assert!(scene.causes(1).is_empty());
    // And one that is switched on holds at once.
    let on = HealthPolicy {
        memory_kib_max: 900,
        ..off
    };
    scene.update(on);
    scene.world.settle();
    assert_eq!(began(&scene), (Cause::Memory, figures(900, 900, 0), None));
}

#[test]
fn an_agent_that_fails_more_than_the_others_is_quarantined_until_the_window_has_passed() {
    let mut scene = Scene::with(policy(), 2);
    scene.attempts(2, 1, 0);
    scene.attempts(1, 4, 15);
    assert!(scene.causes(1).is_empty(), "19 attempts say nothing");
    scene.attempts(1, 4, 16);
    assert_eq!(
        began(&scene),
        (Cause::ErrorRate, figures(80, 80, 20), None),
        "at the limit"
    );
    let rate = scene.rate(1);
    assert_eq!((rate.attempts, rate.failed, rate.percent), (20, 16, 80));
    // No new figures: the window slides.
    let took = scene.world.run_out();
    assert!((50_000..=60_000).contains(&took), "{took}");
    assert_eq!(ended(&scene), (Cause::ErrorRate, figures(0, 80, 0)));
}

#[test]
fn below_the_limit_nobody_is_quarantined_and_whoever_is_gets_out() {
    let mut scene = Scene::with(policy(), 2);
    scene.attempts(2, 100, 0);
    scene.attempts(1, 21, 79);
    assert!(scene.causes(1).is_empty(), "79 percent");
    scene.attempts(1, 21, 84);
    assert_eq!(began(&scene).1, figures(80, 80, 105));
    scene.attempts(1, 22, 84);
    assert_eq!(ended(&scene).1, figures(79, 80, 106));
}

#[test]
fn if_the_others_fail_too_it_is_the_work_and_not_the_agent() {
    let mut scene = Scene::with(policy(), 3);
    scene.attempts(1, 0, 50);
    assert!(scene.causes(1).is_empty(), "nobody to compare with");
    // Half of the limit is too much.
    scene.attempts(2, 30, 20);
    scene.attempts(3, 30, 20);
    assert!(scene.causes(1).is_empty());
    // One completion more of another: below half. Its own figures have not moved.
    scene.attempts(3, 31, 20);
    assert_eq!(began(&scene).0, Cause::ErrorRate);
    assert_eq!(scene.causes(1), [Cause::ErrorRate]);
    assert!(scene.causes(2).is_empty() && scene.causes(3).is_empty());
}

#[test]
fn who_is_spared_is_looked_at_again_when_the_failures_of_the_others_slide_out() {
    let mut scene = Scene::with(policy(), 2);
    scene.attempts(2, 5, 50);
    scene.world.later(40_000);
    scene.attempts(2, 100, 50);
    scene.attempts(1, 0, 50);
    assert_eq!(scene.causes(1), [Cause::ErrorRate], "33 percent of them");
    let mut scene = Scene::with(policy(), 2);
    scene.attempts(2, 5, 50);
    scene.world.later(40_000);
    scene.attempts(2, 50, 50);
    scene.attempts(1, 0, 50);
    assert!(scene.causes(1).is_empty(), "half of them failed");
    let due = scene.world.next_deadline().expect("a bucket falls out");
    let wait = due.millis_since(scene.world.now);
    assert!(wait <= 20_000, "{wait}");
    scene.world.later(wait);
    assert_eq!(scene.causes(1), [Cause::ErrorRate]);
}

#[test]
fn another_window_starts_empty() {
    let mut scene = Scene::with(policy(), 2);
    scene.attempts(2, 1, 0);
    scene.attempts(1, 0, 20);
    assert_eq!(scene.causes(1), [Cause::ErrorRate]);
    scene.update(HealthPolicy {
        error_window_ms: 30_000,
        ..policy()
    });
    scene.world.settle();
    assert_eq!(ended(&scene).1, figures(0, 80, 0));
}

#[test]
fn an_agent_with_a_stuck_task_gets_no_new_one() {
    let mut scene = Scene::with(policy(), 1);
    let stuck = AgentLoad {
        running: 2,
        stuck: 1,
        stuck_ms: 60_500,
        ..AgentLoad::default()
    };
    scene.load(1, stuck);
    scene.world.settle();
    assert_eq!(
        began(&scene),
        (Cause::Stuck, figures(60_500, 60_000, 1), None)
    );
    assert_eq!(
        scene.liveness(1),
        Liveness::Alive,
        "alive and progressing are two things"
    );
    assert_eq!(scene.agent(1).load.stuck_ms, 60_500);
    scene.load(1, AgentLoad::default());
    scene.world.settle();
    assert_eq!(ended(&scene), (Cause::Stuck, figures(0, 60_000, 0)));
}

#[test]
fn memory_and_cpu_are_held_against_their_limits() {
    let policy = HealthPolicy {
        memory_kib_max: 1_000,
        cpu_centipercent_max: 9_000,
        ..policy()
    };
    let mut scene = Scene::with(policy, 1);
    scene.uses(1, 999, 8_999);
    assert!(scene.causes(1).is_empty());
    scene.uses(1, 1_000, 9_000);
    assert_eq!(scene.causes(1), [Cause::Memory, Cause::Cpu]);
    assert_eq!(began(&scene), (Cause::Cpu, figures(9_000, 9_000, 0), None));
    scene.uses(1, 1_000, 8_999);
    assert_eq!(scene.causes(1), [Cause::Memory]);
    scene.uses(1, 999, 8_999);
    assert_eq!(ended(&scene), (Cause::Memory, figures(999, 1_000, 0)));
    assert!(scene.agent(1).is_fit());
}

#[test]
fn a_new_incarnation_starts_clean() {
    let policy = HealthPolicy {
        memory_kib_max: 1_000,
        ..policy()
    };
    let mut scene = Scene::with(policy, 2);
    scene.attempts(2, 10, 0);
    scene.uses(1, 5_000, 0);
    let bad = AgentLoad {
        completed: 7,
        failed: 100,
        fast_failures: 9,
        stuck: 1,
        stuck_ms: 70_000,
        ..AgentLoad::default()
    };
    scene.load(1, bad);
    scene.world.settle();
    assert_eq!(scene.causes(1).len(), 4);
    let before = scene.world.state.head().sequence;
    scene.join(1, 2, 2);
    assert!(scene.agent(1).is_fit());
    // What the distributor counted before it met the new one says nothing of it.
    let measured = Measured {
        agents: BTreeMap::from([(agent(1), bad)]),
        ..Measured::default()
    };
    scene.measured_at(before, measured);
    scene.world.settle();
    assert!(scene.agent(1).is_fit());
    // Nor does what the old one did last, which comes with the first figures of the new one.
    scene.attempts(1, 8, 200);
    assert_eq!(scene.rate(1).attempts, 0);
    assert!(scene.agent(1).is_fit());
    scene.attempts(1, 9, 203);
    let rate = scene.rate(1);
    assert_eq!((rate.attempts, rate.failed), (4, 3));
    let swarm = scene.world.state.swarm(place().org, place().swarm);
    let all = swarm.expect("there").rate(scene.world.now);
    assert_eq!((all.attempts, all.failed), (14, 3));
}

#[test]
fn a_quarantine_that_crosses_a_new_incarnation_is_void() {
    let mut scene = Scene::with(policy(), 1);
    let fast = AgentLoad {
        fast_failures: 5,
        ..AgentLoad::default()
    };
    scene.load(1, fast);
    assert_eq!(scene.world.decide(10), 1);
    scene.join(1, 2, 2);
    assert_eq!(
        scene.world.deliver(),
        Some(Verdict::Void("other-incarnation"))
    );
    scene.world.settle();
    assert!(scene.agent(1).is_fit());
}

#[test]
fn nothing_is_said_of_who_has_gone_or_of_a_swarm_that_stops() {
    let mut scene = Scene::with(policy(), 3);
    let fast = AgentLoad {
        fast_failures: 5,
        ..AgentLoad::default()
    };
    let left = Left {
        incarnation: 1,
        reason: String::new(),
    };
    scene.fast(3, 0, 5);
    assert_eq!(scene.causes(3), [Cause::FastFailures]);
    for n in [1, 3] {
        let subject = Subject::Agent(place(), AgentVerb::Left, agent(n));
        scene.coordinator(subject, agent(n).0, left.clone());
    }
    assert!(scene.causes(3).is_empty());
    scene.load(1, fast);
    scene.observe(2, 1, Sighting::Gone);
    scene.world.settle();
    let said = scene.decided().len();
    scene.load(2, fast);
    assert_eq!(scene.world.decide(10), 0, "it is held to be dead");
    assert_eq!(scene.world.run_out(), 0);
    let mut stopping = Scene::with(policy(), 2);
    stopping.fast(2, 0, 5);
    stopping.swarm(SwarmVerb::Stopping, Stopping {});
    stopping.load(1, fast);
    assert_eq!(stopping.world.decide(10), 0);
    assert_eq!(stopping.world.next_deadline(), None);
    assert_eq!(scene.decided().len(), said);
}

#[test]
fn rates_are_kept_by_type_and_capability_and_their_number_is_bounded() {
    let mut scene = Scene::with(policy(), 1);
    let outcomes = |completed, failed| Outcomes { completed, failed };
    let names = |from: usize, to: usize| {
        let names = (from..to).map(|n| (format!("t{n:03}"), outcomes(1, 1)));
        names.collect::<BTreeMap<_, _>>()
    };
    let measured = |types, capabilities| Measured {
        types,
        capabilities,
        ..Measured::default()
    };
    scene.measured(measured(names(0, 200), names(0, 1)));
    scene.measured(measured(names(200, MEASURED_NAMES_MAX + 1), names(0, 1)));
    scene.measured(measured(names(500, 600), BTreeMap::new()));
    let more = BTreeMap::from([("t000".to_owned(), outcomes(1, 3))]);
    scene.measured(measured(more, BTreeMap::new()));
    let now = scene.world.state.head().now;
    let swarm = scene.world.state.swarm(place().org, place().swarm);
    let swarm = swarm.expect("there");
    assert_eq!(swarm.type_rates(now).count(), MEASURED_NAMES_MAX + 1);
    let (name, rate) = swarm.type_rates(now).next().expect("one");
    assert_eq!((name, rate.attempts, rate.failed), ("t000", 4, 3));
    let (name, rate) = swarm.capability_rates(now).next().expect("one");
    assert_eq!((name, rate.attempts, rate.percent), ("t000", 2, 50));
    let later = now.plus_millis(60_000);
    assert!(swarm.type_rates(later).all(|(_, rate)| rate.attempts == 0));
}

#[test]
fn a_takeover_in_the_middle_of_each_rule_comes_to_the_same() {
    let policy = HealthPolicy {
        memory_kib_max: 1_000,
        ..policy()
    };
    // `at`: how many decisions were stored when the owner was lost with all that was in flight.
    for at in 0..=4 {
        let mut scene = Scene::with(policy, 5);
        scene.attempts(5, 10, 0);
        scene.uses(3, 999, 0);
        let agents = BTreeMap::from([
            (
                agent(1),
                AgentLoad {
                    fast_failures: 5,
                    ..AgentLoad::default()
                },
            ),
            (
                agent(2),
                AgentLoad {
                    stuck: 1,
                    stuck_ms: 60_000,
                    ..AgentLoad::default()
                },
            ),
            (
                agent(4),
                AgentLoad {
                    failed: 20,
                    ..AgentLoad::default()
                },
            ),
        ]);
        scene.measured(Measured {
            agents,
            ..Measured::default()
        });
        scene.world.decide(10);
        for _ in 0..at {
            scene.world.deliver();
        }
        scene.takeover();
        scene.world.decide_twice(10).expect("both see the same");
        scene.world.settle();
        assert_eq!(scene.causes(1), [Cause::FastFailures]);
        assert_eq!(scene.causes(2), [Cause::Stuck]);
        assert_eq!(scene.causes(4), [Cause::ErrorRate]);
        // And in the middle of the ends.
        scene.load(2, AgentLoad::default());
        scene.world.now = scene.world.now.plus_millis(70_000);
        scene.world.decide(10);
        scene.world.deliver();
        scene.takeover();
        scene.world.settle();
        for n in 1..=5 {
            assert!(scene.agent(n).is_fit(), "agent {n}");
        }
        let (begun, over): (Vec<_>, Vec<_>) = scene
            .decided()
            .into_iter()
            .filter(|event| !matches!(event.body, Body::SwarmSampled(_)))
            .partition(|event| matches!(event.body, Body::AgentQuarantined(_)));
        assert_eq!((begun.len(), over.len()), (3, 3), "each is said once");
    }
}
