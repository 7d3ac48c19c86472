//! `./dev bench availability`: how much of the time the system takes work and hands it out, while everything that can break
//! is broken by a fixed script.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use rustix::process::Signal;
use swarm_events::subject::Service;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Setting, block_on,
    fleet::Fleet,
    members::Members,
    print_verdict,
    probes::{BadWindow, EVERY, GOOD_WITHIN, Probe, Prober, REST_EACH, Way, bad_windows},
    replica_name,
    script::{Fault, PAUSE, script},
    target,
    watch::{Watch, now_micros},
};
use crate::{installation::Installation, pipeline::swarm::payload};

/// Good probes of all probes.
const TARGET: f64 = 0.999;
/// Replicas of each service.
const REPLICAS: u32 = 2;
/// All of them: the API is probed too, and the projector has to catch up with all of it.
const SERVICES: [&str; 5] = [
    "coordinator",
    "distributor",
    "health",
    "projector",
    "gateway",
];
/// Probes that begin in the last seconds have their whole time.
const AFTERWARDS: Duration = GOOD_WITHIN;

/// What to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// How long
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Swarms, evenly over the partitions
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    swarms: u8,
    /// Tasks a second beside the probes
    #[arg(long, default_value_t = 100)]
    rate: u32,
    #[command(flatten)]
    setting: Setting,
}

/// Measures and prints.
///
/// # Errors
/// A server or service does not start.
pub fn run(options: &Options) -> anyhow::Result<()> {
    block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let (mut installation, binary) = options.setting.prepare().await?;
    for service in SERVICES {
        for number in 1..=REPLICAS {
            installation.start_replica(&binary, service, &replica_name(service, number))?;
        }
    }
    installation.until_ready().await?;
    let reader = installation.log("bench watch").await?;
    let (watch, members) = (Watch::follow(&reader), Members::follow(&reader));
    let setting = &options.setting;
    let fleet = Fleet::start(&installation, options.swarms, setting.agents, setting.slots).await?;
    settled(&members, &watch, &[]).await?;

    let length = Duration::from_secs(options.minutes * 60);
    let faults = script(length);
    println!(
        "load        {} tasks/s beside the probes, over {} swarms with {} agents each; {REPLICAS} replicas of {}",
        options.rate,
        options.swarms,
        setting.agents,
        SERVICES.join(", ")
    );
    println!(
        "probes      one each {} ms, published to its subject and sent again under the same id until acknowledged; each \
         {REST_EACH}th instead by POST with an Idempotency-Key at one gateway, then the other; good: acknowledged and \
         assigned within {} s",
        EVERY.as_millis(),
        GOOD_WITHIN.as_secs()
    );
    println!(
        "script      {} faults in {} min",
        faults.len(),
        options.minutes
    );

    let steady = fleet.submit(options.rate)?;
    let prober = Prober {
        log: installation.log("bench probes").await?,
        places: fleet.places.clone(),
        gateways: (1..=REPLICAS)
            .map(|number| installation.address(&replica_name("gateway", number)))
            .collect::<anyhow::Result<_>>()?,
        api_key: fleet.api_key.clone(),
        payload: payload()?,
    };
    let operator = Operator {
        installation: &mut installation,
        binary,
        began: Instant::now(),
        began_micros: now_micros(),
    };
    let (probes, done) = tokio::join!(prober.probe(length), operator.play(&faults));
    let (mut probes, done) = (probes?, done?);
    steady.check()?;
    sleep(AFTERWARDS).await;
    watch.read_all(&fleet.log).await?;
    for probe in &mut probes {
        probe.assigned = probe.task.and_then(|task| watch.assigned(task));
    }
    report(&probes, &done);
    // Probes may be good although nobody would take over any more.
    match settled(&members, &watch, &left_behind(&faults)).await {
        Ok(()) => println!("  afterwards: every partition has its owner and its standby again"),
        Err(error) => println!("  afterwards: NOT WHOLE AGAIN: {error}"),
    }

    let mut accepted = steady.stop().await?;
    accepted.extend(probes.iter().filter_map(|probe| probe.task));
    let verdict = watch.verdict(&fleet.log, &accepted).await?;
    print_verdict(&verdict);
    fleet.agents.stop();
    installation.stop().await;
    Ok(())
}

/// The replicas that the script added and did not remove.
fn left_behind(faults: &[(Duration, Fault)]) -> Vec<&'static str> {
    let mut added = Vec::new();
    for (_, fault) in faults {
        match fault {
            Fault::Add(name) => added.push(*name),
            Fault::Remove(name) => added.retain(|other| other != name),
            _ => {}
        }
    }
    added
}

/// Waits until the replicas of each deciding service, and those of `added`, share all partitions.
async fn settled(members: &Members, watch: &Watch, added: &[&str]) -> anyhow::Result<()> {
    for service in [Service::Coordinator, Service::Distributor, Service::Health] {
        let name = service.to_string();
        let mut names: Vec<String> = (1..=REPLICAS).map(|n| replica_name(&name, n)).collect();
        for added in added {
            if service_of(added)? == name {
                names.push((*added).to_owned());
            }
        }
        members.steady(watch, service, &names).await?;
    }
    Ok(())
}

/// A fault, and when it was done, in microseconds since the Unix epoch.
struct Done {
    fault: Fault,
    at: i64,
}

