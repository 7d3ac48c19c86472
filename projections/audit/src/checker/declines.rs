//! What is promised of tasks that are given back, and of agents that are to get nothing.

use swarm_events::{
    AgentId, Recorded, TaskId, Timestamp,
    configuration::RetryPolicy,
    task::{Assigned, Declined},
};

use super::{Checker, routes::sits_for, swarm::State};
use crate::Invariant;

type Outcome = Result<(), &'static str>;

/// So often a task may be declined in a generation; then it fails.
const DECLINES_MAX: u32 = 8;

/// How long a task that was declined so often waits at least before it goes back to who declined it: as before the next one
/// of as many failed attempts, without what is added so that tasks do not come back together.
fn least_wait_ms(policy: &RetryPolicy, times: u32) -> u64 {
    let grown = (1..times).fold(policy.base_ms, |wait, _| {
        let next = wait.saturating_mul(policy.factor_percent.into()) / 100;
        if wait < policy.cap_ms { next } else { wait }
    });
    grown.min(policy.cap_ms)
}

impl Checker {
    /// An agent gives a task back, before or after its start: it keeps its place in the queue.
    pub(super) fn declined(
        &mut self,
        number: usize,
        agent: AgentId,
        id: TaskId,
        state: State,
        recorded: &Recorded,
        declined: &Declined,
    ) -> Outcome {
        self.stands(
            number,
            agent,
            state,
            declined.assignment,
            declined.incarnation,
        )?;
        self.release(number, state);
        let home = self.swarms[number].home;
        let now = self.homes[home].now;
        let swarm = &mut self.swarms[number];
        let retry = swarm.settings.at(u64::MAX).map(|settings| settings.retry);
        let Some(task) = swarm.tasks.get_mut(&id) else {
            return Err("unknown-task");
        };
        task.declines.insert(agent);
        task.declined_attempt = task.attempt;
        task.declined_times += 1;
        let wait = retry.map_or(0, |retry| least_wait_ms(&retry, task.declined_times));
        task.declined_until = now.plus_millis(wait);
        if matches!(state, State::Running(..)) {
            task.requeued_at = now;
        }
        let next = if task.declined_times >= DECLINES_MAX {
            State::Between
        } else {
            State::Waiting
        };
        self.set(number, id, next, recorded.sequence);
        Ok(())
    }

    /// Judges whether an agent may be given anything at all.
    pub(super) fn rests(
        &mut self,
        number: usize,
        agent: AgentId,
        id: TaskId,
        recorded: &Recorded,
        incarnation: u64,
    ) {
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let found = self.swarms[number].agents.get(&agent);
        let Some(seen) = found
            .and_then(|agent| agent.seen_at(cause))
            .filter(|seen| seen.incarnation == incarnation)
        else {
            return;
        };
        let since = seen.quarantined_since;
        for (invariant, wrong, what) in [
            (
                Invariant::NothingToTheLeaving,
                seen.draining,
                "had been told to go",
            ),
            (
                Invariant::NothingToTheQuarantined,
                since != Timestamp::ZERO,
                "was in quarantine",
            ),
        ] {
            self.notes.checked(invariant);
            if wrong {
                self.notes.broken(invariant, recorded.sequence, || {
                    format!("{id} is given to agent {agent}, which {what} at {cause}")
                });
            }
        }
    }

    /// Judges an assignment of a task that was declined before.
    pub(super) fn given_back_before(
        &mut self,
        number: usize,
        agent: AgentId,
        id: TaskId,
        recorded: &Recorded,
        assigned: &Assigned,
    ) {
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let swarm = &self.swarms[number];
        let Some(task) = swarm.tasks.get(&id).filter(|t| !t.declines.is_empty()) else {
            self.note_attempt(number, id, assigned.attempt);
            return;
        };
        self.notes.checked(Invariant::DeclinesKept);
        let required = &task.facts.required;
        let (before, now) = (task.declined_attempt, assigned.attempt);
        let wrong = if before != 0 && before != now {
            Some(format!(
                "attempt {before} was declined, and this is attempt {now}"
            ))
        } else if task.declines.contains(&agent) {
            let home = &self.homes[swarm.home];
            let view = home.cause.swarm(number).filter(|_| home.judging);
            view.and_then(|view| {
                let other = swarm.agents.iter().find(|(other, found)| {
                    !task.declines.contains(other)
                        && swarm.works_at(other, cause)
                        && sits_for(swarm, view, **other, &task.facts, cause)
                        && view.agents.get(other).is_some_and(|post| {
                            !post.lapsed
                                && post.incarnation == found.incarnation
                                && post.can(required)
                        })
                });
                other
                    .map(|(other, _)| format!("agent {other} has not declined it, and can take it"))
            })
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.notes
                .broken(Invariant::DeclinesKept, recorded.sequence, || {
                    format!("{id} goes to agent {agent}: {wrong}")
                });
        }
        self.waited(number, agent, id, recorded);
        self.note_attempt(number, id, now);
    }

    /// Judges whether who declined a task gets it no sooner than its wait is over.
    fn waited(&mut self, number: usize, agent: AgentId, id: TaskId, recorded: &Recorded) {
        let swarm = &self.swarms[number];
        let home = &self.homes[swarm.home];
        let task = swarm.tasks.get(&id);
        let Some(task) = task.filter(|task| home.judging && task.declines.contains(&agent)) else {
            return;
        };
        self.notes.checked(Invariant::DeclinesWait);
        let (until, now) = (task.declined_until, home.cause.now);
        if now < until {
            self.notes
                .broken(Invariant::DeclinesWait, recorded.sequence, || {
                    format!(
                        "{id} goes back to agent {agent} at {now}, and is to wait until {until}"
                    )
                });
        }
    }

    /// An attempt of an agent ended, well or not.
    pub(super) fn note_attempt_of(
        &mut self,
        number: usize,
        agent: AgentId,
        failed: bool,
        sequence: u64,
    ) {
        if let Some(agent) = self.swarms[number].agents.get_mut(&agent) {
            agent.note_attempt(failed, sequence);
        }
    }

    fn note_attempt(&mut self, number: usize, id: TaskId, attempt: u32) {
        if let Some(task) = self.swarms[number].tasks.get_mut(&id) {
            (task.attempt, task.declined_attempt) = (attempt, 0);
        }
    }
}
