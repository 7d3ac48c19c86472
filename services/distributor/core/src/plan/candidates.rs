//! Which agents may be given tasks of a class, and why the others are not.

use std::collections::BTreeMap;

use swarm_events::task::{CANDIDATES_MAX, PassedOver};

use super::{
    kinds::{AgentKey, Kind, Standing, fitted},
    ready::SwarmPlan,
    spot::Route,
};

impl SwarmPlan {
    /// The best agents for a class with a place, best first, at most [`CANDIDATES_MAX`].
    pub(crate) fn candidates(&self, class: u32) -> Vec<(AgentKey, u32)> {
        if let Route::Tree(tree) = &self.route {
            return self.down_the_tree(tree, class);
        }
        let waiting = &self.classes[class as usize];
        if waiting.indexed {
            // The best eight agents are among those of the eight kinds whose first agent is best; each one that is excluded
            // may stand before one kind more.
            let more = self.excluded(class).len();
            let kinds = waiting.best.iter().take(CANDIDATES_MAX + more);
            self.best_of(class, kinds.map(|&(_, kind)| kind))
        } else {
            self.best_of(class, waiting.kinds.iter().copied())
        }
    }

    /// The best agents of some kinds.
    pub(super) fn best_of(
        &self,
        class: u32,
        kinds: impl Iterator<Item = u32>,
    ) -> Vec<(AgentKey, u32)> {
        let excluded = self.excluded(class);
        let mut found = Vec::with_capacity(CANDIDATES_MAX);
        let mut looked = 0;
        for number in kinds {
            let kind = &self.kinds[number as usize];
            let fit = self.fit(class, kind.capabilities.len());
            let may = kind.free.iter().filter(|(_, at)| !excluded.contains(at));
            let best = may.take(CANDIDATES_MAX);
            found.extend(best.map(|&(key, at)| (fitted(key, fit), at)));
            looked += 1;
        }
        if looked > 1 {
            found.sort_unstable();
            found.truncate(CANDIDATES_MAX);
        }
        found
    }

    /// The best agent with a free slot of the kinds named that can take a class, and that `may` names.
    pub(super) fn idle_of(
        &self,
        class: u32,
        kinds: &[u32],
        may: impl Fn(u32) -> bool,
    ) -> Option<(AgentKey, u32)> {
        let excluded = self.excluded(class);
        let by_slot = self.strategy().slots_first();
        let kinds = kinds.iter().map(|&kind| &self.kinds[kind as usize]);
        let of_kind = |kind: &Kind| {
            // Where free slots go first, those who have one are the first.
            let idle = if by_slot { &kind.free } else { &kind.idle };
            let mut idle = idle.iter().take_while(|((waits, ..), _)| *waits == 0);
            let found = idle.find(|&&(_, at)| !excluded.contains(&at) && may(at));
            let fit = self.fit(class, kind.capabilities.len());
            found.map(|&(key, at)| (fitted(key, fit), at))
        };
        kinds
            .filter(|kind| self.fits(class, kind))
            .filter_map(of_kind)
            .min()
    }

    /// The best agent for a class that has a free slot. (Where free slots do not go first, it looks at every kind.)
    pub(crate) fn idle_for(&self, class: u32) -> Option<(AgentKey, u32)> {
        if self.idle == 0 {
            return None;
        }
        if self.strategy().slots_first() {
            let best = self.candidates(class).into_iter().next();
            return best.filter(|&((waits, ..), _)| waits == 0);
        }
        let excluded = self.excluded(class);
        let kinds = self.classes[class as usize].kinds.iter();
        kinds
            .filter_map(|&kind| {
                let mut idle = self.kinds[kind as usize].idle.iter();
                idle.find(|(_, at)| !excluded.contains(at)).copied()
            })
            .min()
    }

