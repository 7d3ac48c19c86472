//! What a log would hand to the owner of a partition: inputs in sequence, without a server or JSON.

use swarm_events::{
    AgentId, Body, Event, EventId, Input, Json, OrgId, Place, Recorded, Service, Subject, SwarmId,
    Timestamp,
    agent::{Joined, Profile},
    configuration::Configuration,
    control::Claimed,
    decider::Epoch,
    envelope::{Decided, Source},
    ids::InstanceId,
    subject::{AgentVerb, ControlVerb, SwarmVerb},
    swarm::{Created, Updated},
    task::Submitted,
    topology::Topology,
};
use uuid::Uuid;

/// When every log begins.
pub const BEGINNING: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);
/// Name of the swarm.
const NAME: &str = "bench";

/// Makes the inputs of one swarm.
pub struct Feed {
    pub place: Place,
    sequence: u64,
    ids: u64,
    coordinator: Epoch,
    distributor: Epoch,
}

impl Feed {
    /// Of an empty log.
    pub fn new() -> Self {
        Self {
            place: Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2))),
            sequence: 0,
            ids: 0,
            coordinator: Epoch::default(),
            distributor: Epoch::default(),
        }
    }

    /// Sequence of the last input.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Ids as clients make them: in the order of time.
    pub fn id(&mut self, now: Timestamp) -> Uuid {
        self.ids += 1;
        let mut random = [0u8; 10];
        random[2..].copy_from_slice(&self.ids.to_be_bytes());
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// How many ids were made.
    pub fn ids(&self) -> u64 {
        self.ids
    }

    /// The claims of the services that decide about agents and tasks.
    pub fn claims(&mut self, now: Timestamp) -> Vec<Input> {
        let claimed = Claimed {
            instance: InstanceId(Uuid::from_u128(3)),
            decider_version: 1,
            previous: 0,
            reason: "start".to_owned(),
            rejects: Vec::new(),
        };
        let services = [Service::Coordinator, Service::Distributor];
        let claims = services.map(|service| {
            let subject = Subject::Control(service, self.place.partition, ControlVerb::Claimed);
            let claim = self.fact(now, subject, Uuid::nil(), claimed.clone().into());
            *self.epoch(service) = Epoch {
                epoch: self.sequence,
                ordinal: 0,
            };
            claim
        });
        claims.into()
    }

    /// The swarm with these settings exists.
    pub fn created(&mut self, now: Timestamp, configuration: Configuration) -> Input {
        self.created_as(now, configuration, Topology::default())
    }

    /// The same with a topology.
    pub fn created_as(
        &mut self,
        now: Timestamp,
        configuration: Configuration,
        topology: Topology,
    ) -> Input {
        let created = Created {
            name: NAME.to_owned(),
            description: None,
            topology,
            configuration,
            partition: self.place.partition.number(),
            created_by: None,
        };
        let subject = Subject::Swarm(self.place, SwarmVerb::Created);
        self.by_coordinator(now, subject, self.place.swarm.0, created.into())
    }

    /// The swarm has these settings from now on.
    pub fn updated(&mut self, now: Timestamp, configuration: Configuration) -> Input {
        let updated = Updated {
            name: NAME.to_owned(),
            description: None,
            configuration,
        };
        let subject = Subject::Swarm(self.place, SwarmVerb::Updated);
        self.by_coordinator(now, subject, self.place.swarm.0, updated.into())
    }

    /// Agent `number` is a member.
    pub fn joined(
        &mut self,
        now: Timestamp,
        number: u32,
        capabilities: Vec<String>,
        slots: u32,
        waiting: u32,
    ) -> Input {
        let agent = agent_id(number);
        let joined = Joined {
            incarnation: 1,
            instance: InstanceId(Uuid::from_u128(4)),
            profile: Profile {
                agent_type: "bench".to_owned(),
                agent_name: format!("bench-{number}"),
                capabilities,
                slots,
                waiting,
                metadata: Json::object(),
            },
        };
        let subject = Subject::Agent(self.place, AgentVerb::Joined, agent);
        self.by_coordinator(now, subject, agent.0, joined.into())
    }

    /// A decision of the coordinator.
    pub fn by_coordinator(
        &mut self,
        now: Timestamp,
        subject: Subject,
        about: Uuid,
        body: Body,
    ) -> Input {
        let cause = self.sequence;
        self.decided(Service::Coordinator, now, cause, subject, about, body)
    }

    /// A decision of `service`, made when it had met the input at `cause`.
    pub fn decided(
        &mut self,
        service: Service,
        now: Timestamp,
        cause: u64,
        subject: Subject,
        about: Uuid,
        body: Body,
    ) -> Input {
        let epoch = self.epoch(service);
        epoch.ordinal += 1;
        let decided = Decided {
            cause_sequence: cause,
            epoch: epoch.epoch,
            ordinal: epoch.ordinal,
            decider_version: 1,
        };
        self.store(now, subject, about, body, Some(decided))
    }

    /// What a client or an agent writes.
    pub fn fact(&mut self, now: Timestamp, subject: Subject, about: Uuid, body: Body) -> Input {
        self.store(now, subject, about, body, None)
    }

    fn epoch(&mut self, service: Service) -> &mut Epoch {
        match service {
            Service::Coordinator => &mut self.coordinator,
            _ => &mut self.distributor,
        }
    }

    fn store(
        &mut self,
        time: Timestamp,
        subject: Subject,
        about: Uuid,
        body: Body,
        decided: Option<Decided>,
    ) -> Input {
        self.sequence += 1;
        let number = u128::from(self.sequence);
        let source = Source::Client(String::new());
        let id = EventId(Uuid::from_u128(number));
        let event = Event {
            decided,
            ..Event::new(id, source, time, &subject, about, body)
        };
        Input::Event(Recorded {
            sequence: self.sequence,
            time,
            subject,
            content: number,
            event,
        })
    }
}

/// The id of agent `number`.
pub fn agent_id(number: u32) -> AgentId {
    AgentId(Uuid::from_u128(1_000 + u128::from(number)))
}

/// Its number.
pub fn agent_number(agent: AgentId) -> Option<u32> {
    u32::try_from(agent.0.as_u128().checked_sub(1_000)?).ok()
}

/// A plain submission.
pub fn task(payload: Json, priority: u8) -> Submitted {
    Submitted {
        hand_to: None,
        origin: None,
        required_role: None,
        task_type: "bench".to_owned(),
        payload,
        priority,
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
