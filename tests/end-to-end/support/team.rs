//! Agents of this process, by the Rust SDK, whose work a test steers: real ones on the real bus, without a program for each.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use swarm_agent_sdk::{
    Agent, AgentBuilder, Credentials, Link, LinkSettings, TaskContext, TaskError,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Installation, PATIENCE, eventually};

/// The agents of a swarm. They stop when it is dropped.
///
/// Their work is what the payload says: `{"hold": "x"}` goes on until [`Team::release`] names `x`, `{"work_ms": n}` takes that
/// long, `{"permanent": "why"}` fails for good; anything else is done at once. The result is `{"by": <name>}`.
pub struct Team {
    link: Link,
    settings: LinkSettings,
    org: String,
    swarm: String,
    desk: Arc<Desk>,
    stop: CancellationToken,
}

/// What the agents of a team share.
struct Desk {
    released: watch::Sender<BTreeSet<String>>,
    runs: Mutex<Vec<(String, String)>>,
}

impl Team {
    /// A team without agents.
    pub async fn of(installation: &Installation, swarm: &str) -> Self {
        let mut settings = LinkSettings::new(installation.field("nats_url"));
        settings.creds = Some(Credentials::File(installation.field("nats_creds").into()));
        let link = Link::open(&settings, format!("team of {swarm}"))
            .await
            .expect("connected");
        Self {
            link,
            settings,
            org: installation.field("org_id").to_owned(),
            swarm: swarm.to_owned(),
            desk: Arc::new(Desk {
                released: watch::Sender::new(BTreeSet::new()),
                runs: Mutex::default(),
            }),
            stop: CancellationToken::new(),
        }
    }

    /// Has an agent join, and answers with its id once the swarm shows it: the next one joins after it.
    pub async fn join(
        &self,
        installation: &Installation,
        name: &str,
        form: impl FnOnce(AgentBuilder) -> AgentBuilder,
    ) -> String {
        let (org, swarm) = (self.org.parse(), self.swarm.parse());
        let (org, swarm) = (org.expect("an id"), swarm.expect("an id"));
        let (desk, own_name) = (self.desk.clone(), name.to_owned());
        let work = move |task: TaskContext, payload: Value| {
            let (desk, name) = (desk.clone(), own_name.clone());
            async move { desk.work(&name, &task, &payload).await }
        };
        let agent = Agent::builder(self.settings.clone(), org, swarm)
            .name(name)
            .any_handler(work);
        let agent = form(agent);
        let id = agent.agent_id().to_string();
        let (link, stop) = (self.link.clone(), self.stop.clone());
        tokio::spawn(async move { agent.run_on(&link, stop).await });
        let path = format!("/v1/swarms/{}/agents/{id}", self.swarm);
        eventually(&format!("{name} has joined"), PATIENCE, || async {
            let (status, agent) = installation
                .request(reqwest::Method::GET, &path, None)
                .await?;
            let here = matches!(agent["status"].as_str(), Some("idle" | "busy"));
            (status == 200 && here).then_some(())
        })
        .await;
        id
    }

    /// Lets work go on that is held up under this name, now or later.
    pub fn release(&self, name: &str) {
        self.desk.released.send_modify(|released| {
            released.insert(name.to_owned());
        });
    }

    /// Which agent worked on which task, in the order of their starts: the side effects of all attempts.
    pub fn runs(&self) -> Vec<(String, String)> {
        let runs = self.desk.runs.lock();
        runs.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Desk {
    fn note(&self, run: (String, String)) {
        let runs = self.runs.lock();
        runs.unwrap_or_else(PoisonError::into_inner).push(run);
    }

    async fn work(
        &self,
        name: &str,
        task: &TaskContext,
        payload: &Value,
    ) -> Result<Value, TaskError> {
        let run = (name.to_owned(), task.id.to_string());
        self.note(run);
        if let Some(millis) = payload["work_ms"].as_u64() {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        if let Some(why) = payload["permanent"].as_str() {
            return Err(TaskError::permanent(why));
        }
        if let Some(hold) = payload["hold"].as_str() {
            let mut released = self.released.subscribe();
            let held = released.wait_for(|released| released.contains(hold));
            tokio::select! {
                gone = held => drop(gone?),
                () = task.cancelled.cancelled() => return Err(TaskError::retryable("cancelled")),
            }
        }
        Ok(json!({ "by": name }))
    }
}
