//! One file for each command.

pub mod agent;
pub mod apply;
pub mod ask;
pub mod audit;
pub mod blackboard;
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
pub mod message;
pub mod metrics;
pub mod org;
pub mod projection;
pub mod replay;
pub mod scale;
pub mod service;
pub mod show;
pub mod status;
pub mod task;
pub mod topology;
pub mod up;
pub mod update;

use crate::{
    api::Api,
    connection::ServerArgs,
    exit::{Failure, Outcome},
};

/// The gateway that the flags, the environment or the data folder name.
fn api(server: &ServerArgs) -> Outcome<Api> {
    Api::new(&server.resolve()?)
}

/// A value that a person gives: JSON, `@FILE` with JSON, `-` for JSON from stdin; what is no JSON is a text.
fn text_or_json(text: &str) -> Outcome<serde_json::Value> {
    let parse = |text: &str, origin: &str| {
        let wrong = |error| Failure::usage(format!("{origin} is not JSON: {error}"));
        serde_json::from_str(text).map_err(wrong)
    };
    match (text, text.strip_prefix('@')) {
        ("-", _) => {
            let mut read = String::new();
            std::io::Read::read_to_string(&mut std::io::stdin(), &mut read)?;
            parse(&read, "stdin")
        }
        (_, Some(file)) => {
            let read = std::fs::read_to_string(file)
                .map_err(|error| Failure::failed(format!("cannot read {file}: {error}")))?;
            parse(&read, file)
        }
        _ => Ok(serde_json::from_str(text).unwrap_or_else(|_| serde_json::json!(text))),
    }
}
