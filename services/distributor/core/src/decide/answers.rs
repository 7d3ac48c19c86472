//! Answers of tasks, graphs, refusals and figures.

use swarm_events::{
    AgentId, CommandId, GraphId, Subject, Timestamp,
    decider::Decision,
    planted::{self, Bug},
    subject::{SwarmVerb, TaskVerb},
    swarm::{Measured, SAMPLE_AGENTS_MAX},
    task::{
        Cancelled, Failed, GraphAccepted, GraphRejected, HandedOver, Refused, Rejected, Retried,
        Then, WithdrawReason, Withdrawn, handed_id,
    },
};

use crate::{
    agent::Agent,
    evolve::{STOPPING, words},
    outbox,
    plan::{Mark, Plan},
    state::Distributor,
    swarm::{Life, Swarm, part_off},
    task::{Held, Outcome, Phase, Task, retry_delay_ms},
};

pub(super) fn withdrawal(
    swarm: &Swarm,
    task: &Task,
    held: &Held,
    reason: WithdrawReason,
    force: bool,
    then: Then,
    thief: Option<AgentId>,
) -> Option<Decision> {
    let agent = swarm.agents.get(held.agent as usize)?;
    let subject = Subject::Task(swarm.place, TaskVerb::Withdrawn, Some(agent.id));
    let body = Withdrawn {
        assignment: held.assignment,
        incarnation: held.incarnation,
        reason,
        force,
        then,
        thief,
    };
    Some(
        Decision::new(subject, task.id.0, body)
            .correlated(Some(task.correlation()))
            .caused_by(task.event),
    )
}

pub(super) fn about(
    swarm: &Swarm,
    task: &Task,
    verb: TaskVerb,
    body: impl Into<swarm_events::Body>,
) -> Decision {
    Decision::new(Subject::Task(swarm.place, verb, None), task.id.0, body)
        .correlated(Some(task.correlation()))
        .caused_by(task.event)
}

fn again_or_end(swarm: &Swarm, task: &Task) -> Then {
    if task.attempts < task.max_attempts {
        let attempts = u32::from(task.attempts);
        Then::RetryAfterMs(retry_delay_ms(&swarm.settings.retry, attempts, task.id))
    } else {
        Then::End
    }
}

/// Why, and how, a held task is taken away.
pub(crate) fn take_away(
    swarm: &Swarm,
    agent: &Agent,
    task: &Task,
    held: &Held,
    now: Timestamp,
) -> (WithdrawReason, bool, Then) {
    let started = matches!(task.phase, Phase::Running(_));
    if swarm.life != Life::Running {
        return (WithdrawReason::Cancelled, true, Then::End);
    }
    if task.called_off() {
        return (WithdrawReason::Cancelled, true, Then::End);
    }
    if let Some(reason) = agent.lost(held.incarnation) {
        // An attempt that had begun counts; what is left goes to another agent at once.
        let used_up = started && task.attempts >= task.max_attempts;
        return (reason, true, if used_up { Then::End } else { Then::Queue });
    }
    if task.more.as_ref().is_some_and(|more| more.bad_result) {
        return (WithdrawReason::BadResult, true, again_or_end(swarm, task));
    }
    if planted::is(Bug::ChangeTakesTheStarted) && swarm.misplaced(agent, task, held) {
        return (WithdrawReason::Topology, false, Then::Queue);
    }
    if started {
        let (run, progress) = (
            task.run_timeout_at(),
            task.progress_timeout_at(&swarm.settings),
        );
        let reason = match progress {
            Some(progress) if run.is_none_or(|run| progress < run) => WithdrawReason::NoProgress,
            _ => WithdrawReason::Timeout,
        };
        return (reason, true, again_or_end(swarm, task));
    }
    if waited_too_long(swarm, task, now) {
        return (WithdrawReason::QueueTimeout, false, Then::End);
    }
    if agent.rests().is_some() {
        return (WithdrawReason::Drain, false, Then::Queue);
    }
    if swarm.misplaced(agent, task, held) {
        let lost = planted::is(Bug::ChangeLosesTasks);
        let then = if lost { Then::End } else { Then::Queue };
        return (WithdrawReason::Topology, false, then);
    }
    (WithdrawReason::StartLimit, false, Then::Queue)
}

fn waited_too_long(swarm: &Swarm, task: &Task, now: Timestamp) -> bool {
    task.queue_timeout_at(&swarm.settings)
        .is_some_and(|limit| limit <= now)
}

