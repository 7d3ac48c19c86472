//! What the tests of the watch begin with.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{collections::BTreeMap, time::Duration};

use swarm_events::{
    AgentId, Event, EventId, InstanceId, Json, OrgId, Place, Subject, SwarmId, Timestamp,
    agent::{
        Adapter, AgentSpec, HostName, Joined, LivenessRule, Profile, SpawnClaimed, SpawnReason,
        SpawnRequested, Suspected,
    },
    configuration::Configuration,
    control::{Observed, Sighting},
    decider::Decider,
    envelope::Source,
    subject::{AgentVerb, Service, SwarmVerb},
    swarm::{AgentSample, Created, Heartbeat, HostBeat, ProcessFigures},
    testing::World,
};
use swarm_health::{
    core::Health,
    watch::{Heard, TICK, Watch},
};
use uuid::Uuid;

pub const INTERVAL_MS: u64 = 1_000;

pub fn place() -> Place {
    Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)))
}
pub fn agent(n: u128) -> AgentId {
    AgentId(Uuid::from_u128(0xa0_0000 + n))
}
pub fn instance(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(0x10_0000 + n))
}
pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A watch beside the log that it is in step with, in virtual time.
pub struct Scene {
    pub world: World<Health>,
    epoch: u64,
    ordinal: u64,
    pub watch: Watch,
    pub now: Duration,
    /// How far the wall clock is from the monotonic one.
    pub skew_ms: i64,
    /// Agents that beat every interval, with the figure they report.
    pub beating: Vec<(u128, u32)>,
    pub seen: Vec<Observed>,
}

