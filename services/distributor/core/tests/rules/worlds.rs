//! Random worlds: clients, agents, people and claims in any order, decisions stored late or lost. The rules hold at every
//! step, and once the faults are over everything that was accepted ends.

mod verify;

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::Index};
use swarm_events::{
    Input, TaskId,
    agent::Cause,
    configuration::{Algorithm, Configuration, HealthPolicy},
    decider::Decider,
    subject::CommandVerb,
    task::DependencyType,
};

use crate::{
    driver::{Act, Driver, SLOTS, WAITING},
    scene::Scene,
};

const AGENTS: [&str; 3] = ["A", "B", "C"];

/// A task's own limits of waiting and of silence.
#[derive(Clone, Copy, Debug)]
struct Limits {
    queue_ms: Option<u64>,
    progress_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    algorithm: usize,
    queue_ms: u64,
    progress_ms: u64,
    shed: u32,
    stealing: bool,
    fast_failures: u32,
    stuck_ms: u64,
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = || {
        prop_oneof![
            4 => Just(None),
            1 => Just(Some(0)),
            2 => (1..5_000u64).prop_map(Some),
        ]
    };
    (limit(), limit()).prop_map(|(queue_ms, progress_ms)| Limits {
        queue_ms,
        progress_ms,
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let limit = || prop_oneof![1 => Just(0), 2 => 1..5_000u64];
    (
        0..Algorithm::ALL.len(),
        limit(),
        limit(),
        1..=100u32,
        any::<bool>(),
        0..4u32,
        limit(),
    )
        .prop_map(
            |(algorithm, queue_ms, progress_ms, shed, stealing, fast_failures, stuck_ms)| {
                Settings {
                    algorithm,
                    queue_ms,
                    progress_ms,
                    shed,
                    stealing,
                    fast_failures,
                    stuck_ms,
                }
            },
        )
}

fn configured(settings: Settings) -> Configuration {
    Configuration {
        queue_limit: 25,
        distribution_algorithm: Algorithm::ALL[settings.algorithm],
        queue_timeout_ms: settings.queue_ms,
        progress_timeout_ms: settings.progress_ms,
        shed_from_percent: settings.shed,
        stealing: settings.stealing,
        health: HealthPolicy {
            fast_failures_max: settings.fast_failures,
            stuck_after_ms: settings.stuck_ms,
            ..HealthPolicy::default()
        },
        ..Configuration::default()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Submit {
        priority: u8,
        capable: bool,
        on: Option<(Index, u8)>,
        limits: Limits,
    },
    Graph {
        size: u32,
        complete: bool,
        links: Vec<(Index, Index, u8)>,
    },
    /// Slots, waiting places, whether it has the capability.
    Update(usize, u32, u32, bool),
    Retry(Index),
    Discard(Index),
    CancelGraph(Index),
    Progress(Index),
    Configure(Settings),
    Repeat(Index),
    Also(Act),
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<Index>;
    prop_oneof![
        6 => (1..=10u8, any::<bool>(), proptest::option::of((index(), 0..3u8)), limits())
            .prop_map(|(priority, capable, on, limits)| Op::Submit { priority, capable, on, limits }),
        2 => (1..6u32, prop::bool::weighted(0.9), prop::collection::vec((index(), index(), 0..3u8), 0..6))
            .prop_map(|(size, complete, links)| Op::Graph { size, complete, links }),
        2 => (0..3usize).prop_map(also(Act::Join)),
        1 => (0..3usize).prop_map(also(Act::Fail)),
        1 => (0..3usize).prop_map(also(Act::Leave)),
        1 => (0..3usize).prop_map(also(Act::Suspect)),
        1 => (0..3usize).prop_map(also(Act::Drain)),
        2 => (0..3usize, cause()).prop_map(|(agent, cause)| Op::Also(Act::Quarantine(agent, cause))),
        2 => (0..3usize, cause()).prop_map(|(agent, cause)| Op::Also(Act::Release(agent, cause))),
        2 => (0..3usize, 1..=SLOTS, 0..=WAITING, any::<bool>())
            .prop_map(|(agent, slots, waiting, able)| Op::Update(agent, slots, waiting, able)),
        4 => index().prop_map(also(Act::Decline)),
        8 => index().prop_map(also(Act::Start)),
        6 => index().prop_map(also(Act::Complete)),
        3 => (index(), any::<bool>()).prop_map(|(i, retryable)| Op::Also(Act::FailAttempt(i, retryable))),
        2 => index().prop_map(also(Act::Cancel)),
        1 => index().prop_map(Op::Retry),
        1 => index().prop_map(Op::Discard),
        1 => index().prop_map(Op::CancelGraph),
        2 => index().prop_map(Op::Progress),
        1 => settings().prop_map(Op::Configure),
        2 => Just(Op::Also(Act::Compare)),
        2 => (1..4_000u64).prop_map(also(Act::Later)),
        8 => (1..20usize).prop_map(also(Act::Decide)),
        8 => (1..6usize).prop_map(also(Act::Deliver)),
        1 => Just(Op::Also(Act::LoseAndClaim)),
        1 => index().prop_map(Op::Repeat),
    ]
}

/// What happens in other random worlds, too.
fn also<T>(act: fn(T) -> Act) -> impl Fn(T) -> Op {
    move |of| Op::Also(act(of))
}

/// Two are enough to hold at once; with one of them the bar for fast failures has to do.
fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![Just(Cause::FastFailures), Just(Cause::ErrorRate)]
}

fn kind(n: u8) -> DependencyType {
    [
        DependencyType::Completion,
        DependencyType::Success,
        DependencyType::Data,
    ][usize::from(n)]
}

struct Worlds {
    driver: Driver,
    graphs: Vec<String>,
}

impl Worlds {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Submit {
                priority,
                capable,
                on,
                limits,
            } => {
                let edges = on.map(|(index, n)| {
                    let other = if self.driver.names.is_empty() {
                        "nobody".to_owned()
                    } else {
                        index.get(&self.driver.names).clone()
                    };
                    self.driver.s.edges(&[(&other, kind(n))])
                });
                let name = self.driver.name();
                self.driver.s.submit_as(&name, |t| {
                    t.priority = *priority;
                    t.timeout_ms = Some(3_000);
                    t.queue_timeout_ms = limits.queue_ms;
                    t.progress_timeout_ms = limits.progress_ms;
                    t.depends_on = edges.unwrap_or_default();
                    if *capable {
                        t.required_capabilities = vec!["x".into()];
                    }
                });
            }
            Op::Graph {
                size,
                complete,
                links,
            } => self.graph(*size, *complete, links),
            Op::Update(agent, slots, waiting, able) => {
                let capabilities: &[&str] = if *able { &["x"] } else { &[] };
                self.driver.on_agent(*agent, |s, name| {
                    s.update(name, *slots, *waiting, capabilities)
                });
            }
            Op::Retry(index) => self.driver.command(CommandVerb::Retry, index),
            Op::Discard(index) => self.driver.command(CommandVerb::Discard, index),
            Op::CancelGraph(index) => {
                if !self.graphs.is_empty() {
                    let graph = index.get(&self.graphs).clone();
                    self.driver.s.command(CommandVerb::CancelGraph, &graph);
                }
            }
            Op::Progress(index) => self.driver.on_assigned(index, |s, t| s.progress(t)),
            Op::Configure(settings) => self.driver.s.configure(configured(*settings)),
            Op::Repeat(index) => {
                // A message that was stored twice: whatever it is, it must not count twice.
                let stored = index.get(&self.driver.s.world.log).clone();
                if !stored.subject.starts_with("swarm.ctl") {
                    self.driver.s.world.store(&stored.subject, stored.payload);
                }
            }
            Op::Also(act) => self.driver.apply(act),
        }
    }

