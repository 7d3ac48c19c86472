//! Rules about how processes end, and when the next one comes.

mod support;

use support::{
    Given,
    hosts::{code, each_way, spec},
    pair,
};
use swarm_coordinator_core::{Lifecycle, Membership, Phase};
use swarm_events::{
    Body,
    agent::{AgentSpec, Exit, Restart, RestartPolicy, SpawnReason, StopThen},
    decider::Verdict,
};

fn policy(restart: RestartPolicy) -> AgentSpec {
    AgentSpec {
        restart,
        ..spec("worker")
    }
}

#[test]
fn a_process_that_ran_long_enough_is_started_again_at_once() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.exit(1, 1, 1, code(0), 10_000);
        let requests = given.requests(1);
        assert_eq!(requests.len(), 2);
        assert_eq!(
            (requests[1].spawn, requests[1].reason, requests[1].crashes),
            (2, SpawnReason::Exited, 0)
        );
        assert_eq!(given.managed(1).restarts, 1);
        let last = given.managed(1).last_exit.clone().expect("an exit");
        assert_eq!((last.exit, last.uptime_ms), (code(0), 10_000));
        assert_eq!(last.last_output, "bye");
        // The next process takes over what is left of the incarnation before.
        given.runs(1);
        assert_eq!(given.agent(1).incarnation, 2);
        assert_eq!(given.agent(1).joined_spawn, 2);
    });
}

#[test]
fn crashes_in_a_row_wait_twice_as_long_each_time_and_then_it_is_given_up() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.add(
            1,
            policy(RestartPolicy {
                backoff_ms: 200,
                backoff_cap_ms: 700,
                crash_limit: 5,
                stable_ms: 1_000,
                ..RestartPolicy::default()
            }),
        );
        for (crash, wait) in [(1, 200), (2, 400), (3, 700), (4, 700)] {
            let spawn = given.managed(1).spawn;
            assert_eq!(spawn, crash);
            given.claim(1, 1, spawn);
            given.launch(1, 1, spawn);
            given.exit(1, 1, spawn, code(3), 999);
            assert_eq!(u64::from(given.managed(1).crashes), crash);
            assert_eq!(given.managed(1).phase, Phase::Idle);
            let due = given.0.now.plus_millis(wait);
            assert_eq!(given.managed(1).restart_due, Some(due));
            assert_eq!(given.0.next_deadline(), Some(due));
            given.later(wait - 1);
            assert_eq!(given.requests(1).len() as u64, spawn, "not yet");
            given.later(1);
            let requests = given.requests(1);
            assert_eq!(requests.len() as u64, spawn + 1);
            assert_eq!(u64::from(requests[requests.len() - 1].crashes), crash);
        }
        given.claim(1, 1, 5);
        let failed = Exit {
            error: Some("no such file".into()),
            ..Exit::default()
        };
        given.exit(1, 1, 5, failed.clone(), 0);
        assert!(given.managed(1).is_given_up());
        assert_eq!(given.story(1, 0).last().expect("some"), "crash_looping");
        let looping = given.valid(|_, body| match body {
            Body::AgentCrashLooping(looping) => Some(looping.clone()),
            _ => None,
        });
        assert_eq!(looping.len(), 1);
        assert_eq!(
            (looping[0].spawn, looping[0].crashes, &looping[0].exit),
            (5, 5, &failed)
        );
        assert_eq!(given.agent(1).lifecycle(), Lifecycle::Unhealthy);
        let reason = given.agent(1).status_reason().expect("a reason");
        assert!(
            reason.contains("no such file") && reason.contains('5'),
            "{reason}"
        );
        assert_eq!(given.0.run_out(), 0, "nothing more by itself");
        assert_eq!(given.claim(1, 1, 5), Verdict::Void("not-requested"));
        // Somebody asks for it.
        let id = given.restart(1, false);
        assert_eq!(given.answered_by(id), "swarm.agent.stopping.v1");
        let requests = given.requests(1);
        let last = requests.last().expect("some");
        assert_eq!(
            (last.spawn, last.reason, last.crashes),
            (6, SpawnReason::Restart, 0)
        );
        assert_eq!(given.agent(1).draining, None);
    });
}

