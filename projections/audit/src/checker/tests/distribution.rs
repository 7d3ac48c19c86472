//! Promises of the choice of tasks and agents, and of ends.

use swarm_events::{
    OrgId, Partition, Subject,
    configuration::Algorithm,
    ids::KeyId,
    org::KeyRevoked,
    subject::OrgVerb,
    task::{AffinityOutcome, FAILURE_PATH_MAX, Then, WithdrawReason},
};
use uuid::Uuid;

use super::{given, scene::*};
use crate::{Checker, Invariant};

/// Two tasks wait; the second one is the more urgent.
fn two_wait() -> Scene {
    let mut scene = given();
    scene.set(|c| c.priority_step_ms = 1_000);
    scene.submit(task(1));
    scene.later(500);
    scene.submit_with(task(2), |t| t.priority = 6);
    scene
}
fn urgent(scene: &mut Scene) -> u64 {
    scene.assign_with(task(2), agent(1), |a| a.priority = 6)
}

#[test]
fn priority_order_by_age_and_priority() {
    let mut scene = two_wait();
    urgent(&mut scene);
    scene.assign(task(1), agent(1));
    scene.clean();
    let mut scene = two_wait();
    let early = scene.assign(task(1), agent(1));
    scene.broken(Invariant::PriorityOrder, early);
}

#[test]
fn priority_order_goes_by_the_step_that_was_met() {
    let mut scene = two_wait();
    let before = scene.sequence;
    // Now half a second of waiting weighs more than one step of priority.
    scene.set(|c| c.priority_step_ms = 100);
    scene.forged.cause = Some(before);
    urgent(&mut scene);
    scene.clean();
    let mut scene = two_wait();
    scene.set(|c| c.priority_step_ms = 100);
    let wrong = urgent(&mut scene);
    scene.broken(Invariant::PriorityOrder, wrong);
}

#[test]
fn priority_order_leaves_out_what_the_agent_cannot_take() {
    let mut scene = given();
    scene.submit_with(task(1), |t| t.required_capabilities = vec!["b".to_owned()]);
    scene.submit(task(2));
    scene.assign(task(2), agent(1));
    scene.clean();
    let unfit = scene.assign(task(1), agent(1));
    scene.broken(Invariant::AssignedToTheAble, unfit);
}

#[test]
fn priority_order_leaves_out_what_had_not_been_met_or_was_under_way() {
    let mut scene = given();
    let before = scene.submit(task(1));
    scene.submit_with(task(2), |t| t.priority = 9);
    // The urgent one was not met yet.
    scene.forged.cause = Some(before);
    scene.assign(task(1), agent(1));
    scene.clean();
    // A decision on the first is under way, and was not met when the next was made.
    let mut scene = two_wait();
    let cause = scene.sequence;
    scene.forged.cause = Some(cause);
    scene.cancel_task(task(2));
    scene.forged.cause = Some(cause);
    scene.assign(task(1), agent(1));
    scene.clean();
}

#[test]
fn priority_order_is_not_judged_once_decisions_were_lost() {
    let mut scene = two_wait();
    scene.epochs.entry(DISTRIBUTOR).and_modify(|e| e.1 += 1);
    scene.assign(task(1), agent(1));
    scene.clean();
    scene.claim(DISTRIBUTOR, OTHER);
    scene.forged.instance = Some(OTHER);
    scene.submit(task(3));
    let early = scene.assign(task(3), agent(1));
    scene.broken(Invariant::PriorityOrder, early);
}

#[test]
fn priority_order_keeps_a_place_across_a_withdrawal_and_not_across_a_retry() {
    let mut scene = given();
    scene.submit(task(1));
    let first = scene.assign(task(1), agent(1));
    scene.later(10);
    scene.submit(task(2));
    scene.withdraw(task(1), agent(1), first);
    let again = scene.assign(task(1), agent(1));
    scene.start(task(1), agent(1), again);
    scene.fail_attempt(task(1), agent(1), again);
    scene.later(10);
    scene.retry(task(1), 1, Some("no"));
    scene.clean();
    let queued_at = scene.now;
    scene.assign(task(2), agent(1));
    scene.assign_with(task(1), agent(1), |a| a.queued_at = Some(queued_at));
    scene.clean();
}

