//! Reads from the read models: waiting for them, and saying since when they are stale.

use std::future::Future;

use axum::http::StatusCode;
use chrono::{SecondsFormat, TimeDelta, Utc};
use swarm_events::Problem;
use swarm_projections::{
    progress::Behind,
    queries::{PAGE_MAX, QueryError},
};

use crate::{
    app::{App, MISS_WAIT, PROJECTION_WAIT},
    command::unread,
    problem::{Answer, ApiProblem},
};

/// How long PostgreSQL may be silent before it counts as away: a first connection takes some milliseconds.
const STALE_GRACE: TimeDelta = TimeDelta::seconds(1);

/// Refuses at once while PostgreSQL is known to be away: each attempt to connect takes seconds, and its readers would queue
/// up for nothing. The progress of the projection is looked up all the time, so its return is seen without them.
///
/// # Errors
/// 503 with `stale_since`
pub fn answering(app: &App) -> Answer<()> {
    // At the very start nothing is known yet.
    let away = app
        .progress
        .stale_since()
        .is_some_and(|since| Utc::now() - since > STALE_GRACE);
    if away {
        Err(stale(app, "PostgreSQL does not answer"))
    } else {
        Ok(())
    }
}

/// Waits until the tables reflect the log up to `min_seq`, if that is asked for.
///
/// # Errors
/// 503, with `stale_since` if PostgreSQL is away.
pub async fn until(app: &App, min_seq: Option<u64>) -> Answer<()> {
    answering(app)?;
    let Some(sequence) = min_seq else {
        return Ok(());
    };
    app.progress
        .wait_for_sequence(sequence, PROJECTION_WAIT)
        .await
        .map_err(|behind| late(app, behind))
}

fn late(app: &App, behind: Behind) -> ApiProblem {
    if behind.stale_since.is_some() {
        return stale(app, "PostgreSQL does not answer");
    }
    let cure = "check that the projector runs, or ask again later";
    ApiProblem::unavailable("projection-behind", behind.to_string(), cure)
        .with("reached_seq", behind.reached)
        .with("wanted_seq", behind.wanted)
}

fn stale(app: &App, detail: &str) -> ApiProblem {
    let since = app.progress.stale_since().unwrap_or_else(Utc::now);
    let cure = "start PostgreSQL again; writes, health and live events go on meanwhile";
    ApiProblem::unavailable("read-models-unavailable", detail, cure).with(
        "stale_since",
        since.to_rfc3339_opts(SecondsFormat::Micros, true),
    )
}

/// A read that failed.
pub fn failed(app: &App, error: QueryError) -> ApiProblem {
    match error {
        QueryError::Limit(_) => parameter(
            "?limit",
            &error,
            &format!("give a number from 1 to {PAGE_MAX}"),
        ),
        QueryError::Cursor => parameter(
            "?cursor",
            &error,
            "use next_cursor of the page before, or leave it out",
        ),
        error if error.is_unavailable() => stale(app, &error.to_string()),
        error => {
            let cause = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::error!(%error, cause, "a read was refused");
            ApiProblem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Problem::new("read-refused", error.to_string()).cure("see the gateway's log"),
            )
        }
    }
}

fn parameter(name: &str, error: &QueryError, cure: &str) -> ApiProblem {
    let problem = Problem::new("bad-parameter", error.to_string())
        .field(name)
        .cure(cure);
    ApiProblem::new(StatusCode::BAD_REQUEST, problem)
}

/// What `query` finds. What it does not find is looked for again once the tables have come as far as the log is now, so
/// that "not there" is the truth and not a lag of milliseconds.
///
/// # Errors
/// As [`failed`].
pub async fn find<T, F, R>(app: &App, query: F) -> Answer<Option<T>>
where
    F: Fn() -> R + Send,
    R: Future<Output = Result<Option<T>, QueryError>> + Send,
    T: Send,
{
    if let Some(found) = query().await.map_err(|error| failed(app, error))? {
        return Ok(Some(found));
    }
    let last = app
        .log
        .info()
        .await
        .map_err(|error| unread(&error))?
        .last_sequence;
    if let Err(behind) = app.progress.wait_for_sequence(last, MISS_WAIT).await {
        return Err(late(app, behind));
    }
    query().await.map_err(|error| failed(app, error))
}
