//! What happens to a task that exists.

use std::collections::BTreeSet;

use swarm_events::{
    AgentId, Body, Recorded, TaskId, Timestamp,
    task::{
        Assigned, Carried, RESULT_BYTES_MAX, Retried, Started, Then, WithdrawReason, Withdrawn,
    },
};

use super::{
    Checker,
    cause::News,
    swarm::{End, Held, State},
};
use crate::Invariant;

type Outcome<T = ()> = Result<T, &'static str>;

impl Checker {
    pub(super) fn about_task(
        &mut self,
        number: usize,
        agent: Option<AgentId>,
        recorded: &Recorded,
    ) -> Outcome {
        let id = TaskId(recorded.event.about);
        let by_agent = |e: Option<AgentId>| e.ok_or("unknown-agent");
        match &recorded.event.body {
            Body::TaskStarted(e) => return self.started(number, by_agent(agent)?, id, recorded, e),
            Body::TaskProgressed(e) => {
                let state = self.state(number, id)?;
                let agent = by_agent(agent)?;
                self.heard(number, agent, e.incarnation, recorded);
                self.runs(number, agent, state, e.assignment, e.incarnation)?;
                let now = self.homes[self.swarms[number].home].now;
                if let Some(task) = self.swarms[number].tasks.get_mut(&id) {
                    task.heard_at = now;
                }
                self.tell(number, id, recorded.sequence);
                return Ok(());
            }
            Body::TaskCompleted(e) => {
                let state = self.state(number, id)?;
                let agent = by_agent(agent)?;
                self.heard(number, agent, e.incarnation, recorded);
                self.runs(number, agent, state, e.assignment, e.incarnation)?;
                if !matches!(&e.result, Carried::Inline(r) if r.len() > RESULT_BYTES_MAX) {
                    self.note_attempt_of(number, agent, false, recorded.sequence);
                    self.release(number, state);
                    self.ends(number, id, End::Completed, recorded);
                }
                return Ok(());
            }
            Body::TaskSplit(e) => {
                let state = self.state(number, id)?;
                let agent = by_agent(agent)?;
                self.heard(number, agent, e.incarnation, recorded);
                self.runs(number, agent, state, e.assignment, e.incarnation)?;
                self.release(number, state);
                self.split(number, agent, id, recorded, e);
                return Ok(());
            }
            Body::TaskAttemptFailed(e) => {
                let state = self.state(number, id)?;
                let agent = by_agent(agent)?;
                self.heard(number, agent, e.incarnation, recorded);
                self.runs(number, agent, state, e.assignment, e.incarnation)?;
                self.note_attempt_of(number, agent, true, recorded.sequence);
                self.release(number, state);
                self.set(number, id, State::Between, recorded.sequence);
                return Ok(());
            }
            Body::TaskDeclined(e) => {
                let state = self.state(number, id)?;
                let agent = by_agent(agent)?;
                self.heard(number, agent, e.incarnation, recorded);
                return self.declined(number, agent, id, state, recorded, e);
            }
            _ => {}
        }
        // A decision on it: whatever was doubtful about its existence is so no more.
        self.confirm(number, id, recorded.sequence);
        if let Body::TaskFailed(failed) = &recorded.event.body {
            self.was_not_split(number, id, &failed.error, recorded.sequence);
        }
        let state = self.state(number, id)?;
        match &recorded.event.body {
            Body::TaskHandedOver(e) => self.handed_over(number, id, state, recorded, e),
            Body::TaskHandedBack(e) => self.handed_back(number, id, state, recorded, e),
            Body::TaskAssigned(e) => {
                self.assigned(number, by_agent(agent)?, id, state, recorded, e)
            }
            Body::TaskWithdrawn(e) => {
                self.withdrawn(number, by_agent(agent)?, id, state, recorded, e)
            }
            Body::TaskRetried(e) => self.retried(number, id, state, recorded, e),
            Body::TaskRejected(_) => {
                self.end_decided(number, id, state, None, End::Rejected, recorded)
            }
            Body::TaskFailed(e) => {
                let generation = Some(e.generation);
                self.failure_path(number, id, recorded, e);
                self.end_decided(number, id, state, generation, End::Retryable, recorded)
            }
            Body::TaskDiscarded(e) => self.discarded(number, id, state, recorded, e),
            Body::TaskCancelled(e) => {
                let generation = Some(e.generation);
                self.end_decided(number, id, state, generation, End::Retryable, recorded)
            }
            _ => Ok(()),
        }
    }

