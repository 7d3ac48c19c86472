//! Swarm end to end: a client that publishes submissions, the real services, and real agents of the SDK that do nothing.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use swarm_agent_sdk::{Agent, Handler, Link, LinkSettings, TaskContext, TaskError};
use swarm_events::{
    AgentId, Body, Event, EventId, Input, Json, KeyId, OrgId, Partition, Place, Subject, SwarmId,
    TaskId, Timestamp, UserId, command,
    envelope::Source,
    read,
    subject::{AgentVerb, CommandVerb, TaskVerb},
    task::Submitted,
};
use swarm_log::{Log, LogError, Message, Tailed, jetstream::JetStreamLog};
use tokio::{runtime::Runtime, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    load::{Gate, Load, Pace},
    timeline::{Figures, Step, Timeline},
};
use crate::installation::{Installation, of_log};

/// Threads that run the agents: they have a runtime of their own.
pub const AGENT_THREADS: &str = "agents";
/// Size of each task's payload as JSON, in bytes.
pub const PAYLOAD_BYTES: usize = 300;
/// An answer that has not come by then will not.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// Thousands of agents join one after another.
const JOIN_PATIENCE: Duration = Duration::from_secs(180);
/// The projector may have minutes to catch up with after a run on a slow machine.
const PROJECTED_PATIENCE: Duration = Duration::from_secs(300);
/// Submissions that are published at once when they are due together.
const SUBMIT_TOGETHER: usize = 256;

/// A swarm without agents, and the client that made it.
pub struct Swarm {
    pub place: Place,
    pub log: JetStreamLog,
}

impl Swarm {
    /// Makes an organization and a swarm at `place`, by commands in the log.
    ///
    /// # Errors
    /// The coordinator refuses, or does not answer.
    pub async fn create(
        installation: &Installation,
        place: Place,
        configuration: serde_json::Value,
    ) -> anyhow::Result<Self> {
        let log = installation.log("bench client").await?;
        let org = place.org;
        let create_org = command::CreateOrg {
            name: "bench".to_owned(),
            user_id: UserId(Uuid::now_v7()),
            user_name: "bench".to_owned(),
            key_id: KeyId(Uuid::now_v7()),
            // Nobody will ever use the key: its hash only has to be unlike any other.
            key_sha256: format!("{:032x}{:032x}", org.0.as_u128(), org.0.as_u128()),
        };
        let subject = Subject::OrgCommand(Partition::of(org.0), org, CommandVerb::CreateOrg);
        let answers = format!("swarm.evt.{}.{org}.org.*", Partition::of(org.0));
        command(&log, &subject, org.0, create_org.into(), answers).await?;
        let create = command::Create {
            topology_configuration: swarm_events::Json::object(),
            name: "bench".to_owned(),
            description: None,
            topology: None,
            configuration: configuration.into(),
            created_by: None,
            body_sha256: None,
        };
        let subject = Subject::Command(place, CommandVerb::Create);
        let answers = format!("swarm.evt.{place}.swarm.*");
        command(&log, &subject, place.swarm.0, create.into(), answers).await?;
        Ok(Self { place, log })
    }

    /// Submits `load` and waits until every task was worked on; answers with the sequence before which the log has nothing
    /// of it.
    ///
    /// # Errors
    /// A submission is refused, or no task is worked on for a minute.
    pub async fn put_through(&self, agents: &Agents, load: Load) -> anyhow::Result<u64> {
        let from = self.log.info().await?.last_sequence + 1;
        let gate = Gate::new(load);
        agents.hold(gate.clone());
        tokio::try_join!(self.submit(&gate, load), gate.all(load.tasks))?;
        Ok(from)
    }

    /// Submits `load` at its pace and waits until all of it is stored.
    ///
    /// # Errors
    /// The log refuses one.
    pub async fn submit(&self, gate: &Gate, load: Load) -> anyhow::Result<()> {
        submit(&self.log, &[self.place], gate, load).await
    }

