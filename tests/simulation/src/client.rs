//! Clients: they submit, repeat themselves, cancel, retry, and say things that cannot be read.

mod shapes;

use std::collections::VecDeque;

use bytes::Bytes;
use futures::FutureExt;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use swarm_events::{
    AgentId, Body, CommandId, Event, EventId, GraphId, Json, OrgId, Place, Subject, SwarmId,
    TaskId, Timestamp,
    agent::{AgentSpec, Restart, RestartPolicy},
    command,
    configuration::Algorithm,
    envelope::Source,
    ids::{KeyId, UserId},
    subject::{CommandVerb, TaskVerb},
    task::{Dependency, DependencyType, GraphPart, PAYLOAD_BYTES_MAX, Submitted},
};
use swarm_log::{Log, Message, simulated::SimulatedLog};
use uuid::Uuid;

use crate::{
    clock::{Clock, new_id},
    host::PROGRAMS,
    journal::Met,
};

/// Messages that may be repeated.
const RECENT_MAX: usize = 12;
/// What tasks may require.
pub const CAPABILITIES: [&str; 2] = ["gpu", "tpu"];

/// A draw of a swarm's settings: each with a chance of one in `of`.
pub fn settings(rng: &mut StdRng, of: u32) -> serde_json::Map<String, serde_json::Value> {
    let mut drawn = serde_json::Map::new();
    let mut set = |rng: &mut StdRng, name: &str, from: &[serde_json::Value]| {
        if let Some(value) = from.choose(rng).filter(|_| rng.random_ratio(1, of)) {
            drawn.insert(name.to_owned(), value.clone());
        }
    };
    let algorithms = Algorithm::ALL.map(|algorithm| serde_json::json!(algorithm));
    set(rng, "distribution_algorithm", &algorithms);
    let numbers = |list: &[u64]| -> Vec<serde_json::Value> {
        list.iter().map(|n| serde_json::json!(n)).collect()
    };
    set(rng, "agent_waiting", &numbers(&[0, 1, 2, 3, 4]));
    set(rng, "queue_limit", &numbers(&[15, 60, 60, 200]));
    set(rng, "shed_from_percent", &numbers(&[30, 70, 100]));
    set(rng, "queue_timeout_ms", &numbers(&[0, 0, 0, 800, 4_000]));
    set(rng, "progress_timeout_ms", &numbers(&[0, 0, 0, 1_500]));
    set(rng, "priority_step_ms", &numbers(&[0, 20, 300, 30_000]));
    set(rng, "min_agents", &numbers(&[0, 0, 2, 4]));
    set(rng, "drain_grace_ms", &numbers(&[0, 300, 2_000]));
    let health = [
        serde_json::json!({"fast_failures_max": 2, "quarantine_ms": 200}),
        serde_json::json!({"fast_failures_max": 3, "quarantine_ms": 1_000, "remove_after_ms": 0}),
        serde_json::json!({"fast_failures_max": 0, "stuck_after_ms": 700}),
        serde_json::json!({"error_rate_percent": 40, "error_attempts_min": 4, "error_window_ms": 10_000}),
        serde_json::json!({"remove_after_ms": 800, "fast_failures_max": 2}),
    ];
    set(rng, "health", &health);
    set(rng, "stealing", &[true.into(), true.into(), false.into()]);
    drawn
}

/// The type of agents whose processes hosts start.
const MANAGED: &str = "model";

/// The agent that was started by hand as the `n`th.
pub fn by_hand(n: usize) -> AgentId {
    AgentId(Uuid::from_u128(0xa6e0_0000 + n as u128))
}

/// What an agent is to be, and what its program does.
fn spec(rng: &mut StdRng) -> AgentSpec {
    let program = match rng.random_range(0..12) {
        n @ 0..6 => PROGRAMS[n],
        _ => PROGRAMS[0],
    };
    let restart = RestartPolicy {
        restart: match rng.random_range(0..5) {
            0 => Restart::Never,
            1 => Restart::OnFailure,
            _ => Restart::Always,
        },
        backoff_ms: rng.random_range(50..500),
        backoff_cap_ms: 1_000,
        crash_limit: rng.random_range(0..4),
        stable_ms: rng.random_range(0..1_500),
    };
    let spec = serde_json::json!({
        "agent_type": MANAGED, "adapter": "process", "command": [program],
        "slots": rng.random_range(1..4), "restart": restart,
        "capabilities": CAPABILITIES.iter().filter(|_| rng.random()).collect::<Vec<_>>(),
    });
    serde_json::from_value(spec).expect("a spec")
}

