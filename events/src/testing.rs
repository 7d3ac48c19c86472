//! A world in miniature for tests of deciders: a log in memory, one owner, and decisions that are stored late, in part or
//! never. Everything passes through the real bytes, so a decision that could not be read back shows at once.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::{
    Body, Event, Input, Partition, Subject, Timestamp,
    control::{Claimed, Woken},
    decider::{Decider, Decision, Verdict},
    envelope::{Decided, Source},
    ids::{EventId, InstanceId},
    read::read,
    subject::ControlVerb,
};

/// A message as the log holds it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Stream sequence.
    pub sequence: u64,
    /// Store time.
    pub time: Timestamp,
    /// Full subject.
    pub subject: String,
    /// Body.
    pub payload: Vec<u8>,
}
impl Stored {
    /// As a fold meets it.
    pub fn input(&self) -> Input {
        read(self.sequence, self.time, &self.subject, &self.payload)
    }
}

/// The world of one partition of `D`.
pub struct World<D: Decider> {
    /// Everything stored so far.
    pub log: Vec<Stored>,
    /// What the owner's fold found of each message, in the same order.
    pub verdicts: Vec<Verdict>,
    /// The owner's state.
    pub state: D,
    /// The time at which the next message is stored.
    pub now: Timestamp,
    plan: D::Plan,
    instance: InstanceId,
    epoch: u64,
    ordinal: u64,
    in_flight: VecDeque<(Decision, Decided, Option<Uuid>)>,
    last_input: Option<Uuid>,
    ids: u64,
}

impl<D: Decider> World<D> {
    /// An empty log, claimed at once.
    pub fn new(partition: Partition) -> Self {
        let state = D::new(partition);
        let mut world = Self {
            log: Vec::new(),
            verdicts: Vec::new(),
            plan: state.plan(),
            state,
            now: Timestamp::from_micros(1_780_000_000_000_000),
            instance: InstanceId(Uuid::from_u128(1)),
            epoch: 0,
            ordinal: 0,
            in_flight: VecDeque::new(),
            last_input: None,
            ids: 0,
        };
        world.claim();
        world
    }

