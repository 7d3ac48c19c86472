//! One swarm, its owner, and clocks that run only while the core does.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::time::{ClockId, clock_gettime};
use swarm_distributor_core::Distributor;
use swarm_events::{
    AgentId, Body, Input, Json, Service, Subject, Timestamp,
    configuration::{AGENTS_MAX, Algorithm, Configuration, QUEUE_LIMIT_MAX},
    decider::{Decider, Decision, Verdict},
    subject::TaskVerb,
    task::{Carried, Completed, Started},
};
use uuid::Uuid;

use super::PAYLOAD_BYTES;
use crate::feed::{self, BEGINNING, Feed};

/// Log time between two inputs, in microseconds: 100,000 inputs a second.
const STEP_MICROS: i64 = 10;
/// As the deciding loop has it.
const DECISIONS_PER_TURN: usize = 256;
/// Submissions that are met together: bounds what is made and not met yet.
const SUBMIT_TOGETHER: u64 = 1_000;
/// Different words that many agents have, each two of them.
const COMMON_WORDS: u64 = 40;
/// One task of so many needs a word that few agents have.
const RARE_NEED: u64 = 16;

/// What agents and tasks are like.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub algorithm: Algorithm,
    pub agents: u32,
    pub slots: u32,
    /// Different sets of capabilities of the agents; 0: they have none, and tasks need none.
    pub sets: u32,
    /// Different affinity keys of the tasks; 0: they have none.
    pub keys: u64,
}

pub struct Bench {
    pub state: Distributor,
    pub plan: <Distributor as Decider>::Plan,
    setup: Setup,
    feed: Feed,
    time: Timestamp,
    payload: Json,
    out: Vec<Decision>,
    /// Assignments that stand and were not worked on.
    standing: Vec<(AgentId, u64, Uuid)>,
    /// Inputs that are made and not met yet.
    inputs: Vec<Input>,
    /// Processor time.
    pub spent: Duration,
    /// Time on the wall.
    pub passed: Duration,
    pub met: u64,
    pub voids: u64,
    pub assigned: u64,
    pub measured: u64,
    pub completed: u64,
}