    /// The figures of `tasks` tasks, by the log from sequence `from` on: waits for their results there.
    ///
    /// # Errors
    /// One of them does not complete.
    pub async fn figures(&self, from: u64, tasks: u64) -> anyhow::Result<Figures> {
        let steps = [
            Subject::Task(self.place, TaskVerb::Submitted, None).to_string(),
            format!("swarm.evt.{}.task.assigned.*", self.place),
            format!("swarm.evt.{}.task.started.*", self.place),
            format!("swarm.evt.{}.task.completed.*", self.place),
        ];
        let mut tail = self.log.tail(steps.to_vec(), from);
        let mut timeline = Timeline::default();
        let tasks = usize::try_from(tasks)?;
        while timeline.completed() < tasks {
            let Some(event) = next(&mut tail).await? else {
                bail!(
                    "only {} of {tasks} tasks completed; the log says no more for {} s",
                    timeline.completed(),
                    ANSWER_PATIENCE.as_secs()
                );
            };
            let step = match event.event.body {
                Body::TaskSubmitted(_) => Step::Submitted,
                Body::TaskAssigned(_) => Step::Assigned,
                Body::TaskStarted(_) => Step::Started,
                _ => Step::Completed,
            };
            timeline.meet(step, event.event.about.as_u128(), event.time.as_micros());
        }
        timeline.figures(tasks)
    }

