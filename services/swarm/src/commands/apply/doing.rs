//! Making a swarm what its file says.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    diff::{self, Change},
    file::Declared,
};
use crate::{
    api::{self, Api},
    exit::{Code, Failure, Outcome},
};

/// Looks again after this: an agent with nothing to finish goes within tenths of a second.
const LOOK: Duration = Duration::from_millis(250);

/// Does all of it, and answers with the swarm's id. What went wrong is done again by the next `swarm apply`.
pub(super) async fn apply(
    api: &Api,
    declared: &Declared,
    changes: &[Change],
    id: Option<String>,
    timeout: Duration,
) -> Outcome<String> {
    let id = match id {
        Some(id) => id,
        None => create(api, changes).await?,
    };
    let swarm = format!("/v1/swarms/{id}");
    if let Some(patch) = diff::patch(changes) {
        api.put(&swarm, &patch).await?;
    }
    for change in changes {
        one(api, declared, &swarm, change, timeout).await?;
    }
    Ok(id)
}

async fn create(api: &Api, changes: &[Change]) -> Outcome<String> {
    let body = changes.iter().find_map(|change| match change {
        Change::Create { body } => Some(body),
        _ => None,
    });
    let body =
        body.ok_or_else(|| Failure::failed("there is no swarm, and none is to be created"))?;
    let made = api.post("/v1/swarms", body, None).await?;
    let id = made["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| Failure::failed("the gateway answered with no id"))
}

async fn one(
    api: &Api,
    declared: &Declared,
    swarm: &str,
    change: &Change,
    timeout: Duration,
) -> Outcome {
    let group = |at: usize| declared.agents.iter().flatten().nth(at);
    match change {
        // These are done by then.
        Change::Create { .. } | Change::Set { .. } => {}
        Change::Topology { body, awaited, .. } => {
            let path = format!("{swarm}/topology");
            until_there(async || api.get(&path, &[]).await, awaited, timeout).await?;
            api.put(&path, body).await?;
        }
        Change::Add {
            group: at,
            base,
            before,
            names,
            ..
        } => {
            let Some(group) = group(*at) else {
                return Ok(());
            };
            let path = format!("{swarm}/agents");
            // Numbered from 1 by the gateway, where that is what is wanted.
            let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
            let plain = (1..=count).map(|number| format!("{base}-{number}"));
            if *before == 0 && names.len() > 1 && plain.eq(names.iter().cloned()) {
                let added = api.post(&path, &group.body(base, count), None).await?;
                refused(&added)?;
            } else {
                for name in names {
                    api.post(&path, &group.body(name, 1), None).await?;
                }
            }
        }
        Change::Update { id, patch, .. } => {
            api.put(&format!("{swarm}/agents/{id}"), patch).await?;
        }
        Change::Remove { agents, .. } => {
            for (id, _) in agents {
                gone(api.delete(&format!("{swarm}/agents/{id}")).await)?;
            }
        }
        Change::Replace {
            group: at,
            id,
            name,
        } => {
            let Some(group) = group(*at) else {
                return Ok(());
            };
            let path = format!("{swarm}/agents/{id}");
            gone(api.delete(&path).await)?;
            until_stopped(api, &path, name, timeout).await?;
            api.post(&format!("{swarm}/agents"), &group.body(name, 1), None)
                .await?;
        }
    }
    Ok(())
}

/// The first of several agents that was refused.
fn refused(added: &Value) -> Outcome {
    let items = added["items"].as_array().map_or(&[][..], Vec::as_slice);
    match items.iter().find(|item| item["problem"].is_object()) {
        Some(item) => Err(api::refusal(&item["problem"])),
        None => Ok(()),
    }
}

/// One that is not there any more has gone.
fn gone(removed: Outcome<Value>) -> Outcome {
    match removed {
        Err(failure) if failure.code != Code::NotFound => Err(failure),
        _ => Ok(()),
    }
}

/// Its name is free again only then.
async fn until_stopped(api: &Api, path: &str, name: &str, timeout: Duration) -> Outcome {
    let deadline = Instant::now() + timeout;
    loop {
        let agent = match api.get(path, &[]).await {
            Err(failure) if failure.code == Code::NotFound => return Ok(()),
            agent => agent?,
        };
        if agent["status"] == "stopped" {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure::timeout(format!(
                "agent {name} has not gone after {timeout:?}: it finishes what it has; apply the file again later, or `swarm agent remove --force`"
            )));
        }
        sleep(LOOK).await;
    }
}

/// Waits until these agents have joined: a topology that names nobody who is there is refused. `shape` asks for the shape of the
/// swarm, which the gateway knows before the lists.
pub(super) async fn until_there(
    shape: impl AsyncFn() -> Outcome<Value>,
    names: &[String],
    timeout: Duration,
) -> Outcome {
    let deadline = Instant::now() + timeout;
    while !names.is_empty() {
        let shape = shape().await?;
        let nodes = shape["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let there = |name: &String| {
            nodes.iter().any(|node| {
                node["agent_name"] == **name
                    && (node["status"] == "idle" || node["status"] == "busy")
            })
        };
        let missing: Vec<&str> = names
            .iter()
            .filter(|name| !there(name))
            .map(String::as_str)
            .collect();
        if missing.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            return Err(Failure::timeout(format!(
                "the topology names {}, and after {timeout:?} they have not joined: the topology is as it was; see `swarm agent list`, \
                 and apply the file again",
                missing.join(", ")
            )));
        }
        sleep(LOOK).await;
    }
    Ok(())
}