    /// The faults are over: agents are there and work.
    fn heal(&mut self) {
        for agent in AGENTS {
            self.driver.s.join_as(agent, SLOTS, WAITING, &["x"]);
        }
        self.driver.rest(2_000, |driver| {
            check(&driver.s);
            driver.assigned_are_known();
        });
    }

    fn graph(&mut self, size: u32, complete: bool, links: &[(Index, Index, u8)]) {
        let graph = format!("g{}", self.driver.names.len());
        self.graphs.push(graph.clone());
        let names: Vec<String> = (0..size).map(|_| self.driver.name()).collect();
        let mut edges: BTreeMap<usize, BTreeMap<usize, u8>> = BTreeMap::new();
        for (from, to, n) in links {
            let (from, to) = (from.index(names.len()), to.index(names.len()));
            if from != to {
                edges.entry(from).or_default().insert(to, *n);
            }
        }
        for (n, name) in names.iter().enumerate().rev() {
            if !complete && n == 0 {
                continue;
            }
            let edges: Vec<(&str, DependencyType)> = edges
                .get(&n)
                .into_iter()
                .flatten()
                .map(|(to, k)| (names[*to].as_str(), kind(*k)))
                .collect();
            self.driver.s.part(&graph, n as u32, size, name, &edges);
        }
    }
}

