//! What an agent's process is started with: its environment, its program, its arguments.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use swarm_agent_host_core::Key;
use swarm_events::agent::{Adapter, AgentSpec, SpawnRequested};

use crate::{
    HostSettings,
    allow::{in_path, is_executable, search_path},
    folder::AgentFolder,
};

/// Memory limit for the commands of an `exec` agent where no cgroup holds it, in KiB: the adapter sets it for each of them,
/// since the agent itself, a program with many threads, could not work within it.
pub const LIMIT_MEMORY_KIB: &str = "SWARM_LIMIT_MEMORY_KIB";
/// Which agent a process belongs to, for finding those that left their group.
pub(crate) const AGENT_ID: &str = "SWARM_AGENT_ID";
/// Which of its processes.
pub(crate) const AGENT_SPAWN: &str = "SWARM_AGENT_SPAWN";

/// The environment, in the order in which it is set: later ones win.
pub(crate) fn environment(
    settings: &HostSettings,
    key: Key,
    request: &SpawnRequested,
    folder: &AgentFolder,
    creds: Option<&Path>,
) -> Result<Vec<(String, String)>, String> {
    let spec = &request.spec;
    let lang = std::env::var("LANG").unwrap_or_else(|_| "C.UTF-8".to_owned());
    let mut variables: Vec<(&str, String)> = vec![
        ("PATH", search_path()),
        ("HOME", folder.home().display().to_string()),
        ("LANG", lang),
        ("TMPDIR", folder.tmp().display().to_string()),
        ("SWARM_NATS_URL", settings.nats_url.clone()),
        ("SWARM_ORG_ID", key.place.org.to_string()),
        ("SWARM_SWARM_ID", key.place.swarm.to_string()),
        (AGENT_ID, key.agent.to_string()),
        ("SWARM_AGENT_TYPE", spec.agent_type.clone()),
        ("SWARM_AGENT_CAPABILITIES", json(&spec.capabilities)?),
        ("SWARM_AGENT_METADATA", json(&spec.metadata)?),
        (AGENT_SPAWN, request.spawn.to_string()),
        ("SWARM_DRAIN_GRACE_MS", request.grace_ms.to_string()),
    ];
    let optional = [
        (
            "SWARM_NATS_CREDS",
            creds.map(|path| path.display().to_string()),
        ),
        ("SWARM_API_URL", settings.api_url.clone()),
        ("SWARM_AGENT_NAME", spec.agent_name.clone()),
        ("SWARM_AGENT_SLOTS", spec.slots.map(|n| n.to_string())),
        ("SWARM_AGENT_WAITING", spec.waiting.map(|n| n.to_string())),
    ];
    variables.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let mut all: Vec<(String, String)> = variables
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    for (name, value) in &spec.env {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let named = name.bytes().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit());
        if name.is_empty() || !named {
            return Err(format!(
                "env: {name:?} is no name of a variable: use letters, digits and underscores"
            ));
        }
        if value.contains('\0') {
            return Err(format!("env.{name}: a value cannot hold a zero byte"));
        }
        all.push((name.clone(), value.clone()));
    }
    for name in &spec.pass_env {
        // Checked against the list before the claim; one that the host does not have is not there.
        if settings.allow.variable(name)
            && let Ok(value) = std::env::var(name)
        {
            all.push((name.clone(), value));
        }
    }
    Ok(all)
}

fn json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

/// A program and its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
}

/// What is started for an agent that works in `work`.
pub(crate) fn command_line(
    settings: &HostSettings,
    spec: &AgentSpec,
    work: &Path,
) -> Result<CommandLine, String> {
    let own = |rest: Vec<String>| {
        let start = ["agent", "run", "--from-env"].map(str::to_owned);
        CommandLine {
            program: settings.program.clone(),
            arguments: start.into_iter().chain(rest).collect(),
        }
    };
    let command = || -> Result<(PathBuf, Vec<String>), String> {
        let (program, arguments) = spec.command.split_first().ok_or("there is no command")?;
        if spec.command.iter().any(|word| word.contains('\0')) {
            return Err("command: a word cannot hold a zero byte".to_owned());
        }
        Ok((resolve(program, work)?, arguments.to_vec()))
    };
    match spec.adapter {
        Some(Adapter::Process) => {
            let (program, arguments) = command()?;
            Ok(CommandLine { program, arguments })
        }
        Some(Adapter::Exec) => {
            // Resolved here: what the host allows is found in the host's PATH, whatever the agent's is.
            let (program, arguments) = command()?;
            let words = ["--".to_owned(), program.display().to_string()];
            Ok(own(words.into_iter().chain(arguments).collect()))
        }
        Some(Adapter::Webhook) => {
            let url = spec.url.clone().ok_or("there is no url")?;
            Ok(own(vec!["--webhook".to_owned(), url]))
        }
        None => Err("it has no adapter".to_owned()),
    }
}

/// Where the program is; in words that help if it cannot be run.
fn resolve(program: &str, work: &Path) -> Result<PathBuf, String> {
    let path = if program.contains('/') {
        let path = work.join(program);
        if !path.exists() {
            return Err(format!("the command {program} does not exist"));
        }
        if !is_executable(&path) {
            return Err(format!("the command {program} is not executable"));
        }
        path
    } else {
        in_path(program).ok_or_else(|| {
            format!("the command {program} does not exist; check its name, and PATH on the host")
        })?
    };
    match interpreter(&path) {
        Some(interpreter) if !interpreter.exists() => Err(format!(
            "the interpreter of {program}, {}, does not exist",
            interpreter.display()
        )),
        _ => Ok(path),
    }
}

/// What the first line of a script names.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut start = [0u8; 256];
    let read = File::open(path).ok()?.read(&mut start).ok()?;
    let line = start[..read].strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    Some(PathBuf::from(text.split_whitespace().next()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_cannot_be_run_is_said_in_words() {
        let dir = tempfile::tempdir().expect("a folder");
        let script = dir.path().join("script");
        let say = |program: &str| resolve(program, dir.path()).expect_err("cannot be run");
        assert!(say("no-such-program-anywhere").contains("does not exist; check its name"));
        assert!(say("./script").contains("does not exist"));
        std::fs::write(&script, "#!/no/such/interpreter -x\n").expect("written");
        assert!(say("./script").contains("is not executable"));
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, executable).expect("set");
        assert!(say("./script").contains("/no/such/interpreter"));
        std::fs::write(&script, "#!/bin/sh\n").expect("written");
        assert_eq!(
            resolve("./script", dir.path()),
            Ok(dir.path().join("./script"))
        );
        assert!(resolve("sh", dir.path()).is_ok());
    }
}
