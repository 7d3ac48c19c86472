//! What the tests of the core begin with.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use swarm_events::{
    AgentId, Body, Event, EventId, Input, InstanceId, Json, OrgId, Place, Subject, SwarmId,
    Timestamp,
    agent::{
        Adapter, AgentSpec, Cause, Evidence, Exit, Exited, Figures, HostName, Joined, Launched,
        LimitedBy, LivenessRule, Profile, Removed, Restart, RestartPolicy, SpawnClaimed,
        SpawnReason, SpawnRequested, StopThen, Stopping,
    },
    configuration::{Configuration, HealthPolicy},
    control::{Observed, Sighting},
    decider::{Decider, Verdict},
    envelope::{Decided, Source},
    subject::{AgentVerb, ControlVerb, Service, SwarmVerb},
    swarm::{AgentLoad, AgentSample, Created, Measured, Scaled, Updated},
    testing::World,
};
use swarm_health_core::{Agent, Health, Liveness, Rate};
use uuid::Uuid;

pub fn place() -> Place {
    Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)))
}
pub fn agent(n: u128) -> AgentId {
    AgentId(Uuid::from_u128(0xa0_0000 + n))
}
pub fn instance(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(0x10_0000 + n))
}
pub fn evidence() -> Evidence {
    Evidence {
        rule: LivenessRule::Silence,
        last_heartbeat_at: None,
        age_ms: 2_600,
        limit_ms: 2_500,
    }
}

/// A partition of health with one swarm, and the other services' words.
pub struct Scene {
    pub world: World<Health>,
    epoch: u64,
    ordinal: u64,
}
impl Scene {
    pub fn new() -> Self {
        let mut world = World::<Health>::new(place().partition);
        let epoch = world.claim_of(Service::Coordinator);
        Self {
            world,
            epoch,
            ordinal: 0,
        }
    }
    pub fn with_a_member() -> Self {
        let mut scene = Self::new();
        scene.create();
        scene.join(1, 1, 1);
        scene
    }
    pub fn coordinator(&mut self, subject: Subject, about: Uuid, body: impl Into<Body>) -> Verdict {
        self.ordinal += 1;
        let (epoch, ordinal) = (self.epoch, self.ordinal);
        self.world
            .other(Service::Coordinator, subject, about, body, epoch, ordinal)
    }
    pub fn swarm(&mut self, verb: SwarmVerb, body: impl Into<Body>) -> Verdict {
        self.coordinator(Subject::Swarm(place(), verb), place().swarm.0, body)
    }
    pub fn create(&mut self) -> Verdict {
        self.create_with(HealthPolicy::default())
    }
    pub fn create_with(&mut self, health: HealthPolicy) -> Verdict {
        let created = Created {
            name: "s".into(),
            description: None,
            topology: Default::default(),
            configuration: Configuration {
                health,
                ..Configuration::default()
            },
            partition: place().partition.number(),
            created_by: None,
        };
        self.swarm(SwarmVerb::Created, created)
    }
    pub fn join(&mut self, n: u128, incarnation: u64, process: u128) -> Verdict {
        let joined = joined(n, incarnation, process);
        let subject = Subject::Agent(place(), AgentVerb::Joined, agent(n));
        self.coordinator(subject, agent(n).0, joined)
    }
    /// As [`Scene::join`], decided when the coordinator had met `cause`.
    pub fn join_at(&mut self, cause: u64, n: u128, incarnation: u64, process: u128) -> Verdict {
        let joined = joined(n, incarnation, process);
        let subject = Subject::Agent(place(), AgentVerb::Joined, agent(n));
        self.ordinal += 1;
        let id = EventId::of_decision("coordinator", self.epoch, self.ordinal);
        let source = Source::Service(Service::Coordinator, instance(0));
        let mut event = Event::new(id, source, self.world.now, &subject, agent(n).0, joined);
        event.decided = Some(Decided {
            cause_sequence: cause,
            epoch: self.epoch,
            ordinal: self.ordinal,
            decider_version: 1,
        });
        self.world.event(&subject, &event)
    }
    pub fn observe(&mut self, n: u128, incarnation: u64, sighting: Sighting) -> Verdict {
        let observed = Observed::Liveness {
            org_id: place().org,
            swarm_id: place().swarm,
            agent_id: agent(n),
            incarnation,
            sighting,
            evidence: evidence(),
        };
        self.world
            .control(Service::Health, ControlVerb::Observed, observed);
        *self.world.verdicts.last().expect("stored")
    }
    pub fn liveness(&self, n: u128) -> Liveness {
        let swarm = self.world.state.swarm(place().org, place().swarm);
        swarm.expect("there").agents[&agent(n)].liveness
    }
    pub fn sample(&mut self, agents: impl Iterator<Item = (AgentId, InstanceId)>) -> Verdict {
        let sample = |instance| AgentSample {
            messages_read: 0,
            messages_sent: 0,
            instance,
            status: "idle".into(),
            last_heartbeat_at: Timestamp::ZERO,
            cpu_centipercent: 1,
            memory_kib: 2,
            active_connections: 3,
            queue_depth: 0,
            current_tasks: Vec::new(),
        };
        let observed = Observed::Samples {
            org_id: place().org,
            swarm_id: place().swarm,
            agents: agents
                .map(|(id, instance)| (id, sample(instance)))
                .collect(),
        };
        self.world
            .control(Service::Health, ControlVerb::Observed, observed);
        *self.world.verdicts.last().expect("stored")
    }

