//! The promises, by name, and a reader of the log that checks them.
//!
//! One registry of named [`Invariant`]s and one [`Checker`] serve the simulation, `swarm audit` over a real log, and the
//! counters of a running service. The checker shares no code with the cores: it knows the validity rules of an event from
//! the design alone, so that a mistake in a core cannot hide itself.

mod checker;

pub use checker::{Checker, Invariant, Violation};
