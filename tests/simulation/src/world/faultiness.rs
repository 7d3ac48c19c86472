//! How much goes wrong.

use rand::{Rng, rngs::StdRng};
use swarm_log::simulated::FaultRates;

/// How much goes wrong around messages and agents.
#[derive(Clone, Copy, Debug)]
pub struct Faultiness {
    /// Live hints lost, in thousandths.
    pub lost_hints: u32,
    /// Attempts that fail, in thousandths.
    pub failing: u32,
    /// Attempts that outlive their time limit, in thousandths.
    pub slow: u32,
    /// Attempts that take long and tell of their progress, in thousandths.
    pub telling: u32,
    /// Tasks that an agent gives back, in thousandths.
    pub declining: u32,
    /// Tasks that an agent hands on in parts, in thousandths.
    pub splitting: u32,
    /// Tasks about which an agent asks something, in thousandths.
    pub asking: u32,
    /// Longest delay of a message, in microseconds.
    pub delay_max: u64,
}
impl Faultiness {
    /// Microseconds that a message or an acknowledgement takes.
    pub fn delay(self, rng: &mut StdRng) -> u64 {
        if rng.random_ratio(1, 20) {
            // Never at once: what is answered stands in the journal.
            rng.random_range(1..=self.delay_max)
        } else {
            rng.random_range(100..2_000)
        }
    }
}
pub(super) const FAULTY: Faultiness = Faultiness {
    lost_hints: 50,
    failing: 120,
    slow: 20,
    telling: 40,
    declining: 30,
    splitting: 50,
    asking: 40,
    delay_max: 400_000,
};
pub(super) const CALM: Faultiness = Faultiness {
    lost_hints: 0,
    failing: 0,
    slow: 0,
    telling: 0,
    declining: 0,
    splitting: 0,
    asking: 0,
    delay_max: 5_000,
};
pub(super) const RATES: FaultRates = FaultRates {
    lost_ack: 12,
    lost_message: 12,
    ghost: 12,
    busy: 10,
    full: 2,
};
/// The log is full.
pub(super) const FULL: FaultRates = FaultRates {
    full: 1_000,
    ..RATES
};
