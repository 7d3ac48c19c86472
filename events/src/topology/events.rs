//! What events say of topologies: seats, changes, leaders.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Seat, Topology};
use crate::{ids::AgentId, problem::Problem};

/// `swarm.agent.seated.v1`: an agent's place from the topology's generation on; without a seat it has none any more. It counts
/// once `topology_changed` of that generation is met (the first generation counts from the swarm's beginning).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seated {
    /// Rises by one with each change of the topology, from 1.
    pub generation: u64,
    /// The place.
    pub seat: Option<Seat>,
    /// Its name, if connections of the topology name it by that: who follows seats alone knows no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// By what rule.
    pub reason: String,
}

/// `swarm.swarm.topology_planned.v1`: a change begins. The seats of the new generation follow, then `topology_changed`; or
/// `topology_kept`, if it cannot be completed. Until then the old one holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologyPlanned {
    /// The generation that it is to be.
    pub generation: u64,
    /// What there is.
    pub before: Topology,
    /// What is wanted.
    pub after: Topology,
    /// Agents that are to be seated.
    pub agents: u32,
    /// Of these, how many get another role or parent.
    pub moves: u32,
    /// Why: by order, or the rule of adaptation.
    pub reason: String,
}

/// `swarm.swarm.topology_changed.v1`: the generation holds from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologyChanged {
    /// The generation that holds.
    pub generation: u64,
    /// What there was.
    pub before: Topology,
    /// What there is.
    pub after: Topology,
    /// Agents that were seated.
    pub agents: u32,
    /// Of these, how many got another role or parent.
    pub moves: u32,
    /// Why.
    pub reason: String,
}

/// `swarm.swarm.topology_kept.v1`: a change could not be completed; what was before goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologyKept {
    /// The generation that was to be. It is used up.
    pub generation: u64,
    /// What goes on.
    pub kept: Topology,
    /// Why.
    pub problem: Problem,
}

/// `swarm.swarm.topology_suggested.v1`: a rule of adaptation says that another topology would be better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologySuggested {
    /// Which.
    pub after: Topology,
    /// The rule: the name of its setting.
    pub rule: String,
    /// Its limit.
    pub limit: u64,
    /// The figure that was above it, in the rule's unit, at the last look.
    pub figure: u64,
    /// For how long without a break, in milliseconds.
    pub since_ms: u64,
    /// Whether it is applied too.
    pub applied: bool,
}

/// `swarm.swarm.leader_elected.v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaderElected {
    /// Who leads; nobody, if no agent is healthy.
    pub leader: Option<AgentId>,
    /// The incarnation that was elected, 0 if nobody.
    pub incarnation: u64,
    /// Who led before.
    pub before: Option<AgentId>,
    /// By what rule it was chosen, and what became of the one before.
    pub reason: String,
    /// How many agents could have been.
    pub eligible: u32,
}
