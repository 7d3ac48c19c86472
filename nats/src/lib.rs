//! The log client: the one way in which Swarm writes to and reads from `swarm_events`.
//!
//! [`Log`] is the interface that the deciding loop, the gateway, the projector and the agents are written against.
//! It has two implementations with the same rules, held to them by one contract suite: [`jetstream::JetStreamLog`] and
//! [`simulated::SimulatedLog`].

pub mod jetstream;
mod log;
pub mod simulated;

pub use log::*;
