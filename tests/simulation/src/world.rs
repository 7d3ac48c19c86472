//! The world: time, who acts next, what goes wrong, and what must hold.

mod faults;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use swarm_audit::{Checker, Invariant, Violation};
use swarm_coordinator_core::Coordinator;
use swarm_distributor_core::Distributor;
use swarm_events::{
    Input, InstanceId, OrgId, Partition, Place, SwarmId, Timestamp, decider::Decider, read,
    subject::filter,
};
use swarm_health_core::Health;
use swarm_log::{
    Log, StoredMessage,
    simulated::{FaultRates, Faults, SimulatedLog, SimulatedSettings},
};
use swarm_runtime::deciding::state_hash;
use uuid::{Builder, Uuid};

use crate::{
    agent::ModelAgent,
    client::Client,
    replica::{Around, Hydrates, Replica},
};

/// How long and how hard a run is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Steps with faults.
    pub steps: u64,
    /// Steps of healing after which what is open counts as stuck.
    pub healing_max: u64,
    /// Replicas of each service.
    pub replicas: u64,
    /// Agents.
    pub agents: u64,
}
impl Default for Options {
    fn default() -> Self {
        Self {
            steps: 3_000,
            healing_max: 60_000,
            replicas: 2,
            agents: 4,
        }
    }
}

/// What a run covered. All of it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Steps taken, healing included.
    pub steps: u64,
    /// Virtual time in microseconds.
    pub micros: u64,
    /// Messages in the log.
    pub messages: u64,
    /// Tasks accepted.
    pub accepted: u64,
    /// Faults injected, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Messages by what stands behind the place in their subject.
    pub kinds: BTreeMap<String, u64>,
    /// Hash of the log's subjects and payload sizes: the same seed gives the same run.
    pub fingerprint: u64,
}
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} steps, {:.1} s, {} messages, {} tasks, faults {:?}, {:?}",
            self.seed,
            self.steps,
            Duration::from_micros(self.micros).as_secs_f32(),
            self.messages,
            self.accepted,
            self.faults,
            self.kinds
        )
    }
}

/// A broken promise, and the run so far.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub violation: Violation,
    /// The run.
    pub report: Report,
}

/// Virtual time, shared by everything that runs.
#[derive(Clone, Debug)]
pub struct Clock {
    micros: Arc<AtomicU64>,
    base: i64,
}
impl Clock {
    pub fn micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed)
    }
    pub fn monotonic(&self) -> Duration {
        Duration::from_micros(self.micros())
    }
    pub fn log_time(&self) -> i64 {
        self.base + self.micros() as i64
    }
    fn advance(&self, micros: u64) {
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// A UUIDv7 of the virtual time.
pub fn new_id(clock: &Clock, rng: &mut StdRng) -> Uuid {
    let millis = u64::try_from(clock.log_time() / 1_000).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &rng.random()).into_uuid()
}

/// How much goes wrong around agents.
#[derive(Clone, Copy, Debug)]
pub struct Faultiness {
    /// Live hints lost, in thousandths.
    pub lost_hints: u32,
    /// Attempts that fail, in thousandths.
    pub failing: u32,
    /// Attempts that outlive their time limit, in thousandths.
    pub slow: u32,
    /// Longest delay of a message, in microseconds.
    pub delay_max: u64,
}
impl Faultiness {
    pub fn delay(self, rng: &mut StdRng) -> u64 {
        if rng.random_ratio(1, 20) {
            rng.random_range(0..=self.delay_max)
        } else {
            rng.random_range(100..2_000)
        }
    }
}
const FAULTY: Faultiness = Faultiness {
    lost_hints: 50,
    failing: 120,
    slow: 20,
    delay_max: 400_000,
};
const CALM: Faultiness = Faultiness {
    lost_hints: 0,
    failing: 0,
    slow: 0,
    delay_max: 5_000,
};
const RATES: FaultRates = FaultRates {
    lost_ack: 15,
    lost_message: 15,
    ghost: 15,
    busy: 0,
    full: 2,
};

