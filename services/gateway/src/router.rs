//! Which path leads where.

use std::time::Instant;

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use swarm_events::Problem;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    agents, app::Shared, blackboard, bulk, callbacks, explain, figures, health, live, messages,
    openapi, orders, organization, probes, problem::ApiProblem, questions, scale, submit, swarms,
    tasks, templates, topology,
};

/// Every route.
pub fn router(app: Shared) -> Router {
    let api = Router::new()
        .route("/swarms", post(swarms::create).get(swarms::list))
        .route(
            "/swarms/{id}",
            get(swarms::show).put(swarms::update).delete(swarms::delete),
        )
        .route("/swarms/{id}/agents", post(agents::add).get(agents::list))
        .route(
            "/swarms/{id}/agents/{agent}",
            get(agents::show).put(agents::update).delete(agents::remove),
        )
        .route("/swarms/{id}/agents/{agent}/restart", post(agents::restart))
        .route("/swarms/{id}/agents/{agent}/logs", get(agents::logs::show))
        .route(
            "/swarms/{id}/agents/{agent}/callbacks/{assignment}",
            post(callbacks::call),
        )
        .route("/swarms/{id}/scale", post(scale::scale))
        .route(
            "/swarms/{id}/topology",
            get(topology::show).put(topology::update),
        )
        .route("/topologies", post(templates::create).get(templates::list))
        .route(
            "/topologies/{name}",
            get(templates::show)
                .put(templates::update)
                .delete(templates::delete),
        )
        .route(
            "/organization",
            get(organization::show).put(organization::update),
        )
        .route("/swarms/{id}/tasks", post(submit::submit).get(tasks::list))
        .route("/swarms/{id}/tasks/bulk", post(bulk::submit))
        .route("/swarms/{id}/tasks/cancel", post(orders::cancel_many))
        .route("/swarms/{id}/tasks/retry", post(orders::retry_many))
        .route("/swarms/{id}/tasks/discard", post(orders::discard_many))
        .route(
            "/swarms/{id}/tasks/{task}",
            get(tasks::show).delete(orders::delete),
        )
        .route("/swarms/{id}/tasks/{task}/cancel", post(orders::cancel))
        .route("/swarms/{id}/tasks/{task}/retry", post(orders::retry))
        .route("/swarms/{id}/tasks/{task}/discard", post(orders::discard))
        .route("/swarms/{id}/tasks/{task}/explain", get(explain::show))
        .route("/swarms/{id}/health", get(health::show))
        .route("/swarms/{id}/metrics", get(figures::show))
        .route("/swarms/{id}/events", get(live::follow))
        .route(
            "/swarms/{id}/messages",
            post(messages::send).get(messages::list),
        )
        .route("/swarms/{id}/messages/stream", get(messages::follow))
        .route("/swarms/{id}/questions", get(questions::list))
        .route("/swarms/{id}/questions/{question}", get(questions::show))
        .route(
            "/swarms/{id}/questions/{question}/answer",
            post(questions::answer),
        )
        .route("/swarms/{id}/blackboard", get(blackboard::list))
        .route(
            "/swarms/{id}/blackboard/{*key}",
            get(blackboard::show)
                .put(blackboard::put)
                .delete(blackboard::delete),
        )
        .route_layer(middleware::from_fn_with_state(app.clone(), when_caught_up));
    let versioned = Router::new()
        .route("/tasks/{task}", get(tasks::show_anywhere))
        .route("/tasks/{task}/explain", get(explain::show_anywhere))
        .route_layer(middleware::from_fn_with_state(app.clone(), when_caught_up))
        .merge(api.clone());
    Router::new()
        .nest("/v1", versioned)
        .merge(api)
        .route("/openapi.json", get(openapi::show))
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/metrics", get(probes::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(measured))
        .with_state(app)
}

async fn unknown_path(uri: Uri) -> ApiProblem {
    let problem = Problem::new(
        "unknown-path",
        format!("there is nothing at {}", uri.path()),
    )
    .field("path")
    .cure("see GET /openapi.json for what there is");
    ApiProblem::new(StatusCode::NOT_FOUND, problem)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiProblem {
    let problem = Problem::new("wrong-method", format!("{} takes no {method}", uri.path()))
        .field("method")
        .cure("see GET /openapi.json for what there is");
    ApiProblem::new(StatusCode::METHOD_NOT_ALLOWED, problem)
}

fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("unknown cause");
    tracing::error!(cause = text, "a request panicked");
    let problem = Problem::new("internal-error", "the request could not be handled")
        .cure("see the gateway's log");
    ApiProblem::new(StatusCode::INTERNAL_SERVER_ERROR, problem).into_response()
}

/// Before the log is folded to its end the gateway knows neither keys nor swarms: it says so instead of refusing them.
async fn when_caught_up(State(app): State<Shared>, request: Request, next: Next) -> Response {
    if app.tail_state().caught_up {
        return next.run(request).await;
    }
    ApiProblem::unavailable(
        "starting",
        "the gateway is reading the log",
        "ask again in a moment; see GET /readyz",
    )
    .into_response()
}

/// Counts and times each request by route.
async fn measured(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let method = request.method().as_str().to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("swarm_gateway_requests_total", "method" => method, "route" => route.clone(), "status" => status).increment(1);
    metrics::histogram!("swarm_gateway_request_seconds", "route" => route)
        .record(started.elapsed().as_secs_f64());
    response
}
