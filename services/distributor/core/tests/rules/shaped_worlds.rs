//! Random worlds in which the topology changes: agents come, go, fail and change their seats, leaders and topologies change
//! in any order, and decisions are stored late or lost. Seats are random, too, so that they contradict each other at times.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::Index};
use swarm_distributor_core::{Distributor, Status};
use swarm_events::{
    AgentId, Body, Input,
    agent::Cause,
    configuration::Algorithm,
    decider::{Decider, Verdict},
    topology::{
        ConnectionStrategy, Hierarchical, Mesh, Ring, RingOrder, Role, Seat, Star, Topology,
    },
};
use uuid::Uuid;

use crate::{
    driver::{Act, Driver},
    scene::{Scene, shape::seat},
};

const AGENTS: [&str; 5] = ["A", "B", "C", "D", "E"];

#[derive(Clone, Debug)]
enum Op {
    Submit(u8, bool, Option<usize>),
    /// Agent, role, parent, place, whether it works.
    Seat(usize, usize, Option<usize>, u64, bool),
    Unseat(usize),
    Elect(Option<usize>),
    Change(usize, bool, Vec<(usize, usize, Option<usize>, bool)>),
    Split(Index, usize),
    Also(Act),
}

fn agent() -> impl Strategy<Value = usize> {
    0..AGENTS.len()
}
fn some_agent() -> impl Strategy<Value = Option<usize>> {
    proptest::option::of(agent())
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<Index>;
    let role = || 0..ROLES.len();
    prop_oneof![
        8 => (1..=10u8, any::<bool>(), proptest::option::weighted(0.3, role()))
            .prop_map(|(priority, able, role)| Op::Submit(priority, able, role)),
        2 => agent().prop_map(also(Act::Join)),
        1 => agent().prop_map(also(Act::Fail)),
        1 => agent().prop_map(also(Act::Leave)),
        1 => agent().prop_map(also(Act::Suspect)),
        1 => agent().prop_map(also(Act::Drain)),
        1 => agent().prop_map(|at| Op::Also(Act::Quarantine(at, Cause::ErrorRate))),
        1 => agent().prop_map(|at| Op::Also(Act::Release(at, Cause::ErrorRate))),
        4 => (agent(), role(), some_agent(), 0..8u64, prop::bool::weighted(0.8))
            .prop_map(|(agent, role, parent, place, works)| Op::Seat(agent, role, parent, place, works)),
        1 => agent().prop_map(Op::Unseat),
        1 => some_agent().prop_map(Op::Elect),
        2 => (0..SHAPES, prop::bool::weighted(0.8), prop::collection::vec((agent(), role(), some_agent(), any::<bool>()), 2..6))
            .prop_map(|(shape, done, seats)| Op::Change(shape, done, seats)),
        8 => index().prop_map(also(Act::Start)),
        6 => index().prop_map(also(Act::Complete)),
        2 => (index(), any::<bool>()).prop_map(|(i, retryable)| Op::Also(Act::FailAttempt(i, retryable))),
        2 => index().prop_map(also(Act::Decline)),
        2 => (index(), 1..4usize).prop_map(|(i, parts)| Op::Split(i, parts)),
        1 => index().prop_map(also(Act::Cancel)),
        4 => Just(Op::Also(Act::Compare)),
        3 => (1..4_000u64).prop_map(also(Act::Later)),
        8 => (1..20usize).prop_map(also(Act::Decide)),
        8 => (1..6usize).prop_map(also(Act::Deliver)),
        1 => Just(Op::Also(Act::LoseAndClaim)),
    ]
}

/// What happens in other random worlds, too.
fn also<T>(act: fn(T) -> Act) -> impl Fn(T) -> Op {
    move |of| Op::Also(act(of))
}

const ROLES: [Role; 3] = [Role::Worker, Role::Supervisor, Role::Coordinator];
const SHAPES: usize = 7;

fn topology(n: usize) -> Topology {
    let ring = |order, skip_unhealthy| {
        Topology::Ring(Ring {
            order,
            token_timeout_ms: 1_500,
            skip_unhealthy,
        })
    };
    match n {
        0 => Topology::Star(Star::default()),
        1 => Topology::Mesh(Mesh::default()),
        2 => Topology::Mesh(Mesh {
            connection_strategy: ConnectionStrategy::Nearest,
            neighbours: 2,
            gossip_interval_ms: 200,
            ..Mesh::default()
        }),
        3 => Topology::Hierarchical(Hierarchical::default()),
        4 => ring(RingOrder::Sequential, true),
        5 => ring(RingOrder::Load, true),
        _ => ring(RingOrder::Sequential, false),
    }
}

