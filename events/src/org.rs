//! Events of organizations: users and keys. Written by the coordinator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{CommandId, KeyId, UserId},
    problem::Problem,
    topology::Topology,
};

/// What a key's holder may do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Submits tasks and reads.
    User,
    /// Reads, history above all.
    Analyst,
    /// Also creates and configures swarms.
    Developer,
    /// Also scales, cancels, removes.
    Operator,
    /// Everything, users and keys included.
    Admin,
}

/// `swarm.org.created.v1`; the CloudEvents subject is the organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// Its name.
    pub name: String,
}

/// Largest queue limit of an organization: a thousand swarms at the largest limit of one.
pub const QUEUE_LIMIT_MAX: u64 = 10_000_000_000;

/// `swarm.org.updated.v1`: the whole new values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Updated {
    /// Its name.
    pub name: String,
    /// Most tasks that may wait in all its swarms together, as far as their last figures show; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_limit: Option<u64>,
}

/// Longest name of a template, in characters (the PRD's VARCHAR(50)).
pub const TEMPLATE_NAME_CHARS_MAX: usize = 50;
/// Most templates of an organization: they are held in memory by every coordinator and gateway.
pub const TEMPLATES_MAX: usize = 1_000;

/// `swarm.org.template_saved.v1`: a topology under a name; one that was there is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateSaved {
    /// 1 to 50 characters.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: Option<String>,
    /// What it is good for.
    #[serde(default)]
    pub best_for: Option<String>,
    /// The topology with all its options.
    pub topology: Topology,
}

/// `swarm.org.template_deleted.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateDeleted {
    /// Its name.
    pub name: String,
}

/// `swarm.org.user_added.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserAdded {
    /// The user.
    pub user_id: UserId,
    /// Display name.
    pub name: String,
    /// Highest role that a key of this user may have.
    pub role: Role,
}

/// `swarm.org.key_created.v1`. The key itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyCreated {
    /// The key's id.
    pub key_id: KeyId,
    /// Whose key it is.
    pub user_id: UserId,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of the key, lower-case hex. Keys are 256 random bits, so a slow hash would protect nothing more.
    pub sha256: String,
}

/// `swarm.org.key_revoked.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRevoked {
    /// The key.
    pub key_id: KeyId,
}

/// `swarm.org.refused.v1`: a command about an organization was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// The command, if its id could be read.
    pub command_id: Option<CommandId>,
    /// Why.
    pub problem: Problem,
}
