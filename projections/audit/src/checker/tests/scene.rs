//! A log made by hand: every message passes through its real bytes.

use std::collections::BTreeMap;

use swarm_events::{
    AgentId, Body, Event, InstanceId, OrgId, Place, Service, Subject, SwarmId, TaskId, Timestamp,
    agent::{self, Profile},
    command::Cancel,
    configuration::Configuration,
    control::Claimed,
    envelope::{Decided, Source},
    ids::EventId,
    read,
    subject::{AgentVerb, CommandVerb, ControlVerb, SwarmVerb, TaskVerb},
    swarm,
    task::{self, Carried, DependencyType, GraphPart, Then, WithdrawReason},
};
use uuid::Uuid;

use crate::{Checker, Invariant};

pub(super) const DISTRIBUTOR: Service = Service::Distributor;
pub(super) const COORDINATOR: Service = Service::Coordinator;
pub(super) const HEALTH: Service = Service::Health;

/// The owner of everything, and another replica.
pub(super) const OWNER: InstanceId = InstanceId(Uuid::from_u128(0x0b));
pub(super) const OTHER: InstanceId = InstanceId(Uuid::from_u128(0x0c));

pub(super) fn task(n: u128) -> TaskId {
    TaskId(Uuid::from_u128(0x7a_0000 + n))
}
pub(super) fn agent(n: u128) -> AgentId {
    AgentId(Uuid::from_u128(0xa6_0000 + n))
}

/// How the next decision deviates from an honest one.
#[derive(Clone, Copy, Default)]
pub(super) struct Forged {
    pub(super) cause: Option<u64>,
    pub(super) epoch: Option<u64>,
    pub(super) ordinal: Option<u64>,
    pub(super) instance: Option<InstanceId>,
    pub(super) id: Option<EventId>,
}

pub(super) struct Scene {
    pub(super) checker: Checker,
    pub(super) sequence: u64,
    pub(super) now: Timestamp,
    pub(super) place: Place,
    pub(super) epochs: BTreeMap<Service, (u64, u64)>,
    pub(super) causation: Option<Uuid>,
    pub(super) forged: Forged,
    /// The settings in force.
    pub(super) settings: Configuration,
    ids: u128,
}

