//! Seeds that run with every build. `./dev sim --seeds N --seed S` runs more, `--seed S` one again.

use std::{fmt::Write, ops::RangeInclusive};

use swarm_simulation::{Options, run};

/// Every failing seed is told, and how to run it again.
fn run_all(seeds: RangeInclusive<u64>) {
    let mut failures = String::new();
    for seed in seeds {
        if let Err(failure) = run(seed, &Options::default()) {
            let _ = writeln!(failures, "{failure}");
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// Tests of a hundred seeds each, so that all cores have their share.
macro_rules! seeds {
    ($($name:ident: $first:literal to $last:literal;)+) => {$(
        #[test]
        fn $name() {
            run_all($first..=$last);
        }
    )+};
}
seeds! {
    every_promise_holds_to_100: 1 to 100;
    every_promise_holds_to_200: 101 to 200;
    every_promise_holds_to_300: 201 to 300;
    every_promise_holds_to_400: 301 to 400;
    every_promise_holds_to_500: 401 to 500;
    every_promise_holds_to_600: 501 to 600;
    every_promise_holds_to_700: 601 to 700;
    every_promise_holds_to_800: 701 to 800;
    every_promise_holds_to_900: 801 to 900;
    every_promise_holds_to_1000: 901 to 1000;
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

/// A simulation that stopped to inject a fault, or to cover a way through the code, would go on being green.
#[test]
fn a_few_seeds_meet_every_fault() {
    let mut sum = swarm_simulation::Report::default();
    // Crash loops are the rarest.
    for seed in 1..=200 {
        sum.add(&run(seed, &Options::default()).unwrap_or_else(|failure| panic!("\n{failure}")));
    }
    for fault in swarm_simulation::FAULTS {
        assert!(
            sum.faults.get(fault).copied().unwrap_or(0) > 0,
            "{fault}: {sum}"
        );
    }
    for what in swarm_simulation::COVERED {
        assert!(
            sum.covered.get(what).copied().unwrap_or(0) > 0,
            "{what}: {sum}"
        );
    }
    for fault in sum.faults.keys() {
        assert!(
            swarm_simulation::FAULTS.contains(fault),
            "{fault} is not listed"
        );
    }
}
