//! Promises of topologies, leaders, rings, parts, and of what goes to other swarms.

use swarm_events::{
    AgentId, Place, Subject, SwarmId, TaskId,
    agent::{Evidence, LivenessRule, Suspected},
    configuration::{Algorithm, TopologyKind},
    envelope::Source,
    subject::{AgentVerb, SwarmVerb, TaskVerb},
    task::{
        Assigned, Carried, HandedBack, HandedOver, Origin, Part, Split, Step, Submitted, Then,
        WithdrawReason, handed_id, part_id,
    },
    topology::{
        Hierarchical, LeaderElected, Level, Mesh, Ring, Role, Seat, Seated, Topology,
        TopologyChanged, TopologyPlanned,
    },
};
use uuid::Uuid;

use super::scene::*;
use crate::{Checker, Invariant};

const AFAR: SwarmId = SwarmId(Uuid::from_u128(0xafa2));

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

#[test]
fn routes_by_topology_to_those_that_work() {
    let mut scene = star();
    scene.submit(task(1));
    scene.assign(task(1), agent(2));
    scene.clean();
    scene.submit(task(2));
    let to_the_hub = scene.assign(task(2), agent(1));
    scene.broken(Invariant::RoutesByTopology, to_the_hub);
}

#[test]
fn routes_by_topology_are_judged_at_the_cause() {
    let mut scene = star();
    let before = scene.submit(task(1));
    scene.seat(
        agent(2),
        1,
        Some(Seat {
            works: false,
            ..spoke(2)
        }),
    );
    scene.forged.cause = Some(before);
    scene.assign(task(1), agent(2));
    scene.clean();
    scene.submit(task(2));
    let knowing = scene.assign(task(2), agent(2));
    scene.broken(Invariant::RoutesByTopology, knowing);
}

#[test]
fn routes_by_topology_to_the_role_that_is_asked_for() {
    let asks = |t: &mut Submitted| t.required_role = Some(Role::Coordinator);
    let mut scene = star();
    scene.submit_with(task(1), asks);
    scene.assign(task(1), agent(1));
    scene.clean();
    scene.submit_with(task(2), asks);
    let wrong = scene.assign(task(2), agent(2));
    scene.broken(Invariant::RoutesByTopology, wrong);
    // Nobody is a supervisor: the leader stands in, and nobody else.
    let asks = |t: &mut Submitted| t.required_role = Some(Role::Supervisor);
    let mut scene = star();
    scene.submit_with(task(1), asks);
    scene.assign(task(1), agent(1));
    scene.clean();
    scene.submit_with(task(2), asks);
    let wrong = scene.assign(task(2), agent(2));
    scene.broken(Invariant::RoutesByTopology, wrong);
}

#[test]
fn routes_by_topology_down_the_tree() {
    let of = |n: u128| below(n as u64, u32::from(n > 1), (n > 1).then_some(agent(1)));
    let mut scene = shaped(tree(4), 3, of);
    for n in 1..=2 {
        scene.submit(task(n));
    }
    scene.assign_with(task(1), agent(2), |a| a.path = vec![agent(1)]);
    scene.clean();
    let wrong = scene.assign_with(task(2), agent(3), |a| a.path = vec![agent(3)]);
    scene.broken(Invariant::RoutesByTopology, wrong);
}

/// A coordinator with one worker below it splits a task in two; only somebody with a `b` can do the first part.
fn parted_tree(words: &[&str]) -> (Scene, [TaskId; 2]) {
    let of = |n: u128| {
        let parent = (n > 1).then_some(agent(1));
        Seat {
            works: true,
            ..below(n as u64, u32::from(n > 1), parent)
        }
    };
    let mut scene = shaped(tree(4), 2, of);
    let mut words = words.to_vec();
    words.push("a");
    scene.join_with(agent(2), 2, 1, 2, &words);
    scene.submit(task(1));
    let assignment = scene.assign(task(1), agent(1));
    scene.start(task(1), agent(1), assignment);
    let part = |key: &str, words: &[&str]| Part {
        required_capabilities: words.iter().map(|&word| word.to_owned()).collect(),
        ..part(key)
    };
    let parts = [part("x", &["a"]), part("y", &["b"])];
    let parts = scene.split_in(task(1), agent(1), assignment, parts.into());
    scene.clean();
    (scene, parts)
}

