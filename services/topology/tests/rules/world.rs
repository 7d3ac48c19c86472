//! A swarm's coordinator in few words: it has members, writes what the shape wants, and folds it.

use std::collections::BTreeSet;

use swarm_events::{
    AgentId, Body,
    configuration::TopologyKind,
    json::Json,
    problem::Problem,
    topology::{
        LeaderElected, Role, Seat, Topology, TopologyChanged, TopologyKept, TopologyPlanned,
    },
};
use swarm_topology::{Change, Member, Members, Shape};
use uuid::Uuid;

/// No agents.
pub const NOBODY: [u64; 0] = [];

pub struct World {
    pub shape: Shape,
    pub members: Members,
    arrived: u64,
}

pub fn id(number: u64) -> AgentId {
    AgentId(Uuid::from_u128(
        0x0190_f7a0_0000_7000_8000_0000_0000_0000 + u128::from(number),
    ))
}
pub fn plain(number: u64) -> Member {
    Member {
        id: id(number),
        name: format!("agent-{number}"),
        agent_type: "exec".into(),
        capabilities: Vec::new(),
        arrived: 0,
        healthy: true,
    }
}
pub fn made(number: u64, word: &str) -> Member {
    Member {
        agent_type: word.into(),
        ..plain(number)
    }
}
/// A topology by its options as JSON.
pub fn topology(kind: TopologyKind, options: serde_json::Value) -> Topology {
    let patch = Json::from_value(&options).expect("JSON");
    Topology::of(kind)
        .changed(kind, &patch, 10_000)
        .expect("options that can be")
}
pub fn star(options: serde_json::Value) -> Topology {
    topology(TopologyKind::Star, options)
}
pub fn tree(options: serde_json::Value) -> Topology {
    topology(TopologyKind::Hierarchical, options)
}
pub fn mesh(options: serde_json::Value) -> Topology {
    topology(TopologyKind::Mesh, options)
}
pub fn ring() -> Topology {
    Topology::of(TopologyKind::Ring)
}

impl World {
    pub fn new(topology: Topology) -> Self {
        Self {
            shape: Shape::new(topology),
            members: Members::default(),
            arrived: 0,
        }
    }
    /// One of plain agents 1 to `agents`, settled.
    pub fn of(topology: Topology, agents: u64) -> Self {
        let mut world = Self::new(topology);
        for number in 1..=agents {
            world.come(plain(number));
        }
        world.settle();
        world
    }
    /// It is there, and not seated yet.
    pub fn come(&mut self, member: Member) {
        self.arrived += 1;
        self.members.insert(Member {
            arrived: self.arrived,
            ..member
        });
    }
    /// It comes, and what follows is written.
    pub fn join(&mut self, member: Member) -> Vec<Change> {
        let id = member.id;
        self.come(member);
        self.around(id)
    }
    pub fn leave(&mut self, number: u64) -> Vec<Change> {
        self.members.remove(id(number));
        self.around(id(number))
    }
    pub fn health(&mut self, number: u64, healthy: bool) -> Vec<Change> {
        self.members.set_healthy(id(number), healthy);
        self.around(id(number))
    }
    /// Writes what one agent's change makes necessary: as much as a look at everybody finds.
    pub fn around(&mut self, agent: AgentId) -> Vec<Change> {
        let whole = self.shape.changes(&self.members);
        let changes = self
            .shape
            .changes_around(&BTreeSet::from([agent]), &self.members);
        assert_eq!(
            bare(&changes),
            bare(&whole),
            "what follows from one agent is what follows from everybody"
        );
        self.write(&changes);
        self.elect();
        changes
    }
    pub fn settle(&mut self) {
        let changes = self.shape.changes(&self.members);
        self.write(&changes);
        self.elect();
    }
    pub fn write(&mut self, changes: &[Change]) {
        let generation = self.shape.generation();
        self.write_in(generation, changes);
        assert_eq!(self.shape.changes(&self.members), [], "it is settled now");
    }
    fn write_in(&mut self, generation: u64, changes: &[Change]) {
        for change in changes {
            assert!(!change.reason.is_empty(), "a reason is given: {change:?}");
            let body = Body::from(change.seated(generation));
            assert_eq!(self.shape.apply(Some(change.agent), &body), Ok(true));
        }
    }
    pub fn elect(&mut self) {
        if let Some(election) = self.shape.elect(&self.members) {
            let elected = LeaderElected {
                leader: election.leader,
                incarnation: 1,
                before: self.shape.leader(),
                reason: election.reason,
                eligible: election.eligible,
            };
            assert_eq!(self.shape.apply(None, &elected.into()), Ok(true));
            assert_eq!(self.shape.elect(&self.members), None, "once is enough");
        }
    }

