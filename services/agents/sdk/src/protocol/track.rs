//! How far a subject of the agent's own has been read.

use swarm_events::planted::{self, Bug};

use super::{CATCH_UP_RETRY_MS, HINT_WAIT_MS, Millis, Via};

pub(super) struct Track {
    /// Everything on the subject up to here has been met. The last message met, or the join.
    last: u64,
    /// A message with this sequence is on the subject.
    announced: u64,
    /// The server says that there is more than was met; when that was heard.
    refused_at: Option<Millis>,
    catching_up: bool,
    retry_at: Millis,
}

impl Track {
    /// A subject whose last message is `last` (0: none), of interest from `joined` on.
    pub(super) fn new(joined: u64, last: u64) -> Self {
        let (met, announced) = if last > joined {
            (joined, last)
        } else {
            (last, 0)
        };
        Self {
            last: met,
            announced,
            refused_at: None,
            catching_up: false,
            retry_at: 0,
        }
    }

    /// The last sequence up to which nothing is unseen.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Whether the message at `sequence` is the next one; a gap is remembered.
    pub(super) fn meets(&mut self, sequence: u64, via: Via) -> bool {
        if sequence <= self.last && !planted::is(Bug::StartsTwice) {
            return false;
        }
        if matches!(via, Via::Live { previous } if previous > self.last) {
            self.announced(sequence);
            return false;
        }
        self.last = self.last.max(sequence);
        self.refused_at = None;
        true
    }

    /// There is a message at `sequence` (0: none).
    pub(super) fn announced(&mut self, sequence: u64) {
        self.announced = self.announced.max(sequence);
    }

    /// The server refused a check against this subject's last message as met.
    pub(super) fn refused(&mut self, now: Millis) {
        self.refused_at.get_or_insert(now);
    }

    pub(super) fn caught_up(&mut self, now: Millis, complete: bool) {
        self.catching_up = false;
        if complete {
            self.refused_at = None;
        }
        // If the gap is still there (the catch-up ended early, or began too soon), not at once again.
        self.retry_at = now + CATCH_UP_RETRY_MS;
    }

    const fn gap(&self) -> bool {
        self.announced > self.last || self.refused_at.is_some()
    }

    /// The sequence under which a write may be checked, `None` while it is known to be wrong.
    pub(super) fn fence(&self) -> Option<u64> {
        (!self.gap()).then_some(self.last)
    }

    fn due(&self) -> Option<Millis> {
        if self.catching_up {
            None
        } else if self.announced > self.last {
            Some(self.retry_at)
        } else {
            self.refused_at
                .map(|at| (at + HINT_WAIT_MS).max(self.retry_at))
        }
    }

    /// From where to catch up, if that is due; it is under way from here on.
    pub(super) fn catch_up(&mut self, now: Millis) -> Option<u64> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.catching_up = true;
        Some(self.last + 1)
    }

    pub(super) fn wake_at(&self) -> Option<Millis> {
        self.due()
    }
}
