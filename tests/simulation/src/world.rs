//! The world: time, who acts next, and what must hold.

mod faultiness;
mod faults;
mod healing;

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt};
use rand::{Rng, SeedableRng, rngs::StdRng};
use swarm_audit::{Checker, Invariant, Violation};
use swarm_events::{Body, OrgId, Partition, Place, SwarmId};
use swarm_log::{
    Log, PresenceNews,
    simulated::{Faults, SimulatedLog, SimulatedSettings},
};
use uuid::Uuid;

use crate::{
    agent::ModelAgent,
    client::{AGENTS_MAX, CAPABILITIES, Client, settings},
    clock::Clock,
    coverage::distributed,
    folds::{Folds, Sampling},
    group::{Coming, Group},
    host::ModelHost,
    journal::{Journal, SERVICES},
    process::Around,
    projector::{Database, Projector},
    report::{Failure, Options, Report},
    versions::Version,
};
pub use faultiness::Faultiness;
use faultiness::{CALM, FAULTY, RATES};

/// Agent hosts: two, so that they compete for each process.
const HOSTS: usize = 2;

/// Steps after healing, some five seconds, in which ownership settles, and as many more in which it must stay as it is.
const SETTLING_STEPS: u64 = 2_500;

struct World {
    seed: u64,
    rng: StdRng,
    clock: Clock,
    log: SimulatedLog,
    reader: SimulatedLog,
    cluster: bool,
    partitions: Vec<Partition>,
    journal: Journal,
    folds: Folds,
    groups: Vec<Group>,
    agents: Vec<ModelAgent>,
    hosts: Vec<ModelHost>,
    client: Client,
    database: Database,
    projectors: Vec<Projector>,
    sessions: u64,
    checker: Checker,
    faulty: bool,
    /// Time passes evenly: nobody seems dead because it was not its turn.
    even: bool,
    full_until: u64,
    faults: BTreeMap<&'static str, u64>,
    steps: u64,
    claims: u64,
}

/// Swarms of one organization, in up to three partitions.
fn places_of(seed: u64) -> Vec<Place> {
    let org = OrgId(Uuid::from_u128(0x0a00_0000 + u128::from(seed)));
    let home = Partition::of(org.0);
    let partitions = 1 + seed as usize % 3;
    let swarms = partitions + seed as usize / 3 % 2;
    let mut used = vec![home];
    let mut places = Vec::new();
    for n in 0u128.. {
        let swarm = SwarmId(Uuid::from_u128((n << 64) | 0x5a00_0000 | u128::from(seed)));
        let place = Place::new(org, swarm);
        let new = !used.contains(&place.partition);
        // The first one stands with its organization, the last one beside another, if there is one more.
        let wanted = match places.len() {
            0 => !new,
            at if at < partitions => new,
            _ => !new,
        };
        if wanted {
            if new {
                used.push(place.partition);
            }
            places.push(place);
        }
        if places.len() == swarms {
            break;
        }
    }
    places
}

impl World {
    fn new(seed: u64, options: &Options) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let cluster = seed % 4 == 1;
        let settings = SimulatedSettings {
            first_sequence: 1 + seed % 5 * 1_000,
            cluster,
            ..SimulatedSettings::default()
        };
        let log = SimulatedLog::new(settings);
        let clock = Clock::new(log.time());
        let places = places_of(seed);
        let mut partitions: Vec<Partition> = places.iter().map(|p| p.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let replicas = 2 + seed / 7 % 2;
        let groups = SERVICES.map(|service| {
            let mut group = Group::new(service);
            for number in 0..replicas {
                let coming = Coming {
                    due: 0,
                    name: (number % 2 == 0).then(|| format!("{service}-{number}")),
                    version: Version::This,
                };
                group.spawn(&log, &partitions, coming, &clock, &mut rng);
            }
            group
        });
        let agents: Vec<ModelAgent> = (0..options.agents)
            .map(|n| {
                // In each swarm somebody can take every task.
                let first = n < places.len() as u64;
                let words = CAPABILITIES.iter().enumerate();
                let has = |at: usize| first || n >> at & 1 == seed >> at & 1;
                let capabilities = words
                    .filter(|(at, _)| has(*at))
                    .map(|(_, &word)| word.to_owned())
                    .collect();
                ModelAgent::new(
                    n,
                    places[n as usize % places.len()],
                    log.handle(&format!("agent-{n}")),
                    1 + (n % 3) as u32,
                    capabilities,
                )
            })
            .collect();
        let host = |n| ModelHost::new(n, log.handle(&format!("host-{n}")));
        let hosts = (0..HOSTS).map(host).collect();
        Self {
            seed,
            client: Client::new(places, agents.len(), log.handle("client")),
            reader: log.handle("reader"),
            rng,
            clock,
            log,
            cluster,
            journal: Journal::new(),
            folds: Folds::new(&partitions, Sampling::of(seed)),
            groups: groups.into(),
            hosts,
            agents,
            database: Database::default(),
            projectors: (0..2).map(|n| Projector::new(&partitions, n)).collect(),
            sessions: 2,
            partitions,
            checker: Checker::default(),
            faulty: false,
            even: false,
            full_until: 0,
            faults: BTreeMap::new(),
            steps: 0,
            claims: 0,
        }
    }

