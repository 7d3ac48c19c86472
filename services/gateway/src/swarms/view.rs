//! A swarm of the fold as the read model has it, for answers to writes.

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use swarm_coordinator_core::{Swarm, SwarmStatus};
use swarm_events::{
    AgentId, Body, Place, Problem, Timestamp, UserId, configuration::Configuration,
    topology::Topology,
};
use swarm_projections::queries::SwarmRow;

use super::SwarmAnswer;
use crate::{
    fold::outcomes::Outcome,
    problem::{Answer, ApiProblem},
    topology::word,
};

fn time(at: Timestamp) -> DateTime<Utc> {
    at.to_chrono().unwrap_or_default()
}

/// What is shown of a swarm, as the log tells it.
pub(super) struct View<'a> {
    place: Place,
    name: &'a str,
    description: Option<&'a str>,
    topology: &'a Topology,
    leader: Option<AgentId>,
    configuration: &'a Configuration,
    status: SwarmStatus,
    live_agents: usize,
    desired_agents: usize,
    created_by: Option<UserId>,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
    created_seq: u64,
}

impl<'a> View<'a> {
    pub(super) fn of(swarm: &'a Swarm) -> Self {
        Self {
            place: swarm.place,
            name: &swarm.name,
            description: swarm.description.as_deref(),
            topology: swarm.topology(),
            leader: swarm.leader(),
            configuration: &swarm.configuration,
            status: swarm.status(),
            live_agents: swarm.live_agents(),
            desired_agents: {
                let wanted = swarm.agents.values();
                let wanted = wanted.filter(|agent| agent.holds_place() && !agent.is_leaving());
                wanted.count()
            },
            created_by: swarm.created_by,
            created_at: swarm.created_at,
            updated_at: swarm.updated_at,
            deleted_at: swarm.deleted_at,
            created_seq: swarm.created_seq,
        }
    }

    /// The swarm as it was when it was created: a repeat of the request is answered the same.
    pub(super) fn created(outcome: &'a Outcome) -> Option<Self> {
        let (Body::SwarmCreated(created), Some(place)) =
            (&outcome.event.body, outcome.subject.place())
        else {
            return None;
        };
        Some(Self {
            place,
            name: &created.name,
            description: created.description.as_deref(),
            topology: &created.topology,
            leader: None,
            configuration: &created.configuration,
            // No agent has ever joined: the coordinator's rule for that.
            status: if created.configuration.min_agents == 0 {
                SwarmStatus::Inactive
            } else {
                SwarmStatus::Starting
            },
            live_agents: 0,
            desired_agents: 0,
            created_by: created.created_by,
            created_at: outcome.time,
            updated_at: outcome.time,
            deleted_at: None,
            created_seq: outcome.sequence,
        })
    }

    /// The row that the read model has of it.
    pub(super) fn answer(&self, last_seq: u64) -> Answer<SwarmAnswer> {
        let unwritable = |error: serde_json::Error| {
            ApiProblem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Problem::new("unwritable-swarm", error.to_string()),
            )
        };
        let raw = |text: String| {
            RawValue::from_string(text)
                .map(sqlx::types::Json)
                .map_err(unwritable)
        };
        let row = SwarmRow {
            id: self.place.swarm.0,
            organization_id: self.place.org.0,
            name: self.name.to_owned(),
            description: self.description.map(str::to_owned),
            topology: word(self.topology.kind()).to_owned(),
            topology_configuration: raw(self.topology.configuration().as_str().to_owned())?,
            configuration: raw(serde_json::to_string(self.configuration).map_err(unwritable)?)?,
            status: self.status.as_str().to_owned(),
            leader_agent_id: self.leader.map(|leader| leader.0),
            agent_count: i32::try_from(self.live_agents).unwrap_or(i32::MAX),
            desired_agents: i32::try_from(self.desired_agents).unwrap_or(i32::MAX),
            partition: i16::from(self.place.partition.number()),
            created_by: self.created_by.map(|user| user.0),
            created_at: time(self.created_at),
            updated_at: time(self.updated_at),
            deleted_at: self.deleted_at.map(time),
            created_seq: i64::try_from(self.created_seq).unwrap_or(i64::MAX),
            last_seq: i64::try_from(last_seq).unwrap_or(i64::MAX),
        };
        Ok(row.into())
    }
}
