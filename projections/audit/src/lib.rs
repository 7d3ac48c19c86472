//! The promises, by name, and a reader of the log that checks them.
//!
//! One registry of named [`Invariant`]s and one [`Checker`] serve the simulation, `swarm audit` over a real log, and the
//! counters of a running service. The checker shares no code with the cores: it knows the validity rules of an event from
//! the design alone, so that a mistake in a core cannot hide itself.
//!
//! An event whose precondition fails is *void*: it changes nothing and breaks nothing (an agent may be late, a stranger may
//! publish). What breaks a promise is a decision that its owner, with what it had met at `causeseq`, must not have made, or
//! a message that the server's checks must have kept out of the log.

mod checker;
mod invariant;
mod waits;

pub use checker::{
    CLAIMS_KEPT_MAX, Checker, Claim, Counts, Open, OpenItem, Owner, Tally, VIOLATIONS_KEPT_MAX,
};
pub use invariant::{Invariant, Judge, Violation};
pub use waits::{GAPS_KEPT_MAX, Gap};
