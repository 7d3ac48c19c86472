//! What was last heard of a swarm's agents: samples of heartbeats, and the evidence of verdicts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Body, Timestamp,
    agent::Evidence,
    swarm::{AgentSample, Sampled},
};

/// An agent as last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Its last sampled heartbeat.
    pub sample: Option<AgentSample>,
    /// When the sample was stored.
    pub sampled_at: Option<Timestamp>,
    /// What the last verdict on it rests on, until it joins anew.
    pub evidence: Option<Evidence>,
}
impl Heard {
    /// Its last heartbeat that the log knows of.
    pub fn last_heartbeat_at(&self) -> Option<Timestamp> {
        let sampled = self.sample.as_ref().map(|sample| sample.last_heartbeat_at);
        let judged = self
            .evidence
            .as_ref()
            .and_then(|evidence| evidence.last_heartbeat_at);
        sampled.max(judged)
    }
}

/// By agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples(BTreeMap<AgentId, Heard>);

impl Samples {
    /// Takes samples over.
    pub fn sampled(&mut self, time: Timestamp, sampled: &Sampled) {
        for (agent, sample) in &sampled.agents {
            let heard = self.0.entry(*agent).or_default();
            heard.sample = Some(sample.clone());
            heard.sampled_at = Some(time);
        }
    }
    /// Takes over what a verdict rests on; a new process starts with a clean slate.
    pub fn verdict(&mut self, agent: AgentId, body: &Body) {
        match body {
            Body::AgentSuspected(swarm_events::agent::Suspected { evidence, .. })
            | Body::AgentRecovered(swarm_events::agent::Recovered { evidence, .. })
            | Body::AgentFailed(swarm_events::agent::Failed { evidence, .. }) => {
                self.0.entry(agent).or_default().evidence = Some(evidence.clone());
            }
            Body::AgentJoined(_) => {
                self.0.insert(agent, Heard::default());
            }
            Body::AgentLeft(_) | Body::AgentRemoved(_) => {
                self.0.entry(agent).or_default().sample = None;
            }
            _ => {}
        }
    }
    /// One agent.
    pub fn get(&self, agent: AgentId) -> Option<&Heard> {
        self.0.get(&agent)
    }
}
