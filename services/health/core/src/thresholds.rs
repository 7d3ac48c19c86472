//! When silence means something.

use serde::{Deserialize, Serialize};
use swarm_events::configuration::Configuration;

/// An agent is suspected after this many tenths of a heartbeat interval: two misses and a half, so that one heartbeat lost
/// and one delayed on a busy host are no suspicion.
pub const SUSPECT_AFTER_TENTHS: u64 = 25;
/// An agent is held to be dead after this many tenths of a heartbeat interval. Taking work away wrongly runs it twice;
/// four intervals at the default of a second are still far from the promised 30 s.
pub const FAIL_AFTER_TENTHS: u64 = 40;
/// How long an agent whose connection was seen to close has to come back, in milliseconds: several attempts of a client
/// that reconnects, and ten times less than silence would take.
pub const DISCONNECT_GRACE_MS: u64 = 500;

/// The limits of a swarm's agents, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Silence for longer than this: suspected.
    pub suspect_after_ms: u64,
    /// Silence for longer than this: failed.
    pub fail_after_ms: u64,
    /// Disconnected for longer than this: failed.
    pub disconnect_grace_ms: u64,
}

impl Thresholds {
    /// What follows from a swarm's `heartbeat_interval_ms`.
    pub const fn of(configuration: &Configuration) -> Self {
        let interval = configuration.heartbeat_interval_ms;
        Self {
            suspect_after_ms: interval.saturating_mul(SUSPECT_AFTER_TENTHS) / 10,
            fail_after_ms: interval.saturating_mul(FAIL_AFTER_TENTHS) / 10,
            disconnect_grace_ms: DISCONNECT_GRACE_MS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_follow_from_the_interval() {
        let mut configuration = Configuration::default();
        let limits = Thresholds::of(&configuration);
        assert_eq!(
            (limits.suspect_after_ms, limits.fail_after_ms),
            (2_500, 4_000)
        );
        configuration.heartbeat_interval_ms = 101;
        let limits = Thresholds::of(&configuration);
        assert_eq!((limits.suspect_after_ms, limits.fail_after_ms), (252, 404));
    }
}
