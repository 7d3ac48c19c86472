//! Clients: they submit, repeat themselves, cancel, retry, and say things that cannot be read.

use futures::FutureExt;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use swarm_events::{
    Body, Event, EventId, GraphId, Json, OrgId, Place, Subject, TaskId, Timestamp, command,
    envelope::Source,
    ids::{KeyId, UserId},
    subject::{CommandVerb, TaskVerb},
    task::{Dependency, DependencyType, GraphPart, Submitted},
};
use swarm_log::{Log, Message, simulated::SimulatedLog};
use uuid::Uuid;

use crate::world::{Clock, new_id};

pub struct Client {
    place: Place,
    log: SimulatedLog,
    sent: Vec<TaskId>,
    last: Option<Message>,
    pub submitted: u64,
}

impl Client {
    pub fn new(place: Place, log: SimulatedLog) -> Self {
        Self {
            place,
            log,
            sent: Vec::new(),
            last: None,
            submitted: 0,
        }
    }

    fn event(
        &self,
        clock: &Clock,
        id: Uuid,
        subject: &Subject,
        about: Uuid,
        body: impl Into<Body>,
    ) -> Message {
        let time = Timestamp::from_micros(clock.log_time());
        let event = Event::new(
            EventId(id),
            Source::Client("/sim/client".to_owned()),
            time,
            subject,
            about,
            body,
        );
        Message {
            subject: subject.to_string(),
            payload: event.to_json().expect("JSON").into(),
            message_id: Some(id.to_string()),
            fence: None,
        }
    }

    /// A client resends until it has an answer: the same message, under the same id.
    fn send(&mut self, message: Message) {
        for _ in 0..20 {
            let results = self
                .log
                .append(vec![message.clone()])
                .now_or_never()
                .unwrap_or_default();
            if results.first().is_some_and(Result::is_ok) {
                break;
            }
        }
        self.last = Some(message);
    }

    /// The organization.
    pub fn create_org(&mut self, clock: &Clock, rng: &mut StdRng, org: OrgId) {
        let partition = swarm_events::Partition::of(org.0);
        let subject = Subject::OrgCommand(partition, org, CommandVerb::CreateOrg);
        let body = command::CreateOrg {
            name: "sim".to_owned(),
            user_id: UserId(new_id(clock, rng)),
            user_name: "admin".to_owned(),
            key_id: KeyId(new_id(clock, rng)),
            key_sha256: "0".repeat(64),
        };
        let message = self.event(clock, new_id(clock, rng), &subject, org.0, body);
        self.send(message);
    }

    /// The swarm.
    pub fn create_swarm(
        &mut self,
        clock: &Clock,
        rng: &mut StdRng,
        configuration: &serde_json::Value,
    ) {
        let subject = Subject::Command(self.place, CommandVerb::Create);
        let body = command::Create {
            name: "sim".to_owned(),
            description: None,
            topology: None,
            configuration: Json::from(configuration.clone()),
            created_by: None,
            body_sha256: None,
        };
        let message = self.event(
            clock,
            new_id(clock, rng),
            &subject,
            self.place.swarm.0,
            body,
        );
        self.send(message);
    }

    /// One step of a client's life.
    pub fn step(&mut self, clock: &Clock, rng: &mut StdRng) {
        match rng.random_range(0..100) {
            0..50 => self.single(clock, rng),
            50..75 => self.graph(clock, rng),
            75..83 => self.command(clock, rng, CommandVerb::Cancel),
            83..87 => self.command(clock, rng, CommandVerb::Retry),
            87..92 => {
                // The same once more, past the window in which the server would see it.
                if let Some(mut message) = self.last.clone() {
                    message.message_id = None;
                    self.send(message);
                }
            }
            92..96 => {
                // An id that is taken, with other content.
                if let Some(id) = self.sent.choose(rng).copied() {
                    let submitted = self.task(rng);
                    self.submit(clock, rng, id, submitted);
                }
            }
            _ => {
                let subject = Subject::Task(self.place, TaskVerb::Submitted, None).to_string();
                let payload = if rng.random() {
                    "{"
                } else {
                    r#"{"specversion":"1.0"}"#
                };
                self.send(Message {
                    subject,
                    payload: payload.into(),
                    message_id: None,
                    fence: None,
                });
            }
        }
    }

