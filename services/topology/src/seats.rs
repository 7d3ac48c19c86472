//! Who sits where, and what is looked for in it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use swarm_events::{
    AgentId,
    topology::{Role, Seat},
};
use uuid::Uuid;

use crate::layer::{Map, Set, beyond};

/// A seat with its holder's name, if the topology's connections name it by that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sitting {
    pub(crate) seat: Seat,
    pub(crate) named: Option<String>,
}

type AtPlace = (u64, AgentId);
/// The lowest and the highest id.
const LOW: AgentId = AgentId(Uuid::nil());
const HIGH: AgentId = AgentId(Uuid::max());

/// The seats of a generation, with indexes that follow from them; or changes to some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats<'a> {
    seats: Map<'a, AgentId, Sitting>,
    by_place: Set<'a, AtPlace>,
    by_level: Set<'a, (u32, u64, AgentId)>,
    by_name: Map<'a, String, AgentId>,
    children: Set<'a, (AgentId, u64, AgentId)>,
    /// How many children each parent has.
    counts: Map<'a, AgentId, u32>,
    /// Coordinators and supervisors: level, children, place.
    room: Set<'a, (u32, u32, u64, AgentId)>,
    /// How many of these each level has.
    inner_counts: Map<'a, u32, u32>,
    /// Those of them that work too.
    drafted: Set<'a, (u32, u64, AgentId)>,
    standby: Set<'a, AtPlace>,
    working: Set<'a, AtPlace>,
    idle: Set<'a, AtPlace>,
}

impl Serialize for Seats<'static> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Snapshots write the number first.
        let all: std::collections::BTreeMap<AgentId, &Sitting> = self
            .iter()
            .filter_map(|(agent, _)| Some((agent, self.seats.get(&agent)?)))
            .collect();
        serializer.collect_map(all)
    }
}
impl<'de> Deserialize<'de> for Seats<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = std::collections::BTreeMap::<AgentId, Sitting>::deserialize(deserializer)?;
        let mut all = Self::default();
        for (agent, Sitting { seat, named }) in stored {
            all.set(agent, seat, named);
        }
        Ok(all)
    }
}

impl Seats<'static> {
    /// Changes over these.
    pub(crate) fn over(&self) -> Seats<'_> {
        Seats {
            seats: self.seats.over(),
            by_place: self.by_place.over(),
            by_level: self.by_level.over(),
            by_name: self.by_name.over(),
            children: self.children.over(),
            counts: self.counts.over(),
            room: self.room.over(),
            inner_counts: self.inner_counts.over(),
            drafted: self.drafted.over(),
            standby: self.standby.over(),
            working: self.working.over(),
            idle: self.idle.over(),
        }
    }
}

