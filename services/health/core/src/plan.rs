//! What only the owner knows.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    Body, Recorded, Timestamp, agent::Cause, agent::LivenessRule, subject::Subject,
};
use uuid::Uuid;

use crate::swarm::Key;

/// The owner's overlay: what is due, what is answered by a decision that is not met yet, and when something falls due.
#[derive(Debug, Default)]
pub struct Plan {
    /// Observations.
    pub(crate) due: BTreeSet<u64>,
    pub(crate) under_way: BTreeMap<Uuid, u64>,
    /// Agents of whom the state may demand something.
    pub(crate) agents: BTreeSet<Key>,
    /// What is demanded and decided.
    pub(crate) demands: BTreeSet<(Key, Kind)>,
    /// Agents that are spared for the others' sake.
    pub(crate) spared: BTreeSet<Key>,
    /// When an agent is to be looked at again, both ways.
    timers: BTreeSet<(Timestamp, Key)>,
    timer_of: BTreeMap<Key, Timestamp>,
}

/// What a state can demand about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Its host is gone.
    HostFailed,
    /// Its process has ended.
    Exited,
    /// It is unfit, or fit again.
    Quarantine(Cause),
}
impl Kind {
    /// What an own event answers.
    fn of(body: &Body) -> Option<Self> {
        Some(match body {
            Body::AgentHostFailed(_) => Self::HostFailed,
            Body::AgentFailed(e) if e.evidence.rule == LivenessRule::Exited => Self::Exited,
            Body::AgentQuarantined(e) => Self::Quarantine(e.cause),
            Body::AgentReleased(e) => Self::Quarantine(e.cause),
            _ => return None,
        })
    }
}

impl Plan {
    /// Nothing is under way: these observations are due, and these agents are to be looked at.
    pub(crate) fn new(
        observations: impl Iterator<Item = u64>,
        agents: impl Iterator<Item = Key>,
    ) -> Self {
        Self {
            due: observations.collect(),
            agents: agents.collect(),
            ..Self::default()
        }
    }

    /// A decision of the current epoch was met, valid or void: what it was about is looked at again.
    pub(crate) fn met(&mut self, recorded: &Recorded) {
        let (Subject::Agent(place, _, agent), Some(kind)) =
            (recorded.subject, Kind::of(&recorded.event.body))
        else {
            return;
        };
        let key = (place.org, place.swarm, agent);
        if self.demands.remove(&(key, kind)) {
            self.agents.insert(key);
        }
    }

    /// Looks again at those whose time has come.
    pub(crate) fn ring(&mut self, now: Timestamp) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.set_timer(key, None);
            self.agents.insert(key);
        }
    }
    pub(crate) fn set_timer(&mut self, key: Key, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.timer_of.insert(key, at),
            None => self.timer_of.remove(&key),
        };
        if let Some(before) = before {
            self.timers.remove(&(before, key));
        }
        if let Some(at) = at {
            self.timers.insert((at, key));
        }
    }
    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }
}
