//! Organizations, users and keys.

use serde_json::Value;
use swarm_events::{
    OrgId, Problem,
    command::{CreateKey, CreateOrg, RevokeKey, UpdateOrg},
    decider::Decision,
    org::{Created, KeyCreated, KeyRevoked, QUEUE_LIMIT_MAX, Role, Updated, UserAdded},
    subject::OrgVerb,
    swarm::NAME_CHARS_MAX,
};

use super::{Answer, Outcome, one, org_subject};
use crate::{Coordinator, check, organization::Organization};

impl Coordinator {
    /// What is still missing of the organization, its first admin and that admin's key. After a lost append only the rest.
    pub(super) fn create_org(&self, org: OrgId, order: &CreateOrg, room: usize) -> Outcome {
        check::text("name", &order.name, NAME_CHARS_MAX)?;
        check::text("user_name", &order.user_name, NAME_CHARS_MAX)?;
        check::sha256("key_sha256", &order.key_sha256)?;
        let found = self.orgs.get(org);
        let (user, key) = found.map_or((None, None), |found| {
            (
                found.users.get(&order.user_id),
                found.keys.get(&order.key_id),
            )
        });
        let ours = found.is_none_or(|found| {
            // Half made by this very command: a finished one would have closed its mark.
            found.name == order.name
                && found.users.len() == usize::from(user.is_some())
                && found.keys.is_empty()
        });
        if !ours || key.is_some() {
            return Err(
                Problem::new("already-exists", format!("organization {org} exists"))
                    .field("id")
                    .cure("use it, or choose a new id"),
            );
        }
        self.hash_is_free("key_sha256", &order.key_sha256)?;
        let mut decisions = Vec::with_capacity(3);
        if found.is_none() {
            let name = order.name.clone();
            decisions.push(about(org, OrgVerb::Created, Created { name }));
        }
        if user.is_none() {
            let added = UserAdded {
                user_id: order.user_id,
                name: order.user_name.clone(),
                role: Role::Admin,
            };
            decisions.push(about(org, OrgVerb::UserAdded, added));
        }
        let created = KeyCreated {
            key_id: order.key_id,
            user_id: order.user_id,
            name: "admin".to_owned(),
            role: Role::Admin,
            sha256: order.key_sha256.clone(),
        };
        decisions.push(about(org, OrgVerb::KeyCreated, created));
        decisions.truncate(room.max(1));
        Ok(Answer::Decide(decisions))
    }

    pub(super) fn update_org(&self, org: OrgId, order: &UpdateOrg) -> Outcome {
        let found = self.known_org(org)?;
        let Value::Object(patch) = order.patch.to_value() else {
            return Err(Problem::new("wrong-type", "must be an object")
                .field("patch")
                .cure("give an object with name, queue_limit or both"));
        };
        let mut updated = Updated {
            name: found.name.clone(),
            queue_limit: found.queue_limit,
        };
        for (field, value) in patch {
            match (field.as_str(), value) {
                ("name", Value::String(name)) => updated.name = name,
                ("name", _) => {
                    return Err(Problem::new(
                        "wrong-type",
                        "must be a text; an organization always has a name",
                    )
                    .field("name")
                    .cure("give a text, or leave it out"));
                }
                ("queue_limit", Value::Null) => updated.queue_limit = None,
                ("queue_limit", Value::Number(number)) => {
                    updated.queue_limit = Some(queue_limit(&number)?);
                }
                ("queue_limit", _) => {
                    return Err(Problem::new("wrong-type", "must be a number or null")
                        .field("queue_limit")
                        .cure(limit_cure()));
                }
                (unknown, _) => {
                    return Err(Problem::new(
                        "unknown-field",
                        "is no field of an organization that can be changed",
                    )
                    .field(unknown)
                    .cure("change name or queue_limit"));
                }
            }
        }
        check::text("name", &updated.name, NAME_CHARS_MAX)?;
        one(about(org, OrgVerb::Updated, updated))
    }

    pub(super) fn create_key(&self, org: OrgId, order: &CreateKey) -> Outcome {
        let found = self.known_org(org)?;
        check::text("name", &order.name, NAME_CHARS_MAX)?;
        check::sha256("sha256", &order.sha256)?;
        let user = found.users.get(&order.user_id).ok_or_else(|| {
            Problem::new(
                "unknown-user",
                format!("the organization has no user {}", order.user_id),
            )
            .field("user_id")
            .cure("name a user of the organization")
        })?;
        if order.role > user.role {
            return Err(
                Problem::new("role-too-high", "is above the user's own role")
                    .field("role")
                    .cure("ask for the user's role or a lower one"),
            );
        }
        if found.keys.contains_key(&order.key_id) {
            return Err(
                Problem::new("already-exists", format!("key {} exists", order.key_id))
                    .field("key_id")
                    .cure("choose a new id"),
            );
        }
        self.hash_is_free("sha256", &order.sha256)?;
        one(about(
            org,
            OrgVerb::KeyCreated,
            KeyCreated {
                key_id: order.key_id,
                user_id: order.user_id,
                name: order.name.clone(),
                role: order.role,
                sha256: order.sha256.clone(),
            },
        ))
    }

    pub(super) fn revoke_key(&self, org: OrgId, order: &RevokeKey) -> Outcome {
        let found = self.known_org(org)?;
        let key = found.keys.get(&order.key_id).ok_or_else(|| {
            Problem::new(
                "unknown-key",
                format!("the organization has no key {}", order.key_id),
            )
            .field("key_id")
        })?;
        if key.revoked_at.is_some() {
            return Err(
                Problem::new("already-revoked", "the key was revoked before").field("key_id"),
            );
        }
        one(about(
            org,
            OrgVerb::KeyRevoked,
            KeyRevoked {
                key_id: order.key_id,
            },
        ))
    }

    pub(super) fn known_org(&self, org: OrgId) -> Result<&Organization, Problem> {
        self.orgs.get(org).ok_or_else(|| {
            Problem::new(
                "unknown-organization",
                format!("there is no organization {org}"),
            )
            .field("org")
            .cure("create it first")
        })
    }

    fn hash_is_free(&self, field: &str, sha256: &str) -> Result<(), Problem> {
        if self.orgs.key_by_sha256(sha256).is_some() {
            return Err(Problem::new("key-taken", "this key is in use")
                .field(field)
                .cure("make a new random key"));
        }
        Ok(())
    }
}

pub(super) fn about(org: OrgId, verb: OrgVerb, body: impl Into<swarm_events::Body>) -> Decision {
    Decision::new(org_subject(org, verb), org.0, body)
}

fn limit_cure() -> String {
    format!("give a whole number from 1 to {QUEUE_LIMIT_MAX}, or null for no limit")
}

fn queue_limit(number: &serde_json::Number) -> Result<u64, Problem> {
    let limit = number
        .as_u64()
        .filter(|limit| (1..=QUEUE_LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| {
        Problem::new(
            "out-of-range",
            format!("{number} is no whole number from 1 to {QUEUE_LIMIT_MAX}"),
        )
        .field("queue_limit")
        .cure(limit_cure())
    })
}
