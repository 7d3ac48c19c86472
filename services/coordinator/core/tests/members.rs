//! Rules about agents: join, leave, remove, and what health's verdicts lead to.

mod support;

use support::{Given, agent, instance, join, pair};
use swarm_coordinator_core::{Liveness, METADATA_BYTES_MAX, Membership};
use swarm_events::{
    Body, Json,
    agent::{CAPABILITIES_MAX, CAPABILITY_BYTES_MAX},
    command::Join,
    configuration::{SLOTS_MAX, WAITING_MAX},
    subject::CommandVerb,
};

#[test]
fn a_process_joins_with_the_swarms_settings_where_it_names_none() {
    let mut given = Given::a_swarm(r#"{"agent_slots": 4, "agent_waiting": 2}"#);
    let id = given.join(1, join(1, None));
    assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
    let found = given.agent(1);
    assert_eq!((found.incarnation, found.instance), (1, instance(1)));
    assert_eq!((found.profile.slots, found.profile.waiting), (4, 2));
    assert_eq!(
        found.profile.capabilities,
        ["a", "b"],
        "sorted, without repeats"
    );
    assert!(found.profile.agent_name.starts_with("exec-"));
    assert!(found.is_healthy());
}

#[test]
fn the_same_process_joins_once() {
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, None));
    let id = given.join(1, join(1, None));
    assert_eq!(given.refused(id), pair("already-joined", "instance"));
    assert_eq!(given.agent(1).incarnation, 1);
    given.leave(1, 1);
    let id = given.join(1, join(1, None));
    assert_eq!(given.refused(id), pair("instance-ended", "instance"));
}

