//! A command for each task.

mod answers;
mod speech;
mod start;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, getpid, set_child_subreaper};
use serde::Serialize;
use serde_json::Value;
use swarm_agent_sdk::{Handler, Progress, Step, TaskContext, TaskError};
use swarm_events::{Json, Timestamp, ids::TaskId};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Child,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    group::Group,
    output::{Confession, Control, Output, STDOUT_BYTES_MAX, TooMuch},
    watchdog::Watchdog,
};
use speech::{Saying, Speech};
use start::{DOOR_NAME, OPEN};

/// What a command gets between SIGTERM and SIGKILL. Below the agent's own patience with a handler.
pub const KILL_GRACE: Duration = Duration::from_secs(5);
/// How much of the end of stderr an error shows.
pub const STDERR_TAIL_BYTES: usize = 4 * 1024;
/// How long output is still read once the command and its group are gone: a process that left the group may hold the pipe.
const PIPE_GRACE: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 64 * 1024;
/// Exit code of a command for which no other attempt will help: `EX_DATAERR` of sysexits.h, "the input data was incorrect".
pub const EXIT_NOT_RETRYABLE: i32 = 65;

/// Nothing to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCommand;
impl std::fmt::Display for NoCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no command given: name the program to run for each task")
    }
}
impl std::error::Error for NoCommand {}

/// Runs a command for each task, in a process group of its own and with a clean environment.
///
/// Stdin is one line of JSON. On stdout a JSON object with only `progress`, `message` or `ask` is control; the last other line
/// that is a JSON object or array is the result; without one, all of stdout if it is JSON, else `{"stdout": …}`.
///
/// - `{"progress": 50, "message": "half"}` tells how far it is.
/// - `{"message": {"to": "leader", "topic": "news", "body": …}}` says something to an agent (its id or name), a role, the
///   `leader`, `all` or `people`, or without `to` to whoever has subscribed to the topic.
/// - `{"ask": {"question": "Go on?", "choices": ["yes", "no"], "default": "no", "timeout_ms": 60000}}` asks a person,
///   and with `"answerer": "leader"` or `{"role": "supervisor"}` also that agent. The answer comes as a line on stdin,
///   `{"answer": "yes", "by": …}`, or `{"error": "…"}`. For that stdin has to stay open, which a command that reads to its end
///   would wait for in vain: see [`ExecAdapter::keep_stdin_open`].
/// - `{"split": [{"key": "a", "task_type": "count", "payload": …}, …]}` as the result hands the task on in parts. Their results
///   come back as `inputs` of a further run, whose `step` is `reduce`.
///
/// Exit code 0 is
/// success; anything else fails the attempt with the end of stderr. A command that exits with another code can say more in
/// its last JSON line: `{"error": "no such user", "retryable": false}` gives the error in its own words and says that no
/// other attempt will help; exit code [`EXIT_NOT_RETRYABLE`] says the latter by itself; `{"declined": "no such file here"}`
/// gives the task back for other agents, which is no attempt. Progress lines also tell the swarm
/// that the attempt is alive (`progress_timeout_ms`). Cancelled, the whole group gets SIGTERM, and SIGKILL after
/// a grace. What a command leaves running in its group is killed when it ends; nothing outlives the agent, even a killed one.
///
/// Makes this process the reaper of orphans below it, so that none stays in the process table.
pub struct ExecAdapter {
    program: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    inherit: bool,
    memory_limit_kib: Option<u64>,
    directory: Option<PathBuf>,
    kill_grace: Duration,
    stdin_open: bool,
    answers: bool,
    watchdog: Option<Arc<Watchdog>>,
}

/// What a command reads.
#[derive(Serialize)]
struct Input<'a> {
    id: TaskId,
    task_type: &'a str,
    payload: &'a Json,
    inputs: &'a Json,
    attempt: u32,
    fencing_token: u64,
    deadline: Timestamp,
    /// Only where results of parts are to become one.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<Step>,
}

