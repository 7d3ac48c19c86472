//! A swarm around one agent: a real nats-server, and a coordinator and distributor written by hand.
#![allow(dead_code)] // each test binary uses its part

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use swarm_agent_sdk::{
    Agent, AgentBuilder, AgentError, Credentials, LinkSettings, Stopped, TaskContext, TaskError,
};
use swarm_events::{
    Body, Event, Input, Json, Recorded, Timestamp,
    agent::{Evidence, Failed, Joined, LivenessRule, Profile, Removed},
    configuration::Algorithm,
    envelope::{Decided, Source},
    ids::{AgentId, EventId, InstanceId, OrgId, SwarmId, TaskId},
    permissions::User,
    problem::Problem,
    subject::{AgentVerb, CommandVerb, Place, Service, Subject, SwarmVerb, TaskVerb, filter},
    swarm,
    task::{Assigned, Carried, Then, WithdrawReason, Withdrawn},
};
use swarm_log::{
    Log, LogError, Message, Tailed,
    connect::{ConnectSettings, connect},
    definitions::{self, Provision},
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
};
use swarm_servers::testing::{TestNats, nats, nats_cluster, nats_with, nats_with_auth};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Room for every test, and little enough for three servers on one disk.
const LOG_BYTES: i64 = 256 * 1024 * 1024;
/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Swarm {
    pub nats: Vec<TestNats>,
    url: String,
    durability: Durability,
    pub log: JetStreamLog,
    pub place: Place,
    pub agent: AgentId,
    tail: BoxStream<'static, Result<Tailed, LogError>>,
    /// All that was read from the log so far.
    pub seen: Vec<Recorded>,
    ordinal: AtomicU64,
    /// The agent's.
    pub creds: Option<Credentials>,
    /// Those that may do everything, where credentials are asked for.
    pub all: Option<Credentials>,
}

pub struct Running {
    pub stop: CancellationToken,
    pub ended: JoinHandle<Result<Stopped, AgentError>>,
}

impl Running {
    pub async fn end(self) -> Result<Stopped, AgentError> {
        timeout(PATIENCE, self.ended)
            .await
            .expect("the agent ends")
            .expect("it does not panic")
    }
    pub async fn stop(self) -> Result<Stopped, AgentError> {
        self.stop.cancel();
        self.end().await
    }
}

impl Swarm {
    pub async fn new() -> Self {
        Self::on(vec![nats().await], None, Durability::Speed).await
    }

    /// A swarm on a server that asks who speaks; the agent gets credentials of its own and no more.
    pub async fn with_permissions() -> Self {
        let (nats, authority) = nats_with_auth().await;
        let all = authority
            .mint("test", &swarm_servers::Permissions::all())
            .expect("minted");
        let mut swarm = Self::on(vec![nats], Some(all.clone()), Durability::Speed).await;
        swarm.all = Some(Credentials::Text(all));
        let may = User::Agent(swarm.place, swarm.agent).permissions();
        let may = swarm_servers::Permissions {
            publish: may.publish,
            subscribe: may.subscribe,
            responses: may.responses,
        };
        swarm.creds = Some(Credentials::Text(
            authority.mint("agent", &may).expect("minted"),
        ));
        swarm
    }

    /// A swarm on a server that flushes every write.
    pub async fn durable() -> Self {
        let always = nats_with(|settings| settings.durability = swarm_servers::Durability::Always);
        Self::on(vec![always.await], None, Durability::Always).await
    }

    /// A swarm on three servers.
    pub async fn on_cluster() -> Self {
        Self::on(nats_cluster().await.nodes, None, Durability::Always).await
    }

    async fn on(nats: Vec<TestNats>, creds: Option<String>, durability: Durability) -> Self {
        let urls: Vec<&str> = nats.iter().map(|node| node.url.as_str()).collect();
        let (url, replicas) = (urls.join(","), nats.len());
        let mut settings = ConnectSettings::new(&url, "test");
        settings.creds = creds.map(Credentials::Text);
        let connection = connect(settings).await.expect("connects");
        provision(
            &async_nats::jetstream::new(connection.client().clone()),
            &Provision {
                replicas,
                max_bytes: LOG_BYTES,
                ..Provision::default()
            },
        )
        .await
        .expect("provisions");
        let log = JetStreamLog::open(&connection, LogSettings::new(durability, replicas))
            .await
            .expect("opens");
        let tail = log.tail(filter::all(), 1);
        Self {
            nats,
            url,
            durability,
            log,
            place: Place::new(OrgId(Uuid::now_v7()), SwarmId(Uuid::now_v7())),
            agent: AgentId(Uuid::now_v7()),
            tail,
            seen: Vec::new(),
            ordinal: AtomicU64::new(0),
            creds: None,
            all: None,
        }
    }