    /// Why the agents that are no candidates for a class are none.
    pub(crate) fn passed_over(&self, class: u32, chosen: u32) -> BTreeMap<PassedOver, u32> {
        let waiting = &self.classes[class as usize];
        let mut tally = waiting.tally;
        if !waiting.indexed {
            for &kind in &waiting.kinds {
                tally.add(&self.kinds[kind as usize].tally);
            }
        }
        let chosen = self.agents.get(chosen as usize);
        let group = chosen.and_then(|entry| Some(self.kinds.get(entry.kind? as usize)?.spot.group));
        let free = |at: &&u32| {
            let agent = self.agents.get(**at as usize);
            agent.is_some_and(|agent| {
                let kind = agent.kind.and_then(|kind| self.kinds.get(kind as usize));
                agent.standing.is_free() && kind.map(|kind| kind.spot.group) == group
            })
        };
        let declined = self.excluded(class).iter().filter(free).count() as u32;
        let (elsewhere, turn) = match &self.route {
            Route::Open | Route::Neighbours => (0, 0),
            Route::Circle(_) => (0, tally.free().saturating_sub(declined + 1)),
            Route::Tree(tree) => {
                let kinds = tree.kinds(group.unwrap_or_default());
                let kinds = kinds.iter().map(|&kind| &self.kinds[kind as usize]);
                let here = kinds.filter(|kind| self.fits(class, kind));
                let here: usize = here.map(|kind| kind.free.len()).sum();
                (tally.free().saturating_sub(here as u32), 0)
            }
        };
        let all = [
            (PassedOver::Topology, waiting.misplaced + elsewhere),
            (PassedOver::Turn, turn),
            (
                PassedOver::Capability,
                self.members - tally.members - waiting.misplaced,
            ),
            (PassedOver::Full, tally.full),
            (PassedOver::Unhealthy, tally.unhealthy),
            (PassedOver::Unresponsive, tally.unresponsive),
            (PassedOver::Draining, tally.draining),
            (PassedOver::Quarantined, tally.quarantined),
            (PassedOver::FailedFast, tally.failed_fast),
            (PassedOver::Declined, declined),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// How many agents of a kind, or of the kinds that can take a class, stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) members: u32,
    /// Those who may be given something some time.
    pub(crate) live: u32,
    full: u32,
    /// Suspected or failed.
    unhealthy: u32,
    unresponsive: u32,
    draining: u32,
    quarantined: u32,
    failed_fast: u32,
}
impl Tally {
    /// Those who have a place.
    const fn free(&self) -> u32 {
        self.members
            - self.full
            - self.unhealthy
            - self.unresponsive
            - self.draining
            - self.quarantined
            - self.failed_fast
    }
    /// Those who may be given something as soon as a slot comes free or a doubt is over; with those who rest, or without.
    pub(super) const fn soon(&self, resting: bool) -> u32 {
        let rest = if resting {
            0
        } else {
            self.quarantined + self.failed_fast
        };
        self.live - rest
    }
    pub(super) fn add(&mut self, other: &Self) {
        self.members += other.members;
        self.live += other.live;
        self.full += other.full;
        self.unhealthy += other.unhealthy;
        self.unresponsive += other.unresponsive;
        self.draining += other.draining;
        self.quarantined += other.quarantined;
        self.failed_fast += other.failed_fast;
    }
    pub(super) fn moved(&mut self, before: Standing, after: Standing) {
        if let Some(n) = self.of(before) {
            *n -= 1;
        }
        if let Some(n) = self.of(after) {
            *n += 1;
        }
        self.members -= u32::from(before != Standing::Out);
        self.members += u32::from(after != Standing::Out);
        self.live -= u32::from(before.is_live());
        self.live += u32::from(after.is_live());
    }
    const fn of(&mut self, standing: Standing) -> Option<&mut u32> {
        match standing {
            Standing::Out | Standing::Free { .. } => None,
            Standing::Failed | Standing::Suspected => Some(&mut self.unhealthy),
            Standing::Draining => Some(&mut self.draining),
            Standing::Quarantined => Some(&mut self.quarantined),
            Standing::FailedFast => Some(&mut self.failed_fast),
            Standing::Unresponsive => Some(&mut self.unresponsive),
            Standing::Full => Some(&mut self.full),
        }
    }
}
