//! One service as a child process: started, started again when it dies, stopped when its stdin closes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Member, shared::Shared};

/// First pause before a service is started again: a killed service is back at once.
const RESTART_MIN: Duration = Duration::from_millis(100);
/// Longest pause: a service that cannot start must not keep the machine busy.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// One that ran for this long starts over with the first pause.
const STEADY: Duration = Duration::from_secs(10);
/// What a stop may take before it becomes a kill: longer than the services' own grace.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// A log that has grown past this is put aside when its service starts; one older one is kept.
const LOG_BYTES_MAX: u64 = 32 << 20;
/// Variables that reach the services; every other setting is the supervisor's to give.
const ENV_KEPT: [&str; 3] = ["SWARM_LOG", "SWARM_LOG_FORMAT", "SWARM_CACHE"];

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Which replica of which service.
    pub member: Member,
    /// This program.
    pub program: PathBuf,
    /// Further arguments.
    pub args: Vec<String>,
    /// Its settings.
    pub env: BTreeMap<&'static str, String>,
    /// Where it writes.
    pub log: PathBuf,
}

impl Spec {
    fn spawn(&self) -> anyhow::Result<Child> {
        let log =
            open_log(&self.log).with_context(|| format!("cannot open {}", self.log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .arg("service")
            .arg(self.member.service.as_str())
            .arg("--until-stdin-closes")
            .args(&self.args);
        for (name, _) in std::env::vars_os() {
            let ours = name
                .to_str()
                .is_some_and(|name| name.starts_with("SWARM_") && !ENV_KEPT.contains(&name));
            if ours {
                command.env_remove(name);
            }
        }
        command
            .envs(&self.env)
            // What is written goes to a file.
            .env("NO_COLOR", "1")
            // Held open by us: however we end, the service sees it close, and ends too.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C reaches everything in the terminal's group; services stop when told, and in order.
            .process_group(0)
            .kill_on_drop(true);
        command
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))
    }
}

/// Keeps a service running until `stop`.
pub async fn keep(spec: Spec, shared: Arc<Shared>, stop: CancellationToken) {
    let name = spec.member.name();
    let name = name.as_str();
    let mut pause = RESTART_MIN;
    loop {
        let began = Instant::now();
        match spec.spawn() {
            Ok(mut child) => {
                // `wait` closes the stdin that it finds, and an end of stdin ends the service.
                let stdin = child.stdin.take();
                if let Some(pid) = child.id() {
                    shared.started(name, pid);
                }
                tokio::select! {
                    status = child.wait() => report(name, status),
                    () = stop.cancelled() => {
                        drop(stdin);
                        stop_child(name, child).await;
                        shared.ended(name);
                        return;
                    }
                }
            }
            Err(error) => tracing::error!(service = name, "{error:#}"),
        }
        if began.elapsed() > STEADY {
            pause = RESTART_MIN;
        }
        shared.died(name);
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => {
                shared.ended(name);
                return;
            }
        }
        pause = (pause * 2).min(RESTART_MAX);
    }
}

fn report(name: &str, status: std::io::Result<ExitStatus>) {
    match status {
        Ok(status) => {
            tracing::warn!(service = name, %status, "a service has ended and is started again")
        }
        Err(error) => tracing::warn!(service = name, %error, "a service cannot be waited for"),
    }
}

async fn stop_child(name: &str, mut child: Child) {
    if let Some(pid) = child.id() {
        signal(pid, Signal::TERM);
    }
    if timeout(STOP_GRACE, child.wait()).await.is_err() {
        tracing::warn!(service = name, "has not ended in time and is killed");
        let _ = child.kill().await;
    }
}

/// Sends a signal; one to a process that is gone is lost, as it should be.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Opens a log to append to, after putting one aside that has grown large.
pub fn open_log(path: &Path) -> std::io::Result<File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    File::options().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_put_aside_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.log");
        let at_limit = File::create(&path).expect("created");
        at_limit.set_len(LOG_BYTES_MAX).expect("grown");
        open_log(&path).expect("opened");
        assert!(
            !dir.path().join("x.log.1").exists(),
            "at the limit it stays"
        );
        at_limit.set_len(LOG_BYTES_MAX + 1).expect("grown");
        open_log(&path).expect("opened");
        assert!(dir.path().join("x.log.1").exists());
        assert_eq!(fs::metadata(&path).expect("there").len(), 0);
    }
}
