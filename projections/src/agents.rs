//! Rows of agents: what the coordinator knows of each, with what its tasks make of it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use swarm_coordinator_core::{
    Agent, Draining, LastExit, Lifecycle, Managed, Phase, Quarantine, Swarm,
};
use swarm_distributor_core::AgentView;
use swarm_events::{
    AgentId, OrgId, SwarmId,
    agent::{Adapter, Cause, Figures, HostName, LimitedBy, StopThen},
    swarm::AgentSample,
};
use uuid::Uuid;

use crate::{
    batch::{Batch, bounded, int4, int8, json, stored, time},
    changes::AgentChange,
    columns::array_literal,
    fold::Fold,
    jsonb::{clipped, text},
    tables::Time,
};

impl Batch {
    /// Adds what changed of an agent.
    pub(crate) fn agent(
        &mut self,
        fold: &Fold,
        (org, swarm, id): (OrgId, SwarmId, AgentId),
        change: &AgentChange,
    ) {
        // Only an agent of a swarm has a row: what the distributor knows of others is nothing.
        let Some((found, in_swarm)) = fold
            .swarm(org, swarm)
            .and_then(|in_swarm| Some((in_swarm.agents.get(&id)?, in_swarm)))
        else {
            return;
        };
        let work = fold
            .distributor(in_swarm.place.partition)
            .agent(in_swarm.place, id);
        let load = Load::of(found, work.as_ref());
        macro_rules! both {
            ($rows:ident) => {
                $rows.id.push(id.0);
                $rows.organization_id.push(org.0);
                $rows.swarm_id.push(swarm.0);
                $rows.status.push(load.status);
                $rows.current_task_id.push(load.current_task);
                $rows.tasks_completed.push(load.completed);
                $rows.tasks_failed.push(load.failed);
                $rows.running.push(load.running);
                $rows.queue_depth.push(load.waiting);
                $rows.waiting_since.push(load.waiting_since);
                $rows.last_seq.push(int8(change.sequence));
            };
        }
        if change.member {
            let rows = &mut self.agents;
            both!(rows);
            rows.created_seq
                .push(int8(change.created.unwrap_or(found.joined_seq)));
            self.member(in_swarm, id, found);
        } else {
            let rows = &mut self.agent_loads;
            both!(rows);
        }
        if let Some(sample) = &change.sample {
            let rows = &mut self.samples;
            rows.id.push(id.0);
            rows.organization_id.push(org.0);
            rows.swarm_id.push(swarm.0);
            rows.last_heartbeat_at
                .push(sample.last_heartbeat_at.to_chrono());
            rows.resource_usage.push(resource_usage(sample));
        }
    }

