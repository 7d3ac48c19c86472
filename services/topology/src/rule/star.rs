//! A hub and its workers.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    AgentId,
    topology::{Role, Seat, Selector, Star},
};

use crate::{Generation, Member, Members, plan::Wanted};

/// Whether it was made to be a hub.
pub(crate) fn made(star: &Star, member: &Member) -> bool {
    if star.coordinator == Selector::default() {
        member.made_for(Role::Coordinator)
    } else {
        member.matches(&star.coordinator)
    }
}

pub(crate) fn wanted(
    star: &Star,
    generation: &Generation,
    max_workers: u32,
    placed: &BTreeMap<u64, &Member>,
    members: &Members,
) -> Wanted {
    let count = usize::try_from(star.coordinator_count).unwrap_or(usize::MAX);
    let count = count.min(placed.len().saturating_sub(1).max(1));
    let anybody = star.coordinator == Selector::default();
    let is = |id: AgentId, what: fn(&Seat) -> bool| generation.seat(id).is_some_and(what);
    let mut candidates: Vec<_> = placed
        .iter()
        .filter_map(|(place, member)| {
            let hub = is(member.id, |seat| seat.role == Role::Coordinator);
            let standby = is(member.id, |seat| seat.standby);
            let made = made(star, member);
            let back = generation.lost.contains(&member.id);
            if (!made && !anybody) || (!member.healthy && !hub && !standby && !back) {
                return None;
            }
            Some(((!made, !hub, !back, !standby, *place), *member))
        })
        .collect();
    candidates.sort_by_key(|(rank, _)| *rank);
    // The places of lost hubs are free for those made for it, and for the lost ones themselves.
    let mut kept_free = generation
        .lost
        .iter()
        .filter(|id| !members.contains(**id))
        .count();
    let mut hubs: BTreeMap<AgentId, (bool, &str)> = BTreeMap::new();
    let mut rest = candidates.iter();
    for ((drafted, plain, gone, stood, _), member) in rest.by_ref() {
        if hubs.len() >= count {
            break;
        }
        let taken = hubs.len()
            + if *drafted && *plain && *gone {
                kept_free
            } else {
                0
            };
        if taken >= count {
            continue;
        }
        let reason = match (drafted, plain, gone, stood) {
            (_, false, ..) => "hub: it is one already",
            (_, _, false, _) => "hub: it is back at its place",
            (_, _, _, false) => "hub: it stood by",
            (false, ..) => "hub: the oldest that is made for it",
            _ => "hub: nobody is made for it, it is the oldest healthy agent",
        };
        hubs.insert(member.id, (*drafted, reason));
        if !*drafted {
            kept_free = kept_free.saturating_sub(1);
        }
    }
    let standby = candidates
        .iter()
        .map(|(_, member)| member.id)
        .find(|id| star.failover_coordinator && count > 0 && !hubs.contains_key(id));
    let named: BTreeSet<AgentId> = star
        .workers
        .iter()
        .filter_map(|name| members.named(name).map(|member| member.id))
        .collect();
    let max = usize::try_from(star.max_workers.unwrap_or(max_workers)).unwrap_or(usize::MAX);
    let someone = placed
        .values()
        .any(|member| hubs.get(&member.id).is_none_or(|(drafted, _)| *drafted));
    let mut working = 0;
    placed
        .iter()
        .map(|(place, member)| {
            let hub = hubs.get(&member.id);
            let may = if star.workers.is_empty() {
                hub.is_none_or(|(drafted, _)| *drafted) || !someone
            } else {
                named.contains(&member.id)
            };
            let works = may && working < max;
            working += usize::from(works);
            let seat = Seat {
                role: if hub.is_some() {
                    Role::Coordinator
                } else {
                    Role::Worker
                },
                level: u32::from(hub.is_none()),
                parent: None,
                place: *place,
                standby: standby == Some(member.id),
                works,
            };
            let reason = match hub {
                Some((_, reason)) => *reason,
                None if seat.standby => "worker that stands by for the hub",
                None if !may => "not one of the workers that are named",
                None if !works => "beyond max_workers",
                None => "worker",
            };
            (member.id, (seat, reason.to_owned()))
        })
        .collect()
}
