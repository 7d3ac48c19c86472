//! What became of each task, by the store times of one stream: no two clocks are compared.

use std::{collections::HashMap, time::Duration};

use anyhow::ensure;

/// A step of a task that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Submitted,
    Assigned,
    Started,
    Completed,
}

/// The steps of every task of one run.
#[derive(Debug, Default)]
pub struct Timeline {
    tasks: HashMap<u128, Task>,
    completed: usize,
    first_submitted: Option<i64>,
    last_completed: i64,
    again: Repeats,
}

#[derive(Debug, Default)]
struct Task {
    submitted: Option<i64>,
    assigned: Option<i64>,
    started: Option<i64>,
    completed: Option<i64>,
}

/// Steps that were taken more than once: assignments after a withdrawal, results of an attempt that no longer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    pub assigned: u64,
    pub completed: u64,
}

impl Timeline {
    /// The step of task `id` was stored at `micros` (microseconds since the Unix epoch).
    pub fn meet(&mut self, step: Step, id: u128, micros: i64) {
        let task = self.tasks.entry(id).or_default();
        match step {
            Step::Submitted => {
                task.submitted.get_or_insert(micros);
                self.first_submitted = Some(
                    self.first_submitted
                        .map_or(micros, |first| first.min(micros)),
                );
            }
            Step::Assigned if task.assigned.is_some() => self.again.assigned += 1,
            Step::Assigned => task.assigned = Some(micros),
            Step::Started => task.started = task.started.or(Some(micros)),
            Step::Completed if task.completed.is_some() => self.again.completed += 1,
            Step::Completed => {
                task.completed = Some(micros);
                self.completed += 1;
                self.last_completed = self.last_completed.max(micros);
            }
        }
    }

    /// How many tasks have completed.
    pub fn completed(&self) -> usize {
        self.completed
    }

    /// The figures of a run of `tasks` tasks.
    ///
    /// # Errors
    /// Not every one of them was submitted, assigned and completed.
    pub fn figures(&self, tasks: usize) -> anyhow::Result<Figures> {
        let whole = self
            .tasks
            .values()
            .filter(|task| {
                task.submitted.is_some() && task.assigned.is_some() && task.completed.is_some()
            })
            .count();
        ensure!(
            whole == tasks && self.tasks.len() == tasks,
            "{tasks} tasks were submitted, the log has {} of them, {whole} complete from submission to result",
            self.tasks.len()
        );
        let waits = |wait: fn(&Task) -> Option<i64>| {
            let mut waits: Vec<i64> = self.tasks.values().filter_map(wait).collect();
            waits.sort_unstable();
            waits
        };
        let assigned = waits(|task| Some(task.assigned? - task.submitted?));
        let started = waits(|task| Some(task.started? - task.assigned?));
        let completed = waits(|task| Some(task.completed? - task.started?));
        let elapsed = self.last_completed - self.first_submitted.unwrap_or(self.last_completed);
        Ok(Figures {
            tasks,
            elapsed: micros(elapsed),
            assigned_p50: micros(percentile(&assigned, 50)),
            assigned_p99: micros(percentile(&assigned, 99)),
            started_p50: micros(percentile(&started, 50)),
            completed_p50: micros(percentile(&completed, 50)),
            again: self.again,
        })
    }
}

/// Figures of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Tasks from submission to result.
    pub tasks: usize,
    /// First submission to last result.
    pub elapsed: Duration,
    /// Median of the time from submitted to (first) assigned.
    pub assigned_p50: Duration,
    /// Its 99th percentile.
    pub assigned_p99: Duration,
    /// Median of the time from assigned to started, where that is met.
    pub started_p50: Duration,
    /// Median of the time from started to completed, where that is met.
    pub completed_p50: Duration,
    /// Steps taken more than once.
    pub again: Repeats,
}

impl Figures {
    /// Tasks in a second.
    pub fn rate(&self) -> f64 {
        self.tasks as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }
}

/// The smallest value that at least `percent` % of `sorted` do not exceed; 0 of nothing.
fn percentile(sorted: &[i64], percent: usize) -> i64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_and_rate_come_from_the_store_times_alone() {
        let mut timeline = Timeline::default();
        for id in 0..100 {
            let at = i64::try_from(id).unwrap_or(0) * 1_000;
            timeline.meet(Step::Submitted, id, at);
            timeline.meet(Step::Assigned, id, at + 10 + i64::try_from(id).unwrap_or(0));
            timeline.meet(Step::Completed, id, 1_000_000 + at);
        }
        timeline.meet(Step::Assigned, 3, 9_999_999);
        let figures = timeline.figures(100).expect("all complete");
        assert_eq!(figures.elapsed, Duration::from_micros(1_099_000));
        assert_eq!(figures.assigned_p50, Duration::from_micros(10 + 49));
        assert_eq!(figures.assigned_p99, Duration::from_micros(10 + 98));
        assert_eq!(
            figures.again,
            Repeats {
                assigned: 1,
                completed: 0
            }
        );
        assert!((figures.rate() - 90.99).abs() < 0.01, "{}", figures.rate());
    }

    #[test]
    fn a_task_that_did_not_complete_spoils_the_run() {
        let mut timeline = Timeline::default();
        timeline.meet(Step::Submitted, 1, 1);
        timeline.meet(Step::Assigned, 1, 2);
        assert!(timeline.figures(1).is_err());
    }
}
