//! Messages, blackboard, questions and splits of agents against a real nats-server.

mod beside;
mod edges;
mod inbox;
mod requests;
mod scene;
#[path = "../support/mod.rs"]
mod support;