#[test]
fn a_limit_of_zero_crashes_never_gives_up_and_waits_stay_at_the_cap() {
    let mut given = Given::a_swarm("{}");
    given.add(
        1,
        policy(RestartPolicy {
            backoff_ms: 100,
            backoff_cap_ms: 30_000,
            crash_limit: 0,
            ..RestartPolicy::default()
        }),
    );
    for crash in 1..=80u64 {
        given.claim(1, 1, crash);
        given.exit(1, 1, crash, code(1), 0);
        let wait = if crash > 9 {
            30_000
        } else {
            100 << (crash - 1)
        };
        assert_eq!(
            given.managed(1).restart_due,
            Some(given.0.now.plus_millis(wait))
        );
        given.later(wait);
        assert_eq!(given.managed(1).spawn, crash + 1);
    }
}

#[test]
fn a_process_that_ran_long_enough_ends_the_row_of_crashes() {
    let mut given = Given::a_swarm("{}");
    given.add(1, spec("worker"));
    for spawn in 1..=2 {
        given.claim(1, 1, spawn);
        given.exit(1, 1, spawn, code(1), 10);
        given.later(30_000);
    }
    assert_eq!(given.managed(1).crashes, 2);
    given.claim(1, 1, 3);
    given.exit(1, 1, 3, code(1), 10_000);
    assert_eq!(given.managed(1).crashes, 0);
    assert_eq!(given.managed(1).spawn, 4, "at once");
    given.claim(1, 1, 4);
    given.exit(1, 1, 4, code(1), 10);
    assert_eq!(given.managed(1).crashes, 1);
}

#[test]
fn the_policy_says_whether_a_process_that_ended_is_started_again() {
    each_way(|| {
        let oom = Exit {
            out_of_memory: true,
            ..code(0)
        };
        let killed = Exit {
            signal: Some(9),
            ..Exit::default()
        };
        for (restart, exit, again) in [
            (Restart::Always, code(0), true),
            (Restart::OnFailure, code(0), false),
            (Restart::OnFailure, code(1), true),
            (Restart::OnFailure, oom, true),
            (Restart::OnFailure, killed.clone(), true),
            (Restart::Never, code(1), false),
            (Restart::Never, killed, false),
        ] {
            let mut given = Given::a_swarm("{}");
            given.add(
                1,
                policy(RestartPolicy {
                    restart,
                    ..RestartPolicy::default()
                }),
            );
            given.runs(1);
            given.exit(1, 1, 1, exit.clone(), 60_000);
            assert_eq!(given.is_requested(1), again, "{restart:?} {exit:?}");
            given.fails(1, 1);
            assert_eq!(given.requests(1).len(), 1 + usize::from(again));
            if again {
                continue;
            }
            assert_eq!(given.agent(1).lifecycle(), Lifecycle::Stopped);
            assert_eq!(given.swarm(1).places_taken(), 0);
            assert_eq!(given.0.run_out(), 0);
            // By order it runs again.
            let id = given.restart(1, false);
            assert_eq!(given.answered_by(id), "swarm.agent.stopping.v1");
            assert!(given.is_requested(1));
            assert_eq!(given.swarm(1).places_taken(), 1);
        }
    });
}

#[test]
fn an_end_before_the_join_is_shown_with_its_reason() {
    let mut given = Given::a_swarm("{}");
    let never = RestartPolicy {
        restart: Restart::Never,
        ..RestartPolicy::default()
    };
    given.add(1, policy(never));
    given.claim(1, 1, 1);
    given.exit(1, 1, 1, code(7), 3);
    let found = given.agent(1);
    assert_eq!(found.membership, Membership::Left);
    assert!(found.status_reason().expect("why").contains("exit code 7"));
}

