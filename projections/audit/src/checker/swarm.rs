//! What the checker knows of a swarm: its tasks, graphs and agents.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use swarm_events::{
    AgentId, SwarmId, TaskId, Timestamp,
    configuration::{Configuration, HealthPolicy, RetryPolicy, queue_limit_for},
    decider::Remembered,
    ids::EventId,
    task::{DependencyType, PRIORITY_RANGE},
};
use swarm_topology::Shape;
use uuid::Uuid;

pub(super) use super::agent::Agent;
use super::{
    agent::Told,
    cause::{Facts, Standing},
    parts::{PartOf, Parts},
    questions::Questions,
    wishes::Wish,
};

/// From so many requirements on, those that no task has any more are let go now and then.
const CLASSES_KEPT_MIN: usize = 1_024;
/// Completions of a swarm that are kept to tell the count at a decision's cause.
const COMPLETIONS_KEPT_MAX: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    /// Failed or cancelled: a person may retry it.
    Retryable,
    Rejected,
    /// A dead letter that a person put away.
    Discarded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) assignment: u64,
    pub(super) agent: AgentId,
    pub(super) incarnation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Part of a graph that is not decided on.
    Staged(Uuid),
    /// For dependencies, for its time, or for an agent.
    Waiting,
    Assigned(Held),
    /// With the id of the `started`.
    Running(Held, EventId),
    /// Its attempt ended or was taken away; a decision of the distributor is due.
    Between,
    /// It was split, and waits for its parts.
    Parted,
    /// Another swarm has it.
    Away,
    Ended(End),
}
impl State {
    pub(super) const fn held(self) -> Option<Held> {
        match self {
            Self::Assigned(held) | Self::Running(held, _) => Some(held),
            _ => None,
        }
    }
    pub(super) const fn ended(self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) task: TaskId,
    pub(super) kind: DependencyType,
    /// The other task was there when this one came to be. (It may be forgotten when this one is retried.)
    pub(super) known: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) state: State,
    pub(super) generation: u32,
    pub(super) edges: Box<[Edge]>,
    pub(super) facts: Arc<Facts>,
    /// Sequence of its submission.
    pub(super) submitted: u64,
    pub(super) submitted_at: Timestamp,
    pub(super) content: u128,
    /// Sequence of its first end, 0 if none: a dependency that was met stays met when a person retries the task.
    pub(super) first_end: u64,
    /// Sequence of its `completed`, 0 if none.
    pub(super) completed: u64,
    /// Sequence of its last end.
    pub(super) end: u64,
    /// Of a rejected graph: whether its id counts as used depends on how far the graph had come.
    pub(super) loose: bool,
    /// It took the place of such a one: whether it exists shows with the first decision on it.
    pub(super) uncertain: bool,
    /// Live tasks that depend on it.
    pub(super) named: u32,
    /// Past the horizon, and remembered for those that name it.
    pub(super) overdue: bool,
    /// Queued again at this time.
    pub(super) ready_at: Timestamp,
    /// It waits for that time.
    pub(super) delayed: bool,
    /// Dependencies that are open.
    pub(super) open: usize,
    /// A dependency ended otherwise than it asks: it is to fail.
    pub(super) doomed: bool,
    /// Since when it waits for an agent, in this generation or since its last failed attempt; zero before.
    pub(super) queued_at: Timestamp,
    /// When it was queued again after an attempt that was cut short: its place is the old one, its limit counts anew. Zero
    /// if that was not so.
    pub(super) requeued_at: Timestamp,
    /// When it was assigned, and when its attempt was last heard of.
    pub(super) assigned_at: Timestamp,
    pub(super) heard_at: Timestamp,
    /// How often it was taken over in this generation, and whether that was the last that happened to it.
    pub(super) steals: u8,
    pub(super) stolen: bool,
    /// Agents that declined it in this generation, and the number of the attempt that the last one declined, 0 if that is
    /// not what happened to it last.
    pub(super) declines: BTreeSet<AgentId>,
    pub(super) declined_attempt: u32,
    pub(super) declined_times: u32,
    /// Until when none of them gets it, at the least.
    pub(super) declined_until: Timestamp,
    /// The number of its last attempt, by its last assignment.
    pub(super) attempt: u32,
    /// It was taken away to end.
    pub(super) ending: bool,
    /// The graph that it came with.
    pub(super) graph: Option<Uuid>,
    /// The generation in which its graph was called off, 0 if none, and where.
    pub(super) called_off: (u32, u64),
    /// Where it ended, or came to life again, or was put away: the last of these.
    pub(super) turned: u64,
    /// It has failed for good, and a person may look.
    pub(super) dead_letter: bool,
    /// It has ended without a result, in whatever generation: at all, and not because of another task.
    pub(super) ended_badly: bool,
    pub(super) ended_by_itself: bool,
    /// The swarm that is to do it.
    pub(super) hand_to: Option<SwarmId>,
    /// Its parts, if it was split in this generation.
    pub(super) parts: Option<Box<Parts>>,
    /// The task that it is a part of.
    pub(super) part_of: Option<PartOf>,
    /// It holds its assignment by a turn of the ring.
    pub(super) by_turn: bool,
}

