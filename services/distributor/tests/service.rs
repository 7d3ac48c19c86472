//! The distributor as it runs: its loop, shell and core on a log with the rules of the real one, under faults, with model
//! agents that follow the wire protocol.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use swarm_distributor_core::{Distributor, Status, Touched};
use swarm_events::{
    AgentId, Body, Event, EventId, GraphId, Input, Json, OrgId, Partition, Place, Service, Subject,
    SwarmId, TaskId, Timestamp,
    agent::{Joined, Profile},
    configuration::Configuration,
    control::Claimed,
    decider::Verdict,
    envelope::{Decided, Source},
    ids::InstanceId,
    read,
    subject::{AgentVerb, ControlVerb, SwarmVerb, TaskVerb},
    swarm::Created,
    task::{Carried, Completed, Dependency, DependencyType, GraphPart, Started, Submitted},
};
use swarm_log::{
    Log, Message, Tailed,
    simulated::{FaultRates, Faults, SimulatedLog, SimulatedSettings},
};
use swarm_runtime::{LoopError, LoopSettings};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest payload here: one that the state does not hold.
const LONG: usize = 4_000;

struct World {
    log: SimulatedLog,
    place: Place,
    clock: JoinHandle<()>,
    agents: Vec<JoinHandle<()>>,
}
impl Drop for World {
    fn drop(&mut self) {
        self.clock.abort();
        self.agents.iter().for_each(JoinHandle::abort);
    }
}

struct Replica {
    task: JoinHandle<Result<(), LoopError>>,
    stop: CancellationToken,
}

impl World {
    /// A log with a swarm in it, whose time follows tokio's paused clock.
    async fn new() -> Self {
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
        let place = Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)));
        let mut world = Self {
            log,
            place,
            clock,
            agents: Vec::new(),
        };
        let claimed = Claimed {
            instance: InstanceId(Uuid::from_u128(3)),
            decider_version: 1,
            previous: 0,
            reason: "start".to_owned(),
            rejects: Vec::new(),
        };
        let subject = Subject::Control(Service::Coordinator, place.partition, ControlVerb::Claimed);
        let epoch = world
            .append(
                subject,
                Event::about_partition(place.partition),
                claimed,
                None,
            )
            .await;
        let created = Created {
            name: "s".to_owned(),
            description: None,
            topology: Default::default(),
            configuration: Configuration::default(),
            partition: place.partition.number(),
            created_by: None,
        };
        world
            .append(
                Subject::Swarm(place, SwarmVerb::Created),
                place.swarm.0,
                created,
                Some((epoch, 1)),
            )
            .await;
        for n in 0..3u64 {
            let agent = AgentId(Uuid::from_u128(100 + u128::from(n)));
            let profile = Profile {
                agent_type: "model".to_owned(),
                agent_name: format!("model-{n}"),
                capabilities: Vec::new(),
                slots: 1,
                waiting: 1,
                metadata: Json::object(),
            };
            let joined = Joined {
                incarnation: 1,
                instance: InstanceId(Uuid::from_u128(4)),
                profile,
            };
            let subject = Subject::Agent(place, AgentVerb::Joined, agent);
            world
                .append(subject, agent.0, joined, Some((epoch, n + 2)))
                .await;
            world
                .agents
                .push(tokio::spawn(work(world.log.clone(), place, agent)));
        }
        world
    }

    async fn append(
        &self,
        subject: Subject,
        about: Uuid,
        body: impl Into<Body>,
        decided: Option<(u64, u64)>,
    ) -> u64 {
        let source = match subject {
            Subject::Task(..) => Source::Client("test".to_owned()),
            _ => Source::Service(Service::Coordinator, InstanceId(Uuid::from_u128(3))),
        };
        let mut event = Event::new(
            EventId(Uuid::now_v7()),
            source,
            Timestamp::ZERO,
            &subject,
            about,
            body,
        );
        event.decided = decided.map(|(epoch, ordinal)| Decided {
            cause_sequence: 1,
            epoch,
            ordinal,
            decider_version: 1,
        });
        store(&self.log, &subject, &event).await
    }

    async fn submit(&self, id: TaskId, change: impl FnOnce(&mut Submitted)) {
        let mut task: Submitted = serde_json::from_str(r#"{"task_type": "t"}"#).expect("a task");
        change(&mut task);
        self.append(
            Subject::Task(self.place, TaskVerb::Submitted, None),
            id.0,
            task,
            None,
        )
        .await;
    }

    fn start(&self, name: &str, faults: Faults) -> Replica {
        self.log.set_faults(name, faults);
        let stop = CancellationToken::new();
        let settings = LoopSettings {
            partitions: vec![self.place.partition],
            ..LoopSettings::all(InstanceId(Uuid::new_v5(&Uuid::nil(), name.as_bytes())))
        };
        let run = swarm_distributor::run(self.log.handle(name), settings, stop.clone());
        Replica {
            task: tokio::spawn(run),
            stop,
        }
    }

    /// The log folded by a stranger, with the valid ends of each task.
    fn cold(&self) -> (Distributor, BTreeMap<TaskId, u32>) {
        let mut state = Distributor::new(self.place.partition);
        let mut ends: BTreeMap<TaskId, u32> = BTreeMap::new();
        for message in self.log.messages() {
            let time = Timestamp::from_micros(message.time_micros);
            let input = read(message.sequence, time, &message.subject, &message.payload);
            let verdict = state.evolve_traced(&input, &mut Touched::default());
            if let (Input::Event(recorded), Verdict::Applied) = (input, verdict)
                && matches!(
                    recorded.event.body,
                    Body::TaskCompleted(_)
                        | Body::TaskFailed(_)
                        | Body::TaskCancelled(_)
                        | Body::TaskRejected(_)
                )
            {
                *ends.entry(TaskId(recorded.event.about)).or_default() += 1;
            }
        }
        (state, ends)
    }

    /// Waits, in virtual time, until `tasks` have ended.
    async fn ended(&self, tasks: usize) {
        let all = async {
            while self.cold().1.len() < tasks {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), all)
            .await
            .expect("everything ends");
    }

    /// The assignments of a task, oldest first.
    fn assignments(&self, id: TaskId) -> Vec<swarm_events::task::Assigned> {
        let messages = self.log.messages().into_iter();
        messages
            .filter_map(
                |m| match read(m.sequence, Timestamp::ZERO, &m.subject, &m.payload) {
                    Input::Event(recorded) if recorded.event.about == id.0 => {
                        match recorded.event.body {
                            Body::TaskAssigned(assigned) => Some(assigned),
                            _ => None,
                        }
                    }
                    _ => None,
                },
            )
            .collect()
    }
}

