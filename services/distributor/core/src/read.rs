//! The read API: views of the state.

use swarm_events::{AgentId, Input, Place, TaskId, Timestamp, decider::Verdict, task::Step};

use crate::{
    class::{of_class, role_of, within_of},
    state::Distributor,
    swarm::{End, Moment, Swarm},
    task::{Ended, How, Phase, Task},
    trace::Trace,
    view::{AgentView, Counters, DependencyView, PartsView, Status, TaskView, Touched},
};

fn some(time: Timestamp) -> Option<Timestamp> {
    (time != Timestamp::ZERO).then_some(time)
}

impl How {
    const fn status(self) -> Status {
        match self {
            Self::Completed => Status::Completed,
            Self::Failed { .. } | Self::Rejected => Status::Failed,
            Self::Cancelled => Status::Cancelled,
        }
    }
}

impl Swarm {
    fn view(&self, task: &Task) -> TaskView {
        let more = task.more.as_deref();
        let held = task.phase.held();
        let ends = matches!(task.phase, Phase::Failing | Phase::Ending);
        TaskView {
            place: self.place,
            id: task.id,
            task_type: self.types.get(task.task_type).to_owned(),
            priority: task.priority,
            required_capabilities: of_class(self.classes.get(task.class))
                .map(str::to_owned)
                .collect(),
            parent: more.and_then(|m| m.parent),
            graph: more.and_then(|m| Some(m.graph?.0)),
            accepted: task.phase != Phase::Staged,
            status: match task.phase {
                Phase::Staged | Phase::Pending { .. } | Phase::Delayed { .. } => Status::Pending,
                Phase::Parted { .. } | Phase::Handing | Phase::Away => Status::Pending,
                // What is to be written of it will say how it goes on.
                Phase::Failing | Phase::Ending => Status::Pending,
                Phase::Queued => Status::Queued,
                Phase::Assigned(_) => Status::Assigned,
                Phase::Running(_) => Status::Running,
            },
            rejected: false,
            agent: held
                .map(|held| held.agent)
                .or_else(|| more?.last_agent.filter(|_| ends))
                .and_then(|agent| self.agents.get(agent as usize))
                .map(|agent| agent.id),
            assignment: held.map(|held| held.assignment),
            attempt_count: u32::from(task.attempts),
            max_attempts: u32::from(task.max_attempts),
            generation: task.generation,
            created_at: task.created_at,
            queued_at: some(task.queued_at),
            started_at: some(task.started_at),
            completed_at: None,
            timeout_at: task.timeout_at(&self.settings),
            queue_timeout_at: task.queue_timeout_at(&self.settings),
            run_timeout_at: task.run_timeout_at(),
            waits_from: matches!(task.phase, Phase::Queued | Phase::Assigned(_))
                .then(|| task.waits_from()),
            error: more.and_then(|m| m.error.as_deref().map(str::to_owned)),
            dead_lettered: false,
            discarded: false,
            because_of: more.and_then(|m| m.because_of),
            failure_path: more.map_or_else(Vec::new, |m| m.path.to_vec()),
            steals: more.map_or(0, |m| u32::from(m.steals)),
            declines: task.declines().map_or(0, |d| u32::from(d.count)),
            submitted: task.submitted,
            required_role: role_of(self.classes.get(task.class)),
            within: within_of(self.classes.get(task.class))
                .and_then(|at| self.agents.get(at as usize))
                .map(|agent| agent.id),
            step: task.step(),
            part: task.part().map(|part| part.index),
            parts: task.parts().map(|parts| PartsView {
                open: parts.open(),
                of: parts.pieces.len() as u32,
            }),
            hand_to: task.hand().map(|hand| hand.to),
            handed_over: task.hand().is_some_and(|hand| hand.away),
            origin: task.done_for().map(|done_for| done_for.origin),
            result: None,
            dependencies: task
                .edges()
                .iter()
                .map(|edge| DependencyView {
                    task_id: edge.task,
                    dependency_type: edge.kind,
                    alias: edge.alias.as_deref().map(str::to_owned),
                })
                .collect(),
        }
    }

    /// The view of a task that is about to end, if somebody wants it.
    pub(crate) fn last_view(
        &self,
        at: u32,
        end: &End,
        moment: Moment,
        trace: &Trace,
    ) -> Option<TaskView> {
        let task = self.tasks.get(at).filter(|_| trace.keep_views)?;
        Some(TaskView {
            status: end.how.status(),
            rejected: end.how == How::Rejected,
            assignment: None,
            completed_at: Some(moment.now),
            timeout_at: None,
            queue_timeout_at: None,
            run_timeout_at: None,
            waits_from: None,
            error: end.error.as_deref().map(str::to_owned),
            dead_lettered: matches!(
                end.how,
                How::Failed {
                    dead_lettered: true
                }
            ),
            because_of: end.because_of,
            failure_path: end.path.to_vec(),
            result: (end.how == How::Completed).then_some(moment.sequence),
            ..self.view(task)
        })
    }

