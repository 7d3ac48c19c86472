//! A whole installation as `swarm up` makes it, one swarm in it, and agents that its hosts run.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use swarm_chaos::{
    bus::Bus,
    installation::{Installation, Plan},
};
use swarm_events::{AgentId, Place, TaskId};
use uuid::Uuid;

use super::seen::Follower;
use crate::{installation, machine};

/// A hundred processes join one after another on two cores.
const READY_PATIENCE: Duration = Duration::from_secs(180);
/// Most agents of one request.
const ADD_MAX: usize = 1_000;

/// Where and what is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Setting {
    /// Folder on the disk to measure on (default: beside the build)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The `swarm` binary (default: the one beside this program)
    #[arg(long, value_name = "FILE")]
    swarm: Option<PathBuf>,
}

/// The installation.
pub struct World {
    pub installation: Installation,
    pub bus: Bus,
    http: reqwest::Client,
    api: String,
    key: String,
}

/// A swarm in it.
pub struct Swarm {
    pub place: Place,
    pub follower: Follower,
    base: String,
    http: reqwest::Client,
    key: String,
}

impl World {
    /// Starts everything, with so many processes of each service, and so many agents for each host at the most.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start(setting: &Setting, replicas: u16, host_agents: u32) -> anyhow::Result<Self> {
        let (root, program) =
            installation::places(setting.dir.as_deref(), setting.swarm.as_deref())?;
        installation::ensure_built(&program)?;
        let (fsync_p50, fsync_p99) = machine::fsync_times(&root)?;
        println!("machine     {}", machine::describe());
        println!(
            "disk        fsync of 4 KiB: p50 {:.3} ms, p99 {:.3} ms; nats-server with sync `always`",
            fsync_p50.as_secs_f64() * 1e3,
            fsync_p99.as_secs_f64() * 1e3
        );
        println!(
            "swarm       {}, tree at {}; `swarm up --replicas {replicas}`",
            env!("CARGO_PKG_VERSION"),
            machine::commit()
        );
        let installation = Installation::prepare(Plan {
            program,
            root,
            replicas,
            cluster: false,
            foreign: None,
            keep: false,
        })?;
        let settings = installation.data().join("swarm.toml");
        std::fs::write(settings, format!("host_agents_max = {host_agents}\n"))?;
        installation.up().await?;
        let address = installation.address()?;
        let bus = Bus::open(&address, 1).await?;
        Ok(Self {
            bus,
            http: reqwest::Client::new(),
            api: address.api_url,
            key: address.api_key,
            installation,
        })
    }

    /// A swarm with these settings.
    ///
    /// # Errors
    /// The gateway refuses.
    pub async fn swarm(&self, name: &str, configuration: Value) -> anyhow::Result<Swarm> {
        let body = json!({"name": name, "configuration": configuration});
        let made = post(
            &self.http,
            &self.key,
            &format!("{}/v1/swarms", self.api),
            &body,
        )
        .await?;
        let id = |field: &str| {
            let text = made[field].as_str().unwrap_or_default();
            Uuid::parse_str(text).with_context(|| format!("no {field} in {made}"))
        };
        let place = Place::new(id("organization_id")?.into(), id("id")?.into());
        Ok(Swarm {
            follower: Follower::start(self.bus.log(), place),
            base: format!("{}/v1/swarms/{}", self.api, place.swarm),
            http: self.http.clone(),
            key: self.key.clone(),
            place,
        })
    }

    /// Stops everything and looks whether a process is left.
    ///
    /// # Errors
    /// One is.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.installation.down().await?;
        self.installation.finish()
    }
}

impl Swarm {
    /// Adds `count` agents and waits until they are ready.
    ///
    /// # Errors
    /// They are refused, or do not become ready.
    pub async fn add(&self, count: usize, spec: &Value) -> anyhow::Result<Vec<AgentId>> {
        let before = self.follower.see(|seen| seen.ready());
        let mut added = Vec::new();
        while added.len() < count {
            let mut body = spec.clone();
            body["count"] = (count - added.len()).min(ADD_MAX).into();
            let url = format!("{}/agents", self.base);
            let answer = post(&self.http, &self.key, &url, &body).await?;
            let one = [answer.clone()];
            let items = answer["items"].as_array().map_or(&one[..], Vec::as_slice);
            for item in items {
                let id = item["id"].as_str().context("an agent without an id")?;
                added.push(AgentId(Uuid::parse_str(id)?));
            }
        }
        let what = format!("{count} more agents are ready");
        self.follower
            .until(&what, READY_PATIENCE, |seen| {
                (seen.ready() >= before + count).then_some(())
            })
            .await?;
        Ok(added)
    }

    /// Submits a task or a graph of tasks.
    ///
    /// # Errors
    /// The gateway refuses.
    pub async fn submit(&self, body: &Value) -> anyhow::Result<Vec<TaskId>> {
        self.tasks("tasks", body).await
    }

    /// Submits tasks that have nothing to do with each other.
    ///
    /// # Errors
    /// The gateway refuses.
    pub async fn submit_many(&self, tasks: Vec<Value>) -> anyhow::Result<Vec<TaskId>> {
        self.tasks("tasks/bulk", &json!({ "tasks": tasks })).await
    }

    async fn tasks(&self, path: &str, body: &Value) -> anyhow::Result<Vec<TaskId>> {
        let url = format!("{}/{path}", self.base);
        let answer = post(&self.http, &self.key, &url, body).await?;
        let one = [answer.clone()];
        let items = answer["items"].as_array().map_or(&one[..], Vec::as_slice);
        let id = |item: &Value| {
            let text = item["id"].as_str().context("a task without an id")?;
            Ok(TaskId(Uuid::parse_str(text)?))
        };
        items.iter().map(id).collect()
    }

    /// Waits until all of these have ended.
    ///
    /// # Errors
    /// One of them does not within `patience`.
    pub async fn ended(&self, tasks: &[TaskId], patience: Duration) -> anyhow::Result<()> {
        let what = format!("the end of {} tasks", tasks.len());
        self.follower
            .until(&what, patience, |seen| {
                tasks
                    .iter()
                    .all(|task| seen.ended.contains_key(task))
                    .then_some(())
            })
            .await
    }
}

async fn post(http: &reqwest::Client, key: &str, url: &str, body: &Value) -> anyhow::Result<Value> {
    let answer = http.post(url).bearer_auth(key).json(body).send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "POST {url}: {status} {text}");
    match serde_json::from_str(&text) {
        Ok(value) => Ok(value),
        Err(error) => bail!("POST {url}: {error} in {text}"),
    }
}
