//! The coordinator: [`swarm_coordinator_core`] in the deciding loop. It needs nothing beyond the log.

pub use swarm_coordinator_core as core;

use swarm_coordinator_core::Coordinator;
use swarm_log::Log;
use swarm_runtime::{LoopError, LoopSettings, NoShell, deciding};
use tokio_util::sync::CancellationToken;

/// Runs the coordinator over `log` until `stop`.
///
/// # Errors
/// See [`LoopError`].
pub async fn run<L: Log>(
    log: L,
    settings: LoopSettings,
    stop: CancellationToken,
) -> Result<(), LoopError> {
    deciding::run::<Coordinator, _, _>(log, NoShell, settings, stop).await
}
