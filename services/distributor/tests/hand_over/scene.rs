//! Two swarms in one log, their agents, and a distributor for each.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use swarm_events::{
    AgentId, Body, Event, EventId, Input, Json, OrgId, Place, Recorded, Service, Subject, SwarmId,
    TaskId, Timestamp,
    agent::{Joined, Profile},
    configuration::Configuration,
    control::{Claimed, Observed},
    envelope::{Decided, Source},
    ids::InstanceId,
    read,
    subject::{AgentVerb, ControlVerb, SwarmVerb, TaskVerb},
    swarm::{Created, Deleted, Stopping},
    task::{Carried, Completed, Part, Split, Started, Step, Submitted},
};
use swarm_log::{
    Log, Message, Tailed,
    connect::{ConnectSettings, connect},
    definitions::Provision,
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
    simulated::{SimulatedLog, SimulatedSettings},
};
use swarm_runtime::{LoopError, LoopSettings};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Far more than anything here takes; reached only when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Two swarms of different partitions in one log.
pub struct Two<L: Log> {
    pub log: L,
    pub here: Place,
    pub there: Place,
    /// By swarm: the coordinator's epoch, and its decisions so far.
    pub epochs: BTreeMap<SwarmId, (u64, u64)>,
    pub agents: Vec<JoinHandle<()>>,
}
impl<L: Log> Drop for Two<L> {
    fn drop(&mut self) {
        self.agents.iter().for_each(JoinHandle::abort);
    }
}

pub struct Replica {
    pub task: JoinHandle<Result<(), LoopError>>,
    pub stop: CancellationToken,
}
impl Replica {
    pub async fn end(mut self) {
        self.stop.cancel();
        let ended = (&mut self.task).await.expect("joined");
        ended.expect("stopped in order");
    }
}
impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn store<L: Log>(log: &L, subject: &Subject, event: &Event) -> u64 {
    let message = Message {
        subject: subject.to_string(),
        payload: event.to_json().expect("JSON").into(),
        message_id: None,
        fence: None,
    };
    let stored = log.append(vec![message]).await.remove(0);
    stored.expect("stored").sequence
}

impl<L: Log> Two<L> {
    /// Each swarm has `agents` agents that do what they are given.
    pub async fn new(log: L, agents: u32) -> Self {
        let org = OrgId(Uuid::from_u128(1));
        let [here, there] = [2, 3].map(|n| Place::new(org, SwarmId(Uuid::from_u128(n))));
        assert_ne!(here.partition, there.partition);
        let mut two = Self {
            log,
            here,
            there,
            epochs: BTreeMap::new(),
            agents: Vec::new(),
        };
        for place in [here, there] {
            let claimed = Claimed {
                instance: InstanceId(Uuid::from_u128(3)),
                decider_version: 1,
                previous: 0,
                reason: "start".to_owned(),
                rejects: Vec::new(),
            };
            let (service, verb) = (Service::Coordinator, ControlVerb::Claimed);
            let subject = Subject::Control(service, place.partition, verb);
            let about = Event::about_partition(place.partition);
            let source = Source::Service(service, InstanceId(Uuid::from_u128(3)));
            let id = EventId(Uuid::now_v7());
            let event = Event::new(id, source, Timestamp::ZERO, &subject, about, claimed);
            let epoch = store(&two.log, &subject, &event).await;
            two.epochs.insert(place.swarm, (epoch, 0));
            let created = Created {
                name: "s".to_owned(),
                description: None,
                topology: Default::default(),
                configuration: Configuration::default(),
                partition: place.partition.number(),
                created_by: None,
            };
            let subject = Subject::Swarm(place, SwarmVerb::Created);
            two.decide(place, subject, place.swarm.0, created).await;
            for n in 0..agents {
                let id = AgentId(Uuid::from_u128(100 + u128::from(n)));
                two.join(place, id).await;
                let working = work(two.log.clone(), place, id);
                two.agents.push(tokio::spawn(working));
            }
        }
        two
    }

    pub async fn join(&mut self, place: Place, id: AgentId) {
        let joined = Joined {
            incarnation: 1,
            instance: InstanceId(Uuid::from_u128(4)),
            profile: Profile {
                agent_type: "model".to_owned(),
                agent_name: format!("model-{id}"),
                capabilities: Vec::new(),
                slots: 4,
                waiting: 1,
                metadata: Json::object(),
            },
        };
        let subject = Subject::Agent(place, AgentVerb::Joined, id);
        self.decide(place, subject, id.0, joined).await;
    }

