//! The promises, by name, checked over the log by a reader that shares no code with the cores: it knows the validity rules
//! of an event from the design alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use swarm_events::{
    AgentId, Body, Input, Recorded, Service, Subject, TaskId,
    subject::TaskVerb,
    task::{DependencyType, Then},
};
use uuid::Uuid;

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Each task ends at most once per generation.
    OneTerminal,
    /// Each accepted task ends (checked after healing).
    EveryTaskEnds,
    /// A result counts only under an assignment that stands.
    ResultOfStandingAssignment,
    /// No assignment while another stands.
    OneStandingAssignment,
    /// No agent is given more than its slots and waiting places.
    SlotsKept,
    /// Nothing is assigned to an agent that is, at that place in the log, not a healthy member.
    AssignedToTheLiving,
    /// No task is assigned before its dependencies allow it.
    DependenciesRespected,
    /// Nothing is stored under an older epoch.
    EpochsRise,
    /// Every command is answered.
    CommandsAnswered,
    /// Owner, standby and cold fold agree.
    FoldsAgree,
    /// No handler was started for an assignment that had been withdrawn before its start was stored.
    NoStartAfterWithdrawal,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Where in the log.
    pub sequence: u64,
    /// What.
    pub detail: String,
}
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} at {}: {}",
            self.invariant, self.sequence, self.detail
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Assigned {
        assignment: u64,
        agent: AgentId,
        incarnation: u64,
        started: bool,
    },
    /// Its attempt ended or was taken away; a decision of the distributor is due.
    Between,
    Ended(Terminal),
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Terminal {
    Completed,
    Other,
}
#[derive(Debug)]
struct Task {
    state: State,
    dependencies: Vec<(TaskId, DependencyType)>,
    /// It has ended before: a dependency that was met stays met when a person retries the task.
    ended_once: bool,
    /// Sequence of its submission.
    submitted: u64,
    /// Of a rejected graph: whether its id counts as used depends on how far the graph had come.
    loose: bool,
    /// It took the place of such a one.
    was_loose: bool,
}
#[derive(Debug, Default)]
struct Agent {
    incarnation: u64,
    places: usize,
    member: bool,
    healthy: bool,
    holds: BTreeSet<u64>,
}

/// Reads the log once, in order, and notes what is broken.
#[derive(Default)]
pub struct Checker {
    tasks: BTreeMap<TaskId, Task>,
    staged: BTreeMap<Uuid, Vec<(TaskId, Task)>>,
    agents: BTreeMap<AgentId, Agent>,
    epochs: BTreeMap<(Service, u8), (u64, u64)>,
    commands: BTreeMap<Uuid, u64>,
    answered: BTreeSet<Uuid>,
    /// What was found.
    pub violations: Vec<Violation>,
    /// Valid ends so far.
    pub ended: u64,
}

impl Checker {
    /// Tasks that exist.
    pub fn accepted(&self) -> usize {
        self.tasks.len()
    }

    /// Meets the next message.
    pub fn meet(&mut self, input: &Input) {
        let Input::Event(recorded) = input else {
            return;
        };
        if let Body::Claimed(_) = recorded.event.body
            && let Subject::Control(service, partition, _) = recorded.subject
        {
            let last = self
                .epochs
                .entry((service, partition.number()))
                .or_default();
            *last = (recorded.sequence, 0);
            return;
        }
        if let Some(decided) = recorded.event.decided {
            // Every write of a decision is fenced: one of an older epoch in the log is a broken fence.
            let service = match &recorded.event.source {
                swarm_events::envelope::Source::Service(service, _) => *service,
                _ => return,
            };
            let partition = recorded.subject.partition().number();
            let last = self.epochs.entry((service, partition)).or_default();
            if decided.epoch != last.0 {
                let epoch = last.0;
                self.broken(
                    Invariant::EpochsRise,
                    recorded,
                    format!("{decided:?} after a claim at {epoch}"),
                );
                return;
            }
            if decided.ordinal <= last.1 {
                // A late copy that arrived before the next claim: void, and decided anew.
                return;
            }
            last.1 = decided.ordinal;
            if let Some(cause) = recorded.event.causation {
                self.answered.insert(cause);
            }
        }
        self.event(recorded);
    }

    fn broken(&mut self, invariant: Invariant, recorded: &Recorded, detail: String) {
        self.violations.push(Violation {
            invariant,
            sequence: recorded.sequence,
            detail,
        });
    }

