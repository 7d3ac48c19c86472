//! The read models: the tables that lists and reports are read from, made of the log and of nothing else.
//!
//! - [`migrate`] makes the tables, with TimescaleDB's hypertables where the extension is there and native partitions where
//!   it is not.
//! - [`queries`] reads them: typed rows with the column names of the schema, paged by opaque cursors.
//! - [`progress`] tells a reader how far the tables have come, so that it can wait for a sequence that it wrote.

pub mod migrate;
mod pg;
pub mod pool;
pub mod progress;
pub mod queries;

/// Name of the one checkpoint: all tables are written together.
pub(crate) const CHECKPOINT: &str = "read_models";
