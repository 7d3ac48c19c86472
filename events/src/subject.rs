//! Every subject is built and taken apart here and nowhere else.
//!
//! Tokens are UUIDs, fixed words and the two-digit partition, never user text. No subject holds a task id: a stream keeps
//! over 200 bytes of memory for each distinct subject, for ever. The prefix of a next stream generation,
//! `swarm_events_<g>` with subjects below `swarm.g<g>.`, is reserved.

pub mod filter;
mod names;
mod verbs;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    ids::{AgentId, OrgId, SwarmId},
    topology::Role,
};

pub use names::{
    agent_log, agent_log_tail, callback, connection_name, host_beat, host_connection_name,
    parse_agent_log_tail, parse_connection_name, parse_host_beat, parse_host_connection_name,
};
pub use verbs::{AgentVerb, CommandVerb, ControlVerb, OrgVerb, Service, SwarmVerb, TaskVerb};

/// Name of the one stream.
pub const STREAM: &str = "swarm_events";
/// Everything that `swarm_events` stores.
pub const STREAM_SUBJECTS: [&str; 3] = ["swarm.evt.>", "swarm.cmd.>", "swarm.ctl.>"];
/// What the stream republishes, and where: a hint for agents and live views.
pub const REPUBLISH_SOURCE: &str = "swarm.evt.>";
/// Destination of the republished messages. Only the server may publish there.
pub const REPUBLISH_DESTINATION: &str = "swarm.live.evt.>";
/// Number of partitions, fixed for the life of a log: a swarm's partition is stored in its subjects.
pub const PARTITIONS: u8 = 64;

/// One of the 64 shares into which swarms fall.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(u8);

impl Partition {
    /// The partition with this number, `None` from 64 on.
    pub const fn new(number: u8) -> Option<Self> {
        if number < PARTITIONS {
            Some(Self(number))
        } else {
            None
        }
    }
    /// The partition of a swarm or organization: the first byte of the SHA-256 of its 16 id bytes, modulo 64.
    pub fn of(id: Uuid) -> Self {
        Self(Sha256::digest(id.as_bytes())[0] % PARTITIONS)
    }
    /// Its number, 0 to 63.
    pub const fn number(self) -> u8 {
        self.0
    }
    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }
}
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}
impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{:02}", self.0)
    }
}
impl FromStr for Partition {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(());
        }
        text.parse().ok().and_then(Self::new).ok_or(())
    }
}

/// Where a swarm lives: partition, organization, swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The swarm's partition.
    pub partition: Partition,
    /// Its organization.
    pub org: OrgId,
    /// The swarm.
    pub swarm: SwarmId,
}
impl Place {
    /// The place of a swarm; its partition follows from its id.
    pub fn new(org: OrgId, swarm: SwarmId) -> Self {
        Self {
            partition: Partition::of(swarm.0),
            org,
            swarm,
        }
    }
}
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.partition, self.org, self.swarm)
    }
}

/// A subject, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `swarm.evt.<p>.<org>.<swarm>.swarm.<verb>`
    Swarm(Place, SwarmVerb),
    /// `swarm.evt.<p>.<org>.<swarm>.agent.<verb>.<agent>`
    Agent(Place, AgentVerb, AgentId),
    /// `swarm.evt.<p>.<org>.<swarm>.task.<verb>[.<agent>]`
    Task(Place, TaskVerb, Option<AgentId>),
    /// `swarm.evt.<p>.<org>.org.<verb>`
    Org(Partition, OrgId, OrgVerb),
    /// `swarm.cmd.<p>.<org>.<swarm>.<verb>`
    Command(Place, CommandVerb),
    /// `swarm.cmd.<p>.<org>.org.<verb>`
    OrgCommand(Partition, OrgId, CommandVerb),
    /// `swarm.ctl.<service>.<p>.<verb>`
    Control(Service, Partition, ControlVerb),
    /// `swarm.hb.<p>.<org>.<swarm>.<agent>`
    Heartbeat(Place, AgentId),
    /// `swarm.msg.<p>.<org>.<swarm>.<from>.<to>` and `….<from>.topic.<topic>`
    Message(Place, Sender, Recipient),
}

