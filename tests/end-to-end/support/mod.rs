//! An installation of a test's own, and what a test asks it.

mod agents;
mod database;
mod door;
mod events;
mod load;
mod record;
mod team;

use std::{
    future::Future,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

pub use agents::{Agent, script};
pub use database::{count, dump, query_pairs};
pub use door::Door;
pub use events::Events;
pub use load::{
    WORK, assert_each_completed_once, completions, submit, under_load, until_more_complete,
};
pub use record::{Assignment, Record, is};
pub use team::Team;

/// Limit for anything that takes moments when all is well, and longer on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Room for the log: nats-server reserves it, and several tests may run on one small disk.
pub const LOG_BYTES_MAX: &str = "1073741824";
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `look` answers with something.
pub async fn eventually<T, F, R>(what: &str, patience: Duration, mut look: F) -> T
where
    F: FnMut() -> R,
    R: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        sleep(LOOK).await;
    }
}

/// The binary, with nothing in its environment that names another server.
pub fn swarm(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarm"));
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| name.starts_with("SWARM_"));
        let kept = [
            "SWARM_CACHE",
            "SWARM_NATS_SERVER_BIN",
            "SWARM_POSTGRES_BIN_DIR",
        ];
        if ours && !kept.iter().any(|kept| name == *kept) {
            command.env_remove(name);
        }
    }
    command
        .arg("--data")
        .arg(data)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Text of an output, for messages.
pub fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What the gateway answered.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// Its JSON; null if it is none.
    pub body: Value,
}

/// A running installation. Stopped when dropped.
pub struct Installation {
    /// What `connection.json` says.
    pub connection: Value,
    http: reqwest::Client,
    dir: TempDir,
}

