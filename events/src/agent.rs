//! Events of agents: membership by the coordinator, liveness by health.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ids::InstanceId, json::Json, problem::Problem, time::Timestamp};

/// Longest agent type, in characters (the PRD's VARCHAR(50)).
pub const TYPE_CHARS_MAX: usize = 50;
/// Longest agent name, in characters (the PRD's VARCHAR(100)).
pub const NAME_CHARS_MAX: usize = 100;
/// Longest capability, in bytes.
pub const CAPABILITY_BYTES_MAX: usize = 100;
/// Most capabilities of an agent or requirements of a task: they are matched one by one.
pub const CAPABILITIES_MAX: usize = 64;
/// Largest `metadata` of an agent, in bytes: it is held in memory by every service that knows agents.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;

/// What a process says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Profile {
    /// `browser`, `api`, `analyzer`, `exec`, …; 1 to 50 characters.
    pub agent_type: String,
    /// Unique among the swarm's live agents.
    pub agent_name: String,
    /// What it can do; sorted, without repeats.
    pub capabilities: Vec<String>,
    /// Tasks it runs at once.
    pub slots: u32,
    /// Tasks that may wait at it beyond its slots.
    pub waiting: u32,
    /// Anything.
    #[serde(default)]
    pub metadata: Json,
}

/// `swarm.agent.joined.v1`; the CloudEvents subject is the agent. Each start of its process is a new incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Joined {
    /// Rises by one with each join of the agent, from 1.
    pub incarnation: u64,
    /// The process.
    pub instance: InstanceId,
    /// What it is and can do.
    pub profile: Profile,
}

/// `swarm.agent.left.v1`: it went by its own word, after its work was drained or given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// The incarnation that left.
    pub incarnation: u64,
    /// Why.
    pub reason: String,
}

/// `swarm.agent.removed.v1`: it was taken out by a command or with its swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// The incarnation that was removed.
    pub incarnation: u64,
    /// Why.
    pub reason: String,
}

/// By what rule a verdict on liveness was made.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LivenessRule {
    /// Its heartbeats stopped.
    Silence,
    /// nats-server said that its connection closed, and it did not come back in time.
    Disconnected,
    /// Its heartbeats came again.
    Heard,
    /// Its host said that its process ended.
    Exited,
}

/// What a verdict rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The rule.
    pub rule: LivenessRule,
    /// Last heartbeat that health heard, `None` if none since it joined.
    pub last_heartbeat_at: Option<Timestamp>,
    /// Its age when observed, in milliseconds of health's monotonic clock.
    pub age_ms: u64,
    /// The limit it is held against, in milliseconds.
    pub limit_ms: u64,
}

/// `swarm.agent.suspected.v1`: no new work until it is heard again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suspected {
    /// The incarnation that is judged; void for another.
    pub incarnation: u64,
    /// What the verdict rests on.
    pub evidence: Evidence,
}

/// `swarm.agent.recovered.v1`: it is heard again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recovered {
    /// The incarnation that is judged; void for another.
    pub incarnation: u64,
    /// What the verdict rests on.
    pub evidence: Evidence,
}

/// `swarm.agent.failed.v2`: its work goes to others; to work again it must join anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The incarnation that is judged; void for another.
    pub incarnation: u64,
    /// What the verdict rests on.
    pub evidence: Evidence,
}

/// How an agent's process does its work.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Adapter {
    /// `command` is run for each task: JSON on stdin, the result on stdout.
    Exec,
    /// `command` is the agent: it speaks the protocol itself, with the settings that it finds in its environment.
    Process,
    /// `url` is called for each task.
    Webhook,
}

/// Whether a process that ended is started again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Whatever its end.
    #[default]
    Always,
    /// Only if it did not end well (exit code 0).
    OnFailure,
    /// Not at all.
    Never,
}

/// When a process that ended is started again. A process that ran for `stable_ms` is started again at once; an
/// end before that is a crash, and the wait after the n-th crash in a row is `backoff_ms * 2^(n-1)`, at most `backoff_cap_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RestartPolicy {
    /// Whether.
    pub restart: Restart,
    /// Wait after the first crash, in milliseconds.
    pub backoff_ms: u64,
    /// Longest wait, in milliseconds.
    pub backoff_cap_ms: u64,
    /// So many crashes in a row, and it is given up until somebody asks for a restart; 0: never.
    pub crash_limit: u32,
    /// A process that ran for this long is no crash, in milliseconds.
    pub stable_ms: u64,
}
impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            restart: Restart::Always,
            backoff_ms: 500,
            backoff_cap_ms: 30_000,
            crash_limit: 5,
            stable_ms: 10_000,
        }
    }
}

