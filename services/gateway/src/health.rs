//! `/swarms/{id}/health`: from the gateway's own fold and the last heartbeats, so it works while PostgreSQL is down.

pub mod answer;
mod beats;
mod reasons;

use std::collections::BTreeMap;

use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
};
use chrono::{DateTime, Utc};
use swarm_coordinator_core::{Agent, Swarm};
use swarm_events::{AgentId, Timestamp};

use answer::{AgentCounts, AgentHealth, HealthAnswer, HostHealth, Rate, TaskHealth, Thresholds};
use beats::{Beats, Wanted};

use crate::{
    agents::{
        self,
        view::{self, Host},
    },
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    fold::{Fold, measures::Measure},
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::known,
};

fn time(at: Timestamp) -> Option<DateTime<Utc>> {
    at.to_chrono()
}

/// Shows how a swarm and its agents are: statuses with their reasons, ages of heartbeats read for this answer, error rates,
/// quarantines, and what they are held against.
#[utoipa::path(get, path = "/v1/swarms/{id}/health", tag = "swarms", params(("id" = uuid::Uuid, Path)),
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
    let with_swarm = |fold: &Fold| fold.swarm(place.org, place.swarm).map(Wanted::of);
    let wanted = with_swarm(&app.fold.read());
    let wanted = wanted.ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))?;
    let beats = wanted.read(app.bus.as_ref()).await;
    let fold = app.fold.read();
    let swarm = fold
        .swarm(place.org, place.swarm)
        .ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))?;
    let look = Look {
        fold: &fold,
        swarm,
        measure: fold.measure(place),
        beats: &beats,
        // The window slides while the log is quiet, too.
        now: App::now().max(fold.now()),
    };
    let mut answer = look.health();
    answer.stale_since = app.tail_state().interrupted_since;
    Ok(Reply::json(StatusCode::OK, &answer))
}

/// A swarm, and what is known of it.
struct Look<'a> {
    fold: &'a Fold,
    swarm: &'a Swarm,
    measure: Option<&'a Measure>,
    beats: &'a Beats,
    now: Timestamp,
}