impl Task {
    /// Where it stands for the choice of tasks and agents.
    pub(super) fn standing(&self) -> Option<Standing> {
        if self.uncertain {
            return None;
        }
        let waits_from = self.queued_at.max(self.requeued_at);
        match self.state {
            State::Waiting if self.queues() => Some(Standing::Queued {
                queued_at: self.queued_at,
                waits_from,
            }),
            State::Assigned(held) | State::Running(held, _) => Some(Standing::Held {
                agent: held.agent,
                assignment: held.assignment,
                at: self.assigned_at,
                waits_from,
                by_turn: self.by_turn,
                heard: matches!(self.state, State::Running(..)).then_some(self.heard_at),
            }),
            _ => None,
        }
    }
    /// From when on it exists is not certain: nothing is promised of its order.
    pub(super) fn make_vague(&mut self) {
        if !self.facts.vague {
            let facts = &self.facts;
            self.facts = Arc::new(Facts {
                required: facts.required.clone(),
                key: facts.key.clone(),
                vague: true,
                ..**facts
            });
        }
    }
    /// Nothing but an agent is missing.
    pub(super) fn queues(&self) -> bool {
        self.state == State::Waiting
            && !self.uncertain
            && self.open == 0
            && self.hand_to.is_none()
            && !self.doomed
            && !self.delayed
            && !self.is_called_off()
    }
    pub(super) fn is_called_off(&self) -> bool {
        self.called_off.0 == self.generation
    }
}

#[derive(Debug)]
pub(super) struct Graph {
    pub(super) of: u32,
    /// Task and sequence by index.
    pub(super) parts: BTreeMap<u32, (TaskId, u64)>,
    /// Everything that was staged with it.
    pub(super) staged: Vec<TaskId>,
    pub(super) first: u64,
    pub(super) first_at: Timestamp,
    /// One of its parts is surely more than a repeat.
    pub(super) certain: bool,
}

#[derive(Debug, Default)]
pub(super) struct Swarm {
    /// Its partition.
    pub(super) home: usize,
    /// Its topology, who sits where and who leads.
    pub(super) shape: Option<Box<Shape>>,
    pub(super) stopping: bool,
    stopping_at: u64,
    pub(super) deleted: bool,
    pub(super) settings: Told<Settings>,
    /// When its settings, or how many agents it has, changed last.
    pub(super) changed: Timestamp,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// Submissions under an id that a staged task has: which of the two exists shows later.
    pub(super) rivals: BTreeMap<TaskId, Task>,
    /// Tasks that no decision has confirmed yet, by the sequence of their submission.
    pub(super) fresh: BTreeMap<u64, TaskId>,
    pub(super) graphs: BTreeMap<Uuid, Graph>,
    pub(super) closed: Remembered,
    /// Remembered tasks by the graph that they came with.
    pub(super) members: BTreeMap<Uuid, BTreeSet<TaskId>>,
    /// Requirements, each held once.
    classes: BTreeSet<Arc<[String]>>,
    pub(super) agents: BTreeMap<AgentId, Agent>,
    /// Agents as they are wanted, those that were started by hand among them.
    pub(super) wishes: BTreeMap<AgentId, Wish>,
    /// What its agents ask.
    pub(super) questions: Questions,
    /// Who waits for a task, for as long as that has not ended.
    pub(super) dependents: BTreeMap<TaskId, BTreeSet<TaskId>>,
    completed: u64,
    completions: VecDeque<u64>,
}

/// Settings that decisions on agents go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) min_agents: u32,
    pub(super) max_agents: u32,
    pub(super) health: HealthPolicy,
    pub(super) retry: RetryPolicy,
    /// Tasks of this priority and above may wait to this number: of the lowest priority.
    pub(super) admits: u64,
}
impl From<&Configuration> for Settings {
    fn from(c: &Configuration) -> Self {
        Self {
            min_agents: c.min_agents,
            max_agents: c.max_agents,
            health: c.health,
            retry: c.retry,
            admits: queue_limit_for(c.queue_limit, c.shed_from_percent, *PRIORITY_RANGE.start()),
        }
    }
}

impl Swarm {
    /// It is to end, from here on.
    pub(super) fn stop(&mut self, sequence: u64) {
        self.stopping = true;
        if self.stopping_at == 0 {
            self.stopping_at = sequence;
        }
    }
    /// Whether an agent surely was to get work as usual, for someone who had met everything up to `cause`.
    pub(super) fn works_at(&self, id: &AgentId, cause: u64) -> bool {
        let limit = self.settings.at(cause);
        let limit = limit.map_or(1, |settings| settings.health.fast_failures_max);
        let agent = self.agents.get(id);
        agent.is_some_and(|agent| agent.works_at(cause, limit))
    }
    /// Whether an agent has given a task back in its present generation.
    pub(super) fn has_declined(&self, agent: AgentId, task: TaskId) -> bool {
        self.tasks
            .get(&task)
            .is_some_and(|task| task.declines.contains(&agent))
    }
    /// Whether that had been met at `cause`.
    pub(super) const fn stopping_by(&self, cause: u64) -> bool {
        self.stopping_at != 0 && self.stopping_at <= cause
    }
    pub(super) fn stopping(&self) -> bool {
        self.stopping || self.deleted
    }

