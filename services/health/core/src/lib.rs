//! Health's core: who is alive, as far as the log and what health's shell observed tell.
//!
//! It alone writes `agent.suspected`, `agent.recovered`, `agent.failed` and `swarm.sampled`. Silence is not in the log, so
//! it enters as an observation by the shell; the core judges it by the incarnation that was seen, and each verdict carries
//! the observation's figures as its evidence.
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

mod decide;
mod fold;
mod plan;
mod thresholds;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Input, InstanceId, OrgId, Partition, Place, Problem, SwarmId, Timestamp,
    agent::Evidence,
    control::Sighting,
    decider::{Decider, Decision, Head, Verdict},
    envelope::Source,
    subject::Service,
    swarm::AgentSample,
};
use uuid::Uuid;

pub use plan::Plan;
pub use thresholds::{DISCONNECT_GRACE_MS, FAIL_AFTER_TENTHS, SUSPECT_AFTER_TENTHS, Thresholds};

/// Whether an agent's process is held to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// It is.
    Alive,
    /// It has been silent for a while.
    Suspected,
    /// It is held to be dead.
    Failed,
}

/// A swarm that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swarm {
    /// Partition, organization, id.
    pub place: Place,
    /// Its limits.
    pub thresholds: Thresholds,
    /// It is being terminated or has been.
    pub stopping: bool,
    /// Deleted: nothing is watched any more.
    pub deleted: bool,
    /// Agents, those that have gone too (their incarnation goes on when they come back).
    pub agents: BTreeMap<AgentId, Agent>,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Current (or last) incarnation.
    pub incarnation: u64,
    /// Its process.
    pub instance: InstanceId,
    /// It belongs to the swarm.
    pub member: bool,
    /// Liveness.
    pub liveness: Liveness,
    /// Sequence of the observation that is not answered yet.
    open: Option<u64>,
}
impl Agent {
    /// It is watched: a member that is not held to be dead.
    pub fn is_watched(&self) -> bool {
        self.member && self.liveness != Liveness::Failed
    }
}

/// An observation that is not answered yet; its key is its sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    id: Uuid,
    org: OrgId,
    swarm: SwarmId,
    wanted: Wanted,
}
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Wanted {
    Verdict(AgentId, Sighting, Box<Evidence>),
    Sampled(BTreeMap<AgentId, AgentSample>),
}

/// The state of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    head: Head,
    swarms: BTreeMap<(OrgId, SwarmId), Swarm>,
    marks: BTreeMap<u64, Mark>,
    open_ids: BTreeMap<Uuid, u64>,
}

impl Health {
    /// A swarm of this partition.
    pub fn swarm(&self, org: OrgId, swarm: SwarmId) -> Option<&Swarm> {
        self.swarms.get(&(org, swarm))
    }
    /// All swarms of this partition.
    pub fn swarms(&self) -> impl Iterator<Item = &Swarm> {
        self.swarms.values()
    }
    /// Observations that are not answered yet.
    pub fn open_marks(&self) -> usize {
        self.marks.len()
    }
}

impl Decider for Health {
    const SERVICE: Service = Service::Health;
    const VERSION: u32 = 1;
    const FORMAT: u32 = 1;
    type Plan = Plan;

    fn new(partition: Partition) -> Self {
        Self {
            head: Head::new(partition),
            swarms: BTreeMap::new(),
            marks: BTreeMap::new(),
            open_ids: BTreeMap::new(),
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn evolve(&mut self, input: &Input, plan: Option<&mut Plan>) -> Verdict {
        let mut opened = Vec::new();
        let verdict = self.fold(input, &mut opened);
        if let Some(plan) = plan {
            plan.due.extend(opened);
            if let Input::Event(recorded) = input
                && matches!(recorded.event.source, Source::Service(Service::Health, _))
                && let Some(cause) = recorded.event.causation
                && let Some(mark) = plan.under_way.remove(&cause)
                && self.marks.contains_key(&mark)
            {
                plan.due.insert(mark);
            }
        }
        verdict
    }

    fn plan(&self) -> Plan {
        Plan {
            due: self.marks.keys().copied().collect(),
            under_way: BTreeMap::new(),
        }
    }

    fn decide(&self, plan: &mut Plan, limit: usize, out: &mut Vec<Decision>) {
        self.answer(plan, limit, out);
    }

    /// Nothing falls due by itself: time passes in the shell, which observes.
    fn next_deadline(&self, _plan: &Plan) -> Option<Timestamp> {
        None
    }

    /// Nothing: `evolve` itself drops what a claim rejects, so that every reader of the log does it.
    fn reject(&mut self, _sequence: u64, _problem: &Problem) {}
}
