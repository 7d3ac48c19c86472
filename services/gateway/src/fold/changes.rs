//! What became of a swarm's topology and leader, for people: which change is under way, how the last one ended, what was
//! suggested, and by which rule each agent has its place. The shape itself is the coordinator's core's.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Body, Problem, Recorded, Timestamp,
    topology::{Seated, Topology, TopologySuggested},
};

/// Suggestions that are shown: of one that was not followed the next are about the same.
pub const SUGGESTIONS_MAX: usize = 10;

/// A change that has begun and has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The generation that it is to be.
    pub generation: u64,
    /// What is wanted.
    pub after: Topology,
    /// Agents that were to be seated when it began.
    pub agents: u32,
    /// Of these, how many get another role or parent.
    pub moves: u32,
    /// Why.
    pub reason: String,
    /// When it began.
    pub since: Timestamp,
    /// By which rule each agent has its new place.
    reasons: BTreeMap<AgentId, String>,
}

impl Planned {
    /// Agents that have their new place already.
    pub fn seated(&self) -> usize {
        self.reasons.len()
    }
}

/// A change that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The generation that it was to be.
    pub generation: u64,
    /// What there was; absent of a change that did not come about, after which it is what there is.
    pub before: Option<Topology>,
    /// What was wanted.
    pub after: Topology,
    /// Why it did not come about; absent of one that did.
    pub kept: Option<Problem>,
    /// Agents that were seated.
    pub agents: u32,
    /// Of these, how many got another role or parent.
    pub moves: u32,
    /// Why.
    pub reason: String,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A suggestion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggested {
    /// When it was made.
    pub at: Timestamp,
    /// Which, and why.
    pub what: TopologySuggested,
}

/// How the leader came to be one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Election {
    /// When.
    pub at: Timestamp,
    /// By what rule.
    pub reason: String,
    /// How many agents could have been.
    pub eligible: u32,
}

/// What is known of a swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The change under way.
    pub planned: Option<Planned>,
    /// The last one that ended.
    pub last: Option<Ended>,
    /// The last suggestions, the newest first.
    pub suggestions: VecDeque<Suggested>,
    /// The last election.
    pub election: Option<Election>,
    reasons: BTreeMap<AgentId, String>,
}

impl Changes {
    /// By which rule an agent has its place.
    pub fn reason(&self, agent: AgentId) -> Option<&str> {
        self.reasons.get(&agent).map(String::as_str)
    }

    /// Whether an event is of any concern here.
    pub const fn concerned(body: &Body) -> bool {
        matches!(
            body,
            Body::SwarmTopologyPlanned(_)
                | Body::SwarmTopologyChanged(_)
                | Body::SwarmTopologyKept(_)
                | Body::SwarmTopologySuggested(_)
                | Body::SwarmLeaderElected(_)
                | Body::AgentSeated(_)
        )
    }

    /// Applies a valid event.
    pub fn apply(&mut self, recorded: &Recorded) {
        let at = recorded.time;
        match &recorded.event.body {
            Body::SwarmTopologyPlanned(planned) => {
                self.planned = Some(Planned {
                    generation: planned.generation,
                    after: planned.after.clone(),
                    agents: planned.agents,
                    moves: planned.moves,
                    reason: planned.reason.clone(),
                    since: at,
                    reasons: BTreeMap::new(),
                });
            }
            Body::AgentSeated(seated) => {
                if let Some(agent) = recorded.subject.agent() {
                    self.seated(agent, seated);
                }
            }
            Body::SwarmTopologyChanged(changed) => {
                let planned = self.planned.take();
                let since = planned.as_ref().map_or(at, |planned| planned.since);
                self.last = Some(Ended {
                    generation: changed.generation,
                    before: Some(changed.before.clone()),
                    after: changed.after.clone(),
                    kept: None,
                    agents: changed.agents,
                    moves: changed.moves,
                    reason: changed.reason.clone(),
                    at,
                    took_ms: at.millis_since(since),
                });
                self.reasons = planned.map(|planned| planned.reasons).unwrap_or_default();
            }
            Body::SwarmTopologyKept(kept) => {
                let Some(planned) = self.planned.take() else {
                    return;
                };
                self.last = Some(Ended {
                    generation: kept.generation,
                    before: None,
                    after: planned.after,
                    kept: Some(kept.problem.clone()),
                    agents: planned.agents,
                    moves: planned.moves,
                    reason: planned.reason,
                    at,
                    took_ms: at.millis_since(planned.since),
                });
            }
            Body::SwarmTopologySuggested(what) => {
                let what = what.clone();
                self.suggestions.push_front(Suggested { at, what });
                self.suggestions.truncate(SUGGESTIONS_MAX);
            }
            Body::SwarmLeaderElected(elected) => {
                self.election = Some(Election {
                    at,
                    reason: elected.reason.clone(),
                    eligible: elected.eligible,
                });
            }
            _ => {}
        }
    }

    fn seated(&mut self, agent: AgentId, seated: &Seated) {
        let staged = self
            .planned
            .as_mut()
            .filter(|planned| planned.generation == seated.generation);
        let reasons = staged.map_or(&mut self.reasons, |planned| &mut planned.reasons);
        if seated.seat.is_some() {
            reasons.insert(agent, seated.reason.clone());
        } else {
            reasons.remove(&agent);
        }
    }
}
