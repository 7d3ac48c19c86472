//! Follows the demo's tasks and agents by their events; kills an agent in the middle, and makes another hang.

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

use super::{Stage, agents, say};
use crate::{
    exit::{Failure, Outcome},
    installation::child::signal,
    progress, sse,
};

/// The kill comes when this share of the tasks has ended, in percent.
pub const KILL_AT_PERCENT: usize = 30;
/// Another agent hangs when this share has.
pub const HANG_AT_PERCENT: usize = 45;
/// The same when other kills follow, which need running tasks too.
pub const EARLY_AT_PERCENT: (usize, usize) = (3, 6);
/// A frozen agent's last words are in the log after this long, if it had spoken before it was frozen.
const SETTLE: Duration = Duration::from_millis(150);

/// What is done to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// SIGKILL, as by a crash.
    Killed,
    /// SIGSTOP: it hangs, with its connection open.
    Hung,
}

impl How {
    /// In a sentence.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Killed => "was killed",
            Self::Hung => "was made to hang",
        }
    }
}

/// A process of an agent: which one it is follows from the number of its join.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    agent: String,
    incarnation: u64,
}

/// What was done to an agent, and what followed.
#[derive(Debug)]
pub struct Strike {
    /// What.
    pub how: How,
    /// Name of the agent.
    pub agent: String,
    process: Process,
    /// Its process id.
    pub pid: u32,
    /// The task that it ran.
    pub task: String,
    at: Instant,
    /// How long until another process ran that task.
    pub elsewhere: Option<Duration>,
    /// How long until a new process of the agent had joined.
    pub replaced: Option<Duration>,
}

/// The agent that ends whenever it is started.
#[derive(Debug, Default)]
pub struct Broken {
    id: String,
    /// How often it ended.
    pub exits: u32,
    /// The end of what it wrote.
    pub said: String,
    /// It is not started again.
    pub given_up: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Followed {
    /// Tasks by how often they completed.
    completed: BTreeMap<String, u32>,
    /// Which process completed a task.
    completed_by: BTreeMap<String, Process>,
    /// Tasks that ended otherwise, and why.
    otherwise: BTreeMap<String, String>,
    /// Names of agents.
    names: BTreeMap<String, String>,
    /// Process ids of agents.
    pids: BTreeMap<String, u32>,
    /// What was done to agents.
    pub strikes: Vec<Strike>,
    /// The agent that cannot work.
    pub broken: Broken,
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

    /// Everything that was done to agents is over.
    fn settled(&self) -> bool {
        self.broken.given_up && self.strikes.iter().all(|strike| strike.replaced.is_some())
    }

    fn struck(&self, how: How) -> bool {
        self.strikes.iter().any(|strike| strike.how == how)
    }

    /// What is not as promised: every task completes once, the tasks of struck agents elsewhere.
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
        for how in [How::Killed, How::Hung] {
            if !self.struck(how) {
                problems.push(format!(
                    "no agent {}: the tasks were over too soon (try a larger --pace)",
                    how.words()
                ));
            }
        }
        for strike in &self.strikes {
            if self.completed_by.get(&strike.task) == Some(&strike.process) {
                problems.push(format!(
                    "task {} was completed by the process that {}",
                    strike.task,
                    strike.how.words()
                ));
            } else if strike.elsewhere.is_none() {
                problems.push(format!(
                    "task {} was never started on another agent",
                    strike.task
                ));
            }
        }
        if !self.broken.given_up {
            problems.push("the agent that cannot start was not given up".to_owned());
        }
        problems
    }

    /// Takes one event in; answers with the process and the task that it says have been started.
    fn meet(&mut self, event: &Value) -> Option<(Process, String)> {
        let kind = event["type"].as_str()?.strip_prefix("swarm.")?;
        let about = event["subject"].as_str()?.to_owned();
        let kind = kind.rsplit_once(".v").map_or(kind, |(kind, _)| kind);
        match kind.split_once('.')? {
            ("agent", verb) => {
                self.meet_agent(verb, about, &event["data"]);
                None
            }
            ("task", verb) => self.meet_task(verb, about, event),
            _ => None,
        }
    }

