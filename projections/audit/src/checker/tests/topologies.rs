//! Promises of topologies and leaders, and what the scenes about rings, parts, routes and other swarms share.

mod hand_over;
mod parts;
mod ring;
mod routes;

use swarm_events::{
    AgentId, Subject, TaskId,
    configuration::TopologyKind,
    envelope::Source,
    subject::{AgentVerb, SwarmVerb, TaskVerb},
    task::{Part, Split, part_id},
    topology::{
        Hierarchical, LeaderElected, Level, Ring, Role, Seat, Seated, Topology, TopologyChanged,
        TopologyPlanned,
    },
};

use super::scene::*;
use crate::{Checker, Invariant};

impl Scene {
    fn swarm_decision(&mut self, verb: SwarmVerb, body: impl Into<swarm_events::Body>) -> u64 {
        let subject = Subject::Swarm(self.place, verb);
        self.decide(COORDINATOR, subject, self.place.swarm.0, body)
    }
    fn elect(&mut self, leader: Option<AgentId>, before: Option<AgentId>) -> u64 {
        let elected = LeaderElected {
            leader,
            incarnation: u64::from(leader.is_some()),
            before,
            reason: "r".to_owned(),
            eligible: 1,
        };
        self.swarm_decision(SwarmVerb::LeaderElected, elected)
    }
    fn seat(&mut self, agent: AgentId, generation: u64, seat: Option<Seat>) -> u64 {
        let seated = Seated {
            generation,
            seat,
            named: None,
            reason: "r".to_owned(),
        };
        let subject = Subject::Agent(self.place, AgentVerb::Seated, agent);
        self.decide(COORDINATOR, subject, agent.0, seated)
    }
    fn plan(&mut self, before: Topology, after: Topology) -> u64 {
        let planned = TopologyPlanned {
            generation: 2,
            before,
            after,
            agents: 0,
            moves: 0,
            reason: "r".to_owned(),
        };
        self.swarm_decision(SwarmVerb::TopologyPlanned, planned)
    }
    fn change(&mut self, before: Topology, after: Topology) -> u64 {
        let changed = TopologyChanged {
            generation: 2,
            before,
            after,
            agents: 0,
            moves: 0,
            reason: "r".to_owned(),
        };
        self.swarm_decision(SwarmVerb::TopologyChanged, changed)
    }
    fn split(&mut self, id: TaskId, by: AgentId, assignment: u64, keys: &[&str]) -> [TaskId; 2] {
        let parts = keys.iter().map(|key| part(key)).collect();
        self.split_in(id, by, assignment, parts)
    }
    fn split_in(
        &mut self,
        id: TaskId,
        by: AgentId,
        assignment: u64,
        parts: Vec<Part>,
    ) -> [TaskId; 2] {
        let split = Split {
            assignment,
            incarnation: 1,
            parts,
        };
        let subject = Subject::Task(self.place, TaskVerb::Split, Some(by));
        self.write(subject, Source::Agent(by), id.0, split);
        [0, 1].map(|index| part_id(id, assignment, index))
    }
    fn done(&mut self, id: TaskId, by: AgentId) {
        let assignment = self.assign(id, by);
        self.start(id, by, assignment);
        self.complete(id, by, assignment);
    }
    fn turn(&mut self, id: TaskId, to: AgentId, turn: u64) -> u64 {
        self.assign_with(id, to, |assigned| assigned.turn = Some(turn))
    }
    /// Long after, with nothing under way.
    fn rest(&mut self) -> u64 {
        self.later(10_000);
        self.claim(HEALTH, OWNER);
        self.checker.finish(self.sequence);
        self.sequence
    }
}

fn part(key: &str) -> Part {
    Part {
        key: key.to_owned(),
        task_type: "t".to_owned(),
        payload: swarm_events::Json::default(),
        priority: None,
        required_capabilities: Vec::new(),
        required_role: None,
        max_attempts: None,
        timeout_ms: None,
    }
}
fn worker(place: u64) -> Seat {
    Seat {
        place,
        works: true,
        ..Seat::default()
    }
}
fn below(place: u64, level: u32, parent: Option<AgentId>) -> Seat {
    let role = [Role::Coordinator, Role::Worker][level as usize];
    Seat {
        role,
        level,
        parent,
        works: role == Role::Worker,
        ..worker(place)
    }
}
fn hub() -> Seat {
    Seat {
        role: Role::Coordinator,
        works: false,
        ..worker(1)
    }
}
fn spoke(place: u64) -> Seat {
    Seat {
        level: 1,
        ..worker(place)
    }
}

/// So many agents in a swarm of that topology, seated by their numbers.
fn shaped(topology: Topology, agents: u128, seat: impl Fn(u128) -> Seat) -> Scene {
    let mut scene = Scene::new(Checker::default());
    for n in 1..=agents {
        scene.join_with(agent(n), 1, 1, 2, &["a"]);
    }
    let star = Topology::default();
    scene.plan(star.clone(), topology.clone());
    for n in 1..=agents {
        scene.seat(agent(n), 2, Some(seat(n)));
    }
    scene.change(star, topology);
    scene.elect(Some(agent(1)), None);
    scene.clean();
    scene
}
fn tree(ratio: u32) -> Topology {
    let level = |role, count| Level { role, count };
    Topology::Hierarchical(Hierarchical {
        levels: vec![level(Role::Coordinator, 1), level(Role::Worker, 2)],
        parent_child_ratio: ratio,
        ..Hierarchical::default()
    })
}
fn ring(agents: u128) -> Scene {
    shaped(Topology::Ring(Ring::default()), agents, |n| {
        worker(n as u64)
    })
}
fn star() -> Scene {
    let mut scene = Scene::new(Checker::default());
    scene.join(agent(1), 1, 2);
    scene.join(agent(2), 1, 2);
    scene.seat(agent(1), 1, Some(hub()));
    scene.seat(agent(2), 1, Some(spoke(2)));
    scene.elect(Some(agent(1)), None);
    scene.clean();
    scene
}

