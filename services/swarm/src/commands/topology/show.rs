//! `swarm topology show`

use serde_json::Value;

use super::{
    draw,
    graph::{Graph, dot, mermaid},
};
use crate::{
    connection::ServerArgs,
    exit::Outcome,
    output::{self, Format, Output},
};

/// Arguments of `swarm topology show`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    pub swarm: String,
}

/// Shows the shape of a swarm.
pub async fn run(args: Args, server: &ServerArgs, output: Output) -> Outcome {
    let api = crate::commands::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let shape = api.get(&format!("/v1/swarms/{id}/topology"), &[]).await?;
    match output {
        Output::Json => Format::Json.object(&shape),
        Output::Table => output::line(&draw::drawn(&shape)),
        Output::Dot => graph(&shape, dot),
        Output::Mermaid => graph(&shape, mermaid),
    }
}

fn graph(shape: &Value, written: impl Fn(&Graph) -> String) -> Outcome {
    output::line(&written(&Graph::of(shape)))
}
