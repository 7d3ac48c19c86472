//! The contract of a pure decider, and what every decider's state begins with.
//!
//! A decider is a fold over the log and a function that answers the fold's open marks. No clock, randomness, IO, float or
//! hash order: the same log gives the same state, byte for byte, on every machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    body::Body,
    ids::time_of_v7,
    planted::{self, Bug},
    problem::Problem,
    read::{Input, Recorded, Writer, writer},
    subject::{OrgVerb, Partition, Service, Subject},
    time::Timestamp,
};

/// What an input did to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It changed it.
    Applied,
    /// Its precondition failed: it changed nothing, in every fold alike. With the name of the precondition.
    Void(&'static str),
    /// It is of no concern to this decider.
    Ignored,
}

/// Large values that the shell puts into a decision before it is appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hydrate {
    /// Sequence of the `submitted` whose payload goes into `payload`.
    pub payload_from: Option<u64>,
    /// Alias and sequence of each `completed` whose result goes into `inputs`.
    pub inputs_from: Vec<(String, u64)>,
}

/// An answer: an event that the shell wraps, fences and appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where it goes.
    pub subject: Subject,
    /// What it is about.
    pub about: Uuid,
    /// `correlationid`.
    pub correlation: Option<Uuid>,
    /// `causationid`, where it is not the input that was met last.
    pub causation: Option<Uuid>,
    /// What it says.
    pub body: Body,
    /// What the shell must look up.
    pub hydrate: Option<Hydrate>,
}
impl Decision {
    /// A decision without correlation, caused by the input that was met last.
    pub fn new(subject: Subject, about: Uuid, body: impl Into<Body>) -> Self {
        Self {
            subject,
            about,
            correlation: None,
            causation: None,
            body: body.into(),
            hydrate: None,
        }
    }
    /// Names the event or command that it answers.
    #[must_use]
    pub fn caused_by(mut self, id: Uuid) -> Self {
        self.causation = Some(id);
        self
    }
    /// It answers nothing in particular. (Without this it would name the input that was met last; and if that is a command,
    /// whoever waits for the command's outcome would take this for it.)
    #[must_use]
    pub fn uncaused(mut self) -> Self {
        self.causation = Some(Uuid::nil());
        self
    }
    /// Names the submission that it follows from.
    #[must_use]
    pub fn correlated(mut self, id: Option<Uuid>) -> Self {
        self.correlation = id;
        self
    }
}

/// A pure decider: state, fold, answers.
///
/// The state is the fold alone. What the owner has decided and not met yet is in the [`Decider::Plan`], together with any
/// index that only the owner needs. It is in no state, hash or snapshot, and is made anew at every claim.
pub trait Decider: Serialize + DeserializeOwned + Send + Sized + 'static {
    /// Whose decisions these are.
    const SERVICE: Service;
    /// Version of the decision code; a higher one may decide otherwise.
    const VERSION: u32;
    /// Version of the state's layout in postcard. Raised whenever a state that was encoded before would be read wrongly or
    /// not at all; each core has a golden test that demands it. A snapshot of another layout is passed over.
    const FORMAT: u32;
    /// The overlay and the owner's indexes.
    type Plan: Send;

    /// The empty state of a partition.
    fn new(partition: Partition) -> Self;

    /// The state's head.
    fn head(&self) -> &Head;

    /// Applies an input, or finds it void. An owner passes its plan, which is kept in step: a decision that is met, valid
    /// or void, is under way no more, and its mark, if still open, is due again.
    fn evolve(&mut self, input: &Input, plan: Option<&mut Self::Plan>) -> Verdict;

    /// The plan with nothing under way: every open mark is due.
    fn plan(&self) -> Self::Plan;

    /// Answers due marks in order, at most `limit` decisions, and notes them in the plan as under way. Called again after
    /// each input and until it answers nothing more. `limit` bounds the work between two inputs.
    fn decide(&self, plan: &mut Self::Plan, limit: usize, out: &mut Vec<Decision>);

    /// When something falls due by itself, judged by the log's time. What is under way is not counted.
    fn next_deadline(&self, plan: &Self::Plan) -> Option<Timestamp>;

    /// An input on which `decide` failed twice is set aside by `rejects` of a later claim: its marks are closed. Called by
    /// `evolve` itself when it meets such a claim, so that every fold agrees.
    fn reject(&mut self, sequence: u64, problem: &Problem);
}

/// Last claim and decision met of one service in this partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Sequence of the claim, 0 if none.
    pub epoch: u64,
    /// Last ordinal met within it.
    pub ordinal: u64,
}

/// What every decider's state begins with: the log's time and the claims met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The partition.
    pub partition: Partition,
    /// Highest store time met: the only clock.
    pub now: Timestamp,
    /// Last sequence met.
    pub sequence: u64,
    /// By service, in the order of [`Service::ALL`].
    pub epochs: [Epoch; 4],
    /// Inputs found void so far.
    pub voids: u64,
}

/// Whether an input may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Admit,
    /// A claim of this decider's own service: the plan is to be made anew by the owner.
    Claimed,
    /// Void: not under the last claim met, or a repeat.
    Void(&'static str),
}

