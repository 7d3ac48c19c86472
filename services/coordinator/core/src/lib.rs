//! swarm-coordinator-core.
