//! swarm-health-core.
