//! `swarm task wait`

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::{ended, show};
use crate::{
    api::Api,
    exit::{Code, Failure, Outcome},
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
/// How long the answer may stay away before waiting is given up.
const AWAY_MAX: Duration = Duration::from_secs(30);

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
    for id in &ids {
        match until_one_ended(api, id, deadline).await {
            Ok(Some(task)) => done.push(task),
            Ok(None) => {
                bar.abandon();
                return Err(Failure::timeout(format!(
                    "{} of {} tasks have ended; the next one is {id}",
                    done.len(),
                    ids.len(),
                )));
            }
            Err(failure) => {
                bar.abandon();
                return Err(failure);
            }
        }
        bar.inc(1);
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

/// `None`: not in time.
async fn until_one_ended(api: &Api, id: &str, deadline: Option<Instant>) -> Outcome<Option<Value>> {
    let mut look = LOOK_MIN;
    let mut away: Option<Instant> = None;
    loop {
        match show(api, id).await {
            Ok(task) if task["status"].as_str().is_some_and(ended) => return Ok(Some(task)),
            Ok(_) => away = None,
            // The gateway or the database is being started again, for one: the task goes on meanwhile.
            Err(failure) if failure.code == Code::Failed => {
                let since = *away.get_or_insert_with(Instant::now);
                if since.elapsed() > AWAY_MAX {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        let until = Instant::now() + look;
        sleep_until(deadline.map_or(until, |deadline| deadline.min(until))).await;
        look = (look * 2).min(LOOK_MAX);
    }
}