/// Who speaks, in the subject of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sender {
    /// An agent of the swarm.
    Agent(AgentId),
    /// A person, by API, CLI or dashboard: `people`.
    People,
    /// Another swarm of the organization, which the message names: `abroad`.
    Abroad,
}
impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => agent.fmt(f),
            Self::People => f.write_str("people"),
            Self::Abroad => f.write_str("abroad"),
        }
    }
}
impl FromStr for Sender {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "people" => Ok(Self::People),
            "abroad" => Ok(Self::Abroad),
            id => id.parse().map(Self::Agent).map_err(|_| ()),
        }
    }
}

/// To whom, in the subject of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipient {
    /// An agent of the swarm.
    Agent(AgentId),
    /// Every agent to which the sender has an edge: `all`.
    All,
    /// Those of them with this role: its word.
    Role(Role),
    /// The swarm's leader: `leader`.
    Leader,
    /// Whoever looks at the swarm: `people`.
    People,
    /// Another swarm of the organization, which the message names: `abroad`.
    Abroad,
    /// Those who have subscribed to it: `topic.<16 hex digits>`, by [`topic_key`].
    Topic(u64),
}
impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => agent.fmt(f),
            Self::All => f.write_str("all"),
            Self::Role(role) => f.write_str(role.as_str()),
            Self::Leader => f.write_str("leader"),
            Self::People => f.write_str("people"),
            Self::Abroad => f.write_str("abroad"),
            Self::Topic(key) => write!(f, "topic.{key:016x}"),
        }
    }
}
impl FromStr for Recipient {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "all" => Self::All,
            "worker" => Self::Role(Role::Worker),
            "supervisor" => Self::Role(Role::Supervisor),
            "coordinator" => Self::Role(Role::Coordinator),
            "leader" => Self::Leader,
            "people" => Self::People,
            "abroad" => Self::Abroad,
            id => Self::Agent(id.parse().map_err(|_| ())?),
        })
    }
}

/// The token of a topic: the first 8 bytes of the SHA-256 of its name. Names are the users', and no part of subjects; a
/// message carries its topic's name too.
pub fn topic_key(topic: &str) -> u64 {
    let digest = Sha256::digest(topic.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(bytes)
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Swarm(place, verb) => write!(f, "swarm.evt.{place}.swarm.{verb}"),
            Self::Agent(place, verb, agent) => write!(f, "swarm.evt.{place}.agent.{verb}.{agent}"),
            Self::Task(place, verb, None) => write!(f, "swarm.evt.{place}.task.{verb}"),
            Self::Task(place, verb, Some(agent)) => {
                write!(f, "swarm.evt.{place}.task.{verb}.{agent}")
            }
            Self::Org(p, org, verb) => write!(f, "swarm.evt.{p}.{org}.org.{verb}"),
            Self::Command(place, verb) => write!(f, "swarm.cmd.{place}.{verb}"),
            Self::OrgCommand(p, org, verb) => write!(f, "swarm.cmd.{p}.{org}.org.{verb}"),
            Self::Control(service, p, verb) => write!(f, "swarm.ctl.{service}.{p}.{verb}"),
            Self::Heartbeat(place, agent) => write!(f, "swarm.hb.{place}.{agent}"),
            Self::Message(place, from, to) => write!(f, "swarm.msg.{place}.{from}.{to}"),
        }
    }
}

/// A subject that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject} is not a subject of Swarm")]
pub struct SubjectError {
    /// The text.
    pub subject: String,
}

fn place(p: &str, org: &str, swarm: &str) -> Option<Place> {
    Some(Place {
        partition: p.parse().ok()?,
        org: org.parse().ok()?,
        swarm: swarm.parse().ok()?,
    })
}

