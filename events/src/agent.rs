//! Events of agents: membership by the coordinator, liveness by health.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ids::InstanceId, json::Json, time::Timestamp};

/// Longest agent type, in characters (the PRD's VARCHAR(50)).
pub const TYPE_CHARS_MAX: usize = 50;
/// Longest agent name, in characters (the PRD's VARCHAR(100)).
pub const NAME_CHARS_MAX: usize = 100;
/// Longest capability, in bytes.
pub const CAPABILITY_BYTES_MAX: usize = 100;
/// Most capabilities of an agent or requirements of a task: they are matched one by one.
pub const CAPABILITIES_MAX: usize = 64;

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

/// `swarm.agent.failed.v1`: its work goes to others; to work again it must join anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// The incarnation that is judged; void for another.
    pub incarnation: u64,
    /// What the verdict rests on.
    pub evidence: Evidence,
}
