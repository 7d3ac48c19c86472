//! swarm-agent-adapters.
