//! A graph being staged: its parts are invisible to decisions until all are met and the whole is accepted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{Problem, TaskId, Timestamp};

use crate::{
    swarm::Swarm,
    task::{Phase, Task},
};

/// How long the parts of a graph may take to arrive, in milliseconds of log time: they are sent at once, so a minute
/// covers a client that reconnects in between.
pub const GRAPH_PARTS_MS_MAX: u64 = 60_000;

/// Most dependencies that the tasks of a graph name together: a hundred for each task of the largest graph. It is accepted in
/// one step, which holds the owner up for longer the more edges there are.
pub const GRAPH_DEPENDENCIES_MAX: usize = 1_000_000;

/// The refusal of a part that brings its graph above [`GRAPH_DEPENDENCIES_MAX`], which named so many before.
pub(crate) fn too_dense(before: usize, more: usize) -> Option<Problem> {
    (before + more > GRAPH_DEPENDENCIES_MAX).then(|| {
        Problem::new(
            "graph-too-dense",
            format!(
                "the graph's tasks name more than {GRAPH_DEPENDENCIES_MAX} dependencies together"
            ),
        )
        .field("depends_on")
        .cure("gather what many tasks wait for in a task between")
    })
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Graph {
    pub(crate) of: u32,
    /// Task numbers by index; `None` for a part that could not become a task.
    pub(crate) parts: BTreeMap<u32, Option<u32>>,
    /// Tasks that came under an index that was taken.
    pub(crate) surplus: Vec<u32>,
    /// How many dependencies its parts name together.
    pub(crate) named: usize,
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
        let parts = Parts::of(self, swarm);
        let edges = parts.edges(swarm)?;
        parts.check_cycle(&edges)
    }
}

/// The parts of a complete graph, each known by its position among them.
struct Parts<'a> {
    /// Index in the graph, and task; in the order of the indexes.
    tasks: Vec<(u32, &'a Task)>,
    /// Positions by task, in the order of the ids: ten thousand tasks may have a million edges to look up.
    positions: Vec<(u128, u32)>,
}

/// What each part waits for among the others: positions, one run after the other.
struct Edges {
    /// Where the run of each part begins; one more at the end.
    starts: Vec<u32>,
    targets: Vec<u32>,
}
impl Edges {
    fn of(&self, part: u32) -> &[u32] {
        let part = part as usize;
        let (from, to) = (self.starts[part] as usize, self.starts[part + 1] as usize);
        &self.targets[from..to]
    }
    /// The same edges the other way round.
    fn reversed(&self, parts: usize) -> Self {
        let mut starts = vec![0_u32; parts + 1];
        for &target in &self.targets {
            starts[target as usize + 1] += 1;
        }
        for part in 0..parts {
            starts[part + 1] += starts[part];
        }
        let mut next = starts.clone();
        let mut targets = vec![0; self.targets.len()];
        for part in 0..parts as u32 {
            for &target in self.of(part) {
                let place = &mut next[target as usize];
                targets[*place as usize] = part;
                *place += 1;
            }
        }
        Self { starts, targets }
    }
}

impl<'a> Parts<'a> {
    fn of(graph: &Graph, swarm: &'a Swarm) -> Self {
        let tasks: Vec<(u32, &Task)> = graph
            .parts
            .iter()
            .filter_map(|(&index, &at)| Some((index, swarm.tasks.get(at?)?)))
            .collect();
        let mut positions: Vec<(u128, u32)> = (0..)
            .zip(&tasks)
            .map(|(position, (_, task))| (task.id.0.as_u128(), position))
            .collect();
        positions.sort_unstable();
        Self { tasks, positions }
    }

    fn position(&self, id: TaskId) -> Option<u32> {
        let id = id.0.as_u128();
        let found = self.positions.binary_search_by_key(&id, |&(id, _)| id);
        found.ok().map(|at| self.positions[at].1)
    }

    /// The edges between parts.
    ///
    /// # Errors
    /// A part names a task that is not known.
    fn edges(&self, swarm: &Swarm) -> Result<Edges, (Problem, Option<TaskId>)> {
        let mut starts = Vec::with_capacity(self.tasks.len() + 1);
        let mut targets = Vec::new();
        for &(index, task) in &self.tasks {
            let wrong = |problem: Problem, field: &str| {
                (
                    problem.field(format!("tasks[{index}].{field}")),
                    Some(task.id),
                )
            };
            starts.push(targets.len() as u32);
            for (n, edge) in task.edges().iter().enumerate() {
                match self.position(edge.task) {
                    Some(position) => targets.push(position),
                    None => known(swarm, edge.task)
                        .map_err(|p| wrong(p, &format!("depends_on[{n}].task_id")))?,
                }
            }
            match task.more.as_ref().and_then(|more| more.parent) {
                Some(parent) if self.position(parent).is_none() => {
                    known(swarm, parent).map_err(|p| wrong(p, "parent_task_id"))?;
                }
                _ => {}
            }
        }
        starts.push(targets.len() as u32);
        Ok(Edges { starts, targets })
    }

    /// Kahn's algorithm; what it leaves over is walked back to a cycle.
    fn check_cycle(&self, edges: &Edges) -> Result<(), (Problem, Option<TaskId>)> {
        let count = self.tasks.len();
        let parts = 0..count as u32;
        let after = edges.reversed(count);
        let mut open: Vec<usize> = parts.clone().map(|part| edges.of(part).len()).collect();
        let mut left = vec![true; count];
        let mut ready: Vec<u32> = parts.clone().filter(|&p| open[p as usize] == 0).collect();
        while let Some(part) = ready.pop() {
            left[part as usize] = false;
            for &next in after.of(part) {
                let open = &mut open[next as usize];
                *open -= 1;
                if *open == 0 {
                    ready.push(next);
                }
            }
        }
        let Some(first) = parts.clone().find(|&part| left[part as usize]) else {
            return Ok(());
        };
        // Each part left over waits for another one left over, so this walk comes back to where it has been.
        let mut path = vec![first];
        let mut met = vec![usize::MAX; count];
        met[first as usize] = 0;
        let mut at = first;
        while let Some(&next) = edges.of(at).iter().find(|&&other| left[other as usize]) {
            if met[next as usize] != usize::MAX {
                path.drain(..met[next as usize]);
                path.push(next);
                break;
            }
            met[next as usize] = path.len();
            path.push(next);
            at = next;
        }
        Err(self.cycle(&path))
    }

    /// The rejection that names a cycle: its last part is the first one again.
    fn cycle(&self, path: &[u32]) -> (Problem, Option<TaskId>) {
        let of = |part: u32| self.tasks.get(part as usize).copied();
        let shown = path.len().min(CYCLE_NAMES_MAX);
        let mut names: Vec<String> = path[..shown]
            .iter()
            .filter_map(|&part| Some(of(part)?.1.id.to_string()))
            .collect();
        if let Some((_, last)) = path.last().and_then(|&part| of(part))
            && path.len() > shown
        {
            names.push(format!("… ({} more)", path.len() - shown - 1));
            names.push(last.id.to_string());
        }
        let first = path.first().and_then(|&part| of(part));
        let index = first.map_or(0, |(index, _)| index);
        (
            Problem::new(
                "cycle",
                format!("these tasks wait for each other: {}", names.join(" → ")),
            )
            .field(format!("tasks[{index}].depends_on"))
            .cure("take one of these dependencies out"),
            first.map(|(_, task)| task.id),
        )
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
