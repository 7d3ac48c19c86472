//! swarm-agent-sdk.