impl Seats<'_> {
    pub(crate) fn get(&self, agent: AgentId) -> Option<&Seat> {
        self.seats.get(&agent).map(|sitting| &sitting.seat)
    }
    pub(crate) fn sitting(&self, agent: AgentId) -> Option<&Sitting> {
        self.seats.get(&agent)
    }
    /// All, by place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (AgentId, &Seat)> {
        self.by_place
            .iter()
            .filter_map(|(_, id)| Some((id, self.get(id)?)))
    }
    pub(crate) fn len(&self) -> usize {
        self.by_place.len()
    }
    pub(crate) fn at(&self, place: u64) -> Option<AgentId> {
        let found = self.by_place.range((place, LOW)..=(place, HIGH)).next();
        found.map(|(_, id)| id)
    }
    /// Those after a place in the circle, once round, the one at the place last.
    pub(crate) fn after(&self, place: u64) -> impl Iterator<Item = AgentId> {
        self.by_place
            .range(beyond((place, HIGH)))
            .chain(self.by_place.range(..=(place, HIGH)))
            .map(|(_, id)| id)
    }
    /// Those before a place in the circle, once round, the one at the place last.
    pub(crate) fn before(&self, place: u64) -> impl Iterator<Item = AgentId> {
        self.by_place
            .range_back(..(place, LOW))
            .chain(self.by_place.range_back((place, LOW)..))
            .map(|(_, id)| id)
    }
    pub(crate) fn named(&self, name: &str) -> Option<AgentId> {
        self.by_name.get(&name.to_owned()).copied()
    }
    /// By place.
    pub(crate) fn children(&self, parent: AgentId) -> impl Iterator<Item = AgentId> {
        self.children
            .range((parent, 0, LOW)..=(parent, u64::MAX, HIGH))
            .map(|(_, _, id)| id)
    }
    /// From the one that came last.
    pub(crate) fn children_back(&self, parent: AgentId) -> impl Iterator<Item = AgentId> {
        self.children
            .range_back((parent, 0, LOW)..=(parent, u64::MAX, HIGH))
            .map(|(_, _, id)| id)
    }
    pub(crate) fn count(&self, parent: AgentId) -> u32 {
        self.counts.get(&parent).copied().unwrap_or(0)
    }
    /// Coordinators and supervisors: their level, number of children, place and id, by these.
    pub(crate) fn inner(&self) -> impl Iterator<Item = (u32, u32, u64, AgentId)> {
        self.room.iter()
    }
    /// The same from the top, by place.
    pub(crate) fn inner_by_place(&self) -> impl Iterator<Item = AgentId> {
        let all = self.by_level.iter().map(|(_, _, id)| id);
        all.take_while(|id| self.get(*id).is_some_and(|seat| seat.role != Role::Worker))
    }
    /// Those of a level, the one with the fewest children first.
    pub(crate) fn inner_at(&self, level: u32) -> impl Iterator<Item = (u32, u64, AgentId)> {
        self.room
            .range((level, 0, 0, LOW)..=(level, u32::MAX, u64::MAX, HIGH))
            .map(|(_, count, place, id)| (count, place, id))
    }
    /// How many coordinators and supervisors there are at a level.
    pub(crate) fn inner_count(&self, level: u32) -> usize {
        let count = self.inner_counts.get(&level).copied();
        usize::try_from(count.unwrap_or(0)).unwrap_or(usize::MAX)
    }
    /// Of those of a level that work too, the one that came last.
    pub(crate) fn last_drafted(&self, level: u32) -> Option<AgentId> {
        let at = (level, 0, LOW)..=(level, u64::MAX, HIGH);
        let last = self.drafted.range_back(at).next();
        last.map(|(_, _, id)| id)
    }
    /// A level's, from a place on, by place.
    pub(crate) fn level_from(&self, level: u32, place: u64) -> impl Iterator<Item = AtPlace> {
        self.by_level
            .range((level, place, LOW)..=(level, u64::MAX, HIGH))
            .map(|(_, place, id)| (place, id))
    }
    /// The highest level at which anybody sits.
    pub(crate) fn top_level(&self) -> Option<u32> {
        self.by_level.iter().next().map(|(level, _, _)| level)
    }
    pub(crate) fn standby(&self) -> impl Iterator<Item = AgentId> {
        self.standby.iter().map(|(_, id)| id)
    }
    pub(crate) fn working(&self) -> usize {
        self.working.len()
    }
    /// Those that work, the one that came last first.
    pub(crate) fn working_back(&self) -> impl Iterator<Item = AtPlace> {
        self.working.range_back(..)
    }
    /// Of those that work the one that came last.
    pub(crate) fn last_working(&self) -> Option<AtPlace> {
        self.working_back().next()
    }
    /// Those that do not work, by place.
    pub(crate) fn idle(&self) -> impl Iterator<Item = AtPlace> {
        self.idle.iter()
    }

    pub(crate) fn set(&mut self, agent: AgentId, seat: Seat, named: Option<String>) {
        if let Some(before) = self.seats.get(&agent)
            && before.seat.role == Role::Worker
            && seat.role == Role::Worker
            && before.named == named
        {
            // By far the most changes: a worker stays one.
            let before = before.seat;
            return self.moved(agent, before, seat, named);
        }
        self.take(agent);
        let at = (seat.place, agent);
        self.by_place.insert(at);
        self.by_level.insert((seat.level, seat.place, agent));
        if let Some(parent) = seat.parent {
            self.children.insert((parent, seat.place, agent));
            self.counted(parent, 1);
        }
        if seat.role != Role::Worker {
            self.room
                .insert((seat.level, self.count(agent), seat.place, agent));
            let there = self.inner_counts.get(&seat.level).copied();
            self.inner_counts.insert(seat.level, there.unwrap_or(0) + 1);
            if seat.works {
                self.drafted.insert((seat.level, seat.place, agent));
            }
        }
        if seat.standby {
            self.standby.insert(at);
        }
        if seat.works {
            self.working.insert(at);
        } else {
            self.idle.insert(at);
        }
        if let Some(name) = &named {
            self.by_name.insert(name.clone(), agent);
        }
        self.seats.insert(agent, Sitting { seat, named });
    }
    /// A worker's seat changes: only the indexes that know what is changed are touched.
    fn moved(&mut self, agent: AgentId, before: Seat, seat: Seat, named: Option<String>) {
        let at = (seat.place, agent);
        if before.place != seat.place {
            self.take(agent);
            return self.set(agent, seat, named);
        }
        if before.level != seat.level {
            self.by_level.remove((before.level, before.place, agent));
            self.by_level.insert((seat.level, seat.place, agent));
        }
        if before.parent != seat.parent {
            if let Some(parent) = before.parent {
                self.children.remove((parent, before.place, agent));
                self.counted(parent, -1);
            }
            if let Some(parent) = seat.parent {
                self.children.insert((parent, seat.place, agent));
                self.counted(parent, 1);
            }
        }
        if before.standby && !seat.standby {
            self.standby.remove(at);
        } else if seat.standby && !before.standby {
            self.standby.insert(at);
        }
        if before.works && !seat.works {
            self.working.remove(at);
            self.idle.insert(at);
        } else if seat.works && !before.works {
            self.idle.remove(at);
            self.working.insert(at);
        }
        self.seats.insert(agent, Sitting { seat, named });
    }
    pub(crate) fn take(&mut self, agent: AgentId) -> Option<Sitting> {
        let sitting = self.seats.get(&agent)?.clone();
        let seat = &sitting.seat;
        self.seats.remove(&agent);
        let at = (seat.place, agent);
        self.by_place.remove(at);
        self.by_level.remove((seat.level, seat.place, agent));
        if let Some(parent) = seat.parent {
            self.children.remove((parent, seat.place, agent));
            self.counted(parent, -1);
        }
        if seat.role != Role::Worker {
            self.room
                .remove((seat.level, self.count(agent), seat.place, agent));
            let there = self.inner_counts.get(&seat.level).copied().unwrap_or(0);
            if there > 1 {
                self.inner_counts.insert(seat.level, there - 1);
            } else {
                self.inner_counts.remove(&seat.level);
            }
        }
        self.drafted.remove((seat.level, seat.place, agent));
        self.standby.remove(at);
        self.working.remove(at);
        self.idle.remove(at);
        if let Some(name) = &sitting.named
            && self.by_name.get(name) == Some(&agent)
        {
            self.by_name.remove(name);
        }
        Some(sitting)
    }
    /// One child more or less.
    fn counted(&mut self, parent: AgentId, by: i32) {
        let before = self.count(parent);
        let after = before.saturating_add_signed(by);
        if after == 0 {
            self.counts.remove(&parent);
        } else {
            self.counts.insert(parent, after);
        }
        if let Some(seat) = self.get(parent).copied()
            && seat.role != Role::Worker
        {
            self.room.remove((seat.level, before, seat.place, parent));
            self.room.insert((seat.level, after, seat.place, parent));
        }
    }
}
