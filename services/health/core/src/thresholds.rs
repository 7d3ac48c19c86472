//! When silence means something.

use serde::{Deserialize, Serialize};
use swarm_events::configuration::Configuration;

/// How long an agent or host whose connection was seen to close has to come back, in milliseconds: several attempts of a
/// client that reconnects, and ten times less than silence would take.
pub const DISCONNECT_GRACE_MS: u64 = 500;

/// The same where a host and all of its agents that are heard of closed their connections, in milliseconds, from the last of
/// them: processes that lose their server each reconnect at their own time, and one that lives does so at once; that none of
/// them does is what the death of a machine looks like.
pub const HOST_DOWN_GRACE_MS: u64 = 150;

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
    /// What follows from a swarm's settings: its own limits, else multiples of its heartbeat interval.
    pub fn of(configuration: &Configuration) -> Self {
        let (suspect_after_ms, fail_after_ms) = configuration
            .health
            .silence(configuration.heartbeat_interval_ms);
        Self {
            suspect_after_ms,
            fail_after_ms,
            disconnect_grace_ms: DISCONNECT_GRACE_MS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_follow_from_the_interval_unless_they_are_set() {
        let mut configuration = Configuration::default();
        let limits = |configuration: &Configuration| {
            let limits = Thresholds::of(configuration);
            (limits.suspect_after_ms, limits.fail_after_ms)
        };
        assert_eq!(limits(&configuration), (2_500, 4_000));
        configuration.heartbeat_interval_ms = 101;
        assert_eq!(limits(&configuration), (252, 404));
        configuration.health.fail_after_ms = 9_000;
        assert_eq!(limits(&configuration), (252, 9_000));
        configuration.health.suspect_after_ms = 8_999;
        assert_eq!(limits(&configuration), (8_999, 9_000));
    }
}
