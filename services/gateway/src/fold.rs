//! The gateway's own fold of the log: swarms, membership and keys by the coordinator's core, what is found of agents by
//! health's, the last figures of each swarm, and the outcomes that somebody waits for. It is what makes writes, health and
//! keys independent of PostgreSQL.

pub mod changes;
pub mod keyed;
pub mod keys;
pub mod measures;
pub mod outcomes;
pub mod samples;
mod unmeasured;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde::{Deserialize, Serialize};
use swarm_coordinator_core::{Coordinator, Organization, Organizations, Swarm};
use swarm_events::{
    Body, Input, OrgId, Partition, Place, Service, Subject, SwarmId, TaskId, Timestamp,
    decider::{Admission, Decider, Head, Verdict},
    read::{Recorded, Writer, writer},
    subject::{ControlVerb, TaskVerb, filter},
};
use swarm_health_core::Health;
use uuid::Uuid;

use changes::Changes;
use keyed::{Keyed, KeyedOutcomes, cancellation_of};
use keys::Caller;
use measures::Measure;
use outcomes::Outcomes;
use samples::Samples;
use unmeasured::Unmeasured;

use crate::admission::{self, Full, Limits, Waiting as InQueue};

/// Task events that answer commands and graphs. The gateway does not read tasks otherwise: only distributor and projector
/// do.
const TASK_VERBS: [TaskVerb; 7] = [
    TaskVerb::GraphAccepted,
    TaskVerb::GraphRejected,
    TaskVerb::GraphCancelled,
    TaskVerb::Discarded,
    TaskVerb::Refused,
    TaskVerb::Cancelled,
    TaskVerb::Retried,
];

/// Code under which a graph is rejected that was called off before all of its parts were there.
pub const CANCELLED_GRAPH: &str = "cancelled";

/// What the gateway tails. None of them overlap.
pub fn filters() -> Vec<String> {
    let mut filters = filter::inputs(Service::Coordinator, None);
    // What health's core folds beyond that.
    let of_health = filter::inputs(Service::Health, None);
    filters.extend(
        of_health
            .into_iter()
            .filter(|filter| !filters.contains(filter))
            .collect::<Vec<_>>(),
    );
    filters.extend(
        TASK_VERBS
            .iter()
            .map(|verb| format!("swarm.evt.*.*.*.task.{verb}")),
    );
    filters
}

/// Whether the coordinator's core takes this: the same as what its own loop reads, so that both have the same state.
fn is_coordinators(subject: &Subject) -> bool {
    match subject {
        Subject::Org(..)
        | Subject::Swarm(..)
        | Subject::Agent(..)
        | Subject::Command(..)
        | Subject::OrgCommand(..) => true,
        Subject::Control(service, _, verb) => {
            *service == Service::Coordinator || *verb == ControlVerb::Claimed
        }
        Subject::Task(..) | Subject::Heartbeat(..) | Subject::Message(..) => false,
    }
}

/// Whether health's core takes this.
fn is_healths(subject: &Subject) -> bool {
    match subject {
        Subject::Org(..) | Subject::Swarm(..) | Subject::Agent(..) => true,
        Subject::Control(service, _, verb) => {
            *service == Service::Health || *verb == ControlVerb::Claimed
        }
        _ => false,
    }
}

fn is_by_health(input: &Input) -> bool {
    let Input::Event(recorded) = input else {
        return false;
    };
    writer(&recorded.subject) == Writer::Service(Service::Health)
}

/// Layout of this fold in snapshots, those of the coordinator's and of health's states included: it is raised with them.
pub const FORMAT: u32 = (LAYOUT << 16) | (Health::FORMAT << 8) | Coordinator::FORMAT;
const _: () = assert!(Health::FORMAT < 0x100 && Coordinator::FORMAT < 0x100);
/// Raised when anything else of [`Fold`] changes its layout; a golden test demands it.
const LAYOUT: u32 = 4;

/// The state: a function of the log alone, so that a snapshot and the tail behind it are worth a cold fold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// By partition.
    coordinators: Vec<Coordinator>,
    /// By partition: what health found.
    healths: Vec<Health>,
    /// By partition: the claims met, which tell valid decisions of every service from void ones.
    heads: Vec<Head>,
    measures: BTreeMap<Place, Measure>,
    /// By organization: tasks that wait in its swarms that are not deleted, as last measured.
    waiting: BTreeMap<OrgId, u64>,
    samples: BTreeMap<Place, Samples>,
    changes: BTreeMap<Place, Changes>,
    keyed: KeyedOutcomes,
    sequence: u64,
    now: Timestamp,
    voids: u64,
}

