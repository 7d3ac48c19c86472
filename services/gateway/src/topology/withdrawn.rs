//! What a change of a topology took back, counted in the log behind it.
//!
//! The gateway folds no tasks, but of a few moments of one swarm it can tell: a withdrawal of what has not started counts
//! unless `started` or `declined` of the same assignment stands before it, and the first `measured` that the distributor
//! decided with the change before its eyes comes after all withdrawals to which the change led.

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt;
use swarm_events::{
    Body, Input, Place, Subject,
    read::Recorded,
    subject::{SwarmVerb, TaskVerb},
    task::WithdrawReason,
};
use swarm_log::Tailed;
use tokio::time::timeout;

use crate::{port::Port, tail};

/// How long the distributor is waited for: its standby takes over within two seconds, and a change that holds is no failure
/// because nobody can say yet what it led to.
pub const WITHDRAWN_WAIT: Duration = Duration::from_secs(3);

/// Task events that tell it.
const VERBS: [TaskVerb; 4] = [
    TaskVerb::Assigned,
    TaskVerb::Started,
    TaskVerb::Declined,
    TaskVerb::Withdrawn,
];

fn filters(place: Place) -> Vec<String> {
    let verbs = VERBS.iter();
    let mut filters: Vec<String> = verbs
        .map(|verb| format!("swarm.evt.{place}.task.{verb}.>"))
        .collect();
    filters.push(Subject::Swarm(place, SwarmVerb::Measured).to_string());
    filters
}

/// How many tasks went back into the queue because of the change that holds from the sequence `changed` on. `None`: it could
/// not be told within [`WITHDRAWN_WAIT`].
pub(super) async fn count(log: &Port, place: Place, changed: u64) -> Option<u64> {
    let mut tail = log.tail(filters(place), changed + 1);
    let told = async {
        let mut count = Count::since(changed);
        loop {
            let message = match tail.next().await? {
                Ok(Tailed::Message(message)) => message,
                Ok(_) => continue,
                Err(problem) => {
                    tracing::warn!(%problem, "what a change took back cannot be counted");
                    return None;
                }
            };
            if let Input::Event(recorded) = tail::input(&message)
                && count.meet(&recorded)
            {
                return Some(count.withdrawn());
            }
        }
    };
    timeout(WITHDRAWN_WAIT, told).await.ok().flatten()
}

/// What the log has said so far.
#[derive(Debug)]
struct Count {
    changed: u64,
    /// What is decided with this met has everything before its eyes.
    until: u64,
    /// Assignments that cannot be taken back any more.
    begun: BTreeSet<u64>,
    withdrawn: BTreeSet<u64>,
}

impl Count {
    const fn since(changed: u64) -> Self {
        Self {
            changed,
            until: changed,
            begun: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
        }
    }

    fn withdrawn(&self) -> u64 {
        self.withdrawn.len() as u64
    }