    /// A swarm with these settings, and members 1 to `count`, each by hand.
    pub fn with(health: HealthPolicy, count: u128) -> Self {
        let mut scene = Self::new();
        scene.create_with(health);
        for n in 1..=count {
            scene.join(n, 1, n);
        }
        scene
    }
    pub fn update(&mut self, health: HealthPolicy) -> Verdict {
        let updated = Updated {
            name: "s".into(),
            description: None,
            configuration: Configuration {
                health,
                ..Configuration::default()
            },
        };
        self.swarm(SwarmVerb::Updated, updated)
    }

    pub fn requested(&mut self, n: u128, spawn: u64) -> Verdict {
        self.requested_with(n, spawn, Restart::Always)
    }
    pub fn requested_with(&mut self, n: u128, spawn: u64, restart: Restart) -> Verdict {
        let requested = SpawnRequested {
            spawn,
            reason: SpawnReason::Added,
            crashes: 0,
            spec: AgentSpec {
                agent_type: "exec".into(),
                agent_name: None,
                capabilities: Vec::new(),
                adapter: Some(Adapter::Exec),
                command: vec!["true".into()],
                url: None,
                slots: None,
                waiting: None,
                env: BTreeMap::new(),
                pass_env: Vec::new(),
                working_dir: None,
                restart: RestartPolicy {
                    restart,
                    ..RestartPolicy::default()
                },
                limits: Default::default(),
                metadata: Json::object(),
            },
            grace_ms: 1_000,
        };
        let subject = Subject::Agent(place(), AgentVerb::SpawnRequested, agent(n));
        self.coordinator(subject, agent(n).0, requested)
    }
    pub fn removed(&mut self, n: u128, incarnation: u64) -> Verdict {
        let removed = Removed {
            incarnation,
            reason: String::new(),
        };
        let subject = Subject::Agent(place(), AgentVerb::Removed, agent(n));
        self.coordinator(subject, agent(n).0, removed)
    }
    /// This one is too many.
    pub fn scaled_down(&mut self, n: u128) -> Verdict {
        let scaled = Scaled {
            before: 1,
            desired: 0,
            like: None,
            add: Vec::new(),
            remove: vec![agent(n)],
            reason: "by order".into(),
        };
        self.swarm(SwarmVerb::Scaled, scaled)
    }
    pub fn stopping(&mut self, n: u128, incarnation: u64, spawn: u64) -> Verdict {
        let stopping = Stopping {
            incarnation,
            spawn,
            grace_ms: 1_000,
            then: StopThen::Restart,
            reason: "restart".into(),
        };
        let subject = Subject::Agent(place(), AgentVerb::Stopping, agent(n));
        self.coordinator(subject, agent(n).0, stopping)
    }
    /// What a host says.
    fn host(&mut self, of: u128, n: u128, verb: AgentVerb, body: impl Into<Body>) -> Verdict {
        let subject = Subject::Agent(place(), verb, agent(n));
        let id = self.world.id();
        let source = Source::Host(instance(of));
        let now = self.world.now;
        let event = Event::new(EventId(id), source, now, &subject, agent(n).0, body);
        self.world.event(&subject, &event)
    }
    pub fn claimed(&mut self, by: u128, n: u128, spawn: u64) -> Verdict {
        self.claimed_as(by, by, n, spawn)
    }
    /// Host `by` says that host `named` claims.
    pub fn claimed_as(&mut self, by: u128, named: u128, n: u128, spawn: u64) -> Verdict {
        let host = host(named);
        self.host(by, n, AgentVerb::SpawnClaimed, SpawnClaimed { spawn, host })
    }
    pub fn launched(&mut self, by: u128, n: u128, spawn: u64) -> Verdict {
        let launched = Launched {
            spawn,
            host: host(by),
            pid: 7,
            limited_by: LimitedBy::Nothing,
            unlimited: Vec::new(),
        };
        self.host(by, n, AgentVerb::Launched, launched)
    }
    pub fn exited(&mut self, by: u128, n: u128, spawn: u64) -> Verdict {
        let exited = Exited {
            spawn,
            host: host(by),
            exit: Exit {
                signal: Some(9),
                ..Exit::default()
            },
            uptime_ms: 5_000,
            host_leaving: false,
            left_behind: 0,
            last_output: String::new(),
        };
        self.host(by, n, AgentVerb::Exited, exited)
    }
    /// A process of host `by` runs under spawn 1, and has joined as incarnation 1.
    pub fn runs(&mut self, by: u128, n: u128) {
        assert_eq!(self.requested(n, 1), Verdict::Applied);
        assert_eq!(self.claimed(by, n, 1), Verdict::Applied);
        assert_eq!(self.launched(by, n, 1), Verdict::Applied);
        assert_eq!(self.join(n, 1, n), Verdict::Applied);
    }
    pub fn host_gone(&mut self, by: u128) -> Verdict {
        let observed = Observed::HostGone {
            host: instance(by),
            evidence: evidence(),
        };
        self.world
            .control(Service::Health, ControlVerb::Observed, observed);
        *self.world.verdicts.last().expect("stored")
    }

