//! From what there is to what the rules want.

use std::collections::BTreeMap;

use swarm_events::{
    AgentId, Problem,
    topology::{Seat, Topology},
};

use crate::{Change, Generation, Members, Shape, rule};

/// What a change of the topology would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The generation that it would be.
    pub generation: u64,
    /// Agents that would be seated.
    pub agents: u32,
    /// Of these, how many would get another role or parent.
    pub moves: u32,
    /// Their seats.
    pub changes: Vec<Change>,
}

impl Shape {
    /// What a change to another topology would do, with those who are there now.
    pub fn plan(&self, after: &Topology, members: &Members) -> Planned {
        let next = Generation::new(after.clone(), self.next_generation());
        let changes = changes(&next, Some(&self.standing), self.max_workers, members);
        let moves = changes.iter().filter(|change| self.moves(change)).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Planned {
            generation: next.number,
            agents: count(changes.len()),
            moves: count(moves),
            changes,
        }
    }
    /// How many of those who are seated in the next generation get another role or parent there.
    pub fn staged_moves(&self) -> u32 {
        let moves = self
            .staged
            .iter()
            .flat_map(Generation::seats)
            .filter(|(agent, seat)| {
                self.seat(*agent)
                    .is_none_or(|old| old.role != seat.role || old.parent != seat.parent)
            });
        u32::try_from(moves.count()).unwrap_or(u32::MAX)
    }
    fn moves(&self, change: &Change) -> bool {
        let old = self.seat(change.agent).map(|seat| (seat.role, seat.parent));
        old != change.seat.map(|seat| (seat.role, seat.parent))
    }
}

/// What a topology needs and nobody of those who are there is: agents that it names, none of which is live.
pub fn lacking(topology: &Topology, members: &Members) -> Option<Problem> {
    let Topology::Star(star) = topology else {
        return None;
    };
    let nobody = |field: &str, what: &str| {
        Some(
            Problem::new(
                "nobody-there",
                format!("none of the {what} that are named is live"),
            )
            .field(format!("configuration.{field}"))
            .cure("start one of them, or leave this option out"),
        )
    };
    if !star.workers.is_empty()
        && star
            .workers
            .iter()
            .all(|name| members.named(name).is_none())
    {
        return nobody("workers", "workers");
    }
    if star.coordinator_count > 0
        && (star.coordinator.agent_id.is_some() || star.coordinator.agent_name.is_some())
        && !members
            .iter()
            .any(|member| member.matches(&star.coordinator))
    {
        return nobody("coordinator", "coordinators");
    }
    None
}

/// What is to be written so that the generation is as its rules want it. `before`: whose places and roles newcomers have now.
pub(crate) fn changes(
    generation: &Generation,
    before: Option<&Generation>,
    max_workers: u32,
    members: &Members,
) -> Vec<Change> {
    let wanted = rule::wanted(generation, before, max_workers, members);
    let mut changes: Vec<Change> = generation
        .seats()
        .filter(|(agent, _)| !members.contains(*agent))
        .map(|(agent, _)| Change {
            agent,
            seat: None,
            named: None,
            reason: "it has gone or failed".into(),
        })
        .collect();
    let mut given: Vec<(u64, Change)> = wanted
        .into_iter()
        .filter(|(agent, (seat, _))| generation.seat(*agent) != Some(seat))
        .map(|(agent, (seat, reason))| {
            let change = Change {
                agent,
                seat: Some(seat),
                named: None,
                reason,
            };
            (seat.place, change)
        })
        .collect();
    given.sort_by_key(|(place, _)| *place);
    changes.extend(given.into_iter().map(|(_, change)| change));
    changes
}

pub(crate) type Wanted = BTreeMap<AgentId, (Seat, String)>;
