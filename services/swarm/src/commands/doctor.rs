//! `swarm doctor`: what an installation stands on, checked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use swarm_log::{connect::Connection, definitions};
use swarm_projections::{migrate, pool};

use crate::{
    connection::{ConnectionFile, ServerArgs, Target},
    exit::{Failure, Outcome},
    installation::{
        DataDir, Holder, Lock, ServiceName, probe,
        servers::{CLUSTER_SERVERS, NATS},
    },
    output::{Column, Format},
};

/// Arguments of `swarm doctor`.
#[derive(clap::Args, Debug)]
pub struct Args {}

const COLUMNS: [Column; 4] = [
    ("CHECK", "/check"),
    ("RESULT", "/result"),
    ("FOUND", "/found"),
    ("CURE", "/cure"),
];
/// Free disk below which a person should act: the log's reserve and a database's temporary files.
const FREE_MIN: u64 = 2 << 30;
/// A write to the disk that takes longer than this makes `always` slow.
const FSYNC_SLOW: Duration = Duration::from_millis(20);
/// Writes that are timed; the slowest is shown.
const FSYNC_TRIES: u32 = 5;
/// Clocks further apart than this shift what people see, and which ids are taken for old.
const CLOCK_MAX: Duration = Duration::from_secs(5);
/// The log is nearly full from this share on, in percent.
const LOG_PERCENT_MAX: u64 = 70;
/// Oldest PostgreSQL that will do, as `server_version_num`.
const POSTGRES_MIN: i32 = 150_000;

struct Report(Vec<Value>);

impl Report {
    fn add(&mut self, check: &str, good: bool, found: impl Into<String>, cure: &str) {
        let result = if good { "ok" } else { "PROBLEM" };
        let cure = if good { "" } else { cure };
        self.0
            .push(json!({"check": check, "result": result, "found": found.into(), "cure": cure}));
    }
}

/// Checks; exit code 1 if something is wrong.
pub async fn run(_: Args, server: &ServerArgs, output: Format) -> Outcome {
    let mut report = Report(Vec::new());
    let target = server.resolve()?;
    programs(&mut report).await;
    disk(&mut report, &target);
    let running = Lock::holder(&DataDir::at(&target.data))? != Holder::Nobody;
    if running || server.nats_url.is_some() {
        nats(&mut report, &target).await;
    }
    if running {
        hosts(&mut report, &target).await;
    }
    if running || server.database_url.is_some() {
        database(&mut report, &target).await;
    }
    output.list(&report.0, &COLUMNS)?;
    let bad = report.0.iter().filter(|row| row["result"] != "ok").count();
    if bad == 0 {
        Ok(())
    } else {
        Err(Failure::failed(format!(
            "{bad} of {} checks found a problem",
            report.0.len()
        )))
    }
}

async fn programs(report: &mut Report) {
    let found = tokio::task::spawn_blocking(|| {
        (
            swarm_servers::find_nats(None),
            swarm_servers::find_postgres(None, None),
        )
    });
    let Ok((nats, postgres)) = found.await else {
        return;
    };
    match nats {
        Ok(path) => report.add("nats-server program", true, path.display().to_string(), ""),
        Err(error) => report.add(
            "nats-server program",
            false,
            error.to_string(),
            "install it, or set SWARM_NATS_SERVER_BIN",
        ),
    }
    match postgres {
        Ok((dir, major)) => report.add(
            "PostgreSQL programs",
            true,
            format!("{major} in {}", dir.display()),
            "",
        ),
        Err(error) => report.add(
            "PostgreSQL programs",
            false,
            error.to_string(),
            "install it, or set SWARM_POSTGRES_BIN_DIR",
        ),
    }
}

