//! A test of the test: defects that are known, planted one at a time, must be found.

use std::{fmt, panic::catch_unwind};

use swarm_events::planted::{Bug, plant};

use crate::{Options, Violation, run};

/// A defect that takes a verdict in flight across a second join, which seeds draw too seldom. A test of the core finds it:
/// `another_incarnation_or_nobody_is_not_judged` in `services/health/core/tests/verdicts.rs`.
pub const FOUND_BY_UNIT_TESTS: [Bug; 1] = [Bug::OldIncarnationFailed];

/// A defect that was found.
#[derive(Clone, Debug)]
pub struct Caught {
    /// Which.
    pub bug: Bug,
    /// After how many seeds.
    pub seeds: u64,
    /// The promise that it broke; none if the run panicked.
    pub violation: Option<Violation>,
}
impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bug = format!("{:?}", self.bug);
        match &self.violation {
            Some(violation) => write!(
                f,
                "{bug:28} {:3} seeds  {} ({})",
                self.seeds, violation.invariant, violation.detail
            ),
            None => write!(f, "{bug:28} {:3} seeds  a panic", self.seeds),
        }
    }
}

/// Plants `bug` and runs seeds from `first` on until one of `count` fails.
pub fn hunt(bug: Bug, first: u64, count: u64, options: &Options) -> Option<Caught> {
    plant(Some(bug));
    let found = (first..first + count).enumerate().find_map(|(n, seed)| {
        let seeds = n as u64 + 1;
        let violation = match catch_unwind(|| run(seed, options)) {
            Ok(Ok(_)) => return None,
            Ok(Err(failure)) => Some(failure.violation),
            Err(_) => None,
        };
        Some(Caught {
            bug,
            seeds,
            violation,
        })
    });
    plant(None);
    found
}
