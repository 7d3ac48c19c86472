//! swarm-runtime.
