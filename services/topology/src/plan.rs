//! From what there is to what the rules want.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    AgentId, Problem,
    planted::{self, Bug},
    topology::{Role, Seat, Topology},
};

use crate::{
    Change, Generation, Members, Shape,
    rule::{self, star::Lost},
    seats::{Seats, Sitting},
};

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

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Shape {
    /// What a change to another topology would do, with those who are there now.
    pub fn plan(&self, after: &Topology, members: &Members) -> Planned {
        let next = Generation::new(after.clone(), self.next_generation());
        let changes = changes(&next, Some(&self.standing), self.max_workers, members, None);
        let moves = changes.iter().filter(|change| {
            change
                .seat
                .is_some_and(|seat| self.moves(change.agent, &seat))
        });
        Planned {
            generation: next.number,
            agents: count(changes.len()),
            moves: count(moves.count()),
            changes,
        }
    }
    /// How many of those who are seated in the next generation get another role or parent there.
    pub fn staged_moves(&self) -> u32 {
        let seats = self.staged.iter().flat_map(Generation::seats);
        count(seats.filter(|(id, seat)| self.moves(*id, seat)).count())
    }
    fn moves(&self, agent: AgentId, seat: &Seat) -> bool {
        self.seat(agent)
            .is_none_or(|old| old.role != seat.role || old.parent != seat.parent)
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
    let named = star.coordinator.agent_id.is_some() || star.coordinator.agent_name.is_some();
    if star.coordinator_count > 0 && named && members.matching(&star.coordinator).next().is_none() {
        return nobody("coordinator", "coordinators");
    }
    None
}

/// What is to be written so that the generation is as its rules want it. `other`: whose places newcomers have already.
/// `around`: who has come, gone or changed since it was so; everybody, if absent.
pub(crate) fn changes(
    generation: &Generation,
    other: Option<&Generation>,
    max_workers: u32,
    members: &Members,
    around: Option<&BTreeSet<AgentId>>,
) -> Vec<Change> {
    let mut settle = Settle::new(generation, other, members, around);
    match &generation.topology {
        Topology::Star(star) => rule::star::settle(star, max_workers, &mut settle),
        Topology::Hierarchical(tree) => rule::tree::settle(tree, &mut settle),
        Topology::Mesh(_) => rule::peers::mesh(&generation.links, &mut settle),
        Topology::Ring(_) => rule::peers::ring(&mut settle),
    }
    settle.changes(generation)
}

/// A settling under way: seats as they will be, and why.
pub(crate) struct Settle<'a> {
    pub(crate) seats: Seats<'a>,
    pub(crate) members: &'a Members,
    /// Whose seats may be wrong by themselves, not because of others.
    pub(crate) dirty: BTreeSet<AgentId>,
    /// The seats of those who are no members any more.
    pub(crate) gone: Vec<(AgentId, Seat)>,
    /// Hubs whose places wait for them.
    pub(crate) lost: Vec<Lost>,
    /// The last place that anybody ever had before those who come now.
    pub(crate) last_place: u64,
    reasons: BTreeMap<AgentId, &'static str>,
}

impl<'a> Settle<'a> {
    fn new(
        generation: &'a Generation,
        other: Option<&Generation>,
        members: &'a Members,
        around: Option<&BTreeSet<AgentId>>,
    ) -> Self {
        let (seats, dirty) = match around {
            Some(around) => (generation.seats.over(), around.clone()),
            // As much changes, a copy is cheaper to change and to search.
            None => {
                let all = generation.seats().map(|(id, _)| id);
                let all = all.chain(members.iter().map(|member| member.id));
                (generation.seats.clone(), all.collect())
            }
        };
        let mut settle = Self {
            seats,
            members,
            dirty,
            gone: Vec::new(),
            lost: generation.lost.clone(),
            last_place: generation.last_place,
            reasons: BTreeMap::new(),
        };
        let mut came = Vec::new();
        for id in &settle.dirty {
            match members.get(*id) {
                None if planted::is(Bug::GoneKeepsSeat) => {}
                None => {
                    if let Some(sitting) = settle.seats.take(*id) {
                        settle.gone.push((*id, sitting.seat));
                    }
                }
                Some(member) if settle.seats.get(*id).is_none() => came.push(member.age()),
                Some(_) => {}
            }
        }
        settle.gone.sort_by_key(|(_, seat)| seat.place);
        came.sort_unstable();
        // A place is the same in both generations, where it is free in this one.
        let elsewhere = |id| {
            other
                .and_then(|other| other.seat(id))
                .map(|seat| seat.place)
        };
        let (placed, unplaced): (Vec<_>, Vec<_>) = came
            .into_iter()
            .map(|(_, id)| (id, elsewhere(id)))
            .partition(|(_, place)| place.is_some());
        let mut last = generation
            .last_place
            .max(other.map_or(0, |other| other.last_place));
        for (id, place) in placed.into_iter().chain(unplaced) {
            let place = place
                .filter(|place| settle.seats.at(*place).is_none())
                .unwrap_or_else(|| {
                    last += 1;
                    last
                });
            let seat = Seat {
                place,
                ..rule::first(&generation.topology)
            };
            settle.seats.set(id, seat, None);
            settle.reasons.insert(id, "");
        }
        settle
    }

