//! A swarm's topology as it stands, the change that is under way, and what the last one came to. Who sits where is folded by
//! [`swarm_topology::Shape`]; here is what the coordinator adds to it.

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Body, Json, Problem, Recorded, Timestamp,
    configuration::TopologyKind,
    topology::{Role, Topology, TopologyPlanned, TopologySuggested},
};
use swarm_topology::{Member, Members, Planned};
use uuid::Uuid;

use crate::{Agent, Liveness, Swarm, fold::Void};

/// How long a change of the topology may take, in milliseconds of log time: the promised bound of a failover. Whoever decides
/// seats ten thousand agents within a second.
pub const TOPOLOGY_CHANGE_MS_MAX: u64 = 30_000;

/// A change of the topology that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeUnderWay {
    /// The generation that it is to be.
    pub generation: u64,
    /// What is wanted.
    pub after: Topology,
    /// Agents that were to be seated when it was planned.
    pub agents: u32,
    /// Of these, how many were to get another role or parent.
    pub moves: u32,
    /// Why.
    pub reason: String,
    /// Log time since which it is under way.
    pub since: Timestamp,
    /// Stream sequence of `topology_planned`.
    pub planned_seq: u64,
    /// The command, or the suggestion, that wanted it.
    pub(crate) cause: Option<Uuid>,
    pub(crate) correlation: Option<Uuid>,
    /// Id of `topology_planned`: what the seats name as their cause.
    pub(crate) planned: Uuid,
}
impl ChangeUnderWay {
    /// When it is given up if it is not complete, by log time.
    pub const fn due(&self) -> Timestamp {
        self.since.plus_millis(TOPOLOGY_CHANGE_MS_MAX)
    }
}

/// What the last change of the topology came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastChange {
    /// The generation that it was to be.
    pub generation: u64,
    /// What there was.
    pub before: TopologyKind,
    /// What was wanted.
    pub after: TopologyKind,
    /// Agents that were seated.
    pub agents: u32,
    /// Of these, how many got another role or parent.
    pub moves: u32,
    /// Why it was wanted.
    pub reason: String,
    /// When its end was stored.
    pub at: Timestamp,
    /// Stream sequence of its end.
    pub sequence: u64,
    /// Why it could not be completed; `None`: it holds.
    pub problem: Option<Problem>,
}

/// What a rule of adaptation said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggested {
    /// What it said.
    pub suggestion: TopologySuggested,
    /// When that was stored.
    pub at: Timestamp,
    /// Its stream sequence.
    pub sequence: u64,
}

/// What an agent is, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentRole {
    /// The hub of a star, or the top of a tree.
    Coordinator,
    /// It stands between coordinators and workers.
    Supervisor,
    /// It leads, and has no other role.
    Leader,
    /// It works.
    Worker,
}
impl AgentRole {
    /// The PRD's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Supervisor => "supervisor",
            Self::Leader => "leader",
            Self::Worker => "worker",
        }
    }
}

