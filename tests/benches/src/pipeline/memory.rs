//! What a queued task weighs in the distributor.

use anyhow::{Context, bail};
use futures::StreamExt;
use swarm_events::{Body, Input, Subject, Timestamp, read, subject::SwarmVerb};
use swarm_log::{Log, Tailed};
use tokio::time::{Duration, timeout};

use super::{
    load::{Gate, Load, Pace},
    swarm::{Swarm, new_place},
};
use crate::{installation::Installation, machine::resident_bytes};

/// The distributor measures an active swarm once a second.
const MEASURED_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the distributor's resident memory for each of `tasks` queued tasks, on services that have done nothing else.
///
/// # Errors
/// The distributor does not say that all of them are queued.
pub async fn bytes_per_task(installation: &Installation, tasks: u64) -> anyhow::Result<u64> {
    let configuration = serde_json::json!({ "queue_limit": tasks.max(1) });
    let swarm = Swarm::create(installation, new_place(), configuration).await?;
    let pid = installation.pid_of("distributor")?;
    let before = resident_bytes(pid)?;
    let from = swarm.log.info().await?.last_sequence + 1;
    let load = Load {
        tasks,
        pace: Pace::Open(usize::try_from(tasks)?),
    };
    swarm.submit(&Gate::new(load), load).await?;

    let filter = Subject::Swarm(swarm.place, SwarmVerb::Measured).to_string();
    let mut tail = swarm.log.tail(vec![filter], from);
    loop {
        let tailed = timeout(MEASURED_PATIENCE, tail.next())
            .await
            .context("the distributor does not say that the tasks are queued")?
            .context("the tail has ended")??;
        let Tailed::Message(stored) = tailed else {
            continue;
        };
        let time = Timestamp::from_micros(stored.time_micros);
        let input = read(stored.sequence, time, &stored.subject, &stored.payload);
        let Input::Event(recorded) = input else {
            bail!("a measurement cannot be read");
        };
        if let Body::SwarmMeasured(measured) = recorded.event.body
            && measured.queued == tasks
        {
            break;
        }
    }
    Ok(resident_bytes(pid)?.saturating_sub(before) / tasks.max(1))
}
