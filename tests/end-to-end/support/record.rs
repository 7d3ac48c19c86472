//! What happened in a swarm, as far as it was asked for: its events by SSE, kept, so that a test waits for events and for
//! nothing else.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::time::Instant;

use super::{Events, Installation, PATIENCE};

/// The events of a swarm from its beginning.
pub struct Record {
    events: Events,
    seen: Vec<(u64, Value)>,
}

/// A `task.assigned`.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Its stream sequence, the fencing token.
    pub sequence: u64,
    /// The task.
    pub task: String,
    /// The agent that got it: the best candidate.
    pub agent: String,
    /// The rule.
    pub algorithm: String,
    /// Candidates with their scores, the best first.
    pub candidates: Vec<(String, i64)>,
    /// All of it.
    pub data: Value,
}

impl Record {
    /// Follows a swarm from the beginning.
    pub async fn of(installation: &Installation, swarm: &str) -> Self {
        Self {
            events: Events::of(installation, swarm).await,
            seen: Vec::new(),
        }
    }

    /// The first event of all for which `wanted` holds; waits for it.
    pub async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(u64, &Value) -> bool,
    ) -> (u64, Value) {
        let deadline = Instant::now() + PATIENCE;
        let mut met = 0;
        loop {
            let news = &self.seen[met..];
            if let Some(found) = news.iter().find(|(at, event)| wanted(*at, event)) {
                return found.clone();
            }
            met = self.seen.len();
            self.read(what, deadline).await;
        }
    }

    /// Reads one more event.
    async fn read(&mut self, what: &str, deadline: Instant) {
        if let Some(next) = self.events.next_by(deadline).await {
            self.seen.push(next);
            return;
        }
        let last = self.seen.iter().rev().take(12).rev();
        let last: Vec<String> = last.map(|(at, event)| format!("{at} {event}")).collect();
        panic!(
            "not within {PATIENCE:?}: {what}; the last events:\n{}",
            last.join("\n")
        );
    }

    /// The first `task.<verb>` of a task (or of a graph).
    pub async fn task(&mut self, verb: &str, task: &str) -> (u64, Value) {
        self.task_after(0, verb, task).await
    }

    /// The first one behind a sequence.
    pub async fn task_after(&mut self, after: u64, verb: &str, task: &str) -> (u64, Value) {
        self.until(&format!("{verb} of {task}"), |at, event| {
            at > after && is(event, verb) && event["subject"] == task
        })
        .await
    }

    /// The first `agent.<verb>` of an agent behind a sequence.
    pub async fn agent_after(&mut self, after: u64, verb: &str, agent: &str) -> (u64, Value) {
        self.until(&format!("{verb} of agent {agent}"), |at, event| {
            at > after && is_of("agent", event, verb) && event["subject"] == agent
        })
        .await
    }

    /// The first `agent.<verb>` of an agent.
    pub async fn agent(&mut self, verb: &str, agent: &str) -> (u64, Value) {
        self.agent_after(0, verb, agent).await
    }

    /// The first assignment of a task.
    pub async fn assigned(&mut self, task: &str) -> Assignment {
        Assignment::read(&self.task("assigned", task).await)
    }

    /// The first assignment behind a sequence, whichever task it is of.
    pub async fn assigned_after(&mut self, after: u64) -> Assignment {
        let found = self.until("an assignment", |at, event| {
            at > after && is(event, "assigned")
        });
        Assignment::read(&found.await)
    }

    /// Reads until `count` tasks have met `verb` at least once.
    pub async fn until_count(&mut self, verb: &str, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut tasks = BTreeSet::new();
        let mut met = 0;
        loop {
            let news = self.seen[met..].iter().filter(|(_, event)| is(event, verb));
            tasks.extend(news.map(|(_, event)| event["subject"].to_string()));
            if tasks.len() >= count {
                return;
            }
            met = self.seen.len();
            let what = format!("{count} times {verb}, {} so far", tasks.len());
            self.read(&what, deadline).await;
        }
    }

    /// All that was read so far.
    pub fn seen(&self) -> &[(u64, Value)] {
        &self.seen
    }

    /// Every `task.<verb>` that was read so far.
    pub fn all(&self, verb: &str) -> Vec<&(u64, Value)> {
        let all = self.seen.iter();
        all.filter(|(_, event)| is(event, verb)).collect()
    }
}

/// Whether an event is a `task.<verb>` of any version.
pub fn is(event: &Value, verb: &str) -> bool {
    is_of("task", event, verb)
}

fn is_of(aggregate: &str, event: &Value, verb: &str) -> bool {
    let kind = event["type"].as_str().unwrap_or_default();
    let mut parts = kind.split('.').skip(1);
    (parts.next(), parts.next()) == (Some(aggregate), Some(verb))
}

impl Assignment {
    /// Reads one.
    pub fn read((sequence, event): &(u64, Value)) -> Self {
        let data = event["data"].clone();
        let candidates: Vec<(String, i64)> = data["candidates"]
            .as_array()
            .expect("candidates")
            .iter()
            .map(|one| {
                let agent = one["agent_id"].as_str().expect("an agent").to_owned();
                (agent, one["score"].as_i64().expect("an integer"))
            })
            .collect();
        Self {
            sequence: *sequence,
            task: event["subject"].as_str().expect("a task").to_owned(),
            agent: candidates.first().expect("somebody got it").0.clone(),
            algorithm: data["algorithm"].as_str().expect("a rule").to_owned(),
            candidates,
            data,
        }
    }

    /// The scores alone, the best first.
    pub fn scores(&self) -> Vec<i64> {
        self.candidates.iter().map(|(_, score)| *score).collect()
    }
}