    fn task(&self, rng: &mut StdRng) -> Submitted {
        let long = if rng.random_ratio(1, 20) { 2_000 } else { 10 };
        Submitted {
            task_type: "model".to_owned(),
            payload: Json::from(
                serde_json::json!({"n": rng.random::<u32>(), "text": "x".repeat(long)}),
            ),
            priority: if rng.random_ratio(1, 30) {
                11
            } else {
                rng.random_range(1..=10)
            },
            required_capabilities: if rng.random_ratio(1, 4) {
                vec!["gpu".to_owned()]
            } else {
                Vec::new()
            },
            max_attempts: rng.random_ratio(1, 3).then(|| rng.random_range(1..5)),
            timeout_ms: Some(5_000),
            parent_task_id: None,
            affinity_key: None,
            depends_on: Vec::new(),
            key: None,
            graph: None,
            body_sha256: None,
        }
    }

    fn submit(&mut self, clock: &Clock, rng: &mut StdRng, id: TaskId, submitted: Submitted) {
        let subject = Subject::Task(self.place, TaskVerb::Submitted, None);
        let message = self.event(clock, new_id(clock, rng), &subject, id.0, submitted);
        self.send(message);
        self.submitted += 1;
    }

    fn single(&mut self, clock: &Clock, rng: &mut StdRng) {
        let id = TaskId(new_id(clock, rng));
        let task = self.task(rng);
        self.submit(clock, rng, id, task);
        self.sent.push(id);
    }

    fn graph(&mut self, clock: &Clock, rng: &mut StdRng) {
        let of = rng.random_range(1..8u32);
        let graph = GraphId(new_id(clock, rng));
        let ids: Vec<TaskId> = (0..of).map(|_| TaskId(new_id(clock, rng))).collect();
        // Some graphs are never whole, some have a cycle, some name what nobody knows.
        let broken = rng.random_ratio(1, 10);
        for (index, id) in ids.iter().enumerate() {
            let mut task = self.task(rng);
            task.graph = Some(GraphPart {
                id: graph,
                index: index as u32,
                of,
            });
            for _ in 0..rng.random_range(0..3) {
                let other = if rng.random_ratio(1, 5) {
                    self.sent.choose(rng).copied()
                } else if broken {
                    ids.choose(rng).copied()
                } else {
                    ids[..index].choose(rng).copied()
                };
                let Some(task_id) = other else { continue };
                let kinds = [
                    DependencyType::Completion,
                    DependencyType::Success,
                    DependencyType::Data,
                ];
                let dependency_type = *kinds.choose(rng).unwrap_or(&DependencyType::Completion);
                if task.depends_on.iter().all(|d| d.task_id != task_id) {
                    task.depends_on.push(Dependency {
                        task_id,
                        dependency_type,
                        alias: None,
                    });
                }
            }
            if broken && rng.random_ratio(1, 10) {
                continue;
            }
            self.submit(clock, rng, *id, task);
        }
        self.sent.extend(ids);
    }

    fn command(&mut self, clock: &Clock, rng: &mut StdRng, verb: CommandVerb) {
        let task_id = match self.sent.choose(rng) {
            Some(id) if !rng.random_ratio(1, 20) => *id,
            _ => TaskId(new_id(clock, rng)),
        };
        let body: Body = match verb {
            CommandVerb::Cancel => command::Cancel {
                task_id,
                reason: None,
            }
            .into(),
            _ => command::Retry { task_id }.into(),
        };
        let subject = Subject::Command(self.place, verb);
        let message = self.event(clock, new_id(clock, rng), &subject, task_id.0, body);
        self.send(message);
    }
}
