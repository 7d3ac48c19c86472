//! swarm-end-to-end.
