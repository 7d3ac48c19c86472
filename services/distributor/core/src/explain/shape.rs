//! What an explanation looks like.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use swarm_events::{
    AgentId, GraphId, SwarmId, TaskId, Timestamp,
    agent::Cause,
    configuration::Algorithm,
    task::{DependencyType, WithdrawReason},
    topology::Role,
};

use super::TokenLine;

use crate::view::Status;

/// Why a task is where it is, and what would change that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Explanation {
    /// The task.
    pub task_id: TaskId,
    /// Its swarm.
    pub swarm_id: SwarmId,
    /// `pending`, `queued`, `assigned`, `running`, `completed`, `failed` or `cancelled`.
    #[serde(serialize_with = "word")]
    #[schemars(with = "String")]
    pub status: Status,
    /// Last stream sequence that this rests on.
    pub seq: u64,
    /// The log's time there.
    pub at: Timestamp,
    /// What it is; null if only its end is remembered.
    pub task: Option<TaskFacts>,
    /// Why, by where it stands.
    pub reason: Reason,
    /// The answer in plain words, the most important sentence first.
    pub sentences: Vec<String>,
}

fn word<S: Serializer>(status: &Status, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.as_str())
}

/// What a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TaskFacts {
    /// What kind of work.
    pub task_type: String,
    /// 1 to 10.
    pub priority: u8,
    /// What an agent must have.
    pub required_capabilities: Vec<String>,
    /// From 1; rises with each retry of the ended task.
    pub generation: u32,
    /// Attempts started in this generation.
    pub attempts: u32,
    /// Attempts at the most.
    pub max_attempts: u32,
    /// How often an idle agent has taken it over from a busy one.
    pub steals: u32,
    /// How often an agent has given it back, in this generation.
    pub declines: u32,
    /// What the last of them said.
    pub decline_reason: Option<String>,
    /// Error of its last attempt, or why it ended.
    pub error: Option<String>,
    /// Store time of its `submitted`.
    pub created_at: Timestamp,
    /// Stream sequence of its `submitted`.
    pub submitted: u64,
    /// The graph that it came with.
    pub graph_id: Option<GraphId>,
}

/// Why a task is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "TaskReason")]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// `pending`: parts of its graph have not been met.
    Staged(Staged),
    /// `pending`: other tasks must end first.
    Dependencies(Dependencies),
    /// `pending`: the wait before its next attempt.
    Delay(Delay),
    /// `pending`: it was split, and its parts must complete first.
    Parts(OpenParts),
    /// `pending`: another swarm does it.
    HandedOver(Elsewhere),
    /// `queued`: it waits for an agent.
    Queued(Box<Queued>),
    /// `assigned`: an agent has it and has not started it.
    Assigned(Box<Held>),
    /// `running`: an agent works on it.
    Running(Box<Held>),
    /// `pending`: an attempt or its life is over, and what follows is being written.
    Deciding(Deciding),
    /// `completed`, `failed` or `cancelled`.
    Ended(Box<Ended>),
}

/// A number of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "TaskCount")]
pub struct Count {
    /// How many.
    pub count: u64,
    /// There may be more: counting stopped here.
    pub at_least: bool,
}

/// Parts of its graph have not been met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "StagedTask")]
pub struct Staged {
    /// The graph.
    pub graph_id: GraphId,
    /// Parts met.
    pub met: u32,
    /// Parts that it has.
    pub of: u32,
    /// When the graph is rejected if parts are still missing.
    pub deadline: Timestamp,
    /// All parts are there: `graph_accepted` or `graph_rejected` is being written.
    pub deciding: bool,
}

/// Other tasks must end first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "OpenDependencies")]
pub struct Dependencies {
    /// How many are open.
    pub open: u32,
    /// How many it has.
    pub total: u32,
    /// Open ones, in the order of the submission, at most 20.
    pub items: Vec<OpenDependency>,
}

