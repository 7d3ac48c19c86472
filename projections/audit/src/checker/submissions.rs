//! Submissions, graphs and refusals: how tasks come to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_events::{
    Place, Recorded, TaskId, Timestamp,
    task::{GraphAccepted, GraphPart, Refused, Submitted},
};
use uuid::Uuid;

use super::{
    Checker,
    cause::{Facts, News},
    swarm::{Edge, End, Graph, State, Swarm, Task},
};
use crate::Invariant;

fn task(swarm: &mut Swarm, recorded: &Recorded, submitted: &Submitted, state: State) -> Task {
    // Two name spaces: a key that reads like a type is not that type.
    let key = match &submitted.affinity_key {
        Some(key) => format!("key {key}"),
        None => format!("type {}", submitted.task_type),
    };
    let facts = Facts {
        submitted: recorded.sequence,
        priority: submitted.priority,
        required: swarm.class(submitted.required_capabilities.clone()),
        queue_timeout_ms: submitted.queue_timeout_ms,
        progress_timeout_ms: submitted.progress_timeout_ms,
        key: key.into(),
        role: submitted.required_role,
        within: None,
        vague: false,
    };
    let edge = |d: &swarm_events::task::Dependency| Edge {
        task: d.task_id,
        kind: d.dependency_type,
        known: false,
    };
    Task {
        edges: submitted.depends_on.iter().map(edge).collect(),
        content: recorded.content,
        hand_to: submitted.hand_to,
        ..new_task(recorded, facts, state)
    }
}

/// A task of which no more is known than its facts.
pub(super) fn new_task(recorded: &Recorded, facts: Facts, state: State) -> Task {
    Task {
        state,
        generation: 1,
        edges: Box::default(),
        facts: Arc::new(facts),
        submitted: recorded.sequence,
        submitted_at: recorded.time,
        content: 0,
        first_end: 0,
        completed: 0,
        end: 0,
        loose: false,
        uncertain: false,
        named: 0,
        overdue: false,
        ready_at: Timestamp::ZERO,
        delayed: false,
        open: 0,
        doomed: false,
        queued_at: Timestamp::ZERO,
        requeued_at: Timestamp::ZERO,
        assigned_at: Timestamp::ZERO,
        heard_at: Timestamp::ZERO,
        steals: 0,
        declines: BTreeSet::new(),
        declined_attempt: 0,
        declined_times: 0,
        declined_until: Timestamp::ZERO,
        attempt: 0,
        stolen: false,
        ending: false,
        graph: None,
        called_off: (0, 0),
        turned: 0,
        dead_letter: false,
        ended_badly: false,
        ended_by_itself: false,
        hand_to: None,
        parts: None,
        part_of: None,
        by_turn: false,
    }
}