#[test]
fn priority_order_tells_since_when_a_task_has_waited() {
    let mut scene = given();
    let queued_at = scene.now;
    scene.submit_part(task(1), 0, 1, None);
    scene.later(7);
    // A graph's tasks are queued when it is accepted.
    scene.accept_graph(1);
    let wrong = scene.assign_with(task(1), agent(1), |a| a.queued_at = Some(queued_at));
    scene.broken(Invariant::PriorityOrder, wrong);
}

#[test]
fn slots_kept_counts_what_is_under_way() {
    let mut scene = given();
    for n in 1..=3 {
        scene.submit(task(n));
    }
    let cause = scene.sequence;
    for n in 1..=2 {
        scene.forged.cause = Some(cause);
        scene.assign(task(n), agent(1));
    }
    // The first has ended, and the owner could not know.
    scene.start(task(1), agent(1), cause + 1);
    scene.complete(task(1), agent(1), cause + 1);
    scene.clean();
    scene.forged.cause = Some(cause);
    let third = scene.assign(task(3), agent(1));
    scene.broken(Invariant::SlotsKept, third);
}

#[test]
fn algorithm_in_force() {
    let mut scene = given();
    let before = scene.submit(task(1));
    scene.submit(task(2));
    scene.set(|c| c.distribution_algorithm = Algorithm::CapabilityMatch);
    // A decision that crossed the switch goes by what its owner had met.
    scene.forged.cause = Some(before);
    scene.assign_with(task(1), agent(1), |a| a.algorithm = Algorithm::LeastLoaded);
    scene.clean();
    let old = scene.assign_with(task(2), agent(1), |a| a.algorithm = Algorithm::LeastLoaded);
    scene.broken(Invariant::AlgorithmInForce, old);
}

#[test]
fn nothing_waits_under_priority_queue() {
    let mut scene = Scene::new(Checker::default());
    scene.join_with(agent(1), 1, 1, 2, &[]);
    for n in 1..=3 {
        scene.submit(task(n));
    }
    scene.assign(task(1), agent(1));
    // What waits from before the switch may stay.
    scene.assign(task(2), agent(1));
    scene.set(|c| c.distribution_algorithm = Algorithm::PriorityQueue);
    scene.clean();
    let waits = scene.assign(task(3), agent(1));
    scene.broken(Invariant::NothingWaitsUnderPriorityQueue, waits);
}

/// Two agents with two slots each in a circle; each has had one.
fn circle() -> Scene {
    let mut scene = Scene::new(Checker::default());
    scene.set(|c| c.distribution_algorithm = Algorithm::RoundRobin);
    for n in 1..=2 {
        scene.join_with(agent(n), 1, 2, 0, &[]);
    }
    for n in 1..=4 {
        scene.submit(task(n));
    }
    scene.assign(task(1), agent(1));
    scene.assign(task(2), agent(2));
    scene
}

#[test]
fn circle_kept() {
    let mut scene = circle();
    scene.assign(task(3), agent(1));
    scene.assign(task(4), agent(2));
    scene.clean();
    let mut scene = circle();
    let twice = scene.assign(task(3), agent(2));
    scene.broken(Invariant::CircleKept, twice);
}

#[test]
fn circle_kept_leaves_out_the_full_and_the_gone() {
    let mut scene = circle();
    scene.assign(task(3), agent(1));
    scene.assign(task(4), agent(2));
    scene.start(task(2), agent(2), scene.sequence - 2);
    scene.submit(task(5));
    // It is the first one's turn, which has no place.
    scene.complete(task(2), agent(2), scene.sequence - 4);
    scene.assign(task(5), agent(2));
    scene.clean();
    let mut scene = circle();
    scene.fail_agent(agent(1), 1);
    scene.assign(task(3), agent(2));
    scene.clean();
}

