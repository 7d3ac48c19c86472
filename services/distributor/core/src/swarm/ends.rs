//! Edges between tasks, and ends: what depends on a task goes on or fails when it ends.

use swarm_events::{
    GraphId, TaskId, Timestamp,
    ids::time_of_v7,
    planted::{self, Bug},
    task::{DependencyType, FAILURE_PATH_MAX},
};

use super::{CalledOff, End, Moment, Swarm, counter};
use crate::{
    memory::Interner,
    task::{Ended, How, Outcome, Phase, Task},
    trace::Trace,
};

/// Most bytes of an error that those who fail for it quote: enough to know it again, and a graph of ten thousand tasks does
/// not repeat kilobytes of it ten thousand times.
pub const CAUSE_BYTES_MAX: usize = 500;

/// What a failed task is to the one that fails for it.
const DEPENDENCY: &str = "which it depends on";

impl Swarm {
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
            Some(other) => self.doom(at, self.failure_of(other, DEPENDENCY), moment, trace),
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
            if end.how == How::Completed {
                self.note_attempt(at, held.agent, true);
            }
            self.note_load(held.agent, trace);
        }
        let Some(mut task) = self.tasks.remove(at) else {
            return;
        };
        let (id, how) = (task.id, end.how);
        self.pass_token(at, moment);
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
        let parent = task.more.as_deref().and_then(|more| more.parent);
        let part = task.part().zip(parent);
        let parts = task.more.as_mut().and_then(|more| more.parts.take());
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
        if let Some(parts) = parts {
            self.call_off(&parts, moment, trace);
        }
        if let Some((part, parent)) = part {
            self.part_ended((id, part, parent), how, moment, trace);
        }
        if dependents.is_empty() {
            return;
        }
        let outcome = (how != How::Completed).then(|| self.failure_of(id, DEPENDENCY));
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

    /// What the end of `other` without a result makes of those that need one; `what` it is to them.
    pub(super) fn failure_of(&self, other: TaskId, what: &str) -> Outcome {
        Outcome::Failed {
            error: self.failure_text(other, what).into(),
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
    fn failure_text(&self, other: TaskId, what: &str) -> String {
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
            return format!("task {other}, {what}, is not remembered any more");
        };
        let error = more.and_then(|m| m.error.as_deref());
        let Some(&first) = more.and_then(|m| m.path.first()) else {
            return format!("task {other}, {what}, has {word}{}", quote(error));
        };
        // It may have been retried, or forgotten, since.
        match own(first).map(|(word, more)| (word, more.and_then(|m| m.error.as_deref()))) {
            Some((cause, error)) => format!(
                "task {other}, {what}, has {word}; first, task {first} has {cause}{}",
                quote(error)
            ),
            None => {
                format!("task {other}, {what}, has {word}; the first was task {first}")
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
