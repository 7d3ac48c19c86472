//! What every service shares: settings, telemetry, shutdown, probes, and the deciding loop over a `Log`.

pub mod deciding;
pub mod probes;
pub mod settings;
pub mod shutdown;
pub mod snapshots;
pub mod telemetry;

pub use deciding::{LoopError, LoopSettings, LoopStatus, NoShell, Shell};
