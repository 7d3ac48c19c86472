//! What `/swarms/{id}/topology` answers.

use chrono::{DateTime, Utc};
use serde::Serialize;
use swarm_events::{
    Json, Timestamp,
    topology::{Role, Seat, Topology},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::wanted::word;
use crate::{
    fold::changes::{Ended, Planned, Suggested},
    problem::{ApiProblem, ProblemDocument},
};

/// A topology and its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ShownTopology)]
pub struct Shown {
    /// `star`, `mesh`, `hierarchical` or `ring`.
    pub topology: &'static str,
    /// All its options, defaults filled in.
    #[schema(value_type = crate::openapi::TopologyOptions)]
    pub configuration: Json,
}

impl From<&Topology> for Shown {
    fn from(topology: &Topology) -> Self {
        Self {
            topology: word(topology.kind()),
            configuration: topology.configuration(),
        }
    }
}

/// The shape of a swarm: who has which place, and who may talk to whom.
#[derive(Serialize, ToSchema)]
pub struct TopologyAnswer {
    /// The swarm.
    pub swarm_id: Uuid,
    /// What holds.
    #[serde(flatten)]
    pub shown: Shown,
    /// Rises by one with each change that was begun, from 1.
    pub generation: u64,
    /// The leader; null if no agent is healthy.
    pub leader_agent_id: Option<Uuid>,
    /// How it came to be that; null before the first election.
    pub election: Option<ElectionAnswer>,
    /// The agents that have a place, by level, then by place.
    pub nodes: Vec<Node>,
    /// Who may send whom a message, and may take over work in a mesh: of a ring in one direction, otherwise each pair once. At
    /// most 10,000.
    pub edges: Vec<Edge>,
    /// There are more of them.
    pub edges_truncated: bool,
    /// What is said in the swarm altogether.
    pub messages: Traffic,
    /// The change that is under way; null if none is.
    pub change: Option<ChangeUnderWay>,
    /// How the last change ended; null if there was none.
    pub last_change: Option<LastChange>,
    /// What the rules of adaptation said last, the newest first: at most 10.
    pub suggestions: Vec<Suggestion>,
    /// Last stream sequence that this rests on.
    pub seq: u64,
    /// The log's time there.
    #[schema(value_type = Option<DateTime<Utc>>)]
    pub at: Option<DateTime<Utc>>,
    /// Since when the gateway has not heard from the log; null while it does.
    pub stale_since: Option<DateTime<Utc>>,
}

/// How a leader was elected.
#[derive(Serialize, ToSchema)]
#[schema(as = Election)]
pub struct ElectionAnswer {
    /// When.
    pub at: Option<DateTime<Utc>>,
    /// By what rule, and what became of the one before.
    pub reason: String,
    /// How many agents could have been.
    pub eligible: u32,
}

/// A place in a topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TopologySeat)]
pub struct Place {
    /// `coordinator`, `supervisor` or `worker`.
    #[schema(value_type = String)]
    pub role: Role,
    /// 0 at the top. In a star the hub's is 0, in mesh and ring everybody's.
    pub level: u32,
    /// Whose child it is, in a tree.
    pub parent: Option<Uuid>,
    /// Its number in the order in which agents came: the circle of a ring, nearness in a mesh.
    pub place: u64,
    /// It takes the hub's place at once if that is lost.
    pub standby: bool,
    /// It is given tasks that ask for no role.
    pub works: bool,
}

impl From<&Seat> for Place {
    fn from(seat: &Seat) -> Self {
        Self {
            role: seat.role,
            level: seat.level,
            parent: seat.parent.map(|parent| parent.0),
            place: seat.place,
            standby: seat.standby,
            works: seat.works,
        }
    }
}

/// An agent in its place.
#[derive(Serialize, ToSchema)]
#[schema(as = TopologyNode)]
pub struct Node {
    /// The agent.
    pub agent_id: Uuid,
    /// Its name.
    pub agent_name: String,
    /// What kind.
    pub agent_type: String,
    /// Its place.
    #[serde(flatten)]
    pub place: Place,
    /// By what rule it has it.
    pub reason: Option<String>,
    /// It leads the swarm.
    pub is_leader: bool,
    /// `starting`, `idle`, `busy` or `unhealthy`.
    pub status: &'static str,
    /// Tasks that it runs, as last measured.
    pub running: u32,
    /// Tasks assigned to it and not started, as last measured.
    pub waiting: u32,
    /// Tasks that it runs at once.
    pub slots: u32,
    /// Messages that it has sent and that are still kept; null if that cannot be told at the moment.
    pub messages: Option<u64>,
    /// Messages that it sent in a second, in the last moments; null if that has not been watched for long enough.
    pub per_second: Option<f64>,
}

/// Who may talk to whom.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TopologyEdge)]
pub struct Edge {
    /// An agent.
    pub from: Uuid,
    /// Another one.
    pub to: Uuid,
    /// Messages between them that are still kept, in both directions, without those to roles, topics or all; null if that
    /// cannot be told at the moment.
    pub messages: Option<u64>,
    /// Messages between them in a second, in the last moments; null if that has not been watched for long enough.
    pub per_second: Option<f64>,
}

/// What is said in a swarm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = TopologyTraffic)]
pub struct Traffic {
    /// Messages that are still kept, whoever sent them, receipts and replies too; null if that cannot be told at the moment.
    pub kept: Option<u64>,
    /// Messages in a second, in the last moments; null if that has not been watched for long enough.
    pub per_second: Option<f64>,
    /// Length of these moments, in milliseconds: it is watched from the first look at a swarm's topology until nobody has
    /// looked for a minute.
    pub window_ms: Option<u64>,
}

/// A change that has begun: the old topology holds until every agent has its new place.
#[derive(Serialize, ToSchema)]
pub struct ChangeUnderWay {
    /// The generation that it is to be.
    pub generation: u64,
    /// What is wanted.
    #[serde(flatten)]
    pub after: Shown,
    /// Agents that have their new place.
    pub seated: usize,
    /// Agents that are to be seated, as it began.
    pub agents: u32,
    /// Of these, how many get another role or parent.
    pub moves: u32,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
}

impl From<&Planned> for ChangeUnderWay {
    fn from(planned: &Planned) -> Self {
        Self {
            generation: planned.generation,
            after: (&planned.after).into(),
            seated: planned.seated(),
            agents: planned.agents,
            moves: planned.moves,
            reason: planned.reason.clone(),
            since: planned.since.to_chrono(),
        }
    }
}

/// How a change ended.
#[derive(Serialize, ToSchema)]
pub struct LastChange {
    /// The generation that it was to be.
    pub generation: u64,
    /// `changed`, or `kept`: what was before goes on.
    pub outcome: &'static str,
    /// What there was; null if it was kept.
    pub before: Option<Shown>,
    /// What was wanted.
    pub after: Shown,
    /// Why it was kept; null if it was not.
    pub problem: Option<ProblemDocument>,
    /// Agents that were seated.
    pub agents: u32,
    /// Of these, how many got another role or parent.
    pub moves: u32,
    /// Why.
    pub reason: String,
    /// When it ended.
    pub at: Option<DateTime<Utc>>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl From<&Ended> for LastChange {
    fn from(ended: &Ended) -> Self {
        let problem = |problem: &swarm_events::Problem| {
            let problem = ApiProblem::decided(problem.clone());
            problem.document()
        };
        Self {
            generation: ended.generation,
            outcome: if ended.kept.is_some() { KEPT } else { CHANGED },
            before: ended.before.as_ref().map(Shown::from),
            after: (&ended.after).into(),
            problem: ended.kept.as_ref().map(problem),
            agents: ended.agents,
            moves: ended.moves,
            reason: ended.reason.clone(),
            at: ended.at.to_chrono(),
            took_ms: ended.took_ms,
        }
    }
}

/// It holds.
pub(super) const CHANGED: &str = "changed";
/// What was before goes on.
pub(super) const KEPT: &str = "kept";
/// It was only asked for.
pub(super) const PLANNED: &str = "planned";

/// What a rule of adaptation said.
#[derive(Serialize, ToSchema)]
#[schema(as = TopologySuggestion)]
pub struct Suggestion {
    /// When.
    pub at: Option<DateTime<Utc>>,
    /// Which would be better.
    #[serde(flatten)]
    pub after: Shown,
    /// The name of the rule's setting.
    pub rule: String,
    /// Its limit.
    pub limit: u64,
    /// The figure that was above it, in the rule's unit.
    pub figure: u64,
    /// For how long without a break, in milliseconds.
    pub since_ms: u64,
    /// Whether it was applied too.
    pub applied: bool,
}

impl From<&Suggested> for Suggestion {
    fn from(suggested: &Suggested) -> Self {
        let what = &suggested.what;
        Self {
            at: suggested.at.to_chrono(),
            after: (&what.after).into(),
            rule: what.rule.clone(),
            limit: what.limit,
            figure: what.figure,
            since_ms: what.since_ms,
            applied: what.applied,
        }
    }
}

/// What became of a change, or would become.
#[derive(Serialize, ToSchema)]
#[schema(as = TopologyChange)]
pub struct ChangeAnswer {
    /// The swarm.
    pub swarm_id: Uuid,
    /// `changed`, or `planned` after a dry run.
    pub outcome: &'static str,
    /// The generation that holds, or would.
    pub generation: u64,
    /// What holds, or would.
    #[serde(flatten)]
    pub after: Shown,
    /// What there was, or is.
    pub before: Shown,
    /// Agents that were, or would be, seated.
    pub agents: u32,
    /// Of these, how many got another role or parent.
    pub moves: u32,
    /// So many tasks that had not started were taken back because of it, and wait in the queue again or have gone on from
    /// there. Null after a dry run, and if the distributor has not been through with it within 3 seconds.
    pub withdrawn: Option<u64>,
    /// What could be told of that beforehand: the tasks at agents and not started, as last measured. Null before the first
    /// measurement.
    pub withdrawn_at_most: Option<u64>,
    /// Why.
    pub reason: String,
    /// How long it took, in milliseconds; null after a dry run.
    pub took_ms: Option<u64>,
    /// Who has, or would have, another place than before: at most 1,000.
    pub items: Vec<Move>,
    /// There are more of them.
    pub items_truncated: bool,
}

/// An agent that gets another place.
#[derive(Serialize, ToSchema)]
#[schema(as = TopologyMove)]
pub struct Move {
    /// The agent.
    pub agent_id: Uuid,
    /// Its name.
    pub agent_name: String,
    /// Where it was; null if it had no place.
    pub before: Option<Place>,
    /// Where it is.
    pub after: Option<Place>,
    /// By what rule.
    pub reason: String,
}

pub(super) fn time(at: Timestamp) -> Option<DateTime<Utc>> {
    at.to_chrono()
}
