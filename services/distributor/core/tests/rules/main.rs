//! The distributor's rules as Given / When / Then on events: a scene is a log with one swarm, and what happens in it is
//! written through the real bytes.

mod agents;
mod algorithms;
mod assignment;
mod attempts;
mod big_graphs;
mod cancel_graph;
mod commands;
mod dead_letters;
mod dependencies;
mod explain;
mod failure_path;
mod figures;
mod graphs;
mod layout;
mod limits;
mod order;
mod repair;
mod scene;
mod shedding;
mod stealing;
mod timeouts;
mod views;
mod worlds;