    fn state(&self, number: usize, id: TaskId) -> Outcome<State> {
        let task = self.swarms[number].tasks.get(&id);
        Ok(task.ok_or("unknown-task")?.state)
    }

    /// An agent that wrote anything is responsive.
    fn heard(&mut self, number: usize, id: AgentId, incarnation: u64, recorded: &Recorded) {
        let swarm = &self.swarms[number];
        if swarm.agents.get(&id).map(|agent| agent.incarnation) == Some(incarnation) {
            let news = News::Lapsed(number, id, false);
            self.homes[swarm.home].cause.tell(recorded.sequence, news);
        }
    }

    fn confirm(&mut self, number: usize, id: TaskId, sequence: u64) {
        let swarm = &mut self.swarms[number];
        if let Some(task) = swarm.tasks.get(&id)
            && matches!(task.state, State::Staged(_))
            && let Some(rival) = swarm.rivals.remove(&id)
        {
            // The staged part was never taken in; the one that came alone was.
            swarm.fresh.insert(rival.submitted, id);
            swarm.tasks.insert(id, rival);
        }
        let Some(task) = swarm.tasks.get_mut(&id) else {
            return;
        };
        let (submitted, uncertain) = (task.submitted, task.uncertain);
        (task.uncertain, task.loose) = (false, task.loose && !uncertain);
        swarm.fresh.remove(&submitted);
        if uncertain {
            task.make_vague();
            self.begins(number, id, sequence);
        }
    }

    pub(super) fn set(&mut self, number: usize, id: TaskId, state: State, sequence: u64) {
        if let Some(task) = self.swarms[number].tasks.get_mut(&id) {
            task.state = state;
        }
        self.tell(number, id, sequence);
        self.touch(number, id);
    }

    /// A task stands elsewhere from `sequence` on.
    pub(super) fn tell(&mut self, number: usize, id: TaskId, sequence: u64) {
        let swarm = &mut self.swarms[number];
        let home = &mut self.homes[swarm.home];
        let Some(task) = swarm.tasks.get_mut(&id) else {
            return;
        };
        if task.queues() && task.queued_at == Timestamp::ZERO {
            task.queued_at = home.now;
        }
        let standing = task.standing().map(|at| (task.facts.clone(), at));
        home.cause.tell(sequence, News::Task(number, id, standing));
    }

    pub(super) fn release(&mut self, number: usize, state: State) {
        if let Some(held) = state.held()
            && let Some(agent) = self.swarms[number].agents.get_mut(&held.agent)
        {
            agent.holds.remove(&held.assignment);
        }
    }

    fn ends(&mut self, number: usize, id: TaskId, end: End, recorded: &Recorded) {
        self.notes.checked(Invariant::OneTerminal);
        let sequence = recorded.sequence;
        let swarm = &mut self.swarms[number];
        let Some(task) = swarm.tasks.get_mut(&id) else {
            return;
        };
        if task.first_end == 0 {
            task.first_end = sequence;
        }
        (task.end, task.turned) = (sequence, sequence);
        if end == End::Completed {
            task.completed = sequence;
        } else {
            let failed = match &recorded.event.body {
                Body::TaskFailed(failed) => Some(failed),
                _ => None,
            };
            task.ended_badly = true;
            task.ended_by_itself |= failed.is_none_or(|failed| failed.because_of.is_none());
            task.dead_letter = failed.is_some_and(|failed| failed.dead_lettered);
        }
        let edges = task.edges.clone();
        swarm.unlink(&edges);
        if end == End::Completed {
            swarm.note_completed(sequence);
        }
        let dependents = swarm.dependents.remove(&id).unwrap_or_default();
        if self.notes.inside {
            self.ended += 1;
        }
        let home = &mut self.homes[usize::from(recorded.subject.partition().number())];
        home.ended.push_back((home.now, number, id, sequence));
        home.cause.tell(sequence, News::Ended(number, id));
        self.set(number, id, State::Ended(end), sequence);
        self.part_ended(number, id, end, recorded);
        self.dependencies_ended(number, id, end, dependents, sequence);
    }