/// Whether agents can be run, and how what they use is limited.
async fn hosts(report: &mut Report, target: &Target) {
    let file = ConnectionFile::read(&target.data).ok().flatten();
    let probes = file.unwrap_or_default().probes;
    let hosts = probes
        .iter()
        .filter(|(name, _)| name.starts_with(ServiceName::AgentHost.as_str()));
    for (name, base) in hosts {
        let answer = probe::readyz(base).await;
        let said = |field: &str| match &answer.detail[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let found = match answer.ready {
            true => format!(
                "{} agents, room for {}; limits: {}; may run: {}",
                said("agents"),
                said("room"),
                said("limits"),
                said("allow")
            ),
            false => answer.detail.to_string(),
        };
        report.add(name, answer.ready, found, "see its log in the data folder");
    }
}

fn disk(report: &mut Report, target: &Target) {
    let Some(there) = target.data.ancestors().find(|path| path.is_dir()) else {
        return;
    };
    if let Ok(disk) = rustix::fs::statvfs(there) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let found = format!(
            "{:.1} GiB free at {}",
            free as f64 / f64::from(1 << 30),
            there.display()
        );
        report.add(
            "disk space",
            free >= FREE_MIN,
            found,
            "free some, or choose another folder with --data",
        );
    }
    match slowest_fsync(there) {
        Ok(slowest) => {
            let found = format!("{:.1} ms at the most", slowest.as_secs_f64() * 1e3);
            report.add(
                "disk flush",
                slowest <= FSYNC_SLOW,
                found,
                "a faster disk, or `swarm up --durability speed`",
            );
        }
        Err(error) => report.add(
            "disk flush",
            false,
            error.to_string(),
            "make the folder writable",
        ),
    }
}

