//! What became of each task of one swarm, by the log: the runner's own reading, which shares no code with the services.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    AgentId, Body, GraphId, Input, InstanceId, Recorded, Service, Subject, TaskId,
    envelope::Source, task::Then,
};

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Its agent's result was taken.
    Completed,
    /// It ended without one.
    Failed,
    /// It was called off.
    Cancelled,
    /// It was not taken in.
    Rejected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A part of a graph that is not whole yet.
    Staged(GraphId),
    /// Waits. `now`: for an agent only; otherwise for something else too (dependencies, a pause before a retry).
    Waiting { now: bool },
    /// Given to an agent.
    Assigned {
        assignment: u64,
        agent: AgentId,
        started: bool,
    },
    /// Its attempt is over, and a decision is due.
    Between,
    /// It has ended.
    Ended(End),
}

#[derive(Debug)]
struct Task {
    submitted: u64,
    depends: bool,
    state: State,
}

#[derive(Debug, Default)]
struct Agent {
    incarnation: u64,
    places: u32,
    healthy: bool,
    holds: BTreeSet<u64>,
}

/// A replica's claim of the swarm's partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The service.
    pub service: Service,
    /// Its sequence.
    pub epoch: u64,
    /// The process.
    pub instance: InstanceId,
}

/// The longest time in which work waited, an agent had room, and the distributor decided nothing.
#[derive(Debug, Default)]
struct Gap {
    /// Store time (microseconds) since when it could have decided.
    since: Option<i64>,
    longest: i64,
}

/// The fold.
#[derive(Debug, Default)]
pub struct Fold {
    sequence: u64,
    created: bool,
    epochs: BTreeMap<Service, (u64, u64)>,
    claims: Vec<Claim>,
    tasks: BTreeMap<TaskId, Task>,
    waiting_now: usize,
    agents: BTreeMap<AgentId, Agent>,
    gone: BTreeSet<(AgentId, u64)>,
    gap: Gap,
    /// Decisions that give away or end a task that has ended already.
    doubled: Vec<String>,
    refused: Vec<String>,
    answered: BTreeSet<uuid::Uuid>,
}

impl Fold {
    /// A fold that begins after these claims.
    pub fn after(claims: impl IntoIterator<Item = Claim>) -> Self {
        let mut fold = Self::default();
        for claim in claims {
            fold.epochs.insert(claim.service, (claim.epoch, 0));
            fold.claims.push(claim);
        }
        fold
    }

    /// Meets the next message.
    pub fn meet(&mut self, input: &Input) {
        self.sequence = input.sequence();
        let Input::Event(recorded) = input else {
            return;
        };
        let time = recorded.time.as_micros();
        if let (Body::Claimed(claimed), Subject::Control(service, ..)) =
            (&recorded.event.body, recorded.subject)
        {
            self.epochs.insert(service, (recorded.sequence, 0));
            self.claims.push(Claim {
                service,
                epoch: recorded.sequence,
                instance: claimed.instance,
            });
            return;
        }
        let mut by = None;
        if let Some(decided) = recorded.event.decided {
            let Source::Service(service, _) = recorded.event.source else {
                return;
            };
            let (epoch, ordinal) = self.epochs.entry(service).or_default();
            // Void: of an older epoch, or a repeat.
            if decided.epoch != *epoch || decided.ordinal <= *ordinal {
                return;
            }
            *ordinal = decided.ordinal;
            by = Some(service);
            self.answered.extend(recorded.event.causation);
        }
        let figures = matches!(recorded.event.body, Body::SwarmMeasured(_));
        if by == Some(Service::Distributor) && !figures {
            self.gap.decided(time);
        }
        self.event(recorded);
        let could = self.waiting_now > 0 && self.agents.values().any(Agent::has_room);
        self.gap.could_decide(time, could);
    }

