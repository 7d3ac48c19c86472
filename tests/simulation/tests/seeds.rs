//! Seeds that run with every build. `./dev sim --seeds N --seed S` runs more, `--seed S` one again.

use std::fmt::Write;

use swarm_simulation::{Options, run};

/// As many as fit into the suite's share of the time, split so that two cores share them.
const SEEDS: u64 = 60;

fn run_all(seeds: impl Iterator<Item = u64>) {
    let mut failures = String::new();
    for seed in seeds {
        if let Err(failure) = run(seed, &Options::default()) {
            let _ = writeln!(
                failures,
                "seed {seed}: {}\n  {}\n  again: ./dev sim --seed {seed}",
                failure.violation, failure.report
            );
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn every_promise_holds_on_even_seeds() {
    run_all((1..=SEEDS).filter(|seed| seed % 2 == 0));
}

#[test]
fn every_promise_holds_on_odd_seeds() {
    run_all((1..=SEEDS).filter(|seed| seed % 2 == 1));
}

#[test]
fn the_same_seed_is_the_same_run() {
    let options = Options {
        steps: 1_000,
        ..Options::default()
    };
    let first = run(7, &options).expect("a clean run");
    assert_eq!(first, run(7, &options).expect("a clean run"));
    assert_ne!(
        first.fingerprint,
        run(8, &options).expect("a clean run").fingerprint
    );
    assert!(
        first.accepted > 0 && first.faults.values().sum::<u64>() > 0,
        "{first}"
    );
}
