//! The runner's own way to the log: its connection, and the messages that it sends.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use async_nats::jetstream;
use swarm_agent_sdk::LinkSettings;
use swarm_events::{
    Body, Event, EventId, InstanceId, Place, Service, Subject, SwarmId, TaskId, Timestamp, command,
    envelope::Source,
    subject::{CommandVerb, TaskVerb},
    task::Submitted,
};
use swarm_log::{
    Log, Message,
    connect::{ConnectSettings, Connection, Credentials, connect},
    jetstream::{Durability, JetStreamLog, LogSettings},
};
use uuid::Uuid;

use crate::installation::Address;

/// Bucket in which replicas show that they are there.
const PRESENCE: &str = "swarm_presence";

/// A connection to the installation's log.
#[derive(Clone)]
pub struct Bus {
    connection: Connection,
    log: JetStreamLog,
    settings: LinkSettings,
}

impl Bus {
    /// Connects with the operator's rights.
    ///
    /// # Errors
    /// nats-server does not answer, or holds no log.
    pub async fn open(address: &Address, replicas: usize) -> anyhow::Result<Self> {
        let creds = address.nats_creds.clone().map(Credentials::File);
        let mut connecting = ConnectSettings::new(&address.nats_url, "swarm chaos");
        connecting.creds.clone_from(&creds);
        let connection = connect(connecting).await?;
        let log =
            JetStreamLog::open(&connection, LogSettings::new(Durability::Always, replicas)).await?;
        let mut settings = LinkSettings::new(&address.nats_url);
        settings.creds = creds;
        Ok(Self {
            connection,
            log,
            settings,
        })
    }

    /// The log.
    pub const fn log(&self) -> &JetStreamLog {
        &self.log
    }

    /// How agents of this process connect.
    pub const fn link(&self) -> &LinkSettings {
        &self.settings
    }

    /// The name (`distributor-2`) under which a process of a service shows itself; `None` if it shows none.
    ///
    /// # Errors
    /// The bucket cannot be read.
    pub async fn name_of(
        &self,
        service: Service,
        instance: InstanceId,
    ) -> anyhow::Result<Option<String>> {
        let context = jetstream::new(self.connection.client().clone());
        let bucket = context
            .get_key_value(PRESENCE)
            .await
            .context("the presence bucket cannot be opened")?;
        let value = bucket
            .get(format!("{service}.{instance}"))
            .await
            .context("a presence key cannot be read")?;
        let Some(value) = value else { return Ok(None) };
        let value: serde_json::Value = serde_json::from_slice(&value)?;
        Ok(value["name"].as_str().map(str::to_owned))
    }

    /// The name of the nats-server that leads the log's stream (clusters only).
    ///
    /// # Errors
    /// JetStream does not answer.
    pub async fn stream_leader(&self) -> anyhow::Result<Option<String>> {
        let context = jetstream::new(self.connection.client().clone());
        let mut stream = context.get_stream(swarm_events::subject::STREAM).await?;
        let info = stream.info().await?;
        Ok(info
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.leader.clone()))
    }

    /// Asks for a swarm by command. The id is the caller's choice, and with it the partition.
    ///
    /// # Errors
    /// The command is not stored.
    pub async fn create_swarm(&self, place: Place, name: &str) -> anyhow::Result<EventId> {
        let create = command::Create {
            topology_configuration: swarm_events::Json::object(),
            name: name.to_owned(),
            description: None,
            topology: None,
            configuration: swarm_events::Json::object(),
            created_by: None,
            body_sha256: None,
        };
        let subject = Subject::Command(place, CommandVerb::Create);
        self.send(&subject, place.swarm.0, create.into()).await
    }

    /// Asks for a task's end.
    ///
    /// # Errors
    /// The command is not stored.
    pub async fn cancel(&self, place: Place, task: TaskId) -> anyhow::Result<EventId> {
        let cancel = command::Cancel {
            task_id: task,
            reason: Some("chaos".to_owned()),
        };
        let subject = Subject::Command(place, CommandVerb::Cancel);
        self.send(&subject, task.0, cancel.into()).await
    }

    async fn send(&self, subject: &Subject, about: Uuid, body: Body) -> anyhow::Result<EventId> {
        let (id, message) = message(subject, about, body)?;
        match self.log.append(vec![message]).await.into_iter().next() {
            Some(Ok(_)) => Ok(id),
            Some(Err(error)) => Err(error.into()),
            None => bail!("no outcome for {subject}"),
        }
    }
}

/// A swarm of its own, on any partition that `wanted` takes.
pub fn new_place(
    org: swarm_events::OrgId,
    wanted: impl Fn(swarm_events::Partition) -> bool,
) -> Place {
    loop {
        let place = Place::new(org, SwarmId(Uuid::now_v7()));
        if wanted(place.partition) {
            return place;
        }
    }
}

/// A message from a client, with the id under which the server knows a repeat.
///
/// # Errors
/// The body cannot be written as JSON.
pub fn message(subject: &Subject, about: Uuid, body: Body) -> anyhow::Result<(EventId, Message)> {
    let id = EventId(Uuid::now_v7());
    let micros = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let time = Timestamp::from_micros(i64::try_from(micros)?);
    let source = Source::Client("/chaos".to_owned());
    let event = Event::new(id, source, time, subject, about, body);
    let message = Message {
        subject: subject.to_string(),
        payload: event.to_json()?.into(),
        message_id: Some(id.to_string()),
        fence: None,
    };
    Ok((id, message))
}

/// A submission of one task.
///
/// # Errors
/// The payload cannot be written as JSON.
pub fn submission(place: Place, payload: serde_json::Value) -> anyhow::Result<(TaskId, Message)> {
    let task = TaskId(Uuid::now_v7());
    let submitted = Submitted {
        hand_to: None,
        origin: None,
        required_role: None,
        task_type: "chaos".to_owned(),
        payload: payload.into(),
        priority: swarm_events::task::PRIORITY_DEFAULT,
        required_capabilities: Vec::new(),
        max_attempts: Some(crate::load::ATTEMPTS_MAX),
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
    let subject = Subject::Task(place, TaskVerb::Submitted, None);
    let (_, message) = message(&subject, task.0, submitted.into())?;
    Ok((task, message))
}
