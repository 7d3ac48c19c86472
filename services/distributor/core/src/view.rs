//! What others may read of the state: rows for the read models, loads, counters.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    AgentId, GraphId, Place, SwarmId, TaskId, Timestamp,
    agent::Cause,
    task::{DependencyType, Origin, Step},
    topology::Role,
};

/// A task's status as the read model shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It waits for dependencies, for its graph, or for the delay before its next attempt.
    Pending,
    /// It waits for an agent.
    Queued,
    /// It is an agent's, and not started.
    Assigned,
    /// An agent works on it.
    Running,
    /// It ended with a result.
    Completed,
    /// It ended without one.
    Failed,
    /// It was called off.
    Cancelled,
}
impl Status {
    /// The word in the read model.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
    /// Whether it has ended.
    pub const fn ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// An edge of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DependencyView {
    /// What it waits for.
    pub task_id: TaskId,
    /// How.
    pub dependency_type: DependencyType,
    /// Name of the input.
    pub alias: Option<String>,
}

/// The parts of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartsView {
    /// Not ended yet.
    pub open: u32,
    /// All of them.
    pub of: u32,
}

/// A row of `swarm_tasks`, all but payload, result and key, which are in the events at `submitted` and `result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    /// Its swarm.
    pub place: Place,
    /// The task.
    pub id: TaskId,
    /// What kind of work.
    pub task_type: String,
    /// 1 to 10.
    pub priority: u8,
    /// What an agent must have; sorted, without repeats.
    pub required_capabilities: Vec<String>,
    /// The task that it is a part of.
    pub parent: Option<TaskId>,
    /// The graph that it came with.
    pub graph: Option<GraphId>,
    /// False for a part of a graph that is not accepted yet (or was rejected).
    pub accepted: bool,
    /// Its status.
    pub status: Status,
    /// It ended as failed without ever having existed for agents.
    pub rejected: bool,
    /// Whose it is, or was last.
    pub agent: Option<AgentId>,
    /// Sequence of the assignment that stands.
    pub assignment: Option<u64>,
    /// Attempts started in this generation.
    pub attempt_count: u32,
    /// Attempts at the most.
    pub max_attempts: u32,
    /// From 1; rises with each retry of the ended task.
    pub generation: u32,
    /// Store time of `submitted`.
    pub created_at: Timestamp,
    /// When it was queued last.
    pub queued_at: Option<Timestamp>,
    /// When the last attempt started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// When the running attempt is taken away: at its run limit, or earlier for want of progress.
    pub timeout_at: Option<Timestamp>,
    /// When it has waited too long for its start, by its own limit or the swarm's present setting. A change of that
    /// setting moves it without touching the rows of queued tasks, of which there may be a million.
    pub queue_timeout_at: Option<Timestamp>,
    /// When the running attempt is taken away for its run limit: of `timeout_at` what no setting of the swarm moves.
    pub run_timeout_at: Option<Timestamp>,
    /// From when its queue limit counts, while it waits for its start: of `queue_timeout_at` what no setting moves.
    pub waits_from: Option<Timestamp>,
    /// Why it failed, was cancelled or rejected; while it lives, error of its last attempt.
    pub error: Option<String>,
    /// A person may look and retry.
    pub dead_lettered: bool,
    /// It was a dead letter and is put away: it cannot be retried any more.
    pub discarded: bool,
    /// The task whose end made this one fail.
    pub because_of: Option<TaskId>,
    /// How that failure came here: the first cause first, `because_of` last. At most
    /// [`swarm_events::task::FAILURE_PATH_MAX`]; empty if it failed by itself.
    pub failure_path: Vec<TaskId>,
    /// How often an idle agent has taken it over from a busy one.
    pub steals: u32,
    /// How often an agent has given it back, in this generation.
    pub declines: u32,
    /// Sequence of its `submitted`; of a part, of the `split` that it came with.
    pub submitted: u64,
    /// Only an agent of this role takes it.
    pub required_role: Option<Role>,
    /// Only agents below this one in the tree take it, as long as there are any.
    pub within: Option<AgentId>,
    /// What its assignment, or its next one, is to do.
    pub step: Step,
    /// Its number among the parts of its parent, if it is one of them.
    pub part: Option<u32>,
    /// Its own parts, if it was split in this generation and has not ended.
    pub parts: Option<PartsView>,
    /// The swarm that is to do it.
    pub hand_to: Option<SwarmId>,
    /// That swarm has it.
    pub handed_over: bool,
    /// The task of another swarm that it is done for.
    pub origin: Option<Origin>,
    /// Sequence of the `completed` that ended it.
    pub result: Option<u64>,
    /// Its edges.
    pub dependencies: Vec<DependencyView>,
}

