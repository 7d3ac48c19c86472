//! What the host says of itself every second.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use swarm_events::{
    agent::HostName,
    subject::host_beat,
    swarm::{HostBeat, ProcessFigures},
};
use swarm_log::connect::Connection;
use tokio::time::{MissedTickBehavior, interval};

use crate::{HostStatus, census::Census};

/// How often a host says that it is there.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Looks at all processes every second, apart from the beat: a busy machine must not make the host look dead.
pub(crate) async fn look(census: Arc<Census>) {
    let mut ticks = interval(BEAT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let census = census.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || census.look()).await {
            tracing::error!(%error, "the processes cannot be looked at");
        }
    }
}

/// Publishes a beat every second. Nothing is published while the connection is lost: it would be sent late, and be a lie.
pub(crate) async fn beat(
    connection: Connection,
    host: HostName,
    census: Arc<Census>,
    status: HostStatus,
) {
    let subject = host_beat(host.instance);
    let mut counter = 0;
    let mut ticks = interval(BEAT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        counter += 1;
        if !connection.is_connected() {
            continue;
        }
        let figures = census.figures().into_iter().map(|(key, figures)| {
            let figures = ProcessFigures {
                cpu_centipercent: figures.cpu_centipercent,
                memory_kib: figures.memory_kib,
                active_connections: figures.sockets,
                processes: figures.processes,
            };
            (key.agent, figures)
        });
        let beat = HostBeat {
            host: host.instance,
            name: host.name.clone(),
            counter,
            room: status.room(),
            agents: figures.collect::<BTreeMap<_, _>>(),
        };
        let sent = match serde_json::to_vec(&beat) {
            Ok(beat) => connection
                .client()
                .publish(subject.clone(), beat.into())
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = sent {
            tracing::warn!(error, "a beat is not sent");
        }
    }
}
