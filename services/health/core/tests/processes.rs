//! Rules of processes and their hosts: an end is a loss at once, and a host that is gone holds no claim.

mod support;

use support::{Scene, agent, evidence, host, place};
use swarm_events::{
    Body, Input, Subject,
    agent::{Evidence, Left, LivenessRule, Restart},
    configuration::HealthPolicy,
    control::Sighting,
    decider::Verdict,
    subject::{AgentVerb, SwarmVerb},
    swarm::{Deleted, Stopping},
};
use swarm_health_core::{Liveness, Phase};

fn scene() -> Scene {
    Scene::with(HealthPolicy::default(), 0)
}

#[test]
fn an_end_of_the_process_is_a_loss_at_once() {
    let mut scene = scene();
    scene.runs(9, 1);
    scene.uses(1, 10, 10);
    let heard = scene.world.now;
    scene.world.now = heard.plus_millis(700);
    assert_eq!(scene.exited(9, 1, 1), Verdict::Applied);
    assert_eq!(scene.world.decide(10), 1, "in the turn that meets it");
    scene.world.settle();
    assert_eq!(scene.liveness(1), Liveness::Failed);
    let Body::AgentFailed(failed) = scene.last().body else {
        panic!("{:?}", scene.last())
    };
    assert_eq!(failed.incarnation, 1);
    let expected = Evidence {
        rule: LivenessRule::Exited,
        last_heartbeat_at: Some(heard),
        age_ms: 0,
        limit_ms: 0,
    };
    assert_eq!(failed.evidence, expected);
}

#[test]
fn an_end_is_no_loss_of_who_has_gone_or_came_from_elsewhere() {
    // Gone by its own word, or taken out.
    for leaves in [true, false] {
        let mut scene = scene();
        scene.runs(9, 1);
        let (reason, incarnation) = (String::new(), 1);
        if leaves {
            let subject = Subject::Agent(place(), AgentVerb::Left, agent(1));
            let left = Left {
                incarnation,
                reason,
            };
            scene.coordinator(subject, agent(1).0, left);
        } else {
            scene.removed(1, incarnation);
        }
        assert_eq!(scene.exited(9, 1, 1), Verdict::Applied);
        assert_eq!(scene.world.decide(10), 0);
    }
    // Its process ended, and somebody started it by hand since.
    let mut hand = scene();
    hand.requested(1, 1);
    hand.claimed(9, 1, 1);
    hand.launched(9, 1, 1);
    hand.exited(9, 1, 1);
    hand.join(1, 1, 1);
    assert_eq!(hand.agent(1).spawn, 0);
    assert_eq!(hand.world.decide(10), 0);
}

#[test]
fn an_end_that_nobody_has_judged_outlives_the_next_request() {
    let mut scene = scene();
    scene.runs(9, 1);
    // Its owner is gone before it judges the end; meanwhile the next process is asked for, and runs.
    scene.exited(9, 1, 1);
    let Some(Input::Event(told)) = scene.world.inputs().last() else {
        panic!("nothing was stored")
    };
    assert_eq!(scene.requested(1, 2), Verdict::Applied);
    assert_eq!(scene.claimed(8, 1, 2), Verdict::Applied);
    assert_eq!(scene.launched(8, 1, 2), Verdict::Applied);
    scene.takeover();
    assert_eq!(scene.world.decide(10), 1, "in the first turn");
    scene.world.settle();
    let failed = scene.last();
    assert_eq!(failed.causation, Some(told.event.id.0));
    assert!(
        matches!(&failed.body, Body::AgentFailed(f)
            if f.incarnation == 1 && f.evidence.rule == LivenessRule::Exited),
        "{failed:?}"
    );
    assert_eq!(scene.world.decide(10), 0, "once");
    assert_eq!(scene.agent(1).process.phase, Phase::Running(host(8)));
}

#[test]
fn an_end_is_forgotten_when_its_incarnation_is_replaced_or_has_gone() {
    for leaves in [true, false] {
        let mut scene = scene();
        scene.runs(9, 1);
        scene.exited(9, 1, 1);
        scene.requested(1, 2);
        scene.claimed(8, 1, 2);
        if leaves {
            let subject = Subject::Agent(place(), AgentVerb::Left, agent(1));
            let left = Left {
                incarnation: 1,
                reason: String::new(),
            };
            scene.coordinator(subject, agent(1).0, left);
        }
        scene.join(1, 2, 2);
        assert_eq!(scene.world.decide(10), 0);
        assert_eq!(scene.liveness(1), Liveness::Alive);
    }
}

