//! `swarm agent run`: an agent whose work is a command.

use std::time::Duration;

use anyhow::Context;
use swarm_agent_adapters::ExecAdapter;
use swarm_agent_sdk::{Agent, Credentials, Link, LinkSettings, Stopped};
use swarm_events::{
    AgentId, Body, Input, OrgId, Place, Subject, SwarmId, Timestamp, subject::SwarmVerb,
};
use swarm_log::Log;

use crate::{
    api::Api,
    connection::{ServerArgs, Target},
    exit::{Failure, Outcome},
    installation::{DataDir, credentials},
};

/// Arguments of `swarm agent run`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    #[arg(long, value_name = "SWARM")]
    pub swarm: String,
    /// Name, unique among the swarm's live agents [default: made from the id]
    #[arg(long)]
    pub name: Option<String>,
    /// What kind of agent
    #[arg(long = "type", value_name = "TYPE", default_value = "exec")]
    pub agent_type: String,
    /// Something that it can do; tasks ask for it
    #[arg(long = "capability", value_name = "CAPABILITY")]
    pub capabilities: Vec<String>,
    /// Tasks at once [default: the swarm's setting]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: Option<u32>,
    /// Tasks that may wait at it beyond its slots [default: the swarm's setting]
    #[arg(long, value_name = "N")]
    pub waiting: Option<u32>,
    /// Id: the same one makes this process the agent that had it [default: a new one]
    #[arg(long, value_name = "UUID")]
    pub id: Option<AgentId>,
    /// Organization [default: that of the installation, or of the API key]
    #[arg(long, value_name = "UUID")]
    pub org: Option<OrgId>,
    /// The command that does the work: one JSON object on stdin, the result on stdout
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Joins, works until SIGTERM or Ctrl-C, drains and leaves.
pub async fn run(args: Args, server: &ServerArgs) -> Outcome {
    let target = server.resolve()?;
    let work = ExecAdapter::new(args.command.clone())
        .map_err(|error| Failure::usage(error.to_string()))?;
    swarm_runtime::telemetry::init(std::env::var("SWARM_LOG").ok().as_deref(), false);
    let stop = swarm_runtime::shutdown::on_signals()?;
    let (org, swarm) = swarm_of(&args, &target).await?;
    let id = args.id.unwrap_or_else(|| AgentId(uuid::Uuid::now_v7()));
    let place = Place::new(org, swarm);
    let url = target
        .nats_url
        .clone()
        .ok_or_else(|| target.missing("nats-server", "--nats-url", "SWARM_NATS_URL"))?;
    let mut link = LinkSettings::new(url);
    link.creds = creds(&target, server, place, id)?;
    let mut agent = Agent::builder(link.clone(), org, swarm)
        .id(id)
        .agent_type(&args.agent_type)
        .capabilities(&args.capabilities)
        .heartbeat_interval(heartbeat_interval(&link, place).await?)
        .any_raw_handler(work);
    if let Some(name) = &args.name {
        agent = agent.name(name);
    }
    if let Some(slots) = args.slots {
        agent = agent.slots(slots);
    }
    if let Some(waiting) = args.waiting {
        agent = agent.waiting(waiting);
    }
    tracing::info!(agent.id = %id, swarm.id = %swarm, "joining");
    match agent.run(stop).await {
        Ok(Stopped::Left) => Ok(()),
        Ok(Stopped::Removed { reason }) => {
            tracing::warn!(agent.id = %id, "removed from the swarm: {reason}");
            Ok(())
        }
        Err(error) => Err(Failure::failed(error.to_string())),
    }
}

/// Ids need no gateway; names are looked up there.
async fn swarm_of(args: &Args, target: &Target) -> Outcome<(OrgId, SwarmId)> {
    let org = args.org.or(target.org_id);
    if let (Ok(swarm), Some(org)) = (args.swarm.parse(), org) {
        return Ok((org, swarm));
    }
    let api = Api::new(target)?;
    let id = api.swarm_id(&args.swarm).await?;
    let shown = api.get(&format!("/v1/swarms/{id}"), &[]).await?;
    let org = match org {
        Some(org) => org,
        None => shown["organization_id"]
            .as_str()
            .unwrap_or_default()
            .parse()
            .context("the swarm names no organization: give --org")?,
    };
    Ok((org, id.parse().context("the swarm's id is none")?))
}

/// The credentials that were given; else ones of the agent's own, made from the installation's keys, with which it can
/// speak as nobody else.
fn creds(
    target: &Target,
    server: &ServerArgs,
    place: Place,
    id: AgentId,
) -> Outcome<Option<Credentials>> {
    if server.nats_creds.is_none() && server.nats_url.is_none() {
        let own = credentials::of_agent(&DataDir::at(&target.data), place, id)?;
        if let Some(text) = own {
            return Ok(Some(Credentials::Text(text)));
        }
    }
    Ok(target.nats_creds.clone().map(Credentials::File))
}

/// The swarm's setting, read from the log itself.
async fn heartbeat_interval(link: &LinkSettings, place: Place) -> Outcome<Duration> {
    let link = Link::open(link, format!("swarm agent run {}", place.swarm)).await?;
    let mut newest: Option<(u64, u64)> = None;
    for verb in [SwarmVerb::Created, SwarmVerb::Updated] {
        let subject = Subject::Swarm(place, verb).to_string();
        let Some(message) = link.log().last_of(&subject).await? else {
            continue;
        };
        let read = swarm_events::read(
            message.sequence,
            Timestamp::from_micros(message.time_micros),
            &message.subject,
            &message.payload,
        );
        let Input::Event(recorded) = read else {
            continue;
        };
        let configuration = match recorded.event.body {
            Body::SwarmCreated(created) => created.configuration,
            Body::SwarmUpdated(updated) => updated.configuration,
            _ => continue,
        };
        newest = newest.max(Some((
            recorded.sequence,
            configuration.heartbeat_interval_ms,
        )));
    }
    let (_, millis) =
        newest.ok_or_else(|| Failure::not_found(format!("there is no swarm {}", place.swarm)))?;
    Ok(Duration::from_millis(millis))
}
