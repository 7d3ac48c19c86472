//! Rules about swarms: create, update, delete, status.

mod support;

use support::{Given, P, agent, create, join, org, pair, place};
use swarm_coordinator_core::{STOP_WAIT_IDLE_MS, STOP_WAIT_MS_MAX, SwarmStatus, Touched};
use swarm_events::{
    Body, Json, OrgId, Place, Subject,
    agent::Recovered,
    configuration::TopologyKind,
    decider::{AHEAD_MS_MAX, REMEMBERED_MS, Verdict},
    subject::{AgentVerb, CommandVerb, Service, SwarmVerb},
};
use uuid::Uuid;

#[test]
fn a_swarm_is_created_with_defaults_filled_in() {
    let mut given = Given::an_organization();
    let mut order = create("crawlers");
    order.topology = Some(TopologyKind::Ring);
    order.configuration = Json::parse(r#"{"min_agents": 2}"#).expect("JSON");
    let id = given.command(1, CommandVerb::Create, order);
    assert_eq!(given.answered_by(id), "swarm.swarm.created.v4");
    let swarm = given.swarm(1);
    assert_eq!(swarm.name, "crawlers");
    assert_eq!(swarm.topology().kind(), TopologyKind::Ring);
    assert_eq!(
        (
            swarm.configuration.min_agents,
            swarm.configuration.max_agents
        ),
        (2, 1_000)
    );
    assert_eq!(swarm.created_by, Some(support::user()));
    assert_eq!(swarm.status(), SwarmStatus::Starting);
    assert_eq!(given.0.state.open_marks(), 0);
}

#[test]
fn a_swarm_is_refused_by_the_field_that_is_wrong() {
    let mut given = Given::a_swarm("{}");
    let mut cases = vec![
        (create(""), "empty", "name"),
        (create(" "), "empty", "name"),
        (create(&"x".repeat(101)), "too-long", "name"),
        (create("a\nb"), "control-character", "name"),
        (create("s1"), "name-taken", "name"),
    ];
    let mut order = create("x");
    order.description = Some("d".repeat(10_001));
    cases.push((order, "too-long", "description"));
    for (order, code, field) in cases {
        let id = given.command(2, CommandVerb::Create, order);
        assert_eq!(given.refused(id), pair(code, field));
    }
    for longest in ["n".repeat(100), "ü".repeat(100)] {
        let id = given.command(longest.len(), CommandVerb::Create, create(&longest));
        assert_eq!(given.answered_by(id), "swarm.swarm.created.v4");
    }
}

#[test]
fn a_swarm_of_an_unknown_organization_is_refused() {
    let mut given = Given::nothing();
    let id = given.command(1, CommandVerb::Create, create("s"));
    assert_eq!(given.refused(id), pair("unknown-organization", "org"));
}

#[test]
fn the_same_swarm_id_in_two_organizations_is_two_swarms() {
    let mut given = Given::a_swarm("{}");
    let other = OrgId(support::id_here(101));
    let subject = Subject::OrgCommand(P, other, CommandVerb::CreateOrg);
    let mut order = support::create_org();
    order.key_sha256 = support::sha(9);
    given.0.client(subject, other.0, order);
    given.0.settle();
    let twin = Place::new(other, place(1).swarm);
    let id = given.0.client(
        Subject::Command(twin, CommandVerb::Create),
        twin.swarm.0,
        create("s1"),
    );
    given.0.settle();
    assert_eq!(given.answered_by(id), "swarm.swarm.created.v4");
    assert_eq!(given.0.state.swarms_of(org()).count(), 1);
    assert_eq!(given.0.state.swarms_of(other).count(), 1);
}

#[test]
fn a_repeated_create_says_whether_it_is_the_same() {
    let mut given = Given::an_organization();
    let keyed = |name: &str, hash: &str| swarm_events::command::Create {
        body_sha256: Some(hash.into()),
        ..create(name)
    };
    given.command(1, CommandVerb::Create, keyed("s1", "aa"));
    let id = given.command(1, CommandVerb::Create, keyed("s1", "aa"));
    assert_eq!(given.refused(id), pair("already-exists", "id"));
    let id = given.command(1, CommandVerb::Create, keyed("s1", "bb"));
    assert_eq!(given.refused(id), pair("key-reused", "Idempotency-Key"));

    given.command(2, CommandVerb::Create, create("s2"));
    let id = given.command(2, CommandVerb::Create, create("s2"));
    assert_eq!(given.refused(id), pair("already-exists", "id"));
    let id = given.command(2, CommandVerb::Create, create("s3"));
    assert_eq!(given.refused(id), pair("id-taken", "id"));
}

#[test]
fn of_two_creates_with_one_name_at_once_the_first_wins() {
    let mut given = Given::an_organization();
    let first = given.send(1, CommandVerb::Create, place(1).swarm.0, create("same"));
    let second = given.send(2, CommandVerb::Create, place(2).swarm.0, create("same"));
    assert_eq!(given.0.decide(10), 1, "the second waits for the first");
    given.0.settle();
    assert_eq!(given.answered_by(first), "swarm.swarm.created.v4");
    assert_eq!(given.refused(second), pair("name-taken", "name"));
}

#[test]
fn a_command_is_handled_once_whatever_its_id_is_used_for_again() {
    let mut given = Given::an_organization();
    let id = given.command(1, CommandVerb::Create, create("s1"));
    let subject = Subject::Command(place(2), CommandVerb::Create);
    let verdict = given
        .0
        .client_as(id, subject, place(2).swarm.0, create("s2"));
    assert_eq!(verdict, Verdict::Void("repeated-command"));
    given.0.settle();
    assert_eq!(given.0.answers(id).len(), 1);
    assert!(given.0.state.swarm(org(), place(2).swarm).is_none());
    assert!(given.0.state.command_seen(id).is_some());
}

#[test]
fn ids_from_too_long_ago_or_far_ahead_are_refused() {
    let mut given = Given::an_organization();
    let old = given.0.id();
    given.command(1, CommandVerb::Create, create("s1"));
    given.0.later(REMEMBERED_MS + 1_000);
    // Remembered ids are dropped when a newer one is noted.
    given.command(2, CommandVerb::Create, create("s2"));
    given.0.client_as(
        old,
        Subject::Command(place(3), CommandVerb::Create),
        place(3).swarm.0,
        create("s3"),
    );
    given.0.settle();
    assert_eq!(given.refused(old), pair("stale-id", "id"));

    let now = given.0.now;
    for (ahead, code) in [
        (AHEAD_MS_MAX, None),
        (AHEAD_MS_MAX + 1, Some("id-from-the-future")),
    ] {
        given.0.now = now.plus_millis(ahead);
        let id = given.0.id();
        given.0.now = now;
        given.0.client_as(
            id,
            Subject::Command(place(4), CommandVerb::Delete),
            place(4).swarm.0,
            swarm_events::command::Delete {},
        );
        given.0.settle();
        assert_eq!(given.refusal(id).code, code.unwrap_or("unknown-swarm"));
    }
    // An id from the future must not push the horizon there.
    given.0.later(REMEMBERED_MS + 1_000);
    let id = given.command(5, CommandVerb::Create, create("s5"));
    assert_eq!(given.answered_by(id), "swarm.swarm.created.v4");
    let id = given.command(6, CommandVerb::Create, create("s6"));
    assert_eq!(given.answered_by(id), "swarm.swarm.created.v4");
}

#[test]
fn an_update_merges() {
    let mut given = Given::a_swarm(r#"{"min_agents": 3, "max_agents": 9}"#);
    let id = given.update(
        1,
        r#"{"description": "d", "configuration": {"min_agents": null, "retry": {"cap_ms": 7}}}"#,
    );
    assert_eq!(given.answered_by(id), "swarm.swarm.updated.v4");
    let swarm = given.swarm(1);
    assert_eq!(
        (swarm.name.as_str(), swarm.description.as_deref()),
        ("s1", Some("d"))
    );
    assert_eq!(
        (
            swarm.configuration.min_agents,
            swarm.configuration.max_agents
        ),
        (0, 9)
    );
    assert_eq!(
        (
            swarm.configuration.retry.cap_ms,
            swarm.configuration.retry.base_ms
        ),
        (7, 500)
    );
    given.update(1, r#"{"description": null, "configuration": null}"#);
    assert_eq!(given.swarm(1).description, None);
    assert_eq!(given.swarm(1).configuration.max_agents, 1_000);
}

#[test]
fn an_update_is_refused_by_the_field_that_is_wrong() {
    let mut given = Given::a_swarm("{}");
    given.command(2, CommandVerb::Create, create("s2"));
    for (patch, code, field) in [
        (r#"{"topology": "ring"}"#, "unknown-field", "topology"),
        (r#"{"name": null}"#, "wrong-type", "name"),
        (r#"{"name": "s2"}"#, "name-taken", "name"),
        (r#"{"description": 3}"#, "wrong-type", "description"),
        (
            r#"{"configuration": {"min_agents": 2000}}"#,
            "out-of-range",
            "configuration.min_agents",
        ),
        ("3", "wrong-type", "patch"),
    ] {
        let id = given.update(1, patch);
        assert_eq!(given.refused(id), pair(code, field), "{patch}");
    }
    let id = given.update(9, "{}");
    assert_eq!(given.refused(id), pair("unknown-swarm", "swarm"));
}

#[test]
fn a_renamed_swarm_frees_its_name() {
    let mut given = Given::a_swarm("{}");
    given.update(1, r#"{"name": "new"}"#);
    let id = given.command(2, CommandVerb::Create, create("s1"));
    assert_eq!(given.answered_by(id), "swarm.swarm.created.v4");
    assert_eq!(
        given
            .0
            .state
            .swarm_named(org(), "new")
            .map(|s| s.place.swarm),
        Some(place(1).swarm)
    );
}

#[test]
fn the_status_follows_from_the_fields() {
    let mut given = Given::a_swarm(r#"{"min_agents": 0}"#);
    assert_eq!(given.swarm(1).status(), SwarmStatus::Inactive);
    given.update(1, r#"{"configuration": {"min_agents": 2}}"#);
    assert_eq!(given.swarm(1).status(), SwarmStatus::Starting);
    given.join(1, join(1, None));
    assert_eq!(given.swarm(1).status(), SwarmStatus::Starting);
    given.join(2, join(2, None));
    assert_eq!(given.swarm(1).status(), SwarmStatus::Active);
    given.join(3, join(3, None));
    given.suspected(3, 1);
    assert_eq!(
        given.swarm(1).status(),
        SwarmStatus::Degraded,
        "enough healthy ones, and one in doubt"
    );
    let recovered = Recovered {
        incarnation: 1,
        evidence: support::evidence(10, 2_500),
    };
    given.health(3, AgentVerb::Recovered, recovered);
    assert_eq!(given.swarm(1).status(), SwarmStatus::Active);
    given.leave(3, 1);
    assert_eq!(given.swarm(1).status(), SwarmStatus::Active);
    given.failed(2, 1);
    assert_eq!(given.swarm(1).status(), SwarmStatus::Degraded);
    given.update(1, r#"{"configuration": {"min_agents": 1}}"#);
    assert_eq!(given.swarm(1).status(), SwarmStatus::Active);
    given.delete(1);
    assert_eq!(given.swarm(1).status(), SwarmStatus::Stopping);
    given.measured(0);
    assert_eq!(given.swarm(1).status(), SwarmStatus::Inactive);
}

#[test]
fn a_deletion_waits_for_the_tasks_then_removes_the_agents_then_ends() {
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, None));
    given.join(2, join(2, None));
    given.measured(5);
    let id = given.delete(1);
    assert_eq!(given.answered_by(id), "swarm.swarm.stopping.v1");
    let stopping = given.0.answer(id);
    given.measured(3);
    assert_eq!(
        given.swarm(1).live_agents(),
        2,
        "agents finish what is cancelled first"
    );
    given.measured(0);
    assert!(given.swarm(1).deleted_at.is_some());
    let answers = given.0.answers(stopping.id.0);
    let types: Vec<_> = answers.iter().map(|e| e.body.type_name()).collect();
    assert_eq!(
        types,
        [
            "swarm.agent.removed.v1",
            "swarm.agent.removed.v1",
            "swarm.swarm.deleted.v1"
        ]
    );
    let Body::AgentRemoved(removed) = &answers[0].body else {
        panic!("a removal")
    };
    assert_eq!(removed.reason, "swarm-deleted");
    assert_eq!(given.0.state.open_marks(), 0);
    // Its name is free again, its id is not.
    let again = given.command(2, CommandVerb::Create, create("s1"));
    assert_eq!(given.answered_by(again), "swarm.swarm.created.v4");
    let again = given.command(1, CommandVerb::Create, create("other"));
    assert_eq!(given.refused(again), pair("id-taken", "id"));
}

#[test]
fn figures_from_before_the_stop_do_not_end_a_swarm() {
    let mut given = Given::a_swarm("{}");
    given.measured(0);
    // Decided before `stopping` was met, stored after it: it knows nothing of tasks that came in between.
    let epoch = given.0.claim_of(Service::Distributor);
    let id = given.delete(1);
    assert_eq!(given.answered_by(id), "swarm.swarm.stopping.v1");
    let measured = swarm_events::swarm::Measured::default();
    let subject = Subject::Swarm(place(1), SwarmVerb::Measured);
    let source =
        swarm_events::envelope::Source::Service(Service::Distributor, support::instance(1));
    let event_id = swarm_events::EventId(Uuid::from_u128(77));
    let mut event = swarm_events::Event::new(
        event_id,
        source,
        given.0.now,
        &subject,
        place(1).swarm.0,
        measured,
    );
    event.decided = Some(swarm_events::envelope::Decided {
        cause_sequence: epoch,
        epoch,
        ordinal: 1,
        decider_version: 1,
    });
    assert_eq!(given.0.event(&subject, &event), Verdict::Applied);
    given.0.settle();
    assert!(given.swarm(1).deleted_at.is_none());
    given.measured(0);
    assert!(given.swarm(1).deleted_at.is_some());
}

#[test]
fn a_deletion_cannot_hang_on_a_silent_distributor() {
    for (measured, wait) in [
        (None, STOP_WAIT_IDLE_MS),
        (Some(0), STOP_WAIT_IDLE_MS),
        (Some(4), STOP_WAIT_MS_MAX),
    ] {
        let mut given = Given::a_swarm("{}");
        given.join(1, join(1, None));
        if let Some(open) = measured {
            given.measured(open);
        }
        given.delete(1);
        given.0.later(wait - 1);
        assert!(given.swarm(1).deleted_at.is_none());
        assert_eq!(given.swarm(1).live_agents(), 1);
        given.0.later(1);
        assert!(given.swarm(1).deleted_at.is_some());
        assert_eq!(given.0.next_deadline(), None);
    }
}

#[test]
fn a_stopping_swarm_lets_agents_go_and_takes_nothing_new() {
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, None));
    given.join(2, join(2, None));
    given.delete(1);
    let id = given.delete(1);
    assert_eq!(given.refused(id), pair("swarm-stopping", "swarm"));
    let id = given.update(1, "{}");
    assert_eq!(given.refused(id), pair("swarm-stopping", "swarm"));
    let id = given.join(3, join(3, None));
    assert_eq!(given.refused(id), pair("swarm-stopping", "swarm"));
    let id = given.leave(1, 1);
    assert_eq!(given.answered_by(id), "swarm.agent.left.v1");
    given.failed(2, 1);
    assert_eq!(given.swarm(1).live_agents(), 0);
    given.measured(0);
    let id = given.delete(1);
    assert_eq!(given.refused(id), pair("swarm-deleted", "swarm"));
}

#[test]
fn events_whose_precondition_fails_are_void() {
    let mut given = Given::a_swarm("{}");
    let swarm = |verb| Subject::Swarm(place(1), verb);
    let about = place(1).swarm.0;
    let state = given.0.state.clone();
    let voids = state.head_voids();
    // Under a claim of another coordinator process, so that only the preconditions speak.
    let epoch = given.0.claim_of(Service::Coordinator);
    let deleted = given.0.other(
        Service::Coordinator,
        swarm(SwarmVerb::Deleted),
        about,
        swarm_events::swarm::Deleted {},
        epoch,
        1,
    );
    assert_eq!(deleted, Verdict::Void("not-stopping"));
    let repeat = given.0.other(
        Service::Coordinator,
        swarm(SwarmVerb::Stopping),
        about,
        swarm_events::swarm::Stopping {},
        epoch,
        1,
    );
    assert_eq!(repeat, Verdict::Void("repeated-decision"));
    let stale = given.0.other(
        Service::Coordinator,
        swarm(SwarmVerb::Stopping),
        about,
        swarm_events::swarm::Stopping {},
        epoch - 1,
        9,
    );
    assert_eq!(stale, Verdict::Void("stale-epoch"));
    let gone = swarm_events::agent::Left {
        incarnation: 1,
        reason: "x".into(),
    };
    let left = given.0.other(
        Service::Coordinator,
        Subject::Agent(place(1), AgentVerb::Left, agent(1)),
        agent(1).0,
        gone,
        epoch,
        2,
    );
    assert_eq!(left, Verdict::Void("unknown-agent"));
    assert_eq!(given.0.state.head_voids(), voids + 4);
    assert_eq!(
        given.0.state.swarm(org(), place(1).swarm),
        state.swarm(org(), place(1).swarm)
    );
}

trait Voids {
    fn head_voids(&self) -> u64;
}
impl Voids for swarm_coordinator_core::Coordinator {
    fn head_voids(&self) -> u64 {
        use swarm_events::decider::Decider;
        self.head().voids
    }
}

#[test]
fn a_traced_fold_names_what_it_changed() {
    use swarm_events::decider::Decider;
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, None));
    let mut state = swarm_coordinator_core::Coordinator::new(P);
    let mut touched = Touched::default();
    let mut seen = Vec::new();
    for input in given.0.inputs() {
        touched.clear();
        state.evolve_traced(&input, &mut touched);
        let counts = (
            touched.orgs.len(),
            touched.users.len(),
            touched.keys.len(),
            touched.swarms.len(),
            touched.agents.len(),
        );
        if !touched.is_empty() {
            seen.push(counts);
        }
    }
    assert_eq!(
        seen,
        [
            (1, 0, 0, 0, 0),
            (0, 1, 0, 0, 0),
            (0, 0, 1, 0, 0),
            (0, 0, 0, 1, 0),
            (0, 0, 0, 1, 1),
            // Its place in the topology, and the election.
            (0, 0, 0, 0, 1),
            (0, 0, 0, 1, 1)
        ]
    );
    assert_eq!(state, given.0.state);
}

#[test]
fn an_input_that_stuck_its_owners_is_refused_with_their_claim() {
    use swarm_events::control::{Claimed, Stuck};
    let mut given = Given::an_organization();
    let id = given.send(1, CommandVerb::Create, place(1).swarm.0, create("s1"));
    let sequence = given.0.log.last().expect("stored").sequence;
    let claimed = Claimed {
        instance: support::instance(1),
        decider_version: 1,
        previous: 0,
        reason: "doubt".into(),
        rejects: vec![Stuck {
            sequence,
            problem: swarm_events::Problem::new("stuck", "deciding on it failed twice"),
        }],
    };
    given.0.control(
        Service::Coordinator,
        swarm_events::subject::ControlVerb::Claimed,
        claimed,
    );
    given.0.claim();
    given.0.settle();
    assert_eq!(given.refusal(id).code, "stuck");
    assert!(given.0.state.swarm(org(), place(1).swarm).is_none());
    assert_eq!(given.0.state.open_marks(), 0);
    assert_eq!(given.0.cold(), given.0.state);
}
