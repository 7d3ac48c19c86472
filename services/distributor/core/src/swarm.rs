//! A swarm in the state, and the moves that keep its counters and edges right.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, GraphId, Place, Problem, TaskId, Timestamp,
    configuration::{Algorithm, Configuration, RetryPolicy, queue_limit_for},
    decider::{AHEAD_MS_MAX, Remembered},
    ids::time_of_v7,
    planted::{self, Bug},
    task::{AffinityOutcome, DependencyType, FAILURE_PATH_MAX},
};
use uuid::Uuid;

use crate::{
    affinity::{Homes, key_of},
    agent::Agent,
    graph::Graph,
    memory::{IdMap, Interner, Slab},
    task::{Ended, How, Outcome, Phase, Task},
    trace::Trace,
    view::Counters,
};

/// Most bytes of an error that those who fail for it quote: enough to know it again, and a graph of ten thousand tasks does
/// not repeat kilobytes of it ten thousand times.
pub const CAUSE_BYTES_MAX: usize = 500;

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
    /// Assignments so far: each is a turn of its agent.
    pub(crate) turns: u64,
    pub(crate) homes: Homes,
}

fn counter(counters: &mut Counters, phase: Phase) -> &mut u64 {
    match phase {
        Phase::Staged => &mut counters.staged,
        Phase::Pending { .. } | Phase::Delayed { .. } => &mut counters.pending,
        Phase::Queued => &mut counters.queued,
        Phase::Assigned(_) => &mut counters.assigned,
        Phase::Running(_) => &mut counters.running,
        Phase::Failing | Phase::Ending => &mut counters.ending,
    }
}