    pub fn link(&self) -> LinkSettings {
        LinkSettings {
            durability: self.durability,
            creds: self.creds.clone(),
            ..LinkSettings::new(&self.url)
        }
    }

    pub fn builder(&self) -> AgentBuilder {
        Agent::builder(self.link(), self.place.org, self.place.swarm)
            .id(self.agent)
            .heartbeat_interval(Duration::from_millis(200))
    }

    pub fn run(&self, builder: AgentBuilder) -> Running {
        let stop = CancellationToken::new();
        let run = builder.run(stop.clone());
        let ended = tokio::spawn(async move {
            // A test that waits for the agent's next step shows why none comes.
            run.await
                .inspect_err(|error| eprintln!("the agent ended: {error}"))
        });
        Running { stop, ended }
    }

    /// Runs it and lets it join as incarnation 1.
    pub async fn joined(&mut self, builder: AgentBuilder) -> Running {
        let running = self.run(builder);
        self.let_join(1).await;
        running
    }

    /// Appends one event and answers with its sequence.
    pub async fn append(&self, message: Message) -> u64 {
        self.log
            .append(vec![message])
            .await
            .pop()
            .expect("one answer")
            .expect("it is stored")
            .sequence
    }

    /// An event as a service writes it.
    pub fn decision(
        &self,
        service: Service,
        subject: Subject,
        about: Uuid,
        causation: Option<Uuid>,
        body: impl Into<Body>,
    ) -> Message {
        let ordinal = self.ordinal.fetch_add(1, Ordering::Relaxed) + 1;
        let source = Source::Service(service, InstanceId(Uuid::nil()));
        let id = EventId::of_decision(service.as_str(), 1, ordinal);
        let mut event = Event::new(id, source, Timestamp::from_micros(1), &subject, about, body);
        event.causation = causation;
        event.decided = Some(Decided {
            cause_sequence: 1,
            epoch: 1,
            ordinal,
            decider_version: 1,
        });
        let payload = event.to_json().expect("it is JSON").into();
        Message {
            subject: subject.to_string(),
            payload,
            message_id: None,
            fence: None,
        }
    }

