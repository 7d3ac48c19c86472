//! The cold folds: what the state is at each sequence, whoever else says what.

use std::{cell::Cell, collections::BTreeMap};

use swarm_audit::{Invariant, Violation};
use swarm_coordinator_core::Coordinator;
use swarm_distributor_core::Distributor;
use swarm_events::{Partition, Service, decider::Decider};
use swarm_health_core::Health;
use swarm_runtime::deciding::state_hash;

use crate::journal::{Met, number_of};

pub type Hash = [u8; 32];

/// At which sequences states are compared.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    every: u64,
    rest: u64,
}
impl Sampling {
    /// Every sequence in each eighth seed, every sixteenth in the others, each seed with another rest.
    pub fn of(seed: u64) -> Self {
        if seed.is_multiple_of(8) {
            Self { every: 1, rest: 0 }
        } else {
            Self {
                every: 16,
                rest: seed % 16,
            }
        }
    }
    pub fn takes(self, sequence: u64) -> bool {
        sequence % self.every == self.rest
    }
}

/// How often a state is written, read back and written again: each of so many compared.
const ROUND_TRIP_EVERY: u64 = 8;

struct Cold<D> {
    states: Vec<D>,
}

/// One fold of each service and partition, and its hashes.
pub struct Folds {
    pub sampling: Sampling,
    coordinators: Cold<Coordinator>,
    distributors: Cold<Distributor>,
    healths: Cold<Health>,
    hashes: BTreeMap<(usize, u8, u64), Hash>,
    compared: Cell<u64>,
}

impl Folds {
    pub fn new(partitions: &[Partition], sampling: Sampling) -> Self {
        Self {
            sampling,
            coordinators: Cold::new(partitions),
            distributors: Cold::new(partitions),
            healths: Cold::new(partitions),
            hashes: BTreeMap::new(),
            compared: Cell::new(0),
        }
    }

    /// Meets the next message.
    pub fn meet(&mut self, met: &Met) -> Option<Violation> {
        let (sampling, hashes) = (self.sampling, &mut self.hashes);
        let found = self.coordinators.meet(met, sampling, hashes);
        let found = found.or(self.distributors.meet(met, sampling, hashes));
        found.or(self.healths.meet(met, sampling, hashes))
    }

    /// Whether a state that somebody has is that of the cold fold at the same sequence, if that is known.
    pub fn compare<D: Decider>(&self, state: &D, who: &str) -> Option<Violation> {
        let head = state.head();
        let key = (
            number_of(D::SERVICE),
            head.partition.number(),
            head.sequence,
        );
        let cold = match self.hashes.get(&key) {
            Some(hash) => *hash,
            None => self.now(D::SERVICE, head.partition, head.sequence)?,
        };
        self.compared.set(self.compared.get() + 1);
        (state_hash(state).ok()? != cold).then(|| Violation {
            invariant: Invariant::FoldsAgree,
            sequence: head.sequence,
            detail: format!("{who} differs from the cold fold of {}", head.partition),
        })
    }

    /// How many states were compared.
    pub fn compared(&self) -> u64 {
        self.compared.get()
    }

    /// The hash of a cold fold, if it stands at `sequence`.
    fn now(&self, service: Service, partition: Partition, sequence: u64) -> Option<Hash> {
        match service {
            Service::Coordinator => self.coordinators.now(partition, sequence),
            Service::Distributor => self.distributors.now(partition, sequence),
            Service::Health => self.healths.now(partition, sequence),
            Service::Scaler => None,
        }
    }
}

impl<D: Decider> Cold<D> {
    fn new(partitions: &[Partition]) -> Self {
        Self {
            states: partitions.iter().map(|p| D::new(*p)).collect(),
        }
    }

    fn now(&self, partition: Partition, sequence: u64) -> Option<Hash> {
        let state = self
            .states
            .iter()
            .find(|s| s.head().partition == partition && s.head().sequence == sequence)?;
        state_hash(state).ok()
    }

    fn meet(
        &mut self,
        met: &Met,
        sampling: Sampling,
        hashes: &mut BTreeMap<(usize, u8, u64), Hash>,
    ) -> Option<Violation> {
        let sequence = met.sequence();
        for state in &mut self.states {
            let partition = state.head().partition;
            if !met.is_for(D::SERVICE, partition) {
                continue;
            }
            state.evolve(&met.input, None);
            if !sampling.takes(sequence) {
                continue;
            }
            let hash = state_hash(state).unwrap_or_default();
            hashes.insert((number_of(D::SERVICE), partition.number(), sequence), hash);
            if sequence % ROUND_TRIP_EVERY == sampling.rest % ROUND_TRIP_EVERY
                && let Some(detail) = round_trip(state, hash)
            {
                return Some(Violation {
                    invariant: Invariant::FoldsAgree,
                    sequence,
                    detail: format!("{} {partition}: {detail}", D::SERVICE),
                });
            }
        }
        None
    }
}

/// A state that is written and read back is the same state.
fn round_trip<D: Decider>(state: &D, hash: Hash) -> Option<String> {
    let bytes = match postcard::to_stdvec(state) {
        Ok(bytes) => bytes,
        Err(error) => return Some(format!("cannot be written: {error}")),
    };
    match postcard::from_bytes::<D>(&bytes) {
        Ok(back) => (state_hash(&back).ok() != Some(hash))
            .then(|| "is another state once it was written and read back".to_owned()),
        Err(error) => Some(format!("cannot be read back: {error}")),
    }
}