struct Worlds {
    driver: Driver,
}

impl Worlds {
    fn new(shape: usize, algorithm: usize) -> Self {
        let id = swarm_events::SwarmId(Uuid::from_u128(0xB));
        let s = Scene::at(id, topology(shape), |c| {
            c.distribution_algorithm = Algorithm::ALL[algorithm];
        });
        let mut driver = Driver::new(s, &AGENTS);
        for (place, name) in (0..).zip(AGENTS) {
            driver.join(place as usize);
            driver.s.seat(name, seat(Role::Worker, place));
        }
        Self { driver }
    }

    fn seat_of(&mut self, role: usize, parent: Option<usize>, place: u64, works: bool) -> Seat {
        Seat {
            parent: parent.map(|at| self.driver.s.agent_id(AGENTS[at])),
            works,
            ..seat(ROLES[role], place)
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Submit(priority, able, role) => {
                let name = self.driver.name();
                self.driver.s.submit_as(&name, |t| {
                    t.priority = *priority;
                    t.timeout_ms = Some(3_000);
                    t.required_role = role.map(|role| ROLES[role]);
                    if *able {
                        t.required_capabilities = vec!["x".into()];
                    }
                });
            }
            Op::Seat(at, role, parent, place, works) => {
                let seat = self.seat_of(*role, *parent, *place, *works);
                let generation = self.driver.s.generation();
                self.driver.s.seat_in(generation, AGENTS[*at], Some(seat));
            }
            Op::Unseat(at) => {
                let generation = self.driver.s.generation();
                self.driver.s.seat_in(generation, AGENTS[*at], None);
            }
            Op::Elect(at) => {
                self.driver.s.elect(at.map(|at| AGENTS[at]));
            }
            Op::Change(shape, done, seats) => {
                let after = topology(*shape);
                let generation = self.driver.s.plan_topology(&after);
                for (place, (at, role, parent, works)) in (0..).zip(seats) {
                    let seat = self.seat_of(*role, *parent, place, *works);
                    self.driver.s.seat_in(generation, AGENTS[*at], Some(seat));
                }
                if *done {
                    self.driver.s.change_topology(generation, &after);
                } else {
                    self.driver.s.keep_topology(generation);
                }
            }
            Op::Split(index, parts) => {
                let keys = ["a", "b", "c"];
                self.driver
                    .on_assigned(index, |s, t| s.split(t, &keys[..*parts]));
            }
            Op::Also(act) => self.driver.apply(act),
        }
        self.driver.look();
    }

    /// The faults are over: everybody is there, and has a seat that contradicts no other.
    fn heal(&mut self) {
        let generation = self.driver.s.generation();
        for (at, name) in AGENTS.iter().enumerate() {
            self.driver.join(at);
            self.driver.s.seat_in(generation, name, None);
        }
        for (place, name) in (0..).zip(AGENTS) {
            let role = if place == 0 { 2 } else { 0 };
            let seat = self.seat_of(role, (place > 0).then_some(0), place, true);
            self.driver.s.seat(name, seat);
        }
        self.driver.s.elect(Some("A"));
        self.driver.rest(3_000, |_| {});
    }

