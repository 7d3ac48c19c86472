//! The end of all faults: from here on everything that was accepted must end.

use rand::Rng;
use swarm_log::simulated::Faults;

use super::World;
use crate::{agent::ModelAgent, host::ModelHost, versions::Version};

impl World {
    pub(super) fn heal(&mut self) {
        self.faulty = false;
        self.full_until = 0;
        for name in self.names() {
            self.log.set_faults(&name, Faults::none());
            self.log.reconnect(&name);
        }
        if self.cluster || self.rng.random() {
            // On a cluster nothing passes a check that is in flight.
            self.log.release_ghosts();
        }
        self.agents.iter_mut().for_each(ModelAgent::rise);
        self.hosts.iter_mut().for_each(ModelHost::rise);
        for projector in &mut self.projectors {
            projector.paused_until = 0;
        }
        let now = self.clock.micros();
        for group in &mut self.groups {
            for coming in &mut group.coming {
                coming.due = now;
            }
            // The upgrade is carried through: what cannot fold any more is replaced.
            let mut number = 0;
            while number < group.members.len() {
                let common = group.members[number].common_mut();
                common.paused_until = 0;
                common.silent_until = 0;
                common.cut = false;
                if common.version == Version::Before {
                    let gone = group.remove(number);
                    let name = gone.common().name.clone();
                    group.coming.push(crate::group::Coming {
                        due: now,
                        name,
                        version: Version::This,
                    });
                } else {
                    number += 1;
                }
            }
            for coming in &mut group.coming {
                coming.version = Version::This;
            }
        }
    }
}