    /// What waited for a task goes on, or is doomed.
    pub(super) fn dependencies_ended(
        &mut self,
        number: usize,
        id: TaskId,
        end: End,
        dependents: BTreeSet<TaskId>,
        sequence: u64,
    ) {
        for dependent in dependents {
            self.swarms[number].dependency_ended(dependent, id, end);
            self.tell(number, dependent, sequence);
            self.touch(number, dependent);
        }
    }

    fn assigned(
        &mut self,
        number: usize,
        agent_id: AgentId,
        id: TaskId,
        state: State,
        recorded: &Recorded,
        assigned: &Assigned,
    ) -> Outcome {
        let sequence = recorded.sequence;
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        self.notes.checked(Invariant::OneStandingAssignment);
        if let Some(held) = state.held() {
            self.notes
                .broken(Invariant::OneStandingAssignment, sequence, || {
                    format!("{id} is assigned by {}", held.assignment)
                });
            return Err("assigned");
        }
        if state.ended() {
            self.notes.broken(Invariant::OneTerminal, sequence, || {
                format!("{id} is assigned after its end")
            });
            return Err("ended");
        }
        if state == State::Parted {
            self.whole(number, id, recorded, assigned.step);
        }
        if state != State::Waiting {
            return Err("not-queued");
        }
        self.called_off(number, id, recorded);
        self.whole(number, id, recorded, assigned.step);
        let judged = self.chosen(number, agent_id, id, recorded, assigned);
        let swarm = &self.swarms[number];
        let generation = swarm.tasks.get(&id).map(|task| task.generation);
        if generation != Some(assigned.generation) {
            return Err("other-generation");
        }
        if swarm.tasks.get(&id).is_some_and(|t| !t.edges.is_empty()) {
            self.notes.checked(Invariant::DependenciesRespected);
            if let Some(why) = swarm.unmet(id, cause) {
                self.notes
                    .broken(Invariant::DependenciesRespected, sequence, || why);
            }
        }
        self.notes.checked(Invariant::AssignedToTheLiving);
        let unfit = match swarm.agents.get(&agent_id) {
            None => Some("never joined".to_owned()),
            Some(agent) => agent.unfit(assigned.incarnation, cause),
        };
        if let Some(why) = unfit {
            self.notes
                .broken(Invariant::AssignedToTheLiving, sequence, || {
                    format!(
                        "{id} is given to incarnation {} of agent {agent_id}, which at {cause} {why}",
                        assigned.incarnation
                    )
                });
        }
        self.rests(number, agent_id, id, recorded, assigned.incarnation);
        let Some(agent) = self.swarms[number].agents.get_mut(&agent_id) else {
            return Err("unknown-agent");
        };
        agent.holds.insert(sequence);
        self.given_back_before(number, agent_id, id, recorded, assigned);
        let Some(agent) = self.swarms[number].agents.get_mut(&agent_id) else {
            return Err("unknown-agent");
        };
        // Given to one that has gone or come back since: taken away again, and counted by nobody.
        let same = agent.incarnation == assigned.incarnation && agent.described <= cause;
        if !judged && agent.living() && same {
            self.notes.checked(Invariant::SlotsKept);
            let (holds, places) = (agent.holds.len(), agent.places);
            if holds > places {
                self.notes.broken(Invariant::SlotsKept, sequence, || {
                    format!("agent {agent_id} holds {holds}, and has {places} places")
                });
            }
        }
        let held = Held {
            assignment: sequence,
            agent: agent_id,
            incarnation: assigned.incarnation,
        };
        let now = self.homes[self.swarms[number].home].now;
        if let Some(task) = self.swarms[number].tasks.get_mut(&id) {
            task.assigned_at = now;
            task.by_turn = assigned.turn.is_some();
        }
        self.set(number, id, State::Assigned(held), sequence);
        if let Some(task) = self.swarms[number].tasks.get(&id) {
            let facts = task.facts.clone();
            self.given(number, (agent_id, id), &facts, recorded, assigned);
        }
        Ok(())
    }

