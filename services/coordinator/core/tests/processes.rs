//! Rules about the processes of agents that were added: who starts them, what becomes of them when hosts go, and who joins.

mod support;

use support::{
    Given, agent, evidence,
    hosts::{code, each_way, exited, host, slot, spec},
    instance, join, pair,
};
use swarm_coordinator_core::{Lifecycle, Membership, Phase, SwarmStatus};
use swarm_events::{
    AgentId,
    agent::{AgentSpec, Failed, Restart, SpawnClaimed, SpawnReason},
    command::AddAgent,
    decider::Verdict,
    subject::{AgentVerb, CommandVerb},
};

#[test]
fn an_added_agent_gets_a_process_and_is_ready_when_that_joins() {
    each_way(|| {
        let mut given = Given::a_swarm(r#"{"drain_grace_ms": 700}"#);
        assert_eq!(given.swarm(1).status(), SwarmStatus::Inactive);
        let id = given.add(1, spec("worker"));
        assert_eq!(given.answered_by(id), "swarm.agent.added.v1");
        let requests = given.requests(1);
        assert_eq!(requests.len(), 1);
        let first = &requests[0];
        assert_eq!(
            (first.spawn, first.reason, first.crashes, first.grace_ms),
            (1, SpawnReason::Added, 0, 700)
        );
        assert_eq!(first.spec, given.managed(1).spec);
        assert!(first.spec.agent_name.is_some(), "its name is filled in");
        let found = given.agent(1);
        assert_eq!(
            (found.incarnation, found.membership, found.lifecycle()),
            (0, Membership::Expected, Lifecycle::Pending)
        );
        assert!(given.is_requested(1));
        assert_eq!(given.swarm(1).status(), SwarmStatus::Starting);
        assert_eq!(given.claim(1, 1, 1), Verdict::Applied);
        assert_eq!(given.agent(1).lifecycle(), Lifecycle::Starting);
        assert_eq!(given.launch(1, 1, 1), Verdict::Applied);
        let Phase::Running { host: at, pid, .. } = &given.managed(1).phase else {
            panic!("it runs")
        };
        assert_eq!((at, *pid), (&host(1), 4_001));
        let reason = given.agent(1).status_reason().expect("it has not joined");
        assert!(
            reason.contains("4001") && reason.contains("host1"),
            "{reason}"
        );
        let id = given.join_as(1, 1, Some(1));
        assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
        let found = given.agent(1);
        assert_eq!(
            (found.incarnation, found.joined_spawn, found.lifecycle()),
            (1, 1, Lifecycle::Ready)
        );
        assert_eq!(found.status_reason(), None);
        assert_eq!(given.swarm(1).status(), SwarmStatus::Active);
        assert_eq!(given.requests(1).len(), 1);
        assert_eq!(given.0.next_deadline(), None);
        assert_eq!(given.0.cold(), given.0.state);
    });
}

#[test]
fn of_two_hosts_the_first_whose_claim_is_met_has_it() {
    let mut given = Given::a_swarm("{}");
    given.add(1, spec("worker"));
    let by = |n| SpawnClaimed {
        spawn: 1,
        host: host(n),
    };
    assert_eq!(
        given.host_says(1, 2, AgentVerb::SpawnClaimed, by(2)),
        Verdict::Applied
    );
    assert_eq!(
        given.host_says(1, 1, AgentVerb::SpawnClaimed, by(1)),
        Verdict::Void("not-requested")
    );
    assert_eq!(given.managed(1).host(), Some(&host(2)));
    // Nor does the second say anything of the process.
    assert_eq!(given.launch(1, 1, 1), Verdict::Void("not-claimed"));
    assert_eq!(
        given.exit(1, 1, 1, code(0), 5),
        Verdict::Void("not-claimed")
    );
    // Nor one in another's name.
    let exit = exited(1, 2, code(0), 5);
    let verdict = given.host_says(1, 1, AgentVerb::Exited, exit);
    assert_eq!(verdict, Verdict::Void("other-host"));
}

#[test]
fn words_about_an_older_request_are_void() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.exit(1, 1, 1, code(1), 60_000);
        assert!(given.is_requested(1));
        assert_eq!(given.managed(1).spawn, 2);
        assert_eq!(given.claim(1, 2, 1), Verdict::Void("other-spawn"));
        assert_eq!(given.decline(1, 2, 1), Verdict::Void("other-spawn"));
        assert_eq!(given.launch(1, 1, 1), Verdict::Void("other-spawn"));
        let late = given.exit(1, 1, 1, code(9), 60_000);
        assert_eq!(late, Verdict::Void("other-spawn"));
        assert_eq!(given.claim(1, 2, 3), Verdict::Void("other-spawn"));
        assert_eq!(given.requests(1).len(), 2);
        assert_eq!(given.claim(1, 2, 2), Verdict::Applied);
    });
}

