//! The coordinator's core: organizations, swarms and their membership, as a fold over the log and answers to its open marks.
//!
//! It alone writes `swarm.created`, `updated`, `stopping`, `deleted`, `refused`, `scaled`, `agent.added`, `spawn_requested`,
//! `crash_looping`, `stopping`, `updated`, `joined`, `left`, `removed`, `seated`, `asked`, `answered`, `unanswered`, the events
//! of topologies and leaders, and all organizations' events. Commands leave marks,
//! which are answered; what an agent's state or a swarm's number of agents demands by itself is found from the state, by the
//! time at which it falls due (`decide/process.rs`, `decide/scale.rs`). It decides from the log only: no clock, randomness,
//! IO, float or hash order. Gateways and projections fold it too, over all partitions, to answer questions and to tell valid
//! from void.
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

mod adapt;
mod agent;
mod aside;
mod check;
mod decide;
mod fold;
mod managed;
mod mark;
mod membership;
mod order;
mod organization;
mod plan;
mod process;
mod question;
mod scale;
mod settling;
mod spec;
mod swarm;
mod tally;
mod topology;
mod touched;
mod unreadable;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{
    Body, Input, OrgId, Partition, Problem, Recorded, Subject, SwarmId, Timestamp,
    decider::{Admission, Decider, Decision, Head, Remembered, Verdict},
    message::{Answered, Unanswered},
    subject::{AgentVerb, Service},
};
use uuid::Uuid;