    /// The distributor's figures, taken when it had met everything.
    pub fn measured(&mut self, measured: Measured) -> Verdict {
        let cause = self.world.state.head().sequence;
        self.measured_at(cause, measured)
    }
    /// The distributor's figures, taken when it had met `cause`.
    pub fn measured_at(&mut self, cause: u64, measured: Measured) -> Verdict {
        let mut epoch = self.world.state.head().epoch(Service::Distributor).epoch;
        if epoch == 0 {
            epoch = self.world.claim_of(Service::Distributor);
        }
        let ordinal = self.world.state.head().epoch(Service::Distributor).ordinal + 1;
        let subject = Subject::Swarm(place(), SwarmVerb::Measured);
        let source = Source::Service(Service::Distributor, instance(0));
        let id = EventId::of_decision("distributor", epoch, ordinal);
        let (now, about) = (self.world.now, place().swarm.0);
        let mut event = Event::new(id, source, now, &subject, about, measured);
        event.decided = Some(Decided {
            cause_sequence: cause,
            epoch,
            ordinal,
            decider_version: 1,
        });
        self.world.event(&subject, &event)
    }
    /// Figures of one agent.
    pub fn load(&mut self, n: u128, load: AgentLoad) -> Verdict {
        self.measured(Measured {
            agents: BTreeMap::from([(agent(n), load)]),
            ..Measured::default()
        })
    }
    /// So many attempts of an agent ended so far.
    pub fn attempts(&mut self, n: u128, completed: u64, failed: u64) {
        let load = AgentLoad {
            completed,
            failed,
            ..AgentLoad::default()
        };
        assert_eq!(self.load(n, load), Verdict::Applied);
        self.world.settle();
    }
    /// So many failed fast in a row, after so many completions in its life.
    pub fn fast(&mut self, n: u128, completed: u64, fast_failures: u32) {
        let load = AgentLoad {
            completed,
            fast_failures,
            ..AgentLoad::default()
        };
        assert_eq!(self.load(n, load), Verdict::Applied);
        self.world.settle();
    }
    /// A sample of one agent is observed and stored.
    pub fn uses(&mut self, n: u128, memory_kib: u64, cpu_centipercent: u32) {
        let sample = AgentSample {
            messages_read: 0,
            messages_sent: 0,
            instance: self.agent(n).instance,
            status: "idle".into(),
            last_heartbeat_at: self.world.now,
            cpu_centipercent,
            memory_kib,
            active_connections: 0,
            queue_depth: 0,
            current_tasks: Vec::new(),
        };
        let observed = Observed::Samples {
            org_id: place().org,
            swarm_id: place().swarm,
            agents: BTreeMap::from([(agent(n), sample)]),
        };
        self.world
            .control(Service::Health, ControlVerb::Observed, observed);
        self.world.settle();
    }