#[test]
fn who_declines_is_shown_and_another_may_claim() {
    let mut given = Given::a_swarm("{}");
    given.add(1, spec("worker"));
    assert_eq!(given.decline(1, 2, 1), Verdict::Applied);
    let reason = given.agent(1).status_reason().expect("a reason");
    assert!(
        reason.contains("host2") && reason.contains("not on the list"),
        "{reason}"
    );
    assert_eq!(given.requests(1).len(), 1);
    given.claim(1, 1, 1);
    assert_eq!(given.managed(1).declined, None);
    assert_eq!(given.decline(1, 2, 1), Verdict::Void("not-requested"));
}

#[test]
fn a_host_that_goes_hands_its_processes_over() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        let mut exit = exited(1, 1, code(0), 50);
        exit.host_leaving = true;
        given.host_says(1, 1, AgentVerb::Exited, exit);
        given.settle();
        let requests = given.requests(1);
        assert_eq!(
            (requests[1].spawn, requests[1].reason, requests[1].crashes),
            (2, SpawnReason::HostLost, 0),
            "at once, and no crash"
        );
    });
}

#[test]
fn a_lost_host_loses_its_claim() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.add(1, spec("worker"));
        given.claim(1, 1, 1);
        given.host_gone(1, 2, 1);
        assert_eq!(given.managed(1).host(), Some(&host(1)), "another's");
        given.host_gone(1, 1, 1);
        let requests = given.requests(1);
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].reason, SpawnReason::HostLost);
        assert_eq!(given.launch(1, 1, 1), Verdict::Void("other-spawn"));
        given.host_gone(1, 1, 1);
        assert_eq!(given.requests(1).len(), 2);
    });
}

#[test]
fn an_agent_that_outlives_its_host_goes_on_until_it_ends() {
    each_way(|| {
        for how in 0..3 {
            let mut given = Given::a_swarm("{}");
            given.running(1);
            given.host_gone(1, 1, 1);
            assert_eq!(given.requests(1).len(), 1, "it is alive and well");
            assert!(given.agent(1).is_healthy());
            assert_eq!(given.0.next_deadline(), None);
            // The end of its process is not for the lost host to tell.
            let late = given.exit(1, 1, 1, code(0), 9);
            assert_eq!(late, Verdict::Void("not-claimed"));
            match how {
                0 => {
                    given.leave(1, 1);
                }
                1 => given.fails(1, 1),
                _ => given.suspected(1, 1),
            }
            given.settle();
            let requests = given.requests(1);
            assert_eq!(requests.len(), 2);
            assert_eq!(requests[1].reason, SpawnReason::HostLost);
        }
    });
}

#[test]
fn a_join_is_taken_from_the_current_process_only() {
    let mut given = Given::a_swarm("{}");
    given.add(1, spec("worker"));
    // Nobody has claimed it.
    let id = given.join_as(1, 1, Some(1));
    assert_eq!(given.refused(id), pair("superseded", "spawn"));
    given.claim(1, 1, 1);
    for (process, spawn) in [(2, None), (3, Some(0)), (4, Some(2))] {
        let id = given.join_as(1, process, spawn);
        assert_eq!(given.refused(id), pair("superseded", "spawn"));
    }
    // As soon as it is claimed: `launched` may be stored after the join.
    let id = given.join_as(1, 5, Some(1));
    assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
    assert_eq!(given.launch(1, 1, 1), Verdict::Applied);
    // Of another type it is not that agent.
    let mut other = join(6, None);
    other.spawn = Some(1);
    let id = given.order(1, CommandVerb::Join, other);
    assert_eq!(given.refused(id), pair("other-type", "agent_type"));
    // By hand, and at a place for one by hand, no host has started it.
    let id = given.join_as(9, 7, Some(1));
    assert_eq!(given.refused(id), pair("superseded", "spawn"));
    given.add(2, slot("worker"));
    let id = given.join_as(2, 8, Some(1));
    assert_eq!(given.refused(id), pair("superseded", "spawn"));
    let id = given.join_as(2, 9, None);
    assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
    assert_eq!(given.agent(2).joined_spawn, 0);
}

