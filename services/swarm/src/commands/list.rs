//! `swarm list`

use crate::{
    connection::ServerArgs,
    exit::Outcome,
    output::{Column, Format},
};

/// Arguments of `swarm list`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

const COLUMNS: [Column; 6] = [
    ("NAME", "/name"),
    ("STATUS", "/status"),
    ("TOPOLOGY", "/topology"),
    ("AGENTS", "/agent_count"),
    ("CREATED", "/created_at"),
    ("ID", "/id"),
];

/// Lists swarms.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let swarms = super::api(server)?
        .list("/v1/swarms", &[], args.limit)
        .await?;
    output.list(&swarms, &COLUMNS)
}
