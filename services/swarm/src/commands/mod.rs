//! One file for each command.

pub mod agent;
pub mod audit;
pub mod completions;
pub mod create;
pub mod delete;
pub mod demo;
pub mod demo_worker;
pub mod doctor;
pub mod down;
pub mod events;
pub mod explain;
pub mod health;
pub mod list;
pub mod metrics;
pub mod org;
pub mod projection;
pub mod replay;
pub mod scale;
pub mod service;
pub mod show;
pub mod status;
pub mod task;
pub mod up;
pub mod update;

use crate::{api::Api, connection::ServerArgs, exit::Outcome};

/// The gateway that the flags, the environment or the data folder name.
fn api(server: &ServerArgs) -> Outcome<Api> {
    Api::new(&server.resolve()?)
}