async fn store(log: &SimulatedLog, subject: &Subject, event: &Event) -> u64 {
    let message = Message {
        subject: subject.to_string(),
        payload: event.to_json().expect("JSON").into(),
        message_id: None,
        fence: None,
    };
    log.append(vec![message]).await[0]
        .as_ref()
        .expect("stored")
        .sequence
}

/// A model agent: starts what it is assigned, works for 5 ms, and answers with what it was given.
async fn work(log: SimulatedLog, place: Place, agent: AgentId) {
    let subject = Subject::Task(place, TaskVerb::Assigned, Some(agent)).to_string();
    let mut tail = log.tail(vec![subject], 1);
    while let Some(Ok(tailed)) = tail.next().await {
        let Tailed::Message(message) = tailed else {
            continue;
        };
        let Input::Event(recorded) = read(
            message.sequence,
            Timestamp::ZERO,
            &message.subject,
            &message.payload,
        ) else {
            panic!("unreadable assignment");
        };
        let Body::TaskAssigned(assigned) = recorded.event.body else {
            continue;
        };
        let say = async |verb, body: Body| {
            let subject = Subject::Task(place, verb, Some(agent));
            let id = EventId(Uuid::now_v7());
            let event = Event::new(
                id,
                Source::Agent(agent),
                Timestamp::ZERO,
                &subject,
                recorded.event.about,
                body,
            );
            store(&log, &subject, &event).await
        };
        let assignment = message.sequence;
        say(
            TaskVerb::Started,
            Started {
                assignment,
                incarnation: 1,
            }
            .into(),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let Carried::Inline(payload) = assigned.payload else {
            panic!("no payload")
        };
        let completed = Completed {
            assignment,
            incarnation: 1,
            result: Carried::Inline(payload),
        };
        say(TaskVerb::Completed, completed.into()).await;
    }
}

fn id(n: u128) -> TaskId {
    TaskId(Uuid::from_u128(1_000 + n))
}
fn text(n: u128, bytes: usize) -> Json {
    Json::parse(&format!("\"{n:0bytes$}\"")).expect("JSON")
}

#[tokio::test(start_paused = true)]
async fn payloads_and_inputs_arrive_whole() {
    let world = World::new().await;
    let replica = world.start("a", Faults::none());
    let graph = GraphId(Uuid::from_u128(9));
    let part = |index| {
        Some(GraphPart {
            id: graph,
            index,
            of: 3,
        })
    };
    for n in 0..2u32 {
        let n128 = u128::from(n);
        let bytes = if n == 0 { 10 } else { LONG };
        world
            .submit(id(n128), |t| {
                t.payload = text(n128, bytes);
                t.graph = part(n);
            })
            .await;
    }
    world
        .submit(id(2), |t| {
            t.graph = part(2);
            t.depends_on = [("small", id(0)), ("long", id(1))]
                .map(|(alias, task_id)| Dependency {
                    task_id,
                    dependency_type: DependencyType::Data,
                    alias: Some(alias.to_owned()),
                })
                .into();
        })
        .await;
    world.ended(3).await;
    let expected = format!(r#"{{"long":{},"small":{}}}"#, text(1, LONG), text(0, 10));
    let got = world.assignments(id(2)).pop().expect("assigned").inputs;
    assert_eq!(
        got,
        Some(Carried::Inline(Json::parse(&expected).expect("JSON")))
    );
    replica.stop.cancel();
    replica
        .task
        .await
        .expect("joined")
        .expect("stopped in order");
}

#[tokio::test(start_paused = true)]
async fn a_killed_owner_is_replaced_and_every_task_ends_once() {
    let world = World::new().await;
    for round in 0..6u128 {
        let replica = world.start(&format!("r{round}"), Faults::none());
        for n in 0..10 {
            world
                .submit(id(round * 10 + n), |t| t.payload = text(n, LONG))
                .await;
        }
        tokio::time::sleep(Duration::from_millis(7 * (round as u64 + 1))).await;
        replica.task.abort();
    }
    let _last = world.start("last", Faults::none());
    world.ended(60).await;
    let (state, ends) = world.cold();
    assert!(ends.values().all(|n| *n == 1), "{ends:?}");
    let counters = state.counters(world.place).expect("known");
    assert_eq!((counters.completed, counters.failed), (60, 0));
}

#[tokio::test(start_paused = true)]
async fn under_faults_every_task_ends_exactly_once() {
    const TASKS: u128 = 40;
    for seed in 0..20u64 {
        let world = World::new().await;
        let rates = FaultRates {
            lost_ack: 50,
            lost_message: 50,
            ghost: 40,
            full: 10,
            ..FaultRates::default()
        };
        let replicas: Vec<Replica> = (0..2)
            .map(|n| world.start(&format!("{seed}-{n}"), Faults::seeded(seed * 7 + n, rates)))
            .collect();
        for n in 0..TASKS {
            let bytes = if n % 4 == 0 { LONG } else { 20 };
            world.submit(id(n), |t| t.payload = text(n, bytes)).await;
            tokio::time::sleep(Duration::from_millis((seed + n as u64) % 9)).await;
            if n % 13 == 5 {
                world.log.interrupt_tails(&format!("{seed}-{}", n % 2));
            }
        }
        for n in 0..2 {
            world.log.set_faults(&format!("{seed}-{n}"), Faults::none());
        }
        world.log.release_ghosts();
        world.ended(TASKS as usize).await;
        let (state, ends) = world.cold();
        assert!(ends.values().all(|n| *n == 1), "seed {seed}: {ends:?}");
        for n in 0..TASKS {
            let view = state.task(world.place, id(n)).expect("remembered");
            assert_eq!(
                view.status,
                Status::Completed,
                "seed {seed}, task {n}: {view:?}"
            );
        }
        replicas.iter().for_each(|r| r.task.abort());
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_in_a_wrong_partition_is_refused_once_and_not_for_ever() {
    let world = World::new().await;
    let wrong = Place {
        partition: Partition::all()
            .find(|p| *p != world.place.partition)
            .expect("another"),
        ..world.place
    };
    let settings = LoopSettings {
        partitions: vec![wrong.partition],
        ..LoopSettings::all(InstanceId(Uuid::from_u128(5)))
    };
    let stop = CancellationToken::new();
    let replica = tokio::spawn(swarm_distributor::run(
        world.log.handle("a"),
        settings,
        stop.clone(),
    ));
    let task: Submitted = serde_json::from_str(r#"{"task_type": "t"}"#).expect("a task");
    world
        .append(
            Subject::Task(wrong, TaskVerb::Submitted, None),
            id(1).0,
            task,
            None,
        )
        .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let refusals = |log: &SimulatedLog| {
        let messages = log.messages().into_iter();
        messages
            .filter(|m| m.subject.contains(".task.refused"))
            .collect::<Vec<_>>()
    };
    let refused = refusals(&world.log);
    assert_eq!(refused.len(), 1);
    let Input::Event(recorded) = read(1, Timestamp::ZERO, &refused[0].subject, &refused[0].payload)
    else {
        panic!("the refusal cannot be read");
    };
    let Body::TaskRefused(refused) = recorded.event.body else {
        panic!("{:?}", recorded.event.body)
    };
    assert_eq!(refused.problem.code, "wrong-partition");
    assert!(
        refused
            .problem
            .cure
            .expect("a cure")
            .contains(&world.place.partition.to_string())
    );
    stop.cancel();
    replica.await.expect("joined").expect("stopped in order");
}