impl Default for Fold {
    fn default() -> Self {
        Self {
            coordinators: Partition::all().map(Coordinator::new).collect(),
            healths: Partition::all().map(Health::new).collect(),
            heads: Partition::all().map(Head::new).collect(),
            measures: BTreeMap::new(),
            waiting: BTreeMap::new(),
            samples: BTreeMap::new(),
            changes: BTreeMap::new(),
            keyed: KeyedOutcomes::default(),
            sequence: 0,
            now: Timestamp::ZERO,
            voids: 0,
        }
    }
}

impl Fold {
    /// Applies what the tail brought. `outcomes` hears of what answers somebody.
    pub fn apply(&mut self, input: Input, outcomes: &mut Outcomes) {
        self.sequence = input.sequence();
        self.now = self.now.max(input.time());
        let partition = match &input {
            Input::Event(recorded) => Some(recorded.subject.partition()),
            Input::Unreadable(unreadable) => {
                swarm_events::read::partition_of_subject(&unreadable.subject_text)
            }
        };
        let Some(partition) = partition else {
            return;
        };
        let valid = self.admit(partition, &input);
        let Input::Event(recorded) = input else {
            return;
        };
        if !valid {
            self.voids += 1;
            return;
        }
        self.note(&recorded);
        self.tell(recorded, outcomes);
    }

    /// Folds `input`, and says whether it is valid.
    fn admit(&mut self, partition: Partition, input: &Input) -> bool {
        let at = usize::from(partition.number());
        // The head's own service does not matter: it notes the claims of all of them.
        let admission = self.heads[at].admit(Service::Scaler, input);
        let subject = match input {
            Input::Event(recorded) => Some(&recorded.subject),
            Input::Unreadable(unreadable) => unreadable.subject.as_ref(),
        };
        let verdict = match subject {
            Some(Subject::Org(..)) => {
                // Every partition's coordinator folds the organizations; the verdict of their own one counts.
                let mut own = Verdict::Ignored;
                for (number, coordinator) in self.coordinators.iter_mut().enumerate() {
                    let verdict = coordinator.evolve(input, None);
                    if number == at {
                        own = verdict;
                    }
                }
                own
            }
            Some(subject) if is_coordinators(subject) => self.coordinators[at].evolve(input, None),
            Some(_) => Verdict::Ignored,
            // Of no known subject: only below the commands does the coordinator meet such a message.
            None if matches!(input, Input::Unreadable(u) if u.subject_text.starts_with("swarm.cmd.")) => {
                self.coordinators[at].evolve(input, None)
            }
            None => Verdict::Ignored,
        };
        let of_health = match subject {
            Some(subject) if is_healths(subject) => self.healths[at].evolve(input, None),
            _ => Verdict::Ignored,
        };
        // What health decides is void by its own rules, too: the coordinator does not know of its observations.
        let void = matches!(verdict, Verdict::Void(_))
            || matches!(of_health, Verdict::Void(_)) && is_by_health(input);
        !matches!(admission, Admission::Void(_)) && !void
    }

    fn note(&mut self, recorded: &Recorded) {
        let Some(place) = recorded.subject.place() else {
            return;
        };
        match &recorded.event.body {
            body if Changes::concerned(body) => {
                self.changes.entry(place).or_default().apply(recorded);
            }
            Body::SwarmMeasured(measured) => {
                let counts = self
                    .swarm(place.org, place.swarm)
                    .is_some_and(|swarm| swarm.deleted_at.is_none());
                let measure = self.measures.entry(place).or_default();
                let before = measure.waiting();
                let decided = recorded.event.decided;
                let counted = decided.map_or(0, |decided| decided.cause_sequence);
                measure.apply(recorded.sequence, counted, recorded.time, measured);
                if counts {
                    let waiting = self.waiting.entry(place.org).or_default();
                    *waiting = (*waiting + measure.waiting()).saturating_sub(before);
                }
            }
            // What it left behind waits no more, whatever was measured last.
            Body::SwarmDeleted(_) => {
                let left = self.measures.get(&place).map_or(0, Measure::waiting);
                let waiting = self.waiting.entry(place.org).or_default();
                *waiting = waiting.saturating_sub(left);
            }
            body => {
                if let Some(agent) = recorded.subject.agent() {
                    self.samples.entry(place).or_default().verdict(agent, body);
                } else if let Body::SwarmSampled(sampled) = body {
                    self.samples
                        .entry(place)
                        .or_default()
                        .sampled(recorded.time, sampled);
                }
            }
        }
    }

