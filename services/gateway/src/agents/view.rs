//! An agent as it is shown, from the fold alone: what writes answer with, and reads while PostgreSQL is away.

use chrono::{DateTime, Utc};
use serde::Serialize;
use swarm_coordinator_core::{Agent, AgentRole, Lifecycle, Managed, Phase, Swarm};
use swarm_events::{
    AgentId, Json, Place, Timestamp,
    agent::{
        Adapter, AgentSpec, Cause, Exit, Figures, HostName, LimitedBy, RestartPolicy, StopThen,
    },
    configuration::Configuration,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::fold::Fold;

/// An agent, as the log tells of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Agent)]
pub struct AgentAnswer {
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
    pub role: &'static str,
    /// Its level in the topology: 0 at the top of a tree and at the hub of a star; null without a seat.
    pub level: Option<u32>,
    /// Whose child it is, in a tree.
    pub parent_agent_id: Option<Uuid>,
    /// Its number in the order in which agents came: the circle of a ring, nearness in a mesh.
    pub place: Option<u64>,
    /// It takes the hub's place at once if that is lost.
    pub standby: Option<bool>,
    /// It is given tasks that ask for no role.
    pub works: Option<bool>,
    /// `pending`, `starting`, `idle`, `busy`, `unhealthy` or `stopped`.
    pub status: &'static str,
    /// Why, in words; null if there is nothing to say.
    pub status_reason: Option<String>,
    /// The task that it runs (the oldest, if several), as of its last sample.
    pub current_task_id: Option<Uuid>,
    /// Tasks completed in its life, as last measured.
    pub tasks_completed: u64,
    /// Attempts failed in its life, as last measured.
    pub tasks_failed: u64,
    /// When it was last heard, as of the last sample.
    pub last_heartbeat_at: Option<DateTime<Utc>>,
    /// `{cpu_percent, memory_mb, active_connections}` of the last sample, read from the operating system.
    pub resource_usage: Usage,
    /// What it says of itself, or what was said of it when it was added.
    #[schema(value_type = Object)]
    pub metadata: Json,
    /// When its present (or last) process joined; null if none has.
    pub started_at: Option<DateTime<Utc>>,
    /// When that process went.
    pub stopped_at: Option<DateTime<Utc>>,
    /// When it was added, or else first joined.
    pub created_at: DateTime<Utc>,
    /// Number of its process's join, from 1; 0 if none has joined.
    pub incarnation: u64,
    /// Its process; null if none has joined.
    pub instance_id: Option<Uuid>,
    /// Tasks that it runs at once.
    pub slots: u32,
    /// Tasks that may wait at it beyond its slots.
    pub waiting_limit: u32,
    /// Tasks that it runs, as last measured.
    pub running: u32,
    /// Tasks assigned to it and not started, as last measured.
    pub queue_depth: u32,
    /// When the oldest of these was assigned: not known to the gateway, which reads no tasks.
    pub waiting_since: Option<DateTime<Utc>>,
    /// Why it stopped.
    pub stop_reason: Option<String>,
    /// How its process does its work; null if it is started by hand.
    #[schema(value_type = Option<crate::openapi::Adapter>)]
    pub adapter: Option<Adapter>,
    /// The host that has its process.
    pub host: Option<Host>,
    /// The process's id there.
    pub pid: Option<u32>,
    /// How its limits are held there: `cgroup`, `rlimit` or `nothing`.
    #[schema(value_type = Option<String>)]
    pub limited_by: Option<LimitedBy>,
    /// Limits that could not be set there, by name.
    pub unlimited: Vec<String>,
    /// Number of the last request for a process, from 1; null if it is started by hand.
    pub spawn: Option<u64>,
    /// Requests for a process after the first.
    pub restarts: u64,
    /// Crashes in a row.
    pub crashes: u32,
    /// When the next process is requested, if that must wait.
    pub restart_due: Option<DateTime<Utc>>,
    /// It was told to go; null if not.
    pub draining: Option<Going>,
    /// Why it gets no new work, one for each cause.
    pub quarantine: Vec<Unfit>,
    /// Since when it has been in quarantine without a break.
    pub quarantined_since: Option<DateTime<Utc>>,
    /// How a process of it ended last; null if none has, or it is started by hand.
    pub last_exit: Option<Ended>,
    /// When its process is started again; null if it is started by hand.
    #[schema(value_type = Option<crate::openapi::RestartPolicy>)]
    pub restart_policy: Option<RestartPolicy>,
    /// Stream sequence up to which this holds.
    pub last_seq: u64,
}

/// What the operating system says of a process tree.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[schema(as = ResourceUsage)]
pub struct Usage {
    /// In percent of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Resident, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<f64>,
    /// Open sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_connections: Option<u32>,
}

/// An agent host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(as = AgentHost)]
pub struct Host {
    /// The host's process.
    pub instance: Uuid,
    /// Its name.
    pub name: String,
}

/// An agent's going.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Draining)]
pub struct Going {
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// How long it may take, in milliseconds.
    pub grace_ms: u64,
    /// When it is taken out if it has not gone by itself.
    pub due: Option<DateTime<Utc>>,
    /// `remove` or `restart`.
    pub then: &'static str,
    /// Why.
    pub reason: String,
}

/// Why an agent gets no new work.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Quarantine)]
pub struct Unfit {
    /// `fast_failures`, `error_rate`, `memory`, `cpu` or `stuck`.
    #[schema(value_type = String)]
    pub cause: Cause,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// Until when; null: until the figures are back below the limit.
    pub until: Option<DateTime<Utc>>,
    /// What it rests on.
    #[schema(value_type = crate::openapi::Figures)]
    pub figures: Figures,
}

/// How a process ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = LastExit)]
pub struct Ended {
    /// When that was stored.
    pub at: Option<DateTime<Utc>>,
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// It used more memory than it may.
    pub out_of_memory: bool,
    /// Why it could not be started at all.
    pub error: Option<String>,
    /// How long it ran, in milliseconds.
    pub uptime_ms: u64,
    /// The end of what it wrote.
    pub last_output: String,
}

fn time(at: Timestamp) -> Option<DateTime<Utc>> {
    at.to_chrono()
}

/// An agent's status as it is shown; `running` tasks are as last measured.
pub fn status_of(agent: &Agent, running: u32) -> &'static str {
    match (agent.lifecycle(), running) {
        (Lifecycle::Pending, _) => "pending",
        (Lifecycle::Starting, _) => "starting",
        (Lifecycle::Ready, 0) => "idle",
        (Lifecycle::Ready, _) => "busy",
        (Lifecycle::Unhealthy, _) => "unhealthy",
        (Lifecycle::Stopped, _) => "stopped",
    }
}

