//! Processes: signals, and who is still there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Context;
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Set in the environment of everything that the runner starts, so that what is left behind is found whoever its parent
/// is by then. It does not begin with `SWARM_`: the supervisor gives its services none of those but its own.
pub const MARK: &str = "CHAOS_MARK";

/// Sends a signal.
///
/// # Errors
/// There is no such process.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("{pid} is no process id"))?;
    kill_process(pid, signal).with_context(|| format!("process {pid:?} cannot be signalled"))
}

/// Whether a process runs (a zombie does not).
pub fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// The children of a process, as they are now.
pub fn children(pid: u32) -> Vec<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

struct Stat {
    state: char,
    parent: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    let mut rest = text.rsplit(')').next()?.split_whitespace();
    Some(Stat {
        state: rest.next()?.chars().next()?,
        parent: rest.next()?.parse().ok()?,
    })
}

/// Every running process that carries `mark` or names `folder` in its command line, with that command line. The caller
/// itself is not among them.
pub fn marked(mark: &str, folder: &Path) -> BTreeMap<u32, String> {
    let wanted = format!("{MARK}={mark}").into_bytes();
    let folder = folder.display().to_string();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if pid == std::process::id() || !runs(pid) {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if line.contains(&folder) || environment.split(|byte| *byte == 0).any(|v| v == wanted) {
            found.insert(pid, line);
        }
    }
    found
}

/// Whether `pid` is one of `roots` or descends from one.
pub fn descends(pid: u32, roots: &BTreeSet<u32>) -> bool {
    let mut at = pid;
    // A tree deeper than this is a loop of ids that were used again while we looked.
    for _ in 0..64 {
        if roots.contains(&at) {
            return true;
        }
        match stat(at) {
            Some(stat) if stat.parent > 1 => at = stat.parent,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_marked_process_is_found_and_a_killed_one_is_not() {
        let mark = format!("test-{}", std::process::id());
        let mut child = Command::new("sleep")
            .arg("60")
            .env(MARK, &mark)
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep is there");
        let nowhere = Path::new("/nowhere-at-all");
        // Until the child has become `sleep`, its environment is still ours.
        while !marked(&mark, nowhere).contains_key(&child.id()) {
            std::thread::yield_now();
        }
        assert!(descends(child.id(), &BTreeSet::from([std::process::id()])));
        signal(child.id(), Signal::KILL).expect("it runs");
        child.wait().expect("ours");
        assert!(marked(&mark, nowhere).is_empty());
        assert!(!runs(child.id()));
    }
}