#[test]
fn who_is_taken_out_leaves_no_claim_behind() {
    let mut scene = scene();
    scene.runs(9, 1);
    assert_eq!(scene.removed(1, 1), Verdict::Applied);
    assert_eq!(scene.agent(1).process.host(), None);
    assert_eq!(
        scene.host_gone(9),
        Verdict::Void("no-claims"),
        "the process counts as ended already"
    );
    assert_eq!(scene.launched(9, 1, 1), Verdict::Void("not-claimed"));
    assert_eq!(scene.exited(8, 1, 1), Verdict::Void("not-claimed"));
    // Its host may still say how it ended, once.
    assert_eq!(scene.exited(9, 1, 1), Verdict::Applied);
    assert_eq!(scene.exited(9, 1, 1), Verdict::Void("not-claimed"));
    assert_eq!(scene.world.decide(10), 0);
    assert_eq!(scene.requested(1, 2), Verdict::Applied);
    // A host that was seen to be gone just before has nothing more to lose.
    let mut crossed = self::scene();
    crossed.runs(9, 1);
    crossed.host_gone(9);
    crossed.removed(1, 1);
    assert_eq!(crossed.world.decide(10), 0);
    assert_eq!(crossed.world.state.open_marks(), 0);
}

#[test]
fn who_was_told_to_go_or_is_not_started_again_keeps_its_claim_when_taken_out() {
    let told: [fn(&mut Scene); 3] = [
        |scene| {
            scene.runs(9, 1);
            assert_eq!(scene.stopping(1, 1, 1), Verdict::Applied);
        },
        |scene| {
            scene.runs(9, 1);
            assert_eq!(scene.scaled_down(1), Verdict::Applied);
        },
        |scene| {
            scene.requested_with(1, 1, Restart::Never);
            scene.claimed(9, 1, 1);
            scene.join(1, 1, 1);
        },
    ];
    for told in told {
        let mut scene = scene();
        told(&mut scene);
        assert_eq!(scene.removed(1, 1), Verdict::Applied);
        assert_eq!(scene.agent(1).process.host(), Some(&host(9)));
        assert_eq!(scene.host_gone(9), Verdict::Applied);
        scene.world.settle();
        assert_eq!(scene.agent(1).process.phase, Phase::HostLost);
    }
    // One that is started again only after failures is: to be taken out is no success.
    let mut fails = scene();
    fails.requested_with(1, 1, Restart::OnFailure);
    fails.claimed(9, 1, 1);
    fails.join(1, 1, 1);
    fails.removed(1, 1);
    assert_eq!(fails.agent(1).process.host(), None);
    // What becomes of an older incarnation says nothing of the process that is asked for now.
    let mut older = scene();
    older.join(1, 1, 1);
    older.requested(1, 1);
    older.claimed(9, 1, 1);
    older.removed(1, 1);
    assert_eq!(older.agent(1).process.host(), Some(&host(9)));
}

#[test]
fn an_end_that_crosses_the_joining_is_judged_all_the_same() {
    let mut scene = scene();
    scene.requested(1, 1);
    scene.claimed(9, 1, 1);
    let before = scene.world.state.clone();
    let cause = swarm_events::decider::Decider::head(&before).sequence;
    scene.exited(9, 1, 1);
    scene.join_at(cause, 1, 1, 1);
    scene.world.settle();
    assert_eq!(scene.liveness(1), Liveness::Failed);
}

#[test]
fn the_end_of_an_older_process_says_nothing_of_the_current_one() {
    let mut scene = scene();
    scene.runs(9, 1);
    scene.requested(1, 2);
    assert_eq!(scene.exited(9, 1, 1), Verdict::Void("other-spawn"));
    assert_eq!(scene.claimed(8, 1, 2), Verdict::Applied);
    scene.join(1, 2, 2);
    assert_eq!(scene.agent(1).spawn, 2);
    assert_eq!(
        scene.exited(9, 1, 2),
        Verdict::Void("not-claimed"),
        "another host's word"
    );
    scene.world.settle();
    assert_eq!(scene.liveness(1), Liveness::Alive);
    assert_eq!(scene.exited(8, 1, 2), Verdict::Applied);
    assert_eq!(scene.exited(8, 1, 2), Verdict::Void("not-claimed"));
}

