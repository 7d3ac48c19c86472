//! A graph being staged: its parts are invisible to decisions until all are met and the whole is accepted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{Problem, TaskId, Timestamp};

use crate::{swarm::Swarm, task::Phase};

/// How long the parts of a graph may take to arrive, in milliseconds of log time: they are sent at once, so a minute
/// covers a client that reconnects in between.
pub const GRAPH_PARTS_MS_MAX: u64 = 60_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Graph {
    pub(crate) of: u32,
    /// Task numbers by index; `None` for a part that could not become a task.
    pub(crate) parts: BTreeMap<u32, Option<u32>>,
    /// Tasks that came under an index that was taken.
    pub(crate) surplus: Vec<u32>,
    /// Sequence of its first part.
    pub(crate) first: u64,
    /// When it is rejected if parts are still missing.
    pub(crate) deadline: Timestamp,
    /// Why it will be rejected: the first problem met.
    pub(crate) doom: Option<Box<(Problem, Option<TaskId>)>>,
    pub(crate) correlation: Option<uuid::Uuid>,
    /// Id of its first part's `submitted`.
    pub(crate) event: uuid::Uuid,
}

impl Graph {
    pub(crate) fn complete(&self) -> bool {
        self.parts.len() == self.of as usize
    }
    pub(crate) fn doomed(&mut self, problem: Problem, task: Option<TaskId>) {
        self.doom.get_or_insert_with(|| Box::new((problem, task)));
    }
    pub(crate) fn tasks(&self) -> impl Iterator<Item = u32> {
        self.parts.values().flatten().chain(&self.surplus).copied()
    }

    /// Whether it may be accepted.
    ///
    /// # Errors
    /// What is wrong, and with which task.
    pub(crate) fn verdict(&self, swarm: &Swarm) -> Result<(), (Problem, Option<TaskId>)> {
        if let Some(doom) = &self.doom {
            return Err((**doom).clone());
        }
        if !self.complete() {
            return Err((
                Problem::new(
                    "incomplete-graph",
                    format!(
                        "{} of its {} tasks were met within a minute",
                        self.parts.len(),
                        self.of
                    ),
                )
                .field("tasks")
                .cure("submit all parts again under new ids"),
                None,
            ));
        }
        let own: BTreeMap<TaskId, u32> = self
            .parts
            .iter()
            .filter_map(|(&index, &at)| Some((swarm.tasks.get(at?)?.id, index)))
            .collect();
        for (&id, &index) in &own {
            self.check_names(swarm, &own, id, index)
                .map_err(|problem| (problem, Some(id)))?;
        }
        self.check_cycle(swarm, &own)
    }

    fn check_names(
        &self,
        swarm: &Swarm,
        own: &BTreeMap<TaskId, u32>,
        id: TaskId,
        index: u32,
    ) -> Result<(), Problem> {
        let Some((_, task)) = swarm.task(id) else {
            return Ok(());
        };
        for (n, edge) in task.edges().iter().enumerate() {
            if !own.contains_key(&edge.task) {
                known(swarm, edge.task)
                    .map_err(|p| p.field(format!("tasks[{index}].depends_on[{n}].task_id")))?;
            }
        }
        match task.more.as_ref().and_then(|more| more.parent) {
            Some(parent) if !own.contains_key(&parent) => {
                known(swarm, parent).map_err(|p| p.field(format!("tasks[{index}].parent_task_id")))
            }
            _ => Ok(()),
        }
    }

    /// Kahn's algorithm; what it leaves over is walked back to a cycle.
    fn check_cycle(
        &self,
        swarm: &Swarm,
        own: &BTreeMap<TaskId, u32>,
    ) -> Result<(), (Problem, Option<TaskId>)> {
        let edges_of = |id: &TaskId| {
            swarm
                .task(*id)
                .map_or(&[][..], |(_, task)| task.edges())
                .iter()
                .map(|edge| edge.task)
                .filter(|other| own.contains_key(other))
        };
        let mut open: BTreeMap<TaskId, usize> =
            own.keys().map(|id| (*id, edges_of(id).count())).collect();
        let mut after: BTreeMap<TaskId, Vec<TaskId>> = BTreeMap::new();
        for id in own.keys() {
            for other in edges_of(id) {
                after.entry(other).or_default().push(*id);
            }
        }
        let mut ready: Vec<TaskId> = open
            .iter()
            .filter(|(_, n)| **n == 0)
            .map(|(id, _)| *id)
            .collect();
        while let Some(id) = ready.pop() {
            open.remove(&id);
            for next in after.remove(&id).unwrap_or_default() {
                if let Some(n) = open.get_mut(&next) {
                    *n -= 1;
                    if *n == 0 {
                        ready.push(next);
                    }
                }
            }
        }
        let Some(mut at) = open.keys().next().copied() else {
            return Ok(());
        };
        let mut path = vec![at];
        // Each task left over waits for another one left over, so this walk comes back to where it has been.
        while let Some(next) = edges_of(&at).find(|other| open.contains_key(other)) {
            if let Some(start) = path.iter().position(|id| *id == next) {
                path.drain(..start);
                path.push(next);
                break;
            }
            path.push(next);
            at = next;
        }
        let first = path.first().copied();
        let index = first
            .and_then(|id| own.get(&id))
            .copied()
            .unwrap_or_default();
        let mut names: Vec<String> = path
            .iter()
            .take(CYCLE_NAMES_MAX)
            .map(TaskId::to_string)
            .collect();
        if path.len() > CYCLE_NAMES_MAX {
            names.push("…".to_owned());
        }
        Err((
            Problem::new(
                "cycle",
                format!("these tasks wait for each other: {}", names.join(" → ")),
            )
            .field(format!("tasks[{index}].depends_on"))
            .cure("take one of these dependencies out"),
            first,
        ))
    }
}

/// Most tasks of a cycle that are named: enough to find it, and short enough to read.
const CYCLE_NAMES_MAX: usize = 20;

/// Whether a task may be named by another one.
///
/// # Errors
/// It is not known, or not any more.
pub(crate) fn known(swarm: &Swarm, id: TaskId) -> Result<(), Problem> {
    let there = match swarm.task(id) {
        Some((_, task)) => task.phase != Phase::Staged,
        None => swarm.ended.contains_key(&id),
    };
    if there {
        return Ok(());
    }
    Err(Problem::new(
        "unknown-task",
        format!("task {id} is not known in this swarm, or ended too long ago to be remembered"),
    )
    .cure("submit the tasks that name each other as one graph, or name a task of this swarm"))
}
