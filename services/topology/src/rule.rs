//! What the rules want, for each of the four.

mod star;
mod tree;

use std::collections::BTreeMap;

use swarm_events::{
    AgentId,
    topology::{Role, Seat, Topology},
};

use crate::{Generation, Member, Members, plan::Wanted};

/// Members in the order of their places: who has a place keeps it, others come after the last one in the order of arrival.
pub(crate) fn placed<'a>(
    generation: &Generation,
    before: Option<&Generation>,
    members: &'a Members,
) -> BTreeMap<u64, &'a Member> {
    let place = |id: AgentId| {
        let now = generation.seat(id);
        now.or_else(|| before?.seat(id)).map(|seat| seat.place)
    };
    let mut last = generation
        .seats
        .last_place()
        .max(before.map_or(0, |before| before.seats.last_place()));
    let mut all = BTreeMap::new();
    for member in members.iter() {
        let at = place(member.id).unwrap_or_else(|| {
            last += 1;
            last
        });
        all.insert(at, member);
    }
    all
}

pub(crate) fn wanted(
    generation: &Generation,
    before: Option<&Generation>,
    max_workers: u32,
    members: &Members,
) -> Wanted {
    let placed = placed(generation, before, members);
    match &generation.topology {
        Topology::Star(star) => star::wanted(star, generation, max_workers, &placed, members),
        Topology::Hierarchical(tree) => tree::wanted(tree, generation, &placed, members),
        Topology::Mesh(_) => peers(&placed, "a peer of the mesh"),
        Topology::Ring(_) => peers(&placed, "the next free place of the ring"),
    }
}

fn peers(placed: &BTreeMap<u64, &Member>, reason: &str) -> Wanted {
    placed
        .iter()
        .map(|(place, member)| {
            let seat = Seat {
                place: *place,
                works: true,
                ..Seat::default()
            };
            (member.id, (seat, reason.to_owned()))
        })
        .collect()
}

/// What a generation must remember of a seat that was taken or given: in a star without failover the place of a lost hub.
pub(crate) fn remember(
    generation: &mut Generation,
    agent: AgentId,
    before: Option<Seat>,
    after: Option<Seat>,
) {
    let Topology::Star(star) = &generation.topology else {
        return;
    };
    let hub = |seat: Option<Seat>| seat.is_some_and(|seat| seat.role == Role::Coordinator);
    if star.failover_coordinator {
        return;
    }
    if hub(before) && after.is_none() {
        generation.lost.push(agent);
    } else if hub(after) && !hub(before) {
        let at = generation.lost.iter().position(|lost| *lost == agent);
        let vacant = usize::try_from(star.coordinator_count).unwrap_or(usize::MAX);
        let hubs = generation.seats.inner().count();
        if let Some(at) = at {
            generation.lost.remove(at);
        } else if hubs + generation.lost.len() > vacant && !generation.lost.is_empty() {
            generation.lost.remove(0);
        }
    }
}
