//! Rules about organizations, users and keys.

mod support;

use support::{Given, create_org, org, pair, sha, user};
use swarm_events::{
    Json, KeyId, OrgId, Subject, UserId,
    command::{CreateKey, RevokeKey, UpdateOrg},
    decider::Verdict,
    org::{QUEUE_LIMIT_MAX, Role},
    subject::CommandVerb,
};
use uuid::Uuid;

fn key(n: u8, role: Role) -> CreateKey {
    CreateKey {
        key_id: KeyId(Uuid::from_u128(950 + u128::from(n))),
        user_id: user(),
        name: "ci".into(),
        role,
        sha256: sha(n),
    }
}

#[test]
fn an_organization_comes_with_its_admin_and_key() {
    let mut given = Given::nothing();
    let id = given.org_command(CommandVerb::CreateOrg, create_org());
    let types: Vec<_> = given
        .0
        .answers(id)
        .iter()
        .map(|e| e.body.type_name())
        .collect();
    assert_eq!(
        types,
        [
            "swarm.org.created.v1",
            "swarm.org.user_added.v1",
            "swarm.org.key_created.v1"
        ]
    );
    let holder = given
        .0
        .state
        .key_by_sha256(&sha(1))
        .expect("the admin's key");
    assert_eq!(
        (holder.org, holder.user, holder.role, holder.revoked),
        (org(), user(), Role::Admin, false)
    );
    assert_eq!(given.0.state.open_marks(), 0);
}

#[test]
fn an_organization_is_finished_after_its_half_was_lost() {
    for stored in 0..=3 {
        let mut given = Given::nothing();
        let subject = swarm_events::Subject::OrgCommand(support::P, org(), CommandVerb::CreateOrg);
        let id = given.0.client(subject, org().0, create_org());
        assert_eq!(given.0.decide(10), 3);
        for _ in 0..stored {
            given.0.deliver();
        }
        given.0.claim();
        given.0.settle();
        assert_eq!(given.0.answers(id).len(), 3, "after {stored} were stored");
        assert!(given.0.state.key_by_sha256(&sha(1)).is_some());
        assert_eq!(given.0.state.open_marks(), 0);
    }
}

#[test]
fn an_organization_is_created_once() {
    let mut given = Given::an_organization();
    let id = given.org_command(CommandVerb::CreateOrg, create_org());
    assert_eq!(given.refused(id), pair("already-exists", "id"));
}

#[test]
fn a_key_allows_no_more_than_its_user_may_and_is_revoked_once() {
    let mut given = Given::an_organization();
    let id = given.org_command(CommandVerb::CreateKey, key(2, Role::Developer));
    assert_eq!(given.answered_by(id), "swarm.org.key_created.v1");
    let order = RevokeKey {
        key_id: key(2, Role::User).key_id,
    };
    let id = given.org_command(CommandVerb::RevokeKey, order.clone());
    assert_eq!(given.answered_by(id), "swarm.org.key_revoked.v1");
    assert!(given.0.state.key_by_sha256(&sha(2)).expect("known").revoked);
    let id = given.org_command(CommandVerb::RevokeKey, order);
    assert_eq!(given.refused(id), pair("already-revoked", "key_id"));
    let id = given.org_command(
        CommandVerb::RevokeKey,
        RevokeKey {
            key_id: KeyId(Uuid::from_u128(5)),
        },
    );
    assert_eq!(given.refused(id), pair("unknown-key", "key_id"));
}

#[test]
fn a_key_is_refused_by_the_field_that_is_wrong() {
    let mut given = Given::an_organization();
    let cases: [(CreateKey, &str, &str); 5] = [
        (
            CreateKey {
                sha256: "AB".repeat(32),
                ..key(2, Role::User)
            },
            "wrong-format",
            "sha256",
        ),
        (
            CreateKey {
                sha256: sha(1),
                ..key(2, Role::User)
            },
            "key-taken",
            "sha256",
        ),
        (
            CreateKey {
                key_id: create_org().key_id,
                ..key(2, Role::User)
            },
            "already-exists",
            "key_id",
        ),
        (
            CreateKey {
                user_id: UserId(Uuid::from_u128(3)),
                ..key(2, Role::User)
            },
            "unknown-user",
            "user_id",
        ),
        (
            CreateKey {
                name: String::new(),
                ..key(2, Role::User)
            },
            "empty",
            "name",
        ),
    ];
    for (order, code, field) in cases {
        let id = given.org_command(CommandVerb::CreateKey, order);
        assert_eq!(given.refused(id), pair(code, field));
    }
}

#[test]
fn a_key_of_an_unknown_organization_is_refused() {
    let mut given = Given::nothing();
    let id = given.org_command(CommandVerb::CreateKey, key(2, Role::User));
    assert_eq!(given.refused(id), pair("unknown-organization", "org"));
}

fn update(given: &mut Given, patch: &str) -> Uuid {
    let patch = Json::parse(patch).expect("JSON");
    given.org_command(CommandVerb::UpdateOrg, UpdateOrg { patch })
}

