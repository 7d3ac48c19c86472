//! Logs to standard error: text for people, JSON with `SWARM_LOG_FORMAT=json`; the filter is `SWARM_LOG`.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Filter when `SWARM_LOG` is not set: the client's reconnect chatter is only of use when one looks for it.
const FILTER_DEFAULT: &str = "info,async_nats=warn,sqlx=warn";

/// Starts logging. Called once, at the start of a process; later calls change nothing.
pub fn init(filter: Option<&str>, json: bool) {
    let filter = EnvFilter::try_new(filter.unwrap_or(FILTER_DEFAULT))
        .unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let registry = tracing_subscriber::registry().with(filter);
    let _ = if json {
        registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(io::stderr),
            )
            .try_init()
    } else {
        registry
            .with(
                fmt::layer()
                    .with_target(false)
                    // Colours are for people at a terminal, not for log files.
                    .with_ansi(io::stderr().is_terminal())
                    .with_writer(io::stderr),
            )
            .try_init()
    };
}