    /// Whether this assignment stands and this is its agent's present incarnation.
    pub(super) fn stands(
        &self,
        number: usize,
        agent: AgentId,
        state: State,
        assignment: u64,
        incarnation: u64,
    ) -> Outcome<Held> {
        let held = state.held().ok_or("late")?;
        if held.assignment != assignment || held.agent != agent {
            return Err("late");
        }
        let present = self.swarms[number]
            .agents
            .get(&agent)
            .map(|a| a.incarnation);
        if held.incarnation != incarnation || present != Some(incarnation) {
            return Err("old-incarnation");
        }
        Ok(held)
    }

    fn runs(
        &self,
        number: usize,
        agent: AgentId,
        state: State,
        assignment: u64,
        incarnation: u64,
    ) -> Outcome {
        self.stands(number, agent, state, assignment, incarnation)?;
        match state {
            State::Running(..) => Ok(()),
            _ => Err("not-started"),
        }
    }

    fn started(
        &mut self,
        number: usize,
        agent_id: AgentId,
        id: TaskId,
        recorded: &Recorded,
        started: &Started,
    ) -> Outcome {
        let sequence = recorded.sequence;
        self.heard(number, agent_id, started.incarnation, recorded);
        self.notes.checked(Invariant::NoStartAfterWithdrawal);
        let withdrawn = self.swarms[number]
            .agents
            .get(&agent_id)
            .is_some_and(|agent| agent.withdrawn.contains(&started.assignment));
        if withdrawn {
            self.notes
                .broken(Invariant::NoStartAfterWithdrawal, sequence, || {
                    format!(
                        "agent {agent_id} starts {id} by {}, which has been withdrawn",
                        started.assignment
                    )
                });
            return Err("late");
        }
        let state = self.state(number, id)?;
        let held = self.stands(
            number,
            agent_id,
            state,
            started.assignment,
            started.incarnation,
        )?;
        self.notes.checked(Invariant::OneStart);
        if let State::Running(_, first) = state {
            // A repeat of the message is nothing.
            if first != recorded.event.id {
                self.counts.started_again += u64::from(self.notes.inside);
                self.notes.broken(Invariant::OneStart, sequence, || {
                    format!("agent {agent_id} starts {id} by {} again", held.assignment)
                });
            }
            return Err("started-already");
        }
        let now = self.homes[self.swarms[number].home].now;
        if let Some(task) = self.swarms[number].tasks.get_mut(&id) {
            task.heard_at = now;
            task.stolen = false;
        }
        self.set(
            number,
            id,
            State::Running(held, recorded.event.id),
            sequence,
        );
        Ok(())
    }

    fn withdrawn(
        &mut self,
        number: usize,
        agent_id: AgentId,
        id: TaskId,
        state: State,
        recorded: &Recorded,
        withdrawn: &Withdrawn,
    ) -> Outcome {
        match state.held() {
            Some(held) if held.assignment == withdrawn.assignment && held.agent == agent_id => {}
            _ => return Err("no-such-assignment"),
        }
        self.taken_away(number, agent_id, id, recorded, withdrawn);
        let steal = u64::from(self.notes.inside && withdrawn.reason == WithdrawReason::Steal);
        if matches!(state, State::Running(..)) && !withdrawn.force {
            self.counts.steals_void += steal;
            return Err("started");
        }
        self.counts.steals += steal;
        let swarm = &mut self.swarms[number];
        if let Some(agent) = swarm.agents.get_mut(&agent_id) {
            agent.withdraw(withdrawn.assignment);
            if withdrawn.reason == WithdrawReason::StartLimit {
                let news = News::Lapsed(number, agent_id, true);
                self.homes[swarm.home].cause.tell(recorded.sequence, news);
            }
        }
        if withdrawn.reason == WithdrawReason::Steal
            && let Some(task) = swarm.tasks.get_mut(&id)
        {
            task.steals = task.steals.saturating_add(1);
            task.stolen = true;
        }
        if matches!(state, State::Running(..))
            && withdrawn.then == Then::Queue
            && let Some(task) = swarm.tasks.get_mut(&id)
        {
            task.requeued_at = self.homes[swarm.home].now;
        }
        match withdrawn.then {
            // It keeps its place in the queue.
            Then::Queue => self.set(number, id, State::Waiting, recorded.sequence),
            Then::RetryAfterMs(delay) => self.waits_again(number, id, delay, recorded),
            Then::End => {
                if let Some(task) = swarm.tasks.get_mut(&id) {
                    task.ending = true;
                }
                self.set(number, id, State::Between, recorded.sequence);
            }
        }
        Ok(())
    }

