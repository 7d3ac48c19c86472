//! Rules about agents that are told to go: with a grace or at once, for good or to be started anew, or with their swarm.

mod support;

use support::{
    Given, agent,
    hosts::{code, each_way, exited, slot, spec},
    join, pair,
};
use swarm_coordinator_core::{Lifecycle, Membership, STOP_WAIT_PROCESSES_MS, SwarmStatus};
use swarm_events::{
    Body,
    agent::{SpawnReason, StopThen, Stopping},
    command::{RemoveAgent, RestartAgent},
    configuration::TIMEOUT_MS_MAX,
    decider::Verdict,
    subject::{AgentVerb, CommandVerb},
    swarm::DESCRIPTION_BYTES_MAX,
};
use uuid::Uuid;

/// The `stopping` that answers a command.
fn stopping(given: &Given, id: Uuid) -> Stopping {
    match given.0.answer(id).body {
        Body::AgentStopping(stopping) => stopping,
        other => panic!("no stopping: {other:?}"),
    }
}

#[test]
fn a_removal_lets_an_agent_finish_and_leave() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        let id = given.drain(1, 5_000);
        let told = stopping(&given, id);
        assert_eq!(
            (told.incarnation, told.spawn, told.grace_ms, told.then),
            (1, 1, 5_000, StopThen::Remove)
        );
        assert_eq!(told.reason, "enough");
        let found = given.agent(1);
        assert!(found.is_live() && !found.is_wanted());
        let reason = found.status_reason().expect("it is told to go");
        assert!(reason.contains("enough"), "{reason}");
        assert_eq!(
            given.0.next_deadline(),
            Some(given.0.now.plus_millis(5_000))
        );
        given.leave(1, 1);
        let found = given.agent(1);
        assert_eq!(found.membership, Membership::Left);
        assert!(found.draining.is_some(), "its process has not ended yet");
        given.exit(1, 1, 1, code(0), 900);
        let found = given.agent(1);
        assert_eq!(
            (found.draining.clone(), found.lifecycle()),
            (None, Lifecycle::Stopped)
        );
        assert_eq!(given.requests(1).len(), 1, "nothing follows");
        assert_eq!(given.0.run_out(), 0);
    });
}

#[test]
fn a_removal_ends_when_the_process_ends() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.drain(1, 5_000);
        given.exit(1, 1, 1, code(1), 900);
        assert_eq!(given.story(1, 5), ["stopping", "exited", "removed"]);
        let found = given.agent(1);
        assert_eq!(found.membership, Membership::Removed);
        assert_eq!(
            found.managed.as_ref().map(|m| m.crashes),
            Some(0),
            "no crash"
        );
        assert_eq!(given.0.run_out(), 0);
        assert_eq!(given.requests(1).len(), 1);
    });
}

#[test]
fn past_its_grace_an_agent_is_removed() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.join(2, join(2, None));
        given.drain(1, 5_000);
        given.drain(2, 5_000);
        given.later(4_999);
        assert_eq!(given.swarm(1).live_agents(), 2);
        given.later(1);
        assert_eq!(given.swarm(1).live_agents(), 0);
        for n in [1, 2] {
            let reason = given.agent(n).left_reason.clone().expect("why");
            assert!(
                reason.contains("enough") && reason.contains("5000 ms"),
                "{reason}"
            );
        }
        assert_eq!(given.agent(2).draining, None);
        assert!(given.agent(1).draining.is_some(), "its host is at work");
        given.exit(1, 1, 1, code(137), 900);
        assert_eq!(given.agent(1).draining, None);
        assert_eq!(given.0.run_out(), 0);
    });
}

#[test]
fn a_lost_host_or_a_verdict_ends_a_removal_too() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.running(2);
        given.drain(1, 5_000);
        given.drain(2, 5_000);
        given.host_gone(1, 1, 1);
        assert!(given.agent(1).is_live(), "it may still finish");
        given.fails(1, 1);
        assert_eq!(
            (given.agent(1).membership, given.agent(1).draining.clone()),
            (Membership::Removed, None)
        );
        given.fails(2, 1);
        assert!(given.agent(2).draining.is_some());
        given.host_gone(2, 1, 1);
        assert_eq!(given.agent(2).draining, None);
        assert_eq!(given.0.run_out(), 0);
        assert_eq!((given.requests(1).len(), given.requests(2).len()), (1, 1));
    });
}

