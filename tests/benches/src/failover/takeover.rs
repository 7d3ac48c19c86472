//! `./dev bench takeover`: how long nothing is decided when the replica that decides ends, is stopped, or is told to go.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use rustix::process::Signal;
use swarm_events::{Partition, subject::Service};
use tokio::time::{Instant, sleep};

use super::{
    Setting, block_on,
    fleet::{Fleet, Steady},
    gaps::Gap,
    members::Members,
    print_verdict, replica_name,
    spread::Spread,
    target,
    watch::{Watch, now_micros},
};
use crate::{installation::Installation, machine};

/// 99th percentile of the time without decisions after a kill, a stop, or a kill with an immediate restart.
const TARGET_KILLED: Duration = Duration::from_secs(3);
/// The same for a planned hand-over.
const TARGET_PLANNED: Duration = Duration::from_millis(300);
/// A takeover that takes longer than this has failed.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(30);
/// How long is watched after a takeover: it may stumble again.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// Signals come at all moments of the 500 ms between two renewals of a presence key: each run's is this much later.
const PHASE_STEP: Duration = Duration::from_millis(137);
/// Renewal interval of a presence key.
const PHASE: Duration = Duration::from_millis(500);

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Runs of each kind
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Whose replica is signalled
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Target::Distributor, Target::Coordinator, Target::Health])]
    services: Vec<Target>,
    /// What is done to it
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Kill, Kind::Stop, Kind::Term, Kind::Restart])]
    kinds: Vec<Kind>,
    /// Replicas of each deciding service (1: only `restart` makes sense)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    replicas: u32,
    /// Swarms, evenly over the partitions
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    swarms: u8,
    /// Tasks a second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Commands to the coordinator a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    commands: u32,
    #[command(flatten)]
    setting: Setting,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Time between assignments
    Distributor,
    /// Time between answers to commands
    Coordinator,
    /// Time until its partitions are claimed: it has nothing to decide while all agents are well
    Health,
}

impl Target {
    const fn service(self) -> (Service, &'static str) {
        match self {
            Self::Distributor => (Service::Distributor, "distributor"),
            Self::Coordinator => (Service::Coordinator, "coordinator"),
            Self::Health => (Service::Health, "health"),
        }
    }
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// SIGKILL; a new process comes once the takeover is over
    Kill,
    /// SIGSTOP; SIGCONT once the takeover is over
    Stop,
    /// SIGTERM: a planned hand-over
    Term,
    /// SIGKILL, and a new process of the same name at once, as a supervisor does
    Restart,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Stop => "SIGSTOP, SIGCONT later",
            Self::Term => "SIGTERM (planned)",
            Self::Restart => "SIGKILL, restarted at once",
        }
    }

    const fn target(self) -> Duration {
        match self {
            Self::Term => TARGET_PLANNED,
            _ => TARGET_KILLED,
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The longest of all partitions that the replica owned; `None` where the service had nothing to decide.
    gap: Option<Gap>,
    /// From the signal to the last claim of those partitions, in microseconds.
    claimed: i64,
    /// Longest gap of any partition from the replica's return until everything had settled.
    back: Option<Gap>,
}

/// Measures and prints.
///
/// # Errors
/// A server or service does not start, or a partition is not taken over.
pub fn run(options: &Options) -> anyhow::Result<()> {
    block_on(measure(options))
}

struct Bench<'a> {
    options: &'a Options,
    binary: PathBuf,
    installation: Installation,
    watch: Watch,
    members: Members,
    fleet: Fleet,
    clients: Vec<Steady>,
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let (mut installation, binary) = options.setting.prepare().await?;
    for target in [Target::Coordinator, Target::Distributor, Target::Health] {
        let (_, service) = target.service();
        for number in 1..=options.replicas {
            installation.start_replica(&binary, service, &replica_name(service, number))?;
        }
    }
    installation.until_ready().await?;
    let reader = installation.log("bench watch").await?;
    let (watch, members) = (Watch::follow(&reader), Members::follow(&reader));
    let setting = &options.setting;
    let fleet = Fleet::start(&installation, options.swarms, setting.agents, setting.slots).await?;
    println!(
        "load        {} tasks/s and {} commands/s over {} swarms with {} agents each; {} replicas of each deciding service",
        options.rate, options.commands, options.swarms, setting.agents, options.replicas
    );
    println!(
        "measured    in the partitions that the signalled replica owned, the worst of them: the longest time between \
         decisions while something waited, from the signal on, by store times"
    );
    let clients = vec![fleet.submit(options.rate)?, fleet.command(options.commands)];
    let mut bench = Bench {
        options,
        binary,
        installation,
        watch,
        members,
        fleet,
        clients,
    };
    let mut rows = Vec::new();
    for target in &options.services {
        for kind in &options.kinds {
            rows.push(bench.runs(*target, *kind).await?);
        }
    }
    bench.conclude(&rows).await
}

