//! `swarm up`

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use swarm_runtime::settings::{Settings, Sources};

use crate::{
    connection::{ConnectionFile, ServerArgs},
    exit::{Code, Failure, Outcome},
    installation::{
        DataDir, Holder, Lock, child,
        servers::{CLUSTER_SERVERS, NatsPorts},
        supervisor::{Plan, Supervisor},
    },
    output, progress,
};

/// Arguments of `swarm up`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Go on in the background once everything is ready
    #[arg(long)]
    pub detach: bool,
    /// Where the gateway listens [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDRESS", env = "SWARM_API_ADDR")]
    pub api_addr: Option<SocketAddr>,
    /// Processes of each service; a further one takes over when one dies, and takes its share of the load before
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=REPLICAS_MAX))]
    pub replicas: u16,
    /// Three nats-servers that hold everything three times, of which one may be lost
    #[arg(long)]
    pub cluster: bool,
    /// Port of nats-server; a cluster's others have the second and the fourth port after it
    #[arg(
        long,
        value_name = "PORT",
        env = "SWARM_NATS_PORT",
        default_value_t = 7422
    )]
    pub nats_port: u16,
    /// WebSocket port of nats-server; a cluster's others have the next two
    #[arg(
        long,
        value_name = "PORT",
        env = "SWARM_NATS_WS_PORT",
        default_value_t = 7480
    )]
    pub nats_ws_port: u16,
    /// Monitoring port of nats-server; a cluster's others have the second and the fourth port after it
    #[arg(
        long,
        value_name = "PORT",
        env = "SWARM_NATS_MONITOR_PORT",
        default_value_t = 7423
    )]
    pub nats_monitor_port: u16,
    /// Port on which the first server of a cluster hears the others; those have the next two
    #[arg(
        long,
        value_name = "PORT",
        env = "SWARM_NATS_ROUTE_PORT",
        default_value_t = 7428
    )]
    pub nats_route_port: u16,
    /// Port of PostgreSQL
    #[arg(
        long,
        value_name = "PORT",
        env = "SWARM_POSTGRES_PORT",
        default_value_t = 7432
    )]
    pub postgres_port: u16,
    /// Whatever ports are free, for everything
    #[arg(long, conflicts_with_all = ["api_addr", "nats_port", "nats_ws_port", "nats_monitor_port", "nats_route_port", "postgres_port"])]
    pub any_ports: bool,
    /// `always`: on the disk before it is acknowledged; `speed`: a power cut can lose the last two minutes
    #[arg(long, value_name = "MODE")]
    pub durability: Option<String>,
    /// Settings file [default: swarm.toml in the data folder, if it is there]
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Set for the process in the background: says on stdout, in one line, how the start went
    #[arg(long, hide = true)]
    announce: bool,
}

/// Most processes of each service on one machine: more share nothing that a machine has.
const REPLICAS_MAX: i64 = 16;

/// Variables of this command that are no settings of services.
const OWN_VARIABLES: [&str; 5] = [
    "SWARM_NATS_ROUTE_PORT",
    "SWARM_NATS_PORT",
    "SWARM_NATS_WS_PORT",
    "SWARM_NATS_MONITOR_PORT",
    "SWARM_POSTGRES_PORT",
];

/// What the process in the background says.
#[derive(Serialize, Deserialize)]
struct Announcement {
    /// Empty: everything is ready.
    problem: String,
    code: u8,
}

/// Starts an installation.
pub async fn run(args: Args, server: &ServerArgs) -> Outcome {
    let plan = plan(&args, server)?;
    if args.detach && !args.announce {
        return detach(&plan);
    }
    if args.announce {
        // Out of the terminal's session: its end, and its Ctrl-C, are none of ours.
        rustix::process::setsid().context("cannot leave the session")?;
    }
    let settings = &plan.settings;
    let filter = settings
        .log
        .clone()
        .unwrap_or_else(|| if args.announce { "info" } else { "warn" }.to_owned());
    swarm_runtime::telemetry::init(Some(&filter), settings.log_json);
    let outcome = supervise(&args, plan).await;
    if args.announce
        && let Err(failure) = &outcome
    {
        announce(&failure.message, failure.code as u8)?;
    }
    outcome
}

async fn supervise(args: &Args, plan: Plan) -> Outcome {
    let data = plan.data.clone();
    let _lock = match Lock::take(&data)? {
        Ok(lock) => lock,
        Err(holder) => return Err(runs_already(&data, &holder)),
    };
    let stop = swarm_runtime::shutdown::on_signals()?;
    let spinner = progress::spinner("starting nats-server, PostgreSQL and the services");
    let mut supervisor = Supervisor::new(plan);
    let started = tokio::select! {
        started = supervisor.start() => started,
        () = stop.cancelled() => Err(Failure::failed("stopped before everything was ready")),
    };
    spinner.finish_and_clear();
    let connection = match started {
        Ok(connection) => connection,
        Err(failure) => {
            supervisor.stop().await;
            return Err(failure);
        }
    };
    if args.announce {
        announce("", 0)?;
    } else {
        output::line(&greeting(&connection, &data))?;
        output::line("Ctrl-C stops all of it.")?;
    }
    stop.cancelled().await;
    supervisor.stop().await;
    Ok(())
}

