//! What works without PostgreSQL: keys, writes, their outcomes, health and live events.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod admission;
mod bulk;
mod input;
mod live;
mod tasks;
