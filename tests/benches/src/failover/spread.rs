//! Least, middle and worst of a few times.

use std::fmt;

/// Times in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread(Vec<i64>);

impl FromIterator<i64> for Spread {
    fn from_iter<T: IntoIterator<Item = i64>>(times: T) -> Self {
        let mut times: Vec<i64> = times.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }
}

impl Spread {
    /// The smallest time that at least `percent` % of all do not exceed; 0 of nothing. Of 30 runs the 99th percentile is
    /// the worst one.
    pub fn percentile(&self, percent: usize) -> i64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or(0)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |percent| self.percentile(percent) as f64 / 1e6;
        write!(
            f,
            "{:>8.3} {:>8.3} {:>8.3} s",
            seconds(0),
            seconds(50),
            seconds(99)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let spread: Spread = (1..=30).rev().collect();
        assert_eq!(
            (
                spread.percentile(0),
                spread.percentile(50),
                spread.percentile(99)
            ),
            (1, 15, 30)
        );
        let hundred: Spread = (1..=200).collect();
        assert_eq!(hundred.percentile(99), 198);
        assert_eq!(Spread::default().percentile(99), 0);
    }
}
