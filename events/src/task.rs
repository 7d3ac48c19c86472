//! Events of tasks. `submitted` is written by clients; `started`, `progressed`, `completed` and `attempt_failed` by the
//! agent that the subject names; everything else by the distributor. The CloudEvents subject is the task (of the graph
//! for `graph_accepted` and `graph_rejected`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    configuration::Algorithm,
    ids::{AgentId, CommandId, GraphId, SwarmId, TaskId},
    json::Json,
    problem::Problem,
    time::Timestamp,
    topology::Role,
};

/// Longest task type, in characters (the PRD's VARCHAR(50)).
pub const TYPE_CHARS_MAX: usize = 50;
/// Largest payload in an event, in bytes: leaves room for inputs beside it in the assignment, far below 1 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Largest result in an event, in bytes.
pub const RESULT_BYTES_MAX: usize = 256 * 1024;
/// Largest inline sum of inputs in an assignment, in bytes; above it they go to the object store.
pub const INPUTS_BYTES_MAX: usize = 256 * 1024;
/// Most tasks in one graph: it is accepted in one step, which takes longer the larger it is.
pub const GRAPH_TASKS_MAX: u32 = 10_000;
/// Most dependencies of one task: with the types and aliases of that many, a submission stays far below 1 MiB. A wider
/// reduce is a tree of reduces.
pub const DEPENDENCIES_MAX: usize = 1_000;
/// Longest error message, in bytes; longer ones are cut by the agent.
pub const ERROR_BYTES_MAX: usize = 8 * 1024;
/// Longest affinity key or alias, in bytes.
pub const KEY_BYTES_MAX: usize = 200;
/// Most candidates that an assignment names.
pub const CANDIDATES_MAX: usize = 8;
/// Most tasks that the path of a failure names: the first cause and those nearest to the task.
pub const FAILURE_PATH_MAX: usize = 32;
/// Longest reason that a command may give, in bytes.
pub const REASON_BYTES_MAX: usize = 1_000;

/// What a dependency waits for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DependencyType {
    /// The other task has ended, either way.
    #[default]
    Completion,
    /// The other task has completed; if it ends otherwise, this one fails.
    Success,
    /// As success, and its result becomes an input.
    Data,
}

/// An edge of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dependency {
    /// The task that must come first.
    pub task_id: TaskId,
    /// What is waited for.
    #[serde(default)]
    pub dependency_type: DependencyType,
    /// Name of the input (data dependencies); the task's id if absent.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

/// A submitted task's place in a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraphPart {
    /// The graph.
    pub id: GraphId,
    /// This part's number, 0 to `of` − 1.
    pub index: u32,
    /// How many parts there are.
    pub of: u32,
}

fn priority_default() -> u8 {
    PRIORITY_DEFAULT
}
/// Priority of a task that names none.
pub const PRIORITY_DEFAULT: u8 = 5;
/// Lowest and highest priority.
pub const PRIORITY_RANGE: std::ops::RangeInclusive<u8> = 1..=10;

/// Another swarm's task, of which one is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The swarm that handed it over.
    pub swarm_id: SwarmId,
    /// The task there.
    pub task_id: TaskId,
    /// Its generation there.
    pub generation: u32,
    /// How often the work was handed on to come here, this time included: at most [`HAND_OVERS_MAX`].
    #[serde(default)]
    pub hops: u8,
}

/// So often work may be handed on from swarm to swarm: two that hand everything to each other come to an end.
pub const HAND_OVERS_MAX: u8 = 8;

