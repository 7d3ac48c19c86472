//! The processes of one service: who runs, who is to be started.

use rand::{Rng, rngs::StdRng};
use swarm_coordinator_core::Coordinator;
use swarm_distributor_core::Distributor;
use swarm_events::{InstanceId, Partition, Service};
use swarm_health_core::Health;
use swarm_log::simulated::SimulatedLog;

use crate::{
    clock::{Clock, new_id},
    process::{Common, Member, Process},
    versions::{Later, Version},
};

/// A process that is to be started.
pub struct Coming {
    pub due: u64,
    pub name: Option<String>,
    pub version: Version,
}

pub struct Group {
    pub service: Service,
    pub members: Vec<Box<dyn Member>>,
    pub coming: Vec<Coming>,
    born: u64,
    /// Of those that are gone: joins, joins from a snapshot, snapshots.
    pub past: [u64; 3],
}

impl Group {
    pub fn new(service: Service) -> Self {
        Self {
            service,
            members: Vec::new(),
            coming: Vec::new(),
            born: 0,
            past: [0; 3],
        }
    }

    /// Starts a process and answers with its handle.
    pub fn spawn(
        &mut self,
        log: &SimulatedLog,
        partitions: &[Partition],
        coming: Coming,
        clock: &Clock,
        rng: &mut StdRng,
    ) -> String {
        self.born += 1;
        let handle = format!("{}-{}", self.service, self.born);
        let common = Common {
            handle: handle.clone(),
            name: coming.name,
            instance: InstanceId(new_id(clock, rng)),
            version: coming.version,
            paused_until: 0,
            silent_until: 0,
            cut: false,
            ended: false,
            leaving: false,
            sent: std::collections::VecDeque::new(),
            found: None,
            joins: 0,
            snapshots: 0,
            resumed: 0,
        };
        let later = coming.version == Version::After;
        let log = log.handle(&handle);
        let member: Box<dyn Member> = match (self.service, later) {
            (Service::Coordinator, false) => Box::new(Process::<Coordinator>::new(
                common, log, partitions, clock, rng,
            )),
            (Service::Coordinator, true) => Box::new(Process::<Later<Coordinator>>::new(
                common, log, partitions, clock, rng,
            )),
            (Service::Distributor, false) => Box::new(Process::<Distributor>::new(
                common, log, partitions, clock, rng,
            )),
            (Service::Distributor, true) => Box::new(Process::<Later<Distributor>>::new(
                common, log, partitions, clock, rng,
            )),
            (Service::Health | Service::Scaler, false) => {
                Box::new(Process::<Health>::new(common, log, partitions, clock, rng))
            }
            (Service::Health | Service::Scaler, true) => Box::new(Process::<Later<Health>>::new(
                common, log, partitions, clock, rng,
            )),
        };
        self.members.push(member);
        handle
    }

    /// A process is gone; what it did stays counted.
    pub fn remove(&mut self, number: usize) -> Box<dyn Member> {
        let gone = self.members.remove(number);
        for (sum, count) in self.past.iter_mut().zip(counts(gone.common())) {
            *sum += count;
        }
        gone
    }

    /// Joins, joins from a snapshot, snapshots.
    pub fn counts(&self) -> [u64; 3] {
        let mut sums = self.past;
        for member in &self.members {
            for (sum, count) in sums.iter_mut().zip(counts(member.common())) {
                *sum += count;
            }
        }
        sums
    }

    /// Which version the next process is of.
    pub fn next_version(&self, rng: &mut StdRng) -> Version {
        match rng.random_range(0..10) {
            0 => Version::Before,
            1..4 => Version::After,
            _ => Version::This,
        }
    }
}

fn counts(common: &Common) -> [u64; 3] {
    [common.joins, common.resumed, common.snapshots]
}
