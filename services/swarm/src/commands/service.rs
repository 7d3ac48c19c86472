//! `swarm service`: one service in the foreground.

use std::{collections::BTreeMap, io::Read, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use swarm_agent_host::{Allow, HostSettings, HostStatus, RunUser};
use swarm_events::{InstanceId, Timestamp, subject::host_connection_name};
use swarm_gateway::BootstrapError;
use swarm_log::{
    LogError,
    connect::{ConnectSettings, Credentials, connect},
    definitions::Provision,
    jetstream::{Durability as LogDurability, JetStreamLog, LogSettings},
};
use swarm_projections::{projector::Pace, status::ProjectorStatus};
use swarm_runtime::{
    LoopSettings, LoopStatus,
    probes::{self, Readiness},
    settings::{Durability, Settings, Sources},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    connection::ServerArgs,
    exit::{Failure, Outcome},
    installation::{ServiceName, credentials, supervisor::ORGANIZATION},
    output,
};

/// Arguments of `swarm service`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which one
    #[arg(value_enum)]
    pub service: ServiceName,
    /// Settings file
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// End when stdin closes: whoever started this is gone
    #[arg(long)]
    pub until_stdin_closes: bool,
}

/// What a service may take to end after it was told to.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// nats-server may be starting too.
const FIRST_CONNECT_WAIT: Duration = Duration::from_secs(30);

/// Runs the service until SIGTERM, Ctrl-C or the end of stdin.
pub async fn run(args: Args, server: &ServerArgs) -> Outcome {
    let mut flags = BTreeMap::new();
    for (name, value) in [
        ("nats_url", &server.nats_url),
        ("database_url", &server.database_url),
        ("api_url", &server.api_url),
    ] {
        if let Some(value) = value {
            flags.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(creds) = &server.nats_creds {
        flags.insert("nats_creds".to_owned(), creds.display().to_string());
    }
    let sources = Sources::of_process(args.settings.as_deref(), flags)
        .context("cannot read the settings file")?;
    let settings =
        Settings::load(&sources).map_err(|problems| Failure::usage(problems.to_string()))?;
    swarm_runtime::telemetry::init(settings.log.as_deref(), settings.log_json);
    let stop = swarm_runtime::shutdown::on_signals()?;
    if args.until_stdin_closes {
        watch_stdin(stop.clone())?;
    }
    let alone = !args.until_stdin_closes;
    let service = serve(args.service, settings, alone, stop.clone());
    tokio::pin!(service);
    let ended = tokio::select! {
        ended = &mut service => ended,
        () = stop.cancelled() => match tokio::time::timeout(STOP_GRACE, &mut service).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!(grace = ?STOP_GRACE, "the service did not end in time");
                Ok(())
            }
        },
    };
    if let Err(error) = &ended {
        tracing::error!("{error:#}");
    }
    Ok(ended?)
}