/// `swarm.task.submitted.v2`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    /// What kind of work; 1 to 50 characters.
    pub task_type: String,
    /// What the agent gets.
    #[serde(default)]
    pub payload: Json,
    /// 1 to 10, higher is more important.
    #[serde(default = "priority_default")]
    pub priority: u8,
    /// An agent must have all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_capabilities: Vec<String>,
    /// Attempts at the most; the swarm's setting if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Run limit of an attempt from its start, in milliseconds; the swarm's setting if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How long it may wait from when it is queued to its start, in milliseconds; the swarm's setting if absent, 0: for
    /// ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// How long an attempt may go without progress, in milliseconds; the swarm's setting if absent, 0: up to its run limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_timeout_ms: Option<u64>,
    /// The task that this one is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_task_id: Option<TaskId>,
    /// Tasks with the same key like the same agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_key: Option<String>,
    /// What must come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// The name under which the tasks of one submission knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its graph, if it came with others or names others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<GraphPart>,
    /// Only an agent of this role takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_role: Option<Role>,
    /// Another swarm of the organization is to do it; its result comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_to: Option<SwarmId>,
    /// The task of another swarm that this one is done for. Written by that swarm's distributor alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// SHA-256 (hex) of the request body that an `Idempotency-Key` came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
}

/// `swarm.task.graph_accepted.v1`: all tasks of the graph exist from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraphAccepted {
    /// How many tasks.
    pub tasks: u32,
}

/// `swarm.task.graph_rejected.v1`: none of its tasks exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraphRejected {
    /// Why.
    pub problem: Problem,
    /// The task that it is about.
    pub task_id: Option<TaskId>,
}

/// `swarm.task.graph_cancelled.v1`: every task of the graph that has not ended is called off; the `cancelled` of each follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraphCancelled {
    /// Why.
    pub reason: String,
    /// How many of its tasks had not ended.
    pub tasks: u32,
}

/// `swarm.task.discarded.v1`: a dead letter is put away; it cannot be retried any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Discarded {
    /// The generation that had failed.
    pub generation: u32,
}

/// `swarm.task.rejected.v1`: the task has ended without ever being queued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// Why.
    pub problem: Problem,
    /// When a retry may succeed, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
}

/// `swarm.task.refused.v1`: something about tasks was refused; no task is touched by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// The command, if it is one.
    pub command_id: Option<CommandId>,
    /// Subject of what was refused.
    pub refused_subject: String,
    /// Stream sequence of what was refused (the last one, if `count` is above 1).
    pub refused_seq: u64,
    /// How many of the same kind this stands for (summed per source and second).
    pub count: u32,
    /// Why.
    pub problem: Problem,
}

/// A value that stands in the event, or where to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Carried {
    /// Here it is.
    Inline(Json),
    /// In the `data` of the event stored at this sequence: `payload` of a `submitted`, `result` of a `completed`.
    AtSequence(u64),
    /// Name of an object in the bucket `swarm_objects`.
    Object(String),
}

/// An agent that was considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The agent.
    pub agent_id: AgentId,
    /// Its score by the algorithm; the lowest wins, ties go to the agent that joined first.
    pub score: i64,
}

/// Why agents were not considered.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PassedOver {
    /// A required capability is missing.
    Capability,
    /// All slots and waiting places are taken.
    Full,
    /// Suspected or failed.
    Unhealthy,
    /// It let two assignments lapse and has written nothing since.
    Unresponsive,
    /// It is to go.
    Draining,
    /// Health has it in quarantine.
    Quarantined,
    /// Its attempts failed fast, one after another.
    FailedFast,
    /// It gave this task back, and others may take it.
    Declined,
    /// Its place in the topology is not one for this task: another role, another part of the tree.
    Topology,
    /// It is not its turn in the ring.
    Turn,
}

/// What became of a task's affinity.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AffinityOutcome {
    /// It goes to the agent at which its key is at home.
    Hit,
    /// That agent has no place for it, or more than its share of the load. The key stays at home there.
    Miss,
    /// Its key has no home, or that agent is gone or cannot do this task: from now on it is at home here.
    New,
}

/// What an assignment is to do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The work, or its splitting.
    #[default]
    Work,
    /// The results of its parts become one: they come as inputs, by the parts' keys.
    Reduce,
}

