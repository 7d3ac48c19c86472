//! One or two tasks and two agents, the real core, and every order of what may happen to them: starts, results, steals,
//! cancellations, lost agents, takeovers. However it goes, no task runs twice because of a steal, and each ends once.
//!
//! A way is the list of its steps. Ways that lead to the same log with the same decisions in flight are one from there on:
//! the core's state and plan follow from these two. Behind the last step of each, everything runs to its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use swarm_audit::{Checker, Invariant, Violation};
use swarm_distributor_core::{Distributor, STEAL_AFTER_MS};
use swarm_events::{
    AgentId, Body, Event, Input, InstanceId, Json, OrgId, Place, Service, Subject, SwarmId, TaskId,
    agent::{Evidence, Failed, Joined, LivenessRule, Profile},
    command,
    configuration::{Algorithm, Configuration},
    control::Woken,
    decider::Verdict,
    envelope::Source,
    ids::EventId,
    subject::{AgentVerb, CommandVerb, ControlVerb, SwarmVerb, TaskVerb},
    swarm::Created,
    task::{AttemptFailed, Carried, Completed, Started, Submitted, WithdrawReason},
    testing::World,
};
use uuid::Uuid;

/// Steps of a way before everything runs to its end: deciding and storing the withdrawal, deciding and storing the new
/// assignment, and one that crosses them; with two tasks, or another algorithm, one less. `SWARM_INTERLEAVINGS_DEPTH` sets
/// another number: six take two minutes.
const DEPTH: usize = 5;
fn depth() -> usize {
    let set = std::env::var("SWARM_INTERLEAVINGS_DEPTH");
    set.ok().and_then(|n| n.parse().ok()).unwrap_or(DEPTH)
}

/// A longer walk goes at random.
const WALK: usize = 40;
const WALKS: u64 = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The owner makes a decision.
    Decide,
    /// The oldest decision in flight is stored.
    Store,
    /// The agent that a task was given to last starts it.
    Start(usize),
    /// The agent that runs it has a result, or an error.
    Complete(usize),
    FailAttempt(usize),
    /// A person calls it off.
    Cancel(usize),
    /// Health gives an agent up; its process may live on.
    Lose(usize),
    /// Another owner takes over: what is in flight is lost.
    TakeOver,
    /// Time enough for a steal passes.
    Pass,
}

/// An assignment as its agent has it.
#[derive(Clone, Copy, Debug)]
struct Given {
    task: usize,
    agent: AgentId,
    assignment: u64,
    started: bool,
    /// It has a result, or was taken away, and its agent knows of it.
    over: bool,
}

struct Model {
    world: World<Distributor>,
    place: Place,
    checker: Checker,
    /// How much of the log was looked at.
    seen: usize,
    given: Vec<Given>,
    ends: Vec<u32>,
    steals: usize,
    forced: BTreeSet<u64>,
    cancelled: BTreeSet<usize>,
    lost: BTreeSet<usize>,
    passed: u32,
    takeovers: u32,
    others: BTreeMap<&'static str, (u64, u64)>,
    /// How long the log was at each decision in flight.
    flights: VecDeque<usize>,
    /// What the log says, without its times.
    story: String,
    wrong: Option<String>,
}

fn agent(n: usize) -> AgentId {
    AgentId(Uuid::from_u128(0xa0 + n as u128))
}
fn task(n: usize) -> TaskId {
    TaskId(Uuid::from_u128(0x70 + n as u128))
}

