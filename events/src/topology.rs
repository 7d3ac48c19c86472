//! Topologies: who may take which task, and who may talk to whom. What is computed from them is in `swarm-topology`.
//!
//! Options and their meaning follow the product's requirements (topology configurations, and the comments of the table
//! `swarm_topologies`).

mod events;

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    configuration::{AGENTS_MAX, TopologyKind, between, merge},
    ids::AgentId,
    json::Json,
    problem::Problem,
};

pub use events::{
    LeaderElected, Seated, TopologyChanged, TopologyKept, TopologyPlanned, TopologySuggested,
};

/// Most members that a topology names one by one: more of them belong into a rule.
pub const NAMED_MEMBERS_MAX: usize = 1_000;
/// Most levels of a tree: with the smallest ratio of 2, twelve levels hold the most agents of a swarm.
pub const LEVELS_MAX: usize = 12;
/// Most neighbours of an agent under the strategy `nearest`: more is as good as a full mesh.
pub const NEIGHBOURS_MAX: u32 = 256;

/// What an agent is in its topology.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It takes tasks.
    #[default]
    Worker,
    /// It stands between coordinators and workers.
    Supervisor,
    /// The hub of a star, the top of a tree.
    Coordinator,
}
impl Role {
    /// The word in subjects and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Supervisor => "supervisor",
            Self::Coordinator => "coordinator",
        }
    }
}

/// Which agents may be something: those to which all that is given applies; without anything, everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// This one.
    pub agent_id: Option<AgentId>,
    /// The one of this name.
    pub agent_name: Option<String>,
    /// Those of this type.
    pub agent_type: Option<String>,
    /// Those with this capability.
    pub capability: Option<String>,
}

/// A hub and its workers. Tasks go to any worker, messages between workers and hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Star {
    /// Hubs.
    pub coordinator_count: u32,
    /// Most agents that are given tasks; the swarm's `max_workers` if absent. Those beyond it, the youngest, wait.
    pub max_workers: Option<u32>,
    /// Whether a hub that is lost is replaced at once, by an agent that stands by. Otherwise its place stays empty until it
    /// is back, or another agent joins that may be one.
    pub failover_coordinator: bool,
    /// Who may be a hub.
    pub coordinator: Selector,
    /// The workers, by name or id; without any, everybody is one.
    pub workers: Vec<String>,
}
impl Default for Star {
    fn default() -> Self {
        Self {
            coordinator_count: 1,
            max_workers: None,
            failover_coordinator: true,
            coordinator: Selector::default(),
            workers: Vec::new(),
        }
    }
}

/// Who is whose neighbour in a mesh.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionStrategy {
    /// Everybody is everybody's.
    #[default]
    Full,
    /// The `neighbours` nearest, half of them on each side, by the order in which the agents came to the swarm.
    Nearest,
}

/// How messages go in a mesh.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// To one neighbour, or to all of them.
    #[default]
    Broadcast,
    /// To one neighbour, a role or a topic; to all of them is refused.
    Targeted,
}

/// Peers. Work is shared and messages go between neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mesh {
    /// Who is whose neighbour.
    pub connection_strategy: ConnectionStrategy,
    /// How many neighbours an agent has under the strategy `nearest`; even.
    pub neighbours: u32,
    /// Pairs of neighbours by name or id; if there are any, they alone count.
    pub connections: Vec<[String; 2]>,
    /// How often agents tell their neighbours what waits with them, in milliseconds: what came to wait since the last round
    /// cannot be taken over yet. 0: at once.
    pub gossip_interval_ms: u64,
    /// How messages go.
    pub routing: Routing,
}
impl Default for Mesh {
    fn default() -> Self {
        Self {
            connection_strategy: ConnectionStrategy::Full,
            neighbours: 4,
            connections: Vec::new(),
            gossip_interval_ms: 1_000,
            routing: Routing::Broadcast,
        }
    }
}

/// A level of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// What its agents are.
    pub role: Role,
    /// How many it has at least, if there are enough agents; inner levels grow where the ratio demands it, and the last one
    /// takes all others.
    pub count: u32,
}

