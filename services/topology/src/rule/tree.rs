//! A tree: coordinators above supervisors above workers.

mod named;
mod parents;
mod sizes;

use std::collections::BTreeSet;

use swarm_events::{
    AgentId,
    topology::{Hierarchical, Role, Seat},
};

use crate::{Members, plan::Settle};
use named::Named;

pub(crate) fn settle(tree: &Hierarchical, settle: &mut Settle<'_>) {
    let last = tree.levels.len().saturating_sub(1);
    let named = Named::new(tree, settle.members);
    // A name that comes or goes changes what those named with it are.
    settle.dirty.extend(&named.all);
    let agents = u64::try_from(settle.seats.len()).unwrap_or(u64::MAX);
    let sizes = sizes::sizes(tree, &named.counts(last), agents);
    let size = |level| usize::try_from(sizes[level]).unwrap_or(usize::MAX);
    let mut rule = Rule {
        tree,
        last,
        chosen: named.chosen(settle, size),
        children: named.parents.keys().copied().collect(),
        sizes: (0..=last).map(size).collect(),
        vacated: Vec::new(),
        loose: BTreeSet::new(),
        made_from: vec![Members::OLDEST; last],
        plain_from: 0,
        moves: 0,
        settle,
    };
    let lowest_before = rule.lowest();
    rule.gone();
    rule.come();
    rule.seat_the_named();
    // Whose profile or name has changed may be made for its place no more.
    rule.works();
    for level in 0..last {
        rule.surplus(level);
    }
    // Whoever steps down can be what another level lacks. Each round has more at their places than the one before.
    loop {
        let moves = rule.moves;
        for level in 0..last {
            rule.fill(level);
            rule.swap(level);
            rule.spare_the_children(level);
        }
        if rule.moves == moves {
            break;
        }
    }
    rule.parents(&named, lowest_before);
}

const PLAIN: &str = "nobody is made for it, and it is the healthy worker that came first";

struct Rule<'r, 'a> {
    tree: &'r Hierarchical,
    /// The level of the workers.
    last: usize,
    /// How many each level has.
    sizes: Vec<usize>,
    /// Those named as parents that have a place in an inner level for it.
    chosen: std::collections::BTreeMap<AgentId, usize>,
    /// Those whose parent is named and there.
    children: BTreeSet<AgentId>,
    /// Places that were left: at which level, by whom.
    vacated: Vec<(usize, AgentId)>,
    /// Those whose parent is to be found.
    loose: BTreeSet<AgentId>,
    /// For each level, from which age on there may be somebody made for it who is free.
    made_from: Vec<(u64, AgentId)>,
    /// From which place on there may be a plain healthy worker.
    plain_from: u64,
    /// How many have got another level.
    moves: usize,
    settle: &'r mut Settle<'a>,
}

fn number(level: usize) -> u32 {
    u32::try_from(level).unwrap_or(u32::MAX)
}

impl Rule<'_, '_> {
    fn role(&self, level: usize) -> Role {
        self.tree.levels.get(level).map_or(Role::Worker, |l| l.role)
    }
    /// The inner level at which it sits.
    fn inner_level(&self, agent: AgentId) -> Option<usize> {
        let seat = self.settle.seats.get(agent)?;
        (seat.role != Role::Worker).then_some(seat.level as usize)
    }
    fn count_at(&self, level: usize) -> usize {
        self.settle.seats.inner_count(number(level))
    }
    /// The inner level under which the workers are.
    fn lowest(&self) -> Option<usize> {
        let mut from_below = (0..self.last).rev();
        from_below.find(|level| self.count_at(*level) > 0)
    }
    /// Whether it was made for the level: it is named as a parent there, or its type or a capability says so.
    fn made(&self, agent: AgentId, level: usize) -> bool {
        match self.chosen.get(&agent) {
            Some(chosen) => *chosen == level,
            None => self.settle.made_for(agent, self.role(level)),
        }
    }
    /// Whether it was made for any inner level.
    fn made_at_all(&self, agent: AgentId) -> bool {
        self.chosen.contains_key(&agent)
            || self.settle.made_for(agent, Role::Coordinator)
            || self.settle.made_for(agent, Role::Supervisor)
    }

    fn give(&mut self, agent: AgentId, level: usize, reason: &'static str) {
        let before = self.inner_level(agent);
        if before == Some(level) {
            return;
        }
        self.moves += 1;
        if let Some(before) = before {
            self.vacate(agent, before);
        }
        let seat = Seat {
            role: self.role(level),
            level: number(level),
            parent: None,
            works: level == self.last || !self.made(agent, level),
            ..self.settle.seat(agent)
        };
        self.settle.give(agent, seat, reason);
        self.loose.insert(agent);
        if level == self.last {
            // It is free for another place.
            self.plain_from = self.plain_from.min(seat.place);
            if let Some(member) = self.settle.members.get(agent) {
                for from in &mut self.made_from {
                    *from = member.age().min(*from);
                }
            }
        }
    }
    fn vacate(&mut self, agent: AgentId, level: usize) {
        self.vacated.push((level, agent));
        self.loose.extend(self.settle.seats.children(agent));
    }

