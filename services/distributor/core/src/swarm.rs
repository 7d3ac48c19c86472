//! A swarm in the state, and the moves that keep its counters right.

mod ends;
mod parts;
mod shape;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, GraphId, Place, Problem, TaskId, Timestamp,
    configuration::{Algorithm, Configuration, RetryPolicy, queue_limit_for},
    decider::{AHEAD_MS_MAX, Remembered},
    ids::time_of_v7,
    planted::{self, Bug},
    swarm::Created,
    task::AffinityOutcome,
};
use swarm_topology::Shape;
use uuid::Uuid;

pub use ends::CAUSE_BYTES_MAX;
pub(crate) use ends::cut;
pub(crate) use parts::part_off;
pub(crate) use shape::Token;

use crate::{
    affinity::{Homes, key_of},
    agent::Agent,
    class::of_class,
    figures::ByName,
    graph::Graph,
    memory::{IdMap, Interner, Slab},
    task::{Ended, How, Outcome, Phase, Task},
    trace::Trace,
    view::Counters,
};

/// Why a graph was called off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CalledOff {
    pub(crate) reason: Box<str>,
    /// The command that did it.
    pub(crate) command: Option<Uuid>,
    /// Its tasks that were called off and have not ended.
    pub(crate) open: u32,
}

/// Where in the log something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) now: Timestamp,
    pub(crate) sequence: u64,
}

/// How and why a task ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) how: How,
    pub(crate) error: Option<Box<str>>,
    pub(crate) because_of: Option<TaskId>,
    pub(crate) path: Box<[TaskId]>,
}
impl End {
    pub(crate) fn new(how: How, error: Option<Box<str>>) -> Self {
        Self {
            how,
            error,
            because_of: None,
            path: Box::default(),
        }
    }
}

/// A swarm's life, by the coordinator's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Life {
    Running,
    Stopping,
    Deleted,
}

/// The settings that decide about tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) algorithm: Algorithm,
    pub(crate) queue_limit: u64,
    pub(crate) task_timeout_ms: u64,
    pub(crate) max_attempts: u32,
    pub(crate) priority_step_ms: u64,
    pub(crate) retry: RetryPolicy,
    pub(crate) shed_from_percent: u32,
    /// 0: none.
    pub(crate) queue_timeout_ms: u64,
    /// 0: none.
    pub(crate) progress_timeout_ms: u64,
    pub(crate) stealing: bool,
    /// 0: no failure is fast.
    pub(crate) fast_failure_ms: u64,
    /// 0: nobody is barred for them.
    pub(crate) fast_failures_max: u32,
    /// 0: nothing is stuck.
    pub(crate) stuck_after_ms: u64,
}
impl From<&Configuration> for Settings {
    fn from(c: &Configuration) -> Self {
        Self {
            algorithm: c.distribution_algorithm,
            queue_limit: c.queue_limit,
            task_timeout_ms: c.task_timeout_ms,
            max_attempts: c.max_attempts,
            priority_step_ms: c.priority_step_ms,
            retry: c.retry,
            shed_from_percent: c.shed_from_percent,
            queue_timeout_ms: c.queue_timeout_ms,
            progress_timeout_ms: c.progress_timeout_ms,
            stealing: c.stealing,
            fast_failure_ms: c.health.fast_failure_ms,
            fast_failures_max: c.health.fast_failures_max,
            stuck_after_ms: c.health.stuck_after_ms,
        }
    }
}

impl Settings {
    /// A queued task's place in the order of tasks.
    pub(crate) fn rank(&self, task: &Task) -> i64 {
        rank(task.queued_at, task.priority, self.priority_step_ms)
    }
}

/// The order of queued tasks: the smallest comes first, ties go to the one that was submitted first. Each step of priority is
/// worth so much waiting, so that whatever waits long enough comes first, and no rank ever changes while a task waits.
pub(crate) fn rank(queued_at: Timestamp, priority: u8, step_ms: u64) -> i64 {
    let boost = i64::try_from(step_ms)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000)
        .saturating_mul(i64::from(priority));
    if planted::is(Bug::PriorityIgnored) {
        return -queued_at.as_micros();
    }
    queued_at.as_micros().saturating_sub(boost)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Swarm {
    /// Its number in the partition.
    pub(crate) number: u32,
    pub(crate) place: Place,
    pub(crate) life: Life,
    pub(crate) settings: Settings,
    pub(crate) types: Interner,
    pub(crate) classes: Interner,
    pub(crate) live: IdMap<TaskId, u32>,
    pub(crate) tasks: Slab<Task>,
    pub(crate) ended: IdMap<TaskId, Ended>,
    /// Latest UUIDv7 time among the forgotten ids.
    pub(crate) forgotten_to: Timestamp,
    pub(crate) agents: Vec<Agent>,
    pub(crate) agent_numbers: IdMap<AgentId, u32>,
    pub(crate) graphs: BTreeMap<GraphId, Graph>,
    pub(crate) closed_graphs: Remembered,
    /// Live tasks of accepted graphs: graph and task number.
    pub(crate) graph_tasks: BTreeSet<(u128, u32)>,
    /// Graphs of which something that was called off still lives.
    pub(crate) called_off: BTreeMap<GraphId, CalledOff>,
    pub(crate) commands_seen: Remembered,
    pub(crate) counters: Counters,
    /// Counters in the last `measured`.
    pub(crate) reported: Counters,
    pub(crate) reported_at: Timestamp,
    /// Agents whose figures differ from the last `measured` that named them.
    pub(crate) moved: BTreeSet<u32>,
    /// Attempts by task type, and by required capability.
    pub(crate) by_type: ByName,
    pub(crate) by_capability: ByName,
    /// Assignments so far: each is a turn of its agent.
    pub(crate) turns: u64,
    pub(crate) homes: Homes,
    /// The topology, and who sits where in it.
    pub(crate) shape: Shape,
    pub(crate) token: Token,
}

