//! swarm-servers.
