//! What the messages of a batch changed: which rows are to be written, and what of them stands in the events alone.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate};
use swarm_coordinator_core::Touched as Members;
use swarm_distributor_core::{TaskView, Touched as Tasks};
use swarm_events::{
    AgentId, Body, Input, Json, KeyId, OrgId, Place, Recorded, SwarmId, TaskId, Timestamp, UserId,
    ids::CommandId,
    swarm::{AgentSample, Measured, Outcomes},
    task::{Carried, Origin, Part, Split, Submitted, part_id},
    topology::Role,
};
use swarm_log::StoredMessage;

use crate::{
    attempts::{AttemptChange, DECLINED, End, SPLIT, withdrawn},
    event_row::Events,
    jsonb::text,
    questions::{Question, QuestionChange, QuestionEnd},
};

/// A batch under collection.
#[derive(Default)]
pub(crate) struct Changes {
    /// Number of messages.
    pub(crate) messages: usize,
    /// Store time of the last one.
    pub(crate) time_micros: i64,
    /// Rows of `swarm_events`.
    pub(crate) events: Events,
    /// About how many bytes these are.
    pub(crate) bytes: usize,
    /// Days (UTC) on which they were stored.
    pub(crate) days: BTreeSet<NaiveDate>,
    pub(crate) tasks: BTreeMap<(Place, TaskId), TaskChange>,
    pub(crate) agents: BTreeMap<(OrgId, SwarmId, AgentId), AgentChange>,
    pub(crate) swarms: BTreeMap<(OrgId, SwarmId), u64>,
    pub(crate) figures: BTreeMap<(OrgId, SwarmId), FiguresChange>,
    pub(crate) outcomes: BTreeMap<OutcomeKey, OutcomeChange>,
    pub(crate) orgs: BTreeMap<OrgId, u64>,
    pub(crate) users: BTreeMap<(OrgId, UserId), u64>,
    pub(crate) keys: BTreeMap<(OrgId, KeyId), u64>,
    pub(crate) templates: BTreeMap<(OrgId, String), u64>,
    pub(crate) questions: BTreeMap<(OrgId, SwarmId, CommandId), QuestionChange>,
}

/// A row of `swarm_tasks` to be written.
#[derive(Default)]
pub(crate) struct TaskChange {
    /// Sequence of the last event that touched it.
    pub(crate) sequence: u64,
    /// Set if the row is new: what it was submitted with.
    pub(crate) submitted: Option<Box<Static>>,
    /// Its last view if it has ended: the fold keeps less of an ended task.
    pub(crate) ended: Option<TaskView>,
    /// What it ended with.
    pub(crate) result: Option<Carried>,
    /// The running attempt's progress, if that changed.
    pub(crate) progress: Option<Progress>,
    /// Its assignments that changed.
    pub(crate) attempts: Vec<AttemptChange>,
    /// It was a dead letter and is put away.
    pub(crate) discarded: bool,
    /// A person has retried it: what its row holds of the generation before goes.
    pub(crate) afresh: bool,
    /// Into how many parts it was split.
    pub(crate) parts: Option<usize>,
    /// Its id in the swarm to which it was handed, and when.
    pub(crate) handed: Option<(TaskId, Timestamp)>,
}

/// Progress of a running attempt; nothing of it is known at first.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) at: Option<Timestamp>,
    pub(crate) percent: Option<u8>,
    pub(crate) words: Option<String>,
}

/// A row of `swarm_figures` to be written.
pub(crate) struct FiguresChange {
    pub(crate) measured: Measured,
    /// When they were stored.
    pub(crate) at: Timestamp,
    pub(crate) sequence: u64,
}