impl From<&HostName> for Host {
    fn from(host: &HostName) -> Self {
        Self {
            instance: host.instance.0,
            name: host.name.clone(),
        }
    }
}

/// The process of an agent, where a host has it.
pub fn process(managed: &Managed) -> (Option<Host>, Option<u32>) {
    let pid = match &managed.phase {
        Phase::Running { pid, .. } => Some(*pid),
        _ => None,
    };
    (managed.host().map(Host::from), pid)
}

/// Its going, if it was told to go.
pub fn going(agent: &Agent) -> Option<Going> {
    agent.draining.as_ref().map(|draining| Going {
        since: time(draining.since),
        grace_ms: draining.grace_ms,
        due: time(draining.due()),
        then: match draining.then {
            StopThen::Remove => "remove",
            StopThen::Restart => "restart",
        },
        reason: draining.reason.clone(),
    })
}

/// Why it gets no new work, by cause.
pub fn unfit(agent: &Agent) -> Vec<Unfit> {
    let causes = agent.quarantine.iter();
    causes
        .map(|(cause, quarantine)| Unfit {
            cause: *cause,
            since: time(quarantine.since),
            until: quarantine.until.and_then(time),
            figures: quarantine.figures,
        })
        .collect()
}

/// How its last process ended.
pub fn ended(managed: &Managed) -> Option<Ended> {
    managed.last_exit.as_ref().map(|last| {
        let Exit {
            code,
            signal,
            out_of_memory,
            error,
        } = last.exit.clone();
        Ended {
            at: time(last.at),
            code,
            signal,
            out_of_memory,
            error,
            uptime_ms: last.uptime_ms,
            last_output: last.last_output.clone(),
        }
    })
}

