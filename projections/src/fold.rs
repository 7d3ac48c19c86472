//! The projector's fold: the same cores as the services', over all partitions, and what a message changed.

use swarm_coordinator_core::Coordinator;
use swarm_distributor_core::Distributor;
use swarm_events::{
    AgentId, Body, Input, OrgId, Partition, Place, SwarmId, TaskId, Timestamp,
    decider::{Decider, Head, Verdict},
    read,
    subject::{Service, Subject},
    swarm::AgentSample,
    task::part_id,
};
use swarm_health_core::Health;
use swarm_log::StoredMessage;
use uuid::Uuid;

use crate::{
    changes::Changes,
    questions::Question,
    route::{Route, judge},
};

/// The state of everything at a sequence.
pub(crate) struct Fold {
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) distributors: Vec<Distributor>,
    pub(crate) healths: Vec<Health>,
    touched: Touched,
    /// Last sequence met.
    pub(crate) sequence: u64,
}

/// What the last message touched; kept to be used again.
#[derive(Default)]
struct Touched {
    coordinator: swarm_coordinator_core::Touched,
    distributor: swarm_distributor_core::Touched,
}

/// A message that only a newer program can read: nothing behind it can be projected by this one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{subject} at sequence {sequence} was written by a newer service ({detail}); start a projector of its version"
)]
pub struct Newer {
    /// Where it was published.
    pub subject: String,
    /// Its sequence.
    pub sequence: u64,
    /// What is not known here.
    pub detail: String,
}

impl Fold {
    pub(crate) fn new() -> Self {
        Self {
            coordinators: Partition::all().map(Coordinator::new).collect(),
            distributors: Partition::all().map(Distributor::new).collect(),
            healths: Partition::all().map(Health::new).collect(),
            touched: Touched::default(),
            sequence: 0,
        }
    }

    pub(crate) fn coordinator(&self, partition: Partition) -> &Coordinator {
        &self.coordinators[usize::from(partition.number())]
    }
    pub(crate) fn distributor(&self, partition: Partition) -> &Distributor {
        &self.distributors[usize::from(partition.number())]
    }

    /// Whether a message is of any concern: a core that has gone on from a snapshot has met what is before it. Told from the
    /// subject alone, so that what is passed over is not parsed.
    fn concerns(&self, subject: &str, sequence: u64) -> bool {
        let route = Route::of(subject);
        let Some(home) = route.partition else {
            return false;
        };
        let at = usize::from(home.number());
        let behind = |met: &Head| met.sequence < sequence;
        // What is said of organizations concerns the coordinators of all partitions.
        let of_all = route.coordinator && !route.distributor;
        route.coordinator && behind(self.coordinators[at].head())
            || route.distributor && behind(self.distributors[at].head())
            || route.health && behind(self.healths[at].head())
            || of_all && self.coordinators.iter().any(|core| behind(core.head()))
    }

    /// Applies a message; `changes` takes note of what it changed, if anything is to be written.
    pub(crate) fn meet(
        &mut self,
        message: &StoredMessage,
        changes: Option<&mut Changes>,
    ) -> Result<(), Newer> {
        if changes.is_none() && !self.concerns(&message.subject, message.sequence) {
            self.sequence = message.sequence;
            return Ok(());
        }
        let time = Timestamp::from_micros(message.time_micros);
        let input = read(message.sequence, time, &message.subject, &message.payload);
        if let Input::Unreadable(unreadable) = &input
            && unreadable.newer
        {
            return Err(Newer {
                subject: unreadable.subject_text.clone(),
                sequence: unreadable.sequence,
                detail: unreadable.problem.to_string(),
            });
        }
        self.sequence = message.sequence;
        let verdict = self.evolve(&message.subject, &input);
        let Some(changes) = changes else {
            self.touched.clear();
            return Ok(());
        };
        let void = match verdict {
            Verdict::Void(why) => Some(why),
            _ => None,
        };
        changes.message(message, &input, void);
        let new = self.is_new_task(&input);
        let discarded = matches!(&input, Input::Event(recorded)
            if void.is_none() && matches!(recorded.event.body, Body::TaskDiscarded(_)));
        changes.touched(
            message.sequence,
            &self.touched.coordinator,
            &mut self.touched.distributor,
            discarded,
        );
        if let (Input::Event(recorded), None) = (&input, void)
            && let Some(place) = recorded.subject.place()
        {
            let distributor = self.distributor(place.partition);
            let now = distributor.head().now;
            changes.event(place, recorded, now);
            match &recorded.event.body {
                Body::TaskWithdrawn(_) | Body::TaskAttemptFailed(_) => {
                    let view = distributor.task(place, TaskId(recorded.event.about));
                    changes.gave_up(place, recorded, now, view.and_then(|view| view.error));
                }
                Body::TaskSplit(split) => {
                    let id = TaskId(recorded.event.about);
                    // Its parts exist, all of them or none: what was submitted here are they.
                    let first = part_id(id, split.assignment, 0);
                    let is_done = self.is_submitted_at(place, first, recorded.sequence);
                    let error = self
                        .distributor(place.partition)
                        .task(place, id)
                        .and_then(|view| view.error);
                    changes.split(place, recorded, now, (split, is_done, error));
                }
                Body::AgentAsked(asked) => {
                    let agent = AgentId(recorded.event.about);
                    let due = self
                        .swarm(place.org, place.swarm)
                        .and_then(|swarm| swarm.question(asked.question_id))
                        .map_or(recorded.time, |question| question.due);
                    let task = asked
                        .assignment
                        .and_then(|assignment| self.task_of(place, agent, assignment));
                    let times = (recorded.time, due);
                    let question = Question::new(agent, asked, task, times, recorded.sequence);
                    changes.asked(place, asked.question_id, question, recorded.sequence);
                }
                Body::TaskSubmitted(submitted) if new => {
                    changes.submitted(place, TaskId(recorded.event.about), submitted);
                }
                Body::SwarmSampled(sampled) => {
                    for (agent, sample) in &sampled.agents {
                        if self.is_current(place, *agent, sample) {
                            changes.sampled(place, *agent, sample, message.sequence);
                        }
                    }
                }
                _ => {}
            }
        }
        self.touched.clear();
        Ok(())
    }

