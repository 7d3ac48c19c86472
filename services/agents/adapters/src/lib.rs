//! Adapters: how programs that know nothing of Swarm become agents.
//!
//! **exec**: a command is run for each task. It gets one JSON object on stdin (`id`, `task_type`, `payload`, `inputs`,
//! `attempt`, `fencing_token`, `deadline`); what it prints is its result, exit code 0 is success; exit code 65, or
//! `"retryable": false` beside its `"error"`, says that no other attempt will help. See [`ExecAdapter`].

mod exec;
pub mod group;
mod output;
pub mod watchdog;

pub use exec::{EXIT_NOT_RETRYABLE, ExecAdapter, KILL_GRACE, NoCommand, STDERR_TAIL_BYTES};
pub use output::STDOUT_BYTES_MAX;
