//! Events of assignments, by the distributor and by agents.

use swarm_events::{
    AgentId, Body, Recorded, TaskId,
    decider::Verdict,
    planted::{self, Bug},
    task::{self, Carried, ERROR_BYTES_MAX, RESULT_BYTES_MAX, Then, WithdrawReason},
};

use super::{STOPPING, failures::failed_by};
use crate::{
    agent::{BARRED_MS, Bar, LAPSES_MAX},
    state::Distributor,
    swarm::{End, Life, cut, part_off},
    task::{Held, How, Outcome, Phase, Task},
    trace::Trace,
};

/// What a withdrawal says of the task it ends.
pub(crate) const fn words(reason: WithdrawReason) -> &'static str {
    match reason {
        WithdrawReason::AgentFailed => "its agent failed while it ran",
        WithdrawReason::AgentLeft => "its agent left while it ran",
        WithdrawReason::AgentRemoved => "its agent was removed while it ran",
        WithdrawReason::AgentRestarted => "its agent was restarted while it ran",
        WithdrawReason::Timeout => "it ran longer than its timeout_ms",
        WithdrawReason::StartLimit => "its agent did not start it in time",
        WithdrawReason::Cancelled => "it was cancelled",
        WithdrawReason::Steal => "an idle agent took it over",
        WithdrawReason::Drain => "its agent is given no more work",
        WithdrawReason::Topology => {
            "by its agent's place in the topology it is not for that agent any more"
        }
        WithdrawReason::QueueTimeout => "it waited longer than its queue_timeout_ms",
        WithdrawReason::NoProgress => "it made no progress for its progress_timeout_ms",
        WithdrawReason::BadResult => "its agent's result was larger than an event may carry",
    }
}

impl Distributor {
    pub(super) fn about_assignment(
        &mut self,
        swarm: u32,
        agent: AgentId,
        recorded: &Recorded,
        trace: &mut Trace,
    ) -> Verdict {
        let id = TaskId(recorded.event.about);
        let Some((agent, _)) = self.swarm(swarm).and_then(|s| s.agent(agent)) else {
            return Verdict::Void("unknown-agent");
        };
        match &recorded.event.body {
            Body::TaskAssigned(assigned) => self.assigned(swarm, agent, id, assigned, trace),
            Body::TaskWithdrawn(withdrawn) => {
                let by = trace.met.and_then(|met| met.command);
                self.withdrawn(swarm, agent, id, withdrawn, by, trace)
            }
            Body::TaskStarted(e) => {
                self.heard(swarm, agent, e.incarnation, trace);
                self.started(swarm, agent, id, e, trace)
            }
            Body::TaskProgressed(e) => {
                self.heard(swarm, agent, e.incarnation, trace);
                self.progressed(swarm, agent, id, e, trace)
            }
            Body::TaskCompleted(e) => {
                self.heard(swarm, agent, e.incarnation, trace);
                self.completed(swarm, agent, id, e, trace)
            }
            Body::TaskAttemptFailed(e) => {
                self.heard(swarm, agent, e.incarnation, trace);
                self.attempt_failed(swarm, agent, id, e, trace)
            }
            Body::TaskSplit(e) => {
                self.heard(swarm, agent, e.incarnation, trace);
                self.split(swarm, agent, recorded, e, trace)
            }
            Body::TaskDeclined(e) => {
                self.heard(swarm, agent, e.incarnation, trace);
                self.declined(swarm, agent, id, e, trace)
            }
            _ => Verdict::Ignored,
        }
    }

    fn assigned(
        &mut self,
        swarm: u32,
        agent: u32,
        id: TaskId,
        assigned: &task::Assigned,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        let Some((at, task)) = state.task(id) else {
            return Verdict::Void("unknown-task");
        };
        if task.phase != Phase::Queued {
            return Verdict::Void("not-queued");
        }
        if task.generation != assigned.generation {
            return Verdict::Void("other-generation");
        }
        let held = Held {
            assignment: moment.sequence,
            incarnation: assigned.incarnation,
            at: moment.now,
            agent,
            by_turn: assigned.turn.is_some(),
        };
        // What an idle agent takes over is no turn of its: otherwise the circle would come to the busy ones first.
        let stolen = (state.tasks.get(at)).is_some_and(Task::stolen);
        if !stolen && !planted::is(Bug::CircleBroken) {
            state.turns += 1;
            if let Some(agent) = state.agents.get_mut(agent as usize) {
                agent.turn = state.turns;
            }
        }
        state.note_affinity(at, agent, assigned.affinity, moment);
        if let Some(turn) = assigned.turn {
            state.take_turn(at, agent, turn, moment);
        }
        state.set_phase(at, Phase::Assigned(held), moment, trace);
        Verdict::Applied
    }

