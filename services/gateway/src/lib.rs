//! The gateway: REST and live events over the log and the read models.
//!
//! It validates, authenticates, turns writes into commands or events, and waits for their outcome on its own tail of the
//! log; it reads lists from PostgreSQL. It decides nothing. Writes, health and live events go on while PostgreSQL is down.
//!
//! - [`run`] serves until it is told to stop; [`serve`] does the same on a listener that the caller made.
//! - [`bootstrap`] makes the first organization and its admin key.

pub mod admission;
pub mod agents;
pub mod answer;
pub mod app;
pub mod auth;
pub mod blackboard;
mod bootstrap;
pub mod bulk;
pub mod bus;
pub mod callbacks;
pub mod command;
pub mod courier;
pub mod explain;
pub mod figures;
pub mod fold;
pub mod health;
pub mod idempotency;
pub mod json;
pub mod live;
pub mod messages;
pub mod openapi;
pub mod orders;
pub mod organization;
pub mod params;
pub mod port;
pub mod probes;
pub mod problem;
pub mod questions;
pub mod reading;
pub mod router;
pub mod scale;
pub mod snapshot;
pub mod submission;
pub mod submit;
pub mod swarms;
pub mod tail;
pub mod tasks;
pub mod templates;
pub mod topology;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::postgres::PgPool;
use swarm_log::jetstream::JetStreamLog;
use swarm_projections::pool;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

pub use bootstrap::{BOOTSTRAP_TIMEOUT, Bootstrap, BootstrapError, admin_key, bootstrap};

use crate::{app::App, bus::Bus, port::Port, tail::TailError};

/// How long requests under way may take once the process is told to stop.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How long the courier may take to give back what it holds.
const COURIER_GRACE: Duration = Duration::from_secs(1);

/// Why the gateway ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {addr}: {cause}; choose another address with api_addr")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The database URL is none.
    #[error(transparent)]
    Database(#[from] pool::UrlError),
    /// The log cannot be followed.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// Serving ended.
    #[error("serving ended: {0}")]
    Serve(#[from] std::io::Error),
}

/// Serves on `addr` over `log` and the read models at `database_url`, until `stop`.
///
/// # Errors
/// See [`GatewayError`].
pub async fn run(
    log: JetStreamLog,
    database_url: &str,
    addr: SocketAddr,
    stop: CancellationToken,
) -> Result<(), GatewayError> {
    let pool = pool::reader(database_url)?;
    let listener = TcpListener::bind(addr)
        .await
        .map_err(|cause| GatewayError::Listen { addr, cause })?;
    tracing::info!(addr = %listener.local_addr()?, "the gateway listens");
    serve(
        log,
        pool,
        listener,
        swarm_runtime::probes::metrics_recorder(),
        stop,
    )
    .await
}

/// Serves on `listener` until `stop`: then live streams end, requests under way are finished, at most for
/// [`SHUTDOWN_GRACE`].
///
/// # Errors
/// See [`GatewayError`].
pub async fn serve(
    log: JetStreamLog,
    pool: PgPool,
    listener: TcpListener,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> Result<(), GatewayError> {
    let bus = Bus::new(log.client().clone());
    let app = App::new(Port::new(log), pool, metrics, stop).with_bus(bus);
    serve_app(Arc::new(app), listener).await
}

/// Serves a state that the caller made, until its stop token is cancelled.
///
/// # Errors
/// See [`GatewayError`].
pub async fn serve_app(app: Arc<App>, listener: TcpListener) -> Result<(), GatewayError> {
    let stop = app.stop.clone();
    let server = axum::serve(listener, router::router(app.clone()))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut serving = tokio::spawn(async move { server.await });
    let carrying = tokio::spawn(courier::run(app.clone()));
    let sweeping = tokio::spawn(blackboard::sweep::run(app.clone()));
    // A tail that ends takes the requests with it: they would be answered from a state that stands still.
    let tailed = tail::follow(app).await;
    stop.cancel();
    // What it leaves is found by the next process, or another one.
    sweeping.abort();
    // With nats-server away it may hold a message for some seconds; it is carried again then.
    let left = carrying.abort_handle();
    if timeout(COURIER_GRACE, carrying).await.is_err() {
        left.abort();
    }
    tokio::select! {
        served = &mut serving => served.map_err(std::io::Error::other)??,
        () = sleep(SHUTDOWN_GRACE) => {
            tracing::warn!("the grace period is over");
            serving.abort();
        }
    }
    Ok(tailed?)
}