    /// The next thing in the log that `wanted` picks.
    pub async fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Recorded) -> Option<T>,
    ) -> T {
        let search = async {
            loop {
                let tailed = self
                    .tail
                    .next()
                    .await
                    .expect("a tail never ends")
                    .expect("the log is there");
                let Tailed::Message(message) = tailed else {
                    continue;
                };
                let time = Timestamp::from_micros(message.time_micros);
                let input =
                    swarm_events::read(message.sequence, time, &message.subject, &message.payload);
                let Input::Event(recorded) = input else {
                    panic!("unreadable: {input:?}")
                };
                let found = wanted(&recorded);
                self.seen.push(recorded);
                if let Some(found) = found {
                    return found;
                }
            }
        };
        let found = timeout(PATIENCE, search).await;
        found.unwrap_or_else(|_| panic!("{what} did not come; seen: {:#?}", self.seen))
    }

    /// Waits for a join command and answers it. The process that joined.
    pub async fn let_join(&mut self, incarnation: u64) -> InstanceId {
        self.let_join_as(incarnation, true).await.0
    }

    /// The same; `next` also reads on until the answer has been met.
    pub async fn let_join_as(&mut self, incarnation: u64, next: bool) -> (InstanceId, u64) {
        let (id, join, agent) = self
            .until("a join", |r| match &r.event.body {
                Body::Join(join) => Some((r.event.id, join.clone(), AgentId(r.event.about))),
                _ => None,
            })
            .await;
        let joined = Joined {
            incarnation,
            instance: join.instance,
            profile: Profile {
                agent_type: join.agent_type,
                agent_name: join.agent_name.unwrap_or_else(|| "unnamed".to_owned()),
                capabilities: join.capabilities,
                slots: join.slots.unwrap_or(1),
                waiting: join.waiting.unwrap_or(0),
                metadata: join.metadata,
            },
        };
        let subject = Subject::Agent(self.place, AgentVerb::Joined, agent);
        let at = self
            .append(self.decision(Service::Coordinator, subject, agent.0, Some(id.0), joined))
            .await;
        if next {
            self.until("joined", |r| (r.sequence == at).then_some(()))
                .await;
        }
        (join.instance, at)
    }

    pub async fn refuse_join(&mut self, problem: Problem) {
        let (id, sequence) = self
            .until("a join", |r| {
                matches!(r.event.body, Body::Join(_)).then_some((r.event.id, r.sequence))
            })
            .await;
        let refused = swarm::Refused {
            command_id: Some(id.0.into()),
            refused_subject: Subject::Command(self.place, CommandVerb::Join).to_string(),
            refused_seq: sequence,
            count: 1,
            problem,
        };
        let subject = Subject::Swarm(self.place, SwarmVerb::Refused);
        let swarm = self.place.swarm.0;
        self.append(self.decision(Service::Coordinator, subject, swarm, Some(id.0), refused))
            .await;
    }

    pub fn assignment(
        &self,
        task_type: &str,
        payload: Carried,
        incarnation: u64,
    ) -> (TaskId, Message) {
        self.assignment_to(self.agent, task_type, payload, incarnation, 30_000)
    }

    pub fn assignment_to(
        &self,
        agent: AgentId,
        task_type: &str,
        payload: Carried,
        incarnation: u64,
        timeout_ms: u64,
    ) -> (TaskId, Message) {
        let task = TaskId(Uuid::now_v7());
        let assigned = Assigned {
            path: Vec::new(),
            step: swarm_events::task::Step::Work,
            turn: None,
            task_type: task_type.to_owned(),
            payload,
            inputs: None,
            attempt: 1,
            generation: 1,
            incarnation,
            priority: 5,
            timeout_ms,
            algorithm: Algorithm::LeastLoaded,
            candidates: Vec::new(),
            passed_over: BTreeMap::new(),
            affinity: None,
            stolen_from: None,
            queued_at: None,
        };
        let subject = Subject::Task(self.place, TaskVerb::Assigned, Some(agent));
        (
            task,
            self.decision(Service::Distributor, subject, task.0, None, assigned),
        )
    }

    /// Assigns a task with this inline payload; its assignment.
    pub async fn assign(
        &self,
        task_type: &str,
        payload: serde_json::Value,
        incarnation: u64,
    ) -> u64 {
        self.append(
            self.assignment(task_type, Carried::Inline(payload.into()), incarnation)
                .1,
        )
        .await
    }

    pub fn withdrawal(
        &self,
        task: TaskId,
        assignment: u64,
        incarnation: u64,
        force: bool,
    ) -> Message {
        let reason = if force {
            WithdrawReason::Cancelled
        } else {
            WithdrawReason::Steal
        };
        self.withdrawal_for(reason, task, assignment, incarnation, force)
    }

    pub fn withdrawal_for(
        &self,
        reason: WithdrawReason,
        task: TaskId,
        assignment: u64,
        incarnation: u64,
        force: bool,
    ) -> Message {
        let thief = (reason == WithdrawReason::Steal).then(|| AgentId(Uuid::now_v7()));
        let withdrawn = Withdrawn {
            assignment,
            incarnation,
            reason,
            force,
            then: Then::Queue,
            thief,
        };
        let subject = Subject::Task(self.place, TaskVerb::Withdrawn, Some(self.agent));
        self.decision(Service::Distributor, subject, task.0, None, withdrawn)
    }

    pub async fn fail(&self, incarnation: u64) {
        let rule = LivenessRule::Silence;
        let evidence = Evidence {
            rule,
            last_heartbeat_at: None,
            age_ms: 3_000,
            limit_ms: 3_000,
        };
        let subject = Subject::Agent(self.place, AgentVerb::Failed, self.agent);
        let failed = Failed {
            incarnation,
            evidence,
        };
        self.append(self.decision(Service::Health, subject, self.agent.0, None, failed))
            .await;
    }

    pub async fn remove(&self, incarnation: u64, reason: &str) {
        let subject = Subject::Agent(self.place, AgentVerb::Removed, self.agent);
        let removed = Removed {
            incarnation,
            reason: reason.to_owned(),
        };
        self.append(self.decision(Service::Coordinator, subject, self.agent.0, None, removed))
            .await;
    }

    /// Waits for the start of `assignment`.
    pub async fn until_started(&mut self, assignment: u64) -> u64 {
        self.until("started", |r| match &r.event.body {
            Body::TaskStarted(started) if started.assignment == assignment => Some(r.sequence),
            _ => None,
        })
        .await
    }

    /// Waits for the result of `assignment`.
    pub async fn until_completed(&mut self, assignment: u64) -> Carried {
        self.until("completed", |r| match &r.event.body {
            Body::TaskCompleted(completed) if completed.assignment == assignment => {
                Some(completed.result.clone())
            }
            _ => None,
        })
        .await
    }

    /// Waits for the failure of `assignment`: error and whether it can be retried.
    pub async fn until_failed(&mut self, assignment: u64) -> (String, bool) {
        self.until("attempt_failed", |r| match &r.event.body {
            Body::TaskAttemptFailed(failed) if failed.assignment == assignment => {
                Some((failed.error.clone(), failed.retryable))
            }
            _ => None,
        })
        .await
    }

    /// How many events among those read are of `verb` and about `assignment`.
    pub fn count(&self, verb: TaskVerb, assignment: u64) -> usize {
        let about = |body: &Body| match body {
            Body::TaskStarted(b) => b.assignment == assignment,
            Body::TaskCompleted(b) => b.assignment == assignment,
            Body::TaskAttemptFailed(b) => b.assignment == assignment,
            _ => false,
        };
        self.seen
            .iter()
            .filter(|r| {
                matches!(r.subject, Subject::Task(_, v, _) if v == verb) && about(&r.event.body)
            })
            .count()
    }

    fn provision(&self) -> Provision {
        Provision {
            replicas: self.nats.len(),
            max_bytes: LOG_BYTES,
            ..Provision::default()
        }
    }

    /// Lets the server republish only what is stored on this subject: every other hint is lost.
    pub async fn republish_only(&self, subject: Subject) {
        let mut config = definitions::events(&self.provision());
        if let Some(republish) = &mut config.republish {
            republish.source = subject.to_string();
            republish.destination =
                Subject::live(&subject.to_string()).expect("an event's subject");
        }
        self.log
            .context()
            .update_stream(config)
            .await
            .expect("republish can be changed");
    }

    /// Lets every hint be lost.
    pub async fn republish_nothing(&self) {
        self.republish_only(Subject::Task(self.place, TaskVerb::Refused, None))
            .await;
    }

    /// Lets the server republish as it should.
    pub async fn republish_all(&self) {
        self.log
            .context()
            .update_stream(definitions::events(&self.provision()))
            .await
            .expect("republish can be changed");
    }
}

pub fn json(carried: &Carried) -> serde_json::Value {
    match carried {
        Carried::Inline(json) => Json::to_value(json),
        other => panic!("not inline: {other:?}"),
    }
}

pub async fn double(_: TaskContext, number: u64) -> Result<u64, TaskError> {
    Ok(number * 2)
}

/// A handler that says when it begins and when it is cancelled, and ends when it is let go.
pub fn held(
    said: &mpsc::UnboundedSender<&'static str>,
    go: &watch::Receiver<bool>,
) -> impl Fn(TaskContext, Json) -> Fut + Send + Sync + 'static {
    let (said, go) = (said.clone(), go.clone());
    move |task, _| {
        let (said, mut go) = (said.clone(), go.clone());
        Box::pin(async move {
            said.send("began").expect("the test listens");
            tokio::select! {
                _ = go.wait_for(|go| *go) => Ok(serde_json::json!("done")),
                () = task.cancelled.cancelled() => {
                    said.send("cancelled").expect("the test listens");
                    Err(TaskError::retryable("cancelled"))
                }
            }
        })
    }
}
pub type Fut = std::pin::Pin<Box<dyn Future<Output = Result<serde_json::Value, TaskError>> + Send>>;
