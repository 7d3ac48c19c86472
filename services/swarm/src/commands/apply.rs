//! `swarm apply`

mod diff;
mod doing;
mod file;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use self::{
    diff::{Change, Current},
    file::Declared,
};
use crate::{
    api::Api,
    connection::ServerArgs,
    exit::{Code, Outcome},
    output::{self, Format},
    progress::parse_duration,
    yaml,
};

/// Arguments of `swarm apply`.
///
/// A section of the file says all of what it is about: settings and options that it does not name go back to their defaults.
/// A section that is left out is left alone. Of agents it is about those of the same type whose name is that of a group, or
/// the group's with a number behind it.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file; - is stdin. See services/swarm/examples
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Change nothing, and show what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Longest wait for an agent to go that is started anew with another command, and for those to come that a topology names
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = WAIT)]
    pub timeout: Duration,
}

/// An agent that goes finishes what it has, and one that comes starts its process: longer than either takes as a rule, and
/// short enough to be told by a person who waits.
const WAIT: &str = "60s";

/// Makes a swarm what a file says.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let declared: Declared = yaml::read(&args.file)?;
    let name = args.file.display().to_string();
    declared
        .check()
        .map_err(|problem| file::refused(&name, &problem))?;
    let api = super::api(server)?;
    let template = match declared.template() {
        Some(template) => Some(template_of(&api, template).await?),
        None => None,
    };
    let current = current(&api, &declared).await?;
    let topology = declared
        .topology(template.as_ref(), current.as_ref())
        .map_err(|problem| file::refused(&name, &problem))?;
    let changes = diff::changes(&declared, topology.as_ref(), current.as_ref());
    if output == Format::Table {
        output::line(&shown(&declared, current.is_some(), &changes, args.dry_run))?;
    }
    let mut id = current.as_ref().map(|current| current.id.clone());
    let mut plan = Value::Null;
    if args.dry_run {
        if let (Some(id), Some(body)) = (&id, diff::topology_body(&changes)) {
            let path = format!("/v1/swarms/{id}/topology?dry_run=true");
            plan = api.put(&path, &body).await?;
            if output == Format::Table {
                output::line(&super::topology::told(&plan))?;
            }
        }
    } else {
        id = Some(doing::apply(&api, &declared, &changes, id, args.timeout).await?);
        api.settle().await;
    }
    match output {
        Format::Table => Ok(()),
        Format::Json => {
            let changes: Vec<Value> = changes.iter().map(Change::json).collect();
            output.object(&json!({"name": declared.name(), "swarm_id": id, "dry_run": args.dry_run, "changes": changes,
                "topology_plan": plan}))
        }
    }
}

async fn template_of(api: &Api, name: &str) -> Outcome<Value> {
    let query = super::topology::template_path(name);
    api.get(&query, &[]).await.map_err(|mut failure| {
        failure.message = format!("template: {failure}");
        failure
    })
}

/// What there is under the name of the file's swarm.
async fn current(api: &Api, declared: &Declared) -> Outcome<Option<Current>> {
    let query = [("name", declared.name().to_owned())];
    let swarms = api.list("/v1/swarms", &query, None).await?;
    let Some(swarm) = swarms.into_iter().next_back() else {
        return Ok(None);
    };
    let id = swarm["id"].as_str().unwrap_or_default().to_owned();
    let shape = api.get(&format!("/v1/swarms/{id}/topology"), &[]).await?;
    let agents = match api
        .list(&format!("/v1/swarms/{id}/agents"), &[], None)
        .await
    {
        // It is deleted at this moment.
        Err(failure) if failure.code == Code::NotFound => return Ok(None),
        agents => agents?,
    };
    Ok(Some(Current {
        id,
        swarm,
        shape,
        agents,
    }))
}

/// The difference, for people.
fn shown(declared: &Declared, exists: bool, changes: &[Change], dry_run: bool) -> String {
    let name = declared.name();
    if changes.is_empty() {
        return format!("swarm {name} is as the file says");
    }
    let what = match (exists, dry_run) {
        (false, false) => "is created",
        (false, true) => "would be created",
        (true, false) => "is changed",
        (true, true) => "would be changed",
    };
    let mut shown = format!("swarm {name} {what}");
    for change in changes {
        shown.push_str("\n  ");
        shown.push_str(&change.line());
    }
    shown
}
