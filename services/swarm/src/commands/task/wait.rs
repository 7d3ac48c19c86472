//! `swarm task wait`

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{ended, show};
use crate::{
    api::Api,
    exit::{Failure, Outcome},
    output::{Column, Format},
    progress::{self, parse_duration},
};

/// Arguments of `swarm task wait`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Ids of the tasks
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// Longest wait; past it the exit code is 4
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

const COLUMNS: [Column; 4] = [
    ("ID", "/id"),
    ("STATUS", "/status"),
    ("RESULT", "/result"),
    ("ERROR", "/error_message"),
];
/// Looks again after this; grows to the longest, since long tasks need no close watch.
const LOOK_MIN: Duration = Duration::from_millis(50);
/// See [`LOOK_MIN`].
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Waits for the tasks.
pub async fn run(args: Args, api: &Api, output: Format) -> Outcome {
    until_ended(api, args.tasks, args.timeout, output).await
}

/// Waits until every task has ended, prints them, and fails if one did not complete.
pub async fn until_ended(
    api: &Api,
    ids: Vec<String>,
    timeout: Option<Duration>,
    output: Format,
) -> Outcome {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let bar = progress::bar(ids.len() as u64, "tasks");
    let mut done: Vec<Value> = Vec::new();
    let mut look = LOOK_MIN;
    for id in &ids {
        loop {
            let task = show(api, id).await?;
            if task["status"].as_str().is_some_and(ended) {
                done.push(task);
                bar.inc(1);
                look = LOOK_MIN;
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                bar.abandon();
                return Err(Failure::timeout(format!(
                    "{} of {} tasks have ended; {id} is {}",
                    done.len(),
                    ids.len(),
                    task["status"].as_str().unwrap_or("unknown")
                )));
            }
            tokio::time::sleep(look).await;
            look = (look * 2).min(LOOK_MAX);
        }
    }
    bar.finish_and_clear();
    output.list(&done, &COLUMNS)?;
    let others = done
        .iter()
        .filter(|task| task["status"] != "completed")
        .count();
    if others == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{others} of {} tasks did not complete",
        done.len()
    )))
}
