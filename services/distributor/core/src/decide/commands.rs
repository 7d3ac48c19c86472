//! Answers to commands: each gets an event that names it, at once or when a decision under way on its task is met.

use swarm_events::{
    CommandId, GraphId, Problem, Subject, TaskId,
    decider::{Decision, Hydrate},
    planted::{self, Bug},
    subject::TaskVerb,
    task::{
        Carried, DependencyType, Discarded, Failed, GraphCancelled, GraphRejected, HandedBack,
        Refused, Retried, Then, WithdrawReason,
    },
};

use super::answers::{about, cancelled, withdrawal};
use crate::{
    outbox::Returned,
    plan::{Mark, Plan},
    state::{Back, Command, Distributor, Wanted},
    swarm::{Life, Swarm},
    task::{How, Phase},
};

impl Distributor {
    pub(super) fn answer_command(&self, plan: &mut Plan, sequence: u64, out: &mut Vec<Decision>) {
        let mark = Mark::Command(sequence);
        let Some(command) = self.commands.get(&sequence) else {
            return;
        };
        let Some(swarm) = self.swarm(command.swarm) else {
            return;
        };
        if let Wanted::CancelGraph { .. } = command.wanted {
            return self.answer_cancel_graph(plan, sequence, command, swarm, out);
        }
        let task = TaskId(command.about);
        if let Some(at) = plan.busy(self, command.swarm, task) {
            plan.behind
                .entry((command.swarm, at))
                .or_default()
                .push(sequence);
            plan.depart(self, mark, 1);
            return;
        }
        if let Some(ended) = plan.reopened(sequence, command, swarm) {
            let behind = plan.behind_ended.entry((command.swarm, ended));
            behind.or_default().push(sequence);
            plan.depart(self, mark, 1);
            plan.reopen(sequence, command, swarm);
            return;
        }
        let answer = match &command.wanted {
            Wanted::Retry => retry(swarm, task),
            Wanted::Discard => discard(swarm, task),
            Wanted::HandBack(back) => hand_back(swarm, task, sequence, back),
            Wanted::Cancel { .. } | Wanted::CancelGraph { .. } => cancel(swarm, command),
        };
        let decision = answer.unwrap_or_else(|problem| refusal(swarm, command, sequence, problem));
        let of_task = !matches!(decision.subject, Subject::Task(_, TaskVerb::Refused, _));
        out.push(decision.caused_by(command.id));
        plan.depart(self, mark, 1);
        match swarm.task(task).filter(|_| of_task) {
            Some((at, _)) => plan.depart(self, Mark::Task(command.swarm, at), 1),
            None if of_task => plan.reopen(sequence, command, swarm),
            None => {}
        }
    }

    /// One `graph_cancelled` for the whole; what it marks is cancelled after it is met. A graph whose parts have not all
    /// come is rejected as a whole: nothing of it ever exists.
    fn answer_cancel_graph(
        &self,
        plan: &mut Plan,
        sequence: u64,
        command: &Command,
        swarm: &Swarm,
        out: &mut Vec<Decision>,
    ) {
        let id = GraphId(command.about);
        let (mark, graph_mark) = (Mark::Command(sequence), Mark::Graph(command.swarm, id));
        let staged = swarm.graphs.get(&id);
        if staged.is_some() && plan.marks.get(&graph_mark).is_some_and(|m| m.under_way > 0) {
            // It is being accepted or rejected.
            let behind = plan.behind_graphs.entry((command.swarm, id)).or_default();
            behind.push(sequence);
            plan.depart(self, mark, 1);
            return;
        }
        let open = swarm.open_of_graph(id).count() as u32;
        let subject = |verb| Subject::Task(swarm.place, verb, None);
        let decision = if let Some(graph) = staged {
            let problem = Problem::new(
                "cancelled",
                format!(
                    "it was called off before all its tasks were met: {}",
                    command.reason()
                ),
            )
            .field("graph.id")
            .cure("submit its tasks again under new ids");
            let body = GraphRejected {
                problem,
                task_id: None,
            };
            Decision::new(subject(TaskVerb::GraphRejected), id.0, body)
                .correlated(Some(graph.correlation.unwrap_or(id.0)))
        } else if open > 0 {
            let body = GraphCancelled {
                reason: command.reason().into(),
                tasks: open,
            };
            Decision::new(subject(TaskVerb::GraphCancelled), id.0, body)
                .correlated(Some(command.correlation.unwrap_or(id.0)))
        } else {
            refusal(swarm, command, sequence, nothing_to_cancel(swarm, id))
        };
        out.push(decision.caused_by(command.id));
        plan.depart(self, mark, 1);
        if staged.is_some() {
            plan.depart(self, graph_mark, 1);
        }
    }
}

