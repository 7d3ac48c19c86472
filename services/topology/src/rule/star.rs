//! A hub and its workers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId,
    topology::{Role, Seat, Selector, Star},
};

use crate::{Members, plan::Settle};

/// A hub that was lost, and the last place that there was then: whoever came since has a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    pub(crate) agent: AgentId,
    pub(crate) place: u64,
}

/// Somebody was made a hub, of which there are so many now: whose place it has waits no more.
pub(crate) fn filled(star: &Star, agent: AgentId, hubs: usize, lost: &mut Vec<Lost>) {
    if let Some(at) = lost.iter().position(|lost| lost.agent == agent) {
        lost.remove(at);
    } else if !lost.is_empty() && hubs + lost.len() > wanted(star) {
        lost.remove(0);
    }
}

fn wanted(star: &Star) -> usize {
    usize::try_from(star.coordinator_count).unwrap_or(usize::MAX)
}

pub(crate) fn settle(star: &Star, max_workers: u32, settle: &mut Settle<'_>) {
    let mut rule = Rule {
        star,
        anybody: star.coordinator == Selector::default(),
        settle,
    };
    rule.place();
    rule.hubs();
    rule.standby();
    let most = usize::try_from(star.max_workers.unwrap_or(max_workers)).unwrap_or(usize::MAX);
    if star.workers.is_empty() {
        rule.works(most);
    } else {
        rule.named_work(most);
    }
}

struct Rule<'r, 'a> {
    star: &'r Star,
    /// Who may be a hub is not limited.
    anybody: bool,
    settle: &'r mut Settle<'a>,
}