/// What an agent's process tree may use. Absent: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceLimits {
    /// Memory, in KiB: of the tree by cgroup v2; elsewhere of each process, by rlimit.
    pub memory_kib: Option<u64>,
    /// CPU, in percent of one core: by cgroup v2 only.
    pub cpu_percent: Option<u32>,
    /// Processes and threads: of the tree by cgroup v2 only.
    pub processes: Option<u32>,
}

/// Longest command line of an agent, in bytes of all its words: it is carried in each request to start it.
pub const COMMAND_BYTES_MAX: usize = 32 * 1024;
/// Most variables of an agent's environment, and most bytes of all of them: they are carried in each request to start it.
pub const ENV_MAX: usize = 256;
/// See [`ENV_MAX`].
pub const ENV_BYTES_MAX: usize = 32 * 1024;

/// What an agent is, and how its process is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// `browser`, `api`, `analyzer`, …; 1 to 50 characters.
    pub agent_type: String,
    /// Unique among the swarm's agents; derived from the agent's id if absent.
    #[serde(default)]
    pub agent_name: Option<String>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// How it does its work; absent: it is started by hand.
    #[serde(default)]
    pub adapter: Option<Adapter>,
    /// Program and arguments, for `exec` and `process`.
    #[serde(default)]
    pub command: Vec<String>,
    /// Where tasks are sent, for `webhook`: `http` or `https`.
    #[serde(default)]
    pub url: Option<String>,
    /// Tasks that it runs at once; the swarm's setting if absent.
    #[serde(default)]
    pub slots: Option<u32>,
    /// Tasks that may wait at it; the swarm's setting if absent.
    #[serde(default)]
    pub waiting: Option<u32>,
    /// Environment beside the clean one. It is stored in the log: secrets go by `pass_env`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables that its process gets from the host's own environment, if the host allows it.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// Where it works; a folder of its own, which the host empties, if absent.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// When it is started again.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// What its process tree may use.
    #[serde(default)]
    pub limits: ResourceLimits,
    /// Anything.
    #[serde(default)]
    pub metadata: Json,
}

/// `swarm.agent.added.v1`: the agent is wanted. Without an adapter it is a place for one that is started by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    /// What it is; its name is filled in.
    pub spec: AgentSpec,
    /// Why: by order, or the rule.
    pub reason: String,
}

/// Why a process is wanted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SpawnReason {
    /// The agent was added.
    Added,
    /// Somebody asked for a restart.
    Restart,
    /// Its process ended.
    Exited,
    /// Its host was lost.
    HostLost,
    /// It was held to be dead or unfit, and taken out.
    Removed,
}

/// `swarm.agent.spawn_requested.v1`: the first host whose claim is met starts the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpawnRequested {
    /// Rises by one with each request for the agent, from 1. Older ones hold no more.
    pub spawn: u64,
    /// Why.
    pub reason: SpawnReason,
    /// Crashes in a row before it.
    pub crashes: u32,
    /// What to start.
    pub spec: AgentSpec,
    /// How long it may work on what it has when it is told to go, in milliseconds.
    pub grace_ms: u64,
}

/// An agent host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostName {
    /// The host process.
    pub instance: InstanceId,
    /// Its name, for people.
    pub name: String,
}

/// `swarm.agent.spawn_claimed.v1`: void unless it is the first for its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpawnClaimed {
    /// The request.
    pub spawn: u64,
    /// Who claims.
    pub host: HostName,
}

/// `swarm.agent.spawn_declined.v1`: a host may not or cannot start it. Other hosts may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpawnDeclined {
    /// The request.
    pub spawn: u64,
    /// Who declines.
    pub host: HostName,
    /// Why.
    pub problem: Problem,
}

/// How a limit is held.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// By cgroup v2, for the whole process tree.
    Cgroup,
    /// By rlimits, for each process.
    Rlimit,
    /// No limit was asked for.
    Nothing,
}

