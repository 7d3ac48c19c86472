//! The read models: the tables that lists and reports are read from, made of the log and of nothing else.
//!
//! - [`migrate`] makes the tables, with TimescaleDB's hypertables where the extension is there and native partitions where
//!   it is not.
//! - [`projector`] keeps them in step with the log; [`rebuild`] drops them, for the projector to make them anew.
//! - [`queries`] reads them: typed rows with the column names of the schema, paged by opaque cursors.
//! - [`verify`] holds the tables against the log.
//! - [`templates`] are the topologies that every organization has.
//! - [`progress`] tells a reader how far the tables have come, so that it can wait for a sequence that it wrote.

mod agents;
mod attempts;
mod batch;
mod changes;
mod columns;
mod event_row;
mod fold;
mod jsonb;
pub mod migrate;
mod pg;
pub mod pool;
pub mod progress;
pub mod projector;
pub mod queries;
mod questions;
pub mod rebuild;
mod results;
mod route;
mod session;
mod start;
pub mod status;
mod tables;
pub mod templates;
pub mod verify;
mod write;

pub use fold::Newer;

/// Name of the one checkpoint: all tables are written together.
pub(crate) const CHECKPOINT: &str = "read_models";
