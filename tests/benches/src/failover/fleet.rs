//! Many swarms over the partitions, agents for all of them, and clients that keep both busy whatever fails.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use swarm_events::{
    AgentId, EventId, Json, KeyId, OrgId, Partition, Place, Subject, SwarmId, TaskId, UserId,
    command,
    subject::{CommandVerb, PARTITIONS},
};
use swarm_log::{AppendError, Log, Message, jetstream::JetStreamLog};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    installation::Installation,
    pipeline::swarm::{Agents, command as ask, message, payload, submission},
};

/// What is due is handed to the log this often.
const TICK: Duration = Duration::from_millis(5);
/// A client whose submission was not acknowledged sends it again, under the same id, after this long.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);
/// A submission that cannot be handed in for this long ends the measurement.
const RETRY_PATIENCE: Duration = Duration::from_secs(60);

/// Swarms and their agents.
pub struct Fleet {
    pub log: JetStreamLog,
    pub places: Vec<Place>,
    /// Of an administrator of the swarms' organization.
    pub api_key: String,
    pub agents: Agents,
}

impl Fleet {
    /// Makes `swarms` swarms, evenly over the partitions, and joins `agents` agents to each.
    ///
    /// # Errors
    /// The coordinator refuses one, or does not answer.
    pub async fn start(
        installation: &Installation,
        swarms: u8,
        agents: u32,
        slots: u32,
    ) -> anyhow::Result<Self> {
        let log = installation.log("bench client").await?;
        let org = OrgId(Uuid::now_v7());
        let api_key = format!("bench-{}", Uuid::new_v4().simple());
        let create_org = command::CreateOrg {
            name: "bench".to_owned(),
            user_id: UserId(Uuid::now_v7()),
            user_name: "bench".to_owned(),
            key_id: KeyId(Uuid::now_v7()),
            key_sha256: hex::encode(Sha256::digest(api_key.as_bytes())),
        };
        let partition = Partition::of(org.0);
        let subject = Subject::OrgCommand(partition, org, CommandVerb::CreateOrg);
        let answers = format!("swarm.evt.{partition}.{org}.org.*");
        ask(&log, &subject, org.0, create_org.into(), answers).await?;
        let mut places = Vec::new();
        for number in 0..swarms {
            let place = place_in(org, partition_of(number, swarms));
            let create = command::Create {
                topology_configuration: swarm_events::Json::object(),
                name: format!("bench {number}"),
                description: None,
                topology: None,
                configuration: serde_json::json!({}).into(),
                created_by: None,
                body_sha256: None,
            };
            let subject = Subject::Command(place, CommandVerb::Create);
            let answers = format!("swarm.evt.{place}.swarm.*");
            ask(&log, &subject, place.swarm.0, create.into(), answers).await?;
            places.push(place);
        }
        let crew: Vec<_> = places
            .iter()
            .flat_map(|place| (0..agents).map(|_| (*place, AgentId(Uuid::now_v7()))))
            .collect();
        let agents = Agents::start(installation, &log, &crew, slots, slots).await?;
        Ok(Self {
            log,
            places,
            api_key,
            agents,
        })
    }

    /// Submits `rate` tasks a second, to the swarms in turn, until stopped.
    pub fn submit(&self, rate: u32) -> anyhow::Result<Steady> {
        let payload = payload()?;
        let places = self.places.clone();
        Ok(Steady::start(self.log.clone(), rate, move |number| {
            let place = turn(&places, number)?;
            let task = TaskId(Uuid::now_v7());
            Ok((Some(task), submission(place, task, &payload)?))
        }))
    }

    /// Changes the description of a swarm `rate` times a second, of the swarms in turn, until stopped.
    pub fn command(&self, rate: u32) -> Steady {
        let places = self.places.clone();
        Steady::start(self.log.clone(), rate, move |number| {
            let place = turn(&places, number)?;
            let patch = serde_json::json!({ "description": format!("change {number}") });
            let update = command::Update {
                patch: Json::from_value(&patch)?,
            };
            let subject = Subject::Command(place, CommandVerb::Update);
            let id = EventId(Uuid::now_v7());
            Ok((None, message(id, &subject, place.swarm.0, update.into())?))
        })
    }
}

