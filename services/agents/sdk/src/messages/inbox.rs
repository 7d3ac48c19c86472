//! What waits at an agent to be handled. Pure.
//!
//! Senders take turns, one message each, so that one who sends much delays itself. Room is bounded: what has none is left in
//! the stream and read again later. A sender with few messages there gets room before one with many, whose last one goes
//! back for it. Messages of one sender are handled in their order, whatever was left out meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A fair queue of bounded size. `K` is a sender.
#[derive(Debug)]
pub struct Inbox<K, M> {
    most: usize,
    waiting: usize,
    queues: BTreeMap<K, VecDeque<(u64, M)>>,
    /// Whose turn it was last.
    turn: Option<K>,
    /// From which sequence on a sender's messages are still in the stream only. Nothing newer of it is taken before.
    left: BTreeMap<K, u64>,
    /// The reading of the stream that is under way.
    reading: Option<Reading<K>>,
}

#[derive(Debug)]
struct Reading<K> {
    from: u64,
    /// Senders for which there was no room in it.
    shut: BTreeSet<K>,
}

impl<K: Ord + Clone, M> Inbox<K, M> {
    /// An empty one with room for `most` messages.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            waiting: 0,
            queues: BTreeMap::new(),
            turn: None,
            left: BTreeMap::new(),
            reading: None,
        }
    }

    /// Another bound. What waits beyond a lower one stays.
    pub fn resize(&mut self, most: usize) {
        self.most = most.max(1);
    }

    /// How many wait.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.waiting
    }
    /// From which sequence on the stream is to be read again, if something was left in it.
    pub fn behind(&self) -> Option<u64> {
        self.left.values().copied().min()
    }
    /// Whether it is worth while to read it again: half of the room is free.
    pub fn has_room(&self) -> bool {
        self.waiting <= self.most / 2
    }

    /// The stream is read in order from `from` on, until [`Self::end`].
    pub fn begin(&mut self, from: u64) {
        self.reading = Some(Reading {
            from,
            shut: BTreeSet::new(),
        });
    }
    /// It has been read up to `to`; `all`: nothing is stored behind that.
    pub fn end(&mut self, to: u64, all: bool) {
        let Some(reading) = self.reading.take() else {
            return;
        };
        self.left.retain(|key, left| {
            if reading.shut.contains(key) || *left < reading.from {
                return true;
            }
            if all {
                return false;
            }
            *left = (*left).max(to.saturating_add(1));
            true
        });
    }

    /// A message of the stream. `false`: it has to wait there; the sequences that had to give way for it are in `out`.
    pub fn offer(&mut self, key: &K, sequence: u64, message: M, out: &mut Vec<u64>) -> bool {
        let may = match (&self.reading, self.left.get(key)) {
            (_, None) => true,
            (Some(reading), Some(left)) => *left >= reading.from && !reading.shut.contains(key),
            (None, Some(_)) => false,
        };
        if !may || !self.make_room(key, out) {
            self.leave(key, sequence);
            return false;
        }
        self.queues
            .entry(key.clone())
            .or_default()
            .push_back((sequence, message));
        self.waiting += 1;
        true
    }

    /// It stays in the stream for now.
    pub fn leave(&mut self, key: &K, sequence: u64) {
        let shut = match &mut self.reading {
            Some(reading) if self.left.get(key).is_none_or(|left| *left >= reading.from) => {
                !reading.shut.insert(key.clone())
            }
            _ => self.left.contains_key(key),
        };
        if shut {
            let left = self.left.entry(key.clone()).or_insert(sequence);
            *left = (*left).min(sequence);
        } else {
            // Whatever was left of it before has been offered again since.
            self.left.insert(key.clone(), sequence);
        }
    }

    /// Room for one more of this sender: free, or taken from the one with most messages, if that has at least two more.
    fn make_room(&mut self, key: &K, out: &mut Vec<u64>) -> bool {
        if self.waiting < self.most {
            return true;
        }
        let own = self.queues.get(key).map_or(0, VecDeque::len);
        let most = self
            .queues
            .iter()
            .max_by_key(|(_, queue)| queue.len())
            .map(|(key, queue)| (key.clone(), queue.len()));
        let Some((longest, len)) = most.filter(|(_, len)| *len > own + 1) else {
            return false;
        };
        debug_assert!(len > 1);
        let Some((sequence, _)) = self
            .queues
            .get_mut(&longest)
            .and_then(|queue| queue.pop_back())
        else {
            return false;
        };
        self.waiting -= 1;
        self.leave(&longest, sequence);
        out.push(sequence);
        true
    }

    /// The next one: of the sender after the one whose turn it was, leaving out those for whom `busy` holds.
    pub fn next(&mut self, busy: impl Fn(&K) -> bool) -> Option<(K, u64, M)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let after = match &self.turn {
            Some(turn) => (Excluded(turn), Unbounded),
            None => (Unbounded, Unbounded),
        };
        let until = match &self.turn {
            Some(turn) => (Unbounded, Included(turn)),
            None => (Unbounded, Unbounded),
        };
        let key = self
            .queues
            .range(after)
            .chain(self.queues.range(until))
            .map(|(key, _)| key)
            .find(|key| !busy(key))?
            .clone();
        let queue = self.queues.get_mut(&key)?;
        let (sequence, message) = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&key);
        }
        self.waiting -= 1;
        self.turn = Some(key.clone());
        Some((key, sequence, message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(inbox: &mut Inbox<char, u64>) -> String {
        std::iter::from_fn(|| inbox.next(|_| false))
            .map(|(key, ..)| key)
            .collect()
    }
    fn offer(inbox: &mut Inbox<char, u64>, key: char, sequence: u64) -> bool {
        inbox.offer(&key, sequence, sequence, &mut Vec::new())
    }

    #[test]
    fn senders_take_turns() {
        // Given one who sent five messages before two others sent one each
        let mut inbox = Inbox::new(10);
        for (key, sequence) in "cccccab".chars().zip(1..) {
            assert!(offer(&mut inbox, key, sequence));
        }
        // Then these are handled next, and not after all of its
        assert_eq!(drain(&mut inbox), "abccccc");
        // When more comes, whoever was served last is served last
        for (key, sequence) in "cba".chars().zip(8..) {
            offer(&mut inbox, key, sequence);
        }
        assert_eq!(drain(&mut inbox), "abc");
    }

    #[test]
    fn who_is_busy_is_passed_over() {
        let mut inbox = Inbox::new(10);
        offer(&mut inbox, 'a', 1);
        offer(&mut inbox, 'b', 2);
        assert_eq!(inbox.next(|key| *key == 'a'), Some(('b', 2, 2)));
        assert_eq!(inbox.next(|key| *key == 'a'), None);
        assert_eq!(inbox.len(), 1);
    }

    #[test]
    fn in_a_full_inbox_the_one_with_few_messages_has_room() {
        // Given an inbox that one sender has filled
        let mut inbox = Inbox::new(4);
        for sequence in 1..=4 {
            assert!(offer(&mut inbox, 'c', sequence));
        }
        // When it sends on, that waits in the stream
        assert!(!offer(&mut inbox, 'c', 5));
        assert_eq!(inbox.behind(), Some(5));
        // When another one sends, it has room, and the last one of the first goes back
        let mut out = Vec::new();
        assert!(inbox.offer(&'q', 6, 6, &mut out));
        assert_eq!((out, inbox.behind(), inbox.len()), (vec![4], Some(4), 4));
        // Then nothing newer of the first is taken before what was left out has been read
        inbox.next(|_| false);
        assert!(!offer(&mut inbox, 'c', 7));
        assert_eq!(inbox.behind(), Some(4));
    }

    #[test]
    fn what_was_left_out_is_taken_in_order_when_it_is_read_again() {
        let mut inbox = Inbox::new(2);
        for sequence in 1..=5 {
            offer(&mut inbox, 'c', sequence);
        }
        assert_eq!(inbox.behind(), Some(3));
        let mut handled = Vec::new();
        while let Some((_, sequence, _)) = inbox.next(|_| false) {
            handled.push(sequence);
            if let Some(from) = inbox.behind().filter(|_| inbox.has_room()) {
                inbox.begin(from);
                for sequence in from..=5 {
                    offer(&mut inbox, 'c', sequence);
                }
                inbox.end(5, true);
            }
        }
        assert_eq!(handled, [1, 2, 3, 4, 5]);
        assert_eq!(inbox.behind(), None);
    }

    #[test]
    fn a_reading_that_ends_early_leaves_the_rest_for_the_next() {
        let mut inbox = Inbox::new(2);
        for sequence in 1..=3 {
            offer(&mut inbox, 'c', sequence);
        }
        drain(&mut inbox);
        inbox.begin(3);
        assert!(offer(&mut inbox, 'c', 3));
        inbox.end(3, false);
        // What comes live may lie behind more of it in the stream.
        assert!(!offer(&mut inbox, 'c', 9));
        assert_eq!(inbox.behind(), Some(4));
    }

    proptest! {
        #[test]
        fn each_is_handled_once_and_each_senders_in_order(
            senders in prop::collection::vec(0_u8..4, 1..120),
            most in 1_usize..8,
            page in 1_u64..9,
            served in prop::collection::vec(any::<bool>(), 0..120),
        ) {
            // The stream grows by one message at a time, which is offered live; in between some are handled, and what was
            // left out is read again in pages.
            let mut inbox = Inbox::new(most);
            let (mut handled, mut known): (Vec<(u8, u64)>, BTreeSet<u64>) = (Vec::new(), BTreeSet::new());
            let mut served = served.into_iter();
            let mut stored = 0;
            loop {
                let mut out = Vec::new();
                let growing = stored < senders.len() as u64;
                if growing {
                    stored += 1;
                    let key = senders[stored as usize - 1];
                    if inbox.offer(&key, stored, (), &mut out) { known.insert(stored); }
                }
                for gone in out.drain(..) { known.remove(&gone); }
                prop_assert!(inbox.len() <= most);
                if !growing || served.next().unwrap_or(false) {
                    match inbox.next(|_| false) {
                        Some((key, sequence, ())) => handled.push((key, sequence)),
                        None if !growing && inbox.behind().is_none() => break,
                        None => {}
                    }
                }
                if let Some(from) = inbox.behind().filter(|_| inbox.has_room()) {
                    inbox.begin(from);
                    let to = stored.min(from + page - 1);
                    for sequence in from..=to {
                        if known.contains(&sequence) { continue; }
                        let key = senders[sequence as usize - 1];
                        if inbox.offer(&key, sequence, (), &mut out) { known.insert(sequence); }
                        for gone in out.drain(..) { known.remove(&gone); }
                    }
                    inbox.end(to, to == stored);
                }
            }
            prop_assert_eq!(handled.len(), senders.len());
            for sender in 0..4 {
                let of: Vec<u64> = handled.iter().filter(|(key, _)| *key == sender).map(|(_, s)| *s).collect();
                prop_assert!(of.is_sorted(), "{of:?}");
            }
        }
    }
}
