//! What health hears besides the log: heartbeats, the state of its own connection, and the server's notices.

use std::time::{Duration, Instant};

use async_nats::jetstream::{consumer, consumer::AckPolicy, consumer::DeliverPolicy};
use futures::StreamExt;
use swarm_events::{
    Partition, Subject, Timestamp,
    control::Observed,
    subject::{filter, parse_connection_name, parse_host_connection_name},
    swarm::Heartbeat,
};
use swarm_log::{
    connect::{ConnectSettings, ConnectionState},
    definitions::HEARTBEATS_STREAM,
    jetstream::JetStreamLog,
    notices::{self, Notice},
};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    heard::{Speaker, agent_beat, host_beat},
    shell::SharedWatch,
    watch::{Heard, TICK},
};

/// Strangers' heartbeats are spoken of at most this often.
const STRANGERS_LOGGED_EVERY: Duration = Duration::from_secs(10);
/// Wait before the heartbeats are subscribed to again.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(1);
/// How long the last heartbeats are read at the start, at most: they are evidence, not needed to go on.
const EARLIER_MAX: Duration = Duration::from_secs(5);
/// Heartbeats per request when the last ones are read.
const EARLIER_BATCH: usize = 1_000;

/// Histogram of what a heartbeat takes from its receipt until it is noted, in seconds. Those that another replica takes care
/// of are left out.
pub(crate) const HEARTBEAT_SECONDS: &str = "swarm_health_heartbeat_seconds";

/// Ticks, and watches the own connection; observations go into `out`.
pub(crate) async fn look_around(
    watch: SharedWatch,
    mut connection: watch::Receiver<ConnectionState>,
    out: mpsc::Sender<(Partition, Observed)>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(TICK);
    // A late tick is not made up for: how late it was is what matters.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut losses = connection.borrow_and_update().losses;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = connection.changed() => {
                if changed.is_err() {
                    return;
                }
                let state = *connection.borrow_and_update();
                let now = watch.now();
                let mut watch = watch.lock();
                if !state.connected || state.losses != losses {
                    watch.cut_off(now);
                }
                if state.connected {
                    watch.back(now);
                }
                losses = state.losses;
            }
            _ = ticks.tick() => {
                let observed = watch.lock().tick(watch.now());
                for observation in observed {
                    // Full: the loop is behind. What is not said now is seen again.
                    if out.try_send(observation).is_err() {
                        debug!("an observation waits for the next round");
                        break;
                    }
                }
            }
        }
    }
}

/// Hears heartbeats until `stop`.
pub(crate) async fn hear(watch: SharedWatch, log: JetStreamLog, stop: CancellationToken) {
    let client = log.client().clone();
    let mut strangers = Strangers::default();
    while !stop.is_cancelled() {
        let mut beats = match client.subscribe(filter::heartbeats()).await {
            Ok(beats) => beats,
            Err(error) => {
                warn!(%error, "heartbeats cannot be subscribed to");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(SUBSCRIBE_AGAIN) => continue,
                }
            }
        };
        // After subscribing, so that nothing falls between.
        match tokio::time::timeout(EARLIER_MAX, read_earlier(&watch, &log)).await {
            Ok(Ok(count)) => debug!(count, "last heartbeats read"),
            Ok(Err(error)) => debug!(%error, "last heartbeats cannot be read"),
            Err(_) => debug!("reading the last heartbeats took too long"),
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                message = beats.next() => match message {
                    None => break,
                    Some(message) => {
                        let received = Instant::now();
                        if heard(&watch, &message, &mut strangers) {
                            metrics::histogram!(HEARTBEAT_SECONDS).record(received.elapsed().as_secs_f64());
                        }
                    }
                },
            }
        }
    }
}

