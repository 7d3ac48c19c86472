//! Assignments of tasks: what events say of each, and its row in `task_attempts`.

use swarm_events::{
    AgentId, Place, TaskId, Timestamp,
    configuration::Algorithm,
    task::{AffinityOutcome, Assigned, Step, WithdrawReason},
};

use crate::{
    batch::{Batch, int4, int8, time},
    columns::uuid_array,
    jsonb::text,
};

/// What the messages of a batch changed of an assignment.
pub(crate) struct AttemptChange {
    /// Its stream sequence.
    pub(crate) assignment: u64,
    /// Set if it is new.
    pub(crate) assigned: Option<Assignment>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) end: Option<End>,
}

/// What stands in its `assigned`.
pub(crate) struct Assignment {
    agent: AgentId,
    incarnation: u64,
    generation: u32,
    attempt: u32,
    algorithm: Algorithm,
    affinity: Option<AffinityOutcome>,
    stolen_from: Option<AgentId>,
    at: Timestamp,
    step: Step,
    path: Vec<AgentId>,
    turn: Option<u64>,
}

/// How it ended.
pub(crate) struct End {
    pub(crate) at: Timestamp,
    pub(crate) outcome: &'static str,
    /// In words; counts only for what has started or was declined.
    pub(crate) error: Option<String>,
    /// Of a failed one.
    pub(crate) retryable: Option<bool>,
}

impl AttemptChange {
    /// A change of an assignment that is there.
    pub(crate) const fn of(assignment: u64) -> Self {
        Self {
            assignment,
            assigned: None,
            started_at: None,
            end: None,
        }
    }

    /// A new assignment.
    pub(crate) fn new(assignment: u64, agent: AgentId, assigned: &Assigned, at: Timestamp) -> Self {
        let new = Assignment {
            agent,
            incarnation: assigned.incarnation,
            generation: assigned.generation,
            attempt: assigned.attempt,
            algorithm: assigned.algorithm,
            affinity: assigned.affinity,
            stolen_from: assigned.stolen_from,
            at,
            step: assigned.step,
            path: assigned.path.clone(),
            turn: assigned.turn,
        };
        Self {
            assigned: Some(new),
            ..Self::of(assignment)
        }
    }
}

impl Batch {
    /// Adds the rows of a task's assignments.
    pub(crate) fn attempts(&mut self, place: Place, task: TaskId, changes: Vec<AttemptChange>) {
        for change in changes {
            let (ended_at, outcome, error, retryable) = match change.end {
                None => (None, None, None, None),
                Some(end) => (
                    Some(time(end.at)),
                    Some(end.outcome),
                    end.error.map(|error| text(&error).into_owned()),
                    end.retryable,
                ),
            };
            let started_at = change.started_at.map(time);
            macro_rules! both {
                ($rows:ident, $error:expr) => {
                    $rows.organization_id.push(place.org.0);
                    $rows.swarm_id.push(place.swarm.0);
                    $rows.task_id.push(task.0);
                    $rows.assignment.push(int8(change.assignment));
                    $rows.started_at.push(started_at);
                    $rows.ended_at.push(ended_at);
                    $rows.outcome.push(outcome);
                    $rows.error.push($error);
                    $rows.retryable.push(retryable);
                };
            }
            let Some(new) = change.assigned else {
                let rows = &mut self.attempt_changes;
                both!(rows, error);
                continue;
            };
            let rows = &mut self.new_attempts;
            let own = started_at.is_some() || outcome == Some(DECLINED);
            both!(rows, error.filter(|_| own));
            rows.generation.push(int4(new.generation));
            rows.attempt.push(int4(new.attempt));
            rows.agent_id.push(new.agent.0);
            rows.incarnation.push(int8(new.incarnation));
            rows.algorithm.push(algorithm(new.algorithm));
            rows.affinity.push(new.affinity.map(affinity));
            rows.stolen_from.push(new.stolen_from.map(|agent| agent.0));
            rows.assigned_at.push(time(new.at));
            rows.step.push(step(new.step));
            rows.path
                .push(uuid_array(new.path.iter().map(|agent| agent.0)));
            rows.turn.push(new.turn.map(int8));
        }
    }
}

const fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RoundRobin => "round_robin",
        Algorithm::CapabilityMatch => "capability_match",
        Algorithm::LeastLoaded => "least_loaded",
        Algorithm::Affinity => "affinity",
        Algorithm::PriorityQueue => "priority_queue",
    }
}

const fn step(step: Step) -> &'static str {
    match step {
        Step::Work => "work",
        Step::Reduce => "reduce",
    }
}

const fn affinity(outcome: AffinityOutcome) -> &'static str {
    match outcome {
        AffinityOutcome::Hit => "hit",
        AffinityOutcome::Miss => "miss",
        AffinityOutcome::New => "new",
    }
}

/// Its agent gave it back: it is no attempt, started or not.
pub(crate) const DECLINED: &str = "declined";

/// Its agent handed the task on in parts.
pub(crate) const SPLIT: &str = "split";

/// `withdrawn:<reason>`
pub(crate) const fn withdrawn(reason: WithdrawReason) -> &'static str {
    match reason {
        WithdrawReason::AgentFailed => "withdrawn:agent_failed",
        WithdrawReason::AgentLeft => "withdrawn:agent_left",
        WithdrawReason::AgentRemoved => "withdrawn:agent_removed",
        WithdrawReason::AgentRestarted => "withdrawn:agent_restarted",
        WithdrawReason::Timeout => "withdrawn:timeout",
        WithdrawReason::StartLimit => "withdrawn:start_limit",
        WithdrawReason::Cancelled => "withdrawn:cancelled",
        WithdrawReason::Steal => "withdrawn:steal",
        WithdrawReason::Drain => "withdrawn:drain",
        WithdrawReason::Topology => "withdrawn:topology",
        WithdrawReason::BadResult => "withdrawn:bad_result",
        WithdrawReason::QueueTimeout => "withdrawn:queue_timeout",
        WithdrawReason::NoProgress => "withdrawn:no_progress",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word<T: serde::Serialize>(value: T) -> String {
        let value = serde_json::to_value(value).expect("JSON");
        value.as_str().expect("a word").to_owned()
    }

    #[test]
    fn words_are_those_of_the_events() {
        for each in Algorithm::ALL {
            assert_eq!(algorithm(each), word(each));
        }
        use AffinityOutcome as A;
        for each in [A::Hit, A::Miss, A::New] {
            assert_eq!(affinity(each), word(each));
        }
        for each in [Step::Work, Step::Reduce] {
            assert_eq!(step(each), word(each));
            assert!(step(each).len() <= 10, "the column's width");
        }
        use WithdrawReason as W;
        for each in [
            W::AgentFailed,
            W::AgentLeft,
            W::AgentRemoved,
            W::AgentRestarted,
            W::Timeout,
            W::StartLimit,
            W::Cancelled,
            W::Steal,
            W::Drain,
            W::Topology,
            W::BadResult,
            W::QueueTimeout,
            W::NoProgress,
        ] {
            assert_eq!(withdrawn(each), format!("withdrawn:{}", word(each)));
            assert!(withdrawn(each).len() <= 30, "the column's width");
        }
    }
}