pub use adapt::{ATTEMPTS_MIN, ATTEMPTS_MS_MAX, SAMPLE_MS_MAX, WAITING_MIN};
pub use agent::{Agent, Liveness, Membership};
pub use check::{METADATA_BYTES_MAX, SCALING_POLICY_BYTES_MAX};
pub use decide::{CHOICE_BYTES_MAX, STOP_WAIT_IDLE_MS, STOP_WAIT_MS_MAX, STOP_WAIT_PROCESSES_MS};
pub use managed::{Draining, LastExit, Lifecycle, Managed, Phase, Quarantine};
pub use organization::{ApiKey, KeyHolder, Organization, Organizations, Template, User};
pub use plan::Plan;
pub use question::{ENDED_QUESTIONS_MAX, Question};
pub use spec::{
    CPU_PERCENT_MAX, CRASH_LIMIT_MAX, MEMORY_KIB_MAX, MEMORY_KIB_MIN, PROCESSES_MAX,
    RESTART_MS_MIN, URL_BYTES_MAX, WORKING_DIR_BYTES_MAX, check_spec,
};
pub use swarm::{OpenTasks, Stopping, Swarm, SwarmStatus};
pub use topology::{AgentRole, ChangeUnderWay, LastChange, Suggested, TOPOLOGY_CHANGE_MS_MAX};
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
    /// The topologies that have a name of an organization's own, by that name.
    pub fn templates(&self, org: OrgId) -> impl Iterator<Item = (&str, &Template)> {
        let found = self.orgs.get(org).into_iter();
        let templates = found.flat_map(|org| &org.templates);
        templates.map(|(name, template)| (name.as_str(), template))
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
    const VERSION: u32 = 3;
    const FORMAT: u32 = 4;
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
        let mut touched = Touched::default();
        let admission = self.head.admit(Service::Coordinator, input);
        let verdict = self.fold(admission, input, &mut touched, &mut opened);
        if let Some(plan) = plan {
            plan.due.extend(opened);
            // A decision that is met again, or one of an older claim, says nothing of what is under way; it may hide something.
            if matches!(admission, Admission::Void(_)) {
                for key in &touched.agents {
                    self.schedule(plan, *key);
                }
            } else if let Input::Event(recorded) = input {
                if let Some(mark) = own_cause(recorded).and_then(|cause| plan.met(cause))
                    && self.marks.contains_key(&mark)
                {
                    plan.due.insert(mark);
                }
                let void = matches!(verdict, Verdict::Void(_));
                self.keep_up(plan, recorded, &touched, void);
            }
        }
        verdict
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan::due(self.marks.keys().copied());
        for (key, swarm) in &self.swarms {
            self.schedule_swarm(&mut plan, *key, swarm);
            plan.settle_all(*key, swarm);
            for (id, _) in swarm.questions() {
                self.schedule_question(&mut plan, (key.0, key.1, id));
            }
            if let Some(change) = &swarm.change {
                plan.changing.insert(*key, change.due());
            }
        }
        plan
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

/// What a decision of the coordinator names as its cause.
fn own_cause(recorded: &Recorded) -> Option<Uuid> {
    let event = &recorded.event;
    event
        .causation
        .filter(|cause| fold::is_own(event) && !cause.is_nil())
}

impl Coordinator {
    /// Keeps the plan in step with what an event changed about agents.
    fn keep_up(&self, plan: &mut Plan, recorded: &Recorded, touched: &Touched, void: bool) {
        if let Subject::Agent(place, verb, agent) = recorded.subject
            && fold::is_own(&recorded.event)
        {
            let swarm = (place.org, place.swarm);
            let key = (place.org, place.swarm, agent);
            match own_cause(recorded) {
                Some(cause) if plan.agent_met(key, cause) => self.schedule(plan, key),
                // What was added by the swarm's own settings answers nothing.
                None if verb == AgentVerb::Added && plan.short_met(swarm) => {
                    self.look_for_shortage(plan, swarm);
                }
                _ => {}
            }
        }
        self.keep_up_topology(plan, recorded, void);
        for key in &touched.agents {
            self.schedule(plan, *key);
            if let Some(swarm) = self.swarm(key.0, key.1) {
                plan.settle_agent((key.0, key.1), swarm, key.2);
                for id in swarm.questions.of(key.2) {
                    self.schedule_question(plan, (key.0, key.1, id));
                }
            }
        }
        for key in &touched.swarms {
            self.look_for_shortage(plan, *key);
            plan.unsettle(*key);
        }
        for key in &touched.questions {
            plan.question_met(*key);
            self.schedule_question(plan, *key);
        }
        let settings = matches!(
            recorded.event.body,
            Body::SwarmUpdated(_) | Body::SwarmStopping(_) | Body::SwarmDeleted(_)
        );
        if let Some(place) = recorded.subject.place().filter(|_| settings)
            && let Some(swarm) = self.swarm(place.org, place.swarm)
        {
            self.schedule_swarm(plan, (place.org, place.swarm), swarm);
        }
    }

    /// The same of topologies and questions.
    fn keep_up_topology(&self, plan: &mut Plan, recorded: &Recorded, void: bool) {
        let Some(place) = recorded.subject.place() else {
            return;
        };
        let key = (place.org, place.swarm);
        let body = &recorded.event.body;
        if fold::is_own(&recorded.event) {
            plan.settling_met(key, body, recorded.subject.agent(), void);
            if void
                && let Body::AgentAnswered(Answered { question_id, .. })
                | Body::AgentUnanswered(Unanswered { question_id, .. }) = body
            {
                let key = (key.0, key.1, *question_id);
                plan.question_met(key);
                self.schedule_question(plan, key);
            }
        }
        let Some(swarm) = self.swarm(key.0, key.1).filter(|_| !void) else {
            return;
        };
        match body {
            Body::SwarmCreated(_)
            | Body::SwarmUpdated(_)
            | Body::SwarmDeleted(_)
            | Body::SwarmTopologyPlanned(_)
            | Body::SwarmTopologyChanged(_) => plan.settle_all(key, swarm),
            Body::SwarmStopping(_) | Body::SwarmMeasured(_) | Body::SwarmSampled(_) => {
                plan.unsettle(key);
            }
            _ => {}
        }
        match swarm.change.as_ref().map(ChangeUnderWay::due) {
            Some(due) => plan.changing.insert(key, due),
            None => plan.changing.remove(&key),
        };
    }

    fn schedule_question(&self, plan: &mut Plan, key: plan::QuestionKey) {
        let due = self.swarm(key.0, key.1).and_then(|swarm| {
            let question = swarm.question(key.2)?;
            Some(swarm.question_due(question))
        });
        plan.schedule_question(key, due);
    }

    fn schedule(&self, plan: &mut Plan, key: plan::AgentKey) {
        let due = self.swarm(key.0, key.1).and_then(|swarm| {
            let agent = swarm.agents.get(&key.2)?;
            swarm.want(agent).map(|(due, _)| due)
        });
        plan.schedule(key, due);
    }

    fn schedule_swarm(&self, plan: &mut Plan, key: fold::Key, swarm: &Swarm) {
        for (id, agent) in &swarm.agents {
            let due = swarm.want(agent).map(|(due, _)| due);
            plan.schedule((key.0, key.1, *id), due);
        }
        self.look_for_shortage(plan, key);
    }

    fn look_for_shortage(&self, plan: &mut Plan, key: fold::Key) {
        let short = self
            .swarm(key.0, key.1)
            .is_some_and(|swarm| swarm.missing() > 0);
        if short {
            plan.short.insert(key);
        } else {
            plan.short.remove(&key);
        }
    }
}