#[test]
fn routes_by_topology_below_who_split_it_while_somebody_there_can() {
    let (mut scene, [first, _]) = parted_tree(&[]);
    let wrong = scene.assign(first, agent(1));
    scene.broken(Invariant::RoutesByTopology, wrong);
    // Nobody below it can.
    let (mut scene, [first, second]) = parted_tree(&[]);
    scene.assign_with(first, agent(2), |a| {
        (a.incarnation, a.path) = (2, vec![agent(1)]);
    });
    scene.join_with(agent(1), 2, 1, 2, &["a", "b"]);
    scene.assign_with(second, agent(1), |a| a.incarnation = 2);
    scene.clean();
}

#[test]
fn priority_order_leaves_out_what_may_have_to_stay_below_another() {
    let (mut scene, _) = parted_tree(&[]);
    scene.submit(task(2));
    scene.assign(task(2), agent(1));
    scene.clean();
    // The worker below it is on its way out: whether the parts wait for it, nobody can tell surely.
    let (mut scene, _) = parted_tree(&[]);
    let subject = Subject::Agent(scene.place, AgentVerb::Suspected, agent(2));
    let evidence = Evidence {
        rule: LivenessRule::Silence,
        last_heartbeat_at: None,
        age_ms: 4_000,
        limit_ms: 4_000,
    };
    let suspected = Suspected {
        incarnation: 2,
        evidence,
    };
    scene.decide(HEALTH, subject, agent(2).0, suspected);
    scene.submit(task(2));
    scene.assign(task(2), agent(1));
    scene.clean();
    // It has failed: they come first.
    let (mut scene, _) = parted_tree(&[]);
    scene.fail_agent(agent(2), 2);
    scene.submit(task(2));
    let late = scene.assign(task(2), agent(1));
    scene.broken(Invariant::PriorityOrder, late);
}

/// One of four in a circle of neighbours is busy, and one task waits at it.
fn busy(mesh: Mesh) -> (Scene, u64) {
    let mut scene = shaped(Topology::Mesh(mesh), 4, |n| worker(n as u64));
    for n in 1..=2 {
        scene.submit(task(n));
    }
    let first = scene.assign(task(1), agent(1));
    let second = scene.assign(task(2), agent(1));
    scene.start(task(1), agent(1), first);
    (scene, second)
}

#[test]
fn routes_by_topology_hold_for_steals() {
    let near = || Mesh {
        connection_strategy: swarm_events::topology::ConnectionStrategy::Nearest,
        neighbours: 2,
        gossip_interval_ms: 0,
        ..Mesh::default()
    };
    let (mut scene, held) = busy(near());
    scene.later(60);
    scene.progress(task(1), agent(1), held - 1);
    scene.steal(task(2), agent(1), held, agent(2));
    scene.clean();
    let (mut scene, held) = busy(near());
    scene.later(60);
    scene.progress(task(1), agent(1), held - 1);
    let far = scene.steal(task(2), agent(1), held, agent(3));
    scene.broken(Invariant::RoutesByTopology, far);
}

#[test]
fn routes_by_topology_wait_for_the_next_round_of_gossip() {
    let round = 60_000;
    let mesh = || Mesh {
        gossip_interval_ms: round,
        ..Mesh::default()
    };
    for (later, told) in [(100, false), (round, true)] {
        let (mut scene, held) = busy(mesh());
        scene.later(later);
        scene.progress(task(1), agent(1), held - 1);
        let steal = scene.steal(task(2), agent(1), held, agent(3));
        if told {
            scene.clean();
        } else {
            scene.broken(Invariant::RoutesByTopology, steal);
        }
    }
}