    fn gone(&mut self) {
        for (agent, seat) in self.settle.gone.clone() {
            if seat.role != Role::Worker {
                self.vacate(agent, seat.level as usize);
            }
        }
    }
    /// Those who have come are workers at first.
    fn come(&mut self) {
        for agent in self.settle.dirty.clone() {
            let Some(seat) = self.settle.seats.get(agent).copied() else {
                continue;
            };
            self.loose.insert(agent);
            if seat.role == Role::Worker {
                let seat = Seat {
                    level: number(self.last),
                    works: true,
                    ..seat
                };
                self.settle.give(agent, seat, "worker");
            }
        }
    }
    fn seat_the_named(&mut self) {
        for (agent, level) in self.chosen.clone() {
            self.give(agent, level, "it is named as a parent");
        }
    }
    /// Who is to be below another one is not drafted to be above others, if anybody else can be.
    fn spare_the_children(&mut self, level: usize) {
        for agent in self.children.clone() {
            if self.inner_level(agent) == Some(level)
                && !self.made(agent, level)
                && let Some(plain) = self.plain()
            {
                self.give(agent, self.last, "worker: its parent is named");
                self.give(plain, level, PLAIN);
            }
        }
    }

    /// Takes the places of those who are too many: drafted ones first, then those with the fewest children, the youngest.
    fn surplus(&mut self, level: usize) {
        let size = self.sizes[level];
        let mut there = self.count_at(level);
        if there <= size {
            return;
        }
        let mut all: Vec<_> = self
            .settle
            .seats
            .inner_at(number(level))
            .filter(|(_, _, id)| !self.chosen.contains_key(id))
            .map(|(children, place, id)| {
                let above = !self.children.contains(&id);
                (
                    self.made(id, level),
                    above,
                    children,
                    std::cmp::Reverse(place),
                    id,
                )
            })
            .collect();
        all.sort_unstable();
        for (_, _, _, _, agent) in all {
            if there <= size {
                break;
            }
            self.give(agent, self.last, "worker: there are enough above");
            there -= 1;
        }
    }

    fn fill(&mut self, level: usize) {
        let mut there = self.count_at(level);
        while there < self.sizes[level] {
            let (agent, reason) = if let Some(made) = self.spare(level) {
                (made, "the oldest that is made for it")
            } else if let Some(heir) = self.heir(level) {
                (heir, "the oldest child of the one that was there")
            } else if let Some(plain) = self.plain() {
                (plain, PLAIN)
            } else if let Some(any) = self.anybody(level) {
                (any, "nobody else is there for it")
            } else {
                return;
            };
            self.give(agent, level, reason);
            there += 1;
        }
    }
    /// Those made for the place take it from those who are not.
    fn swap(&mut self, level: usize) {
        while let Some(drafted) = self.settle.seats.last_drafted(number(level))
            && let Some(made) = self.spare(level)
        {
            self.give(
                drafted,
                self.last,
                "worker: one that is made for it is there now",
            );
            self.give(made, level, "the oldest that is made for it");
        }
    }

    /// Whether it may leave where it sits for a place at the level that it was made for.
    fn free(&self, agent: AgentId, level: usize) -> bool {
        self.settle.healthy(agent)
            && !self.chosen.contains_key(&agent)
            && match self.inner_level(agent) {
                None => true,
                Some(other) => other > level && !self.made(agent, other),
            }
    }
    /// The oldest healthy one that is made for it and free.
    fn spare(&mut self, level: usize) -> Option<AgentId> {
        let members = self.settle.members;
        let mut seen = self.made_from[level];
        let found = members
            .made(self.role(level), seen)
            .inspect(|member| seen = member.age())
            .find(|member| self.free(member.id, level))
            .map(|member| member.id);
        if found.is_none() && !members.is_empty() {
            // Nobody from here on.
            seen = (u64::MAX, AgentId(uuid::Uuid::max()));
        }
        self.made_from[level] = seen;
        found
    }
    /// The oldest healthy child of whoever was at the level before.
    fn heir(&mut self, level: usize) -> Option<AgentId> {
        let at = self.vacated.iter().position(|(l, _)| *l == level)?;
        let (_, former) = self.vacated.remove(at);
        let children = self.settle.seats.children(former);
        let heir = children.into_iter().find(|id| {
            *id != former
                && self.settle.healthy(*id)
                && !self.chosen.contains_key(id)
                && !self.children.contains(id)
                && self.inner_level(*id).is_none_or(|other| other > level)
        });
        heir.or_else(|| self.heir(level))
    }
    /// The first healthy worker that was made for nothing else.
    fn plain(&mut self) -> Option<AgentId> {
        let mut seen = self.plain_from;
        let found = self
            .settle
            .seats
            .level_from(number(self.last), seen)
            .inspect(|(place, _)| seen = *place)
            .map(|(_, id)| id)
            .find(|id| {
                self.settle.healthy(*id) && !self.made_at_all(*id) && !self.children.contains(id)
            });
        self.plain_from = if found.is_some() { seen } else { u64::MAX };
        found
    }
    /// Any worker, those that are healthy first; then anybody below.
    fn anybody(&self, level: usize) -> Option<AgentId> {
        let workers = || {
            let all = self.settle.seats.level_from(number(self.last), 0);
            all.map(|(_, id)| id)
                .filter(|id| !self.chosen.contains_key(id))
        };
        let below = (level + 1..self.last)
            .rev()
            .flat_map(|below| self.settle.seats.inner_at(number(below)))
            .map(|(_, _, id)| id);
        workers()
            .find(|id| self.settle.healthy(*id))
            .or_else(|| workers().next())
            .or_else(|| below.into_iter().find(|id| !self.chosen.contains_key(id)))
    }

    /// Who was made for its inner place does only that.
    fn works(&mut self) {
        for agent in self.settle.dirty.clone() {
            let Some(level) = self.inner_level(agent) else {
                continue;
            };
            let seat = self.settle.seat(agent);
            let works = !self.made(agent, level);
            self.settle.give(
                agent,
                Seat { works, ..seat },
                if works {
                    "it goes on working: it is not made for it"
                } else {
                    "it is made for its place, and does nothing else"
                },
            );
        }
    }
}