    /// A swarm of that partition.
    pub(super) fn of(home: usize) -> Self {
        Self {
            home,
            ..Self::default()
        }
    }

    /// Why a task must not be assigned by one who had met everything up to `cause`.
    pub(super) fn unmet(&self, id: TaskId, cause: u64) -> Option<String> {
        let task = self.tasks.get(&id)?;
        for edge in &task.edges {
            let met = match self.tasks.get(&edge.task) {
                None => edge.known,
                // The one before it under this id has ended, and may be the one that is meant.
                Some(other) if other.uncertain => true,
                Some(other) => {
                    let since = if edge.kind == DependencyType::Completion {
                        other.first_end
                    } else {
                        other.completed
                    };
                    since != 0 && since <= cause
                }
            };
            if !met {
                return Some(format!(
                    "{id} waits for {:?} of {}, which had not come at {cause}",
                    edge.kind, edge.task
                ));
            }
        }
        None
    }

    /// What is required, held once for all tasks that require the same.
    pub(super) fn class(&mut self, mut required: Vec<String>) -> Arc<[String]> {
        required.sort_unstable();
        required.dedup();
        if let Some(class) = self.classes.get(required.as_slice()) {
            return class.clone();
        }
        if self.classes.len() >= CLASSES_KEPT_MIN && self.classes.len().is_power_of_two() {
            self.classes.retain(|class| Arc::strong_count(class) > 1);
        }
        let class: Arc<[String]> = required.into();
        self.classes.insert(class.clone());
        class
    }

    /// Links a task that comes to be, or to life again, to those that it names.
    pub(super) fn link(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let mut edges = task.edges.clone();
        let (mut open, mut doomed, mut vague) = (0, false, false);
        for edge in &mut edges {
            let Some(other) = self.tasks.get_mut(&edge.task) else {
                doomed = true;
                continue;
            };
            other.named += 1;
            edge.known = true;
            vague |= other.uncertain || other.facts.vague;
            if let State::Ended(how) = other.state {
                doomed |= edge.kind != DependencyType::Completion && how != End::Completed;
            } else {
                open += 1;
                self.dependents.entry(edge.task).or_default().insert(id);
            }
        }
        if let Some(task) = self.tasks.get_mut(&id) {
            (task.edges, task.open, task.doomed) = (edges, open, doomed);
            if vague {
                task.make_vague();
            }
        }
    }

    /// The end of `other` is one dependency less for `id`, or dooms it.
    pub(super) fn dependency_ended(&mut self, id: TaskId, other: TaskId, end: End) {
        if let Some(task) = self.tasks.get_mut(&id)
            && !task.state.ended()
            && let Some(edge) = task.edges.iter().find(|edge| edge.task == other)
        {
            let failed = edge.kind != DependencyType::Completion && end != End::Completed;
            task.doomed |= failed;
            task.open = task.open.saturating_sub(1);
        }
    }

    /// It names nobody any more: it has ended, or never was.
    pub(super) fn unlink(&mut self, edges: &[Edge]) {
        for edge in edges {
            if let Some(other) = self.tasks.get_mut(&edge.task) {
                other.named = other.named.saturating_sub(1);
                if other.overdue && other.named == 0 {
                    self.forget(edge.task);
                }
            }
        }
    }

    /// Forgets a task that ended at `end`, unless it has lived again or someone names it.
    pub(super) fn past_horizon(&mut self, id: TaskId, end: u64) {
        let Some(task) = self
            .tasks
            .get_mut(&id)
            .filter(|task| task.end == end && task.state.ended())
        else {
            return;
        };
        if task.named > 0 {
            task.overdue = true;
        } else {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: TaskId) {
        let Some(graph) = self.tasks.remove(&id).and_then(|task| task.graph) else {
            return;
        };
        if let Some(members) = self.members.get_mut(&graph) {
            members.remove(&id);
            if members.is_empty() {
                self.members.remove(&graph);
            }
        }
    }

    pub(super) fn note_completed(&mut self, sequence: u64) {
        self.completed += 1;
        if self.completions.len() == COMPLETIONS_KEPT_MAX {
            self.completions.pop_front();
        }
        self.completions.push_back(sequence);
    }

    /// How many tasks had completed up to `cause`; `None` if that is too long ago to tell.
    pub(super) fn completed_at(&self, cause: u64) -> Option<u64> {
        let after = self.completions.len() - self.completions.partition_point(|&s| s <= cause);
        if after == COMPLETIONS_KEPT_MAX {
            return None;
        }
        Some(self.completed - after as u64)
    }
}
