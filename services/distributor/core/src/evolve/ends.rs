//! What the distributor writes of tasks that no agent holds: their ends, other attempts, dead letters put away.

use swarm_events::{
    Body, Recorded, TaskId, Timestamp,
    decider::Verdict,
    planted::{self, Bug},
    task::{self, FAILURE_PATH_MAX},
};

use crate::{
    class::{Without, class_without},
    state::{Distributor, Wanted},
    swarm::End,
    task::{How, Phase},
    trace::Trace,
};

impl Distributor {
    /// `retried`, `failed`, `cancelled`, `rejected`: not ended, no assignment stands.
    pub(super) fn about_task(
        &mut self,
        swarm: u32,
        recorded: &Recorded,
        trace: &mut Trace,
    ) -> Verdict {
        let id = TaskId(recorded.event.about);
        match &recorded.event.body {
            Body::TaskRetried(retried) => return self.retried(swarm, id, retried, trace),
            Body::TaskHandedOver(over) => return self.handed_over(swarm, id, over, trace),
            Body::TaskDiscarded(discarded) => return self.discarded(swarm, id, discarded, trace),
            _ => {}
        }
        let Some((at, task)) = self.swarm(swarm).and_then(|s| s.task(id)) else {
            return Verdict::Void("not-live");
        };
        if task.phase.held().is_some() {
            return Verdict::Void("assigned");
        }
        if task.phase == Phase::Staged {
            return Verdict::Void("staged");
        }
        let generation = task.generation;
        let end = match &recorded.event.body {
            Body::TaskFailed(e) if e.generation == generation => End {
                how: How::Failed {
                    dead_lettered: e.dead_lettered,
                },
                error: Some((*e.error).into()),
                because_of: e.because_of,
                path: e.path.iter().copied().take(FAILURE_PATH_MAX).collect(),
            },
            Body::TaskCancelled(e) if e.generation == generation => {
                End::new(How::Cancelled, Some((*e.reason).into()))
            }
            Body::TaskHandedBack(e) => {
                let with = task.hand().filter(|hand| hand.away && hand.to == e.by);
                if (task.phase != Phase::Away || with.is_none())
                    && !planted::is(Bug::HandBackCountsAlways)
                {
                    return Verdict::Void("not-handed-over");
                }
                if e.generation != generation {
                    return Verdict::Void("other-generation");
                }
                End::new(How::Completed, None)
            }
            Body::TaskRejected(e) => End::new(How::Rejected, Some(e.problem.to_string().into())),
            Body::TaskFailed(_) | Body::TaskCancelled(_) => {
                return Verdict::Void("other-generation");
            }
            _ => return Verdict::Ignored,
        };
        if self.answers_hand_back(trace) {
            self.is_back(swarm, at);
        }
        self.end(swarm, at, end, trace);
        Verdict::Applied
    }

    fn retried(
        &mut self,
        swarm: u32,
        id: TaskId,
        event: &task::Retried,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        if let Some((at, task)) = state.task(id) {
            if task.phase != Phase::Failing || task.generation != event.generation {
                return Verdict::Void("no-failed-attempt");
            }
            state.counters.retries += 1;
            self.delay(swarm, at, event.delay_ms, trace);
            return Verdict::Applied;
        }
        let fits =
            |task: &crate::task::Task| task.generation.checked_add(1) == Some(event.generation);
        match state.ended.get(&id) {
            None => return Verdict::Void("unknown-task"),
            Some(ended) if !ended.definition.as_ref().is_some_and(|task| fits(task)) => {
                return Verdict::Void("other-generation");
            }
            Some(ended)
                if ended
                    .definition
                    .as_ref()
                    .is_some_and(|task| task.part().is_some()) =>
            {
                return Verdict::Void("part-of-a-task");
            }
            Some(_) => {}
        }
        let Some(ended) = state.ended.remove(&id) else {
            return Verdict::Void("unknown-task");
        };
        let Some(definition) = ended.definition else {
            return Verdict::Void("not-retryable");
        };
        let mut task = *definition;
        task.generation = event.generation;
        task.attempts = 0;
        task.queued_at = Timestamp::ZERO;
        task.started_at = Timestamp::ZERO;
        task.phase = Phase::Queued;
        if let Some(more) = &mut task.more {
            more.error = None;
            more.outcome = None;
            more.because_of = None;
            more.path = Box::default();
            more.bad_result = false;
            more.requeued_at = Timestamp::ZERO;
            more.steals = 0;
            if let Some(hand) = &mut more.hand {
                hand.away = false;
            }
            more.stolen_from = None;
            if more.declines.take().is_some() {
                // Whoever declined it before may do it now.
                let class = class_without(state.classes.get(task.class), &[], Without::Others);
                let class = state.classes.hold(&class);
                state
                    .classes
                    .release(std::mem::replace(&mut task.class, class));
            }
        }
        if ended.named > 0 {
            task.more_mut().named = ended.named;
        }
        let at = state.insert(task, trace);
        state.link(at, moment, trace);
        Verdict::Applied
    }
}

impl Distributor {
    /// A dead letter is put away: what a retry would need of it is forgotten.
    fn discarded(
        &mut self,
        swarm: u32,
        id: TaskId,
        event: &task::Discarded,
        trace: &mut Trace,
    ) -> Verdict {
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        let Some(ended) = state.ended.get(&id) else {
            return Verdict::Void("not-ended");
        };
        let dead = How::Failed {
            dead_lettered: true,
        };
        let generation = ended.definition.as_ref().map(|task| task.generation);
        if ended.how != dead || generation != Some(event.generation) {
            return Verdict::Void("no-dead-letter");
        }
        let view = state.discarded_view(id, trace);
        trace.ended.extend(view);
        let Some(ended) = state.ended.get_mut(&id) else {
            return Verdict::Void("not-ended");
        };
        ended.how = How::Failed {
            dead_lettered: false,
        };
        ended.discarded = true;
        if let Some(task) = ended
            .definition
            .take_if(|_| !planted::is(Bug::DiscardedRetried))
        {
            state.types.release(task.task_type);
            state.classes.release(task.class);
        }
        Verdict::Applied
    }
}

/// Why the tasks of a stopping swarm are cancelled.
pub(crate) const STOPPING: &str = "the swarm is being terminated";

impl crate::state::Command {
    pub(crate) fn reason(&self) -> Box<str> {
        match &self.wanted {
            Wanted::Cancel {
                reason: Some(reason),
            }
            | Wanted::CancelGraph {
                reason: Some(reason),
            } => reason.clone(),
            _ => "cancelled by command".into(),
        }
    }
}