struct Group<D: Decider> {
    replicas: Vec<Replica<D>>,
    cold: D,
    filters: Vec<String>,
    /// Hash of the cold fold at each sequence that it met.
    hashes: BTreeMap<u64, [u8; 32]>,
    born: u64,
}

impl<D: Decider + Hydrates> Group<D> {
    fn new(partition: Partition) -> Self {
        let filters = filter::inputs(D::SERVICE, Some(partition));
        Self {
            replicas: Vec::new(),
            cold: D::new(partition),
            filters,
            hashes: BTreeMap::new(),
            born: 0,
        }
    }
    fn spawn(&mut self, log: &SimulatedLog, partition: Partition, clock: &Clock, rng: &mut StdRng) {
        self.born += 1;
        let name = format!("{}-{}", D::SERVICE, self.born);
        let instance = InstanceId(new_id(clock, rng));
        self.replicas.push(Replica::new(
            name.clone(),
            instance,
            log.handle(&name),
            partition,
        ));
    }
    fn meet(&mut self, message: &StoredMessage, input: &Input) {
        if self
            .filters
            .iter()
            .any(|f| swarm_log::filter::matches(f, &message.subject))
        {
            self.cold.evolve(input, None);
            self.hashes
                .insert(message.sequence, state_hash(&self.cold).unwrap_or_default());
        }
    }
    fn agree(&self, number: usize) -> Option<Violation> {
        let replica = &self.replicas[number];
        let sequence = replica.sequence();
        let cold = self.hashes.get(&sequence)?;
        (replica.hash() != *cold).then(|| Violation {
            invariant: Invariant::FoldsAgree,
            sequence,
            detail: format!("{} differs from the cold fold", replica.name),
        })
    }
}

struct World {
    seed: u64,
    rng: StdRng,
    clock: Clock,
    log: SimulatedLog,
    reader: SimulatedLog,
    place: Place,
    messages: Vec<StoredMessage>,
    coordinators: Group<Coordinator>,
    distributors: Group<Distributor>,
    healths: Group<Health>,
    agents: Vec<ModelAgent>,
    client: Client,
    checker: Checker,
    faulty: bool,
    faults: BTreeMap<&'static str, u64>,
    steps: Rc<Cell<u64>>,
}

/// Ids whose swarm and organization fall into one partition, so that one partition is the whole world.
fn place_of(seed: u64) -> Place {
    let org = OrgId(Uuid::from_u128(0x0a00_0000 + u128::from(seed)));
    (0u128..)
        .map(|n| SwarmId(Uuid::from_u128((n << 64) | 0x5a00_0000 | u128::from(seed))))
        .map(|swarm| Place::new(org, swarm))
        .find(|place| place.partition == Partition::of(org.0))
        .unwrap_or_else(|| Place::new(org, SwarmId(org.0)))
}

