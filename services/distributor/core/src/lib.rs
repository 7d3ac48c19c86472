//! swarm-distributor-core.