impl Rule<'_, '_> {
    /// Whether it was made to be a hub.
    fn made(&self, agent: AgentId) -> bool {
        self.settle.members.get(agent).is_some_and(|member| {
            if self.anybody {
                member.made_for(Role::Coordinator)
            } else {
                member.matches(&self.star.coordinator)
            }
        })
    }
    fn is_hub(&self, agent: AgentId) -> bool {
        self.settle.seat(agent).role == Role::Coordinator
    }
    /// The oldest healthy one that is made for it, no hub yet, and came after a place; the one that stands by first.
    fn spare(&self, after: u64) -> Option<AgentId> {
        let fits = |id: &AgentId| self.settle.healthy(*id) && self.settle.seat(*id).place > after;
        let mut standing = self.settle.seats.standby();
        let standby = standing.find(|id| fits(id) && self.made(*id));
        standby.or_else(|| self.made_ones().find(|id| fits(id) && !self.is_hub(*id)))
    }
    /// Those made for it, the oldest first.
    fn made_ones(&self) -> Box<dyn Iterator<Item = AgentId> + '_> {
        let members = self.settle.members;
        if self.anybody {
            let made = members.made(Role::Coordinator, Members::OLDEST);
            Box::new(made.map(|member| member.id))
        } else {
            let made = members.matching(&self.star.coordinator);
            Box::new(made.map(|member| member.id))
        }
    }
    /// The healthy worker that came first; the one that stands by first of all.
    fn oldest(&self) -> Option<AgentId> {
        let mut standing = self.settle.seats.standby();
        let standby = standing.find(|id| self.settle.healthy(*id));
        standby.or_else(|| self.oldest_worker())
    }
    fn oldest_worker(&self) -> Option<AgentId> {
        let mut workers = self.settle.seats.level_from(1, 0).map(|(_, id)| id);
        workers.find(|id| self.settle.healthy(*id))
    }

    /// Those who have come are workers at first; those who have gone leave their places.
    fn place(&mut self) {
        for agent in self.settle.dirty.clone() {
            let seat = self.settle.seat(agent);
            if seat.role == Role::Worker {
                self.settle.give(agent, Seat { level: 1, ..seat }, "worker");
            }
        }
        if !self.star.failover_coordinator {
            for (agent, seat) in &self.settle.gone {
                if seat.role == Role::Coordinator {
                    self.settle.lost.push(Lost {
                        agent: *agent,
                        place: self.settle.last_place,
                    });
                }
            }
        }
    }

    fn promote(&mut self, agent: AgentId, reason: &'static str) {
        let seat = Seat {
            role: Role::Coordinator,
            level: 0,
            standby: false,
            ..self.settle.seat(agent)
        };
        self.settle.give(agent, seat, reason);
        let hubs = self.settle.seats.inner_count(0);
        filled(self.star, agent, hubs, &mut self.settle.lost);
    }
    fn demote(&mut self, agent: AgentId, reason: &'static str) {
        let seat = Seat {
            role: Role::Worker,
            level: 1,
            ..self.settle.seat(agent)
        };
        self.settle.give(agent, seat, reason);
    }

    fn hubs(&mut self) {
        let (mut made, mut drafted): (Vec<AgentId>, Vec<AgentId>) = self
            .settle
            .seats
            .inner()
            .map(|(_, _, _, id)| id)
            .partition(|id| self.made(*id));
        if !self.anybody {
            for hub in drafted.drain(..) {
                self.demote(hub, "it may not be the hub any more");
            }
        }
        let wanted = wanted(self.star);
        // Too many: those drafted last, then those that came last.
        while made.len() + drafted.len() > wanted
            && let Some(hub) = drafted.pop().or_else(|| made.pop())
        {
            self.demote(hub, "there are enough hubs");
        }
        let back: Vec<AgentId> = self.settle.lost.iter().map(|lost| lost.agent).collect();
        for agent in back {
            if made.len() + drafted.len() < wanted
                && self.settle.members.contains(agent)
                && (self.anybody || self.made(agent))
            {
                self.promote(agent, "hub: it is back at its place");
                drafted.push(agent);
            }
        }
        while made.len() < wanted {
            let taken = made.len() + drafted.len() + self.settle.lost.len();
            let came_since = self.settle.lost.first().map(|lost| lost.place);
            let (spare, instead) = if taken < wanted {
                (self.spare(0), None)
            } else if let Some(spare) = came_since.and_then(|place| self.spare(place)) {
                (Some(spare), None)
            } else if let Some(hub) = drafted.last().copied() {
                (self.spare(0), Some(hub))
            } else {
                (None, None)
            };
            let Some(spare) = spare else { break };
            if let Some(hub) = instead {
                drafted.pop();
                self.demote(hub, "one that is made for it is hub now");
            }
            self.promote(spare, "the oldest that is made to be hub");
            made.push(spare);
        }
        // The places of lost hubs are kept for them.
        while self.anybody
            && made.len() + drafted.len() + self.settle.lost.len() < wanted
            && let Some(oldest) = self.oldest()
        {
            let reason = if self.settle.seat(oldest).standby {
                "hub: it stood by"
            } else {
                "hub: none is made for it, and it is the healthy agent that came first"
            };
            self.promote(oldest, reason);
            drafted.push(oldest);
        }
    }

    fn standby(&mut self) {
        let standing: Vec<AgentId> = self.settle.seats.standby().collect();
        let wanted = if !self.star.failover_coordinator || self.star.coordinator_count == 0 {
            None
        } else if let Some(made) = standing.iter().copied().find(|id| self.made(*id)) {
            Some(made)
        } else {
            let drafted = || {
                let standing = standing.first().copied();
                standing.or_else(|| self.oldest_worker())
            };
            self.spare(0)
                .or_else(|| if self.anybody { drafted() } else { None })
        };
        for agent in standing {
            if Some(agent) != wanted {
                let seat = Seat {
                    standby: false,
                    ..self.settle.seat(agent)
                };
                self.settle.give(agent, seat, "another one stands by");
            }
        }
        if let Some(agent) = wanted {
            let seat = Seat {
                standby: true,
                ..self.settle.seat(agent)
            };
            self.settle.give(agent, seat, "it stands by for the hub");
        }
    }

    fn work(&mut self, agent: AgentId, works: bool, reason: &'static str) {
        let seat = Seat {
            works,
            ..self.settle.seat(agent)
        };
        self.settle.give(agent, seat, reason);
    }

    /// Hubs that are made for it do only that, unless nobody else is there; of the others the first so many work.
    fn works(&mut self, most: usize) {
        let hubs: Vec<AgentId> = self.settle.seats.inner().map(|(_, _, _, id)| id).collect();
        let made: BTreeSet<AgentId> = hubs.iter().copied().filter(|id| self.made(*id)).collect();
        let alone = made.len() == self.settle.seats.len();
        if !alone {
            for hub in &made {
                self.work(*hub, false, "a hub that is made for it does nothing else");
            }
        }
        let may = |id: AgentId| alone || !made.contains(&id);
        while self.settle.seats.working() > most
            && let Some((_, last)) = self.settle.seats.last_working()
        {
            self.work(last, false, "it is beyond max_workers");
        }
        loop {
            let idle = self.settle.seats.idle().find(|(_, id)| may(*id));
            let Some((place, first)) = idle else { break };
            if self.settle.seats.working() >= most {
                match self.settle.seats.last_working() {
                    Some((last, id)) if place < last => {
                        self.work(id, false, "it is beyond max_workers");
                    }
                    _ => break,
                }
            }
            let reason = match self.settle.seat(first).role {
                Role::Worker => "worker",
                _ if alone => "hub, and nobody else is there to work",
                _ => "hub, and it goes on working: it is not made for it",
            };
            self.work(first, true, reason);
        }
        for agent in self.settle.dirty.clone() {
            let seat = self.settle.seat(agent);
            if seat.role == Role::Worker && !seat.works {
                self.settle
                    .because(agent, "worker beyond max_workers: it waits");
            }
        }
    }

    /// Workers that are named are the only ones.
    fn named_work(&mut self, most: usize) {
        let named = self.star.workers.iter();
        let named: BTreeSet<(u64, AgentId)> = named
            .filter_map(|name| self.settle.members.named(name))
            .filter(|member| self.settle.seats.get(member.id).is_some())
            .map(|member| (self.settle.seat(member.id).place, member.id))
            .collect();
        let working: BTreeSet<(u64, AgentId)> = named.iter().copied().take(most).collect();
        let wrong: Vec<_> = self.settle.seats.working_back().collect();
        for (place, id) in wrong {
            if !working.contains(&(place, id)) {
                self.work(id, false, "it is not one of the workers that are named");
            }
        }
        for (_, id) in &working {
            self.work(*id, true, "it is named as a worker");
        }
        for agent in self.settle.dirty.clone() {
            if !self.settle.seat(agent).works {
                let reason = "it is not one of the workers that are named, or beyond max_workers";
                self.settle.because(agent, reason);
            }
        }
    }
}
