//! One swarm in a miniature world, with words for what happens in it.

mod agents;
pub mod beyond;
pub mod shape;

use std::collections::BTreeMap;

use swarm_distributor_core::{Distributor, TaskView};
use swarm_events::{
    AgentId, Body, Event, GraphId, Input, Json, OrgId, Place, Service, Subject, SwarmId, TaskId,
    agent::{Evidence, Joined, Left, LivenessRule, Profile, Suspected},
    configuration::Configuration,
    decider::Verdict,
    envelope::Source,
    ids::{EventId, InstanceId},
    read::{Writer, writer},
    subject::{AgentVerb, CommandVerb, ControlVerb, SwarmVerb, TaskVerb},
    task::{
        Assigned, AttemptFailed, Carried, Completed, Dependency, DependencyType, GraphPart,
        Progressed, Started, Submitted, Then,
    },
    testing::World,
    topology::Topology,
};
use uuid::Uuid;

/// A swarm, and names for its tasks and agents.
pub struct Scene {
    pub world: World<Distributor>,
    pub place: Place,
    epochs: BTreeMap<&'static str, (u64, u64)>,
    names: BTreeMap<Uuid, String>,
    ids: BTreeMap<String, Uuid>,
    incarnations: BTreeMap<String, u64>,
    seen: usize,
}

