//! The figures for people, and what they are to show.

use std::fmt;

use serde::Serialize;
use swarm_events::configuration::Algorithm;

use super::{figures::Figures, workload::Workload};

/// Microseconds as milliseconds: short ones with a tenth.
pub fn millis(micros: u64) -> String {
    if micros < 100_000 {
        format!("{}.{}", micros / 1_000, micros % 1_000 / 100)
    } else {
        format!("{}", micros / 1_000)
    }
}

/// An algorithm's name, as it stands in a configuration.
pub const fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::LeastLoaded => "least_loaded",
        Algorithm::RoundRobin => "round_robin",
        Algorithm::CapabilityMatch => "capability_match",
        Algorithm::Affinity => "affinity",
        Algorithm::PriorityQueue => "priority_queue",
    }
}

/// The head of a workload's table.
pub fn head(workload: &Workload) {
    let watched = workload
        .header
        .watched
        .as_ref()
        .map_or_else(String::new, |word| {
            format!(" {:>15}", format!("{word} p50/p99"))
        });
    let keys = match workload.header.cache {
        Some(_) => format!(
            " {:>15} {:>20} {:>8} {:>11}",
            "to end p50/p99", "hits/misses/new", "hit rate", "warm of all"
        ),
        None => String::new(),
    };
    println!(
        "  {:<16} {:<8} {:>9} {:>8} {:>8} {:>8}{watched} {:>6} {:>5} {:>15} {:>6}{keys} {:>12}",
        "algorithm",
        "stealing",
        "makespan",
        "wait p50",
        "p95",
        "p99",
        "in use",
        "busy±",
        "tasks per agent",
        "tasks±",
        "steals/void"
    );
}

/// One line of it.
pub fn row(workload: &Workload, figures: &Figures) {
    let watched = figures.watched.map_or_else(String::new, |waits| {
        format!(
            " {:>15}",
            format!("{}/{}", millis(waits.p50), millis(waits.p99))
        )
    });
    let keys = match workload.header.cache {
        Some(_) => {
            let a = figures.affinity;
            let (outcomes, rate) = match figures.algorithm {
                Algorithm::Affinity => (
                    format!("{}/{}/{}", a.hits, a.misses, a.new),
                    format!("{} %", a.hit_rate_percent),
                ),
                _ => ("-".to_owned(), "-".to_owned()),
            };
            let to_end = figures.turnaround;
            let to_end = format!("{}/{}", millis(to_end.p50), millis(to_end.p99));
            let warm = a.warm * 100 / (a.warm + a.cold).max(1);
            format!(" {to_end:>15} {outcomes:>20} {rate:>8} {warm:>9} %")
        }
        None => String::new(),
    };
    println!(
        "  {:<16} {:<8} {:>9} {:>8} {:>8} {:>8}{watched} {:>4} % {:>3} % {:>15} {:>4} %{keys} {:>12}",
        name(figures.algorithm),
        on(figures.stealing),
        millis(figures.makespan),
        millis(figures.wait.p50),
        millis(figures.wait.p95),
        millis(figures.wait.p99),
        figures.in_use_percent,
        figures.busy.deviation_percent,
        format!(
            "{}/{}/{}",
            figures.tasks.min, figures.tasks.mean, figures.tasks.max
        ),
        figures.tasks.deviation_percent,
        format!("{}/{}", figures.steals, figures.void_steals)
    );
}

/// Whether idle agents steal, as a word.
pub const fn on(stealing: bool) -> &'static str {
    if stealing { "on" } else { "off" }
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

/// A run: an algorithm, with stealing or without.
type Run = (Algorithm, bool);
/// What is looked at in a claim, with its name.
type Figure = (&'static str, fn(&Figures) -> u64);

const MAKESPAN: Figure = ("makespan (µs)", |f| f.makespan);
const WAIT_P99: Figure = ("wait p99 (µs)", |f| f.wait.p99);
const TURNAROUND_P50: Figure = ("time to the end p50 (µs)", |f| f.turnaround.p50);
const TURNAROUND_P99: Figure = ("time to the end p99 (µs)", |f| f.turnaround.p99);
const WORK: Figure = ("an agent's work on average (µs)", |f| f.busy.mean);
const WATCHED_P99: Figure = ("wait p99 of the watched (µs)", |f| {
    f.watched.map_or(0, |waits| waits.p99)
});
const UNEVEN_COUNTS: Figure = ("deviation of the tasks' numbers (%)", |f| {
    f.tasks.deviation_percent
});

/// What `workload` is there to show, and whether it does: each algorithm wins somewhere and loses elsewhere.
pub fn claims(workload: &str, all: &[Figures]) -> Vec<Claim> {
    use Algorithm::{Affinity, CapabilityMatch, LeastLoaded, PriorityQueue, RoundRobin};
    let expected: Vec<(Figure, Run, Run)> = match workload {
        "skewed" => vec![
            (WAIT_P99, (LeastLoaded, false), (RoundRobin, false)),
            (MAKESPAN, (LeastLoaded, false), (RoundRobin, false)),
            (WAIT_P99, (LeastLoaded, true), (RoundRobin, true)),
            (WAIT_P99, (RoundRobin, true), (RoundRobin, false)),
            (UNEVEN_COUNTS, (RoundRobin, false), (LeastLoaded, false)),
        ],
        "burst" => [RoundRobin, LeastLoaded, CapabilityMatch, Affinity]
            .map(|algorithm| (MAKESPAN, (algorithm, true), (algorithm, false)))
            .into(),
        "keys" => [false, true]
            .into_iter()
            .flat_map(|stealing| {
                [TURNAROUND_P50, TURNAROUND_P99, WORK]
                    .map(|figure| (figure, (Affinity, stealing), (LeastLoaded, stealing)))
            })
            .collect(),
        "urgent" => vec![
            (WATCHED_P99, (PriorityQueue, false), (LeastLoaded, false)),
            (WATCHED_P99, (PriorityQueue, true), (LeastLoaded, true)),
        ],
        "specialists" => vec![
            (WATCHED_P99, (CapabilityMatch, false), (LeastLoaded, false)),
            (WATCHED_P99, (CapabilityMatch, true), (LeastLoaded, true)),
        ],
        "short" => vec![
            (MAKESPAN, (LeastLoaded, false), (PriorityQueue, false)),
            (MAKESPAN, (LeastLoaded, true), (PriorityQueue, true)),
        ],
        _ => Vec::new(),
    };
    let find = |run: Run| all.iter().find(|f| (f.algorithm, f.stealing) == run);
    let words =
        |(algorithm, stealing): Run| format!("{} (stealing {})", name(algorithm), on(stealing));
    expected
        .into_iter()
        .filter_map(|((figure, of), better, worse)| {
            let (less, more) = (of(find(better)?), of(find(worse)?));
            Some(Claim {
                what: format!("{figure} of {} below {}", words(better), words(worse)),
                less,
                more,
                holds: less < more,
            })
        })
        .collect()
}