    /// Goes on without faults until so many events of this kind are there.
    fn settle(&mut self, kind: &str, count: usize) -> Result<(), Box<Failure>> {
        let there = |world: &Self| {
            let all = world.journal.all().iter();
            all.filter(|m| m.stored.subject.contains(kind)).count() >= count
        };
        while !there(self) {
            if let Some(violation) = self.step() {
                return Err(self.failure(violation));
            }
            if self.steps > 20_000 {
                return Err(self.failure(Violation {
                    invariant: Invariant::CommandsAnswered,
                    sequence: self.journal.last_sequence(),
                    detail: format!("no {kind} without any fault"),
                }));
            }
        }
        Ok(())
    }

    fn faultiness(&self) -> Faultiness {
        if self.faulty { FAULTY } else { CALM }
    }

    /// Takes note of what was stored.
    fn look(&mut self) -> Option<Violation> {
        let last = self.log.last_sequence();
        let mut next = match self.journal.all().last() {
            Some(met) => met.sequence() + 1,
            None => self.reader.info().now_or_never()?.ok()?.first_sequence,
        };
        let mut found = None;
        while next <= last {
            if let Some(Ok(Some(message))) = self.reader.get(next).now_or_never() {
                self.claims += u64::from(message.subject.ends_with(".claimed"));
                self.journal.push(message);
                if let Some(met) = self.journal.all().last() {
                    self.client.hear(met);
                    self.checker.meet(&met.input);
                    found = found.or(self.folds.meet(met));
                }
            }
            next += 1;
        }
        found.or_else(|| self.checker.violations.first().cloned())
    }