    /// Meets the next event of the swarm; true: that is all of it.
    fn meet(&mut self, recorded: &Recorded) -> bool {
        let decided = recorded.event.decided;
        let met = decided.map_or(0, |decided| decided.cause_sequence);
        match &recorded.event.body {
            // It was on the way when the change came, and may be taken back itself.
            Body::TaskAssigned(_) if met < self.changed => self.until = recorded.sequence,
            Body::TaskStarted(started) => {
                self.begun.insert(started.assignment);
            }
            Body::TaskDeclined(declined) => {
                self.begun.insert(declined.assignment);
            }
            Body::TaskWithdrawn(withdrawn)
                if withdrawn.reason == WithdrawReason::Topology
                    && !self.begun.contains(&withdrawn.assignment) =>
            {
                self.withdrawn.insert(withdrawn.assignment);
            }
            Body::SwarmMeasured(_) => return met >= self.until,
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use swarm_events::{
        AgentId, Event, EventId, InstanceId, Json, OrgId, Service, SwarmId, Timestamp,
        configuration::Algorithm,
        envelope::{Decided, Source},
        swarm::Measured,
        task::{Assigned, Carried, Started, Step, Then, Withdrawn},
    };
    use uuid::Uuid;

    use super::*;

    /// The change.
    const CHANGED: u64 = 100;
    const ASSIGNED: u64 = 90;

    fn recorded(
        sequence: u64,
        met: u64,
        verb: Option<TaskVerb>,
        body: impl Into<Body>,
    ) -> Recorded {
        let id = Uuid::from_u128(7);
        let place = Place::new(OrgId(id), SwarmId(id));
        let subject = match verb {
            Some(verb) => Subject::Task(place, verb, Some(AgentId(id))),
            None => Subject::Swarm(place, SwarmVerb::Measured),
        };
        let source = Source::Service(Service::Distributor, InstanceId(id));
        let now = Timestamp::from_micros(1);
        let mut event = Event::new(EventId(id), source, now, &subject, id, body);
        event.decided = Some(Decided {
            cause_sequence: met,
            epoch: 1,
            ordinal: sequence,
            decider_version: 1,
        });
        Recorded {
            sequence,
            time: now,
            subject,
            content: 0,
            event,
        }
    }
    fn started(sequence: u64, assignment: u64) -> Recorded {
        let body = Started {
            assignment,
            incarnation: 1,
        };
        recorded(sequence, 0, Some(TaskVerb::Started), body)
    }
    fn withdrawn(sequence: u64, assignment: u64, reason: WithdrawReason) -> Recorded {
        let body = Withdrawn {
            assignment,
            incarnation: 1,
            reason,
            force: false,
            then: Then::Queue,
            thief: None,
        };
        recorded(sequence, CHANGED, Some(TaskVerb::Withdrawn), body)
    }
    fn measured(sequence: u64, met: u64) -> Recorded {
        recorded(sequence, met, None, Measured::default())
    }

    /// What is counted when the figures come that end it, which must be the last of these.
    fn counted(events: &[Recorded]) -> Option<u64> {
        let mut count = Count::since(CHANGED);
        let end = events.iter().position(|recorded| count.meet(recorded))?;
        assert_eq!(end + 1, events.len(), "the others say nothing more");
        Some(count.withdrawn())
    }

    #[test]
    fn what_is_taken_back_because_of_the_topology_counts_once() {
        let topology = WithdrawReason::Topology;
        assert_eq!(counted(&[measured(101, CHANGED)]), Some(0));
        let some = [
            withdrawn(101, ASSIGNED, topology),
            withdrawn(102, ASSIGNED + 1, topology),
            // Stored twice.
            withdrawn(103, ASSIGNED + 1, topology),
            withdrawn(104, ASSIGNED + 2, WithdrawReason::Drain),
            measured(105, CHANGED),
        ];
        assert_eq!(counted(&some), Some(2));
    }

    #[test]
    fn given_that_a_task_started_before_it_was_taken_back_then_it_does_not_count() {
        let topology = WithdrawReason::Topology;
        let race = [
            started(101, ASSIGNED),
            withdrawn(102, ASSIGNED, topology),
            withdrawn(103, ASSIGNED + 1, topology),
            // An agent that had not heard of it: void.
            started(104, ASSIGNED + 1),
            measured(105, CHANGED),
        ];
        assert_eq!(counted(&race), Some(1));
    }

    #[test]
    fn figures_that_were_decided_before_the_change_was_met_end_nothing() {
        let topology = WithdrawReason::Topology;
        assert_eq!(counted(&[measured(101, CHANGED - 1)]), None);
        let late = [
            measured(101, CHANGED - 1),
            withdrawn(102, ASSIGNED, topology),
            measured(103, CHANGED),
        ];
        assert_eq!(counted(&late), Some(1));
    }

    #[test]
    fn given_an_assignment_on_the_way_then_what_becomes_of_it_is_waited_for() {
        let topology = WithdrawReason::Topology;
        let on_the_way = |met| {
            let body = Assigned {
                task_type: "t".to_owned(),
                payload: Carried::Inline(Json::object()),
                inputs: None,
                attempt: 1,
                generation: 1,
                incarnation: 1,
                priority: 5,
                timeout_ms: 1,
                algorithm: Algorithm::default(),
                candidates: Vec::new(),
                passed_over: BTreeMap::new(),
                affinity: None,
                stolen_from: None,
                queued_at: None,
                step: Step::default(),
                path: Vec::new(),
                turn: None,
            };
            recorded(101, met, Some(TaskVerb::Assigned), body)
        };
        let waited = [
            on_the_way(CHANGED - 1),
            measured(102, CHANGED),
            withdrawn(103, 101, topology),
            measured(104, 102),
        ];
        assert_eq!(counted(&waited), Some(1));
        // One that was decided with the change met is right where it is.
        assert_eq!(
            counted(&[on_the_way(CHANGED), measured(102, CHANGED)]),
            Some(0)
        );
    }
}
