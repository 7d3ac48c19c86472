//! What idle agents may take over from busy ones: tasks that wait, unstarted, at agents whose slots are all taken.

use swarm_events::{
    Timestamp,
    planted::{self, Bug},
    topology::{NEIGHBOURS_MAX, Topology},
};

use super::{
    kinds::Standing,
    ready::SwarmPlan,
    spot::{Route, is_full},
};
use crate::{
    swarm::{Life, Swarm},
    task::{Held, Phase, Task},
};

/// How long a task waits at its agent before it may be taken over, in milliseconds: most tasks that wait behind a short one
/// start within that time, and a steal costs two decisions.
pub const STEAL_AFTER_MS: u64 = 50;
/// How often a task may be taken over in one generation: it must come to rest somewhere.
pub const STEALS_MAX: u8 = 3;
/// Most waiting tasks of a class that are looked at for one steal: those of the best ranks, of which only some may have been
/// assigned in the last [`STEAL_AFTER_MS`].
const LOOK_MAX: usize = 32;
/// The same where not everybody may take from everybody: the best ranked may wait where nobody is near.
const LOOK_NEAR_MAX: usize = 128;

/// Where a task stands among those that may be taken over: class, rank, sequence of its submission.
pub(crate) type Waiting = (u32, i64, u64);

/// What an idle agent finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Find {
    Steal {
        task: u32,
        thief: u32,
    },
    /// Nothing before then.
    Later(Timestamp),
    Nothing,
}

/// Where a task stands among those that may be taken over, if it may.
pub(crate) fn waiting(swarm: &Swarm, task: &Task) -> Option<Waiting> {
    let Phase::Assigned(held) = &task.phase else {
        return None;
    };
    let agent = swarm.agents.get(held.agent as usize)?;
    let steals = task.more.as_ref().map_or(0, |more| more.steals);
    let may = swarm.settings.stealing
        && swarm.ring().is_none()
        && swarm.life == Life::Running
        && steals < STEALS_MAX
        && agent.running.len() >= agent.slots as usize
        && agent.rests().is_none()
        && agent.lost(held.incarnation).is_none();
    may.then(|| (task.class, swarm.settings.rank(task), task.submitted))
}

/// From when on a task that waits at its agent may be taken over. In a mesh agents tell each other in rounds what waits with
/// them: every so many milliseconds of the log's time a new one begins.
pub(crate) fn ripe_at(swarm: &Swarm, held: &Held) -> Timestamp {
    let ripe = held.at.plus_millis(STEAL_AFTER_MS);
    let Topology::Mesh(mesh) = swarm.shape.topology() else {
        return ripe;
    };
    let round = i64::try_from(mesh.gossip_interval_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
    if round == 0 {
        return ripe;
    }
    let told = held.at.as_micros().div_euclid(round).saturating_add(1);
    Timestamp::from_micros(told.saturating_mul(round)).max(ripe)
}

/// Whether an agent may take over what waits at another one, by the topology.
pub(crate) fn may_take_over(swarm: &Swarm, thief: u32, holder: u32) -> bool {
    let id = |at: u32| swarm.agents.get(at as usize).map(|agent| agent.id);
    let (Some(thief), Some(holder)) = (id(thief), id(holder)) else {
        return false;
    };
    match swarm.shape.topology() {
        Topology::Mesh(mesh) if is_full(mesh) => thief != holder,
        _ => swarm.shape.may_steal(thief, holder),
    }
}

impl SwarmPlan {
    /// The best idle agent for tasks of a class that may take over what waits at another one.
    pub(super) fn thief_for(&self, swarm: &Swarm, class: u32, holder: u32) -> Option<u32> {
        match &self.route {
            Route::Open | Route::Circle(_) => None,
            Route::Neighbours => {
                let id = swarm.agents.get(holder as usize)?.id;
                let excluded = self.excluded(class);
                let near = swarm.shape.neighbours(id).take(NEIGHBOURS_MAX as usize);
                let near = near.filter_map(|id| swarm.agent_numbers.get(&id).copied());
                let idle = near.filter_map(|at| {
                    let Standing::Free { key, slot: true } = self.agents.get(at as usize)?.standing
                    else {
                        return None;
                    };
                    let may = self.agent_fits(class, at) && !excluded.contains(&at);
                    (may && may_take_over(swarm, at, holder)).then_some((key, at))
                });
                idle.min().map(|(_, at)| at)
            }
            Route::Tree(tree) => {
                let kind = self.agents.get(holder as usize)?.kind?;
                let group = self.kinds.get(kind as usize)?.spot.group;
                let within = self.confined_to(class);
                let may = |at| Some(at) != within && may_take_over(swarm, at, holder);
                let found = self.idle_of(class, tree.kinds(group), may);
                found.map(|(_, at)| at)
            }
        }
    }

    /// Puts a task among those that may be taken over, or takes it out.
    pub(crate) fn set_waiting(&mut self, at: u32, place: Option<Waiting>, text: &str) {
        let before = match place {
            Some(place) => self.waiting.insert(at, place),
            None => self.waiting.remove(&at),
        };
        if before == place {
            return;
        }
        if let Some((class, rank, sequence)) = before
            && let Some(waiting) = self.classes.get_mut(class as usize)
        {
            waiting.waiting.remove(&(rank, sequence, at));
            if waiting.waiting.is_empty() {
                self.waiting_classes.remove(&class);
            }
        }
        if let Some((class, rank, sequence)) = place {
            self.ensure_class(class, text);
            let waiting = &mut self.classes[class as usize].waiting;
            waiting.insert((rank, sequence, at));
            self.waiting_classes.insert(class);
        }
    }

    /// Whether an idle agent may find something.
    pub(crate) fn may_steal(&self) -> bool {
        self.active && self.idle > 0 && !self.waiting_classes.is_empty()
    }

    /// The best-ranked task that an idle agent can take over now.
    pub(crate) fn next_steal(&self, swarm: &Swarm, now: Timestamp) -> Find {
        let mut best: Option<((i64, u64), u32, u32)> = None;
        let mut later: Option<Timestamp> = None;
        let open = matches!(self.route, Route::Open) || planted::is(Bug::StealsFromStrangers);
        let look = if open { LOOK_MAX } else { LOOK_NEAR_MAX };
        for &class in &self.waiting_classes {
            let anybody = match open {
                true => self.idle_for(class).map(|(_, at)| at),
                false => None,
            };
            if open && anybody.is_none() {
                continue;
            }
            let waiting = &self.classes[class as usize].waiting;
            for &(rank, sequence, at) in waiting.iter().take(look) {
                if best.is_some_and(|(found, ..)| found <= (rank, sequence)) {
                    break;
                }
                let held = swarm.tasks.get(at).and_then(|task| task.phase.held());
                let Some(held) = held else {
                    continue;
                };
                let near = || self.thief_for(swarm, class, held.agent);
                let Some(thief) = anybody.or_else(near) else {
                    continue;
                };
                let ripe = ripe_at(swarm, held);
                if ripe > now && !planted::is(Bug::StealsTooSoon) {
                    later = Some(later.map_or(ripe, |t| t.min(ripe)));
                    continue;
                }
                best = Some(((rank, sequence), at, thief));
                break;
            }
        }
        match (best, later) {
            (Some((_, task, thief)), _) => Find::Steal { task, thief },
            (None, Some(ripe)) => Find::Later(ripe),
            (None, None) => Find::Nothing,
        }
    }
}