    fn ended_view(&self, id: TaskId, ended: &Ended) -> TaskView {
        let view = ended.definition.as_deref().map(|task| self.view(task));
        TaskView {
            status: ended.how.status(),
            rejected: ended.how == How::Rejected,
            assignment: None,
            completed_at: Some(ended.at),
            dead_lettered: matches!(
                ended.how,
                How::Failed {
                    dead_lettered: true
                }
            ),
            discarded: ended.discarded,
            result: (ended.how == How::Completed).then_some(ended.sequence),
            ..view.unwrap_or_else(|| TaskView {
                place: self.place,
                id,
                task_type: String::new(),
                priority: 0,
                required_capabilities: Vec::new(),
                parent: None,
                graph: None,
                accepted: ended.how != How::Rejected,
                status: ended.how.status(),
                rejected: false,
                agent: None,
                assignment: None,
                attempt_count: 0,
                max_attempts: 0,
                generation: 0,
                created_at: Timestamp::ZERO,
                queued_at: None,
                started_at: None,
                completed_at: None,
                timeout_at: None,
                queue_timeout_at: None,
                run_timeout_at: None,
                waits_from: None,
                error: None,
                dead_lettered: false,
                discarded: false,
                because_of: None,
                failure_path: Vec::new(),
                steals: 0,
                declines: 0,
                submitted: ended.submitted,
                required_role: None,
                within: None,
                step: Step::Work,
                part: None,
                parts: None,
                hand_to: None,
                handed_over: false,
                origin: None,
                result: None,
                dependencies: Vec::new(),
            })
        }
    }

    /// The view of a dead letter that is about to be put away, if somebody wants it.
    pub(crate) fn discarded_view(&self, id: TaskId, trace: &Trace) -> Option<TaskView> {
        let ended = self.ended.get(&id).filter(|_| trace.keep_views)?;
        Some(TaskView {
            dead_lettered: false,
            discarded: true,
            ..self.ended_view(id, ended)
        })
    }

    fn agent_view(&self, at: u32) -> Option<AgentView> {
        let agent = self.agents.get(at as usize)?;
        let ids = |list: &[(u64, u32)]| {
            list.iter()
                .filter_map(|&(_, task)| Some(self.tasks.get(task)?.id))
                .collect()
        };
        Some(AgentView {
            id: agent.id,
            incarnation: agent.incarnation,
            running: ids(&agent.running),
            waiting: ids(&agent.waiting),
            slots: agent.slots,
            waiting_limit: agent.places,
            waiting_since: agent
                .waiting
                .first()
                .and_then(|&(_, at)| Some(self.tasks.get(at)?.phase.held()?.at)),
            completed: agent.completed,
            failed: agent.failed,
            unresponsive: agent.lapses >= crate::agent::LAPSES_MAX,
            draining: agent.draining,
            quarantine: agent.quarantine.clone(),
            fast_failures: agent.fast_failures,
            barred_until: some(agent.barred_until),
            half_open: agent.half_open(self.settings.fast_failures_max),
            stuck: agent.stuck,
            stuck_since: some(agent.stuck_since),
        })
    }
}

impl Distributor {
    /// Applies an input as `Decider::evolve` does, and notes which rows it changed.
    pub fn evolve_traced(&mut self, input: &Input, touched: &mut Touched) -> Verdict {
        let mut trace = Trace {
            on: true,
            keep_views: true,
            ..Trace::default()
        };
        let verdict = self.step(input, &mut trace);
        for (swarm, at, id) in trace.tasks {
            let Some(swarm) = self.swarm(swarm) else {
                continue;
            };
            touched.swarms.insert(swarm.place);
            touched.tasks.insert((swarm.place, id));
            if swarm.tasks.get(at).is_some_and(|task| task.id == id) {
                touched.ended.remove(&(swarm.place, id));
            }
        }
        for (swarm, at) in trace.agents {
            if let Some(swarm) = self.swarm(swarm)
                && let Some(agent) = swarm.agents.get(at as usize)
            {
                touched.agents.insert((swarm.place, agent.id));
            }
        }
        for swarm in trace.swarms {
            if let Some(swarm) = self.swarm(swarm) {
                touched.swarms.insert(swarm.place);
            }
        }
        for view in trace.ended {
            touched.tasks.insert((view.place, view.id));
            touched.ended.insert((view.place, view.id), view);
        }
        verdict
    }

    /// The view of a task: in full while it lives or can be retried; of other ended ones, how and when they ended and
    /// where their events are (the full last view was in [`Touched::ended`]).
    pub fn task(&self, place: Place, id: TaskId) -> Option<TaskView> {
        let swarm = self.swarm_at(place)?;
        if let Some((_, task)) = swarm.task(id) {
            return Some(swarm.view(task));
        }
        Some(swarm.ended_view(id, swarm.ended.get(&id)?))
    }

    /// All live tasks of a swarm, in the order of their places in memory.
    pub fn tasks(&self, place: Place) -> impl Iterator<Item = TaskView> {
        self.swarm_at(place)
            .into_iter()
            .flat_map(|swarm| swarm.tasks.iter().map(|(_, task)| swarm.view(task)))
    }

    /// The view of an agent, also of one that has left.
    pub fn agent(&self, place: Place, id: AgentId) -> Option<AgentView> {
        let swarm = self.swarm_at(place)?;
        swarm.agent_view(*swarm.agent_numbers.get(&id)?)
    }

    /// All agents of a swarm by id, also those that have left.
    pub fn agents(&self, place: Place) -> impl Iterator<Item = AgentView> {
        self.swarm_at(place).into_iter().flat_map(|swarm| {
            swarm
                .agent_numbers
                .values()
                .filter_map(|&at| swarm.agent_view(at))
        })
    }

    /// Counters of a swarm.
    pub fn counters(&self, place: Place) -> Option<Counters> {
        Some(self.swarm_at(place)?.counters)
    }

    /// Swarms known here, in the order in which they were met.
    pub fn swarms(&self) -> impl Iterator<Item = Place> {
        self.swarms.iter().map(|swarm| swarm.place)
    }

    /// How many tasks wait (pending or queued) in all swarms of the partition.
    pub fn backlog(&self) -> u64 {
        self.swarms
            .iter()
            .map(|swarm| swarm.counters.pending + swarm.counters.queued)
            .sum()
    }
}