#[test]
fn force_leaves_no_time() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        let id = given.force(1);
        assert_eq!(stopping(&given, id).grace_ms, 0);
        assert_eq!(given.story(1, 5), ["stopping", "removed"]);
        assert_eq!(given.agent(1).left_reason.as_deref(), Some("now"));
        given.exit(1, 1, 1, code(9), 900);
        assert_eq!(given.0.run_out(), 0);
        assert_eq!(given.requests(1).len(), 1);
        // One that came by itself is just removed.
        given.join(2, join(2, None));
        let id = given.force(2);
        assert_eq!(given.answered_by(id), "swarm.agent.removed.v1");
        // What had been given time loses it.
        given.running(3);
        given.drain(3, 5_000);
        let id = given.drain(3, 5_000);
        assert_eq!(given.refused(id), pair("already-stopping", "agent"));
        let id = given.force(3);
        assert_eq!(stopping(&given, id).grace_ms, 0);
        assert!(!given.agent(3).is_live());
    });
}

#[test]
fn what_has_no_process_and_no_incarnation_is_gone_at_once() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        // A place, one whose request nobody has taken, one that waits after a crash, and one that was given up.
        given.add(1, slot("worker"));
        given.add(2, spec("worker"));
        for n in [3, 4] {
            let mut wanted = spec("worker");
            wanted.restart.crash_limit = if n == 4 { 1 } else { 2 };
            given.add(n, wanted);
            given.claim(n, 1, 1);
            given.exit(n, 1, 1, code(1), 1);
        }
        assert!(given.managed(4).is_given_up());
        assert_eq!(given.swarm(1).places_taken(), 4);
        for n in 1..=4 {
            let id = given.drain(n, 5_000);
            assert_eq!(given.answered_by(id), "swarm.agent.stopping.v1");
            let found = given.agent(n);
            assert_eq!(
                (found.membership, found.draining.clone()),
                (Membership::Removed, None)
            );
            assert_eq!(found.left_reason.as_deref(), Some("enough"));
            let id = given.drain(n, 5_000);
            assert_eq!(given.refused(id), pair("already-stopped", "agent"));
            let id = given.restart(n, false);
            let code = if n == 1 { "by-hand" } else { "already-stopped" };
            assert_eq!(given.refused(id), pair(code, "agent"));
        }
        assert_eq!(
            given.claim(2, 1, 1),
            Verdict::Void("not-requested"),
            "a late claim"
        );
        assert_eq!(given.swarm(1).places_taken(), 0);
        assert_eq!(given.0.run_out(), 0);
    });
}