/// A task that must end first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OpenDependency {
    /// The task.
    pub task_id: TaskId,
    /// What is waited for.
    pub dependency_type: DependencyType,
    /// Its status.
    #[serde(serialize_with = "word")]
    #[schemars(with = "String")]
    pub status: Status,
    /// The agent that has it.
    pub agent_id: Option<AgentId>,
}

/// The wait before its next attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "DelayedTask")]
pub struct Delay {
    /// When it is queued again.
    pub until: Timestamp,
    /// How long that still is, in milliseconds.
    pub left_ms: u64,
    /// Number of the attempt that follows.
    pub next_attempt: u32,
}

/// It waits for an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "QueuedTask")]
pub struct Queued {
    /// Since when.
    pub queued_at: Timestamp,
    /// How long that is, in milliseconds.
    pub waited_ms: u64,
    /// 1 to 10.
    pub priority: u8,
    /// One step of priority weighs as much as this many milliseconds of waiting.
    pub priority_step_ms: u64,
    /// `queued_at` − priority × step, in microseconds: the smallest goes first.
    pub rank: i64,
    /// How the swarm chooses among agents.
    pub algorithm: Algorithm,
    /// Tasks before it that compete for the same agents.
    pub ahead: Count,
    /// It can be assigned as things are: only the decision is under way.
    pub assignable: bool,
    /// The role that an agent must have, if it asks for one.
    pub required_role: Option<Role>,
    /// The leader, where it stands in for that role because no live agent has it.
    pub stands_in: Option<AgentId>,
    /// The agent below which it is done: it is a part of what that one split. Absent if nobody there can do it.
    pub within: Option<AgentId>,
    /// In a ring: who has the token.
    pub token: Option<TokenLine>,
    /// All agents of the swarm, by what speaks against them.
    pub agents: AgentCounts,
    /// Agents one by one, the nearest to taking it first, at most 8.
    pub items: Vec<AgentLine>,
    /// What agents lack; absent if some agent has all that it needs.
    pub lacking: Option<Lacking>,
    /// Each of these alone would get it assigned, the nearest first; empty if it can be assigned as things are.
    pub would_be_assigned_if: Vec<Condition>,
    /// From then on no task that is newly queued goes before it, whatever its priority; absent without ageing.
    pub ageing_wins_at: Option<Timestamp>,
    /// When it fails if it has not started.
    pub queue_timeout_at: Option<Timestamp>,
}

/// Agents by what speaks against them; each is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "WaitingAgentCounts")]
pub struct AgentCounts {
    /// Members of the swarm.
    pub members: u32,
    /// They could take it now.
    pub free: u32,
    /// Able, well, and every place that may be used is taken.
    pub full: u32,
    /// Able, and suspected or failed.
    pub unhealthy: u32,
    /// Able, and let two assignments lapse and has written nothing since.
    pub unresponsive: u32,
    /// Able, and about to go.
    pub draining: u32,
    /// Able, and in quarantine by health.
    pub quarantined: u32,
    /// Able, and barred because attempts failed fast, one after another, until health has judged.
    pub failed_fast: u32,
    /// Able, and has declined this task.
    pub declined: u32,
    /// Able, and with a place in the topology that is not one for this task: another role, another part of the tree.
    pub misplaced: u32,
    /// Able, and it is not its turn in the ring.
    pub not_its_turn: u32,
    /// A required capability is missing.
    pub missing_capability: u32,
}

/// What speaks against an agent, if anything does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[schemars(rename = "AgentStanding")]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It could take it now.
    Free,
    /// It has a free slot, and it is not its turn in the ring.
    NotItsTurn,
    /// Every place that may be used is taken.
    Full,
    /// It is barred because attempts failed fast, one after another, until health has judged.
    FailedFast,
    /// It let two assignments lapse and has written nothing since.
    Unresponsive,
    /// Health has it in quarantine.
    Quarantined,
    /// It has declined this task, and others may take it some time, or the task is not offered to it again yet.
    Declined,
    /// Suspected or failed.
    Unhealthy,
    /// It is about to go.
    Draining,
    /// Its place in the topology is not one for this task.
    Misplaced,
    /// A required capability is missing.
    MissingCapability,
}