    /// Each assignment went to an agent that the topology allows, and in a ring to the first task that the agent could take,
    /// as far as the owner had met when it decided.
    fn topology_was_kept(&self) {
        let mut state = Distributor::new(self.driver.s.place.partition);
        let mut then: BTreeMap<u64, Distributor> = BTreeMap::new();
        let causes: BTreeSet<u64> = self.assignments().map(|(cause, ..)| cause).collect();
        for input in self.driver.s.world.inputs() {
            state.evolve(&input, None);
            if causes.contains(&state.head().sequence) {
                then.insert(state.head().sequence, state.clone());
            }
        }
        let all: Vec<_> = self.assignments().collect();
        for (at, &(cause, agent, task, turn)) in all.iter().enumerate() {
            let state = &then[&cause];
            let named = |id: Uuid| self.driver.s.named(&id.to_string());
            let (task, agent) = (swarm_events::TaskId(task), agent);
            let view = state
                .task(self.driver.s.place, task)
                .expect("it was queued");
            let shape = state.shape(self.driver.s.place).expect("a swarm");
            let role = match (shape.role(agent), shape.topology()) {
                (None, Topology::Star(_)) => Some(Role::Worker),
                (role, _) => role,
            };
            let allowed = match view.required_role {
                Some(wanted) => role == Some(wanted) || shape.leader() == Some(agent),
                None => shape.works(agent),
            };
            assert!(
                allowed,
                "{} at {} by {:?}",
                named(task.0),
                named(agent.0),
                shape.topology()
            );
            let is_ring = matches!(shape.topology(), Topology::Ring(_));
            assert_eq!(turn.is_some(), is_ring);
            if !is_ring {
                continue;
            }
            let kept = view.attempt_count > 0 || view.declines > 0;
            // What is being called off waits for nobody: it is never assigned any more.
            let later: BTreeSet<Uuid> = all[at + 1..].iter().map(|&(_, _, id, _)| id).collect();
            let earlier = state.tasks(self.driver.s.place).find(|other| {
                later.contains(&other.id.0)
                    && other.status == Status::Queued
                    && other.submitted < view.submitted
                    && other.required_role == view.required_role
                    && other.required_capabilities == view.required_capabilities
                    && other.within == view.within
                    && other.declines == 0
            });
            assert!(
                kept || earlier.is_none(),
                "{} was before {earlier:?}",
                named(task.0)
            );
        }
    }

    fn assignments(&self) -> impl Iterator<Item = (u64, AgentId, Uuid, Option<u64>)> {
        let log = self
            .driver
            .s
            .world
            .log
            .iter()
            .zip(&self.driver.s.world.verdicts);
        log.filter_map(|(stored, verdict)| match (stored.input(), verdict) {
            (Input::Event(recorded), Verdict::Applied) => match &recorded.event.body {
                Body::TaskAssigned(assigned) => Some((
                    recorded.event.decided?.cause_sequence,
                    recorded.subject.agent()?,
                    recorded.event.about,
                    assigned.turn,
                )),
                _ => None,
            },
            _ => None,
        })
    }

    /// Turns are numbered without a gap, as long as none was void.
    fn turns_count_up(&self) {
        let turns: Vec<u64> = self.assignments().filter_map(|(.., turn)| turn).collect();
        assert!(turns.is_sorted(), "{turns:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_task_ends_and_none_is_where_its_topology_forbids_it(
        shape in 0..SHAPES,
        algorithm in 0..Algorithm::ALL.len(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut worlds = Worlds::new(shape, algorithm);
        for op in &ops {
            worlds.apply(op);
        }
        worlds.driver.s.folds_agree();
        worlds.heal();
        worlds.driver.nothing_is_left();
        worlds.driver.s.folds_agree();
        worlds.topology_was_kept();
        worlds.turns_count_up();
    }

    /// The order of a ring is strict, whatever its load: tasks start in the order of their submission, one at a time.
    #[test]
    fn a_ring_never_overtakes(
        load in prop::bool::ANY,
        agents in 1..5usize,
        steps in prop::collection::vec((1..=10u8, 0..3usize, any::<bool>()), 1..40),
    ) {
        let order = if load { RingOrder::Load } else { RingOrder::Sequential };
        let mut s = Scene::shaped(Topology::Ring(Ring { order, token_timeout_ms: 60_000, skip_unhealthy: true }));
        s.side_by_side(&AGENTS[..agents]);
        let mut expected = 0;
        let mut submitted = 0;
        for (priority, done, suspect) in steps {
            s.submit_as(&format!("{submitted}"), |t| t.priority = priority);
            submitted += 1;
            if suspect && agents > 1 {
                s.suspect(AGENTS[usize::from(priority) % agents]);
            }
            for _ in 0..done {
                s.world.settle();
                let next = format!("{expected}");
                if expected == submitted || s.status(&next) != "assigned" {
                    continue;
                }
                // The one that is next, and nothing else.
                for later in expected + 1..submitted {
                    prop_assert_eq!(s.status(&format!("{later}")), "queued");
                }
                s.run_held(&next);
                expected += 1;
            }
        }
        s.plans_agree();
    }
}