/// What an agent's metadata says of its command, as `{"exec": {"stdin": "open", "answers": true}}`: how one that a host runs comes by
/// it. Whether its stdin stays open, and whether it answers questions.
fn wanted(metadata: Option<&str>) -> (bool, bool) {
    let read = metadata.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let exec = read.map_or(Value::Null, |mut metadata| metadata["exec"].take());
    (exec["stdin"] == "open", exec["answers"] == true)
}

impl ExecAdapter {
    /// An adapter that runs `command`: a program, found in `PATH` unless it holds a slash, and its arguments.
    ///
    /// # Errors
    /// When `command` is empty.
    pub fn new(command: Vec<String>) -> Result<Self, NoCommand> {
        let mut command = command.into_iter();
        let program = command
            .next()
            .filter(|program| !program.is_empty())
            .ok_or(NoCommand)?;
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::warn!(%error, "orphans of commands will go to the init process");
        }
        let watchdog = Watchdog::start()
            .inspect_err(|error| tracing::warn!(%error, "no watchdog: commands would outlive a killed agent"))
            .ok()
            .map(Arc::new);
        let (stdin_open, answers) = wanted(std::env::var("SWARM_AGENT_METADATA").ok().as_deref());
        Ok(Self {
            program,
            arguments: command.collect(),
            environment: BTreeMap::new(),
            inherit: false,
            memory_limit_kib: None,
            directory: None,
            kill_grace: KILL_GRACE,
            stdin_open,
            answers,
            watchdog,
        })
    }

    /// Leaves the command's stdin open behind its one line, so that answers to what it asks can come there. A command that reads
    /// to the end of its input would never end. Also set by the agent's metadata, `{"exec": {"stdin": "open"}}`.
    #[must_use]
    pub fn keep_stdin_open(mut self) -> Self {
        self.stdin_open = true;
        self
    }

    /// Sets an environment variable for the command, beside the few that it gets anyway. Some shells, which start it, pass on
    /// no name but of letters, digits and `_`.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Passes on the agent's own environment, which a host has cleaned and filled, but for what only the agent may know
    /// (`SWARM_NATS_…`). Otherwise a command gets `PATH`, `HOME`, `LANG`, `TMPDIR` and what [`Self::env`] sets.
    #[must_use]
    pub fn inherit_environment(mut self) -> Self {
        self.inherit = true;
        self
    }

    /// Limits the address space of the command, and of each process that it starts, to `kib` KiB (`RLIMIT_AS`): a command
    /// that wants more is refused it by the system, and mostly ends with an error of its own.
    #[must_use]
    pub fn memory_limit_kib(mut self, kib: u64) -> Self {
        self.memory_limit_kib = Some(kib);
        self
    }

    /// Runs the command in `directory`, not in the agent's.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// What the command gets between SIGTERM and SIGKILL, at most [`KILL_GRACE`].
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = grace.min(KILL_GRACE);
        self
    }

    /// What a command that did not succeed says: in its own words if it has any, else by the end of stderr.
    fn failed(&self, status: ExitStatus, result: &Json, errors: &[u8]) -> TaskError {
        // One that was killed had no last word.
        let said = match status.code() {
            Some(_) => Confession::read(result),
            None => Confession::default(),
        };
        if let Some(reason) = said.declined {
            return TaskError::decline(reason);
        }
        let words = match said.error {
            Some(error) => format!(": {error}"),
            None => tail(errors),
        };
        if errors.starts_with(DOOR_NAME.as_bytes()) {
            // The door speaks only if the command was never reached.
            return self.never_began(status, &words);
        }
        let limit = self.memory_limit_kib.map_or_else(String::new, |kib| {
            format!(" (it may use {kib} KiB of memory)")
        });
        let message = format!("{} {}{limit}{words}", self.program, describe(status));
        let retryable = said
            .retryable
            .unwrap_or(status.code() != Some(EXIT_NOT_RETRYABLE));
        if retryable {
            TaskError::retryable(message)
        } else {
            TaskError::permanent(message)
        }
    }
}

