//! Limits of a whole process tree by cgroup v2, where this process may make groups.
//!
//! A group can only hand controllers down while it holds no processes itself. So groups are made below this process's own
//! group if that is the root of the hierarchy, or if this process is alone in it (a unit with `Delegate=yes`, a container) and
//! can move into a group beside those of the agents. What cannot be limited by a group is said so, and left to rlimits.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use swarm_events::agent::ResourceLimits;

/// Start of the names of the groups that hosts make; the id of the host's process follows.
const NAME: &str = "swarm-host-";
/// Controllers that limits need.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// Period of the CPU limit, in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;
/// A killed group is empty in a moment; one that is not is left to the next start of a host.
const REMOVE_TRIES: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// The part of the hierarchy that is this host's.
#[derive(Debug)]
pub struct Cgroups {
    root: PathBuf,
    /// Controllers that the agents' groups have.
    controllers: Vec<&'static str>,
}

/// Limits that a group holds, by name, and those that it cannot.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Held by the group.
    pub held: Vec<&'static str>,
    /// Asked for and not held.
    pub not_held: Vec<&'static str>,
}

impl Cgroups {
    /// Makes a place for the groups of the host `name`. `family` is this process, and those that it may move with it.
    ///
    /// # Errors
    /// Why there can be none, for people.
    pub fn detect(name: &str, family: &[u32]) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let base = base(&mounts, &own)?;
        Self::below(&base, name, family)
    }

    fn below(base: &Path, name: &str, family: &[u32]) -> Result<Self, String> {
        let wrong = |what: &Path| {
            let what = what.display().to_string();
            move |error: io::Error| format!("{what}: {error}")
        };
        remove_leftovers(base);
        // The root alone has no type, and may hold processes beside groups.
        let is_root = !base.join("cgroup.type").exists();
        if !is_root {
            let members = fs::read_to_string(base.join("cgroup.procs")).map_err(wrong(base))?;
            let stranger = members
                .lines()
                .any(|pid| !family.iter().any(|own| own.to_string() == pid));
            if stranger {
                return Err(format!(
                    "{} holds other processes: give the host a group of its own (systemd: Delegate=yes)",
                    base.display()
                ));
            }
        }
        let own = family.first().copied().unwrap_or_default();
        let root = base.join(format!("{NAME}{own}-{name}"));
        fs::create_dir(&root).map_err(wrong(&root))?;
        if !is_root {
            let beside = base.join(format!("{NAME}{own}-{name}-own"));
            let moved = fs::create_dir(&beside).and_then(|()| {
                family
                    .iter()
                    .try_for_each(|pid| fs::write(beside.join("cgroup.procs"), pid.to_string()))
            });
            if let Err(error) = moved {
                let _ = fs::remove_dir(&root); // empty, and of no use
                return Err(format!("{}: {error}", beside.display()));
            }
        }
        let there = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
        let controllers = CONTROLLERS
            .into_iter()
            .filter(|wanted| there.split_whitespace().any(|one| one == *wanted))
            .filter(|wanted| {
                let enable = |dir: &Path| {
                    fs::write(dir.join("cgroup.subtree_control"), format!("+{wanted}"))
                };
                enable(base).and_then(|()| enable(&root)).is_ok()
            })
            .collect();
        Ok(Self { root, controllers })
    }

    /// Controllers that limits can use.
    pub fn controllers(&self) -> &[&'static str] {
        &self.controllers
    }

    /// A group for one process tree, with the limits that it can hold.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn group(&self, name: &str, limits: &ResourceLimits) -> io::Result<(CgroupOf, Held)> {
        let path = self.root.join(name);
        fs::create_dir(&path)?;
        let group = CgroupOf { path };
        let mut held = Held::default();
        let memory = limits.memory_kib.map(|kib| {
            let bytes = kib.saturating_mul(1_024);
            // Without this the limit is on memory alone, and the rest is swapped out. Not there without swap.
            let _ = group.write("memory.swap.max", "0");
            // All of it or none: half an agent is of no use.
            let _ = group.write("memory.oom.group", "1");
            ("memory_kib", "memory", "memory.max", bytes.to_string())
        });
        let cpu = limits.cpu_percent.map(|percent| {
            let quota = u64::from(percent.max(1)) * CPU_PERIOD / 100;
            (
                "cpu_percent",
                "cpu",
                "cpu.max",
                format!("{quota} {CPU_PERIOD}"),
            )
        });
        let processes = limits
            .processes
            .map(|most| ("processes", "pids", "pids.max", most.to_string()));
        for (name, controller, file, value) in [memory, cpu, processes].into_iter().flatten() {
            if self.controllers.contains(&controller) && group.write(file, &value).is_ok() {
                held.held.push(name);
            } else {
                held.not_held.push(name);
            }
        }
        Ok((group, held))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        remove_tree(&self.root);
    }
}

/// The group of one process tree.
#[derive(Debug)]
pub struct CgroupOf {
    path: PathBuf,
}