#[test]
fn the_first_claim_of_the_current_request_holds() {
    let mut scene = scene();
    assert_eq!(scene.claimed(9, 1, 1), Verdict::Void("unknown-agent"));
    scene.join(1, 1, 1);
    assert_eq!(scene.claimed(9, 1, 0), Verdict::Void("other-spawn"));
    assert_eq!(scene.requested(1, 2), Verdict::Void("other-spawn"));
    assert_eq!(scene.requested(1, 1), Verdict::Applied);
    assert_eq!(scene.launched(9, 1, 1), Verdict::Void("not-claimed"));
    assert_eq!(scene.claimed(9, 1, 1), Verdict::Applied);
    assert_eq!(scene.claimed(8, 1, 1), Verdict::Void("already-claimed"));
    assert_eq!(scene.launched(8, 1, 1), Verdict::Void("not-claimed"));
    assert_eq!(scene.agent(1).process.host(), Some(&host(9)));
    assert_eq!(scene.launched(9, 1, 1), Verdict::Applied);
    assert_eq!(scene.agent(1).process.phase, Phase::Running(host(9)));
    assert_eq!(scene.launched(9, 1, 1), Verdict::Void("nothing-new"));
}

#[test]
fn a_host_speaks_for_itself_only_and_a_withdrawn_request_is_nobodys() {
    let mut scene = scene();
    scene.requested(1, 1);
    assert_eq!(scene.claimed_as(8, 9, 1, 1), Verdict::Void("other-host"));
    assert_eq!(
        scene.stopping(1, 1, 0),
        Verdict::Void("other-incarnation"),
        "none has joined"
    );
    assert_eq!(scene.stopping(1, 0, 2), Verdict::Void("other-spawn"));
    assert_eq!(scene.stopping(1, 0, 1), Verdict::Applied);
    assert_eq!(scene.claimed(9, 1, 1), Verdict::Void("already-claimed"));
    assert_eq!(scene.requested(1, 2), Verdict::Applied);
    assert_eq!(scene.claimed(9, 1, 2), Verdict::Applied);
    // What runs when it is told to go is still the host's.
    assert_eq!(scene.stopping(1, 0, 2), Verdict::Applied);
    assert_eq!(scene.agent(1).process.host(), Some(&host(9)));
}

#[test]
fn a_host_that_is_gone_loses_each_of_its_claims_and_no_other() {
    let mut scene = scene();
    scene.runs(9, 1);
    scene.runs(8, 2);
    scene.requested(3, 1);
    scene.claimed(9, 3, 1);
    scene.runs(9, 4);
    scene.exited(9, 4, 1);
    scene.world.settle();
    let before = scene.decided().len();
    assert_eq!(scene.host_gone(7), Verdict::Void("no-claims"));
    assert_eq!(scene.host_gone(9), Verdict::Applied);
    assert_eq!(scene.host_gone(9), Verdict::Void("nothing-new"));
    let gone = |input| match input {
        Input::Event(recorded) if matches!(recorded.event.body, Body::Observed(_)) => {
            Some(recorded.event.id.0)
        }
        _ => None,
    };
    let observations: Vec<_> = scene.world.inputs().filter_map(gone).collect();
    assert_eq!(observations.len(), 3);
    scene.world.settle();
    let failed: Vec<_> = scene.decided().split_off(before);
    let about: Vec<_> = failed.iter().map(|event| event.about).collect();
    assert_eq!(about, [agent(1).0, agent(3).0]);
    for event in failed {
        assert_eq!(event.causation, Some(observations[1]));
        let Body::AgentHostFailed(failed) = event.body else {
            panic!("{event:?}")
        };
        assert_eq!((failed.spawn, failed.host), (1, host(9)));
        assert_eq!(failed.evidence, evidence());
    }
    assert_eq!(scene.agent(1).process.phase, Phase::HostLost);
    assert_eq!(
        scene.liveness(1),
        Liveness::Alive,
        "that is judged by its own silence"
    );
    assert_eq!(scene.world.state.open_marks(), 0);
    // Nothing that the host says of it counts any more.
    assert_eq!(scene.exited(9, 1, 1), Verdict::Void("not-claimed"));
    assert_eq!(scene.host_gone(9), Verdict::Void("no-claims"));
    // It is heard again and claims anew: that holds.
    scene.requested(3, 2);
    assert_eq!(scene.claimed(9, 3, 2), Verdict::Applied);
    scene.world.settle();
    assert_eq!(scene.agent(3).process.phase, Phase::Claimed(host(9)));
}