    pub fn plan(&mut self, after: &Topology) {
        let planned = self.shape.plan(after, &self.members);
        let body = TopologyPlanned {
            generation: planned.generation,
            before: self.shape.topology().clone(),
            after: after.clone(),
            agents: planned.agents,
            moves: planned.moves,
            reason: "by order".into(),
        };
        assert_eq!(self.shape.apply(None, &body.into()), Ok(true));
    }
    pub fn stage(&mut self) {
        let changes = self.shape.staged_changes(&self.members);
        let generation = self.shape.staged().expect("a change under way").number();
        self.write_in(generation, &changes);
        assert_eq!(self.shape.staged_changes(&self.members), []);
    }
    pub fn changed(&mut self) {
        let staged = self.shape.staged().expect("a change under way");
        let body = TopologyChanged {
            generation: staged.number(),
            before: self.shape.topology().clone(),
            after: staged.topology().clone(),
            agents: 0,
            moves: 0,
            reason: "by order".into(),
        };
        assert_eq!(self.shape.apply(None, &body.into()), Ok(true));
    }
    pub fn kept(&mut self) {
        let body = TopologyKept {
            generation: self.shape.staged().expect("a change under way").number(),
            kept: self.shape.topology().clone(),
            problem: Problem::new("late", "it took too long"),
        };
        assert_eq!(self.shape.apply(None, &body.into()), Ok(true));
    }
    /// A whole change.
    pub fn change(&mut self, after: &Topology) {
        self.plan(after);
        self.stage();
        self.changed();
        assert_eq!(self.shape.changes(&self.members), []);
        self.elect();
    }

    pub fn seat(&self, number: u64) -> Seat {
        *self.shape.seat(id(number)).expect("it is seated")
    }
    pub fn role(&self, number: u64) -> Role {
        self.seat(number).role
    }
    /// The numbers of those for whom something holds, by place.
    pub fn who(&self, holds: impl Fn(&Seat) -> bool) -> Vec<u64> {
        let seats = self.shape.seats().filter(|(_, seat)| holds(seat));
        seats.map(|(id, _)| number(id)).collect()
    }
    pub fn hubs(&self) -> Vec<u64> {
        self.who(|seat| seat.role == Role::Coordinator)
    }
    pub fn workers(&self) -> Vec<u64> {
        self.who(|seat| seat.works)
    }
    pub fn talks(&self, from: u64, to: u64) -> bool {
        self.shape.may_message(id(from), id(to)).is_ok()
    }
    pub fn neighbours(&self, of: u64) -> Vec<u64> {
        let mut all: Vec<u64> = self.shape.neighbours(id(of)).map(number).collect();
        all.sort_unstable();
        all
    }
}

pub fn number(id: AgentId) -> u64 {
    u64::try_from(id.0.as_u128() & 0xffff_ffff).expect("a small number")
}
/// What is changed, without the reasons.
pub fn bare(changes: &[Change]) -> Vec<(AgentId, Option<Seat>, Option<&str>)> {
    changes
        .iter()
        .map(|change| (change.agent, change.seat, change.named.as_deref()))
        .collect()
}
/// Whose seats change.
pub fn whose(changes: &[Change]) -> Vec<u64> {
    changes.iter().map(|change| number(change.agent)).collect()
}
