//! Answers to commands: each gets an event that names it, at once or when a decision under way on its task is met.

use swarm_events::{
    CommandId, Problem, Subject, TaskId,
    decider::Decision,
    subject::TaskVerb,
    task::{DependencyType, Refused, Retried, Then, WithdrawReason},
};

use super::answers::{about, cancelled, withdrawal};
use crate::{
    plan::{Mark, Plan},
    state::{Command, Distributor, Wanted},
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
        if let Some(at) = plan.busy(self, command.swarm, command.task) {
            plan.behind
                .entry((command.swarm, at))
                .or_default()
                .push(sequence);
            plan.depart(self, mark, 1);
            return;
        }
        let answer = match &command.wanted {
            Wanted::Cancel { .. } => cancel(swarm, command),
            Wanted::Retry => retry(swarm, command.task),
        };
        let decision = answer.unwrap_or_else(|problem| {
            let body = Refused {
                command_id: Some(CommandId(command.id)),
                refused_subject: command.subject(swarm.place).to_string(),
                refused_seq: sequence,
                count: 1,
                problem,
            };
            Decision::new(
                Subject::Task(swarm.place, TaskVerb::Refused, None),
                command.task.0,
                body,
            )
            .correlated(command.correlation)
        });
        let of_task = !matches!(decision.subject, Subject::Task(_, TaskVerb::Refused, _));
        out.push(decision.caused_by(command.id));
        plan.depart(self, mark, 1);
        if let Some((at, _)) = swarm.task(command.task).filter(|_| of_task) {
            plan.depart(self, Mark::Task(command.swarm, at), 1);
        }
    }
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
    let id = command.task;
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
    let Some(task) = &ended.definition else {
        return Err(refuse(
            "not-retryable",
            format!("task {id} has {}", ended.how.word()),
            "submit it again under a new id",
        ));
    };
    if swarm.life != Life::Running {
        return Err(swarm.stopping().unwrap_or_else(|| unknown(id)));
    }
    if swarm.waiting() >= swarm.settings.queue_limit {
        return Err(swarm.queue_full());
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