    fn event(&mut self, recorded: &Recorded) {
        let about = recorded.event.about;
        match &recorded.event.body {
            Body::SwarmCreated(_) => self.created = true,
            Body::SwarmRefused(refused) => self.refused.push(refused.problem.to_string()),
            Body::TaskRefused(refused) => self.refused.push(refused.problem.to_string()),
            Body::AgentJoined(joined) => {
                let agent = self.agents.entry(AgentId(about)).or_default();
                agent.incarnation = joined.incarnation;
                agent.places = joined.profile.slots + joined.profile.waiting;
                agent.healthy = true;
            }
            Body::AgentLeft(left) => self.agent_gone(AgentId(about), left.incarnation),
            Body::AgentRemoved(removed) => self.agent_gone(AgentId(about), removed.incarnation),
            Body::AgentFailed(failed) => self.agent_gone(AgentId(about), failed.incarnation),
            Body::AgentSuspected(judged) => {
                self.healthy(AgentId(about), judged.incarnation, false);
            }
            Body::AgentRecovered(judged) => {
                self.healthy(AgentId(about), judged.incarnation, true);
            }
            Body::TaskGraphAccepted(_) => {
                self.graph(GraphId(about), |task| State::Waiting { now: !task.depends });
            }
            Body::TaskGraphRejected(_) => {
                self.graph(GraphId(about), |_| State::Ended(End::Rejected));
            }
            Body::TaskSubmitted(submitted) => {
                let depends = !submitted.depends_on.is_empty();
                let state = match submitted.graph {
                    Some(part) => State::Staged(part.id),
                    None => State::Waiting { now: !depends },
                };
                let id = TaskId(about);
                if !self.tasks.contains_key(&id) {
                    self.waiting_now += usize::from(state == State::Waiting { now: true });
                    let submitted = recorded.sequence;
                    self.tasks.insert(
                        id,
                        Task {
                            submitted,
                            depends,
                            state,
                        },
                    );
                }
            }
            _ => self.task(recorded),
        }
    }

    fn task(&mut self, recorded: &Recorded) {
        let id = TaskId(recorded.event.about);
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let before = task.state;
        let after = match (&recorded.event.body, before) {
            (Body::TaskAssigned(_), State::Waiting { .. }) => {
                let Subject::Task(_, _, Some(agent)) = recorded.subject else {
                    return;
                };
                let assignment = recorded.sequence;
                if let Some(agent) = self.agents.get_mut(&agent) {
                    agent.holds.insert(assignment);
                }
                State::Assigned {
                    assignment,
                    agent,
                    started: false,
                }
            }
            (
                Body::TaskStarted(said),
                State::Assigned {
                    assignment, agent, ..
                },
            ) if said.assignment == assignment => State::Assigned {
                assignment,
                agent,
                started: true,
            },
            (Body::TaskCompleted(said), State::Assigned { assignment, .. })
                if said.assignment == assignment =>
            {
                State::Ended(End::Completed)
            }
            (Body::TaskAttemptFailed(said), State::Assigned { assignment, .. })
                if said.assignment == assignment =>
            {
                State::Between
            }
            (
                Body::TaskWithdrawn(said),
                State::Assigned {
                    assignment,
                    started,
                    ..
                },
            ) if said.assignment == assignment && (said.force || !started) => match said.then {
                Then::Queue => State::Waiting { now: true },
                Then::RetryAfterMs(_) => State::Waiting { now: false },
                Then::End => State::Between,
            },
            (Body::TaskRetried(_), State::Between | State::Ended(_)) => {
                State::Waiting { now: false }
            }
            (Body::TaskFailed(_), State::Waiting { .. } | State::Between) => {
                State::Ended(End::Failed)
            }
            (Body::TaskCancelled(_), State::Waiting { .. } | State::Between) => {
                State::Ended(End::Cancelled)
            }
            (Body::TaskRejected(_), State::Waiting { .. } | State::Between) => {
                State::Ended(End::Rejected)
            }
            (
                Body::TaskAssigned(_)
                | Body::TaskFailed(_)
                | Body::TaskCancelled(_)
                | Body::TaskRejected(_),
                State::Ended(end),
            ) => {
                self.doubled.push(format!(
                    "{id}, ended as {end:?}: {} at {}",
                    recorded.event.body.type_name(),
                    recorded.sequence
                ));
                return;
            }
            _ => return,
        };
        if let State::Assigned {
            assignment, agent, ..
        } = before
            && !matches!(after, State::Assigned { .. })
            && let Some(agent) = self.agents.get_mut(&agent)
        {
            agent.holds.remove(&assignment);
        }
        self.set(id, after);
    }

