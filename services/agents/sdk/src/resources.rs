//! CPU, memory and sockets of a process and everything it started, read from `/proc`.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use procfs::process::{FDTarget, Process, Stat};

/// Figures are read at most this often, whoever asks: many agents may share a process.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// Most processes looked at: a runaway fork shows as this many and does not stop the heartbeat.
const PROCESSES_MAX: usize = 1_024;

/// What a process tree uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// CPU since the sample before, in hundredths of a percent of one core.
    pub cpu_centipercent: u32,
    /// Resident memory, in KiB. Pages that processes share count once for each.
    pub memory_kib: u64,
    /// Open sockets.
    pub sockets: u32,
    /// Processes in the tree, this one included.
    pub processes: u32,
}

/// Measures a process tree from time to time.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Option<Sample>>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    ticks: u64,
    figures: Figures,
}

impl Meter {
    /// The figures of this process's tree now, or those of half a second ago. Blocks on `/proc` for about a millisecond.
    pub(crate) fn figures(&self) -> Figures {
        let own = i32::try_from(std::process::id()).into_iter().collect();
        self.figures_of(own, |_| ())
    }

    /// The figures of the trees below `roots` now, or those of half a second ago. `see` is shown each process that is
    /// looked at. Blocks on `/proc`, for about a tenth of a millisecond for each process.
    pub fn figures_of(&self, roots: Vec<i32>, see: impl FnMut(&Stat)) -> Figures {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sample) = &*last
            && sample.at.elapsed() < SAMPLE_INTERVAL
        {
            return sample.figures;
        }
        let at = Instant::now();
        let (ticks, mut figures) = read_trees(roots, see);
        if let Some(before) = &*last {
            figures.cpu_centipercent = cpu(ticks.saturating_sub(before.ticks), at - before.at);
        }
        *last = Some(Sample { at, ticks, figures });
        figures
    }
}

/// Hundredths of a percent of one core for `ticks` of CPU time within `elapsed`.
fn cpu(ticks: u64, elapsed: Duration) -> u32 {
    let micros = u128::from(ticks) * 1_000_000 / u128::from(procfs::ticks_per_second().max(1));
    u32::try_from(micros * 10_000 / elapsed.as_micros().max(1)).unwrap_or(u32::MAX)
}

/// CPU time so far in clock ticks, and the other figures. The time of children that have ended is in their parent's account,
/// so the sum only rises.
fn read_trees(roots: Vec<i32>, mut see: impl FnMut(&Stat)) -> (u64, Figures) {
    let (mut ticks, mut figures) = (0, Figures::default());
    let mut left = roots;
    while let Some(pid) = left.pop() {
        // A process may end while it is looked at.
        let Ok(process) = Process::new(pid) else {
            continue;
        };
        let Ok(stat) = process.stat() else { continue };
        see(&stat);
        let ended = stat.cutime.max(0).unsigned_abs() + stat.cstime.max(0).unsigned_abs();
        ticks += stat.utime + stat.stime + ended;
        figures.memory_kib += stat.rss * procfs::page_size() / 1_024;
        figures.processes += 1;
        if let Ok(files) = process.fd() {
            let sockets = files
                .flatten()
                .filter(|file| matches!(file.target, FDTarget::Socket(_)))
                .count();
            figures.sockets += u32::try_from(sockets).unwrap_or(u32::MAX);
        }
        if figures.processes as usize + left.len() < PROCESSES_MAX
            && let Ok(threads) = process.tasks()
        {
            let children = threads
                .flatten()
                .filter_map(|thread| thread.children().ok())
                .flatten();
            left.extend(children.filter_map(|child| i32::try_from(child).ok()));
        }
    }
    (ticks, figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_child_is_seen_in_the_figures_of_the_tree() {
        let meter = Meter::default();
        let alone = meter.figures();
        assert!(alone.memory_kib > 0 && alone.processes >= 1);
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .expect("sh");
        let began = Instant::now();
        let seen = loop {
            let figures = meter.figures();
            if figures.cpu_centipercent > 1_000 && figures.processes > alone.processes {
                break true;
            }
            if began.elapsed() > Duration::from_secs(20) {
                break false;
            }
            std::thread::yield_now();
        };
        child.kill().expect("still ours");
        child.wait().expect("still ours");
        assert!(seen, "a busy loop of a child did not show");
    }

    #[test]
    fn sockets_are_counted() {
        let own = || vec![i32::try_from(std::process::id()).expect("small")];
        let before = read_trees(own(), |_| ()).1.sockets;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        assert!(read_trees(own(), |_| ()).1.sockets > before);
        drop(listener);
    }

    #[test]
    fn a_whole_core_is_ten_thousand_hundredths_of_a_percent() {
        assert_eq!(
            cpu(procfs::ticks_per_second(), Duration::from_secs(1)),
            10_000
        );
        assert_eq!(cpu(0, Duration::ZERO), 0);
    }
}
