//! What a loop shows of itself: for probes, `swarm status` and metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Figures of one loop; all of them are counted, none is estimated.
#[derive(Debug, Default)]
pub struct LoopStatus {
    caught_up: AtomicBool,
    owned: AtomicU64,
    wanted: AtomicU64,
    sequence: AtomicU64,
    decisions: AtomicU64,
    voids: AtomicU64,
    doubts: AtomicU64,
    unfoldable: AtomicU64,
    interrupted: AtomicBool,
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident, $set:ident, $add:ident);+ $(;)?) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> u64 { self.$name.load(Ordering::Relaxed) }
        #[allow(dead_code, reason = "not every figure is both set and counted")]
        pub(crate) fn $set(&self, value: u64) { self.$name.store(value, Ordering::Relaxed) }
        #[allow(dead_code, reason = "not every figure is both set and counted")]
        pub(crate) fn $add(&self, value: u64) { self.$name.fetch_add(value, Ordering::Relaxed); }
    )+};
}

impl LoopStatus {
    figures! {
        /// Partitions that it decides for.
        owned, set_owned, add_owned;
        /// Partitions that it wants to decide for.
        wanted, set_wanted, add_wanted;
        /// Last sequence met.
        sequence, set_sequence, add_sequence;
        /// Decisions appended.
        decisions, set_decisions, add_decisions;
        /// Inputs found void.
        voids, set_voids, add_voids;
        /// Times that it claimed again for doubt.
        doubts, set_doubts, add_doubts;
        /// Partitions that hold what this version cannot fold.
        unfoldable, set_unfoldable, add_unfoldable;
    }
    /// Whether the log had been folded to its end once.
    pub fn caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Relaxed)
    }
    pub(crate) fn set_caught_up(&self) {
        self.caught_up.store(true, Ordering::Relaxed);
    }
    /// Whether the tail is cut off right now.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
    pub(crate) fn set_interrupted(&self, interrupted: bool) {
        self.interrupted.store(interrupted, Ordering::Relaxed);
    }
    /// Decides for all that it should.
    pub fn ready(&self) -> bool {
        self.caught_up()
            && !self.interrupted()
            && self.unfoldable() == 0
            && self.owned() >= self.wanted()
    }
}
