//! Submissions: plain tasks and parts of graphs.

use std::collections::BTreeMap;

use swarm_events::{
    Place, Problem, Recorded, TaskId, Timestamp,
    decider::Verdict,
    task::{GraphPart, Submitted},
};

use super::{
    command::{id_in_use, unknown_swarm},
    hand::{check_hand, origin},
};
use crate::{
    check::check,
    class::class_of,
    graph::{GRAPH_PARTS_MS_MAX, Graph, known, too_dense},
    state::{Distributor, Refusal},
    swarm::{Life, Moment, Swarm},
    task::{Edge, More, Outcome, PAYLOAD_HELD_BYTES_MAX, Phase, Task, halves},
    trace::Trace,
};

/// When a submission that found the queue full may be tried again, in milliseconds: about as long as it takes until the
/// next `measured` tells gateways and clients how full it is.
pub const QUEUE_RETRY_AFTER_MS: u64 = 1_000;
/// Longest task type that is shown of a rejected task, in characters.
const SHOWN_TYPE_CHARS: usize = 50;

impl Distributor {
    pub(super) fn submitted(
        &mut self,
        place: Place,
        recorded: &Recorded,
        submitted: &Submitted,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let id = TaskId(recorded.event.about);
        let number = self.number(place);
        let swarm = number.and_then(|n| self.swarms.get_mut(n as usize));
        let refused = match swarm.filter(|s| s.life != Life::Deleted) {
            None => unknown_swarm(place),
            Some(swarm) => match swarm.take_in(id, recorded, submitted, moment, trace) {
                Ok(verdict) => return verdict,
                Err(problem) => problem,
            },
        };
        self.tell_refused(place, recorded, submitted, &refused);
        let refusal = Refusal {
            place,
            about: id.0,
            causation: Some(recorded.event.id.0),
            command: false,
            subject: recorded.subject.to_string().into(),
            count: 1,
            problem: refused,
            due: moment.now,
        };
        self.refuse(refusal, trace);
        Verdict::Applied
    }
}

impl Swarm {
    /// Takes a submission, or says why no task can come of it.
    fn take_in(
        &mut self,
        id: TaskId,
        recorded: &Recorded,
        submitted: &Submitted,
        moment: Moment,
        trace: &mut Trace,
    ) -> Result<Verdict, Problem> {
        let content = halves(recorded.content);
        let before = self
            .task(id)
            .map(|(_, task)| task.content)
            .or_else(|| self.ended.get(&id).map(|ended| ended.content));
        // What is handed over is written anew by each owner that says it again, perhaps of another version.
        let again = || {
            let before = self.task(id)?.1.done_for()?.origin;
            (origin(recorded, submitted)? == before).then_some(())
        };
        if before == Some(content) || again().is_some() {
            return Ok(Verdict::Void("repeat"));
        }
        let unusable = match before {
            Some(_) => Some(id_in_use(id)),
            None => self.check_time(id.0, moment.now).err(),
        };
        match submitted.graph {
            Some(part) if self.closed_graphs.get(part.id.0).is_none() => {
                self.stage(id, recorded, submitted, part, unusable, moment, trace);
                Ok(Verdict::Applied)
            }
            _ if let Some(problem) = unusable => Err(problem),
            part => {
                let closed = part.map(|part| {
                    Problem::new(
                        "graph-closed",
                        format!("graph {} was decided on without this part", part.id),
                    )
                    .field("graph.id")
                    .cure("submit it under a new id, alone or in a new graph")
                });
                self.take_alone(id, recorded, submitted, closed, moment, trace);
                Ok(Verdict::Applied)
            }
        }
    }

