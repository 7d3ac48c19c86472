//! Events of swarms. Written by the coordinator; `measured` by the distributor, `sampled` by health.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    configuration::Configuration,
    ids::{AgentId, CommandId, InstanceId, TaskId, UserId},
    json::Json,
    problem::Problem,
    time::Timestamp,
    topology::Topology,
};

/// Longest name of a swarm, in characters (the PRD's VARCHAR(100)).
pub const NAME_CHARS_MAX: usize = 100;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 10_000;

/// `swarm.swarm.created.v4`; the CloudEvents subject is the swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// Unique among the living swarms of the organization in its partition's view; 1 to 100 characters.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Topology, with all its options; its generation is 1.
    pub topology: Topology,
    /// All settings, defaults filled in.
    pub configuration: Configuration,
    /// Partition, 0 to 63, fixed for the swarm's life.
    pub partition: u8,
    /// Whose key asked for it.
    pub created_by: Option<UserId>,
}

/// `swarm.swarm.updated.v4`: the whole new values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Updated {
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// All settings.
    pub configuration: Configuration,
}

/// `swarm.swarm.stopping.v1`: no more tasks or agents are taken; open tasks are cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stopping {}

/// `swarm.swarm.deleted.v1`: nothing runs any more; the swarm stays readable as inactive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {}

/// `swarm.swarm.refused.v1`: a command was refused, or a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// The command, if it is one and its id could be read.
    pub command_id: Option<CommandId>,
    /// The subject of what was refused.
    pub refused_subject: String,
    /// Stream sequence of what was refused (the last one, if `count` is above 1).
    pub refused_seq: u64,
    /// How many of the same kind this stands for (summed per source and second).
    pub count: u32,
    /// Why.
    pub problem: Problem,
}

/// Load of one agent in [`Measured`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentLoad {
    /// Tasks running.
    pub running: u32,
    /// Tasks assigned and not started.
    pub waiting: u32,
    /// Tasks completed in its life.
    pub completed: u64,
    /// Attempts failed in its life.
    pub failed: u64,
    /// Attempts that failed fast and could be retried, one after another since its last success.
    #[serde(default)]
    pub fast_failures: u32,
    /// Tasks running that have shown no progress for `health.stuck_after_ms`.
    #[serde(default)]
    pub stuck: u32,
    /// How long the longest of these has shown none, in milliseconds.
    #[serde(default)]
    pub stuck_ms: u64,
}

/// Attempts so far of the tasks of one type, or of those that need one capability, in [`Measured`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outcomes {
    /// Completed.
    pub completed: u64,
    /// Failed: reported by the agent, timed out, or without progress for too long.
    pub failed: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature is serde's"
)]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// `swarm.swarm.measured.v2`: the distributor's figures, at most once a second for an active swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Tasks that wait for dependencies.
    pub pending: u64,
    /// Tasks that wait for an agent.
    pub queued: u64,
    /// Tasks assigned and not started.
    pub assigned: u64,
    /// Tasks running.
    pub running: u64,
    /// Tasks completed so far.
    pub completed: u64,
    /// Tasks failed so far (rejected ones included).
    pub failed: u64,
    /// Tasks cancelled so far.
    pub cancelled: u64,
    /// Age of the oldest queued task, in milliseconds.
    pub oldest_wait_ms: u64,
    /// Queued tasks that no live agent has the capabilities for.
    pub unmet: u64,
    /// Assignments so far that went to the agent that their affinity likes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub affinity_hits: u64,
    /// Assignments so far that could not go to the agent that their affinity likes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub affinity_misses: u64,
    /// Tasks so far that an idle agent took over from a busy one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steals: u64,
    /// Attempts so far after the first of a task.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u64,
    /// Agents whose figures moved since the last time, at most 256 in one event.
    pub agents: BTreeMap<AgentId, AgentLoad>,
    /// By task type, those whose figures moved since the last time, at most [`MEASURED_NAMES_MAX`] in one event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, Outcomes>,
    /// By required capability, those whose figures moved since the last time, at most [`MEASURED_NAMES_MAX`] in one event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capabilities: BTreeMap<String, Outcomes>,
}