impl Plan {
    /// The ended task for which a command has to wait, since an earlier one is about it: the command's own, or, for a retry,
    /// one that it depends on.
    fn reopened(&self, sequence: u64, command: &Command, swarm: &Swarm) -> Option<TaskId> {
        if self.behind_ended.is_empty() {
            return None;
        }
        let task = TaskId(command.about);
        let own = (!self.reopening.contains_key(&sequence)).then_some(task);
        let before = match (&command.wanted, swarm.ended.get(&task)) {
            (Wanted::Retry, Some(ended)) => ended.definition.as_ref(),
            _ => None,
        };
        let edges = before.into_iter().flat_map(|task| task.edges());
        own.into_iter()
            .chain(edges.map(|edge| edge.task))
            .find(|&task| self.behind_ended.contains_key(&(command.swarm, task)))
    }

    /// Later commands about this one's ended task wait until its answer is met.
    fn reopen(&mut self, sequence: u64, command: &Command, swarm: &Swarm) {
        let task = TaskId(command.about);
        let key = (command.swarm, task);
        if swarm.ended.contains_key(&task) && !self.behind_ended.contains_key(&key) {
            self.behind_ended.insert(key, Vec::new());
            self.reopening.insert(sequence, key);
        }
    }
}

fn refusal(swarm: &Swarm, command: &Command, sequence: u64, problem: Problem) -> Decision {
    let body = Refused {
        command_id: Some(CommandId(command.id)),
        refused_subject: command.subject(swarm.place).to_string(),
        refused_seq: sequence,
        count: 1,
        problem,
    };
    let subject = Subject::Task(swarm.place, TaskVerb::Refused, None);
    Decision::new(subject, command.about, body).correlated(command.correlation)
}

fn nothing_to_cancel(swarm: &Swarm, id: GraphId) -> Problem {
    let problem = if swarm.closed_graphs.get(id.0).is_some() {
        Problem::new(
            "graph-ended",
            format!("each task of graph {id} has ended, or is being cancelled already"),
        )
        .cure("nothing is left to cancel")
    } else {
        Problem::new(
            "unknown-graph",
            format!("graph {id} is not known in this swarm, or is too old to be remembered"),
        )
        .cure("check the graph's id and its swarm")
    };
    problem.field("graph_id")
}

fn refuse(code: &str, detail: String, cure: &str) -> Problem {
    Problem::new(code, detail).field("task_id").cure(cure)
}

fn unknown(id: TaskId) -> Problem {
    refuse(
        "unknown-task",
        format!("task {id} is not known in this swarm, or ended too long ago to be remembered"),
        "check the task's id and its swarm",
    )
}

fn cancel(swarm: &Swarm, command: &Command) -> Result<Decision, Problem> {
    let id = TaskId(command.about);
    let Some((_, task)) = swarm.task(id) else {
        return Err(match swarm.ended.get(&id) {
            None => unknown(id),
            Some(ended) => refuse(
                "task-ended",
                format!("task {id} has {} already", ended.how.word()),
                "nothing is left to cancel",
            ),
        });
    };
    if task.phase == Phase::Staged {
        return Err(refuse(
            "graph-not-accepted",
            format!("task {id} is part of a graph whose tasks have not all been met"),
            "try again when the graph is accepted",
        ));
    }
    let decision = task.phase.held().and_then(|held| {
        withdrawal(
            swarm,
            task,
            held,
            WithdrawReason::Cancelled,
            true,
            Then::End,
            None,
        )
    });
    Ok(decision.unwrap_or_else(|| cancelled(swarm, task, &command.reason())))
}