    /// A task that came alone.
    fn take_alone(
        &mut self,
        id: TaskId,
        recorded: &Recorded,
        submitted: &Submitted,
        closed: Option<Problem>,
        moment: Moment,
        trace: &mut Trace,
    ) {
        let full = self.full_for(submitted.priority);
        let problem = closed
            .or_else(|| self.stopping())
            .or_else(|| check(id, submitted).err())
            .or_else(|| self.check_hands(recorded, submitted).err())
            .map(|problem| (problem, None))
            .or_else(|| Some((full?, Some(QUEUE_RETRY_AFTER_MS))))
            .or_else(|| Some((self.check_names(submitted).err()?, None)));
        let Some((problem, retry_after_ms)) = problem else {
            let task = self.task_of(id, recorded, submitted);
            let linked = !submitted.depends_on.is_empty();
            let at = self.insert(task, trace);
            if linked {
                self.link(at, moment, trace);
            } else if let Some(task) = self.tasks.get_mut(at)
                && task.phase == Phase::Queued
            {
                task.queued_at = moment.now;
            }
            return;
        };
        let task = self.husk(id, recorded, submitted, Phase::Ending);
        let at = self.insert(task, trace);
        let outcome = Outcome::Rejected {
            problem,
            retry_after_ms,
        };
        self.doom(at, outcome, moment, trace);
    }