/// The end of a task that has waited too long for its start.
pub(super) fn out_of_time(swarm: &Swarm, task: &Task) -> Decision {
    let body = Failed {
        attempts: u32::from(task.attempts),
        generation: task.generation,
        error: words(WithdrawReason::QueueTimeout).to_owned(),
        dead_lettered: task.part().is_none(),
        because_of: None,
        path: Vec::new(),
    };
    about(swarm, task, TaskVerb::Failed, body)
}

impl Distributor {
    pub(super) fn answer_task(&self, number: u32, at: u32, out: &mut Vec<Decision>) {
        let Some(swarm) = self.swarm(number) else {
            return;
        };
        let Some(task) = swarm.tasks.get(at) else {
            return;
        };
        let decision = match &task.phase {
            Phase::Assigned(held) | Phase::Running(held) => {
                let Some(agent) = swarm.agents.get(held.agent as usize) else {
                    return;
                };
                let (reason, force, then) = take_away(swarm, agent, task, held, self.head.now);
                withdrawal(swarm, task, held, reason, force, then, None)
            }
            Phase::Ending => Some(ending(swarm, task)),
            _ if swarm.life != Life::Running => Some(cancelled(swarm, task, STOPPING)),
            _ if task.called_off() => {
                let graph = swarm.called_off(task).map(|graph| graph.reason.to_string());
                let parent = task.more.as_deref().and_then(|more| more.parent);
                let reason = graph.unwrap_or_else(|| part_off(parent));
                Some(cancelled(swarm, task, &reason))
            }
            Phase::Handing => Some(handed_over(swarm, task)),
            Phase::Failing => Some(after_failure(swarm, task)),
            Phase::Queued if waited_too_long(swarm, task, self.head.now) => {
                Some(out_of_time(swarm, task))
            }
            _ => None,
        };
        // What was called off with its graph answers the command that did it.
        let command = swarm.called_off(task).and_then(|graph| graph.command);
        let by_graph = swarm.life == Life::Running && task.phase != Phase::Ending;
        out.extend(decision.map(|decision| match command.filter(|_| by_graph) {
            Some(command) => decision.caused_by(command),
            None => decision,
        }));
    }

    /// Ends tasks that have waited longer than their swarm's setting allows, the eldest first.
    pub(super) fn let_go(&self, plan: &mut Plan, number: u32, end: usize, out: &mut Vec<Decision>) {
        while out.len() < end {
            let first = plan
                .swarms
                .get(number as usize)
                .and_then(|swarm| swarm.first_out_of_time())
                .filter(|&(limit, _)| limit <= self.head.now);
            let Some((_, at)) = first else {
                break;
            };
            let Some(swarm) = self.swarm(number) else {
                break;
            };
            let Some(task) = swarm.tasks.get(at) else {
                break;
            };
            out.push(out_of_time(swarm, task));
            plan.depart(self, Mark::Task(number, at), 1);
        }
        if out.len() < end {
            // Whatever it was, it was looked at: it must not be the first for ever.
            plan.outwaited.remove(&number);
        }
    }

    pub(super) fn answer_refusal(&self, sequence: u64, out: &mut Vec<Decision>) {
        let Some(refusal) = self.refusals.get(&sequence) else {
            return;
        };
        let body = Refused {
            command_id: refusal.causation.filter(|_| refusal.command).map(CommandId),
            refused_subject: refusal.subject.to_string(),
            refused_seq: sequence,
            count: refusal.count,
            problem: refusal.problem.clone(),
        };
        let subject = Subject::Task(refusal.place, TaskVerb::Refused, None);
        let mut decision = Decision::new(subject, refusal.about, body);
        decision.causation = refusal.causation.or(Some(uuid::Uuid::nil()));
        out.push(decision);
    }

    pub(super) fn answer_graph(&self, number: u32, id: GraphId, out: &mut Vec<Decision>) {
        let Some(swarm) = self.swarm(number) else {
            return;
        };
        let Some(graph) = swarm.graphs.get(&id) else {
            return;
        };
        let verdict = match graph.verdict(swarm) {
            Ok(()) => swarm
                .stopping()
                .map_or(Ok(()), |problem| Err((problem, None))),
            err => err,
        };
        let decision = match verdict {
            Ok(()) => Decision::new(
                Subject::Task(swarm.place, TaskVerb::GraphAccepted, None),
                id.0,
                GraphAccepted { tasks: graph.of },
            ),
            Err((problem, task_id)) => Decision::new(
                Subject::Task(swarm.place, TaskVerb::GraphRejected, None),
                id.0,
                GraphRejected { problem, task_id },
            ),
        };
        let correlation = graph.correlation.unwrap_or(id.0);
        out.push(
            decision
                .correlated(Some(correlation))
                .caused_by(graph.event),
        );
    }

