//! A gateway with the real deciding loops on a real nats-server, and with PostgreSQL and the projector where a test reads.
#![allow(dead_code)] // each test binary uses its part

pub mod hosts;
pub mod talk;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use swarm_coordinator_core::Coordinator;
use swarm_distributor_core::Distributor;
use swarm_events::{
    AgentId, Body, Event, EventId, InstanceId, KeyId, OrgId, Place, Subject, UserId,
    command::{CreateKey, CreateOrg, Join},
    envelope::Source,
    org::Role,
    subject::{CommandVerb, Partition, TaskVerb},
};
use swarm_gateway::{
    Bootstrap, app::App, bootstrap, bus::Bus, fold::keys::hash, port::Port, serve_app,
};
use swarm_log::{
    Log, Message,
    connect::{ConnectSettings, Connection, Credentials, connect},
    definitions::Provision,
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
};
use swarm_projections::{pool, projector, status::ProjectorStatus};
use swarm_runtime::deciding::{self, LoopSettings, NoShell};
use swarm_servers::testing::{TestNats, TestPostgres, nats, nats_with_auth, postgres};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// Nothing here takes nearly as long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Where no PostgreSQL listens.
pub const NO_DATABASE: &str = "postgres://swarm@127.0.0.1:1/swarm";

pub struct Stage {
    pub nats: TestNats,
    pub postgres: Option<TestPostgres>,
    pub log: JetStreamLog,
    pub app: Arc<App>,
    pub url: String,
    pub org: OrgId,
    pub admin: Client,
    pub gateway: JoinHandle<Result<(), swarm_gateway::GatewayError>>,
    _stop: DropGuard,
}

pub async fn open_log(url: &str) -> JetStreamLog {
    open_log_as(url, None).await
}

/// As the user with these credentials, who may make streams.
pub async fn open_log_as(url: &str, creds: Option<String>) -> JetStreamLog {
    let connection = connected(url, creds).await;
    let context = async_nats::jetstream::new(connection.client().clone());
    provision(&context, &Provision::default())
        .await
        .expect("streams");
    JetStreamLog::open(&connection, LogSettings::new(Durability::Speed, 1))
        .await
        .expect("the log")
}

async fn connected(url: &str, creds: Option<String>) -> Connection {
    let settings = ConnectSettings {
        creds: creds.map(Credentials::Text),
        ..ConnectSettings::new(url, "test")
    };
    connect(settings).await.expect("nats-server")
}

/// Runs the deciding services until `stop`.
pub fn decide<L: Log>(log: &L, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    let instance = InstanceId(Uuid::now_v7());
    let coordinator = deciding::run::<Coordinator, _, _>(
        log.clone(),
        NoShell,
        LoopSettings::all(instance),
        stop.clone(),
    );
    let distributor = deciding::run::<Distributor, _, _>(
        log.clone(),
        NoShell,
        LoopSettings::all(instance),
        stop.clone(),
    );
    vec![
        tokio::spawn(async { drop(coordinator.await) }),
        tokio::spawn(async { drop(distributor.await) }),
    ]
}

impl Stage {
    /// Everything but PostgreSQL.
    pub async fn without_database() -> Self {
        Self::start(nats().await, None, None).await
    }
    /// Everything.
    pub async fn whole() -> Self {
        Self::start(nats().await, None, Some(postgres().await)).await
    }
    /// Everything but PostgreSQL, on a nats-server that asks for credentials: the gateway has those of its user, and nothing
    /// beyond.
    pub async fn guarded() -> Self {
        let (nats, authority) = nats_with_auth().await;
        let all = authority.mint("admin", &swarm_servers::Permissions::all());
        let swarm_events::permissions::Permissions {
            publish,
            subscribe,
            responses,
        } = swarm_events::permissions::User::Gateway.permissions();
        let may = swarm_servers::Permissions {
            publish,
            subscribe,
            responses,
        };
        let own = authority.mint("gateway", &may).expect("minted");
        let creds = (all.expect("minted"), own);
        Self::start(nats, Some(creds), None).await
    }

