//! The distributor's rules as Given / When / Then on events: a scene is a log with one swarm, and what happens in it is
//! written through the real bytes.

mod agents;
mod assignment;
mod attempts;
mod commands;
mod dependencies;
mod figures;
mod graphs;
mod layout;
mod limits;
mod repair;
mod scene;
mod views;
mod worlds;