impl Swarm {
    /// Its topology, with all its options.
    pub fn topology(&self) -> &Topology {
        self.shape.topology()
    }
    /// The agent that leads it.
    pub fn leader(&self) -> Option<AgentId> {
        let leader = self.shape.leader()?;
        self.agents.get(&leader)?.is_live().then_some(leader)
    }
    /// What an agent is: coordinator or supervisor by its seat, else leader, else worker.
    pub fn role(&self, agent: AgentId) -> AgentRole {
        match self.shape.role(agent) {
            Some(Role::Coordinator) => AgentRole::Coordinator,
            Some(Role::Supervisor) => AgentRole::Supervisor,
            _ if self.leader() == Some(agent) => AgentRole::Leader,
            _ => AgentRole::Worker,
        }
    }
    /// Those of its agents that have a place in its topology: live ones that have not failed.
    pub fn members(&self) -> Members {
        let members = self.agents.iter();
        members
            .filter_map(|(id, agent)| member(*id, agent))
            .collect()
    }
    /// What a change of its topology would do, with the agents that are there now: `patch` (RFC 7396) over the options as they
    /// are, or over the defaults of another kind.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn preview(
        &self,
        kind: TopologyKind,
        patch: &Json,
    ) -> Result<(Topology, Planned), Problem> {
        let after = self.changed_topology(kind, patch)?;
        let planned = self.shape.plan(&after, &self.members());
        Ok((after, planned))
    }

    /// The topology that is ordered, if it may be.
    pub(crate) fn changed_topology(
        &self,
        kind: TopologyKind,
        patch: &Json,
    ) -> Result<Topology, Problem> {
        let most = self.configuration.max_agents;
        let after = self.topology().changed(kind, patch, most)?;
        if after == *self.topology() {
            let detail = "the swarm has this topology with these options";
            return Err(Problem::new("nothing-changes", detail)
                .field("topology")
                .cure("give another topology, or another option"));
        }
        self.no_change_under_way()?;
        Ok(after)
    }

    pub(crate) fn no_change_under_way(&self) -> Result<(), Problem> {
        let Some(change) = &self.change else {
            return Ok(());
        };
        let detail = format!(
            "the change to generation {} of the topology is under way",
            change.generation
        );
        Err(Problem::new("change-under-way", detail)
            .field("topology")
            .cure("wait for its topology_changed or topology_kept, then try again"))
    }

    /// Applies an event about the topology, or finds it void. Answers with the agents whose place or rank it changed; `None` if
    /// it is about something else.
    pub(crate) fn evolve_topology(
        &mut self,
        about: Option<AgentId>,
        recorded: &Recorded,
        now: Timestamp,
    ) -> Result<Option<Vec<AgentId>>, Void> {
        let body = &recorded.event.body;
        let led = self.shape.leader();
        let seated = |shape: &swarm_topology::Shape| shape.seats().map(|(id, _)| id).collect();
        let mut touched: Vec<AgentId> = match body {
            Body::SwarmTopologyChanged(_) => seated(&self.shape),
            _ => Vec::new(),
        };
        if !self.shape.apply(about, body)? {
            return Ok(None);
        }
        self.settle_aside = false;
        self.shape_seq = recorded.sequence;
        match body {
            Body::SwarmTopologyPlanned(planned) => {
                self.change = Some(begun(planned, recorded, now))
            }
            Body::SwarmTopologyChanged(changed) => {
                touched.extend(seated(&self.shape));
                self.change = None;
                self.adaptation.quiet(now);
                self.updated_at = recorded.time;
                self.last_change = Some(LastChange {
                    generation: changed.generation,
                    before: changed.before.kind(),
                    after: changed.after.kind(),
                    agents: changed.agents,
                    moves: changed.moves,
                    reason: changed.reason.clone(),
                    at: recorded.time,
                    sequence: recorded.sequence,
                    problem: None,
                });
            }
            Body::SwarmTopologyKept(kept) => {
                let change = self.change.take();
                self.last_change = change.map(|change| LastChange {
                    generation: kept.generation,
                    before: kept.kept.kind(),
                    after: change.after.kind(),
                    agents: 0,
                    moves: 0,
                    reason: change.reason,
                    at: recorded.time,
                    sequence: recorded.sequence,
                    problem: Some(kept.problem.clone()),
                });
            }
            Body::SwarmLeaderElected(elected) => {
                touched.extend(led.into_iter().chain(elected.leader))
            }
            _ => touched.extend(about),
        }
        Ok(Some(touched))
    }

    /// Notes what a rule of adaptation said.
    pub(crate) fn suggested(
        &mut self,
        suggestion: &TopologySuggested,
        recorded: &Recorded,
        now: Timestamp,
    ) {
        self.adaptation.quiet(now);
        self.suggested = Some(Suggested {
            suggestion: suggestion.clone(),
            at: recorded.time,
            sequence: recorded.sequence,
        });
    }

    /// An agent as the rules of topologies see it; `None`: it has no place in one.
    pub(crate) fn member(&self, id: AgentId) -> Option<Member> {
        member(id, self.agents.get(&id)?)
    }
}

fn member(id: AgentId, agent: &Agent) -> Option<Member> {
    if !agent.is_live() || agent.liveness == Liveness::Failed {
        return None;
    }
    let profile = &agent.profile;
    Some(Member {
        id,
        name: profile.agent_name.clone(),
        agent_type: profile.agent_type.clone(),
        capabilities: profile.capabilities.clone(),
        arrived: agent.arrived_seq,
        healthy: agent.is_healthy()
            && agent.quarantine.is_empty()
            && agent.draining.is_none()
            && agent.dismissed.is_none(),
    })
}

fn begun(planned: &TopologyPlanned, recorded: &Recorded, now: Timestamp) -> ChangeUnderWay {
    let event = &recorded.event;
    ChangeUnderWay {
        generation: planned.generation,
        after: planned.after.clone(),
        agents: planned.agents,
        moves: planned.moves,
        reason: planned.reason.clone(),
        since: now,
        planned_seq: recorded.sequence,
        cause: event.causation,
        correlation: event.correlation,
        planned: event.id.0,
    }
}
