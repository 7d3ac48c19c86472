//! The floor: submitted → assigned → started → completed as bare messages. One client, a relay that assigns, and one that
//! stands for all agents, each with a connection of its own. Nothing is parsed, decided, projected or republished.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{Config, DiscardPolicy, StorageType},
};
use bytes::Bytes;
use futures::StreamExt;
use swarm_servers::Durability;
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use super::{
    load::{Gate, Load},
    timeline::{Figures, Step, Timeline},
    writer::{self, Job, Jobs},
};

const STREAM: &str = "bench_bare";
const CLAIMED: &str = "bare.claimed";
const SUBMITTED: &str = "bare.submitted";
/// Size of every message, in bytes.
const MESSAGE_BYTES: usize = 300;
/// The task's number leads the message, in so many digits.
const NUMBER_DIGITS: usize = 20;
/// The relay claims again after so many assignments, so that its fence is never 50,000 messages back: as Swarm does.
const CLAIM_EVERY: u64 = 12_500;
/// Messages for each pull request, as in Swarm's tails.
const PULL_BATCH: usize = 1_000;
/// The log is read after the run; nothing for this long means that something is missing.
const READ_PATIENCE: Duration = Duration::from_secs(20);

/// The bare pipeline on one server.
pub struct Bare {
    url: String,
    durability: Durability,
    agents: u64,
    batch_max: usize,
    context: jetstream::Context,
}

impl Bare {
    /// Makes its stream anew: one file, no republish, everything else as in Swarm's.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn prepare(
        url: &str,
        durability: Durability,
        agents: u64,
        batch_max: usize,
    ) -> anyhow::Result<Self> {
        let client = async_nats::connect(url)
            .await
            .context("nats-server cannot be reached")?;
        let context = jetstream::new(client);
        let _ = context.delete_stream(STREAM).await; // none is there at first
        let mut config = Config {
            name: STREAM.to_owned(),
            subjects: vec!["bare.>".to_owned()],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            allow_direct: true,
            num_replicas: 1,
            ..Config::default()
        };
        config.allow_atomic_publish = true;
        context
            .create_stream(config)
            .await
            .context("the bare stream cannot be made")?;
        Ok(Self {
            url: url.to_owned(),
            durability,
            agents,
            batch_max,
            context,
        })
    }

    /// Fills the stream to `bytes`, with the last messages of the agents' subjects spread over all of it.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn fill(&self, bytes: u64, message_bytes: usize) -> anyhow::Result<()> {
        let jobs = writer::start(&self.url, Durability::Always, 500).await?;
        let body = Bytes::from(vec![b'h'; message_bytes]);
        let count = bytes / message_bytes as u64;
        let gate = Gate::new(Load {
            tasks: count,
            pace: super::load::Pace::Open(1_000),
        });
        let load = Load {
            tasks: count,
            pace: super::load::Pace::Open(1_000),
        };
        gate.pace(load, |number| {
            let agent = super::history::agent_at(number, count, self.agents);
            let verb = ["assigned", "started", "completed"][(number % 3) as usize];
            let gate = gate.clone();
            let _ = jobs.send(Job {
                subject: format!("bare.{verb}.{agent}"),
                payload: body.clone(),
                fence: None,
                stored: Box::new(move |_| gate.result()),
            });
        })
        .await;
        gate.all(count).await
    }

    /// Runs `load` through it.
    ///
    /// # Errors
    /// The server refuses, or a task does not complete.
    pub async fn run(&self, load: Load) -> anyhow::Result<Figures> {
        let stream = self.context.get_stream(STREAM).await?;
        let from = stream.cached_info().state.last_sequence + 1;
        let gate = Gate::new(load);
        let mut roles = JoinSet::new();
        let relay = self.writer().await?;
        let submitted = self.follow(vec![SUBMITTED.to_owned()], from).await?;
        roles.spawn(assign(submitted, relay, self.agents));
        let hands = self.writer().await?;
        let assigned = self
            .follow(vec!["bare.assigned.*".to_owned()], from)
            .await?;
        roles.spawn(work(assigned, hands, gate.clone()));

        let client = self.writer().await?;
        gate.pace(load, |number| {
            let _ = client.send(Job {
                subject: SUBMITTED.to_owned(),
                payload: message(number),
                fence: None,
                stored: Box::new(|_| {}),
            });
        })
        .await;
        gate.all(load.tasks).await?;
        roles.shutdown().await;
        self.read(from, load.tasks).await
    }

    async fn writer(&self) -> anyhow::Result<Jobs> {
        writer::start(&self.url, self.durability, self.batch_max).await
    }

    async fn follow(&self, filters: Vec<String>, from: u64) -> anyhow::Result<pull::Stream> {
        // A connection of its own, as every role has one.
        let client = async_nats::connect(&self.url).await?;
        let stream = jetstream::new(client).get_stream(STREAM).await?;
        let consumer = stream
            .create_consumer(pull::Config {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: from,
                },
                ack_policy: AckPolicy::None,
                filter_subjects: filters,
                inactive_threshold: Duration::from_secs(5),
                num_replicas: 1,
                memory_storage: true,
                ..pull::Config::default()
            })
            .await?;
        Ok(consumer
            .stream()
            .max_messages_per_batch(PULL_BATCH)
            .messages()
            .await?)
    }

    /// The stream's own times, after the run.
    async fn read(&self, from: u64, tasks: u64) -> anyhow::Result<Figures> {
        let filters = [
            SUBMITTED,
            "bare.assigned.*",
            "bare.started.*",
            "bare.completed.*",
        ];
        let mut messages = self
            .follow(filters.map(str::to_owned).to_vec(), from)
            .await?;
        let mut timeline = Timeline::default();
        let tasks = usize::try_from(tasks)?;
        while timeline.completed() < tasks {
            let message = timeout(READ_PATIENCE, messages.next())
                .await
                .context("the bare stream ends early")?
                .context("the bare stream cannot be read")??;
            let step = match message.subject.split('.').nth(1) {
                Some("submitted") => Step::Submitted,
                Some("assigned") => Step::Assigned,
                Some("started") => Step::Started,
                _ => Step::Completed,
            };
            let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
            let micros = i64::try_from(info.published.unix_timestamp_nanos() / 1_000)?;
            timeline.meet(step, u128::from(number(&message.payload)?), micros);
        }
        timeline.figures(tasks)
    }
}

