//! The distributor's rules as Given / When / Then on events: a scene is a log with one swarm, and what happens in it is
//! written through the real bytes.

mod agents;
mod assignment;
mod attempts;
mod scene;
