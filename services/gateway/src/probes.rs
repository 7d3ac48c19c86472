//! `/livez`, `/readyz` and `/metrics`: for whoever runs the gateway, without a key.

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use swarm_projections::{migrate::TimeTables, pool::ACQUIRE_TIMEOUT};
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::{
    answer::Reply,
    app::{App, Shared},
    reading,
};

/// Whether the gateway can do its work, and what that rests on.
#[derive(Serialize, ToSchema)]
pub struct ReadyAnswer {
    /// It takes requests: the log is there, and has been folded to its end.
    pub ready: bool,
    /// nats-server and the log.
    pub nats: NatsState,
    /// PostgreSQL. Without it only reads from the read models are refused.
    pub postgres: PostgresState,
    /// How far the read models are.
    pub projection: ProjectionState,
}

/// nats-server and the log.
#[derive(Serialize, ToSchema)]
pub struct NatsState {
    /// It answers.
    pub connected: bool,
    /// The gateway's fold has met everything that was stored when it started.
    pub caught_up: bool,
    /// Since when the tail has had no source.
    pub interrupted_since: Option<DateTime<Utc>>,
    /// Last sequence stored.
    pub last_seq: Option<u64>,
    /// Last sequence that concerned the gateway.
    pub met_seq: u64,
    /// What it says if it does not answer.
    pub error: Option<String>,
}

/// PostgreSQL.
#[derive(Serialize, ToSchema)]
pub struct PostgresState {
    /// It answers.
    pub connected: bool,
    /// What holds the tables that grow with time: `timescaledb hypertables` or `native partitions`.
    pub time_tables: Option<&'static str>,
    /// Since when it has not answered.
    pub stale_since: Option<DateTime<Utc>>,
}

/// How far the read models are.
#[derive(Serialize, ToSchema)]
pub struct ProjectionState {
    /// Last sequence in the tables.
    pub committed_seq: u64,
    /// Messages that are stored and not in the tables yet.
    pub lag: Option<u64>,
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "probes", responses((status = 200, body = String)), security(()))]
pub async fn live() -> &'static str {
    "ok"
}

/// Whether it can work.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()),
    responses((status = 200, body = ReadyAnswer), (status = 503, body = ReadyAnswer)))]
pub async fn ready(State(app): State<Shared>) -> Reply {
    let answer = readiness(&app).await;
    let status = if answer.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Reply::json(status, &answer)
}

async fn readiness(app: &App) -> ReadyAnswer {
    let (info, tables) = tokio::join!(
        timeout(ACQUIRE_TIMEOUT, app.log.info()),
        timeout(ACQUIRE_TIMEOUT, tables(app))
    );
    let tail = app.tail_state();
    let (last_seq, error) = match info {
        Ok(Ok(info)) => (Some(info.last_sequence), None),
        Ok(Err(error)) => (None, Some(error.to_string())),
        Err(_) => (None, Some("no answer in time".to_owned())),
    };
    let known = app.progress.known();
    let tables = tables.ok().flatten();
    ReadyAnswer {
        ready: last_seq.is_some() && tail.caught_up && tail.interrupted_since.is_none(),
        nats: NatsState {
            connected: last_seq.is_some(),
            caught_up: tail.caught_up,
            interrupted_since: tail.interrupted_since,
            last_seq,
            met_seq: app.fold.read().sequence(),
            error,
        },
        postgres: PostgresState {
            connected: tables.is_some(),
            time_tables: tables.map(TimeTables::as_str),
            stale_since: if tables.is_some() {
                None
            } else {
                known.stale_since
            },
        },
        projection: ProjectionState {
            committed_seq: known.sequence,
            lag: last_seq.map(|last| last.saturating_sub(known.sequence)),
        },
    }
}

async fn tables(app: &App) -> Option<TimeTables> {
    reading::answering(app).ok()?;
    let mut connection = app.pool.acquire().await.ok()?;
    swarm_projections::migrate::time_tables(&mut connection)
        .await
        .ok()
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "probes", responses((status = 200, body = String)), security(()))]
pub async fn metrics(State(app): State<Shared>) -> Response {
    let (sequence, voids, waiting) = {
        let fold = app.fold.read();
        (fold.sequence(), fold.voids(), app.fold.outcomes().waiting())
    };
    metrics::gauge!("swarm_gateway_met_sequence").set(sequence as f64);
    metrics::gauge!("swarm_gateway_void_events").set(voids as f64);
    metrics::gauge!("swarm_gateway_outcomes_awaited").set(waiting as f64);
    metrics::gauge!("swarm_gateway_projection_sequence").set(app.progress.known().sequence as f64);
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (text, app.metrics.render()).into_response()
}