/// `swarm.task.assigned.v4`. Its own stream sequence is the fencing token, and the assignment's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Assigned {
    /// What kind of work.
    pub task_type: String,
    /// What the agent gets.
    pub payload: Carried,
    /// Results of data dependencies by alias; `None` if there are none. Inline it is one JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Carried>,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Rises when an ended task is retried, from 1.
    pub generation: u32,
    /// The agent's incarnation that it is meant for.
    pub incarnation: u64,
    /// Priority.
    pub priority: u8,
    /// Run limit from `started`, in milliseconds.
    pub timeout_ms: u64,
    /// The rule that chose.
    pub algorithm: Algorithm,
    /// The best candidates, the chosen one first, at most [`CANDIDATES_MAX`].
    pub candidates: Vec<Candidate>,
    /// How many agents were passed over, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub passed_over: BTreeMap<PassedOver, u32>,
    /// Under the algorithm `affinity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<AffinityOutcome>,
    /// The busy agent at which it had waited, if it was taken over from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stolen_from: Option<AgentId>,
    /// Since when it has waited: what its rank derives from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<Timestamp>,
    /// What it is to do.
    #[serde(default)]
    pub step: Step,
    /// In a tree: by which coordinators and supervisors it was handed down, from the top.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<AgentId>,
    /// In a ring: the number of this turn of the token, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u64>,
}

/// Most parts into which one attempt splits a task: they come in one event.
pub const PARTS_MAX: usize = 1_000;
/// How deep parts may be split again: a handler that splits whatever it gets comes to an end.
pub const SPLIT_DEPTH_MAX: u8 = 8;

/// A part of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name among the parts, 1 to [`KEY_BYTES_MAX`] bytes: its result comes under it.
    pub key: String,
    /// What kind of work; 1 to 50 characters.
    pub task_type: String,
    /// What the agent gets.
    #[serde(default)]
    pub payload: Json,
    /// 1 to 10; the task's own if absent.
    #[serde(default)]
    pub priority: Option<u8>,
    /// An agent must have all of them.
    #[serde(default)]
    pub required_capabilities: Vec<String>,
    /// Only an agent of this role takes it.
    #[serde(default)]
    pub required_role: Option<Role>,
    /// Attempts at the most; the swarm's setting if absent.
    #[serde(default)]
    pub max_attempts: Option<u32>,
    /// Run limit of an attempt, in milliseconds; the swarm's setting if absent.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// `swarm.task.split.v1`: the agent hands its task on in parts. Their ids derive from the task's, its generation, the
/// assignment and the part's number ([`part_id`]). Those of a supervisor or coordinator of a tree are done below it. Once all
/// have completed, the task is queued again for its `reduce`, which goes to the same agent as long as it lives; if one fails
/// for good, the task fails for it and the others are called off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Split {
    /// Stream sequence of the assignment.
    pub assignment: u64,
    /// The agent's incarnation.
    pub incarnation: u64,
    /// At least one, at most [`PARTS_MAX`].
    pub parts: Vec<Part>,
}

/// The id of a task's part: the same on every replica, and in every reading of the log.
pub fn part_id(task: TaskId, assignment: u64, index: u32) -> TaskId {
    TaskId(crate::ids::derived(
        "part",
        &[
            task.0.as_bytes(),
            &assignment.to_be_bytes(),
            &index.to_be_bytes(),
        ],
    ))
}
/// The id under which a task is known in the swarm to which it was handed.
pub fn handed_id(origin: &Origin) -> TaskId {
    TaskId(crate::ids::derived(
        "handed",
        &[
            origin.swarm_id.0.as_bytes(),
            origin.task_id.0.as_bytes(),
            &origin.generation.to_be_bytes(),
        ],
    ))
}

/// `swarm.task.handed_over.v1`: another swarm does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HandedOver {
    /// Which.
    pub to: SwarmId,
    /// Its id there.
    pub task_id: TaskId,
    /// The generation that is handed over.
    pub generation: u32,
}

/// `swarm.task.handed_back.v1`: the other swarm completed it; that is its end here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HandedBack {
    /// Who did it.
    pub by: SwarmId,
    /// The generation that ends.
    pub generation: u32,
    /// The result.
    pub result: Carried,
}

/// `swarm.task.started.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// Stream sequence of the assignment.
    pub assignment: u64,
    /// The agent's incarnation.
    pub incarnation: u64,
}

