//! The deciding loop: claim, fold to the own claim, repair from the open marks, decide over state and plan, append fenced,
//! apply when met, settle doubt by claiming again, wake on deadlines.
//!
//! [`machine::Machine`] holds the rules for one partition and does no IO, so that the loop on a real log and a simulation
//! run the same code. [`replica::Replica`] holds those of a process: which partitions it folds and wants, by who else is
//! there ([`members::Members`]). [`run`] drives it over a [`swarm_log::Log`].

mod driver;
mod encode;
pub mod join;
pub mod machine;
pub mod members;
pub mod replica;
mod status;

pub use driver::{LoopError, LoopSettings, NoShell, SNAPSHOT_INLINE_BYTES_MAX, Shell, run};
pub use encode::{control_message, decision_message, epoch_fence};
pub use members::{Announcement, Held, Role};
pub use status::LoopStatus;

use sha2::{Digest, Sha256};
use swarm_events::decider::Decider;

/// Hash of a state: SHA-256 over its postcard encoding. Owner, standby, cold fold and snapshot have the same one at every
/// sequence.
///
/// # Errors
/// Only if the state cannot be encoded, which its tests rule out.
pub fn state_hash<D: Decider>(state: &D) -> Result<[u8; 32], postcard::Error> {
    Ok(Sha256::digest(postcard::to_stdvec(state)?).into())
}
