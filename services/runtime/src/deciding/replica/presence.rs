//! What a replica hears of the others, and what it says of itself.

use std::time::Duration;

use swarm_events::{Timestamp, control::Observed, decider::Decider, ids::InstanceId};

use super::{OBSERVATIONS_MAX, Replica, index};
use crate::deciding::{
    machine::Mode,
    members::{Announcement, Held, News, Role},
};

impl<D: Decider> Replica<D> {
    /// A presence key was read.
    pub fn heard(&mut self, said: Announcement, written: Timestamp, now: Duration) {
        if said.service != D::SERVICE.as_str() {
            return;
        }
        let news = self.members.heard(said, written, now);
        self.news(news);
        // It may have taken the place of another.
        let news = self.members.check(now);
        self.news(news);
        self.assess = true;
    }
    /// Every key that is there has been read.
    pub fn complete(&mut self, now: Duration) {
        self.complete = true;
        self.members.complete(now);
        let news = self.members.check(now);
        self.news(news);
        self.assess = true;
    }
    /// A presence key is gone.
    pub fn removed(&mut self, instance: InstanceId) {
        self.members.removed(instance);
        self.assess = true;
    }
    /// The own renewal was acknowledged.
    pub fn renewed(&mut self, now: Duration) {
        self.members.renewed(now);
    }
    /// nats-server says that a member's connection closed.
    pub fn noticed(&mut self, instance: InstanceId, now: Duration) {
        self.members.noticed(instance, now);
    }

    pub(super) fn news(&mut self, news: impl IntoIterator<Item = News>) {
        for news in news {
            self.assess = true;
            // One of the living says it for all.
            if !self.members.is_first() || self.observations.len() == OBSERVATIONS_MAX {
                continue;
            }
            match news {
                News::Died {
                    instance,
                    since,
                    replaced: false,
                } => self.observations.push(Observed::CutOff {
                    instance,
                    since,
                    until: None,
                }),
                News::Died { replaced: true, .. } => {}
                News::Returned {
                    instance,
                    since,
                    until,
                } => self.observations.push(Observed::CutOff {
                    instance,
                    since,
                    until: Some(until),
                }),
            }
        }
    }

    /// Hands everything over and ends ([`super::Action::End`]).
    pub fn leave(&mut self, now: Duration) {
        if self.leaving.is_none() {
            self.leaving = Some(now);
            self.members.leave();
            self.changed = true;
            self.assess = true;
        }
    }

    pub(super) fn announcement(&self) -> Announcement {
        let partitions = self
            .folded()
            .filter_map(|partition| {
                let slot = self.slots[index(partition)].as_ref()?;
                let role = match slot.machine.mode() {
                    Mode::Owner { .. } => Role::Owner,
                    Mode::Standby | Mode::Claiming => Role::Standby,
                };
                let epoch = slot.machine.state().head().epoch(D::SERVICE).epoch;
                Some((
                    partition,
                    Held {
                        role,
                        epoch,
                        since: slot.since,
                    },
                ))
            })
            .collect();
        Announcement {
            service: D::SERVICE.as_str().to_owned(),
            instance: self.instance,
            name: self.name.clone(),
            started_at: self.started_at,
            counter: self.counter,
            leaving: self.leaving.is_some(),
            sequence: self.position,
            log_time: self.log_time,
            partitions,
            stuck: self.stuck(),
            cut_off_since: self.interrupted.map(|(_, since)| since),
        }
    }
}
