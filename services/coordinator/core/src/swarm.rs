//! Swarms and their agents, as the log tells of them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Place, Timestamp, UserId, configuration::Configuration, swarm::Created,
};
use swarm_topology::Shape;
use uuid::Uuid;

use crate::{
    Agent, ChangeUnderWay, LastChange, Suggested, adapt::Adaptation, question::Questions,
    tally::Tally,
};

/// A swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swarm {
    /// Partition, organization, id.
    pub place: Place,
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// Its topology: options, generation, who sits where, who leads, and the generation that is being prepared.
    pub shape: Shape,
    /// The change of it that is under way.
    pub change: Option<ChangeUnderWay>,
    /// What the last one came to.
    pub last_change: Option<LastChange>,
    /// What a rule of adaptation said last.
    pub suggested: Option<Suggested>,
    /// All settings.
    pub configuration: Configuration,
    /// Whose key asked for it.
    pub created_by: Option<UserId>,
    /// When `created` was stored.
    pub created_at: Timestamp,
    /// When `created`, `updated`, `topology_changed`, `stopping` or `deleted` was stored last.
    pub updated_at: Timestamp,
    /// Stream sequence of `created`.
    pub created_seq: u64,
    /// Hash of the request body that created it under an `Idempotency-Key`.
    pub body_sha256: Option<String>,
    /// First 16 bytes of the SHA-256 of the command that created it.
    pub create_content: u128,
    /// Its termination, once that has begun.
    pub stopping: Option<Stopping>,
    /// When `deleted` was stored.
    pub deleted_at: Option<Timestamp>,
    /// It has had the live agents that it needs at least once.
    pub reached: bool,
    /// The distributor's last word on its tasks.
    pub measured: Option<OpenTasks>,
    /// Agents, those that have gone too.
    pub agents: BTreeMap<AgentId, Agent>,
    /// Names of those that are live or wanted.
    pub(crate) names: BTreeMap<String, AgentId>,
    /// Sums over the agents.
    pub(crate) tally: Tally,
    /// The agent with an adapter that was added last: new ones are made like it.
    pub(crate) template: Option<AgentId>,
    /// How many agents the coordinator has added by itself: their ids derive from it.
    pub(crate) made: u64,
    /// Questions of its agents.
    pub(crate) questions: Questions,
    /// What the rules of adaptation have seen.
    pub(crate) adaptation: Adaptation,
    /// Sequence of the event that changed its shape last.
    pub(crate) shape_seq: u64,
    /// Deciding on its topology failed: nothing is decided on it until something changes it.
    pub(crate) settle_aside: bool,
}

/// A termination under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// Id of the `stopping` event: what the removals and the end are caused by.
    pub event: Uuid,
    /// Its sequence.
    pub sequence: u64,
    /// Log time at which it was met.
    pub since: Timestamp,
    /// The distributor has said that no task is open.
    pub drained: bool,
}

/// What the distributor last said of a swarm's open tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTasks {
    /// Log time at which it was met.
    pub at: Timestamp,
    /// Pending, queued, assigned and running ones.
    pub count: u64,
}

/// A swarm's status as it is shown. Not stored: it follows from the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwarmStatus {
    /// Nothing runs: no agent has ever joined and none is required, or it was deleted.
    Inactive,
    /// It has not had the agents that it needs yet.
    Starting,
    /// It has the agents that it needs, and nothing speaks against any of them.
    Active,
    /// It has had the agents that it needs, and now lacks some, or one is suspected, failed, quarantined or crash-looping.
    Degraded,
    /// It is being terminated.
    Stopping,
}
impl SwarmStatus {
    /// The PRD's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
        }
    }
}
impl fmt::Display for SwarmStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Swarm {
    /// A swarm without agents.
    pub(crate) fn new(place: Place, created: &Created, at: Timestamp, sequence: u64) -> Self {
        Self {
            place,
            name: created.name.clone(),
            description: created.description.clone(),
            shape: Shape::of(created),
            change: None,
            last_change: None,
            suggested: None,
            configuration: created.configuration.clone(),
            created_by: created.created_by,
            created_at: at,
            updated_at: at,
            created_seq: sequence,
            body_sha256: None,
            create_content: 0,
            stopping: None,
            deleted_at: None,
            reached: false,
            measured: None,
            agents: BTreeMap::new(),
            names: BTreeMap::new(),
            tally: Tally::default(),
            template: None,
            made: 0,
            questions: Questions::default(),
            adaptation: Adaptation::default(),
            shape_seq: sequence,
            settle_aside: false,
        }
    }
    /// It takes tasks and agents.
    pub fn is_open(&self) -> bool {
        self.stopping.is_none() && self.deleted_at.is_none()
    }
    /// Agents that belong to it.
    pub fn live_agents(&self) -> usize {
        self.tally.live
    }
    /// Agents that belong to it, with nothing against their being alive.
    pub fn healthy_agents(&self) -> usize {
        self.tally.live.saturating_sub(self.tally.doubted)
    }
    /// Agents that count against `max_agents`: live or wanted.
    pub fn places_taken(&self) -> usize {
        self.tally.places
    }
    /// Live agents that it needs to be active.
    pub fn agents_needed(&self) -> usize {
        usize::try_from(self.configuration.min_agents.max(1)).unwrap_or(usize::MAX)
    }
    /// Its status as it is shown.
    pub fn status(&self) -> SwarmStatus {
        if self.deleted_at.is_some() {
            return SwarmStatus::Inactive;
        }
        if self.stopping.is_some() {
            return SwarmStatus::Stopping;
        }
        if !self.reached {
            return if self.agents.is_empty() && self.configuration.min_agents == 0 {
                SwarmStatus::Inactive
            } else {
                SwarmStatus::Starting
            };
        }
        if self.healthy_agents() >= self.agents_needed() && self.tally.troubled == 0 {
            SwarmStatus::Active
        } else {
            SwarmStatus::Degraded
        }
    }
}