#[async_trait]
impl Handler for ExecAdapter {
    async fn handle(&self, task: TaskContext) -> Result<Json, TaskError> {
        let input = Input {
            id: task.id,
            task_type: &task.task_type,
            payload: &task.payload,
            inputs: &task.inputs,
            attempt: task.attempt,
            fencing_token: task.fencing_token,
            deadline: task.deadline,
            step: Some(task.step()).filter(|step| *step == Step::Reduce),
        };
        // The word that opens the door goes before what the command reads: both are written once the group is guarded.
        let mut line = Vec::new();
        if self.has_door() {
            line.push(OPEN);
        }
        serde_json::to_writer(&mut line, &input)?;
        line.push(b'\n');
        let mut child = self
            .look_up()
            .and_then(|()| self.command(&task).spawn())
            .map_err(|error| self.cannot_start(&error))?;
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let Some(leader) = leader else {
            return Err(TaskError::retryable(
                "the command ended before it could be watched",
            ));
        };
        let group = Group::new(leader, self.watchdog.clone());
        let mut pipes = Pipes::new(&mut child, line, &task, self.stdin_open);
        let ended = self.watch(&mut child, &group, &task, &mut pipes).await;
        group.clear().await;
        let (output, errors) = pipes.end().await;
        let status = ended?;
        // A command whose pipe was closed may have died of that before it was killed.
        let output = output.map_err(|TooMuch| flood())?;
        let progress = task.progress_handle();
        let mut last = Vec::new();
        let result = output.finish(|control| last.push(control));
        for control in last {
            // A line without an end is a line.
            tell(&progress, &control);
            if let Some(saying) = Saying::of(&control) {
                speech::say(&task, saying, None).await;
            }
        }
        if status.success() {
            if let Some(parts) = speech::parts(&result)? {
                task.split(parts)?;
            }
            Ok(result)
        } else {
            Err(self.failed(status, &result, &errors))
        }
    }
}

impl ExecAdapter {
    /// Until the command has ended, one way or another.
    async fn watch(
        &self,
        child: &mut Child,
        group: &Group,
        task: &TaskContext,
        pipes: &mut Pipes,
    ) -> Result<ExitStatus, TaskError> {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            () = pipes.flooded() => {
                group.signal(Signal::KILL);
                child.wait().await?;
                return Err(flood());
            }
            () = task.cancelled.cancelled() => {}
        }
        group.signal(Signal::TERM);
        if timeout(self.kill_grace, child.wait()).await.is_err() {
            group.signal(Signal::KILL);
            child.wait().await?;
        }
        Err(TaskError::retryable("cancelled"))
    }
}

fn flood() -> TaskError {
    TaskError::permanent(format!(
        "the command printed more than {STDOUT_BYTES_MAX} bytes to stdout and was killed: write large results to a store and print a reference"
    ))
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    if let Some(code) = status.code() {
        return format!("exited with code {code}");
    }
    let signal = status.signal().unwrap_or(0);
    let name = match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL; out of memory?)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    };
    format!("was killed by signal {signal}{name}")
}

/// The end of stderr, for an error message.
fn tail(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER);
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

fn tell(progress: &Progress, control: &Control) {
    if control.progress.is_some() || control.words().is_some() {
        progress.set(control.percent(), control.words().as_deref());
    }
}

/// The three pipes of a command, each served by a task of its own. Dropped, they are closed. What was read is shared, so that it
/// counts even if a process that left the group holds the pipe.
struct Pipes {
    stdin: Option<JoinHandle<()>>,
    speech: Option<Speech>,
    stdout: Option<JoinHandle<Result<(), TooMuch>>>,
    stderr: Option<JoinHandle<()>>,
    output: Arc<Mutex<Output>>,
    errors: Arc<Mutex<Vec<u8>>>,
    flooded: bool,
}

