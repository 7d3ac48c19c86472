//! What works without PostgreSQL: keys, writes, their outcomes, health and live events.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod admission;
mod agents;
mod blackboard;
mod bulk;
mod callbacks;
mod courier;
mod health;
mod input;
mod live;
mod logs;
mod messages;
mod questions;
mod tasks;
mod templates;
mod topologies;
