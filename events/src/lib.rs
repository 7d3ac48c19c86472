//! swarm-events.