    fn meet_agent(&mut self, verb: &str, agent: String, data: &Value) {
        match verb {
            "added" => {
                let name = data["spec"]["agent_name"].as_str().unwrap_or_default();
                self.names.insert(agent, name.to_owned());
            }
            "launched" => {
                let pid = data["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
                self.pids.extend(pid.map(|pid| (agent, pid)));
            }
            "joined" => {
                let incarnation = data["incarnation"].as_u64().unwrap_or(0);
                for strike in &mut self.strikes {
                    if strike.process.agent == agent && strike.process.incarnation < incarnation {
                        strike.replaced.get_or_insert(strike.at.elapsed());
                    }
                }
            }
            "exited" if agent == self.broken.id => {
                self.broken.exits += 1;
                self.broken.said = data["last_output"]
                    .as_str()
                    .unwrap_or_default()
                    .trim()
                    .to_owned();
            }
            "crash_looping" if agent == self.broken.id => self.broken.given_up = true,
            _ => {}
        }
    }

    fn meet_task(&mut self, verb: &str, task: String, event: &Value) -> Option<(Process, String)> {
        let process = || {
            Some(Process {
                agent: event["source"]
                    .as_str()?
                    .strip_prefix("/swarm/agent/")?
                    .to_owned(),
                incarnation: event["data"]["incarnation"].as_u64()?,
            })
        };
        match verb {
            "started" => {
                let process = process()?;
                for strike in &mut self.strikes {
                    if strike.task == task && strike.process != process {
                        strike.elsewhere.get_or_insert(strike.at.elapsed());
                    }
                }
                return Some((process, task));
            }
            "completed" => {
                *self.completed.entry(task.clone()).or_default() += 1;
                self.completed_by.insert(task, process()?);
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
    /// When an agent is killed, and when another hangs, in percent of the tasks that have ended.
    pub at_percent: (usize, usize),
    /// Id of the agent that cannot work.
    pub broken: String,
    /// Told once both have happened.
    pub struck: CancellationToken,
    /// Longest time for all tasks.
    pub patience: Duration,
}

/// Follows the tasks until all have ended, and the agents until everything that was done to them is over.
pub async fn until_ended(
    stage: &Stage,
    place: Place,
    ids: &BTreeMap<String, String>,
    plan: Plan,
) -> Outcome<Followed> {
    let swarm = place.swarm;
    let log = stage.target.log("demo").await?;
    let ours: BTreeSet<&String> = ids.values().collect();
    let deadline = Instant::now() + plan.patience;
    let bar = progress::bar(ids.len() as u64, "tasks");
    let mut followed = Followed::default();
    followed.broken.id.clone_from(&plan.broken);
    let mut events = sse::follow(
        stage.api.clone(),
        format!("/v1/swarms/{swarm}/events"),
        Some(0),
    );
    while followed.ended() < ids.len() || !followed.settled() {
        let Ok(next) = timeout_at(deadline, events.recv()).await else {
            bar.abandon();
            return Err(Failure::timeout(format!(
                "{} of {} tasks have ended, and the agents are {}",
                followed.ended(),
                ids.len(),
                if followed.settled() {
                    "well"
                } else {
                    "not well again"
                }
            )));
        };
        let event = next.context("the live events ended")??;
        followed.last_sequence = event.id.unwrap_or(followed.last_sequence);
        let Ok(data) = serde_json::from_str::<Value>(&event.data) else {
            continue;
        };
        let started = followed.meet(&data).filter(|(_, task)| ours.contains(task));
        bar.set_position(followed.ended() as u64);
        let due = [
            (How::Killed, plan.at_percent.0),
            (How::Hung, plan.at_percent.1),
        ]
        .into_iter()
        .find(|(how, percent)| {
            !followed.struck(*how) && followed.ended() * 100 >= ids.len() * percent
        });
        if let Some((how, _)) = due
            && let Some((process, task)) = started
        {
            let strike = strike(place, &log, &followed, how, process, task).await?;
            followed.strikes.extend(strike);
            if followed.struck(How::Killed) && followed.struck(How::Hung) {
                plan.struck.cancel();
            }
        }
    }
    bar.finish_and_clear();
    Ok(followed)
}

/// Freezes the agent, looks whether it still runs the task, and if so leaves it at that or kills it. `None`: it was done with
/// the task, or its process is not to be found.
async fn strike(
    place: Place,
    log: &JetStreamLog,
    followed: &Followed,
    how: How,
    process: Process,
    task: String,
) -> Outcome<Option<Strike>> {
    let found = followed
        .pids
        .get(&process.agent)
        .filter(|pid| agents::is_process_of(**pid, &process.agent));
    let Some(&pid) = found else {
        return Ok(None);
    };
    let frozen = Instant::now();
    signal(pid, Signal::STOP);
    tokio::time::sleep(SETTLE).await;
    if !runs(place, log, &process.agent, &task).await? {
        signal(pid, Signal::CONT);
        return Ok(None);
    }
    let at = match how {
        How::Killed => {
            signal(pid, Signal::KILL);
            Instant::now()
        }
        How::Hung => frozen,
    };
    let name = followed.names.get(&process.agent).cloned();
    let agent = name.unwrap_or_else(|| process.agent.clone());
    say(&format!(
        "agent {agent} (process {pid}) {} while it runs task {task}",
        how.words()
    ));
    Ok(Some(Strike {
        how,
        agent,
        process,
        pid,
        task,
        at,
        elsewhere: None,
        replaced: None,
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

    fn event(verb: &str, task: &str, agent: &str, incarnation: u64) -> Value {
        json!({
            "type": format!("swarm.task.{verb}.v1"), "subject": task,
            "source": format!("/swarm/agent/{agent}"), "data": {"incarnation": incarnation},
        })
    }

    fn of_agent(verb: &str, agent: &str, data: Value) -> Value {
        json!({"type": format!("swarm.agent.{verb}.v1"), "subject": agent, "data": data})
    }

    fn process(agent: &str, incarnation: u64) -> Process {
        let agent = agent.to_owned();
        Process { agent, incarnation }
    }

    fn struck(how: How, task: &str, agent: &str) -> Strike {
        Strike {
            how,
            agent: "n".into(),
            process: process(agent, 1),
            pid: 1,
            task: task.into(),
            at: Instant::now(),
            elsewhere: None,
            replaced: None,
        }
    }

    fn ids(names: &[&str]) -> BTreeMap<String, String> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), (*name).to_owned()))
            .collect()
    }

    #[tokio::test]
    async fn tasks_of_struck_agents_that_ran_elsewhere_are_as_promised() {
        let mut followed = Followed::default();
        followed.broken.id = "x".into();
        let started = followed.meet(&event("started", "t", "a", 1));
        assert_eq!(started, Some((process("a", 1), "t".into())));
        followed.strikes.push(struck(How::Killed, "t", "a"));
        followed.strikes.push(struck(How::Hung, "u", "b"));
        // A new process of the same agent is elsewhere, too.
        followed.meet(&event("started", "t", "a", 2));
        followed.meet(&event("completed", "t", "a", 2));
        followed.meet(&event("started", "u", "c", 1));
        followed.meet(&event("completed", "u", "c", 1));
        assert!(!followed.settled());
        for agent in ["a", "b"] {
            followed.meet(&of_agent("joined", agent, json!({"incarnation": 2})));
        }
        followed.meet(&of_agent("exited", "x", json!({"last_output": "no\n"})));
        followed.meet(&of_agent("crash_looping", "x", json!({})));
        assert!(followed.settled());
        assert_eq!((followed.broken.exits, &*followed.broken.said), (1, "no"));
        assert!(followed.problems(&ids(&["t", "u"])).is_empty());
    }

    #[tokio::test]
    async fn what_is_not_as_promised_is_said() {
        let mut followed = Followed::default();
        followed.broken.id = "x".into();
        followed.meet(&event("completed", "twice", "a", 1));
        followed.meet(&event("completed", "twice", "b", 1));
        followed.meet(&event("failed", "lost", "", 0));
        let problems = followed.problems(&ids(&["twice", "lost", "never"]));
        assert_eq!(problems.len(), 6, "{problems:?}");
        for part in [
            "completed 2 times",
            "no agent was killed",
            "no agent was made to hang",
            "was not given up",
        ] {
            assert!(problems.iter().any(|p| p.contains(part)), "{problems:?}");
        }
        followed.strikes.push(struck(How::Killed, "twice", "b"));
        let problems = followed.problems(&ids(&["twice"]));
        assert!(
            problems
                .iter()
                .any(|p| p.contains("by the process that was killed")),
            "{problems:?}"
        );
    }
}
