//! `swarm show`

use crate::{connection::ServerArgs, exit::Outcome, output::Format};

/// Arguments of `swarm show`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id
    pub swarm: String,
}

/// Shows a swarm.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    output.object(&api.get(&format!("/v1/swarms/{id}"), &[]).await?)
}