    fn waits_again(&mut self, number: usize, id: TaskId, delay: u64, recorded: &Recorded) {
        let home = &mut self.homes[self.swarms[number].home];
        if let Some(task) = self.swarms[number].tasks.get_mut(&id) {
            task.ready_at = home.now.plus_millis(delay);
            (task.queued_at, task.requeued_at) = (Timestamp::ZERO, Timestamp::ZERO);
            task.delayed = delay > 0;
            if task.delayed {
                home.delayed.insert((task.ready_at, number, id));
            }
        }
        self.set(number, id, State::Waiting, recorded.sequence);
    }

    fn retried(
        &mut self,
        number: usize,
        id: TaskId,
        state: State,
        recorded: &Recorded,
        retried: &Retried,
    ) -> Outcome {
        let generation = self.swarms[number]
            .tasks
            .get(&id)
            .map_or(0, |task| task.generation);
        if retried.error.is_some() {
            // It answers a failed attempt.
            self.notes.checked(Invariant::ResultOfStandingAssignment);
            if state != State::Between {
                self.notes.broken(
                    Invariant::ResultOfStandingAssignment,
                    recorded.sequence,
                    || format!("{id} is retried for a failed attempt that did not count"),
                );
            }
        }
        // What a person retries is queued at once.
        let mut delay = 0;
        if state == State::Ended(End::Discarded) {
            let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
            let put_away = self.swarms[number].tasks.get(&id).map(|task| task.turned);
            if put_away.is_some_and(|at| at <= cause) {
                self.notes
                    .broken(Invariant::DiscardedStays, recorded.sequence, || {
                        format!("{id} is retried after it was put away")
                    });
            }
            return Err("not-retryable");
        }
        match state {
            State::Between if retried.generation == generation => {
                self.called_off(number, id, recorded);
                delay = retried.delay_ms;
            }
            State::Ended(End::Retryable)
                if generation.checked_add(1) == Some(retried.generation) =>
            {
                if let Some(task) = self.swarms[number].tasks.get_mut(&id) {
                    task.generation = retried.generation;
                    task.turned = recorded.sequence;
                    (task.steals, task.stolen) = (0, false);
                    task.declines.clear();
                    task.declined_times = 0;
                    (task.ending, task.dead_letter) = (false, false);
                    task.parts = None;
                }
                self.swarms[number].link(id);
                self.counts.reopened += u64::from(self.notes.inside);
            }
            State::Between | State::Ended(_) => return Err("other-generation"),
            _ => return Err("no-failed-attempt"),
        }
        self.waits_again(number, id, delay, recorded);
        Ok(())
    }

    pub(super) fn end_decided(
        &mut self,
        number: usize,
        id: TaskId,
        state: State,
        generation: Option<u32>,
        end: End,
        recorded: &Recorded,
    ) -> Outcome {
        match state {
            State::Waiting | State::Between | State::Parted | State::Away => {
                let present = self.swarms[number].tasks.get(&id).map(|t| t.generation);
                if generation.is_some() && generation != present {
                    return Err("other-generation");
                }
                self.ends(number, id, end, recorded);
                Ok(())
            }
            State::Ended(_) => {
                self.counts.doubled += u64::from(self.notes.inside);
                let kind = recorded.event.body.type_name();
                self.notes
                    .broken(Invariant::OneTerminal, recorded.sequence, || {
                        format!("{id}: a second end, {kind}")
                    });
                Err("ended")
            }
            State::Staged(_) => Err("staged"),
            _ => Err("assigned"),
        }
    }
}
