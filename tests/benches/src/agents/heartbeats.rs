//! `./dev bench heartbeats`: what the heartbeats of many agents cost the health service, nats-server and the event stream.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, stream};
use serde_json::json;
use swarm_chaos::bus::message;
use swarm_events::{
    AgentId, InstanceId, Json, Subject, command::Join, subject::CommandVerb, swarm::Heartbeat,
};
use swarm_log::Log;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::world::{Setting, Swarm, World};
use crate::machine;

/// 99th percentile of what one heartbeat takes in the health service, in seconds.
const TARGET_P99: f64 = 0.002;
/// The histogram of the health service that tells it.
const METRIC: &str = "swarm_health_heartbeat_seconds";
/// Joins that are on their way at a time.
const JOINING: usize = 256;
/// Ten thousand joins are decided one after another.
const JOIN_PATIENCE: Duration = Duration::from_secs(300);
/// How often heartbeats are published: those that are due, together.
const SLICE: Duration = Duration::from_millis(10);

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Agents and their heartbeat interval in milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = ["1000:1000".to_owned(), "10000:5000".to_owned()])]
    forms: Vec<String>,
    /// Seconds of each form
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..))]
    seconds: u64,
    #[command(flatten)]
    setting: Setting,
}

/// Measures and prints.
pub(super) async fn measure(options: &Options) -> anyhow::Result<()> {
    for form in &options.forms {
        let (agents, interval) = form
            .split_once(':')
            .and_then(|(agents, interval)| Some((agents.parse().ok()?, interval.parse().ok()?)))
            .with_context(|| format!("--forms: {form} is not AGENTS:MILLISECONDS"))?;
        one(options, agents, interval).await?;
    }
    Ok(())
}

async fn one(options: &Options, agents: usize, interval_ms: u64) -> anyhow::Result<()> {
    // Each form has an installation of its own: the histogram counts from the start of the service.
    let world = World::start(&options.setting, 1, 1).await?;
    let settings = json!({
        "max_agents": 10_000, "max_workers": 10_000, "heartbeat_interval_ms": interval_ms,
    });
    let swarm = world.swarm("heartbeats", settings).await?;
    let crew: Vec<(AgentId, InstanceId)> = (0..agents)
        .map(|_| (AgentId(Uuid::now_v7()), InstanceId(Uuid::now_v7())))
        .collect();
    let interval = Duration::from_millis(interval_ms);
    // Who has joined is expected to be heard: heartbeats begin with the first join.
    let beats = Beats::new(&world, &swarm, &crew, interval);
    let (told, stop) = tokio::sync::watch::channel(false);
    let beating = tokio::spawn(beats.send(stop));
    join(&world, &swarm, &crew).await?;

    let alarms_before = swarm.follower.see(|seen| seen.alarms.len());
    let sampled_before = swarm.follower.see(|seen| seen.sampled);
    let first = world.bus.log().info().await?.last_sequence;
    let (health, nats) = (
        world.installation.pid("health")?,
        world.installation.pid("nats-server")?,
    );
    let before = (machine::cpu_seconds(health), machine::cpu_seconds(nats));
    let began = Instant::now();
    sleep_until(began + Duration::from_secs(options.seconds)).await;
    let took = began.elapsed().as_secs_f64();
    let after = (machine::cpu_seconds(health), machine::cpu_seconds(nats));
    let stored = world.bus.log().info().await?.last_sequence - first;
    let (p50, p99, count) = histogram(&world).await?;
    let sampled = swarm.follower.see(|seen| seen.sampled);
    let alarms = swarm
        .follower
        .see(|seen| seen.alarms[alarms_before..].to_vec());
    told.send_replace(true);
    let sent = beating.await??;

    println!(
        "\n{agents} agents, a heartbeat every {interval_ms} ms: {sent} sent in all, {count} met by health; {} s measured, load then {}",
        options.seconds,
        machine::load()
    );
    println!(
        "processing  p50 {:.1} us, p99 {:.1} us {}",
        p50 * 1e6,
        p99 * 1e6,
        if p99 < TARGET_P99 {
            "(target met: p99 below 2 ms)"
        } else {
            "(TARGET MISSED: p99 below 2 ms)"
        }
    );
    println!(
        "processor   health {:.1} %, nats-server {:.1} % of one core",
        100.0 * (after.0 - before.0) / took,
        100.0 * (after.1 - before.1) / took
    );
    println!(
        "stream      {stored} messages stored, of which {} samples with {} KiB",
        sampled.1 - sampled_before.1,
        (sampled.0 - sampled_before.0) >> 10
    );
    println!("alarms      {}", alarms.len());
    for alarm in alarms.iter().take(5) {
        println!("  agent {} {}", alarm.agent, alarm.what);
    }
    world.stop().await
}