#[test]
fn ring_order_is_that_of_submission() {
    let two = || {
        let mut scene = ring(3);
        scene.submit(task(1));
        scene.submit_with(task(2), |t| t.priority = 10);
        scene
    };
    let mut scene = two();
    let first = scene.turn(task(1), agent(1), 1);
    scene.start(task(1), agent(1), first);
    scene.complete(task(1), agent(1), first);
    scene.assign_with(task(2), agent(2), |a| (a.turn, a.priority) = (Some(2), 10));
    scene.clean();
    let mut scene = two();
    let urgent = scene.assign_with(task(2), agent(1), |a| (a.turn, a.priority) = (Some(1), 10));
    scene.broken(Invariant::RingOrder, urgent);
}

#[test]
fn ring_order_is_one_turn_at_a_time() {
    let one = || {
        let mut scene = ring(3);
        scene.submit(task(1));
        scene.submit(task(2));
        scene.turn(task(1), agent(1), 1);
        scene
    };
    let mut scene = one();
    let early = scene.turn(task(2), agent(2), 2);
    scene.broken(Invariant::RingOrder, early);
    // Its time is over.
    let mut scene = one();
    scene.later(5_000);
    scene.submit(task(3));
    scene.turn(task(2), agent(2), 2);
    scene.clean();
    // Another turn was under way.
    let mut scene = ring(3);
    scene.submit(task(1));
    let cause = scene.submit(task(2));
    for n in 1..=2 {
        scene.forged.cause = Some(cause);
        scene.turn(task(n), agent(n), n as u64);
    }
    scene.broken(Invariant::RingOrder, scene.sequence);
}

#[test]
fn ring_order_passes_nobody_over() {
    let mut scene = ring(3);
    for n in 1..=3 {
        scene.submit(task(n));
    }
    let first = scene.turn(task(1), agent(1), 1);
    scene.start(task(1), agent(1), first);
    scene.complete(task(1), agent(1), first);
    scene.clean();
    let over = scene.turn(task(2), agent(3), 2);
    scene.broken(Invariant::RingOrder, over);
    // Who is not there is.
    let mut scene = ring(3);
    scene.submit(task(1));
    scene.submit(task(2));
    let first = scene.turn(task(1), agent(1), 1);
    scene.start(task(1), agent(1), first);
    scene.complete(task(1), agent(1), first);
    scene.fail_agent(agent(2), 1);
    scene.turn(task(2), agent(3), 2);
    scene.clean();
}

#[test]
fn ring_order_goes_on_from_the_place_that_the_token_had() {
    let after_seats = |to: u128| {
        let mut scene = ring(2);
        scene.submit(task(1));
        scene.submit(task(2));
        let first = scene.turn(task(1), agent(2), 1);
        scene.start(task(1), agent(2), first);
        scene.complete(task(1), agent(2), first);
        // Both leave their places, and sit down again in this order.
        for n in 1..=2 {
            scene.seat(agent(n), 2, None);
        }
        scene.seat(agent(2), 2, Some(worker(3)));
        scene.seat(agent(1), 2, Some(worker(4)));
        let second = scene.turn(task(2), agent(to), 2);
        (scene, second)
    };
    let (scene, second) = after_seats(1);
    let order = |found: &(Invariant, u64)| *found == (Invariant::RingOrder, second);
    assert!(scene.found().iter().any(order));
    let (scene, second) = after_seats(2);
    let order = |found: &(Invariant, u64)| *found == (Invariant::RingOrder, second);
    assert!(!scene.found().iter().any(order));
}

#[test]
fn ring_order_numbers_its_turns() {
    let mut scene = ring(2);
    scene.submit(task(1));
    let none = scene.assign(task(1), agent(1));
    scene.broken(Invariant::RingOrder, none);
    let mut scene = ring(2);
    scene.submit(task(1));
    scene.submit(task(2));
    let first = scene.turn(task(1), agent(1), 1);
    scene.start(task(1), agent(1), first);
    scene.complete(task(1), agent(1), first);
    let again = scene.turn(task(2), agent(2), 1);
    scene.broken(Invariant::RingOrder, again);
    let mut scene = star();
    scene.submit(task(1));
    let no_ring = scene.turn(task(1), agent(2), 1);
    scene.broken(Invariant::RingOrder, no_ring);
}

