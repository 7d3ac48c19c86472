//! Who sits where, and what is looked for in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId,
    topology::{Role, Seat},
};

/// The seats of a generation, with indexes that follow from them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(crate) struct Seats {
    seats: BTreeMap<AgentId, Seat>,
    /// The names by which the topology's options name those who sit here.
    names: BTreeMap<AgentId, String>,
    by_place: BTreeMap<u64, AgentId>,
    by_name: BTreeMap<String, AgentId>,
    children: BTreeMap<AgentId, BTreeSet<(u64, AgentId)>>,
    /// Coordinators and supervisors, by level.
    inner: BTreeMap<u32, BTreeSet<(u64, AgentId)>>,
    /// Those without a parent.
    tops: BTreeSet<(u64, AgentId)>,
    standby: BTreeSet<(u64, AgentId)>,
    working: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    seats: BTreeMap<AgentId, Seat>,
    names: BTreeMap<AgentId, String>,
}
impl From<Stored> for Seats {
    fn from(stored: Stored) -> Self {
        let mut all = Self::default();
        let Stored { seats, mut names } = stored;
        for (agent, seat) in seats {
            all.set(agent, seat, names.remove(&agent));
        }
        all
    }
}
impl From<Seats> for Stored {
    fn from(seats: Seats) -> Self {
        Self {
            seats: seats.seats,
            names: seats.names,
        }
    }
}

impl Seats {
    pub(crate) fn get(&self, agent: AgentId) -> Option<&Seat> {
        self.seats.get(&agent)
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (AgentId, &Seat)> {
        self.by_place
            .values()
            .filter_map(|id| Some((*id, self.seats.get(id)?)))
    }
    pub(crate) fn len(&self) -> usize {
        self.seats.len()
    }
    pub(crate) fn at(&self, place: u64) -> Option<AgentId> {
        self.by_place.get(&place).copied()
    }
    pub(crate) fn last_place(&self) -> u64 {
        self.by_place
            .last_key_value()
            .map_or(0, |(place, _)| *place)
    }
    /// Those after a place in the circle, once round, the one at the place last.
    pub(crate) fn after(&self, place: u64) -> impl Iterator<Item = AgentId> {
        self.by_place
            .range(place.saturating_add(1)..)
            .chain(self.by_place.range(..=place))
            .map(|(_, id)| *id)
    }
    /// Those before a place in the circle, once round, the one at the place last.
    pub(crate) fn before(&self, place: u64) -> impl Iterator<Item = AgentId> {
        self.by_place
            .range(..place)
            .rev()
            .chain(self.by_place.range(place..).rev())
            .map(|(_, id)| *id)
    }
    pub(crate) fn name(&self, agent: AgentId) -> Option<&str> {
        self.names.get(&agent).map(String::as_str)
    }
    pub(crate) fn named(&self, name: &str) -> Option<AgentId> {
        self.by_name.get(name).copied()
    }
    pub(crate) fn children(&self, parent: AgentId) -> impl Iterator<Item = AgentId> {
        self.children
            .get(&parent)
            .into_iter()
            .flatten()
            .map(|(_, id)| *id)
    }
    pub(crate) fn inner(&self) -> impl Iterator<Item = AgentId> {
        self.inner.values().flatten().map(|(_, id)| *id)
    }
    pub(crate) fn tops(&self) -> impl Iterator<Item = AgentId> {
        self.tops.iter().map(|(_, id)| *id)
    }
    pub(crate) fn working(&self) -> u32 {
        self.working
    }

    pub(crate) fn set(&mut self, agent: AgentId, seat: Seat, name: Option<String>) {
        self.take(agent);
        let at = (seat.place, agent);
        self.by_place.insert(seat.place, agent);
        match seat.parent {
            Some(parent) => {
                self.children.entry(parent).or_default().insert(at);
            }
            None => {
                self.tops.insert(at);
            }
        }
        if seat.role != Role::Worker {
            self.inner.entry(seat.level).or_default().insert(at);
        }
        if seat.standby {
            self.standby.insert(at);
        }
        self.working += u32::from(seat.works);
        if let Some(name) = name {
            self.by_name.insert(name.clone(), agent);
            self.names.insert(agent, name);
        }
        self.seats.insert(agent, seat);
    }
    pub(crate) fn take(&mut self, agent: AgentId) -> Option<Seat> {
        let seat = self.seats.remove(&agent)?;
        let at = (seat.place, agent);
        self.by_place.remove(&seat.place);
        self.tops.remove(&at);
        self.standby.remove(&at);
        if let Some(parent) = seat.parent {
            forget(&mut self.children, &parent, &at);
        }
        forget(&mut self.inner, &seat.level, &at);
        self.working -= u32::from(seat.works);
        if let Some(name) = self.names.remove(&agent)
            && self.by_name.get(&name) == Some(&agent)
        {
            self.by_name.remove(&name);
        }
        Some(seat)
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<(u64, AgentId)>>, key: &K, at: &(u64, AgentId)) {
    if let Some(all) = index.get_mut(key) {
        all.remove(at);
        if all.is_empty() {
            index.remove(key);
        }
    }
}