    /// A part of a graph.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is another thing about one submission"
    )]
    fn stage(
        &mut self,
        id: TaskId,
        recorded: &Recorded,
        submitted: &Submitted,
        part: GraphPart,
        unusable: Option<Problem>,
        moment: Moment,
        trace: &mut Trace,
    ) {
        let full = self.full_for(submitted.priority);
        let named = self.graphs.get(&part.id).map_or(0, |graph| graph.named);
        let problem = unusable
            .clone()
            .map(|problem| problem.field(format!("tasks[{}].id", part.index)))
            .or_else(|| self.stopping())
            .or_else(|| {
                let problem = check(id, submitted)
                    .err()
                    .or_else(|| self.check_hands(recorded, submitted).err())
                    .or_else(|| too_dense(named, submitted.depends_on.len()))?;
                let field = problem.field.clone().unwrap_or_default();
                Some(problem.field(format!("tasks[{}].{field}", part.index)))
            });
        let valid = problem.is_none();
        // Past the limit not even a staged part is taken: a flood of graphs that are never complete is bounded, too.
        let room = full.is_none();
        let problem = problem.or(full);
        let at = (unusable.is_none() && room).then(|| {
            let task = if valid {
                let mut task = self.task_of(id, recorded, submitted);
                task.phase = Phase::Staged;
                task
            } else {
                self.husk(id, recorded, submitted, Phase::Staged)
            };
            self.insert(task, trace)
        });
        let graph = self.graphs.entry(part.id).or_insert_with(|| Graph {
            of: part.of,
            parts: BTreeMap::new(),
            surplus: Vec::new(),
            named: 0,
            first: moment.sequence,
            deadline: moment.now.plus_millis(GRAPH_PARTS_MS_MAX),
            doom: None,
            correlation: recorded.event.correlation,
            event: recorded.event.id.0,
        });
        if valid {
            graph.named += submitted.depends_on.len();
        }
        if let Some(problem) = problem {
            graph.doomed(problem, Some(id));
        }
        if graph.of != part.of {
            let problem = Problem::new(
                "graph-parts-differ",
                format!(
                    "says {} parts where another part says {}",
                    part.of, graph.of
                ),
            )
            .field(format!("tasks[{}].graph.of", part.index))
            .cure("give all parts of a graph the same number");
            graph.doomed(problem, Some(id));
        }
        if graph.parts.contains_key(&part.index) || part.index >= graph.of {
            let problem = Problem::new(
                "graph-parts-differ",
                format!("two parts have the index {}", part.index),
            )
            .field(format!("tasks[{}].graph.index", part.index))
            .cure("number the parts from 0");
            graph.doomed(problem, Some(id));
            graph.surplus.extend(at);
        } else {
            graph.parts.insert(part.index, at);
        }
        trace.graph(self.number, part.id);
    }

    pub(crate) fn stopping(&self) -> Option<Problem> {
        (self.life != Life::Running).then(|| {
            Problem::new(
                "swarm-stopping",
                format!("swarm {} is being terminated", self.place.swarm),
            )
            .field("swarm")
            .cure("submit to another swarm")
        })
    }

    fn check_hands(&self, recorded: &Recorded, submitted: &Submitted) -> Result<(), Problem> {
        let hops = self.hops_of(submitted.parent_task_id);
        check_hand(self.place, recorded, submitted, hops)
    }

    fn check_names(&self, submitted: &Submitted) -> Result<(), Problem> {
        for (n, edge) in submitted.depends_on.iter().enumerate() {
            known(self, edge.task_id).map_err(|p| p.field(format!("depends_on[{n}].task_id")))?;
        }
        match submitted.parent_task_id {
            Some(parent) => known(self, parent).map_err(|p| p.field("parent_task_id")),
            None => Ok(()),
        }
    }

    /// The task that a checked submission is.
    fn task_of(&mut self, id: TaskId, recorded: &Recorded, submitted: &Submitted) -> Task {
        let mut task = self.husk(id, recorded, submitted, Phase::Queued);
        self.classes.release(task.class);
        task.class = self.classes.hold(&class_of(
            &submitted.required_capabilities,
            submitted.required_role,
            None,
        ));
        task.payload =
            (submitted.payload.len() <= PAYLOAD_HELD_BYTES_MAX).then(|| submitted.payload.clone());
        if submitted.parent_task_id.is_some()
            || submitted.affinity_key.is_some()
            || submitted.queue_timeout_ms.is_some()
            || submitted.progress_timeout_ms.is_some()
            || !submitted.depends_on.is_empty()
        {
            let more = task.more_mut();
            more.parent = submitted.parent_task_id;
            more.affinity = submitted.affinity_key.as_deref().map(Into::into);
            more.queue_timeout_ms = submitted.queue_timeout_ms;
            more.progress_timeout_ms = submitted.progress_timeout_ms;
            more.depends = submitted
                .depends_on
                .iter()
                .map(|edge| Edge {
                    task: edge.task_id,
                    kind: edge.dependency_type,
                    alias: edge.alias.as_deref().map(Into::into),
                })
                .collect();
        }
        self.note_hands(&mut task, recorded, submitted);
        task.phase = task.ready();
        task
    }

    /// What is kept of a submission whether or not it is valid.
    fn husk(
        &mut self,
        id: TaskId,
        recorded: &Recorded,
        submitted: &Submitted,
        phase: Phase,
    ) -> Task {
        let correlation = recorded.event.correlation;
        let graph = submitted.graph.map(|part| (part.id, part.index));
        let more = (graph.is_some() || correlation.is_some()).then(|| {
            Box::new(More {
                graph,
                correlation,
                ..More::default()
            })
        });
        let settings = &self.settings;
        let timeout = submitted.timeout_ms.unwrap_or(settings.task_timeout_ms);
        let attempts = submitted.max_attempts.unwrap_or(settings.max_attempts);
        let shown = submitted
            .task_type
            .char_indices()
            .nth(SHOWN_TYPE_CHARS)
            .map_or(&*submitted.task_type, |(end, _)| {
                &submitted.task_type[..end]
            });
        let mut task = Task {
            id,
            event: recorded.event.id.0,
            content: halves(recorded.content),
            submitted: recorded.sequence,
            created_at: recorded.time,
            queued_at: Timestamp::ZERO,
            started_at: Timestamp::ZERO,
            changed: recorded.sequence,
            phase,
            payload: None,
            more,
            task_type: self.types.hold(shown),
            class: self.classes.hold(""),
            timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
            generation: 1,
            max_attempts: u8::try_from(attempts).unwrap_or(u8::MAX),
            attempts: 0,
            priority: submitted.priority,
        };
        Self::note_origin(&mut task, recorded, submitted);
        task
    }
}