/// A tree. A task enters at the top and is handed down to the part with the most room; messages go between parent and child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hierarchical {
    /// From the top: coordinators, any number of levels of supervisors, workers.
    pub levels: Vec<Level>,
    /// Most children of an agent.
    pub parent_child_ratio: u32,
    /// Parents that are given, by name or id of the child; the others are found by the rule.
    pub parents: BTreeMap<String, String>,
}
impl Default for Hierarchical {
    fn default() -> Self {
        let level = |role, count| Level { role, count };
        Self {
            levels: vec![
                level(Role::Coordinator, 1),
                level(Role::Supervisor, 3),
                level(Role::Worker, 12),
            ],
            parent_child_ratio: 4,
            parents: BTreeMap::new(),
        }
    }
}

/// To whom a ring's token goes next.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RingOrder {
    /// To the next in the circle.
    #[default]
    Sequential,
    /// To the one with the smallest load; among equals to the next in the circle.
    Load,
}

/// A circle with a token. Tasks go one after another in the order in which they were submitted, whatever their priority, each
/// to the holder of the token; messages go to the next in the circle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ring {
    /// To whom the token goes next.
    pub order: RingOrder,
    /// How long an agent may hold the token, in milliseconds: then it passes on, although its task still runs.
    #[serde(alias = "token_timeout")]
    pub token_timeout_ms: u64,
    /// Whether the token passes an agent that is not healthy; otherwise it waits there for its timeout.
    pub skip_unhealthy: bool,
}
impl Default for Ring {
    fn default() -> Self {
        Self {
            order: RingOrder::Sequential,
            token_timeout_ms: 5_000,
            skip_unhealthy: true,
        }
    }
}

/// A topology with all its options. In JSON `{"topology": "ring", "configuration": {…}}`; in binary snapshots by its variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// A hub and its workers.
    Star(Star),
    /// Peers.
    Mesh(Mesh),
    /// A tree.
    Hierarchical(Hierarchical),
    /// A circle with a token.
    Ring(Ring),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "topology", content = "configuration")]
enum Wire<S, M, H, R> {
    Star(S),
    Mesh(M),
    Hierarchical(H),
    Ring(R),
}
#[derive(Serialize, Deserialize)]
enum Binary<S, M, H, R> {
    Star(S),
    Mesh(M),
    Hierarchical(H),
    Ring(R),
}

impl Serialize for Topology {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        macro_rules! written {
            ($as:ident) => {
                match self {
                    Self::Star(t) => {
                        $as::<_, &Mesh, &Hierarchical, &Ring>::Star(t).serialize(serializer)
                    }
                    Self::Mesh(t) => {
                        $as::<&Star, _, &Hierarchical, &Ring>::Mesh(t).serialize(serializer)
                    }
                    Self::Hierarchical(t) => {
                        $as::<&Star, &Mesh, _, &Ring>::Hierarchical(t).serialize(serializer)
                    }
                    Self::Ring(t) => {
                        $as::<&Star, &Mesh, &Hierarchical, _>::Ring(t).serialize(serializer)
                    }
                }
            };
        }
        if serializer.is_human_readable() {
            written!(Wire)
        } else {
            written!(Binary)
        }
    }
}
impl<'de> Deserialize<'de> for Topology {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        macro_rules! read {
            ($as:ident) => {
                match $as::deserialize(deserializer)? {
                    $as::Star(t) => Self::Star(t),
                    $as::Mesh(t) => Self::Mesh(t),
                    $as::Hierarchical(t) => Self::Hierarchical(t),
                    $as::Ring(t) => Self::Ring(t),
                }
            };
        }
        Ok(if deserializer.is_human_readable() {
            read!(Wire)
        } else {
            read!(Binary)
        })
    }
}
impl JsonSchema for Topology {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Topology".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Wire::<Star, Mesh, Hierarchical, Ring>::json_schema(generator)
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self::of(TopologyKind::default())
    }
}

