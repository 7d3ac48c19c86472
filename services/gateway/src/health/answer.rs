//! What `/swarms/{id}/health` answers.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use swarm_events::{
    agent::{Adapter, Evidence},
    configuration::HealthPolicy,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::agents::view::{Ended, Going, Host, Unfit};

/// How a swarm is.
#[derive(Serialize, ToSchema)]
pub struct HealthAnswer {
    /// The swarm.
    pub swarm_id: Uuid,
    /// `inactive`, `starting`, `active`, `degraded` or `stopping`.
    pub status: &'static str,
    /// Why, in words; empty if it is active.
    pub reasons: Vec<String>,
    /// Agents by what they are.
    pub agents: AgentCounts,
    /// What agents are held against.
    pub thresholds: Thresholds,
    /// Agents one by one: live ones, those that are to be, and those that are going.
    pub items: Vec<AgentHealth>,
    /// By task type: attempts within the window, of all agents.
    pub task_types: BTreeMap<String, Rate>,
    /// By required capability: attempts within the window, of all agents.
    pub capabilities: BTreeMap<String, Rate>,
    /// Hosts that have processes of this swarm.
    pub hosts: Vec<HostHealth>,
    /// Tasks, as last measured by the distributor; null before the first measurement.
    pub tasks: Option<TaskHealth>,
    /// Where the times of the last heartbeats are from: `stream` (read for this answer), or `log` (sampled, so older) if the
    /// stream could not be read.
    pub heartbeats_from: &'static str,
    /// Last stream sequence that this rests on.
    pub seq: u64,
    /// The log's time there.
    #[schema(value_type = Option<DateTime<Utc>>)]
    pub at: Option<DateTime<Utc>>,
    /// Since when the gateway has not heard from the log; null while it does.
    pub stale_since: Option<DateTime<Utc>>,
}

/// Numbers of agents.
#[derive(Default, Serialize, ToSchema)]
pub struct AgentCounts {
    /// Fewest with which the swarm is active.
    pub needed: usize,
    /// Added, and to run.
    pub wanted: usize,
    /// Those that belong to the swarm.
    pub live: usize,
    /// Live, and nothing speaks against their being alive and fit.
    pub healthy: usize,
    /// Wanted, and no host has a process of them.
    pub pending: usize,
    /// Their processes are being started, or have not joined yet.
    pub starting: usize,
    /// Live and busy.
    pub busy: usize,
    /// Live and idle.
    pub idle: usize,
    /// Suspected, held to be dead, quarantined or given up.
    pub unhealthy: usize,
    /// Of these, quarantined.
    pub quarantined: usize,
    /// Of these, ended so often that they are not started again.
    pub given_up: usize,
    /// Told to go, and not gone yet.
    pub draining: usize,
    /// Those that left or were removed.
    pub stopped: usize,
}

/// What agents are held against.
#[derive(Serialize, ToSchema)]
pub struct Thresholds {
    /// How often an agent reports, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Silence after which it is suspected, in milliseconds.
    pub suspect_after_ms: u64,
    /// Silence after which it is held to be dead, in milliseconds.
    pub fail_after_ms: u64,
    /// The same after nats-server said that its connection closed, in milliseconds.
    pub disconnect_grace_ms: u64,
    /// The other settings, as they are configured.
    #[schema(value_type = crate::openapi::HealthPolicy)]
    pub policy: HealthPolicy,
}

/// Attempts within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = ErrorRate)]
pub struct Rate {
    /// How many ended.
    pub attempts: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Their share, 0 to 1; null if none ended.
    pub error_rate: Option<f64>,
}

impl From<swarm_health_core::Rate> for Rate {
    fn from(rate: swarm_health_core::Rate) -> Self {
        let swarm_health_core::Rate {
            attempts, failed, ..
        } = rate;
        Self {
            attempts,
            failed,
            error_rate: (attempts > 0).then(|| failed as f64 / attempts as f64),
        }
    }
}

