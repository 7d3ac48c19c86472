//! A log written by hand; by its modules what is in it, a projector on it, and all tables as text.
#![allow(dead_code)] // each test binary uses its part

pub mod everything;
pub mod managed;
mod projecting;
pub mod topologies;

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use swarm_events::{
    AgentId, Body, Event, EventId, InstanceId, Json, KeyId, OrgId, Partition, Place, Service,
    Subject, SwarmId, TaskId, Timestamp, UserId,
    agent::{Joined, Profile},
    configuration::{Algorithm, Configuration},
    control::{Claimed, Observed, Woken},
    envelope::{Decided, Source},
    org::{self, Role},
    subject::{AgentVerb, ControlVerb, OrgVerb, SwarmVerb, TaskVerb},
    swarm,
    task::{self, Carried, Submitted},
};
use swarm_log::{Log, Message, simulated::SimulatedLog};
use uuid::Uuid;

#[allow(unused_imports)] // each test binary uses its part
pub use projecting::{Projector, assert_same, dump, dump_all, pool, project};

/// Longest wait of a test for anything: far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// 2024-01-01T00:00:00Z in microseconds.
pub const START: i64 = 1_704_067_200_000_000;

/// Writes what services, agents and clients would write.
pub struct Script {
    pub log: SimulatedLog,
    pub org: OrgId,
    pub place: Place,
    epochs: BTreeMap<(Service, Partition), (u64, u64)>,
    last: u64,
    ids: u128,
}

/// A UUID of version 4 form: no time is in it.
pub const fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x4000_8000_0000_0000_0000 | number)
}

impl Script {
    /// An organization with an admin and a key, and a swarm.
    pub async fn new() -> Self {
        let org = OrgId(id(1));
        let place = Place::new(org, SwarmId(id(2)));
        let log = SimulatedLog::default();
        let mut script = Self {
            log,
            org,
            place,
            epochs: BTreeMap::new(),
            last: 0,
            ids: 1_000_000,
        };
        script
            .claim(Service::Coordinator, Partition::of(org.0))
            .await;
        for service in [Service::Coordinator, Service::Distributor, Service::Health] {
            script.claim(service, place.partition).await;
        }
        let home = Partition::of(org.0);
        let created = org::Created {
            name: "Org".to_owned(),
        };
        script
            .decide(Subject::Org(home, org, OrgVerb::Created), org.0, created)
            .await;
        let user = org::UserAdded {
            user_id: UserId(id(3)),
            name: "Ann".to_owned(),
            role: Role::Admin,
        };
        script
            .decide(Subject::Org(home, org, OrgVerb::UserAdded), org.0, user)
            .await;
        let key = org::KeyCreated {
            key_id: KeyId(id(4)),
            user_id: UserId(id(3)),
            name: "first".to_owned(),
            role: Role::Admin,
            sha256: "00".repeat(32),
        };
        script
            .decide(Subject::Org(home, org, OrgVerb::KeyCreated), org.0, key)
            .await;
        script.swarm(place, "first").await;
        script
    }

    pub async fn swarm(&mut self, place: Place, name: &str) -> u64 {
        let created = swarm::Created {
            name: name.to_owned(),
            description: Some("of the \0 test".to_owned()),
            topology: swarm_events::topology::Topology::default(),
            configuration: Configuration::default(),
            partition: place.partition.number(),
            created_by: Some(UserId(id(3))),
        };
        self.decide(
            Subject::Swarm(place, SwarmVerb::Created),
            place.swarm.0,
            created,
        )
        .await
    }

    pub fn is_claimed(&self, service: Service, partition: Partition) -> bool {
        self.epochs.contains_key(&(service, partition))
    }

    /// An id that no one has.
    pub fn fresh_id(&mut self) -> Uuid {
        self.fresh()
    }

    fn fresh(&mut self) -> Uuid {
        self.ids += 1;
        id(self.ids)
    }