    /// Waits until the projector has written everything that is in the log now, and says how long that took.
    ///
    /// # Errors
    /// It does not.
    pub async fn caught_up(&self, database_url: &str) -> anyhow::Result<Duration> {
        let began = std::time::Instant::now();
        let last = self.log.info().await?.last_sequence;
        let pool = sqlx::PgPool::connect(database_url).await?;
        loop {
            let query = "SELECT max(sequence) FROM projection_checkpoint";
            let committed: Option<i64> = sqlx::query_scalar(query).fetch_one(&pool).await?;
            if committed.is_some_and(|sequence| sequence.unsigned_abs() >= last) {
                break;
            }
            ensure!(
                began.elapsed() < PROJECTED_PATIENCE,
                "the projector is at {committed:?} of {last}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        pool.close().await;
        Ok(began.elapsed())
    }

    /// Compares the read model with the log: so many tasks must have completed in both.
    ///
    /// # Errors
    /// The tables say otherwise.
    pub async fn projected(&self, database_url: &str, completed: u64) -> anyhow::Result<()> {
        let pool = sqlx::PgPool::connect(database_url).await?;
        let query = "SELECT count(*) FROM swarm_tasks WHERE swarm_id = $1 AND status = 'completed'";
        let found: i64 = sqlx::query_scalar(query)
            .bind(self.place.swarm.0)
            .fetch_one(&pool)
            .await?;
        ensure!(
            u64::try_from(found)? == completed,
            "the tables have {found} completed tasks, the log {completed}"
        );
        pool.close().await;
        Ok(())
    }
}

/// Submits `load` at its pace, to the swarms at `places` in turn, and waits until all of it is stored.
///
/// # Errors
/// The log refuses one.
pub async fn submit(
    log: &JetStreamLog,
    places: &[Place],
    gate: &Gate,
    load: Load,
) -> anyhow::Result<()> {
    let payload = payload()?;
    let (due, mut waiting) = mpsc::unbounded_channel();
    let pace = async {
        gate.pace(load, |_| {
            let _ = due.send(()); // received below, to the end
        })
        .await;
        drop(due);
    };
    let publish = async {
        let mut appends = JoinSet::new();
        let mut ready = Vec::new();
        let mut places = places.iter().cycle();
        while waiting.recv_many(&mut ready, SUBMIT_TOGETHER).await > 0 {
            let messages = ready
                .drain(..)
                .zip(&mut places)
                .map(|((), place)| submission(*place, TaskId(Uuid::now_v7()), &payload))
                .collect::<anyhow::Result<Vec<_>>>()?;
            appends.spawn(log.append(messages));
            while let Some(stored) = appends.try_join_next() {
                for outcome in stored? {
                    outcome?;
                }
            }
        }
        while let Some(stored) = appends.join_next().await {
            for outcome in stored? {
                outcome?;
            }
        }
        anyhow::Ok(())
    };
    tokio::join!(pace, publish).1
}

/// Agents of one process on one connection, with threads of their own.
pub struct Agents {
    runtime: Option<Runtime>,
    stop: CancellationToken,
    gate: Arc<Mutex<Gate>>,
}

impl Agents {
    /// Starts an agent for each of `crew` and waits until the log says that all have joined.
    ///
    /// # Errors
    /// One of them is refused.
    pub async fn start(
        installation: &Installation,
        log: &JetStreamLog,
        crew: &[(Place, AgentId)],
        slots: u32,
        waiting: u32,
    ) -> anyhow::Result<Self> {
        let from = log.info().await?.last_sequence + 1;
        let none = Load {
            tasks: 0,
            pace: Pace::Open(0),
        };
        let agents = Self {
            runtime: Some(
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .thread_name(AGENT_THREADS)
                    .enable_all()
                    .build()?,
            ),
            stop: CancellationToken::new(),
            gate: Arc::new(Mutex::new(Gate::new(none))),
        };
        let mut settings = LinkSettings::new(installation.nats_url());
        settings.durability = of_log(installation.durability);
        settings.creds = installation.admin()?;
        let (stop, gate) = (agents.stop.clone(), agents.gate.clone());
        let many = crew.len();
        let crew = crew.to_vec();
        let Some(runtime) = &agents.runtime else {
            bail!("the agents' runtime is gone");
        };
        let running = runtime.spawn(async move {
            let link = Link::open(&settings, "bench agents").await?;
            let mut running = JoinSet::new();
            for (place, id) in crew {
                let agent = Agent::builder(settings.clone(), place.org, place.swarm)
                    .id(id)
                    .slots(slots)
                    .waiting(waiting)
                    .any_raw_handler(NoOp(gate.clone()));
                let (link, stop) = (link.clone(), stop.clone());
                running.spawn(async move { agent.run_on(&link, stop).await });
            }
            while let Some(ended) = running.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        });
        let joined = async {
            let filter = format!("swarm.evt.*.*.*.agent.{}.*", AgentVerb::Joined);
            let mut tail = log.tail(vec![filter], from);
            for count in 0..many {
                if next(&mut tail).await?.is_none() {
                    bail!("only {count} of {many} agents joined");
                }
            }
            Ok(())
        };
        tokio::select! {
            joined = timeout(JOIN_PATIENCE, joined) => joined.context("the agents take too long to join")??,
            ended = running => bail!("the agents ended: {:?}", ended?),
        }
        Ok(agents)
    }

    /// Has `gate` told of every result from now on.
    pub fn hold(&self, gate: Gate) {
        *self.gate.lock().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// Lets them leave.
    pub fn stop(mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task of this type sleeps for the `micros` of its payload; all others do nothing.
pub const SLEEP: &str = "sleep";

#[derive(serde::Deserialize)]
struct Nap {
    micros: u64,
}

/// Does nothing, or sleeps, and says that it did.
struct NoOp(Arc<Mutex<Gate>>);

#[async_trait]
impl Handler for NoOp {
    async fn handle(&self, task: TaskContext) -> Result<Json, TaskError> {
        if task.task_type == SLEEP {
            let nap: Nap = task
                .payload
                .to()
                .map_err(|e| TaskError::permanent(e.to_string()))?;
            tokio::time::sleep(Duration::from_micros(nap.micros)).await;
        }
        // Another attempt of the same task is no other task.
        if task.attempt == 1 && task.generation == 1 {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .result();
        }
        Ok(Json::null())
    }
}

/// The payload of every task.
pub fn payload() -> anyhow::Result<Json> {
    let text = "p".repeat(PAYLOAD_BYTES - "{\"text\":\"\"}".len());
    Ok(Json::from_value(&serde_json::json!({ "text": text }))?)
}

/// The submission of a task that does nothing.
pub fn submission(place: Place, task: TaskId, payload: &Json) -> anyhow::Result<Message> {
    submission_of(place, task, "noop", payload)
}

/// The submission of a task of this type.
pub fn submission_of(
    place: Place,
    task: TaskId,
    task_type: &str,
    payload: &Json,
) -> anyhow::Result<Message> {
    let subject = Subject::Task(place, TaskVerb::Submitted, None);
    let submitted = Submitted {
        hand_to: None,
        origin: None,
        required_role: None,
        task_type: task_type.to_owned(),
        payload: payload.clone(),
        priority: swarm_events::task::PRIORITY_DEFAULT,
        required_capabilities: Vec::new(),
        max_attempts: None,
        timeout_ms: None,
        queue_timeout_ms: None,
        progress_timeout_ms: None,
        parent_task_id: None,
        affinity_key: None,
        depends_on: Vec::new(),
        key: None,
        graph: None,
        body_sha256: None,
    };
    message(EventId(task.0), &subject, task.0, submitted.into())
}

/// A message as a client sends it.
pub fn message(id: EventId, subject: &Subject, about: Uuid, body: Body) -> anyhow::Result<Message> {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let time = Timestamp::from_micros(i64::try_from(micros)?);
    let source = Source::Client("/bench".to_owned());
    let event = Event::new(id, source, time, subject, about, body);
    Ok(Message {
        subject: subject.to_string(),
        payload: event.to_json()?.into(),
        message_id: Some(id.to_string()),
        fence: None,
    })
}

/// Sends a command and waits for the first event that names it, which must not be a refusal.
pub async fn command(
    log: &JetStreamLog,
    subject: &Subject,
    about: Uuid,
    body: Body,
    answers: String,
) -> anyhow::Result<()> {
    let id = EventId(Uuid::now_v7());
    let outcomes = log.append(vec![message(id, subject, about, body)?]).await;
    let stored = outcomes.into_iter().next().context("no outcome")??;
    let mut tail = log.tail(vec![answers], stored.sequence + 1);
    loop {
        let Some(answer) = next(&mut tail).await? else {
            bail!("{subject} is not answered");
        };
        if answer.event.causation == Some(id.0) {
            return match answer.event.body {
                Body::OrgRefused(refused) => bail!("{subject}: {}", refused.problem),
                Body::SwarmRefused(refused) => bail!("{subject}: {}", refused.problem),
                _ => Ok(()),
            };
        }
    }
}

/// The next event, `None` if none comes in time.
///
/// # Errors
/// The log cannot be read.
pub async fn next(
    tail: &mut BoxStream<'static, Result<Tailed, LogError>>,
) -> anyhow::Result<Option<swarm_events::Recorded>> {
    loop {
        let tailed = match timeout(ANSWER_PATIENCE, tail.next()).await {
            Ok(Some(tailed)) => tailed?,
            Ok(None) => bail!("the tail has ended"),
            Err(_) => return Ok(None),
        };
        let Tailed::Message(stored) = tailed else {
            continue;
        };
        let time = Timestamp::from_micros(stored.time_micros);
        match read(stored.sequence, time, &stored.subject, &stored.payload) {
            Input::Event(recorded) => return Ok(Some(recorded)),
            Input::Unreadable(unreadable) => {
                bail!(
                    "{} cannot be read: {}",
                    unreadable.subject_text,
                    unreadable.problem
                )
            }
        }
    }
}

/// A place for a swarm of its own.
pub fn new_place() -> Place {
    Place::new(OrgId(Uuid::now_v7()), SwarmId(Uuid::now_v7()))
}
