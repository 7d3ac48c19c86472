//! A command's process group: signalled as a whole, and not left before it is empty.

use std::{sync::Arc, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid},
};
use tokio::time::{Instant, sleep};

use crate::watchdog::Watchdog;

/// A killed process is gone in a moment; one in an uninterruptible call may take longer, and is not waited for.
const REAP_WAIT: Duration = Duration::from_secs(2);
const REAP_PAUSE: Duration = Duration::from_millis(2);

/// The group of a command that was started as its leader. Dropped before [`Group::clear`], it kills what is left.
pub(crate) struct Group {
    id: Option<Pid>,
    watchdog: Option<Arc<Watchdog>>,
}

impl Group {
    pub(crate) fn new(leader: Pid, watchdog: Option<Arc<Watchdog>>) -> Self {
        if let Some(watchdog) = &watchdog {
            watchdog.guard(leader);
        }
        Self {
            id: Some(leader),
            watchdog,
        }
    }

    /// Sends `signal` to every process of the group. Nothing happens if there is none left.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(id) = self.id
            && let Err(error) = kill_process_group(id, signal)
            && error != Errno::SRCH
        {
            tracing::warn!(group = id.as_raw_nonzero().get(), %error, "cannot signal a command's processes");
        }
    }

    /// Kills what the leader left behind, after it has been waited for, and takes it out of the process table.
    pub(crate) async fn clear(mut self) {
        self.signal(Signal::KILL);
        if let Some(id) = self.id.take() {
            reap(id).await;
            self.forget(id);
        }
    }

    fn forget(&self, id: Pid) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.forget(id);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let Some(id) = self.id.take() else { return };
        self.forget(id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(reap(id));
        }
    }
}

/// Waits for the members that are children of this process: those it started, and orphans that it adopted as their subreaper.
async fn reap(id: Pid) {
    let until = Instant::now() + REAP_WAIT;
    loop {
        match waitpgid(id, WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
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
