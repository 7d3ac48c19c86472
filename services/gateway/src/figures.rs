//! `/swarms/{id}/metrics`: what can be told from the distributor's measurements. What cannot be told yet is left out.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use swarm_coordinator_core::Swarm;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    answer::Reply,
    app::Shared,
    auth::{Action, Caller, May},
    fold::measures::Measure,
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::known,
};

/// A swarm's figures.
#[derive(Serialize, ToSchema)]
pub struct MetricsAnswer {
    /// The swarm.
    pub swarm_id: Uuid,
    /// When they were measured; null before the first measurement.
    pub measured_at: Option<DateTime<Utc>>,
    /// Stream sequence of the measurement.
    pub seq: Option<u64>,
    /// Window of the rates in milliseconds; null while there is only one measurement.
    pub window_ms: Option<u64>,
    /// By name: `queue_depth` (tasks waiting), `throughput` (completed a second), `error_rate` (0 to 1),
    /// `agent_utilization` (0 to 1), `affinity_hit_rate` (0 to 1, over the swarm's life; absent while none was met or
    /// missed), `steals` and `retries` (how many, over the swarm's life). A figure that no measurement tells is absent.
    pub metrics: BTreeMap<&'static str, f64>,
    /// Counts of tasks as measured; `completed`, `failed` and `cancelled` over the swarm's life.
    pub tasks: BTreeMap<&'static str, u64>,
}

/// Shows a swarm's figures.
#[utoipa::path(get, path = "/v1/swarms/{id}/metrics", tag = "swarms", params(("id" = Uuid, Path)),
    responses((status = 200, body = MetricsAnswer),
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
    let measure = fold.measure(place).filter(|measure| measure.sequence > 0);
    Ok(Reply::json(StatusCode::OK, &figures(swarm, measure)))
}

fn figures(swarm: &Swarm, measure: Option<&Measure>) -> MetricsAnswer {
    let mut answer = MetricsAnswer {
        swarm_id: swarm.place.swarm.0,
        measured_at: None,
        seq: None,
        window_ms: None,
        metrics: BTreeMap::new(),
        tasks: BTreeMap::new(),
    };
    let Some(measure) = measure else {
        return answer;
    };
    let last = &measure.last;
    answer.measured_at = measure.time.to_chrono();
    answer.seq = Some(measure.sequence);
    answer.tasks.extend([
        ("pending", last.pending),
        ("queued", last.queued),
        ("assigned", last.assigned),
        ("running", last.running),
        ("completed", last.completed),
        ("failed", last.failed),
        ("cancelled", last.cancelled),
        ("unmet", last.unmet),
        ("oldest_wait_ms", last.oldest_wait_ms),
    ]);
    answer.metrics.extend([
        ("queue_depth", last.queued as f64),
        ("steals", last.steals as f64),
        ("retries", last.retries as f64),
    ]);
    let liked = last.affinity_hits + last.affinity_misses;
    if liked > 0 {
        let rate = last.affinity_hits as f64 / liked as f64;
        answer.metrics.insert("affinity_hit_rate", rate);
    }
    let live = || swarm.agents.iter().filter(|(_, agent)| agent.is_live());
    let slots: u64 = live()
        .map(|(_, agent)| u64::from(agent.profile.slots))
        .sum();
    if slots > 0 {
        let running: u64 = live()
            .filter_map(|(id, _)| measure.agents.get(id))
            .map(|load| u64::from(load.running))
            .sum();
        answer
            .metrics
            .insert("agent_utilization", running as f64 / slots as f64);
    }
    if let Some(rates) = measure.rates() {
        answer.window_ms = Some(rates.window_ms);
        answer.metrics.insert("throughput", rates.throughput);
        answer
            .metrics
            .extend(rates.error_rate.map(|rate| ("error_rate", rate)));
    }
    answer
}