impl Subject {
    fn parse_tokens(text: &str) -> Option<Self> {
        let mut tokens = [""; 9];
        let mut count = 0;
        for token in text.split('.') {
            *tokens.get_mut(count)? = token;
            count += 1;
        }
        Some(match tokens[..count] {
            ["swarm", "evt", p, org, "org", verb] => {
                Self::Org(p.parse().ok()?, org.parse().ok()?, verb.parse().ok()?)
            }
            ["swarm", "evt", p, org, swarm, "swarm", verb] => {
                Self::Swarm(place(p, org, swarm)?, verb.parse().ok()?)
            }
            ["swarm", "evt", p, org, swarm, "agent", verb, agent] => Self::Agent(
                place(p, org, swarm)?,
                verb.parse().ok()?,
                agent.parse().ok()?,
            ),
            ["swarm", "evt", p, org, swarm, "task", verb] => {
                let verb: TaskVerb = verb.parse().ok()?;
                if verb.names_agent() {
                    return None;
                }
                Self::Task(place(p, org, swarm)?, verb, None)
            }
            ["swarm", "evt", p, org, swarm, "task", verb, agent] => {
                let verb: TaskVerb = verb.parse().ok()?;
                if !verb.names_agent() {
                    return None;
                }
                Self::Task(place(p, org, swarm)?, verb, Some(agent.parse().ok()?))
            }
            ["swarm", "cmd", p, org, "org", verb] => {
                let verb: CommandVerb = verb.parse().ok()?;
                if !verb.of_org() {
                    return None;
                }
                Self::OrgCommand(p.parse().ok()?, org.parse().ok()?, verb)
            }
            ["swarm", "cmd", p, org, swarm, verb] => {
                let verb: CommandVerb = verb.parse().ok()?;
                if verb.of_org() {
                    return None;
                }
                Self::Command(place(p, org, swarm)?, verb)
            }
            ["swarm", "ctl", service, p, verb] => {
                Self::Control(service.parse().ok()?, p.parse().ok()?, verb.parse().ok()?)
            }
            ["swarm", "hb", p, org, swarm, agent] => {
                Self::Heartbeat(place(p, org, swarm)?, agent.parse().ok()?)
            }
            ["swarm", "msg", p, org, swarm, from, to] => {
                Self::Message(place(p, org, swarm)?, from.parse().ok()?, to.parse().ok()?)
            }
            ["swarm", "msg", p, org, swarm, from, "topic", key] => {
                if key.len() != 16 || key.bytes().any(|b| b.is_ascii_uppercase()) {
                    return None;
                }
                let key = u64::from_str_radix(key, 16).ok()?;
                Self::Message(
                    place(p, org, swarm)?,
                    from.parse().ok()?,
                    Recipient::Topic(key),
                )
            }
            _ => return None,
        })
    }

    /// Takes a subject apart.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        Self::parse_tokens(text).ok_or_else(|| SubjectError {
            subject: text.to_owned(),
        })
    }

    /// The partition it names.
    pub const fn partition(&self) -> Partition {
        match self {
            Self::Swarm(place, _)
            | Self::Agent(place, _, _)
            | Self::Task(place, _, _)
            | Self::Command(place, _)
            | Self::Heartbeat(place, _)
            | Self::Message(place, ..) => place.partition,
            Self::Org(p, _, _) | Self::OrgCommand(p, _, _) | Self::Control(_, p, _) => *p,
        }
    }
    /// The swarm's place, if it names a swarm.
    pub const fn place(&self) -> Option<Place> {
        match self {
            Self::Swarm(place, _)
            | Self::Agent(place, _, _)
            | Self::Task(place, _, _)
            | Self::Command(place, _)
            | Self::Heartbeat(place, _)
            | Self::Message(place, ..) => Some(*place),
            _ => None,
        }
    }
    /// The organization, if it names one.
    pub const fn org(&self) -> Option<OrgId> {
        match self {
            Self::Org(_, org, _) | Self::OrgCommand(_, org, _) => Some(*org),
            _ => match self.place() {
                Some(place) => Some(place.org),
                None => None,
            },
        }
    }
    /// The agent, if it names one.
    pub const fn agent(&self) -> Option<AgentId> {
        match self {
            Self::Agent(_, _, agent) | Self::Heartbeat(_, agent) => Some(*agent),
            Self::Task(_, _, agent) => *agent,
            Self::Message(_, Sender::Agent(agent), _) => Some(*agent),
            _ => None,
        }
    }
    /// The partition that follows from the ids in it, where they name one.
    pub fn rightful_partition(&self) -> Option<Partition> {
        match self {
            Self::Org(_, org, _) | Self::OrgCommand(_, org, _) => Some(Partition::of(org.0)),
            _ => self.place().map(|place| Partition::of(place.swarm.0)),
        }
    }
    /// The subject on which what is stored under this one is republished.
    pub fn live(text: &str) -> Option<String> {
        text.strip_prefix("swarm.evt.")
            .map(|rest| format!("swarm.live.evt.{rest}"))
    }
}
