//! Rules about changing a topology live: planned, seated, changed or kept.

mod support;

use support::{
    Given, agent,
    hosts::each_way,
    join, pair, place,
    topologies::{json, order},
};
use swarm_coordinator_core::TOPOLOGY_CHANGE_MS_MAX;
use swarm_events::{
    Body, Event, Problem,
    command::Create,
    configuration::TopologyKind::{self, Hierarchical, Mesh, Ring, Star},
    subject::CommandVerb,
    topology::Role,
};
use uuid::Uuid;

const KINDS: [TopologyKind; 4] = [Star, Mesh, Hierarchical, Ring];

fn words(answers: &[Event]) -> Vec<&'static str> {
    answers.iter().map(|event| event.body.type_name()).collect()
}

fn kept(given: &Given, id: Uuid) -> Problem {
    let answers = given.0.answers(id);
    assert_eq!(
        words(&answers),
        [
            "swarm.swarm.topology_planned.v1",
            "swarm.swarm.topology_kept.v1"
        ]
    );
    match &answers[1].body {
        Body::SwarmTopologyKept(kept) => kept.problem.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_is_planned_then_everybody_has_a_place_then_it_holds() {
    for from in KINDS {
        for to in KINDS.into_iter().filter(|to| *to != from) {
            each_way(|| {
                let mut given = Given::a_topology(from, "{}", 7);
                let id = given.change(to, "{}");
                let swarm = given.swarm(1);
                assert_eq!(swarm.topology().kind(), to);
                assert_eq!(swarm.shape.generation(), 2);
                assert!(swarm.change.is_none());
                given.everybody_is_seated();
                for a in 1..=7 {
                    assert_eq!(given.times_seated(a, 2), 1, "agent {a}, {from:?} to {to:?}");
                }
                let answers = given.0.answers(id);
                let [planned, changed] = &answers[..] else {
                    panic!("{answers:?}");
                };
                let (Body::SwarmTopologyPlanned(planned), Body::SwarmTopologyChanged(changed)) =
                    (&planned.body, &changed.body)
                else {
                    panic!("{answers:?}");
                };
                assert_eq!((planned.agents, changed.agents), (7, 7));
                assert_eq!(planned.moves, changed.moves);
                assert_eq!(changed.before.kind(), from);
                assert_eq!(changed.reason, "by order");
                let last = given.swarm(1).last_change.clone().expect("noted");
                assert_eq!((last.before, last.after), (from, to));
                assert_eq!((last.generation, last.problem), (2, None));
                // Who leads stays: it is still there.
                assert_eq!(given.elections().len(), 1);
            });
        }
    }
}

#[test]
fn other_options_of_the_same_topology_are_a_change_too() {
    let mut given = Given::a_topology(Mesh, "{}", 5);
    let id = given.change(
        Mesh,
        r#"{"connection_strategy": "nearest", "neighbours": 2}"#,
    );
    assert_eq!(given.0.answers(id).len(), 2);
    let shape = &given.swarm(1).shape;
    assert!(shape.may_message(agent(1), agent(2)).is_ok());
    assert!(shape.may_message(agent(1), agent(3)).is_err());
    // A patch goes over the options as they are.
    given.change(Mesh, r#"{"routing": "targeted"}"#);
    let options = given.swarm(1).topology().configuration().to_value();
    assert_eq!(options["connection_strategy"], "nearest");
    assert_eq!(options["routing"], "targeted");
    assert_eq!(given.swarm(1).shape.generation(), 3);
}

#[test]
fn a_preview_says_what_the_change_will_come_to() {
    let mut given = Given::a_topology(Star, "{}", 9);
    let (after, planned) = given
        .swarm(1)
        .preview(Hierarchical, &json(r#"{"parent_child_ratio": 3}"#))
        .expect("possible");
    let seats: Vec<_> = planned.changes.iter().map(|c| (c.agent, c.seat)).collect();
    given.change(Hierarchical, r#"{"parent_child_ratio": 3}"#);
    let swarm = given.swarm(1);
    assert_eq!(*swarm.topology(), after);
    let last = swarm.last_change.as_ref().expect("changed");
    assert_eq!((last.agents, last.moves), (planned.agents, planned.moves));
    for (agent, seat) in seats {
        assert_eq!(swarm.shape.seat(agent), seat.as_ref());
    }
}

#[test]
fn what_changes_nothing_is_refused() {
    let mut given = Given::a_topology(Star, "{}", 2);
    for options in ["{}", r#"{"coordinator_count": 1}"#, "null"] {
        let id = given.change(Star, options);
        assert_eq!(given.refused(id), pair("nothing-changes", "topology"));
        assert!(given.refusal(id).cure.is_some());
    }
}

#[test]
fn an_impossible_topology_is_refused_by_its_field() {
    let mut given = Given::a_topology(Star, "{}", 2);
    let level = |role: &str, count: u32| format!(r#"{{"role": "{role}", "count": {count}}}"#);
    let levels = |levels: &[String]| format!(r#"{{"levels": [{}]}}"#, levels.join(", "));
    let (top, middle, bottom) = (
        level("coordinator", 1),
        level("supervisor", 1),
        level("worker", 1),
    );
    let cases = [
        (
            Star,
            r#"{"coordinator_count": 1000}"#.into(),
            "too-many-coordinators",
            "coordinator_count",
        ),
        (
            Star,
            r#"{"max_workers": 0}"#.into(),
            "out-of-range",
            "max_workers",
        ),
        (Star, r#"{"hubs": 2}"#.into(), "bad-configuration", "hubs"),
        (
            Star,
            r#"{"failover_coordinator": "yes"}"#.into(),
            "bad-configuration",
            "failover_coordinator",
        ),
        (Mesh, r#"{"neighbours": 3}"#.into(), "odd", "neighbours"),
        (
            Mesh,
            r#"{"connections": [["a", "a"]]}"#.into(),
            "own-neighbour",
            "connections[0]",
        ),
        (
            Mesh,
            r#"{"gossip_interval_ms": -1}"#.into(),
            "bad-configuration",
            "gossip_interval_ms",
        ),
        (
            Hierarchical,
            r#"{"parent_child_ratio": 0}"#.into(),
            "out-of-range",
            "parent_child_ratio",
        ),
        (
            Hierarchical,
            levels(&[middle.clone(), bottom.clone()]),
            "wrong-level",
            "levels[0].role",
        ),
        (
            Hierarchical,
            levels(&[top.clone(), level("painter", 1)]),
            "bad-configuration",
            "levels[1].role",
        ),
        (
            Hierarchical,
            levels(std::slice::from_ref(&top)),
            "out-of-range",
            "levels",
        ),
        (
            Hierarchical,
            levels(&[top.clone(), level("worker", 0)]),
            "out-of-range",
            "levels[1].count",
        ),
        (
            Hierarchical,
            levels(&[level("coordinator", 1000), bottom]),
            "too-many-coordinators",
            "levels",
        ),
        (
            Hierarchical,
            r#"{"parents": {"a": "b", "b": "a"}}"#.into(),
            "cycle",
            "parents.a",
        ),
        (
            Ring,
            r#"{"token_timeout_ms": 0}"#.into(),
            "out-of-range",
            "token_timeout_ms",
        ),
        (
            Ring,
            r#"{"order": "random"}"#.into(),
            "bad-configuration",
            "order",
        ),
    ];
    for (kind, options, code, field) in cases {
        let id = given.change(kind, &options);
        let (found, at) = given.refused(id);
        assert_eq!(found, code, "{options}");
        assert_eq!(at, format!("configuration.{field}"), "{options}");
        assert!(given.refusal(id).cure.is_some(), "{options}");
    }
    let id = given.change(Ring, "[]");
    assert_eq!(given.refused(id), pair("wrong-type", "configuration"));
    assert_eq!(given.swarm(1).shape.generation(), 1);
    let id = given.command(2, CommandVerb::ChangeTopology, order(Ring, "{}"));
    assert_eq!(given.refused(id), pair("unknown-swarm", "swarm"));
}

#[test]
fn an_impossible_topology_is_refused_when_the_swarm_is_created() {
    let mut given = Given::an_organization();
    let create = Create {
        topology: Some(Hierarchical),
        topology_configuration: json(r#"{"parent_child_ratio": 0}"#),
        ..support::create("s1")
    };
    let id = given.command(1, CommandVerb::Create, create);
    let wanted = pair("out-of-range", "configuration.parent_child_ratio");
    assert_eq!(given.refused(id), wanted);
}

#[test]
fn only_one_change_is_under_way_at_a_time() {
    let mut given = Given::a_topology(Star, "{}", 6);
    let first = given.a_change_under_way(Ring, "{}", 2);
    let second = given.send_change(Mesh, "{}");
    given.0.settle();
    let problem = given.refusal(second);
    assert_eq!(problem.code, "change-under-way");
    assert_eq!(problem.field.as_deref(), Some("topology"));
    assert!(problem.detail.contains("generation 2"), "{problem}");
    assert!(problem.cure.is_some());
    assert_eq!(given.0.answers(first).len(), 2);
    assert_eq!(given.swarm(1).topology().kind(), Ring);
    // It is over: the next one is taken.
    let third = given.change(Mesh, "{}");
    assert_eq!(given.0.answers(third).len(), 2);
    assert_eq!(given.swarm(1).shape.generation(), 3);
}

#[test]
fn until_it_holds_the_old_one_does() {
    let mut given = Given::a_topology(Star, "{}", 5);
    given.a_change_under_way(Hierarchical, "{}", 4);
    let swarm = given.swarm(1);
    assert_eq!(swarm.topology().kind(), Star);
    assert_eq!(given.role(1), Some(Role::Coordinator));
    assert_eq!(given.seat(3).expect("seated").parent, None);
    let staged = swarm.shape.staged().expect("staged");
    assert_eq!((staged.number(), staged.len()), (2, 4));
    let change = swarm.change.as_ref().expect("under way");
    assert_eq!((change.agents, change.reason.as_str()), (5, "by order"));
}

#[test]
fn who_comes_during_a_change_is_seated_in_both() {
    let mut given = Given::a_topology(Star, "{}", 4);
    given.a_change_under_way(Ring, "{}", 2);
    given.send(1, CommandVerb::Join, agent(9).0, join(9, None));
    given.0.settle();
    assert_eq!(given.swarm(1).topology().kind(), Ring);
    assert_eq!((given.times_seated(9, 1), given.times_seated(9, 2)), (1, 1));
    given.everybody_is_seated();
}

#[test]
fn who_fails_during_a_change_has_no_place_in_either_and_is_replaced_as_leader() {
    let mut given = Given::a_topology(Star, "{}", 4);
    given.a_change_under_way(Hierarchical, "{}", 3);
    given.failed(1, 1);
    given.0.settle();
    assert_eq!(given.swarm(1).topology().kind(), Hierarchical);
    assert_eq!(given.seat(1), None);
    assert_eq!(given.swarm(1).leader(), Some(agent(2)));
    given.everybody_is_seated();
}

#[test]
fn a_new_owner_completes_what_the_old_one_began() {
    for seats in 0..=6 {
        let mut given = Given::a_topology(Mesh, "{}", 6);
        let id = given.a_change_under_way(Hierarchical, "{}", seats);
        given.0.decide(64);
        given.0.claim();
        given.0.settle();
        assert_eq!(given.0.answers(id).len(), 2);
        assert_eq!(given.swarm(1).topology().kind(), Hierarchical);
        for a in 1..=6 {
            assert_eq!(given.times_seated(a, 2), 1);
        }
        assert_eq!(given.0.cold(), given.0.state);
    }
}

#[test]
fn a_change_that_takes_too_long_is_given_up() {
    for (waits, holds) in [
        (TOPOLOGY_CHANGE_MS_MAX - 1, Ring),
        (TOPOLOGY_CHANGE_MS_MAX, Star),
    ] {
        let mut given = Given::a_topology(Star, "{}", 4);
        let id = given.a_change_under_way(Ring, "{}", 2);
        // Its owner dies, and nobody decides for so long.
        given.0.claim();
        given.0.now = given.0.now.plus_millis(waits);
        let due = given.swarm(1).change.as_ref().expect("under way").due();
        assert_eq!(given.0.next_deadline(), Some(due));
        given.0.control(
            swarm_events::Service::Coordinator,
            swarm_events::subject::ControlVerb::Woken,
            swarm_events::control::Woken {},
        );
        given.0.settle();
        assert_eq!(given.swarm(1).topology().kind(), holds);
        assert!(given.swarm(1).change.is_none());
        given.everybody_is_seated();
        if holds == Star {
            let problem = kept(&given, id);
            assert_eq!(problem.code, "too-slow");
            assert!(problem.detail.contains("2 of 4"), "{problem}");
            let last = given.swarm(1).last_change.clone().expect("noted");
            assert_eq!(last.problem, Some(problem));
            // Its number is used up.
            given.change(Ring, "{}");
            assert_eq!(given.swarm(1).shape.generation(), 3);
        }
    }
}

#[test]
fn a_change_ends_with_its_swarm() {
    let mut given = Given::a_topology(Star, "{}", 4);
    let id = given.a_change_under_way(Ring, "{}", 2);
    given.delete(1);
    assert_eq!(kept(&given, id).code, "swarm-stopping");
    given.measured(0);
    given.0.run_out();
    assert!(given.swarm(1).deleted_at.is_some());
    let id = given.change(Mesh, "{}");
    assert_eq!(given.refused(id), pair("swarm-deleted", "swarm"));
}

#[test]
fn one_that_needs_agents_of_which_none_is_there_is_given_up() {
    for (options, field) in [
        (r#"{"workers": ["a", "b"]}"#, "configuration.workers"),
        (
            r#"{"coordinator": {"agent_name": "boss"}}"#,
            "configuration.coordinator",
        ),
    ] {
        each_way(|| {
            let mut given = Given::a_topology(Ring, "{}", 3);
            let id = given.change(Star, options);
            let problem = kept(&given, id);
            assert_eq!(problem.code, "nobody-there");
            assert_eq!(problem.field.as_deref(), Some(field));
            assert!(problem.cure.is_some());
            assert_eq!(given.swarm(1).topology().kind(), Ring);
            given.everybody_is_seated();
        });
        // Before anybody has come it may be prepared for them.
        let mut given = Given::a_topology(Ring, "{}", 0);
        given.change(Star, options);
        assert_eq!(given.swarm(1).topology().kind(), Star);
    }
}

#[test]
fn a_swarm_may_not_become_too_small_for_its_topology() {
    let mut given = Given::a_topology(Star, r#"{"coordinator_count": 3}"#, 2);
    let id = given.update(1, r#"{"configuration": {"max_agents": 3}}"#);
    let problem = given.refusal(id);
    assert_eq!(problem.code, "too-many-coordinators");
    assert_eq!(problem.field.as_deref(), Some("configuration.max_agents"));
    assert!(problem.cure.is_some());
    let id = given.update(1, r#"{"configuration": {"max_agents": 4}}"#);
    assert_eq!(given.answered_by(id), "swarm.swarm.updated.v4");
    // Nor may one that is about to hold.
    let mut given = Given::a_topology(Ring, "{}", 3);
    given.a_change_under_way(Star, r#"{"coordinator_count": 3}"#, 1);
    let patch = json(r#"{"configuration": {"max_agents": 3}}"#);
    let about = place(1).swarm.0;
    let order = swarm_events::command::Update { patch };
    let id = given.send(1, CommandVerb::Update, about, order);
    given.0.settle();
    let wanted = pair("too-many-coordinators", "configuration.max_agents");
    assert_eq!(given.refused(id), wanted);
}

#[test]
fn a_reason_is_carried_and_has_a_limit() {
    let mut given = Given::a_topology(Star, "{}", 1);
    let mut long = order(Ring, "{}");
    long.reason = Some("x".repeat(10_001));
    let id = given.command(1, CommandVerb::ChangeTopology, long.clone());
    assert_eq!(given.refused(id), pair("too-long", "reason"));
    long.reason = Some("x".repeat(10_000));
    given.command(1, CommandVerb::ChangeTopology, long);
    let last = given.swarm(1).last_change.as_ref().expect("changed");
    assert_eq!(last.reason.len(), 10_000);
}

/// A claim that names the input on which deciding failed.
fn gives_up(given: &mut Given, sequence: u64) {
    use swarm_events::control::{Claimed, Stuck};
    let claimed = Claimed {
        instance: support::instance(1),
        decider_version: 1,
        previous: 0,
        reason: "doubt".into(),
        rejects: vec![Stuck {
            sequence,
            problem: Problem::new("stuck", "deciding on it failed twice"),
        }],
    };
    given.0.control(
        swarm_events::Service::Coordinator,
        swarm_events::subject::ControlVerb::Claimed,
        claimed,
    );
    given.0.claim();
    given.0.settle();
}

#[test]
fn a_change_on_which_deciding_failed_is_given_up() {
    let mut given = Given::a_topology(Star, "{}", 3);
    let id = given.a_change_under_way(Ring, "{}", 0);
    let planned = given.0.log.last().expect("planned").sequence;
    gives_up(&mut given, planned);
    assert_eq!(kept(&given, id).code, "stuck");
    assert_eq!(given.swarm(1).topology().kind(), Star);
    given.everybody_is_seated();
}

#[test]
fn an_agent_on_which_deciding_failed_has_no_place_until_something_changes() {
    let mut given = Given::a_topology(Star, "{}", 1);
    given.send(1, CommandVerb::Join, agent(2).0, join(2, None));
    given.0.decide(1);
    given.0.deliver();
    let joined = given.0.log.last().expect("joined").sequence;
    gives_up(&mut given, joined);
    assert_eq!(given.seat(2), None);
    given.join(3, join(3, None));
    given.everybody_is_seated();
}