    /// A fresh UUIDv7 of the world's present time.
    pub fn id(&mut self) -> Uuid {
        self.ids += 1;
        let mut random = [0u8; 10];
        random[2..].copy_from_slice(&self.ids.to_be_bytes());
        let millis = u64::try_from(self.now.as_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// Stores bytes and has the owner fold them.
    pub fn store(&mut self, subject: &str, payload: Vec<u8>) -> Verdict {
        // One in three sequences belongs to messages that this decider does not read.
        let last = self.log.last().map_or(0, |m| m.sequence);
        let sequence = last + 1 + u64::from(last.is_multiple_of(3));
        let stored = Stored {
            sequence,
            time: self.now,
            subject: subject.to_owned(),
            payload,
        };
        let input = stored.input();
        self.log.push(stored);
        let verdict = self.state.evolve(&input, Some(&mut self.plan));
        self.verdicts.push(verdict);
        self.last_input = match &input {
            Input::Event(recorded) => Some(recorded.event.id.0),
            Input::Unreadable(message) => message.id.map(|id| id.0),
        };
        verdict
    }

    /// Stores an event.
    pub fn event(&mut self, subject: &Subject, event: &Event) -> Verdict {
        let payload = event.to_json().expect("events are JSON");
        self.store(&subject.to_string(), payload)
    }

    /// Stores what a client sends; answers with its id.
    pub fn client(&mut self, subject: Subject, about: Uuid, body: impl Into<Body>) -> Uuid {
        let id = self.id();
        self.client_as(id, subject, about, body);
        id
    }

    /// Stores what a client sends under an id of its own choice.
    pub fn client_as(
        &mut self,
        id: Uuid,
        subject: Subject,
        about: Uuid,
        body: impl Into<Body>,
    ) -> Verdict {
        let source = Source::Client("test".to_owned());
        let event = Event::new(EventId(id), source, self.now, &subject, about, body);
        self.event(&subject, &event)
    }

    /// Stores a decision of another service, under `epoch` (that service must have claimed, see [`World::claim_of`]).
    pub fn other(
        &mut self,
        service: crate::Service,
        subject: Subject,
        about: Uuid,
        body: impl Into<Body>,
        epoch: u64,
        ordinal: u64,
    ) -> Verdict {
        let source = Source::Service(service, InstanceId(Uuid::from_u128(2)));
        let id = EventId::of_decision(service.as_str(), epoch, ordinal);
        let mut event = Event::new(id, source, self.now, &subject, about, body);
        event.causation = self.last_input;
        event.decided = Some(Decided {
            cause_sequence: self.state.head().sequence,
            epoch,
            ordinal,
            decider_version: 1,
        });
        self.event(&subject, &event)
    }

    /// Stores a control message of a service; answers with its sequence.
    pub fn control(
        &mut self,
        service: crate::Service,
        verb: ControlVerb,
        body: impl Into<Body>,
    ) -> u64 {
        let partition = self.state.head().partition;
        let subject = Subject::Control(service, partition, verb);
        let source = Source::Service(service, self.instance);
        let about = Event::about_partition(partition);
        let id = self.id();
        let event = Event::new(EventId(id), source, self.now, &subject, about, body);
        self.event(&subject, &event);
        self.log.last().map_or(0, |m| m.sequence)
    }

    /// A claim of any service; answers with its epoch.
    pub fn claim_of(&mut self, service: crate::Service) -> u64 {
        let claimed = Claimed {
            instance: self.instance,
            decider_version: D::VERSION,
            previous: self.state.head().epoch(service).epoch,
            reason: "doubt".to_owned(),
            rejects: Vec::new(),
        };
        self.control(service, ControlVerb::Claimed, claimed)
    }

    /// Loses what is in flight and claims again.
    pub fn claim(&mut self) {
        self.in_flight.clear();
        self.epoch = self.claim_of(D::SERVICE);
        self.ordinal = 0;
        self.plan = self.state.plan();
    }

    /// Lets the owner decide; answers with how many decisions are new.
    pub fn decide(&mut self, limit: usize) -> usize {
        let mut out = Vec::new();
        self.state.decide(&mut self.plan, limit, &mut out);
        assert!(
            out.len() <= limit,
            "{} decisions, {limit} allowed",
            out.len()
        );
        let count = out.len();
        for decision in out {
            self.ordinal += 1;
            let decided = Decided {
                cause_sequence: self.state.head().sequence,
                epoch: self.epoch,
                ordinal: self.ordinal,
                decider_version: D::VERSION,
            };
            self.in_flight
                .push_back((decision, decided, self.last_input));
        }
        count
    }

    /// Stores what is in flight, then lets the owner decide, and with a plan made anew beside its own: both must decide the
    /// same, whatever has happened, and the owner must not wake later.
    ///
    /// # Errors
    /// What they see differently.
    pub fn decide_twice(&mut self, limit: usize) -> Result<usize, String> {
        while self.deliver().is_some() {}
        let mut fresh = self.state.plan();
        let mut expected = Vec::new();
        self.state.decide(&mut fresh, limit, &mut expected);
        let count = self.decide(limit);
        // Some deadlines are found while it is decided.
        let deadlines = [
            self.state.next_deadline(&fresh),
            self.state.next_deadline(&self.plan),
        ];
        let decided: Vec<&Decision> = self.in_flight.iter().map(|(d, ..)| d).collect();
        if expected.iter().collect::<Vec<_>>() != decided {
            return Err(format!("made anew: {expected:?}\nas it went: {decided:?}"));
        }
        // A timer may ring for what is gone since; nothing may be slept through.
        let late = match deadlines {
            [None, _] => false,
            [Some(due), own] => own.is_none_or(|own| own > due),
        };
        if late {
            return Err(format!("deadlines made anew and as it went: {deadlines:?}"));
        }
        Ok(count)
    }

    /// Decisions that are not stored yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Stores the oldest decision in flight.
    pub fn deliver(&mut self) -> Option<Verdict> {
        let (decision, decided, last_input) = self.in_flight.pop_front()?;
        let source = Source::Service(D::SERVICE, self.instance);
        let id = EventId::of_decision(D::SERVICE.as_str(), decided.epoch, decided.ordinal);
        let subject = decision.subject;
        let mut event = Event::new(
            id,
            source,
            self.now,
            &subject,
            decision.about,
            decision.body,
        );
        event.correlation = decision.correlation;
        event.causation = decision.causation.or(last_input);
        event.decided = Some(decided);
        let verdict = self.event(&subject, &event);
        let stored = self.log.last().expect("just stored").input();
        assert!(
            matches!(stored, Input::Event(_)),
            "an own decision cannot be read back: {stored:?}"
        );
        Some(verdict)
    }

    /// Decides and stores until nothing more comes without time passing.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let decided = self.decide(64);
            let stored = self.deliver().is_some();
            if decided == 0 && !stored {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Time passes; the owner is woken and settles.
    pub fn later(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
        self.control(D::SERVICE, ControlVerb::Woken, Woken {});
        self.settle();
    }

    /// Passes on from deadline to deadline until there is none; answers with the milliseconds that this took.
    pub fn run_out(&mut self) -> u64 {
        let start = self.now;
        for _ in 0..10_000 {
            self.settle();
            let Some(due) = self.state.next_deadline(&self.plan) else {
                return self.now.millis_since(start);
            };
            let wait = due.millis_since(self.now);
            self.later(wait.max(1));
        }
        panic!("there is always another deadline");
    }

    /// When something falls due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.state.next_deadline(&self.plan)
    }

    /// The log folded from the start by a stranger.
    pub fn cold(&self) -> D {
        let mut state = D::new(self.state.head().partition);
        for stored in &self.log {
            state.evolve(&stored.input(), None);
        }
        state
    }

    /// Everything stored, as read.
    pub fn inputs(&self) -> impl Iterator<Item = Input> {
        self.log.iter().map(Stored::input)
    }

    /// The owner's valid events that name `id` as their cause.
    pub fn answers(&self, id: Uuid) -> Vec<Event> {
        self.log
            .iter()
            .zip(&self.verdicts)
            .filter_map(|(stored, verdict)| match (stored.input(), verdict) {
                (_, Verdict::Void(_)) => None,
                (Input::Event(recorded), _)
                    if recorded.event.causation == Some(id)
                        && matches!(recorded.event.source, Source::Service(by, _) if by == D::SERVICE) =>
                {
                    Some(recorded.event)
                }
                _ => None,
            })
            .collect()
    }

    /// The owner's one valid event that names `id` as its cause.
    pub fn answer(&self, id: Uuid) -> Event {
        let mut answers = self.answers(id);
        assert_eq!(answers.len(), 1, "answers to {id}: {answers:?}");
        answers.remove(0)
    }
}
