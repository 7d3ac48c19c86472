//! A process group: signalled as a whole, and not left before it is empty.

use std::{sync::Arc, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, waitpgid},
};
use tokio::time::{Instant, sleep};

use crate::watchdog::Watchdog;

/// A killed process is gone in a moment; one in an uninterruptible call may take longer, and is not waited for.
const REAP_WAIT: Duration = Duration::from_secs(2);
const REAP_PAUSE: Duration = Duration::from_millis(2);

/// The group of a process that was started as its leader. Dropped before [`Group::clear`] or [`Group::end`], it kills what is
/// left. The process that holds it must be the reaper of orphans below it.
pub struct Group {
    id: Option<Pid>,
    watchdog: Option<Arc<Watchdog>>,
}

impl Group {
    /// The group that `leader` leads. The leader has not been waited for, so that its id is nobody else's.
    pub fn new(leader: Pid, watchdog: Option<Arc<Watchdog>>) -> Self {
        if let Some(watchdog) = &watchdog {
            watchdog.guard(leader);
        }
        Self {
            id: Some(leader),
            watchdog,
        }
    }

    /// Sends `signal` to every process of the group. Nothing happens if there is none left.
    pub fn signal(&self, signal: Signal) {
        if let Some(id) = self.id
            && let Err(error) = kill_process_group(id, signal)
            && error != Errno::SRCH
        {
            tracing::warn!(group = id.as_raw_nonzero().get(), %error, "cannot signal a command's processes");
        }
    }

    /// Kills what the leader left behind, after it has been waited for, and takes it out of the process table.
    pub async fn clear(mut self) {
        self.signal(Signal::KILL);
        if let Some(id) = self.id.take() {
            reap(id, |_, _| ()).await;
            self.forget(id);
        }
    }

    /// Once the leader has ended and *before* it is waited for: kills what it left behind and takes all of it out of the
    /// process table, the leader too. Until then the leader's id cannot be another's, so that nobody else is hit.
    pub async fn end(mut self) -> GroupEnd {
        self.signal(Signal::KILL);
        let mut end = GroupEnd::default();
        if let Some(id) = self.id.take() {
            reap(id, |pid, status| {
                if pid == id {
                    end.leader = Some(status);
                } else if status.terminating_signal() == Some(Signal::KILL.as_raw()) {
                    end.left_behind += 1;
                }
            })
            .await;
            self.forget(id);
        }
        end
    }

    fn forget(&self, id: Pid) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.forget(id);
        }
    }
}

/// What was left of a group.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupEnd {
    /// How its leader ended; `None` if somebody else waited for it.
    pub leader: Option<WaitStatus>,
    /// Other members that had to be killed.
    pub left_behind: u32,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let Some(id) = self.id.take() else { return };
        self.forget(id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(reap(id, |_, _| ()));
        }
    }
}

/// Waits for the members that are children of this process: those it started, and orphans that it adopted as their subreaper.
async fn reap(id: Pid, mut each: impl FnMut(Pid, WaitStatus)) {
    let until = Instant::now() + REAP_WAIT;
    loop {
        match waitpgid(id, WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => each(pid, status),
            Err(Errno::INTR) => {}
            Ok(None) if Instant::now() < until => sleep(REAP_PAUSE).await,
            Ok(None) => {
                tracing::warn!(
                    group = id.as_raw_nonzero().get(),
                    "killed processes of a command are still there"
                );
                return;
            }
            Err(_) => return, // no child is left
        }
    }
}