/// A task with nothing but a type.
pub fn plain() -> Submitted {
    serde_json::from_str(r#"{"task_type": "count"}"#).expect("a minimal task")
}

fn profile(name: &str, slots: u32, waiting: u32, capabilities: &[&str]) -> Profile {
    Profile {
        agent_type: "exec".to_owned(),
        agent_name: name.to_owned(),
        capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
        slots,
        waiting,
        metadata: Json::object(),
    }
}

pub fn evidence() -> Evidence {
    Evidence {
        rule: LivenessRule::Silence,
        last_heartbeat_at: None,
        age_ms: 3_000,
        limit_ms: 3_000,
    }
}

impl Scene {
    /// A running swarm with the default configuration.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A running swarm whose configuration differs from the default.
    pub fn with(change: impl FnOnce(&mut Configuration)) -> Self {
        Self::at(SwarmId(Uuid::from_u128(0xB)), Topology::default(), change)
    }

    /// A running swarm of this id and topology.
    pub fn at(swarm: SwarmId, topology: Topology, change: impl FnOnce(&mut Configuration)) -> Self {
        let place = Place::new(OrgId(Uuid::from_u128(0xA)), swarm);
        let mut world = World::new(place.partition);
        let epochs = [Service::Coordinator, Service::Health]
            .map(|service| (service.as_str(), (world.claim_of(service), 0)));
        let mut scene = Self {
            world,
            place,
            epochs: epochs.into(),
            names: BTreeMap::new(),
            ids: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            seen: 0,
        };
        let mut configuration = Configuration::default();
        change(&mut configuration);
        let created = swarm_events::swarm::Created {
            name: "s".to_owned(),
            description: None,
            topology,
            configuration,
            partition: place.partition.number(),
            created_by: None,
        };
        scene.coordinator(
            Subject::Swarm(place, SwarmVerb::Created),
            place.swarm.0,
            created,
        );
        scene
    }

    fn other(
        &mut self,
        service: Service,
        subject: Subject,
        about: Uuid,
        body: impl Into<Body>,
    ) -> Verdict {
        let (epoch, ordinal) = self.epochs.get_mut(service.as_str()).expect("claimed");
        *ordinal += 1;
        let (epoch, ordinal) = (*epoch, *ordinal);
        self.world
            .other(service, subject, about, body, epoch, ordinal)
    }
    pub fn coordinator(&mut self, subject: Subject, about: Uuid, body: impl Into<Body>) -> Verdict {
        self.other(Service::Coordinator, subject, about, body)
    }
    pub fn health(&mut self, name: &str, verb: AgentVerb, body: impl Into<Body>) -> Verdict {
        let id = self.agent_id(name);
        self.other(
            Service::Health,
            Subject::Agent(self.place, verb, id),
            id.0,
            body,
        )
    }
    pub fn member(&mut self, name: &str, verb: AgentVerb, body: impl Into<Body>) -> Verdict {
        let id = self.agent_id(name);
        self.coordinator(Subject::Agent(self.place, verb, id), id.0, body)
    }
    pub fn stop_swarm(&mut self) {
        let subject = Subject::Swarm(self.place, SwarmVerb::Stopping);
        self.coordinator(
            subject,
            self.place.swarm.0,
            swarm_events::swarm::Stopping {},
        );
    }
    pub fn configure(&mut self, configuration: Configuration) {
        let updated = swarm_events::swarm::Updated {
            name: "s".to_owned(),
            description: None,
            configuration,
        };
        self.coordinator(
            Subject::Swarm(self.place, SwarmVerb::Updated),
            self.place.swarm.0,
            updated,
        );
    }

    /// The id that a name stands for.
    pub fn id(&mut self, name: &str) -> Uuid {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.world.id();
        self.ids.insert(name.to_owned(), id);
        self.names.insert(id, name.to_owned());
        id
    }
    pub fn task_id(&mut self, name: &str) -> TaskId {
        TaskId(self.id(name))
    }
    pub fn agent_id(&mut self, name: &str) -> AgentId {
        AgentId(self.id(name))
    }

    /// An agent process joins: one slot, nothing waiting, no capabilities.
    pub fn join(&mut self, name: &str) -> Verdict {
        self.join_as(name, 1, 0, &[])
    }
    pub fn join_as(
        &mut self,
        name: &str,
        slots: u32,
        waiting: u32,
        capabilities: &[&str],
    ) -> Verdict {
        let incarnation = self.incarnations.entry(name.to_owned()).or_default();
        *incarnation += 1;
        let joined = Joined {
            incarnation: *incarnation,
            instance: InstanceId(Uuid::from_u128(77)),
            profile: profile(name, slots, waiting, capabilities),
        };
        self.member(name, AgentVerb::Joined, joined)
    }
    pub fn fail(&mut self, name: &str) -> Verdict {
        let incarnation = self.incarnations[name];
        let failed = swarm_events::agent::Failed {
            incarnation,
            evidence: evidence(),
        };
        self.health(name, AgentVerb::Failed, failed)
    }

    pub fn joined(&self, name: &str) -> bool {
        self.incarnations.contains_key(name)
    }
    pub fn leave(&mut self, name: &str) {
        if let Some(&incarnation) = self.incarnations.get(name) {
            let reason = "test".to_owned();
            self.member(
                name,
                AgentVerb::Left,
                Left {
                    incarnation,
                    reason,
                },
            );
        }
    }
    pub fn suspect(&mut self, name: &str) {
        if let Some(&incarnation) = self.incarnations.get(name) {
            let evidence = evidence();
            self.health(
                name,
                AgentVerb::Suspected,
                Suspected {
                    incarnation,
                    evidence,
                },
            );
        }
    }
    /// The owner wakes; it does not decide.
    pub fn wake(&mut self) {
        let woken = swarm_events::control::Woken {};
        self.world
            .control(Service::Distributor, ControlVerb::Woken, woken);
    }

    /// A client submits.
    pub fn submit(&mut self, name: &str) -> Verdict {
        self.submit_as(name, |_| {})
    }
    pub fn submit_as(&mut self, name: &str, change: impl FnOnce(&mut Submitted)) -> Verdict {
        let mut task = plain();
        change(&mut task);
        let about = self.id(name);
        let event = self.world.id();
        let subject = Subject::Task(self.place, TaskVerb::Submitted, None);
        self.world.client_as(event, subject, about, task)
    }
    /// A client submits part `index` of a graph of `of`.
    pub fn part(
        &mut self,
        graph: &str,
        index: u32,
        of: u32,
        name: &str,
        edges: &[(&str, DependencyType)],
    ) -> Verdict {
        let id = GraphId(self.id(graph));
        let edges = self.edges(edges);
        self.submit_as(name, |task| {
            task.graph = Some(GraphPart { id, index, of });
            task.depends_on = edges;
        })
    }
    pub fn edges(&mut self, edges: &[(&str, DependencyType)]) -> Vec<Dependency> {
        edges
            .iter()
            .map(|(name, dependency_type)| Dependency {
                task_id: self.task_id(name),
                dependency_type: *dependency_type,
                alias: None,
            })
            .collect()
    }
    /// A person's command about a task, or a graph; answers with its id.
    pub fn command(&mut self, verb: CommandVerb, name: &str) -> Uuid {
        let task_id = self.task_id(name);
        let subject = Subject::Command(self.place, verb);
        let body: Body = match verb {
            CommandVerb::Retry => swarm_events::command::Retry { task_id }.into(),
            CommandVerb::Discard => swarm_events::command::Discard { task_id }.into(),
            CommandVerb::CancelGraph => swarm_events::command::CancelGraph {
                graph_id: GraphId(task_id.0),
                reason: None,
            }
            .into(),
            _ => swarm_events::command::Cancel {
                task_id,
                reason: None,
            }
            .into(),
        };
        self.world.client(subject, task_id.0, body)
    }

    /// The agent that holds a task, and the last assignment of it.
    pub fn assignment(&mut self, task: &str) -> (AgentId, u64, Assigned) {
        let id = self.id(task);
        self.world
            .log
            .iter()
            .zip(&self.world.verdicts)
            .rev()
            .find_map(|(stored, verdict)| {
                let Input::Event(recorded) = stored.input() else {
                    return None;
                };
                match (recorded.event.body, verdict) {
                    (Body::TaskAssigned(assigned), Verdict::Applied)
                        if recorded.event.about == id =>
                    {
                        Some((recorded.subject.agent()?, stored.sequence, assigned))
                    }
                    _ => None,
                }
            })
            .unwrap_or_else(|| panic!("{task} was never assigned"))
    }
    pub fn by_agent(
        &mut self,
        task: &str,
        agent: AgentId,
        verb: TaskVerb,
        body: impl Into<Body>,
    ) -> Verdict {
        let about = self.id(task);
        let subject = Subject::Task(self.place, verb, Some(agent));
        let id = EventId(self.world.id());
        let event = Event::new(
            id,
            Source::Agent(agent),
            self.world.now,
            &subject,
            about,
            body,
        );
        self.world.event(&subject, &event)
    }
    /// Its agent starts a task under its last assignment.
    pub fn start(&mut self, task: &str) -> Verdict {
        let (agent, assignment, assigned) = self.assignment(task);
        let incarnation = assigned.incarnation;
        self.by_agent(
            task,
            agent,
            TaskVerb::Started,
            Started {
                assignment,
                incarnation,
            },
        )
    }
    pub fn progress(&mut self, task: &str) -> Verdict {
        let (agent, assignment, assigned) = self.assignment(task);
        let progressed = Progressed {
            assignment,
            incarnation: assigned.incarnation,
            percent: Some(10),
            message: None,
        };
        self.by_agent(task, agent, TaskVerb::Progressed, progressed)
    }
    pub fn complete(&mut self, task: &str) -> Verdict {
        self.complete_with(task, Carried::Inline(Json::object()))
    }
    pub fn complete_with(&mut self, task: &str, result: Carried) -> Verdict {
        let (agent, assignment, assigned) = self.assignment(task);
        let incarnation = assigned.incarnation;
        let completed = Completed {
            assignment,
            incarnation,
            result,
        };
        self.by_agent(task, agent, TaskVerb::Completed, completed)
    }
    pub fn fail_attempt(&mut self, task: &str, retryable: bool) -> Verdict {
        let (agent, assignment, assigned) = self.assignment(task);
        let failed = AttemptFailed {
            assignment,
            incarnation: assigned.incarnation,
            error: "exit code 1".to_owned(),
            retryable,
        };
        self.by_agent(task, agent, TaskVerb::AttemptFailed, failed)
    }
    /// Given: it is assigned, started and completed.
    pub fn run(&mut self, task: &str) {
        self.world.settle();
        assert_eq!(self.start(task), Verdict::Applied);
        assert_eq!(self.complete(task), Verdict::Applied);
        self.world.settle();
    }

    /// Given: it is started and completed under the assignment that it has.
    pub fn run_held(&mut self, task: &str) {
        assert_eq!(self.start(task), Verdict::Applied);
        assert_eq!(self.complete(task), Verdict::Applied);
    }
    /// The name of the task that an agent was given first.
    pub fn first_of(&mut self, agent: &str) -> String {
        let id = self.agent_id(agent);
        let view = self.world.state.agent(self.place, id).expect("an agent");
        self.name(view.waiting.first().expect("it has something").0)
    }

    fn name(&self, id: Uuid) -> String {
        self.names
            .get(&id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
    }

    /// What the distributor has written since this was asked last, figures aside, in short words.
    pub fn news(&mut self) -> Vec<String> {
        self.world.settle();
        let mut news = Vec::new();
        for (stored, verdict) in self
            .world
            .log
            .iter()
            .zip(&self.world.verdicts)
            .skip(self.seen)
        {
            let Input::Event(recorded) = stored.input() else {
                continue;
            };
            if writer(&recorded.subject) != Writer::Service(Service::Distributor) {
                continue;
            }
            let about = self.name(recorded.event.about);
            let agent = recorded
                .subject
                .agent()
                .map(|a| self.name(a.0))
                .unwrap_or_default();
            let field =
                |p: &swarm_events::Problem| p.field.clone().unwrap_or_else(|| p.code.clone());
            let words = match recorded.event.body {
                Body::SwarmMeasured(_) => continue,
                Body::TaskAssigned(_) => format!("assigned {about} to {agent}"),
                Body::TaskWithdrawn(w) => {
                    let then = match w.then {
                        Then::Queue => "queue",
                        Then::RetryAfterMs(_) => "retry",
                        Then::End => "end",
                    };
                    let force = if w.force { "" } else { " if not started" };
                    format!(
                        "withdrawn {about} from {agent}: {:?}, {then}{force}",
                        w.reason
                    )
                }
                Body::TaskRetried(r) => format!("retried {about}: generation {}", r.generation),
                Body::TaskFailed(f) => format!("failed {about}: {}", self.named(&f.error)),
                Body::TaskCancelled(c) => format!("cancelled {about}: {}", c.reason),
                Body::TaskRejected(r) => format!("rejected {about}: {}", field(&r.problem)),
                Body::TaskRefused(r) => format!("refused {about}: {} ×{}", r.problem.code, r.count),
                Body::TaskGraphCancelled(c) => {
                    format!("called off {about}: {} ×{}", c.reason, c.tasks)
                }
                Body::TaskDiscarded(d) => format!("discarded {about}: generation {}", d.generation),
                Body::TaskHandedOver(over) => format!("handed over {about}: {}", over.generation),
                Body::TaskHandedBack(back) => format!("handed back {about}: {}", back.generation),
                Body::TaskGraphAccepted(_) => format!("accepted {about}"),
                Body::TaskGraphRejected(r) => format!("rejected {about}: {}", field(&r.problem)),
                other => panic!("not the distributor's: {other:?}"),
            };
            news.push(match verdict {
                Verdict::Void(why) => format!("void ({why}): {words}"),
                _ => words,
            });
        }
        self.seen = self.world.log.len();
        news
    }

    /// Ids in a text as the names that they stand for.
    pub fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (id, name) in &self.names {
            text = text.replace(&id.to_string(), name);
        }
        text
    }

    pub fn view(&mut self, task: &str) -> TaskView {
        let id = self.task_id(task);
        self.world
            .state
            .task(self.place, id)
            .unwrap_or_else(|| panic!("{task} is not known"))
    }
    /// The task's status as a word.
    pub fn status(&mut self, task: &str) -> &'static str {
        self.view(task).status.as_str()
    }
    /// Owner, stranger and snapshot agree on what the log says.
    pub fn folds_agree(&self) {
        let bytes = |state: &Distributor| postcard::to_stdvec(state).expect("states encode");
        let warm = bytes(&self.world.state);
        assert!(warm == bytes(&self.world.cold()), "the cold fold differs");
        let back: Distributor = postcard::from_bytes(&warm).expect("snapshots decode");
        assert!(back == self.world.state, "the snapshot differs");
        assert!(warm == bytes(&back), "the snapshot's bytes differ");
    }
}