    /// Whether the input is the submission of a task that the core has taken up now: a repeat of an earlier one is not.
    fn is_new_task(&self, input: &Input) -> bool {
        let Input::Event(recorded) = input else {
            return false;
        };
        let (Body::TaskSubmitted(_), Some(place)) =
            (&recorded.event.body, recorded.subject.place())
        else {
            return false;
        };
        let key = (place, TaskId(recorded.event.about));
        let tasks = &self.touched.distributor;
        if !tasks.tasks.contains(&key) {
            return false;
        }
        match tasks.ended.get(&key) {
            Some(view) => view.submitted == recorded.sequence,
            None => self.is_submitted_at(key.0, key.1, recorded.sequence),
        }
    }

    fn is_submitted_at(&self, place: Place, task: TaskId, sequence: u64) -> bool {
        let view = self.distributor(place.partition).task(place, task);
        view.is_some_and(|view| view.submitted == sequence)
    }

    /// The task that an agent holds under an assignment.
    fn task_of(&self, place: Place, agent: AgentId, assignment: u64) -> Option<Uuid> {
        let distributor = self.distributor(place.partition);
        let holds = distributor.agent(place, agent)?;
        let mut tasks = holds.running.iter().chain(&holds.waiting);
        let stands = |id: &&TaskId| {
            let view = distributor.task(place, **id);
            view.is_some_and(|view| view.assignment == Some(assignment))
        };
        tasks.find(stands).map(|id| id.0)
    }

    /// Judged here and now, not when the batch is written: rows must not depend on where a batch ends.
    fn is_current(&self, place: Place, agent: AgentId, sample: &AgentSample) -> bool {
        let swarm = self
            .coordinator(place.partition)
            .swarm(place.org, place.swarm);
        swarm
            .and_then(|swarm| swarm.agents.get(&agent))
            .is_some_and(|found| found.instance == sample.instance)
    }

    /// The verdict of the core whose event it is.
    fn evolve(&mut self, subject: &str, input: &Input) -> Verdict {
        let of_org = match input {
            Input::Event(recorded) => matches!(recorded.subject, Subject::Org(..)),
            Input::Unreadable(_) => false,
        };
        let judge = match input {
            Input::Event(recorded) => judge(&recorded.subject),
            Input::Unreadable(_) => Service::Coordinator,
        };
        let route = Route::of(subject);
        let Some(home) = route.partition else {
            return Verdict::Ignored;
        };
        let at = usize::from(home.number());
        let Touched {
            coordinator,
            distributor,
        } = &mut self.touched;
        let sequence = input.sequence();
        let mut verdict = Verdict::Ignored;
        let mut judged = |service, found| {
            if service == judge {
                verdict = found;
            }
        };
        if of_org {
            // Organizations concern every partition; the verdict is that of their own.
            let mut elsewhere = swarm_coordinator_core::Touched::default();
            for (number, core) in self.coordinators.iter_mut().enumerate() {
                if core.head().sequence >= sequence {
                    continue;
                }
                if number == at {
                    judged(Service::Coordinator, core.evolve_traced(input, coordinator));
                } else {
                    core.evolve_traced(input, &mut elsewhere);
                }
            }
        } else if route.coordinator && self.coordinators[at].head().sequence < sequence {
            judged(
                Service::Coordinator,
                self.coordinators[at].evolve_traced(input, coordinator),
            );
        }
        if route.distributor && self.distributors[at].head().sequence < sequence {
            judged(
                Service::Distributor,
                self.distributors[at].evolve_traced(input, distributor),
            );
        }
        if route.health && self.healths[at].head().sequence < sequence {
            judged(Service::Health, self.healths[at].evolve(input, None));
        }
        verdict
    }

    pub(crate) fn swarm(
        &self,
        org: OrgId,
        swarm: SwarmId,
    ) -> Option<&swarm_coordinator_core::Swarm> {
        self.coordinator(Partition::of(swarm.0)).swarm(org, swarm)
    }
    pub(crate) fn organization(&self, org: OrgId) -> Option<&swarm_coordinator_core::Organization> {
        self.coordinator(Partition::of(org.0)).organization(org)
    }
}

impl Touched {
    fn clear(&mut self) {
        self.coordinator.clear();
        self.distributor.clear();
    }
}