async fn serve(
    service: ServiceName,
    settings: Settings,
    alone: bool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let instance = InstanceId(Uuid::now_v7());
    let log = open(service, instance, &settings).await?;
    match service {
        ServiceName::Projector => {
            let status = ProjectorStatus::default();
            let shown = status.clone();
            let who = who(instance, &settings);
            let readiness: Readiness = Arc::new(move || {
                let state = shown.get();
                let figures = serde_json::to_value(&state).unwrap_or_default();
                (state.is_ready(), with(&who, figures))
            });
            probe(&settings, readiness, &stop).await?;
            swarm_projections::projector::run(
                log,
                &settings.database_url,
                Pace::default(),
                status,
                stop,
            )
            .await?;
        }
        // It serves its probes beside the API.
        ServiceName::Gateway => {
            if alone {
                // `swarm up` does this itself, and keeps the key.
                tokio::spawn(first_organization(log.clone()));
            }
            swarm_gateway::run(log, &settings.database_url, settings.api_addr, stop).await?;
        }
        ServiceName::AgentHost => host(log, instance, settings, stop).await?,
        ServiceName::Coordinator | ServiceName::Distributor | ServiceName::Health => {
            // The server's own notices find a lost replica or agent at once; without them its silence does.
            let notices = |who: &str| {
                let creds = settings.nats_sys_creds.clone()?;
                // The instance is not the last word: only the end of the connection that it works over is its end.
                let name = format!("swarm {} {instance} {who}", service.as_str());
                let mut notices = ConnectSettings::new(&settings.nats_url, name);
                notices.creds = Some(Credentials::File(creds));
                Some(notices)
            };
            let mut loop_settings = LoopSettings::all(instance);
            loop_settings.name.clone_from(&settings.replica_name);
            loop_settings.notices = notices("replica notices");
            let status = loop_settings.status.clone();
            let who = who(instance, &settings);
            let readiness: Readiness = Arc::new(move || (status.ready(), figures(&who, &status)));
            probe(&settings, readiness, &stop).await?;
            match service {
                ServiceName::Coordinator => {
                    swarm_coordinator::run(log, loop_settings, stop).await?
                }
                ServiceName::Distributor => {
                    swarm_distributor::run(log, loop_settings, stop).await?
                }
                _ => {
                    let notices = notices("agent notices");
                    swarm_health::run_with_notices(log, loop_settings, notices, stop).await?;
                }
            }
        }
    }
    Ok(())
}

/// The agent host.
async fn host(
    log: JetStreamLog,
    instance: InstanceId,
    settings: Settings,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if settings.nats_creds.is_some() && settings.host_account_seed.is_none() {
        anyhow::bail!(
            "nats-server asks for credentials, and agents would have none: set SWARM_HOST_ACCOUNT_SEED to the file that signs the users of its account"
        );
    }
    let user = settings.host_user.as_deref().map(RunUser::parse);
    let user = user
        .transpose()
        .map_err(|why| anyhow::anyhow!("SWARM_HOST_USER: {why}"))?;
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy().into_owned();
    let uid = rustix::process::geteuid().as_raw();
    let temporary = || std::env::temp_dir().join(format!("swarm-agent-host-{uid}"));
    let status = HostStatus::default();
    let who = who(instance, &settings);
    let allow = settings.host_allow.clone().unwrap_or_default();
    let (shown, may_run) = (status.clone(), allow.clone());
    let readiness: Readiness = Arc::new(move || {
        let figures = serde_json::json!({
            "agents": shown.running(), "room": shown.room(), "unreported": shown.unreported(),
            "limits": shown.limits(), "allow": may_run,
        });
        (shown.ready(), with(&who, figures))
    });
    probe(&settings, readiness, &stop).await?;
    let host = HostSettings {
        instance,
        name: settings.host_name.unwrap_or(machine),
        allow: Allow::new(&allow, &settings.host_pass_env),
        agents_max: settings.host_agents_max,
        user,
        dir: settings.host_dir.unwrap_or_else(temporary),
        program: std::env::current_exe().context("this program's own path is unknown")?,
        nats_url: settings.nats_url,
        api_url: Some(settings.api_url),
        mint: credentials::minter(settings.host_account_seed)?,
        cgroups: true,
        whole_process: true,
        status,
    };
    Ok(swarm_agent_host::run(log, host, stop).await?)
}

