//! Rows as the API shows them: the field names are the column names, times are RFC 3339.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

/// A JSON column, kept as its text: a number too large for a float stays what it is.
pub type Jsonb = sqlx::types::Json<Box<RawValue>>;

/// A row of `organizations`.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct OrganizationRow {
    /// The organization.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Tasks that may wait in all its swarms together; null: no limit.
    pub queue_limit: Option<i64>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// A row of `swarms`.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct SwarmRow {
    /// The swarm.
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// Its name.
    pub name: String,
    /// In words.
    pub description: Option<String>,
    /// `star`, `mesh`, `hierarchical` or `ring`.
    pub topology: String,
    /// The topology's own settings.
    #[schema(value_type = Object)]
    pub topology_configuration: Jsonb,
    /// All settings, defaults filled in.
    #[schema(value_type = Object)]
    pub configuration: Jsonb,
    /// `inactive`, `starting`, `active`, `degraded` or `stopping`.
    pub status: String,
    /// The leader, if one is elected.
    pub leader_agent_id: Option<Uuid>,
    /// Live agents.
    pub agent_count: i32,
    /// Agents that belong to it or are to, without those that are to go: what scaling counts from.
    pub desired_agents: i32,
    /// Partition, 0 to 63.
    pub partition: i16,
    /// Whose key created it.
    pub created_by: Option<Uuid>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its settings or its state last changed.
    pub updated_at: DateTime<Utc>,
    /// When its termination ended.
    pub deleted_at: Option<DateTime<Utc>>,
    /// Stream sequence of its creation.
    #[serde(skip)]
    pub created_seq: i64,
    /// Stream sequence of the last event that changed it.
    pub last_seq: i64,
}

/// A row of `swarm_agents`.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct AgentRow {
    /// The agent.
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// Its swarm.
    pub swarm_id: Uuid,
    /// What kind.
    pub agent_type: String,
    /// Its name.
    pub agent_name: Option<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// `coordinator`, `supervisor`, `leader` or `worker`.
    pub role: String,
    /// Its level in the topology: 0 at the top of a tree and at the hub of a star; null without a seat.
    pub level: Option<i32>,
    /// Whose child it is, in a tree.
    pub parent_agent_id: Option<Uuid>,
    /// Its number in the order in which agents came: the circle of a ring, nearness in a mesh.
    pub place: Option<i64>,
    /// It takes the hub's place at once if that is lost.
    pub standby: Option<bool>,
    /// It is given tasks that ask for no role.
    pub works: Option<bool>,
    /// `pending` (wanted, no process), `starting`, `idle`, `busy`, `unhealthy` or `stopped`.
    pub status: String,
    /// Why, in words; null if there is nothing to say.
    pub status_reason: Option<String>,
    /// The task that it runs (the oldest, if several).
    pub current_task_id: Option<Uuid>,
    /// Tasks completed in its life.
    pub tasks_completed: i32,
    /// Attempts failed in its life.
    pub tasks_failed: i32,
    /// When it was last heard, as of the last sample.
    pub last_heartbeat_at: Option<DateTime<Utc>>,
    /// `{cpu_percent, memory_mb, active_connections}` of the last sample, read from the operating system.
    #[schema(value_type = Object)]
    pub resource_usage: Jsonb,
    /// What it said of itself, or what was said of it when it was added.
    #[schema(value_type = Object)]
    pub metadata: Jsonb,
    /// When its present (or last) process joined; null if none has.
    pub started_at: Option<DateTime<Utc>>,
    /// When that process went.
    pub stopped_at: Option<DateTime<Utc>>,
    /// When it was added, or else first joined.
    pub created_at: DateTime<Utc>,
    /// Number of its process's join, from 1; 0 if none has joined.
    pub incarnation: i64,
    /// Its process; null if none has joined.
    pub instance_id: Option<Uuid>,
    /// Tasks that it runs at once.
    pub slots: i32,
    /// Tasks that may wait at it beyond its slots.
    pub waiting_limit: i32,
    /// Tasks started at it.
    pub running: i32,
    /// Tasks assigned to it and not started.
    pub queue_depth: i32,
    /// When the oldest of these was assigned; null if none waits.
    pub waiting_since: Option<DateTime<Utc>>,
    /// Why it stopped.
    pub stop_reason: Option<String>,
    /// `exec`, `process` or `webhook`; null if it is started by hand.
    pub adapter: Option<String>,
    /// As it was added, with what changed since; null if it came by itself.
    #[serde(skip)]
    pub spec: Option<Jsonb>,
    /// When its process is started again; null if it is started by hand.
    #[schema(value_type = Object)]
    pub restart_policy: Option<Jsonb>,
    /// Number of the last request for a process, from 1; null if it is started by hand.
    pub spawn: Option<i64>,
    /// The host that has its process: `{instance, name}`.
    #[schema(value_type = Object)]
    pub host: Option<Jsonb>,
    /// The process's id there.
    pub pid: Option<i64>,
    /// How its limits are held: `cgroup`, `rlimit` or `nothing`.
    pub limited_by: Option<String>,
    /// Limits that could not be set there, by name.
    pub unlimited: Vec<String>,
    /// Requests for a process after the first.
    pub restarts: i64,
    /// Crashes in a row.
    pub crashes: i32,
    /// When the next process is requested, if that must wait.
    pub restart_due: Option<DateTime<Utc>>,
    /// How a process of it ended last: `{at, code, signal, out_of_memory, error, uptime_ms, last_output}`.
    #[schema(value_type = Object)]
    pub last_exit: Option<Jsonb>,
    /// It was told to go: `{since, grace_ms, due, then, reason}`; null if not.
    #[schema(value_type = Object)]
    pub draining: Option<Jsonb>,
    /// Why it gets no new work, one for each cause: `[{cause, since, until, figures}]`.
    #[schema(value_type = Vec<Object>)]
    pub quarantine: Jsonb,
    /// Since when it has been in quarantine without a break.
    pub quarantined_since: Option<DateTime<Utc>>,
    /// Stream sequence of the event that made it: several agents may be made by one.
    #[serde(skip)]
    pub created_seq: i64,
    /// Stream sequence of the last event that changed it.
    pub last_seq: i64,
}

