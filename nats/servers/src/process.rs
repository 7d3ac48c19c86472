//! One supervised server process: its own process group, a log, a pid file.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tracing::{debug, info, warn};

use crate::ServerError;
use crate::run_as::RunAs;

/// How often a process is asked whether it has ended or is ready.
const POLL: Duration = Duration::from_millis(15);
/// A log that has grown past this is put aside when its server starts; one older one is kept.
const LOG_BYTES_MAX: u64 = 32 << 20;
/// How much of a log an error message carries.
const TAIL_BYTES: u64 = 2_000;

/// What to start, and how it is told to end.
pub(crate) struct Launch {
    pub server: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(&'static str, String)>,
    pub run_as: Option<RunAs>,
    pub log: PathBuf,
    pub pid_file: PathBuf,
    pub stop_signal: Signal,
}

/// A running server. Dropping it kills it: nothing that was started is ever left behind.
pub(crate) struct Process {
    server: &'static str,
    child: Child,
    log: PathBuf,
    /// Where this run's part of the log begins.
    log_from: u64,
    pid_file: PathBuf,
    stop_signal: Signal,
    ended: Option<ExitStatus>,
}

impl Process {
    pub fn spawn(launch: Launch) -> Result<Self, ServerError> {
        let log = open_log(&launch.log)?;
        let log_from = log.metadata().map_or(0, |file| file.len());
        let mut command = match death_signal_wrapper(launch.stop_signal) {
            Some(mut wrapper) => {
                wrapper.arg(&launch.program);
                wrapper
            }
            None => Command::new(&launch.program),
        };
        command
            .args(&launch.args)
            .envs(launch.env)
            // A folder that every user can enter; ours may be closed to the one it runs as.
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(
                log.try_clone()
                    .map_err(ServerError::io("open the log", &launch.log))?,
            )
            .stderr(log)
            // Ctrl-C reaches everything in the terminal's group; servers stop last, when told.
            .process_group(0);
        if let Some(user) = &launch.run_as {
            command.uid(user.uid).gid(user.gid);
        }
        let child = spawn_for_life(command).map_err(ServerError::io("start", &launch.program))?;
        fs::write(&launch.pid_file, format!("{}\n", child.id()))
            .map_err(ServerError::io("write", &launch.pid_file))?;
        debug!(pid = child.id(), "{} started", launch.server);
        Ok(Self {
            server: launch.server,
            child,
            log: launch.log,
            log_from,
            pid_file: launch.pid_file,
            stop_signal: launch.stop_signal,
            ended: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
            if self.ended.is_some() {
                let _ = fs::remove_file(&self.pid_file);
            }
        }
        self.ended
    }

    /// Waits until the process has ended by itself.
    pub async fn wait(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            tokio::time::sleep(POLL * 4).await;
        }
    }