/// What must hold whatever has happened.
fn check(s: &Scene) {
    for agent in s.world.state.agents(s.place) {
        let held = agent.running.len() + agent.waiting.len();
        assert!(held <= (SLOTS + WAITING) as usize, "{agent:?}");
        assert!(agent.slots <= SLOTS && agent.waiting_limit <= WAITING);
        let barred = agent.barred_until.is_some();
        assert!(!agent.half_open || (!barred && !agent.draining && agent.quarantine.is_empty()));
        assert!(agent.stuck as usize <= agent.running.len());
        assert_eq!(agent.stuck > 0, agent.stuck_since.is_some());
        assert_eq!(agent.waiting.is_empty(), agent.waiting_since.is_none());
        let both: BTreeSet<TaskId> = agent
            .running
            .iter()
            .chain(&agent.waiting)
            .copied()
            .collect();
        assert_eq!(both.len(), held, "a task is held once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_accepted_task_ends_exactly_once(ops in prop::collection::vec(op(), 1..120)) {
        let driver = Driver::new(Scene::with(|c| c.queue_limit = 25), &AGENTS);
        let mut worlds = Worlds { driver, graphs: Vec::new() };
        for agent in AGENTS {
            worlds.driver.s.join_as(agent, SLOTS, WAITING, &["x"]);
        }
        for op in &ops {
            worlds.apply(op);
            worlds.driver.look();
            check(&worlds.driver.s);
        }
        worlds.driver.s.folds_agree();
        worlds.heal();
        worlds.verify();
        worlds.driver.s.folds_agree();
        worlds.trace();
        worlds.nothing_for_those_that_rest();
    }
}

/// Owner, stranger, and one that goes on from a snapshot in the middle have the same bytes.
#[test]
fn a_snapshot_and_the_tail_are_the_whole_log() {
    let mut s = Scene::new();
    s.join_as("A", 3, 1, &[]);
    for n in 0..30 {
        s.submit(&format!("t{n}"));
        s.world.settle();
        if n % 3 == 0 {
            s.start("t0");
            s.complete("t0");
        }
    }
    let inputs: Vec<Input> = s.world.inputs().collect();
    for cut in 0..inputs.len() {
        let mut state = swarm_distributor_core::Distributor::new(s.place.partition);
        for input in &inputs[..cut] {
            state.evolve(input, None);
        }
        let bytes = postcard::to_stdvec(&state).expect("encodes");
        let mut back: swarm_distributor_core::Distributor =
            postcard::from_bytes(&bytes).expect("decodes");
        for input in &inputs[cut..] {
            back.evolve(input, None);
        }
        assert!(back == s.world.state, "differs after a snapshot at {cut}");
    }
}