impl Checker {
    pub(super) fn submitted(
        &mut self,
        number: usize,
        recorded: &Recorded,
        submitted: &Submitted,
    ) -> Result<(), &'static str> {
        let id = TaskId(recorded.event.about);
        let swarm = &mut self.swarms[number];
        if swarm.deleted {
            // It will be refused.
            return Ok(());
        }
        let before = swarm
            .tasks
            .get(&id)
            .map(|task| (task.content, task.loose, task.state));
        let repeat = before.is_some_and(|(content, ..)| content == recorded.content);
        let loose = before.is_some_and(|(_, loose, _)| loose);
        if repeat && !loose {
            return Err("repeat");
        }
        match submitted.graph {
            Some(part) if swarm.closed.get(part.id.0).is_none() => {
                self.stage(number, id, recorded, submitted, part, repeat);
                return Ok(());
            }
            _ => {}
        }
        let mut task = task(swarm, recorded, submitted, State::Waiting);
        match before {
            None => {
                swarm.tasks.insert(id, task);
                swarm.fresh.insert(recorded.sequence, id);
                self.begins(number, id, recorded.sequence);
            }
            // The id may or may not count as used: the first decision on it tells.
            Some(_) if loose => {
                (task.loose, task.uncertain) = (true, true);
                swarm.tasks.insert(id, task);
                swarm.fresh.insert(recorded.sequence, id);
            }
            Some((_, _, State::Staged(_))) => {
                (task.loose, task.uncertain) = (true, true);
                swarm.rivals.entry(id).or_insert(task);
            }
            // Other content under an id that is taken: refused, and the first is not touched.
            Some(_) => {}
        }
        Ok(())
    }

    /// A task exists from here on.
    pub(super) fn begins(&mut self, number: usize, id: TaskId, sequence: u64) {
        self.swarms[number].link(id);
        self.tell(number, id, sequence);
        if self.notes.inside {
            self.counts.accepted += 1;
        }
        self.touch(number, id);
    }

    fn stage(
        &mut self,
        number: usize,
        id: TaskId,
        recorded: &Recorded,
        submitted: &Submitted,
        part: GraphPart,
        repeat: bool,
    ) {
        let swarm = &mut self.swarms[number];
        let graph = swarm.graphs.entry(part.id.0).or_insert_with(|| Graph {
            of: part.of,
            parts: BTreeMap::new(),
            staged: Vec::new(),
            first: recorded.sequence,
            first_at: recorded.time,
            certain: false,
        });
        graph.certain |= !repeat;
        let free = swarm
            .tasks
            .get(&id)
            .is_none_or(|task| task.loose && task.state.ended());
        if !free {
            // The graph will be rejected: the id is taken.
            return;
        }
        graph
            .parts
            .entry(part.index)
            .or_insert((id, recorded.sequence));
        graph.staged.push(id);
        let mut task = task(swarm, recorded, submitted, State::Staged(part.id.0));
        task.graph = Some(part.id.0);
        task.loose = swarm.tasks.contains_key(&id);
        swarm.tasks.insert(id, task);
    }

    pub(super) fn graph_accepted(
        &mut self,
        number: usize,
        recorded: &Recorded,
        accepted: &GraphAccepted,
    ) -> Result<(), &'static str> {
        let id = recorded.event.about;
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let now = self.homes[usize::from(recorded.subject.partition().number())].now;
        self.notes.checked(Invariant::GraphsDecided);
        let swarm = &mut self.swarms[number];
        let Some(graph) = swarm.graphs.get(&id) else {
            return self.decided_on_no_graph(number, recorded);
        };
        let met = graph.parts.values().filter(|(_, at)| *at <= cause).count();
        if met != graph.of as usize || accepted.tasks != graph.of {
            let of = graph.of;
            self.notes
                .broken(Invariant::GraphsDecided, recorded.sequence, || {
                    format!(
                        "graph {id} was accepted with {} tasks, when {met} of {of} parts had been met",
                        accepted.tasks
                    )
                });
            return Err("graph-not-complete");
        }
        self.counts.graphs += u64::from(self.notes.inside);
        let Some(graph) = swarm.graphs.remove(&id) else {
            return Err("unknown-graph");
        };
        swarm.closed.insert(id, recorded.sequence, now);
        for part in &graph.staged {
            swarm.rivals.remove(part);
            if let Some(task) = swarm.tasks.get_mut(part) {
                task.state = State::Waiting;
                task.loose = false;
            }
        }
        for part in graph.staged {
            self.swarms[number]
                .members
                .entry(id)
                .or_default()
                .insert(part);
            self.begins(number, part, recorded.sequence);
        }
        Ok(())
    }

    pub(super) fn graph_rejected(
        &mut self,
        number: usize,
        recorded: &Recorded,
    ) -> Result<(), &'static str> {
        let id = recorded.event.about;
        let home = usize::from(recorded.subject.partition().number());
        self.notes.checked(Invariant::GraphsDecided);
        let now = self.homes[home].now;
        let swarm = &mut self.swarms[number];
        let Some(graph) = swarm.graphs.remove(&id) else {
            return self.decided_on_no_graph(number, recorded);
        };
        self.counts.graphs += u64::from(self.notes.inside);
        swarm.closed.insert(id, recorded.sequence, now);
        let mut dependents = Vec::new();
        // Its tasks have ended, for this is how they are shown; none of them ever waited.
        for part in graph.staged {
            if let Some(task) = swarm.tasks.get_mut(&part) {
                task.state = State::Ended(End::Rejected);
                task.first_end = recorded.sequence;
                task.end = recorded.sequence;
                task.loose = true;
            }
            dependents.extend(swarm.dependents.remove(&part).map(|list| (part, list)));
            let home = &mut self.homes[home];
            home.ended.push_back((now, number, part, recorded.sequence));
            if let Some(rival) = swarm.rivals.remove(&part) {
                swarm.fresh.insert(rival.submitted, part);
                swarm.tasks.insert(part, rival);
            }
        }
        for (part, list) in dependents {
            self.dependencies_ended(number, part, End::Rejected, list, recorded.sequence);
        }
        Ok(())
    }

    fn decided_on_no_graph(
        &mut self,
        number: usize,
        recorded: &Recorded,
    ) -> Result<(), &'static str> {
        let id: Uuid = recorded.event.about;
        if let Some(before) = self.swarms[number].closed.get(id) {
            self.notes
                .broken(Invariant::GraphsDecided, recorded.sequence, || {
                    format!("graph {id} was decided on at {before} already")
                });
        }
        Err("unknown-graph")
    }

    /// A submission under an id that was taken, or too old, is no task.
    pub(super) fn refused(&mut self, number: usize, sequence: u64, refused: &Refused) {
        let swarm = &mut self.swarms[number];
        let at = refused.refused_seq;
        if let Some(id) = swarm.fresh.remove(&at) {
            let Some(task) = swarm.tasks.get_mut(&id).filter(|t| t.submitted == at) else {
                return;
            };
            if task.uncertain {
                // The id counts as used.
                task.uncertain = false;
                task.state = State::Ended(End::Rejected);
                task.first_end = at;
                return;
            }
            if let Some(task) = swarm.tasks.remove(&id) {
                swarm.unlink(&task.edges);
                swarm.dependents.remove(&id);
                let home = &mut self.homes[swarm.home];
                home.cause.tell(sequence, News::Task(number, id, None));
            }
            self.counts.accepted = self
                .counts
                .accepted
                .saturating_sub(u64::from(self.notes.inside));
            return;
        }
        swarm.rivals.retain(|_, rival| rival.submitted != at);
    }

    pub(super) fn task_event(
        &mut self,
        place: Place,
        agent: Option<swarm_events::AgentId>,
        recorded: &Recorded,
    ) -> Result<(), &'static str> {
        use swarm_events::Body;
        // A submission to a swarm that is not there is refused, and the refusal stands at the same place.
        let number = match (&recorded.event.body, self.number(place)) {
            (Body::TaskSubmitted(_) | Body::TaskRefused(_), Err(_)) => return Ok(()),
            (_, number) => number?,
        };
        match &recorded.event.body {
            Body::TaskSubmitted(submitted) => self.submitted(number, recorded, submitted),
            Body::TaskRefused(refused) => {
                self.refused(number, recorded.sequence, refused);
                Ok(())
            }
            Body::TaskGraphAccepted(accepted) => self.graph_accepted(number, recorded, accepted),
            Body::TaskGraphRejected(_) => self.graph_rejected(number, recorded),
            Body::TaskGraphCancelled(_) => self.graph_cancelled(number, recorded),
            _ => self.about_task(number, agent, recorded),
        }
    }
}
