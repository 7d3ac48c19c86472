//! Agents, tasks and attempts as they are, and who may take what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::Value;
use swarm_events::{
    Json,
    ids::TaskId,
    task::{Carried, Step},
};
use tokio::{sync::watch, task::AbortHandle};
use tokio_util::sync::CancellationToken;

use crate::testing::{TestEntry, TestTask};
use crate::{handler::Handlers, messages::Carrier};

#[derive(Default)]
pub(super) struct State {
    pub(super) agents: Vec<Member>,
    pub(super) tasks: Vec<Task>,
    /// By rank, then number.
    pub(super) queue: BTreeSet<(i64, usize)>,
    /// By fencing token.
    pub(super) attempts: BTreeMap<u64, Attempt>,
    pub(super) sequence: u64,
    pub(super) objects: BTreeMap<String, Bytes>,
    pub(super) over: bool,
}

pub(super) struct Member {
    pub(super) name: String,
    pub(super) speaker: Arc<dyn Carrier>,
    pub(super) handlers: Arc<Handlers>,
    pub(super) capabilities: BTreeSet<String>,
    pub(super) slots: usize,
    pub(super) incarnation: u64,
}

pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) step: Step,
    /// Of which task it is a part, under which key.
    pub(super) part_of: Option<(usize, String)>,
    /// Its parts that have not ended yet.
    pub(super) parts_open: usize,
    /// Their results, by key.
    pub(super) parts: BTreeMap<String, Value>,
    pub(super) spec: TestTask,
    pub(super) rank: i64,
    /// Attempts that count.
    pub(super) attempts: u32,
    pub(super) declines: u32,
    pub(super) declined_by: BTreeSet<usize>,
    pub(super) told: watch::Sender<Vec<TestEntry>>,
    pub(super) ended: bool,
}

pub(super) struct Attempt {
    pub(super) task: usize,
    pub(super) agent: usize,
    pub(super) cancelled: CancellationToken,
    pub(super) abort: AbortHandle,
}

impl State {
    /// What a task is given beside its payload.
    pub(super) fn inputs(&self, number: usize) -> Option<Value> {
        let task = &self.tasks[number];
        match task.step {
            Step::Work => task.spec.inputs.clone(),
            Step::Reduce => Some(task.parts.clone().into_iter().collect()),
        }
    }

    /// The agent with most free slots among those that can take the task; one that declined it only if no other can.
    pub(super) fn choose(&self, number: usize) -> Option<usize> {
        let task = &self.tasks[number];
        let able = |member: &Member| {
            let mut required = task.spec.required_capabilities.iter();
            required.all(|capability| member.capabilities.contains(capability))
        };
        let all = || self.agents.iter().enumerate().filter(|(_, m)| able(m));
        let others = all().any(|(agent, _)| !task.declined_by.contains(&agent));
        all()
            .filter(|(agent, _)| !others || !task.declined_by.contains(agent))
            .map(|(agent, member)| {
                let used = self.attempts.values().filter(|a| a.agent == agent).count();
                (member.slots.saturating_sub(used), agent)
            })
            .filter(|(free, _)| *free > 0)
            .max_by_key(|(free, agent)| (*free, std::cmp::Reverse(*agent)))
            .map(|(_, agent)| agent)
    }

    pub(super) fn resolve(&self, result: &Carried) -> Value {
        match result {
            Carried::Inline(json) => json.to_value(),
            Carried::Object(name) => self
                .objects
                .get(name)
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .and_then(|text| Json::parse(text).ok())
                .map_or(Value::Null, |json| json.to_value()),
            Carried::AtSequence(_) => Value::Null, // no handler answers so
        }
    }
}