    fn step(&mut self) -> Option<Violation> {
        self.steps += 1;
        let pause = match self.rng.random_range(0..100) {
            _ if self.even => self.rng.random_range(50..4_000),
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
        self.log.set_time(self.clock.wall() - skew);
        if self.faulty {
            self.disturb();
        }
        self.come();
        let found = self.act();
        let seen = self.look();
        found.or(seen)
    }

    /// One of them acts.
    fn act(&mut self) -> Option<Violation> {
        // Distributors have more to do than the others.
        let members: Vec<(usize, usize)> = [0, 1, 1, 2]
            .iter()
            .flat_map(|&group| (0..self.groups[group].members.len()).map(move |n| (group, n)))
            .collect();
        let others = self.agents.len() + self.hosts.len() + self.projectors.len() + 1;
        let pick = self.rng.random_range(0..members.len() + others);
        let now = self.clock.micros();
        if let Some(&(group, number)) = members.get(pick) {
            return self.member_acts(group, number);
        }
        let pick = pick - members.len();
        let faults = self.faultiness();
        if let Some(agent) = self.agents.get_mut(pick) {
            if agent.paused_until <= now
                && let Some(incarnation) =
                    agent.step(&self.clock, &self.journal, &mut self.rng, faults)
            {
                let id = agent.id;
                for health in &mut self.groups[2].members {
                    health.hear(id, incarnation, now);
                }
            }
            return agent.found.take();
        }
        let pick = pick - self.agents.len();
        if pick < self.hosts.len() {
            return self.host_acts(pick);
        }
        let pick = pick - self.hosts.len();
        if let Some(projector) = self.projectors.get_mut(pick) {
            if projector.paused_until <= now {
                projector.step(&mut self.database, &self.journal, &mut self.rng);
            }
        } else if self.faulty && self.rng.random_ratio(1, 3) {
            self.client.step(&self.clock, &mut self.rng);
        }
        None
    }

    fn host_acts(&mut self, number: usize) -> Option<Violation> {
        let (now, faults) = (self.clock.micros(), self.faultiness());
        let host = &mut self.hosts[number];
        let heard = host.step(&self.clock, &self.journal, &mut self.rng, faults);
        for health in &mut self.groups[2].members {
            for (id, incarnation) in &heard.agents {
                health.hear(*id, *incarnation, now);
            }
            if let Some(host) = heard.host {
                health.hear_host(host, now);
            }
        }
        host.found.take()
    }

    fn member_acts(&mut self, group: usize, number: usize) -> Option<Violation> {
        let faults = self.faultiness();
        let member = &mut self.groups[group].members[number];
        if member.common().paused_until > self.clock.micros() {
            return None;
        }
        member.step(&mut Around {
            clock: &self.clock,
            journal: &self.journal,
            folds: &self.folds,
            rng: &mut self.rng,
            faults,
        });
        let found = member.common_mut().found.take();
        if member.common().ended {
            // It comes back later, as after an upgrade.
            let gone = self.groups[group].remove(number);
            let due = self.clock.micros() + self.rng.random_range(0..4_000_000);
            let version = self.groups[group].next_version(&mut self.rng);
            let name = gone.common().name.clone();
            self.groups[group]
                .coming
                .push(Coming { due, name, version });
            *self.faults.entry("planned stop done").or_default() += 1;
        }
        found
    }

    /// Starts what is due.
    fn come(&mut self) {
        let now = self.clock.micros();
        for group in &mut self.groups {
            while let Some(at) = group.coming.iter().position(|coming| coming.due <= now) {
                let coming = group.coming.remove(at);
                let kind = match (coming.version, &coming.name) {
                    (Version::Before, _) => "version before",
                    (Version::After, _) => "version after",
                    (Version::This, Some(_)) => "restart under the same name",
                    (Version::This, None) => "restart",
                };
                if self.faulty && kind != "restart" {
                    *self.faults.entry(kind).or_default() += 1;
                }
                let handle = group.spawn(
                    &self.log,
                    &self.partitions,
                    coming,
                    &self.clock,
                    &mut self.rng,
                );
                if self.faulty {
                    let faults = Faults::seeded(self.rng.random(), RATES);
                    self.log.set_faults(&handle, faults);
                }
            }
        }
    }

    fn failure(&self, violation: Violation) -> Box<Failure> {
        Box::new(Failure {
            violation,
            report: self.report(),
        })
    }

    fn report(&self) -> Report {
        let mut fingerprint = 0xcbf2_9ce4_8422_2325u64;
        let mut kinds = BTreeMap::new();
        for met in self.journal.all() {
            let message = &met.stored;
            for byte in message
                .subject
                .bytes()
                .chain(message.payload.iter().copied())
            {
                fingerprint = (fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            let words: Vec<&str> = message
                .subject
                .split('.')
                .skip(1)
                .filter(|t| t.len() < 20 && t.parse::<u8>().is_err())
                .collect();
            *kinds.entry(words.join(".")).or_default() += 1;
        }
        let mut covered = BTreeMap::new();
        for group in &self.groups {
            let [joins, resumed, snapshots] = group.counts();
            *covered.entry("joins").or_default() += joins;
            *covered.entry("partitions from a snapshot").or_default() += resumed;
            *covered.entry("snapshots").or_default() += snapshots;
        }
        let commits = self.projectors.iter().map(|p| p.commits).sum();
        covered.insert("batches projected", commits);
        covered.insert("states compared", self.folds.compared());
        let counts = self.checker.counts();
        covered.insert("steals", counts.steals);
        covered.insert("steals that came too late", counts.steals_void);
        for what in self.journal.all().iter().flat_map(distributed) {
            *covered.entry(what).or_default() += 1;
        }
        Report {
            seed: self.seed,
            steps: self.steps,
            micros: self.clock.micros(),
            messages: self.journal.all().len() as u64,
            accepted: self.checker.accepted() as u64,
            ended: self.checker.ended,
            claims: self.claims,
            faults: self.faults.clone(),
            covered,
            kinds,
            fingerprint,
        }
    }

    /// For whoever looks into a seed: the log, a line for each message.
    fn write_log(&self) {
        if let Some(path) = std::env::var_os("SWARM_SIM_LOG") {
            let lines = self.journal.all().iter().map(|met| {
                let (m, payload) = (&met.stored, String::from_utf8_lossy(&met.stored.payload));
                format!("{} {} {} {payload}\n", m.sequence, m.time_micros, m.subject)
            });
            let mut text: String = lines.collect();
            let mut watch = self.reader.watch_presence("");
            while let Some(Some(PresenceNews::Put { key, value, .. })) = watch.next().now_or_never()
            {
                text += &format!("presence {key} {}\n", String::from_utf8_lossy(&value));
            }
            if let Err(error) = std::fs::write(&path, text) {
                eprintln!("{}: {error}", path.display());
            }
        }
    }

    fn run(&mut self, options: &Options) -> Result<Report, Box<Failure>> {
        let places = places_of(self.seed);
        self.client
            .create_org(&self.clock, &mut self.rng, places[0].org);
        self.settle("org.key_created", 1)?;
        for place in &places {
            let mut configuration = serde_json::json!({
                "max_agents": AGENTS_MAX, "max_attempts": 3, "retry": {"base_ms": 200, "cap_ms": 2_000},
            });
            if let serde_json::Value::Object(all) = &mut configuration {
                all.extend(settings(&mut self.rng, 1));
            }
            self.client
                .create_swarm(*place, &self.clock, &mut self.rng, &configuration);
        }
        self.settle("swarm.created", places.len())?;
        self.faulty = true;
        self.spoil(RATES);
        for _ in 0..options.steps {
            if let Some(violation) = self.step() {
                return Err(self.failure(violation));
            }
        }
        self.heal();
        let healing = self.steps;
        while !(self.at_rest() && self.steps > healing + options.healing_min) {
            if let Some(violation) = self.step() {
                return Err(self.failure(violation));
            }
            if self.steps > healing + options.healing_max {
                break;
            }
        }
        if let Some(violation) = self.settles() {
            return Err(self.failure(violation));
        }
        self.judge().map_or_else(
            || Ok(self.report()),
            |violation| Err(self.failure(violation)),
        )
    }

    /// Everything that was begun is finished, and every agent is as it is wanted.
    fn at_rest(&self) -> bool {
        self.checker.quiet() && self.checker.wishes().is_empty()
    }

    /// Goes on for a while in which nobody may take anything over.
    fn settles(&mut self) -> Option<Violation> {
        self.even = true;
        let mut before = 0;
        for step in 0..2 * SETTLING_STEPS {
            if step == SETTLING_STEPS {
                before = self.journal.last_sequence();
            }
            if let Some(violation) = self.step() {
                return Some(violation);
            }
        }
        self.journal.after(before).iter().find_map(|met| {
            let Body::Claimed(claimed) = &met.recorded()?.event.body else {
                return None;
            };
            (claimed.reason == "takeover").then(|| Violation {
                invariant: Invariant::OwnershipSettles,
                sequence: met.sequence(),
                detail: format!(
                    "{} is taken over by {}",
                    met.stored.subject, claimed.instance
                ),
            })
        })
    }

    /// A process that runs and should not: of an older request, or of an agent that nobody wants.
    fn left_behind(&self) -> Option<Violation> {
        let running = self.hosts.iter().flat_map(|host| {
            let at = host.processes();
            at.map(move |(key, spawn)| (host.instance(), key, spawn))
        });
        running
            .filter(|(host, key, spawn)| {
                self.checker.host_of(key.place, key.agent, *spawn) != Some(*host)
            })
            .map(|(host, key, spawn)| Violation {
                invariant: Invariant::NoProcessLeftBehind,
                sequence: self.journal.last_sequence(),
                detail: format!("process {spawn} of agent {} runs at host {host}", key.agent),
            })
            .next()
    }

    /// What must hold at the end.
    fn judge(&mut self) -> Option<Violation> {
        self.checker.finish(self.log.last_sequence());
        if let Some(violation) = self.checker.violations.first() {
            return Some(violation.clone());
        }
        if let Some(violation) = self.left_behind() {
            return Some(violation);
        }
        // What was on its way under an older claim stays out for ever.
        let ended = self.checker.ended;
        self.log.release_ghosts();
        if let Some(violation) = self.look() {
            return Some(violation);
        }
        if self.checker.ended != ended {
            return Some(Violation {
                invariant: Invariant::OneTerminal,
                sequence: self.log.last_sequence(),
                detail: "a ghost ended a task after the end".to_owned(),
            });
        }
        self.database.judge(&self.journal, &self.partitions)
    }
}

/// Runs one seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, options: &Options) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, options);
    let outcome = world.run(options);
    world.write_log();
    outcome
}