#[test]
fn affinity_told() {
    let told = |agent_of_second: u128, outcome| {
        let mut scene = Scene::new(Checker::default());
        scene.set(|c| c.distribution_algorithm = Algorithm::Affinity);
        for n in 1..=2 {
            scene.join_with(agent(n), 1, 2, 0, &[]);
            scene.submit(task(n));
        }
        scene.assign_with(task(1), agent(1), |a| {
            a.affinity = Some(AffinityOutcome::New);
        });
        let second = scene.assign_with(task(2), agent(agent_of_second), |a| a.affinity = outcome);
        (second, scene)
    };
    told(1, Some(AffinityOutcome::Hit)).1.clean();
    told(2, Some(AffinityOutcome::Miss)).1.clean();
    for (other, outcome) in [
        (2, Some(AffinityOutcome::Hit)),
        (2, Some(AffinityOutcome::New)),
        (1, None),
    ] {
        let (at, scene) = told(other, outcome);
        scene.broken(Invariant::AffinityTold, at);
    }
}

/// One task runs at the first agent and one waits there; the second is idle. Answers with the waiting one's assignment.
fn waiting() -> (Scene, u64) {
    let mut scene = Scene::new(Checker::default());
    scene.join_with(agent(1), 1, 1, 1, &[]);
    for n in 1..=2 {
        scene.submit(task(n));
    }
    let first = scene.assign(task(1), agent(1));
    let second = scene.assign(task(2), agent(1));
    scene.start(task(1), agent(1), first);
    scene.join_with(agent(2), 1, 1, 0, &[]);
    (scene, second)
}

#[test]
fn steals_fair() {
    let (mut scene, waits) = waiting();
    scene.later(50);
    scene.measure(0);
    scene.steal(task(2), agent(1), waits, agent(2));
    let again = scene.assign(task(2), agent(2));
    scene.start(task(2), agent(2), again);
    scene.clean();
    assert_eq!(scene.checker.counts().steals, 1);
}

#[test]
fn steals_fair_by_age() {
    let (mut scene, waits) = waiting();
    scene.later(49);
    scene.measure(0);
    let early = scene.steal(task(2), agent(1), waits, agent(2));
    scene.broken(Invariant::StealsFair, early);
}

#[test]
fn steals_fair_in_form() {
    type Change = fn(&mut swarm_events::task::Withdrawn);
    let changes: [Change; 4] = [
        |w| w.force = true,
        |w| w.then = Then::End,
        |w| w.thief = None,
        // Busy itself.
        |w| w.thief = Some(agent(1)),
    ];
    for change in changes {
        let (mut scene, waits) = waiting();
        scene.later(50);
        scene.measure(0);
        let wrong = scene.withdraw_with(task(2), agent(1), waits, |w| {
            (w.reason, w.force, w.thief) = (WithdrawReason::Steal, false, Some(agent(2)));
            change(w);
        });
        scene.broken(Invariant::StealsFair, wrong);
    }
}

#[test]
fn steals_fair_from_a_busy_agent_only_and_where_it_is_allowed() {
    let (mut scene, waits) = waiting();
    scene.complete(task(1), agent(1), waits - 1);
    scene.later(50);
    scene.measure(1);
    let idle = scene.steal(task(2), agent(1), waits, agent(2));
    scene.broken(Invariant::StealsFair, idle);
    let (mut scene, waits) = waiting();
    scene.later(50);
    scene.set(|c| c.stealing = false);
    let forbidden = scene.steal(task(2), agent(1), waits, agent(2));
    scene.broken(Invariant::StealsFair, forbidden);
}

#[test]
fn steals_fair_to_one_with_a_free_slot_counting_what_is_under_way() {
    let (mut scene, waits) = waiting();
    scene.submit(task(3));
    scene.later(50);
    let cause = scene.measure(0);
    scene.forged.cause = Some(cause);
    scene.assign(task(3), agent(2));
    scene.forged.cause = Some(cause);
    let taken = scene.steal(task(2), agent(1), waits, agent(2));
    scene.broken(Invariant::StealsFair, taken);
}

#[test]
fn steals_fair_to_one_for_whom_nothing_is_kept_any_more() {
    let (mut scene, waits) = waiting();
    scene.submit(task(3));
    scene.later(50);
    let cause = scene.measure(0);
    // What is being taken over has started and ended before that was stored, as the next decision's owner had met.
    scene.start(task(2), agent(1), waits);
    let ended = scene.complete(task(2), agent(1), waits);
    scene.forged.cause = Some(cause);
    scene.steal(task(2), agent(1), waits, agent(2));
    scene.forged.cause = Some(ended);
    scene.assign(task(3), agent(2));
    scene.clean();
}

