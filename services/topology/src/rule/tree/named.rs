//! Parents that are given by name.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{AgentId, topology::Hierarchical};

use crate::{Members, plan::Settle};

/// The parents that are given, of those who are there.
pub(super) struct Named {
    /// By child.
    pub(super) parents: BTreeMap<AgentId, AgentId>,
    /// All that any name means, although the other end may be missing.
    pub(super) all: BTreeSet<AgentId>,
    /// At which level each parent is to be: so high that all that is named below it has a level.
    levels: BTreeMap<AgentId, usize>,
}

impl Named {
    pub(super) fn new(tree: &Hierarchical, members: &Members) -> Self {
        let last = tree.levels.len().saturating_sub(1);
        let parents: BTreeMap<AgentId, AgentId> = tree
            .parents
            .iter()
            .filter_map(|(child, parent)| {
                Some((members.named(child)?.id, members.named(parent)?.id))
            })
            .filter(|(child, parent)| child != parent)
            .collect();
        let ends = tree
            .parents
            .iter()
            .flat_map(|(child, parent)| [child, parent]);
        let all = ends
            .filter_map(|name| Some(members.named(name)?.id))
            .collect();
        let mut heights: BTreeMap<AgentId, usize> = BTreeMap::new();
        for child in parents.keys() {
            let (mut at, mut height) = (*child, 0);
            // By name and by id they may be in a circle: nobody is higher than the tree.
            while let Some(parent) = parents.get(&at)
                && height < last
            {
                height += 1;
                let known = heights.entry(*parent).or_default();
                *known = (*known).max(height);
                at = *parent;
            }
        }
        let levels = heights.into_iter().map(|(id, height)| (id, last - height));
        Self {
            levels: levels.collect(),
            parents,
            all,
        }
    }
    /// How many are named for each inner level.
    pub(super) fn counts(&self, inner: usize) -> Vec<u64> {
        let mut counts = vec![0; inner];
        for level in self.levels.values() {
            counts[*level] += 1;
        }
        counts
    }
    /// Those for whom there is a place at their level: who sits there already, then by place.
    pub(super) fn chosen(
        &self,
        settle: &Settle<'_>,
        size: impl Fn(usize) -> usize,
    ) -> BTreeMap<AgentId, usize> {
        let mut ranked: BTreeSet<(usize, bool, u64, AgentId)> = BTreeSet::new();
        for (agent, level) in &self.levels {
            let Some(seat) = settle.seats.get(*agent) else {
                continue;
            };
            let there = seat.level as usize == *level;
            ranked.insert((*level, !there, seat.place, *agent));
        }
        let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
        let mut chosen = BTreeMap::new();
        for (level, _, _, agent) in ranked {
            let taken = taken.entry(level).or_default();
            if *taken < size(level) {
                *taken += 1;
                chosen.insert(agent, level);
            }
        }
        chosen
    }
}