    fn set(&mut self, id: TaskId, after: State) {
        if let Some(task) = self.tasks.get_mut(&id) {
            let waits = |state| usize::from(state == State::Waiting { now: true });
            self.waiting_now = self.waiting_now + waits(after) - waits(task.state);
            task.state = after;
        }
    }

    fn graph(&mut self, graph: GraphId, after: impl Fn(&Task) -> State) {
        let of_graph = |task: &&Task| task.state == State::Staged(graph);
        let parts: Vec<(TaskId, State)> = self
            .tasks
            .iter()
            .filter(|(_, task)| of_graph(task))
            .map(|(id, task)| (*id, after(task)))
            .collect();
        for (id, state) in parts {
            self.set(id, state);
        }
    }

    fn healthy(&mut self, id: AgentId, incarnation: u64, healthy: bool) {
        if let Some(agent) = self.agents.get_mut(&id)
            && agent.incarnation == incarnation
        {
            agent.healthy = healthy;
        }
    }

    fn agent_gone(&mut self, id: AgentId, incarnation: u64) {
        self.healthy(id, incarnation, false);
        self.gone.insert((id, incarnation));
    }

    /// Last sequence met.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }
    /// Whether the swarm has been created.
    pub const fn created(&self) -> bool {
        self.created
    }
    /// The newest claim of the swarm's partition by `service`.
    pub fn claim(&self, service: Service) -> Option<Claim> {
        self.claims
            .iter()
            .rev()
            .find(|claim| claim.service == service)
            .copied()
    }
    /// Whether the agent is a member in good health.
    pub fn is_member(&self, agent: AgentId) -> bool {
        self.agents.get(&agent).is_some_and(|agent| agent.healthy)
    }
    /// Whether the agent's incarnation (the first, say) was found dead, or left.
    pub fn is_gone(&self, agent: AgentId, incarnation: u64) -> bool {
        self.gone.contains(&(agent, incarnation))
    }
    /// How the task ended, `None` if it has not or is not known.
    pub fn end_of(&self, task: TaskId) -> Option<End> {
        match self.tasks.get(&task)?.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }
    /// How many tasks have ended that were submitted behind `sequence`.
    pub fn ended_since(&self, sequence: u64) -> usize {
        self.tasks
            .values()
            .filter(|task| task.submitted > sequence && matches!(task.state, State::Ended(_)))
            .count()
    }
    /// How many tasks ended in each way.
    pub fn ends(&self) -> BTreeMap<End, usize> {
        let mut ends = BTreeMap::new();
        for task in self.tasks.values() {
            if let State::Ended(end) = task.state {
                *ends.entry(end).or_default() += 1;
            }
        }
        ends
    }
    /// A task in words.
    pub fn describe(&self, task: TaskId) -> String {
        match self.tasks.get(&task) {
            Some(found) => format!("{task} (at {}): {:?}", found.submitted, found.state),
            None => format!("{task}: not in the log"),
        }
    }
    /// Decisions about tasks that had ended already.
    pub fn doubled(&self) -> &[String] {
        &self.doubled
    }
    /// What was refused in this swarm.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }
    /// Whether a decision names this command as its cause.
    pub fn is_answered(&self, command: uuid::Uuid) -> bool {
        self.answered.contains(&command)
    }
    /// The longest time without decisions, in microseconds.
    pub const fn gap_micros(&self) -> i64 {
        self.gap.longest
    }
}

impl Agent {
    fn has_room(&self) -> bool {
        self.healthy && self.holds.len() < self.places as usize
    }
}

impl Gap {
    fn decided(&mut self, time: i64) {
        if let Some(since) = self.since.take() {
            self.longest = self.longest.max(time - since);
        }
    }
    /// After each message: whether there was something to decide.
    fn could_decide(&mut self, time: i64, could: bool) {
        if could {
            self.since.get_or_insert(time);
        } else {
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests;
