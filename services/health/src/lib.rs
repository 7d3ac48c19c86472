//! swarm-health.
