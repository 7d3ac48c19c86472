//! What goes wrong, drawn from the seed.

use bytes::Bytes;
use futures::FutureExt;
use rand::Rng;
use swarm_events::{
    Subject,
    read::{Writer, writer},
    subject::{AgentVerb, TaskVerb},
};
use swarm_log::{
    Log, Message,
    simulated::{FaultRates, Faults},
};

use super::{
    World,
    faultiness::{FULL, RATES},
};
use crate::{group::Coming, shells::HOST_SILENCE_MS};

/// Most processes of a service.
const MEMBERS_MAX: usize = 4;

impl World {
    pub(super) fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    /// Everybody's line to the log goes bad at these rates.
    pub(super) fn spoil(&mut self, rates: FaultRates) {
        for name in self.names() {
            let faults = Faults::seeded(self.rng.random(), rates);
            self.log.set_faults(&name, faults);
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.agents.iter().map(|a| a.name.clone()).collect();
        names.extend(self.hosts.iter().map(|host| host.name.clone()));
        for group in &self.groups {
            names.extend(group.members.iter().map(|m| m.common().handle.clone()));
        }
        names.push("client".to_owned());
        names
    }

    pub(super) fn disturb(&mut self) {
        let now = self.clock.micros();
        if self.full_until != 0 && self.full_until <= now {
            self.full_until = 0;
            self.spoil(RATES);
        }
        match self.rng.random_range(0..2_000) {
            0..3 => self.kill(),
            3..6 => self.pause(),
            6..8 => self.stop(),
            8 => self.add(),
            9..11 => self.silence(),
            11..13 => self.cut_off(),
            13..21 => self.join_up(),
            21..24 => self.hurt_an_agent(),
            24..33 => {
                let released = self.log.release_ghosts() as u64;
                *self.faults.entry("ghosts stored").or_default() += released;
            }
            33..42 => self.repeat_of_a_service(),
            42..50 => self.repeat_of_others(),
            50..53 => self.hurt_a_snapshot(),
            53..57 => self.hurt_a_projector(),
            57 if self.full_until == 0 => {
                self.fault("log full");
                self.full_until = now + self.rng.random_range(200_000..3_000_000);
                self.spoil(FULL);
            }
            59..65 => self.hurt_a_host(),
            58 => {
                self.fault("presence lost");
                self.log.forget_presence();
            }
            _ => {}
        }
    }

    /// A process, if there is one.
    fn any(&mut self) -> Option<(usize, usize)> {
        let group = self.rng.random_range(0..self.groups.len());
        let count = self.groups[group].members.len();
        (count > 0).then(|| (group, self.rng.random_range(0..count)))
    }

    fn kill(&mut self) {
        let Some((group, number)) = self.any() else {
            return;
        };
        self.fault("process killed");
        let gone = self.groups[group].remove(number);
        let (instance, name) = (gone.common().instance, gone.common().name.clone());
        if self.rng.random() {
            // nats-server tells of the closed connection.
            self.fault("closed connection told");
            for member in &mut self.groups[group].members {
                member.noticed(instance, &self.clock);
            }
        }
        let due = self.clock.micros()
            + if self.rng.random() {
                self.rng.random_range(0..300_000)
            } else {
                self.rng.random_range(300_000..8_000_000)
            };
        let version = self.groups[group].next_version(&mut self.rng);
        self.groups[group]
            .coming
            .push(Coming { due, name, version });
    }

    fn pause(&mut self) {
        let now = self.clock.micros();
        if let Some((group, number)) = self.any() {
            self.fault("process paused");
            let until = now + self.rng.random_range(100_000..6_000_000);
            self.groups[group].members[number].common_mut().paused_until = until;
        }
    }

    fn stop(&mut self) {
        let Some((group, number)) = self.any() else {
            return;
        };
        if !self.groups[group].members[number].common().leaving {
            self.fault("planned stop");
            self.groups[group].members[number].leave(&self.clock);
        }
    }

    fn add(&mut self) {
        let group = self.rng.random_range(0..self.groups.len());
        if self.groups[group].members.len() + self.groups[group].coming.len() < MEMBERS_MAX {
            self.fault("process added");
            let version = self.groups[group].next_version(&mut self.rng);
            self.groups[group].coming.push(Coming {
                due: 0,
                name: None,
                version,
            });
        }
    }

    /// Its presence expires although it lives, about when the others give it up.
    fn silence(&mut self) {
        let now = self.clock.micros();
        if let Some((group, number)) = self.any() {
            self.fault("presence expired");
            let until = now + self.rng.random_range(1_500_000..3_500_000);
            self.groups[group].members[number].common_mut().silent_until = until;
        }
    }

    fn cut_off(&mut self) {
        if let Some((group, number)) = self.any() {
            self.fault("process cut off");
            let common = self.groups[group].members[number].common_mut();
            common.cut = true;
            self.log.disconnect(&common.handle);
        }
    }

    fn join_up(&mut self) {
        for name in self.names() {
            self.log.reconnect(&name);
        }
        for member in self.groups.iter_mut().flat_map(|g| &mut g.members) {
            member.common_mut().cut = false;
        }
    }

    fn hurt_an_agent(&mut self) {
        let now = self.clock.micros();
        let number = self.rng.random_range(0..self.agents.len());
        if self.rng.random() {
            self.fault("agent killed");
            let until = now + self.rng.random_range(100_000..8_000_000);
            self.agents[number].crash(until);
        } else {
            self.fault("agent paused");
            self.agents[number].paused_until = now + self.rng.random_range(500_000..9_000_000);
        }
    }

    fn hurt_a_host(&mut self) {
        let now = self.clock.micros();
        let number = self.rng.random_range(0..self.hosts.len());
        let host = &mut self.hosts[number];
        match self.rng.random_range(0..8) {
            0..2 => {
                // Its processes die with it, and it comes back under another id.
                let (gone, until) = (host.instance(), now + self.rng.random_range(0..9_000_000));
                host.kill(until);
                if self.rng.random() {
                    // nats-server tells of the closed connection: half a second is left of its silence.
                    let at = now.saturating_sub((HOST_SILENCE_MS - 500) * 1_000);
                    for health in &mut self.groups[2].members {
                        health.hear_host(gone, at);
                    }
                }
                self.fault("host killed");
            }
            2..4 => {
                host.paused_until = now + self.rng.random_range(500_000..12_000_000);
                self.fault("host paused");
            }
            4 => {
                host.leave(now);
                self.fault("host stopped");
            }
            _ => {
                if host.kill_one(&mut self.rng) {
                    self.fault("process of an agent killed");
                }
            }
        }
    }

    /// Something that a service sent arrives once more, under the same fence.
    fn repeat_of_a_service(&mut self) {
        let Some((group, number)) = self.any() else {
            return;
        };
        let sent = &self.groups[group].members[number].common().sent;
        if sent.is_empty() {
            return;
        }
        let message = sent[self.rng.random_range(0..sent.len())].clone();
        let stored = self.reader.append(vec![message]).now_or_never();
        if stored.is_some_and(|results| results.iter().all(Result::is_ok)) {
            self.fault("decision repeated");
        }
    }

    /// Something that a client or an agent sent arrives once more, long after, from somebody who checks nothing.
    fn repeat_of_others(&mut self) {
        let all = self.journal.all();
        let back = self
            .rng
            .random_range(0..200)
            .min(all.len().saturating_sub(1));
        let Some(met) = all.len().checked_sub(1 + back).map(|at| &all[at]) else {
            return;
        };
        let Some(recorded) = met.recorded() else {
            return;
        };
        if !matches!(
            writer(&recorded.subject),
            Writer::Agent | Writer::Client | Writer::Host
        ) {
            return;
        }
        if matches!(
            recorded.subject,
            Subject::Task(_, TaskVerb::Started, _) | Subject::Agent(_, AgentVerb::SpawnClaimed, _)
        ) {
            // Every agent starts, and every host claims, under the check; without it, nothing is promised.
            return;
        }
        let message = Message {
            subject: met.stored.subject.to_string(),
            payload: met.stored.payload.clone(),
            message_id: None,
            fence: None,
        };
        drop(self.reader.append(vec![message]).now_or_never());
        self.fault("message repeated");
    }

    fn hurt_a_snapshot(&mut self) {
        let Some(Ok(names)) = self.reader.list_objects("snapshot.").now_or_never() else {
            return;
        };
        if names.is_empty() {
            return;
        }
        let name = &names[self.rng.random_range(0..names.len())];
        if self.rng.random() {
            self.faults
                .entry("snapshot lost")
                .and_modify(|n| *n += 1)
                .or_insert(1);
            drop(self.reader.delete_object(name).now_or_never());
        } else if let Some(Ok(Some(bytes))) = self.reader.get_object(name).now_or_never() {
            if bytes.is_empty() {
                return; // cut off entirely before
            }
            let mut bytes = bytes.to_vec();
            let at = self.rng.random_range(0..bytes.len());
            if self.rng.random_ratio(1, 3) {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << self.rng.random_range(0..8);
            }
            self.faults
                .entry("snapshot damaged")
                .and_modify(|n| *n += 1)
                .or_insert(1);
            drop(
                self.reader
                    .put_object(name, Bytes::from(bytes))
                    .now_or_never(),
            );
        }
    }

    fn hurt_a_projector(&mut self) {
        let number = self.rng.random_range(0..self.projectors.len());
        self.sessions += 1;
        let projector = &mut self.projectors[number];
        if self.rng.random() {
            // With or without a batch that is not committed.
            self.database.drop_session(projector.session());
            projector.restart(self.sessions);
            self.fault("projector killed");
        } else {
            // PostgreSQL ends its session meanwhile, and the other one goes on.
            projector.paused_until =
                self.clock.micros() + self.rng.random_range(500_000..5_000_000);
            self.database.drop_session(projector.session());
            projector.lose_session(self.sessions);
            self.fault("projector paused");
        }
    }
}
