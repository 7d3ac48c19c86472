//! The whole system in one thread on a virtual clock, from one seed: the real cores, the real deciding rules and the real
//! agent protocol over a simulated log, with crashes, pauses, zombies, lost and late acknowledgements, ghosts, duplicates
//! and delays. First a phase of faults in which safety holds at every step, then healing, after which everything that was
//! accepted must end. The same seed gives the same run.

mod agent;
mod client;
mod replica;
mod world;

pub use swarm_audit::{Invariant, Violation};
pub use world::{Failure, Options, Report, run};