#[test]
fn a_claim_that_crosses_the_loss_of_its_host_is_lost_too() {
    let mut scene = scene();
    scene.runs(9, 1);
    scene.requested(2, 1);
    scene.host_gone(9);
    scene.claimed(9, 2, 1);
    scene.world.settle();
    assert_eq!(scene.agent(2).process.phase, Phase::HostLost);
    assert_eq!(scene.world.state.open_marks(), 0);
}

#[test]
fn an_end_that_crosses_the_loss_of_its_host_counts_once() {
    let mut scene = scene();
    scene.runs(9, 1);
    scene.host_gone(9);
    assert_eq!(scene.world.decide(10), 1);
    assert_eq!(scene.exited(9, 1, 1), Verdict::Applied);
    assert_eq!(scene.world.deliver(), Some(Verdict::Void("not-claimed")));
    scene.world.settle();
    assert_eq!(scene.liveness(1), Liveness::Failed);
    assert_eq!(scene.world.state.open_marks(), 0);
}

#[test]
fn a_takeover_in_the_middle_loses_neither_an_end_nor_a_host() {
    let mut scene = scene();
    for n in 1..=5 {
        scene.runs(9, n);
    }
    scene.runs(8, 6);
    scene.exited(8, 6, 1);
    scene.host_gone(9);
    assert_eq!(scene.world.decide(3), 3, "no more than allowed");
    scene.world.deliver();
    scene.takeover();
    scene.world.settle();
    for n in 1..=5 {
        assert_eq!(scene.agent(n).process.phase, Phase::HostLost);
    }
    assert_eq!(scene.liveness(6), Liveness::Failed);
    let told: Vec<_> = scene.decided().iter().map(|event| event.about).collect();
    let mut once = told.clone();
    once.dedup();
    assert_eq!(told, once, "each is told of once");
    assert_eq!(scene.world.state.open_marks(), 0);
}

#[test]
fn an_end_goes_before_the_silence_that_came_of_it() {
    let mut scene = scene();
    scene.runs(9, 1);
    scene.exited(9, 1, 1);
    // Nobody judged the end before the silence was seen.
    scene.observe(1, 1, Sighting::Gone);
    scene.takeover();
    scene.world.settle();
    let decided = scene.decided();
    assert_eq!(decided.len(), 1);
    assert!(
        matches!(&decided[0].body, Body::AgentFailed(f) if f.evidence.rule == LivenessRule::Exited),
        "{decided:?}"
    );
    assert_eq!(scene.world.state.open_marks(), 0);
}

#[test]
fn silence_and_the_end_together_are_one_loss() {
    let mut scene = scene();
    scene.runs(9, 1);
    scene.observe(1, 1, Sighting::Gone);
    scene.exited(9, 1, 1);
    scene.world.settle();
    let failed = scene.decided().into_iter();
    let failed = failed.filter(|event| matches!(event.body, Body::AgentFailed(_)));
    assert_eq!(failed.count(), 1);
    assert_eq!(scene.liveness(1), Liveness::Failed);
    assert_eq!(scene.world.state.open_marks(), 0);
}

#[test]
fn a_swarm_that_stops_still_hears_of_hosts_and_one_that_is_gone_does_not() {
    let mut scene = scene();
    scene.runs(9, 1);
    scene.requested(3, 1);
    scene.swarm(SwarmVerb::Stopping, Stopping {});
    assert_eq!(scene.requested(2, 1), Verdict::Void("swarm-stopping"));
    assert_eq!(scene.claimed(9, 3, 1), Verdict::Applied);
    scene.host_gone(9);
    scene.world.settle();
    assert_eq!(scene.agent(1).process.phase, Phase::HostLost);
    let mut scene = self::scene();
    scene.runs(9, 1);
    scene.swarm(SwarmVerb::Stopping, Stopping {});
    scene.swarm(SwarmVerb::Deleted, Deleted {});
    assert_eq!(scene.host_gone(9), Verdict::Void("no-claims"));
    assert_eq!(scene.exited(9, 1, 1), Verdict::Applied);
    assert_eq!(scene.world.decide(10), 0);
}