/// `swarm.task.progressed.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progressed {
    /// Stream sequence of the assignment.
    pub assignment: u64,
    /// The agent's incarnation.
    pub incarnation: u64,
    /// Parts done, 0 to 100.
    pub percent: Option<u8>,
    /// In words.
    pub message: Option<String>,
}

/// `swarm.task.completed.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Completed {
    /// Stream sequence of the assignment.
    pub assignment: u64,
    /// The agent's incarnation.
    pub incarnation: u64,
    /// The result.
    pub result: Carried,
}

/// `swarm.task.attempt_failed.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptFailed {
    /// Stream sequence of the assignment.
    pub assignment: u64,
    /// The agent's incarnation.
    pub incarnation: u64,
    /// What went wrong, at most [`ERROR_BYTES_MAX`] bytes.
    pub error: String,
    /// Whether another attempt could help.
    pub retryable: bool,
}

/// Longest reason of a declined task, in bytes.
pub const DECLINE_REASON_BYTES_MAX: usize = 1_024;

/// `swarm.task.declined.v1`: the agent gives the task back, before or after its start. It is no attempt; the agent does not
/// get the task again while others may take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Declined {
    /// Stream sequence of the assignment.
    pub assignment: u64,
    /// The agent's incarnation.
    pub incarnation: u64,
    /// Why, at most [`DECLINE_REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// Why an assignment was taken away.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WithdrawReason {
    /// The agent was held to be dead.
    AgentFailed,
    /// The agent left.
    AgentLeft,
    /// The agent was removed.
    AgentRemoved,
    /// A new process of the agent joined.
    AgentRestarted,
    /// The run limit passed.
    Timeout,
    /// It did not start in time.
    StartLimit,
    /// The task was called off.
    Cancelled,
    /// An idle agent takes it over.
    Steal,
    /// The agent is being drained.
    Drain,
    /// The topology changed.
    Topology,
    /// The agent's event could not be used (over-large result, for one).
    BadResult,
    /// It had not started when its time in the queue was over.
    QueueTimeout,
    /// It went without progress for too long.
    NoProgress,
}

/// What happens when a withdrawal is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It is queued again; the attempt does not count if it had not started.
    Queue,
    /// It is queued again after this many milliseconds.
    RetryAfterMs(u64),
    /// It ends; its one `failed` or `cancelled` follows.
    End,
}

/// `swarm.task.withdrawn.v2`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Withdrawn {
    /// Stream sequence of the assignment.
    pub assignment: u64,
    /// The incarnation it was given to.
    pub incarnation: u64,
    /// Why.
    pub reason: WithdrawReason,
    /// Holds even if the agent has started; the agent kills what runs. Without it, void once `started` stands.
    pub force: bool,
    /// What happens next.
    pub then: Then,
    /// The idle agent on whose account it is taken over (`steal`). Which agent gets it is decided when it is queued again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thief: Option<AgentId>,
}

/// `swarm.task.retried.v1`: after a failed attempt, or a person's retry of an ended task (a new generation).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retried {
    /// Attempts so far in this generation.
    pub attempts: u32,
    /// Wait before it is queued, in milliseconds.
    pub delay_ms: u64,
    /// The generation that goes on or begins.
    pub generation: u32,
    /// Error of the attempt before, if one failed.
    pub error: Option<String>,
}

/// `swarm.task.failed.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// Attempts that were made.
    pub attempts: u32,
    /// The generation that ends.
    pub generation: u32,
    /// What went wrong.
    pub error: String,
    /// Every attempt was used up, or the error is not retryable: a person may look and retry.
    pub dead_lettered: bool,
    /// The task whose failure caused this one, if it failed for its dependency.
    pub because_of: Option<TaskId>,
    /// How the failure came here: the task that failed by itself first, then each that failed for the one before, up to
    /// `because_of`. At most [`FAILURE_PATH_MAX`]; of a longer one the first cause and the nearest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<TaskId>,
}

/// `swarm.task.cancelled.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// The generation that ends.
    pub generation: u32,
    /// Why.
    pub reason: String,
}
