//! The coordinator's core: organizations, swarms and their membership, as a fold over the log and answers to its open marks.
//!
//! It alone writes `swarm.created`, `updated`, `stopping`, `deleted`, `refused`, `agent.joined`, `left`, `removed` and all
//! organizations' events. It decides from the log only: no clock, randomness, IO, float or hash order. Gateways and
//! projections fold it too, over all partitions, to answer questions and to tell valid from void.
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

mod agent;
mod check;
mod decide;
mod fold;
mod managed;
mod mark;
mod membership;
mod organization;
mod plan;
mod swarm;
mod touched;
mod unreadable;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{
    Input, OrgId, Partition, Problem, SwarmId, Timestamp,
    decider::{Decider, Decision, Head, Remembered, Verdict},
    subject::Service,
};
use uuid::Uuid;

pub use agent::{Agent, Liveness, Membership};
pub use check::{METADATA_BYTES_MAX, SCALING_POLICY_BYTES_MAX};
pub use decide::{STOP_WAIT_IDLE_MS, STOP_WAIT_MS_MAX};
pub use managed::{Draining, LastExit, Lifecycle, Managed, Phase, Quarantine};
pub use organization::{ApiKey, KeyHolder, Organization, Organizations, User};
pub use plan::Plan;
pub use swarm::{OpenTasks, Stopping, Swarm, SwarmStatus};
pub use touched::Touched;
pub use unreadable::{PROBLEM_BYTES_MAX, SOURCES_MAX, SUM_MS};

/// The state of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    head: Head,
    orgs: Organizations,
    swarms: BTreeMap<fold::Key, Swarm>,
    /// Names of swarms that are not deleted.
    names: BTreeMap<(OrgId, String), SwarmId>,
    /// Ids of commands met.
    commands: Remembered,
    marks: BTreeMap<u64, mark::Mark>,
    /// Open marks by what their answer names as its cause.
    open_ids: BTreeMap<Uuid, u64>,
    unreadable_groups: BTreeMap<unreadable::Group, u64>,
    unattributed: u64,
}

impl Coordinator {
    /// All organizations, of every partition.
    pub fn organizations(&self) -> &Organizations {
        &self.orgs
    }
    /// An organization.
    pub fn organization(&self, org: OrgId) -> Option<&Organization> {
        self.orgs.get(org)
    }
    /// Whose API key has this SHA-256 (lower-case hex).
    pub fn key_by_sha256(&self, sha256: &str) -> Option<KeyHolder> {
        self.orgs.key_by_sha256(sha256)
    }
    /// A swarm of this partition, deleted ones too.
    pub fn swarm(&self, org: OrgId, swarm: SwarmId) -> Option<&Swarm> {
        self.swarms.get(&(org, swarm))
    }
    /// All swarms of this partition, deleted ones too, by organization and id.
    pub fn swarms(&self) -> impl Iterator<Item = &Swarm> {
        self.swarms.values()
    }
    /// The swarms of an organization in this partition, deleted ones too, by id.
    pub fn swarms_of(&self, org: OrgId) -> impl Iterator<Item = &Swarm> {
        self.swarms
            .range((org, SwarmId(Uuid::nil()))..)
            .take_while(move |((of, _), _)| *of == org)
            .map(|(_, swarm)| swarm)
    }
    /// The swarm of this partition that has this name in its organization and is not deleted.
    pub fn swarm_named(&self, org: OrgId, name: &str) -> Option<&Swarm> {
        let swarm = self.names.get(&(org, name.to_owned()))?;
        self.swarm(org, *swarm)
    }
    /// Sequence of a command that is remembered: one with the same id is void.
    pub fn command_seen(&self, id: Uuid) -> Option<u64> {
        self.commands.get(id)
    }
    /// Inputs that are not answered yet.
    pub fn open_marks(&self) -> usize {
        self.marks.len()
    }
    /// Unreadable messages that name neither a swarm nor an organization; they are counted and nobody is told.
    pub fn unattributed(&self) -> u64 {
        self.unattributed
    }
}

impl Decider for Coordinator {
    const SERVICE: Service = Service::Coordinator;
    const VERSION: u32 = 2;
    const FORMAT: u32 = 3;
    type Plan = Plan;

    fn new(partition: Partition) -> Self {
        Self {
            head: Head::new(partition),
            orgs: Organizations::default(),
            swarms: BTreeMap::new(),
            names: BTreeMap::new(),
            commands: Remembered::default(),
            marks: BTreeMap::new(),
            open_ids: BTreeMap::new(),
            unreadable_groups: BTreeMap::new(),
            unattributed: 0,
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn evolve(&mut self, input: &Input, plan: Option<&mut Plan>) -> Verdict {
        let mut opened = Vec::new();
        let verdict = self.fold(input, &mut Touched::default(), &mut opened);
        if let Some(plan) = plan {
            plan.due.extend(opened);
            if let Input::Event(recorded) = input
                && fold::is_own(&recorded.event)
                && let Some(cause) = recorded.event.causation
                && let Some(mark) = plan.met(cause)
                && self.marks.contains_key(&mark)
            {
                plan.due.insert(mark);
            }
        }
        verdict
    }

    fn plan(&self) -> Plan {
        Plan::due(self.marks.keys().copied())
    }

    fn decide(&self, plan: &mut Plan, limit: usize, out: &mut Vec<Decision>) {
        self.answer(plan, limit, out);
    }

    fn next_deadline(&self, plan: &Plan) -> Option<Timestamp> {
        self.deadline(plan)
    }

    /// Nothing: `evolve` itself sets aside what a claim rejects, so that gateways and projections do it too.
    fn reject(&mut self, _sequence: u64, _problem: &Problem) {}
}
