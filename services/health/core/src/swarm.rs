//! A swarm that is watched, and the hosts of its processes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, OrgId, Place, SwarmId, Timestamp,
    agent::Evidence,
    configuration::{Configuration, HealthPolicy},
    swarm::{MEASURED_NAMES_MAX, Outcomes},
};
use uuid::Uuid;

use crate::{
    Thresholds,
    agent::Agent,
    window::{Rate, Window},
};

/// An agent's place in the state.
pub(crate) type Key = (OrgId, SwarmId, AgentId);

/// A swarm's place in the state.
pub(crate) type SwarmKey = (OrgId, SwarmId);

/// A swarm that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swarm {
    /// Partition, organization, id.
    pub place: Place,
    /// When silence means something.
    pub thresholds: Thresholds,
    /// When an agent is held to be unfit.
    pub policy: HealthPolicy,
    /// It is being terminated or has been.
    pub stopping: bool,
    /// Deleted: nothing is watched any more.
    pub deleted: bool,
    /// Agents, those that have gone too (their incarnation goes on when they come back).
    pub agents: BTreeMap<AgentId, Agent>,
    /// All windows of `agents` together.
    pub(crate) total: Window,
    pub(crate) types: BTreeMap<String, Counted>,
    pub(crate) capabilities: BTreeMap<String, Counted>,
}

/// Figures that only rise, and what of them falls into the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    last: Outcomes,
    window: Window,
}

impl Swarm {
    pub(crate) fn new(place: Place, configuration: &Configuration) -> Self {
        let policy = configuration.health;
        Self {
            place,
            thresholds: Thresholds::of(configuration),
            policy,
            stopping: false,
            deleted: false,
            agents: BTreeMap::new(),
            total: Window::new(policy.error_window_ms),
            types: BTreeMap::new(),
            capabilities: BTreeMap::new(),
        }
    }

    /// Takes over new settings. A window of another length starts empty: what the old one held cannot be divided anew.
    pub(crate) fn configure(&mut self, configuration: &Configuration) {
        let before = std::mem::replace(&mut self.policy, configuration.health);
        self.thresholds = Thresholds::of(configuration);
        let window_ms = self.policy.error_window_ms;
        if window_ms == before.error_window_ms {
            return;
        }
        self.total = Window::new(window_ms);
        for agent in self.agents.values_mut() {
            agent.window = Window::new(window_ms);
        }
        for counted in self
            .types
            .values_mut()
            .chain(self.capabilities.values_mut())
        {
            counted.window = Window::new(window_ms);
        }
    }

    /// How many attempts failed within the window, by task type. At most [`MEASURED_NAMES_MAX`] names and the one for the
    /// rest, [`swarm_events::swarm::OTHER_NAMES`].
    pub fn type_rates(&self, now: Timestamp) -> impl Iterator<Item = (&str, Rate)> {
        rates(&self.types, now)
    }
    /// As [`Swarm::type_rates`], by required capability.
    pub fn capability_rates(&self, now: Timestamp) -> impl Iterator<Item = (&str, Rate)> {
        rates(&self.capabilities, now)
    }
    /// How many attempts of all agents together failed within the window.
    pub fn rate(&self, now: Timestamp) -> Rate {
        self.total.rate(now)
    }
}

fn rates(
    counted: &BTreeMap<String, Counted>,
    now: Timestamp,
) -> impl Iterator<Item = (&str, Rate)> {
    counted
        .iter()
        .map(move |(name, counted)| (name.as_str(), counted.window.rate(now)))
}

/// Notes the figures of names. The distributor tells of no more than fit; what came beyond all the same is passed over.
pub(crate) fn count_names(
    counted: &mut BTreeMap<String, Counted>,
    figures: &BTreeMap<String, Outcomes>,
    now: Timestamp,
    window_ms: u64,
) {
    for (name, new) in figures {
        // One more than names are told of: the sum of the rest has a name too.
        if counted.len() > MEASURED_NAMES_MAX && !counted.contains_key(name) {
            continue;
        }
        let found = counted.entry(name.clone()).or_insert_with(|| Counted {
            last: Outcomes::default(),
            window: Window::new(window_ms),
        });
        let completed = risen(found.last.completed, new.completed);
        let failed = risen(found.last.failed, new.failed);
        found.window.add(now, completed, failed);
        found.last = *new;
    }
}

/// By how much a figure that only rises has risen. One that fell has begun again at nothing.
pub(crate) const fn risen(before: u64, now: u64) -> u64 {
    if now < before { now } else { now - before }
}

/// A host with claims on processes of this partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Agents whose processes it has claimed.
    pub(crate) agents: BTreeSet<Key>,
    /// It was seen to be gone.
    pub(crate) gone: Option<Gone>,
}

/// What was seen of a host that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    /// The observation.
    pub(crate) event: Uuid,
    pub(crate) evidence: Evidence,
}
