//! `swarm down`

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::{
    connection::ServerArgs,
    exit::{Failure, Outcome},
    installation::{DataDir, Holder, Lock, child::signal},
    output, progress,
};

/// Arguments of `swarm down`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Longest wait
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = progress::parse_duration)]
    pub timeout: Duration,
}

/// How often the lock is asked for.
const LOOK: Duration = Duration::from_millis(50);

/// Stops the installation and waits until it has ended.
pub async fn run(args: Args, server: &ServerArgs) -> Outcome {
    let data = DataDir::at(&server.data_dir()?);
    let deadline = Instant::now() + args.timeout;
    let pid = match Lock::holder(&data)? {
        Holder::Nobody => {
            return output::line(&format!("Nothing runs in {}.", data.path().display()));
        }
        Holder::Process(Some(pid)) => pid,
        Holder::Process(None) => {
            return Err(Failure::failed(
                "the installation is just being started: try again",
            ));
        }
    };
    signal(pid, Signal::TERM);
    let spinner = progress::spinner("stopping the services and the servers");
    while Lock::holder(&data)? != Holder::Nobody {
        if Instant::now() > deadline {
            return Err(Failure::timeout(format!(
                "process {pid} has not ended after {} s",
                args.timeout.as_secs()
            )));
        }
        sleep(LOOK).await;
    }
    spinner.finish_and_clear();
    output::line("Stopped.")
}
