//! The log client: the one way in which Swarm writes to and reads from `swarm_events`.
//!
//! [`Log`] is the interface that the deciding loop, the gateway, the projector and the agents are written against.
//! It has two implementations with the same rules, held to them by one contract suite: [`jetstream::JetStreamLog`] and
//! [`simulated::SimulatedLog`]. [`definitions`] is the one place that says what streams and buckets exist;
//! [`provision::provision`] creates them.

pub mod connect;
pub mod definitions;
pub mod filter;
pub mod jetstream;
mod log;
pub mod notices;
mod presence;
pub mod provision;
pub mod simulated;
pub mod tls;

pub use log::*;
pub use presence::*;
