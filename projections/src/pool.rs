//! Connections to PostgreSQL.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

/// How long a caller waits for a connection: with PostgreSQL down a list must say so (503) before its reader gives up.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections of a reading process: lists are short, and PostgreSQL's default limit of 100 is shared by all replicas.
pub const READ_CONNECTIONS_MAX: u32 = 8;
/// Longest time of one read: a list over a page takes milliseconds; one that takes longer than this is given up.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
#[error("the database URL cannot be read (postgres://user:password@host:port/database): {0}")]
pub struct UrlError(#[source] sqlx::Error);

/// A pool for reading. Connects when it is first used, so that a process starts while PostgreSQL is down.
///
/// # Errors
/// The URL is none.
pub fn reader(url: &str) -> Result<PgPool, UrlError> {
    let timeout = STATEMENT_TIMEOUT.as_millis().to_string();
    let options = options(url, "swarm reader")?.options([("statement_timeout", timeout)]);
    Ok(PgPoolOptions::new()
        .max_connections(READ_CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options))
}

/// For the projector's one connection: no limit on a statement (an index over an old log takes its time).
///
/// # Errors
/// The URL is none.
pub(crate) fn projector_options(url: &str) -> Result<PgConnectOptions, UrlError> {
    options(url, "swarm projector")
}

fn options(url: &str, name: &str) -> Result<PgConnectOptions, UrlError> {
    url.parse::<PgConnectOptions>()
        .map(|options| options.application_name(name))
        .map_err(UrlError)
}