impl Pipes {
    fn new(child: &mut Child, line: Vec<u8>, task: &TaskContext, stdin_open: bool) -> Self {
        let progress = task.progress_handle();
        let (answers, mut lines) = mpsc::channel::<Vec<u8>>(1);
        let (speech, said) = Speech::new(task.clone(), stdin_open.then_some(answers));
        let (output, errors) = (
            Arc::<Mutex<Output>>::default(),
            Arc::<Mutex<Vec<u8>>>::default(),
        );
        let stdin = child.stdin.take().map(|mut stdin| {
            tokio::spawn(async move {
                // A command need not read what it is given.
                let mut written = stdin.write_all(&line).await;
                // Ends at once unless stdin is to stay open: then nobody has the other end.
                while let (Ok(()), Some(line)) = (&written, lines.recv().await) {
                    written = stdin.write_all(&line).await;
                }
            })
        });
        let stdout = child
            .stdout
            .take()
            .map(|pipe| tokio::spawn(read_output(pipe, output.clone(), progress, said)));
        let stderr = child
            .stderr
            .take()
            .map(|pipe| tokio::spawn(read_tail(pipe, errors.clone())));
        Self {
            stdin,
            speech: Some(speech),
            stdout,
            stderr,
            output,
            errors,
            flooded: false,
        }
    }

    /// Ends when the command has printed too much, and never otherwise.
    async fn flooded(&mut self) {
        if let Some(stdout) = &mut self.stdout {
            self.flooded = matches!(stdout.await, Ok(Err(TooMuch)));
            self.stdout = None;
        }
        if !self.flooded {
            std::future::pending::<()>().await;
        }
    }

    /// All of stdout and the end of stderr, once the command and its group are gone.
    async fn end(mut self) -> (Result<Output, TooMuch>, Vec<u8>) {
        let rest = async {
            if let Some(stdout) = &mut self.stdout {
                self.flooded = matches!(stdout.await, Ok(Err(TooMuch)));
            }
            if let Some(stderr) = &mut self.stderr {
                let _ = stderr.await; // a reader that panicked has nothing more
            }
        };
        let _ = timeout(PIPE_GRACE, rest).await;
        // What it said before it ended is still sent; what it asked, nobody waits for.
        self.stdout.take().inspect(JoinHandle::abort);
        if let Some(speech) = self.speech.take() {
            speech.end().await;
        }
        let output = std::mem::take(&mut *lock(&self.output));
        let errors = std::mem::take(&mut *lock(&self.errors));
        (
            if self.flooded {
                Err(TooMuch)
            } else {
                Ok(output)
            },
            errors,
        )
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        self.stdin.take().inspect(JoinHandle::abort);
        self.stdout.take().inspect(JoinHandle::abort);
        self.stderr.take().inspect(JoinHandle::abort);
        if let Some(speech) = self.speech.take() {
            speech.abort();
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_output(
    mut pipe: impl AsyncRead + Unpin,
    output: Arc<Mutex<Output>>,
    progress: Progress,
    said: mpsc::Sender<Saying>,
) -> Result<(), TooMuch> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(read) => {
                let mut sayings = Vec::new();
                lock(&output).push(&buffer[..read], |control| {
                    tell(&progress, &control);
                    sayings.extend(Saying::of(&control));
                })?;
                for saying in sayings {
                    // Waits for those before it: a command that says more than its swarm allows waits, too.
                    let _ = said.send(saying).await;
                }
            }
        }
    }
}

/// Reads to the end and keeps the last [`STDERR_TAIL_BYTES`].
async fn read_tail(mut pipe: impl AsyncRead + Unpin, errors: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                let mut tail = lock(&errors);
                tail.extend_from_slice(&buffer[..read]);
                let over = tail.len().saturating_sub(STDERR_TAIL_BYTES);
                tail.drain(..over);
            }
        }
    }
}