/// Most task types, and most capabilities, of which figures are kept and told: names are the users', and the state must stay
/// bounded. What comes after them is summed under [`OTHER_NAMES`].
pub const MEASURED_NAMES_MAX: usize = 256;
/// The name under which the figures of further task types or capabilities are summed.
pub const OTHER_NAMES: &str = "(other)";

/// Most agents that one command adds or takes out: keeps its event below 100 KB.
pub const SCALE_STEP_MAX: usize = 1_000;

/// `swarm.swarm.scaled.v1`: the answer to [`crate::command::Scale`]. The agents named in `add` are wanted from here on, made
/// like `like`; those in `remove` go as soon as they have finished what they have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scaled {
    /// Agents that were wanted or live before.
    pub before: u32,
    /// How many are wanted.
    pub desired: u32,
    /// The agent whose settings the new ones have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<AgentId>,
    /// New agents, at most [`SCALE_STEP_MAX`].
    pub add: Vec<AgentId>,
    /// Agents that go, at most [`SCALE_STEP_MAX`].
    pub remove: Vec<AgentId>,
    /// Why: by order, or the rule.
    pub reason: String,
}

/// One agent's sample in [`Sampled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentSample {
    /// Process that sent it.
    pub instance: InstanceId,
    /// `idle` or `busy`, by the agent's own word.
    pub status: String,
    /// When health last heard it.
    pub last_heartbeat_at: Timestamp,
    /// CPU of the process tree in hundredths of a percent of one core, read from the operating system.
    pub cpu_centipercent: u32,
    /// Resident memory of the process tree in KiB.
    pub memory_kib: u64,
    /// Open sockets of the process tree.
    pub active_connections: u32,
    /// Tasks waiting at the agent.
    pub queue_depth: u32,
    /// Tasks that it works on.
    pub current_tasks: Vec<TaskId>,
    /// Messages that its process has sent so far.
    #[serde(default)]
    pub messages_sent: u64,
    /// Messages that its process has read so far.
    #[serde(default)]
    pub messages_read: u64,
}

/// Most agents in one part of [`Sampled`] or [`Measured`]: keeps the event below 100 KB.
pub const SAMPLE_AGENTS_MAX: usize = 256;

/// `swarm.swarm.sampled.v2`: health's record of the heartbeats of an interval, only of agents whose figures moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sampled {
    /// By agent.
    pub agents: BTreeMap<AgentId, AgentSample>,
}

/// Figures of a process tree in [`HostBeat`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessFigures {
    /// CPU of the process tree in hundredths of a percent of one core.
    pub cpu_centipercent: u32,
    /// Resident memory of the process tree in KiB.
    pub memory_kib: u64,
    /// Open sockets of the process tree.
    pub active_connections: u32,
    /// Processes in the tree.
    pub processes: u32,
}

/// What an agent host says every second on `swarm.hb.host.…` (not stored in the event stream).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostBeat {
    /// The host process.
    pub host: InstanceId,
    /// Its name.
    pub name: String,
    /// Rises by one from beat to beat.
    pub counter: u64,
    /// Processes that it may start beside those that run.
    pub room: u32,
    /// By agent: what the operating system says of its processes.
    pub agents: BTreeMap<AgentId, ProcessFigures>,
}

/// What a heartbeat carries on `swarm.hb.…` (not stored in the event stream).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// The process.
    pub instance: InstanceId,
    /// Its incarnation, once it has joined.
    pub incarnation: u64,
    /// Rises by one from beat to beat of an instance.
    pub counter: u64,
    /// `idle` or `busy`.
    pub status: String,
    /// CPU of the process tree in hundredths of a percent of one core.
    pub cpu_centipercent: u32,
    /// Resident memory of the process tree in KiB.
    pub memory_kib: u64,
    /// Open sockets of the process tree.
    pub active_connections: u32,
    /// Tasks waiting at the agent.
    pub queue_depth: u32,
    /// Tasks that it works on, with their assignments.
    pub current_tasks: Vec<TaskId>,
    /// Messages that this process has sent so far.
    #[serde(default)]
    pub messages_sent: u64,
    /// Messages that this process has read so far.
    #[serde(default)]
    pub messages_read: u64,
    /// Anything the agent adds.
    #[serde(default)]
    pub metadata: Json,
}