#[test]
fn steals_fair_three_times() {
    let (mut scene, mut waits) = waiting();
    for _ in 0..3 {
        scene.later(50);
        scene.measure(0);
        scene.steal(task(2), agent(1), waits, agent(2));
        waits = scene.assign(task(2), agent(1));
    }
    scene.clean();
    scene.later(50);
    scene.measure(0);
    let fourth = scene.steal(task(2), agent(1), waits, agent(2));
    scene.broken(Invariant::StealsFair, fourth);
}

#[test]
fn a_steal_that_comes_after_the_start_takes_nothing() {
    let (mut scene, waits) = waiting();
    scene.later(50);
    let cause = scene.measure(0);
    scene.complete(task(1), agent(1), waits - 1);
    scene.start(task(2), agent(1), waits);
    scene.forged.cause = Some(cause);
    scene.steal(task(2), agent(1), waits, agent(2));
    scene.complete(task(2), agent(1), waits);
    scene.clean();
    assert_eq!(scene.checker.counts().steals_void, 1);
    assert_eq!(scene.checker.counts().ended, 2);
}

#[test]
fn timeouts_due_in_the_queue() {
    let too_long = |waited: u64| {
        let mut scene = given();
        scene.submit_with(task(1), |t| t.queue_timeout_ms = Some(100));
        scene.later(waited);
        scene.measure(0);
        let failed = scene.fail_with(task(1), |f| {
            f.error = "it waited longer than its queue_timeout_ms".to_owned();
        });
        (failed, scene)
    };
    too_long(100).1.clean();
    let (at, scene) = too_long(99);
    scene.broken(Invariant::TimeoutsDue, at);
}

#[test]
fn timeouts_due_by_the_time_of_what_is_met_of_organizations() {
    let mut scene = given();
    let home = scene.place.partition;
    let mut orgs = (1..).map(|n| OrgId(Uuid::from_u128(n)));
    let org = orgs.find(|org| Partition::of(org.0) == home);
    let org = org.expect("one of this partition");
    scene.submit_with(task(1), |t| t.queue_timeout_ms = Some(100));
    scene.later(100);
    let revoked = KeyRevoked {
        key_id: KeyId(Uuid::nil()),
    };
    let subject = Subject::Org(home, org, OrgVerb::KeyRevoked);
    scene.decide(COORDINATOR, subject, org.0, revoked);
    scene.fail_with(task(1), |f| {
        f.error = "it waited longer than its queue_timeout_ms".to_owned();
    });
    scene.clean();
}

#[test]
fn timeouts_due_at_an_agent_count_from_the_queue() {
    let too_long = |waited: u64, own: Option<u64>| {
        let mut scene = given();
        scene.set(|c| c.queue_timeout_ms = 100);
        scene.submit_with(task(1), |t| t.queue_timeout_ms = own);
        scene.later(90);
        let assignment = scene.assign(task(1), agent(1));
        scene.later(waited - 90);
        scene.measure(0);
        let withdrawn = scene.withdraw_with(task(1), agent(1), assignment, |w| {
            w.reason = WithdrawReason::QueueTimeout;
            (w.force, w.then) = (false, Then::End);
        });
        (withdrawn, scene)
    };
    too_long(100, None).1.clean();
    for (waited, own) in [(99, None), (1_000, Some(0)), (1_000, Some(1_001))] {
        let (at, scene) = too_long(waited, own);
        scene.broken(Invariant::TimeoutsDue, at);
    }
}

#[test]
fn timeouts_due_without_progress() {
    let stuck = |silent: u64| {
        let mut scene = given();
        scene.set(|c| c.progress_timeout_ms = 100);
        scene.submit(task(1));
        let assignment = scene.assign(task(1), agent(1));
        scene.start(task(1), agent(1), assignment);
        scene.later(90);
        scene.progress(task(1), agent(1), assignment);
        scene.later(silent);
        scene.measure(0);
        let withdrawn = scene.withdraw_with(task(1), agent(1), assignment, |w| {
            w.reason = WithdrawReason::NoProgress;
        });
        (withdrawn, scene)
    };
    stuck(100).1.clean();
    let (at, scene) = stuck(99);
    scene.broken(Invariant::TimeoutsDue, at);
}

