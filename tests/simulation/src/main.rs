//! `./dev sim`: runs seeds on all cores and says what they covered.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use swarm_simulation::{Bug, FOUND_BY_UNIT_TESTS, Options, Report, hunt, run};

const USAGE: &str = "usage: ./dev sim [--seed S] [--seeds N] [--steps N] [--threads N] [--forever] [--planted]\n\n\
  --seed S alone runs one seed again; with --seeds N those from S on; --forever goes on until stopped.\n  \
  --planted plants known defects one by one and says after how many seeds each is found.\n\
  With SWARM_SIM_LOG=FILE the log of the last seed is written there, a line for each message.";

/// Seeds without a number.
const SEEDS: u64 = 100;
/// A known defect must be found within so many.
const PLANTED_SEEDS: u64 = 200;
/// How often a long run says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(30);

struct Asked {
    first: u64,
    count: u64,
    threads: usize,
    planted: bool,
    options: Options,
}

fn asked() -> Option<Asked> {
    let (mut seed, mut seeds, mut forever, mut planted) = (None, None, false, false);
    let mut threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--planted" {
            planted = true;
            continue;
        }
        if argument == "--forever" {
            forever = true;
            continue;
        }
        let value = arguments.next()?.parse::<u64>().ok()?;
        match argument.as_str() {
            "--seed" => seed = Some(value),
            "--seeds" => seeds = Some(value),
            "--steps" => options.steps = value,
            "--threads" => threads = usize::try_from(value).ok()?.max(1),
            _ => return None,
        }
    }
    let count = match (forever, seeds, seed) {
        (true, ..) => u64::MAX,
        (_, Some(seeds), _) => seeds,
        (_, None, Some(_)) => 1,
        (_, None, None) => SEEDS,
    };
    // A nightly run looks at other seeds each time.
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |t| t.as_secs());
    let first = seed.unwrap_or(if forever { now << 20 } else { 1 });
    Some(Asked {
        first,
        count,
        threads,
        planted,
        options,
    })
}

#[derive(Default)]
struct Sum {
    report: Report,
    runs: u64,
    failed: Vec<u64>,
}

fn main() -> ExitCode {
    let Some(asked) = asked() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if asked.planted {
        return planted(&asked);
    }
    let began = Instant::now();
    let (next, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..asked.threads {
            scope.spawn(|| work(&asked, &next, &sum));
        }
        if asked.count > SEEDS {
            scope.spawn(|| tell(&sum, &done, began));
        }
        // The scope waits for the workers, and the teller for this.
        scope.spawn(|| {
            while next.load(Ordering::Relaxed) < asked.count
                || sum.lock().unwrap_or_else(PoisonError::into_inner).runs < asked.count
            {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            done.store(true, Ordering::Relaxed);
        });
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    say(&summary(&sum, began));
    say(&sum.report);
    if sum.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whoever reads may stop reading (`| head`): that ends nothing.
fn say(what: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{what}");
}

/// Plants each known defect and says after how many seeds it was found.
fn planted(asked: &Asked) -> ExitCode {
    let next = AtomicU64::new(0);
    let missed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..asked.threads {
            scope.spawn(|| {
                while let Some(bug) = usize::try_from(next.fetch_add(1, Ordering::Relaxed))
                    .ok()
                    .and_then(|number| Bug::ALL.get(number))
                {
                    if FOUND_BY_UNIT_TESTS.contains(bug) {
                        say(&format!("{bug:?} is left to the unit tests of its core"));
                        continue;
                    }
                    match hunt(*bug, asked.first, PLANTED_SEEDS, &asked.options) {
                        Some(caught) => say(&caught),
                        None => {
                            say(&format!("{bug:?} was not found in {PLANTED_SEEDS} seeds"));
                            missed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    if missed.into_inner() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn work(asked: &Asked, next: &AtomicU64, sum: &Mutex<Sum>) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= asked.count {
            return;
        }
        let seed = asked.first + number;
        // What panics is a failure of its seed, and the others go on.
        let outcome = std::panic::catch_unwind(|| run(seed, &asked.options));
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.runs += 1;
        match outcome {
            Ok(Ok(report)) => sum.report.add(&report),
            Ok(Err(failure)) => {
                say(&failure);
                sum.failed.push(seed);
                sum.report.add(&failure.report);
            }
            Err(_) => {
                say(&format!(
                    "seed {seed} failed: it panicked\n  again: ./dev sim --seed {seed}"
                ));
                sum.failed.push(seed);
            }
        }
    }
}

/// Says now and then how far a long run is.
fn tell(sum: &Mutex<Sum>, done: &AtomicBool, began: Instant) {
    let mut said = Instant::now();
    while !done.load(Ordering::Relaxed) {
        std::thread::park_timeout(Duration::from_millis(100));
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            let sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("{}", summary(&sum, began));
        }
    }
    if std::io::stderr().is_terminal() {
        let _ = std::io::stderr().flush();
    }
}

fn summary(sum: &Sum, began: Instant) -> String {
    let seconds = began.elapsed().as_secs_f32();
    let faults: u64 = sum.report.faults.values().sum();
    let failed = if sum.failed.is_empty() {
        "none failed".to_owned()
    } else {
        format!("failed: {:?}", sum.failed)
    };
    format!(
        "{} seeds, {failed}: {} steps, {} messages, {} tasks, {faults} faults, {seconds:.1} s, {:.1} seeds/s",
        sum.runs,
        sum.report.steps,
        sum.report.messages,
        sum.report.accepted,
        sum.runs as f32 / seconds
    )
}
