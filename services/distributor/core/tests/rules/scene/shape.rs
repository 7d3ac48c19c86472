//! Words for topologies: seats, leaders, changes.

use swarm_events::{
    AgentId, Problem, Subject, SwarmId,
    decider::Verdict,
    subject::{AgentVerb, SwarmVerb},
    topology::{
        LeaderElected, Role, Seat, Seated, Topology, TopologyChanged, TopologyKept, TopologyPlanned,
    },
};
use uuid::Uuid;

use super::Scene;

/// A seat with this role, at this place, of an agent that works.
pub fn seat(role: Role, place: u64) -> Seat {
    Seat {
        role,
        level: match role {
            Role::Coordinator => 0,
            Role::Supervisor => 1,
            Role::Worker => 2,
        },
        parent: None,
        place,
        standby: false,
        works: true,
    }
}

impl Scene {
    /// A running swarm of this topology, with the default configuration.
    pub fn shaped(topology: Topology) -> Self {
        Self::at(SwarmId(Uuid::from_u128(0xB)), topology, |_| {})
    }
    pub fn topology(&self) -> Topology {
        let shape = self.world.state.shape(self.place).expect("a swarm");
        shape.topology().clone()
    }
    pub fn generation(&self) -> u64 {
        let shape = self.world.state.shape(self.place).expect("a swarm");
        shape.generation()
    }

    /// The coordinator gives an agent a seat, or takes it, in this generation.
    pub fn seat_in(&mut self, generation: u64, name: &str, seat: Option<Seat>) -> Verdict {
        let seated = Seated {
            generation,
            seat,
            named: None,
            reason: "test".to_owned(),
        };
        self.member(name, AgentVerb::Seated, seated)
    }
    pub fn seat(&mut self, name: &str, seat: Seat) {
        let verdict = self.seat_in(self.generation(), name, Some(seat));
        assert_eq!(verdict, Verdict::Applied, "{name}");
    }
    pub fn unseat(&mut self, name: &str) {
        let verdict = self.seat_in(self.generation(), name, None);
        assert_eq!(verdict, Verdict::Applied, "{name}");
    }
    /// Agents join, one slot each, and work side by side, at places in this order.
    pub fn side_by_side(&mut self, names: &[&str]) {
        for (place, name) in (0..).zip(names) {
            self.join(name);
            self.seat(name, seat(Role::Worker, place));
        }
    }
    /// An agent of a tree: its parent, and whether it works.
    pub fn seat_below(
        &mut self,
        name: &str,
        role: Role,
        parent: Option<&str>,
        place: u64,
        works: bool,
    ) {
        let parent = parent.map(|parent| self.agent_id(parent));
        let seat = Seat {
            parent,
            works,
            ..seat(role, place)
        };
        self.seat(name, seat);
    }

    pub fn elect(&mut self, name: Option<&str>) -> Verdict {
        let leader: Option<AgentId> = name.map(|name| self.agent_id(name));
        let before = self.world.state.shape(self.place).and_then(|s| s.leader());
        let elected = LeaderElected {
            leader,
            incarnation: 1,
            before,
            reason: "test".to_owned(),
            eligible: 1,
        };
        self.about_swarm(SwarmVerb::LeaderElected, elected)
    }

    fn about_swarm(&mut self, verb: SwarmVerb, body: impl Into<swarm_events::Body>) -> Verdict {
        let subject = Subject::Swarm(self.place, verb);
        self.coordinator(subject, self.place.swarm.0, body)
    }
    /// A change begins; answers with its generation.
    pub fn plan_topology(&mut self, after: &Topology) -> u64 {
        let shape = self.world.state.shape(self.place).expect("a swarm");
        let planned = TopologyPlanned {
            generation: shape.next_generation(),
            before: shape.topology().clone(),
            after: after.clone(),
            agents: 0,
            moves: 0,
            reason: "test".to_owned(),
        };
        let generation = planned.generation;
        let verdict = self.about_swarm(SwarmVerb::TopologyPlanned, planned);
        assert_eq!(verdict, Verdict::Applied);
        generation
    }
    pub fn change_topology(&mut self, generation: u64, after: &Topology) {
        let changed = TopologyChanged {
            generation,
            before: self.topology(),
            after: after.clone(),
            agents: 0,
            moves: 0,
            reason: "test".to_owned(),
        };
        let verdict = self.about_swarm(SwarmVerb::TopologyChanged, changed);
        assert_eq!(verdict, Verdict::Applied);
    }
    pub fn keep_topology(&mut self, generation: u64) {
        let kept = TopologyKept {
            generation,
            kept: self.topology(),
            problem: Problem::new("too-late", "not settled in time"),
        };
        let verdict = self.about_swarm(SwarmVerb::TopologyKept, kept);
        assert_eq!(verdict, Verdict::Applied);
    }

    /// A plan made anew sees the same.
    pub fn plans_agree(&mut self) {
        if let Err(difference) = self.world.decide_twice(1_000) {
            panic!("{}", self.named(&difference));
        }
        self.world.settle();
    }
    /// The agent that a task was given last.
    pub fn holder(&mut self, task: &str) -> String {
        let (agent, ..) = self.assignment(task);
        self.named(&agent.to_string())
    }
}
