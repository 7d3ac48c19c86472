//! What a service says to its own log. The CloudEvents subject is the partition's two digits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    agent::Evidence,
    ids::{AgentId, InstanceId, OrgId, SwarmId},
    problem::Problem,
    swarm::AgentSample,
    time::Timestamp,
};

/// `swarm.ctl.claimed.v1`. Its stream sequence is the epoch of what the claimer decides from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claimed {
    /// The service process.
    pub instance: InstanceId,
    /// Version of its decision code.
    pub decider_version: u32,
    /// Epoch of the claim before, 0 if none.
    pub previous: u64,
    /// Why it claims: `start`, `takeover`, `doubt`, `refresh`.
    pub reason: String,
    /// Inputs (stream sequences) that stuck two owners and are rejected with this claim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejects: Vec<Stuck>,
}

/// An input that `decide` could not handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stuck {
    /// Its stream sequence.
    pub sequence: u64,
    /// What happened.
    pub problem: Problem,
}

/// `swarm.ctl.woken.v1`: its store time alone matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Woken {}

/// What was seen of an agent.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Sighting {
    /// Silent for longer than the first limit.
    Silent,
    /// Silent for longer than the last limit, or disconnected for longer than its limit.
    Gone,
    /// Heard again.
    Heard,
}

/// `swarm.ctl.observed.v3`: what the log does not hold by itself. By health's shell on transitions and sampling intervals
/// only, by the distributor's shell of what it has told other swarms, and by any deciding service when a replica of it is cut
/// off or back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Observed {
    /// An agent fell silent, went, or came back.
    Liveness {
        /// Its organization: two of them may have a swarm of the same id.
        org_id: OrgId,
        /// Its swarm.
        swarm_id: SwarmId,
        /// The agent.
        agent_id: AgentId,
        /// The incarnation that was seen.
        incarnation: u64,
        /// What was seen.
        sighting: Sighting,
        /// The figures.
        evidence: Evidence,
    },
    /// Heartbeats of an interval, in parts.
    Samples {
        /// The swarm's organization.
        org_id: OrgId,
        /// The swarm.
        swarm_id: SwarmId,
        /// By agent.
        agents: std::collections::BTreeMap<AgentId, AgentSample>,
    },
    /// An agent host fell silent or went: its claims on processes of this partition hold no more.
    HostGone {
        /// The host process.
        host: InstanceId,
        /// The figures.
        evidence: Evidence,
    },
    /// Heartbeats came from somebody who is no agent of a swarm. It changes no state: it is there to be shown.
    Stranger {
        /// The organization that it names.
        org_id: OrgId,
        /// The swarm that it names.
        swarm_id: SwarmId,
        /// The agent that it says it is.
        agent_id: AgentId,
        /// The process.
        instance: InstanceId,
        /// Heartbeats since the last time this was said, of all strangers of the swarm.
        count: u32,
    },
    /// A replica of the service was cut off from the others or from the log. It changes no state: it is there to be shown.
    CutOff {
        /// The process.
        instance: InstanceId,
        /// Its last sign of life, by the server's clock.
        since: Timestamp,
        /// Its first sign of life after that; absent while there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// What goes to other swarms is stored there, and need not be said again.
    Delivered {
        /// What it followed from: sequences of events of this partition, at most [`DELIVERED_MAX`].
        sequences: Vec<u64>,
    },
}

/// Most deliveries in one event: a few milliseconds' worth at full speed, 2 KB.
pub const DELIVERED_MAX: usize = 256;
