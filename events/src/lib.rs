//! The vocabulary of Swarm: ids, subjects, the CloudEvents envelope, every event and command type, and the contract of a
//! pure decider. What is written here is stored for ever: a changed shape is a new version with an upcaster.
//!
//! No runtime, clock or randomness: ids and times are data.

pub mod agent;
pub mod body;
pub mod command;
pub mod configuration;
pub mod control;
pub mod decider;
pub mod edge;
pub mod envelope;
pub mod ids;
pub mod json;
pub mod message;
pub mod org;
pub mod permissions;
pub mod planted;
pub mod problem;
pub mod read;
pub mod schema;
pub mod subject;
pub mod swarm;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod topology;
pub mod upcast;

pub use body::{Body, EventType};
pub use envelope::Event;
pub use ids::*;
pub use json::Json;
pub use problem::Problem;
pub use read::{Input, Recorded, Unreadable, read};
pub use subject::{Partition, Place, Service, Subject};
pub use time::Timestamp;