/// `swarm.agent.launched.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Launched {
    /// The request.
    pub spawn: u64,
    /// Where.
    pub host: HostName,
    /// The process's id there; it leads a group of its own.
    pub pid: u32,
    /// How its limits are held.
    pub limited_by: LimitedBy,
    /// Limits that could not be set there, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlimited: Vec<String>,
}

/// How a process ended. At most one of `code`, `signal` and `error` is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// Its exit code.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal that killed it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// It used more memory than it may.
    #[serde(default)]
    pub out_of_memory: bool,
    /// Why it could not be started at all.
    #[serde(default)]
    pub error: Option<String>,
}
impl Exit {
    /// It ended as it should.
    pub const fn is_success(&self) -> bool {
        matches!(self.code, Some(0)) && !self.out_of_memory
    }
}

/// Most of the last output that an exit report carries, in bytes.
pub const LAST_OUTPUT_BYTES_MAX: usize = 2_048;

/// `swarm.agent.exited.v1`: the process has been waited for, and nothing of its group is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exited {
    /// The request.
    pub spawn: u64,
    /// Where.
    pub host: HostName,
    /// How it ended.
    pub exit: Exit,
    /// How long it ran, in milliseconds of the host's monotonic clock.
    pub uptime_ms: u64,
    /// Its host is going, and told it to go: another host may start it.
    #[serde(default)]
    pub host_leaving: bool,
    /// Processes that it had left behind, which were killed.
    pub left_behind: u32,
    /// The end of what it wrote, at most [`LAST_OUTPUT_BYTES_MAX`] bytes.
    pub last_output: String,
}

/// `swarm.agent.host_failed.v1`: the claim on its process holds no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostFailed {
    /// The request that was claimed.
    pub spawn: u64,
    /// Whose claim it was.
    pub host: HostName,
    /// What the verdict rests on.
    pub evidence: Evidence,
}

/// `swarm.agent.crash_looping.v1`: it is not started again until somebody asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CrashLooping {
    /// The last request.
    pub spawn: u64,
    /// Crashes in a row.
    pub crashes: u32,
    /// The last end.
    pub exit: Exit,
}

/// What becomes of an agent that has gone.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum StopThen {
    /// It is not wanted any more.
    Remove,
    /// Its process is started anew.
    Restart,
}

/// `swarm.agent.stopping.v1`: it gets no more work; what waits at it goes to others, what runs may end; then it leaves. Past
/// the grace it is removed, and its host kills what is left of its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stopping {
    /// The incarnation that goes; 0 if none has joined.
    pub incarnation: u64,
    /// The process that goes, by its request; 0 if no host runs one.
    pub spawn: u64,
    /// How long it may take, in milliseconds.
    pub grace_ms: u64,
    /// What comes after.
    pub then: StopThen,
    /// Why.
    pub reason: String,
}

/// `swarm.agent.updated.v1`: the whole new profile of a running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Updated {
    /// The incarnation that it is about.
    pub incarnation: u64,
    /// What it is and can do from here on.
    pub profile: Profile,
}

/// Why an agent gets no new work.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its attempts failed fast, one after another.
    FastFailures,
    /// Too many of its attempts failed.
    ErrorRate,
    /// Its processes use too much memory.
    Memory,
    /// Its processes use too much CPU.
    Cpu,
    /// A task of it shows no progress.
    Stuck,
}

/// What a quarantine rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Figures {
    /// What was found: failures in a row, percent, KiB, hundredths of a percent of one core, or milliseconds.
    pub value: u64,
    /// What it is held against, in the same unit.
    pub limit: u64,
    /// Attempts of which `value` says something; 0 if it is not about attempts.
    pub attempts: u64,
}

/// `swarm.agent.quarantined.v1`: no new work; what waits at it goes to others, what runs goes on. An agent may have several
/// causes at a time, each with an event of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantined {
    /// The incarnation that is judged; void for another.
    pub incarnation: u64,
    /// Why.
    pub cause: Cause,
    /// What it rests on.
    pub figures: Figures,
    /// When it is over, by log time; absent: when the figures are back below the limit.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// `swarm.agent.released.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// The incarnation that is judged; void for another.
    pub incarnation: u64,
    /// The cause that holds no more.
    pub cause: Cause,
    /// What it rests on.
    pub figures: Figures,
}