/// Has all agents join.
async fn join(world: &World, swarm: &Swarm, crew: &[(AgentId, InstanceId)]) -> anyhow::Result<()> {
    let place = swarm.place;
    let commands = crew.iter().map(|(agent, instance)| {
        let join = Join {
            instance: *instance,
            agent_type: "model".to_owned(),
            agent_name: None,
            capabilities: Vec::new(),
            slots: None,
            waiting: None,
            metadata: Json::object(),
            spawn: None,
        };
        let subject = Subject::Command(place, CommandVerb::Join);
        message(&subject, agent.0, join.into())
    });
    let commands: Vec<_> = commands.collect::<anyhow::Result<_>>()?;
    let mut sending = stream::iter(commands.chunks(JOINING).map(<[_]>::to_vec));
    while let Some(chunk) = sending.next().await {
        let messages = chunk.into_iter().map(|(_, message)| message).collect();
        for outcome in world.bus.log().append(messages).await {
            outcome?;
        }
    }
    let what = format!("{} agents have joined", crew.len());
    swarm
        .follower
        .until(&what, JOIN_PATIENCE, |seen| {
            (seen.ready() == crew.len()).then_some(())
        })
        .await
}

/// All heartbeats, evenly over their interval.
struct Beats {
    client: async_nats::Client,
    beats: Vec<(String, Heartbeat)>,
    interval: Duration,
}

impl Beats {
    fn new(
        world: &World,
        swarm: &Swarm,
        crew: &[(AgentId, InstanceId)],
        interval: Duration,
    ) -> Self {
        let beat = |(agent, instance): &(AgentId, InstanceId)| {
            let subject = Subject::Heartbeat(swarm.place, *agent).to_string();
            let beat = Heartbeat {
                messages_read: 0,
                messages_sent: 0,
                instance: *instance,
                incarnation: 1,
                counter: 0,
                status: "idle".to_owned(),
                cpu_centipercent: 100,
                memory_kib: 10_000,
                active_connections: 1,
                queue_depth: 0,
                current_tasks: Vec::new(),
                metadata: Json::object(),
            };
            (subject, beat)
        };
        Self {
            client: world.bus.log().client().clone(),
            beats: crew.iter().map(beat).collect(),
            interval,
        }
    }

    /// Sends until told to stop; answers with their number.
    async fn send(mut self, stop: tokio::sync::watch::Receiver<bool>) -> anyhow::Result<u64> {
        let began = Instant::now();
        let many = self.beats.len();
        ensure!(many > 0, "no agents");
        let (mut sent, mut slice) = (0u64, 0u32);
        while !*stop.borrow() {
            slice += 1;
            sleep_until(began + SLICE * slice).await;
            let due = began.elapsed().as_micros() * many as u128 / self.interval.as_micros();
            while u128::from(sent) < due {
                let at = usize::try_from(sent)? % many;
                let (subject, beat) = &mut self.beats[at];
                beat.counter += 1;
                // Something moves in each: nothing can be left out of the samples.
                beat.memory_kib = 10_000 + beat.counter % 7;
                let payload = serde_json::to_vec(beat)?;
                self.client.publish(subject.clone(), payload.into()).await?;
                sent += 1;
            }
            self.client.flush().await?;
        }
        Ok(sent)
    }
}

/// Half and 99 % of what one heartbeat took, in seconds, and how many there were.
async fn histogram(world: &World) -> anyhow::Result<(f64, f64, u64)> {
    let address = world.installation.address()?;
    let base = address
        .probes
        .get("health")
        .context("health serves no probes")?;
    let text = reqwest::get(format!("{base}/metrics"))
        .await?
        .text()
        .await?;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .with_context(|| format!("health tells no {name}"))
    };
    let quantile = |q: &str| value(&format!("{METRIC}{{quantile=\"{q}\"}}"));
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let count = value(&format!("{METRIC}_count"))? as u64;
    Ok((quantile("0.5")?, quantile("0.99")?, count))
}
