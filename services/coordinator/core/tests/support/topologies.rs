//! Given/When/Then about topologies: orders, places, and what is said of them.

use swarm_events::{
    Body, Json, Subject,
    command::{AddAgent, ChangeTopology, Join},
    configuration::TopologyKind,
    subject::{CommandVerb, Service, SwarmVerb},
    swarm::{AgentSample, Measured, Outcomes, Sampled},
    topology::{LeaderElected, Role, Seat},
};
use uuid::Uuid;

use super::{Given, agent, instance, join, place};

pub fn json(text: &str) -> Json {
    Json::parse(text).expect("JSON")
}

pub fn order(kind: TopologyKind, options: &str) -> ChangeTopology {
    ChangeTopology {
        topology: kind,
        configuration: json(options),
        reason: None,
    }
}

/// A process of this type.
pub fn of_type(n: u128, agent_type: &str) -> Join {
    let mut order = join(n, None);
    order.agent_type = agent_type.into();
    order
}

impl Given {
    /// A swarm of this topology with so many agents.
    pub fn a_topology(kind: TopologyKind, options: &str, agents: u128) -> Self {
        let mut given = Self::an_organization();
        let mut order = super::create("s1");
        order.topology = Some(kind);
        order.topology_configuration = json(options);
        given.command(1, CommandVerb::Create, order);
        for n in 1..=agents {
            given.join(n, join(n, None));
        }
        given
    }
    pub fn change(&mut self, kind: TopologyKind, options: &str) -> Uuid {
        self.command(1, CommandVerb::ChangeTopology, order(kind, options))
    }
    /// The same, not decided on yet.
    pub fn send_change(&mut self, kind: TopologyKind, options: &str) -> Uuid {
        let about = place(1).swarm.0;
        self.send(1, CommandVerb::ChangeTopology, about, order(kind, options))
    }
    /// A change that is planned, of which the owner has stored so many seats.
    pub fn a_change_under_way(&mut self, kind: TopologyKind, options: &str, seats: usize) -> Uuid {
        let id = self.send_change(kind, options);
        for _ in 0..=seats {
            assert_eq!(self.0.decide(1), 1);
            self.0.deliver();
        }
        let change = self.swarm(1).change.as_ref().expect("under way");
        assert_eq!(change.generation, self.swarm(1).shape.generation() + 1);
        id
    }
    pub fn seat(&self, a: u128) -> Option<&Seat> {
        self.swarm(1).shape.seat(agent(a))
    }
    pub fn role(&self, a: u128) -> Option<Role> {
        self.seat(a).map(|seat| seat.role)
    }
    pub fn works(&self, a: u128) -> bool {
        self.swarm(1).shape.works(agent(a))
    }
    /// All elections so far.
    pub fn elections(&self) -> Vec<LeaderElected> {
        self.valid(|_, body| match body {
            Body::SwarmLeaderElected(elected) => Some(elected.clone()),
            _ => None,
        })
    }
    /// How often the agent was given a place in a generation.
    pub fn times_seated(&self, a: u128, generation: u64) -> usize {
        let seated = self.valid(|subject, body| match (subject, body) {
            (Subject::Agent(_, _, of), Body::AgentSeated(seated))
                if *of == agent(a) && seated.generation == generation =>
            {
                Some(())
            }
            _ => None,
        });
        seated.len()
    }
    /// Verbs of the valid events about the swarm itself, figures aside, after the `from`th.
    pub fn swarm_story(&self, from: usize) -> Vec<String> {
        let mut all = self.valid(|subject, _| match subject {
            Subject::Swarm(_, SwarmVerb::Measured | SwarmVerb::Sampled) => None,
            Subject::Swarm(of, verb) if *of == place(1) => Some(verb.to_string()),
            _ => None,
        });
        all.drain(..from.min(all.len()));
        all
    }
    /// The rule about every live member that has not failed: it has a place, and nobody else has one.
    pub fn everybody_is_seated(&self) {
        let swarm = self.swarm(1);
        let members: Vec<_> = swarm.members().iter().map(|member| member.id).collect();
        let mut seated: Vec<_> = swarm.shape.seats().map(|(id, _)| id).collect();
        seated.sort_by_key(|id| swarm.agents[id].arrived_seq);
        assert_eq!(seated, members);
    }

    /// The distributor's figures, under a claim of its own.
    pub fn told(&mut self, measured: Measured) {
        let epoch = self.0.claim_of(Service::Distributor);
        let subject = Subject::Swarm(place(1), SwarmVerb::Measured);
        let about = place(1).swarm.0;
        self.0
            .other(Service::Distributor, subject, about, measured, epoch, 1);
        self.settle();
    }
    /// Health's figures: by agent the messages that its process (of this number) has sent.
    pub fn sampled(&mut self, sent: &[(u128, u128, u64)]) {
        let at = self.0.now;
        let agents = sent.iter().map(|(a, process, sent)| {
            let sample = AgentSample {
                instance: instance(*process),
                status: "idle".into(),
                last_heartbeat_at: at,
                cpu_centipercent: 0,
                memory_kib: 1,
                active_connections: 0,
                queue_depth: 0,
                current_tasks: Vec::new(),
                messages_sent: *sent,
                messages_read: 0,
            };
            (agent(*a), sample)
        });
        let sampled = Sampled {
            agents: agents.collect(),
        };
        let epoch = self.0.claim_of(Service::Health);
        let subject = Subject::Swarm(place(1), SwarmVerb::Sampled);
        let about = place(1).swarm.0;
        self.0
            .other(Service::Health, subject, about, sampled, epoch, 1);
        self.settle();
    }
    pub fn added(&mut self, a: u128, order: AddAgent) -> Uuid {
        let id = self.send(1, CommandVerb::AddAgent, agent(a).0, order);
        self.settle();
        id
    }
}

/// Sums of one task type.
pub fn outcomes(completed: u64, failed: u64, retries: u64) -> Measured {
    let of = Outcomes { completed, failed };
    Measured {
        completed,
        retries,
        types: std::iter::once(("t".to_owned(), of)).collect(),
        ..Measured::default()
    }
}