fn retry(swarm: &Swarm, id: TaskId) -> Result<Decision, Problem> {
    if swarm.task(id).is_some() {
        return Err(refuse(
            "task-not-ended",
            format!("task {id} has not ended"),
            "wait for its end, or cancel it first",
        ));
    }
    let ended = swarm.ended.get(&id).ok_or_else(|| unknown(id))?;
    if let Some(task) = ended
        .definition
        .as_ref()
        .filter(|task| task.part().is_some())
    {
        let parent = task
            .more
            .as_deref()
            .and_then(|more| more.parent)
            .unwrap_or(id);
        return Err(refuse(
            "part-of-a-task",
            format!("task {id} is a part of task {parent}, and is done for that alone"),
            "retry that one: it is split anew",
        ));
    }
    let Some(task) = &ended.definition else {
        let put_away = if ended.discarded {
            ", and was put away"
        } else {
            ""
        };
        return Err(refuse(
            "not-retryable",
            format!("task {id} has {}{put_away}", ended.how.word()),
            "submit it again under a new id",
        ));
    };
    if swarm.life != Life::Running {
        return Err(swarm.stopping().unwrap_or_else(|| unknown(id)));
    }
    if let Some(full) = swarm.full_for(task.priority) {
        return Err(full);
    }
    for edge in task.edges() {
        let before = swarm.ended.get(&edge.task);
        let lost = before.is_none() && swarm.task(edge.task).is_none();
        let failed = edge.kind != DependencyType::Completion
            && before.is_some_and(|e| e.how != How::Completed);
        if lost || failed {
            return Err(refuse(
                "dependency-without-result",
                format!("task {}, which it depends on, has not completed", edge.task),
                "retry that one first",
            ));
        }
    }
    let generation = task.generation.checked_add(1).ok_or_else(|| {
        refuse(
            "too-many-generations",
            format!("task {id} was retried too often"),
            "submit it under a new id",
        )
    })?;
    let body = Retried {
        attempts: 0,
        delay_ms: 0,
        generation,
        error: None,
    };
    Ok(about(swarm, task, TaskVerb::Retried, body))
}

/// What another swarm says of a task that it was handed.
fn hand_back(swarm: &Swarm, id: TaskId, sequence: u64, back: &Back) -> Result<Decision, Problem> {
    let Some((_, task)) = swarm.task(id) else {
        return Err(match swarm.ended.get(&id) {
            None => unknown(id),
            Some(ended) => refuse(
                "task-ended",
                format!("task {id} has {} already", ended.how.word()),
                "nothing is left to hand back",
            ),
        });
    };
    let away = task.phase == Phase::Away && task.generation == back.generation;
    let away = away || planted::is(Bug::HandBackCountsAlways);
    if !away || task.hand().map(|hand| hand.to) != Some(back.by) {
        return Err(refuse(
            "not-handed-over",
            format!(
                "generation {} of task {id} is not with swarm {}",
                back.generation, back.by
            ),
            "hand back what was handed over",
        ));
    }
    Ok(match &back.how {
        Returned::Failed(_) if planted::is(Bug::HandedBackAsDone) => {
            let body = HandedBack {
                by: back.by,
                generation: task.generation,
                result: Carried::AtSequence(sequence),
            };
            about(swarm, task, TaskVerb::HandedBack, body)
        }
        Returned::Completed => {
            let body = HandedBack {
                by: back.by,
                generation: task.generation,
                result: Carried::AtSequence(sequence),
            };
            let mut decision = about(swarm, task, TaskVerb::HandedBack, body);
            decision.hydrate = Some(Hydrate {
                payload_from: Some(sequence),
                inputs_from: Vec::new(),
            });
            decision
        }
        Returned::Failed(error) => {
            let body = Failed {
                attempts: u32::from(task.attempts),
                generation: task.generation,
                error: error.to_string(),
                dead_lettered: true,
                because_of: None,
                path: Vec::new(),
            };
            about(swarm, task, TaskVerb::Failed, body)
        }
        Returned::Cancelled(reason) => cancelled(swarm, task, reason),
    })
}

fn discard(swarm: &Swarm, id: TaskId) -> Result<Decision, Problem> {
    if swarm.task(id).is_some() {
        return Err(refuse(
            "task-not-ended",
            format!("task {id} has not ended"),
            "cancel it, if it is not wanted any more",
        ));
    }
    let ended = swarm.ended.get(&id).ok_or_else(|| unknown(id))?;
    let dead = How::Failed {
        dead_lettered: true,
    };
    match &ended.definition {
        Some(task) if ended.how == dead => {
            let body = Discarded {
                generation: task.generation,
            };
            Ok(about(swarm, task, TaskVerb::Discarded, body))
        }
        _ => Err(refuse(
            "no-dead-letter",
            match ended.discarded {
                true => format!("task {id} was put away already"),
                false => format!("task {id} has {}, and is no dead letter", ended.how.word()),
            },
            "nothing is left to put away",
        )),
    }
}
