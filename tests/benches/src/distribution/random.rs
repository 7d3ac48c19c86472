//! Random integers from a seed, the same on every machine: no float, no library whose numbers may change.

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Random(u64);

/// Distances of a log-normal draw from the median go up to this many sixteenths of an octave: sixteen steps double.
const OCTAVE: u64 = 16;
/// 2^(i/16) in thousandths.
const SIXTEENTHS: [u64; OCTAVE as usize] = [
    1_000, 1_044, 1_091, 1_139, 1_189, 1_242, 1_297, 1_354, 1_414, 1_477, 1_542, 1_610, 1_682,
    1_756, 1_834, 1_915,
];

impl Random {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `end` − 1, each as likely as the others (to one in 2^64).
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        (wide >> 64) as u64
    }

    /// `low` to `high`, each as likely as the others.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// One in `of`.
    pub fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// Pareto with exponent 1 from `least` on, cut off at `most`: half of them are below twice `least`, and each doubling
    /// is half as likely, so that the few longest make up most of the work.
    pub fn pareto(&mut self, least: u64, most: u64) -> u64 {
        // Uniform in (0, 1], in 2^32nds.
        let uniform = self.below(1 << 32) + 1;
        let drawn = (u128::from(least) << 32) / u128::from(uniform);
        u64::try_from(drawn).unwrap_or(most).min(most)
    }

    /// About log-normal: `median` times two to the power of a sum of twelve uniform draws, whose standard deviation is one
    /// octave.
    pub fn log_normal(&mut self, median: u64) -> u64 {
        // Variance of one draw from 0..=16 is 24; of twelve 288, the root of which is about 17 sixteenths.
        let sum: u64 = (0..12).map(|_| self.below(OCTAVE + 1)).sum();
        // The middle of the sum is 96 = 6 octaves.
        let scaled = median * SIXTEENTHS[(sum % OCTAVE) as usize] / 1_000;
        ((scaled << (sum / OCTAVE)) >> 6).max(1)
    }

    /// `count` moments in `0..span` in order: with a number of them given, a Poisson process is just that.
    pub fn moments(&mut self, count: usize, span: u64) -> Vec<u64> {
        let mut moments: Vec<u64> = (0..count).map(|_| self.below(span.max(1))).collect();
        moments.sort_unstable();
        moments
    }
}

/// Numbers 0 to `count` − 1, the k-th as likely as 1/k.
pub struct Zipf {
    /// Sums of the weights up to each.
    sums: Vec<u64>,
}
impl Zipf {
    /// Of `count` numbers.
    pub fn new(count: u64) -> Self {
        let weights = (1..=count).map(|k| (1 << 32) / k);
        let sums = weights.scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self {
            sums: sums.collect(),
        }
    }
    /// One of them.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let all = self.sums.last().copied().unwrap_or(1);
        let at = random.below(all);
        self.sums.partition_point(|sum| *sum <= at) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        // Of the reference implementation in C with seed 0.
        let mut random = Random::new(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn durations_are_skewed_as_they_say() {
        let mut random = Random::new(1);
        let mut drawn: Vec<u64> = (0..10_000).map(|_| random.pareto(10, 5_000)).collect();
        drawn.sort_unstable();
        assert_eq!(drawn.first(), Some(&10));
        assert_eq!(drawn.last(), Some(&5_000));
        assert!((19..=21).contains(&drawn[5_000]), "{}", drawn[5_000]);
        let longest: u64 = drawn[9_500..].iter().sum();
        assert!(
            longest * 5 > drawn.iter().sum::<u64>() * 2,
            "a twentieth of them make up 40 % of the work"
        );

        let mut drawn: Vec<u64> = (0..10_000).map(|_| random.log_normal(1_000)).collect();
        drawn.sort_unstable();
        assert!((950..=1_050).contains(&drawn[5_000]), "{}", drawn[5_000]);
        // One standard deviation up: twice the median or a little more.
        assert!((1_900..=2_300).contains(&drawn[8_413]), "{}", drawn[8_413]);
    }

    #[test]
    fn the_first_key_of_zipf_is_twice_as_frequent_as_the_second() {
        let (zipf, mut random) = (Zipf::new(100), Random::new(2));
        let mut counts = [0u32; 100];
        for _ in 0..100_000 {
            counts[zipf.draw(&mut random) as usize] += 1;
        }
        assert!(counts[0].abs_diff(2 * counts[1]) < counts[0] / 10);
        assert!(counts[99] > 0);
    }
}
