//! What the messages of a batch changed: which rows are to be written, and what of them stands in the events alone.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate};
use swarm_coordinator_core::Touched as Members;
use swarm_distributor_core::{TaskView, Touched as Tasks};
use swarm_events::{
    AgentId, Body, Input, Json, KeyId, OrgId, Place, Recorded, SwarmId, TaskId, Timestamp, UserId,
    swarm::AgentSample,
    task::{Carried, Submitted},
};
use swarm_log::StoredMessage;

use crate::event_row::Events;

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
    pub(crate) orgs: BTreeMap<OrgId, u64>,
    pub(crate) users: BTreeMap<(OrgId, UserId), u64>,
    pub(crate) keys: BTreeMap<(OrgId, KeyId), u64>,
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
    /// The running attempt's progress, if that changed: part done and words.
    pub(crate) progress: Option<(Option<u8>, Option<String>)>,
}

/// Columns that never change and stand in the submission alone.
pub(crate) struct Static {
    pub(crate) payload: Json,
    pub(crate) key: Option<String>,
    pub(crate) affinity_key: Option<String>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) body_sha256: Option<String>,
}
impl From<&Submitted> for Static {
    fn from(submitted: &Submitted) -> Self {
        Self {
            payload: submitted.payload.clone(),
            key: submitted.key.clone(),
            affinity_key: submitted.affinity_key.clone(),
            timeout_ms: submitted.timeout_ms,
            body_sha256: submitted.body_sha256.clone(),
        }
    }
}

/// A row of `swarm_agents` to be written.
#[derive(Default)]
pub(crate) struct AgentChange {
    /// Sequence of the last event that touched it.
    pub(crate) sequence: u64,
    /// Set if the row is new.
    pub(crate) created: Option<u64>,
    /// The last sample.
    pub(crate) sample: Option<AgentSample>,
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
    pub(crate) fn touched(&mut self, sequence: u64, members: &Members, tasks: &mut Tasks) {
        self.orgs
            .extend(members.orgs.iter().map(|key| (*key, sequence)));
        self.users
            .extend(members.users.iter().map(|key| (*key, sequence)));
        self.keys
            .extend(members.keys.iter().map(|key| (*key, sequence)));
        self.swarms
            .extend(members.swarms.iter().map(|key| (*key, sequence)));
        for key in &members.agents {
            self.agents.entry(*key).or_default().sequence = sequence;
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
            change.ended = tasks.ended.remove(key);
        }
    }

    /// What stands in a valid event alone.
    pub(crate) fn event(&mut self, place: Place, recorded: &Recorded) {
        let about = recorded.event.about;
        match &recorded.event.body {
            Body::AgentJoined(joined) if joined.incarnation == 1 => {
                if let Some(change) = self
                    .agents
                    .get_mut(&(place.org, place.swarm, AgentId(about)))
                {
                    change.created = Some(recorded.sequence);
                }
            }
            Body::TaskAssigned(_) | Body::TaskWithdrawn(_) | Body::TaskAttemptFailed(_) => {
                self.task(place, about, recorded.sequence).progress = Some((None, None));
            }
            Body::TaskProgressed(progressed) => {
                let progress = (progressed.percent, progressed.message.clone());
                self.task(place, about, recorded.sequence).progress = Some(progress);
            }
            Body::TaskCompleted(completed) => {
                self.task(place, about, recorded.sequence).result = Some(completed.result.clone());
            }
            _ => {}
        }
    }

    /// A task that the core took up: a new row, also for an id whose first task is forgotten.
    pub(crate) fn submitted(&mut self, place: Place, task: TaskId, submitted: &Submitted) {
        let change = self.tasks.entry((place, task)).or_default();
        change.submitted = Some(Box::new(submitted.into()));
        change.result = None;
        change.progress = None;
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