/// An agent, seen from a task that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AgentLine {
    /// The agent.
    pub agent_id: AgentId,
    /// What speaks against it.
    pub standing: Standing,
    /// Tasks that it may run at once.
    pub slots: u32,
    /// Tasks that may wait at it beyond its slots.
    pub waiting_limit: u32,
    /// Tasks that it runs.
    pub running: u32,
    /// Tasks that wait at it.
    pub waiting: u32,
    /// Required capabilities that it lacks.
    pub missing: Vec<String>,
    /// Why health has it in quarantine; empty if it is in none.
    pub quarantine: Vec<QuarantineLine>,
    /// Until when it is barred for fast failures at the most.
    pub barred_until: Option<Timestamp>,
    /// Attempts that failed fast, one after another since its last success.
    pub fast_failures: u32,
}

/// A cause for which an agent is in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "AgentQuarantineLine")]
pub struct QuarantineLine {
    /// Why.
    pub cause: Cause,
    /// When it is over; absent: when the figures are back below the limit.
    pub until: Option<Timestamp>,
}

/// What agents lack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lacking {
    /// Each required capability, with how many agents lack it, the rarest first.
    pub capabilities: Vec<LackingCapability>,
    /// The fewest capabilities that any agent lacks; null if there is no agent.
    pub fewest: Option<u32>,
    /// Agents that lack no more than that, at most 8.
    pub nearest: Vec<NearestAgent>,
}

/// A required capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LackingCapability {
    /// The word.
    pub capability: String,
    /// Agents that lack it.
    pub agents: u32,
}

/// An agent that lacks little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NearestAgent {
    /// The agent.
    pub agent_id: AgentId,
    /// What it lacks.
    pub missing: Vec<String>,
}

/// What would get a task assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "AssignCondition")]
pub struct Condition {
    /// In plain words, to be read after "it would be assigned if".
    pub sentence: String,
    /// The same as data.
    #[serde(flatten)]
    pub what: What,
}

/// What would get a task assigned, as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "AssignConditionKind")]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// Places came free at agents that could take it and are full; the tasks before it get theirs first.
    Place {
        /// How many such agents there are. With several sets of capabilities among them, those at which the fewest tasks are
        /// before it.
        agents: u32,
        /// At most 8 of them.
        agent_ids: Vec<AgentId>,
        /// Places that must come free at these agents together, those for the tasks before it included.
        places: Count,
    },
    /// More agents joined.
    Agents {
        /// What each must have.
        capabilities: Vec<String>,
        /// What the nearest agents lack of it.
        missing: Vec<String>,
        /// Free slots that they must bring, those for the tasks before it included.
        slots: Count,
    },
    /// It had been submitted at this priority or a higher one: then nothing that competes with it would be before it, and the
    /// next place would be its.
    Priority {
        /// The lowest that is enough.
        least: u8,
    },
    /// A suspected agent with a place for it were well again.
    Well {
        /// How many of them there are.
        agents: u32,
        /// At most 8 of them.
        agent_ids: Vec<AgentId>,
    },
    /// An agent with a place for it, which let assignments lapse, is given work again.
    Back {
        /// The agent.
        agent_id: AgentId,
        /// When, unless it writes anything before.
        at: Timestamp,
    },
    /// An agent with a place for it, which is in quarantine or barred for fast failures, is given work again.
    Released {
        /// The agent.
        agent_id: AgentId,
        /// When, at the latest that is known; absent: when its figures are back below the limit.
        at: Option<Timestamp>,
    },
    /// It had waited since it was declined: there is no agent left but those that did, and they may have it again then.
    Again {
        /// When.
        at: Timestamp,
    },
    /// The token of the ring passed on, and came to one that can take it; the tasks before it get their turns first.
    Turn {
        /// When it passes on at the latest; absent: as soon as an agent has a free slot.
        at: Option<Timestamp>,
        /// Turns until then, its own included.
        turns: Count,
    },
    /// A place comes free at the latest then, by a run limit.
    PlaceBy {
        /// When.
        at: Timestamp,
        /// Where.
        agent_id: AgentId,
        /// The task whose limit it is.
        task_id: TaskId,
    },
}

