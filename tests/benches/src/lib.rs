//! swarm-benches.