/// Organization, swarm, dimension (`task_type` or `capability`) and name, as it is stored.
pub(crate) type OutcomeKey = (OrgId, SwarmId, &'static str, String);

/// A row of `swarm_outcomes` to be written.
pub(crate) struct OutcomeChange {
    pub(crate) outcomes: Outcomes,
    /// When they were stored.
    pub(crate) at: Timestamp,
    pub(crate) sequence: u64,
}

/// Columns that never change and stand in the submission alone.
pub(crate) struct Static {
    pub(crate) payload: Json,
    pub(crate) key: Option<String>,
    pub(crate) affinity_key: Option<String>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) queue_timeout_ms: Option<u64>,
    pub(crate) progress_timeout_ms: Option<u64>,
    pub(crate) body_sha256: Option<String>,
    pub(crate) required_role: Option<Role>,
    /// Its number among the parts of its parent.
    pub(crate) part: Option<usize>,
    pub(crate) hand_to: Option<SwarmId>,
    pub(crate) origin: Option<Origin>,
}
impl Static {
    fn of_part(part: &Part, number: usize) -> Self {
        Self {
            payload: part.payload.clone(),
            key: Some(part.key.clone()),
            affinity_key: None,
            timeout_ms: part.timeout_ms,
            queue_timeout_ms: None,
            progress_timeout_ms: None,
            body_sha256: None,
            required_role: part.required_role,
            part: Some(number),
            hand_to: None,
            origin: None,
        }
    }
}
impl From<&Submitted> for Static {
    fn from(submitted: &Submitted) -> Self {
        Self {
            payload: submitted.payload.clone(),
            key: submitted.key.clone(),
            affinity_key: submitted.affinity_key.clone(),
            timeout_ms: submitted.timeout_ms,
            queue_timeout_ms: submitted.queue_timeout_ms,
            progress_timeout_ms: submitted.progress_timeout_ms,
            body_sha256: submitted.body_sha256.clone(),
            required_role: submitted.required_role,
            part: None,
            hand_to: submitted.hand_to,
            origin: submitted.origin,
        }
    }
}

/// A row of `swarm_agents` to be written.
#[derive(Default)]
pub(crate) struct AgentChange {
    /// Sequence of the last event that touched it.
    pub(crate) sequence: u64,
    /// More than its tasks changed.
    pub(crate) member: bool,
    /// Set if the row is new.
    pub(crate) created: Option<u64>,
    /// The last sample.
    pub(crate) sample: Option<AgentSample>,
}

impl TaskChange {
    /// What changed of an assignment.
    fn attempt(&mut self, assignment: u64) -> &mut AttemptChange {
        let found = self
            .attempts
            .iter()
            .rposition(|change| change.assignment == assignment);
        let at = found.unwrap_or_else(|| {
            self.attempts.push(AttemptChange::of(assignment));
            self.attempts.len() - 1
        });
        &mut self.attempts[at]
    }
}

impl Changes {
    /// Every message has its row.
    pub(crate) fn message(&mut self, message: &StoredMessage, input: &Input, void: Option<&str>) {
        self.messages += 1;
        self.time_micros = message.time_micros;
        self.days.insert(day_of(message.time_micros));
        self.bytes += self.events.message(message, input, void);
    }

    /// What the cores say was touched by the message at `sequence`.
    /// `discarded`: it put a dead letter away.
    pub(crate) fn touched(
        &mut self,
        sequence: u64,
        members: &Members,
        tasks: &mut Tasks,
        discarded: bool,
    ) {
        // The first to touch a new one made it.
        for key in &members.orgs {
            self.orgs.entry(*key).or_insert(sequence);
        }
        for key in &members.users {
            self.users.entry(*key).or_insert(sequence);
        }
        for key in &members.keys {
            self.keys.entry(*key).or_insert(sequence);
        }
        for (org, name) in &members.templates {
            self.templates.insert((*org, name.clone()), sequence);
        }
        self.swarms
            .extend(members.swarms.iter().map(|key| (*key, sequence)));
        for key in &members.agents {
            let change = self.agents.entry(*key).or_default();
            (change.sequence, change.member) = (sequence, true);
        }
        for (place, agent) in &tasks.agents {
            self.agents
                .entry((place.org, place.swarm, *agent))
                .or_default()
                .sequence = sequence;
        }
        for key in &tasks.tasks {
            let change = self.tasks.entry(*key).or_default();
            change.sequence = sequence;
            let ended = tasks.ended.remove(key);
            // Of a dead letter that is put away the core has nothing left; what it was in this batch still stands.
            if ended.is_some() || !discarded {
                change.ended = ended;
            }
        }
    }