fn plan(args: &Args, server: &ServerArgs) -> Outcome<Plan> {
    let data = DataDir::create(&server.data_dir()?)?;
    let default_file = data.path().join("swarm.toml");
    let file = args
        .settings
        .clone()
        .or_else(|| default_file.is_file().then_some(default_file));
    let mut flags = BTreeMap::new();
    if let Some(mode) = &args.durability {
        flags.insert("durability".to_owned(), mode.clone());
    }
    if let Some(addr) = args.api_addr {
        flags.insert("api_addr".to_owned(), addr.to_string());
    }
    for (name, value) in [
        ("nats_url", &server.nats_url),
        ("database_url", &server.database_url),
    ] {
        if let Some(value) = value {
            flags.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(creds) = &server.nats_creds {
        flags.insert("nats_creds".to_owned(), creds.display().to_string());
    }
    let mut sources = Sources::of_process(file.as_deref(), flags).with_context(|| {
        format!(
            "cannot read {}",
            file.as_deref().unwrap_or(data.path()).display()
        )
    })?;
    sources
        .env
        .retain(|name, _| !OWN_VARIABLES.contains(&name.as_str()));
    let mut settings =
        Settings::load(&sources).map_err(|problems| Failure::usage(problems.to_string()))?;
    let defaults = Settings::default();
    let any = |port: u16| if args.any_ports { 0 } else { port };
    if args.any_ports {
        settings.api_addr.set_port(0);
    }
    let foreign_nats = server.nats_url.is_some() || settings.nats_url != defaults.nats_url;
    if args.cluster {
        if foreign_nats {
            return Err(Failure::usage(
                "--cluster starts nats-servers, and the address of others is set (nats_url): leave one of them out",
            ));
        }
        let servers = usize::from(CLUSTER_SERVERS);
        if settings.replicas > servers {
            return Err(Failure::usage(format!(
                "replicas = {}: a cluster of {servers} holds everything {servers} times",
                settings.replicas
            )));
        }
        settings.replicas = servers;
    }
    Ok(Plan {
        foreign_nats,
        foreign_database: server.database_url.is_some()
            || settings.database_url != defaults.database_url,
        nats_ports: NatsPorts {
            client: any(args.nats_port),
            ws: any(args.nats_ws_port),
            monitor: any(args.nats_monitor_port),
            route: any(args.nats_route_port),
        },
        cluster: args.cluster,
        replicas: args.replicas,
        postgres_port: any(args.postgres_port),
        settings_file: file,
        settings,
        data,
    })
}

fn runs_already(data: &DataDir, holder: &Holder) -> Failure {
    let who = match holder {
        Holder::Process(Some(pid)) => format!(" (process {pid})"),
        _ => String::new(),
    };
    Failure::failed(format!(
        "an installation runs in {} already{who}: `swarm status` shows it, `swarm down` stops it, --data chooses another folder",
        data.path().display()
    ))
}

fn greeting(connection: &ConnectionFile, data: &DataDir) -> String {
    format!(
        "Swarm is ready.\n  API         {}\n  admin key   {}\n  nats-server {}\n  PostgreSQL  {}\n  data folder {}",
        connection.api_urls.join(", "),
        connection.api_key,
        connection.nats_url.replace(',', ", "),
        without_password(&connection.database_url),
        data.path().display()
    )
}

/// A database URL for the screen.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((user, place)) => {
            let name = user.split_once(':').map_or(user, |(name, _)| name);
            format!("{scheme}://{name}@{place}")
        }
        None => url.to_owned(),
    }
}

/// Starts this command again in the background and waits until it says that it is ready.
fn detach(plan: &Plan) -> Outcome {
    // Ours to say: the process in the background would only find the lock taken.
    let holder = Lock::holder(&plan.data)?;
    if holder != Holder::Nobody {
        return Err(runs_already(&plan.data, &holder));
    }
    let log = plan.data.log_of("up");
    let stderr = child::open_log(&log).with_context(|| format!("cannot open {}", log.display()))?;
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let spinner = progress::spinner("starting nats-server, PostgreSQL and the services");
    let mut process = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--announce")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .context("cannot start the process in the background")?;
    let mut line = String::new();
    if let Some(stdout) = process.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    spinner.finish_and_clear();
    match serde_json::from_str::<Announcement>(&line) {
        Ok(said) if said.problem.is_empty() => {
            let connection = ConnectionFile::read(plan.data.path())?.unwrap_or_default();
            output::line(&greeting(&connection, &plan.data))?;
            output::line(
                "It runs in the background: `swarm status` shows it, `swarm down` stops it.",
            )
        }
        Ok(said) if said.code == Code::Usage as u8 => Err(Failure::usage(said.problem)),
        Ok(said) if said.code == Code::Timeout as u8 => Err(Failure::timeout(said.problem)),
        Ok(said) => Err(Failure::failed(said.problem)),
        Err(_) => Err(Failure::failed(format!(
            "the start ended without a word; see {}",
            log.display()
        ))),
    }
}

fn announce(problem: &str, code: u8) -> Outcome {
    let said = Announcement {
        problem: problem.to_owned(),
        code,
    };
    let text = serde_json::to_string(&said).context("cannot say how the start went")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_reach_the_screen() {
        assert_eq!(
            without_password("postgres://swarm:s:e@127.0.0.1:1/swarm"),
            "postgres://swarm@127.0.0.1:1/swarm"
        );
        assert_eq!(
            without_password("postgres://127.0.0.1/swarm"),
            "postgres://127.0.0.1/swarm"
        );
    }
}
