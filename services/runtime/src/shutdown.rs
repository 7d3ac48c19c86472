//! Stopping on SIGTERM and Ctrl-C.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Exit code after a second signal: 128 + SIGTERM, as shells give it.
const FORCED_EXIT_CODE: i32 = 143;

/// A token that is cancelled by the first SIGTERM or SIGINT; the second one ends the process at once.
///
/// # Errors
/// The signals cannot be watched.
pub fn on_signals() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
        token.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        warn!("a second signal: ending at once");
        std::process::exit(FORCED_EXIT_CODE);
    });
    Ok(stop)
}
