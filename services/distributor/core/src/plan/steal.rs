//! What idle agents may take over from busy ones: tasks that wait, unstarted, at agents whose slots are all taken.

use swarm_events::{
    Timestamp,
    planted::{self, Bug},
};

use super::ready::SwarmPlan;
use crate::{
    swarm::{Life, Swarm},
    task::{Phase, Task},
};

/// How long a task waits at its agent before it may be taken over, in milliseconds: most tasks that wait behind a short one
/// start within that time, and a steal costs two decisions.
pub const STEAL_AFTER_MS: u64 = 50;
/// How often a task may be taken over in one generation: it must come to rest somewhere.
pub const STEALS_MAX: u8 = 3;
/// Most waiting tasks of a class that are looked at for one steal: those of the best ranks, of which only some may have been
/// assigned in the last [`STEAL_AFTER_MS`].
const LOOK_MAX: usize = 32;

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
        && swarm.life == Life::Running
        && steals < STEALS_MAX
        && agent.running.len() >= agent.slots as usize
        && agent.rests().is_none()
        && agent.lost(held.incarnation).is_none();
    may.then(|| (task.class, swarm.settings.rank(task), task.submitted))
}

impl SwarmPlan {
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
        for &class in &self.waiting_classes {
            let Some((_, thief)) = self.idle_for(class) else {
                continue;
            };
            let waiting = &self.classes[class as usize].waiting;
            for &(rank, sequence, at) in waiting.iter().take(LOOK_MAX) {
                if best.is_some_and(|(found, ..)| found <= (rank, sequence)) {
                    break;
                }
                let held = swarm.tasks.get(at).and_then(|task| task.phase.held());
                let Some(held) = held else {
                    continue;
                };
                let ripe = held.at.plus_millis(STEAL_AFTER_MS);
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
