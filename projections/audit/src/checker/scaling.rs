//! What is promised of numbers: a scaling says what it does and stays within the limits, and the least number is kept.

use swarm_events::{
    AgentId, Recorded,
    agent::{Added, StopThen},
    swarm::{SCALE_STEP_MAX, Scaled},
};

use super::{
    Checker,
    swarm::{Settings, Swarm},
};
use crate::Invariant;

/// The reason of an agent that is added because there are too few.
const FOR_THE_MINIMUM: &str = "min_agents";

impl Checker {
    /// Judges the answer to an order for more or fewer agents.
    pub(super) fn scaled(&mut self, number: usize, recorded: &Recorded, scaled: &Scaled) {
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let swarm = &self.swarms[number];
        self.notes.checked(Invariant::ScalesAddUp);
        let settings = swarm.settings.at(cause).ok();
        let wrong = added_up(scaled)
            .or_else(|| out_of_bounds(swarm, scaled, settings?, cause))
            .or_else(|| strangers(swarm, scaled, cause));
        if let Some(wrong) = wrong {
            self.notes
                .broken(Invariant::ScalesAddUp, recorded.sequence, || {
                    format!(
                        "from {} to {} by {} more and {} fewer: {wrong}",
                        scaled.before,
                        scaled.desired,
                        scaled.add.len(),
                        scaled.remove.len()
                    )
                });
        }
        self.scaled_agents(number, recorded, scaled);
    }

    /// Judges an agent that is added because there are too few.
    pub(super) fn added_for_the_minimum(
        &mut self,
        number: usize,
        recorded: &Recorded,
        added: &Added,
    ) {
        if added.reason != FOR_THE_MINIMUM {
            return;
        }
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let swarm = &self.swarms[number];
        let (Ok(settings), Some(counted)) =
            (swarm.settings.at(cause), swarm.counted_at(cause, false))
        else {
            return;
        };
        self.notes.checked(Invariant::MinAgentsKept);
        if counted >= settings.min_agents {
            let least = settings.min_agents;
            self.notes
                .broken(Invariant::MinAgentsKept, recorded.sequence, || {
                    format!("an agent is added to {counted}, and {least} are enough")
                });
        }
    }
}

fn added_up(scaled: &Scaled) -> Option<String> {
    let (add, remove) = (scaled.add.len(), scaled.remove.len());
    let after = (scaled.before as usize + add).checked_sub(remove);
    let cut = add == SCALE_STEP_MAX || remove == SCALE_STEP_MAX;
    if add > 0 && remove > 0 {
        return Some("it adds and takes out".to_owned());
    }
    if add.max(remove) > SCALE_STEP_MAX {
        return Some(format!("more than {SCALE_STEP_MAX} at a time"));
    }
    (after != Some(scaled.desired as usize) && !cut).then(|| "that is another number".to_owned())
}

fn out_of_bounds(
    swarm: &Swarm,
    scaled: &Scaled,
    settings: &Settings,
    cause: u64,
) -> Option<String> {
    let counted = swarm.counted_at(cause, true)?;
    if scaled.before > counted {
        return Some(format!("there were {counted}"));
    }
    // Of one type only some are counted before, but the limits hold for all.
    let after = u64::from(counted - scaled.before) + u64::from(scaled.desired);
    let bounds = u64::from(settings.min_agents)..=u64::from(settings.max_agents);
    (!bounds.contains(&after)).then(|| format!("the swarm takes {bounds:?}"))
}

/// What is wrong with the agents that it names.
fn strangers(swarm: &Swarm, scaled: &Scaled, cause: u64) -> Option<String> {
    if !scaled.add.is_empty() {
        let like = scaled
            .like
            .and_then(|id| swarm.wishes.get(&id)?.order.as_ref());
        if !like.is_some_and(|order| order.adapter && order.sequence <= cause) {
            return Some(format!(
                "no agent {:?} with an adapter had been added",
                scaled.like
            ));
        }
    }
    let known = |id: &AgentId| swarm.wishes.contains_key(id) || swarm.agents.contains_key(id);
    if let Some(id) = scaled.add.iter().find(|id| known(id)) {
        return Some(format!("agent {id} is there already"));
    }
    let id = scaled.remove.iter().find(|id| !known(id))?;
    Some(format!("nobody knows agent {id}"))
}

impl Swarm {
    /// Agents that were wanted, or lived without an order, for someone who had met everything up to `cause`; `failed`: those
    /// that are held to be dead and not taken out yet count, too.
    fn counted_at(&self, cause: u64, failed: bool) -> Option<u32> {
        let mut count = 0;
        for (id, wish) in &self.wishes {
            let turn = wish.at(cause)?;
            let order = wish.order.as_ref();
            let counts = if order.is_some_and(|order| order.sequence <= cause) {
                turn.wanted
            } else {
                let seen = self.agents.get(id).and_then(|agent| agent.seen_at(cause));
                let goes = turn.stop.is_some_and(|stop| stop.then == StopThen::Remove);
                !goes
                    && !turn.scaled_away
                    && seen.is_some_and(|seen| seen.member && (failed || !seen.failed))
            };
            count += u32::from(counts);
        }
        Some(count)
    }

    /// Why there are too few agents, if somebody is there to be made more of.
    pub(super) fn too_few(&self) -> Option<String> {
        let settings = self.settings.at(u64::MAX).ok()?;
        let least = settings.min_agents;
        if least == 0 {
            return None;
        }
        let orders = self.wishes.values().filter_map(|wish| wish.order.as_ref());
        let like = orders.into_iter().any(|order| order.adapter);
        // One that ended by its policy may count: another like it would end, too.
        let ended = self.wishes.values().filter(|wish| {
            let turn = wish.now;
            wish.order.is_some() && !turn.wanted && turn.stop.is_none() && turn.ended.is_some()
        });
        let counted = self.counted_at(u64::MAX, false)? + ended.count() as u32;
        let room = self.counted_at(u64::MAX, true)? < settings.max_agents;
        (like && room && counted < least)
            .then(|| format!("{counted} agents are wanted, and {least} is the least"))
    }
}