    pub(crate) fn seat(&self, agent: AgentId) -> Seat {
        self.seats.get(agent).copied().unwrap_or_default()
    }
    /// Gives another seat, or says a reason for the one that it has just got.
    pub(crate) fn give(&mut self, agent: AgentId, seat: Seat, reason: &'static str) {
        if let Some(sitting) = self.seats.sitting(agent) {
            if sitting.seat != seat {
                let named = sitting.named.clone();
                self.seats.set(agent, seat, named);
                self.reasons.insert(agent, reason);
            } else if let Some(none @ &mut "") = self.reasons.get_mut(&agent) {
                *none = reason;
            }
        }
    }
    /// Gives another seat; the reason that was said in this settling stays.
    pub(crate) fn adjust(&mut self, agent: AgentId, seat: Seat, reason: &'static str) {
        let said = self.reasons.get(&agent).copied();
        let said = said.filter(|said| !said.is_empty());
        self.give(agent, seat, said.unwrap_or(reason));
    }
    /// Says another reason for a seat that changes.
    pub(crate) fn because(&mut self, agent: AgentId, reason: &'static str) {
        if let Some(said) = self.reasons.get_mut(&agent) {
            *said = reason;
        }
    }
    /// Notes the name by which the topology's connections mean it.
    pub(crate) fn name(&mut self, agent: AgentId, named: Option<String>) {
        if let Some(sitting) = self.seats.sitting(agent)
            && sitting.named != named
        {
            let seat = sitting.seat;
            self.seats.set(agent, seat, named);
            self.reasons
                .entry(agent)
                .or_insert("connections name it by its name");
        }
    }
    pub(crate) fn healthy(&self, agent: AgentId) -> bool {
        self.members.get(agent).is_some_and(|member| member.healthy)
    }
    pub(crate) fn made_for(&self, agent: AgentId, role: Role) -> bool {
        self.members
            .get(agent)
            .is_some_and(|member| member.made_for(role))
    }

    fn changes(self, generation: &Generation) -> Vec<Change> {
        let gone = self.gone.iter().map(|(agent, _)| Change {
            agent: *agent,
            seat: None,
            named: None,
            reason: "it has gone or failed".into(),
        });
        let mut given: Vec<_> = self
            .reasons
            .iter()
            .filter_map(|(agent, reason)| {
                let sitting = self.seats.sitting(*agent)?;
                (generation.seats.sitting(*agent) != Some(sitting))
                    .then_some((agent, sitting, reason))
            })
            .collect();
        // Who gives a role up comes first, so that nobody is ever one too many.
        let demoted = |agent, after: &Sitting| {
            let before = generation
                .seat(agent)
                .map_or(Role::Worker, |seat| seat.role);
            before != Role::Worker && after.seat.role == Role::Worker
        };
        given.sort_by_cached_key(|(agent, sitting, _)| {
            (!demoted(**agent, sitting), sitting.seat.place)
        });
        let given = given.into_iter().map(|(agent, sitting, reason)| Change {
            agent: *agent,
            seat: Some(sitting.seat),
            named: sitting.named.clone(),
            reason: (*reason).to_owned(),
        });
        gone.chain(given).collect()
    }
}
