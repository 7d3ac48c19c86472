//! Rules about topologies: who sits where, who leads, what becomes of both when agents come, go and fail.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use support::{
    Given, agent,
    hosts::{each_way, slot},
    join, place,
    topologies::of_type,
};
use swarm_coordinator_core::{AgentRole, Coordinator};
use swarm_events::{
    Body, Subject,
    agent::{Cause, Failed, Recovered},
    configuration::TopologyKind::{Hierarchical, Mesh, Ring, Star},
    decider::{Decider, Verdict},
    subject::{AgentVerb, CommandVerb, Service},
    topology::{Role, Seated, Topology},
};

#[test]
fn the_first_agent_of_a_star_is_its_hub_and_leads_it() {
    each_way(|| {
        let given = Given::a_topology(Star, "{}", 3);
        assert_eq!(given.role(1), Some(Role::Coordinator));
        assert!(given.seat(2).is_some_and(|seat| seat.standby));
        assert_eq!(given.role(3), Some(Role::Worker));
        // Nobody was made for it: it goes on working.
        assert!([1, 2, 3].iter().all(|a| given.works(*a)));
        assert_eq!(given.swarm(1).leader(), Some(agent(1)));
        assert_eq!(given.swarm(1).role(agent(1)), AgentRole::Coordinator);
        assert_eq!(given.swarm(1).role(agent(3)), AgentRole::Worker);
        let elections = given.elections();
        assert_eq!(elections.len(), 1);
        assert_eq!(
            (elections[0].incarnation, elections[0].before),
            (1, None),
            "{elections:?}"
        );
        given.everybody_is_seated();
    });
}

#[test]
fn one_that_is_made_for_it_takes_the_place_of_one_that_was_drafted() {
    each_way(|| {
        let mut given = Given::a_topology(Star, "{}", 2);
        given.join(3, of_type(3, "coordinator"));
        assert_eq!(given.role(3), Some(Role::Coordinator));
        assert!(!given.works(3), "it does only what it was made for");
        assert_eq!(given.role(1), Some(Role::Worker));
        assert!(given.works(1) && given.works(2));
        // Who leads stays as long as it is there.
        assert_eq!(given.swarm(1).leader(), Some(agent(1)));
        assert_eq!(given.swarm(1).role(agent(1)), AgentRole::Leader);
        given.everybody_is_seated();
    });
}

#[test]
fn a_hub_that_fails_is_replaced_at_once_and_so_is_the_leader() {
    each_way(|| {
        let mut given = Given::a_topology(Star, "{}", 3);
        given.failed(1, 1);
        assert_eq!(given.seat(1), None);
        assert_eq!(given.role(2), Some(Role::Coordinator));
        assert!(given.seat(3).is_some_and(|seat| seat.standby));
        assert_eq!(given.swarm(1).leader(), Some(agent(2)));
        let last = given.elections().pop().expect("elected");
        assert_eq!(last.before, Some(agent(1)));
        assert!(last.reason.contains("failed"), "{}", last.reason);
        given.everybody_is_seated();
    });
}

