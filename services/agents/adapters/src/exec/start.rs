//! How a command is started, and why it could not be.
//!
//! A shell holds a door: the command's group is made known to the watchdog first, and only then is the shell told to become
//! the command. If the agent is killed before that, the shell reads the end of its stdin and goes, too; a command that was
//! started at once would run for ever. The word is one byte, and `read` takes no more from a pipe, so that the rest of stdin is
//! the command's.

use std::{
    env,
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use rustix::fs::{Access, access};
use swarm_agent_sdk::{TaskContext, TaskError};
use tokio::process::Command;

use super::ExecAdapter;

/// What a command keeps of the agent's environment: enough to find programs and files, and no credentials.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// What a command never gets, however the agent came by it: with the first it could speak as the agent, and on any subject
/// that the agent may use.
const KEPT_BACK: [&str; 3] = ["SWARM_NATS_", "SWARM_LIMIT_", "SWARM_WEBHOOK_"];
/// Waits for [`OPEN`], sets the limit for itself, if there is one, and becomes the command.
const DOOR: &str =
    r#"IFS= read -r _ || exit 125; [ -z "$1" ] || ulimit -v "$1" || exit 71; shift; exec "$@""#;
/// Name under which that shell speaks on stderr.
pub(super) const DOOR_NAME: &str = "swarm-exec-door";
/// The word that it waits for: the shortest line.
pub(super) const OPEN: u8 = b'\n';
/// Exit code of the door when the limit cannot be set: `EX_OSERR` of sysexits.h.
const EXIT_NO_LIMIT: i32 = 71;
/// Exit code of a shell for a program that it does not find. POSIX.
const EXIT_NOT_FOUND: i32 = 127;
/// Where a shell looks for programs if nobody says where.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl ExecAdapter {
    /// Whether commands wait for [`OPEN`]. Without a watchdog there is nothing to wait for, and perhaps no shell.
    pub(super) fn has_door(&self) -> bool {
        self.watchdog.is_some() || self.memory_limit_kib.is_some()
    }

    /// The command's own environment before what [`Self::env`] sets.
    fn passed_on(&self) -> impl Iterator<Item = (OsString, OsString)> {
        env::vars_os().filter(|(name, _)| {
            let is = |known: &&str| name.as_encoded_bytes() == known.as_bytes();
            let begins = |known: &&str| name.as_encoded_bytes().starts_with(known.as_bytes());
            if self.inherit {
                !KEPT_BACK.iter().any(begins)
            } else {
                ENVIRONMENT.iter().any(is)
            }
        })
    }

    pub(super) fn command(&self, task: &TaskContext) -> Command {
        let mut command = if self.has_door() {
            let limit = self.memory_limit_kib.map(|kib| kib.to_string());
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", DOOR, DOOR_NAME, &limit.unwrap_or_default()]);
            shell.arg(&self.program);
            shell
        } else {
            Command::new(&self.program)
        };
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.passed_on())
            .envs(&self.environment)
            .env("SWARM_TASK_ID", task.id.to_string())
            .env("SWARM_ATTEMPT", task.attempt.to_string())
            .env("SWARM_FENCING_TOKEN", task.fencing_token.to_string())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    /// Whether there is a program to start: a shell stands before it, and cannot say it as well.
    pub(super) fn look_up(&self) -> io::Result<()> {
        // Both are seen from where the command will be.
        let directory = self.directory.clone().unwrap_or_else(|| ".".into());
        let places: Vec<PathBuf> = if self.program.contains('/') {
            vec![directory.join(&self.program)]
        } else {
            let own = self.environment.get("PATH").map(OsString::from);
            let path = own.or_else(|| env::var_os("PATH"));
            env::split_paths(&path.unwrap_or_else(|| PATH_DEFAULT.into()))
                .map(|folder| directory.join(folder).join(&self.program))
                .collect()
        };
        let mut found = Err(io::ErrorKind::NotFound.into());
        for place in places {
            match place.metadata() {
                Ok(file) if file.is_file() && access(&place, Access::EXEC_OK).is_ok() => {
                    return Ok(());
                }
                Ok(_) => found = Err(io::ErrorKind::PermissionDenied.into()),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    found = Err(error);
                }
                Err(_) => {}
            }
        }
        found
    }

    /// What a failed start means to whoever wrote the command.
    pub(super) fn cannot_start(&self, error: &io::Error) -> TaskError {
        let program = &self.program;
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                if let Some(directory) = self
                    .directory
                    .as_deref()
                    .filter(|directory| !directory.is_dir())
                {
                    return TaskError::permanent(format!(
                        "the directory {} does not exist",
                        directory.display()
                    ));
                }
                if self.look_up().is_ok() {
                    // The script is there; what its first line names is not.
                    return TaskError::permanent(format!(
                        "the interpreter of {program} does not exist"
                    ));
                }
                TaskError::permanent(format!(
                    "the command {program} does not exist; check its name, and PATH on the agent's machine"
                ))
            }
            io::ErrorKind::PermissionDenied => TaskError::permanent(format!(
                "the command {program} is not executable for the agent's user"
            )),
            _ => TaskError::retryable(format!(
                "the command {program} could not be started: {error}"
            )),
        }
    }

    /// The same where the door was started, and ended with `words` instead of becoming the command.
    pub(super) fn never_began(&self, status: ExitStatus, words: &str) -> TaskError {
        match status.code() {
            Some(EXIT_NOT_FOUND) => self.cannot_start(&io::ErrorKind::NotFound.into()),
            Some(EXIT_NO_LIMIT) => TaskError::permanent(format!(
                "the command {} could not be started under its memory limit{words}",
                self.program
            )),
            // Of its interpreter, as the program itself was looked at.
            _ if words.contains("Permission denied") => {
                self.cannot_start(&io::ErrorKind::PermissionDenied.into())
            }
            _ => TaskError::retryable(format!(
                "the command {} could not be started{words}",
                self.program
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use swarm_agent_sdk::Handler;

    use super::*;

    fn adapter(words: &[&str]) -> ExecAdapter {
        ExecAdapter::new(words.iter().map(|word| (*word).to_owned()).collect()).expect("a command")
    }

    fn task() -> TaskContext {
        TaskContext::detached("count", json!({}).into(), Duration::from_secs(60)).0
    }

    #[tokio::test]
    async fn a_command_whose_agent_dies_before_it_is_guarded_never_runs() {
        let dir = tempfile::tempdir().expect("a folder");
        let mark = dir.path().join("it-ran");
        let plain = adapter(&["touch", mark.to_str().expect("text")]);
        let limited = adapter(&["touch", mark.to_str().expect("text")]).memory_limit_kib(65_536);
        for adapter in [plain, limited] {
            let mut child = adapter.command(&task()).spawn().expect("it starts");
            // What the kernel does for an agent that is killed here.
            drop(child.stdin.take());
            let status = child.wait().await.expect("it is ours");
            assert!(!mark.exists(), "{status}");
            assert_eq!(status.code(), Some(125));
        }
    }

    #[tokio::test]
    async fn where_no_watchdog_could_be_started_commands_run_all_the_same() {
        let mut adapter = adapter(&["cat"]);
        adapter.watchdog = None;
        let read = adapter.handle(task()).await.expect("it succeeds");
        assert_eq!(read.to_value()["task_type"], "count");
    }
}