#[test]
fn a_place_waits_for_its_process() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        let mut wanted = slot("worker");
        wanted.agent_name = Some("ann".into());
        wanted.capabilities = vec!["z".into(), "y".into()];
        wanted.slots = Some(3);
        given.add(1, wanted);
        assert!(given.requests(1).is_empty());
        let found = given.agent(1);
        assert_eq!(
            (found.lifecycle(), found.profile.slots),
            (Lifecycle::Pending, 3)
        );
        let mut order = join(1, Some("bob"));
        order.agent_type = "worker".into();
        order.capabilities.clear();
        let id = given.order(1, CommandVerb::Join, order);
        assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
        let profile = &given.agent(1).profile;
        assert_eq!((profile.agent_name.as_str(), profile.slots), ("ann", 3));
        assert_eq!(
            profile.capabilities,
            ["y", "z"],
            "what it leaves out is as added"
        );
        given.leave(1, 1);
        let found = given.agent(1);
        assert_eq!(
            (found.membership, found.lifecycle()),
            (Membership::Expected, Lifecycle::Pending)
        );
        assert_eq!(given.agent(1).instance, instance(1));
    });
}

#[test]
fn an_agent_is_added_once() {
    let mut given = Given::a_swarm("{}");
    given.add(1, spec("worker"));
    let id = given.add(1, spec("worker"));
    assert_eq!(given.refused(id), pair("already-exists", "id"));
    let id = given.add(1, spec("other"));
    assert_eq!(given.refused(id), pair("id-taken", "id"));
    let keyed = |kind: &str, n| AddAgent {
        spec: spec(kind),
        body_sha256: Some(support::sha(n)),
    };
    let first = given.order(2, CommandVerb::AddAgent, keyed("worker", 1));
    assert_eq!(given.answered_by(first), "swarm.agent.added.v1");
    let id = given.order(2, CommandVerb::AddAgent, keyed("worker", 1));
    assert_eq!(given.refused(id), pair("already-exists", "id"));
    let id = given.order(2, CommandVerb::AddAgent, keyed("worker", 2));
    assert_eq!(given.refused(id), pair("key-reused", "Idempotency-Key"));
    given.join(3, join(3, None));
    let id = given.add(3, spec("worker"));
    assert_eq!(given.refused(id), pair("id-taken", "id"));
}

#[test]
fn the_name_of_an_added_agent_is_reserved() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        let named = |name: &str| AgentSpec {
            agent_name: Some(name.into()),
            ..spec("worker")
        };
        given.add(1, named("ann"));
        assert_eq!(given.swarm(1).agent_named("ann"), Some(agent(1)));
        let id = given.join(2, join(2, Some("ann")));
        assert_eq!(given.refused(id), pair("name-taken", "agent_name"));
        let id = given.add(3, named("ann"));
        assert_eq!(given.refused(id), pair("name-taken", "agent_name"));
        let id = given.drain(1, 0);
        assert_eq!(given.answered_by(id), "swarm.agent.stopping.v1");
        let id = given.join(2, join(2, Some("ann")));
        assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
        // One that had ended finds its name taken.
        let mut never = named("bob");
        never.restart.restart = Restart::Never;
        given.add(4, never);
        given.claim(4, 1, 1);
        given.exit(4, 1, 1, code(0), 5);
        given.add(5, named("bob"));
        let id = given.restart(4, false);
        assert_eq!(given.refused(id), pair("name-taken", "agent_name"));
    });
}