impl World {
    fn new(seed: u64, options: &Options) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let settings = SimulatedSettings {
            first_sequence: 1 + seed % 5 * 1_000,
            ..SimulatedSettings::default()
        };
        let log = SimulatedLog::new(settings);
        let clock = Clock {
            micros: Arc::default(),
            base: log.time(),
        };
        let place = place_of(seed);
        let mut coordinators = Group::new(place.partition);
        let mut distributors = Group::new(place.partition);
        let mut healths = Group::new(place.partition);
        for _ in 0..options.replicas {
            coordinators.spawn(&log, place.partition, &clock, &mut rng);
            distributors.spawn(&log, place.partition, &clock, &mut rng);
            healths.spawn(&log, place.partition, &clock, &mut rng);
        }
        let agents = (0..options.agents)
            .map(|n| {
                let capabilities = if n % 2 == 0 {
                    vec!["gpu".to_owned()]
                } else {
                    Vec::new()
                };
                ModelAgent::new(
                    n,
                    place,
                    log.handle(&format!("agent-{n}")),
                    1 + (n % 3) as u32,
                    capabilities,
                )
            })
            .collect();
        Self {
            seed,
            client: Client::new(place, log.handle("client")),
            reader: log.handle("reader"),
            rng,
            clock,
            log,
            place,
            messages: Vec::new(),
            coordinators,
            distributors,
            healths,
            agents,
            checker: Checker::default(),
            faulty: false,
            faults: BTreeMap::new(),
            steps: Rc::default(),
        }
    }

    /// Goes on without faults until an event of this kind is there.
    fn settle(&mut self, kind: &str) -> Result<(), Box<Failure>> {
        while !self.messages.iter().any(|m| m.subject.contains(kind)) {
            if let Some(violation) = self.step() {
                return Err(self.failure(violation));
            }
        }
        Ok(())
    }

    fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    fn faultiness(&self) -> Faultiness {
        if self.faulty { FAULTY } else { CALM }
    }

    /// Takes note of what was stored.
    fn look(&mut self) {
        let mut next = self
            .messages
            .last()
            .map_or_else(|| self.log_first(), |m| m.sequence + 1);
        let last = self.log.last_sequence();
        while next <= last {
            if let Some(Ok(Some(message))) = self.reader.get(next).now_or_never() {
                let time = Timestamp::from_micros(message.time_micros);
                let input = read(message.sequence, time, &message.subject, &message.payload);
                self.checker.meet(&input);
                self.coordinators.meet(&message, &input);
                self.distributors.meet(&message, &input);
                self.healths.meet(&message, &input);
                self.messages.push(message);
            }
            next += 1;
        }
    }

    fn log_first(&self) -> u64 {
        self.reader
            .info()
            .now_or_never()
            .and_then(Result::ok)
            .map_or(1, |info| info.first_sequence)
    }

    fn step(&mut self) -> Option<Violation> {
        self.steps.set(self.steps.get() + 1);
        let pause = match self.rng.random_range(0..100) {
            0..90 => self.rng.random_range(50..4_000),
            90..99 => self.rng.random_range(4_000..60_000),
            _ => self.rng.random_range(60_000..700_000),
        };
        self.clock.advance(pause);
        // Server clocks differ and step back.
        let skew = if self.faulty && self.rng.random_ratio(1, 50) {
            self.rng.random_range(0..20_000)
        } else {
            0
        };
        self.log.set_time(self.clock.log_time() - skew);
        if self.faulty {
            self.disturb();
        }
        let faults = self.faultiness();
        let delay = faults.delay(&mut self.rng);
        let read = self.rng.random_range(1..40);
        let now = self.clock.micros();
        let around = Around {
            clock: &self.clock,
            messages: &self.messages,
            delay,
            read,
        };
        let groups = 3;
        let pick = self.rng.random_range(0..groups * 3 + self.agents.len() + 1);
        let mut found = None;
        macro_rules! act {
            ($group:expr) => {{
                let number = self.rng.random_range(0..$group.replicas.len());
                if $group.replicas[number].paused_until <= now {
                    $group.replicas[number].step(&around);
                    if self.rng.random_ratio(1, 8) {
                        found = $group.agree(number);
                    }
                }
            }};
        }
        match pick {
            0..2 => act!(self.coordinators),
            2..7 => act!(self.distributors),
            7..9 => act!(self.healths),
            n if n < groups * 3 + self.agents.len() => {
                let agent = &mut self.agents[n - groups * 3];
                if agent.paused_until <= now
                    && let Some(incarnation) =
                        agent.step(&self.clock, &self.messages, &mut self.rng, faults)
                {
                    let id = agent.id;
                    for health in &mut self.healths.replicas {
                        health.hear(id, incarnation, now);
                    }
                }
            }
            _ => {
                if self.faulty && self.rng.random_ratio(1, 3) {
                    self.client.step(&self.clock, &mut self.rng);
                }
            }
        }
        self.look();
        self.take_over();
        for agent in &mut self.agents {
            if let Some(detail) = agent.complaints.pop() {
                let invariant = Invariant::NoStartAfterWithdrawal;
                return Some(Violation {
                    invariant,
                    sequence: self.log.last_sequence(),
                    detail,
                });
            }
        }
        found.or_else(|| self.checker.violations.first().cloned())
    }

    /// A model of presence: when nobody owns a partition for a while, a replica that runs takes it over.
    fn take_over(&mut self) {
        let now = self.clock.micros();
        let clock = self.clock.clone();
        let rate = if self.faulty { 400 } else { 200 };
        macro_rules! watch {
            ($group:expr) => {
                let up = |r: &Replica<_>| r.paused_until <= now;
                let owned = $group.replicas.iter().any(|r| r.owns() && up(r));
                if !owned && self.rng.random_ratio(1, rate)
                    || self.faulty && self.rng.random_ratio(1, 4_000)
                {
                    let number = self.rng.random_range(0..$group.replicas.len());
                    if up(&$group.replicas[number]) {
                        $group.replicas[number].wants(&clock);
                    }
                }
            };
        }
        watch!(self.coordinators);
        watch!(self.distributors);
        watch!(self.healths);
    }

    fn failure(&self, violation: Violation) -> Box<Failure> {
        Box::new(Failure {
            violation,
            report: self.report(),
        })
    }

    fn report(&self) -> Report {
        let mut fingerprint = 0xcbf2_9ce4_8422_2325u64;
        for message in &self.messages {
            for byte in message
                .subject
                .bytes()
                .chain((message.payload.len() as u64).to_be_bytes())
            {
                fingerprint = (fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        let mut kinds = BTreeMap::new();
        for message in &self.messages {
            let words = message
                .subject
                .split('.')
                .filter(|t| t.len() < 20 && t.parse::<u8>().is_err());
            *kinds
                .entry(words.skip(1).collect::<Vec<_>>().join("."))
                .or_default() += 1;
        }
        // For whoever looks into a seed: the log, a line for each message.
        if let Some(path) = std::env::var_os("SWARM_SIM_LOG") {
            let lines: Vec<String> = self
                .messages
                .iter()
                .map(|m| {
                    format!(
                        "{} {} {}\n",
                        m.sequence,
                        m.subject,
                        String::from_utf8_lossy(&m.payload)
                    )
                })
                .collect();
            let _ = std::fs::write(path, lines.concat());
        }
        Report {
            seed: self.seed,
            kinds,
            steps: self.steps.get(),
            micros: self.clock.micros(),
            messages: self.messages.len() as u64,
            accepted: self.checker.accepted() as u64,
            faults: self.faults.clone(),
            fingerprint,
        }
    }
}

/// Runs one seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, options: &Options) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, options);
    let configuration = serde_json::json!({
        "agent_waiting": seed % 3, "queue_limit": 60, "max_attempts": 3,
        "retry": {"base_ms": 200, "cap_ms": 2_000},
    });
    world
        .client
        .create_org(&world.clock, &mut world.rng, world.place.org);
    world.settle("org.key_created")?;
    world
        .client
        .create_swarm(&world.clock, &mut world.rng, &configuration);
    world.settle("swarm.created")?;
    world.faulty = true;
    for name in world.names() {
        let seed = world.rng.random();
        world.log.set_faults(&name, Faults::seeded(seed, RATES));
    }
    for _ in 0..options.steps {
        if let Some(violation) = world.step() {
            return Err(world.failure(violation));
        }
    }
    world.heal();
    let healing = world.steps.get();
    while !(world.checker.quiet() && world.steps.get() > healing + 2_000) {
        if let Some(violation) = world.step() {
            return Err(world.failure(violation));
        }
        if world.steps.get() > healing + options.healing_max {
            break;
        }
    }
    world.checker.finish(world.log.last_sequence());
    // What was on its way under an older claim stays out for ever.
    let (before, ended) = (world.checker.violations.len(), world.checker.ended);
    world.log.release_ghosts();
    world.look();
    if world.checker.ended != ended && before == 0 {
        let detail = "a ghost ended a task after the end".to_owned();
        let sequence = world.log.last_sequence();
        return Err(world.failure(Violation {
            invariant: Invariant::OneTerminal,
            sequence,
            detail,
        }));
    }
    match world.checker.violations.first().cloned() {
        Some(violation) => Err(world.failure(violation)),
        None => Ok(world.report()),
    }
}