    fn tell(&mut self, recorded: Recorded, outcomes: &mut Outcomes) {
        let writer = writer(&recorded.subject);
        if writer == Writer::Client {
            self.keyed.command(&recorded, self.now);
            return;
        }
        let (about, causation) = (recorded.event.about, recorded.event.causation);
        // A decision that answers nothing in particular names the last input that its service met, which may be anyone's
        // command. So of the distributor's events only those count that say themselves what they answer.
        let answered = match (&recorded.event.body, recorded.subject.place()) {
            (Body::TaskRefused(refused), _) => refused.command_id.map(|command| command.0),
            (Body::TaskGraphAccepted(_) | Body::TaskGraphRejected(_), _) => Some(about),
            (Body::TaskCancelled(_), Some(place)) => Some(cancellation_of(place, TaskId(about))),
            // Only commands lead to these.
            (Body::TaskGraphCancelled(_) | Body::TaskDiscarded(_), _) => causation,
            // After a failed attempt there is at least one attempt; a person's retry begins anew.
            (Body::TaskRetried(retried), _) if retried.attempts == 0 => causation,
            // On the way to the change that was asked for, or in its wake.
            (
                Body::SwarmTopologyPlanned(_)
                | Body::AgentSeated(_)
                | Body::SwarmLeaderElected(_)
                | Body::SwarmTopologySuggested(_),
                _,
            ) => None,
            _ if writer == Writer::Service(Service::Coordinator) => causation,
            _ => None,
        };
        if let Some(id) = answered {
            let mut closed = self.keyed.outcome(id, recorded.sequence, self.now);
            // A graph that was still gathered is called off by its rejection: that answers both.
            if let Body::TaskGraphRejected(rejected) = &recorded.event.body
                && rejected.problem.code == CANCELLED_GRAPH
                && let Some(command) = causation
            {
                closed.extend(self.keyed.outcome(command, recorded.sequence, self.now));
            }
            let outcome = Arc::new(recorded);
            for id in closed {
                outcomes.answer(id, &outcome);
            }
        }
    }

    /// Whose key it is, if it holds.
    pub fn caller(&self, key: &str) -> Option<Caller> {
        let holder = self.organizations().key_by_sha256(&keys::hash(key))?;
        (!holder.revoked).then_some(Caller {
            org: holder.org,
            user: holder.user,
            key: holder.key,
            role: holder.role,
        })
    }
    /// All organizations.
    pub fn organizations(&self) -> &Organizations {
        self.coordinators[0].organizations()
    }
    /// A swarm of the organization, deleted ones too.
    pub fn swarm(&self, org: OrgId, swarm: SwarmId) -> Option<&Swarm> {
        let place = Place::new(org, swarm);
        self.coordinators[usize::from(place.partition.number())].swarm(org, swarm)
    }
    /// What health found of a swarm.
    pub fn health(&self, place: Place) -> Option<&swarm_health_core::Swarm> {
        self.healths[usize::from(place.partition.number())].swarm(place.org, place.swarm)
    }
    /// The swarms of an organization, deleted ones too.
    pub fn swarms_of(&self, org: OrgId) -> impl Iterator<Item = &Swarm> {
        self.coordinators
            .iter()
            .flat_map(move |coordinator| coordinator.swarms_of(org))
    }
    /// Swarms that are deleted, and since when.
    pub fn deleted(&self) -> impl Iterator<Item = (Place, Timestamp)> {
        let swarms = self.coordinators.iter().flat_map(Coordinator::swarms);
        swarms.filter_map(|swarm| Some((swarm.place, swarm.deleted_at?)))
    }
    /// What was last measured of a swarm; `None` before the first measurement.
    pub fn measure(&self, place: Place) -> Option<&Measure> {
        self.measures.get(&place)
    }
    /// Tasks that wait in all swarms of an organization, as last measured.
    pub fn waiting_of(&self, org: OrgId) -> u64 {
        self.waiting.get(&org).copied().unwrap_or(0)
    }
    /// An organization.
    pub fn organization(&self, org: OrgId) -> Option<&Organization> {
        self.organizations().get(org)
    }
    /// What is known of a command or graph whose id derives from an idempotency key.
    pub fn keyed(&self, id: Uuid) -> Keyed {
        self.keyed.get(id)
    }
    /// What became of a swarm's topology and leader; `None` if nothing has yet.
    pub fn changes(&self, place: Place) -> Option<&Changes> {
        self.changes.get(&place)
    }
    /// What was last heard of the agents of a swarm.
    pub fn samples(&self, place: Place) -> Option<&Samples> {
        self.samples.get(&place)
    }
    /// Last sequence met.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }
    /// The log's time.
    pub const fn now(&self) -> Timestamp {
        self.now
    }
    /// Void events met.
    pub const fn voids(&self) -> u64 {
        self.voids
    }
}

/// The fold, its waiters, and what this gateway alone knows, shared by the tail and the requests.
///
/// Only the tail changes the fold, so that a long look at it (a snapshot) made by the tail holds no other look up.
#[derive(Default)]
pub struct SharedFold {
    fold: RwLock<Fold>,
    outcomes: Mutex<Outcomes>,
    unmeasured: Mutex<Unmeasured>,
}

