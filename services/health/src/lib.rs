//! Health: hears heartbeats and the server's notices, and says in the log who is silent, gone or heard again.
//!
//! [`watch`] holds all rules of who is silent when, without clock or IO; [`swarm_health_core`] judges what the watch
//! observed, from the log alone; what is here beside them only carries messages between the two.

mod ears;
pub mod heard;
pub mod hosts;
pub mod samples;
mod shell;
pub mod strangers;
pub mod watch;

pub use swarm_health_core as core;

use swarm_health_core::Health;
use swarm_log::{connect::ConnectSettings, jetstream::JetStreamLog};
use swarm_runtime::{LoopError, LoopSettings, deciding};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::shell::{HealthShell, SharedWatch};

/// Observations that may wait for the loop. What does not fit is seen again.
const OBSERVATIONS_MAX: usize = 4_096;

/// Runs health over `log` until `stop`, without the server's disconnect notices: lost agents are found by their silence.
///
/// # Errors
/// See [`LoopError`].
pub async fn run(
    log: JetStreamLog,
    settings: LoopSettings,
    stop: CancellationToken,
) -> Result<(), LoopError> {
    run_with_notices(log, settings, None, stop).await
}

/// Runs health over `log` until `stop`. `notices` is how to connect to the system account, whose disconnect notices find a
/// lost agent within half a second.
///
/// # Errors
/// See [`LoopError`].
pub async fn run_with_notices(
    log: JetStreamLog,
    settings: LoopSettings,
    notices: Option<ConnectSettings>,
    stop: CancellationToken,
) -> Result<(), LoopError> {
    let watch = SharedWatch::new();
    let (out, observations) = mpsc::channel(OBSERVATIONS_MAX);
    // The ears end with the loop, whatever it ends by.
    let ears = stop.child_token();
    let _ends = ears.clone().drop_guard();
    let state = log.connection().watch();
    tokio::spawn(ears::look_around(watch.clone(), state, out, ears.clone()));
    tokio::spawn(ears::hear(watch.clone(), log.clone(), ears.clone()));
    if let Some(notices) = notices {
        tokio::spawn(ears::follow_notices(watch.clone(), notices, ears.clone()));
    }
    let shell = HealthShell {
        watch,
        observations: Some(observations),
    };
    deciding::run::<Health, _, _>(log, shell, settings, stop).await
}
