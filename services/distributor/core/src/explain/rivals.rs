//! The queued tasks that compete with one: how many are before it, and at which priority it would be before them.

use swarm_events::Timestamp;

use super::{COUNT_MAX, Count};
use crate::{plan::ready::look::Queue, swarm::rank};

/// What goes before what: the smallest rank, then the sequence of the submission.
pub(super) type Rank = (i64, u64);

/// The tasks that compete with one.
pub(super) struct Rivals<'a> {
    pub(super) queues: Vec<Queue<'a>>,
    /// There are more queues than are looked at.
    pub(super) cut: bool,
    pub(super) step_ms: u64,
    /// Its number, its rank, and when it was queued.
    pub(super) own: (u32, Rank, Timestamp),
}

impl<'a> Rivals<'a> {
    fn rank(&self, queued_at: Timestamp, priority: u8) -> i64 {
        rank(queued_at, priority, self.step_ms)
    }

    /// How many go before it in the queues that `with` names.
    pub(super) fn ahead(&self, with: impl Fn(&Queue<'a>) -> bool) -> Count {
        let mut ahead = Count {
            count: 0,
            at_least: self.cut,
        };
        let (_, (own, sequence), _) = self.own;
        let mut steps = COUNT_MAX;
        for queue in self.queues.iter().filter(|queue| with(queue)) {
            // Whoever was queued before this goes first: the rank solved for the time.
            let boost = self.rank(Timestamp::ZERO, queue.priority);
            let border = Timestamp::from_micros(own.saturating_sub(boost));
            let counted = before(queue, (border, sequence, 0), &mut steps);
            ahead.count += counted.count;
            ahead.at_least |= counted.at_least;
        }
        ahead
    }

    /// The best of the others in the queues that `with` names.
    fn best(&self, with: impl Fn(&Queue<'a>) -> bool) -> Option<Rank> {
        self.queues
            .iter()
            .filter(|queue| with(queue))
            .filter_map(|queue| {
                let other = queue.tasks.iter().find(|&&(.., at)| at != self.own.0);
                other.map(|&(at, sequence, _)| (self.rank(at, queue.priority), sequence))
            })
            .min()
    }

    /// The lowest priority at which it would be before all others in these queues, if one up to 10 is enough.
    pub(super) fn least_priority(&self, with: impl Fn(&Queue<'a>) -> bool) -> Option<u8> {
        if self.cut || self.step_ms == 0 {
            return None;
        }
        let (rank, sequence) = self.best(with)?;
        let (_, (_, own), queued_at) = self.own;
        (1..=10).find(|&priority| (self.rank(queued_at, priority), own) < (rank, sequence))
    }
}

/// How many of a queue go before `border`. Walks from both ends, so that it is exact if few are on either side.
fn before(queue: &Queue<'_>, border: (Timestamp, u64, u32), steps: &mut u64) -> Count {
    let all = queue.tasks.len() as u64;
    let exact = |count| Count {
        count,
        at_least: false,
    };
    match (queue.tasks.first(), queue.tasks.last()) {
        (Some(first), _) if *first >= border => return exact(0),
        (_, Some(last)) if *last < border => return exact(all),
        (None, _) => return exact(0),
        _ => {}
    }
    let (mut before, mut after) = (queue.tasks.range(..border), queue.tasks.range(border..));
    let mut seen = 0;
    while *steps > 0 {
        if before.next().is_none() {
            return exact(seen);
        }
        if after.next().is_none() {
            return exact(all - seen);
        }
        seen += 1;
        *steps -= 1;
    }
    Count {
        count: seen.max(1),
        at_least: true,
    }
}
