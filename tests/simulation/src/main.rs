//! `./dev sim`: runs seeds and says what they covered.

use std::{process::ExitCode, time::Instant};

use swarm_simulation::{Options, run};

const USAGE: &str = "usage: ./dev sim [--seed S] [--seeds N] [--steps N]\n\n\
  With SWARM_SIM_LOG=FILE the log of the last seed is written there, a line for each message.";

fn main() -> ExitCode {
    let mut seed = None;
    let mut seeds = None;
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|v| v.parse::<u64>().ok());
        match (argument.as_str(), value) {
            ("--seed", Some(value)) => seed = Some(value),
            ("--seeds", Some(value)) => seeds = Some(value),
            ("--steps", Some(value)) => options.steps = value,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let first = seed.unwrap_or(1);
    let count = seeds.unwrap_or(if seed.is_some() { 1 } else { 100 });
    let began = Instant::now();
    let (mut failed, mut steps, mut messages, mut tasks, mut faults) =
        (0u64, 0u64, 0u64, 0u64, 0u64);
    for seed in first..first + count {
        let report = match run(seed, &options) {
            Ok(report) => {
                if count == 1 {
                    println!("{report}");
                }
                report
            }
            Err(failure) => {
                failed += 1;
                println!(
                    "seed {seed} failed: {}\n  {}\n  again: ./dev sim --seed {seed}",
                    failure.violation, failure.report
                );
                failure.report
            }
        };
        steps += report.steps;
        messages += report.messages;
        tasks += report.accepted;
        faults += report.faults.values().sum::<u64>();
    }
    println!(
        "{count} seeds, {failed} failed: {steps} steps, {messages} messages, {tasks} tasks, {faults} faults, {:.1} s",
        began.elapsed().as_secs_f32()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
