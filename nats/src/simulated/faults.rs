//! What goes wrong with appends, as a plan: scripted for one test, or drawn from a seed.

use std::collections::VecDeque;

/// Something that goes wrong with one append (of a message, or of an atomic batch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Stored, but the acknowledgement is lost: the outcome is unknown. (What would have been refused is not stored.)
    LostAck,
    /// Not stored, and the outcome is unknown.
    LostMessage,
    /// The outcome is unknown, and the message arrives late: at [`super::SimulatedLog::release_ghosts`]. On a cluster its
    /// check counts as in flight until then.
    Ghost,
    /// Answered with [`crate::AppendError::FenceBusy`] if it is fenced and the log is a cluster.
    Busy,
    /// The disk is full for this one.
    Full,
}

/// How often each fault happens, in thousandths of the appends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// [`Fault::LostAck`]
    pub lost_ack: u16,
    /// [`Fault::LostMessage`]
    pub lost_message: u16,
    /// [`Fault::Ghost`]
    pub ghost: u16,
    /// [`Fault::Busy`]
    pub busy: u16,
    /// [`Fault::Full`]
    pub full: u16,
}

/// Turns a plan's seed into that of the plan beside it; any number but zero does.
const BESIDE: u64 = 0xA5A5_5A5A_0F0F_F0F0;

/// A plan of faults. Each append takes the next entry.
#[derive(Clone, Debug, Default)]
pub struct Faults(Plan);

#[derive(Clone, Debug, Default)]
enum Plan {
    #[default]
    None,
    Script(VecDeque<Option<Fault>>),
    Seeded {
        state: u64,
        rates: FaultRates,
    },
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// One entry for each append (`None`: it goes well); after the last one nothing goes wrong any more.
    pub fn scripted(script: impl IntoIterator<Item = Option<Fault>>) -> Self {
        Self(Plan::Script(script.into_iter().collect()))
    }

    /// Faults at `rates`, the same ones for the same seed.
    pub fn seeded(seed: u64, rates: FaultRates) -> Self {
        Self(Plan::Seeded { state: seed, rates })
    }

    /// A plan at the same rates that draws on its own, so that what it is used for does not move the draws of this one.
    pub(super) fn beside(&self) -> Self {
        match self.0 {
            Plan::None | Plan::Script(_) => Self::none(),
            Plan::Seeded { state, rates } => Self::seeded(state ^ BESIDE, rates),
        }
    }

    pub(super) fn next(&mut self) -> Option<Fault> {
        match &mut self.0 {
            Plan::None => None,
            Plan::Script(script) => script.pop_front().flatten(),
            Plan::Seeded { state, rates } => {
                let mut roll = u16::try_from(split_mix(state) % 1_000).unwrap_or_default();
                let faults = [
                    (rates.lost_ack, Fault::LostAck),
                    (rates.lost_message, Fault::LostMessage),
                    (rates.ghost, Fault::Ghost),
                    (rates.busy, Fault::Busy),
                    (rates.full, Fault::Full),
                ];
                for (rate, fault) in faults {
                    if roll < rate {
                        return Some(fault);
                    }
                    roll -= rate;
                }
                None
            }
        }
    }
}

/// SplitMix64: small, and the same on every machine and version.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
