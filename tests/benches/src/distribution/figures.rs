//! What a run comes to: integers only, times in microseconds.

use serde::Serialize;
use swarm_events::configuration::Algorithm;

use super::{engine::Outcome, workload::Workload};

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    pub algorithm: Algorithm,
    pub stealing: bool,
    /// First submission to last end.
    pub makespan: u64,
    /// From submitted to started.
    pub wait: Waits,
    /// From submitted to ended.
    pub turnaround: Waits,
    /// Waits of the watched tasks alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watched: Option<Waits>,
    /// Share of all slots' time up to the makespan that was in use, in percent.
    pub in_use_percent: u64,
    /// Microseconds of work by agent.
    pub busy: Spread,
    /// Tasks by agent.
    pub tasks: Spread,
    pub affinity: Affinity,
    pub steals: u64,
    /// Withdrawals on account of a steal that lost against a start.
    pub void_steals: u64,
    /// Appends of agents that lost against a withdrawal.
    pub refused_appends: u64,
    /// Messages in the log for each task, in hundredths.
    pub messages_per_task_percent: u64,
}

/// The smallest values that so many percent of the waits do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Waits {
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
    pub max: u64,
}

/// How even something is among agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    pub min: u64,
    pub mean: u64,
    pub max: u64,
    /// Standard deviation, in percent of the mean.
    pub deviation_percent: u64,
}

/// What became of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Affinity {
    /// As the algorithm says it.
    pub hits: u64,
    pub misses: u64,
    pub new: u64,
    /// Hits of hits and misses, in percent.
    pub hit_rate_percent: u64,
    /// Tasks whose key was in the cache of their agent, under any algorithm.
    pub warm: u64,
    pub cold: u64,
}

impl Figures {
    /// Of the outcome of `workload`.
    pub fn of(
        workload: &Workload,
        outcome: &Outcome,
        algorithm: Algorithm,
        stealing: bool,
    ) -> Self {
        let wait = |watched: bool| {
            let tasks = workload.tasks.iter().zip(&outcome.tasks);
            let tasks = tasks.filter(|(entry, _)| !watched || entry.watched);
            Waits::of(tasks.map(|(_, track)| track.started.abs_diff(track.submitted)))
        };
        let turnarounds = outcome
            .tasks
            .iter()
            .map(|track| track.ended.abs_diff(track.submitted));
        let first = outcome.tasks.iter().map(|t| t.submitted).min().unwrap_or(0);
        let last = outcome.tasks.iter().map(|t| t.ended).max().unwrap_or(0);
        let makespan = last.abs_diff(first);
        let done = |of: fn(&super::agents::Done) -> u64| outcome.agents.iter().map(of);
        let slots: u64 = workload.agents().map(|crew| u64::from(crew.slots)).sum();
        let (warm, cold) = (done(|d| d.warm).sum::<u64>(), done(|d| d.cold).sum::<u64>());
        Self {
            algorithm,
            stealing,
            makespan,
            wait: wait(false),
            turnaround: Waits::of(turnarounds),
            watched: workload.header.watched.as_ref().map(|_| wait(true)),
            in_use_percent: percent(done(|d| d.busy).sum(), slots * makespan),
            busy: Spread::of(done(|d| d.busy)),
            tasks: Spread::of(done(|d| d.tasks)),
            affinity: Affinity {
                hits: outcome.hits,
                misses: outcome.misses,
                new: outcome.news,
                hit_rate_percent: percent(outcome.hits, outcome.hits + outcome.misses),
                warm,
                cold,
            },
            steals: outcome.steals,
            void_steals: outcome.void_steals,
            refused_appends: outcome.refused_appends,
            messages_per_task_percent: percent(outcome.messages, workload.tasks.len() as u64),
        }
    }
}

impl Waits {
    /// Of these waits.
    pub fn of(waits: impl Iterator<Item = u64>) -> Self {
        let mut sorted: Vec<u64> = waits.collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or(0)
        };
        Self {
            p50: at(50),
            p95: at(95),
            p99: at(99),
            max: at(100),
        }
    }
}

impl Spread {
    fn of(values: impl Iterator<Item = u64> + Clone) -> Self {
        let count = values.clone().count().max(1) as u128;
        let sum: u128 = values.clone().map(u128::from).sum();
        // Of count times the values, so that the mean is whole.
        let squares: u128 = values
            .clone()
            .map(|value| (u128::from(value) * count).abs_diff(sum).pow(2))
            .sum();
        let deviation = (squares / count).isqrt();
        let whole = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        Self {
            min: values.clone().min().unwrap_or(0),
            mean: whole(sum / count),
            max: values.max().unwrap_or(0),
            deviation_percent: whole(deviation * 100 / sum.max(1)),
        }
    }
}

/// `part` of `whole` in percent, 0 of nothing.
fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let waits = Waits::of((1..=200).rev());
        let expected = Waits {
            p50: 100,
            p95: 190,
            p99: 198,
            max: 200,
        };
        assert_eq!(waits, expected);
        assert_eq!(Waits::of([7].into_iter()).p50, 7);
    }

    #[test]
    fn spread_is_the_standard_deviation_in_percent_of_the_mean() {
        let spread = Spread::of([2, 4, 4, 4, 5, 5, 7, 9].into_iter());
        assert_eq!(
            (
                spread.min,
                spread.mean,
                spread.max,
                spread.deviation_percent
            ),
            (2, 5, 9, 40)
        );
        assert_eq!(Spread::of([3, 3].into_iter()).deviation_percent, 0);
    }
}