#[test]
fn no_task_lost_by_a_change() {
    let by_topology = |scene: &mut Scene, assignment: u64, force: bool, then: Then| {
        scene.withdraw_with(task(1), agent(2), assignment, |withdrawn| {
            withdrawn.reason = WithdrawReason::Topology;
            (withdrawn.force, withdrawn.then) = (force, then);
        })
    };
    let given = |works: bool| {
        let mut scene = star();
        scene.submit(task(1));
        let assignment = scene.assign(task(1), agent(2));
        scene.seat(agent(2), 1, Some(Seat { works, ..spoke(2) }));
        (scene, assignment)
    };
    let (mut scene, assignment) = given(false);
    by_topology(&mut scene, assignment, false, Then::Queue);
    scene.clean();
    for (works, force, then) in [
        (true, false, Then::Queue),
        (false, true, Then::Queue),
        (false, false, Then::End),
    ] {
        let (mut scene, assignment) = given(works);
        let wrong = by_topology(&mut scene, assignment, force, then);
        scene.broken(Invariant::NoTaskLostByAChange, wrong);
    }
    // What has started stays.
    let (mut scene, assignment) = given(false);
    scene.start(task(1), agent(2), assignment);
    let late = by_topology(&mut scene, assignment, false, Then::Queue);
    scene.broken(Invariant::NoTaskLostByAChange, late);
}

/// A task that was split in two.
fn parted() -> (Scene, [TaskId; 2]) {
    let mut scene = Scene::new(Checker::default());
    scene.join_with(agent(1), 1, 4, 4, &["a"]);
    scene.submit(task(1));
    let assignment = scene.assign(task(1), agent(1));
    scene.start(task(1), agent(1), assignment);
    let parts = scene.split(task(1), agent(1), assignment, &["a", "b"]);
    scene.clean();
    (scene, parts)
}
fn reduce(assigned: &mut Assigned) {
    assigned.step = Step::Reduce;
}

#[test]
fn parts_end_once() {
    let (mut scene, [first, second]) = parted();
    assert_eq!(scene.checker.accepted(), 3);
    scene.done(first, agent(1));
    scene.done(second, agent(1));
    let whole = scene.assign_with(task(1), agent(1), reduce);
    scene.start(task(1), agent(1), whole);
    scene.complete(task(1), agent(1), whole);
    scene.rest();
    scene.clean();
    assert_eq!(scene.checker.counts().ended, 3);
}

#[test]
fn circle_kept_leaves_out_who_makes_one_of_its_own_parts() {
    let after_parts = |reducer: u128| {
        let mut scene = Scene::new(Checker::default());
        scene.set(|c| c.distribution_algorithm = Algorithm::RoundRobin);
        for n in 1..=3 {
            scene.join_with(agent(n), 1, 4, 4, &["a"]);
        }
        scene.submit(task(1));
        let assignment = scene.assign(task(1), agent(1));
        scene.start(task(1), agent(1), assignment);
        let [first, second] = scene.split(task(1), agent(1), assignment, &["a", "b"]);
        scene.done(first, agent(2));
        let last = scene.assign(second, agent(3));
        scene.start(second, agent(3), last);
        scene.submit(task(2));
        scene.assign(task(2), agent(1));
        scene.complete(second, agent(3), last);
        scene.clean();
        let at = scene.assign_with(task(1), agent(reducer), reduce);
        (scene, at)
    };
    // It would be the second one's turn.
    after_parts(2).0.clean();
    after_parts(1).0.clean();
    let (scene, at) = after_parts(3);
    scene.broken(Invariant::CircleKept, at);
}

