//! Adapters: how programs that know nothing of Swarm become agents.
//!
//! **exec**: a command is run for each task. It gets one JSON object on stdin (`id`, `task_type`, `payload`, `inputs`,
//! `attempt`, `fencing_token`, `deadline`); what it prints is its result, exit code 0 is success; exit code 65, or
//! `"retryable": false` beside its `"error"`, says that no other attempt will help. See [`ExecAdapter`].
//!
//! **webhook**: a web address is called for each task with a signed request; it answers with the result, or later by a
//! callback. See [`WebhookAdapter`].

mod exec;
pub mod group;
mod output;
mod signature;
pub mod watchdog;
mod webhook;

pub use exec::{EXIT_NOT_RETRYABLE, ExecAdapter, KILL_GRACE, NoCommand, STDERR_TAIL_BYTES};
pub use output::STDOUT_BYTES_MAX;
pub use webhook::{
    ANSWER_BYTES_MAX, CONNECT_TIMEOUT, RETRY_AFTER_MAX, WebhookAdapter, WebhookError,
};