fn counter(counters: &mut Counters, phase: Phase) -> &mut u64 {
    match phase {
        Phase::Staged => &mut counters.staged,
        Phase::Pending { .. }
        | Phase::Delayed { .. }
        | Phase::Parted { .. }
        | Phase::Handing
        | Phase::Away => &mut counters.pending,
        Phase::Queued => &mut counters.queued,
        Phase::Assigned(_) => &mut counters.assigned,
        Phase::Running(_) => &mut counters.running,
        Phase::Failing | Phase::Ending => &mut counters.ending,
    }
}

impl Swarm {
    pub(crate) fn new(number: u32, place: Place, created: &Created) -> Self {
        Self {
            number,
            place,
            life: Life::Running,
            settings: (&created.configuration).into(),
            types: Interner::default(),
            classes: Interner::default(),
            live: IdMap::default(),
            tasks: Slab::default(),
            ended: IdMap::default(),
            forgotten_to: Timestamp::ZERO,
            agents: Vec::new(),
            agent_numbers: IdMap::default(),
            graphs: BTreeMap::new(),
            closed_graphs: Remembered::default(),
            graph_tasks: BTreeSet::new(),
            called_off: BTreeMap::new(),
            commands_seen: Remembered::default(),
            counters: Counters::default(),
            reported: Counters::default(),
            reported_at: Timestamp::ZERO,
            moved: BTreeSet::new(),
            by_type: ByName::default(),
            by_capability: ByName::default(),
            turns: 0,
            homes: Homes::default(),
            shape: Shape::of(created),
            token: Token::default(),
        }
    }

    pub(crate) fn agent(&self, id: AgentId) -> Option<(u32, &Agent)> {
        let at = *self.agent_numbers.get(&id)?;
        Some((at, self.agents.get(at as usize)?))
    }
    pub(crate) fn task(&self, id: TaskId) -> Option<(u32, &Task)> {
        let at = *self.live.get(&id)?;
        Some((at, self.tasks.get(at)?))
    }

    /// Whether something was never reported.
    pub(crate) fn figures_moved(&self) -> bool {
        let shown = Counters {
            staged: 0,
            ending: 0,
            ..self.counters
        };
        shown != self.reported
            || !self.moved.is_empty()
            || self.by_type.has_moved()
            || self.by_capability.has_moved()
    }

    /// The next `measured` is due at once, whatever the figures. It is decided after everything else that is due, so whoever
    /// waits to see what an event leads to learns by it that all of that was decided.
    pub(crate) fn measure_now(&mut self) {
        // So many never wait: the figures count as moved until they are written again.
        self.reported.pending = u64::MAX;
        self.reported_at = Timestamp::ZERO;
    }

    /// Counts an attempt that has ended, by the type of its task and by what that needs; one that failed, at its agent, too.
    pub(crate) fn note_attempt(&mut self, at: u32, agent: u32, completed: bool) {
        if let Some(agent) = self.agents.get_mut(agent as usize) {
            *(if completed {
                &mut agent.completed
            } else {
                &mut agent.failed
            }) += 1;
        }
        let Some(task) = self.tasks.get(at) else {
            return;
        };
        self.by_type
            .count(self.types.get(task.task_type), completed);
        for word in of_class(self.classes.get(task.class)) {
            self.by_capability.count(word, completed);
        }
    }

    /// Whether an id that was never met may be used.
    pub(crate) fn check_time(&self, id: Uuid, now: Timestamp) -> Result<(), Problem> {
        let Some(time) = time_of_v7(id) else {
            return Ok(());
        };
        if time <= self.forgotten_to {
            return Err(Problem::new(
                "stale-id",
                format!("the id is from {time}, older than what is still remembered"),
            )
            .field("id")
            .cure("submit it again under a new UUIDv7"));
        }
        if time > now.plus_millis(AHEAD_MS_MAX) {
            return Err(Problem::new(
                "id-from-the-future",
                format!("the id is from {time}, and it is {now}"),
            )
            .field("id")
            .cure("set the clock of the machine that made the id"));
        }
        Ok(())
    }

    /// Tasks that count against the queue limit.
    pub(crate) fn waiting(&self) -> u64 {
        self.counters.staged + self.counters.pending + self.counters.queued
    }

