//! A nats-server, a swarm on it, hosts, and the words of the coordinator.

use std::{path::Path, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use swarm_agent_host::{Allow, HostError, HostSettings, HostStatus, Mint};
use swarm_events::{
    AgentId, Body, Event, EventId, Input, InstanceId, OrgId, SwarmId, Timestamp,
    agent::{Exited, Launched, SpawnReason, SpawnRequested, StopThen, Stopping},
    envelope::{Decided, Source},
    read,
    subject::{AgentVerb, Place, Service, Subject, agent_log_tail},
};
use swarm_log::{
    Log, LogError, Message, Tailed,
    connect::{ConnectSettings, connect},
    definitions::Provision,
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
};
use swarm_servers::testing::{TestNats, nats};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Far more than anything here takes; reached only when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What a process gets unless a test says otherwise.
pub const GRACE_MS: u64 = 5_000;

pub struct Ground {
    pub nats: TestNats,
    pub log: JetStreamLog,
    pub place: Place,
    pub dir: tempfile::TempDir,
    tail: BoxStream<'static, Result<Tailed, LogError>>,
}

pub async fn open(settings: ConnectSettings) -> JetStreamLog {
    let connection = connect(settings).await.expect("the server is there");
    JetStreamLog::open(&connection, LogSettings::new(Durability::Speed, 1))
        .await
        .expect("open")
}

impl Ground {
    pub async fn new() -> Self {
        let nats = nats().await;
        let settings = ConnectSettings::new(&nats.url, "test");
        Self::on(nats, settings).await
    }

    pub async fn on(nats: TestNats, settings: ConnectSettings) -> Self {
        let connection = connect(settings.clone()).await.expect("there");
        let context = async_nats::jetstream::new(connection.client().clone());
        provision(&context, &Provision::default())
            .await
            .expect("provisioned");
        let log = open(settings).await;
        let tail = log.tail(vec!["swarm.evt.>".to_owned()], 1);
        Self {
            nats,
            log,
            tail,
            place: Place::new(OrgId(Uuid::now_v7()), SwarmId(Uuid::now_v7())),
            dir: tempfile::tempdir().expect("a folder"),
        }
    }

    pub fn settings(&self, name: &str) -> HostSettings {
        let none: Mint = Arc::new(|_, _| Ok(None));
        HostSettings {
            instance: InstanceId(Uuid::now_v7()),
            name: name.to_owned(),
            allow: Allow::new("*", ""),
            agents_max: 100,
            user: None,
            dir: self.dir.path().join("agents"),
            program: "/no/such/swarm".into(),
            nats_url: self.nats.url.clone(),
            api_url: None,
            mint: none,
            cgroups: true,
            whole_process: false,
            status: HostStatus::default(),
        }
    }

    /// A host with a connection of its own.
    pub async fn host(&self, settings: HostSettings) -> Host {
        let log = open(ConnectSettings::new(&self.nats.url, "host")).await;
        Host::start(log, settings)
    }

    /// Writes as the coordinator does.
    pub async fn say(&self, verb: AgentVerb, agent: AgentId, body: impl Into<Body>) -> u64 {
        let subject = Subject::Agent(self.place, verb, agent);
        let service = match verb {
            AgentVerb::HostFailed => Service::Health,
            _ => Service::Coordinator,
        };
        let source = Source::Service(service, InstanceId(Uuid::from_u128(1)));
        let id = EventId(Uuid::now_v7());
        let now = Timestamp::from(chrono::Utc::now());
        let mut event = Event::new(id, source, now, &subject, agent.0, body);
        event.decided = Some(Decided {
            cause_sequence: 1,
            epoch: 1,
            ordinal: 1,
            decider_version: 1,
        });
        let message = Message {
            subject: subject.to_string(),
            payload: event.to_json().expect("JSON").into(),
            message_id: None,
            fence: None,
        };
        let stored = self.log.append(vec![message]).await.remove(0);
        stored.expect("stored").sequence
    }

    /// Asks for a process with this spec.
    pub async fn request_spec(&self, agent: AgentId, spawn: u64, spec: serde_json::Value) {
        let mut spec = spec;
        spec["agent_type"] = "t".into();
        if spec.get("adapter").is_none() {
            spec["adapter"] = "process".into();
        }
        let request = SpawnRequested {
            spawn,
            reason: SpawnReason::Added,
            crashes: 0,
            spec: serde_json::from_value(spec).expect("a spec"),
            grace_ms: GRACE_MS,
        };
        self.say(AgentVerb::SpawnRequested, agent, request).await;
    }

    /// Asks for a shell that runs this script.
    pub async fn request(&self, agent: AgentId, spawn: u64, script: &str) {
        let spec = serde_json::json!({"command": ["sh", "-c", script]});
        self.request_spec(agent, spawn, spec).await;
    }

    pub async fn stop(&self, agent: AgentId, spawn: u64, grace_ms: u64) {
        let stopping = Stopping {
            incarnation: 0,
            spawn,
            grace_ms,
            then: StopThen::Remove,
            reason: "by order".into(),
        };
        self.say(AgentVerb::Stopping, agent, stopping).await;
    }

    /// The next event that is wanted; those before it are passed over.
    pub async fn next<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                match self.tail.next().await {
                    Some(Ok(Tailed::Message(message))) => {
                        let time = Timestamp::from_micros(message.time_micros);
                        let read =
                            read::read(message.sequence, time, &message.subject, &message.payload);
                        match read {
                            Input::Event(recorded) => {
                                if let Some(found) = wanted(&recorded.event) {
                                    return found;
                                }
                            }
                            Input::Unreadable(what) => panic!("unreadable: {what:?}"),
                        }
                    }
                    Some(Ok(_)) => {}
                    other => panic!("the tail ended: {other:?}"),
                }
            }
        });
        found.await.expect("what is waited for comes")
    }

    pub async fn launched(&mut self, agent: AgentId) -> Launched {
        self.next(|event| match &event.body {
            Body::AgentLaunched(launched) if event.about == agent.0 => Some(launched.clone()),
            _ => None,
        })
        .await
    }

    pub async fn exited(&mut self, agent: AgentId) -> Exited {
        self.next(|event| match &event.body {
            Body::AgentExited(exited) if event.about == agent.0 => Some(exited.clone()),
            _ => None,
        })
        .await
    }

    /// Until the agent has written the line `up`, by what its host keeps.
    pub async fn up(&self, agent: AgentId) {
        let subject = agent_log_tail(self.place.org, self.place.swarm, agent);
        let client = self.log.client();
        let began = std::time::Instant::now();
        loop {
            let asked = client.request(subject.clone(), "{}".into()).await;
            if let Ok(answer) = asked
                && String::from_utf8_lossy(&answer.payload).contains("\"up\"")
            {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "it comes up");
            tokio::task::yield_now().await;
        }
    }

    /// All events of the log so far.
    pub async fn all(&self) -> Vec<Event> {
        let mut tail = self.log.tail(vec!["swarm.evt.>".to_owned()], 1);
        let mut all = Vec::new();
        loop {
            match timeout(PATIENCE, tail.next()).await.expect("comes") {
                Some(Ok(Tailed::Message(message))) => {
                    let time = Timestamp::from_micros(message.time_micros);
                    if let Input::Event(recorded) =
                        read::read(message.sequence, time, &message.subject, &message.payload)
                    {
                        all.push(recorded.event);
                    }
                }
                Some(Ok(Tailed::CaughtUp)) => return all,
                Some(Ok(_)) => {}
                other => panic!("the tail ended: {other:?}"),
            }
        }
    }

    /// Processes on this machine, dead ones too, that are of this test's swarm: their environment says so, or their group
    /// is one that was launched here.
    pub async fn left(&self) -> Vec<String> {
        let groups: Vec<i32> = self
            .all()
            .await
            .iter()
            .filter_map(|event| match &event.body {
                Body::AgentLaunched(launched) => i32::try_from(launched.pid).ok(),
                _ => None,
            })
            .collect();
        let mark = format!("SWARM_ORG_ID={}", self.place.org);
        let mut left = Vec::new();
        for process in procfs::process::all_processes().expect("/proc").flatten() {
            let Ok(stat) = process.stat() else { continue };
            let environment = std::fs::read(format!("/proc/{}/environ", stat.pid));
            let marked = environment.is_ok_and(|bytes| {
                bytes
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == mark.as_bytes())
            });
            if marked || groups.contains(&stat.pgrp) {
                left.push(format!("{} {} {}", stat.pid, stat.state, stat.comm));
            }
        }
        left
    }

    /// Nothing of this swarm runs or waits to be reaped, and no folder of an agent is there.
    pub async fn assert_clean(&self) {
        let left = self.left().await;
        assert!(left.is_empty(), "left in the process table: {left:?}");
        for host in folders(&self.dir.path().join("agents")) {
            let agents = folders(&host);
            assert!(agents.is_empty(), "left on the disk: {agents:?}");
        }
    }
}

fn folders(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

pub fn agent() -> AgentId {
    AgentId(Uuid::now_v7())
}

pub struct Host {
    pub instance: InstanceId,
    pub status: HostStatus,
    stop: CancellationToken,
    task: JoinHandle<Result<(), HostError>>,
}

impl Host {
    pub fn start(log: JetStreamLog, settings: HostSettings) -> Self {
        let (stop, status) = (CancellationToken::new(), settings.status.clone());
        let instance = settings.instance;
        let task = tokio::spawn(swarm_agent_host::run(log, settings, stop.clone()));
        Self {
            instance,
            status,
            stop,
            task,
        }
    }

    /// Tells it to go and waits until it has.
    pub async fn stop(self) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.task).await.expect("it ends");
        ended.expect("it does not panic").expect("it ends well");
    }
}
