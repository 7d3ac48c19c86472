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
mod declines;
mod dependencies;
mod explain;
mod failure_path;
mod fast_failures;
mod figures;
mod graphs;
mod hand_over;
mod layout;
mod limits;
mod order;
mod repair;
mod reshape;
mod resting;
mod ring;
mod scene;
mod shaped_worlds;
mod shedding;
mod splits;
mod star_and_mesh;
mod stealing;
mod stuck;
mod timeouts;
mod tree;
mod updates;
mod views;
mod worlds;
