//! How often an agent may speak. Pure: the caller says what time it is.

use std::collections::VecDeque;

/// Milliseconds in which no more messages go than the swarm allows.
const WINDOW_MS: u64 = 1_000;

/// A bucket of tokens, each of which comes back a second after it was taken: in no second, wherever it begins, do more
/// messages go than the limit says, and over time exactly as many.
#[derive(Debug, Default)]
pub struct Rate {
    /// When the tokens that are out were taken, the first one first.
    out: VecDeque<u64>,
}

impl Rate {
    /// Takes a token at `now`, if there is one of `most`.
    ///
    /// # Errors
    /// None is there: how many milliseconds it takes until one is.
    pub fn take(&mut self, now: u64, most: u32) -> Result<(), u64> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
        while self
            .out
            .front()
            .is_some_and(|taken| taken.saturating_add(WINDOW_MS) <= now)
        {
            self.out.pop_front();
        }
        if self.out.len() < most {
            self.out.push_back(now);
            return Ok(());
        }
        // The limit may have been lowered: then more than one must come back first.
        let back = self.out[self.out.len() - most];
        Err(back.saturating_add(WINDOW_MS).saturating_sub(now).max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_over_the_limit_waits_until_a_second_has_passed() {
        // Given an agent that may send three messages a second
        let mut rate = Rate::default();
        // When it sends three at once
        for _ in 0..3 {
            assert_eq!(rate.take(100, 3), Ok(()));
        }
        // Then the fourth waits for the first to be a second old, and not longer
        assert_eq!(rate.take(100, 3), Err(1_000));
        assert_eq!(rate.take(1_099, 3), Err(1));
        assert_eq!(rate.take(1_100, 3), Ok(()));
    }

    #[test]
    fn a_limit_that_was_changed_holds_at_once() {
        let mut rate = Rate::default();
        for at in [0, 10, 20, 30] {
            assert_eq!(rate.take(at, 4), Ok(()));
        }
        // Lowered to one: the last one must come back first.
        assert_eq!(rate.take(40, 1), Err(990));
        // Raised: there is one at once.
        assert_eq!(rate.take(40, 5), Ok(()));
        assert_eq!(rate.take(40, 5), Err(960));
    }

    proptest! {
        #[test]
        fn in_no_second_do_more_go_than_the_limit(steps in prop::collection::vec(0_u64..400, 1..200), most in 1_u32..6) {
            let (mut rate, mut now, mut sent) = (Rate::default(), 0, Vec::new());
            for step in steps {
                now += step;
                while let Err(wait) = rate.take(now, most) {
                    prop_assert!(wait > 0 && wait <= 1_000);
                    now += wait;
                }
                sent.push(now);
            }
            for (at, first) in sent.iter().enumerate() {
                let within = sent[at..].iter().filter(|t| **t < first + 1_000).count();
                prop_assert!(within <= most as usize, "{within} from {first} on");
            }
        }
    }
}