#[test]
fn what_health_holds_to_be_dead_is_removed_and_replaced() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.later(10_000);
        given.fails(1, 1);
        let story = given.story(1, 5);
        assert_eq!(story, ["failed", "removed", "spawn_requested"]);
        let requests = given.requests(1);
        assert_eq!(
            (requests[1].spawn, requests[1].reason, requests[1].crashes),
            (2, SpawnReason::Removed, 0)
        );
        assert_eq!(given.agent(1).membership, Membership::Expected);
        // The old process is fenced: it does not come back as the agent.
        let id = given.join_as(1, 77, Some(1));
        assert_eq!(given.refused(id), pair("superseded", "spawn"));
        let late = given.exit(1, 1, 1, code(1), 10_000);
        assert_eq!(late, Verdict::Void("other-spawn"));
        given.runs(1);
        assert_eq!(given.agent(1).incarnation, 2);
    });
}

#[test]
fn one_that_fails_soon_after_its_start_counts_as_crashed() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.later(9_999);
        given.fails(1, 1);
        assert_eq!(given.managed(1).crashes, 1);
        assert_eq!(given.requests(1).len(), 1);
        given.later(499);
        assert_eq!(given.requests(1).len(), 1);
        given.later(1);
        assert_eq!(given.requests(1)[1].crashes, 1);
    });
}

#[test]
fn an_exit_that_comes_after_the_removal_can_still_keep_it_down() {
    let mut given = Given::a_swarm("{}");
    let on_failure = RestartPolicy {
        restart: Restart::OnFailure,
        ..RestartPolicy::default()
    };
    given.add(1, policy(on_failure));
    given.runs(1);
    given.fails(1, 1);
    assert!(given.managed(1).restart_due.is_some(), "it waits");
    assert_eq!(given.exit(1, 1, 1, code(0), 80), Verdict::Applied);
    assert_eq!(given.agent(1).lifecycle(), Lifecycle::Stopped);
    assert_eq!(given.0.run_out(), 0);
    assert_eq!(given.requests(1).len(), 1);
    // Another end leaves the wait as it was.
    let mut given = Given::a_swarm("{}");
    given.add(1, policy(on_failure));
    given.runs(1);
    given.fails(1, 1);
    let due = given.managed(1).restart_due;
    assert_eq!(given.exit(1, 1, 1, code(2), 80), Verdict::Applied);
    assert_eq!(
        (given.managed(1).restart_due, given.managed(1).crashes),
        (due, 1)
    );
    assert!(given.managed(1).last_exit.is_some());
}

#[test]
fn one_that_is_never_restarted_is_stopped_when_it_is_held_to_be_dead() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        let never = RestartPolicy {
            restart: Restart::Never,
            ..RestartPolicy::default()
        };
        given.add(1, policy(never));
        given.runs(1);
        given.fails(1, 1);
        assert_eq!(given.story(1, 5), ["failed", "removed", "stopping"]);
        let draining = given
            .agent(1)
            .draining
            .clone()
            .expect("its process is stopped");
        assert_eq!((draining.grace_ms, draining.then), (0, StopThen::Remove));
        given.exit(1, 1, 1, code(9), 80);
        assert_eq!(given.agent(1).draining, None);
        assert_eq!(given.0.run_out(), 0);
        let id = given.restart(1, false);
        assert_eq!(given.answered_by(id), "swarm.agent.stopping.v1");
        assert_eq!(given.requests(1).len(), 2);
    });
}

#[test]
fn an_exit_while_the_incarnation_lives_is_one_request() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.later(20_000);
        given.exit(1, 1, 1, code(1), 20_000);
        // Health says so, too.
        given.fails(1, 1);
        assert_eq!(given.agent(1).membership, Membership::Expected);
        assert_eq!(given.requests(1).len(), 2);
        assert_eq!(given.managed(1).crashes, 0);
    });
}