async fn claim(relay: &Jobs) -> u64 {
    let (told, sequence) = oneshot::channel();
    let _ = relay.send(Job {
        subject: CLAIMED.to_owned(),
        payload: Bytes::from_static(b"claimed"),
        fence: None,
        stored: Box::new(move |sequence| {
            let _ = told.send(sequence);
        }),
    });
    sequence.await.unwrap_or(0) // 0 is refused, and ends the run
}

async fn assign(mut submitted: pull::Stream, relay: Jobs, agents: u64) -> anyhow::Result<()> {
    let mut epoch = claim(&relay).await;
    let mut count = 0;
    while let Some(message) = submitted.next().await {
        count += 1;
        if count % CLAIM_EVERY == 0 {
            epoch = claim(&relay).await;
        }
        let _ = relay.send(Job {
            subject: format!("bare.assigned.{}", count % agents),
            payload: message?.payload.clone(),
            fence: Some((CLAIMED.to_owned(), epoch)),
            stored: Box::new(|_| {}),
        });
    }
    Ok(())
}

async fn work(mut assigned: pull::Stream, hands: Jobs, gate: Gate) -> anyhow::Result<()> {
    while let Some(message) = assigned.next().await {
        let message = message?;
        let agent = message.subject.rsplit('.').next().unwrap_or("0").to_owned();
        let (payload, hands_then, gate) = (message.payload.clone(), hands.clone(), gate.clone());
        let completed = Job {
            subject: format!("bare.completed.{agent}"),
            payload: payload.clone(),
            fence: None,
            stored: Box::new(move |_| gate.result()),
        };
        // An agent works once its `started` is acknowledged.
        let _ = hands.send(Job {
            subject: format!("bare.started.{agent}"),
            payload,
            fence: None,
            stored: Box::new(move |_| {
                let _ = hands_then.send(completed);
            }),
        });
    }
    Ok(())
}

fn message(number: u64) -> Bytes {
    let mut text = format!("{number:0NUMBER_DIGITS$}");
    text.extend(std::iter::repeat_n('.', MESSAGE_BYTES - NUMBER_DIGITS));
    text.into()
}

fn number(message: &[u8]) -> anyhow::Result<u64> {
    let digits = message
        .get(..NUMBER_DIGITS)
        .context("a message is too short")?;
    Ok(std::str::from_utf8(digits)?.parse()?)
}