/// The partition of swarm `number` of `of`: as far apart as they can be.
fn partition_of(number: u8, of: u8) -> Partition {
    let partition = u32::from(number) * u32::from(PARTITIONS) / u32::from(of.max(1));
    let number = u8::try_from(partition).unwrap_or(0) % PARTITIONS;
    Partition::all()
        .nth(number.into())
        .unwrap_or_else(|| Partition::of(Uuid::nil()))
}

/// A place for a new swarm in `partition`.
fn place_in(org: OrgId, partition: Partition) -> Place {
    loop {
        let place = Place::new(org, SwarmId(Uuid::now_v7()));
        if place.partition == partition {
            return place;
        }
    }
}

fn turn(places: &[Place], number: u64) -> anyhow::Result<Place> {
    let many = places.len().max(1) as u64;
    let at = usize::try_from(number % many)?;
    places.get(at).copied().context("there is no swarm")
}

/// A client that sends at a fixed rate, whatever happens; what is not acknowledged is sent again under the same id.
pub struct Steady {
    stop: CancellationToken,
    accepted: Arc<Mutex<HashSet<TaskId>>>,
    sender: JoinHandle<anyhow::Result<()>>,
}

impl Steady {
    fn start(
        log: JetStreamLog,
        rate: u32,
        mut next: impl FnMut(u64) -> anyhow::Result<(Option<TaskId>, Message)> + Send + 'static,
    ) -> Self {
        let stop = CancellationToken::new();
        let accepted = Arc::new(Mutex::new(HashSet::new()));
        let (stopped, taken) = (stop.clone(), accepted.clone());
        let sender = tokio::spawn(async move {
            let mut appends = JoinSet::new();
            let mut tick = interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (began, mut sent) = (Instant::now(), 0);
            while !stopped.is_cancelled() {
                tick.tick().await;
                let due = began.elapsed().as_millis() * u128::from(rate) / 1_000;
                let mut messages = Vec::new();
                while u128::from(sent) < due {
                    messages.push(next(sent)?);
                    sent += 1;
                }
                if !messages.is_empty() {
                    appends.spawn(store(log.clone(), messages, taken.clone()));
                }
                while let Some(stored) = appends.try_join_next() {
                    stored??;
                }
            }
            while let Some(stored) = appends.join_next().await {
                stored??;
            }
            Ok(())
        });
        Self {
            stop,
            accepted,
            sender,
        }
    }

    /// Whether it still sends.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.sender.is_finished() {
            bail!(
                "a client has given up: the log has refused what it sent, or did not take it for a minute"
            );
        }
        Ok(())
    }

    /// Stops sending, and answers with the tasks that were acknowledged.
    ///
    /// # Errors
    /// Something was refused, or not taken in time.
    pub async fn stop(self) -> anyhow::Result<HashSet<TaskId>> {
        self.stop.cancel();
        self.sender.await??;
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut accepted))
    }
}

async fn store(
    log: JetStreamLog,
    mut messages: Vec<(Option<TaskId>, Message)>,
    accepted: Arc<Mutex<HashSet<TaskId>>>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while !messages.is_empty() {
        let outcomes = log
            .append(
                messages
                    .iter()
                    .map(|(_, message)| message.clone())
                    .collect(),
            )
            .await;
        let mut again = Vec::new();
        for ((task, message), outcome) in messages.into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => {
                    let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
                    accepted.extend(task);
                }
                Err(AppendError::Unknown { .. }) if began.elapsed() < RETRY_PATIENCE => {
                    again.push((task, message));
                }
                Err(error) => return Err(error.into()),
            }
        }
        messages = again;
        if !messages.is_empty() {
            sleep(RETRY_AFTER).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swarms_are_as_far_apart_as_they_can_be() {
        let eight: Vec<u8> = (0..8).map(|n| partition_of(n, 8).number()).collect();
        assert_eq!(eight, [0, 8, 16, 24, 32, 40, 48, 56]);
        let all: HashSet<u8> = (0..PARTITIONS)
            .map(|n| partition_of(n, PARTITIONS).number())
            .collect();
        assert_eq!(all.len(), usize::from(PARTITIONS));
        assert_eq!(partition_of(64, 65).number(), 63);
    }

    #[test]
    fn a_new_swarm_lands_where_it_shall() {
        let wanted = partition_of(5, 8);
        assert_eq!(place_in(OrgId(Uuid::nil()), wanted).partition, wanted);
    }
}
