//! What the log holds, read once for everybody.

use std::{collections::BTreeMap, sync::Arc};

use swarm_events::{
    EventId, Input, Partition, Recorded, Service, Subject, Timestamp, read,
    read::partition_of_subject, subject::filter,
};
use swarm_log::{StoredMessage, filter::matches};

/// The services that decide, in the order in which the simulation keeps them.
pub const SERVICES: [Service; 3] = [Service::Coordinator, Service::Distributor, Service::Health];

/// Place of a service in [`SERVICES`].
pub const fn number_of(service: Service) -> usize {
    match service {
        Service::Coordinator => 0,
        Service::Distributor => 1,
        Service::Health | Service::Scaler => 2,
    }
}

/// A message and what it says.
pub struct Met {
    pub stored: StoredMessage,
    pub input: Input,
    /// Whose input it is, by [`SERVICES`].
    inputs: [bool; 3],
    /// The partition in its subject.
    pub partition: Option<Partition>,
    /// It is about an organization.
    pub of_org: bool,
    /// Place of the message before it on its subject.
    previous: Option<usize>,
}
impl Met {
    pub fn sequence(&self) -> u64 {
        self.stored.sequence
    }
    pub fn recorded(&self) -> Option<&Recorded> {
        match &self.input {
            Input::Event(recorded) => Some(recorded),
            Input::Unreadable(_) => None,
        }
    }
    pub fn is_input_of(&self, service: Service) -> bool {
        self.inputs[number_of(service)]
    }
    /// Whether a service's fold of `partition` meets it: of what is its input, as the services' own loop has it, events of
    /// organizations concern every partition of the coordinator, and all else its own.
    pub fn is_for(&self, service: Service, partition: Partition) -> bool {
        let of_all = self.of_org && service == Service::Coordinator;
        self.is_input_of(service) && (of_all || self.partition == Some(partition))
    }
}

/// The log as it is.
pub struct Journal {
    met: Vec<Met>,
    by_subject: BTreeMap<Arc<str>, Vec<usize>>,
    by_event: BTreeMap<EventId, usize>,
    filters: [Vec<String>; 3],
}

impl Journal {
    pub fn new() -> Self {
        Self {
            met: Vec::new(),
            by_subject: BTreeMap::new(),
            by_event: BTreeMap::new(),
            filters: SERVICES.map(|service| filter::inputs(service, None)),
        }
    }

    pub fn push(&mut self, stored: StoredMessage) {
        let at = self.met.len();
        let time = Timestamp::from_micros(stored.time_micros);
        let input = read(stored.sequence, time, &stored.subject, &stored.payload);
        let of_org = matches!(&input, Input::Event(r) if matches!(r.subject, Subject::Org(..)));
        if let Input::Event(recorded) = &input {
            self.by_event.insert(recorded.event.id, at);
        }
        let list = self.by_subject.entry(stored.subject.clone()).or_default();
        let previous = list.last().copied();
        list.push(at);
        let inputs = std::array::from_fn(|service| {
            self.filters[service]
                .iter()
                .any(|f| matches(f, &stored.subject))
        });
        self.met.push(Met {
            partition: partition_of_subject(&stored.subject),
            inputs,
            of_org,
            previous,
            input,
            stored,
        });
    }

    pub fn all(&self) -> &[Met] {
        &self.met
    }
    pub fn last_sequence(&self) -> u64 {
        self.met.last().map_or(0, Met::sequence)
    }
    /// What lies behind `sequence`.
    pub fn after(&self, sequence: u64) -> &[Met] {
        &self.met[self.met.partition_point(|m| m.sequence() <= sequence)..]
    }
    /// Last sequence on a subject, 0 if none.
    pub fn last_of(&self, subject: &str) -> u64 {
        let last = self.by_subject.get(subject).and_then(|list| list.last());
        last.map_or(0, |at| self.met[*at].sequence())
    }
    /// The messages of a subject.
    pub fn on(&self, subject: &str) -> impl DoubleEndedIterator<Item = &Met> {
        let list = self.by_subject.get(subject).map_or(&[][..], Vec::as_slice);
        list.iter().map(|at| &self.met[*at])
    }
    /// Sequence of the message before this one on its subject, 0 if none.
    pub fn previous(&self, met: &Met) -> u64 {
        met.previous.map_or(0, |at| self.met[at].sequence())
    }
    /// Where the last copy of an event stands.
    pub fn find(&self, id: EventId) -> Option<u64> {
        self.by_event.get(&id).map(|at| self.met[*at].sequence())
    }
}