impl Topology {
    /// A topology with its defaults.
    pub fn of(kind: TopologyKind) -> Self {
        match kind {
            TopologyKind::Star => Self::Star(Star::default()),
            TopologyKind::Mesh => Self::Mesh(Mesh::default()),
            TopologyKind::Hierarchical => Self::Hierarchical(Hierarchical::default()),
            TopologyKind::Ring => Self::Ring(Ring::default()),
        }
    }
    /// Which of the four.
    pub const fn kind(&self) -> TopologyKind {
        match self {
            Self::Star(_) => TopologyKind::Star,
            Self::Mesh(_) => TopologyKind::Mesh,
            Self::Hierarchical(_) => TopologyKind::Hierarchical,
            Self::Ring(_) => TopologyKind::Ring,
        }
    }
    /// Its options, as they stand in JSON.
    pub fn configuration(&self) -> Json {
        let text = match self {
            Self::Star(t) => Json::from_value(t),
            Self::Mesh(t) => Json::from_value(t),
            Self::Hierarchical(t) => Json::from_value(t),
            Self::Ring(t) => Json::from_value(t),
        };
        text.unwrap_or_default()
    }

    /// A topology of this kind: `patch` (RFC 7396) over its defaults, or over `self` if that is of the same kind. `max_agents`
    /// is the most agents of the swarm.
    ///
    /// # Errors
    /// An unknown option, a wrong type, a value out of its range or an impossible combination, by the option's name.
    pub fn changed(
        &self,
        kind: TopologyKind,
        patch: &Json,
        max_agents: u32,
    ) -> Result<Self, Problem> {
        let serde_json::Value::Object(patch) = patch.to_value() else {
            return Err(Problem::new("wrong-type", "must be an object").field("configuration"));
        };
        let base = if self.kind() == kind {
            self.clone()
        } else {
            Self::of(kind)
        };
        let mut value = base.configuration().to_value();
        merge(&mut value, &patch);
        let read = match kind {
            TopologyKind::Star => options(value).map(Self::Star),
            TopologyKind::Mesh => options(value).map(Self::Mesh),
            TopologyKind::Hierarchical => options(value).map(Self::Hierarchical),
            TopologyKind::Ring => options(value).map(Self::Ring),
        }?;
        read.check(max_agents)?;
        Ok(read)
    }

    /// Whether it can be at all in a swarm of at most so many agents.
    ///
    /// # Errors
    /// The option that is out of its range or contradicts another one.
    pub fn check(&self, max_agents: u32) -> Result<(), Problem> {
        match self {
            Self::Star(star) => star.check(max_agents),
            Self::Mesh(mesh) => mesh.check(),
            Self::Hierarchical(tree) => tree.check(max_agents),
            Self::Ring(ring) => between("token_timeout_ms", ring.token_timeout_ms, 1, 86_400_000),
        }
    }
}

fn options<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        let field = if path == "." {
            "configuration".to_owned()
        } else {
            format!("configuration.{path}")
        };
        Problem::new("bad-configuration", e.inner().to_string())
            .field(field)
            .cure("see the options of this topology in /openapi.json")
    })
}

fn named(field: &str, count: usize) -> Result<(), Problem> {
    if count <= NAMED_MEMBERS_MAX {
        return Ok(());
    }
    Err(Problem::new(
        "too-many",
        format!("{count} entries, at most {NAMED_MEMBERS_MAX} are taken"),
    )
    .field(format!("configuration.{field}"))
    .cure("leave it empty, and let the rule find the members"))
}

impl Star {
    fn check(&self, max_agents: u32) -> Result<(), Problem> {
        between("coordinator_count", self.coordinator_count, 0, AGENTS_MAX)?;
        if self.coordinator_count >= max_agents && self.coordinator_count > 0 && max_agents > 1 {
            return Err(Problem::new(
                "too-many-coordinators",
                format!(
                    "{} coordinators leave no worker among the swarm's most {max_agents} agents",
                    self.coordinator_count
                ),
            )
            .field("configuration.coordinator_count")
            .cure("give a smaller number, or raise the swarm's max_agents"));
        }
        if let Some(most) = self.max_workers {
            between("max_workers", most, 1, AGENTS_MAX)?;
        }
        named("workers", self.workers.len())
    }
}