    /// Adds a live task.
    pub(crate) fn insert(&mut self, task: Task, trace: &mut Trace) -> u32 {
        *counter(&mut self.counters, task.phase) += 1;
        let id = task.id;
        let graph = task
            .graph()
            .filter(|_| !matches!(task.phase, Phase::Staged | Phase::Ending));
        let at = self.tasks.insert(task);
        self.live.insert(id, at);
        if let Some(graph) = graph {
            self.graph_tasks.insert((graph.0.as_u128(), at));
        }
        trace.task(self.number, at, id);
        at
    }

    /// Moves a task to another phase, with its counters and its agent's lists.
    pub(crate) fn set_phase(&mut self, at: u32, phase: Phase, moment: Moment, trace: &mut Trace) {
        let Some(task) = self.tasks.get_mut(at) else {
            return;
        };
        let phase = match phase {
            Phase::Queued => task.ready(),
            phase => phase,
        };
        let before = std::mem::replace(&mut task.phase, phase);
        task.changed = moment.sequence;
        if phase == Phase::Queued && task.queued_at == Timestamp::ZERO {
            task.queued_at = moment.now;
        }
        trace.task(self.number, at, task.id);
        *counter(&mut self.counters, before) -= 1;
        *counter(&mut self.counters, phase) += 1;
        self.hand_over(at, before.held().copied(), phase, moment, trace);
        self.keep_token(at, before, phase, moment);
    }

    /// Keeps the lists of the agents that held and hold a task.
    fn hand_over(
        &mut self,
        at: u32,
        before: Option<crate::task::Held>,
        phase: Phase,
        moment: Moment,
        trace: &mut Trace,
    ) {
        let mut changed = None;
        match (before, phase) {
            (Some(_), Phase::Running(held)) => {
                if let Some(agent) = self.agents.get_mut(held.agent as usize) {
                    agent.start(held.assignment, moment.now);
                    changed = Some(held.agent);
                }
            }
            (None, Phase::Assigned(held)) => {
                if let Some(agent) = self.agents.get_mut(held.agent as usize) {
                    agent.give(held.assignment, at, moment.now);
                    changed = Some(held.agent);
                }
            }
            (Some(held), _) => {
                if let Some(agent) = self.agents.get_mut(held.agent as usize) {
                    agent.take(held.assignment, moment.now);
                    changed = Some(held.agent);
                }
            }
            (None, _) => {}
        }
        if let Some(agent) = changed {
            self.note_load(agent, trace);
        }
    }

    /// Counts what became of an assigned task's affinity, and remembers where its key is at home.
    pub(crate) fn note_affinity(
        &mut self,
        at: u32,
        agent: u32,
        outcome: Option<AffinityOutcome>,
        moment: Moment,
    ) {
        let (Some(outcome), Some(task)) = (outcome, self.tasks.get(at)) else {
            return;
        };
        match outcome {
            AffinityOutcome::Hit => self.counters.affinity_hits += 1,
            AffinityOutcome::Miss => {
                // Its home stays where it is.
                self.counters.affinity_misses += 1;
                return;
            }
            AffinityOutcome::New => {}
        }
        let key = key_of(self, task);
        if !planted::is(Bug::HomesForgotten) {
            self.homes.used(key, agent, moment.sequence);
        }
    }

    /// Notes that an agent's figures may have moved.
    pub(crate) fn note_load(&mut self, agent: u32, trace: &mut Trace) {
        let Some(state) = self.agents.get(agent as usize) else {
            return;
        };
        trace.agent(self.number, agent);
        if state.load() == state.reported {
            self.moved.remove(&agent);
        } else {
            self.moved.insert(agent);
        }
    }

    /// The refusal of another waiting task of this priority, if there is no room for it.
    pub(crate) fn full_for(&self, priority: u8) -> Option<Problem> {
        self.full_with(0, priority)
    }

    /// The same, when so many more wait already.
    pub(crate) fn full_with(&self, more: u64, priority: u8) -> Option<Problem> {
        let settings = &self.settings;
        let (limit, from) = (settings.queue_limit, settings.shed_from_percent);
        let share = queue_limit_for(limit, from, priority);
        let waiting = self.waiting() + more;
        if waiting < share {
            return None;
        }
        if waiting >= limit {
            return Some(
                Problem::new(
                    "queue-full",
                    format!("{waiting} tasks wait, and the swarm's queue_limit is {limit}"),
                )
                .field("configuration.queue_limit")
                .cure("try again later, add agents, or raise the limit"),
            );
        }
        Some(
            Problem::new(
                "shed",
                format!(
                    "{waiting} tasks wait, and the swarm takes tasks of priority {priority} only below {share} of its \
                     {limit} (shed_from_percent is {from})"
                ),
            )
            .field("priority")
            .cure("try again later, or give it a higher priority if it is more urgent than what waits"),
        )
    }

    /// Puts an end that is still to be written on a task that no agent holds.
    pub(crate) fn doom(&mut self, at: u32, outcome: Outcome, moment: Moment, trace: &mut Trace) {
        if let Some(task) = self.tasks.get_mut(at) {
            task.more_mut().outcome = Some(outcome);
        }
        self.set_phase(at, Phase::Ending, moment, trace);
    }
}