    /// `creds`: those of who may do everything, and the gateway's.
    async fn start(
        nats: TestNats,
        creds: Option<(String, String)>,
        postgres: Option<TestPostgres>,
    ) -> Self {
        let stop = CancellationToken::new();
        let (all, own) = creds.unzip();
        decide(&open_log_as(&nats.url, all.clone()).await, &stop);
        let log = open_log_as(&nats.url, all).await;
        let gateways = match own {
            None => log.clone(),
            own => {
                let connection = connected(&nats.url, own).await;
                let settings = LogSettings::new(Durability::Speed, 1);
                JetStreamLog::open(&connection, settings)
                    .await
                    .expect("the log")
            }
        };
        let database = postgres
            .as_ref()
            .map_or(NO_DATABASE, |postgres| &postgres.url)
            .to_owned();
        if postgres.is_some() {
            let (log, database, stop) = (open_log(&nats.url).await, database.clone(), stop.clone());
            tokio::spawn(async move {
                projector::run(
                    log,
                    &database,
                    projector::Pace::default(),
                    ProjectorStatus::default(),
                    stop,
                )
                .await
            });
        }
        let Bootstrap { org_id, api_key } = bootstrap(log.clone(), "first")
            .await
            .expect("the first organization");
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let pool = pool::reader(&database).expect("a URL");
        let bus = Bus::new(gateways.client().clone());
        let app = Arc::new(
            App::new(
                Port::new(gateways),
                pool,
                recorder.handle(),
                stop.child_token(),
            )
            .with_bus(bus),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mut tail = app.tail.subscribe();
        let gateway = tokio::spawn(serve_app(app.clone(), listener));
        timeout(PATIENCE, tail.wait_for(|tail| tail.caught_up))
            .await
            .expect("in time")
            .expect("alive");
        swarm_log::tls::choose();
        let admin = Client {
            http: reqwest::Client::new(),
            url: url.clone(),
            key: api_key,
        };
        Self {
            nats,
            postgres,
            log,
            app,
            url,
            org: org_id,
            admin,
            gateway,
            _stop: stop.drop_guard(),
        }
    }

    /// A client with another key.
    pub fn client(&self, key: &str) -> Client {
        Client {
            key: key.to_owned(),
            ..self.admin.clone()
        }
    }

    /// Another organization, and its admin.
    pub async fn other_org(&self) -> (OrgId, Client) {
        let (org, key) = (OrgId(Uuid::now_v7()), format!("swk_{}", Uuid::now_v7()));
        let order = CreateOrg {
            name: "other".to_owned(),
            user_id: UserId(Uuid::now_v7()),
            user_name: "admin".to_owned(),
            key_id: KeyId(Uuid::now_v7()),
            key_sha256: hash(&key),
        };
        self.org_command(org, CommandVerb::CreateOrg, order.into(), &key)
            .await;
        (org, self.client(&key))
    }

    /// A client whose key has `role`.
    pub async fn with_role(&self, role: Role) -> Client {
        let key = format!("swk_{}", Uuid::now_v7());
        let user = *self
            .app
            .fold
            .read()
            .organizations()
            .get(self.org)
            .expect("there")
            .users
            .keys()
            .next()
            .expect("an admin");
        let order = CreateKey {
            key_id: KeyId(Uuid::now_v7()),
            user_id: user,
            name: "test".to_owned(),
            role,
            sha256: hash(&key),
        };
        self.org_command(self.org, CommandVerb::CreateKey, order.into(), &key)
            .await;
        self.client(&key)
    }

    async fn org_command(&self, org: OrgId, verb: CommandVerb, body: Body, key: &str) {
        let subject = Subject::OrgCommand(Partition::of(org.0), org, verb);
        self.publish(&subject, org.0, body).await;
        self.eventually(|app| app.fold.read().caller(key).is_some())
            .await;
    }

    /// Publishes as any client of the bus may.
    pub async fn publish(&self, subject: &Subject, about: Uuid, body: Body) -> u64 {
        let source = Source::Client("/test".to_owned());
        let event = Event::new(
            EventId(Uuid::now_v7()),
            source,
            App::now(),
            subject,
            about,
            body,
        );
        self.publish_raw(&subject.to_string(), &event.to_json().expect("JSON"))
            .await
    }
    pub async fn publish_raw(&self, subject: &str, payload: &[u8]) -> u64 {
        let message = Message {
            subject: subject.to_owned(),
            payload: payload.to_vec().into(),
            message_id: None,
            fence: None,
        };
        self.log
            .append(vec![message])
            .await
            .remove(0)
            .expect("stored")
            .sequence
    }

    /// Lets an agent process join, and waits until it has.
    pub async fn join(&self, place: Place, agent: AgentId, instance: InstanceId, name: &str) {
        let join = Join {
            instance,
            agent_type: "exec".to_owned(),
            agent_name: Some(name.to_owned()),
            capabilities: vec![],
            slots: None,
            waiting: None,
            metadata: swarm_events::Json::object(),

            spawn: None,
        };
        self.publish(
            &Subject::Command(place, CommandVerb::Join),
            agent.0,
            join.into(),
        )
        .await;
        let live = |app: &App| {
            let fold = app.fold.read();
            fold.swarm(place.org, place.swarm)
                .is_some_and(|swarm| swarm.agents.contains_key(&agent))
        };
        self.eventually(live).await;
    }

    /// Publishes as that agent.
    pub async fn publish_as_agent(
        &self,
        place: Place,
        agent: AgentId,
        verb: TaskVerb,
        about: Uuid,
        body: Body,
    ) {
        let subject = Subject::Task(place, verb, Some(agent));
        let event = Event::new(
            EventId(Uuid::now_v7()),
            Source::Agent(agent),
            App::now(),
            &subject,
            about,
            body,
        );
        self.publish_raw(&subject.to_string(), &event.to_json().expect("JSON"))
            .await;
    }

    /// Waits until the gateway's fold shows it.
    pub async fn eventually(&self, holds: impl Fn(&App) -> bool) {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        let shown = async {
            while !holds(&self.app) {
                look.tick().await;
            }
        };
        timeout(PATIENCE, shown).await.expect("shown in time");
    }

    /// Creates a swarm.
    pub async fn swarm(&self, body: Value) -> Place {
        let made = self.admin.post("/v1/swarms", &body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        Place::new(self.org, made.id().into())
    }

    /// Where the log ends.
    pub async fn last_sequence(&self) -> u64 {
        self.log.info().await.expect("the log").last_sequence
    }

    /// Nothing has been stored since that sequence but what services write of their own accord.
    pub async fn nothing_came_since(&self, sequence: u64) {
        let mut tail = self.log.tail(vec!["swarm.>".to_owned()], sequence + 1);
        loop {
            let next = timeout(PATIENCE, tail.next()).await.expect("in time");
            match next.expect("open").expect("readable") {
                swarm_log::Tailed::Message(message) => {
                    let subject = &message.subject;
                    let own = subject.starts_with("swarm.ctl.") || subject.ends_with(".measured");
                    assert!(own, "{subject} was stored");
                }
                swarm_log::Tailed::CaughtUp => return,
                _ => {}
            }
        }
    }

    /// Every message of the log so far whose subject matches `filter`.
    pub async fn stored(&self, filter: &str) -> Vec<Value> {
        let mut tail = self.log.tail(vec![filter.to_owned()], 1);
        let mut found = Vec::new();
        loop {
            match timeout(PATIENCE, tail.next())
                .await
                .expect("in time")
                .expect("open")
                .expect("readable")
            {
                swarm_log::Tailed::Message(message) => {
                    found.push(serde_json::from_slice(&message.payload).expect("JSON"));
                }
                swarm_log::Tailed::CaughtUp => return found,
                _ => {}
            }
        }
    }
}

#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub url: String,
    pub key: String,
}

/// What came back.
#[derive(Debug)]
pub struct Came {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}
impl Came {
    pub fn id(&self) -> Uuid {
        self.text("id")
            .parse()
            .unwrap_or_else(|_| panic!("no id in {}", self.body))
    }
    pub fn text(&self, name: &str) -> &str {
        self.body[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {}", self.body))
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }
    pub fn sequence(&self) -> u64 {
        self.header("swarm-seq").parse().expect("a sequence")
    }
    /// It must be a problem with this status, code and field, and name a cure.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str, field: Option<&str>) {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.body
        );
        assert_eq!(self.body["field"].as_str(), field, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert!(
            self.body["type"].is_string()
                && self.body["title"].is_string()
                && self.body["detail"].is_string()
        );
        assert!(
            self.body["cure"]
                .as_str()
                .is_some_and(|cure| !cure.is_empty()),
            "no cure: {}",
            self.body
        );
    }
}

impl Client {
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.key)
            .timeout(PATIENCE)
    }
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Came {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = if status == StatusCode::NO_CONTENT {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        Came {
            status: status.as_u16(),
            headers,
            body,
        }
    }
    pub async fn get(&self, path: &str) -> Came {
        self.send(self.request(Method::GET, path)).await
    }
    pub async fn delete(&self, path: &str) -> Came {
        self.send(self.request(Method::DELETE, path)).await
    }
    pub async fn put(&self, path: &str, body: &Value) -> Came {
        self.send(self.request(Method::PUT, path).json(body)).await
    }
    pub async fn post(&self, path: &str, body: &Value) -> Came {
        self.send(self.request(Method::POST, path).json(body)).await
    }
    pub async fn post_text(&self, path: &str, body: &str) -> Came {
        self.send(self.request(Method::POST, path).body(body.to_owned()))
            .await
    }
    pub async fn post_keyed(&self, path: &str, body: &Value, key: &str) -> Came {
        self.send(
            self.request(Method::POST, path)
                .json(body)
                .header("Idempotency-Key", key),
        )
        .await
    }
}

/// Reads server-sent events until one satisfies `last`: (id, name, data) each.
pub async fn events(
    client: &Client,
    path: &str,
    last_event_id: Option<u64>,
    last: impl Fn(&(u64, String, Value)) -> bool,
) -> Vec<(u64, String, Value)> {
    let mut request = client.request(Method::GET, path);
    if let Some(id) = last_event_id {
        request = request.header("Last-Event-ID", id.to_string());
    }
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut bytes = response.bytes_stream();
    let (mut text, mut found) = (String::new(), Vec::new());
    let reading = async {
        loop {
            let chunk = bytes.next().await.expect("open").expect("readable");
            text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
            while let Some((event, rest)) = text
                .split_once("\n\n")
                .map(|(event, rest)| (event.to_owned(), rest.to_owned()))
            {
                text = rest;
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                };
                let (Some(id), Some(name), Some(data)) =
                    (field("id"), field("event"), field("data"))
                else {
                    continue;
                };
                let told = (
                    id.parse().expect("a sequence"),
                    name.to_owned(),
                    serde_json::from_str(data).expect("JSON"),
                );
                let done = last(&told);
                found.push(told);
                if done {
                    return;
                }
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("the event in time");
    found
}