    fn event(&mut self, recorded: &Recorded) {
        let id = TaskId(recorded.event.about);
        match (&recorded.subject, &recorded.event.body) {
            (Subject::Command(..) | Subject::OrgCommand(..), _) => {
                self.commands
                    .entry(recorded.event.id.0)
                    .or_insert(recorded.sequence);
            }
            (_, Body::AgentJoined(joined)) => {
                let agent = self
                    .agents
                    .entry(AgentId(recorded.event.about))
                    .or_default();
                agent.incarnation = joined.incarnation;
                agent.places = (joined.profile.slots + joined.profile.waiting) as usize;
                agent.member = true;
                agent.healthy = true;
            }
            (_, Body::AgentLeft(swarm_events::agent::Left { incarnation, .. }))
            | (_, Body::AgentRemoved(swarm_events::agent::Removed { incarnation, .. })) => {
                if let Some(agent) = self.agents.get_mut(&AgentId(recorded.event.about))
                    && agent.incarnation == *incarnation
                {
                    agent.member = false;
                }
            }
            (_, Body::AgentSuspected(swarm_events::agent::Suspected { incarnation, .. }))
            | (_, Body::AgentFailed(swarm_events::agent::Failed { incarnation, .. })) => {
                self.health(AgentId(recorded.event.about), *incarnation, false);
            }
            (_, Body::AgentRecovered(recovered)) => {
                self.health(AgentId(recorded.event.about), recovered.incarnation, true);
            }
            (_, Body::TaskSubmitted(submitted)) => {
                if self.tasks.get(&id).is_some_and(|task| !task.loose) {
                    return;
                }
                let dependencies = submitted
                    .depends_on
                    .iter()
                    .map(|d| (d.task_id, d.dependency_type))
                    .collect();
                let task = Task {
                    state: State::Waiting,
                    dependencies,
                    ended_once: false,
                    submitted: recorded.sequence,
                    loose: false,
                    was_loose: self.tasks.contains_key(&id),
                };
                match submitted.graph {
                    None => {
                        self.tasks.insert(id, task);
                    }
                    Some(part) => self.staged.entry(part.id.0).or_default().push((id, task)),
                }
            }
            (_, Body::TaskGraphAccepted(_)) => {
                for (id, task) in self
                    .staged
                    .remove(&recorded.event.about)
                    .unwrap_or_default()
                {
                    // A later one under the same id is refused.
                    if self
                        .tasks
                        .get(&id)
                        .is_none_or(|other| other.submitted > task.submitted)
                    {
                        self.tasks.insert(id, task);
                    }
                }
            }
            // Its tasks have ended, for this is how they are shown; none of them ever waited.
            (_, Body::TaskGraphRejected(_)) => {
                for (id, mut task) in self
                    .staged
                    .remove(&recorded.event.about)
                    .unwrap_or_default()
                {
                    task.state = State::Ended(Terminal::Other);
                    task.ended_once = true;
                    task.loose = true;
                    self.tasks.entry(id).or_insert(task);
                }
            }
            // A submission under an id that was taken is no task.
            (_, Body::TaskRefused(refused)) => {
                let refused = |task: &mut Task| task.submitted == refused.refused_seq;
                for task in self.tasks.values_mut().filter(|task| task.was_loose) {
                    if refused(task) {
                        (task.state, task.ended_once) = (State::Ended(Terminal::Other), true);
                        task.loose = true;
                    }
                }
                self.tasks.retain(|_, task| task.loose || !refused(task));
            }
            (Subject::Task(_, verb, agent), _) => self.task(recorded, *verb, id, *agent),
            _ => {}
        }
    }

    fn health(&mut self, id: AgentId, incarnation: u64, healthy: bool) {
        if let Some(agent) = self.agents.get_mut(&id)
            && agent.incarnation == incarnation
        {
            agent.healthy = healthy;
        }
    }

    fn unmet(&self, id: TaskId) -> Option<String> {
        for (other, kind) in &self.tasks.get(&id)?.dependencies {
            let met = match self.tasks.get(other) {
                Some(Task {
                    state: State::Ended(Terminal::Completed),
                    ..
                }) => true,
                Some(Task {
                    ended_once: true, ..
                }) => *kind == DependencyType::Completion,
                _ => false,
            };
            if !met {
                return Some(format!("{other} is not {kind:?}"));
            }
        }
        None
    }

