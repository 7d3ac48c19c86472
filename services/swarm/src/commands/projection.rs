//! `swarm projection`

use std::time::Duration;

use swarm_log::Log;
use swarm_projections::{pool, queries, rebuild};
use tokio::time::{Instant, sleep};

use crate::{
    connection::{ServerArgs, Target},
    exit::{Failure, Outcome},
    output,
    progress::{self, parse_duration},
};

/// Commands on the read models.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Drop every table and let the projector make them anew from the log
    Rebuild {
        /// Longest wait for the tables to be as far as the log
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
        timeout: Duration,
    },
}

/// How often the checkpoint is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Runs a command on the read models.
pub async fn run(command: Command, server: &ServerArgs) -> Outcome {
    let Command::Rebuild { timeout } = command;
    let target = server.resolve()?;
    let wanted = target.log("projection").await?.info().await?.last_sequence;
    rebuild::rebuild(database_url(&target)?)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    let bar = progress::bar(wanted, "events");
    let deadline = Instant::now() + timeout;
    loop {
        let reached = sequence(&target).await.unwrap_or(0);
        bar.set_position(reached.min(wanted));
        if reached >= wanted {
            break;
        }
        if Instant::now() > deadline {
            bar.abandon();
            return Err(Failure::timeout(format!(
                "the tables are at sequence {reached} of {wanted}: does the projector run? `swarm status` tells"
            )));
        }
        sleep(LOOK).await;
    }
    bar.finish_and_clear();
    output::line(&format!(
        "The tables are made anew, up to sequence {wanted}."
    ))
}

/// The last sequence that is in the tables, 0 before the first.
pub async fn sequence(target: &Target) -> Outcome<u64> {
    let pool =
        pool::reader(database_url(target)?).map_err(|error| Failure::usage(error.to_string()))?;
    let sequence = queries::committed_sequence(&pool).await;
    pool.close().await;
    sequence
        .map(Option::unwrap_or_default)
        .map_err(|error| Failure::failed(format!("the read models cannot be read: {error}")))
}

fn database_url(target: &Target) -> Outcome<&str> {
    target
        .database_url
        .as_deref()
        .ok_or_else(|| target.missing("PostgreSQL", "--database-url", "SWARM_DATABASE_URL"))
}
