//! What an input changed: for projections, which rewrite just these rows.

use std::collections::BTreeSet;

use swarm_events::{AgentId, CommandId, KeyId, OrgId, SwarmId, UserId};

/// Everything that was changed since the set was last emptied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Organizations.
    pub orgs: BTreeSet<OrgId>,
    /// Users.
    pub users: BTreeSet<(OrgId, UserId)>,
    /// API keys.
    pub keys: BTreeSet<(OrgId, KeyId)>,
    /// Templates of topologies, deleted ones too.
    pub templates: BTreeSet<(OrgId, String)>,
    /// Swarms: their own fields, or what follows from their agents (status, number of agents).
    pub swarms: BTreeSet<(OrgId, SwarmId)>,
    /// Agents.
    pub agents: BTreeSet<(OrgId, SwarmId, AgentId)>,
    /// Questions, by the swarm of the agent that asks; ended ones too.
    pub questions: BTreeSet<(OrgId, SwarmId, CommandId)>,
}

impl Touched {
    /// Nothing touched?
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