impl CgroupOf {
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    /// Puts a process into it; what it starts is in it too.
    ///
    /// # Errors
    /// The process is gone, or the kernel refuses.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// The processes in it.
    pub fn members(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Sends SIGKILL to all of it, whatever groups and sessions its processes are in.
    pub fn kill(&self) {
        // Since Linux 5.14; before, the process group has to do.
        if let Err(error) = self.write("cgroup.kill", "1") {
            tracing::debug!(%error, group = %self.path.display(), "cannot be killed as a whole");
        }
    }

    /// Whether a process of it was killed because it used more memory than it may.
    pub fn out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        oom_kills(&events) > 0
    }

    /// Takes it away, once it is empty.
    pub async fn remove(self) {
        for _ in 0..REMOVE_TRIES {
            match fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(_) => tokio::time::sleep(REMOVE_PAUSE).await,
            }
        }
        tracing::warn!(group = %self.path.display(), "a group is not empty and stays");
    }
}

/// `oom_kill` of `memory.events`.
fn oom_kills(events: &str) -> u64 {
    events
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .find_map(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Where this process's own group of the version 2 hierarchy is.
fn base(mountinfo: &str, own: &str) -> Result<PathBuf, String> {
    let group = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("this process is in no cgroup of version 2")?;
    // 31 23 0:28 <root> <mount point> <options> … - cgroup2 <source> <options>
    let mount = mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        if right.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = left.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    });
    let (root, point) = mount.ok_or("cgroup v2 is not mounted")?;
    let below = if root == "/" {
        group
    } else {
        group.strip_prefix(root).unwrap_or(group)
    };
    Ok(Path::new(point).join(below.trim_start_matches('/')))
}

/// Takes away the groups of hosts that were killed. One of a living host may be empty at the moment too.
fn remove_leftovers(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| {
            let (pid, _) = name.strip_prefix(NAME)?.split_once('-')?;
            pid.parse::<u32>().ok()
        });
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_tree(&entry.path());
        }
    }
}

fn remove_tree(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            let _ = fs::remove_dir(entry.path()); // refused while it is in use
        }
    }
    let _ = fs::remove_dir(root); // the same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_below_the_mount_point() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = base(mounts, "4:memory:/x\n0::/a/b\n").expect("found");
        assert_eq!(found, Path::new("/sys/fs/cgroup/unified/a/b"));
        let container = "41 31 0:38 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let found = base(container, "0::/docker/x/a").expect("found");
        assert_eq!(found, Path::new("/sys/fs/cgroup/a"));
        assert!(base("", "0::/").is_err());
        assert!(base(mounts, "4:memory:/x\n").is_err());
    }

    #[test]
    fn kills_for_want_of_memory_are_counted() {
        assert_eq!(oom_kills("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(oom_kills("low 0\noom_kill 0\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }

    /// A folder that looks like a group: what is written into it can be read.
    fn hierarchy(controllers: &str, members: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("cgroup.type"), "domain").expect("written");
        fs::write(dir.path().join("cgroup.controllers"), controllers).expect("written");
        fs::write(dir.path().join("cgroup.procs"), members).expect("written");
        dir
    }

    #[test]
    fn groups_of_dead_hosts_are_taken_away_and_those_of_living_ones_are_not() {
        let dir = hierarchy("", "");
        let own = std::process::id();
        let alive = dir.path().join(format!("{NAME}{own}-x"));
        // Process ids end below this.
        let dead = dir.path().join(format!("{NAME}{}-x", u32::MAX));
        for group in [&alive, &dead] {
            fs::create_dir_all(group.join("agent")).expect("made");
        }
        remove_leftovers(dir.path());
        assert!(alive.join("agent").exists());
        assert!(!dead.exists());
    }

    #[test]
    fn a_host_moves_out_of_the_way_of_its_agents_groups_if_it_is_alone() {
        let dir = hierarchy("cpu memory\n", "7\n8\n");
        let crowded = Cgroups::below(dir.path(), "a", &[7]);
        assert!(crowded.expect_err("not alone").contains("Delegate=yes"));
        let groups = Cgroups::below(dir.path(), "a", &[7, 8]).expect("alone");
        assert_eq!(groups.controllers(), ["memory", "cpu"]);
        let moved = fs::read_to_string(dir.path().join("swarm-host-7-a-own/cgroup.procs"));
        assert_eq!(moved.expect("written"), "8", "the last one that was moved");
        let limits = ResourceLimits {
            memory_kib: Some(2_048),
            cpu_percent: Some(150),
            processes: Some(9),
        };
        let (group, held) = groups.group("x", &limits).expect("made");
        let read = |file: &str| fs::read_to_string(group.path.join(file)).expect("written");
        assert_eq!(read("memory.max"), "2097152");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(
            held,
            Held {
                held: vec!["memory_kib", "cpu_percent"],
                not_held: vec!["processes"]
            }
        );
    }
}