    /// Lets the server's clock go on.
    pub fn pass(&self, millis: i64) {
        self.log.set_time(self.log.time() + millis * 1_000);
    }

    /// Stores a message as it is.
    pub async fn raw(&mut self, subject: &str, payload: impl Into<bytes::Bytes>) -> u64 {
        self.pass(1);
        let message = Message {
            subject: subject.to_owned(),
            payload: payload.into(),
            message_id: None,
            fence: None,
        };
        let outcome = self.log.append(vec![message]).await.remove(0);
        self.last = outcome.unwrap_or_else(|error| panic!("{error}")).sequence;
        self.last
    }

    pub async fn event(&mut self, event: Event, subject: &Subject) -> u64 {
        let json = event.to_json().unwrap_or_else(|error| panic!("{error}"));
        self.raw(&subject.to_string(), json).await
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.log.time())
    }

    pub async fn claim(&mut self, service: Service, partition: Partition) -> u64 {
        let previous = self
            .epochs
            .get(&(service, partition))
            .map_or(0, |epoch| epoch.0);
        let subject = Subject::Control(service, partition, ControlVerb::Claimed);
        let instance = InstanceId(id(10));
        let claimed = Claimed {
            instance,
            decider_version: 1,
            previous,
            reason: "start".to_owned(),
            rejects: Vec::new(),
        };
        let about = Event::about_partition(partition);
        let event = Event::new(
            EventId(self.fresh()),
            Source::Service(service, instance),
            self.now(),
            &subject,
            about,
            claimed,
        );
        let epoch = self.event(event, &subject).await;
        self.epochs.insert((service, partition), (epoch, 0));
        epoch
    }

    fn decision(&mut self, subject: &Subject, about: Uuid, body: impl Into<Body>) -> Event {
        let swarm_events::read::Writer::Service(service) = swarm_events::read::writer(subject)
        else {
            panic!("{subject} is no decision's");
        };
        let (epoch, ordinal) = self
            .epochs
            .get_mut(&(service, subject.partition()))
            .expect("claimed");
        *ordinal += 1;
        let (epoch, ordinal) = (*epoch, *ordinal);
        let id = EventId::of_decision(service.as_str(), epoch, ordinal);
        let mut event = Event::new(
            id,
            Source::Service(service, InstanceId(self::id(10))),
            self.now(),
            subject,
            about,
            body,
        );
        event.decided = Some(Decided {
            cause_sequence: self.last,
            epoch,
            ordinal,
            decider_version: 1,
        });
        event
    }

    /// A decision of the service that writes there.
    pub async fn decide(&mut self, subject: Subject, about: Uuid, body: impl Into<Body>) -> u64 {
        let event = self.decision(&subject, about, body);
        self.event(event, &subject).await
    }

    /// A decision of an owner that has been superseded.
    pub async fn stale(&mut self, subject: Subject, about: Uuid, body: impl Into<Body>) -> u64 {
        let mut event = self.decision(&subject, about, body);
        if let Some(decided) = &mut event.decided {
            decided.epoch -= 1;
        }
        self.event(event, &subject).await
    }

    /// What health's shell heard, and its record of it.
    pub async fn sample(&mut self, agent: AgentId, sample: swarm::AgentSample) -> u64 {
        let subject =
            Subject::Control(Service::Health, self.place.partition, ControlVerb::Observed);
        let agents = std::collections::BTreeMap::from([(agent, sample)]);
        let (org_id, swarm_id) = (self.org, self.place.swarm);
        let observed = Observed::Samples {
            org_id,
            swarm_id,
            agents: agents.clone(),
        };
        let source = Source::Service(Service::Health, InstanceId(id(10)));
        let about = Event::about_partition(self.place.partition);
        let heard = Event::new(
            EventId(self.fresh()),
            source,
            self.now(),
            &subject,
            about,
            observed,
        );
        let cause = heard.id;
        self.event(heard, &subject).await;
        let subject = Subject::Swarm(self.place, SwarmVerb::Sampled);
        let mut event = self.decision(&subject, self.place.swarm.0, swarm::Sampled { agents });
        event.causation = Some(cause.0);
        self.event(event, &subject).await
    }

    pub async fn client(&mut self, subject: Subject, about: Uuid, body: impl Into<Body>) -> u64 {
        let source = Source::Client("/test".to_owned());
        self.by(source, subject, about, body).await
    }

    /// What is no decision.
    pub async fn by(
        &mut self,
        source: Source,
        subject: Subject,
        about: Uuid,
        body: impl Into<Body>,
    ) -> u64 {
        let event = Event::new(
            EventId(self.fresh()),
            source,
            self.now(),
            &subject,
            about,
            body,
        );
        self.event(event, &subject).await
    }

    pub async fn by_agent(
        &mut self,
        verb: TaskVerb,
        agent: AgentId,
        task: TaskId,
        body: impl Into<Body>,
    ) -> u64 {
        let subject = Subject::Task(self.place, verb, Some(agent));
        let event = Event::new(
            EventId(self.fresh()),
            Source::Agent(agent),
            self.now(),
            &subject,
            task.0,
            body,
        );
        self.event(event, &subject).await
    }

    pub async fn by_distributor(
        &mut self,
        verb: TaskVerb,
        agent: Option<AgentId>,
        about: Uuid,
        body: impl Into<Body>,
    ) -> u64 {
        self.decide(Subject::Task(self.place, verb, agent), about, body)
            .await
    }

    pub async fn by_agent_subject(
        &mut self,
        verb: AgentVerb,
        agent: AgentId,
        body: impl Into<Body>,
    ) -> u64 {
        self.decide(Subject::Agent(self.place, verb, agent), agent.0, body)
            .await
    }

    /// A process of the agent joins.
    pub async fn join(&mut self, agent: AgentId, incarnation: u64, slots: u32) -> u64 {
        let profile = Profile {
            agent_type: "exec".to_owned(),
            agent_name: format!("agent {}", agent.0.as_u128() & 0xffff),
            capabilities: vec!["a \"b\"".to_owned(), "c,d".to_owned()],
            slots,
            waiting: 0,
            metadata: Json::object(),
        };
        self.join_as(agent, incarnation, profile).await
    }

    pub async fn join_as(&mut self, agent: AgentId, incarnation: u64, profile: Profile) -> u64 {
        let joined = Joined {
            incarnation,
            instance: instance(agent, incarnation),
            profile,
        };
        self.by_agent_subject(AgentVerb::Joined, agent, joined)
            .await
    }

    pub async fn submit(&mut self, task: TaskId, submitted: Submitted) -> u64 {
        self.client(
            Subject::Task(self.place, TaskVerb::Submitted, None),
            task.0,
            submitted,
        )
        .await
    }

    pub async fn assign(&mut self, task: TaskId, agent: AgentId, attempt: u32) -> u64 {
        self.assign_as(task, agent, assignment(attempt)).await
    }

    pub async fn assign_as(
        &mut self,
        task: TaskId,
        agent: AgentId,
        assigned: task::Assigned,
    ) -> u64 {
        self.by_distributor(TaskVerb::Assigned, Some(agent), task.0, assigned)
            .await
    }

    pub async fn withdraw(
        &mut self,
        task: TaskId,
        agent: AgentId,
        assignment: u64,
        reason: task::WithdrawReason,
        then: task::Then,
    ) -> u64 {
        let withdrawn = task::Withdrawn {
            assignment,
            incarnation: 1,
            reason,
            force: reason != task::WithdrawReason::Steal,
            then,
            thief: None,
        };
        self.by_distributor(TaskVerb::Withdrawn, Some(agent), task.0, withdrawn)
            .await
    }

    /// The end of a failed task; `because_of`: the one before it, which failed by itself.
    pub async fn fail(
        &mut self,
        task: TaskId,
        attempts: u32,
        error: &str,
        because_of: Option<TaskId>,
    ) -> u64 {
        let failed = task::Failed {
            attempts,
            generation: 1,
            error: error.to_owned(),
            dead_lettered: because_of.is_none(),
            because_of,
            path: because_of.into_iter().collect(),
        };
        self.by_distributor(TaskVerb::Failed, None, task.0, failed)
            .await
    }

    /// So many milliseconds of the log's time pass, and the distributor is woken.
    pub async fn wake(&mut self, millis: i64) -> u64 {
        self.pass(millis);
        let (service, partition) = (Service::Distributor, self.place.partition);
        let subject = Subject::Control(service, partition, ControlVerb::Woken);
        let source = Source::Service(service, InstanceId(id(10)));
        let about = Event::about_partition(partition);
        let woken = Woken {};
        let event = Event::new(
            EventId(self.fresh()),
            source,
            self.now(),
            &subject,
            about,
            woken,
        );
        self.event(event, &subject).await
    }

    pub async fn attempt_failed(
        &mut self,
        task: TaskId,
        agent: AgentId,
        assignment: u64,
        error: &str,
    ) -> u64 {
        let failed = task::AttemptFailed {
            assignment,
            incarnation: 1,
            error: error.to_owned(),
            retryable: true,
        };
        self.by_agent(TaskVerb::AttemptFailed, agent, task, failed)
            .await
    }

    pub async fn start(&mut self, task: TaskId, agent: AgentId, assignment: u64) -> u64 {
        self.by_agent(
            TaskVerb::Started,
            agent,
            task,
            task::Started {
                assignment,
                incarnation: 1,
            },
        )
        .await
    }

    pub async fn complete(
        &mut self,
        task: TaskId,
        agent: AgentId,
        assignment: u64,
        result: Carried,
    ) -> u64 {
        self.by_agent(
            TaskVerb::Completed,
            agent,
            task,
            task::Completed {
                assignment,
                incarnation: 1,
                result,
            },
        )
        .await
    }

    /// From submitted to completed.
    pub async fn whole_task(&mut self, task: TaskId, agent: AgentId) {
        self.submit(task, submission()).await;
        let assignment = self.assign(task, agent, 1).await;
        self.start(task, agent, assignment).await;
        self.complete(
            task,
            agent,
            assignment,
            Carried::Inline(json!({"n": 1}).into()),
        )
        .await;
    }
}