    /// The columns that no task moves.
    fn member(&mut self, in_swarm: &Swarm, id: AgentId, found: &Agent) {
        let rows = &mut self.agents;
        let profile = &found.profile;
        let joined = found.incarnation > 0;
        rows.agent_type.push(clipped(
            &profile.agent_type,
            swarm_events::agent::TYPE_CHARS_MAX,
        ));
        rows.agent_name.push(clipped(
            &profile.agent_name,
            swarm_events::agent::NAME_CHARS_MAX,
        ));
        rows.capabilities.push(array_literal(&profile.capabilities));
        rows.role.push(in_swarm.role(id).as_str());
        let seat = in_swarm.shape.seat(id);
        rows.level.push(seat.map(|seat| int4(seat.level)));
        rows.parent_agent_id
            .push(seat.and_then(|seat| seat.parent).map(|parent| parent.0));
        rows.place.push(seat.map(|seat| int8(seat.place)));
        rows.standby.push(seat.map(|seat| seat.standby));
        rows.works.push(seat.map(|seat| seat.works));
        rows.status_reason
            .push(found.status_reason().map(|words| text(&words).into_owned()));
        rows.resource_usage.push("{}");
        rows.metadata.push(stored(&profile.metadata));
        rows.started_at.push(joined.then(|| time(found.joined_at)));
        rows.stopped_at.push(found.left_at.map(time));
        rows.created_at.push(time(found.created_at));
        rows.incarnation.push(int8(found.incarnation));
        rows.instance_id.push(joined.then_some(found.instance.0));
        rows.slots.push(int4(profile.slots));
        rows.waiting_limit.push(int4(profile.waiting));
        let reason = found.left_reason.as_deref();
        rows.stop_reason
            .push(reason.map(|reason| text(reason).into_owned()));
        rows.draining
            .push(found.draining.as_ref().map(|going| json(&Going::of(going))));
        let causes = found.quarantine.iter();
        let unfit: Vec<_> = causes
            .map(|(cause, held)| Unfit::of(*cause, held))
            .collect();
        rows.quarantine.push(json(&unfit));
        rows.quarantined_since
            .push(found.quarantined_since.map(time));
        let managed = found.managed.as_ref();
        let hosted = managed.filter(|managed| managed.has_adapter());
        rows.spec.push(managed.map(|managed| json(&managed.spec)));
        rows.adapter
            .push(managed.and_then(|managed| managed.spec.adapter.map(adapter)));
        rows.restart_policy
            .push(hosted.map(|managed| json(&managed.spec.restart)));
        rows.spawn.push(hosted.map(|managed| int8(managed.spawn)));
        let host = managed.and_then(Managed::host);
        rows.host.push(host.map(|host| json(&Host::of(host))));
        let running = managed.and_then(|managed| match &managed.phase {
            Phase::Running {
                pid, limited_by, ..
            } => Some((i64::from(*pid), limits(*limited_by))),
            _ => None,
        });
        rows.pid.push(running.map(|(pid, _)| pid));
        rows.limited_by.push(running.map(|(_, limits)| limits));
        rows.unlimited.push(managed.map_or_else(
            || "{}".to_owned(),
            |managed| array_literal(&managed.unlimited),
        ));
        rows.restarts
            .push(managed.map_or(0, |managed| int8(managed.restarts)));
        rows.crashes
            .push(managed.map_or(0, |managed| int4(managed.crashes)));
        rows.restart_due
            .push(managed.and_then(|managed| managed.restart_due.map(time)));
        let last = managed.and_then(|managed| managed.last_exit.as_ref());
        rows.last_exit.push(last.map(|last| json(&Ended::of(last))));
    }
}

/// What its tasks make of an agent.
struct Load {
    status: &'static str,
    current_task: Option<Uuid>,
    completed: i32,
    failed: i32,
    running: i32,
    waiting: i32,
    waiting_since: Option<Time>,
}

impl Load {
    fn of(agent: &Agent, work: Option<&AgentView>) -> Self {
        let running = work.map_or(&[][..], |work| &work.running[..]);
        let current = running.first().filter(|_| agent.is_live());
        Self {
            status: status(agent, !running.is_empty()),
            current_task: current.map(|task| task.0),
            completed: work.map_or(0, |work| bounded(work.completed)),
            failed: work.map_or(0, |work| bounded(work.failed)),
            running: bounded(running.len()),
            waiting: work.map_or(0, |work| bounded(work.waiting.len())),
            waiting_since: work.and_then(|work| work.waiting_since).map(time),
        }
    }
}

fn status(agent: &Agent, busy: bool) -> &'static str {
    match agent.lifecycle() {
        Lifecycle::Pending => "pending",
        Lifecycle::Starting => "starting",
        Lifecycle::Ready if busy => "busy",
        Lifecycle::Ready => "idle",
        Lifecycle::Unhealthy => "unhealthy",
        Lifecycle::Stopped => "stopped",
    }
}

#[derive(Serialize)]
struct Host<'a> {
    instance: Uuid,
    name: &'a str,
}
impl<'a> Host<'a> {
    fn of(host: &'a HostName) -> Self {
        Self {
            instance: host.instance.0,
            name: &host.name,
        }
    }
}