/// How an agent is.
#[derive(Serialize, ToSchema)]
pub struct AgentHealth {
    /// The agent.
    pub id: Uuid,
    /// Its name.
    pub agent_name: String,
    /// What kind.
    pub agent_type: String,
    /// `pending`, `starting`, `idle`, `busy`, `unhealthy` or `stopped`.
    pub status: &'static str,
    /// Why, in words; null if there is nothing to say.
    pub status_reason: Option<String>,
    /// Number of its process's join, from 1; 0 if none has joined.
    pub incarnation: u64,
    /// When it was last heard.
    pub last_heartbeat_at: Option<DateTime<Utc>>,
    /// How long ago that is, by the gateway's clock.
    pub heartbeat_age_ms: Option<u64>,
    /// CPU of its process tree in percent of one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory of its process tree in MiB.
    pub memory_mb: Option<f64>,
    /// Open sockets of its process tree.
    pub active_connections: Option<u32>,
    /// When these three were told.
    pub usage_at: Option<DateTime<Utc>>,
    /// Tasks waiting at it.
    pub queue_depth: u32,
    /// Tasks that it runs.
    pub running: u32,
    /// Of these, those without progress for longer than `stuck_after_ms`.
    pub stuck: u32,
    /// How long the longest of them has shown none, in milliseconds; null if none is stuck.
    pub stuck_ms: Option<u64>,
    /// Attempts that failed fast, one after another since its last success.
    pub fast_failures: u32,
    /// Tasks completed in its life.
    pub tasks_completed: u64,
    /// Attempts failed in its life.
    pub tasks_failed: u64,
    /// Attempts that ended within the window.
    pub attempts: u64,
    /// Share of failed ones among them, 0 to 1; null if none ended.
    pub error_rate: Option<f64>,
    /// Why it gets no new work, one for each cause.
    pub quarantine: Vec<Unfit>,
    /// It was told to go; null if not.
    pub draining: Option<Going>,
    /// How its process does its work; null if it is started by hand.
    #[schema(value_type = Option<crate::openapi::Adapter>)]
    pub adapter: Option<Adapter>,
    /// The host that has its process.
    pub host: Option<Host>,
    /// The process's id there.
    pub pid: Option<u32>,
    /// Requests for a process after the first.
    pub restarts: u64,
    /// Crashes in a row.
    pub crashes: u32,
    /// When its next process is requested, if that must wait.
    pub restart_due: Option<DateTime<Utc>>,
    /// How a process of it ended last; null if none has, or it is started by hand.
    pub last_exit: Option<Ended>,
    /// What the last verdict on its life rests on; null if there was none since it joined.
    #[schema(value_type = Option<crate::openapi::Evidence>)]
    pub evidence: Option<Evidence>,
}

/// An agent host, as far as this swarm has to do with it.
#[derive(Serialize, ToSchema)]
pub struct HostHealth {
    /// The host's process.
    pub instance: Uuid,
    /// Its name.
    pub name: String,
    /// Processes of this swarm that it has, or is about to start.
    pub agents: usize,
    /// When it was last heard; null if not for a minute.
    pub last_heartbeat_at: Option<DateTime<Utc>>,
    /// How long ago that is, by the gateway's clock.
    pub heartbeat_age_ms: Option<u64>,
    /// Processes that it may start beside those that run, of any swarm.
    pub room: Option<u32>,
}

/// A swarm's tasks.
#[derive(Serialize, ToSchema)]
pub struct TaskHealth {
    /// Waiting for others.
    pub pending: u64,
    /// Waiting for an agent.
    pub queued: u64,
    /// Given to an agent and not started.
    pub assigned: u64,
    /// Running.
    pub running: u64,
    /// Of these, without progress for longer than `stuck_after_ms`.
    pub stuck: u64,
    /// Queued, and no live agent has the capabilities.
    pub unmet: u64,
    /// Age of the oldest queued one in milliseconds.
    pub oldest_wait_ms: u64,
    /// Share of failed ones among those that ended in the last minute; null if none ended.
    pub error_rate: Option<f64>,
    /// When this was measured.
    pub measured_at: Option<DateTime<Utc>>,
}
