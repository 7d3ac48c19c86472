//! How many agents each level has.

use swarm_events::topology::Hierarchical;

/// How many agents each level has, with so many altogether: each inner level as many as it is to have (`least`: how many are
/// named for it), and as many as the ratio demands for the level below; at most what leaves one worker. If they are too few for
/// that, the lower of the inner levels lack some. One agent more is one more in exactly one level.
pub(super) fn sizes(tree: &Hierarchical, least: &[u64], agents: u64) -> Vec<u64> {
    let ratio = u64::from(tree.parent_child_ratio).max(1);
    let inner = tree.levels.len().saturating_sub(1);
    let of = |workers: u64| {
        let mut sizes = vec![0; inner + 1];
        sizes[inner] = workers;
        for level in (0..inner).rev() {
            sizes[level] = sizes[level + 1]
                .div_ceil(ratio)
                .max(u64::from(tree.levels[level].count))
                .max(least.get(level).copied().unwrap_or(0));
        }
        sizes
    };
    let sum = |sizes: &[u64]| sizes.iter().sum::<u64>();
    let smallest = of(1);
    if agents < sum(&smallest) {
        let mut left = agents.saturating_sub(1);
        let mut sizes = vec![0; inner + 1];
        sizes[inner] = agents.min(1);
        for level in 0..inner {
            sizes[level] = smallest[level].min(left);
            left -= sizes[level];
        }
        return sizes;
    }
    // The most workers for whom there are enough.
    let (mut low, mut high) = (1, agents + 1);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if sum(&of(middle)) <= agents {
            low = middle;
        } else {
            high = middle;
        }
    }
    let mut sizes = of(low);
    // What is left is too little for one more worker and all whom it needs above it: those come first, from the top.
    let mut left = agents - sum(&sizes);
    let next = of(low + 1);
    for level in 0..inner {
        let more = (next[level] - sizes[level]).min(left);
        sizes[level] += more;
        left -= more;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_events::topology::{Hierarchical, Level, Role};

    use super::sizes;

    fn tree(counts: &[u32], ratio: u32) -> Hierarchical {
        let levels = counts.iter().enumerate().map(|(at, count)| Level {
            role: match at {
                0 => Role::Coordinator,
                last if last + 1 == counts.len() => Role::Worker,
                _ => Role::Supervisor,
            },
            count: *count,
        });
        Hierarchical {
            levels: levels.collect(),
            parent_child_ratio: ratio,
            ..Hierarchical::default()
        }
    }

    #[test]
    fn levels_fill_from_the_top_and_then_grow_where_the_ratio_demands_it() {
        let default = Hierarchical::default();
        let of = |agents| sizes(&default, &[], agents);
        assert_eq!(of(0), [0, 0, 0]);
        assert_eq!(of(1), [0, 0, 1], "one agent alone is a worker");
        assert_eq!(of(2), [1, 0, 1]);
        assert_eq!(of(4), [1, 2, 1]);
        assert_eq!(of(16), [1, 3, 12]);
        assert_eq!(
            of(17),
            [1, 4, 12],
            "the fourth supervisor comes before the thirteenth worker"
        );
        assert_eq!(of(18), [1, 4, 13]);
        assert_eq!(of(21), [1, 4, 16]);
        // A seventeenth worker needs a fifth supervisor, and that a second coordinator.
        assert_eq!(of(22), [2, 4, 16]);
        assert_eq!(of(23), [2, 5, 16]);
        assert_eq!(of(24), [2, 5, 17]);
        assert_eq!(
            sizes(&default, &[0, 5], 16),
            [2, 5, 9],
            "as many as are named"
        );
    }

    proptest! {
        #[test]
        fn a_further_agent_is_one_more_in_one_level_and_the_ratio_holds(
            counts in prop::collection::vec(1u32..20, 2..6),
            ratio in 1u32..8,
            agents in 0u64..2_000,
        ) {
            let tree = tree(&counts, ratio);
            let (now, then) = (sizes(&tree, &[], agents), sizes(&tree, &[], agents + 1));
            prop_assert_eq!(now.iter().sum::<u64>(), agents);
            let more: Vec<u64> = now.iter().zip(&then).map(|(a, b)| b - a).collect();
            prop_assert_eq!(more.iter().sum::<u64>(), 1, "{:?} {:?}", now, then);
            let seated: Vec<u64> = now.iter().copied().filter(|size| *size > 0).collect();
            for pair in seated.windows(2) {
                prop_assert!(pair[1] <= pair[0] * u64::from(ratio), "{:?}", now);
            }
            prop_assert!(agents == 0 || now.last().is_some_and(|workers| *workers > 0));
        }
    }
}