pub fn instance(agent: AgentId, incarnation: u64) -> InstanceId {
    InstanceId(Uuid::from_u128(
        agent.0.as_u128() ^ u128::from(incarnation) << 32,
    ))
}

/// An assignment to an agent's first process.
pub fn assignment(attempt: u32) -> task::Assigned {
    task::Assigned {
        path: Vec::new(),
        step: swarm_events::task::Step::Work,
        turn: None,
        task_type: "t".to_owned(),
        payload: Carried::Inline(Json::object()),
        inputs: None,
        attempt,
        generation: 1,
        incarnation: 1,
        priority: 5,
        timeout_ms: 60_000,
        algorithm: Algorithm::LeastLoaded,
        candidates: Vec::new(),
        passed_over: BTreeMap::new(),
        affinity: None,
        stolen_from: None,
        queued_at: None,
    }
}

pub fn submission() -> Submitted {
    Submitted {
        hand_to: None,
        origin: None,
        required_role: None,
        task_type: "count".to_owned(),
        payload: json!({"path": "a\tb\\c\n"}).into(),
        priority: 5,
        required_capabilities: Vec::new(),
        max_attempts: None,
        timeout_ms: None,
        queue_timeout_ms: None,
        progress_timeout_ms: None,
        parent_task_id: None,
        affinity_key: None,
        depends_on: Vec::new(),
        key: None,
        graph: None,
        body_sha256: None,
    }
}
