//! What commands ask for, as marks hold it.

use sha2::{Digest, Sha256};
use swarm_events::{AgentId, Body, agent::AgentSpec, command::Create, subject::CommandVerb};
use uuid::Uuid;

use crate::{
    mark::{OrgOrder, SwarmOrder},
    membership::Origin,
};

/// What a command asks for.
pub(crate) enum Order {
    Swarm(Box<SwarmOrder>),
    Org(Box<OrgOrder>),
}

/// The order that a command carries; `None` if it is none of the coordinator's.
pub(crate) fn order(body: &Body, about: Uuid) -> Option<Order> {
    let agent = AgentId(about);
    let swarm = |order| Some(Order::Swarm(Box::new(order)));
    let org = |order| Some(Order::Org(Box::new(order)));
    match body {
        Body::Create(c) => swarm(SwarmOrder::Create(c.clone(), content_of(c))),
        Body::Update(c) => swarm(SwarmOrder::Update(c.clone())),
        Body::Delete(_) => swarm(SwarmOrder::Delete),
        Body::Join(c) => swarm(SwarmOrder::Join(agent, c.clone())),
        Body::Leave(c) => swarm(SwarmOrder::Leave(agent, c.clone())),
        Body::RemoveAgent(c) => swarm(SwarmOrder::RemoveAgent(agent, c.clone())),
        Body::AddAgent(c) => {
            let content = content_of_spec(&c.spec);
            swarm(SwarmOrder::AddAgent(agent, c.clone(), content))
        }
        Body::RestartAgent(c) => swarm(SwarmOrder::RestartAgent(agent, c.clone())),
        Body::UpdateAgent(c) => swarm(SwarmOrder::UpdateAgent(agent, c.clone())),
        Body::Scale(c) => swarm(SwarmOrder::Scale(c.clone())),
        Body::ChangeTopology(c) => swarm(SwarmOrder::ChangeTopology(c.clone())),
        Body::Ask(c) => swarm(SwarmOrder::Ask(agent, c.clone())),
        Body::Answer(c) => swarm(SwarmOrder::Answer(c.clone())),
        Body::CreateOrg(c) => org(OrgOrder::CreateOrg(c.clone())),
        Body::CreateKey(c) => org(OrgOrder::CreateKey(c.clone())),
        Body::RevokeKey(c) => org(OrgOrder::RevokeKey(c.clone())),
        Body::UpdateOrg(c) => org(OrgOrder::UpdateOrg(c.clone())),
        Body::SaveTemplate(c) => org(OrgOrder::SaveTemplate(c.clone())),
        Body::DeleteTemplate(c) => org(OrgOrder::DeleteTemplate(c.clone())),
        _ => None,
    }
}

impl SwarmOrder {
    pub(crate) const fn verb(&self) -> CommandVerb {
        match self {
            Self::Create(..) => CommandVerb::Create,
            Self::Update(_) => CommandVerb::Update,
            Self::Delete => CommandVerb::Delete,
            Self::Join(..) => CommandVerb::Join,
            Self::Leave(..) => CommandVerb::Leave,
            Self::RemoveAgent(..) => CommandVerb::RemoveAgent,
            Self::AddAgent(..) => CommandVerb::AddAgent,
            Self::RestartAgent(..) => CommandVerb::RestartAgent,
            Self::UpdateAgent(..) => CommandVerb::UpdateAgent,
            Self::Scale(_) => CommandVerb::Scale,
            Self::ChangeTopology(_) => CommandVerb::ChangeTopology,
            Self::Ask(..) => CommandVerb::Ask,
            Self::Answer(_) => CommandVerb::Answer,
        }
    }
    /// The agent that it is about.
    pub(crate) const fn agent(&self) -> Option<AgentId> {
        match self {
            Self::Join(agent, _)
            | Self::Leave(agent, _)
            | Self::RemoveAgent(agent, _)
            | Self::AddAgent(agent, ..)
            | Self::RestartAgent(agent, _)
            | Self::UpdateAgent(agent, _)
            | Self::Ask(agent, _) => Some(*agent),
            Self::Create(..)
            | Self::Update(_)
            | Self::Delete
            | Self::Scale(_)
            | Self::ChangeTopology(_)
            | Self::Answer(_) => None,
        }
    }
    /// What tells a repeat of an order to create a swarm from another.
    pub(crate) fn content(&self) -> Option<(Option<String>, u128)> {
        match self {
            Self::Create(order, content) => Some((order.body_sha256.clone(), *content)),
            _ => None,
        }
    }
    /// What tells a repeat of an order to add an agent from another.
    pub(crate) fn origin(&self) -> Option<Origin> {
        match self {
            Self::AddAgent(_, order, content) => Some(Origin {
                body_sha256: order.body_sha256.clone(),
                content: *content,
            }),
            _ => None,
        }
    }
}
impl OrgOrder {
    pub(crate) const fn verb(&self) -> CommandVerb {
        match self {
            Self::CreateOrg(_) => CommandVerb::CreateOrg,
            Self::CreateKey(_) => CommandVerb::CreateKey,
            Self::RevokeKey(_) => CommandVerb::RevokeKey,
            Self::UpdateOrg(_) => CommandVerb::UpdateOrg,
            Self::SaveTemplate(_) => CommandVerb::SaveTemplate,
            Self::DeleteTemplate(_) => CommandVerb::DeleteTemplate,
        }
    }
}

/// First 16 bytes of the SHA-256 of a create command's fields: two commands with the same id and content are the same.
pub(crate) fn content_of(create: &Create) -> u128 {
    let mut hash = Sha256::new();
    let topology = create.topology.unwrap_or_default() as u8;
    let description = create.description.as_deref().unwrap_or_default();
    for part in [
        create.name.as_bytes(),
        description.as_bytes(),
        create.configuration.as_str().as_bytes(),
        create.topology_configuration.as_str().as_bytes(),
        &[topology, u8::from(create.description.is_some())],
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    first_half(hash)
}

/// The same of a spec.
fn content_of_spec(spec: &AgentSpec) -> u128 {
    // Maps are ordered, so that the text follows from the values alone.
    let text = serde_json::to_vec(spec).unwrap_or_default();
    first_half(Sha256::new_with_prefix(text))
}

fn first_half(hash: Sha256) -> u128 {
    let mut first = [0u8; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    u128::from_be_bytes(first)
}