impl Bench {
    /// The swarm and its agents.
    ///
    /// # Errors
    /// The core does not take them.
    pub fn new(setup: Setup) -> anyhow::Result<Self> {
        let feed = Feed::new();
        let state = Distributor::new(feed.place.partition);
        let text = "x".repeat(PAYLOAD_BYTES - r#"{"text": ""}"#.len());
        let mut bench = Self {
            plan: state.plan(),
            state,
            setup,
            feed,
            time: BEGINNING,
            payload: Json::parse(&format!(r#"{{"text": "{text}"}}"#))?,
            out: Vec::new(),
            standing: Vec::new(),
            inputs: Vec::new(),
            spent: Duration::ZERO,
            passed: Duration::ZERO,
            met: 0,
            voids: 0,
            assigned: 0,
            measured: 0,
            completed: 0,
        };
        let now = bench.tick();
        bench.inputs = bench.feed.claims(now);
        bench.flush();
        bench.plan = bench.state.plan();
        let created = bench.feed.created(now, configuration(setup.algorithm));
        bench.inputs.push(created);
        for number in 0..setup.agents {
            let now = bench.tick();
            let words = words_of(number, setup.sets);
            let joined = bench.feed.joined(now, number, words, setup.slots, 0);
            bench.inputs.push(joined);
        }
        bench.flush();
        ensure!(bench.voids == 0, "the pool was not taken");
        bench.reset();
        Ok(bench)
    }

    /// The counters begin at zero.
    pub fn reset(&mut self) {
        (self.spent, self.passed) = (Duration::ZERO, Duration::ZERO);
        (self.met, self.assigned, self.measured, self.completed) = (0, 0, 0, 0);
    }

    fn tick(&mut self) -> Timestamp {
        self.time = Timestamp::from_micros(self.time.as_micros() + STEP_MICROS);
        self.time
    }

    /// Changes the algorithm, live.
    pub fn switch(&mut self, algorithm: Algorithm) {
        let now = self.tick();
        let updated = self.feed.updated(now, configuration(algorithm));
        self.inputs.push(updated);
        self.flush();
    }

    /// Submits so many tasks.
    pub fn submit(&mut self, tasks: u64) {
        for number in 1..=tasks {
            let n = self.feed.ids();
            let mut task = feed::task(self.payload.clone(), 1 + (n % 10) as u8);
            if self.setup.keys > 0 {
                // A step that has no divisor with the number of keys: neighbours have different ones.
                let key = n.wrapping_mul(7_919) % self.setup.keys;
                task.affinity_key = Some(format!("customer-{key:08}"));
            }
            task.required_capabilities = needs_of(n, self.setup.sets);
            let now = self.tick();
            let id = self.feed.id(now);
            let subject = Subject::Task(self.feed.place, TaskVerb::Submitted, None);
            let input = self.feed.fact(now, subject, id, task.into());
            self.inputs.push(input);
            if number % SUBMIT_TOGETHER == 0 || number == tasks {
                self.flush();
            }
        }
    }

    /// Stores all decisions, until nothing new comes.
    pub fn deliver(&mut self) {
        while !self.out.is_empty() {
            self.store_decisions();
            self.flush();
        }
    }

    fn store_decisions(&mut self) {
        for decision in std::mem::take(&mut self.out) {
            let now = self.tick();
            let cause = self.feed.sequence();
            let Decision {
                subject,
                about,
                body,
                ..
            } = decision;
            match (&body, subject.agent()) {
                (Body::TaskAssigned(_), Some(agent)) => {
                    self.assigned += 1;
                    self.standing.push((agent, cause + 1, about));
                }
                (Body::SwarmMeasured(_), _) => self.measured += 1,
                _ => {}
            }
            let service = Service::Distributor;
            let input = self.feed.decided(service, now, cause, subject, about, body);
            self.inputs.push(input);
        }
    }

    /// All agents start and complete what they have.
    pub fn run_all(&mut self) {
        self.results();
        self.flush();
    }

    fn results(&mut self) {
        let incarnation = 1;
        for (agent, assignment, task) in std::mem::take(&mut self.standing) {
            let started = Started {
                assignment,
                incarnation,
            };
            let completed = Completed {
                assignment,
                incarnation,
                result: Carried::Inline(Json::object()),
            };
            let bodies: [(TaskVerb, Body); 2] = [
                (TaskVerb::Started, started.into()),
                (TaskVerb::Completed, completed.into()),
            ];
            for (verb, body) in bodies {
                let now = self.tick();
                let subject = Subject::Task(self.feed.place, verb, Some(agent));
                let input = self.feed.fact(now, subject, task, body);
                self.inputs.push(input);
            }
            self.completed += 1;
        }
    }

    /// As [`Self::run_all`], but nothing is decided meanwhile; then what follows is decided, stored and met at once, and
    /// this alone is timed. Answers with that time and the number of assignments.
    pub fn assign_together(&mut self) -> (Duration, u64) {
        self.results();
        for input in std::mem::take(&mut self.inputs) {
            let verdict = self.state.evolve(&input, Some(&mut self.plan));
            self.voids += u64::from(matches!(verdict, Verdict::Void(_)));
        }
        let before = self.assigned;
        let began = processor_time();
        self.state.decide(&mut self.plan, usize::MAX, &mut self.out);
        let decided = processor_time();
        self.store_decisions();
        let (spent, passed) = (self.spent, self.passed);
        self.flush();
        let met = self.spent - spent;
        (self.spent, self.passed) = (spent, passed);
        (decided.saturating_sub(began) + met, self.assigned - before)
    }

    /// The owner meets what was made, and decides after each, as the deciding loop does it. Only this is timed.
    fn flush(&mut self) {
        let (began, wall) = (processor_time(), Instant::now());
        for input in &self.inputs {
            let verdict = self.state.evolve(input, Some(&mut self.plan));
            self.state
                .decide(&mut self.plan, DECISIONS_PER_TURN, &mut self.out);
            self.voids += u64::from(matches!(verdict, Verdict::Void(_)));
        }
        self.spent += processor_time().saturating_sub(began);
        self.passed += wall.elapsed();
        self.met += self.inputs.len() as u64;
        self.inputs.clear();
    }
}

fn configuration(algorithm: Algorithm) -> Configuration {
    Configuration {
        distribution_algorithm: algorithm,
        queue_limit: QUEUE_LIMIT_MAX,
        max_agents: AGENTS_MAX,
        max_workers: AGENTS_MAX,
        ..Configuration::default()
    }
}

/// What an agent can do: two words that many have, and one that makes its set one of `sets`.
fn words_of(agent: u32, sets: u32) -> Vec<String> {
    let n = u64::from(agent);
    let Some(set) = n.checked_rem(u64::from(sets)) else {
        return Vec::new();
    };
    // By the set alone, so that there are just as many different ones.
    let mut words = vec![
        format!("can-{}", set % COMMON_WORDS),
        format!("can-{}", set / COMMON_WORDS % COMMON_WORDS),
        format!("host-{set}"),
    ];
    words.sort();
    words.dedup();
    words
}

/// What a task needs: a quarter of them nothing, a few a word that one set has, the others a word that many have.
fn needs_of(task: u64, sets: u32) -> Vec<String> {
    let sets = u64::from(sets);
    if sets == 0 || task.is_multiple_of(4) {
        return Vec::new();
    }
    if task % RARE_NEED == 1 {
        return vec![format!("host-{}", task.wrapping_mul(7_919) % sets)];
    }
    vec![format!("can-{}", task % COMMON_WORDS)]
}

/// What this thread has used of a core so far: other processes on the machine do not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_as_many_sets_as_asked_for() {
        for sets in [1, 40, 1_000, 10_000] {
            let all: BTreeSet<Vec<String>> = (0..10_000).map(|n| words_of(n, sets)).collect();
            assert_eq!(all.len(), sets as usize);
        }
        assert!(words_of(7, 0).is_empty());
    }

    #[test]
    fn every_need_is_met_by_somebody() {
        for sets in [100, 1_000] {
            let have: BTreeSet<String> = (0..1_000).flat_map(|n| words_of(n, sets)).collect();
            for need in (0..10_000).flat_map(|n| needs_of(n, sets)) {
                assert!(have.contains(&need), "{need}");
            }
        }
    }

    #[test]
    fn every_task_comes_through_under_every_algorithm() -> anyhow::Result<()> {
        for algorithm in Algorithm::ALL {
            let mut bench = Bench::new(Setup {
                algorithm,
                agents: 40,
                slots: 2,
                sets: 40,
                keys: 7,
            })?;
            bench.submit(200);
            while bench.completed < 200 {
                let before = bench.completed;
                bench.deliver();
                bench.run_all();
                assert!(bench.completed > before, "{algorithm:?}");
            }
            assert_eq!((bench.assigned, bench.voids), (200, 0), "{algorithm:?}");
        }
        Ok(())
    }

    #[test]
    fn what_is_assigned_together_fills_the_pool() -> anyhow::Result<()> {
        let mut bench = Bench::new(Setup {
            algorithm: Algorithm::LeastLoaded,
            agents: 20,
            slots: 1,
            sets: 0,
            keys: 0,
        })?;
        bench.submit(100);
        bench.deliver();
        for _ in 0..3 {
            assert_eq!(bench.assign_together().1, 20);
        }
        assert_eq!((bench.completed, bench.state.backlog()), (60, 20));
        Ok(())
    }
}