#[test]
fn a_restart_lets_an_agent_finish_and_starts_it_anew() {
    each_way(|| {
        let mut given = Given::a_swarm(r#"{"drain_grace_ms": 5000}"#);
        given.running(1);
        let id = given.restart(1, false);
        let told = stopping(&given, id);
        assert_eq!(
            (told.incarnation, told.spawn, told.grace_ms, told.then),
            (1, 1, 5_000, StopThen::Restart)
        );
        assert!(given.agent(1).is_wanted());
        // No other process of it is taken meanwhile.
        let id = given.join_as(1, 50, Some(1));
        assert_eq!(given.refused(id), pair("superseded", "spawn"));
        given.leave(1, 1);
        assert_eq!(given.requests(1).len(), 1, "its process is still there");
        given.exit(1, 1, 1, code(0), 900);
        let requests = given.requests(1);
        assert_eq!(
            (requests[1].spawn, requests[1].reason, requests[1].crashes),
            (2, SpawnReason::Restart, 0)
        );
        assert_eq!(given.agent(1).draining, None);
        given.runs(1);
        assert_eq!(given.agent(1).incarnation, 2);
    });
}

#[test]
fn a_restart_goes_on_past_its_grace_whatever_the_old_process_does() {
    each_way(|| {
        for joined in [true, false] {
            let mut given = Given::a_swarm("{}");
            given.add(1, spec("worker"));
            if joined {
                given.runs(1);
            } else {
                given.claim(1, 1, 1);
            }
            let order = RestartAgent {
                reason: None,
                force: false,
                grace_ms: Some(300),
            };
            given.order(1, CommandVerb::RestartAgent, order);
            given.later(299);
            assert_eq!(given.requests(1).len(), 1);
            given.later(1);
            let requests = given.requests(1);
            assert_eq!(requests.len(), 2, "{joined}");
            assert_eq!(requests[1].reason, SpawnReason::Restart);
            assert!(!given.agent(1).is_live());
            assert_eq!(given.agent(1).draining, None);
        }
    });
}

#[test]
fn a_forced_restart_takes_no_time_and_a_removal_overrules_it() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.restart(1, true);
        assert_eq!(
            given.story(1, 5),
            ["stopping", "removed", "spawn_requested"]
        );
        given.running(2);
        given.restart(2, false);
        let id = given.restart(2, false);
        assert_eq!(given.refused(id), pair("already-stopping", "agent"));
        given.drain(2, 1_000);
        let id = given.restart(2, true);
        assert_eq!(given.refused(id), pair("already-stopping", "agent"));
        given.leave(2, 1);
        given.exit(2, 1, 1, code(0), 900);
        assert_eq!(given.requests(2).len(), 1);
        assert_eq!(given.agent(2).lifecycle(), Lifecycle::Stopped);
    });
}

#[test]
fn who_was_started_by_hand_is_restarted_by_hand() {
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, None));
    given.add(2, slot("worker"));
    for n in [1, 2] {
        let id = given.restart(n, true);
        let problem = given.refusal(id);
        assert_eq!(
            (problem.code.as_str(), problem.field.as_deref()),
            ("by-hand", Some("agent"))
        );
        assert_eq!(
            problem.cure.as_deref(),
            Some("restart its process yourself")
        );
    }
    let id = given.restart(3, false);
    assert_eq!(given.refused(id), pair("unknown-agent", "agent"));
}

#[test]
fn an_order_to_go_is_refused_by_the_field_that_is_wrong() {
    let mut given = Given::a_swarm("{}");
    given.running(1);
    let order = |force, grace_ms, reason: Option<String>| RemoveAgent {
        reason,
        force,
        grace_ms,
    };
    let long = Some("x".repeat(DESCRIPTION_BYTES_MAX + 1));
    for (order, code, field) in [
        (order(true, Some(1), None), "contradiction", "grace_ms"),
        (
            order(false, Some(TIMEOUT_MS_MAX + 1), None),
            "out-of-range",
            "grace_ms",
        ),
        (order(false, None, long), "too-long", "reason"),
    ] {
        let again = RestartAgent {
            reason: order.reason.clone(),
            force: order.force,
            grace_ms: order.grace_ms,
        };
        let id = given.order(1, CommandVerb::RemoveAgent, order);
        assert_eq!(given.refused(id), pair(code, field));
        let id = given.order(1, CommandVerb::RestartAgent, again);
        assert_eq!(given.refused(id), pair(code, field));
    }
    assert!(given.agent(1).is_wanted());
    let most = order(false, Some(TIMEOUT_MS_MAX), None);
    let id = given.order(1, CommandVerb::RemoveAgent, most);
    assert_eq!(given.answered_by(id), "swarm.agent.stopping.v1");
}

#[test]
fn one_that_came_by_itself_and_was_told_to_go_takes_no_new_process_until_it_is_gone() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.join(1, join(1, None));
        given.drain(1, 1_000);
        let id = given.join(1, join(2, None));
        assert_eq!(given.refused(id), pair("superseded", "spawn"));
        given.later(1_000);
        assert_eq!(given.agent(1).membership, Membership::Removed);
        let id = given.join(1, join(3, None));
        assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
        assert_eq!(given.agent(1).incarnation, 2);
    });
}

