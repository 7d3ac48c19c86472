//! What was found.

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::{Invariant, Violation};

/// Violations of one promise that are kept with their words; more are counted. Nobody reads the thousand-and-first.
pub const VIOLATIONS_KEPT_MAX: u64 = 1_000;

/// How often a promise was checked, and found broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times that it could have been broken.
    pub checked: u64,
    /// Times that it was.
    pub violated: u64,
}

#[derive(Debug)]
pub(crate) struct Notes {
    pub(crate) violations: Vec<Violation>,
    pub(crate) tallies: BTreeMap<Invariant, Tally>,
    pub(crate) voids: BTreeMap<&'static str, u64>,
    pub(crate) range: RangeInclusive<u64>,
    /// What is met now lies within the range.
    pub(crate) inside: bool,
}
impl Default for Notes {
    fn default() -> Self {
        Self {
            violations: Vec::new(),
            tallies: BTreeMap::new(),
            voids: BTreeMap::new(),
            range: 0..=u64::MAX,
            inside: true,
        }
    }
}
impl Notes {
    pub(crate) fn checked(&mut self, invariant: Invariant) {
        if self.inside {
            self.tallies.entry(invariant).or_default().checked += 1;
        }
    }
    pub(crate) fn broken(
        &mut self,
        invariant: Invariant,
        sequence: u64,
        detail: impl FnOnce() -> String,
    ) {
        if !self.inside {
            return;
        }
        let tally = self.tallies.entry(invariant).or_default();
        tally.violated += 1;
        if tally.violated <= VIOLATIONS_KEPT_MAX {
            self.violations.push(Violation {
                invariant,
                sequence,
                detail: detail(),
            });
        }
    }
    pub(crate) fn void(&mut self, why: &'static str) {
        if self.inside {
            *self.voids.entry(why).or_default() += 1;
        }
    }
}
