//! What goes wrong, drawn from the seed, and its end.

use rand::Rng;
use swarm_log::simulated::Faults;

use super::{RATES, World};
use crate::agent::ModelAgent;

impl World {
    pub(super) fn disturb(&mut self) {
        let now = self.clock.micros();
        match self.rng.random_range(0..1_500) {
            0 => {
                self.fault("replica killed");
                let (log, clock, partition) =
                    (self.log.clone(), self.clock.clone(), self.place.partition);
                macro_rules! kill {
                    ($group:expr) => {{
                        let number = self.rng.random_range(0..$group.replicas.len());
                        $group.replicas.remove(number);
                        $group.spawn(&log, partition, &clock, &mut self.rng);
                        let name = $group
                            .replicas
                            .last()
                            .map(|r| r.name.clone())
                            .unwrap_or_default();
                        let seed = self.rng.random();
                        self.log.set_faults(&name, Faults::seeded(seed, RATES));
                    }};
                }
                match self.rng.random_range(0..3) {
                    0 => kill!(self.coordinators),
                    1 => kill!(self.distributors),
                    _ => kill!(self.healths),
                }
            }
            1 | 2 => {
                self.fault("replica paused");
                let until = now + self.rng.random_range(100_000..6_000_000);
                macro_rules! pause {
                    ($group:expr) => {{
                        let number = self.rng.random_range(0..$group.replicas.len());
                        $group.replicas[number].paused_until = until;
                    }};
                }
                match self.rng.random_range(0..3) {
                    0 => pause!(self.coordinators),
                    1 => pause!(self.distributors),
                    _ => pause!(self.healths),
                }
            }
            3 | 4 => {
                self.fault("agent killed");
                let number = self.rng.random_range(0..self.agents.len());
                let until = now + self.rng.random_range(100_000..8_000_000);
                self.agents[number].crash(until);
            }
            5 | 6 => {
                self.fault("agent paused");
                let number = self.rng.random_range(0..self.agents.len());
                self.agents[number].paused_until = now + self.rng.random_range(500_000..9_000_000);
            }
            7..12 => {
                let released = self.log.release_ghosts() as u64;
                *self.faults.entry("ghosts stored").or_default() += released;
            }
            12 => {
                self.fault("service cut off");
                let names: Vec<String> = self
                    .distributors
                    .replicas
                    .iter()
                    .map(|r| r.name.clone())
                    .collect();
                let name = &names[self.rng.random_range(0..names.len())];
                self.log.disconnect(name);
            }
            13..20 => {
                for name in self.names() {
                    self.log.reconnect(&name);
                }
            }
            _ => {}
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.agents.iter().map(|a| a.name.clone()).collect();
        names.extend(self.coordinators.replicas.iter().map(|r| r.name.clone()));
        names.extend(self.distributors.replicas.iter().map(|r| r.name.clone()));
        names.extend(self.healths.replicas.iter().map(|r| r.name.clone()));
        names.push("client".to_owned());
        names
    }

    pub(super) fn heal(&mut self) {
        self.faulty = false;
        for name in self.names() {
            self.log.set_faults(&name, Faults::none());
            self.log.reconnect(&name);
        }
        self.agents.iter_mut().for_each(ModelAgent::rise);
        self.coordinators
            .replicas
            .iter_mut()
            .for_each(|r| r.paused_until = 0);
        self.distributors
            .replicas
            .iter_mut()
            .for_each(|r| r.paused_until = 0);
        self.healths
            .replicas
            .iter_mut()
            .for_each(|r| r.paused_until = 0);
    }
}