/// A row of `swarm_tasks`.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct TaskRow {
    /// The task.
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// Its swarm.
    pub swarm_id: Uuid,
    /// The task that it is a part of.
    pub parent_task_id: Option<Uuid>,
    /// What kind of work.
    pub task_type: String,
    /// What the agent gets.
    #[schema(value_type = Object)]
    pub payload: Jsonb,
    /// 1 to 10, higher is more important.
    pub priority: i32,
    /// What an agent must be able to do.
    pub required_capabilities: Vec<String>,
    /// The agent that has it, or had it last.
    pub assigned_agent_id: Option<Uuid>,
    /// `pending`, `queued`, `assigned`, `running`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// Attempts so far in this generation.
    pub attempt_count: i32,
    /// Attempts at the most.
    pub max_attempts: i32,
    /// What the agent answered.
    #[schema(value_type = Object)]
    pub result: Option<Jsonb>,
    /// What went wrong last.
    pub error_message: Option<String>,
    /// When it last became ready for an agent.
    pub queued_at: Option<DateTime<Utc>>,
    /// When its last attempt started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, whichever way.
    pub completed_at: Option<DateTime<Utc>>,
    /// When the running attempt is taken away: at its run limit, or earlier for want of progress.
    #[sqlx(rename = "timeout_due")]
    pub timeout_at: Option<DateTime<Utc>>,
    /// When it fails for having waited too long for its start; null if nothing limits that.
    pub queue_timeout_at: Option<DateTime<Utc>>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// Its name within its submission.
    pub key: Option<String>,
    /// Its graph.
    pub graph_id: Option<Uuid>,
    /// Tasks with the same key like the same agent.
    pub affinity_key: Option<String>,
    /// Its own run limit of an attempt in milliseconds; null: the swarm's when it was submitted.
    pub timeout_ms: Option<i64>,
    /// Its own limit of the wait for its start in milliseconds; null: the swarm's, 0: none.
    pub queue_timeout_ms: Option<i64>,
    /// Its own limit of an attempt without progress in milliseconds; null: the swarm's, 0: none.
    pub progress_timeout_ms: Option<i64>,
    /// SHA-256 of the request that an `Idempotency-Key` came with.
    pub body_sha256: Option<String>,
    /// False while (or for ever if) its graph is not accepted.
    pub accepted: bool,
    /// It failed without ever being queued.
    pub rejected: bool,
    /// It failed for good: a person may look and retry.
    pub dead_lettered: bool,
    /// It was a dead letter and is put away: it cannot be retried any more.
    pub discarded: bool,
    /// The task whose failure caused its own.
    pub because_of: Option<Uuid>,
    /// How that failure came here: the first cause first, `because_of` last; empty if it failed by itself.
    pub failure_path: Vec<Uuid>,
    /// How often an idle agent took it over from a busy one.
    pub steals: i32,
    /// How often an agent has given it back, in this generation.
    pub declines: i32,
    /// Rises when an ended task is retried, from 1.
    pub generation: i32,
    /// Only an agent of this role takes it.
    pub required_role: Option<String>,
    /// Its number among the parts of its parent, from 0; null if it is none.
    pub part: Option<i32>,
    /// Into how many parts it was split in this generation; null if it was not.
    pub parts: Option<i32>,
    /// What its assignment, or its next one, is to do: `work`, or `reduce` once it was split.
    pub step: String,
    /// The swarm that is to do it.
    pub hand_to: Option<Uuid>,
    /// Its id there, once it is handed over in this generation.
    pub handed_task_id: Option<Uuid>,
    /// When it was handed over.
    pub handed_at: Option<DateTime<Utc>>,
    /// The swarm for which it is done.
    pub origin_swarm_id: Option<Uuid>,
    /// The task there.
    pub origin_task_id: Option<Uuid>,
    /// That task's generation.
    pub origin_generation: Option<i32>,
    /// Parts done of the running attempt, 0 to 100.
    pub progress_percent: Option<i16>,
    /// The running attempt in words.
    pub progress_message: Option<String>,
    /// When the running attempt last told of progress.
    pub progressed_at: Option<DateTime<Utc>>,
    /// Stream sequence of its submission; of a part, of the split that made it.
    pub submitted_seq: i64,
    /// Stream sequence of the last event that changed it.
    pub last_seq: i64,
}

