//! What an agent heeds of its swarm's settings.

use std::time::Duration;

use swarm_events::{Body, Input, configuration::MessagePolicy};
use swarm_log::StoredMessage;

use crate::live;

/// Shortest interval taken: below it the figures would say nothing and the bus would carry nothing else.
pub(crate) const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The settings at a place of the log; the defaults before any was met.
pub(crate) struct SwarmSettings {
    at: u64,
    heartbeat_interval_ms: u64,
    drain_grace_ms: u64,
    messages: MessagePolicy,
}

impl Default for SwarmSettings {
    fn default() -> Self {
        let defaults = swarm_events::configuration::Configuration::default();
        Self {
            at: 0,
            heartbeat_interval_ms: defaults.heartbeat_interval_ms,
            drain_grace_ms: defaults.drain_grace_ms,
            messages: defaults.messages,
        }
    }
}

impl SwarmSettings {
    /// Takes what a `swarm.created` or `swarm.updated` says, unless a later one has been met.
    pub(crate) fn meet(&mut self, message: &StoredMessage) {
        let Input::Event(recorded) = live::read(message) else {
            return;
        };
        let configuration = match &recorded.event.body {
            Body::SwarmCreated(created) => &created.configuration,
            Body::SwarmUpdated(updated) => &updated.configuration,
            _ => return,
        };
        if recorded.sequence > self.at {
            self.at = recorded.sequence;
            self.heartbeat_interval_ms = configuration.heartbeat_interval_ms;
            self.drain_grace_ms = configuration.drain_grace_ms;
            self.messages = configuration.messages;
        }
    }

    /// How often health expects a heartbeat.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms).max(HEARTBEAT_INTERVAL_MIN)
    }

    /// How much agents may say to each other.
    pub(crate) const fn messages(&self) -> MessagePolicy {
        self.messages
    }

    /// How long running work may go on after a stop.
    pub(crate) const fn drain_grace(&self) -> Duration {
        Duration::from_millis(self.drain_grace_ms)
    }
}