impl Model {
    /// The first agent runs something and the tasks wait at it; the second has just come and is idle.
    fn new(tasks: usize, algorithm: Algorithm) -> Self {
        let place = Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)));
        let mut world = World::new(place.partition);
        let others = [Service::Coordinator, Service::Health]
            .map(|service| (service.as_str(), (world.claim_of(service), 0)));
        let mut model = Self {
            world,
            place,
            checker: Checker::default(),
            seen: 0,
            given: Vec::new(),
            ends: vec![0; tasks + 1],
            steals: 0,
            forced: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            lost: BTreeSet::new(),
            passed: 0,
            takeovers: 0,
            others: others.into(),
            flights: VecDeque::new(),
            story: String::new(),
            wrong: None,
        };
        let created = Created {
            name: "s".to_owned(),
            description: None,
            topology: swarm_events::topology::Topology::default(),
            configuration: Configuration {
                distribution_algorithm: algorithm,
                ..Configuration::default()
            },
            partition: place.partition.number(),
            created_by: None,
        };
        let subject = Subject::Swarm(place, SwarmVerb::Created);
        model.decided(Service::Coordinator, subject, place.swarm.0, created);
        model.join(0, tasks as u32);
        // The last one is what the first agent is busy with.
        for n in (0..=tasks).rev() {
            let submitted: Submitted =
                serde_json::from_str(r#"{"task_type": "t"}"#).expect("a minimal task");
            let subject = Subject::Task(place, TaskVerb::Submitted, None);
            model.world.client(subject, task(n).0, submitted);
        }
        model.world.settle();
        model.look();
        model.take(Step::Start(tasks));
        model.join(1, 1);
        model.world.settle();
        // A steal is due, and nobody has decided on it.
        model.world.now = model.world.now.plus_millis(STEAL_AFTER_MS);
        model
            .world
            .control(Service::Distributor, ControlVerb::Woken, Woken {});
        model.look();
        model
    }

    fn decided(&mut self, by: Service, subject: Subject, about: Uuid, body: impl Into<Body>) {
        let (epoch, ordinal) = self.others.get_mut(by.as_str()).expect("claimed");
        *ordinal += 1;
        let (epoch, ordinal) = (*epoch, *ordinal);
        // The world takes what was stored last for the cause of this, and a command has no such answer.
        self.world
            .control(Service::Distributor, ControlVerb::Woken, Woken {});
        self.world.other(by, subject, about, body, epoch, ordinal);
    }
    fn join(&mut self, n: usize, waiting: u32) {
        let joined = Joined {
            incarnation: 1,
            instance: InstanceId(agent(n).0),
            profile: Profile {
                agent_type: "t".to_owned(),
                agent_name: format!("agent {n}"),
                capabilities: Vec::new(),
                slots: 1,
                waiting,
                metadata: Json::object(),
            },
        };
        let subject = Subject::Agent(self.place, AgentVerb::Joined, agent(n));
        self.decided(Service::Coordinator, subject, agent(n).0, joined);
    }

    /// The last assignment of a task that its agent may still do something with.
    fn standing(&self, n: usize, started: bool) -> Option<usize> {
        let last = self.given.iter().rposition(|g| g.task == n)?;
        let given = &self.given[last];
        (!given.over && given.started == started).then_some(last)
    }

    /// What may happen next.
    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Decide];
        if self.world.in_flight() > 0 {
            steps.push(Step::Store);
        }
        for n in 0..self.ends.len() {
            // The check on its last withdrawal keeps out whoever has not seen that.
            if self.standing(n, false).is_some() {
                steps.push(Step::Start(n));
            }
            if self.standing(n, true).is_some() {
                steps.push(Step::Complete(n));
                steps.push(Step::FailAttempt(n));
            }
            if !self.cancelled.contains(&n) && n + 1 < self.ends.len() {
                steps.push(Step::Cancel(n));
            }
        }
        steps.extend((0..2).filter(|n| !self.lost.contains(n)).map(Step::Lose));
        if self.takeovers < 1 {
            steps.push(Step::TakeOver);
        }
        if self.passed < 2 {
            steps.push(Step::Pass);
        }
        steps
    }

    /// Takes a step. False: nothing came of it.
    fn take(&mut self, step: Step) -> bool {
        let mut more = true;
        match step {
            Step::Decide => {
                more = self.world.decide(1) > 0;
                self.flights.extend(more.then_some(self.world.log.len()));
            }
            Step::Store => {
                self.flights.pop_front();
                self.world.deliver();
            }
            Step::Start(n) => {
                let at = self.standing(n, false).expect("it may start");
                let body = Started {
                    assignment: self.given[at].assignment,
                    incarnation: 1,
                };
                self.by_agent(at, TaskVerb::Started, body);
            }
            Step::Complete(n) => {
                let at = self.standing(n, true).expect("it runs");
                let body = Completed {
                    assignment: self.given[at].assignment,
                    incarnation: 1,
                    result: Carried::Inline(Json::object()),
                };
                self.by_agent(at, TaskVerb::Completed, body);
            }
            Step::FailAttempt(n) => {
                let at = self.standing(n, true).expect("it runs");
                let body = AttemptFailed {
                    assignment: self.given[at].assignment,
                    incarnation: 1,
                    error: "no".to_owned(),
                    retryable: true,
                };
                self.by_agent(at, TaskVerb::AttemptFailed, body);
            }
            Step::Cancel(n) => {
                self.cancelled.insert(n);
                let subject = Subject::Command(self.place, CommandVerb::Cancel);
                let body = command::Cancel {
                    task_id: task(n),
                    reason: None,
                };
                self.world.client(subject, task(n).0, body);
            }
            Step::Lose(n) => {
                self.lost.insert(n);
                let failed = Failed {
                    incarnation: 1,
                    evidence: Evidence {
                        rule: LivenessRule::Silence,
                        last_heartbeat_at: None,
                        age_ms: 4_000,
                        limit_ms: 4_000,
                    },
                };
                let subject = Subject::Agent(self.place, AgentVerb::Failed, agent(n));
                self.decided(Service::Health, subject, agent(n).0, failed);
            }
            Step::TakeOver => {
                self.takeovers += 1;
                self.flights.clear();
                self.world.claim();
            }
            Step::Pass => {
                self.passed += 1;
                self.world.now = self.world.now.plus_millis(STEAL_AFTER_MS);
                self.world
                    .control(Service::Distributor, ControlVerb::Woken, Woken {});
            }
        }
        self.look();
        more
    }

    fn by_agent(&mut self, at: usize, verb: TaskVerb, body: impl Into<Body>) {
        let given = self.given[at];
        let subject = Subject::Task(self.place, verb, Some(given.agent));
        let (id, source) = (EventId(self.world.id()), Source::Agent(given.agent));
        let about = task(given.task).0;
        let event = Event::new(id, source, self.world.now, &subject, about, body);
        self.world.event(&subject, &event);
    }

    /// Takes note of what was stored: the agents hear of it, and what must hold is held against it.
    fn look(&mut self) {
        while self.seen < self.world.log.len() {
            let input = self.world.log[self.seen].input();
            let valid = self.world.verdicts[self.seen] == Verdict::Applied;
            self.seen += 1;
            self.checker.meet(&input);
            if let Input::Event(recorded) = &input {
                self.story += &format!(
                    "{} {} {:?} {valid};",
                    recorded.event.body.type_name(),
                    recorded.event.about,
                    recorded.subject.agent()
                );
                let n = (0..self.ends.len()).find(|n| task(*n).0 == recorded.event.about);
                if let Some(n) = n {
                    self.met(n, recorded, valid);
                }
            }
        }
        self.wrong = self.wrong.take().or(broken(&self.checker));
    }

    fn met(&mut self, n: usize, recorded: &swarm_events::Recorded, valid: bool) {
        let named =
            |given: &[Given], assignment| given.iter().position(|g| g.assignment == assignment);
        match &recorded.event.body {
            Body::TaskAssigned(_) if valid => self.given.push(Given {
                task: n,
                agent: recorded.subject.agent().expect("an agent"),
                assignment: recorded.sequence,
                started: false,
                over: false,
            }),
            Body::TaskStarted(e) => {
                let at = named(&self.given, e.assignment).expect("assigned");
                self.given[at].started = true;
                // Another run of the task that was not killed by force goes on.
                let twice = self.given[..at].iter().any(|g| {
                    g.task == n && g.started && !g.over && !self.forced.contains(&g.assignment)
                });
                if valid && twice {
                    self.wrong = Some(format!("task {n} runs twice from {}", recorded.sequence));
                }
            }
            Body::TaskWithdrawn(e) => {
                let at = named(&self.given, e.assignment).expect("assigned");
                if !valid {
                    return;
                }
                if e.reason == WithdrawReason::Steal {
                    self.steals += 1;
                    if e.force || self.given[at].started {
                        self.wrong = Some(format!(
                            "the steal at {} takes away what runs",
                            recorded.sequence
                        ));
                    }
                }
                self.given[at].over = true;
                if e.force {
                    self.forced.insert(e.assignment);
                }
            }
            Body::TaskCompleted(e) => {
                let at = named(&self.given, e.assignment).expect("assigned");
                self.given[at].over = true;
                self.ends[n] += u32::from(valid);
            }
            Body::TaskAttemptFailed(e) => {
                let at = named(&self.given, e.assignment).expect("assigned");
                self.given[at].over = true;
            }
            Body::TaskFailed(_) | Body::TaskCancelled(_) | Body::TaskRejected(_) => {
                self.ends[n] += u32::from(valid);
            }
            _ => {}
        }
    }

    /// What the state and the plan follow from: the log without its times, and when what is in flight was decided.
    fn key(&self) -> String {
        format!("{}{:?}", self.story, self.flights)
    }

    /// Whoever is left does what there is to do; an agent is there for it at last.
    fn finish(&mut self) {
        if self.lost.len() == 2 {
            let joined = |incarnation| Joined {
                incarnation,
                instance: InstanceId(Uuid::from_u128(9)),
                profile: Profile {
                    agent_type: "t".to_owned(),
                    agent_name: "another".to_owned(),
                    capabilities: Vec::new(),
                    slots: 1,
                    waiting: 0,
                    metadata: Json::object(),
                },
            };
            let subject = Subject::Agent(self.place, AgentVerb::Joined, agent(2));
            self.decided(Service::Coordinator, subject, agent(2).0, joined(1));
        }
        for _ in 0..200 {
            self.world.settle();
            self.look();
            let ended = (0..self.ends.len()).all(|n| self.ends[n] > 0);
            if ended || self.wrong.is_some() {
                break;
            }
            let next = (0..self.ends.len()).find_map(|n| {
                let run = self.standing(n, true).map(|_| Step::Complete(n));
                run.or_else(|| self.standing(n, false).map(|_| Step::Start(n)))
            });
            match next {
                Some(step) => {
                    self.take(step);
                }
                // A retry's delay, or a limit.
                None => self.world.later(1_000),
            }
        }
        self.world.settle();
        self.look();
        self.checker.finish(self.world.state.head().sequence);
        self.wrong = self.wrong.take().or(broken(&self.checker));
        if self.wrong.is_none() && self.ends.iter().any(|ends| *ends != 1) {
            self.wrong = Some(format!("ends: {:?}", self.ends));
        }
    }
}