    /// An agent that wrote anything is responsive.
    fn heard(&mut self, swarm: u32, agent: u32, incarnation: u64, trace: &mut Trace) {
        if let Some(state) = self
            .swarms
            .get_mut(swarm as usize)
            .and_then(|s| s.agents.get_mut(agent as usize))
            && state.incarnation == incarnation
            && state.lapses > 0
        {
            state.lapses = 0;
            trace.agent(swarm, agent);
        }
    }

    /// The task's number and its assignment, if that is the one named and its agent has not been restarted.
    pub(super) fn standing(
        &self,
        swarm: u32,
        agent: u32,
        id: TaskId,
        assignment: u64,
        incarnation: u64,
    ) -> Result<(u32, Phase), &'static str> {
        let state = self.swarm(swarm).ok_or("unknown-swarm")?;
        let Some((at, task)) = state.task(id) else {
            return Err(if state.ended.contains_key(&id) {
                "late"
            } else {
                "unknown-task"
            });
        };
        let held = task.phase.held().ok_or("late")?;
        if planted::is(Bug::StaleResultAccepted) {
            return Ok((at, task.phase));
        }
        if held.assignment != assignment || held.agent != agent {
            return Err("late");
        }
        if held.incarnation != incarnation
            || state.agents.get(agent as usize).map(|a| a.incarnation) != Some(incarnation)
        {
            return Err("old-incarnation");
        }
        Ok((at, task.phase))
    }

    pub(super) fn runs(
        &self,
        swarm: u32,
        agent: u32,
        id: TaskId,
        assignment: u64,
        incarnation: u64,
    ) -> Result<u32, &'static str> {
        match self.standing(swarm, agent, id, assignment, incarnation)? {
            (at, Phase::Running(_)) => Ok(at),
            _ => Err("not-started"),
        }
    }

    fn started(
        &mut self,
        swarm: u32,
        agent: u32,
        id: TaskId,
        event: &task::Started,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let at = match self.standing(swarm, agent, id, event.assignment, event.incarnation) {
            Ok((at, Phase::Assigned(_))) => at,
            Ok(_) => return Verdict::Void("started-already"),
            Err(why) => return Verdict::Void(why),
        };
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        if let Some(task) = state.tasks.get_mut(at) {
            task.attempts = task.attempts.saturating_add(1);
            task.started_at = moment.now;
            if let Some(more) = &mut task.more {
                more.stolen_from = None;
            }
        }
        let held = Held {
            assignment: event.assignment,
            incarnation: event.incarnation,
            at: moment.now,
            agent,
            by_turn: true,
        };
        state.set_phase(at, Phase::Running(held), moment, trace);
        self.runs_other(swarm, agent, trace);
        Verdict::Applied
    }

    fn progressed(
        &mut self,
        swarm: u32,
        agent: u32,
        id: TaskId,
        event: &task::Progressed,
        trace: &mut Trace,
    ) -> Verdict {
        let now = self.head.now;
        let at = match self.runs(swarm, agent, id, event.assignment, event.incarnation) {
            Ok(at) => at,
            Err(why) => return Verdict::Void(why),
        };
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        if let Some(task) = state.tasks.get_mut(at) {
            if !planted::is(Bug::ProgressIgnored) {
                task.more_mut().progressed_at = now;
            }
            if task.progress_timeout_at(&state.settings).is_some() {
                trace.task(swarm, at, id);
            }
        }
        self.runs_other(swarm, agent, trace);
        Verdict::Applied
    }

    fn completed(
        &mut self,
        swarm: u32,
        agent: u32,
        id: TaskId,
        event: &task::Completed,
        trace: &mut Trace,
    ) -> Verdict {
        let at = match self.runs(swarm, agent, id, event.assignment, event.incarnation) {
            Ok(at) => at,
            Err(why) => return Verdict::Void(why),
        };
        if matches!(&event.result, Carried::Inline(result) if result.len() > RESULT_BYTES_MAX) {
            if let Some(task) = self
                .swarms
                .get_mut(swarm as usize)
                .and_then(|s| s.tasks.get_mut(at))
            {
                task.more_mut().bad_result = true;
                trace.task(swarm, at, id);
            }
            return Verdict::Applied;
        }
        self.end(swarm, at, End::new(How::Completed, None), trace);
        self.succeeded(swarm, agent, trace);
        Verdict::Applied
    }

    fn attempt_failed(
        &mut self,
        swarm: u32,
        agent: u32,
        id: TaskId,
        event: &task::AttemptFailed,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let at = match self.runs(swarm, agent, id, event.assignment, event.incarnation) {
            Ok(at) => at,
            Err(why) => return Verdict::Void(why),
        };
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        state.note_attempt(at, agent, false);
        let limit = state.settings.fast_failure_ms;
        let mut fast = false;
        if let Some(task) = state.tasks.get_mut(at) {
            fast =
                event.retryable && limit > 0 && moment.now.millis_since(task.started_at) <= limit;
            let more = task.more_mut();
            more.error = Some(cut(&event.error, ERROR_BYTES_MAX).into());
            more.last_agent = Some(agent);
            more.retryable = event.retryable;
            more.bad_result = false;
        }
        state.set_phase(at, Phase::Failing, moment, trace);
        self.runs_other(swarm, agent, trace);
        if fast {
            self.failed_fast(swarm, agent, trace);
        }
        Verdict::Applied
    }

    fn withdrawn(
        &mut self,
        swarm: u32,
        agent: u32,
        id: TaskId,
        event: &task::Withdrawn,
        command: Option<u64>,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let command = command
            .and_then(|sequence| self.commands.get(&sequence))
            .cloned();
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        let Some((at, task)) = state.task(id) else {
            return Verdict::Void("unknown-task");
        };
        let started = matches!(task.phase, Phase::Running(_));
        match task.phase.held() {
            Some(held) if held.assignment == event.assignment && held.agent == agent => {}
            _ => return Verdict::Void("no-such-assignment"),
        }
        if started && !event.force && !planted::is(Bug::WithdrawsTheStarted) {
            return Verdict::Void("started");
        }
        if event.reason == WithdrawReason::Steal {
            state.counters.steals += 1;
            if let Some(task) = state.tasks.get_mut(at) {
                let more = task.more_mut();
                more.steals = more.steals.saturating_add(1);
                more.stolen_from = Some(agent);
            }
        }
        if event.reason == WithdrawReason::StartLimit
            && let Some(found) = state.agents.get_mut(agent as usize)
            && found.incarnation == event.incarnation
        {
            found.lapses = found.lapses.saturating_add(1);
            if found.lapses >= LAPSES_MAX {
                let until = moment.now.plus_millis(BARRED_MS);
                self.barred.insert((until, swarm, agent, Bar::Lapses));
            }
        }
        if let Some(task) = state.tasks.get_mut(at)
            && (started || task.more.as_ref().is_some_and(|more| more.bad_result))
        {
            let more = task.more_mut();
            more.error = Some(words(event.reason).into());
            more.bad_result = false;
            if started && event.then == Then::Queue {
                more.requeued_at = moment.now;
            }
        }
        if started
            && event.then == Then::End
            && let Some(task) = state.tasks.get_mut(at)
        {
            task.more_mut().last_agent = Some(agent);
        }
        if started && event.then != Then::End {
            state.counters.retries += 1;
        }
        if started && failed_by(event.reason) {
            state.note_attempt(at, agent, false);
        }
        let part = (state.tasks.get(at)).is_some_and(|task| task.part().is_some());
        match event.then {
            // It keeps its place in the queue.
            Then::Queue => state.set_phase(at, Phase::Queued, moment, trace),
            Then::RetryAfterMs(delay) => self.delay(swarm, at, delay, trace),
            Then::End => {
                let outcome = if event.reason == WithdrawReason::Cancelled {
                    let task = state.tasks.get(at);
                    let off = state.life == Life::Running && task.is_some_and(Task::called_off);
                    let parent = task.and_then(|task| task.more.as_deref()?.parent);
                    let (reason, by) = match (command, task.and_then(|t| state.called_off(t))) {
                        (Some(command), _) => (command.reason(), Some(command.id)),
                        (None, Some(graph)) => (graph.reason.clone(), graph.command),
                        (None, None) if off => (part_off(parent).into(), None),
                        (None, None) => (STOPPING.into(), None),
                    };
                    Outcome::Cancelled { reason, by }
                } else {
                    Outcome::Failed {
                        error: words(event.reason).into(),
                        dead_lettered: !part,
                        because_of: None,
                        path: Box::default(),
                    }
                };
                state.doom(at, outcome, moment, trace);
            }
        }
        self.runs_other(swarm, agent, trace);
        Verdict::Applied
    }
}
