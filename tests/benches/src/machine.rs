//! What stands beside every figure: the machine, its disk, and what processes used of it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

/// Writes in the fsync loop: enough for a 99th percentile, few enough for a slow disk.
const FSYNCS: usize = 200;
/// What one of them writes: a page, about what a small event and its record take.
const FSYNC_BYTES: usize = 4_096;

/// Cores and processor, for people.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown processor".to_owned());
    format!("{cores} cores ({model}), load at the start {}", load())
}

/// The system's load average of the last minute. Above the number of cores, somebody else measures too.
pub fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next().map(str::to_owned))
        .unwrap_or_default()
}

/// The commit that the tree is at, as far as git tells.
pub fn commit() -> String {
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git").args(args).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "--short", "HEAD"]) {
        Some(commit) => {
            let clean = git(&["status", "--porcelain", "--untracked-files=no"])
                .is_some_and(|changes| changes.is_empty());
            format!("{commit}{}", if clean { "" } else { " with changes" })
        }
        None => "unknown commit".to_owned(),
    }
}

/// Median and 99th percentile of writing a page to a file in `dir` and flushing it.
///
/// # Errors
/// The file cannot be written.
pub fn fsync_times(dir: &Path) -> anyhow::Result<(Duration, Duration)> {
    let mut file: File = tempfile::tempfile_in(dir).context("cannot write to the disk")?;
    let page = [7u8; FSYNC_BYTES];
    let mut times = Vec::with_capacity(FSYNCS);
    for _ in 0..FSYNCS {
        let began = Instant::now();
        file.write_all(&page)?;
        file.sync_all()?;
        times.push(began.elapsed());
    }
    file.seek(SeekFrom::Start(0))?;
    times.sort();
    Ok((times[FSYNCS / 2], times[FSYNCS * 99 / 100]))
}

/// Processor time in seconds of the process `pid` and its children.
pub fn cpu_seconds(pid: u32) -> f64 {
    let ticks = procfs::ticks_per_second() as f64;
    tree(pid)
        .iter()
        .filter_map(|process| process.stat().ok())
        .map(|stat| (stat.utime + stat.stime) as f64 / ticks)
        .sum()
}

/// Processor time in seconds of this process's threads whose name starts with `prefix`.
pub fn thread_cpu_seconds(prefix: &str) -> f64 {
    let ticks = procfs::ticks_per_second() as f64;
    let Ok(tasks) = procfs::process::Process::myself().and_then(|me| me.tasks()) else {
        return 0.0;
    };
    tasks
        .flatten()
        .filter_map(|task| task.stat().ok())
        .filter(|stat| stat.comm.starts_with(prefix))
        .map(|stat| (stat.utime + stat.stime) as f64 / ticks)
        .sum()
}

/// Resident memory of one process in bytes: what is its own, without mapped files.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = procfs::process::Process::new(i32::try_from(pid)?)?.status()?;
    Ok(status.rssanon.or(status.vmrss).unwrap_or(0) * 1_024)
}

/// The process and its children: PostgreSQL's connections are processes of their own.
fn tree(pid: u32) -> Vec<procfs::process::Process> {
    let Ok(pid) = i32::try_from(pid) else {
        return Vec::new();
    };
    let Ok(all) = procfs::process::all_processes() else {
        return Vec::new();
    };
    all.flatten()
        .filter(|process| process.pid == pid || process.stat().is_ok_and(|stat| stat.ppid == pid))
        .collect()
}

/// Processor time by name, taken at two moments.
#[derive(Clone, Debug, Default)]
pub struct Usage(BTreeMap<String, f64>);

impl Usage {
    /// Adds what `name` has used so far.
    pub fn add(&mut self, name: &str, seconds: f64) {
        *self.0.entry(name.to_owned()).or_default() += seconds;
    }

    /// Cores in use from `earlier` to `self`, `took` apart, and microseconds for each of `tasks`; the hungriest first.
    pub fn since(&self, earlier: &Self, took: Duration, tasks: u64) -> String {
        let mut used: Vec<(&str, f64)> = self
            .0
            .iter()
            .map(|(name, now)| {
                let before = earlier.0.get(name).copied().unwrap_or(0.0);
                (name.as_str(), (now - before).max(0.0))
            })
            .collect();
        used.sort_by(|a, b| b.1.total_cmp(&a.1));
        let words = |seconds: f64| {
            format!(
                "{:.2} cores ({:.0} \u{b5}s/task)",
                seconds / took.as_secs_f64(),
                seconds * 1e6 / tasks as f64
            )
        };
        let sum: f64 = used.iter().map(|(_, seconds)| seconds).sum();
        let parts: Vec<String> = used
            .iter()
            .map(|(name, seconds)| format!("{name} {}", words(*seconds)))
            .collect();
        format!("{}: {}", words(sum), parts.join(", "))
    }
}