#[test]
fn one_leader() {
    let mut scene = star();
    scene.fail_agent(agent(1), 1);
    scene.elect(Some(agent(2)), Some(agent(1)));
    scene.clean();
    let second = scene.elect(Some(agent(1)), Some(agent(2)));
    scene.broken(Invariant::OneLeader, second);
}

#[test]
fn one_leader_knows_the_one_before() {
    let mut scene = star();
    let blind = scene.elect(Some(agent(2)), None);
    scene.broken(Invariant::OneLeader, blind);
    // Unless what it did not know of was lost.
    let mut scene = star();
    scene.epochs.entry(COORDINATOR).and_modify(|e| e.1 += 1);
    scene.elect(Some(agent(2)), None);
    scene.clean();
}

#[test]
fn one_leader_is_a_member_and_somebody_who_can_be_is_elected() {
    let mut scene = star();
    let before = scene.sequence;
    scene.fail_agent(agent(1), 1);
    // It was one for whom the verdict had not come.
    let stranger = scene.elect(Some(agent(7)), Some(agent(1)));
    scene.broken(Invariant::OneLeader, stranger);
    let mut scene = star();
    scene.fail_agent(agent(1), 1);
    let nobody = scene.elect(None, Some(agent(1)));
    scene.broken(Invariant::OneLeader, nobody);
    assert!(before < nobody);
}

#[test]
fn one_leader_leads_at_rest() {
    let mut scene = star();
    scene.rest();
    scene.clean();
    scene.fail_agent(agent(1), 1);
    scene.seat(agent(1), 1, None);
    scene.clean();
    let last = scene.rest();
    scene.broken(Invariant::OneLeader, last);
}

#[test]
fn seats_follow_the_rule_for_members_only() {
    let mut scene = star();
    let stranger = scene.seat(agent(7), 1, Some(spoke(7)));
    scene.broken(Invariant::SeatsFollowTheRule, stranger);
    let mut scene = star();
    let taken = scene.seat(agent(2), 1, None);
    scene.broken(Invariant::SeatsFollowTheRule, taken);
    let mut scene = star();
    let before = scene.sequence;
    scene.fail_agent(agent(2), 1);
    // Decided before the verdict was met.
    scene.forged.cause = Some(before);
    scene.seat(agent(2), 1, Some(spoke(3)));
    scene.seat(agent(2), 1, None);
    scene.clean();
}

#[test]
fn seats_follow_the_rule_of_their_topology() {
    let strange = [
        Seat {
            role: Role::Supervisor,
            ..spoke(2)
        },
        Seat {
            level: 0,
            ..spoke(2)
        },
        Seat {
            parent: Some(agent(1)),
            ..spoke(2)
        },
        // Another has this place.
        spoke(1),
    ];
    for seat in strange {
        let mut scene = star();
        let wrong = scene.seat(agent(2), 1, Some(seat));
        scene.broken(Invariant::SeatsFollowTheRule, wrong);
    }
    let mut scene = ring(2);
    let wrong = scene.seat(agent(2), 2, Some(spoke(2)));
    scene.broken(Invariant::SeatsFollowTheRule, wrong);
    let mut scene = shaped(tree(2), 2, |n| {
        below(n as u64, u32::from(n > 1), (n > 1).then_some(agent(1)))
    });
    let no_level = Seat {
        level: 2,
        role: Role::Worker,
        ..below(2, 1, Some(agent(1)))
    };
    let wrong = scene.seat(agent(2), 2, Some(no_level));
    scene.broken(Invariant::SeatsFollowTheRule, wrong);
}

#[test]
fn seats_follow_the_rule_of_the_ratio_when_all_are_given() {
    let mut scene = shaped(tree(2), 3, |n| {
        below(n as u64, u32::from(n > 1), (n > 1).then_some(agent(1)))
    });
    scene.rest();
    scene.clean();
    scene.join(agent(4), 1, 1);
    scene.seat(agent(4), 2, Some(below(4, 1, Some(agent(1)))));
    // On the way it may be so.
    scene.clean();
    let last = scene.rest();
    scene.broken(Invariant::SeatsFollowTheRule, last);
}

#[test]
fn seats_follow_the_rule_when_a_topology_changes() {
    let mesh = Topology::of(TopologyKind::Mesh);
    let mut scene = star();
    scene.plan(Topology::default(), mesh.clone());
    scene.seat(agent(1), 2, Some(worker(1)));
    scene.clean();
    let early = scene.change(Topology::default(), mesh.clone());
    scene.broken(Invariant::SeatsFollowTheRule, early);
    // Unless the seat was given, and was lost.
    let mut scene = star();
    scene.plan(Topology::default(), mesh.clone());
    scene.seat(agent(1), 2, Some(worker(1)));
    scene.epochs.entry(COORDINATOR).and_modify(|e| e.1 += 1);
    scene.change(Topology::default(), mesh.clone());
    scene.clean();
    // Without a plan it is nothing, and is not decided.
    let mut scene = star();
    let wild = scene.change(Topology::default(), mesh);
    scene.broken(Invariant::SeatsFollowTheRule, wild);
}

#[test]
fn seats_follow_the_rule_at_rest() {
    let mut scene = star();
    scene.join(agent(3), 1, 1);
    let last = scene.rest();
    scene.broken(Invariant::SeatsFollowTheRule, last);
    let mut scene = star();
    scene.plan(Topology::default(), Topology::of(TopologyKind::Mesh));
    let last = scene.rest();
    scene.broken(Invariant::SeatsFollowTheRule, last);
}