#[test]
fn without_failover_a_lost_hubs_place_stays_empty_until_it_is_back() {
    each_way(|| {
        let mut given = Given::a_topology(Star, r#"{"failover_coordinator": false}"#, 3);
        given.failed(1, 1);
        assert_eq!(given.role(2), Some(Role::Worker));
        assert_eq!(given.role(3), Some(Role::Worker));
        // Somebody leads all the same.
        assert_eq!(given.swarm(1).leader(), Some(agent(2)));
        given.join(1, join(7, None));
        assert_eq!(given.role(1), Some(Role::Coordinator));
        given.everybody_is_seated();
    });
}

#[test]
fn a_suspected_and_a_draining_agent_keep_their_places() {
    each_way(|| {
        let mut given = Given::a_topology(Hierarchical, "{}", 6);
        let before: Vec<_> = (1..=6).map(|a| given.seat(a).cloned()).collect();
        let stored = given.0.log.len();
        given.suspected(1, 1);
        given.quarantine(2, 1, Cause::Stuck);
        given.drain(3, 60_000);
        let after: Vec<_> = (1..=6).map(|a| given.seat(a).cloned()).collect();
        assert_eq!(before, after);
        assert_eq!(given.swarm(1).leader(), Some(agent(1)));
        let seated = given.0.log[stored..].iter();
        let seated = seated.filter(|stored| stored.subject.contains(".seated."));
        assert_eq!(seated.count(), 0, "nothing new is said");
        given.everybody_is_seated();
    });
}

#[test]
fn the_unhealthy_are_not_given_a_role_that_they_do_not_have() {
    each_way(|| {
        let mut given = Given::a_topology(Star, "{}", 4);
        given.suspected(2, 1);
        given.quarantine(3, 1, Cause::Memory);
        given.failed(1, 1);
        assert_eq!(given.role(4), Some(Role::Coordinator));
        assert_eq!(given.swarm(1).leader(), Some(agent(4)));
        given.everybody_is_seated();
    });
}

#[test]
fn when_nobody_is_healthy_nobody_leads_until_somebody_is() {
    each_way(|| {
        let mut given = Given::a_topology(Mesh, "{}", 2);
        given.suspected(2, 1);
        given.failed(1, 1);
        assert_eq!(given.swarm(1).leader(), None);
        let last = given.elections().pop().expect("said");
        assert_eq!((last.leader, last.incarnation, last.eligible), (None, 0, 0));
        let recovered = Recovered {
            incarnation: 1,
            evidence: support::evidence(1, 1),
        };
        given.health(2, AgentVerb::Recovered, recovered);
        assert_eq!(given.swarm(1).leader(), Some(agent(2)));
        assert_eq!(given.swarm(1).role(agent(2)), AgentRole::Leader);
    });
}

#[test]
fn an_agent_that_goes_loses_its_place_and_one_that_starts_anew_keeps_it() {
    each_way(|| {
        let mut given = Given::a_topology(Ring, "{}", 3);
        let place_of_2 = given.seat(2).expect("seated").place;
        given.join(2, join(22, None));
        assert_eq!(given.agent(2).incarnation, 2);
        assert_eq!(given.seat(2).expect("seated").place, place_of_2);
        assert_eq!(given.times_seated(2, 1), 1);
        given.leave(1, 1);
        assert_eq!(given.seat(1), None);
        assert_eq!(given.swarm(1).leader(), Some(agent(2)), "it is the oldest");
        given.join(1, join(11, None));
        assert!(given.seat(1).expect("seated").place > place_of_2);
        given.everybody_is_seated();
    });
}

#[test]
fn agents_are_seated_in_the_order_in_which_they_came() {
    let mut given = Given::a_topology(Ring, "{}", 0);
    for n in [5, 3, 9, 1] {
        given.send(1, CommandVerb::Join, agent(n).0, join(n, None));
    }
    given.0.settle();
    let order: Vec<_> = given.swarm(1).shape.seats().map(|(id, _)| id).collect();
    assert_eq!(order, [5, 3, 9, 1].map(agent));
    for n in [5, 3, 9, 1] {
        assert_eq!(given.times_seated(n, 1), 1);
    }
    given.everybody_is_seated();
}

#[test]
fn a_new_owner_seats_those_whom_the_old_one_left() {
    let mut given = Given::a_topology(Hierarchical, "{}", 0);
    for n in 1..=9 {
        given.send(1, CommandVerb::Join, agent(n).0, join(n, None));
    }
    // All have joined; of their places a few are stored, the others are lost with their owner.
    given.0.decide(9);
    while given.0.deliver().is_some() {}
    assert_eq!(given.swarm(1).shape.seated(), 0);
    given.0.decide(64);
    for _ in 0..4 {
        given.0.deliver();
    }
    given.0.claim();
    given.0.settle();
    given.everybody_is_seated();
    for n in 1..=9 {
        assert_eq!(given.times_seated(n, 1), 1, "agent {n}");
    }
    assert_eq!(given.0.cold(), given.0.state);
}

#[test]
fn a_lower_limit_leaves_the_youngest_without_work() {
    each_way(|| {
        let mut given = Given::a_topology(Star, "{}", 4);
        given.update(1, r#"{"configuration": {"max_workers": 2}}"#);
        assert_eq!(
            [1, 2, 3, 4].map(|a| given.works(a)),
            [true, true, false, false]
        );
        given.update(1, r#"{"configuration": {"max_workers": 3}}"#);
        assert_eq!(
            [1, 2, 3, 4].map(|a| given.works(a)),
            [true, true, true, false]
        );
    });
}

#[test]
fn one_agent_alone_works_in_every_topology() {
    for kind in [Star, Mesh, Hierarchical, Ring] {
        for agent_type in ["exec", "coordinator", "supervisor"] {
            let mut given = Given::a_topology(kind, "{}", 0);
            given.join(1, of_type(1, agent_type));
            assert!(given.works(1), "{kind:?} of one {agent_type}");
            assert_eq!(given.swarm(1).leader(), Some(agent(1)));
            given.everybody_is_seated();
        }
    }
}

#[test]
fn an_agent_that_has_not_joined_has_no_place() {
    let mut given = Given::a_topology(Star, "{}", 1);
    given.add(5, slot("exec"));
    assert_eq!(given.seat(5), None);
    given.join(5, of_type(5, "exec"));
    assert!(given.seat(5).is_some());
}

#[test]
fn a_swarm_that_ends_seats_nobody_and_elects_nobody() {
    let mut given = Given::a_topology(Star, "{}", 3);
    let from = given.0.log.len();
    given.delete(1);
    given.measured(0);
    given.0.run_out();
    assert!(given.swarm(1).deleted_at.is_some());
    assert_eq!(given.swarm(1).leader(), None);
    let said = given.0.log[from..].iter();
    let said = said.filter(|m| m.subject.contains("seated") || m.subject.contains("leader"));
    assert_eq!(said.count(), 0);
}

#[test]
fn a_renamed_agent_may_be_one_that_the_topology_names() {
    each_way(|| {
        let mut given = Given::a_topology(Star, r#"{"workers": ["painter"]}"#, 2);
        assert!(!given.works(2));
        let patch = swarm_events::command::UpdateAgent {
            incarnation: None,
            patch: support::topologies::json(r#"{"agent_name": "painter"}"#),
        };
        given.order(2, CommandVerb::UpdateAgent, patch);
        assert!(given.works(2));
    });
}

#[test]
fn what_contradicts_the_shape_is_void_and_changes_nothing() {
    let mut given = Given::a_topology(Ring, "{}", 2);
    let before = given.0.state.clone();
    let seat = given.seat(1).copied().expect("seated");
    let seated = Seated {
        generation: 2,
        seat: Some(seat),
        named: None,
        reason: "a generation that nobody planned".into(),
    };
    let subject = Subject::Agent(place(1), AgentVerb::Seated, agent(1));
    let body: Body = seated.into();
    let epoch = given.0.claim_of(Service::Coordinator);
    let verdict = given
        .0
        .other(Service::Coordinator, subject, agent(1).0, body, epoch, 1);
    assert!(matches!(verdict, Verdict::Void(_)), "{verdict:?}");
    assert_eq!(
        given.0.state.swarms().next(),
        before.swarms().next(),
        "nothing has changed"
    );
    assert_eq!(given.0.state.head().voids, before.head().voids + 1);
}

#[test]
fn a_joiner_that_fails_before_it_is_seated_is_not_seated() {
    let mut given = Given::a_topology(Mesh, "{}", 1);
    given.send(1, CommandVerb::Join, agent(2).0, join(2, None));
    given.0.decide(1);
    given.0.deliver();
    assert!(given.agent(2).is_live());
    let failed = Failed {
        incarnation: 1,
        evidence: support::evidence(4_100, 4_000),
    };
    given.health(2, AgentVerb::Failed, failed);
    assert_eq!(given.times_seated(2, 1), 0);
    given.everybody_is_seated();
}

#[test]
fn a_snapshot_in_the_middle_of_a_change_goes_on_as_the_log_does() {
    let mut given = Given::a_topology(Star, "{}", 6);
    given.a_change_under_way(Hierarchical, "{}", 3);
    let bytes = postcard::to_stdvec(&given.0.state).expect("encoded");
    let from = given.0.log.len();
    given.0.settle();
    assert_eq!(given.swarm(1).topology().kind(), Hierarchical);
    let mut state: Coordinator = postcard::from_bytes(&bytes).expect("decoded");
    for stored in &given.0.log[from..] {
        state.evolve(&stored.input(), None);
    }
    assert_eq!(state, given.0.state);
}

#[test]
fn a_thousand_agents_that_come_at_once_are_each_seated_and_led_once() {
    const AGENTS: u128 = 1_000;
    for kind in [Star, Mesh, Hierarchical, Ring] {
        let mut given = Given::a_topology(kind, "{}", 0);
        for n in 1..=AGENTS {
            given.send(1, CommandVerb::Join, agent(n).0, join(n, None));
        }
        given.0.settle();
        given.everybody_is_seated();
        let swarm = given.swarm(1);
        assert_eq!(swarm.shape.seats().count(), 1_000, "{kind:?}");
        // What is written again because others came: who was a worker is promoted as a tree grows, and never moved otherwise.
        let inner = swarm
            .shape
            .seats()
            .filter(|(_, seat)| seat.role != Role::Worker);
        let inner = inner.count();
        let seated = given.0.log.iter();
        let seated = seated.filter(|stored| stored.subject.contains(".seated."));
        let most = match kind {
            Hierarchical => 1_000 + inner,
            _ => 1_000,
        };
        assert!((1_000..=most).contains(&seated.count()), "{kind:?}");
        assert_eq!(given.elections().len(), 1, "{kind:?}");
        assert_eq!(swarm.leader(), Some(agent(1)), "{kind:?}");
        match swarm.topology() {
            Topology::Star(star) => {
                assert_eq!(inner, star.coordinator_count as usize);
                let standby = swarm.shape.seats().filter(|(_, seat)| seat.standby);
                assert_eq!(standby.count(), 1);
            }
            Topology::Hierarchical(tree) => {
                let mut children: BTreeMap<_, u32> = BTreeMap::new();
                for (_, seat) in swarm.shape.seats() {
                    *children.entry(seat.parent).or_default() += 1;
                }
                let most = children.iter().filter(|(parent, _)| parent.is_some());
                let most = most.map(|(_, count)| *count).max();
                assert!(most <= Some(tree.parent_child_ratio), "{most:?}");
            }
            // Everybody is a worker, and each has a place of its own in the circle.
            Topology::Mesh(_) | Topology::Ring(_) => {
                let places: BTreeSet<u64> =
                    swarm.shape.seats().map(|(_, seat)| seat.place).collect();
                assert_eq!((inner, places.len()), (0, 1_000));
            }
        }
    }
}
