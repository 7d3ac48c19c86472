//! The distributor: the shell around its pure core. It reads from the log what assignments carry and the state does not
//! hold, and tells other swarms what the state says they are to be told; everything else is the deciding loop's and the core's.

mod outbox;
mod recent;
mod shell;

use swarm_distributor_core::Distributor;
use swarm_log::Log;
use swarm_runtime::{LoopError, LoopSettings, deciding};
use tokio_util::sync::CancellationToken;

pub use outbox::{RETRY_FIRST, RETRY_LAST, SENDING_MAX};
pub use recent::{RECENT_BYTES_MAX, Recent};
pub use shell::{DistributorShell, READS_AT_ONCE};

/// Runs the distributor over `log` until `stop`.
///
/// # Errors
/// See [`LoopError`].
pub async fn run<L: Log>(
    log: L,
    settings: LoopSettings,
    stop: CancellationToken,
) -> Result<(), LoopError> {
    let shell = DistributorShell::new(log.clone(), settings.instance);
    deciding::run::<Distributor, L, _>(log, shell, settings, stop).await
}