#[test]
fn circle_kept_counts_no_turn_for_what_was_taken_over_whoever_gets_it() {
    let mut scene = shaped(Topology::Mesh(Mesh::default()), 3, |n| worker(n as u64));
    scene.set(|c| c.distribution_algorithm = Algorithm::RoundRobin);
    for n in 1..=4 {
        scene.submit(task(n));
    }
    let first = scene.assign(task(1), agent(1));
    scene.start(task(1), agent(1), first);
    scene.assign(task(2), agent(2));
    scene.assign(task(3), agent(3));
    let waiting = scene.assign(task(4), agent(1));
    scene.start(task(2), agent(2), waiting - 2);
    scene.later(60_000);
    scene.complete(task(2), agent(2), waiting - 2);
    scene.steal(task(4), agent(1), waiting, agent(2));
    // It goes to somebody else, and `stolen_from` is not told: still no turn of that one.
    scene.assign(task(4), agent(3));
    scene.submit(task(5));
    scene.submit(task(6));
    scene.assign(task(5), agent(2));
    scene.assign(task(6), agent(3));
    scene.clean();
}

#[test]
fn parts_end_once_before_the_whole_goes_on() {
    let (mut scene, [first, second]) = parted();
    scene.done(first, agent(1));
    let before = scene.sequence;
    scene.done(second, agent(1));
    scene.forged.cause = Some(before);
    let early = scene.assign_with(task(1), agent(1), reduce);
    scene.broken(Invariant::PartsEndOnce, early);
    let (mut scene, parts) = parted();
    for part in parts {
        scene.done(part, agent(1));
    }
    let again = scene.assign(task(1), agent(1));
    scene.broken(Invariant::PartsEndOnce, again);
    let mut scene = Scene::new(Checker::default());
    scene.join(agent(1), 1, 1);
    scene.submit(task(1));
    let never = scene.assign_with(task(1), agent(1), reduce);
    scene.broken(Invariant::PartsEndOnce, never);
}

#[test]
fn parts_end_once_another_has_failed() {
    let (mut scene, [first, second]) = parted();
    let assignment = scene.assign(first, agent(1));
    scene.start(first, agent(1), assignment);
    scene.fail_attempt(first, agent(1), assignment);
    scene.fail_with(first, |failed| failed.dead_lettered = false);
    scene.clean();
    let late = scene.assign(second, agent(1));
    scene.broken(Invariant::PartsEndOnce, late);
}

#[test]
fn a_task_fails_for_a_part_of_it() {
    let (mut scene, [first, second]) = parted();
    scene.cancel_task(second);
    scene.fail_for(task(1), &[second]);
    scene.cancel_task(first);
    scene.rest();
    scene.clean();
    // Not for a stranger.
    let (mut scene, [first, second]) = parted();
    scene.submit(task(9));
    scene.cancel_task(task(9));
    scene.cancel_task(second);
    scene.cancel_task(first);
    let wrong = scene.fail_for(task(1), &[task(9)]);
    scene.broken(Invariant::FailurePaths, wrong);
}

#[test]
fn parts_are_open_until_they_end() {
    let (mut scene, [first, _]) = parted();
    scene.done(first, agent(1));
    assert!(!scene.checker.quiet());
    assert_eq!(scene.checker.open().tasks.len(), 2, "a part, and the whole");
    let last = scene.rest();
    scene.broken(Invariant::EveryTaskEnds, last);
}

#[test]
fn what_could_not_be_split_has_no_parts() {
    for (keys, error) in [
        (["a", "a"], "two of one name"),
        // For want of room, which only the distributor knows.
        (["a", "b"], "it could not be split: the queue is full"),
    ] {
        let mut scene = Scene::new(Checker::default());
        scene.join(agent(1), 1, 1);
        scene.submit(task(1));
        let assignment = scene.assign(task(1), agent(1));
        scene.start(task(1), agent(1), assignment);
        scene.split(task(1), agent(1), assignment, &keys);
        scene.fail_with(task(1), |failed| failed.error = error.to_owned());
        scene.rest();
        scene.clean();
        assert_eq!(scene.checker.accepted(), 1);
    }
}