/// An agent of `swarm` as the fold knows it.
pub fn of(fold: &Fold, swarm: &Swarm, id: AgentId, agent: &Agent, last_seq: u64) -> AgentAnswer {
    let load = fold
        .measure(swarm.place)
        .and_then(|measure| measure.agents.get(&id).copied())
        .filter(|_| agent.is_live());
    let counts = load.unwrap_or_default();
    let heard = fold
        .samples(swarm.place)
        .and_then(|samples| samples.get(id));
    let sample = heard.and_then(|heard| heard.sample.as_ref());
    let managed = agent.managed.as_ref();
    let hosted = managed.filter(|managed| managed.has_adapter());
    let (host, pid) = managed.map(process).unwrap_or_default();
    let joined = agent.incarnation > 0;
    let profile = &agent.profile;
    let seat = swarm.shape.seat(id);
    AgentAnswer {
        id: id.0,
        organization_id: swarm.place.org.0,
        swarm_id: swarm.place.swarm.0,
        agent_type: profile.agent_type.clone(),
        agent_name: Some(profile.agent_name.clone()),
        capabilities: profile.capabilities.clone(),
        role: swarm.role(id).as_str(),
        level: seat.map(|seat| seat.level),
        parent_agent_id: seat.and_then(|seat| seat.parent).map(|parent| parent.0),
        place: seat.map(|seat| seat.place),
        standby: seat.map(|seat| seat.standby),
        works: seat.map(|seat| seat.works),
        status: status_of(agent, counts.running),
        status_reason: agent.status_reason(),
        current_task_id: sample
            .filter(|_| agent.is_live())
            .and_then(|sample| sample.current_tasks.first())
            .map(|task| task.0),
        tasks_completed: life(fold, swarm.place, id).0,
        tasks_failed: life(fold, swarm.place, id).1,
        last_heartbeat_at: heard
            .and_then(|heard| heard.last_heartbeat_at())
            .and_then(time),
        resource_usage: sample.map_or_else(Usage::default, |sample| Usage {
            cpu_percent: Some(f64::from(sample.cpu_centipercent) / 100.0),
            memory_mb: Some(sample.memory_kib as f64 / 1_024.0),
            active_connections: Some(sample.active_connections),
        }),
        metadata: profile.metadata.clone(),
        started_at: time(agent.joined_at).filter(|_| joined),
        stopped_at: agent.left_at.and_then(time),
        created_at: time(agent.created_at).unwrap_or_default(),
        incarnation: agent.incarnation,
        instance_id: joined.then_some(agent.instance.0),
        slots: profile.slots,
        waiting_limit: profile.waiting,
        running: counts.running,
        queue_depth: counts.waiting,
        waiting_since: None,
        stop_reason: agent.left_reason.clone(),
        adapter: managed.and_then(|managed| managed.spec.adapter),
        host,
        pid,
        limited_by: managed.and_then(|managed| match managed.phase {
            Phase::Running { limited_by, .. } => Some(limited_by),
            _ => None,
        }),
        unlimited: managed.map_or_else(Vec::new, |managed| managed.unlimited.clone()),
        spawn: hosted.map(|managed| managed.spawn),
        restarts: managed.map_or(0, |managed| managed.restarts),
        crashes: managed.map_or(0, |managed| managed.crashes),
        restart_due: managed.and_then(|managed| managed.restart_due.and_then(time)),
        draining: going(agent),
        quarantine: unfit(agent),
        quarantined_since: agent.quarantined_since.and_then(time),
        last_exit: managed.and_then(ended),
        restart_policy: hosted.map(|managed| managed.spec.restart),
        last_seq,
    }
}

/// Tasks completed and attempts failed in an agent's life.
fn life(fold: &Fold, place: Place, id: AgentId) -> (u64, u64) {
    let load = fold
        .measure(place)
        .and_then(|measure| measure.agents.get(&id));
    load.map_or((0, 0), |load| (load.completed, load.failed))
}

/// An agent as it was when it was added: a repeat of the request is answered the same.
pub(super) fn added(
    place: Place,
    id: AgentId,
    spec: &AgentSpec,
    settings: &Configuration,
    at: Timestamp,
    sequence: u64,
) -> AgentAnswer {
    let hosted = spec.adapter.is_some();
    AgentAnswer {
        id: id.0,
        organization_id: place.org.0,
        swarm_id: place.swarm.0,
        agent_type: spec.agent_type.clone(),
        agent_name: spec.agent_name.clone(),
        capabilities: spec.capabilities.clone(),
        role: AgentRole::Worker.as_str(),
        level: None,
        parent_agent_id: None,
        place: None,
        standby: None,
        works: None,
        status: "pending",
        status_reason: None,
        current_task_id: None,
        tasks_completed: 0,
        tasks_failed: 0,
        last_heartbeat_at: None,
        resource_usage: Usage::default(),
        metadata: spec.metadata.clone(),
        started_at: None,
        stopped_at: None,
        created_at: time(at).unwrap_or_default(),
        incarnation: 0,
        instance_id: None,
        slots: spec.slots.unwrap_or(settings.agent_slots),
        waiting_limit: spec.waiting.unwrap_or(settings.agent_waiting),
        running: 0,
        queue_depth: 0,
        waiting_since: None,
        stop_reason: None,
        adapter: spec.adapter,
        host: None,
        pid: None,
        limited_by: None,
        unlimited: Vec::new(),
        spawn: hosted.then_some(0),
        restarts: 0,
        crashes: 0,
        restart_due: None,
        draining: None,
        quarantine: Vec::new(),
        quarantined_since: None,
        last_exit: None,
        restart_policy: hosted.then_some(spec.restart),
        last_seq: sequence,
    }
}
