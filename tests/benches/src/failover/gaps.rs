//! For how long nothing was decided while something waited for a decision, by the log's store times alone.

use std::collections::BTreeSet;

use swarm_events::Partition;

/// What the log says about waiting and deciding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `id` waits for a decision from here on: a task to be assigned, a command to be answered.
    Waits(u128),
    /// A decision about `id`, whether it waited or not.
    Decided(u128),
}

/// A step at its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Store time in microseconds since the Unix epoch.
    pub at: i64,
    pub partition: Partition,
    pub step: Step,
}

/// The longest time without a decision while something waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Microseconds.
    pub micros: i64,
    /// Whether it had not ended yet.
    pub open: bool,
}

/// The longest gap in `partition` within `from..=until` (microseconds since the Unix epoch) by `records`, which are in log
/// order and may begin earlier: what waited at `from` counts from there on. `None` if nothing ever waited.
pub fn longest<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    partition: Partition,
    from: i64,
    until: i64,
) -> Option<Gap> {
    let mut waiting = BTreeSet::new();
    // Since when something has waited without any decision; meaningful while something waits.
    let mut since = from;
    let mut longest = None;
    let mut note = |gap: Gap| {
        if longest.is_none_or(|longest: Gap| gap.micros > longest.micros) {
            longest = Some(gap);
        }
    };
    let records = records
        .into_iter()
        .filter(|record| record.partition == partition);
    for record in records.take_while(|record| record.at <= until) {
        match record.step {
            Step::Waits(id) => {
                if waiting.is_empty() {
                    since = record.at;
                }
                waiting.insert(id);
            }
            Step::Decided(id) => {
                if !waiting.is_empty() && record.at >= from {
                    let micros = record.at - since.max(from);
                    note(Gap {
                        micros,
                        open: false,
                    });
                }
                waiting.remove(&id);
                since = record.at;
            }
        }
    }
    if !waiting.is_empty() {
        note(Gap {
            micros: until - since.max(from),
            open: true,
        });
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u8) -> Partition {
        Partition::new(number).expect("below 64")
    }

    fn records(steps: &[(i64, u8, Step)]) -> Vec<Record> {
        let record = |&(at, number, step)| Record {
            at,
            partition: partition(number),
            step,
        };
        steps.iter().map(record).collect()
    }

    use Step::{Decided, Waits};

    #[test]
    fn a_gap_lasts_from_the_decision_before_it_to_the_one_after_it() {
        let log = records(&[
            (0, 1, Waits(1)),
            (10, 1, Waits(2)),
            (20, 1, Decided(1)),
            (90, 1, Decided(2)),
            (95, 1, Waits(3)),
            (96, 1, Decided(3)),
        ]);
        let gap = longest(&log, partition(1), 0, 100).expect("something waited");
        assert_eq!(
            gap,
            Gap {
                micros: 70,
                open: false
            }
        );
    }

    #[test]
    fn silence_while_nothing_waits_is_no_gap() {
        let log = records(&[
            (0, 1, Waits(1)),
            (5, 1, Decided(1)),
            (1_000, 1, Waits(2)),
            (1_003, 1, Decided(2)),
        ]);
        let gap = longest(&log, partition(1), 0, 2_000).expect("something waited");
        assert_eq!(gap.micros, 5);
        assert_eq!(longest(&log, partition(2), 0, 2_000), None);
    }

    #[test]
    fn what_waited_at_the_signal_counts_from_the_signal_on() {
        let log = records(&[(0, 1, Waits(1)), (500, 1, Decided(1))]);
        let gap = longest(&log, partition(1), 450, 600).expect("something waited");
        assert_eq!(gap.micros, 50);
    }

    #[test]
    fn gaps_before_the_signal_do_not_count() {
        let log = records(&[
            (0, 1, Waits(1)),
            (400, 1, Decided(1)),
            (500, 1, Waits(2)),
            (501, 1, Decided(2)),
        ]);
        let gap = longest(&log, partition(1), 450, 600).expect("something waited");
        assert_eq!(gap.micros, 1);
    }

    #[test]
    fn a_gap_without_an_end_is_open() {
        let log = records(&[(0, 1, Waits(1)), (10, 1, Decided(1)), (20, 1, Waits(2))]);
        let gap = longest(&log, partition(1), 0, 3_000).expect("something waited");
        assert_eq!(
            gap,
            Gap {
                micros: 2_980,
                open: true
            }
        );
    }

    #[test]
    fn a_decision_about_something_else_ends_the_gap() {
        let log = records(&[(0, 1, Waits(1)), (30, 1, Decided(7)), (50, 1, Decided(1))]);
        let gap = longest(&log, partition(1), 0, 100).expect("something waited");
        assert_eq!(gap.micros, 30);
    }
}