impl Scene {
    pub fn new() -> Self {
        let mut world = World::<Health>::new(place().partition);
        let epoch = world.claim_of(Service::Coordinator);
        let mut scene = Self {
            world,
            epoch,
            ordinal: 0,
            watch: Watch::default(),
            now: ms(5_000),
            skew_ms: 0,
            beating: Vec::new(),
            seen: Vec::new(),
        };
        assert!(scene.watch.tick(scene.now).is_empty());
        let created = Created {
            name: "s".into(),
            description: None,
            topology: Default::default(),
            configuration: Configuration {
                heartbeat_interval_ms: INTERVAL_MS,
                ..Configuration::default()
            },
            partition: place().partition.number(),
            created_by: None,
        };
        let subject = Subject::Swarm(place(), SwarmVerb::Created);
        scene.coordinator(subject, place().swarm.0, created);
        scene
    }
    pub fn coordinator(
        &mut self,
        subject: Subject,
        about: Uuid,
        body: impl Into<swarm_events::Body>,
    ) {
        self.ordinal += 1;
        let (epoch, ordinal) = (self.epoch, self.ordinal);
        self.world
            .other(Service::Coordinator, subject, about, body, epoch, ordinal);
        self.sync();
    }
    pub fn sync(&mut self) {
        if let Some(swarm) = self.world.state.swarm(place().org, place().swarm) {
            self.watch.sync_swarm(swarm, self.now);
        }
    }
    pub fn joins(&mut self, n: u128, incarnation: u64, process: u128) {
        let joined = Joined {
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
        };
        let subject = Subject::Agent(place(), AgentVerb::Joined, agent(n));
        self.coordinator(subject, agent(n).0, joined);
    }
    pub fn beat(&mut self, n: u128, process: u128, memory_kib: u64) -> Heard {
        let beat = Heartbeat {
            messages_read: 0,
            messages_sent: 0,
            instance: instance(process),
            incarnation: 1,
            counter: 1,
            status: "idle".into(),
            cpu_centipercent: 0,
            memory_kib,
            active_connections: 1,
            queue_depth: 0,
            current_tasks: Vec::new(),
            metadata: Json::object(),
        };
        let at = self.at();
        self.watch.beat(place(), agent(n), beat, at, self.now)
    }
    /// The wall clock.
    pub fn at(&self) -> Timestamp {
        let micros = i64::try_from(self.now.as_micros()).expect("small");
        Timestamp::from_micros(micros + self.skew_ms * 1_000)
    }
    /// A host runs the process of an agent.
    pub fn claims(&mut self, by: u128, n: u128) {
        let requested = SpawnRequested {
            spawn: 1,
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
                restart: Default::default(),
                limits: Default::default(),
                metadata: Json::object(),
            },
            grace_ms: 1_000,
        };
        let subject = Subject::Agent(place(), AgentVerb::SpawnRequested, agent(n));
        self.coordinator(subject, agent(n).0, requested);
        let host = HostName {
            instance: instance(by),
            name: "h".into(),
        };
        let subject = Subject::Agent(place(), AgentVerb::SpawnClaimed, agent(n));
        let id = EventId(self.world.id());
        let (source, now) = (Source::Host(instance(by)), self.world.now);
        let claimed = SpawnClaimed { spawn: 1, host };
        let event = Event::new(id, source, now, &subject, agent(n).0, claimed);
        self.world.event(&subject, &event);
        self.sync();
    }
    pub fn host_beat(&mut self, by: u128, figures: &[(u128, u64)]) {
        let agents = figures.iter().map(|&(n, memory_kib)| {
            let figures = ProcessFigures {
                cpu_centipercent: 5,
                memory_kib,
                active_connections: 6,
                processes: 2,
            };
            (agent(n), figures)
        });
        let beat = HostBeat {
            host: instance(by),
            name: "h".into(),
            counter: 1,
            room: 1,
            agents: agents.collect(),
        };
        let at = self.at();
        self.watch.host_beat(&beat, at, self.now);
    }
    /// Hosts seen to be gone: which, by what rule, and the age.
    pub fn gone(&mut self) -> Vec<(InstanceId, LivenessRule, u64)> {
        let seen = std::mem::take(&mut self.seen).into_iter();
        seen.filter_map(|observed| match observed {
            Observed::HostGone { host, evidence } => {
                assert!(evidence.age_ms > evidence.limit_ms);
                Some((host, evidence.rule, evidence.age_ms))
            }
            _ => None,
        })
        .collect()
    }
    /// Strangers told of: who, and how many heartbeats.
    pub fn strangers(&mut self) -> Vec<(AgentId, InstanceId, u32)> {
        let seen = std::mem::take(&mut self.seen).into_iter();
        seen.filter_map(|observed| match observed {
            Observed::Stranger {
                agent_id,
                instance,
                count,
                ..
            } => Some((agent_id, instance, count)),
            _ => None,
        })
        .collect()
    }
    /// Time passes in ticks; those who beat do so every interval. Observations are gathered, not carried out.
    pub fn pass(&mut self, millis: u64) {
        let end = self.now + ms(millis);
        while self.now < end {
            self.now += TICK.min(end - self.now);
            if self.now.as_millis().is_multiple_of(u128::from(INTERVAL_MS)) {
                for (n, figure) in self.beating.clone() {
                    assert_eq!(self.beat(n, n, figure.into()), Heard::Member);
                }
            }
            let seen = self.watch.tick(self.now);
            self.seen
                .extend(seen.into_iter().map(|(partition, observed)| {
                    assert_eq!(partition, place().partition);
                    observed
                }));
        }
    }
    /// Gathered liveness observations: agent, sighting, rule, age.
    pub fn liveness(&mut self) -> Vec<(AgentId, Sighting, LivenessRule, u64)> {
        let (liveness, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.seen)
            .into_iter()
            .partition(|o| matches!(o, Observed::Liveness { .. }));
        self.seen = rest;
        let figures = |observed| match observed {
            Observed::Liveness {
                agent_id,
                sighting,
                evidence,
                ..
            } => {
                assert!(evidence.age_ms > evidence.limit_ms || sighting == Sighting::Heard);
                (agent_id, sighting, evidence.rule, evidence.age_ms)
            }
            _ => unreachable!("parted above"),
        };
        liveness.into_iter().map(figures).collect()
    }
    pub fn sightings(&mut self) -> Vec<Sighting> {
        self.liveness().into_iter().map(|seen| seen.1).collect()
    }
    pub fn samples(&mut self) -> Vec<Vec<(AgentId, AgentSample)>> {
        std::mem::take(&mut self.seen)
            .into_iter()
            .filter_map(|observed| match observed {
                Observed::Samples { agents, .. } => Some(agents.into_iter().collect()),
                _ => None,
            })
            .collect()
    }
    /// The log says that the agent is suspected.
    pub fn suspected(&mut self, n: u128) {
        let Some(swarm) = self.world.state.swarm(place().org, place().swarm) else {
            panic!("the swarm is there");
        };
        let incarnation = swarm.agents[&agent(n)].incarnation;
        let evidence = swarm_events::agent::Evidence {
            rule: LivenessRule::Silence,
            last_heartbeat_at: None,
            age_ms: 1,
            limit_ms: 0,
        };
        let own = self.world.state.head().epoch(Service::Health);
        let (epoch, ordinal) = (own.epoch, own.ordinal + 1_000);
        let subject = Subject::Agent(place(), AgentVerb::Suspected, agent(n));
        let body = Suspected {
            incarnation,
            evidence,
        };
        self.world
            .other(Service::Health, subject, agent(n).0, body, epoch, ordinal);
        self.sync();
    }
    pub fn process(&self, n: u128) -> (SwarmId, AgentId, InstanceId) {
        (place().swarm, agent(n), instance(n))
    }
}
