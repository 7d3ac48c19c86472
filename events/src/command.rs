//! Commands: orders, stored in the stream like everything else and answered by at least one event whose `causationid` is
//! the command's id. The type is `swarm.cmd.<verb>.v1`; the CloudEvents subject is what it is about.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agent::AgentSpec,
    configuration::TopologyKind,
    ids::{GraphId, InstanceId, KeyId, SwarmId, TaskId, UserId},
    json::Json,
    org::Role,
    task::Carried,
};

/// `swarm.cmd.create.v2`: create the swarm that the subject names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Name.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: Option<String>,
    /// Topology, star by default.
    #[serde(default)]
    pub topology: Option<TopologyKind>,
    /// A merge patch over that topology's default options.
    #[serde(default)]
    pub topology_configuration: Json,
    /// A merge patch over the default configuration.
    #[serde(default)]
    pub configuration: Json,
    /// Whose key asked.
    #[serde(default)]
    pub created_by: Option<UserId>,
    /// SHA-256 (hex) of the request body that an `Idempotency-Key` came with.
    #[serde(default)]
    pub body_sha256: Option<String>,
}

/// `swarm.cmd.update.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// A JSON merge patch (RFC 7396) over `{name, description, configuration}`.
    pub patch: Json,
}

/// `swarm.cmd.delete.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {}

/// `swarm.cmd.join.v2`: sent by an agent process; the CloudEvents subject is the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Join {
    /// The process.
    pub instance: InstanceId,
    /// 1 to 50 characters.
    pub agent_type: String,
    /// Unique among the swarm's live agents; derived from the agent's id if absent.
    #[serde(default)]
    pub agent_name: Option<String>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Tasks it runs at once; the swarm's setting if absent.
    #[serde(default)]
    pub slots: Option<u32>,
    /// Tasks that may wait at it; the swarm's setting if absent.
    #[serde(default)]
    pub waiting: Option<u32>,
    /// Anything.
    #[serde(default)]
    pub metadata: Json,
    /// The number of the spawn request that started the process; absent if no host did.
    #[serde(default)]
    pub spawn: Option<u64>,
}

/// `swarm.cmd.leave.v1`: sent by an agent process after draining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// The incarnation that leaves.
    pub incarnation: u64,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `swarm.cmd.remove_agent.v2`: the CloudEvents subject is the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveAgent {
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// At once: its work goes to others. Otherwise it finishes what runs first.
    #[serde(default)]
    pub force: bool,
    /// How long it may take to finish, in milliseconds; the swarm's `drain_grace_ms` if absent.
    #[serde(default)]
    pub grace_ms: Option<u64>,
}

/// `swarm.cmd.add_agent.v1`: the CloudEvents subject is the agent, whose id is new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAgent {
    /// What it is, and how its process is started.
    pub spec: AgentSpec,
    /// SHA-256 (hex) of the request body that an `Idempotency-Key` came with.
    #[serde(default)]
    pub body_sha256: Option<String>,
}

/// `swarm.cmd.restart_agent.v1`: the CloudEvents subject is the agent. One that had been given up, or had ended, starts too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartAgent {
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// At once: its work goes to others. Otherwise it finishes what runs first.
    #[serde(default)]
    pub force: bool,
    /// How long it may take to finish, in milliseconds; the swarm's `drain_grace_ms` if absent.
    #[serde(default)]
    pub grace_ms: Option<u64>,
}

/// `swarm.cmd.update_agent.v1`: by the agent itself or a client; the CloudEvents subject is the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateAgent {
    /// The incarnation that speaks of itself; absent if a client says it.
    #[serde(default)]
    pub incarnation: Option<u64>,
    /// A JSON merge patch (RFC 7396) over `{agent_name, capabilities, slots, waiting, metadata}`. What cannot be absent cannot
    /// be reset by null.
    pub patch: Json,
}

/// `swarm.cmd.scale.v1`: exactly one of `desired` and `delta`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many agents there are to be.
    #[serde(default)]
    pub desired: Option<u32>,
    /// How many more, or fewer.
    #[serde(default)]
    pub delta: Option<i64>,
    /// Only agents of this type are added or taken out; by default new ones are like the one that was added last.
    #[serde(default)]
    pub agent_type: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `swarm.cmd.change_topology.v1`: another topology, or other options of the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeTopology {
    /// Which.
    pub topology: TopologyKind,
    /// A merge patch (RFC 7396) over its options as they are, or over its defaults if it is another one.
    #[serde(default)]
    pub configuration: Json,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `swarm.cmd.save_template.v1`: a topology under a name of the organization's own; one that is there is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaveTemplate {
    /// 1 to 50 characters; not one of the four topologies.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: Option<String>,
    /// What it is good for.
    #[serde(default)]
    pub best_for: Option<String>,
    /// Which topology.
    pub topology: TopologyKind,
    /// A merge patch over its default options.
    #[serde(default)]
    pub configuration: Json,
}

/// `swarm.cmd.delete_template.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteTemplate {
    /// Its name.
    pub name: String,
}

/// `swarm.cmd.hand_back.v1`: written by the distributor of the swarm to which a task was handed, to the one that handed it
/// over; the CloudEvents subject is the task there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HandBack {
    /// The task that was handed over.
    pub task_id: TaskId,
    /// Its generation then.
    pub generation: u32,
    /// The swarm that did it, or did not.
    pub by: SwarmId,
    /// How it ended there.
    pub outcome: Outcome,
}

/// How a task ended in another swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With this result.
    Completed {
        /// The result.
        result: Carried,
    },
    /// Without one.
    Failed {
        /// Why.
        error: String,
    },
    /// It was called off there: by somebody, or with its swarm.
    Cancelled {
        /// Why.
        reason: String,
    },
}

/// `swarm.cmd.cancel.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The task.
    pub task_id: TaskId,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `swarm.cmd.retry.v1`: another generation for a task that ended without a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The task.
    pub task_id: TaskId,
}

/// `swarm.cmd.cancel_graph.v1`: call off every task of a graph that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelGraph {
    /// The graph.
    pub graph_id: GraphId,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `swarm.cmd.discard.v1`: put a dead letter away for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discard {
    /// The task.
    pub task_id: TaskId,
}

/// `swarm.cmd.update_org.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateOrg {
    /// A JSON merge patch (RFC 7396) over `{name, queue_limit}`; `queue_limit` null: no limit.
    pub patch: Json,
}

/// `swarm.cmd.create_org.v1`: the organization that the subject names, its first admin and that admin's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrg {
    /// Name.
    pub name: String,
    /// The first admin.
    pub user_id: UserId,
    /// The admin's name.
    pub user_name: String,
    /// Id of the admin's key.
    pub key_id: KeyId,
    /// SHA-256 of the admin's key, lower-case hex.
    pub key_sha256: String,
}

/// `swarm.cmd.create_key.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// The key's id.
    pub key_id: KeyId,
    /// Whose it is.
    pub user_id: UserId,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of the key, lower-case hex.
    pub sha256: String,
}

/// `swarm.cmd.revoke_key.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeKey {
    /// The key.
    pub key_id: KeyId,
}
