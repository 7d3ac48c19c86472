//! `./dev bench core`: the pure distributor core, without a log, a network or JSON.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::time::{ClockId, clock_gettime};
use swarm_distributor_core::Distributor;
use swarm_events::{
    AgentId, Body, Event, EventId, Input, Json, OrgId, Place, Recorded, Service, Subject, SwarmId,
    Timestamp,
    agent::{Joined, Profile},
    configuration::{Configuration, QUEUE_LIMIT_MAX},
    control::Claimed,
    decider::{Decider, Decision, Verdict},
    envelope::{Decided, Source},
    ids::InstanceId,
    subject::{AgentVerb, ControlVerb, SwarmVerb, TaskVerb},
    swarm::Created,
    task::{Carried, Completed, Started, Submitted},
};
use uuid::Uuid;

use crate::machine;

/// Decisions per second that are aimed at.
const TARGET_RATE: f64 = 300_000.0;
/// Bytes of state and plan that a queued task may take.
const TARGET_TASK_BYTES: u64 = 1_536;
/// Size of a task's payload.
const PAYLOAD_BYTES: usize = 300;
/// Log time between two inputs, in microseconds: 100,000 inputs a second.
const STEP_MICROS: i64 = 10;
/// As the deciding loop has it.
const DECISIONS_PER_TURN: usize = 256;

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Agents
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    agents: u32,
    /// Tasks that an agent runs at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    slots: u32,
    /// Tasks that are run through
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    tasks: u64,
    /// Tasks that wait in the queue all the time
    #[arg(long, default_value_t = 1_000)]
    backlog: u64,
    /// Queued tasks of the memory measurement
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=QUEUE_LIMIT_MAX))]
    queued: u64,
}

/// Measures and prints.
///
/// # Errors
/// The core does not do what it must, so that the figures would mean nothing.
pub fn run(options: &Options) -> anyhow::Result<()> {
    println!("machine     {}", machine::describe());
    println!(
        "swarm       {} at {}",
        env!("CARGO_PKG_VERSION"),
        machine::commit()
    );
    memory(options)?;
    rate(options)
}

/// A partition's state with so many queued tasks.
///
/// # Errors
/// The core does not queue them.
pub fn queued(tasks: u64) -> anyhow::Result<Distributor> {
    let mut bench = Bench::new(&Options {
        agents: 1,
        slots: 1,
        tasks: 1,
        backlog: 0,
        queued: tasks,
    });
    for n in 1..=tasks {
        bench.submit();
        if n % 1_000 == 0 || n == tasks {
            bench.flush();
        }
    }
    ensure!(bench.state.backlog() == tasks, "tasks are missing");
    Ok(bench.state)
}

fn memory(options: &Options) -> anyhow::Result<()> {
    let mut bench = Bench::new(options);
    let resident = || machine::resident_bytes(std::process::id());
    let before = resident()?;
    for n in 1..=options.queued {
        bench.submit();
        if n % 1_000 == 0 || n == options.queued {
            bench.flush();
        }
    }
    let bytes = resident()?.saturating_sub(before) / options.queued;
    ensure!(bench.state.backlog() == options.queued, "tasks are missing");
    let claim = Instant::now();
    bench.plan = bench.state.plan();
    let claim = claim.elapsed();
    println!(
        "memory      {bytes} bytes of state and plan for each of {} queued tasks of {PAYLOAD_BYTES} bytes ({})",
        options.queued,
        target(bytes <= TARGET_TASK_BYTES, "at most 1,536"),
    );
    println!(
        "            queued at {:.0} tasks/s; a claim makes the plan anew in {:.0} ms",
        per_second(options.queued, bench.spent),
        claim.as_secs_f64() * 1_000.0
    );
    Ok(())
}

