//! Which snapshots are kept.

/// The newest ones are kept: the last may be damaged, and a reader of an older sequence (the projector) is seldom far back.
pub const NEWEST_KEPT: usize = 3;
/// Beyond them one is kept for each of these ages, in multiples of [`super::EVERY`].
pub const AGES_KEPT: [u64; 2] = [10, 100];

/// Those of `sequences` that are to be deleted, ascending. Kept are the [`NEWEST_KEPT`] newest; then, for each of
/// [`AGES_KEPT`], the oldest that is not older than that age but older than the age before. If the last class is empty, the
/// youngest beyond it stays until one comes of age, so that there is always something far back.
pub fn surplus(sequences: &[u64], every: u64) -> Vec<u64> {
    let mut sorted = sequences.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let Some(&newest) = sorted.last() else {
        return sorted;
    };
    let old = sorted.len().saturating_sub(NEWEST_KEPT);
    let mut kept: Vec<u64> = sorted[old..].to_vec();
    let mut above = None;
    for age in AGES_KEPT {
        let horizon = newest.saturating_sub(age.saturating_mul(every));
        let within =
            |sequence: &&u64| **sequence >= horizon && above.is_none_or(|above| **sequence < above);
        kept.extend(sorted[..old].iter().find(within));
        above = Some(horizon);
    }
    if let Some(horizon) = above {
        let far = sorted[..old].iter().rfind(|s| **s < horizon);
        let previous = newest.saturating_sub(AGES_KEPT[AGES_KEPT.len() - 2].saturating_mul(every));
        if !kept.iter().any(|s| (horizon..previous).contains(s)) {
            kept.extend(far);
        }
    }
    sorted.retain(|sequence| !kept.contains(sequence));
    sorted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(sequences: &[u64], every: u64) -> Vec<u64> {
        let gone = surplus(sequences, every);
        let mut kept: Vec<u64> = sequences.to_vec();
        kept.retain(|sequence| !gone.contains(sequence));
        kept.sort_unstable();
        kept
    }

    #[test]
    fn few_are_all_kept() {
        assert!(surplus(&[], 10).is_empty());
        assert!(surplus(&[30, 10, 20], 10).is_empty());
    }

    #[test]
    fn of_many_the_newest_and_one_of_each_age_are_kept() {
        let all: Vec<u64> = (1..=500).map(|n| n * 10).collect();
        // 100 and 1,000 back; the rest between and beyond goes.
        assert_eq!(kept(&all, 10), [4_000, 4_900, 4_980, 4_990, 5_000]);
    }

    #[test]
    fn what_is_far_back_stays_until_another_is() {
        assert_eq!(
            kept(&[10, 20, 30, 9_980, 9_990, 10_000], 10),
            [30, 9_980, 9_990, 10_000]
        );
        assert_eq!(
            kept(&[30, 9_500, 9_980, 9_990, 10_000], 10),
            [9_500, 9_980, 9_990, 10_000]
        );
    }

    /// Thinned after each one, as the store does it.
    #[test]
    fn the_ages_are_filled_as_time_goes_on() {
        let mut there: Vec<u64> = Vec::new();
        for n in 1..=2_000u64 {
            there.push(n * 10);
            there = kept(&there, 10);
            assert!(there.len() <= NEWEST_KEPT + AGES_KEPT.len(), "{there:?}");
            if n > 200 {
                let ages: Vec<u64> = there.iter().map(|s| n - s / 10).collect();
                assert!(
                    ages.iter().any(|age| (3..=10).contains(age)),
                    "{n}: {ages:?}"
                );
                assert!(
                    ages.iter().any(|age| (11..=111).contains(age)),
                    "{n}: {ages:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn the_newest_stay_and_the_rest_is_bounded(
            sequences in prop::collection::btree_set(0u64..100_000, 0..60),
            every in 1u64..2_000,
        ) {
            let sequences: Vec<u64> = sequences.into_iter().collect();
            let kept = kept(&sequences, every);
            let newest = sequences.len().saturating_sub(NEWEST_KEPT);
            prop_assert!(sequences[newest..].iter().all(|s| kept.contains(s)));
            prop_assert!(kept.len() <= NEWEST_KEPT + AGES_KEPT.len());
            // Thinning again takes nothing more.
            prop_assert!(surplus(&kept, every).is_empty());
        }
    }
}