impl Scene {
    /// A swarm, claimed by one owner for every service.
    pub(super) fn new(checker: Checker) -> Self {
        let place = Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)));
        let mut scene = Self {
            checker,
            sequence: 0,
            now: Timestamp::from_micros(1_780_000_000_000_000),
            place,
            epochs: BTreeMap::new(),
            causation: None,
            forged: Forged::default(),
            settings: Configuration::default(),
            ids: 0,
        };
        for service in [COORDINATOR, DISTRIBUTOR, HEALTH] {
            scene.claim(service, OWNER);
        }
        let created = swarm::Created {
            name: "s".to_owned(),
            description: None,
            topology: swarm_events::topology::Topology::default(),
            configuration: scene.settings.clone(),
            partition: place.partition.number(),
            created_by: None,
        };
        scene.decide(
            COORDINATOR,
            Subject::Swarm(place, SwarmVerb::Created),
            place.swarm.0,
            created,
        );
        scene
    }

    pub(super) fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(0xe0_0000 + self.ids)
    }

    pub(super) fn later(&mut self, millis: u64) -> &mut Self {
        self.now = self.now.plus_millis(millis);
        self
    }

    pub(super) fn store(&mut self, subject: Subject, event: &Event) -> u64 {
        self.sequence += 1;
        let bytes = event.to_json().expect("JSON");
        let input = read(self.sequence, self.now, &subject.to_string(), &bytes);
        assert!(
            matches!(input, swarm_events::Input::Event(_)),
            "the scene writes what can be read: {input:?}"
        );
        self.checker.meet(&input);
        self.sequence
    }

    pub(super) fn write(
        &mut self,
        subject: Subject,
        source: Source,
        about: Uuid,
        body: impl Into<Body>,
    ) -> u64 {
        let id = EventId(self.id());
        let event = Event::new(id, source, self.now, &subject, about, body);
        self.store(subject, &event)
    }

    pub(super) fn claim_after(&mut self, service: Service, by: InstanceId, previous: u64) -> u64 {
        let claimed = Claimed {
            instance: by,
            decider_version: 1,
            previous,
            reason: "takeover".to_owned(),
            rejects: Vec::new(),
        };
        let partition = self.place.partition;
        let subject = Subject::Control(service, partition, ControlVerb::Claimed);
        let about = Event::about_partition(partition);
        let epoch = self.write(subject, Source::Service(service, by), about, claimed);
        self.epochs.insert(service, (epoch, 0));
        epoch
    }
    pub(super) fn claim(&mut self, service: Service, by: InstanceId) -> u64 {
        let previous = self.epochs.get(&service).map_or(0, |e| e.0);
        self.claim_after(service, by, previous)
    }

    pub(super) fn control(
        &mut self,
        service: Service,
        body: swarm_events::control::Observed,
    ) -> u64 {
        let partition = self.place.partition;
        let subject = Subject::Control(service, partition, ControlVerb::Observed);
        let about = Event::about_partition(partition);
        self.write(subject, Source::Service(service, OWNER), about, body)
    }

    /// A decision, honest but for what is forged.
    pub(super) fn decide(
        &mut self,
        service: Service,
        subject: Subject,
        about: Uuid,
        body: impl Into<Body>,
    ) -> u64 {
        let forged = std::mem::take(&mut self.forged);
        let (epoch, ordinal) = self.epochs.entry(service).or_default();
        if forged.ordinal.is_none() && forged.epoch.is_none() {
            *ordinal += 1;
        }
        let decided = Decided {
            cause_sequence: forged.cause.unwrap_or(self.sequence),
            epoch: forged.epoch.unwrap_or(*epoch),
            ordinal: forged.ordinal.unwrap_or(*ordinal),
            decider_version: 1,
        };
        let id = EventId::of_decision(service.as_str(), decided.epoch, decided.ordinal);
        let by = Source::Service(service, forged.instance.unwrap_or(OWNER));
        let id = forged.id.unwrap_or(id);
        let mut event = Event::new(id, by, self.now, &subject, about, body);
        event.decided = Some(decided);
        event.causation = self.causation.take();
        self.store(subject, &event)
    }

    fn task_decision(&mut self, id: TaskId, verb: TaskVerb, body: impl Into<Body>) -> u64 {
        let subject = Subject::Task(self.place, verb, None);
        self.decide(DISTRIBUTOR, subject, id.0, body)
    }

    /// The settings change.
    pub(super) fn set(&mut self, change: impl FnOnce(&mut Configuration)) -> u64 {
        change(&mut self.settings);
        let updated = swarm::Updated {
            name: "s".to_owned(),
            description: None,
            configuration: self.settings.clone(),
        };
        let subject = Subject::Swarm(self.place, SwarmVerb::Updated);
        self.decide(COORDINATOR, subject, self.place.swarm.0, updated)
    }

    pub(super) fn join(&mut self, id: AgentId, incarnation: u64, slots: u32) -> u64 {
        self.join_with(id, incarnation, slots, 0, &["a"])
    }
    pub(super) fn join_with(
        &mut self,
        id: AgentId,
        incarnation: u64,
        slots: u32,
        waiting: u32,
        capabilities: &[&str],
    ) -> u64 {
        let joined = agent::Joined {
            incarnation,
            instance: InstanceId(Uuid::from_u128(0x1000 + u128::from(incarnation))),
            profile: Profile {
                agent_type: "t".to_owned(),
                agent_name: id.to_string(),
                capabilities: capabilities.iter().map(|&word| word.to_owned()).collect(),
                slots,
                waiting,
                metadata: swarm_events::Json::default(),
            },
        };
        let subject = Subject::Agent(self.place, AgentVerb::Joined, id);
        self.decide(COORDINATOR, subject, id.0, joined)
    }

    pub(super) fn fail_agent(&mut self, id: AgentId, incarnation: u64) -> u64 {
        let failed = agent::Failed {
            incarnation,
            evidence: agent::Evidence {
                rule: agent::LivenessRule::Silence,
                last_heartbeat_at: None,
                age_ms: 4_000,
                limit_ms: 4_000,
            },
        };
        let subject = Subject::Agent(self.place, AgentVerb::Failed, id);
        self.decide(HEALTH, subject, id.0, failed)
    }

    pub(super) fn submission(&self) -> task::Submitted {
        serde_json::from_str(r#"{"task_type": "t"}"#).expect("the smallest submission")
    }
    pub(super) fn submit_as(&mut self, id: TaskId, submitted: task::Submitted) -> u64 {
        let subject = Subject::Task(self.place, TaskVerb::Submitted, None);
        self.write(subject, Source::Client("test".to_owned()), id.0, submitted)
    }
    pub(super) fn submit(&mut self, id: TaskId) -> u64 {
        self.submit_with(id, |_| {})
    }
    pub(super) fn submit_with(
        &mut self,
        id: TaskId,
        change: impl FnOnce(&mut task::Submitted),
    ) -> u64 {
        let mut submitted = self.submission();
        change(&mut submitted);
        self.submit_as(id, submitted)
    }
    pub(super) fn submit_part(
        &mut self,
        id: TaskId,
        index: u32,
        of: u32,
        after: Option<TaskId>,
    ) -> u64 {
        let mut submitted = self.submission();
        submitted.graph = Some(GraphPart {
            id: self.graph(),
            index,
            of,
        });
        submitted.depends_on = after
            .map(|task_id| task::Dependency {
                task_id,
                dependency_type: DependencyType::Success,
                alias: None,
            })
            .into_iter()
            .collect();
        self.submit_as(id, submitted)
    }
    pub(super) fn graph(&self) -> swarm_events::ids::GraphId {
        swarm_events::ids::GraphId(Uuid::from_u128(0x9))
    }
    pub(super) fn accept_graph(&mut self, tasks: u32) -> u64 {
        let subject = Subject::Task(self.place, TaskVerb::GraphAccepted, None);
        let about = self.graph().0;
        self.decide(DISTRIBUTOR, subject, about, task::GraphAccepted { tasks })
    }

    pub(super) fn assign_as(
        &mut self,
        id: TaskId,
        to: AgentId,
        incarnation: u64,
        generation: u32,
    ) -> u64 {
        self.assign_with(id, to, |assigned| {
            (assigned.incarnation, assigned.generation) = (incarnation, generation);
        })
    }
    pub(super) fn assign_with(
        &mut self,
        id: TaskId,
        to: AgentId,
        change: impl FnOnce(&mut task::Assigned),
    ) -> u64 {
        let mut assigned = task::Assigned {
            path: Vec::new(),
            step: swarm_events::task::Step::Work,
            turn: None,
            task_type: "t".to_owned(),
            payload: Carried::Inline(swarm_events::Json::default()),
            inputs: None,
            attempt: 1,
            generation: 1,
            incarnation: 1,
            priority: 5,
            timeout_ms: 1_000,
            algorithm: self.settings.distribution_algorithm,
            candidates: Vec::new(),
            passed_over: BTreeMap::new(),
            affinity: None,
            stolen_from: None,
            queued_at: None,
        };
        change(&mut assigned);
        let subject = Subject::Task(self.place, TaskVerb::Assigned, Some(to));
        self.decide(DISTRIBUTOR, subject, id.0, assigned)
    }
    pub(super) fn assign(&mut self, id: TaskId, to: AgentId) -> u64 {
        self.assign_as(id, to, 1, 1)
    }

    fn by_agent(&mut self, id: TaskId, by: AgentId, verb: TaskVerb, body: impl Into<Body>) -> u64 {
        let subject = Subject::Task(self.place, verb, Some(by));
        self.write(subject, Source::Agent(by), id.0, body)
    }
    pub(super) fn start(&mut self, id: TaskId, by: AgentId, assignment: u64) -> u64 {
        let body = task::Started {
            assignment,
            incarnation: 1,
        };
        self.by_agent(id, by, TaskVerb::Started, body)
    }
    pub(super) fn complete(&mut self, id: TaskId, by: AgentId, assignment: u64) -> u64 {
        let body = task::Completed {
            assignment,
            incarnation: 1,
            result: Carried::Inline(swarm_events::Json::default()),
        };
        self.by_agent(id, by, TaskVerb::Completed, body)
    }
    pub(super) fn fail_attempt(&mut self, id: TaskId, by: AgentId, assignment: u64) -> u64 {
        let body = task::AttemptFailed {
            assignment,
            incarnation: 1,
            error: "no".to_owned(),
            retryable: true,
        };
        self.by_agent(id, by, TaskVerb::AttemptFailed, body)
    }
    pub(super) fn withdraw(&mut self, id: TaskId, from: AgentId, assignment: u64) -> u64 {
        self.withdraw_with(id, from, assignment, |_| {})
    }
    /// A steal on account of `thief`, as it should be but for `change`.
    pub(super) fn steal(
        &mut self,
        id: TaskId,
        from: AgentId,
        assignment: u64,
        thief: AgentId,
    ) -> u64 {
        self.withdraw_with(id, from, assignment, |withdrawn| {
            withdrawn.reason = WithdrawReason::Steal;
            (withdrawn.force, withdrawn.thief) = (false, Some(thief));
        })
    }
    pub(super) fn withdraw_with(
        &mut self,
        id: TaskId,
        from: AgentId,
        assignment: u64,
        change: impl FnOnce(&mut task::Withdrawn),
    ) -> u64 {
        let mut body = task::Withdrawn {
            assignment,
            incarnation: 1,
            reason: WithdrawReason::AgentFailed,
            force: true,
            then: Then::Queue,
            thief: None,
        };
        change(&mut body);
        let subject = Subject::Task(self.place, TaskVerb::Withdrawn, Some(from));
        self.decide(DISTRIBUTOR, subject, id.0, body)
    }
    pub(super) fn fail_task(&mut self, id: TaskId, generation: u32) -> u64 {
        self.fail_with(id, |failed| failed.generation = generation)
    }
    pub(super) fn fail_for(&mut self, id: TaskId, path: &[TaskId]) -> u64 {
        self.fail_with(id, |failed| {
            failed.dead_lettered = false;
            (failed.because_of, failed.path) = (path.last().copied(), path.to_vec());
        })
    }
    pub(super) fn fail_with(&mut self, id: TaskId, change: impl FnOnce(&mut task::Failed)) -> u64 {
        let mut body = task::Failed {
            attempts: 1,
            generation: 1,
            error: "no".to_owned(),
            dead_lettered: true,
            because_of: None,
            path: Vec::new(),
        };
        change(&mut body);
        self.task_decision(id, TaskVerb::Failed, body)
    }
    pub(super) fn retry(&mut self, id: TaskId, generation: u32, error: Option<&str>) -> u64 {
        let body = task::Retried {
            attempts: 0,
            delay_ms: 0,
            generation,
            error: error.map(str::to_owned),
        };
        self.task_decision(id, TaskVerb::Retried, body)
    }
    pub(super) fn cancel_task(&mut self, id: TaskId) -> u64 {
        let body = task::Cancelled {
            generation: 1,
            reason: "no".to_owned(),
        };
        self.task_decision(id, TaskVerb::Cancelled, body)
    }
    pub(super) fn discard(&mut self, id: TaskId, generation: u32) -> u64 {
        let body = task::Discarded { generation };
        self.task_decision(id, TaskVerb::Discarded, body)
    }
    pub(super) fn cancel_graph(&mut self, tasks: u32) -> u64 {
        let subject = Subject::Task(self.place, TaskVerb::GraphCancelled, None);
        let body = task::GraphCancelled {
            reason: "no".to_owned(),
            tasks,
        };
        let about = self.graph().0;
        self.decide(DISTRIBUTOR, subject, about, body)
    }
    pub(super) fn progress(&mut self, id: TaskId, by: AgentId, assignment: u64) -> u64 {
        let body = task::Progressed {
            assignment,
            incarnation: 1,
            percent: None,
            message: None,
        };
        self.by_agent(id, by, TaskVerb::Progressed, body)
    }
    pub(super) fn refuse(&mut self, command: Option<Uuid>, sequence: u64) -> u64 {
        self.causation = command;
        let body = task::Refused {
            command_id: None,
            refused_subject: "s".to_owned(),
            refused_seq: sequence,
            count: 1,
            problem: swarm_events::Problem::new("p", "d"),
        };
        self.task_decision(task(0), TaskVerb::Refused, body)
    }
    pub(super) fn measure(&mut self, completed: u64) -> u64 {
        let body = swarm::Measured {
            completed,
            ..swarm::Measured::default()
        };
        let subject = Subject::Swarm(self.place, SwarmVerb::Measured);
        self.decide(DISTRIBUTOR, subject, self.place.swarm.0, body)
    }
    pub(super) fn cancel(&mut self, id: TaskId) -> Uuid {
        let command = self.id();
        let subject = Subject::Command(self.place, CommandVerb::Cancel);
        let source = Source::Client("test".to_owned());
        let body = Cancel {
            task_id: id,
            reason: None,
        };
        let event = Event::new(EventId(command), source, self.now, &subject, id.0, body);
        self.store(subject, &event);
        command
    }

    /// From submission to completion.
    pub(super) fn whole(&mut self, id: TaskId, by: AgentId) -> u64 {
        self.submit(id);
        let assignment = self.assign(id, by);
        self.start(id, by, assignment);
        self.complete(id, by, assignment)
    }

    /// Everything that was found.
    pub(super) fn found(&self) -> Vec<(Invariant, u64)> {
        self.checker
            .violations
            .iter()
            .map(|v| (v.invariant, v.sequence))
            .collect()
    }
    pub(super) fn clean(&self) {
        assert!(
            self.checker.violations.is_empty(),
            "{:?}",
            self.checker.violations
        );
    }
    pub(super) fn broken(&self, invariant: Invariant, sequence: u64) {
        assert_eq!(
            self.found(),
            [(invariant, sequence)],
            "{:?}",
            self.checker.violations
        );
    }
}