    /// What stands in a valid event alone. `now`: the log's time at which it takes effect.
    pub(crate) fn event(&mut self, place: Place, recorded: &Recorded, now: Timestamp) {
        let about = recorded.event.about;
        match &recorded.event.body {
            Body::AgentJoined(joined) if joined.incarnation == 1 => {
                self.created(place, AgentId(about), recorded.sequence);
            }
            Body::AgentAdded(_) => self.created(place, AgentId(about), recorded.sequence),
            Body::SwarmScaled(scaled) => {
                for agent in &scaled.add {
                    self.created(place, *agent, recorded.sequence);
                }
            }
            Body::TaskAssigned(assigned) => {
                let change = self.task(place, about, recorded.sequence);
                change.progress = Some(Progress::default());
                if let Some(agent) = recorded.subject.agent() {
                    let new = AttemptChange::new(recorded.sequence, agent, assigned, now);
                    change.attempts.push(new);
                }
            }
            Body::TaskStarted(started) => {
                let change = self.task(place, about, recorded.sequence);
                change.attempt(started.assignment).started_at = Some(now);
            }
            Body::TaskProgressed(progressed) => {
                let progress = Progress {
                    at: Some(now),
                    percent: progressed.percent,
                    words: progressed.message.clone(),
                };
                self.task(place, about, recorded.sequence).progress = Some(progress);
            }
            Body::TaskCompleted(completed) => {
                let change = self.task(place, about, recorded.sequence);
                let ended = change.ended.as_ref();
                // One whose result is too large to be used ends nothing: it is withdrawn for that.
                if ended.is_some_and(|view| view.result == Some(recorded.sequence)) {
                    change.result = Some(completed.result.clone());
                    change.attempt(completed.assignment).end = Some(End {
                        at: now,
                        outcome: "completed",
                        error: None,
                        retryable: None,
                    });
                }
            }
            Body::TaskHandedOver(over) => {
                self.task(place, about, recorded.sequence).handed = Some((over.task_id, now));
            }
            Body::TaskHandedBack(back) => {
                self.task(place, about, recorded.sequence).result = Some(back.result.clone());
            }
            // After a failed attempt there is at least one attempt; a person's retry begins anew.
            Body::TaskRetried(retried) if retried.attempts == 0 => {
                let change = self.task(place, about, recorded.sequence);
                change.afresh = true;
                (change.parts, change.handed) = (None, None);
            }
            Body::AgentAnswered(answered) => {
                let end = QuestionEnd::answered(answered, recorded.time);
                self.question(place, answered.question_id, recorded.sequence)
                    .end = Some(end);
            }
            Body::AgentUnanswered(unanswered) => {
                let end = QuestionEnd::unanswered(unanswered, recorded.time);
                self.question(place, unanswered.question_id, recorded.sequence)
                    .end = Some(end);
            }
            Body::TaskDiscarded(_) => {
                self.task(place, about, recorded.sequence).discarded = true;
            }
            Body::SwarmMeasured(measured) => {
                let change = FiguresChange {
                    measured: measured.clone(),
                    at: recorded.time,
                    sequence: recorded.sequence,
                };
                self.figures.insert((place.org, place.swarm), change);
                self.outcomes(place, "task_type", &measured.types, recorded);
                self.outcomes(place, "capability", &measured.capabilities, recorded);
            }
            Body::TaskDeclined(declined) => {
                let change = self.task(place, about, recorded.sequence);
                change.progress = Some(Progress::default());
                change.attempt(declined.assignment).end = Some(End {
                    at: now,
                    outcome: DECLINED,
                    error: Some(declined.reason.clone()),
                    retryable: None,
                });
            }
            _ => {}
        }
    }

    /// A question that is new, also under an id whose first question is forgotten.
    pub(crate) fn asked(&mut self, place: Place, id: CommandId, question: Question, at: u64) {
        let change = self.question(place, id, at);
        change.asked = Some(Box::new(question));
        change.end = None;
    }

    fn question(&mut self, place: Place, id: CommandId, sequence: u64) -> &mut QuestionChange {
        let key = (place.org, place.swarm, id);
        let change = self.questions.entry(key).or_default();
        change.sequence = sequence;
        change
    }