/// What an agent has to do, and has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// The agent.
    pub id: AgentId,
    /// Its last incarnation.
    pub incarnation: u64,
    /// Tasks that it works on, in the order of their assignments.
    pub running: Vec<TaskId>,
    /// Tasks assigned and not started, in the order of their assignments.
    pub waiting: Vec<TaskId>,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// How many tasks may wait at it beyond its slots.
    pub waiting_limit: u32,
    /// When the oldest of those that wait at it was assigned.
    pub waiting_since: Option<Timestamp>,
    /// Tasks completed in its life.
    pub completed: u64,
    /// Attempts failed in its life: reported by it, timed out, without progress for too long, or with a result that could
    /// not be used.
    pub failed: u64,
    /// It let two assignments lapse and has written nothing since.
    pub unresponsive: bool,
    /// It is to go: it gets no new work.
    pub draining: bool,
    /// Why health has it in quarantine, and until when each cause holds if that was said.
    pub quarantine: BTreeMap<Cause, Option<Timestamp>>,
    /// Attempts that failed fast, one after another since its last success.
    pub fast_failures: u32,
    /// Until when it is barred for them at the most.
    pub barred_until: Option<Timestamp>,
    /// It is on probation after them: one task at a time, until one succeeds.
    pub half_open: bool,
    /// Running tasks that have shown no progress for the swarm's `health.stuck_after_ms`.
    pub stuck: u32,
    /// Since when the longest of these shows none.
    pub stuck_since: Option<Timestamp>,
}

/// Counters of a swarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Parts of graphs that are not accepted yet.
    pub staged: u64,
    /// Tasks that wait for dependencies or for the delay before an attempt.
    pub pending: u64,
    /// Tasks that wait for an agent.
    pub queued: u64,
    /// Tasks assigned and not started.
    pub assigned: u64,
    /// Tasks running.
    pub running: u64,
    /// Tasks whose attempt or life has ended and whose next event is not written yet.
    pub ending: u64,
    /// Tasks completed so far.
    pub completed: u64,
    /// Tasks failed so far, rejected ones included.
    pub failed: u64,
    /// Tasks cancelled so far.
    pub cancelled: u64,
    /// Assignments so far that went to the agent that their affinity likes.
    pub affinity_hits: u64,
    /// Assignments so far that could not go to the agent that their affinity likes.
    pub affinity_misses: u64,
    /// Tasks so far that an idle agent took over from a busy one.
    pub steals: u64,
    /// How often so far a task whose attempt had begun was given another one: counted at `retried` after a failed attempt, and
    /// at the `withdrawn` of a started task after which it is queued again. A person's retry of an ended task is none, and
    /// neither is a withdrawal before the start.
    pub retries: u64,
}

/// Which rows an input changed. Gathers over any number of inputs; the caller clears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Tasks whose [`TaskView`] may differ from before.
    pub tasks: BTreeSet<(Place, TaskId)>,
    /// The last view of each of them that has ended: the state keeps less of an ended task.
    pub ended: BTreeMap<(Place, TaskId), TaskView>,
    /// Agents whose [`AgentView`] may differ from before.
    pub agents: BTreeSet<(Place, AgentId)>,
    /// Swarms whose [`Counters`] may differ from before.
    pub swarms: BTreeSet<Place>,
}
impl Touched {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.tasks.clear();
        self.ended.clear();
        self.agents.clear();
        self.swarms.clear();
    }
}
