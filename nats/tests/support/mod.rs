//! Logs and messages for tests.
#![allow(dead_code, unused_macros)] // each test binary uses its part

use futures::StreamExt;
use swarm_log::{
    Fence, Log, Message, StoredMessage, Tailed,
    connect::{ConnectSettings, Connection, connect},
    definitions::Provision,
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
    simulated::{SimulatedLog, SimulatedSettings},
};
use swarm_servers::testing::{TestNats, TestNatsCluster, nats_cluster, nats_with};

/// Runs each test, a function of a [`Fixture`], on every implementation of the log.
macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod simulated {
            $(#[tokio::test] async fn $test() { super::$test(super::support::simulated(false)).await; })+
        }
        mod simulated_cluster {
            $(#[tokio::test] async fn $test() { super::$test(super::support::simulated(true)).await; })+
        }
        mod jetstream_speed {
            $(#[tokio::test] async fn $test() { super::$test(super::support::jetstream(swarm_log::jetstream::Durability::Speed).await).await; })+
        }
        mod jetstream_always {
            $(#[tokio::test] async fn $test() { super::$test(super::support::jetstream(swarm_log::jetstream::Durability::Always).await).await; })+
        }
        mod jetstream_cluster {
            $(#[tokio::test] async fn $test() { super::$test(super::support::jetstream_cluster().await).await; })+
        }
    };
}

/// A log and what keeps its server alive.
pub struct Fixture<L> {
    pub log: L,
    pub server: Server,
}

pub enum Server {
    None,
    Single(Box<TestNats>),
    Cluster(Box<TestNatsCluster>),
}

pub fn simulated(cluster: bool) -> Fixture<SimulatedLog> {
    let settings = SimulatedSettings {
        cluster,
        first_sequence: 1_000,
        ..SimulatedSettings::default()
    };
    Fixture {
        log: SimulatedLog::new(settings),
        server: Server::None,
    }
}

pub async fn jetstream(durability: Durability) -> Fixture<JetStreamLog> {
    let server = server(durability).await;
    let log = open(&server.url, durability, &Provision::default()).await;
    Fixture {
        log,
        server: Server::Single(Box::new(server)),
    }
}

pub async fn jetstream_cluster() -> Fixture<JetStreamLog> {
    let server = nats_cluster().await;
    let provision = Provision {
        replicas: 3,
        max_bytes: 64 * 1024 * 1024,
        ..Provision::default()
    };
    let log = open(&server.url(), Durability::Always, &provision).await;
    Fixture {
        log,
        server: Server::Cluster(Box::new(server)),
    }
}

pub async fn server(durability: Durability) -> TestNats {
    nats_with(|settings| {
        settings.durability = match durability {
            Durability::Always => swarm_servers::Durability::Always,
            Durability::Speed => swarm_servers::Durability::Speed,
        };
    })
    .await
}

pub async fn connection(url: &str) -> Connection {
    connect(ConnectSettings::new(url, "test"))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A log that other processes can share.
pub trait Shared: Log {
    /// The same log as seen by the process `name`.
    async fn as_process(&self, name: &str) -> Self;

    /// Breaks what this process follows, once.
    async fn interrupt(&self, name: &str);
}

impl Shared for SimulatedLog {
    async fn as_process(&self, name: &str) -> Self {
        self.handle(name)
    }

    async fn interrupt(&self, name: &str) {
        self.interrupt_tails(name);
    }
}

impl Shared for JetStreamLog {
    async fn as_process(&self, _: &str) -> Self {
        let info = self.client().server_info();
        let connection = connection(&format!("nats://{}:{}", info.host, info.port)).await;
        JetStreamLog::open(&connection, LogSettings::new(Durability::Always, 1))
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn interrupt(&self, _: &str) {
        let mut watch = self.connection().watch();
        let losses = watch.borrow().losses;
        self.client()
            .force_reconnect()
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        watch
            .wait_for(|state| state.losses > losses && state.connected)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Provisions and opens the log on a connection of its own.
pub async fn open(url: &str, durability: Durability, settings: &Provision) -> JetStreamLog {
    let connection = connection(url).await;
    let context = async_nats::jetstream::new(connection.client().clone());
    provision(&context, settings)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let replicas = settings.replicas;
    JetStreamLog::open(&connection, LogSettings::new(durability, replicas))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// An event subject of the test's swarm.
pub fn subject(rest: &str) -> String {
    format!("swarm.evt.07.0190-org.0190-swarm.{rest}")
}

pub fn message(subject: &str, body: &str) -> Message {
    Message {
        subject: subject.to_owned(),
        payload: body.to_owned().into(),
        message_id: None,
        fence: None,
    }
}

/// `message` on condition that the last message of `subject` has `sequence`.
pub fn under(message: Message, subject: &str, sequence: u64) -> Message {
    Message {
        fence: Some(Fence {
            subject: subject.into(),
            sequence,
        }),
        ..message
    }
}

/// Everything that a tail yields up to the message at `last`.
pub async fn messages_until<L: Log>(
    log: &L,
    filters: Vec<String>,
    from: u64,
    last: u64,
) -> Vec<StoredMessage> {
    let mut tail = log.tail(filters, from);
    let mut messages = Vec::new();
    while let Some(item) = tail.next().await {
        if let Tailed::Message(message) = item.unwrap_or_else(|error| panic!("{error}")) {
            let sequence = message.sequence;
            messages.push(message);
            if sequence >= last {
                break;
            }
        }
    }
    messages
}
