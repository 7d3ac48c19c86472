//! Rules about swarms that are degraded: by a quarantine, which ends in a removal, a suspicion or a crash loop.

mod support;

use support::{
    Given,
    hosts::{code, each_way, spec},
    join,
};
use swarm_coordinator_core::{Lifecycle, Membership, SwarmStatus};
use swarm_events::agent::{Cause, SpawnReason};

#[test]
fn a_quarantine_makes_a_swarm_degraded_and_ends_in_a_removal() {
    each_way(|| {
        let mut given = Given::a_swarm(r#"{"health": {"remove_after_ms": 10000}}"#);
        given.running(1);
        given.later(20_000);
        assert_eq!(given.swarm(1).status(), SwarmStatus::Active);
        given.quarantine(1, 1, Cause::Stuck);
        let since = given.0.now;
        let found = given.agent(1);
        assert_eq!(
            (found.lifecycle(), found.quarantined_since),
            (Lifecycle::Unhealthy, Some(since))
        );
        assert_eq!(found.quarantine[&Cause::Stuck].figures.value, 7);
        assert!(
            found
                .status_reason()
                .expect("why")
                .contains("no progress for 7 ms")
        );
        assert_eq!(given.swarm(1).status(), SwarmStatus::Degraded);
        // The causes change, the quarantine has no break.
        given.later(4_000);
        given.quarantine(1, 1, Cause::ErrorRate);
        given.later(3_000);
        given.release(1, 1, Cause::Stuck);
        assert_eq!(given.agent(1).quarantined_since, Some(since));
        given.later(2_999);
        assert!(given.agent(1).is_live());
        given.later(1);
        let found = given.agent(1);
        assert_eq!(found.membership, Membership::Expected);
        let reason = found.left_reason.clone().expect("why");
        assert!(
            reason.contains("10000 ms") && reason.contains("7 % of 7 attempts"),
            "{reason}"
        );
        assert!(found.quarantine.is_empty() && found.quarantined_since.is_none());
        let requests = given.requests(1);
        assert_eq!(
            (requests[1].reason, requests[1].crashes),
            (SpawnReason::Removed, 0)
        );
        given.runs(1);
        assert_eq!(
            given.agent(1).lifecycle(),
            Lifecycle::Ready,
            "it starts clean"
        );
        assert_eq!(given.swarm(1).status(), SwarmStatus::Active);
    });
}

#[test]
fn a_break_in_the_quarantine_starts_the_count_again() {
    each_way(|| {
        let mut given = Given::a_swarm(r#"{"health": {"remove_after_ms": 10000}}"#);
        given.join(1, join(1, None));
        given.quarantine(1, 1, Cause::FastFailures);
        given.later(9_000);
        given.release(1, 1, Cause::FastFailures);
        assert_eq!(given.0.next_deadline(), None);
        given.quarantine(1, 1, Cause::FastFailures);
        given.later(9_999);
        assert!(given.agent(1).is_live());
        // The setting holds as it is when it counts.
        given.update(
            1,
            r#"{"configuration": {"health": {"remove_after_ms": 0}}}"#,
        );
        assert_eq!(given.0.next_deadline(), None);
        given.later(60_000);
        assert!(given.agent(1).is_live());
        given.update(
            1,
            r#"{"configuration": {"health": {"remove_after_ms": 5000}}}"#,
        );
        assert_eq!(given.agent(1).membership, Membership::Removed);
        // Verdicts on what is gone, or is not there, say nothing.
        given.quarantine(1, 1, Cause::Cpu);
        assert!(given.agent(1).quarantine.is_empty());
        given.join(1, join(2, None));
        given.release(1, 2, Cause::Cpu);
        given.quarantine(1, 1, Cause::Cpu);
        assert_eq!(given.agent(1).lifecycle(), Lifecycle::Ready);
    });
}

#[test]
fn a_suspicion_and_a_crash_loop_make_a_swarm_degraded_and_back() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.join(1, join(1, None));
        given.join(2, join(2, None));
        assert_eq!(given.swarm(1).status(), SwarmStatus::Active);
        given.suspected(1, 1);
        assert_eq!(given.swarm(1).status(), SwarmStatus::Degraded);
        given.fails(1, 1);
        assert_eq!(
            given.swarm(1).status(),
            SwarmStatus::Active,
            "one is enough"
        );
        let mut looping = spec("worker");
        looping.restart.crash_limit = 1;
        given.add(3, looping);
        assert_eq!(
            given.swarm(1).status(),
            SwarmStatus::Active,
            "it just starts"
        );
        given.claim(3, 1, 1);
        given.exit(3, 1, 1, code(1), 1);
        assert_eq!(given.swarm(1).status(), SwarmStatus::Degraded);
        given.drain(3, 0);
        assert_eq!(given.swarm(1).status(), SwarmStatus::Active);
    });
}