    /// Waits until `ready` says so; an end of the process or of the patience is an error.
    pub async fn until_ready<F, R>(
        &mut self,
        patience: Duration,
        mut ready: F,
    ) -> Result<(), ServerError>
    where
        F: FnMut() -> R,
        R: Future<Output = bool>,
    {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Err(ServerError::Exited {
                    server: self.server,
                    status: status.to_string(),
                    tail: tail(&self.log, self.log_from),
                    log: self.log.clone(),
                });
            }
            if ready().await {
                info!(
                    pid = self.pid(),
                    "{} is ready after {} ms",
                    self.server,
                    began.elapsed().as_millis()
                );
                return Ok(());
            }
            if began.elapsed() > patience {
                self.kill();
                return Err(ServerError::NotReady {
                    server: self.server,
                    seconds: patience.as_secs(),
                    tail: tail(&self.log, self.log_from),
                    log: self.log.clone(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks it to end, waits for at most `grace`, then kills it.
    pub async fn stop(&mut self, grace: Duration) {
        if self.ended().is_some() {
            return;
        }
        signal(self.pid(), self.stop_signal);
        let began = Instant::now();
        while self.ended().is_none() {
            if began.elapsed() > grace {
                warn!(
                    "{} has not ended {} s after it was asked to, and is killed",
                    self.server,
                    grace.as_secs()
                );
                return self.kill();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// SIGKILL, as by a crash of the machine.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
            let _ = fs::remove_file(&self.pid_file);
        }
    }

    /// Sends a signal, unless it has ended: its id may be another's by then.
    pub fn signal(&self, wanted: Signal) {
        if self.ended.is_none() {
            signal(self.pid(), wanted);
        }
    }

    pub fn log_has(&self, text: &str) -> bool {
        tail(&self.log, self.log_from).contains(text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes the data folder for this process, until the file is dropped. Who finds a server there
/// while holding this knows that its parent is gone.
pub(crate) fn lock(server: &'static str, data_dir: &Path) -> Result<File, ServerError> {
    let path = data_dir.join("lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(ServerError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ServerError::FolderInUse {
            server,
            path: data_dir.to_path_buf(),
        }),
        Err(fs::TryLockError::Error(error)) => Err(ServerError::io("lock", &path)(error)),
    }
}

/// Ends a server that an earlier run left behind (its parent was killed), which would hold
/// the port and the data. A pid that is now another program's is left alone: only a
/// process whose command line names `mark`, our data, is ours.
pub(crate) async fn end_leftover(
    server: &'static str,
    pid_file: &Path,
    mark: &Path,
    stop_signal: Signal,
    grace: Duration,
) {
    let Some(pid) = pid_in(pid_file) else { return };
    if runs_with(pid, mark) {
        warn!(
            pid,
            "{server} of an earlier run still works here and is stopped first"
        );
        signal(pid, stop_signal);
        let began = Instant::now();
        while runs_with(pid, mark) {
            if began.elapsed() > grace {
                signal(pid, Signal::KILL);
            }
            tokio::time::sleep(POLL).await;
        }
    }
    let _ = fs::remove_file(pid_file);
}

/// The first line of a pid file, as nats-server and PostgreSQL write them too.
pub(crate) fn pid_in(pid_file: &Path) -> Option<u32> {
    let text = fs::read_to_string(pid_file).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Does `pid` run, with `mark` in its command line?
pub(crate) fn runs_with(pid: u32, mark: &Path) -> bool {
    let mark = mark.to_string_lossy();
    let line = match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        // No /proc: not Linux, or gone.
        Err(_) => Command::new("ps")
            .args(["-o", "args=", "-p", &pid.to_string()])
            .output()
            .map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
            .unwrap_or_default(),
    };
    line.contains(&*mark)
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn open_log(path: &Path) -> Result<File, ServerError> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        let _ = fs::rename(path, path.with_extension("log.1"));
    }
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(ServerError::io("open the log", path))
}

/// The last lines of a log after byte `from`, on one line.
fn tail(log: &Path, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(from)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let last: Vec<&str> = text.lines().rev().take(8).collect();
        Ok(last.into_iter().rev().collect::<Vec<_>>().join(" | "))
    };
    read().unwrap_or_default()
}

/// `setpriv --pdeathsig` of util-linux, where it is there: the server then ends with us, even
/// when we are killed. Setting this ourselves would need unsafe code between fork and exec.
/// Elsewhere a server that outlives us is ended at the next start, by `end_leftover`.
fn death_signal_wrapper(stop_signal: Signal) -> Option<Command> {
    static THERE: OnceLock<bool> = OnceLock::new();
    let there = *THERE.get_or_init(|| {
        cfg!(target_os = "linux")
            && Command::new("setpriv")
                .args(["--pdeathsig", "TERM", "true"])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    });
    let name = if stop_signal == Signal::INT {
        "INT"
    } else {
        "TERM"
    };
    there.then(|| {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", name]);
        command
    })
}

/// Starts a command from a thread that lives as long as this process. The kernel sends the
/// parent-death signal when the *thread* that forked ends, and a runtime's threads come and go.
fn spawn_for_life(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("server-spawner".into())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    let _ = answer.send(command.spawn());
                }
            })
            .map(|_| jobs)
            .expect("a thread can be started")
    });
    let gone = || io::Error::other("the thread that starts servers has ended");
    let (answer, outcome) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_| gone())?;
    outcome.recv().map_err(|_| gone())?
}
