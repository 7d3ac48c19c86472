//! Open marks: inputs that demand an answer and have none yet.

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, OrgId, Place, Problem, SwarmId, Timestamp,
    agent::Evidence,
    command::{
        AddAgent, ChangeTopology, Create, CreateKey, CreateOrg, DeleteTemplate, Join, Leave,
        RemoveAgent, RestartAgent, RevokeKey, SaveTemplate, Scale, Update, UpdateAgent, UpdateOrg,
    },
    message::{Answer, Ask},
    topology::Topology,
};
use uuid::Uuid;

/// An open mark. Its key is the sequence of the input that left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// What the answer names as its cause.
    pub(crate) id: Uuid,
    pub(crate) correlation: Option<Uuid>,
    pub(crate) wanted: Wanted,
}

/// What is to be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    /// A command about a swarm.
    Swarm(Place, Box<SwarmOrder>),
    /// A command about an organization.
    Org(OrgId, Box<OrgOrder>),
    /// A refusal that needs no further thought.
    Refusal(Box<Refusal>),
    /// A swarm that is to end.
    Stopping(OrgId, SwarmId),
    /// An agent that health holds to be dead.
    Lost(OrgId, SwarmId, AgentId, Box<Evidence>),
    /// A topology that a rule of adaptation demands, and the rule in words.
    Adapt(Place, Box<(Topology, String)>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SwarmOrder {
    /// With the hash of its content.
    Create(Create, u128),
    Update(Update),
    Delete,
    Join(AgentId, Join),
    Leave(AgentId, Leave),
    RemoveAgent(AgentId, RemoveAgent),
    /// With the hash of its spec.
    AddAgent(AgentId, AddAgent, u128),
    RestartAgent(AgentId, RestartAgent),
    UpdateAgent(AgentId, UpdateAgent),
    Scale(Scale),
    ChangeTopology(ChangeTopology),
    Ask(AgentId, Ask),
    Answer(Answer),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OrgOrder {
    CreateOrg(CreateOrg),
    CreateKey(CreateKey),
    RevokeKey(RevokeKey),
    UpdateOrg(UpdateOrg),
    SaveTemplate(SaveTemplate),
    DeleteTemplate(DeleteTemplate),
}

/// What is refused, and where that is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) org: OrgId,
    /// `None`: it is said on the organization's subject.
    pub(crate) swarm: Option<Place>,
    /// It is a command.
    pub(crate) command: bool,
    pub(crate) subject: String,
    /// Sequence of the last message that this stands for.
    pub(crate) sequence: u64,
    pub(crate) count: u32,
    pub(crate) problem: Problem,
    /// Log time from which on it is said: unreadable messages are summed up until then.
    pub(crate) due: Timestamp,
}