fn slowest_fsync(dir: &std::path::Path) -> std::io::Result<Duration> {
    use std::io::Write;
    let mut file = tempfile::tempfile_in(dir)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..FSYNC_TRIES {
        file.write_all(&[0; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        slowest = slowest.max(began.elapsed());
    }
    Ok(slowest)
}

async fn nats(report: &mut Report, target: &Target) {
    let connection = match target.connect("doctor").await {
        Ok(connection) => connection,
        Err(failure) => {
            return report.add(
                "nats-server",
                false,
                failure.message,
                "`swarm up` starts one",
            );
        }
    };
    let (major, minor, patch) = definitions::SERVER_VERSION_MIN;
    let new_enough = swarm_log::provision::check_server(connection.client()).is_ok();
    let version = connection.client().server_info().version;
    let cure = format!("use {major}.{minor}.{patch} or newer");
    report.add("nats-server version", new_enough, version, &cure);
    if let Err(error) = stream(report, &connection).await {
        report.add("stream", false, format!("{error:#}"), "`swarm up` makes it");
    }
    beside(report, &connection).await;
    let data = DataDir::at(&target.data);
    // The configurations that `swarm up` wrote; of another's servers only their operator knows.
    let cluster = (1..=CLUSTER_SERVERS).map(|number| data.nats_cluster().join(number.to_string()));
    for folder in std::iter::once(data.nats()).chain(cluster) {
        if let Ok(text) = std::fs::read_to_string(folder.join("nats-server.conf")) {
            let line = text
                .lines()
                .map(str::trim)
                .find(|line| line.starts_with("sync_interval"));
            let found = line.unwrap_or("sync_interval is not set");
            let cure = "a power cut can lose the last two minutes: `swarm up --durability always`";
            report.add("flush mode", found.ends_with("always"), found, cure);
        }
    }
    let file = ConnectionFile::read(data.path()).ok().flatten();
    for (name, base) in file.into_iter().flat_map(|file| file.probes) {
        if name.starts_with(NATS) {
            let health = probe::ask(&base, "/healthz").await;
            let found = format!("{name}: {}", health.detail);
            let cure = "its log is in the data folder; `swarm up` starts it again";
            report.add("nats-server health", health.ready, found, cure);
        }
    }
}

async fn stream(report: &mut Report, connection: &Connection) -> anyhow::Result<()> {
    let context = async_nats::jetstream::new(connection.client().clone());
    let stream = context.get_stream(definitions::EVENTS_STREAM).await?;
    let info = stream.cached_info();
    let config = &info.config;
    let wanted = definitions::events(&definitions::Provision::default());
    let same = config.allow_atomic_publish
        && config.deny_delete
        && config.deny_purge
        && config.subjects == wanted.subjects
        && config.republish == wanted.republish;
    let found = format!(
        "{} messages, {} replica(s)",
        info.state.messages, config.num_replicas
    );
    report.add(
        "stream",
        same,
        found,
        "its configuration differs from what Swarm needs: remove it, or use another account",
    );
    if info
        .cluster
        .as_ref()
        .is_some_and(|cluster| cluster.name.is_some())
    {
        let found = format!("{} servers hold the log", config.num_replicas);
        let copies = usize::from(CLUSTER_SERVERS);
        let cure = "a lost server takes the log with it: start it with SWARM_REPLICAS=3";
        report.add("copies", config.num_replicas >= copies, found, cure);
    }
    if let Ok(max) = u64::try_from(config.max_bytes)
        && max > 0
    {
        let percent = info.state.bytes.saturating_mul(100) / max;
        let found = format!("{percent} % of {:.1} GiB", max as f64 / f64::from(1 << 30));
        report.add(
            "room in the log",
            percent < LOG_PERCENT_MAX,
            found,
            "raise log_bytes_max, or the disk",
        );
    }
    let apart = clock(connection).await?;
    let found = format!("{} ms apart", apart.as_millis());
    report.add(
        "clock",
        apart <= CLOCK_MAX,
        found,
        "run a time service (chrony, systemd-timesyncd) on both machines",
    );
    Ok(())
}

/// What agents say to each other and write on blackboards. Tasks go on without; whoever talks is told so by an error.
async fn beside(report: &mut Report, connection: &Connection) {
    let context = async_nats::jetstream::new(connection.client().clone());
    let provision = definitions::Provision::default();
    for (name, wanted) in [
        ("messages", definitions::messages(&provision)),
        ("blackboards", definitions::blackboard(&provision)),
    ] {
        let stream = match context.get_stream(&wanted.name).await {
            Ok(stream) => stream,
            Err(error) => {
                let found = format!("{}: {error}", wanted.name);
                report.add(name, false, found, "`swarm up` makes it");
                continue;
            }
        };
        let info = stream.cached_info();
        let config = &info.config;
        let same = config.subjects == wanted.subjects
            && config.republish == wanted.republish
            && config.max_messages_per_subject == wanted.max_messages_per_subject
            && config.allow_direct == wanted.allow_direct;
        let most = match u64::try_from(config.max_bytes) {
            Ok(most) if most > 0 => most as f64 / f64::from(1 << 20),
            _ => f64::INFINITY,
        };
        let found = format!(
            "{} kept, {:.1} of {most:.0} MiB, {} replica(s)",
            info.state.messages,
            info.state.bytes as f64 / f64::from(1 << 20),
            config.num_replicas
        );
        let cure = "its configuration differs from what Swarm needs: remove it, and `swarm up` makes it anew";
        report.add(name, same, found, cure);
    }
}

/// How far the server's clock is from ours. The client library leaves the answer's time out.
async fn clock(connection: &Connection) -> anyhow::Result<Duration> {
    #[derive(serde::Deserialize)]
    struct Answer {
        ts: String,
    }
    let subject = format!("$JS.API.STREAM.INFO.{}", definitions::EVENTS_STREAM);
    let answer = connection.client().request(subject, "".into()).await?;
    let answer: Answer = serde_json::from_slice(&answer.payload)?;
    let theirs = chrono::DateTime::parse_from_rfc3339(&answer.ts)?;
    Ok(chrono::Utc::now()
        .signed_duration_since(theirs)
        .abs()
        .to_std()?)
}

async fn database(report: &mut Report, target: &Target) {
    let Some(url) = &target.database_url else {
        return;
    };
    let checked = async {
        let pool = pool::reader(url)?;
        let mut connection = pool.acquire().await?;
        let version: String = sqlx::query_scalar("SHOW server_version")
            .fetch_one(&mut *connection)
            .await?;
        let number: String = sqlx::query_scalar("SHOW server_version_num")
            .fetch_one(&mut *connection)
            .await?;
        let tables = migrate::time_tables(&mut connection).await?;
        anyhow::Ok((version, number.parse::<i32>().unwrap_or(0), tables))
    };
    match checked.await {
        Ok((version, number, tables)) => {
            let found = format!("{version}, {tables}");
            report.add(
                "PostgreSQL",
                number >= POSTGRES_MIN,
                found,
                "use version 15 or newer",
            );
        }
        Err(error) => report.add(
            "PostgreSQL",
            false,
            format!("{error:#}"),
            "`swarm up` starts one; decisions go on without",
        ),
    }
}