/// Plays the script, and puts right what a fault left as a supervisor would.
struct Operator<'a> {
    installation: &'a mut Installation,
    binary: PathBuf,
    began: Instant,
    began_micros: i64,
}

impl Operator<'_> {
    async fn play(mut self, faults: &[(Duration, Fault)]) -> anyhow::Result<Vec<Done>> {
        let mut done = Vec::new();
        for (at, fault) in faults {
            sleep_until(self.began + *at).await;
            let now = now_micros();
            println!(
                "  {:>6.1} s  {fault}",
                (now - self.began_micros) as f64 / 1e6
            );
            done.push(Done {
                fault: *fault,
                at: now,
            });
            self.inflict(*fault)
                .await
                .with_context(|| fault.to_string())?;
        }
        Ok(done)
    }

    async fn inflict(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(names) => {
                for name in names {
                    self.installation.signal(name, Signal::KILL)?;
                }
                for name in names {
                    self.start(name)?;
                }
            }
            Fault::Pause(name) => {
                self.installation.signal(name, Signal::STOP)?;
                sleep(PAUSE).await;
                self.installation.signal(name, Signal::CONT)?;
            }
            Fault::Update(name) => {
                self.installation.signal(name, Signal::TERM)?;
                self.installation.wait_for(name).await?;
                self.start(name)?;
            }
            Fault::Add(name) => self.start(name)?,
            Fault::Remove(name) => {
                self.installation.signal(name, Signal::TERM)?;
                self.installation.ended(name).await?;
            }
            Fault::CrashNats => self.installation.crash_nats().await?,
            Fault::CrashPostgres => self.installation.crash_postgres().await?,
        }
        Ok(())
    }

    fn start(&mut self, name: &str) -> anyhow::Result<()> {
        let binary: &Path = &self.binary;
        self.installation
            .start_replica(binary, service_of(name)?, name)
    }
}

/// The service that the replica `name` is of.
fn service_of(name: &str) -> anyhow::Result<&'static str> {
    let plain = name.split_once('-').map_or(name, |(service, _)| service);
    SERVICES
        .into_iter()
        .find(|service| *service == plain)
        .with_context(|| format!("{name} is a replica of no service"))
}

fn report(probes: &[Probe], done: &[Done]) {
    let share = |of: &dyn Fn(&&Probe) -> bool| {
        let all = probes.iter().filter(of).count();
        let good = probes
            .iter()
            .filter(of)
            .filter(|probe| probe.is_good())
            .count();
        (good, all, good as f64 / all.max(1) as f64)
    };
    let (good, all, availability) = share(&|_| true);
    println!(
        "\navailability {:.4} %: {good} of {all} probes good {}",
        availability * 100.0,
        target(availability >= TARGET, "at least 99.9 %")
    );
    for (word, way) in [("direct", Way::Direct), ("by REST", Way::Rest)] {
        let (good, all, availability) = share(&|probe| probe.way == way);
        println!("  {word:<8} {:.4} %: {good} of {all}", availability * 100.0);
    }
    let mut waits: Vec<i64> = probes
        .iter()
        .filter_map(|probe| Some(probe.assigned? - probe.began))
        .collect();
    waits.sort_unstable();
    let of = |permille: usize| {
        let rank = (waits.len() * permille).div_ceil(1_000).max(1);
        waits.get(rank - 1).copied().unwrap_or(0) as f64 / 1e3
    };
    println!(
        "  begun to assigned: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, worst {:.1} ms",
        of(500),
        of(990),
        of(999),
        of(1_000)
    );
    for window in bad_windows(probes) {
        println!("  bad: {window}; {}", cause(&window, done));
    }
}

/// What was done to the system before a bad window.
fn cause(window: &BadWindow, done: &[Done]) -> String {
    // A probe that began shortly before the fault is hit by it too.
    let last = done
        .iter()
        .rev()
        .find(|done| done.at <= window.from + i64::try_from(GOOD_WITHIN.as_micros()).unwrap_or(0));
    match last {
        None => "nothing had been done yet".to_owned(),
        Some(done) => format!(
            "its first began {:+.1} s from: {}",
            (window.from - done.at) as f64 / 1e6,
            done.fault
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_of_the_service_whose_name_it_begins_with() {
        assert_eq!(service_of("distributor-3").expect("known"), "distributor");
        assert_eq!(service_of("gateway").expect("known"), "gateway");
        assert!(service_of("nats-server").is_err());
    }

    #[test]
    fn what_was_added_and_not_removed_is_still_there() {
        let at = Duration::ZERO;
        let script = [(at, Fault::Add("distributor-3")), (at, Fault::CrashNats)];
        assert_eq!(left_behind(&script), ["distributor-3"]);
        let removed = [script[0], (at, Fault::Remove("distributor-3"))];
        assert!(left_behind(&removed).is_empty());
    }

    #[test]
    fn every_fault_of_the_script_names_a_replica() {
        for (_, fault) in script(Duration::from_secs(3_600)) {
            let names: Vec<&str> = match fault {
                Fault::Kill(names) => names.to_vec(),
                Fault::Pause(name)
                | Fault::Update(name)
                | Fault::Add(name)
                | Fault::Remove(name) => vec![name],
                Fault::CrashNats | Fault::CrashPostgres => Vec::new(),
            };
            for name in names {
                service_of(name).expect("a service");
            }
        }
    }
}