impl Installation {
    /// Starts one on free ports, in the background.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further arguments of `swarm up`.
    pub async fn start_with(args: &[&str]) -> Self {
        let dir = folder();
        let data = dir.path().join("data");
        // Open enough that PostgreSQL, which runs as another user if this one is root, reaches its part.
        std::fs::create_dir(&data).expect("made");
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o711)).expect("ours");
        Self::start_in(dir, &[&["--durability", "speed"], args].concat()).await
    }

    /// Starts one in `<dir>/data`.
    pub async fn start_in(dir: TempDir, args: &[&str]) -> Self {
        swarm_log::tls::choose();
        let data = dir.path().join("data");
        let up = swarm(&data)
            .args(["up", "--detach", "--any-ports"])
            .args(args)
            // Servers of a test that are not the installation's own reserve little.
            .env("SWARM_LOG_BYTES_MAX", LOG_BYTES_MAX)
            .output()
            .await
            .expect("runs");
        assert!(
            up.status.success(),
            "swarm up: {}{}",
            said(&up),
            logs(&data)
        );
        Self {
            connection: connection(&data),
            http: reqwest::Client::new(),
            dir,
        }
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The test's own folder, which holds the data folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A field of `connection.json`.
    pub fn field(&self, name: &str) -> &str {
        self.connection[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in connection.json"))
    }

    /// Addresses of all gateways.
    pub fn gateways(&self) -> Vec<String> {
        let urls = self.connection["api_urls"].as_array().expect("a list");
        let urls = urls.iter().filter_map(Value::as_str);
        urls.map(str::to_owned).collect()
    }

    /// The process id of a service, as it is now.
    pub fn pid(&self, service: &str) -> Option<u32> {
        let pid = connection(&self.data())["pids"][service].as_u64()?;
        u32::try_from(pid).ok()
    }

    /// Runs the command line and answers with what it said.
    pub async fn cli(&self, args: &[&str]) -> Output {
        swarm(&self.data()).args(args).output().await.expect("runs")
    }

    /// Runs the command line, which must succeed, and reads its JSON.
    pub async fn cli_json(&self, args: &[&str]) -> Value {
        let output = self.cli(&[args, &["-o", "json"]].concat()).await;
        assert!(output.status.success(), "swarm {args:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
    }

    /// A request with the admin's key. `None`: the gateway did not answer.
    pub async fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let answer = self.ask(method, path, body).await?;
        Some((answer.status, answer.body))
    }

    /// The same with the answer's headers.
    pub async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let url = format!("{}{path}", self.field("api_url"));
        let mut request = self
            .http
            .request(method, url)
            .bearer_auth(self.field("api_key"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.ok()?;
        Some(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.json().await.unwrap_or(Value::Null),
        })
    }

    /// `GET`, which must answer 200.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self
            .request(reqwest::Method::GET, path, None)
            .await
            .expect("answers");
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// `POST`, which must succeed.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self
            .request(reqwest::Method::POST, path, Some(body))
            .await
            .expect("answers");
        assert!(
            (200..300).contains(&status),
            "POST {path}: {status} {answer}"
        );
        answer
    }

    /// `PUT`, which must succeed.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask(reqwest::Method::PUT, path, Some(body)).await;
        let answer = answer.expect("answers");
        assert_eq!(answer.status, 200, "PUT {path}: {}", answer.body);
        answer.body
    }

    /// Hands in a task and answers with its id.
    pub async fn task(&self, swarm: &str, task: Value) -> String {
        let made = self.post(&format!("/v1/swarms/{swarm}/tasks"), &task).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Creates a swarm and answers with its id.
    pub async fn swarm(&self, name: &str, configuration: Value) -> String {
        let made = self
            .post(
                "/v1/swarms",
                &json!({"name": name, "configuration": configuration}),
            )
            .await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Waits until the swarm's list shows `count` idle agents.
    pub async fn until_idle(&self, swarm: &str, count: usize) {
        eventually("agents are idle", PATIENCE, || async {
            let agents = self
                .pages(&format!("/v1/swarms/{swarm}/agents?limit=500"))
                .await;
            (agents
                .iter()
                .filter(|agent| agent["status"] == "idle")
                .count()
                >= count)
                .then_some(())
        })
        .await;
    }

    /// Waits until every task of the swarm has ended, and answers with them.
    pub async fn until_ended(&self, swarm: &str, count: usize, patience: Duration) -> Vec<Value> {
        eventually("all tasks have ended", patience, || async {
            let tasks = self
                .try_pages(&format!("/v1/swarms/{swarm}/tasks?limit=500"))
                .await?;
            let ended = |task: &&Value| {
                matches!(
                    task["status"].as_str(),
                    Some("completed" | "failed" | "cancelled")
                )
            };
            (tasks.len() == count && tasks.iter().all(|task| ended(&task))).then_some(tasks)
        })
        .await
    }

    async fn pages(&self, path: &str) -> Vec<Value> {
        self.try_pages(path)
            .await
            .unwrap_or_else(|| panic!("GET {path} has no answer"))
    }

    /// Every page of a list; `None` while the gateway or the database is away.
    pub async fn try_pages(&self, path: &str) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let (status, mut page) = self
                .request(reqwest::Method::GET, &format!("{path}{cursor}"), None)
                .await?;
            if status != 200 {
                return None;
            }
            let Value::Array(more) = page["items"].take() else {
                return None;
            };
            items.extend(more);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Some(items),
            }
        }
    }

    /// Sends SIGKILL to a service and waits until the supervisor has started another process that is ready.
    pub async fn kill_service(&self, service: &str) {
        let before = self
            .pid(service)
            .unwrap_or_else(|| panic!("{service} does not run"));
        kill(before, rustix::process::Signal::KILL);
        eventually(&format!("{service} runs again"), PATIENCE, || async {
            self.pid(service).filter(|pid| *pid != before)
        })
        .await;
    }

    /// Waits until every service says that it is ready.
    pub async fn until_ready(&self) {
        eventually("all services are ready", PATIENCE, || async {
            self.cli(&["status"]).await.status.success().then_some(())
        })
        .await;
    }

    /// What the log holds, as `swarm replay` prints it.
    pub async fn replay(&self, args: &[&str]) -> Vec<Value> {
        eventually("the log can be read", PATIENCE, || self.try_replay(args)).await
    }

    /// The same; `None` while the log cannot be read.
    pub async fn try_replay(&self, args: &[&str]) -> Option<Vec<Value>> {
        let output = self.cli(&[&["replay"], args].concat()).await;
        if !output.status.success() {
            eprintln!("swarm replay: {}", said(&output));
            return None;
        }
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let lines = text.lines();
        Some(
            lines
                .map(|line| serde_json::from_str(line).expect("a JSON line"))
                .collect(),
        )
    }

    /// Logs of all services, for the message of a test that fails.
    pub fn logs(&self) -> String {
        logs(&self.data())
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let down = std::process::Command::new(env!("CARGO_BIN_EXE_swarm"))
            .arg("--data")
            .arg(self.data())
            .arg("down")
            .stdin(Stdio::null())
            .output();
        if let Ok(down) = down
            && !down.status.success()
        {
            eprintln!("swarm down: {}", said(&down));
        }
    }
}

/// A folder of a test's own, through which other users may pass.
pub fn folder() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("swarm-test-")
        .tempdir()
        .expect("a temporary folder");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).expect("ours");
    dir
}

/// `connection.json` as it is now.
pub fn connection(data: &Path) -> Value {
    let text =
        std::fs::read_to_string(data.join("connection.json")).expect("connection.json is there");
    serde_json::from_str(&text).expect("JSON")
}

/// Sends a signal to a process of ours.
pub fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .expect("a process id");
    rustix::process::kill_process(pid, signal).expect("it runs");
}

/// Whether a process runs (a zombie does not).
pub fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with('Z'))
    })
}

fn logs(data: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(data.join("logs"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(25).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        text.push_str(&format!(
            "\n--- {}\n{}",
            entry.path().display(),
            last.join("\n")
        ));
    }
    text
}
