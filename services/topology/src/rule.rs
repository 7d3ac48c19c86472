//! What the rules want, for each of the four. Each starts from what there is and changes only what is not right: who has come
//! or gone, and what follows from it. A settling of everybody and one around those who have changed are the same steps.

pub(crate) mod peers;
pub(crate) mod star;
pub(crate) mod tree;

use swarm_events::{
    AgentId,
    topology::{Role, Seat, Topology},
};

use crate::Generation;

/// The seat of whoever comes, but for its place: what most will have.
pub(crate) fn first(topology: &Topology) -> Seat {
    let (level, works) = match topology {
        Topology::Star(_) => (1, false),
        Topology::Hierarchical(tree) => (tree.levels.len().saturating_sub(1), true),
        Topology::Mesh(_) | Topology::Ring(_) => (0, true),
    };
    Seat {
        level: u32::try_from(level).unwrap_or(u32::MAX),
        works,
        ..Seat::default()
    }
}

/// What a generation must remember of a seat that is taken or given: in a star without failover the place of a lost hub.
pub(crate) fn remember(
    generation: &mut Generation,
    agent: AgentId,
    before: Option<Seat>,
    after: Option<Seat>,
) {
    let Topology::Star(star) = &generation.topology else {
        return;
    };
    if star.failover_coordinator {
        return;
    }
    let hub = |seat: Option<Seat>| seat.is_some_and(|seat| seat.role == Role::Coordinator);
    if hub(before) && after.is_none() {
        generation.lost.push(star::Lost {
            agent,
            place: generation.last_place,
        });
    } else if hub(after) && !hub(before) {
        star::filled(
            star,
            agent,
            generation.seats.inner_count(0),
            &mut generation.lost,
        );
    }
}