    fn task(&mut self, recorded: &Recorded, verb: TaskVerb, id: TaskId, agent: Option<AgentId>) {
        let Some(state) = self.tasks.get(&id).map(|task| task.state.clone()) else {
            return;
        };
        let next = match (&recorded.event.body, &state) {
            (Body::TaskAssigned(assigned), State::Waiting) => {
                let Some(agent) = agent else { return };
                if let Some(why) = self.unmet(id) {
                    self.broken(Invariant::DependenciesRespected, recorded, why);
                }
                let standing = self.agents.entry(agent).or_default();
                if standing.incarnation != assigned.incarnation
                    || !standing.member
                    || !standing.healthy
                {
                    // Decided before its owner met the verdict: repaired, not forbidden, unless the cause shows it knew.
                    standing.holds.insert(recorded.sequence);
                } else {
                    standing.holds.insert(recorded.sequence);
                    if standing.holds.len() > standing.places {
                        let detail = format!("{} of {}", standing.holds.len(), standing.places);
                        self.broken(Invariant::SlotsKept, recorded, detail);
                    }
                }
                State::Assigned {
                    assignment: recorded.sequence,
                    agent,
                    incarnation: assigned.incarnation,
                    started: false,
                }
            }
            (Body::TaskAssigned(_), State::Assigned { assignment, .. }) => {
                let detail = format!("{id} is assigned by {assignment}");
                self.broken(Invariant::OneStandingAssignment, recorded, detail);
                return;
            }
            (Body::TaskAssigned(_), State::Ended(_)) => {
                self.broken(
                    Invariant::OneTerminal,
                    recorded,
                    format!("{id} is assigned after its end"),
                );
                return;
            }
            (
                Body::TaskStarted(started),
                State::Assigned {
                    assignment,
                    agent,
                    incarnation,
                    started: false,
                },
            ) if started.assignment == *assignment && started.incarnation == *incarnation => {
                State::Assigned {
                    assignment: *assignment,
                    agent: *agent,
                    incarnation: *incarnation,
                    started: true,
                }
            }
            (
                Body::TaskCompleted(c),
                State::Assigned {
                    assignment,
                    agent,
                    started: true,
                    ..
                },
            ) if c.assignment == *assignment => {
                self.release(*agent, *assignment);
                State::Ended(Terminal::Completed)
            }
            (
                Body::TaskAttemptFailed(f),
                State::Assigned {
                    assignment,
                    agent,
                    started: true,
                    ..
                },
            ) if f.assignment == *assignment => {
                self.release(*agent, *assignment);
                State::Between
            }
            (
                Body::TaskWithdrawn(w),
                State::Assigned {
                    assignment,
                    agent,
                    started,
                    ..
                },
            ) if w.assignment == *assignment && (w.force || !started) => {
                self.release(*agent, *assignment);
                match w.then {
                    Then::Queue | Then::RetryAfterMs(_) => State::Waiting,
                    Then::End => State::Between,
                }
            }
            (Body::TaskRetried(_), State::Between | State::Ended(Terminal::Other)) => {
                State::Waiting
            }
            (
                Body::TaskRejected(_) | Body::TaskFailed(_) | Body::TaskCancelled(_),
                State::Waiting | State::Between,
            ) => State::Ended(Terminal::Other),
            (
                Body::TaskRejected(_) | Body::TaskFailed(_) | Body::TaskCancelled(_),
                State::Ended(_),
            ) => {
                self.broken(
                    Invariant::OneTerminal,
                    recorded,
                    format!("{id}: a second end, {verb}"),
                );
                return;
            }
            // Late or void: changes nothing.
            _ => return,
        };
        if matches!(next, State::Ended(_)) {
            self.ended += 1;
        }
        if let Some(task) = self.tasks.get_mut(&id) {
            task.ended_once |= matches!(next, State::Ended(_));
            task.state = next;
        }
    }

    fn release(&mut self, agent: AgentId, assignment: u64) {
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.holds.remove(&assignment);
        }
    }

    /// What must hold once everything is quiet.
    pub fn finish(&mut self, last: u64) {
        let open: Vec<String> = self
            .tasks
            .iter()
            .filter(|(_, task)| !matches!(task.state, State::Ended(_)))
            .map(|(id, task)| format!("{id} {:?}", task.state))
            .collect();
        if !open.is_empty() {
            let detail = format!(
                "{} open, {}",
                open.len(),
                open.iter().take(5).cloned().collect::<Vec<_>>().join("; ")
            );
            self.violations.push(Violation {
                invariant: Invariant::EveryTaskEnds,
                sequence: last,
                detail,
            });
        }
        for (command, sequence) in &self.commands {
            if !self.answered.contains(command) {
                let detail = format!("command {command}");
                let violation = Violation {
                    invariant: Invariant::CommandsAnswered,
                    sequence: *sequence,
                    detail,
                };
                self.violations.push(violation);
            }
        }
    }

    /// Whether every accepted task has ended.
    pub fn quiet(&self) -> bool {
        self.tasks
            .values()
            .all(|task| matches!(task.state, State::Ended(_)))
            && self
                .commands
                .keys()
                .all(|command| self.answered.contains(command))
    }
}
