//! swarm-distributor.