/// An agent has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "HeldTask")]
pub struct Held {
    /// The agent.
    pub agent_id: AgentId,
    /// The agent's process.
    pub incarnation: u64,
    /// Stream sequence of the assignment, which says why this agent: the fencing token.
    pub assignment: u64,
    /// Since when it is assigned or running.
    pub since: Timestamp,
    /// How long that is, in milliseconds.
    pub since_ms: u64,
    /// Tasks that the agent may run at once.
    pub slots: u32,
    /// Tasks that it runs, this one included.
    pub running: u32,
    /// Tasks that wait at it before this one (assigned).
    pub ahead: u32,
    /// When it is taken away if it has not started (assigned; runs only while the agent has a free slot for it).
    pub start_limit_at: Option<Timestamp>,
    /// When it fails if it has not started (assigned).
    pub queue_timeout_at: Option<Timestamp>,
    /// An idle agent with what it needs takes it over while it waits here (assigned).
    pub may_be_taken_over: bool,
    /// When the attempt is taken away (running).
    pub timeout_at: Option<Timestamp>,
    /// When it is taken away unless progress is reported (running).
    pub no_progress_at: Option<Timestamp>,
    /// When the attempt was last heard of (running, with a limit on progress).
    pub heard_at: Option<Timestamp>,
    /// It is being taken away for this.
    pub taken_away_for: Option<WithdrawReason>,
}

/// The parts that a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "OpenParts")]
pub struct OpenParts {
    /// Not completed yet.
    pub open: u32,
    /// All of them.
    pub total: u32,
    /// The open ones, the first of them.
    pub items: Vec<OpenPart>,
}

/// A part that has not completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "OpenPart")]
pub struct OpenPart {
    /// Its name among the parts.
    pub key: String,
    /// The part.
    pub task_id: TaskId,
    /// Where it stands.
    #[serde(serialize_with = "word")]
    #[schemars(with = "String")]
    pub status: Status,
    /// Who has it.
    pub agent_id: Option<AgentId>,
}

/// Where a task is done that was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "HandedOverTask")]
pub struct Elsewhere {
    /// The swarm that does it.
    pub swarm_id: SwarmId,
    /// Its id there.
    pub task_id: TaskId,
    /// That swarm may not have been told yet.
    pub under_way: bool,
}

/// What follows is being written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "DecidingTask")]
pub struct Deciding {
    /// What will follow.
    pub next: Next,
    /// Why.
    pub because: Option<String>,
    /// The task whose end makes this one fail.
    pub because_of: Option<TaskId>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "NextOfTask")]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Another attempt.
    Retry,
    /// It fails.
    Fail,
    /// It is called off.
    Cancel,
    /// It is refused.
    Reject,
    /// It goes to another swarm.
    HandOver,
}

/// It has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "EndedTask")]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Stream sequence of the event that ended it.
    pub sequence: u64,
    /// It was refused before any agent could have it.
    pub rejected: bool,
    /// A person may look and retry.
    pub dead_lettered: bool,
    /// `POST …/retry` gives it another generation.
    pub retryable: bool,
    /// It was a dead letter, and a person has put it away.
    pub discarded: bool,
    /// Why, if it did not complete.
    pub error: Option<String>,
    /// The task whose end made this one fail.
    pub because_of: Option<TaskId>,
    /// How the failure came here, the first cause first.
    pub path: Vec<TaskId>,
}
