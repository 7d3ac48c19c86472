//! swarm-coordinator.