impl Swarm {
    pub(crate) fn new(number: u32, place: Place, configuration: &Configuration) -> Self {
        Self {
            number,
            place,
            life: Life::Running,
            settings: configuration.into(),
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
            turns: 0,
            homes: Homes::default(),
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
        shown != self.reported || !self.moved.is_empty()
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
        let before = std::mem::replace(&mut task.phase, phase);
        task.changed = moment.sequence;
        if phase == Phase::Queued && task.queued_at == Timestamp::ZERO {
            task.queued_at = moment.now;
        }
        trace.task(self.number, at, task.id);
        *counter(&mut self.counters, before) -= 1;
        *counter(&mut self.counters, phase) += 1;
        self.hand_over(at, before.held().copied(), phase, moment, trace);
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
        self.homes.used(key, agent, moment.sequence);
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
        let settings = &self.settings;
        let (limit, from) = (settings.queue_limit, settings.shed_from_percent);
        let share = queue_limit_for(limit, from, priority);
        let waiting = self.waiting();
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

    /// Makes a task's edges count, and moves it to where they leave it: pending, queued or doomed.
    pub(crate) fn link(&mut self, at: u32, moment: Moment, trace: &mut Trace) {
        let Some(task) = self.tasks.get_mut(at) else {
            return;
        };
        if let Some(graph) = task.graph() {
            self.graph_tasks.insert((graph.0.as_u128(), at));
        }
        let edges = match task.more.as_mut() {
            Some(more) if !more.depends.is_empty() => {
                more.linked = true;
                more.depends.clone()
            }
            _ => Box::default(),
        };
        let mut open = 0;
        let mut failed = None;
        for edge in &edges {
            if let Some(&other) = self.live.get(&edge.task) {
                if let Some(task) = self.tasks.get_mut(other) {
                    let more = task.more_mut();
                    more.named += 1;
                    more.dependents.insert(at);
                    open += 1;
                }
            } else if let Some(ended) = self.ended.get_mut(&edge.task) {
                ended.named += 1;
                if failed.is_none() && fails(edge.kind, ended.how) {
                    failed = Some(edge.task);
                }
            } else if failed.is_none() {
                failed = Some(edge.task);
            }
        }
        match failed {
            Some(other) => self.doom(at, self.failure_of(other), moment, trace),
            None if open > 0 => self.set_phase(at, Phase::Pending { open }, moment, trace),
            None => self.set_phase(at, Phase::Queued, moment, trace),
        }
    }

    /// Takes a task's edges back.
    fn unlink(&mut self, at: u32, task: &mut Task) {
        let Some(more) = task.more.as_mut().filter(|more| more.linked) else {
            return;
        };
        more.linked = false;
        for edge in &more.depends {
            if let Some(&other) = self.live.get(&edge.task) {
                if let Some(more) = self.tasks.get_mut(other).and_then(|t| t.more.as_mut()) {
                    more.named = more.named.saturating_sub(1);
                    more.dependents.remove(&at);
                }
            } else if let Some(ended) = self.ended.get_mut(&edge.task) {
                ended.named = ended.named.saturating_sub(1);
                if ended.overdue && ended.named == 0 {
                    let id = edge.task;
                    if let Some(ended) = self.ended.remove(&id) {
                        forget(
                            &mut self.forgotten_to,
                            &mut self.types,
                            &mut self.classes,
                            id,
                            &ended,
                        );
                    }
                }
            }
        }
    }

    /// Ends a task: exactly here, whatever the way. What depends on it goes on or is doomed.
    pub(crate) fn end(&mut self, at: u32, end: End, moment: Moment, trace: &mut Trace) {
        let view = self.last_view(at, &end, moment, trace);
        if let Some(held) = self
            .tasks
            .get(at)
            .and_then(|task| task.phase.held().copied())
        {
            // Its agent's lists first: they are kept by moves between phases.
            self.set_phase(at, Phase::Ending, moment, trace);
            if let Some(agent) = self.agents.get_mut(held.agent as usize)
                && end.how == How::Completed
            {
                agent.completed += 1;
            }
            self.note_load(held.agent, trace);
        }
        let Some(mut task) = self.tasks.remove(at) else {
            return;
        };
        let (id, how) = (task.id, end.how);
        self.live.remove(&id);
        *counter(&mut self.counters, task.phase) -= 1;
        *match how {
            How::Completed => &mut self.counters.completed,
            How::Cancelled => &mut self.counters.cancelled,
            How::Failed { .. } | How::Rejected => &mut self.counters.failed,
        } += 1;
        trace.task(self.number, at, id);
        trace.ended.extend(view);
        self.unlink(at, &mut task);
        self.leave_graph(at, &mut task);
        let (dependents, named) = task
            .more
            .as_mut()
            .map(|more| (std::mem::take(&mut more.dependents), more.named))
            .unwrap_or_default();
        let mut ended = Ended {
            content: task.content,
            submitted: task.submitted,
            sequence: moment.sequence,
            at: moment.now,
            how,
            named,
            overdue: false,
            discarded: false,
            definition: None,
        };
        if matches!(how, How::Failed { .. } | How::Cancelled) {
            // Its payload is read again at `submitted` if it is retried.
            task.payload = None;
            task.phase = Phase::Ending;
            task.changed = moment.sequence;
            let more = task.more_mut();
            more.error = end.error;
            more.because_of = end.because_of;
            more.path = end.path;
            more.outcome = None;
            ended.definition = Some(Box::new(task));
        } else {
            self.types.release(task.task_type);
            self.classes.release(task.class);
        }
        self.ended.insert(id, ended);
        if dependents.is_empty() {
            return;
        }
        let outcome = (how != How::Completed).then(|| self.failure_of(id));
        for dependent in dependents {
            self.dependency_ended(dependent, id, how, outcome.as_ref(), moment, trace);
        }
    }

    /// Takes an ended task out of its graph's index.
    fn leave_graph(&mut self, at: u32, task: &mut Task) {
        let Some(graph) = task.graph() else {
            return;
        };
        self.graph_tasks.remove(&(graph.0.as_u128(), at));
        let more = task.more_mut();
        if std::mem::take(&mut more.called_off)
            && let Some(called_off) = self.called_off.get_mut(&graph)
        {
            called_off.open = called_off.open.saturating_sub(1);
            if called_off.open == 0 {
                self.called_off.remove(&graph);
            }
        }
    }

    /// Live tasks of an accepted graph whose end is not settled yet, by number.
    pub(crate) fn open_of_graph(&self, id: GraphId) -> impl Iterator<Item = (u32, &Task)> {
        let id = id.0.as_u128();
        let numbers = self.graph_tasks.range((id, 0)..=(id, u32::MAX));
        numbers
            .filter_map(|&(_, at)| Some((at, self.tasks.get(at)?)))
            .filter(|(_, task)| task.phase != Phase::Ending && !task.called_off())
    }

    /// Why, and by which command, a task's graph was called off.
    pub(crate) fn called_off(&self, task: &Task) -> Option<&CalledOff> {
        let graph = task.graph().filter(|_| task.called_off())?;
        self.called_off.get(&graph)
    }

    /// What the end of `other` without a result makes of those that need one.
    fn failure_of(&self, other: TaskId) -> Outcome {
        Outcome::Failed {
            error: self.failure_text(other).into(),
            dead_lettered: false,
            because_of: Some(other),
            path: self.failure_path(other),
        }
    }

    /// How a failure comes to those that depend on an ended task: the first cause, then those nearest to them.
    fn failure_path(&self, other: TaskId) -> Box<[TaskId]> {
        let before = self.ended.get(&other).and_then(|ended| {
            let more = ended.definition.as_ref()?.more.as_ref()?;
            Some(&*more.path)
        });
        let before = before.unwrap_or_default();
        let nearest = before.len().min(FAILURE_PATH_MAX - 1);
        let from = before.len() - nearest;
        let mut path: Vec<TaskId> = before[from..].iter().copied().chain([other]).collect();
        if from > 0 {
            path[0] = before[0];
        }
        path.into()
    }

    /// What a failed dependency says, with what its first cause says of itself.
    fn failure_text(&self, other: TaskId) -> String {
        let own = |id: TaskId| {
            let ended = self.ended.get(&id)?;
            let more = ended.definition.as_ref().and_then(|d| d.more.as_deref());
            Some((ended.how.word(), more))
        };
        let quote = |error: Option<&str>| match error {
            Some(error) if !error.is_empty() => format!(": {}", cut(error, CAUSE_BYTES_MAX)),
            _ => String::new(),
        };
        let Some((word, more)) = own(other) else {
            return format!("task {other}, which it depends on, is not remembered any more");
        };
        let error = more.and_then(|m| m.error.as_deref());
        let Some(&first) = more.and_then(|m| m.path.first()) else {
            return format!(
                "task {other}, which it depends on, has {word}{}",
                quote(error)
            );
        };
        // It may have been retried, or forgotten, since.
        match own(first).map(|(word, more)| (word, more.and_then(|m| m.error.as_deref()))) {
            Some((cause, error)) => format!(
                "task {other}, which it depends on, has {word}; first, task {first} has {cause}{}",
                quote(error)
            ),
            None => {
                format!("task {other}, which it depends on, has {word}; the first was task {first}")
            }
        }
    }

    fn dependency_ended(
        &mut self,
        at: u32,
        other: TaskId,
        how: How,
        outcome: Option<&Outcome>,
        moment: Moment,
        trace: &mut Trace,
    ) {
        let Some(task) = self.tasks.get(at) else {
            return;
        };
        let Phase::Pending { open } = task.phase else {
            return;
        };
        let open = if planted::is(Bug::DependencyResolvedTwice) {
            open.saturating_sub(1)
        } else {
            open
        };
        let kind = task
            .edges()
            .iter()
            .find(|e| e.task == other)
            .map(|e| e.kind);
        // What is called off with its graph is cancelled, and does not fail for others of it.
        let failed =
            outcome.filter(|_| kind.is_some_and(|kind| fails(kind, how)) && !task.called_off());
        match failed {
            Some(outcome) => self.doom(at, outcome.clone(), moment, trace),
            None if open > 1 => {
                self.set_phase(at, Phase::Pending { open: open - 1 }, moment, trace);
            }
            None => self.set_phase(at, Phase::Queued, moment, trace),
        }
    }

    /// An ended task is past the horizon: it is forgotten now, or when nobody names it any more.
    pub(crate) fn past_horizon(&mut self, id: TaskId, sequence: u64) {
        let Some(ended) = self.ended.get_mut(&id).filter(|e| e.sequence == sequence) else {
            return;
        };
        if ended.named > 0 {
            ended.overdue = true;
            return;
        }
        if let Some(ended) = self.ended.remove(&id) {
            forget(
                &mut self.forgotten_to,
                &mut self.types,
                &mut self.classes,
                id,
                &ended,
            );
        }
    }
}

fn forget(
    to: &mut Timestamp,
    types: &mut Interner,
    classes: &mut Interner,
    id: TaskId,
    ended: &Ended,
) {
    if let Some(time) = time_of_v7(id.0) {
        *to = (*to).max(time);
    }
    if let Some(task) = &ended.definition {
        types.release(task.task_type);
        classes.release(task.class);
    }
}

/// Whether such an end makes a task fail that depends on it in this way.
fn fails(kind: DependencyType, how: How) -> bool {
    kind != DependencyType::Completion && how != How::Completed
}

/// The first `bytes` of a text, or a little less: whole characters.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
