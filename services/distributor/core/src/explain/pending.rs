//! Tasks that no agent can have yet.

use swarm_events::{
    TaskId, Timestamp,
    task::{DependencyType, WithdrawReason, handed_id},
};

use super::{
    DEPENDENCIES_SHOWN_MAX, Deciding, Delay, Dependencies, Elsewhere, Look, Next, OpenDependency,
    OpenPart, OpenParts, Reason, Staged,
    words::{duration, number},
};
use crate::{
    evolve::words as why,
    outbox,
    state::Wanted,
    swarm::{Life, part_off},
    task::{Outcome, Phase, Task},
};

impl Look<'_> {
    pub(super) fn staged(&self, task: &Task) -> (Reason, Vec<String>) {
        let graph = task.more.as_deref().and_then(|more| {
            let id = more.graph?.0;
            Some((id, self.swarm.graphs.get(&id)?))
        });
        let Some((graph_id, graph)) = graph else {
            // A part always has its graph; if not, what there is to say is that it is being decided on.
            return self.deciding(task);
        };
        let (met, of) = (graph.parts.len() as u32, graph.of);
        let staged = Staged {
            graph_id,
            met,
            of,
            deadline: graph.deadline,
            deciding: graph.complete(),
        };
        let sentence = if graph.complete() {
            format!(
                "All {of} tasks of its graph are there: whether it is accepted is being decided."
            )
        } else {
            format!(
                "It waits for its graph: {met} of {} have been met. If some are still missing at {}, the whole graph is \
                 rejected.",
                number(u64::from(of), "task", "tasks"),
                graph.deadline
            )
        };
        (Reason::Staged(staged), vec![sentence])
    }

    pub(super) fn dependencies(&self, task: &Task, open: u32) -> (Reason, Vec<String>) {
        let edges = task.edges();
        let items: Vec<OpenDependency> = edges
            .iter()
            .filter_map(|edge| {
                let view = self
                    .swarm
                    .task(edge.task)
                    .and_then(|_| self.state.task(self.swarm.place, edge.task))?;
                Some(OpenDependency {
                    task_id: edge.task,
                    dependency_type: edge.kind,
                    status: view.status,
                    agent_id: view.agent,
                })
            })
            .take(DEPENDENCIES_SHOWN_MAX)
            .collect();
        let total = edges.len() as u32;
        let mut sentences = vec![if total == 1 {
            "It waits for the one task that it depends on.".to_owned()
        } else {
            format!("It waits for {open} of the {total} tasks that it depends on.")
        }];
        sentences.extend(items.iter().map(|item| {
            let what = match item.dependency_type {
                DependencyType::Completion => "end, either way",
                DependencyType::Success => "complete",
                DependencyType::Data => "complete, and give its result",
            };
            let status = item.status.as_str();
            match item.agent_id {
                Some(agent) => format!(
                    "Task {} must {what}; it is {status} at agent {agent}.",
                    item.task_id
                ),
                None => format!("Task {} must {what}; it is {status}.", item.task_id),
            }
        }));
        let more = u64::from(open).saturating_sub(items.len() as u64);
        if more > 0 {
            sentences.push(format!("{} more are open.", number(more, "task", "tasks")));
        }
        let reason = Dependencies { open, total, items };
        (Reason::Dependencies(reason), sentences)
    }

    pub(super) fn delay(&self, task: &Task, until: Timestamp) -> (Reason, Vec<String>) {
        let left_ms = until.millis_since(self.now());
        let next_attempt = u32::from(task.attempts) + 1;
        let mut sentences = vec![format!(
            "It waits {} more, until {until}, before attempt {next_attempt} of {}.",
            duration(left_ms),
            task.max_attempts
        )];
        if let Some(error) = task.more.as_deref().and_then(|more| more.error.as_deref()) {
            sentences.push(format!("The attempt before failed: {error}"));
        }
        let delay = Delay {
            until,
            left_ms,
            next_attempt,
        };
        (Reason::Delay(delay), sentences)
    }

    /// What is being written of a task, if the state demands anything that no agent has a say in.
    pub(super) fn demanded(&self, task: &Task) -> Option<Deciding> {
        if matches!(task.phase, Phase::Ending | Phase::Failing) {
            return Some(self.after(task));
        }
        let cancel = |because: String| Deciding {
            next: Next::Cancel,
            because: Some(because),
            because_of: None,
        };
        if self.swarm.life != Life::Running {
            return Some(cancel("the swarm is being terminated".to_owned()));
        }
        if task.called_off() {
            let graph = task.graph().and_then(|id| self.swarm.called_off.get(&id));
            let parent = task.more.as_deref().and_then(|more| more.parent);
            return Some(cancel(match graph {
                Some(graph) => graph.reason.to_string(),
                None if task.part().is_some() => part_off(parent),
                None => "its graph was called off".to_owned(),
            }));
        }
        let late = task.queue_timeout_at(&self.swarm.settings);
        if late.is_some_and(|at| at <= self.now()) {
            return Some(Deciding {
                next: Next::Fail,
                because: Some(why(WithdrawReason::QueueTimeout).to_owned()),
                because_of: None,
            });
        }
        self.state.commands.values().find_map(|command| {
            let own = command.swarm == self.swarm.number && command.about == task.id.0;
            match &command.wanted {
                Wanted::Cancel { reason } if own => Some(cancel(
                    reason
                        .as_deref()
                        .unwrap_or("somebody called it off")
                        .to_owned(),
                )),
                _ => None,
            }
        })
    }

    fn after(&self, task: &Task) -> Deciding {
        let more = task.more.as_deref();
        let deciding = |next, because: Option<&str>, because_of: Option<TaskId>| Deciding {
            next,
            because: because.map(str::to_owned),
            because_of,
        };
        match task.outcome() {
            Some(Outcome::Failed {
                error, because_of, ..
            }) => deciding(Next::Fail, Some(error), *because_of),
            Some(Outcome::Cancelled { reason, .. }) => deciding(Next::Cancel, Some(reason), None),
            Some(Outcome::Rejected { problem, .. }) => {
                deciding(Next::Reject, Some(&problem.to_string()), None)
            }
            None if task.phase == Phase::Handing => deciding(Next::HandOver, None, None),
            None => {
                let error = more.and_then(|more| more.error.as_deref());
                let again = task.phase == Phase::Failing
                    && self.swarm.life == Life::Running
                    && more.is_some_and(|more| more.retryable)
                    && task.attempts < task.max_attempts;
                deciding(if again { Next::Retry } else { Next::Fail }, error, None)
            }
        }
    }

    pub(super) fn parted(&self, task: &Task, open: u32) -> (Reason, Vec<String>) {
        let pieces = task.parts().map_or(&[][..], |parts| &*parts.pieces);
        let items: Vec<OpenPart> = pieces
            .iter()
            .filter(|piece| piece.result == 0)
            .take(DEPENDENCIES_SHOWN_MAX)
            .filter_map(|piece| {
                let view = self.state.task(self.swarm.place, piece.id)?;
                Some(OpenPart {
                    key: piece.key.to_string(),
                    task_id: piece.id,
                    status: view.status,
                    agent_id: view.agent,
                })
            })
            .collect();
        let total = pieces.len() as u32;
        let mut sentences = vec![format!(
            "It was split: {open} of its {} must complete before their results become one.",
            number(u64::from(total), "part", "parts")
        )];
        sentences.extend(items.iter().map(|item| {
            let (id, status) = (item.task_id, item.status.as_str());
            match item.agent_id {
                Some(agent) => {
                    format!(
                        "Part {:?}, task {id}, is {status} at agent {agent}.",
                        item.key
                    )
                }
                None => format!("Part {:?}, task {id}, is {status}.", item.key),
            }
        }));
        let more = u64::from(open).saturating_sub(items.len() as u64);
        if more > 0 {
            sentences.push(format!("{} more are open.", number(more, "part", "parts")));
        }
        (Reason::Parts(OpenParts { open, total, items }), sentences)
    }

    pub(super) fn away(&self, task: &Task) -> (Reason, Vec<String>) {
        let swarm_id = task.hand().map_or(self.swarm.place.swarm, |hand| hand.to);
        let origin = outbox::origin_of(self.swarm.place, task);
        let task_id = handed_id(&origin);
        let under_way = self.state.is_handing(&origin);
        let mut sentences = vec![format!(
            "Swarm {swarm_id} does it, as task {task_id} there; what comes of it comes back here."
        )];
        if under_way {
            sentences.push("It is being told, if it has not been told yet.".to_owned());
        }
        let elsewhere = Elsewhere {
            swarm_id,
            task_id,
            under_way,
        };
        (Reason::HandedOver(elsewhere), sentences)
    }

    pub(super) fn deciding(&self, task: &Task) -> (Reason, Vec<String>) {
        told(self.after(task))
    }
}

pub(super) fn told(deciding: Deciding) -> (Reason, Vec<String>) {
    let next = match deciding.next {
        Next::Retry => "Its attempt failed, and it gets another one",
        Next::Fail => "It fails",
        Next::Cancel => "It is being called off",
        Next::Reject => "It is refused",
        Next::HandOver => "It goes to another swarm",
    };
    let because = deciding
        .because
        .as_deref()
        .filter(|text| !text.is_empty())
        .map_or_else(|| ".".to_owned(), |text| format!(": {text}"));
    let sentences = vec![
        format!("{next}{because}"),
        "The event that says so is being written. If this answer stays, no distributor decides for this swarm: see `swarm \
         status`."
            .to_owned(),
    ];
    (Reason::Deciding(deciding), sentences)
}
