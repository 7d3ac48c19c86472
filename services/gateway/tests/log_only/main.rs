//! What works without PostgreSQL: keys, writes, their outcomes, health and live events.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod admission;
mod agents;
mod bulk;
mod callbacks;
mod health;
mod input;
mod live;
mod logs;
mod tasks;