/// A broken promise. The other services of this world are not one instance each: that is left out.
fn broken(checker: &Checker) -> Option<String> {
    let mut violations = checker.violations.iter();
    let found = violations.find(|v| v.invariant != Invariant::OneOwnerPerEpoch);
    found.map(Violation::to_string)
}

fn walked(tasks: usize, algorithm: Algorithm, way: &[Step]) -> (Model, bool) {
    let mut model = Model::new(tasks, algorithm);
    let mut more = true;
    for step in way {
        more = model.take(*step);
    }
    (model, more)
}

struct Explored {
    states: usize,
    steals: usize,
}

/// Goes every way of at most so many steps.
fn explore(tasks: usize, algorithm: Algorithm, depth: usize) -> Explored {
    // How many steps were left at best where it was seen.
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut ways = vec![Vec::new()];
    let mut explored = Explored {
        states: 0,
        steals: 0,
    };
    while let Some(way) = ways.pop() {
        let (mut model, more) = walked(tasks, algorithm, &way);
        let left = depth - way.len();
        let best = seen.get(&model.key()).copied();
        if !more || best.is_some_and(|best| best >= left) {
            continue;
        }
        seen.insert(model.key(), left);
        explored.states += usize::from(best.is_none());
        if left > 0 {
            for step in model.steps() {
                let mut next = way.clone();
                next.push(step);
                ways.push(next);
            }
        }
        if best.is_none() {
            model.finish();
            explored.steals += usize::from(model.steals > 0);
            assert_eq!(model.wrong, None, "{algorithm:?}, {tasks} tasks: {way:?}");
        }
    }
    explored
}

