//! `swarm agent run`: an agent whose work is a command, or a web address.

use anyhow::Context;
use swarm_agent_adapters::{ExecAdapter, WebhookAdapter};
use swarm_agent_sdk::{
    Agent, AgentBuilder, AgentError, Callbacks, Credentials, LinkSettings, Stopped,
};
use swarm_events::{AgentId, OrgId, Place, SwarmId};

use crate::{
    api::Api,
    connection::{ServerArgs, Target},
    exit::{Failure, Outcome},
    installation::{DataDir, credentials},
};

/// Most memory that a command may use, in KiB: set by the agent's host where it cannot limit the process tree itself.
const MEMORY_LIMIT: &str = "SWARM_LIMIT_MEMORY_KIB";

/// Signs what a webhook is sent: `whsec_` and base64. From the environment alone, so that no process list shows it.
const WEBHOOK_SECRET: &str = "SWARM_WEBHOOK_SECRET";
/// Where the gateway is, for callbacks.
const API_URL: &str = "SWARM_API_URL";

/// Arguments of `swarm agent run`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    #[arg(long, value_name = "SWARM", required_unless_present = "from_env")]
    pub swarm: Option<String>,
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
    /// Who it is and where its swarm is stands in the environment, as an agent host sets it (SWARM_SWARM_ID, SWARM_AGENT_ID, …)
    #[arg(long, conflicts_with_all = ["swarm", "name", "agent_type", "capabilities", "slots", "waiting", "id", "org"])]
    pub from_env: bool,
    /// Call this address for each task instead of running a command; SWARM_WEBHOOK_SECRET signs the requests
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    pub webhook: Option<String>,
    /// The command that does the work: one JSON object on stdin, the result on stdout
    #[arg(
        last = true,
        required_unless_present = "webhook",
        value_name = "COMMAND"
    )]
    pub command: Vec<String>,
}

/// Joins, works until SIGTERM or Ctrl-C, drains and leaves.
pub async fn run(args: Args, server: &ServerArgs) -> Outcome {
    let exec = match &args.webhook {
        Some(_) => None,
        None => Some(command(&args)?),
    };
    // Only that mistakes show before anything is connected.
    let found = if args.from_env {
        Some(Agent::from_env().map_err(|error| Failure::usage(error.to_string()))?)
    } else {
        None
    };
    swarm_runtime::telemetry::init(std::env::var("SWARM_LOG").ok().as_deref(), false);
    let stop = swarm_runtime::shutdown::on_signals()?;
    let agent = match found {
        Some(agent) => agent,
        None => by_hand(&args, server).await?,
    };
    let id = agent.agent_id();
    let agent = match (exec, &args.webhook) {
        (Some(work), _) => work.serve(agent),
        (None, url) => with_webhook(agent, url.as_deref().unwrap_or_default())?,
    };
    tracing::info!(agent.id = %id, "joining");
    match agent.run(stop).await {
        Ok(Stopped::Left) => Ok(()),
        Ok(Stopped::Asked { reason, .. }) => {
            tracing::info!(agent.id = %id, "left, as the swarm wanted: {reason}");
            Ok(())
        }
        Ok(Stopped::Removed { reason }) => {
            tracing::warn!(agent.id = %id, "removed from the swarm: {reason}");
            Ok(())
        }
        Err(AgentError::Refused(problem)) if problem.code == "unknown-swarm" => {
            Err(Failure::not_found(problem.to_string()))
        }
        Err(error) => Err(Failure::failed(error.to_string())),
    }
}

/// The agent's work as a command.
fn command(args: &Args) -> Outcome<ExecAdapter> {
    let mut work = ExecAdapter::new(args.command.clone())
        .map_err(|error| Failure::usage(error.to_string()))?;
    if args.from_env {
        work = work.inherit_environment();
    }
    if let Some(kib) = memory_limit()? {
        work = work.memory_limit_kib(kib);
    }
    Ok(work)
}

/// The agent with a web address as its work.
fn with_webhook(agent: AgentBuilder, url: &str) -> Outcome<AgentBuilder> {
    let usage = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
    let callbacks = Callbacks::new().map_err(|error| usage(&error))?;
    let (swarm, id) = (agent.swarm_id(), agent.agent_id());
    let mut work = WebhookAdapter::new(url, swarm, id, callbacks.clone()).map_err(|e| usage(&e))?;
    let var = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    if let Some(secret) = var(WEBHOOK_SECRET) {
        work = work
            .secret(&secret)
            .map_err(|error| Failure::usage(format!("{WEBHOOK_SECRET}: {error}")))?;
    } else {
        tracing::warn!("{WEBHOOK_SECRET} is not set: requests are not signed");
    }
    if let Some(gateway) = var(API_URL) {
        work = work.gateway(gateway.split(',').next().unwrap_or_default());
    }
    Ok(agent.any_raw_handler(work).callbacks(callbacks))
}

/// What `SWARM_LIMIT_MEMORY_KIB` says.
fn memory_limit() -> Outcome<Option<u64>> {
    let Some(text) = std::env::var(MEMORY_LIMIT).ok().filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    let kib = text.parse::<u64>().ok().filter(|kib| *kib > 0);
    kib.map(Some)
        .ok_or_else(|| Failure::usage(format!("{MEMORY_LIMIT}={text} is no number of KiB above 0")))
}

/// The agent that the flags describe.
async fn by_hand(args: &Args, server: &ServerArgs) -> Outcome<AgentBuilder> {
    let target = server.resolve()?;
    let (org, swarm) = swarm_of(args, &target).await?;
    let id = args.id.unwrap_or_else(|| AgentId(uuid::Uuid::now_v7()));
    let place = Place::new(org, swarm);
    let url = target
        .nats_url
        .clone()
        .ok_or_else(|| target.missing("nats-server", "--nats-url", "SWARM_NATS_URL"))?;
    let mut link = LinkSettings::new(url);
    link.creds = creds(&target, server, place, id)?;
    let mut agent = Agent::builder(link, org, swarm)
        .id(id)
        .agent_type(&args.agent_type)
        .capabilities(&args.capabilities);
    if let Some(name) = &args.name {
        agent = agent.name(name);
    }
    if let Some(slots) = args.slots {
        agent = agent.slots(slots);
    }
    if let Some(waiting) = args.waiting {
        agent = agent.waiting(waiting);
    }
    Ok(agent)
}

/// Ids need no gateway; names are looked up there.
async fn swarm_of(args: &Args, target: &Target) -> Outcome<(OrgId, SwarmId)> {
    let wanted = args.swarm.as_deref().unwrap_or_default();
    let org = args.org.or(target.org_id);
    if let (Ok(swarm), Some(org)) = (wanted.parse(), org) {
        return Ok((org, swarm));
    }
    let api = Api::new(target)?;
    let id = api.swarm_id(wanted).await?;
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
