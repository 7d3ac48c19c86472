//! Kills the commands of an agent, or the agents of a host, that was killed itself.
//!
//! A process that gets SIGKILL cannot stop what it started, and `prctl(PR_SET_PDEATHSIG)` would reach the command alone, not its
//! children. So a small shell process of its own group knows the groups that run; its stdin is a pipe from that process, and when
//! that closes, however it ended, it kills them.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    process::Pid,
};

/// Reads `+ <group>` and `- <group>`.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
groups=' '
while read -r what group; do
  case $what in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;; esac ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done 2>/dev/null
"#;

/// The process that outlives a killed one for a moment. Dropped, it ends, and kills the groups that it still guards.
pub struct Watchdog(Mutex<Child>);

impl Watchdog {
    /// Starts it, as a child of this process.
    ///
    /// # Errors
    /// `/bin/sh` cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "swarm-watchdog"])
            .env_clear()
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(stdin) = &child.stdin {
            // A stopped watchdog must not stop the agent.
            fcntl_setfl(stdin, OFlags::NONBLOCK)?;
        }
        Ok(Self(Mutex::new(child)))
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Kills `group` when this process ends, unless it is told to forget it before.
    pub fn guard(&self, group: Pid) {
        self.tell('+', group);
    }

    /// The group is gone: its id may become another's.
    pub fn forget(&self, group: Pid) {
        self.tell('-', group);
    }

    fn tell(&self, what: char, group: Pid) {
        let line = format!("{what} {}\n", group.as_raw_nonzero());
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = child
            .stdin
            .as_mut()
            .map(|stdin| stdin.write_all(line.as_bytes()))
        {
            tracing::warn!(%error, "the watchdog of commands does not listen: they would outlive a killed agent");
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let child = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        child.stdin.take();
        let _ = child.wait(); // it ends at once when its stdin does
    }
}