    /// A task was handed on in parts, which exist from here on; or it could not be, and its attempt failed with `error`.
    pub(crate) fn split(
        &mut self,
        place: Place,
        recorded: &Recorded,
        now: Timestamp,
        (split, is_done, error): (&Split, bool, Option<String>),
    ) {
        let about = recorded.event.about;
        let change = self.task(place, about, recorded.sequence);
        change.progress = Some(Progress::default());
        let (outcome, error, retryable) = if is_done {
            change.parts = Some(split.parts.len());
            (SPLIT, None, None)
        } else {
            ("failed", error, Some(false))
        };
        change.attempt(split.assignment).end = Some(End {
            at: now,
            outcome,
            error,
            retryable,
        });
        if !is_done {
            return;
        }
        for (number, part) in split.parts.iter().enumerate() {
            let index = u32::try_from(number).unwrap_or(u32::MAX);
            let id = part_id(TaskId(about), split.assignment, index);
            self.new_task(place, id, Static::of_part(part, number));
        }
    }

    /// The first event that names an agent makes its row.
    fn created(&mut self, place: Place, agent: AgentId, sequence: u64) {
        let key = (place.org, place.swarm, agent);
        if let Some(change) = self.agents.get_mut(&key) {
            change.created.get_or_insert(sequence);
        }
    }

    /// By name those whose figures moved.
    fn outcomes(
        &mut self,
        place: Place,
        dimension: &'static str,
        figures: &BTreeMap<String, Outcomes>,
        recorded: &Recorded,
    ) {
        for (name, outcomes) in figures {
            let change = OutcomeChange {
                outcomes: *outcomes,
                at: recorded.time,
                sequence: recorded.sequence,
            };
            let name = text(name).into_owned();
            self.outcomes
                .insert((place.org, place.swarm, dimension, name), change);
        }
    }

    /// An assignment was taken away, or its attempt failed: `error` is what the core made of that.
    pub(crate) fn gave_up(
        &mut self,
        place: Place,
        recorded: &Recorded,
        now: Timestamp,
        error: Option<String>,
    ) {
        let (assignment, outcome, retryable) = match &recorded.event.body {
            Body::TaskWithdrawn(event) => (event.assignment, withdrawn(event.reason), None),
            Body::TaskAttemptFailed(event) => (event.assignment, "failed", Some(event.retryable)),
            _ => return,
        };
        let change = self.task(place, recorded.event.about, recorded.sequence);
        change.progress = Some(Progress::default());
        change.attempt(assignment).end = Some(End {
            at: now,
            outcome,
            error,
            retryable,
        });
    }

    /// A task that the core took up: a new row, also for an id whose first task is forgotten.
    pub(crate) fn submitted(&mut self, place: Place, task: TaskId, submitted: &Submitted) {
        self.new_task(place, task, submitted.into());
    }

    fn new_task(&mut self, place: Place, task: TaskId, of: Static) {
        let change = self.tasks.entry((place, task)).or_default();
        change.submitted = Some(Box::new(of));
        change.result = None;
        change.progress = None;
        change.attempts.clear();
        change.discarded = false;
        (change.parts, change.handed) = (None, None);
    }

    fn task(&mut self, place: Place, about: uuid::Uuid, sequence: u64) -> &mut TaskChange {
        let change = self.tasks.entry((place, TaskId(about))).or_default();
        change.sequence = sequence;
        change
    }

    /// A sample of an agent's present process.
    pub(crate) fn sampled(
        &mut self,
        place: Place,
        agent: AgentId,
        sample: &AgentSample,
        sequence: u64,
    ) {
        let change = self
            .agents
            .entry((place.org, place.swarm, agent))
            .or_default();
        change.sequence = sequence;
        change.sample = Some(sample.clone());
    }
}

/// The day (UTC) of a store time.
pub(crate) fn day_of(micros: i64) -> NaiveDate {
    Timestamp::from_micros(micros)
        .to_chrono()
        .map_or(NaiveDate::MIN + Days::new(1), |time| time.date_naive())
}