#[test]
fn a_deletion_stops_the_processes_and_waits_for_them() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.add(2, spec("worker"));
        given.claim(2, 1, 1);
        given.add(3, spec("worker"));
        given.add(4, slot("worker"));
        given.join(5, join(5, None));
        given.delete(1);
        assert!(
            given.0.log.len() > 5 && given.agent(1).is_live(),
            "its tasks come first"
        );
        given.measured(0);
        assert!(given.swarm(1).deleted_at.is_none());
        assert_eq!(given.swarm(1).live_agents(), 0);
        assert_eq!(given.story(1, 5), ["stopping", "removed"]);
        assert_eq!(given.story(2, 3), ["stopping"]);
        assert_eq!(given.story(3, 2), ["stopping"]);
        assert_eq!(given.claim(3, 1, 1), Verdict::Void("not-requested"));
        given.exit(1, 1, 1, code(9), 5);
        assert!(given.swarm(1).deleted_at.is_none());
        given.exit(2, 1, 1, code(9), 5);
        assert!(given.swarm(1).deleted_at.is_some());
        assert_eq!(given.swarm(1).places_taken(), 0);
        for n in 1..=5 {
            assert_eq!(given.agent(n).lifecycle(), Lifecycle::Stopped, "{n}");
        }
        assert_eq!(given.agent(4).left_reason.as_deref(), Some("swarm-deleted"));
        assert_eq!(given.0.run_out(), 0);
        assert_eq!(given.0.state.open_marks(), 0);
        assert_eq!(given.swarm(1).status(), SwarmStatus::Inactive);
    });
}

#[test]
fn a_deletion_cannot_hang_on_a_silent_host() {
    let mut given = Given::a_swarm("{}");
    given.running(1);
    given.drain(1, 1_000_000);
    given.delete(1);
    given.measured(0);
    assert_eq!(given.swarm(1).live_agents(), 0);
    given.later(STOP_WAIT_PROCESSES_MS - 1);
    assert!(given.swarm(1).deleted_at.is_none());
    given.later(1);
    assert!(given.swarm(1).deleted_at.is_some());
    assert_eq!(given.0.next_deadline(), None);
}

#[test]
fn a_stopping_swarm_starts_nothing() {
    each_way(|| {
        let mut given = Given::a_swarm(r#"{"min_agents": 2}"#);
        given.running(1);
        given.delete(1);
        given.exit(1, 1, 1, code(1), 60_000);
        given.fails(1, 1);
        let requests = given.requests(1).len();
        assert_eq!(requests, 1);
        let id = given.add(7, spec("worker"));
        assert_eq!(given.refused(id), pair("swarm-stopping", "swarm"));
        let id = given.restart(1, false);
        assert_eq!(given.refused(id), pair("swarm-stopping", "swarm"));
        let id = given.scale(Some(3), None, None);
        assert_eq!(given.refused(id), pair("swarm-stopping", "swarm"));
        given.0.run_out();
        assert!(given.swarm(1).deleted_at.is_some());
    });
}

#[test]
fn an_exit_that_crosses_the_order_to_go_ends_it() {
    let mut given = Given::a_swarm("{}");
    given.running(1);
    let order = RemoveAgent {
        reason: None,
        force: false,
        grace_ms: None,
    };
    let id = given.send(1, CommandVerb::RemoveAgent, agent(1).0, order);
    given.0.decide(10);
    // Decided and not stored yet.
    let exit = exited(1, 1, code(1), 99);
    given.host_says(1, 1, AgentVerb::Exited, exit);
    given.settle();
    assert_eq!(given.answered_by(id), "swarm.agent.stopping.v1");
    assert_eq!(given.agent(1).membership, Membership::Removed);
    assert_eq!(given.requests(1).len(), 1);
    assert_eq!(given.0.run_out(), 0);
}