#[test]
fn queue_limits_kept() {
    let assigned_after = |waited: u64| {
        let mut scene = given();
        scene.set(|c| c.queue_timeout_ms = 100);
        scene.submit(task(1));
        scene.submit_with(task(2), |t| t.queue_timeout_ms = Some(0));
        scene.later(waited);
        scene.measure(0);
        let at = scene.assign(task(1), agent(1));
        (at, scene)
    };
    assigned_after(99).1.clean();
    let (at, scene) = assigned_after(100);
    scene.broken(Invariant::QueueLimitsKept, at);
}

/// Tasks 1 to `of`, each after the one before, of which the first has failed.
fn chain(of: u32) -> Scene {
    let mut scene = given();
    for n in 0..of {
        let after = (n > 0).then(|| task(u128::from(n)));
        scene.submit_part(task(u128::from(n) + 1), n, of, after);
    }
    scene.accept_graph(of);
    scene.fail_task(task(1), 1);
    scene
}

#[test]
fn failure_paths() {
    let mut scene = chain(4);
    scene.fail_for(task(2), &[task(1)]);
    scene.fail_for(task(3), &[task(1), task(2)]);
    scene.clean();
    let wrong: [&[_]; 4] = [
        &[],
        &[task(3)],
        &[task(1), task(3)],
        &[task(2), task(3), task(2)],
    ];
    for path in wrong {
        let mut scene = chain(4);
        scene.fail_for(task(2), &[task(1)]);
        scene.fail_for(task(3), &[task(1), task(2)]);
        let at = scene.fail_with(task(4), |f| {
            (f.dead_lettered, f.because_of, f.path) = (false, Some(task(3)), path.to_vec());
        });
        scene.broken(Invariant::FailurePaths, at);
    }
}

#[test]
fn failure_paths_at_their_limit_tell_the_first_cause_and_the_nearest() {
    let long = FAILURE_PATH_MAX as u32 + 3;
    let mut scene = chain(long);
    let mut path = vec![task(1)];
    for n in 2..=u128::from(long) {
        scene.fail_for(task(n), &path);
        path.push(task(n));
        if path.len() > FAILURE_PATH_MAX {
            path.remove(1);
        }
    }
    scene.clean();
}

#[test]
fn graphs_called_off() {
    let mut scene = given();
    scene.submit_part(task(1), 0, 2, None);
    scene.submit_part(task(2), 1, 2, None);
    let accepted = scene.accept_graph(2);
    let called_off = scene.cancel_graph(2);
    // Decided before it was met: nobody's fault, and taken away again.
    scene.forged.cause = Some(accepted);
    let crossed = scene.assign(task(1), agent(1));
    scene.withdraw_with(task(1), agent(1), crossed, |w| {
        (w.reason, w.then) = (WithdrawReason::Cancelled, Then::End);
    });
    scene.clean();
    let late = scene.assign(task(2), agent(1));
    scene.broken(Invariant::GraphsCalledOff, late);
    scene.checker.violations.clear();
    scene.withdraw_with(task(2), agent(1), late, |w| w.then = Then::End);
    scene.cancel_task(task(1));
    scene.checker.finish(scene.sequence);
    let found = scene.found();
    assert_eq!(found[0], (Invariant::GraphsCalledOff, scene.sequence));
    assert!(called_off > 0);
    scene.checker.violations.clear();
    scene.cancel_task(task(2));
    // A person's retry is another generation.
    scene.retry(task(1), 2, None);
    let again = scene.assign_as(task(1), agent(1), 1, 2);
    scene.start(task(1), agent(1), again);
    scene.complete(task(1), agent(1), again);
    scene.checker.finish(scene.sequence);
    scene.clean();
}

#[test]
fn discarded_stays() {
    let mut scene = given();
    scene.submit(task(1));
    scene.fail_task(task(1), 1);
    scene.discard(task(1), 1);
    scene.clean();
    let retried = scene.retry(task(1), 2, None);
    scene.broken(Invariant::DiscardedStays, retried);
    // Only a dead letter is put away.
    let mut scene = given();
    scene.submit(task(1));
    scene.cancel_task(task(1));
    let alive = scene.discard(task(1), 1);
    scene.broken(Invariant::DiscardedStays, alive);
}
