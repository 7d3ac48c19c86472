//! `/swarms/{id}/health`: from the gateway's own fold, so it works while PostgreSQL is down.

use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use swarm_coordinator_core::{Agent, Liveness, Swarm};
use swarm_events::{AgentId, Timestamp, agent::Evidence};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    answer::Reply,
    app::Shared,
    auth::{Action, Caller, May},
    fold::{Fold, measures::Measure},
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::known,
};

/// How a swarm is.
#[derive(Serialize, ToSchema)]
pub struct HealthAnswer {
    /// The swarm.
    pub swarm_id: Uuid,
    /// `inactive`, `starting`, `active`, `degraded` or `stopping`.
    pub status: &'static str,
    /// Agents by what they are.
    pub agents: AgentCounts,
    /// Live agents one by one.
    pub items: Vec<AgentHealth>,
    /// Tasks, as last measured by the distributor; null before the first measurement.
    pub tasks: Option<TaskHealth>,
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
    /// Those that belong to the swarm.
    pub live: usize,
    /// Live, and nothing speaks against their being alive.
    pub healthy: usize,
    /// Live and busy.
    pub busy: usize,
    /// Live and idle.
    pub idle: usize,
    /// Suspected, or held to be dead and not removed yet.
    pub unhealthy: usize,
    /// Those that left or were removed.
    pub stopped: usize,
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
    /// `idle`, `busy` or `unhealthy`.
    pub status: &'static str,
    /// Number of its process, from 1.
    pub incarnation: u64,
    /// When it was last heard, as far as the log knows.
    pub last_heartbeat_at: Option<DateTime<Utc>>,
    /// CPU of its process tree in percent of one core, as last sampled.
    pub cpu_percent: Option<f64>,
    /// Resident memory of its process tree in MiB, as last sampled.
    pub memory_mb: Option<f64>,
    /// Open sockets of its process tree, as last sampled.
    pub active_connections: Option<u32>,
    /// Tasks waiting at it.
    pub queue_depth: u32,
    /// Tasks that it runs.
    pub running: u32,
    /// Tasks completed in its life.
    pub tasks_completed: u64,
    /// Attempts failed in its life.
    pub tasks_failed: u64,
    /// Share of failed attempts among the ended ones; null if none ended.
    pub error_rate: Option<f64>,
    /// What the last verdict on its life rests on; null if there was none since it joined.
    #[schema(value_type = Option<crate::openapi::Evidence>)]
    pub evidence: Option<Evidence>,
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
    /// Queued, and no live agent has the capabilities.
    pub unmet: u64,
    /// Age of the oldest queued one in milliseconds.
    pub oldest_wait_ms: u64,
    /// Share of failed ones among those that ended in the last minute; null if none ended.
    pub error_rate: Option<f64>,
    /// When this was measured.
    pub measured_at: Option<DateTime<Utc>>,
}

fn time(at: Timestamp) -> Option<DateTime<Utc>> {
    at.to_chrono()
}

/// An agent's status as it is shown while it lives.
pub fn status_of(agent: &Agent, running: u32) -> &'static str {
    match (agent.liveness, running) {
        (Liveness::Suspected | Liveness::Failed, _) => "unhealthy",
        (Liveness::Alive, 0) => "idle",
        (Liveness::Alive, _) => "busy",
    }
}

/// Shows how a swarm and its agents are.
#[utoipa::path(get, path = "/v1/swarms/{id}/health", tag = "swarms", params(("id" = Uuid, Path)),
    responses((status = 200, body = HealthAnswer),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    Params::of(&uri)?.done()?;
    let place = known(&app, &caller, &swarm)?;
    let fold = app.fold.read();
    let swarm = fold
        .swarm(place.org, place.swarm)
        .ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))?;
    let mut answer = health(&fold, swarm);
    answer.stale_since = app.tail_state().interrupted_since;
    Ok(Reply::json(StatusCode::OK, &answer))
}

fn health(fold: &Fold, swarm: &Swarm) -> HealthAnswer {
    let measure = fold.measure(swarm.place);
    let items: Vec<AgentHealth> = swarm
        .agents
        .iter()
        .filter(|(_, agent)| agent.is_live())
        .map(|(id, agent)| one(fold, swarm, *id, agent, measure))
        .collect();
    let with = |status: &str| items.iter().filter(|agent| agent.status == status).count();
    let agents = AgentCounts {
        needed: swarm.agents_needed(),
        live: items.len(),
        healthy: swarm.healthy_agents(),
        busy: with("busy"),
        idle: with("idle"),
        unhealthy: with("unhealthy"),
        stopped: swarm.agents.len() - items.len(),
    };
    HealthAnswer {
        swarm_id: swarm.place.swarm.0,
        status: swarm.status().as_str(),
        agents,
        items,
        tasks: measure.filter(|measure| measure.sequence > 0).map(tasks),
        seq: fold.sequence(),
        at: time(fold.now()),
        stale_since: None,
    }
}

fn one(
    fold: &Fold,
    swarm: &Swarm,
    id: AgentId,
    agent: &Agent,
    measure: Option<&Measure>,
) -> AgentHealth {
    let load = measure
        .and_then(|measure| measure.agents.get(&id))
        .copied()
        .unwrap_or_default();
    let heard = fold
        .samples(swarm.place)
        .and_then(|samples| samples.get(id));
    let sample = heard.and_then(|heard| heard.sample.as_ref());
    let ended = load.completed + load.failed;
    AgentHealth {
        id: id.0,
        agent_name: agent.profile.agent_name.clone(),
        agent_type: agent.profile.agent_type.clone(),
        status: status_of(agent, load.running),
        incarnation: agent.incarnation,
        last_heartbeat_at: heard
            .and_then(|heard| heard.last_heartbeat_at())
            .and_then(time),
        cpu_percent: sample.map(|sample| f64::from(sample.cpu_centipercent) / 100.0),
        memory_mb: sample.map(|sample| sample.memory_kib as f64 / 1_024.0),
        active_connections: sample.map(|sample| sample.active_connections),
        queue_depth: load.waiting,
        running: load.running,
        tasks_completed: load.completed,
        tasks_failed: load.failed,
        error_rate: (ended > 0).then(|| load.failed as f64 / ended as f64),
        evidence: heard.and_then(|heard| heard.evidence.clone()),
    }
}

fn tasks(measure: &Measure) -> TaskHealth {
    TaskHealth {
        pending: measure.last.pending,
        queued: measure.last.queued,
        assigned: measure.last.assigned,
        running: measure.last.running,
        unmet: measure.last.unmet,
        oldest_wait_ms: measure.last.oldest_wait_ms,
        error_rate: measure.rates().and_then(|rates| rates.error_rate),
        measured_at: time(measure.time),
    }
}