/// Notes a heartbeat; false if it is none of this replica's concern.
fn heard(watch: &SharedWatch, message: &async_nats::Message, strangers: &mut Strangers) -> bool {
    let at = Timestamp::from(chrono::Utc::now());
    let outcome = match Speaker::of(&message.subject) {
        // Of the others another replica takes care; they are not even parsed.
        Some(Speaker::Agent(place, _)) if !watch.owns(place.partition) => return false,
        Some(Speaker::Agent(place, agent)) => match agent_beat(&message.payload) {
            Some(beat) => watch.lock().beat(place, agent, beat, at, watch.now()),
            None => Heard::Stranger,
        },
        Some(Speaker::Host(host)) if !watch.lock().knows_host(host) => return false,
        Some(Speaker::Host(host)) => match host_beat(host, &message.payload) {
            Some(beat) => {
                watch.lock().host_beat(&beat, at, watch.now());
                return true;
            }
            None => Heard::Stranger,
        },
        None => Heard::Stranger,
    };
    if outcome != Heard::Member {
        strangers.count(watch.now(), &message.subject, outcome);
    }
    true
}

/// Heartbeats of nobody that is watched: counted, and spoken of now and then.
#[derive(Default)]
struct Strangers {
    count: u64,
    logged: Option<Duration>,
}
impl Strangers {
    fn count(&mut self, now: Duration, subject: &str, outcome: Heard) {
        self.count += 1;
        let quiet = self
            .logged
            .is_some_and(|at| now.saturating_sub(at) < STRANGERS_LOGGED_EVERY);
        if !quiet {
            info!(
                count = self.count,
                subject,
                ?outcome,
                "heartbeats of nobody that is watched"
            );
            self.logged = Some(now);
            self.count = 0;
        }
    }
}

/// Reads the last heartbeat of every agent from the memory stream.
async fn read_earlier(watch: &SharedWatch, log: &JetStreamLog) -> Result<usize, async_nats::Error> {
    let stream = log.context().get_stream_no_info(HEARTBEATS_STREAM).await?;
    let consumer = stream
        .create_consumer(consumer::pull::Config {
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            inactive_threshold: EARLIER_MAX,
            memory_storage: true,
            num_replicas: 1,
            ..consumer::pull::Config::default()
        })
        .await?;
    let mut left = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
    let mut count = 0;
    while left > 0 {
        let mut batch = consumer
            .fetch()
            .max_messages(EARLIER_BATCH.min(left))
            .messages()
            .await?;
        let before = count;
        while let Some(message) = batch.next().await {
            let message = message?;
            count += 1;
            left = left.saturating_sub(1);
            let stored = message
                .info()
                .map(|info| i64::try_from(info.published.unix_timestamp_nanos() / 1_000));
            let (Ok(Ok(micros)), Ok(Subject::Heartbeat(place, agent)), Ok(beat)) = (
                stored,
                Subject::parse(&message.subject),
                serde_json::from_slice::<Heartbeat>(&message.payload),
            ) else {
                continue;
            };
            let at = Timestamp::from_micros(micros);
            watch.lock().earlier(place, agent, beat, at);
        }
        if count == before {
            break;
        }
    }
    Ok(count)
}

/// Follows the server's notices of connections over a connection of its own to the system account. Without it, silence
/// alone finds lost agents.
pub(crate) async fn follow_notices(
    watch: SharedWatch,
    settings: ConnectSettings,
    stop: CancellationToken,
) {
    let mut notices = notices::watch(settings);
    loop {
        let notice = tokio::select! {
            () = stop.cancelled() => return,
            notice = notices.next() => notice,
        };
        let (name, is_closed) = match notice {
            None => return,
            Some(Notice::Closed(name)) => (name, true),
            Some(Notice::Opened(name)) => (name, false),
        };
        let now = watch.now();
        if let Some(host) = parse_host_connection_name(&name) {
            debug!(host.id = %host, is_closed, "the connection of a host");
            let mut watch = watch.lock();
            if is_closed {
                watch.host_closed(host, now);
            } else {
                watch.host_opened(host);
            }
            continue;
        }
        let Some(process) = parse_connection_name(&name) else {
            continue;
        };
        if is_closed {
            debug!(agent.id = %process.1, "its connection closed");
            watch.lock().closed(process, now);
        } else {
            watch.lock().opened(process);
        }
    }
}
