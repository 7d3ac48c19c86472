//! The whole system in one thread on a virtual clock, from one seed: the real cores, the real deciding rules, membership and
//! hand-over, and the real agent protocol over a simulated log, with several replicas of each service, model agents, clients
//! and projectors. First a phase of faults in which safety holds at every step, then healing, after which everything that
//! was accepted must end. The same seed gives the same run.
//!
//! The invariants and their checker are in `swarm_audit`, which audits real logs with them too.

mod agent;
mod client;
mod clock;
mod coverage;
mod folds;
mod group;
mod host;
mod hunt;
mod journal;
mod process;
mod projector;
mod report;
mod shells;
mod versions;
mod world;

pub use hunt::{Caught, FOUND_BY_UNIT_TESTS, hunt};
pub use report::{COVERED, FAULTS, Failure, Options, Report};
pub use swarm_audit::{Invariant, Violation};
pub use swarm_events::planted::Bug;
pub use world::run;