#[derive(Serialize)]
struct Going<'a> {
    since: DateTime<Utc>,
    grace_ms: u64,
    due: DateTime<Utc>,
    then: StopThen,
    reason: &'a str,
}
impl<'a> Going<'a> {
    fn of(going: &'a Draining) -> Self {
        Self {
            since: time(going.since),
            grace_ms: going.grace_ms,
            due: time(going.due()),
            then: going.then,
            reason: &going.reason,
        }
    }
}

#[derive(Serialize)]
struct Unfit {
    cause: Cause,
    since: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
    figures: Figures,
}
impl Unfit {
    fn of(cause: Cause, held: &Quarantine) -> Self {
        Self {
            cause,
            since: time(held.since),
            until: held.until.map(time),
            figures: held.figures,
        }
    }
}

#[derive(Serialize)]
struct Ended<'a> {
    at: DateTime<Utc>,
    code: Option<i32>,
    signal: Option<i32>,
    out_of_memory: bool,
    error: Option<&'a str>,
    uptime_ms: u64,
    last_output: &'a str,
}
impl<'a> Ended<'a> {
    fn of(last: &'a LastExit) -> Self {
        Self {
            at: time(last.at),
            code: last.exit.code,
            signal: last.exit.signal,
            out_of_memory: last.exit.out_of_memory,
            error: last.exit.error.as_deref(),
            uptime_ms: last.uptime_ms,
            last_output: &last.last_output,
        }
    }
}

const fn adapter(adapter: Adapter) -> &'static str {
    match adapter {
        Adapter::Exec => "exec",
        Adapter::Process => "process",
        Adapter::Webhook => "webhook",
    }
}

const fn limits(by: LimitedBy) -> &'static str {
    match by {
        LimitedBy::Cgroup => "cgroup",
        LimitedBy::Rlimit => "rlimit",
        LimitedBy::Nothing => "nothing",
    }
}

/// `{cpu_percent, memory_mb, active_connections}`: two digits behind the point, without floats.
fn resource_usage(sample: &AgentSample) -> String {
    let memory = u128::from(sample.memory_kib) * 100 / 1024;
    format!(
        r#"{{"cpu_percent":{}.{:02},"memory_mb":{}.{:02},"active_connections":{},"queue_depth":{}}}"#,
        sample.cpu_centipercent / 100,
        sample.cpu_centipercent % 100,
        memory / 100,
        memory % 100,
        sample.active_connections,
        sample.queue_depth,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_events::Timestamp;

    #[test]
    fn resources_are_shown_with_two_digits() {
        let sample = AgentSample {
            messages_read: 0,
            messages_sent: 0,
            instance: swarm_events::InstanceId(Uuid::nil()),
            status: "busy".to_owned(),
            last_heartbeat_at: Timestamp::ZERO,
            cpu_centipercent: 10_305,
            memory_kib: 1_536,
            active_connections: 3,
            queue_depth: 0,
            current_tasks: Vec::new(),
        };
        let shown: serde_json::Value =
            serde_json::from_str(&resource_usage(&sample)).expect("is JSON");
        assert_eq!(
            shown,
            serde_json::json!({"cpu_percent": 103.05, "memory_mb": 1.5, "active_connections": 3, "queue_depth": 0})
        );
    }

    #[test]
    fn words_are_those_of_the_events() {
        let word = |value| {
            let value: serde_json::Value = value;
            value.as_str().expect("a word").to_owned()
        };
        for each in [Adapter::Exec, Adapter::Process, Adapter::Webhook] {
            let named = word(serde_json::to_value(each).expect("JSON"));
            assert_eq!(adapter(each), named);
            assert!(named.len() <= 10, "the column's width");
        }
        for each in [LimitedBy::Cgroup, LimitedBy::Rlimit, LimitedBy::Nothing] {
            let named = word(serde_json::to_value(each).expect("JSON"));
            assert_eq!(limits(each), named);
            assert!(named.len() <= 10, "the column's width");
        }
    }
}