#[test]
fn one_task_and_two_agents_in_every_order() {
    let explored = explore(1, Algorithm::LeastLoaded, depth());
    println!(
        "{} states, {} with a steal",
        explored.states, explored.steals
    );
    assert!(explored.states > 300 && explored.steals > 50);
}

#[test]
fn two_tasks_and_two_agents_in_every_order() {
    let explored = explore(2, Algorithm::LeastLoaded, depth() - 1);
    println!(
        "{} states, {} with a steal",
        explored.states, explored.steals
    );
    assert!(explored.states > 300 && explored.steals > 50);
}

/// The other algorithms choose other agents; the referee is the same.
#[test]
fn every_algorithm_in_every_order_of_fewer_steps() {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::CapabilityMatch,
        Algorithm::Affinity,
    ] {
        let explored = explore(1, algorithm, depth() - 1);
        assert!(explored.steals > 10, "{algorithm:?}");
    }
}

#[test]
fn long_ways_at_random() {
    let mut steals = 0;
    for seed in 0..WALKS {
        let mut rng = StdRng::seed_from_u64(seed);
        let algorithms = [
            Algorithm::LeastLoaded,
            Algorithm::RoundRobin,
            Algorithm::Affinity,
        ];
        let algorithm = algorithms[rng.random_range(0..algorithms.len())];
        let mut model = Model::new(2, algorithm);
        let mut way = Vec::new();
        for _ in 0..WALK {
            let steps = model.steps();
            let Some(step) = steps.choose(&mut rng) else {
                break;
            };
            let rare = matches!(step, Step::Lose(_) | Step::TakeOver | Step::Cancel(_));
            if rare && rng.random_ratio(4, 5) {
                continue;
            }
            way.push(*step);
            model.take(*step);
        }
        model.finish();
        steals += model.steals;
        assert_eq!(model.wrong, None, "seed {seed}, {algorithm:?}: {way:?}");
    }
    assert!(steals > 20, "{steals}");
}
