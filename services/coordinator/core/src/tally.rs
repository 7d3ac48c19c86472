//! What a swarm counts of its agents, so that no question about them needs a look at all of them.

use serde::{Deserialize, Serialize};
use swarm_events::AgentId;

use crate::{Agent, Liveness, Managed, Swarm};

/// Sums over a swarm's agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Live ones.
    pub(crate) live: usize,
    /// Live ones that are suspected or failed.
    pub(crate) doubted: usize,
    /// Those that make the swarm degraded.
    pub(crate) troubled: usize,
    /// Those that count against `max_agents`.
    pub(crate) places: usize,
    /// Those that count for `min_agents`.
    pub(crate) standing: usize,
}

impl Agent {
    /// It counts for `min_agents`. A suspicion alone adds nobody: it is over within seconds, and a new agent would stay. One
    /// that was given up counts, and one that ended by its policy right after its start: another like it would end, too.
    fn stands(&self) -> bool {
        match &self.managed {
            Some(managed) => managed.wanted && !self.is_leaving() || managed.ended_too_soon(),
            None => self.is_live() && self.liveness != Liveness::Failed && !self.is_leaving(),
        }
    }
    /// It counts when agents are scaled: a live one that came by itself, or one that is wanted, unless it is to go.
    pub(crate) fn is_scaled(&self) -> bool {
        self.holds_place()
            && !self.is_leaving()
            && self
                .managed
                .as_ref()
                .is_none_or(|managed: &Managed| managed.wanted)
    }
}

impl Swarm {
    /// Takes an agent out of the sums before it changes.
    pub(crate) fn uncount(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get(&id) else {
            return;
        };
        let tally = &mut self.tally;
        tally.live -= usize::from(agent.is_live());
        tally.doubted -= usize::from(agent.is_live() && !agent.is_healthy());
        tally.troubled -= usize::from(agent.is_troubled());
        tally.places -= usize::from(agent.holds_place());
        tally.standing -= usize::from(agent.stands());
        if self.names.get(&agent.profile.agent_name) == Some(&id) {
            self.names.remove(&agent.profile.agent_name);
        }
    }

    /// Puts it in again after it has changed.
    pub(crate) fn count(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get(&id) else {
            return;
        };
        let tally = &mut self.tally;
        tally.live += usize::from(agent.is_live());
        tally.doubted += usize::from(agent.is_live() && !agent.is_healthy());
        tally.troubled += usize::from(agent.is_troubled());
        tally.places += usize::from(agent.holds_place());
        tally.standing += usize::from(agent.stands());
        if agent.holds_place() {
            let name = agent.profile.agent_name.clone();
            self.names.entry(name).or_insert(id);
        }
    }
}