impl Scene {
    fn submit_for(&mut self, id: TaskId) -> Origin {
        self.submit_with(id, |t| t.hand_to = Some(AFAR));
        Origin {
            swarm_id: self.place.swarm,
            task_id: id,
            generation: 1,
            hops: 1,
        }
    }
    fn hand_over(&mut self, id: TaskId, known_as: TaskId) -> u64 {
        let over = HandedOver {
            to: AFAR,
            task_id: known_as,
            generation: 1,
        };
        let subject = Subject::Task(self.place, TaskVerb::HandedOver, None);
        self.decide(DISTRIBUTOR, subject, id.0, over)
    }
    fn hand_back(&mut self, id: TaskId) -> u64 {
        let back = HandedBack {
            by: AFAR,
            generation: 1,
            result: Carried::Inline(swarm_events::Json::default()),
        };
        let subject = Subject::Task(self.place, TaskVerb::HandedBack, None);
        self.decide(DISTRIBUTOR, subject, id.0, back)
    }
}

/// A task that another swarm is to do.
fn handed() -> (Scene, Origin) {
    let mut scene = Scene::new(Checker::default());
    scene.join(agent(1), 1, 1);
    let origin = scene.submit_for(task(1));
    (scene, origin)
}

#[test]
fn handed_back_once() {
    let (mut scene, origin) = handed();
    scene.hand_over(task(1), handed_id(&origin));
    scene.clean();
    assert!(!scene.checker.quiet());
    scene.hand_back(task(1));
    scene.measure(1);
    scene.rest();
    scene.clean();
    let twice = scene.hand_back(task(1));
    scene.broken(Invariant::OneTerminal, twice);
}

#[test]
fn handed_back_once_means_nobody_here_does_it() {
    let (mut scene, _) = handed();
    let here = scene.assign(task(1), agent(1));
    scene.broken(Invariant::HandedBackOnce, here);
}

#[test]
fn handed_back_once_it_was_handed_over_once() {
    let (mut scene, _) = handed();
    let never = scene.hand_back(task(1));
    scene.broken(Invariant::HandedBackOnce, never);
    let (mut scene, origin) = handed();
    scene.hand_over(task(1), handed_id(&origin));
    let twice = scene.hand_over(task(1), handed_id(&origin));
    scene.broken(Invariant::HandedBackOnce, twice);
    let (mut scene, _) = handed();
    let unknown = scene.hand_over(task(1), task(77));
    scene.broken(Invariant::HandedBackOnce, unknown);
    let mut scene = Scene::new(Checker::default());
    scene.submit(task(1));
    let own = scene.hand_over(task(1), task(77));
    scene.broken(Invariant::HandedBackOnce, own);
}

#[test]
fn handed_back_once_it_is_done_there() {
    let there = |scene: &Scene| Place::new(scene.place.org, AFAR);
    let given = |done: bool| {
        let (mut scene, origin) = handed();
        let here = scene.place;
        let known_as = handed_id(&origin);
        scene.hand_over(task(1), known_as);
        scene.place = there(&scene);
        for service in [COORDINATOR, DISTRIBUTOR] {
            scene.epochs.remove(&service);
            scene.claim(service, OWNER);
        }
        let created = swarm_events::swarm::Created {
            name: "afar".to_owned(),
            description: None,
            topology: Topology::default(),
            configuration: scene.settings.clone(),
            partition: scene.place.partition.number(),
            created_by: None,
        };
        scene.swarm_decision(SwarmVerb::Created, created);
        scene.join(agent(2), 1, 1);
        scene.submit_with(known_as, |t| t.origin = Some(origin));
        let assignment = scene.assign(known_as, agent(2));
        scene.start(known_as, agent(2), assignment);
        if done {
            scene.complete(known_as, agent(2), assignment);
        }
        scene.place = here;
        // As its claims stand: that of the distributor was the second.
        scene.claim_after(DISTRIBUTOR, OWNER, 2);
        scene.clean();
        scene
    };
    let mut scene = given(true);
    scene.hand_back(task(1));
    scene.clean();
    let mut scene = given(false);
    let early = scene.hand_back(task(1));
    scene.broken(Invariant::HandedBackOnce, early);
}