    /// Figures of all that moved, in parts; what `end` leaves over moves on with the next figures.
    pub(super) fn answer_measure(
        &self,
        plan: &Plan,
        number: u32,
        end: usize,
        out: &mut Vec<Decision>,
    ) {
        let (Some(swarm), Some(index)) = (self.swarm(number), plan.swarms.get(number as usize))
        else {
            return;
        };
        let counters = &swarm.counters;
        let mut moved = swarm.moved.iter().filter_map(|&at| {
            let agent = swarm.agents.get(at as usize)?;
            Some((agent.id, agent.load_at(self.head.now)))
        });
        let (mut types, mut capabilities) = (swarm.by_type.moved(), swarm.by_capability.moved());
        loop {
            let agents: std::collections::BTreeMap<_, _> =
                moved.by_ref().take(SAMPLE_AGENTS_MAX).collect();
            let more = agents.len() == SAMPLE_AGENTS_MAX;
            let body = Measured {
                pending: counters.pending,
                queued: counters.queued,
                assigned: counters.assigned,
                running: counters.running,
                completed: counters.completed,
                failed: counters.failed,
                cancelled: counters.cancelled,
                oldest_wait_ms: index
                    .oldest()
                    .map_or(0, |since| self.head.now.millis_since(since)),
                unmet: index.unmet(),
                affinity_hits: counters.affinity_hits,
                affinity_misses: counters.affinity_misses,
                steals: counters.steals,
                retries: counters.retries,
                agents,
                types: std::mem::take(&mut types),
                capabilities: std::mem::take(&mut capabilities),
            };
            let subject = Subject::Swarm(swarm.place, SwarmVerb::Measured);
            out.push(Decision::new(subject, swarm.place.swarm.0, body).uncaused());
            if !more || out.len() >= end {
                break;
            }
        }
    }
}

/// Its dependencies are met: another swarm is to do it.
fn handed_over(swarm: &Swarm, task: &Task) -> Decision {
    let to = task.hand().map_or(swarm.place.swarm, |hand| hand.to);
    let body = HandedOver {
        to,
        task_id: handed_id(&outbox::origin_of(swarm.place, task)),
        generation: task.generation,
    };
    about(swarm, task, TaskVerb::HandedOver, body)
}

pub(super) fn cancelled(swarm: &Swarm, task: &Task, reason: &str) -> Decision {
    let body = Cancelled {
        generation: task.generation,
        reason: reason.to_owned(),
    };
    about(swarm, task, TaskVerb::Cancelled, body)
}

/// The end that a task's outcome demands.
fn ending(swarm: &Swarm, task: &Task) -> Decision {
    match task.outcome() {
        Some(Outcome::Cancelled { reason, by }) => {
            let mut decision = cancelled(swarm, task, reason);
            decision.causation = by.or(Some(task.event));
            decision
        }
        Some(Outcome::Rejected {
            problem,
            retry_after_ms,
        }) => {
            let body = Rejected {
                problem: problem.clone(),
                retry_after_ms: *retry_after_ms,
            };
            about(swarm, task, TaskVerb::Rejected, body)
        }
        Some(Outcome::Failed {
            error,
            dead_lettered,
            because_of,
            path,
        }) => {
            let body = Failed {
                attempts: u32::from(task.attempts),
                generation: task.generation,
                error: error.to_string(),
                dead_lettered: *dead_lettered,
                because_of: *because_of,
                path: if planted::is(Bug::FailurePathLost) {
                    Vec::new()
                } else {
                    path.to_vec()
                },
            };
            about(swarm, task, TaskVerb::Failed, body)
        }
        None => after_failure(swarm, task),
    }
}

/// Another attempt, or none.
fn after_failure(swarm: &Swarm, task: &Task) -> Decision {
    let more = task.more.as_deref();
    let error = more.and_then(|m| m.error.as_deref().map(str::to_owned));
    let attempts = u32::from(task.attempts);
    if more.is_some_and(|m| m.retryable) && task.attempts < task.max_attempts {
        let body = Retried {
            attempts,
            delay_ms: retry_delay_ms(&swarm.settings.retry, attempts, task.id),
            generation: task.generation,
            error,
        };
        return about(swarm, task, TaskVerb::Retried, body);
    }
    let body = Failed {
        attempts,
        generation: task.generation,
        error: error.unwrap_or_default(),
        dead_lettered: task.part().is_none(),
        because_of: None,
        path: Vec::new(),
    };
    about(swarm, task, TaskVerb::Failed, body)
}
