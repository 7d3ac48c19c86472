//! `/livez`, `/readyz` and `/metrics` of a service.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Says whether the service is ready, and shows what that rests on.
pub type Readiness = Arc<dyn Fn() -> (bool, serde_json::Value) + Send + Sync>;

/// How often what histograms were given is summed up: until then each value is kept, whether or not anybody reads `/metrics`.
const SUMMED_UP_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Probes {
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// Installs the process's metrics recorder; the handle renders it. A second call gives a recorder that nobody writes to.
pub fn metrics_recorder() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _ = metrics::set_global_recorder(recorder);
    handle
}

/// The routes.
pub fn router(readiness: Readiness, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(|State(probes): State<Probes>| async move { probes.metrics.render() }),
        )
        .with_state(Probes { readiness, metrics })
}

async fn ready(State(probes): State<Probes>) -> impl IntoResponse {
    let (ready, detail) = (probes.readiness)();
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        Json(detail),
    )
}

/// Keeps histograms from growing until `stop`.
async fn sum_up(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SUMMED_UP_EVERY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}

/// Serves the probes on `addr` until `stop`; answers with the address that it got (port 0: a free one).
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(
    addr: SocketAddr,
    readiness: Readiness,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(addr).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(sum_up(metrics.clone(), stop.clone()));
    let app = router(readiness, metrics);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
        {
            tracing::warn!(%error, "the probes ended");
        }
    });
    Ok(bound)
}