#[test]
fn a_newer_process_takes_over_and_fences_the_old_one() {
    let mut given = Given::a_swarm(r#"{"max_agents": 1}"#);
    given.join(1, join(1, Some("a")));
    given.suspected(1, 1);
    let id = given.join(1, join(2, Some("a")));
    assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
    let found = given.agent(1);
    assert_eq!(
        (found.incarnation, found.instance, found.liveness),
        (2, instance(2), Liveness::Alive)
    );
    assert_eq!(given.swarm(1).live_agents(), 1);
    // The old one's words, and verdicts on it, are nothing any more.
    let id = given.leave(1, 1);
    assert_eq!(given.refused(id), pair("other-incarnation", "incarnation"));
    given.failed(1, 1);
    assert!(given.agent(1).is_healthy());
    given.failed(1, 2);
    assert_eq!(given.agent(1).membership, Membership::Removed);
}

#[test]
fn a_swarm_takes_no_more_agents_than_it_may() {
    let mut given = Given::a_swarm(r#"{"max_agents": 2}"#);
    given.join(1, join(1, None));
    given.join(2, join(2, None));
    let id = given.join(3, join(3, None));
    assert_eq!(
        given.refused(id),
        pair("max-agents", "configuration.max_agents")
    );
    given.leave(1, 1);
    let id = given.join(3, join(3, None));
    assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
}

#[test]
fn a_star_takes_no_more_workers_than_it_may() {
    let mut given = Given::a_swarm(r#"{"max_workers": 1}"#);
    given.join(1, join(1, None));
    let id = given.join(2, join(2, None));
    assert_eq!(
        given.refused(id),
        pair("max-workers", "configuration.max_workers")
    );
}

#[test]
fn joins_at_once_are_pipelined_and_the_limit_still_holds() {
    let mut given = Given::a_swarm(r#"{"max_agents": 3}"#);
    let ids: Vec<_> = (1..=5)
        .map(|n| given.send(1, CommandVerb::Join, agent(n).0, join(n, None)))
        .collect();
    assert_eq!(
        given.0.decide(10),
        3,
        "all that there is room for go out together"
    );
    given.0.settle();
    let joined = ids
        .iter()
        .filter(|id| given.answered_by(**id) == "swarm.agent.joined.v1");
    assert_eq!(joined.count(), 3);
    assert_eq!(given.swarm(1).live_agents(), 3);
}

#[test]
fn a_name_belongs_to_one_live_agent() {
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, Some("a")));
    let id = given.join(2, join(2, Some("a")));
    assert_eq!(given.refused(id), pair("name-taken", "agent_name"));
    // At once: the second is not promised what the first will have.
    let first = given.send(1, CommandVerb::Join, agent(3).0, join(3, Some("b")));
    let second = given.send(1, CommandVerb::Join, agent(4).0, join(4, Some("b")));
    given.0.settle();
    assert_eq!(given.answered_by(first), "swarm.agent.joined.v1");
    assert_eq!(given.refused(second), pair("name-taken", "agent_name"));
    given.remove(1);
    let id = given.join(2, join(5, Some("a")));
    assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
}

#[test]
fn a_join_is_refused_by_the_field_that_is_wrong() {
    let mut given = Given::a_swarm("{}");
    let base = || join(1, None);
    let many = |n: usize| (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>();
    let cases = [
        (
            Join {
                agent_type: String::new(),
                ..base()
            },
            "empty",
            "agent_type",
        ),
        (
            Join {
                agent_type: "x".repeat(51),
                ..base()
            },
            "too-long",
            "agent_type",
        ),
        (
            Join {
                agent_name: Some("x".repeat(101)),
                ..base()
            },
            "too-long",
            "agent_name",
        ),
        (
            Join {
                capabilities: many(CAPABILITIES_MAX + 1),
                ..base()
            },
            "too-many",
            "capabilities",
        ),
        (
            Join {
                capabilities: vec!["x".repeat(CAPABILITY_BYTES_MAX + 1)],
                ..base()
            },
            "too-long",
            "capabilities[0]",
        ),
        (
            Join {
                capabilities: vec![String::new()],
                ..base()
            },
            "empty",
            "capabilities[0]",
        ),
        (
            Join {
                slots: Some(0),
                ..base()
            },
            "out-of-range",
            "slots",
        ),
        (
            Join {
                slots: Some(SLOTS_MAX + 1),
                ..base()
            },
            "out-of-range",
            "slots",
        ),
        (
            Join {
                waiting: Some(WAITING_MAX + 1),
                ..base()
            },
            "out-of-range",
            "waiting",
        ),
        (
            Join {
                metadata: Json::parse("[]").expect("JSON"),
                ..base()
            },
            "wrong-type",
            "metadata",
        ),
        (
            Join {
                metadata: Json::parse(&format!(r#"{{"a":"{}"}}"#, "x".repeat(METADATA_BYTES_MAX)))
                    .expect("JSON"),
                ..base()
            },
            "too-long",
            "metadata",
        ),
    ];
    for (order, code, field) in cases {
        let id = given.join(1, order);
        assert_eq!(given.refused(id), pair(code, field));
    }
    let most = Join {
        agent_type: "x".repeat(50),
        agent_name: Some("x".repeat(100)),
        capabilities: many(CAPABILITIES_MAX),
        slots: Some(SLOTS_MAX),
        waiting: Some(WAITING_MAX),
        ..base()
    };
    let id = given.join(1, most);
    assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
}

#[test]
fn who_is_gone_cannot_go_again() {
    let mut given = Given::a_swarm("{}");
    let id = given.leave(1, 1);
    assert_eq!(given.refused(id), pair("unknown-agent", "agent"));
    given.join(1, join(1, None));
    let id = given.leave(1, 1);
    assert_eq!(given.answered_by(id), "swarm.agent.left.v1");
    let found = given.agent(1);
    assert_eq!(
        (found.membership, found.left_reason.as_deref()),
        (Membership::Left, Some("left"))
    );
    let id = given.remove(1);
    assert_eq!(given.refused(id), pair("already-stopped", "agent"));
}

#[test]
fn an_agent_that_failed_is_removed_with_the_evidence() {
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, None));
    given.failed(1, 1);
    let found = given.agent(1);
    assert_eq!(found.membership, Membership::Removed);
    let reason = found.left_reason.clone().expect("a reason");
    assert!(
        reason.contains("4100 ms") && reason.contains("4000 ms"),
        "{reason}"
    );
    assert_eq!(given.0.state.open_marks(), 0);
    let id = given.join(1, join(2, None));
    assert_eq!(given.answered_by(id), "swarm.agent.joined.v1");
    assert_eq!(given.agent(1).incarnation, 2);
}

#[test]
fn a_removal_that_crosses_a_failure_is_one_removal() {
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, None));
    let order = swarm_events::command::RemoveAgent {
        reason: Some("mine".into()),
        force: true,
        grace_ms: None,
    };
    let id = given.send(1, CommandVerb::RemoveAgent, agent(1).0, order);
    given.0.decide(10);
    // Health's verdict is stored before the removal.
    let epoch = given.0.claim_of(swarm_events::Service::Health);
    let subject = swarm_events::Subject::Agent(
        support::place(1),
        swarm_events::subject::AgentVerb::Failed,
        agent(1),
    );
    let failed = swarm_events::agent::Failed {
        incarnation: 1,
        evidence: support::evidence(1, 1),
    };
    given.0.other(
        swarm_events::Service::Health,
        subject,
        agent(1).0,
        failed,
        epoch,
        1,
    );
    given.0.settle();
    assert_eq!(given.answered_by(id), "swarm.agent.removed.v1");
    let removals = given.0.inputs().filter(|input| {
        matches!(input, swarm_events::Input::Event(r) if matches!(r.event.body, Body::AgentRemoved(_)))
    });
    assert_eq!(removals.count(), 1);
    assert_eq!(given.0.state.open_marks(), 0);
}
