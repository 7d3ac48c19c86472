//! A tree.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    AgentId,
    topology::{Hierarchical, Role, Seat},
};

use crate::{Generation, Member, Members, plan::Wanted};

/// How many agents each level has, with so many altogether: one at the least in the last level, and a further agent adds
/// exactly one to one level.
pub(crate) fn sizes(tree: &Hierarchical, agents: u64) -> Vec<u64> {
    let ratio = u64::from(tree.parent_child_ratio).max(1);
    let inner = tree.levels.len().saturating_sub(1);
    let of = |workers: u64| {
        let mut sizes = vec![0; inner + 1];
        sizes[inner] = workers;
        for level in (0..inner).rev() {
            sizes[level] = sizes[level + 1]
                .div_ceil(ratio)
                .max(u64::from(tree.levels[level].count));
        }
        sizes
    };
    let sum = |sizes: &[u64]| sizes.iter().sum::<u64>();
    let smallest = of(1);
    if agents < sum(&smallest) {
        let mut left = agents.saturating_sub(1);
        let mut sizes = vec![0; inner + 1];
        sizes[inner] = agents.min(1);
        for level in 0..inner {
            sizes[level] = smallest[level].min(left);
            left -= sizes[level];
        }
        return sizes;
    }
    let (mut low, mut high) = (1, agents + 1);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if sum(&of(middle)) <= agents {
            low = middle;
        } else {
            high = middle;
        }
    }
    let mut sizes = of(low);
    // What is left is too little for one more worker with all whom it needs above it: they come first, from the top.
    let mut left = agents - sum(&sizes);
    let next = of(low + 1);
    for level in 0..inner {
        let more = (next[level] - sizes[level]).min(left);
        sizes[level] += more;
        left -= more;
    }
    sizes
}

pub(crate) fn wanted(
    tree: &Hierarchical,
    generation: &Generation,
    placed: &BTreeMap<u64, &Member>,
    members: &Members,
) -> Wanted {
    let last = tree.levels.len().saturating_sub(1);
    let ratio = usize::try_from(tree.parent_child_ratio).unwrap_or(usize::MAX);
    let sizes = sizes(tree, placed.len() as u64);
    let explicit: BTreeMap<AgentId, AgentId> = tree
        .parents
        .iter()
        .filter_map(|(child, parent)| Some((members.named(child)?.id, members.named(parent)?.id)))
        .collect();
    // How many levels of named children are below each.
    let mut heights: BTreeMap<AgentId, usize> = BTreeMap::new();
    for child in explicit.keys() {
        let (mut at, mut height) = (*child, 0);
        while let Some(parent) = explicit.get(&at)
            && height < last
        {
            height += 1;
            let known = heights.entry(*parent).or_default();
            *known = (*known).max(height);
            at = *parent;
        }
    }
    let lost: BTreeSet<AgentId> = generation
        .seats
        .inner()
        .filter(|id| !members.contains(*id))
        .collect();
    let mut level_of: BTreeMap<AgentId, (usize, bool, &str)> = BTreeMap::new();
    for level in 0..last {
        let size = usize::try_from(sizes[level]).unwrap_or(usize::MAX);
        let role = tree.levels[level].role;
        let mut candidates: Vec<_> = placed
            .iter()
            .filter(|(_, member)| !level_of.contains_key(&member.id))
            .map(|(place, member)| {
                let seat = generation.seat(member.id);
                let named = heights.get(&member.id).is_some_and(|h| last - h == level);
                let here =
                    seat.is_some_and(|s| s.role != Role::Worker && s.level as usize == level);
                let above =
                    seat.is_some_and(|s| s.role != Role::Worker && (s.level as usize) > level);
                let heir = seat.and_then(|s| s.parent).is_some_and(|p| {
                    lost.contains(&p)
                        && generation
                            .seat(p)
                            .is_some_and(|s| s.level as usize == level)
                });
                let rank = if named {
                    0
                } else if member.made_for(role) {
                    1
                } else if here {
                    2
                } else if !member.healthy {
                    6
                } else if heir {
                    3
                } else if above {
                    5
                } else {
                    4
                };
                (rank, !here, *place, *member)
            })
            .collect();
        candidates.sort_by_key(|(rank, there, place, _)| (*rank, *there, *place));
        for (rank, there, _, member) in candidates.into_iter().take(size) {
            let reason = match rank {
                _ if !there => "it has the place already",
                0 => "it is named as a parent",
                1 => "the oldest that is made for it",
                3 => "the oldest child of the one that was lost",
                _ => "nobody is made for it, it is the oldest healthy agent",
            };
            level_of.insert(member.id, (level, rank <= 1, reason));
        }
    }
    let lowest = (0..last).rev().find(|level| sizes[*level] > 0);
    let mut seats: BTreeMap<u64, (AgentId, Seat, String)> = BTreeMap::new();
    let mut room: BTreeMap<AgentId, usize> = BTreeMap::new();
    for (place, member) in placed {
        let (level, made, reason) = level_of
            .get(&member.id)
            .copied()
            .unwrap_or((last, false, "worker"));
        let seat = Seat {
            role: tree.levels[level].role,
            level: u32::try_from(level).unwrap_or(u32::MAX),
            parent: None,
            place: *place,
            standby: false,
            works: !made,
        };
        if level < last {
            room.insert(member.id, 0);
        }
        seats.insert(*place, (member.id, seat, reason.to_owned()));
    }
    let above = |level: usize| {
        if level == last {
            lowest
        } else {
            level.checked_sub(1)
        }
    };
    let levels: BTreeMap<AgentId, usize> = level_of.iter().map(|(id, (l, ..))| (*id, *l)).collect();
    // First the parents that are named, then those that are right already, then the ones with the fewest children.
    for pass in 0..2 {
        for (id, seat, _) in seats.values_mut() {
            let wanted = if pass == 0 {
                explicit.get(id).copied()
            } else {
                generation.seat(*id).and_then(|seat| seat.parent)
            };
            let Some(parent) = wanted.filter(|_| seat.parent.is_none()) else {
                continue;
            };
            if levels.get(&parent).copied() != above(seat.level as usize)
                || !levels.contains_key(&parent)
            {
                continue;
            }
            if let Some(children) = room.get_mut(&parent)
                && *children < ratio
            {
                *children += 1;
                seat.parent = Some(parent);
            }
        }
    }
    let mut fewest: BTreeMap<usize, BTreeSet<(usize, u64, AgentId)>> = BTreeMap::new();
    for (id, seat, _) in seats.values() {
        if let Some(children) = room.get(id) {
            fewest
                .entry(seat.level as usize)
                .or_default()
                .insert((*children, seat.place, *id));
        }
    }
    for (_, seat, _) in seats.values_mut() {
        let Some(parents) = above(seat.level as usize).and_then(|level| fewest.get_mut(&level))
        else {
            continue;
        };
        if seat.parent.is_some() {
            continue;
        }
        if let Some((children, place, id)) = parents.pop_first() {
            seat.parent = Some(id);
            parents.insert((children + 1, place, id));
        }
    }
    seats
        .into_values()
        .map(|(id, seat, reason)| (id, (seat, reason)))
        .collect()
}
