//! Where each agent stands. Agents with the same capabilities are one kind; a kind orders those with a place by score.

use std::collections::BTreeSet;

use swarm_events::topology::Role;

use super::{
    candidates::Tally,
    ready::{Class, SwarmPlan},
    spot::{Route, Spot},
};
use crate::{
    affinity,
    agent::{Agent, Health, LAPSES_MAX, Membership, Rest, has},
    class::of_class,
    strategy::Load,
};

/// Up to so many kinds that can take a class are looked at one by one; above it the class keeps them ordered. Most swarms
/// have a handful, and keeping an order costs more than looking at those.
pub(crate) const KINDS_SCANNED_MAX: usize = 8;

/// The order of agents with a place: free slots first where the algorithm wants that, then score, then its rule for ties.
pub(crate) type AgentKey = (u8, i64, u64);

/// The key of an agent for a class of which it has `surplus` capabilities more than needed.
pub(crate) const fn fitted(key: AgentKey, fit: i64) -> AgentKey {
    (key.0, key.1.saturating_add(fit), key.2)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not a member.
    #[default]
    Out,
    Failed,
    Suspected,
    Draining,
    Quarantined,
    FailedFast,
    Unresponsive,
    /// Without a place for another task.
    Full,
    Free {
        key: AgentKey,
        /// A slot is free, and not just a waiting place.
        slot: bool,
    },
}
impl Standing {
    /// Sooner or later it may be given something.
    pub(super) const fn is_live(self) -> bool {
        !matches!(self, Self::Out | Self::Failed | Self::Draining)
    }
    pub(super) const fn is_free(self) -> bool {
        matches!(self, Self::Free { .. })
    }
    const fn has_slot(self) -> bool {
        matches!(self, Self::Free { slot: true, .. })
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AgentPlan {
    pub(crate) kind: Option<u32>,
    pub(crate) standing: Standing,
    /// Tasks that are promised to it: assignments and steals under way.
    pub(crate) promised: u32,
    /// Number of the last assignment under way to it; 0 if there is none.
    pub(crate) turn: u64,
    /// Tasks held and promised, and slots, as they count in the swarm's totals.
    pub(super) counted: (u32, u32),
    /// All its slots run something.
    busy: bool,
    /// Its role, as it counts in the swarm's.
    pub(super) role: Option<Role>,
}

#[derive(Debug, Default)]
pub(crate) struct Kind {
    pub(crate) capabilities: Box<[Box<str>]>,
    pub(crate) spot: Spot,
    pub(crate) tally: Tally,
    pub(crate) free: BTreeSet<(AgentKey, u32)>,
    /// Those of `free` with a free slot, where `free` is not ordered by that.
    pub(super) idle: BTreeSet<(AgentKey, u32)>,
    /// Classes whose tasks its agents can take.
    pub(crate) classes: Vec<u32>,
    /// Those of them that keep their kinds ordered.
    pub(crate) indexed: Vec<u32>,
    /// Those of them that exclude agents: few, since a task must be declined for it.
    pub(crate) choosy: Vec<u32>,
    /// Classes that it could take by its capabilities, and not by its place.
    pub(super) misplaced: Vec<u32>,
}

impl SwarmPlan {
    /// An agent joined, or joined again, perhaps with other capabilities.
    pub(crate) fn join(&mut self, at: u32, agent: &Agent, spot: Spot) {
        self.leave_kind(at);
        let by_spot = self.kind_numbers.get(&agent.capabilities);
        let kind = match by_spot.and_then(|by_spot| by_spot.get(&spot)) {
            Some(&kind) => kind,
            None => self.add_kind(agent, spot),
        };
        self.agent_or_new(at).kind = Some(kind);
    }

    /// An agent is of no kind any more, and counts nowhere.
    pub(super) fn leave_kind(&mut self, at: u32) {
        self.stand(at, Standing::Out);
        self.count(at, (0, 0));
        self.agent_or_new(at).kind = None;
    }

    fn add_kind(&mut self, agent: &Agent, spot: Spot) -> u32 {
        let number = self.kinds.len() as u32;
        let by_spot = self
            .kind_numbers
            .entry(agent.capabilities.clone())
            .or_default();
        by_spot.insert(spot, number);
        self.kinds.push(Kind {
            capabilities: agent.capabilities.clone(),
            spot,
            ..Kind::default()
        });
        if let Route::Tree(tree) = &mut self.route {
            tree.add_kind(spot.group, number);
        }
        for class in 0..self.classes.len() as u32 {
            self.link_if_able(class, number);
        }
        number
    }

    /// Links a kind to a class if its agents can take its tasks; if only their place is not one for it, that is noted.
    pub(super) fn link_if_able(&mut self, class: u32, number: u32) {
        let kind = &self.kinds[number as usize];
        let waiting = &self.classes[class as usize];
        let able = waiting
            .words()
            .is_some_and(|text| of_class(text).all(|word| has(&kind.capabilities, word)));
        if !able {
            return;
        }
        if kind.spot.takes(waiting.role) {
            self.link(class, number);
            return;
        }
        let members = kind.tally.members;
        let waiting = &mut self.classes[class as usize];
        waiting.misplaced += members;
        waiting.misplaced_any = true;
        self.kinds[number as usize].misplaced.push(class);
    }

    /// Takes a class away from all kinds that know it.
    pub(super) fn unlink(&mut self, class: u32) {
        if self.classes[class as usize].misplaced_any {
            for kind in &mut self.kinds {
                kind.misplaced.retain(|c| *c != class);
            }
        }
        for number in self.classes[class as usize].kinds.clone() {
            let kind = &mut self.kinds[number as usize];
            kind.classes.retain(|c| *c != class);
            kind.indexed.retain(|c| *c != class);
            kind.choosy.retain(|c| *c != class);
            if let Route::Tree(tree) = &mut self.route
                && !kind.free.is_empty()
            {
                tree.open(kind.spot.group, class, false);
            }
        }
    }

    pub(super) fn agent_or_new(&mut self, at: u32) -> &mut AgentPlan {
        let at = at as usize;
        if self.agents.len() <= at {
            self.agents.resize(at + 1, AgentPlan::default());
        }
        &mut self.agents[at]
    }

    /// Puts an agent where its state, its load and what is promised to it belong.
    pub(crate) fn set_load(&mut self, at: u32, agent: &Agent) {
        let (promised, turn) = {
            let entry = self.agent_or_new(at);
            (entry.promised, entry.turn)
        };
        let held = (agent.running.len() + agent.waiting.len()) as u32 + promised;
        let strategy = self.strategy();
        let (slots, places) = agent.limits(strategy.fills_places(), self.fast_failures_max);
        let slot = held < slots;
        let standing = if agent.membership != Membership::Member {
            Standing::Out
        } else if agent.health == Health::Failed {
            Standing::Failed
        } else if let Some(rest) = agent.rests() {
            match rest {
                Rest::Draining => Standing::Draining,
                Rest::Quarantined => Standing::Quarantined,
                Rest::FailedFast => Standing::FailedFast,
            }
        } else if agent.health == Health::Suspected {
            Standing::Suspected
        } else if agent.lapses >= LAPSES_MAX {
            Standing::Unresponsive
        } else if held >= slots.saturating_add(places) {
            Standing::Full
        } else {
            let load = Load {
                held,
                slots,
                turn: agent.turn.max(turn),
            };
            let score = strategy.score(load);
            let waits = u8::from(strategy.slots_first() && !slot);
            Standing::Free {
                key: (waits, score, strategy.tie(load, agent.joined)),
                slot,
            }
        };
        let counted = match standing {
            Standing::Full | Standing::Free { .. } => (held, slots),
            _ => (0, 0),
        };
        self.count(at, counted);
        self.stand(at, standing);
    }

    /// What an agent holds of how many slots, as it counts in the sums.
    fn count(&mut self, at: u32, counted: (u32, u32)) {
        let entry = self.agent_or_new(at);
        let kind = entry.kind;
        let before = std::mem::replace(&mut entry.counted, counted);
        if before == counted {
            return;
        }
        self.held_total = self.held_total - u64::from(before.0) + u64::from(counted.0);
        self.slots_total = self.slots_total - u64::from(before.1) + u64::from(counted.1);
        if let Route::Tree(tree) = &mut self.route
            && let Some(kind) = kind.and_then(|kind| self.kinds.get(kind as usize))
            && kind.spot.works
        {
            tree.carry(kind.spot.group, before, counted);
        }
    }

    /// Notes whether all slots of an agent run something. True: that has changed.
    pub(crate) fn set_busy(&mut self, at: u32, busy: bool) -> bool {
        std::mem::replace(&mut self.agent_or_new(at).busy, busy) != busy
    }

    /// Whether an agent may be given a task for the sake of its key: it has a free slot, or a waiting place and no more than
    /// its share of the load.
    pub(crate) fn may_have_more(&self, at: u32, slot_only: bool) -> Option<(AgentKey, u32)> {
        let agent = self.agents.get(at as usize)?;
        let Standing::Free { key, slot } = agent.standing else {
            return None;
        };
        let (held, slots) = agent.counted;
        let fair = || affinity::within_bound(held, slots, self.held_total, self.slots_total);
        (slot || (!slot_only && fair())).then_some((key, at))
    }

    pub(crate) fn stand(&mut self, at: u32, standing: Standing) {
        let ordered_by_slot = self.strategy().slots_first();
        let entry = self.agent_or_new(at);
        let before = std::mem::replace(&mut entry.standing, standing);
        let Some(number) = entry.kind.filter(|_| before != standing) else {
            return;
        };
        let Some(kind) = self.kinds.get_mut(number as usize) else {
            return;
        };
        let head = kind.free.first().copied();
        kind.tally.moved(before, standing);
        if let Standing::Free { key, .. } = before {
            kind.free.remove(&(key, at));
            kind.idle.remove(&(key, at));
        }
        if let Standing::Free { key, slot } = standing {
            kind.free.insert((key, at));
            if slot && !ordered_by_slot {
                kind.idle.insert((key, at));
            }
        }
        self.members -= u32::from(before != Standing::Out);
        self.members += u32::from(standing != Standing::Out);
        let next = kind.free.first().copied();
        match (before.has_slot(), standing.has_slot()) {
            (false, true) => self.idle += 1,
            (true, false) => self.idle -= 1,
            _ => {}
        }
        self.show(number, before, standing, head, next);
        if head.is_some() != next.is_some() {
            self.show_above(number, next.is_some());
        }
        if head.is_none() && next.is_some() {
            self.unblock(number);
        }
        let (was, is) = (before != Standing::Out, standing != Standing::Out);
        if was != is {
            let kind = &self.kinds[number as usize];
            for &class in &kind.misplaced {
                let misplaced = &mut self.classes[class as usize].misplaced;
                *misplaced = *misplaced + u32::from(is) - u32::from(was);
            }
        }
        if before.is_live() != standing.is_live() {
            self.parts_changed();
        }
        // For a class that excludes agents it matters which one has a place, and whether there are others at all.
        let opened = !before.is_free() && standing.is_free();
        if opened || before.is_live() != standing.is_live() {
            self.unblock_choosy(number);
        }
    }

    /// Tells the classes that keep their kinds ordered.
    fn show(
        &mut self,
        number: u32,
        before: Standing,
        after: Standing,
        head: Option<(AgentKey, u32)>,
        next: Option<(AgentKey, u32)>,
    ) {
        let kind = &mut self.kinds[number as usize];
        if kind.indexed.is_empty() {
            return;
        }
        let have = kind.capabilities.len();
        let classes = std::mem::take(&mut kind.indexed);
        for &class in &classes {
            let fit = self.fit(class, have);
            let waiting = &mut self.classes[class as usize];
            waiting.tally.moved(before, after);
            if head == next {
                continue;
            }
            if let Some((key, _)) = head {
                waiting.best.remove(&(fitted(key, fit), number));
            }
            if let Some((key, _)) = next {
                waiting.best.insert((fitted(key, fit), number));
            }
        }
        self.kinds[number as usize].indexed = classes;
    }

    /// Tells those above a kind in a tree that it has a place now, or none any more.
    fn show_above(&mut self, number: u32, opened: bool) {
        let kind = &self.kinds[number as usize];
        if let Route::Tree(tree) = &mut self.route {
            for &class in &kind.classes {
                tree.open(kind.spot.group, class, opened);
            }
        }
    }

    pub(super) fn unblock_class(&mut self, class: u32) {
        let waiting = &mut self.classes[class as usize];
        if waiting.blocked {
            waiting.blocked = false;
            self.fix_heads(class);
        }
    }

    fn unblock(&mut self, kind: u32) {
        let classes = std::mem::take(&mut self.kinds[kind as usize].classes);
        classes.iter().for_each(|&class| self.unblock_class(class));
        self.kinds[kind as usize].classes = classes;
    }

    fn unblock_choosy(&mut self, kind: u32) {
        if self.kinds[kind as usize].choosy.is_empty() {
            return;
        }
        let classes = std::mem::take(&mut self.kinds[kind as usize].choosy);
        classes.iter().for_each(|&class| self.unblock_class(class));
        self.kinds[kind as usize].choosy = classes;
    }

    /// The agents that are not to get tasks of a class: none, unless there are others who could have them some time, or
    /// these tasks have just been declined.
    pub(crate) fn excluded(&self, class: u32) -> &[u32] {
        let Some(waiting) = self.classes.get(class as usize) else {
            return &[];
        };
        if waiting.excluded.is_empty() || waiting.strict {
            return &waiting.excluded;
        }
        if self.has_others(waiting) {
            &waiting.excluded
        } else {
            &[]
        }
    }

    /// The agents that get tasks of a class again once these have waited, though they declined them: there are no others.
    pub(crate) fn excluded_for_now(&self, class: u32) -> &[u32] {
        let waiting = self.classes.get(class as usize);
        let waiting = waiting.filter(|waiting| waiting.strict && !self.has_others(waiting));
        waiting.map_or(&[], |waiting| &waiting.excluded)
    }

    /// Whether agents that a class does not exclude could have its tasks some time.
    fn has_others(&self, waiting: &Class) -> bool {
        let live: u32 = if waiting.indexed {
            waiting.tally.live
        } else {
            let kinds = waiting.kinds.iter();
            kinds
                .map(|&kind| self.kinds[kind as usize].tally.live)
                .sum()
        };
        let text = waiting.words().unwrap_or_default();
        let able = |at: &&u32| {
            let agent = self.agents.get(**at as usize);
            let kind = agent
                .filter(|agent| agent.standing.is_live())
                .and_then(|agent| self.kinds.get(agent.kind? as usize));
            kind.is_some_and(|kind| {
                kind.spot.takes(waiting.role)
                    && of_class(text).all(|word| has(&kind.capabilities, word))
            })
        };
        let own = waiting.excluded.iter().filter(able).count() as u32;
        live > own
    }

    /// What the surplus of a kind with `have` capabilities adds to its agents' scores for a class.
    pub(crate) fn fit(&self, class: u32, have: usize) -> i64 {
        let surplus = have.saturating_sub(self.classes[class as usize].needs);
        self.strategy().surplus_weight() * surplus as i64
    }

    /// Notes that a kind can take a class.
    pub(crate) fn link(&mut self, class: u32, kind: u32) {
        self.classes[class as usize].kinds.push(kind);
        self.kinds[kind as usize].classes.push(class);
        let waiting = &self.classes[class as usize];
        if !waiting.excluded.is_empty() || waiting.within.is_some() {
            self.kinds[kind as usize].choosy.push(class);
        }
        if let Route::Tree(tree) = &mut self.route
            && !self.kinds[kind as usize].free.is_empty()
        {
            tree.open(self.kinds[kind as usize].spot.group, class, true);
        }
        let waiting = &self.classes[class as usize];
        if waiting.indexed {
            self.index(class, kind);
        } else if waiting.kinds.len() > KINDS_SCANNED_MAX {
            self.classes[class as usize].indexed = true;
            for kind in self.classes[class as usize].kinds.clone() {
                self.index(class, kind);
            }
        }
    }

    fn index(&mut self, class: u32, number: u32) {
        let fit = self.fit(class, self.kinds[number as usize].capabilities.len());
        let kind = &mut self.kinds[number as usize];
        kind.indexed.push(class);
        let waiting = &mut self.classes[class as usize];
        waiting.tally.add(&kind.tally);
        if let Some(&(key, _)) = kind.free.first() {
            waiting.best.insert((fitted(key, fit), number));
        }
    }
}