pub struct Client {
    places: Vec<Place>,
    log: SimulatedLog,
    /// By swarm.
    sent: Vec<Vec<TaskId>>,
    graphs: Vec<Vec<GraphId>>,
    dead: Vec<Vec<TaskId>>,
    recent: VecDeque<Message>,
    /// Agents that were started by hand.
    by_hand: usize,
    /// Agents that were added, by swarm.
    added: Vec<Vec<AgentId>>,
    /// A swarm that there is not.
    unknown: SwarmId,
    /// What agents asked, by swarm.
    asked: Vec<Vec<CommandId>>,
    /// The task that was handed over last, by swarm.
    away: Vec<Option<TaskId>>,
}

/// Most agents that a client adds to a swarm one by one.
const ADDED_MAX: usize = 4;
/// Most agents of a swarm, those that were started by hand among them.
pub const AGENTS_MAX: u32 = 9;

impl Client {
    pub fn new(places: Vec<Place>, by_hand: usize, log: SimulatedLog) -> Self {
        Self {
            by_hand,
            added: vec![Vec::new(); places.len()],
            unknown: shapes::unknown_swarm(&places),
            asked: vec![Vec::new(); places.len()],
            away: vec![None; places.len()],
            sent: vec![Vec::new(); places.len()],
            graphs: vec![Vec::new(); places.len()],
            dead: vec![Vec::new(); places.len()],
            places,
            log,
            recent: VecDeque::new(),
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
        let time = Timestamp::from_micros(clock.wall());
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
        self.recent.push_front(message);
        self.recent.truncate(RECENT_MAX);
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

    /// A swarm.
    pub fn create_swarm(
        &mut self,
        place: Place,
        clock: &Clock,
        rng: &mut StdRng,
        configuration: &serde_json::Value,
    ) {
        let (topology, options) = shapes::topology(rng);
        let subject = Subject::Command(place, CommandVerb::Create);
        let body = command::Create {
            name: format!("sim-{}", place.swarm),
            description: None,
            topology: Some(topology),
            topology_configuration: Json::from(options),
            configuration: Json::from(configuration.clone()),
            created_by: None,
            body_sha256: None,
        };
        let message = self.event(clock, new_id(clock, rng), &subject, place.swarm.0, body);
        self.send(message);
    }

    /// One step of a client's life.
    pub fn step(&mut self, clock: &Clock, rng: &mut StdRng) {
        let at = rng.random_range(0..self.places.len());
        match rng.random_range(0..116) {
            114.. => self.call_back(at, clock, rng),
            112.. => self.answer(at, clock, rng),
            108.. => self.change_topology(at, clock, rng),
            100.. => self.about_agents(at, clock, rng),
            0..46 => self.single(at, clock, rng),
            46..66 => self.graph(at, clock, rng),
            66..72 => self.command(at, clock, rng, CommandVerb::Cancel),
            72..78 => self.command(at, clock, rng, CommandVerb::Retry),
            78..81 => self.command(at, clock, rng, CommandVerb::Discard),
            81..84 => self.cancel_graph(at, clock, rng),
            84..86 => self.update(at, clock, rng),
            86..92 => {
                // The same once more, past the window in which the server would see it.
                let back = rng.random_range(0..RECENT_MAX);
                if let Some(mut message) = self.recent.get(back).cloned() {
                    message.message_id = None;
                    self.send(message);
                }
            }
            92..96 => {
                // An id that is taken, with other content.
                if let Some(id) = self.sent[at].choose(rng).copied() {
                    let submitted = self.task(rng);
                    self.submit(at, clock, rng, id, submitted);
                }
            }
            _ => self.nonsense(at, clock, rng),
        }
    }

    /// What cannot be read, or stands where it must not.
    fn nonsense(&mut self, at: usize, clock: &Clock, rng: &mut StdRng) {
        let place = self.places[at];
        let subject = Subject::Task(place, TaskVerb::Submitted, None).to_string();
        let payload: Bytes = match rng.random_range(0..9) {
            0..3 => "{".into(),
            3..6 => r#"{"specversion":"1.0"}"#.into(),
            6..8 => {
                // A good submission on the partition of another swarm.
                let other = self.places[rng.random_range(0..self.places.len())].partition;
                let id = new_id(clock, rng);
                let wrong = Subject::Task(place, TaskVerb::Submitted, None);
                let task = self.task(rng);
                let message = self.event(clock, id, &wrong, new_id(clock, rng), task);
                let from = format!("swarm.evt.{}.", place.partition);
                let to = format!("swarm.evt.{other}.");
                self.send(Message {
                    subject: subject.replacen(&from, &to, 1),
                    message_id: None,
                    ..message
                });
                return;
            }
            _ => {
                // Longer than a task may be.
                let mut task = self.task(rng);
                task.payload = Json::from(serde_json::json!("x".repeat(PAYLOAD_BYTES_MAX)));
                let id = TaskId(new_id(clock, rng));
                self.submit(at, clock, rng, id, task);
                return;
            }
        };
        self.send(Message {
            subject,
            payload,
            message_id: None,
            fence: None,
        });
    }

    fn task(&self, rng: &mut StdRng) -> Submitted {
        let long = if rng.random_ratio(1, 20) { 2_000 } else { 10 };
        let kind = if rng.random_ratio(1, 4) {
            "other"
        } else {
            "model"
        };
        let mut task = Submitted {
            hand_to: None,
            origin: None,
            required_role: None,
            task_type: kind.to_owned(),
            payload: Json::from(
                serde_json::json!({"n": rng.random::<u32>(), "text": "x".repeat(long)}),
            ),
            priority: if rng.random_ratio(1, 30) {
                11
            } else {
                rng.random_range(1..=10)
            },
            required_capabilities: CAPABILITIES
                .iter()
                .filter(|_| rng.random_ratio(1, 6))
                .map(|&word| word.to_owned())
                .collect(),
            max_attempts: rng.random_ratio(1, 3).then(|| rng.random_range(1..5)),
            timeout_ms: Some(5_000),
            queue_timeout_ms: rng.random_ratio(1, 12).then(|| rng.random_range(0..4_000)),
            progress_timeout_ms: rng.random_ratio(1, 20).then(|| rng.random_range(0..2_000)),
            parent_task_id: None,
            affinity_key: rng
                .random_ratio(1, 3)
                .then(|| format!("key {}", rng.random_range(0..4))),
            depends_on: Vec::new(),
            key: None,
            graph: None,
            body_sha256: None,
        };
        self.ask_for(&mut task, rng);
        task
    }

    fn submit(
        &mut self,
        at: usize,
        clock: &Clock,
        rng: &mut StdRng,
        id: TaskId,
        submitted: Submitted,
    ) {
        let subject = Subject::Task(self.places[at], TaskVerb::Submitted, None);
        let message = self.event(clock, new_id(clock, rng), &subject, id.0, submitted);
        self.send(message);
    }

    fn single(&mut self, at: usize, clock: &Clock, rng: &mut StdRng) {
        let id = TaskId(new_id(clock, rng));
        let mut task = self.task(rng);
        if rng.random_ratio(1, 20) {
            task.parent_task_id = self.sent[at].choose(rng).copied();
        }
        self.submit(at, clock, rng, id, task);
        self.sent[at].push(id);
    }

    fn graph(&mut self, at: usize, clock: &Clock, rng: &mut StdRng) {
        // Some are one after the other, so that a failure has a long way.
        let chain = rng.random_ratio(1, 5);
        let of = match rng.random_range(0..30) {
            0 => rng.random_range(20..60u32),
            _ if chain => rng.random_range(2..16u32),
            _ => rng.random_range(1..8u32),
        };
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
                let other = if chain {
                    index.checked_sub(1).map(|before| ids[before])
                } else if rng.random_ratio(1, 5) {
                    self.sent[at].choose(rng).copied()
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
                let dependency_type = if chain {
                    DependencyType::Success
                } else {
                    *kinds.choose(rng).unwrap_or(&DependencyType::Completion)
                };
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
            self.submit(at, clock, rng, *id, task);
        }
        self.sent[at].extend(ids);
        self.graphs[at].push(graph);
    }

    /// Takes note of tasks that failed for good.
    pub fn hear(&mut self, met: &Met) {
        self.hear_question(met);
        self.hear_of_other_swarms(met);
        let Some(recorded) = met.recorded() else {
            return;
        };
        if let (Subject::Task(place, ..), Body::TaskFailed(failed)) =
            (&recorded.subject, &recorded.event.body)
            && failed.dead_lettered
            && let Some(at) = self.places.iter().position(|p| p == place)
        {
            self.dead[at].push(TaskId(recorded.event.about));
        }
    }

    /// One of the last graphs, mostly.
    fn cancel_graph(&mut self, at: usize, clock: &Clock, rng: &mut StdRng) {
        let graphs = &self.graphs[at];
        let back = rng.random_range(0..3);
        let graph_id = match graphs.len().checked_sub(1 + back) {
            Some(last) if !rng.random_ratio(1, 20) => graphs[last],
            _ => GraphId(new_id(clock, rng)),
        };
        let body = command::CancelGraph {
            graph_id,
            reason: rng
                .random::<bool>()
                .then(|| "the model wants it".to_owned()),
        };
        let subject = Subject::Command(self.places[at], CommandVerb::CancelGraph);
        let message = self.event(clock, new_id(clock, rng), &subject, graph_id.0, body);
        self.send(message);
    }

    /// An order about agents.
    fn about_agents(&mut self, at: usize, clock: &Clock, rng: &mut StdRng) {
        let place = self.places[at];
        let (verb, about, body): (CommandVerb, Uuid, Body) = match rng.random_range(0..10) {
            0..3 if self.added[at].len() < ADDED_MAX => {
                let id = AgentId(new_id(clock, rng));
                self.added[at].push(id);
                let spec = spec(rng);
                let body_sha256 = None;
                let order = command::AddAgent { spec, body_sha256 };
                (CommandVerb::AddAgent, id.0, order.into())
            }
            0..6 => {
                let desired = rng.random_bool(0.5);
                let order = command::Scale {
                    desired: desired.then(|| rng.random_range(1..7)),
                    delta: (!desired).then(|| rng.random_range(-2..=2)),
                    agent_type: rng.random_ratio(2, 3).then(|| MANAGED.to_owned()),
                    reason: None,
                };
                (CommandVerb::Scale, place.swarm.0, order.into())
            }
            6 => {
                let force = rng.random_ratio(1, 3);
                let order = command::RemoveAgent {
                    reason: None,
                    force,
                    grace_ms: (!force).then(|| rng.random_range(0..1_500)),
                };
                (
                    CommandVerb::RemoveAgent,
                    self.agent(at, rng).0,
                    order.into(),
                )
            }
            7 => {
                let force = rng.random_ratio(1, 3);
                let order = command::RestartAgent {
                    reason: None,
                    force,
                    grace_ms: (!force).then(|| rng.random_range(0..1_500)),
                };
                (
                    CommandVerb::RestartAgent,
                    self.agent(at, rng).0,
                    order.into(),
                )
            }
            _ => {
                let agent = self.agent(at, rng);
                let mut patch = serde_json::json!({"slots": rng.random_range(1..4)});
                // In each swarm one stays that can take every task.
                if (0..self.places.len()).all(|n| by_hand(n) != agent) {
                    let some = CAPABILITIES.iter().filter(|_| rng.random());
                    patch["capabilities"] = some.copied().collect::<Vec<_>>().into();
                }
                let order = command::UpdateAgent {
                    incarnation: None,
                    patch: Json::from(patch),
                };
                (CommandVerb::UpdateAgent, agent.0, order.into())
            }
        };
        let subject = Subject::Command(place, verb);
        let message = self.event(clock, new_id(clock, rng), &subject, about, body);
        self.send(message);
    }

    /// An agent of a swarm, mostly one that was added.
    fn agent(&self, at: usize, rng: &mut StdRng) -> AgentId {
        match self.added[at].choose(rng) {
            Some(id) if rng.random_ratio(3, 4) => *id,
            _ => by_hand(at + self.places.len() * rng.random_range(0..2) % self.by_hand.max(1)),
        }
    }

    /// Other settings, under load.
    fn update(&mut self, at: usize, clock: &Clock, rng: &mut StdRng) {
        let patch = serde_json::json!({"configuration": settings(rng, 2)});
        let place = self.places[at];
        let subject = Subject::Command(place, CommandVerb::Update);
        let body = command::Update {
            patch: Json::from(patch),
        };
        let message = self.event(clock, new_id(clock, rng), &subject, place.swarm.0, body);
        self.send(message);
    }

    fn command(&mut self, at: usize, clock: &Clock, rng: &mut StdRng, verb: CommandVerb) {
        let dead = verb != CommandVerb::Cancel && rng.random_ratio(2, 3);
        let known = if dead { &self.dead } else { &self.sent };
        let task_id = match known[at].choose(rng) {
            Some(id) if !rng.random_ratio(1, 20) => *id,
            _ => TaskId(new_id(clock, rng)),
        };
        self.command_on(task_id, at, clock, rng, verb);
    }

    fn command_on(
        &mut self,
        task_id: TaskId,
        at: usize,
        clock: &Clock,
        rng: &mut StdRng,
        verb: CommandVerb,
    ) {
        let body: Body = match verb {
            CommandVerb::Cancel => command::Cancel {
                task_id,
                reason: None,
            }
            .into(),
            CommandVerb::Discard => command::Discard { task_id }.into(),
            _ => command::Retry { task_id }.into(),
        };
        let subject = Subject::Command(self.places[at], verb);
        let message = self.event(clock, new_id(clock, rng), &subject, task_id.0, body);
        self.send(message);
    }
}
