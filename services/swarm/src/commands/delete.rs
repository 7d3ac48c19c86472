//! `swarm delete`

use crate::{connection::ServerArgs, exit::Outcome, output::Format};

/// Arguments of `swarm delete`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id
    pub swarm: String,
}

/// Terminates a swarm: open tasks are cancelled, agents let go, and it stays readable.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let swarm = api.delete(&format!("/v1/swarms/{id}")).await?;
    api.settle().await;
    output.object(&swarm)
}
