//! Follows the demo's tasks by their events, and kills an agent in the middle.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context;
use rustix::process::Signal;
use serde_json::Value;
use swarm_events::{AgentId, OrgId, Place, Subject, subject::TaskVerb};
use swarm_log::{Log, jetstream::JetStreamLog};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Stage, agents::Agents, say};
use crate::{
    exit::{Failure, Outcome},
    installation::child::signal,
    progress, sse,
};

/// The kill comes when this share of the tasks has ended, in percent.
pub const KILL_AT_PERCENT: usize = 30;
/// The same when other kills follow, which need running tasks too.
pub const KILL_EARLY_AT_PERCENT: usize = 3;
/// A frozen agent's last words are in the log after this long, if it had spoken before it was frozen.
const SETTLE: Duration = Duration::from_millis(150);

/// The kill, and what followed.
#[derive(Debug)]
pub struct Kill {
    /// Name of the agent.
    pub agent: String,
    agent_id: String,
    /// Its process.
    pub pid: u32,
    /// The task that it ran.
    pub task: String,
    at: Instant,
    /// How long until that task ran on another agent.
    pub elsewhere: Option<Duration>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Followed {
    /// Tasks by how often they completed.
    completed: BTreeMap<String, u32>,
    /// Which agent completed a task.
    completed_by: BTreeMap<String, String>,
    /// Tasks that ended otherwise, and why.
    otherwise: BTreeMap<String, String>,
    /// The kill.
    pub kill: Option<Kill>,
    /// Stream sequence of the last event.
    pub last_sequence: u64,
}

impl Followed {
    fn ended(&self) -> usize {
        self.completed
            .keys()
            .chain(self.otherwise.keys())
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// What is not as promised: every task completes once, the killed agent's task elsewhere.
    pub fn problems(&self, ids: &BTreeMap<String, String>) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, id) in ids {
            match (self.completed.get(id), self.otherwise.get(id)) {
                (Some(1), None) => {}
                (times, other) => problems.push(format!(
                    "task {key} ({id}) completed {} times{}",
                    times.copied().unwrap_or(0),
                    other.map_or_else(String::new, |why| format!(" and ended otherwise: {why}"))
                )),
            }
        }
        match &self.kill {
            None => problems.push(
                "no agent was killed: the tasks were over too soon (try a larger --pace)"
                    .to_owned(),
            ),
            Some(kill) if self.completed_by.get(&kill.task) == Some(&kill.agent_id) => {
                problems.push(format!(
                    "task {} was completed by the agent that had been killed",
                    kill.task
                ));
            }
            Some(kill) if kill.elsewhere.is_none() => {
                problems.push(format!(
                    "task {} was never started on another agent",
                    kill.task
                ));
            }
            Some(_) => {}
        }
        problems
    }

    /// Takes one event in; answers with the agent and task that it says have been started.
    fn meet(&mut self, event: &Value) -> Option<(String, String)> {
        let kind = event["type"].as_str()?.strip_prefix("swarm.task.")?;
        let task = event["subject"].as_str()?.to_owned();
        let agent = || {
            event["source"]
                .as_str()?
                .strip_prefix("/swarm/agent/")
                .map(str::to_owned)
        };
        let verb = kind.rsplit_once(".v").map_or(kind, |(verb, _)| verb);
        match verb {
            "started" => {
                let agent = agent()?;
                if let Some(kill) = &mut self.kill
                    && kill.task == task
                    && kill.agent_id != agent
                    && kill.elsewhere.is_none()
                {
                    kill.elsewhere = Some(kill.at.elapsed());
                }
                return Some((agent, task));
            }
            "completed" => {
                *self.completed.entry(task.clone()).or_default() += 1;
                self.completed_by.insert(task, agent()?);
            }
            "failed" | "cancelled" | "rejected" => {
                self.otherwise
                    .insert(task, format!("{verb}: {}", event["data"]));
            }
            _ => {}
        }
        None
    }
}

/// How the tasks are followed.
pub struct Plan {
    /// When an agent is killed.
    pub kill_at_percent: usize,
    /// Told once one was killed.
    pub killed: CancellationToken,
    /// Longest time for all tasks.
    pub patience: Duration,
}

/// Follows the tasks until all have ended.
pub async fn until_ended(
    stage: &Stage,
    place: Place,
    ids: &BTreeMap<String, String>,
    agents: &mut Agents,
    plan: Plan,
) -> Outcome<Followed> {
    let swarm = place.swarm;
    let log = stage.target.log("demo").await?;
    let ours: BTreeSet<&String> = ids.values().collect();
    let deadline = Instant::now() + plan.patience;
    let bar = progress::bar(ids.len() as u64, "tasks");
    let mut followed = Followed::default();
    let mut events = sse::follow(
        stage.api.clone(),
        format!("/v1/swarms/{swarm}/events"),
        Some(0),
    );
    while followed.ended() < ids.len() {
        let Ok(next) = timeout_at(deadline, events.recv()).await else {
            bar.abandon();
            return Err(Failure::timeout(format!(
                "{} of {} tasks have ended",
                followed.ended(),
                ids.len()
            )));
        };
        let event = next.context("the live events ended")??;
        followed.last_sequence = event.id.unwrap_or(followed.last_sequence);
        let Ok(data) = serde_json::from_str::<Value>(&event.data) else {
            continue;
        };
        let started = followed.meet(&data).filter(|(_, task)| ours.contains(task));
        bar.set_position(followed.ended() as u64);
        let due =
            followed.kill.is_none() && followed.ended() * 100 >= ids.len() * plan.kill_at_percent;
        if due && let Some((agent, task)) = started {
            followed.kill = kill(stage, place, &log, agents, agent, task).await?;
            if followed.kill.is_some() {
                plan.killed.cancel();
            }
        }
    }
    bar.finish_and_clear();
    Ok(followed)
}