impl Look<'_> {
    fn health(&self) -> HealthAnswer {
        let swarm = self.swarm;
        let items: Vec<AgentHealth> = agents::present(swarm)
            .map(|(id, agent)| self.agent(id, agent))
            .collect();
        HealthAnswer {
            swarm_id: swarm.place.swarm.0,
            status: swarm.status().as_str(),
            reasons: reasons::of(swarm),
            agents: self.counts(&items),
            thresholds: thresholds(swarm),
            items,
            task_types: self.rates(|found, now| named(found.type_rates(now))),
            capabilities: self.rates(|found, now| named(found.capability_rates(now))),
            hosts: self.hosts(),
            tasks: self
                .measure
                .filter(|measure| measure.sequence > 0)
                .map(|measure| self.tasks(measure)),
            heartbeats_from: if self.beats.read { "stream" } else { "log" },
            seq: self.fold.sequence(),
            at: time(self.fold.now()),
            stale_since: None,
        }
    }

    fn counts(&self, items: &[AgentHealth]) -> AgentCounts {
        let swarm = self.swarm;
        let with = |status: &str| items.iter().filter(|agent| agent.status == status).count();
        let of = |holds: fn(&Agent) -> bool| swarm.agents.values().filter(|a| holds(a)).count();
        AgentCounts {
            needed: swarm.agents_needed(),
            wanted: of(Agent::is_wanted),
            live: swarm.live_agents(),
            healthy: swarm.healthy_agents(),
            pending: with("pending"),
            starting: with("starting"),
            busy: with("busy"),
            idle: with("idle"),
            unhealthy: with("unhealthy"),
            quarantined: of(|agent| agent.is_live() && !agent.quarantine.is_empty()),
            given_up: of(|agent| {
                let managed = agent.managed.as_ref();
                agent.is_wanted() && managed.is_some_and(|managed| managed.is_given_up())
            }),
            draining: of(|agent| agent.draining.is_some()),
            stopped: of(|agent| !agent.holds_place()),
        }
    }

    /// What health's core reckons, by name.
    fn rates(
        &self,
        of: impl Fn(&swarm_health_core::Swarm, Timestamp) -> BTreeMap<String, Rate>,
    ) -> BTreeMap<String, Rate> {
        let found = self.fold.health(self.swarm.place);
        found.map_or_else(BTreeMap::new, |found| of(found, self.now))
    }

    fn age(&self, at: Timestamp) -> u64 {
        self.now.millis_since(at)
    }

    fn agent(&self, id: AgentId, agent: &Agent) -> AgentHealth {
        let load = self.measure.and_then(|measure| measure.agents.get(&id));
        let load = load.copied().unwrap_or_default();
        // What it had to do ends with it; what it did stays.
        let now = if agent.is_live() {
            load
        } else {
            Default::default()
        };
        let managed = agent.managed.as_ref();
        let heard = self
            .fold
            .samples(self.swarm.place)
            .and_then(|samples| samples.get(id));
        let logged = heard.and_then(|heard| heard.last_heartbeat_at());
        let last_heard = self.beats.agent(id).map(|beat| beat.at).max(logged);
        let host = managed.and_then(|managed| managed.host());
        let usage = self.beats.figures(id, host.map(|host| host.instance));
        let sampled = heard.and_then(|heard| {
            let sample = heard.sample.as_ref()?;
            Some((
                heard.sampled_at?,
                swarm_events::swarm::ProcessFigures {
                    cpu_centipercent: sample.cpu_centipercent,
                    memory_kib: sample.memory_kib,
                    active_connections: sample.active_connections,
                    processes: 0,
                },
            ))
        });
        let usage = usage.or(sampled);
        let (host, pid) = managed.map(view::process).unwrap_or_default();
        let found = self.fold.health(self.swarm.place);
        let found = found.and_then(|found| found.agents.get(&id));
        let rate = found.map_or_else(Rate::default, |found| found.rate(self.now).into());
        AgentHealth {
            id: id.0,
            agent_name: agent.profile.agent_name.clone(),
            agent_type: agent.profile.agent_type.clone(),
            status: view::status_of(agent, now.running),
            status_reason: agent.status_reason(),
            incarnation: agent.incarnation,
            last_heartbeat_at: last_heard.and_then(time),
            heartbeat_age_ms: last_heard.map(|at| self.age(at)),
            cpu_percent: usage.map(|(_, usage)| f64::from(usage.cpu_centipercent) / 100.0),
            memory_mb: usage.map(|(_, usage)| usage.memory_kib as f64 / 1_024.0),
            active_connections: usage.map(|(_, usage)| usage.active_connections),
            usage_at: usage.and_then(|(at, _)| time(at)),
            queue_depth: now.waiting,
            running: now.running,
            stuck: now.stuck,
            stuck_ms: (now.stuck > 0).then_some(now.stuck_ms),
            fast_failures: now.fast_failures,
            tasks_completed: load.completed,
            tasks_failed: load.failed,
            attempts: rate.attempts,
            error_rate: rate.error_rate,
            quarantine: view::unfit(agent),
            draining: view::going(agent),
            adapter: managed.and_then(|managed| managed.spec.adapter),
            host,
            pid,
            restarts: managed.map_or(0, |managed| managed.restarts),
            crashes: managed.map_or(0, |managed| managed.crashes),
            restart_due: managed.and_then(|managed| managed.restart_due.and_then(time)),
            last_exit: managed.and_then(view::ended),
            evidence: heard.and_then(|heard| heard.evidence.clone()),
        }
    }

    /// The hosts that have processes of the swarm, by what the log says.
    fn hosts(&self) -> Vec<HostHealth> {
        let mut agents: BTreeMap<Host, usize> = BTreeMap::new();
        for (_, agent) in agents::present(self.swarm) {
            let host = agent.managed.as_ref().and_then(|managed| managed.host());
            if let Some(host) = host {
                *agents.entry(host.into()).or_default() += 1;
            }
        }
        let told = agents.into_iter().map(|(host, agents)| {
            let beat = self.beats.host(host.instance.into());
            HostHealth {
                instance: host.instance,
                name: host.name,
                agents,
                last_heartbeat_at: beat.and_then(|beat| time(beat.at)),
                heartbeat_age_ms: beat.map(|beat| self.age(beat.at)),
                room: beat.map(|beat| beat.said.room),
            }
        });
        told.collect()
    }

    fn tasks(&self, measure: &Measure) -> TaskHealth {
        let live = self
            .swarm
            .agents
            .iter()
            .filter(|(_, agent)| agent.is_live());
        let stuck = live.filter_map(|(id, _)| measure.agents.get(id));
        TaskHealth {
            pending: measure.last.pending,
            queued: measure.last.queued,
            assigned: measure.last.assigned,
            running: measure.last.running,
            stuck: stuck.map(|load| u64::from(load.stuck)).sum(),
            unmet: measure.last.unmet,
            oldest_wait_ms: measure.last.oldest_wait_ms,
            error_rate: measure.rates().and_then(|rates| rates.error_rate),
            measured_at: time(measure.time),
        }
    }
}

/// Those of which attempts ended within the window.
fn named<'a>(
    rates: impl Iterator<Item = (&'a str, swarm_health_core::Rate)>,
) -> BTreeMap<String, Rate> {
    let named = rates.map(|(name, rate)| (name.to_owned(), Rate::from(rate)));
    named.filter(|(_, rate)| rate.attempts > 0).collect()
}

fn thresholds(swarm: &Swarm) -> Thresholds {
    let settings = &swarm.configuration;
    let limits = swarm_health_core::Thresholds::of(settings);
    Thresholds {
        heartbeat_interval_ms: settings.heartbeat_interval_ms,
        suspect_after_ms: limits.suspect_after_ms,
        fail_after_ms: limits.fail_after_ms,
        disconnect_grace_ms: limits.disconnect_grace_ms,
        policy: settings.health,
    }
}
