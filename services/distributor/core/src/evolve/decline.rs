//! Tasks that their agents give back.

use swarm_events::{
    TaskId,
    decider::Verdict,
    planted::{self, Bug},
    task::{self, DECLINE_REASON_BYTES_MAX},
};

use crate::{
    check::class_without,
    state::Distributor,
    swarm::cut,
    task::{DECLINES_MAX, Outcome, Phase},
    trace::Trace,
};

impl Distributor {
    /// Its agent gives a task back. It keeps its place in the queue, and has lost no attempt.
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
        if declines.count < DECLINES_MAX {
            let text = class_without(state.classes.get(class), &declines.agents);
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