impl Head {
    /// The head of an empty state.
    pub fn new(partition: Partition) -> Self {
        Self {
            partition,
            now: Timestamp::ZERO,
            sequence: 0,
            epochs: [Epoch::default(); 4],
            voids: 0,
        }
    }

    /// Epoch of a service in this partition.
    pub const fn epoch(&self, service: Service) -> Epoch {
        self.epochs[service as usize]
    }

    /// Takes note of an input: time, sequence, claims, and whether it is a decision under the last claim met.
    ///
    /// A decision of another partition (organizations' events are folded by all) is admitted as it is: the fence of its
    /// owner kept stale ones out of the log.
    pub fn admit(&mut self, service: Service, input: &Input) -> Admission {
        self.sequence = input.sequence();
        self.now = self.now.max(input.time());
        let Input::Event(recorded) = input else {
            return Admission::Admit;
        };
        let admission = self.admit_event(service, recorded);
        if matches!(admission, Admission::Void(_)) {
            self.voids += 1;
        }
        admission
    }

    fn admit_event(&mut self, service: Service, recorded: &Recorded) -> Admission {
        if let (Subject::Control(of, partition, _), Body::Claimed(_)) =
            (&recorded.subject, &recorded.event.body)
        {
            if *partition != self.partition {
                return Admission::Void("other-partition");
            }
            self.epochs[*of as usize] = Epoch {
                epoch: recorded.sequence,
                ordinal: 0,
            };
            return if *of == service {
                Admission::Claimed
            } else {
                Admission::Admit
            };
        }
        let (Writer::Service(of), Some(decided)) =
            (writer(&recorded.subject), recorded.event.decided)
        else {
            return Admission::Admit;
        };
        if recorded.subject.partition() != self.partition {
            return Admission::Admit;
        }
        let last = &mut self.epochs[of as usize];
        if decided.epoch != last.epoch
            && matches!(recorded.subject, Subject::Org(_, _, OrgVerb::Refused))
        {
            // A refusal about a swarm in a wrong partition is told to its organization by the partition that met it.
            return Admission::Admit;
        }
        if decided.epoch != last.epoch {
            return Admission::Void("stale-epoch");
        }
        if decided.ordinal <= last.ordinal && !planted::is(Bug::RepeatedDecisionCounts) {
            return Admission::Void("repeated-decision");
        }
        last.ordinal = decided.ordinal;
        Admission::Admit
    }
}

/// How long the id of an ended task or a handled command is remembered, in milliseconds: a day, the usual promise of
/// idempotency keys.
pub const REMEMBERED_MS: u64 = 24 * 3_600 * 1_000;
/// Most ids that are remembered in a partition, whatever their age: bounds memory (about 100 bytes each).
pub const REMEMBERED_MAX: usize = 200_000;
/// How far an id's time may lie ahead of the log's, in milliseconds: clocks of clients differ, but not by minutes.
pub const AHEAD_MS_MAX: u64 = 5 * 60 * 1_000;

/// Ids that have been used, with a horizon: an id from before the horizon is refused, so that a forgotten one cannot run
/// again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    by_id: BTreeMap<Uuid, u64>,
    by_order: BTreeMap<u64, (Uuid, Timestamp)>,
    forgotten_to: Timestamp,
}

impl Remembered {
    /// Whether `id` may be used now.
    ///
    /// # Errors
    /// The id's time is before the horizon or far ahead.
    pub fn check_time(&self, id: Uuid, now: Timestamp) -> Result<(), Problem> {
        let Some(time) = time_of_v7(id) else {
            return Ok(());
        };
        if time <= self.forgotten_to {
            return Err(Problem::new(
                "stale-id",
                format!("the id is from {time}, older than what is still remembered"),
            )
            .field("id")
            .cure("submit it again under a new UUIDv7"));
        }
        if time > now.plus_millis(AHEAD_MS_MAX) {
            return Err(Problem::new(
                "id-from-the-future",
                format!("the id is from {time}, and it is {now}"),
            )
            .field("id")
            .cure("set the clock of the machine that made the id"));
        }
        Ok(())
    }
    /// The sequence under which `id` was noted.
    pub fn get(&self, id: Uuid) -> Option<u64> {
        self.by_id.get(&id).copied()
    }
    /// Notes `id` and forgets what is past the horizon; answers with what was forgotten.
    pub fn insert(&mut self, id: Uuid, sequence: u64, now: Timestamp) -> Vec<Uuid> {
        if self.by_id.insert(id, sequence).is_none() {
            self.by_order.insert(sequence, (id, now));
        }
        let horizon = now.minus_millis(REMEMBERED_MS);
        let mut forgotten = Vec::new();
        while let Some((&first, &(id, noted))) = self.by_order.first_key_value() {
            if noted >= horizon && self.by_order.len() <= REMEMBERED_MAX {
                break;
            }
            self.by_order.remove(&first);
            self.by_id.remove(&id);
            if let Some(time) = time_of_v7(id) {
                self.forgotten_to = self.forgotten_to.max(time);
            }
            forgotten.push(id);
        }
        forgotten
    }
    /// Takes an id out again (an ended task that lives again).
    pub fn remove(&mut self, id: Uuid) {
        if let Some(sequence) = self.by_id.remove(&id) {
            self.by_order.remove(&sequence);
        }
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
    /// None?
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
