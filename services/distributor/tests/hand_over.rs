//! Tasks that go from swarm to swarm, by the distributor as it runs: loop, shell, outbox and core, each swarm's partition in a
//! process of its own. On the simulated log under faults, and on a real nats-server.

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
    task::{Carried, Completed, Part, Split, Started, Step, Submitted, part_id},
};
use swarm_log::{
    Log, Message, Tailed,
    connect::{ConnectSettings, connect},
    definitions::Provision,
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
    simulated::{FaultRates, Faults, SimulatedLog, SimulatedSettings},
};
use swarm_runtime::{LoopError, LoopSettings, Shell};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Far more than anything here takes; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Two swarms of different partitions in one log.
struct Two<L: Log> {
    log: L,
    here: Place,
    there: Place,
    /// By swarm: the coordinator's epoch, and its decisions so far.
    epochs: BTreeMap<SwarmId, (u64, u64)>,
    agents: Vec<JoinHandle<()>>,
}
impl<L: Log> Drop for Two<L> {
    fn drop(&mut self) {
        self.agents.iter().for_each(JoinHandle::abort);
    }
}

struct Replica {
    task: JoinHandle<Result<(), LoopError>>,
    stop: CancellationToken,
}
impl Replica {
    async fn end(mut self) {
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

async fn store<L: Log>(log: &L, subject: &Subject, event: &Event) -> u64 {
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
    async fn new(log: L, agents: u32) -> Self {
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

    async fn join(&mut self, place: Place, id: AgentId) {
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
    async fn decide(
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
    async fn terminate(&mut self, place: Place) {
        let subject = Subject::Swarm(place, SwarmVerb::Stopping);
        self.decide(place, subject, place.swarm.0, Stopping {})
            .await;
    }
    async fn delete(&mut self, place: Place) {
        let subject = Subject::Swarm(place, SwarmVerb::Deleted);
        self.decide(place, subject, place.swarm.0, Deleted {}).await;
    }

    /// A client submits a task here that goes there.
    async fn hand(&self, id: TaskId, change: impl FnOnce(&mut Submitted)) {
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
    async fn until(&self, place: Place, mut fits: impl FnMut(&Recorded) -> bool) -> Vec<Recorded> {
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
    fn start(log: L, place: Place, name: &str) -> Replica {
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

fn id(n: u128) -> TaskId {
    TaskId(Uuid::from_u128(1_000 + n))
}
fn correlation(id: TaskId) -> Uuid {
    Uuid::from_u128(id.0.as_u128() + 500_000)
}
fn text(n: u128, bytes: usize) -> Json {
    Json::parse(&format!("\"{n:0bytes$}\"")).expect("JSON")
}
const fn ends(body: &Body) -> bool {
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
async fn work<L: Log>(log: L, place: Place, agent: AgentId) {
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
fn simulated() -> (SimulatedLog, JoinHandle<()>) {
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

#[tokio::test(start_paused = true)]
async fn under_faults_and_killed_owners_each_task_has_one_end_here() {
    const TASKS: u128 = 12;
    for seed in 0..8u64 {
        let (log, clock) = simulated();
        let two = Two::new(log.clone(), 1).await;
        let rates = FaultRates {
            lost_ack: 60,
            lost_message: 60,
            ghost: 40,
            full: 10,
            ..FaultRates::default()
        };
        let start = |place: Place, round: u64, faults: Faults| {
            let name = format!("{seed}-{}-{round}", place.swarm);
            log.set_faults(&name, faults);
            Two::<SimulatedLog>::start(log.handle(&name), place, &name)
        };
        let mut task = 0;
        for round in 0..4 {
            let faults = |n| Faults::seeded(seed * 31 + round * 7 + n, rates);
            let here = start(two.here, round, faults(1));
            let there = start(two.there, round, faults(2));
            for _ in 0..TASKS / 4 {
                two.hand(id(task), |t| t.payload = text(task, 2_000)).await;
                task += 1;
            }
            tokio::time::sleep(Duration::from_millis(3_000 + 137 * (seed + round))).await;
            // Killed, not stopped: what it has acknowledged and not noted is said again.
            drop((here, there));
        }
        log.release_ghosts();
        let _here = start(two.here, 9, Faults::none());
        let _there = start(two.there, 9, Faults::none());
        let mut open: Vec<Uuid> = (0..TASKS).map(|n| id(n).0).collect();
        two.until(two.here, |recorded| {
            if ends(&recorded.event.body) {
                open.retain(|about| *about != recorded.event.about);
            }
            open.is_empty()
        })
        .await;
        // A while later, when everything that was said twice has been met, too.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let mut state = swarm_distributor_core::Distributor::new(two.here.partition);
        let mut count: BTreeMap<Uuid, u32> = BTreeMap::new();
        for message in log.messages() {
            let time = Timestamp::from_micros(message.time_micros);
            let input = read(message.sequence, time, &message.subject, &message.payload);
            let verdict = swarm_events::decider::Decider::evolve(&mut state, &input, None);
            if let Input::Event(recorded) = input
                && verdict == swarm_events::decider::Verdict::Applied
                && recorded.subject.place() == Some(two.here)
                && ends(&recorded.event.body)
            {
                *count.entry(recorded.event.about).or_default() += 1;
            }
        }
        for n in 0..TASKS {
            assert_eq!(count.get(&id(n).0), Some(&1), "seed {seed}, task {n}");
            let view = state.task(two.here, id(n)).expect("remembered");
            assert_eq!(view.status.as_str(), "completed", "seed {seed}, task {n}");
        }
        assert_eq!(
            state.letters_open(),
            0,
            "seed {seed}: all is noted as delivered"
        );
        clock.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_a_stranger_has_burnt_keeps_no_letter_from_arriving() {
    let (log, clock) = simulated();
    let two = Two::new(log.clone(), 0).await;
    let here = Two::<SimulatedLog>::start(log.handle("here"), two.here, "here");
    two.hand(id(0), |_| {}).await;
    let over = two
        .until(two.here, |r| {
            matches!(r.event.body, Body::TaskHandedOver(_))
        })
        .await;
    let last = over.last().expect("it is handed over").sequence;
    here.end().await;
    clock.abort();
    // The same log up to there, and its state.
    let second = SimulatedLog::new(SimulatedSettings::default());
    let mut state = swarm_distributor_core::Distributor::new(two.here.partition);
    for stored in log.messages().into_iter().filter(|m| m.sequence <= last) {
        let time = Timestamp::from_micros(stored.time_micros);
        let input = read(stored.sequence, time, &stored.subject, &stored.payload);
        swarm_events::decider::Decider::evolve(&mut state, &input, None);
        let message = Message {
            subject: stored.subject.to_string(),
            payload: stored.payload,
            message_id: None,
            fence: None,
        };
        let again = second.append(vec![message]).await.remove(0);
        assert_eq!(again.expect("stored").sequence, stored.sequence);
    }
    let letter = state.letters(0).next().expect("a letter");
    let source = || Source::Client("stranger".to_owned());
    let (subject, event) = letter.event(source(), Timestamp::ZERO, Err(String::new()));
    let burnt = event.id.to_string();
    let message = Message {
        subject: subject.to_string(),
        payload: event.to_json().expect("JSON").into(),
        message_id: Some(burnt.clone()),
        fence: None,
    };
    assert!(second.append(vec![message]).await.remove(0).is_ok());
    let me = InstanceId(Uuid::from_u128(6));
    let mut shell = swarm_distributor::DistributorShell::new(second.clone(), me);
    let mut observations = shell.observations().expect("it tells what it has done");
    shell.owned(&state);
    let told = timeout(PATIENCE, observations.recv())
        .await
        .expect("in time");
    let sequences = vec![letter.sequence];
    assert_eq!(
        told,
        Some((two.here.partition, Observed::Delivered { sequences }))
    );
    let there = Subject::Task(two.there, TaskVerb::Submitted, None).to_string();
    assert!(second.messages().iter().any(|m| *m.subject == *there));
}

/// Given a real nats-server.
async fn real(server: ConnectSettings) -> JetStreamLog {
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

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_server_a_task_goes_to_another_swarm_and_its_result_comes_back() {
    let nats = swarm_servers::testing::nats().await;
    let log = real(ConnectSettings::new(&nats.url, "test")).await;
    let mut two = Two::new(log.clone(), 1).await;
    let here = Two::<JetStreamLog>::start(log.clone(), two.here, "here");
    let there = Two::<JetStreamLog>::start(log.clone(), two.there, "there");
    let ended = async |two: &Two<JetStreamLog>, place, id: TaskId| {
        let mut seen = two
            .until(place, |r| r.event.about == id.0 && ends(&r.event.body))
            .await;
        seen.retain(|r| {
            r.event.correlation == Some(correlation(self::id(0))) || r.event.about == id.0
        });
        seen
    };

    // Done there, in parts, one of them too large for the state to hold.
    two.hand(id(0), |t| {
        t.task_type = "split".to_owned();
        t.payload = text(7, 4_000);
    })
    .await;
    let seen = ended(&two, two.here, id(0)).await;
    let Some(Body::TaskHandedBack(back)) = seen.last().map(|r| r.event.body.clone()) else {
        panic!("{:?}", seen.last());
    };
    let expected = format!(r#"{{"long":{},"short":{}}}"#, text(7, 4_000), text(1, 10));
    assert_eq!(
        back.result,
        Carried::Inline(Json::parse(&expected).expect("JSON"))
    );
    assert_eq!(back.by, two.there.swarm);
    let words: Vec<&str> = seen.iter().map(|r| r.event.body.type_name()).collect();
    assert_eq!(
        words,
        [
            "swarm.task.submitted.v2",
            "swarm.task.handed_over.v1",
            "swarm.cmd.hand_back.v1",
            "swarm.task.handed_back.v1",
        ]
    );
    for recorded in &seen {
        assert_eq!(
            recorded.event.correlation,
            Some(correlation(id(0))),
            "{recorded:?}"
        );
    }
    assert_eq!(seen[2].event.traceparent.as_deref(), Some(TRACE));
    // There it is a task of the same correlation and trace, as are its parts.
    let Body::TaskHandedOver(over) = &seen[1].event.body else {
        panic!("{:?}", seen[1]);
    };
    let done = ended(&two, two.there, over.task_id).await;
    assert_eq!(done[0].event.about, over.task_id.0);
    assert_eq!(done[0].event.traceparent.as_deref(), Some(TRACE));
    let split = done.iter().find_map(|r| match &r.event.body {
        Body::TaskSplit(split) => Some(split.assignment),
        _ => None,
    });
    for index in 0..2 {
        let part = part_id(over.task_id, split.expect("it was split"), index);
        let mut parts = done.iter().filter(|r| r.event.about == part.0);
        let assigned = parts.find(|r| matches!(r.event.body, Body::TaskAssigned(_)));
        let assigned = assigned.expect("each part was assigned");
        assert_eq!(assigned.event.correlation, Some(correlation(id(0))));
    }

    // The other swarm is terminated while it has another one: that is its end, here too.
    two.hand(id(1), |t| t.task_type = "hold".to_owned()).await;
    let there_id = two
        .until(two.here, |r| {
            r.event.about == id(1).0 && matches!(r.event.body, Body::TaskHandedOver(_))
        })
        .await;
    let Some(Body::TaskHandedOver(over)) = there_id.last().map(|r| r.event.body.clone()) else {
        panic!("not handed over");
    };
    two.until(two.there, |r| {
        r.event.about == over.task_id.0 && matches!(r.event.body, Body::TaskStarted(_))
    })
    .await;
    two.terminate(two.there).await;
    let seen = ended(&two, two.here, id(1)).await;
    let Some(Body::TaskCancelled(cancelled)) = seen.last().map(|r| r.event.body.clone()) else {
        panic!("{:?}", seen.last());
    };
    assert_eq!(cancelled.reason, "the swarm is being terminated");

    // And once it is deleted, nothing can be handed to it.
    two.delete(two.there).await;
    two.hand(id(2), |_| {}).await;
    let seen = ended(&two, two.here, id(2)).await;
    let Some(Body::TaskFailed(failed)) = seen.last().map(|r| r.event.body.clone()) else {
        panic!("{:?}", seen.last());
    };
    assert!(
        failed.error.contains("there is no swarm"),
        "{}",
        failed.error
    );
    assert!(failed.dead_lettered);

    // All that was said is noted as said, so that no later owner says it again.
    delivered(&log, two.here, 3).await;
    delivered(&log, two.there, 3).await;
    here.end().await;
    there.end().await;
}

/// Waits until so many letters of a partition are noted as delivered.
async fn delivered(log: &JetStreamLog, place: Place, letters: usize) {
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
