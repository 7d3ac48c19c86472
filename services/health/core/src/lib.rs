//! Health's core: who is alive and fit to work, as far as the log and what health's shell observed tell.
//!
//! It alone writes `agent.suspected`, `agent.recovered`, `agent.failed`, `agent.host_failed`, `agent.quarantined`,
//! `agent.released` and `swarm.sampled`. Silence is not in the log, so it enters as an observation by the shell; the core
//! judges it by the incarnation that was seen, and each verdict carries the observation's figures as its evidence. Everything
//! else follows from the log alone: ends of processes, the distributor's figures, health's own samples. What they demand is a
//! function of the state, so that a new owner finds what is undone without any mark.
//!
//! Gateways and projections fold it too: [`Agent::rate`], [`Agent::quarantine`], [`Agent::load`], [`Agent::usage`] and
//! [`Agent::process`], [`Swarm::type_rates`], [`Swarm::capability_rates`] and [`Swarm::thresholds`] are for whoever shows a
//! swarm's health. Time is the log's: [`Decider::head`] of the state has it.
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

mod agent;
mod decide;
mod figures;
mod fold;
mod plan;
mod process;
mod rules;
mod swarm;
mod thresholds;
mod window;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Input, InstanceId, OrgId, Partition, Problem, SwarmId, Timestamp,
    agent::Evidence,
    control::Sighting,
    decider::{Admission, Decider, Decision, Head, Verdict},
    envelope::Source,
    subject::Service,
    swarm::AgentSample,
};
use uuid::Uuid;

use crate::{fold::Touched, swarm::Key};

pub use agent::{Agent, Liveness, Phase, Process, Quarantine, Usage};
pub use plan::Plan;
pub use swarm::Swarm;
pub use thresholds::{DISCONNECT_GRACE_MS, HOST_DOWN_GRACE_MS, Thresholds};
pub use window::{BUCKETS, Rate};

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
    /// Hosts with claims.
    hosts: BTreeMap<InstanceId, swarm::Host>,
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
    /// Observations that are not answered yet, those of hosts whose claims are not all void yet among them.
    pub fn open_marks(&self) -> usize {
        let gone = self.hosts.values().filter(|host| host.gone.is_some());
        self.marks.len() + gone.count()
    }
    fn agents(&self) -> impl Iterator<Item = Key> {
        self.swarms.iter().flat_map(|(&(org, swarm), found)| {
            found.agents.keys().map(move |agent| (org, swarm, *agent))
        })
    }
}

impl Decider for Health {
    const SERVICE: Service = Service::Health;
    const VERSION: u32 = 3;
    const FORMAT: u32 = 3;
    type Plan = Plan;

    fn new(partition: Partition) -> Self {
        Self {
            head: Head::new(partition),
            swarms: BTreeMap::new(),
            hosts: BTreeMap::new(),
            marks: BTreeMap::new(),
            open_ids: BTreeMap::new(),
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn evolve(&mut self, input: &Input, plan: Option<&mut Plan>) -> Verdict {
        let mut touched = Touched::default();
        let admission = self.head.admit(Service::Health, input);
        let verdict = self.fold(admission, input, &mut touched);
        let Some(plan) = plan else {
            return verdict;
        };
        plan.due.extend(touched.opened);
        plan.agents.extend(touched.agents);
        for key in touched.swarms {
            let agents = self.swarms.get(&key).into_iter();
            let agents = agents.flat_map(|swarm| swarm.agents.keys());
            plan.agents
                .extend(agents.map(|agent| (key.0, key.1, *agent)));
        }
        for (org, swarm) in touched.others {
            let first = (org, swarm, AgentId(Uuid::nil()));
            let spared = plan.spared.range(first..);
            let spared = spared.take_while(|key| (key.0, key.1) == (org, swarm));
            plan.agents.extend(spared);
        }
        // A decision that is met again, or one of an older claim, says nothing of what is under way.
        if let Input::Event(recorded) = input
            && matches!(recorded.event.source, Source::Service(Service::Health, _))
            && !matches!(admission, Admission::Void(_))
        {
            if let Some(cause) = recorded.event.causation
                && let Some(mark) = plan.under_way.remove(&cause)
                && self.marks.contains_key(&mark)
            {
                plan.due.insert(mark);
            }
            let own = self.head.epoch(Service::Health).epoch;
            if recorded.event.decided.is_some_and(|d| d.epoch == own) {
                plan.met(recorded);
            }
        }
        verdict
    }

    fn plan(&self) -> Plan {
        Plan::new(self.marks.keys().copied(), self.agents())
    }

    fn decide(&self, plan: &mut Plan, limit: usize, out: &mut Vec<Decision>) {
        self.answer(plan, limit, out);
    }

    /// The end of a quarantine, or when a window of error rates shows something else. Silence is the shell's to observe.
    fn next_deadline(&self, plan: &Plan) -> Option<Timestamp> {
        plan.next_timer()
    }

    /// Nothing: `evolve` itself drops what a claim rejects, so that every reader of the log does it.
    fn reject(&mut self, _sequence: u64, _problem: &Problem) {}
}
