//! swarm-gateway.