    /// The coordinator of a swarm decides.
    pub async fn decide(
        &mut self,
        place: Place,
        subject: Subject,
        about: Uuid,
        body: impl Into<Body>,
    ) -> u64 {
        let (epoch, ordinal) = self.epochs.get_mut(&place.swarm).expect("claimed");
        *ordinal += 1;
        let source = Source::Service(Service::Coordinator, InstanceId(Uuid::from_u128(3)));
        let id = EventId(Uuid::now_v7());
        let mut event = Event::new(id, source, Timestamp::ZERO, &subject, about, body);
        event.decided = Some(Decided {
            cause_sequence: 1,
            epoch: *epoch,
            ordinal: *ordinal,
            decider_version: 1,
        });
        store(&self.log, &subject, &event).await
    }
    pub async fn terminate(&mut self, place: Place) {
        let subject = Subject::Swarm(place, SwarmVerb::Stopping);
        self.decide(place, subject, place.swarm.0, Stopping {})
            .await;
    }
    pub async fn delete(&mut self, place: Place) {
        let subject = Subject::Swarm(place, SwarmVerb::Deleted);
        self.decide(place, subject, place.swarm.0, Deleted {}).await;
    }

    /// A client submits a task here that goes there.
    pub async fn hand(&self, id: TaskId, change: impl FnOnce(&mut Submitted)) {
        let mut task: Submitted = serde_json::from_str(r#"{"task_type": "t"}"#).expect("a task");
        task.hand_to = Some(self.there.swarm);
        change(&mut task);
        let subject = Subject::Task(self.here, TaskVerb::Submitted, None);
        let source = Source::Client("test".to_owned());
        let event_id = EventId(Uuid::now_v7());
        let mut event = Event::new(event_id, source, Timestamp::ZERO, &subject, id.0, task);
        event.correlation = Some(correlation(id));
        event.traceparent = Some(TRACE.to_owned());
        store(&self.log, &subject, &event).await;
    }

    /// Everything of a swarm's tasks, until one fits.
    pub async fn until(
        &self,
        place: Place,
        mut fits: impl FnMut(&Recorded) -> bool,
    ) -> Vec<Recorded> {
        let filters = vec![
            format!("swarm.evt.{place}.task.>"),
            format!("swarm.cmd.{place}.>"),
        ];
        let mut tail = self.log.tail(filters, 1);
        let mut seen = Vec::new();
        let found = async {
            while let Some(tailed) = tail.next().await {
                let Tailed::Message(message) = tailed.expect("the log is there") else {
                    continue;
                };
                let time = Timestamp::from_micros(message.time_micros);
                let read = read(message.sequence, time, &message.subject, &message.payload);
                let Input::Event(recorded) = read else {
                    panic!("{read:?}");
                };
                let found = fits(&recorded);
                seen.push(recorded);
                if found {
                    return;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("it comes");
        seen
    }

    /// One process for the partition of a swarm.
    pub fn start(log: L, place: Place, name: &str) -> Replica {
        let stop = CancellationToken::new();
        let settings = LoopSettings {
            partitions: vec![place.partition],
            ..LoopSettings::all(InstanceId(Uuid::new_v5(&Uuid::nil(), name.as_bytes())))
        };
        let run = swarm_distributor::run(log, settings, stop.clone());
        Replica {
            task: tokio::spawn(run),
            stop,
        }
    }
}

pub fn id(n: u128) -> TaskId {
    TaskId(Uuid::from_u128(1_000 + n))
}
pub fn correlation(id: TaskId) -> Uuid {
    Uuid::from_u128(id.0.as_u128() + 500_000)
}
pub fn text(n: u128, bytes: usize) -> Json {
    Json::parse(&format!("\"{n:0bytes$}\"")).expect("JSON")
}
pub const fn ends(body: &Body) -> bool {
    matches!(
        body,
        Body::TaskHandedBack(_)
            | Body::TaskCompleted(_)
            | Body::TaskFailed(_)
            | Body::TaskCancelled(_)
            | Body::TaskRejected(_)
    )
}

/// A model agent: it answers with what it was given; of type `hold` it never ends a task, of type `split` it makes two of it,
/// and their inputs the result.
pub async fn work<L: Log>(log: L, place: Place, agent: AgentId) {
    let subject = Subject::Task(place, TaskVerb::Assigned, Some(agent)).to_string();
    let mut tail = log.tail(vec![subject], 1);
    while let Some(Ok(tailed)) = tail.next().await {
        let Tailed::Message(message) = tailed else {
            continue;
        };
        let read = read(
            message.sequence,
            Timestamp::ZERO,
            &message.subject,
            &message.payload,
        );
        let Input::Event(recorded) = read else {
            panic!("unreadable assignment");
        };
        let Body::TaskAssigned(assigned) = recorded.event.body else {
            continue;
        };
        let say = async |verb, body: Body| {
            let subject = Subject::Task(place, verb, Some(agent));
            let (id, source) = (EventId(Uuid::now_v7()), Source::Agent(agent));
            let about = recorded.event.about;
            let event = Event::new(id, source, Timestamp::ZERO, &subject, about, body);
            store(&log, &subject, &event).await
        };
        let (assignment, incarnation) = (message.sequence, 1);
        let started = Started {
            assignment,
            incarnation,
        };
        say(TaskVerb::Started, started.into()).await;
        let Carried::Inline(payload) = assigned.payload else {
            panic!("no payload")
        };
        let part = |key: &str, payload| Part {
            key: key.to_owned(),
            task_type: "t".to_owned(),
            payload,
            priority: None,
            required_capabilities: Vec::new(),
            required_role: None,
            max_attempts: None,
            timeout_ms: None,
        };
        let result = match (&*assigned.task_type, assigned.step, assigned.inputs) {
            ("hold", ..) => continue,
            ("split", Step::Work, _) => {
                let split = Split {
                    assignment,
                    incarnation,
                    parts: vec![part("short", text(1, 10)), part("long", payload)],
                };
                say(TaskVerb::Split, split.into()).await;
                continue;
            }
            ("split", Step::Reduce, inputs) => inputs.expect("its parts' results"),
            _ => Carried::Inline(payload),
        };
        let completed = Completed {
            assignment,
            incarnation,
            result,
        };
        say(TaskVerb::Completed, completed.into()).await;
    }
}

/// A log whose time follows tokio's paused clock.
pub fn simulated() -> (SimulatedLog, JoinHandle<()>) {
    let log = SimulatedLog::new(SimulatedSettings::default());
    let (ticking, start) = (log.clone(), log.time());
    let began = tokio::time::Instant::now();
    let clock = tokio::spawn(async move {
        loop {
            let passed = i64::try_from(began.elapsed().as_micros()).expect("a short test");
            ticking.set_time(start + passed);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    (log, clock)
}

/// Given a real nats-server.
pub async fn real(server: ConnectSettings) -> JetStreamLog {
    let connection = connect(server).await.expect("the server is there");
    let context = async_nats::jetstream::new(connection.client().clone());
    // Small: the server reserves what a stream may grow to, and the disk of the machine may be small too.
    let settings = Provision {
        max_bytes: 64 << 20,
        ..Provision::default()
    };
    let provisioned = provision(&context, &settings).await;
    provisioned.expect("provisioned");
    let log = JetStreamLog::open(&connection, LogSettings::new(Durability::Speed, 1)).await;
    log.expect("open")
}

/// Waits until so many letters of a partition are noted as delivered.
pub async fn delivered(log: &JetStreamLog, place: Place, letters: usize) {
    let (service, verb) = (Service::Distributor, ControlVerb::Observed);
    let subject = Subject::Control(service, place.partition, verb).to_string();
    let mut tail = log.tail(vec![subject], 1);
    let mut noted = std::collections::BTreeSet::new();
    let all = async {
        while noted.len() < letters {
            let Some(Ok(Tailed::Message(message))) = tail.next().await else {
                continue;
            };
            let read = read(1, Timestamp::ZERO, &message.subject, &message.payload);
            if let Input::Event(recorded) = read
                && let Body::Observed(Observed::Delivered { sequences }) = recorded.event.body
            {
                noted.extend(sequences);
            }
        }
    };
    timeout(PATIENCE, all).await.expect("they are noted");
}