fn rate(options: &Options) -> anyhow::Result<()> {
    let mut bench = Bench::new(options);
    for _ in 0..options.backlog {
        bench.submit();
    }
    for n in 0..options.agents {
        bench.join(n, options.slots);
    }
    bench.flush();
    bench.reset();
    let mut left = options.tasks;
    while bench.completed < options.tasks {
        let turn = left.min(u64::from(options.agents * options.slots));
        left -= turn;
        for _ in 0..turn {
            bench.submit();
        }
        bench.flush();
        bench.deliver();
        bench.run_all();
        ensure!(bench.met > 0, "it stands still");
    }
    let decided = bench.assigned + bench.measured;
    let rate = per_second(decided, bench.spent);
    println!(
        "decisions   {rate:.0} for each second of one core: {} assignments to {} agents and {} figures in {:.2} s, \
         {:.0} inputs/s ({})",
        bench.assigned,
        options.agents,
        bench.measured,
        bench.spent.as_secs_f64(),
        per_second(bench.met, bench.spent),
        target(rate >= TARGET_RATE, "300,000/s"),
    );
    println!(
        "            by the clock on the wall {:.0}/s",
        per_second(decided, bench.passed)
    );
    ensure!(bench.voids == 0, "{} events were void", bench.voids);
    Ok(())
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn target(met: bool, what: &str) -> String {
    format!(
        "{}: {what}",
        if met { "target met" } else { "TARGET MISSED" }
    )
}

/// One swarm, its owner, and clocks that run only while the core does.
struct Bench {
    state: Distributor,
    plan: <Distributor as Decider>::Plan,
    place: Place,
    sequence: u64,
    time: Timestamp,
    ids: u64,
    epoch: u64,
    ordinal: u64,
    payload: String,
    out: Vec<Decision>,
    /// Assignments that stand and were not worked on.
    standing: Vec<(AgentId, u64, Uuid)>,
    /// Inputs that are made and not met yet.
    inputs: Vec<Input>,
    /// Processor time.
    spent: Duration,
    /// Time on the wall.
    passed: Duration,
    met: u64,
    voids: u64,
    assigned: u64,
    measured: u64,
    completed: u64,
}

impl Bench {
    fn new(options: &Options) -> Self {
        let place = Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)));
        let state = Distributor::new(place.partition);
        let mut bench = Self {
            plan: state.plan(),
            state,
            place,
            sequence: 0,
            time: Timestamp::from_micros(1_780_000_000_000_000),
            ids: 0,
            epoch: 0,
            ordinal: 0,
            payload: format!(r#"{{"text": "{}"}}"#, "x".repeat(PAYLOAD_BYTES - 12)),
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
        let claimed = Claimed {
            instance: InstanceId(Uuid::from_u128(3)),
            decider_version: 1,
            previous: 0,
            reason: "start".to_owned(),
            rejects: Vec::new(),
        };
        for service in [Service::Coordinator, Service::Distributor] {
            let subject = Subject::Control(service, place.partition, ControlVerb::Claimed);
            bench.meet(subject, Uuid::nil(), claimed.clone().into(), None);
        }
        bench.flush();
        bench.epoch = bench.sequence;
        bench.plan = bench.state.plan();
        let configuration = Configuration {
            queue_limit: QUEUE_LIMIT_MAX,
            max_agents: options.agents,
            ..Configuration::default()
        };
        let created = Created {
            name: "bench".to_owned(),
            description: None,
            topology: Default::default(),
            configuration,
            partition: place.partition.number(),
            created_by: None,
        };
        let subject = Subject::Swarm(place, SwarmVerb::Created);
        bench.by_coordinator(subject, place.swarm.0, created.into());
        bench
    }

    fn reset(&mut self) {
        (self.spent, self.passed) = (Duration::ZERO, Duration::ZERO);
        (self.met, self.assigned, self.measured) = (0, 0, 0);
    }

    fn by_coordinator(&mut self, subject: Subject, about: Uuid, body: Body) {
        self.flush();
        let epoch = self.state.head().epoch(Service::Coordinator);
        self.meet(subject, about, body, Some((epoch.epoch, epoch.ordinal + 1)));
    }

    /// Ids as clients make them: in the order of time.
    fn id(&mut self) -> Uuid {
        self.ids += 1;
        let mut random = [0u8; 10];
        random[2..].copy_from_slice(&self.ids.to_be_bytes());
        let millis = u64::try_from(self.time.as_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    fn join(&mut self, n: u32, slots: u32) {
        let agent = AgentId(Uuid::from_u128(1_000 + u128::from(n)));
        let joined = Joined {
            incarnation: 1,
            instance: InstanceId(Uuid::from_u128(4)),
            profile: Profile {
                agent_type: "bench".to_owned(),
                agent_name: format!("bench-{n}"),
                capabilities: Vec::new(),
                slots,
                waiting: 0,
                metadata: Json::object(),
            },
        };
        let subject = Subject::Agent(self.place, AgentVerb::Joined, agent);
        self.by_coordinator(subject, agent.0, joined.into());
    }

    fn submit(&mut self) {
        let task = Submitted {
            task_type: "bench".to_owned(),
            payload: Json::parse(&self.payload).unwrap_or_default(),
            priority: 1 + (self.ids % 10) as u8,
            required_capabilities: Vec::new(),
            max_attempts: None,
            timeout_ms: None,
            queue_timeout_ms: None,
            progress_timeout_ms: None,
            parent_task_id: None,
            affinity_key: None,
            depends_on: Vec::new(),
            key: None,
            graph: None,
            body_sha256: None,
        };
        let id = self.id();
        let subject = Subject::Task(self.place, TaskVerb::Submitted, None);
        self.meet(subject, id, task.into(), None);
    }

    /// Stores all decisions, until nothing new comes.
    fn deliver(&mut self) {
        while !self.out.is_empty() {
            for decision in std::mem::take(&mut self.out) {
                self.ordinal += 1;
                let decided = Some((self.epoch, self.ordinal));
                let (subject, about) = (decision.subject, decision.about);
                match &decision.body {
                    Body::TaskAssigned(_) => self.assigned += 1,
                    Body::SwarmMeasured(_) => self.measured += 1,
                    _ => {}
                }
                if let (Body::TaskAssigned(_), Some(agent)) = (&decision.body, subject.agent()) {
                    self.standing.push((agent, self.sequence + 1, about));
                }
                self.meet(subject, about, decision.body, decided);
            }
            self.flush();
        }
    }

    /// All agents start and complete what they have.
    fn run_all(&mut self) {
        for (agent, assignment, task) in std::mem::take(&mut self.standing) {
            let started = Started {
                assignment,
                incarnation: 1,
            };
            let subject = Subject::Task(self.place, TaskVerb::Started, Some(agent));
            self.meet(subject, task, started.into(), None);
            let completed = Completed {
                assignment,
                incarnation: 1,
                result: Carried::Inline(Json::object()),
            };
            let subject = Subject::Task(self.place, TaskVerb::Completed, Some(agent));
            self.meet(subject, task, completed.into(), None);
            self.completed += 1;
        }
        self.flush();
    }

    /// Makes an input.
    fn meet(&mut self, subject: Subject, about: Uuid, body: Body, decided: Option<(u64, u64)>) {
        self.sequence += 1;
        self.time = Timestamp::from_micros(self.time.as_micros() + STEP_MICROS);
        let decided = decided.map(|(epoch, ordinal)| Decided {
            cause_sequence: self.sequence - 1,
            epoch,
            ordinal,
            decider_version: 1,
        });
        let event = Event {
            decided,
            ..Event::new(
                EventId(Uuid::from_u128(u128::from(self.sequence))),
                Source::Client(String::new()),
                self.time,
                &subject,
                about,
                body,
            )
        };
        self.inputs.push(Input::Event(Recorded {
            sequence: self.sequence,
            time: self.time,
            subject,
            content: u128::from(self.sequence),
            event,
        }));
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

/// What this thread has used of a core so far: other processes on the machine do not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
