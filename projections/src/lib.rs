//! swarm-projections.
