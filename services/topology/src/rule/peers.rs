//! Mesh and ring: everybody is one among equals.

use swarm_events::topology::Seat;

use crate::{links::Links, plan::Settle};

pub(crate) fn mesh(links: &Links, settle: &mut Settle<'_>) {
    seated(settle, "everybody is a peer in a mesh");
    if links.is_empty() {
        return;
    }
    for agent in settle.dirty.clone() {
        if let Some(member) = settle.members.get(agent) {
            let named = links.names(&member.name);
            settle.name(agent, named.then(|| member.name.clone()));
        }
    }
}

pub(crate) fn ring(settle: &mut Settle<'_>) {
    seated(
        settle,
        "everybody has a place in the ring, in the order of arrival",
    );
}

fn seated(settle: &mut Settle<'_>, reason: &'static str) {
    for agent in settle.dirty.clone() {
        let seat = Seat {
            place: settle.seat(agent).place,
            works: true,
            ..Seat::default()
        };
        settle.give(agent, seat, reason);
    }
}
