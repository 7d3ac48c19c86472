//! `swarm topology`

pub mod draw;
mod graph;
mod set;
mod show;
mod template;

pub use set::{lay_over, options, told};
pub use template::path as template_path;

use crate::{
    connection::ServerArgs,
    exit::Outcome,
    output::{Format, Output},
};

/// Commands on topologies.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Draw who has which place in a swarm, and who may talk to whom; -o dot and -o mermaid for other programs
    Show(show::Args),
    /// Change a swarm's topology or its options while it works
    Set(set::Args),
    /// Topologies under a name
    #[command(subcommand)]
    Template(template::Command),
}

/// Runs a command on topologies.
pub async fn run(command: Command, server: &ServerArgs, output: Output) -> Outcome {
    match command {
        Command::Show(args) => show::run(args, server, output).await,
        Command::Set(args) => set::run(args, server, Format::of(output)?).await,
        Command::Template(command) => template::run(command, server, Format::of(output)?).await,
    }
}