/// A row of `task_attempts`: an assignment of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct AttemptRow {
    /// Number of the attempt in its generation, from 1; null until it starts. What was withdrawn unstarted, or declined, counts
    /// for nothing.
    pub number: Option<i32>,
    /// Rises when an ended task is retried, from 1.
    pub generation: i32,
    /// The agent that it was given to.
    pub agent_id: Uuid,
    /// The agent's process that it was given to.
    pub incarnation: i64,
    /// Stream sequence of the assignment: the fencing token.
    pub assignment: i64,
    /// The rule that chose: `round_robin`, `capability_match`, `least_loaded`, `affinity` or `priority_queue`.
    pub algorithm: String,
    /// Under `affinity`: `hit`, `miss` or `new`.
    pub affinity: Option<String>,
    /// The busy agent at which it had waited, if it was taken over from one.
    pub stolen_from: Option<Uuid>,
    /// When it was assigned.
    pub assigned_at: DateTime<Utc>,
    /// When it started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// `completed`, `split`, `failed`, `declined` or `withdrawn:<reason>`; null while it waits or runs.
    pub outcome: Option<String>,
    /// What went wrong, or why it was declined.
    pub error: Option<String>,
    /// Of a failed one: whether another attempt could help, by its agent's word.
    pub retryable: Option<bool>,
    /// What it was to do: `work`, or `reduce` (the results of its parts become one).
    pub step: String,
    /// In a tree: by which coordinators and supervisors it was handed down, from the top.
    pub path: Vec<Uuid>,
    /// In a ring: the number of this turn of the token.
    pub turn: Option<i64>,
}

/// A row of `swarm_topologies`: a topology under a name.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct TopologyRow {
    /// Follows from organization and name.
    pub id: Uuid,
    /// Whose it is; null: every organization has it.
    pub organization_id: Option<Uuid>,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// What it is good for.
    pub best_for: Option<String>,
    /// `star`, `mesh`, `hierarchical` or `ring`.
    pub topology_type: String,
    /// All its options.
    #[schema(value_type = Object)]
    pub configuration: Jsonb,
    /// Every organization has it, and none changes it.
    pub is_system: bool,
    /// When it was first saved; null of the system's.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was saved last; null of the system's.
    pub updated_at: Option<DateTime<Utc>>,
    /// Stream sequence of the event that saved it last; 0 of the system's.
    pub last_seq: i64,
}