impl Bench<'_> {
    async fn runs(&mut self, of: Target, kind: Kind) -> anyhow::Result<String> {
        let (_, name) = of.service();
        let mut runs = Vec::new();
        for number in 0..self.options.runs {
            let run = self
                .one(of, kind, number)
                .await
                .with_context(|| format!("{name}, {}, run {}", kind.words(), number + 1))?;
            runs.push(run);
        }
        let gaps: Spread = runs
            .iter()
            .map(|run| run.gap.map_or(run.claimed, |gap| gap.micros))
            .collect();
        let claimed: Spread = runs.iter().map(|run| run.claimed).collect();
        let back: Spread = runs
            .iter()
            .filter_map(|run| Some(run.back?.micros))
            .collect();
        let open = runs.iter().any(|run| run.gap.is_some_and(|gap| gap.open));
        let p99 = Duration::from_micros(gaps.percentile(99).unsigned_abs());
        let limit = kind.target();
        let met = !open && p99 < limit;
        let row = format!(
            "{name:<12} {:<27} {:>4}  {gaps}   {claimed}   {}   {}, load then {}",
            kind.words(),
            gaps.len(),
            match back.len() {
                0 => format!("{:>28}", "-"),
                _ => back.to_string(),
            },
            target(met, &format!("p99 below {} ms", limit.as_millis())),
            machine::load()
        );
        println!("{row}");
        Ok(row)
    }

    async fn one(&mut self, of: Target, kind: Kind, number: u32) -> anyhow::Result<Run> {
        let (service, name) = of.service();
        self.settle(service, name).await?;
        sleep(PHASE + duration_modulo(PHASE_STEP * number, PHASE)).await;

        let many = u32::try_from(self.fleet.places.len())?.max(1);
        let observed = usize::try_from(number % many)?;
        let place = self.fleet.places.get(observed).context("no swarm")?;
        let owner = self
            .watch
            .owner(service, place.partition)
            .context("nobody owns the swarm's partition")?
            .instance;
        let victim = match self.members.name_of(owner) {
            Some(victim) => victim,
            None if self.options.replicas == 1 => replica_name(name, 1),
            None => bail!(
                "{owner} owns {} and does not announce a name",
                place.partition
            ),
        };
        let owned = self.watch.owned_by(service, owner);
        let worked: Vec<Partition> = self
            .fleet
            .places
            .iter()
            .map(|place| place.partition)
            .filter(|partition| owned.contains(partition))
            .collect();

        let began = now_micros();
        match kind {
            Kind::Kill | Kind::Restart => self.installation.signal(&victim, Signal::KILL)?,
            Kind::Stop => self.installation.signal(&victim, Signal::STOP)?,
            Kind::Term => self.installation.signal(&victim, Signal::TERM)?,
        }
        let signalled = Instant::now();
        if kind == Kind::Restart {
            self.installation
                .start_replica(&self.binary, name, &victim)?;
        }
        let decides = of != Target::Health;
        let watch = self.watch.clone();
        let left = || {
            let owned = owned.iter().filter(|partition| {
                watch
                    .owner(service, **partition)
                    .is_none_or(|claim| claim.instance == owner)
            });
            let worked = worked.iter().filter(|partition| {
                decides
                    && watch
                        .decided(service, **partition)
                        .is_none_or(|(by, _)| by == owner)
            });
            let left: Vec<Partition> = owned.chain(worked).copied().collect();
            left
        };
        if !watch.until(TAKEOVER_PATIENCE, || left().is_empty()).await? {
            bail!(
                "{victim} was signalled {} s ago, and nobody decides in {:?}; its log ends with:\n{}",
                signalled.elapsed().as_secs(),
                left(),
                self.installation.log_tails(name)
            );
        }
        sleep(AFTERWARDS).await;
        self.check()?;
        watch.read_all(&self.fleet.log).await?;
        let until = now_micros();
        let gap = match decides {
            true => Some(
                worst(&watch, service, &worked, began, until)
                    .context("nothing waited for a decision: raise --rate or --commands")?,
            ),
            false => None,
        };
        let claimed = owned
            .iter()
            .filter_map(|partition| Some(watch.owner(service, *partition)?.at - began))
            .max()
            .context("the replica owned nothing")?;

        let returned = now_micros();
        match kind {
            Kind::Kill | Kind::Term => {
                self.installation.wait_for(&victim).await?;
                self.installation
                    .start_replica(&self.binary, name, &victim)?;
            }
            Kind::Stop => self.installation.signal(&victim, Signal::CONT)?,
            Kind::Restart => {}
        }
        self.settle(service, name).await?;
        watch.read_all(&self.fleet.log).await?;
        let everywhere: Vec<Partition> = self.fleet.places.iter().map(|p| p.partition).collect();
        let back = match decides {
            true => worst(&watch, service, &everywhere, returned, now_micros()),
            false => None,
        };
        let run = Run { gap, claimed, back };
        println!(
            "  {name:<11} {:<26} run {:>2}: {}{} {victim} owned {} partitions, {} with work; all claimed after {}; at most {} while it came back",
            kind.words(),
            number + 1,
            seconds(gap.map_or(claimed, |gap| gap.micros)),
            if gap.is_some_and(|gap| gap.open) {
                " and not over;"
            } else {
                ";"
            },
            owned.len(),
            worked.len(),
            seconds(claimed),
            back.map_or_else(|| "-".to_owned(), |gap| seconds(gap.micros)),
        );
        Ok(run)
    }

    /// Waits until all replicas are there and share the partitions.
    async fn settle(&mut self, service: Service, name: &str) -> anyhow::Result<()> {
        let names: Vec<String> = (1..=self.options.replicas)
            .map(|number| replica_name(name, number))
            .collect();
        for name in &names {
            self.installation.until_replica_ready(name).await?;
        }
        if self.options.replicas > 1 {
            self.members.steady(&self.watch, service, &names).await?;
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        self.clients.iter().try_for_each(Steady::check)
    }

    async fn conclude(self, rows: &[String]) -> anyhow::Result<()> {
        let spread = "     min      p50      p99  ";
        println!(
            "\n{:<46}  {:<28}   {:<28}   while it came back",
            "", "time without decisions", "until all were claimed"
        );
        println!(
            "{:<12} {:<27} runs  {spread}   {spread}   {spread}",
            "service", "what"
        );
        for row in rows {
            println!("{row}");
        }
        let mut accepted = HashSet::new();
        for client in self.clients {
            accepted.extend(client.stop().await?);
        }
        let verdict = self.watch.verdict(&self.fleet.log, &accepted).await?;
        print_verdict(&verdict);
        println!("memory      {}", self.installation.memory());
        self.fleet.agents.stop();
        self.installation.stop().await;
        Ok(())
    }
}

/// The longest gap of all of `partitions`.
fn worst(
    watch: &Watch,
    service: Service,
    partitions: &[Partition],
    from: i64,
    until: i64,
) -> Option<Gap> {
    partitions
        .iter()
        .filter_map(|partition| watch.gap(service, *partition, from, until))
        .max_by_key(|gap| gap.micros)
}

fn duration_modulo(time: Duration, modulus: Duration) -> Duration {
    let rest = time.as_micros() % modulus.as_micros().max(1);
    Duration::from_micros(u64::try_from(rest).unwrap_or(0))
}

fn seconds(micros: i64) -> String {
    format!("{:.3} s", micros as f64 / 1e6)
}