/// Freezes the agent, looks whether it still runs the task, and kills it if so. `None`: it was done with it.
async fn kill(
    stage: &Stage,
    place: Place,
    log: &JetStreamLog,
    agents: &mut Agents,
    agent_id: String,
    task: String,
) -> Outcome<Option<Kill>> {
    let listed = stage
        .api
        .list(&format!("/v1/swarms/{}/agents", place.swarm), &[], None)
        .await?;
    let name = listed
        .iter()
        .find(|agent| agent["id"] == agent_id.as_str())
        .and_then(|agent| agent["agent_name"].as_str());
    let Some((name, pid)) = name.and_then(|name| Some((name.to_owned(), agents.pid(name)?))) else {
        return Ok(None);
    };
    signal(pid, Signal::STOP);
    tokio::time::sleep(SETTLE).await;
    if !runs(place, log, &agent_id, &task).await? {
        signal(pid, Signal::CONT);
        return Ok(None);
    }
    let at = Instant::now();
    agents.kill(&name).await?;
    say(&format!(
        "killed agent {name} (process {pid}) while it runs task {task}"
    ));
    Ok(Some(Kill {
        agent: name,
        agent_id,
        pid,
        task,
        at,
        elsewhere: None,
    }))
}

/// The organization of the swarm.
pub async fn org_of(stage: &Stage, swarm: &str) -> Outcome<OrgId> {
    if let Some(org) = stage.target.org_id {
        return Ok(org);
    }
    let shown = stage.api.get(&format!("/v1/swarms/{swarm}"), &[]).await?;
    let org = shown["organization_id"].as_str().unwrap_or_default();
    Ok(org.parse().context("the swarm names no organization")?)
}

/// Whether the task is what the agent, which has one slot, started last and has not finished. (It may have finished it and
/// another one since: the next waits at it already.)
async fn runs(place: Place, log: &JetStreamLog, agent: &str, task: &str) -> Outcome<bool> {
    let agent: AgentId = agent.parse().context("the agent's id is none")?;
    let last_is_of_task = async |verb| {
        let subject = Subject::Task(place, verb, Some(agent)).to_string();
        let message = log.last_of(&subject).await?;
        let event: Value = message
            .and_then(|message| serde_json::from_slice(&message.payload).ok())
            .unwrap_or_default();
        Ok::<_, Failure>(event["subject"] == task)
    };
    Ok(last_is_of_task(TaskVerb::Started).await?
        && !last_is_of_task(TaskVerb::Completed).await?
        && !last_is_of_task(TaskVerb::AttemptFailed).await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(verb: &str, task: &str, agent: &str) -> Value {
        json!({"type": format!("swarm.task.{verb}.v1"), "subject": task, "source": format!("/swarm/agent/{agent}")})
    }

    fn killed(task: &str, agent: &str) -> Option<Kill> {
        Some(Kill {
            agent: "n".into(),
            agent_id: agent.into(),
            pid: 1,
            task: task.into(),
            at: Instant::now(),
            elsewhere: None,
        })
    }

    fn ids(names: &[&str]) -> BTreeMap<String, String> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), (*name).to_owned()))
            .collect()
    }

    #[tokio::test]
    async fn a_killed_agents_task_that_ran_elsewhere_is_as_promised() {
        let mut followed = Followed::default();
        assert_eq!(
            followed.meet(&event("started", "t", "a")),
            Some(("a".into(), "t".into()))
        );
        followed.kill = killed("t", "a");
        followed.meet(&event("started", "t", "b"));
        followed.meet(&event("completed", "t", "b"));
        assert!(followed.problems(&ids(&["t"])).is_empty());
        assert!(followed.kill.as_ref().expect("killed").elsewhere.is_some());
    }

    #[tokio::test]
    async fn what_is_not_as_promised_is_said() {
        let mut followed = Followed::default();
        followed.meet(&event("completed", "twice", "a"));
        followed.meet(&event("completed", "twice", "b"));
        followed.meet(&event("failed", "lost", ""));
        let problems = followed.problems(&ids(&["twice", "lost", "never"]));
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(
            problems.iter().any(|p| p.contains("completed 2 times")),
            "{problems:?}"
        );
        assert!(
            problems.iter().any(|p| p.contains("no agent was killed")),
            "{problems:?}"
        );
        followed.kill = killed("twice", "b");
        let problems = followed.problems(&ids(&["twice"]));
        assert!(
            problems.iter().any(|p| p.contains("had been killed")),
            "{problems:?}"
        );
    }
}