/// A row of `swarm_questions`: what an agent asked, and what became of it.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct QuestionRow {
    /// The question: the id of the command that asked it.
    pub id: Uuid,
    /// Whose it is.
    pub organization_id: Uuid,
    /// The swarm of the agent that asks.
    pub swarm_id: Uuid,
    /// The agent that asks.
    pub agent_id: Uuid,
    /// Its incarnation.
    pub incarnation: i64,
    /// The assignment that it is about; null if none.
    pub assignment: Option<i64>,
    /// The task of that assignment.
    pub task_id: Option<Uuid>,
    /// Who is to answer: `anybody`, `leader`, `worker`, `supervisor` or `coordinator`. People always may.
    pub answerer: String,
    /// In words.
    pub question: String,
    /// The answers to choose from; empty: any JSON is one.
    #[schema(value_type = Vec<String>)]
    pub choices: Jsonb,
    /// The answer if nobody gives one in time.
    #[serde(rename = "default")]
    #[sqlx(rename = "fallback")]
    #[schema(value_type = Object)]
    pub default: Option<Jsonb>,
    /// `open`, `answered`, `fell_back` (nobody answered in time: its default counts) or `unanswered`.
    pub status: String,
    /// The answer.
    #[schema(value_type = Object)]
    pub answer: Option<Jsonb>,
    /// `person` or `agent`.
    pub answered_by: Option<String>,
    /// That user's or agent's id; null if it is not known.
    pub answered_by_id: Option<Uuid>,
    /// Why it went unanswered.
    pub reason: Option<String>,
    /// When it was asked.
    pub asked_at: DateTime<Utc>,
    /// Until when it waits for an answer.
    pub due_at: DateTime<Utc>,
    /// When it was answered, or went unanswered.
    pub ended_at: Option<DateTime<Utc>>,
    /// Stream sequence of `asked`.
    #[serde(skip)]
    pub asked_seq: i64,
    /// Stream sequence of the last event about it.
    pub last_seq: i64,
}

/// What has become of the tasks that name a task as their parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct Children {
    /// All of them.
    pub total: i64,
    /// Ended with a result.
    pub completed: i64,
    /// Ended without one.
    pub failed: i64,
    /// Called off.
    pub cancelled: i64,
    /// Not ended.
    pub open: i64,
}

/// A row of `swarm_figures`: what the distributor last measured. Counts of what has happened are over the swarm's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct FiguresRow {
    /// Tasks that wait for dependencies or for the delay before an attempt.
    pub pending: i64,
    /// Tasks that wait for an agent.
    pub queued: i64,
    /// Tasks assigned and not started.
    pub assigned: i64,
    /// Tasks running.
    pub running: i64,
    /// Tasks completed.
    pub completed: i64,
    /// Tasks failed, rejected ones included.
    pub failed: i64,
    /// Tasks cancelled.
    pub cancelled: i64,
    /// Age of the oldest queued task, in milliseconds.
    pub oldest_wait_ms: i64,
    /// Queued tasks that no live agent has the capabilities for.
    pub unmet: i64,
    /// Assignments that went to the agent that their affinity likes.
    pub affinity_hits: i64,
    /// Assignments that could not go to the agent that their affinity likes.
    pub affinity_misses: i64,
    /// Tasks that an idle agent took over from a busy one.
    pub steals: i64,
    /// Attempts after the first of a task.
    pub retries: i64,
    /// When this was measured.
    pub measured_at: DateTime<Utc>,
}

/// `error_rate` of a swarm by one dimension.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct ErrorRateRow {
    /// `{"task_type": …}`, `{"capability": …}` or `{"agent_type": …}`.
    #[schema(value_type = Object)]
    pub dimensions: Jsonb,
    /// Failed attempts of all that have ended, 0 to 1.
    pub metric_value: f64,
    /// Attempts that have ended.
    pub sample_count: i64,
    /// Those that completed.
    pub completed: i64,
    /// Those that failed.
    pub failed: i64,
}

/// A row of `task_dependencies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct DependencyRow {
    /// The task that waits.
    pub task_id: Uuid,
    /// What it waits for.
    pub depends_on_task_id: Uuid,
    /// `completion`, `success` or `data`.
    pub dependency_type: String,
    /// Name of the input.
    #[serde(rename = "as")]
    #[sqlx(rename = "alias")]
    pub alias: Option<String>,
}

/// A row of `swarm_events`: one message of the stream.
#[derive(Clone, Debug, Serialize, FromRow, ToSchema)]
pub struct EventRow {
    /// The event (derived from the sequence if the message could not be read).
    pub id: Uuid,
    /// The swarm; all zeros for what belongs to none.
    pub swarm_id: Uuid,
    /// The agent that it is about or that wrote it.
    pub agent_id: Option<Uuid>,
    /// `<aggregate>_<verb>`, with `_void` behind it if it changed nothing.
    pub event_type: String,
    /// What it says.
    #[schema(value_type = Object)]
    pub event_data: Option<Jsonb>,
    /// When the server stored it.
    pub created_at: DateTime<Utc>,
    /// Stream sequence.
    pub seq: i64,
    /// Whose it is.
    pub organization_id: Option<Uuid>,
    /// What it is about.
    pub subject_id: Option<Uuid>,
    /// CloudEvents type.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: Option<String>,
    /// The event or command that it answers.
    pub causation_id: Option<Uuid>,
    /// It changed nothing: its precondition failed.
    pub void: bool,
    /// Which precondition.
    pub void_reason: Option<String>,
}