    pub fn agent(&self, n: u128) -> &Agent {
        let swarm = self.world.state.swarm(place().org, place().swarm);
        &swarm.expect("there").agents[&agent(n)]
    }
    /// Causes for which an agent is in quarantine.
    pub fn causes(&self, n: u128) -> Vec<Cause> {
        self.agent(n).quarantine.keys().copied().collect()
    }
    pub fn rate(&self, n: u128) -> Rate {
        self.agent(n).rate(self.world.state.head().now)
    }
    /// Health's valid decisions so far.
    pub fn decided(&self) -> Vec<Event> {
        let stored = self.world.inputs().zip(&self.world.verdicts);
        stored
            .filter_map(|(input, verdict)| match input {
                Input::Event(recorded)
                    if *verdict == Verdict::Applied
                        && recorded.event.decided.is_some()
                        && matches!(recorded.event.source, Source::Service(Service::Health, _)) =>
                {
                    Some(recorded.event)
                }
                _ => None,
            })
            .collect()
    }
    pub fn last(&self) -> Event {
        self.decided().pop().expect("something was decided")
    }
    /// A new owner, from a snapshot and from the log alone, finds the same undone, and what was in flight is lost.
    pub fn takeover(&mut self) {
        let bytes = postcard::to_stdvec(&self.world.state).expect("encoded");
        let restored: Health = postcard::from_bytes(&bytes).expect("decoded");
        assert_eq!(restored, self.world.state);
        assert_eq!(self.world.cold(), self.world.state);
        self.world.claim();
    }
}

fn joined(n: u128, incarnation: u64, process: u128) -> Joined {
    Joined {
        incarnation,
        instance: instance(process),
        profile: Profile {
            agent_type: "exec".into(),
            agent_name: format!("a{n}"),
            capabilities: Vec::new(),
            slots: 1,
            waiting: 0,
            metadata: Json::object(),
        },
    }
}
pub fn host(n: u128) -> HostName {
    HostName {
        instance: instance(n),
        name: format!("h{n}"),
    }
}
pub fn figures(value: u64, limit: u64, attempts: u64) -> Figures {
    Figures {
        value,
        limit,
        attempts,
    }
}
