//! `./dev bench snapshot`: a snapshot of many queued tasks on a real nats-server, and a start from it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use swarm_distributor_core::Distributor;
use swarm_events::{
    Service, Subject, configuration::QUEUE_LIMIT_MAX, decider::Decider, subject::ControlVerb,
};
use swarm_log::{
    Log, Message,
    connect::{ConnectSettings, connect},
    definitions::Provision,
    jetstream::{JetStreamLog, LogSettings},
    provision::provision,
};
use swarm_runtime::snapshots::{
    EncodeError, Meta, Store, Wanted, decode, encode, encode_bounded, name_of,
};
use swarm_servers::{Durability, NatsServer, NatsSettings};

use crate::{
    core,
    installation::{of_log, places, word},
    machine,
};

/// A start may take this long.
const TARGET_START: Duration = Duration::from_secs(5);
/// Where encoding beside the loop's work is given up for this measurement.
const BOUND_BYTES: usize = 1024 * 1024;

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Queued tasks of 300 bytes in one partition
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=QUEUE_LIMIT_MAX))]
    queued: u64,
    /// Times that the start is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    starts: u32,
    /// Where the servers keep their data; default: beside this program
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// A server cannot be started, or what is read is not what was written.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let (root, _) = places(options.dir.as_deref(), None)?;
    let (fsync_p50, fsync_p99) = machine::fsync_times(&root)?;
    println!("machine     {}", machine::describe());
    println!(
        "disk        fsync of 4 KiB: p50 {}, p99 {}",
        millis(fsync_p50),
        millis(fsync_p99)
    );
    println!(
        "swarm       {} at {}",
        env!("CARGO_PKG_VERSION"),
        machine::commit()
    );
    let state = core::queued(options.queued)?;
    let partition = state.head().partition;

    let dir = tempfile::Builder::new()
        .prefix("swarm-bench-")
        .tempdir_in(&root)?;
    let durability = Durability::Always;
    let mut settings = NatsSettings::new(dir.path().join("nats"));
    (settings.port, settings.ws_port, settings.monitor_port) = (0, 0, 0);
    settings.durability = durability;
    let server = NatsServer::start(settings).await?;
    let connection = connect(ConnectSettings::new(server.url(), "bench")).await?;
    println!(
        "servers     nats-server {}, durability {}",
        connection.client().server_info().version,
        word(durability)
    );
    let context = async_nats::jetstream::new(connection.client().clone());
    provision(&context, &Provision::default()).await?;
    let log = JetStreamLog::open(&connection, LogSettings::new(of_log(durability), 1)).await?;
    // The snapshot names a sequence that the log has: its tasks were folded without one.
    let subject = Subject::Control(Service::Distributor, partition, ControlVerb::Woken);
    let message = Message {
        subject: subject.to_string(),
        payload: Bytes::from_static(b"{}"),
        message_id: None,
        fence: None,
    };
    for stored in log.append(vec![message]).await {
        stored?;
    }
    let info = log.info().await?;
    let meta = Meta {
        sequence: info.last_sequence,
        ..Meta::of(&state, info.created_micros)
    };

    let (given_up, took) = timed(|| encode_bounded(&meta, &state, BOUND_BYTES));
    let large = matches!(given_up, Err(EncodeError::TooLarge { .. }));
    let bounded = if large { "given up" } else { "done" };
    println!(
        "encode      bounded at {} MiB: {bounded} after {}",
        BOUND_BYTES >> 20,
        millis(took)
    );
    let (encoded, took) = timed(|| encode(&meta, &state));
    let bytes = encoded?;
    let size = bytes.len();
    println!(
        "            whole: {}, {:.0} MB, {:.0} bytes for each of {} queued tasks",
        millis(took),
        size as f64 / 1e6,
        size as f64 / options.queued as f64,
        options.queued
    );
    let store = Store::new(log.clone());
    let began = Instant::now();
    store.put(&meta, bytes).await?;
    let took = began.elapsed();
    println!(
        "put         {} ({:.0} MB/s)",
        millis(took),
        size as f64 / 1e6 / took.as_secs_f64()
    );

    let wanted = Wanted::of::<Distributor>(partition, info.created_micros);
    let name = name_of(&meta.kind, partition, meta.sequence);
    let mut slowest = Duration::ZERO;
    for _ in 0..options.starts {
        let began = Instant::now();
        let bytes = log
            .get_object(&name)
            .await?
            .context("the snapshot is gone")?;
        let get = began.elapsed();
        let (decoded, decode) = timed(|| decode::<Distributor>(&wanted, &bytes));
        let (_, back) = decoded?;
        let (plan, planned) = timed(|| back.plan());
        let total = get + decode + planned;
        slowest = slowest.max(total);
        println!(
            "start       {}: get {} ({:.0} MB/s), decode {}, plan {}",
            millis(total),
            millis(get),
            size as f64 / 1e6 / get.as_secs_f64(),
            millis(decode),
            millis(planned)
        );
        ensure!(back == state, "what was read is not what was written");
        drop((plan, back, bytes));
    }
    let began = Instant::now();
    let loaded = store.newest::<Distributor>(&wanted, None).await?;
    let loaded = loaded.context("the snapshot is not found")?;
    let plan = loaded.state.plan();
    let total = began.elapsed();
    slowest = slowest.max(total);
    println!(
        "            {} as the services do it, list and look-ups included",
        millis(total)
    );
    drop(plan);
    println!(
        "            {}: under {} s",
        if slowest < TARGET_START {
            "target met"
        } else {
            "TARGET MISSED"
        },
        TARGET_START.as_secs()
    );
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed())
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}
