//! Every subject is built and taken apart here and nowhere else.
//!
//! Tokens are UUIDs, fixed words and the two-digit partition, never user text. No subject holds a task id: a stream keeps
//! over 200 bytes of memory for each distinct subject, for ever. The prefix of a next stream generation,
//! `swarm_events_<g>` with subjects below `swarm.g<g>.`, is reserved.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    ids::{AgentId, InstanceId, OrgId, SwarmId},
    topology::Role,
};

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

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The word as it stands in subjects and types.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($word => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

words! {
    /// A deciding service.
    Service {
        /// Swarms, membership, organizations.
        Coordinator => "coordinator",
        /// Tasks.
        Distributor => "distributor",
        /// Liveness.
        Health => "health",
        /// Scaling policies.
        Scaler => "scaler",
    }
}
impl Serialize for Service {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

words! {
    /// Verbs of swarm events.
    SwarmVerb {
        /// It exists.
        Created => "created",
        /// Its settings changed.
        Updated => "updated",
        /// It is being terminated.
        Stopping => "stopping",
        /// It has ended; it stays readable.
        Deleted => "deleted",
        /// A command or an unreadable message was refused.
        Refused => "refused",
        /// The distributor's figures.
        Measured => "measured",
        /// Health's sampled heartbeats.
        Sampled => "sampled",
        /// Agents are added or taken out until there are as many as wanted.
        Scaled => "scaled",
        /// Another topology is being prepared.
        TopologyPlanned => "topology_planned",
        /// It holds.
        TopologyChanged => "topology_changed",
        /// It could not be; the old one goes on.
        TopologyKept => "topology_kept",
        /// A rule says that another one would be better.
        TopologySuggested => "topology_suggested",
        /// Another agent leads.
        LeaderElected => "leader_elected",
    }
}
words! {
    /// Verbs of agent events.
    AgentVerb {
        /// A process of the agent joined.
        Joined => "joined",
        /// It left by its own word.
        Left => "left",
        /// It was removed.
        Removed => "removed",
        /// It has been silent for a while.
        Suspected => "suspected",
        /// It is heard again.
        Recovered => "recovered",
        /// It is held to be dead.
        Failed => "failed",
        /// It is wanted: what it is, and how its process is started.
        Added => "added",
        /// Its process is wanted: the first host that claims this starts it.
        SpawnRequested => "spawn_requested",
        /// A host takes it upon itself to start the process.
        SpawnClaimed => "spawn_claimed",
        /// A host says why it does not.
        SpawnDeclined => "spawn_declined",
        /// Its process runs.
        Launched => "launched",
        /// Its process ended, or could not be started.
        Exited => "exited",
        /// The host of its process is held to be dead.
        HostFailed => "host_failed",
        /// Its process ended so often that it is not started again.
        CrashLooping => "crash_looping",
        /// It gets no more work, finishes what it has and goes.
        Stopping => "stopping",
        /// What it can do changed while it runs.
        Updated => "updated",
        /// It gets no new work for a while.
        Quarantined => "quarantined",
        /// It may work again.
        Released => "released",
        /// It has another place in the topology, or none any more.
        Seated => "seated",
        /// It waits for an answer.
        Asked => "asked",
        /// There is one.
        Answered => "answered",
        /// There will be none.
        Unanswered => "unanswered",
    }
}
impl AgentVerb {
    /// Whether an agent host writes it.
    pub const fn by_host(self) -> bool {
        matches!(
            self,
            Self::SpawnClaimed | Self::SpawnDeclined | Self::Launched | Self::Exited
        )
    }
}
words! {
    /// Verbs of task events.
    TaskVerb {
        /// A client handed it in.
        Submitted => "submitted",
        /// All parts of a graph are there and valid.
        GraphAccepted => "graph_accepted",
        /// A graph is refused as a whole.
        GraphRejected => "graph_rejected",
        /// What has not ended of a graph is called off.
        GraphCancelled => "graph_cancelled",
        /// A dead letter is put away.
        Discarded => "discarded",
        /// The task ends at once, with a reason.
        Rejected => "rejected",
        /// Something about tasks was refused; no task is touched.
        Refused => "refused",
        /// It is an agent's.
        Assigned => "assigned",
        /// It is the agent's no more.
        Withdrawn => "withdrawn",
        /// The agent works on it.
        Started => "started",
        /// The agent reports progress.
        Progressed => "progressed",
        /// The agent has its result.
        Completed => "completed",
        /// The agent's attempt failed.
        AttemptFailed => "attempt_failed",
        /// The agent gives the task back: it is not for this one.
        Declined => "declined",
        /// There will be another attempt.
        Retried => "retried",
        /// It ended without a result.
        Failed => "failed",
        /// It was called off.
        Cancelled => "cancelled",
        /// The agent hands it on in parts.
        Split => "split",
        /// Another swarm does it.
        HandedOver => "handed_over",
        /// The other swarm completed it.
        HandedBack => "handed_back",
    }
}
impl TaskVerb {
    /// Whether the subject of such an event ends with an agent's id.
    pub const fn names_agent(self) -> bool {
        matches!(
            self,
            Self::Assigned
                | Self::Withdrawn
                | Self::Started
                | Self::Progressed
                | Self::Completed
                | Self::AttemptFailed
                | Self::Declined
                | Self::Split
        )
    }
    /// Whether the agent named by the subject is the one that writes it.
    pub const fn by_agent(self) -> bool {
        matches!(
            self,
            Self::Started
                | Self::Progressed
                | Self::Completed
                | Self::AttemptFailed
                | Self::Declined
                | Self::Split
        )
    }
}
words! {
    /// Verbs of organization events.
    OrgVerb {
        /// It exists.
        Created => "created",
        /// Its settings changed.
        Updated => "updated",
        /// A user was added.
        UserAdded => "user_added",
        /// An API key was made.
        KeyCreated => "key_created",
        /// An API key holds no more.
        KeyRevoked => "key_revoked",
        /// A command was refused.
        Refused => "refused",
        /// A topology has a name.
        TemplateSaved => "template_saved",
        /// The name is free again.
        TemplateDeleted => "template_deleted",
    }
}
words! {
    /// Verbs of commands.
    CommandVerb {
        /// Create a swarm.
        Create => "create",
        /// Change a swarm.
        Update => "update",
        /// Terminate a swarm.
        Delete => "delete",
        /// An agent process wants in.
        Join => "join",
        /// An agent process goes.
        Leave => "leave",
        /// Take an agent out.
        RemoveAgent => "remove_agent",
        /// Add an agent, whose process a host starts.
        AddAgent => "add_agent",
        /// Start an agent's process anew.
        RestartAgent => "restart_agent",
        /// Change what a running agent can do.
        UpdateAgent => "update_agent",
        /// Have as many agents as wanted.
        Scale => "scale",
        /// Call a task off.
        Cancel => "cancel",
        /// Give an ended task another generation.
        Retry => "retry",
        /// Call a graph off.
        CancelGraph => "cancel_graph",
        /// Put a dead letter away.
        Discard => "discard",
        /// Change an organization's settings.
        UpdateOrg => "update_org",
        /// Create an organization with its first admin and key.
        CreateOrg => "create_org",
        /// Make an API key.
        CreateKey => "create_key",
        /// Revoke an API key.
        RevokeKey => "revoke_key",
        /// Have another topology.
        ChangeTopology => "change_topology",
        /// Give a topology a name.
        SaveTemplate => "save_template",
        /// Free such a name.
        DeleteTemplate => "delete_template",
        /// An agent asks a person, or another agent.
        Ask => "ask",
        /// Answer it.
        Answer => "answer",
        /// Another swarm has done a task, or not.
        HandBack => "hand_back",
    }
}
impl CommandVerb {
    /// Whether it is about an organization and not about a swarm.
    pub const fn of_org(self) -> bool {
        matches!(
            self,
            Self::CreateOrg
                | Self::UpdateOrg
                | Self::CreateKey
                | Self::RevokeKey
                | Self::SaveTemplate
                | Self::DeleteTemplate
        )
    }
    /// The service that answers it.
    pub const fn service(self) -> Service {
        match self {
            Self::Cancel | Self::Retry | Self::CancelGraph | Self::Discard | Self::HandBack => {
                Service::Distributor
            }
            _ => Service::Coordinator,
        }
    }
}
words! {
    /// Verbs of control messages, by which a service speaks to its own log.
    ControlVerb {
        /// A replica took the partition over. The sequence is its epoch.
        Claimed => "claimed",
        /// Time went on: what is due is due.
        Woken => "woken",
        /// The shell saw something that the log does not hold.
        Observed => "observed",
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

/// Subject on which an agent host says every second how it is, `swarm.hb.host.<instance>`; not stored in the event stream.
pub fn host_beat(host: InstanceId) -> String {
    format!("swarm.hb.host.{host}")
}
/// The host that speaks on this subject; `None` if it is no host's.
pub fn parse_host_beat(subject: &str) -> Option<InstanceId> {
    subject.strip_prefix("swarm.hb.host.")?.parse().ok()
}
/// Subject on which the gateway hands an agent what was called back, as a request: `swarm.callback.<org>.<swarm>.<agent>`.
pub fn callback(place: Place, agent: AgentId) -> String {
    format!("swarm.callback.{}.{}.{agent}", place.org, place.swarm)
}
/// Subject of the lines that an agent's process writes: `swarm.log.<org>.<swarm>.<agent>`, core NATS.
pub fn agent_log(org: OrgId, swarm: SwarmId, agent: AgentId) -> String {
    format!("swarm.log.{org}.{swarm}.{agent}")
}
/// Subject on which the host that keeps the last of these lines is asked for them.
pub fn agent_log_tail(org: OrgId, swarm: SwarmId, agent: AgentId) -> String {
    format!("swarm.log.{org}.{swarm}.{agent}.tail")
}
/// Takes the subject of [`agent_log_tail`] apart.
pub fn parse_agent_log_tail(subject: &str) -> Option<(OrgId, SwarmId, AgentId)> {
    let mut tokens = subject
        .strip_prefix("swarm.log.")?
        .strip_suffix(".tail")?
        .split('.');
    let ids = (
        tokens.next()?.parse().ok()?,
        tokens.next()?.parse().ok()?,
        tokens.next()?.parse().ok()?,
    );
    tokens.next().is_none().then_some(ids)
}

/// Start of the connection name of an agent host.
const HOST_CONNECTION_PREFIX: &str = "swarm-host";
/// The name under which an agent host connects to nats-server.
pub fn host_connection_name(host: InstanceId) -> String {
    format!("{HOST_CONNECTION_PREFIX}/{host}")
}
/// Takes the name of a host's connection apart; `None` for any other name.
pub fn parse_host_connection_name(name: &str) -> Option<InstanceId> {
    name.strip_prefix(HOST_CONNECTION_PREFIX)?
        .strip_prefix('/')?
        .parse()
        .ok()
}

/// Start of the connection name of an agent.
const CONNECTION_PREFIX: &str = "swarm-agent";

/// The name under which an agent's process connects to nats-server: by it health knows whose connection closed.
pub fn connection_name(swarm: SwarmId, agent: AgentId, instance: InstanceId) -> String {
    format!("{CONNECTION_PREFIX}/{swarm}/{agent}/{instance}")
}
/// Takes the name of an agent's connection apart; `None` for any other name.
pub fn parse_connection_name(name: &str) -> Option<(SwarmId, AgentId, InstanceId)> {
    let mut parts = name.split('/');
    if parts.next() != Some(CONNECTION_PREFIX) {
        return None;
    }
    let ids = (
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    parts.next().is_none().then_some(ids)
}

/// Filters (NATS wildcards) for consumers. The filters that one function gives never overlap.
pub mod filter {
    use super::{AgentId, Partition, Place, Service};

    /// What a service's partition is decided from; `partition` `None` means all of them.
    pub fn inputs(service: Service, partition: Option<Partition>) -> Vec<String> {
        let p = partition.map_or_else(|| "*".to_owned(), |p| p.to_string());
        // Claims of every service: a decision counts only under the last claim of its writer. `*` for the service would
        // overlap with nothing here.
        let claims = format!("swarm.ctl.*.{p}.claimed");
        let woken = format!("swarm.ctl.{service}.{p}.woken");
        let observed = format!("swarm.ctl.{service}.{p}.observed");
        // Of no use to the others but for their order: whoever heeds one decision of the coordinator has to meet all of its
        // partition, or one that was overtaken by an organization's is void here and valid there.
        let orgs = format!("swarm.evt.{p}.*.org.*");
        match service {
            Service::Coordinator => vec![
                // Organizations concern every partition of the coordinator.
                "swarm.evt.*.*.org.*".to_owned(),
                format!("swarm.evt.{p}.*.*.swarm.>"),
                format!("swarm.evt.{p}.*.*.agent.>"),
                format!("swarm.cmd.{p}.>"),
                claims,
                woken,
                observed,
            ],
            Service::Distributor => vec![
                orgs,
                format!("swarm.evt.{p}.*.*.swarm.>"),
                format!("swarm.evt.{p}.*.*.agent.>"),
                format!("swarm.evt.{p}.*.*.task.>"),
                format!("swarm.cmd.{p}.*.*.cancel"),
                format!("swarm.cmd.{p}.*.*.retry"),
                format!("swarm.cmd.{p}.*.*.cancel_graph"),
                format!("swarm.cmd.{p}.*.*.discard"),
                format!("swarm.cmd.{p}.*.*.hand_back"),
                claims,
                woken,
                observed,
            ],
            Service::Health | Service::Scaler => vec![
                orgs,
                format!("swarm.evt.{p}.*.*.swarm.>"),
                format!("swarm.evt.{p}.*.*.agent.>"),
                claims,
                woken,
                observed,
            ],
        }
    }
    /// Everything.
    pub fn all() -> Vec<String> {
        super::STREAM_SUBJECTS
            .iter()
            .map(|s| (*s).to_owned())
            .collect()
    }
    /// All events of a swarm, for live views and replays.
    pub fn swarm(place: Place) -> Vec<String> {
        vec![format!("swarm.evt.{place}.>")]
    }
    /// Heartbeats of all agents.
    pub fn heartbeats() -> String {
        "swarm.hb.>".to_owned()
    }
    /// The change of a swarm's settings, which its agents heed. On the live subject.
    pub fn settings(place: Place) -> String {
        format!("swarm.live.evt.{place}.swarm.updated")
    }
    /// What the shape of a swarm follows from: its topology, leader, and the seats of all agents. On the live subjects if
    /// `live`; of the stored ones the last of each subject is enough.
    pub fn shape(place: Place, live: bool) -> Vec<String> {
        let root = if live { "swarm.live.evt" } else { "swarm.evt" };
        vec![
            format!("{root}.{place}.swarm.created"),
            format!("{root}.{place}.swarm.topology_changed"),
            format!("{root}.{place}.swarm.leader_elected"),
            format!("{root}.{place}.agent.seated.*"),
        ]
    }
    /// The questions of a swarm's agents and how they ended, for agents that answer. On the live subjects if `live`.
    pub fn questions(place: Place, live: bool) -> Vec<String> {
        let root = if live { "swarm.live.evt" } else { "swarm.evt" };
        ["asked", "answered", "unanswered"]
            .map(|verb| format!("{root}.{place}.agent.{verb}.*"))
            .to_vec()
    }
    /// The messages that an agent may be meant by, on the subjects on which the stream republishes them if `live`. Which of
    /// them are for it follows from its role and its subscriptions.
    pub fn messages(place: Place, agent: AgentId, live: bool) -> Vec<String> {
        let root = if live { "swarm.live.msg" } else { "swarm.msg" };
        let words = [
            "all",
            "leader",
            "worker",
            "supervisor",
            "coordinator",
            "topic.*",
        ];
        let mut filters = vec![format!("{root}.{place}.*.{agent}")];
        filters.extend(words.map(|word| format!("{root}.{place}.*.{word}")));
        filters
    }
    /// What an agent host must know: the wishes for processes, and how they ended.
    pub fn host() -> Vec<String> {
        [
            "spawn_requested",
            "spawn_claimed",
            "exited",
            "host_failed",
            "crash_looping",
            "stopping",
            "removed",
        ]
        .map(|verb| format!("swarm.evt.*.*.*.agent.{verb}.*"))
        .to_vec()
    }
    /// What an agent must hear: its assignments, withdrawals, and the verdicts on itself. On the live subjects if `live`.
    pub fn agent(place: Place, agent: AgentId, live: bool) -> Vec<String> {
        let root = if live { "swarm.live.evt" } else { "swarm.evt" };
        vec![
            format!("{root}.{place}.task.assigned.{agent}"),
            format!("{root}.{place}.task.withdrawn.{agent}"),
            format!("{root}.{place}.agent.*.{agent}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_hosts_and_logs_are_read_as_they_were_built() {
        let id = Uuid::from_u128(5);
        let host = InstanceId(id);
        assert_eq!(parse_host_beat(&host_beat(host)), Some(host));
        assert_eq!(
            parse_host_connection_name(&host_connection_name(host)),
            Some(host)
        );
        let (org, swarm, agent) = (OrgId(id), SwarmId(id), AgentId(id));
        let tail = agent_log_tail(org, swarm, agent);
        assert_eq!(parse_agent_log_tail(&tail), Some((org, swarm, agent)));
        for other in ["", "swarm.log.a.b.c.tail", &agent_log(org, swarm, agent)] {
            assert_eq!(parse_agent_log_tail(other), None, "{other}");
            assert_eq!(parse_host_beat(other), None, "{other}");
            assert_eq!(parse_host_connection_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_connection_name_is_read_as_it_was_built_and_no_other_is() {
        let (swarm, agent, instance) = (
            SwarmId(Uuid::from_u128(1)),
            AgentId(Uuid::from_u128(2)),
            InstanceId(Uuid::from_u128(3)),
        );
        let name = connection_name(swarm, agent, instance);
        assert_eq!(parse_connection_name(&name), Some((swarm, agent, instance)));
        for other in [
            "",
            "swarm-agent",
            "swarm-agent/a/b/c",
            &name[1..],
            &format!("{name}/"),
        ] {
            assert_eq!(parse_connection_name(other), None, "{other}");
        }
    }
}