async fn open(
    service: ServiceName,
    instance: InstanceId,
    settings: &Settings,
) -> anyhow::Result<JetStreamLog> {
    let name = match service {
        // By it health knows whose connection closed.
        ServiceName::AgentHost => host_connection_name(instance),
        _ => format!("swarm {} {instance}", service.as_str()),
    };
    let mut connecting = ConnectSettings::new(&settings.nats_url, name);
    connecting.creds = settings.nats_creds.clone().map(Credentials::File);
    connecting.first_connect_wait = FIRST_CONNECT_WAIT;
    let connection = connect(connecting).await?;
    let durability = match settings.durability {
        Durability::Always => LogDurability::Always,
        Durability::Speed => LogDurability::Speed,
    };
    let how = LogSettings::new(durability, settings.replicas);
    let context = async_nats::jetstream::new(connection.client().clone());
    let provision = Provision {
        replicas: settings.replicas,
        max_bytes: settings.log_bytes_max,
        ..Provision::default()
    };
    match JetStreamLog::open(&connection, how.clone()).await {
        // Nobody has made the streams yet. Whoever has the right to does; the same from several processes at once.
        Err(LogError::Incompatible(why)) if service != ServiceName::AgentHost => {
            tracing::info!(why, "making the streams");
            swarm_log::provision::provision(&context, &provision).await?;
            Ok(JetStreamLog::open(&connection, how).await?)
        }
        opened => {
            let log = opened?;
            if service != ServiceName::AgentHost {
                // Beside its work: a server that answers late must not hold it up.
                tokio::spawn(complete(context, provision));
            }
            Ok(log)
        }
    }
}

/// Makes what an earlier version of the installation did not know, if that may be. The log is there, so the service works
/// without it; what needs the rest is refused with the same cure.
async fn complete(context: async_nats::jetstream::Context, provision: Provision) {
    match swarm_log::provision::provision_missing(&context, &provision).await {
        Ok(made) if made.is_empty() => {}
        Ok(made) => tracing::info!(streams = made.join(", "), "made what was missing"),
        Err(error) => tracing::error!(
            %error,
            "this version keeps something beside the log that the installation lacks: run `swarm up` once, it makes what is missing"
        ),
    }
}

/// The first organization, if there is none yet. Its admin's key is shown this once, on stdout.
async fn first_organization(log: JetStreamLog) {
    match swarm_gateway::bootstrap(log, ORGANIZATION).await {
        Ok(made) => {
            let text = format!("organization {}, admin key {}", made.org_id, made.api_key);
            if let Err(failure) = output::line(&text) {
                tracing::error!(%failure, "the admin's key could not be shown");
            }
        }
        Err(BootstrapError::Exists { .. } | BootstrapError::Concurrent) => {}
        Err(error) => tracing::warn!(%error, "no first organization"),
    }
}

async fn probe(
    settings: &Settings,
    readiness: Readiness,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let addr = probes::serve(
        settings.probe_addr,
        readiness,
        probes::metrics_recorder(),
        stop.clone(),
    )
    .await
    .with_context(|| format!("cannot serve the probes on {}", settings.probe_addr))?;
    tracing::info!(%addr, "probes are served");
    Ok(())
}

/// Which process this is, for its probe: the instance, its name as a replica, and when it started.
fn who(instance: InstanceId, settings: &Settings) -> serde_json::Value {
    let started_at = Timestamp::from(chrono::Utc::now());
    serde_json::json!({
        "instance": instance, "name": settings.replica_name, "started_at": started_at,
    })
}

fn figures(who: &serde_json::Value, status: &LoopStatus) -> serde_json::Value {
    with(
        who,
        serde_json::json!({
            "sequence": status.sequence(), "owned": status.owned(), "wanted": status.wanted(),
            "decisions": status.decisions(), "voids": status.voids(), "doubts": status.doubts(),
            "unfoldable": status.unfoldable(), "interrupted": status.interrupted(),
        }),
    )
}

/// One object of two.
fn with(who: &serde_json::Value, figures: serde_json::Value) -> serde_json::Value {
    let mut all = who.as_object().cloned().unwrap_or_default();
    if let serde_json::Value::Object(figures) = figures {
        all.extend(figures);
    }
    serde_json::Value::Object(all)
}

/// A thread, not a task: reading stdin blocks, and nothing else may wait for it.
fn watch_stdin(stop: CancellationToken) -> Outcome {
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let mut stdin = std::io::stdin().lock();
            let mut buffer = [0u8; 256];
            // Nobody writes to it: what counts is its end.
            while matches!(stdin.read(&mut buffer), Ok(1..)) {}
            stop.cancel();
        })
        .context("cannot start a thread")?;
    Ok(())
}
