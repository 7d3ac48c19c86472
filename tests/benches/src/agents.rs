//! Agents as processes that an agent host runs: how fast their work is elsewhere when one dies or hangs, what their heartbeats
//! cost, and what several do better than one.

mod failover;
mod heartbeats;
mod seen;
mod service;
mod speedup;
mod world;

pub use failover::Options as FailoverOptions;
pub use heartbeats::Options as HeartbeatsOptions;
pub use speedup::Options as SpeedupOptions;

/// `./dev bench failover`.
///
/// # Errors
/// Something does not start, or work is not taken over.
pub fn failover(options: &FailoverOptions) -> anyhow::Result<()> {
    block_on(failover::measure(options))
}

/// `./dev bench heartbeats`.
///
/// # Errors
/// Something does not start, or heartbeats are not heard.
pub fn heartbeats(options: &HeartbeatsOptions) -> anyhow::Result<()> {
    block_on(heartbeats::measure(options))
}

/// `./dev bench speedup`.
///
/// # Errors
/// Something does not start, or a task does not end.
pub fn speedup(options: &SpeedupOptions) -> anyhow::Result<()> {
    block_on(speedup::measure(options))
}

fn block_on(measurement: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measurement)
}
