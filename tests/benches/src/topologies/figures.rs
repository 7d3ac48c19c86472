//! What a run comes to, and what it is to show.

use std::fmt;

use serde::Serialize;

use super::workloads::Kind;
use crate::distribution::{engine::Outcome, figures::Waits, millis};

/// One line of a table; times in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    pub topology: &'static str,
    /// First submission to last end.
    pub makespan: u64,
    /// From submitted to ended, of what was submitted: parts of tasks do not count.
    pub to_end: Waits,
    /// Messages in the log.
    pub messages: u64,
    /// Times that an agent handled or passed on a message of another agent.
    pub handled: u64,
    pub steals: u64,
    /// Tasks whose key was not in their agent's cache.
    pub cold: u64,
    /// Tasks that began before one that was submitted earlier had ended.
    pub disorder: u64,
}

impl Figures {
    pub fn of(topology: &'static str, submitted: usize, outcome: &Outcome) -> Self {
        let micros = |from: i64, to: i64| (to - from).unsigned_abs();
        let tasks = &outcome.tasks;
        let begin = tasks.iter().map(|task| task.submitted).min().unwrap_or(0);
        let end = tasks.iter().map(|task| task.ended).max().unwrap_or(0);
        let mut latest = i64::MIN;
        let mut disorder = 0;
        for task in tasks.iter().take(submitted) {
            disorder += u64::from(task.started < latest);
            latest = latest.max(task.ended);
        }
        Self {
            topology,
            makespan: micros(begin, end),
            to_end: Waits::of(
                tasks
                    .iter()
                    .take(submitted)
                    .map(|task| micros(task.submitted, task.ended)),
            ),
            messages: outcome.messages,
            handled: outcome.handled,
            steals: outcome.steals,
            cold: outcome.agents.iter().map(|done| done.cold).sum(),
            disorder,
        }
    }
    pub fn row(&self) {
        println!(
            "  {:<13} {:>9} {:>10} {:>10} {:>10} {:>9} {:>8} {:>7} {:>7} {:>17}",
            self.topology,
            millis(self.makespan),
            millis(self.to_end.p50),
            millis(self.to_end.p95),
            millis(self.to_end.p99),
            self.messages,
            self.handled,
            self.steals,
            self.cold,
            self.disorder
        );
    }
}

/// The head of a table.
pub fn head() {
    println!(
        "  {:<13} {:>9} {:>10} {:>10} {:>10} {:>9} {:>8} {:>7} {:>7} {:>17}",
        "topology",
        "makespan",
        "to end p50",
        "p95",
        "p99",
        "in log",
        "handled",
        "steals",
        "cold",
        "order violations"
    );
}

/// Something that a workload is there to show.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    what: String,
    /// What is to be the smaller one, and the other.
    less: u64,
    more: u64,
    pub holds: bool,
}
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.holds { "holds" } else { "DOES NOT HOLD" };
        write!(f, "{word}: {}, {} to {}", self.what, self.less, self.more)
    }
}

type Figure = (&'static str, fn(&Figures) -> u64);
const MAKESPAN: Figure = ("makespan (µs)", |f| f.makespan);
const P95: Figure = ("time to the end p95 (µs)", |f| f.to_end.p95);
const COLD: Figure = ("tasks whose key was not there", |f| f.cold);
const DISORDER: Figure = ("order violations", |f| f.disorder);

/// What `kind` is there to show, and whether it does: a figure, the topology that is best in it, and those it is better than.
pub fn claims(kind: Kind, all: &[Figures]) -> Vec<Claim> {
    let expected: &[(Figure, &str, &[&str])] = match kind {
        // A full mesh is as good, and the makespan is that of the longest task.
        Kind::Independent => &[
            (MAKESPAN, "star", &["ring"]),
            (P95, "star", &["hierarchical", "ring"]),
        ],
        Kind::Pipeline => &[(MAKESPAN, "ring", &["star", "mesh", "hierarchical"])],
        Kind::Stream => &[(DISORDER, "ring", &["star", "mesh", "hierarchical"])],
        Kind::Fan => &[
            (MAKESPAN, "hierarchical", &["star", "mesh", "ring"]),
            (P95, "hierarchical", &["star", "mesh", "ring"]),
        ],
        // Who may take from everybody waits the shortest; who takes from few, and late, finds more of its keys.
        Kind::Sticky => &[
            (P95, "star", &["mesh", "hierarchical", "ring"]),
            (COLD, "mesh", &["star", "hierarchical", "ring"]),
        ],
        Kind::Talk => &[
            (MAKESPAN, "mesh", &["star", "hierarchical", "ring"]),
            (P95, "mesh", &["star", "hierarchical", "ring"]),
        ],
    };
    let find = |name: &str| all.iter().find(|f| f.topology == name);
    let pairs = expected.iter().flat_map(|(figure, better, others)| {
        others.iter().map(move |worse| (figure, better, worse))
    });
    pairs
        .filter_map(|((figure, of), better, worse)| {
            let (less, more) = (of(find(better)?), of(find(worse)?));
            Some(Claim {
                what: format!("{figure} in a {better} below a {worse}'s"),
                less,
                more,
                holds: less < more,
            })
        })
        .collect()
}
