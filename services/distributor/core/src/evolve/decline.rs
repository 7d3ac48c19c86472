//! Tasks that their agents give back.
//!
//! Whoever has declined a task is excluded by its class: for a wait of its retry policy in any case, after that as long as
//! there are others. So it does not go to and fro, and any other agent may take it at once.

use swarm_events::{
    TaskId, Timestamp,
    decider::Verdict,
    planted::{self, Bug},
    task::{self, DECLINE_REASON_BYTES_MAX},
};

use crate::{
    class::{Without, class_without},
    state::Distributor,
    swarm::{Swarm, cut},
    task::{DECLINES_MAX, Outcome, Phase, retry_delay_ms},
    trace::Trace,
};

impl Distributor {
    /// Its agent gives a task back. It keeps its place in the queue, and has lost no attempt. The wait follows from the
    /// settings as they are now: each fold has the same.
    pub(super) fn declined(
        &mut self,
        swarm: u32,
        agent: u32,
        id: TaskId,
        event: &task::Declined,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let (at, phase) = match self.standing(swarm, agent, id, event.assignment, event.incarnation)
        {
            Ok(found) => found,
            Err(why) => return Verdict::Void(why),
        };
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        let Some(task) = state.tasks.get_mut(at) else {
            return Verdict::Void("unknown-task");
        };
        let started = matches!(phase, Phase::Running(_));
        if started && !planted::is(Bug::DeclineCountsAttempt) {
            task.attempts = task.attempts.saturating_sub(1);
        }
        let class = task.class;
        let more = task.more_mut();
        more.bad_result = false;
        if started {
            more.requeued_at = moment.now;
        }
        let declines = more.declines.get_or_insert_default();
        declines.count = declines.count.saturating_add(1);
        declines.reason = cut(&event.reason, DECLINE_REASON_BYTES_MAX).into();
        if let Err(place) = declines.agents.binary_search(&agent)
            && !planted::is(Bug::DeclineGoesBackToSame)
        {
            declines.agents.insert(place, agent);
        }
        self.declined.remove(&(declines.until, swarm, at));
        declines.until = Timestamp::ZERO;
        if declines.count < DECLINES_MAX {
            let wait_ms = retry_delay_ms(&state.settings.retry, declines.count.into(), id);
            let mut how = Without::Others;
            if wait_ms > 0 && !planted::is(Bug::DeclineWaitSkipped) {
                declines.until = moment.now.plus_millis(wait_ms);
                self.declined.insert((declines.until, swarm, at));
                how = Without::Strictly;
            }
            let text = class_without(state.classes.get(class), &declines.agents, how);
            // Held before the other is let go: a number must not stand for both at one input.
            task.class = state.classes.hold(&text);
            state.classes.release(class);
            state.set_phase(at, Phase::Queued, moment, trace);
        } else {
            let error = format!(
                "it was declined {} times, the last time with: {}",
                declines.count, declines.reason
            );
            more.last_agent = Some(agent);
            let outcome = Outcome::Failed {
                error: error.into(),
                dead_lettered: true,
                because_of: None,
                path: Box::default(),
            };
            state.doom(at, outcome, moment, trace);
        }
        self.runs_other(swarm, agent, trace);
        Verdict::Applied
    }
}

impl Swarm {
    /// A declined task has waited: whoever declined it may have it, if there is no other.
    pub(crate) fn offer_again(&mut self, at: u32, trace: &mut Trace) {
        let Some(task) = self.tasks.get_mut(at) else {
            return;
        };
        let more = task.more.as_deref_mut();
        let Some(declines) = more.and_then(|more| more.declines.as_deref_mut()) else {
            return;
        };
        declines.until = Timestamp::ZERO;
        let class = task.class;
        let text = class_without(self.classes.get(class), &declines.agents, Without::Others);
        task.class = self.classes.hold(&text);
        self.classes.release(class);
        trace.task(self.number, at, task.id);
    }
}
