//! Health and coordinator on a real nats-server: a silent agent is suspected, failed and removed; a closed connection is
//! noticed much sooner.

use std::time::Duration;

use futures::StreamExt;
use swarm_events::{
    AgentId, Body, Event, EventId, Input, InstanceId, Json, KeyId, OrgId, Place, Subject, SwarmId,
    Timestamp, UserId,
    agent::{AgentSpec, HostName, LivenessRule, SpawnClaimed},
    command::{AddAgent, Create, CreateOrg, Join},
    envelope::Source,
    read,
    subject::{self, AgentVerb, CommandVerb, connection_name, filter, host_connection_name},
    swarm::{Heartbeat, HostBeat, ProcessFigures},
};
use swarm_log::{
    Log, Message, Tailed,
    connect::{ConnectSettings, Credentials, connect},
    definitions::Provision,
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
};
use swarm_runtime::LoopSettings;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Far more than anything here takes; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(20);
const INTERVAL_MS: u64 = 500;

struct Installation {
    log: JetStreamLog,
    place: Place,
    stop: CancellationToken,
    services: Vec<JoinHandle<()>>,
}

impl Installation {
    async fn start(settings: ConnectSettings, notices: Option<ConnectSettings>) -> Self {
        let connection = connect(settings).await.expect("the server is there");
        let context = async_nats::jetstream::new(connection.client().clone());
        provision(&context, &Provision::default())
            .await
            .expect("provisioned");
        let log = JetStreamLog::open(&connection, LogSettings::new(Durability::Speed, 1))
            .await
            .expect("open");
        let stop = CancellationToken::new();
        let loops = || LoopSettings::all(InstanceId(Uuid::now_v7()));
        let (a, b) = (log.clone(), log.clone());
        let (settings_a, settings_b) = (loops(), loops());
        let (stop_a, stop_b) = (stop.clone(), stop.clone());
        let services = vec![
            tokio::spawn(async move {
                let ended = swarm_coordinator::run(a, settings_a, stop_a).await;
                ended.expect("the coordinator ends by its stop");
            }),
            tokio::spawn(async move {
                let ended = swarm_health::run_with_notices(b, settings_b, notices, stop_b).await;
                ended.expect("health ends by its stop");
            }),
        ];
        let place = Place::new(OrgId(Uuid::now_v7()), SwarmId(Uuid::now_v7()));
        let installation = Self {
            log,
            place,
            stop,
            services,
        };
        let org = place.org;
        let home = swarm_events::Partition::of(org.0);
        installation
            .send(
                Subject::OrgCommand(home, org, CommandVerb::CreateOrg),
                org.0,
                CreateOrg {
                    name: "Acme".into(),
                    user_id: UserId(Uuid::now_v7()),
                    user_name: "Ada".into(),
                    key_id: KeyId(Uuid::now_v7()),
                    key_sha256: "ab".repeat(32),
                },
            )
            .await;
        // The swarm's partition must have met the organization: its key is the last of it.
        installation
            .until(|event| matches!(event.body, Body::OrgKeyCreated(_)))
            .await;
        let configuration = format!(r#"{{"heartbeat_interval_ms": {INTERVAL_MS}}}"#);
        installation
            .command(
                CommandVerb::Create,
                place.swarm.0,
                Create {
                    topology_configuration: swarm_events::Json::object(),
                    name: "s".into(),
                    description: None,
                    topology: None,
                    configuration: Json::parse(&configuration).expect("JSON"),
                    created_by: None,
                    body_sha256: None,
                },
            )
            .await;
        installation
    }

    async fn send(&self, subject: Subject, about: Uuid, body: impl Into<Body>) {
        let now = Timestamp::from(chrono::Utc::now());
        let source = Source::Client("test".into());
        let event = Event::new(EventId(Uuid::now_v7()), source, now, &subject, about, body);
        let message = Message {
            subject: subject.to_string(),
            payload: event.to_json().expect("JSON").into(),
            message_id: None,
            fence: None,
        };
        for stored in self.log.append(vec![message]).await {
            stored.expect("stored");
        }
    }
    async fn command(&self, verb: CommandVerb, about: Uuid, body: impl Into<Body>) {
        self.send(Subject::Command(self.place, verb), about, body)
            .await;
    }
    async fn join(&self, agent: AgentId, instance: InstanceId) {
        let join = Join {
            instance,
            agent_type: "exec".into(),
            agent_name: None,
            capabilities: Vec::new(),
            slots: None,
            waiting: None,
            metadata: Json::object(),
            spawn: None,
        };
        self.command(CommandVerb::Join, agent.0, join).await;
        self.until(|event| matches!(event.body, Body::AgentJoined(_)) && event.about == agent.0)
            .await;
    }

    /// The first event of the log that is wanted.
    async fn until(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        let mut tail = self.log.tail(filter::all(), 1);
        let found = timeout(PATIENCE, async {
            while let Some(item) = tail.next().await {
                let Ok(Tailed::Message(message)) = item else {
                    continue;
                };
                let time = Timestamp::from_micros(message.time_micros);
                let input = read(message.sequence, time, &message.subject, &message.payload);
                match input {
                    Input::Event(recorded) if wanted(&recorded.event) => return recorded.event,
                    Input::Event(_) => {}
                    Input::Unreadable(message) => panic!("unreadable: {message:?}"),
                }
            }
            panic!("the tail ended");
        });
        found.await.expect("in time")
    }

    async fn end(self) {
        self.stop.cancel();
        for service in self.services {
            timeout(PATIENCE, service)
                .await
                .expect("in time")
                .expect("no panic");
        }
    }
}

fn beat(instance: InstanceId, counter: u64) -> Heartbeat {
    Heartbeat {
        messages_read: 0,
        messages_sent: 0,
        instance,
        incarnation: 1,
        counter,
        status: "idle".into(),
        cpu_centipercent: 0,
        memory_kib: counter,
        active_connections: 1,
        queue_depth: 0,
        current_tasks: Vec::new(),
        metadata: Json::object(),
    }
}

/// Beats five times an interval until it is told to stop.
fn beating(
    client: async_nats::Client,
    place: Place,
    agent: AgentId,
    instance: InstanceId,
) -> oneshot::Sender<()> {
    let (stop, mut stopped) = oneshot::channel();
    tokio::spawn(async move {
        let subject = Subject::Heartbeat(place, agent).to_string();
        let mut ticks = tokio::time::interval(Duration::from_millis(INTERVAL_MS / 5));
        for counter in 1.. {
            tokio::select! {
                _ = &mut stopped => return,
                _ = ticks.tick() => {}
            }
            let payload = serde_json::to_vec(&beat(instance, counter)).expect("JSON");
            if client
                .publish(subject.clone(), payload.into())
                .await
                .is_err()
            {
                return;
            }
        }
    });
    stop
}

/// What each heartbeat took is told, by quantile: more than nothing and less than anybody's patience.
fn assert_told(text: &str) {
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    };
    // Two agents were heard, or there were no sample of them.
    assert!(value("swarm_health_heartbeat_seconds_count") >= 2.0);
    for quantile in ["0.5", "0.99"] {
        let took = value(&format!(
            "swarm_health_heartbeat_seconds{{quantile=\"{quantile}\"}}"
        ));
        assert!(took > 0.0 && took < PATIENCE.as_secs_f64(), "{took}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_is_suspected_failed_and_removed() {
    let metrics = swarm_runtime::probes::metrics_recorder();
    let nats = swarm_servers::testing::nats().await;
    let installation = Installation::start(ConnectSettings::new(&nats.url, "test"), None).await;
    let (silent, lively) = (AgentId(Uuid::now_v7()), AgentId(Uuid::now_v7()));
    let (first, second) = (InstanceId(Uuid::now_v7()), InstanceId(Uuid::now_v7()));
    let client = installation.log.client().clone();
    let stop = beating(client.clone(), installation.place, silent, first);
    let _lively = beating(client, installation.place, lively, second);
    installation.join(silent, first).await;
    installation.join(lively, second).await;
    // Both are heard: the sample says so.
    let sampled = installation
        .until(|event| matches!(&event.body, Body::SwarmSampled(s) if s.agents.len() == 2))
        .await;
    let Body::SwarmSampled(sampled) = sampled.body else {
        panic!("a sample")
    };
    assert!(sampled.agents[&silent].memory_kib > 0);
    assert_told(&metrics.render());

    stop.send(()).expect("it beats");
    let failed = installation
        .until(|event| matches!(event.body, Body::AgentFailed(_)))
        .await;
    assert_eq!(failed.about, silent.0);
    let Body::AgentFailed(failed) = failed.body else {
        panic!("a verdict")
    };
    assert_eq!(failed.evidence.rule, LivenessRule::Silence);
    assert!(
        failed.evidence.age_ms > 4 * INTERVAL_MS && failed.evidence.last_heartbeat_at.is_some()
    );
    let removed = installation
        .until(|event| matches!(event.body, Body::AgentRemoved(_)))
        .await;
    assert_eq!(removed.about, silent.0);
    // It was suspected first.
    let suspected = installation
        .until(|event| matches!(event.body, Body::AgentSuspected(_)))
        .await;
    assert_eq!(suspected.about, silent.0);
    installation.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_costs_no_agent() {
    let mut nats = swarm_servers::testing::nats().await;
    let installation = Installation::start(ConnectSettings::new(&nats.url, "test"), None).await;
    let (agent, instance) = (AgentId(Uuid::now_v7()), InstanceId(Uuid::now_v7()));
    let _beats = beating(
        installation.log.client().clone(),
        installation.place,
        agent,
        instance,
    );
    installation.join(agent, instance).await;
    installation
        .until(|event| matches!(event.body, Body::SwarmSampled(_)))
        .await;
    nats.kill();
    // The length of the outage is what is tested: longer than the agent would be given if it counted.
    let outage = Duration::from_millis(5 * INTERVAL_MS);
    tokio::time::sleep(outage).await;
    nats.restart().await;
    let mut state = installation.log.connection().watch();
    let back = timeout(PATIENCE, state.wait_for(|state| state.connected)).await;
    back.expect("in time").expect("the client lives");
    // Another one joins and falls silent: by the time that it is found, the first would have been.
    let (silent, other) = (AgentId(Uuid::now_v7()), InstanceId(Uuid::now_v7()));
    installation.join(silent, other).await;
    let failed = installation
        .until(|event| matches!(event.body, Body::AgentFailed(_)))
        .await;
    assert_eq!(failed.about, silent.0);
    installation.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_is_noticed_before_any_silence() {
    let (nats, authority) = swarm_servers::testing::nats_with_auth().await;
    let with = |name: &str, creds: String| {
        let mut settings = ConnectSettings::new(&nats.url, name);
        settings.creds = Some(Credentials::Text(creds));
        settings
    };
    let all = swarm_servers::Permissions::all();
    let mint = |name: &str| authority.mint(name, &all).expect("minted");
    let system = authority.mint_system().expect("minted");
    let installation =
        Installation::start(with("test", mint("admin")), Some(with("health", system))).await;
    let (agent, instance) = (AgentId(Uuid::now_v7()), InstanceId(Uuid::now_v7()));
    let name = connection_name(installation.place.swarm, agent, instance);
    let connection = connect(with(&name, mint("agent")))
        .await
        .expect("connected");
    let stop = beating(
        connection.client().clone(),
        installation.place,
        agent,
        instance,
    );
    installation.join(agent, instance).await;
    installation
        .until(|event| matches!(event.body, Body::SwarmSampled(_)))
        .await;
    stop.send(()).expect("it beats");
    connection.client().drain().await.expect("closed");
    drop(connection);
    let failed = installation
        .until(|event| matches!(event.body, Body::AgentFailed(_)))
        .await;
    let Body::AgentFailed(failed) = failed.body else {
        panic!("a verdict")
    };
    assert_eq!(failed.evidence.rule, LivenessRule::Disconnected);
    assert!(
        failed.evidence.age_ms < 2 * INTERVAL_MS,
        "{:?}",
        failed.evidence
    );
    installation.end().await;
}

/// What a host says of an agent's process.
async fn host_says(
    installation: &Installation,
    host: InstanceId,
    agent: AgentId,
    verb: AgentVerb,
    body: impl Into<Body>,
) {
    let now = Timestamp::from(chrono::Utc::now());
    let subject = Subject::Agent(installation.place, verb, agent);
    let id = EventId(Uuid::now_v7());
    let event = Event::new(id, Source::Host(host), now, &subject, agent.0, body);
    let message = Message {
        subject: subject.to_string(),
        payload: event.to_json().expect("JSON").into(),
        message_id: None,
        fence: None,
    };
    for stored in installation.log.append(vec![message]).await {
        stored.expect("stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_beats_for_its_agents_and_its_closed_connection_is_its_loss() {
    let (nats, authority) = swarm_servers::testing::nats_with_auth().await;
    let with = |name: &str, creds: String| {
        let mut settings = ConnectSettings::new(&nats.url, name);
        settings.creds = Some(Credentials::Text(creds));
        settings
    };
    let all = swarm_servers::Permissions::all();
    let mint = |name: &str| authority.mint(name, &all).expect("minted");
    let system = authority.mint_system().expect("minted");
    let installation =
        Installation::start(with("test", mint("admin")), Some(with("health", system))).await;
    let (agent, process) = (AgentId(Uuid::now_v7()), InstanceId(Uuid::now_v7()));
    let host = InstanceId(Uuid::now_v7());
    let name = HostName {
        instance: host,
        name: "h".into(),
    };
    let spec = serde_json::json!({"agent_type": "exec", "adapter": "exec", "command": ["true"]});
    let spec: AgentSpec = serde_json::from_value(spec).expect("a spec");
    let add = AddAgent {
        spec,
        body_sha256: None,
    };
    installation
        .command(CommandVerb::AddAgent, agent.0, add)
        .await;
    let requested = installation
        .until(|event| matches!(event.body, Body::AgentSpawnRequested(_)))
        .await;
    let Body::AgentSpawnRequested(requested) = requested.body else {
        panic!("a request")
    };
    let spawn = requested.spawn;
    let claimed = SpawnClaimed {
        spawn,
        host: name.clone(),
    };
    host_says(&installation, host, agent, AgentVerb::SpawnClaimed, claimed).await;
    let join = Join {
        instance: process,
        agent_type: "exec".into(),
        agent_name: None,
        capabilities: Vec::new(),
        slots: None,
        waiting: None,
        metadata: Json::object(),
        spawn: Some(spawn),
    };
    installation.command(CommandVerb::Join, agent.0, join).await;
    installation
        .until(|event| matches!(event.body, Body::AgentJoined(_)))
        .await;
    // The host and the agent beat; the sample has the host's figures.
    let connection = connect(with(&host_connection_name(host), mint("host")))
        .await
        .expect("connected");
    let (end, mut ended) = oneshot::channel::<()>();
    let client = connection.client().clone();
    let beats = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for counter in 1.. {
            tokio::select! {
                _ = &mut ended => return,
                _ = ticks.tick() => {}
            }
            let figures = ProcessFigures {
                cpu_centipercent: 77,
                memory_kib: 7_777_777,
                active_connections: 7,
                processes: 2,
            };
            let beat = HostBeat {
                host,
                name: "h".into(),
                counter,
                room: 1,
                agents: [(agent, figures)].into(),
            };
            let payload = serde_json::to_vec(&beat).expect("JSON");
            let sent = client
                .publish(subject::host_beat(host), payload.into())
                .await;
            sent.expect("sent");
        }
    });
    let client = installation.log.client().clone();
    let _beats = beating(client, installation.place, agent, process);
    installation
        .until(|event| match &event.body {
            Body::SwarmSampled(sampled) => sampled
                .agents
                .get(&agent)
                .is_some_and(|sample| sample.memory_kib == 7_777_777),
            _ => false,
        })
        .await;
    end.send(()).expect("it beats");
    beats.await.expect("no panic");
    connection.client().drain().await.expect("closed");
    drop(connection);
    let failed = installation
        .until(|event| matches!(event.body, Body::AgentHostFailed(_)))
        .await;
    assert_eq!(failed.about, agent.0);
    let Body::AgentHostFailed(failed) = failed.body else {
        panic!("a verdict")
    };
    assert_eq!((failed.spawn, failed.host), (spawn, name));
    assert_eq!(failed.evidence.rule, LivenessRule::Disconnected);
    assert!(failed.evidence.last_heartbeat_at.is_some() && failed.evidence.age_ms > 500);
    installation.end().await;
}
