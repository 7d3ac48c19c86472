//! Attempts over a sliding window, in whole numbers: six buckets, of which the oldest falls out as a whole.

use serde::{Deserialize, Serialize};
use swarm_events::Timestamp;

/// Buckets of a window. What is looked back on is thus five to six sixths of it long.
pub const BUCKETS: i64 = 6;

/// How many attempts failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Attempts that ended within the window.
    pub attempts: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Their share in percent, rounded down; 0 if there was no attempt.
    pub percent: u32,
}
impl Rate {
    fn new(attempts: u64, failed: u64) -> Self {
        let percent = failed.saturating_mul(100).checked_div(attempts);
        Self {
            attempts,
            failed,
            percent: percent.map_or(0, |percent| u32::try_from(percent).unwrap_or(u32::MAX)),
        }
    }
    /// What is left without `part`.
    pub(crate) fn without(self, part: Self) -> Self {
        Self::new(
            self.attempts.saturating_sub(part.attempts),
            self.failed.saturating_sub(part.failed),
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    /// Log time divided by the bucket's width.
    index: i64,
    attempts: u64,
    failed: u64,
}

/// The attempts of a window, at most [`BUCKETS`] buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Of a bucket, in milliseconds.
    width_ms: i64,
    /// In the order of time.
    buckets: Vec<Bucket>,
}

impl Window {
    /// An empty one of this length.
    pub(crate) fn new(window_ms: u64) -> Self {
        let width = i64::try_from(window_ms).unwrap_or(i64::MAX) / BUCKETS;
        Self {
            width_ms: width.max(1),
            buckets: Vec::new(),
        }
    }

    fn index(&self, now: Timestamp) -> i64 {
        now.as_millis().div_euclid(self.width_ms)
    }

    /// Counts attempts that ended now.
    pub(crate) fn add(&mut self, now: Timestamp, completed: u64, failed: u64) {
        let attempts = completed.saturating_add(failed);
        if attempts == 0 {
            return;
        }
        let index = self.index(now);
        self.buckets
            .retain(|bucket| bucket.index > index.saturating_sub(BUCKETS));
        match self.buckets.last_mut() {
            // The log's time never goes back.
            Some(last) if last.index >= index => {
                last.attempts = last.attempts.saturating_add(attempts);
                last.failed = last.failed.saturating_add(failed);
            }
            _ => self.buckets.push(Bucket {
                index,
                attempts,
                failed,
            }),
        }
    }

    /// Takes the attempts of another window of the same length out of this one.
    pub(crate) fn take_out(&mut self, other: &Self) {
        for gone in &other.buckets {
            if let Some(bucket) = self.buckets.iter_mut().find(|b| b.index == gone.index) {
                bucket.attempts = bucket.attempts.saturating_sub(gone.attempts);
                bucket.failed = bucket.failed.saturating_sub(gone.failed);
            }
        }
        self.buckets.retain(|bucket| bucket.attempts > 0);
    }

    fn counted(&self, now: Timestamp) -> impl Iterator<Item = &Bucket> {
        let after = self.index(now).saturating_sub(BUCKETS);
        self.buckets
            .iter()
            .filter(move |bucket| bucket.index > after)
    }

    /// What the window shows now.
    pub(crate) fn rate(&self, now: Timestamp) -> Rate {
        let (attempts, failed) = self.counted(now).fold((0u64, 0u64), |(a, f), bucket| {
            (
                a.saturating_add(bucket.attempts),
                f.saturating_add(bucket.failed),
            )
        });
        Rate::new(attempts, failed)
    }

    /// When it next shows something else, without a new attempt: its oldest bucket falls out.
    pub(crate) fn next_slide(&self, now: Timestamp) -> Option<Timestamp> {
        let oldest = self.counted(now).next()?;
        let millis = oldest
            .index
            .saturating_add(BUCKETS)
            .saturating_mul(self.width_ms);
        Some(Timestamp::from_micros(millis.saturating_mul(1_000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }
    fn figures(window: &Window, millis: i64) -> (u64, u64, u32) {
        let rate = window.rate(at(millis));
        (rate.attempts, rate.failed, rate.percent)
    }

    #[test]
    fn an_attempt_falls_out_with_its_bucket() {
        let mut window = Window::new(60_000);
        window.add(at(9_999), 1, 2);
        window.add(at(10_000), 1, 0);
        assert_eq!(figures(&window, 59_999), (4, 2, 50));
        assert_eq!(window.next_slide(at(59_999)), Some(at(60_000)));
        assert_eq!(figures(&window, 60_000), (1, 0, 0));
        assert_eq!(window.next_slide(at(60_000)), Some(at(70_000)));
        assert_eq!(figures(&window, 70_000), (0, 0, 0));
        assert_eq!(window.next_slide(at(70_000)), None);
    }

    #[test]
    fn no_more_buckets_are_held_than_a_window_has() {
        let mut window = Window::new(60_000);
        for step in 0..1_000 {
            window.add(at(step * 7_000), 1, 1);
            assert!(window.buckets.len() <= BUCKETS as usize);
        }
        assert!(figures(&window, 999 * 7_000).0 >= 12);
    }

    #[test]
    fn what_is_taken_out_is_not_counted() {
        let (mut all, mut one) = (Window::new(60_000), Window::new(60_000));
        one.add(at(5_000), 3, 1);
        all.add(at(5_000), 3, 1);
        all.add(at(5_000), 5, 0);
        all.add(at(15_000), 0, 2);
        all.take_out(&one);
        assert_eq!(figures(&all, 15_000), (7, 2, 28));
    }

    #[test]
    fn the_share_is_rounded_down_and_never_overflows() {
        let mut window = Window::new(6);
        window.add(at(0), 1, 2);
        assert_eq!(figures(&window, 0).2, 66);
        let mut window = Window::new(0);
        window.add(at(0), u64::MAX, u64::MAX);
        assert_eq!(figures(&window, 0).0, u64::MAX);
        window.add(Timestamp::from_micros(i64::MAX), 1, 0);
        let end = Timestamp::from_micros(i64::MAX);
        assert_eq!(window.rate(end).attempts, 1);
        assert!(window.next_slide(end).is_some());
    }
}
