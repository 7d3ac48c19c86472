//! Organizations, their users and keys. Every partition folds all of them: they are few, and every command names one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{
    Body, KeyId, OrgId, Recorded, Timestamp, UserId,
    decider::Verdict,
    org::{self, Role},
    topology::Topology,
};

use crate::{Touched, fold::Void};

/// An organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    /// Its name; several may have the same.
    pub name: String,
    /// Most tasks that may wait in all its swarms together; `None`: no limit.
    pub queue_limit: Option<u64>,
    /// When its creation was stored.
    pub created_at: Timestamp,
    /// Its users.
    pub users: BTreeMap<UserId, User>,
    /// Its API keys, revoked ones too.
    pub keys: BTreeMap<KeyId, ApiKey>,
    /// The topologies that have a name of its own, by that name.
    pub templates: BTreeMap<String, Template>,
}

/// A topology that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Free text.
    pub description: Option<String>,
    /// What it is good for.
    pub best_for: Option<String>,
    /// The topology with all its options.
    pub topology: Topology,
    /// When one of this name was saved first, since the name was last free.
    pub created_at: Timestamp,
    /// When it was saved last.
    pub updated_at: Timestamp,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Display name.
    pub name: String,
    /// Highest role of the user's keys.
    pub role: Role,
    /// When the addition was stored.
    pub created_at: Timestamp,
}

/// An API key. The key itself is stored nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Whose it is.
    pub user: UserId,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of the key, lower-case hex.
    pub sha256: String,
    /// When its creation was stored.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Whose key it is, found by the key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHolder {
    /// The organization.
    pub org: OrgId,
    /// The user.
    pub user: UserId,
    /// The key.
    pub key: KeyId,
    /// What the key allows.
    pub role: Role,
    /// It holds no more.
    pub revoked: bool,
}

/// All organizations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organizations {
    by_id: BTreeMap<OrgId, Organization>,
    keys_by_sha256: BTreeMap<String, (OrgId, KeyId)>,
}

impl Organizations {
    /// One of them.
    pub fn get(&self, org: OrgId) -> Option<&Organization> {
        self.by_id.get(&org)
    }
    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (OrgId, &Organization)> {
        self.by_id.iter().map(|(id, org)| (*id, org))
    }
    /// Whose key has this hash (lower-case hex).
    pub fn key_by_sha256(&self, sha256: &str) -> Option<KeyHolder> {
        let (org, key) = *self.keys_by_sha256.get(sha256)?;
        let found = self.by_id.get(&org)?.keys.get(&key)?;
        Some(KeyHolder {
            org,
            user: found.user,
            key,
            role: found.role,
            revoked: found.revoked_at.is_some(),
        })
    }

    /// Applies an organization's event, or finds it void.
    pub(crate) fn evolve(
        &mut self,
        org: OrgId,
        recorded: &Recorded,
        touched: &mut Touched,
    ) -> Result<Verdict, Void> {
        let at = recorded.time;
        if let Body::OrgCreated(org::Created { name }) = &recorded.event.body {
            if self.by_id.contains_key(&org) {
                return Err("organization-exists");
            }
            let new = Organization {
                name: name.clone(),
                queue_limit: None,
                created_at: at,
                users: BTreeMap::new(),
                keys: BTreeMap::new(),
                templates: BTreeMap::new(),
            };
            self.by_id.insert(org, new);
            touched.orgs.insert(org);
            return Ok(Verdict::Applied);
        }
        let found = self.by_id.get_mut(&org).ok_or("unknown-organization")?;
        match &recorded.event.body {
            Body::OrgUpdated(updated) => {
                found.name.clone_from(&updated.name);
                found.queue_limit = updated.queue_limit;
                touched.orgs.insert(org);
            }
            Body::OrgUserAdded(added) => {
                if found.users.contains_key(&added.user_id) {
                    return Err("user-exists");
                }
                let user = User {
                    name: added.name.clone(),
                    role: added.role,
                    created_at: at,
                };
                found.users.insert(added.user_id, user);
                touched.users.insert((org, added.user_id));
            }
            Body::OrgKeyCreated(created) => {
                if !found.users.contains_key(&created.user_id) {
                    return Err("unknown-user");
                }
                if found.keys.contains_key(&created.key_id)
                    || self.keys_by_sha256.contains_key(&created.sha256)
                {
                    return Err("key-exists");
                }
                let key = ApiKey {
                    user: created.user_id,
                    name: created.name.clone(),
                    role: created.role,
                    sha256: created.sha256.clone(),
                    created_at: at,
                    revoked_at: None,
                };
                found.keys.insert(created.key_id, key);
                self.keys_by_sha256
                    .insert(created.sha256.clone(), (org, created.key_id));
                touched.keys.insert((org, created.key_id));
            }
            Body::OrgKeyRevoked(revoked) => {
                let key = found.keys.get_mut(&revoked.key_id).ok_or("unknown-key")?;
                if key.revoked_at.is_some() {
                    return Err("key-revoked");
                }
                key.revoked_at = Some(at);
                touched.keys.insert((org, revoked.key_id));
            }
            Body::OrgTemplateSaved(saved) => {
                let before = found.templates.get(&saved.name);
                let template = Template {
                    description: saved.description.clone(),
                    best_for: saved.best_for.clone(),
                    topology: saved.topology.clone(),
                    created_at: before.map_or(at, |before| before.created_at),
                    updated_at: at,
                };
                found.templates.insert(saved.name.clone(), template);
                touched.templates.insert((org, saved.name.clone()));
            }
            Body::OrgTemplateDeleted(deleted) => {
                found
                    .templates
                    .remove(&deleted.name)
                    .ok_or("unknown-template")?;
                touched.templates.insert((org, deleted.name.clone()));
            }
            _ => return Ok(Verdict::Ignored),
        }
        Ok(Verdict::Applied)
    }
}
