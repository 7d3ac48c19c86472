//! Whose child each is.

use std::collections::BTreeMap;

use swarm_events::{
    AgentId,
    topology::{Role, Seat},
};

use super::{Rule, named::Named, number};

impl Rule<'_, '_> {
    /// Finds parents for those whose parent is not right: the one that is named, else the one with the fewest children at the
    /// level above.
    pub(super) fn parents(&mut self, named: &Named, lowest_before: Option<usize>) {
        let lowest = self.lowest();
        if lowest != lowest_before {
            // Those below a level that came or went. It has few agents, or they are all new.
            let levels = lowest.into_iter().chain(lowest_before);
            let top = levels.min().map_or(0, number);
            let inner = self.settle.seats.inner();
            let below: Vec<AgentId> = inner
                .filter(|(level, ..)| *level >= top)
                .flat_map(|(_, _, _, id)| self.settle.seats.children(id))
                .collect();
            self.loose.extend(below);
            if lowest_before.is_none() {
                let workers = self.settle.seats.level_from(number(self.last), 0);
                self.loose.extend(workers.map(|(_, id)| id));
            }
        }
        let fixed = self.fixed(named, lowest);
        for (child, parent) in &fixed {
            self.loose.remove(child);
            self.put(*child, Some(*parent), "its parent is named");
        }
        // Who is one too many beside them, and who is not below the level above it any more.
        for parent in fixed.values() {
            while self.settle.seats.count(*parent) > self.tree.parent_child_ratio {
                let mut children = self.settle.seats.children_back(*parent);
                let Some(child) = children.find(|id| !fixed.contains_key(id)) else {
                    break;
                };
                drop(children);
                self.put(child, None, "");
                self.loose.insert(child);
            }
        }
        let mut homeless: Vec<(u32, u64, AgentId)> = Vec::new();
        for agent in std::mem::take(&mut self.loose) {
            let Some(seat) = self.settle.seats.get(agent).copied() else {
                continue;
            };
            let above = self.above(&seat, lowest);
            let right = match (seat.parent, above) {
                (Some(parent), Some(above)) => self.inner_level(parent) == Some(above),
                (None, None) => true,
                _ => false,
            };
            if !right {
                self.put(agent, None, "it is at the top");
                homeless.push((seat.level, seat.place, agent));
            }
        }
        homeless.sort_unstable();
        for (_, _, agent) in homeless {
            let seat = self.settle.seat(agent);
            let Some(above) = self.above(&seat, lowest) else {
                continue;
            };
            let fewest = self.settle.seats.inner_at(number(above)).next();
            if let Some((_, _, parent)) = fewest {
                let reason = match seat.role {
                    Role::Worker => "worker: this parent has the fewest children",
                    _ => "this parent has the fewest children",
                };
                self.put(agent, Some(parent), reason);
            }
        }
    }

    /// The level at which its parent is.
    fn above(&self, seat: &Seat, lowest: Option<usize>) -> Option<usize> {
        if seat.role == Role::Worker {
            lowest
        } else {
            (seat.level as usize).checked_sub(1)
        }
    }

    fn put(&mut self, agent: AgentId, parent: Option<AgentId>, reason: &'static str) {
        let seat = Seat {
            parent,
            ..self.settle.seat(agent)
        };
        if seat.role == Role::Worker {
            self.settle.give(agent, seat, reason);
        } else {
            self.settle.adjust(agent, seat, reason);
        }
    }

    /// The parents that are named and can be: above their children, within the ratio, and so that a child which skips levels
    /// takes no place that the level below its parent needs.
    fn fixed(&self, named: &Named, lowest: Option<usize>) -> BTreeMap<AgentId, AgentId> {
        let ratio = self.tree.parent_child_ratio as usize;
        let mut by_place: Vec<_> = named
            .parents
            .iter()
            .filter_map(|(child, parent)| {
                let seat = self.settle.seats.get(*child)?;
                Some((seat.place, *child, *parent, self.above(seat, lowest)))
            })
            .collect();
        by_place.sort_unstable();
        let mut children: BTreeMap<AgentId, usize> = BTreeMap::new();
        let mut skipping: BTreeMap<usize, usize> = BTreeMap::new();
        let mut fixed = BTreeMap::new();
        for (_, child, parent, above) in by_place {
            let (Some(level), Some(above)) = (self.inner_level(parent), above) else {
                continue;
            };
            let count = children.entry(parent).or_default();
            if level > above || *count >= ratio {
                continue;
            }
            if level < above {
                let room =
                    (self.sizes[level].saturating_mul(ratio)).saturating_sub(self.sizes[level + 1]);
                let skipping = skipping.entry(level).or_default();
                if *skipping >= room {
                    continue;
                }
                *skipping += 1;
            }
            *count += 1;
            fixed.insert(child, parent);
        }
        fixed
    }
}
