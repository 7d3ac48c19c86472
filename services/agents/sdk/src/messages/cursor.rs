//! Up to where an agent has handled its messages, and whether it has missed some. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Most sequences that are remembered as handled above the floor. Beyond it newer messages wait in the stream.
pub const DONE_MAX: usize = 10_000;
/// Most subjects of which the last message is remembered. Beyond it the stream is read, and they are forgotten.
pub const SUBJECTS_MAX: usize = 10_000;

/// What is kept over a restart, as JSON on the blackboard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// When the stream was made, in microseconds: sequences of another one mean nothing.
    pub stream: i64,
    /// All up to here is handled.
    pub at: u64,
    /// And these above it.
    #[serde(default)]
    pub done: Vec<u64>,
}

/// Which messages are handled. An agent handles them out of their order, since senders take turns.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// The stream has been read up to here without a gap.
    read: u64,
    floor: u64,
    open: BTreeSet<u64>,
    done: BTreeSet<u64>,
}

impl Cursor {
    /// Where the process before left off.
    pub fn new(saved: &Saved) -> Self {
        Self {
            read: saved.at,
            floor: saved.at,
            open: BTreeSet::new(),
            done: saved
                .done
                .iter()
                .copied()
                .filter(|done| *done > saved.at)
                .collect(),
        }
    }

    /// The stream has been read up to here without a gap.
    pub const fn read(&self) -> u64 {
        self.read
    }
    /// Whether this message has been taken before.
    pub fn knows(&self, sequence: u64) -> bool {
        sequence <= self.floor || self.open.contains(&sequence) || self.done.contains(&sequence)
    }
    /// Whether it can remember one more.
    pub fn is_full(&self) -> bool {
        self.done.len() + self.open.len() >= DONE_MAX
    }
    /// How many are remembered one by one.
    pub fn remembered(&self) -> usize {
        self.done.len()
    }

    /// A message waits here.
    pub fn open(&mut self, sequence: u64) {
        self.open.insert(sequence);
    }
    /// It waits in the stream again.
    pub fn drop(&mut self, sequence: u64) {
        self.open.remove(&sequence);
    }
    /// It has been handled, or is for others.
    pub fn done(&mut self, sequence: u64) {
        self.open.remove(&sequence);
        if sequence > self.floor {
            self.done.insert(sequence);
        }
    }
    /// Nothing up to `read` is unknown any more; from `behind` on there are some that wait in the stream.
    pub fn settle(&mut self, read: u64, behind: Option<u64>) {
        self.read = self.read.max(read);
        let before = |at: u64| at.saturating_sub(1);
        let mut floor = self.read;
        if let Some(open) = self.open.first() {
            floor = floor.min(before(*open));
        }
        if let Some(behind) = behind {
            floor = floor.min(before(behind));
        }
        self.floor = self.floor.max(floor);
        self.done = self.done.split_off(&self.floor.saturating_add(1));
    }

    /// What is to be kept.
    pub fn saved(&self, stream: i64) -> Saved {
        Saved {
            stream,
            at: self.floor,
            done: self.done.iter().copied().collect(),
        }
    }
}

/// Finds out whether a live message was missed: each names the one before it on its subject.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    last: BTreeMap<Box<str>, u64>,
}

impl Gaps {
    /// A live message came. `true`: one before it was not met, since the stream was read up to `read`.
    pub fn missed(&mut self, subject: &str, sequence: u64, previous: u64, read: u64) -> bool {
        let known = self.last.get(subject).copied().unwrap_or(0).max(read);
        if previous > known {
            return true;
        }
        if known < sequence {
            self.last.insert(subject.into(), sequence);
        }
        false
    }
    /// The stream has been read up to `read`.
    pub fn read(&mut self, read: u64) {
        self.last.retain(|_, last| *last > read);
    }
    /// Whether too many subjects are remembered.
    pub fn is_full(&self) -> bool {
        self.last.len() >= SUBJECTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(at: u64, done: &[u64]) -> Saved {
        Saved {
            stream: 1,
            at,
            done: done.to_vec(),
        }
    }

    #[test]
    fn the_floor_lies_below_what_is_not_handled() {
        // Given an agent that has read the stream up to 10
        let mut cursor = Cursor::new(&saved(3, &[]));
        for sequence in [5, 7, 9] {
            cursor.open(sequence);
        }
        cursor.settle(10, None);
        assert_eq!(cursor.saved(1), saved(4, &[]));
        // When it has handled the last ones first
        cursor.done(9);
        cursor.done(7);
        cursor.settle(10, None);
        // Then they are remembered one by one, until all before them are handled
        assert_eq!(cursor.saved(1), saved(4, &[7, 9]));
        cursor.done(5);
        cursor.settle(10, None);
        assert_eq!(cursor.saved(1), saved(10, &[]));
    }

    #[test]
    fn what_waits_in_the_stream_holds_the_floor_down() {
        let mut cursor = Cursor::new(&saved(0, &[]));
        cursor.open(4);
        cursor.open(8);
        cursor.drop(8);
        cursor.done(4);
        cursor.settle(8, Some(8));
        assert_eq!(cursor.saved(1), saved(7, &[]));
        assert!(cursor.knows(4) && !cursor.knows(8));
    }

    #[test]
    fn a_live_message_does_not_prove_that_those_before_it_were_met() {
        // Given a floor of 3, when a live message is handled at 8
        let mut cursor = Cursor::new(&saved(3, &[]));
        cursor.open(8);
        cursor.done(8);
        cursor.settle(3, None);
        // Then the floor stays until the stream has been read: a hint on another subject may have been lost
        assert_eq!(cursor.saved(1), saved(3, &[8]));
    }

    #[test]
    fn a_restart_knows_what_was_handled() {
        let cursor = Cursor::new(&saved(3, &[2, 5]));
        assert!(cursor.knows(3) && cursor.knows(5) && !cursor.knows(4));
        assert_eq!(cursor.saved(1), saved(3, &[5]));
    }

    #[test]
    fn gaps_are_seen_on_each_subject() {
        let mut gaps = Gaps::default();
        // Behind what was read, everything before is known.
        assert!(!gaps.missed("a", 12, 9, 10));
        assert!(!gaps.missed("b", 13, 0, 10));
        // On `a` one was missed between 12 and 20; on `b` none.
        assert!(gaps.missed("a", 20, 15, 10));
        assert!(!gaps.missed("b", 21, 13, 10));
        // Once the stream has been read up to there, nothing is missing.
        gaps.read(21);
        assert!(!gaps.missed("a", 22, 20, 21));
        assert_eq!(gaps.last.len(), 1);
    }

    #[test]
    fn a_repeat_of_an_old_hint_is_no_gap() {
        let mut gaps = Gaps::default();
        assert!(!gaps.missed("a", 12, 9, 10));
        assert!(!gaps.missed("a", 12, 9, 10));
        assert!(!gaps.missed("a", 5, 4, 10));
        assert!(!gaps.missed("a", 14, 12, 10));
    }
}