#[test]
fn an_organization_is_changed_by_a_merge_patch() {
    let mut given = Given::an_organization();
    let shown = |given: &Given| {
        let found = given.0.state.organization(org()).expect("there");
        (found.name.clone(), found.queue_limit)
    };
    assert_eq!(shown(&given), ("Acme".to_owned(), None));
    let max = format!(r#"{{"queue_limit": {QUEUE_LIMIT_MAX}}}"#);
    for (patch, name, limit) in [
        (r#"{"queue_limit": 1}"#, "Acme", Some(1)),
        (r#"{"name": "Apex"}"#, "Apex", Some(1)),
        ("{}", "Apex", Some(1)),
        (max.as_str(), "Apex", Some(QUEUE_LIMIT_MAX)),
        (r#"{"name": "A", "queue_limit": null}"#, "A", None),
    ] {
        let id = update(&mut given, patch);
        assert_eq!(given.answered_by(id), "swarm.org.updated.v1", "{patch}");
        assert_eq!(shown(&given), (name.to_owned(), limit), "{patch}");
    }
    assert_eq!(given.0.state.open_marks(), 0);
}

#[test]
fn a_wrong_change_of_an_organization_is_refused_by_its_field_and_changes_nothing() {
    let mut given = Given::an_organization();
    update(&mut given, r#"{"queue_limit": 5}"#);
    let over = format!(r#"{{"queue_limit": {}}}"#, QUEUE_LIMIT_MAX + 1);
    let long = format!(r#"{{"name": "{}"}}"#, "x".repeat(101));
    for (patch, code, field) in [
        ("[]", "wrong-type", "patch"),
        ("null", "wrong-type", "patch"),
        (r#"{"colour": 1}"#, "unknown-field", "colour"),
        (r#"{"name": null}"#, "wrong-type", "name"),
        (r#"{"name": ""}"#, "empty", "name"),
        (long.as_str(), "too-long", "name"),
        (r#"{"queue_limit": 0}"#, "out-of-range", "queue_limit"),
        (r#"{"queue_limit": -1}"#, "out-of-range", "queue_limit"),
        (r#"{"queue_limit": 1.5}"#, "out-of-range", "queue_limit"),
        (over.as_str(), "out-of-range", "queue_limit"),
        (r#"{"queue_limit": "9"}"#, "wrong-type", "queue_limit"),
        // All of it or nothing.
        (
            r#"{"name": "new", "queue_limit": 0}"#,
            "out-of-range",
            "queue_limit",
        ),
    ] {
        let id = update(&mut given, patch);
        assert_eq!(given.refused(id), pair(code, field), "{patch}");
        assert!(given.refusal(id).cure.is_some(), "{patch}");
        let found = given.0.state.organization(org()).expect("there");
        assert_eq!((found.name.as_str(), found.queue_limit), ("Acme", Some(5)));
    }
    let mut given = Given::nothing();
    let id = update(&mut given, r#"{"name": "x"}"#);
    assert_eq!(given.refused(id), pair("unknown-organization", "org"));
}

#[test]
fn organizations_of_other_partitions_are_known_and_their_refusals_touch_nothing() {
    let mut given = Given::nothing();
    let far = (1u128..)
        .map(|n| OrgId(Uuid::from_u128(n)))
        .find(|org| swarm_events::Partition::of(org.0) != support::P)
        .expect("ids without end");
    let home = swarm_events::Partition::of(far.0);
    let subject = swarm_events::Subject::Org(home, far, swarm_events::subject::OrgVerb::Created);
    let created = swarm_events::org::Created { name: "Far".into() };
    let updated = swarm_events::org::Updated {
        name: "Farther".into(),
        queue_limit: Some(7),
    };
    let changed = swarm_events::Subject::Org(home, far, swarm_events::subject::OrgVerb::Updated);
    let mut other = |subject, body: swarm_events::Body, ordinal| {
        let coordinator = swarm_events::Service::Coordinator;
        given
            .0
            .other(coordinator, subject, far.0, body, 99, ordinal)
    };
    let early = other(changed, updated.clone().into(), 1);
    let void = swarm_events::decider::Verdict::Void("unknown-organization");
    assert_eq!(early, void);
    let applied = swarm_events::decider::Verdict::Applied;
    assert_eq!(other(subject, created.into(), 2), applied);
    assert_eq!(other(changed, updated.into(), 3), applied);
    let found = given.0.state.organization(far).expect("known");
    assert_eq!(
        (found.name.as_str(), found.queue_limit),
        ("Farther", Some(7))
    );
}

#[test]
fn an_answer_in_parts_is_not_given_again_when_one_part_is_met_twice() {
    let mut given = Given::nothing();
    given.0.client(
        Subject::OrgCommand(support::P, org(), CommandVerb::CreateOrg),
        org().0,
        create_org(),
    );
    let parts = given.0.decide(64);
    assert!(parts >= 2, "{parts}");
    given.0.deliver();
    // The log took a decision twice.
    let first = given.0.log.last().expect("stored");
    let (subject, payload) = (first.subject.clone(), first.payload.clone());
    let again = given.0.store(&subject, payload);
    assert_eq!(again, Verdict::Void("repeated-decision"));
    for _ in 2..parts {
        assert_eq!(given.0.deliver(), Some(Verdict::Applied));
    }
    assert_eq!(given.0.decide(64), 0, "the last part is under way");
    assert_eq!(given.0.deliver(), Some(Verdict::Applied));
    assert_eq!(given.0.decide(64), 0);
}