impl SharedFold {
    /// For looking.
    pub fn read(&self) -> RwLockReadGuard<'_, Fold> {
        self.fold.read().unwrap_or_else(PoisonError::into_inner)
    }
    /// For changing; the tail's alone.
    fn write(&self) -> RwLockWriteGuard<'_, Fold> {
        self.fold.write().unwrap_or_else(PoisonError::into_inner)
    }
    /// The waiters.
    pub fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Goes on from another fold.
    pub fn replace(&self, fold: Fold) {
        *self.write() = fold;
    }
    fn unmeasured(&self) -> MutexGuard<'_, Unmeasured> {
        self.unmeasured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
    /// Tasks that wait: as last measured, with those that this gateway has let in since.
    pub fn waiting(&self, place: Place) -> InQueue {
        let fold = self.read();
        in_queue(&fold, &mut self.unmeasured(), place, true)
    }
    /// Lets tasks of these priorities in, if they fit; from then on they count. Of requests at the same time each finds what
    /// the others have taken.
    ///
    /// # Errors
    /// What is full, and what waits there.
    pub fn admit(
        self: &Arc<Self>,
        place: Place,
        limits: Limits,
        priorities: &[u8],
    ) -> Result<LetIn, (Full, InQueue)> {
        let fold = self.read();
        let mut unmeasured = self.unmeasured();
        // Nobody adds up what is not limited.
        let limited = limits.organization.is_some();
        let waiting = in_queue(&fold, &mut unmeasured, place, limited);
        admission::judge(waiting, limits, priorities).map_err(|full| (full, waiting))?;
        let tasks = priorities.len() as u64;
        unmeasured.let_in(place, tasks);
        Ok(LetIn {
            fold: self.clone(),
            place,
            tasks,
        })
    }
    /// Applies what the tail brought.
    pub fn apply(&self, inputs: impl IntoIterator<Item = Input>) {
        let mut fold = self.write();
        let mut outcomes = self.outcomes();
        for input in inputs {
            fold.apply(input, &mut outcomes);
        }
    }
    /// Waits for the outcome of `id`; to be called before `id` is published.
    pub fn wait(self: &Arc<Self>, id: Uuid) -> Waiting {
        let wait = self.outcomes().wait(id);
        Waiting {
            fold: self.clone(),
            wait,
        }
    }
}

fn in_queue(fold: &Fold, unmeasured: &mut Unmeasured, place: Place, organization: bool) -> InQueue {
    let measure = |swarm| fold.measure(Place::new(place.org, swarm));
    let counted = |swarm| measure(swarm).map_or(0, |measure| measure.counted);
    let waiting = measure(place.swarm).map_or(0, Measure::waiting);
    let mut in_all = || fold.waiting_of(place.org) + unmeasured.of_organization(place.org, counted);
    let organization = if organization { in_all() } else { 0 };
    InQueue {
        swarm: waiting + unmeasured.of_swarm(place, counted(place.swarm)),
        organization,
    }
}

/// Tasks that were let in. Dropped, they are given up: they were not stored, as far as this gateway knows.
pub struct LetIn {
    fold: Arc<SharedFold>,
    place: Place,
    tasks: u64,
}
impl LetIn {
    /// They are stored, and exist from `sequence` on: they count until a measurement has met it.
    pub fn stored(mut self, sequence: u64) {
        let tasks = std::mem::take(&mut self.tasks);
        let mut unmeasured = self.fold.unmeasured();
        unmeasured.stored(self.place, tasks, sequence);
    }
    /// They are stored one by one, the last of them at `sequence`.
    pub fn stored_one_by_one(mut self, sequence: u64) {
        let tasks = std::mem::take(&mut self.tasks);
        let mut unmeasured = self.fold.unmeasured();
        unmeasured.stored_one_by_one(self.place, tasks, sequence);
    }
}
impl Drop for LetIn {
    fn drop(&mut self) {
        if self.tasks > 0 {
            self.fold.unmeasured().given_up(self.place, self.tasks);
        }
    }
}

/// A wait that is given up when it is dropped.
pub struct Waiting {
    fold: Arc<SharedFold>,
    wait: outcomes::Wait,
}
impl Waiting {
    /// The outcome, whenever it comes.
    pub async fn outcome(&mut self) -> Option<outcomes::Outcome> {
        (&mut self.wait.outcome).await.ok()
    }
}
impl Drop for Waiting {
    fn drop(&mut self) {
        let (id, ticket) = self.wait.ticket();
        self.fold.outcomes().leave(id, ticket);
    }
}

#[cfg(test)]
mod tests;