impl Mesh {
    fn check(&self) -> Result<(), Problem> {
        between("neighbours", self.neighbours, 2, NEIGHBOURS_MAX)?;
        if !self.neighbours.is_multiple_of(2) {
            return Err(Problem::new(
                "odd",
                format!("{} is odd: half of them are on each side", self.neighbours),
            )
            .field("configuration.neighbours")
            .cure("give an even number"));
        }
        between("gossip_interval_ms", self.gossip_interval_ms, 0, 86_400_000)?;
        named("connections", self.connections.len())?;
        for (at, [a, b]) in self.connections.iter().enumerate() {
            if a == b {
                return Err(Problem::new(
                    "own-neighbour",
                    format!("{a} cannot be its own neighbour"),
                )
                .field(format!("configuration.connections[{at}]"))
                .cure("name two agents"));
            }
        }
        Ok(())
    }
}

impl Hierarchical {
    fn check(&self, max_agents: u32) -> Result<(), Problem> {
        between("parent_child_ratio", self.parent_child_ratio, 1, AGENTS_MAX)?;
        let count = self.levels.len();
        if !(2..=LEVELS_MAX).contains(&count) {
            return Err(Problem::new(
                "out-of-range",
                format!("{count} levels; a tree has 2 to {LEVELS_MAX}"),
            )
            .field("configuration.levels")
            .cure(
                "give a level of coordinators, then supervisors if there are any, then workers",
            ));
        }
        for (at, level) in self.levels.iter().enumerate() {
            let wanted = match at {
                0 => Role::Coordinator,
                last if last + 1 == count => Role::Worker,
                _ => Role::Supervisor,
            };
            if level.role != wanted {
                return Err(Problem::new(
                    "wrong-level",
                    format!(
                        "level {} of {count} is of {}s, it must be of {}s",
                        at + 1,
                        level.role.as_str(),
                        wanted.as_str()
                    ),
                )
                .field(format!("configuration.levels[{at}].role"))
                .cure("coordinators are at the top, workers at the bottom, supervisors between"));
            }
            between(&format!("levels[{at}].count"), level.count, 1, AGENTS_MAX)?;
        }
        let inner: u64 = self
            .levels
            .iter()
            .take(count - 1)
            .map(|level| u64::from(level.count))
            .sum();
        if inner >= u64::from(max_agents) && max_agents > 1 {
            return Err(Problem::new(
                "too-many-coordinators",
                format!("{inner} coordinators and supervisors leave no worker among the swarm's most {max_agents} agents"),
            )
            .field("configuration.levels")
            .cure("give smaller counts, or raise the swarm's max_agents"));
        }
        named("parents", self.parents.len())?;
        for child in self.parents.keys() {
            let mut seen = BTreeSet::from([child]);
            let mut at = child;
            while let Some(parent) = self.parents.get(at) {
                if !seen.insert(parent) {
                    return Err(Problem::new(
                        "cycle",
                        format!("{child} is above itself, by way of {parent}"),
                    )
                    .field(format!("configuration.parents.{child}"))
                    .cure("take one of these parents out"));
                }
                at = parent;
            }
        }
        Ok(())
    }
}

/// An agent's place in its topology.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seat {
    /// What it is.
    pub role: Role,
    /// Its level: 0 at the top. In a star the hub's is 0, in mesh and ring everybody's.
    pub level: u32,
    /// Whose child it is, in a tree.
    pub parent: Option<AgentId>,
    /// Its number in the order in which agents came: the circle of a ring, nearness in a mesh. No two have the same.
    pub place: u64,
    /// It takes the hub's place at once if that is lost.
    pub standby: bool,
    /// It is given tasks that ask for no role.
    pub works: bool,
}
