//! The connection that an agent, or many agents of one process, speak through.

use std::{sync::Arc, time::Duration};

use async_nats::Event;
use swarm_events::subject::STREAM;
use swarm_log::{
    LogError, StoredMessage,
    connect::{ConnectSettings, Connection, Credentials, connect},
    jetstream::{Durability, JetStreamLog, LogSettings},
};
use tokio::sync::watch;

use crate::{live, resources::Meter};

/// How to reach the bus.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Addresses of nats-server, separated by commas.
    pub nats_url: String,
    /// Credentials, if it asks for them.
    pub creds: Option<Credentials>,
    /// What the server does before it acknowledges; decides how writes are grouped. Speed only: either is right.
    pub durability: Durability,
    /// How long the first connection is tried.
    pub first_connect_wait: Duration,
}

impl LinkSettings {
    /// Settings for the server at `nats_url`, which flushes every write.
    pub fn new(nats_url: impl Into<String>) -> Self {
        Self {
            nats_url: nats_url.into(),
            creds: None,
            durability: Durability::Always,
            first_connect_wait: Duration::from_secs(10),
        }
    }
}

/// An open connection with the log behind it. Clones share it: one client and one grouping writer for all agents of a process.
#[derive(Clone)]
pub struct Link {
    log: JetStreamLog,
    doubts: watch::Receiver<u64>,
    meter: Arc<Meter>,
}

impl Link {
    /// Connects under `name`, which the server shows beside the connection.
    ///
    /// # Errors
    /// When nats-server cannot be reached in time, refuses the credentials, or holds no log.
    pub async fn open(settings: &LinkSettings, name: impl Into<String>) -> Result<Self, LogError> {
        let (doubt, doubts) = watch::channel(0);
        let mut connecting = ConnectSettings::new(&settings.nats_url, name);
        connecting.creds = settings.creds.clone();
        connecting.first_connect_wait = settings.first_connect_wait;
        // Messages were dropped, or may be lost: every agent on this link looks at its subjects.
        connecting.on_event = Some(Arc::new(move |event| {
            if matches!(event, Event::SlowConsumer(_) | Event::Connected) {
                doubt.send_modify(|count| *count += 1);
            }
        }));
        let connection = connect(connecting).await?;
        let stream = async_nats::jetstream::new(connection.client().clone())
            .get_stream(STREAM)
            .await
            .map_err(|error| {
                LogError::Unreachable(format!("stream {STREAM} cannot be read: {error}"))
            })?;
        let replicas = stream.cached_info().config.num_replicas;
        let log = JetStreamLog::open(&connection, LogSettings::new(settings.durability, replicas))
            .await?;
        Ok(Self {
            log,
            doubts,
            meter: Arc::default(),
        })
    }

    /// The log.
    pub fn log(&self) -> &JetStreamLog {
        &self.log
    }

    pub(crate) fn client(&self) -> &async_nats::Client {
        self.log.client()
    }

    pub(crate) fn connection(&self) -> &Connection {
        self.log.connection()
    }

    /// Changes whenever live messages may have been lost.
    pub(crate) fn doubts(&self) -> watch::Receiver<u64> {
        self.doubts.clone()
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The last message of a literal subject by direct get: any replica answers, so on a cluster it may be a little behind.
    pub(crate) async fn last_of(&self, subject: &str) -> Result<Option<StoredMessage>, LogError> {
        let mut state = self.connection().watch();
        let losses = state.borrow().losses;
        if !self.connection().is_connected() {
            return Err(LogError::Unreachable("not connected".to_owned()));
        }
        let request = format!("$JS.API.DIRECT.GET.{STREAM}.{subject}");
        let answer = tokio::select! {
            answer = self.client().request(request, bytes::Bytes::new()) => {
                answer.map_err(|error| LogError::Unreachable(error.to_string()))?
            }
            // The answer went with the connection: its caller asks again.
            _ = state.wait_for(|state| state.losses != losses) => {
                return Err(LogError::Unreachable("the connection was lost".to_owned()));
            }
        };
        match answer.status.map(|status| status.as_u16()) {
            None | Some(200) => live::stored(&answer).map(Some).ok_or_else(|| {
                LogError::Refused(
                    "a direct get was answered without the message's place".to_owned(),
                )
            }),
            Some(404) => Ok(None),
            Some(status) => Err(LogError::Refused(format!(
                "direct get of {subject}: status {status}"
            ))),
        }
    }
}
