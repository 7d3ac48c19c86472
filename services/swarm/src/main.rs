//! Swarm's one binary: the command line, and every service as a role of it.

mod api;
mod cli;
mod commands;
mod connection;
mod demo;
mod exit;
mod installation;
mod output;
mod progress;
mod sse;
mod yaml;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    swarm_log::tls::choose();
    // Ends with code 2 and a usage message by itself.
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return exit::Failure::failed(format!("cannot start: {error}")).report(),
    };
    let outcome = runtime.block_on(cli.run());
    // A thread that still blocks (reading stdin, for one) must not hold the process up.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