#[test]
fn of_two_at_once_the_first_gets_the_name_and_the_last_place() {
    let mut given = Given::a_swarm(r#"{"max_agents": 2}"#);
    let order = |name: &str| AddAgent {
        spec: AgentSpec {
            agent_name: Some(name.into()),
            ..spec("worker")
        },
        body_sha256: None,
    };
    let names = ["ann", "ann", "bob", "cid"];
    let ids = names.map(|name| {
        let about: AgentId = agent(u128::from(name.as_bytes()[0]) + given.0.log.len() as u128);
        given.send(1, CommandVerb::AddAgent, about.0, order(name))
    });
    given.settle();
    assert_eq!(given.answered_by(ids[0]), "swarm.agent.added.v1");
    assert_eq!(given.refused(ids[1]), pair("name-taken", "agent_name"));
    assert_eq!(given.answered_by(ids[2]), "swarm.agent.added.v1");
    assert_eq!(
        given.refused(ids[3]),
        pair("max-agents", "configuration.max_agents")
    );
    let id = given.join(9, join(9, None));
    assert_eq!(
        given.refused(id),
        pair("max-agents", "configuration.max_agents"),
        "wanted ones have their place"
    );
}

#[test]
fn a_verdict_on_another_incarnation_touches_no_process() {
    let mut given = Given::a_swarm("{}");
    given.running(1);
    let failed = Failed {
        incarnation: 2,
        evidence: evidence(1, 1),
    };
    given.verdict(1, AgentVerb::Failed, failed);
    assert_eq!(given.requests(1).len(), 1);
    assert!(given.agent(1).is_healthy());
}

#[test]
fn a_host_speaks_of_agents_that_were_added_only() {
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, None));
    assert_eq!(given.claim(1, 1, 1), Verdict::Void("not-managed"));
    assert_eq!(
        given.exit(1, 1, 1, code(0), 1),
        Verdict::Void("not-managed")
    );
    assert_eq!(given.claim(2, 1, 1), Verdict::Void("unknown-agent"));
    given.add(3, slot("worker"));
    assert_eq!(given.claim(3, 1, 0), Verdict::Void("other-spawn"));
    assert_eq!(
        given.exit(3, 1, 0, code(0), 1),
        Verdict::Void("other-spawn")
    );
}

#[test]
fn a_join_that_crosses_the_end_of_its_process_is_undone() {
    let mut given = Given::a_swarm("{}");
    given.add(1, spec("worker"));
    given.claim(1, 1, 1);
    let mut order = join(1, None);
    order.agent_type = "worker".into();
    order.spawn = Some(1);
    let id = given.send(1, CommandVerb::Join, agent(1).0, order);
    given.0.decide(10);
    // Decided and not stored yet.
    given.host_says(1, 1, AgentVerb::Exited, exited(1, 1, code(1), 50));
    given.settle();
    assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
    let found = given.agent(1);
    assert_eq!(
        (found.incarnation, found.membership),
        (1, Membership::Expected)
    );
    assert_eq!(given.managed(1).crashes, 1, "once");
    given.later(500);
    assert_eq!(given.requests(1).len(), 2);
}

#[test]
fn a_request_that_a_repeat_of_an_older_one_hides_is_made_anew() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.add(1, spec("worker"));
        given.claim(1, 1, 1);
        given.launch(1, 1, 1);
        let (subject, payload) = {
            let mut all = given.0.log.iter();
            let found = all.find(|stored| stored.subject.contains(".agent.spawn_requested."));
            let found = found.expect("it was requested");
            (found.subject.clone(), found.payload.clone())
        };
        let again = |given: &mut Given| {
            let verdict = given.0.store(&subject, payload.clone());
            assert!(matches!(verdict, Verdict::Void(_)), "{verdict:?}");
            given.settle();
        };
        // Nothing waits: the repeat hides nothing.
        again(&mut given);
        assert_eq!(given.requests(1).len(), 1);
        given.host_gone(1, 1, 1);
        given.settle();
        assert_eq!(given.requests(1).len(), 2);
        // A host that begins now reads the last message of each subject, and never meets the second request.
        again(&mut given);
        let requests = given.requests(1);
        assert_eq!(requests.len(), 3);
        assert_eq!(requests[2].spawn, 3);
        assert_eq!(
            (requests[2].reason, requests[2].crashes),
            (requests[1].reason, requests[1].crashes)
        );
        assert_eq!(
            given.claim(1, 2, 2),
            Verdict::Void("other-spawn"),
            "by a host that met both"
        );
        assert_eq!(given.claim(1, 3, 3), Verdict::Applied);
        // Another repeat, and nothing waits.
        again(&mut given);
        assert_eq!(given.requests(1).len(), 3);
        assert_eq!(given.0.cold(), given.0.state);
    });
}
