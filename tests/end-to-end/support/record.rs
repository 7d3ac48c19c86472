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
        if let Some(found) = self.seen.iter().find(|(at, event)| wanted(*at, event)) {
            return found.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(next) = self.events.next_by(deadline).await else {
                let last = self.seen.iter().rev().take(12).rev();
                let last: Vec<String> = last.map(|(at, event)| format!("{at} {event}")).collect();
                panic!(
                    "not within {PATIENCE:?}: {what}; the last events:\n{}",
                    last.join("\n")
                );
            };
            self.seen.push(next.clone());
            if wanted(next.0, &next.1) {
                return next;
            }
        }
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
        let mut met = BTreeSet::new();
        let mut read = 0;
        loop {
            for (_, event) in self.seen.iter().skip(read).filter(|(_, e)| is(e, verb)) {
                met.insert(event["subject"].to_string());
            }
            read = self.seen.len();
            if met.len() >= count {
                return;
            }
            let behind = self.seen.last().map_or(0, |(at, _)| *at);
            let what = format!("{count} times {verb}, {} so far", met.len());
            self.until(&what, |at, event| at > behind && is(event, verb))
                .await;
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
    let kind = event["type"].as_str().unwrap_or_default();
    let rest = kind.strip_prefix("swarm.task.");
    rest.and_then(|rest| rest.strip_prefix(verb))
        .is_some_and(|rest| rest.starts_with(".v"))
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
