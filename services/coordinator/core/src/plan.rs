//! What only the owner knows: which marks, agents and swarms are due, and what it has decided and not met yet.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{AgentId, CommandId, OrgId, SwarmId, Timestamp};
use uuid::Uuid;

use crate::settling::Topologies;

/// The owner's overlay.
#[derive(Debug, Default)]
pub struct Plan {
    /// Marks to be answered, by sequence.
    pub(crate) due: BTreeSet<u64>,
    /// Marks with decisions under way, by the id that these name as their cause.
    under_way: BTreeMap<Uuid, UnderWay>,
    /// What they hold.
    held: Scopes,
    /// Joins under way.
    joining: BTreeMap<(OrgId, SwarmId), BTreeMap<AgentId, Joining>>,
    /// When something is to be done about an agent by itself, if nothing is under way on that.
    agents: BTreeMap<AgentKey, Timestamp>,
    /// The same by time.
    by_time: BTreeSet<(Timestamp, AgentKey)>,
    /// Agents with such a decision under way, by the id that it names as its cause.
    agents_under_way: BTreeMap<AgentKey, Uuid>,
    /// Swarms that lack agents.
    pub(crate) short: BTreeSet<SwarmKey>,
    /// Swarms to which agents are being added for that, and how many.
    short_under_way: BTreeMap<SwarmKey, usize>,
    /// When open questions end by themselves, if nothing is under way on that.
    questions: BTreeMap<QuestionKey, Timestamp>,
    /// The same by time.
    questions_by_time: BTreeSet<(Timestamp, QuestionKey)>,
    /// Questions whose end by itself is under way.
    questions_under_way: BTreeSet<QuestionKey>,
    /// When changes of topologies are given up.
    pub(crate) changing: BTreeMap<SwarmKey, Timestamp>,
    /// What the topologies demand.
    pub(crate) topologies: Topologies,
}

/// A swarm.
pub(crate) type SwarmKey = (OrgId, SwarmId);
/// An agent.
pub(crate) type AgentKey = (OrgId, SwarmId, AgentId);
/// A question.
pub(crate) type QuestionKey = (OrgId, SwarmId, CommandId);

#[derive(Debug)]
struct UnderWay {
    mark: u64,
    decisions: usize,
    scopes: Vec<(Scope, Mode)>,
    joins: Option<(OrgId, SwarmId, AgentId)>,
}

/// A place that is promised: somebody joins, is added, or gets another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joining {
    pub(crate) name: String,
}

/// Something that decisions are about. While one is under way, nothing that could contradict it is decided, so that every
/// decision rests on facts alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// An organization, its users and keys.
    Org(OrgId),
    /// The names of an organization's swarms.
    Names(OrgId),
    /// A swarm.
    Swarm(OrgId, SwarmId),
    /// An agent.
    Agent(OrgId, SwarmId, AgentId),
    /// The number of a swarm's open questions.
    Questions(OrgId, SwarmId),
    /// A question.
    Question(OrgId, SwarmId, CommandId),
}

/// How a decision holds a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Beside others that share it.
    Shared,
    /// Alone.
    Alone,
}

/// Scopes that are held.
#[derive(Debug, Default)]
pub(crate) struct Scopes(BTreeMap<Scope, (u32, bool)>);

impl Scopes {
    pub(crate) fn free(&self, wanted: &[(Scope, Mode)]) -> bool {
        wanted.iter().all(|(scope, mode)| match self.0.get(scope) {
            None => true,
            Some((_, alone)) => *mode == Mode::Shared && !alone,
        })
    }
    pub(crate) fn hold(&mut self, wanted: &[(Scope, Mode)]) {
        for (scope, mode) in wanted {
            let (holders, alone) = self.0.entry(*scope).or_default();
            *holders += 1;
            *alone |= *mode == Mode::Alone;
        }
    }
    fn release(&mut self, held: &[(Scope, Mode)]) {
        for (scope, mode) in held {
            if let Some((holders, alone)) = self.0.get_mut(scope) {
                *holders -= 1;
                *alone &= *mode != Mode::Alone;
                if *holders == 0 {
                    self.0.remove(scope);
                }
            }
        }
    }
}

impl Plan {
    /// A plan with these marks due and nothing under way.
    pub(crate) fn due(marks: impl Iterator<Item = u64>) -> Self {
        Self {
            due: marks.collect(),
            ..Self::default()
        }
    }
    pub(crate) fn is_free(&self, wanted: &[(Scope, Mode)]) -> bool {
        self.held.free(wanted)
    }
    pub(crate) fn hold(&mut self, scopes: &[(Scope, Mode)]) {
        self.held.hold(scopes);
    }
    pub(crate) fn release(&mut self, scopes: &[(Scope, Mode)]) {
        self.held.release(scopes);
    }
    /// How many decisions under way hold a scope.
    pub(crate) fn holders(&self, scope: Scope) -> usize {
        let held = self.held.0.get(&scope);
        held.map_or(0, |(holders, _)| {
            usize::try_from(*holders).unwrap_or(usize::MAX)
        })
    }
    /// Joins of a swarm that are under way.
    pub(crate) fn joining(
        &self,
        swarm: (OrgId, SwarmId),
    ) -> impl Iterator<Item = (&AgentId, &Joining)> {
        self.joining.get(&swarm).into_iter().flatten()
    }
    /// Notes decisions as under way.
    pub(crate) fn start(
        &mut self,
        mark: u64,
        cause: Uuid,
        decisions: usize,
        scopes: Vec<(Scope, Mode)>,
        joins: Option<((OrgId, SwarmId, AgentId), Joining)>,
    ) {
        self.due.remove(&mark);
        self.held.hold(&scopes);
        let joins = joins.map(|((org, swarm, agent), joining)| {
            self.joining
                .entry((org, swarm))
                .or_default()
                .insert(agent, joining);
            (org, swarm, agent)
        });
        let entry = UnderWay {
            mark,
            decisions,
            scopes,
            joins,
        };
        self.under_way.insert(cause, entry);
    }
    /// Notes that a decision with this cause was met; answers with its mark when it was the last one of it.
    pub(crate) fn met(&mut self, cause: Uuid) -> Option<u64> {
        let entry = self.under_way.get_mut(&cause)?;
        entry.decisions -= 1;
        if entry.decisions > 0 {
            return None;
        }
        let entry = self.under_way.remove(&cause)?;
        self.held.release(&entry.scopes);
        if let Some((org, swarm, agent)) = entry.joins
            && let Some(joining) = self.joining.get_mut(&(org, swarm))
        {
            joining.remove(&agent);
            if joining.is_empty() {
                self.joining.remove(&(org, swarm));
            }
        }
        Some(entry.mark)
    }
    /// Whether anything about this mark is under way.
    pub(crate) fn is_under_way(&self, cause: Uuid) -> bool {
        self.under_way.contains_key(&cause)
    }

    /// Notes when something is to be done about an agent by itself. While a decision on that is under way, nothing is.
    pub(crate) fn schedule(&mut self, key: AgentKey, due: Option<Timestamp>) {
        if let Some(old) = self.agents.remove(&key) {
            self.by_time.remove(&(old, key));
        }
        if self.agents_under_way.contains_key(&key) {
            return;
        }
        if let Some(due) = due {
            self.agents.insert(key, due);
            self.by_time.insert((due, key));
        }
    }
    /// Agents about which something is due, in the order in which it fell due.
    pub(crate) fn due_agents(&self, now: Timestamp) -> Vec<AgentKey> {
        let due = self.by_time.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, key)| *key).collect()
    }
    /// When the next of them is due after `now`.
    pub(crate) fn next_agent(&self, now: Timestamp) -> Option<Timestamp> {
        // What is due already hangs on what is under way, not on time.
        let mut later = self.by_time.iter().map(|(due, _)| *due);
        later.find(|due| *due > now)
    }
    /// Notes a decision on an agent as under way.
    pub(crate) fn start_agent(&mut self, key: AgentKey, cause: Uuid) {
        self.schedule(key, None);
        self.agents_under_way.insert(key, cause);
        self.held.hold(&agent_scopes(key));
    }
    /// Notes that a decision about an agent was met; answers whether it was the one under way.
    pub(crate) fn agent_met(&mut self, key: AgentKey, cause: Uuid) -> bool {
        if self.agents_under_way.get(&key) != Some(&cause) {
            return false;
        }
        self.agents_under_way.remove(&key);
        self.held.release(&agent_scopes(key));
        true
    }
    /// Notes when a question ends by itself.
    pub(crate) fn schedule_question(&mut self, key: QuestionKey, due: Option<Timestamp>) {
        if let Some(old) = self.questions.remove(&key) {
            self.questions_by_time.remove(&(old, key));
        }
        if self.questions_under_way.contains(&key) {
            return;
        }
        if let Some(due) = due {
            self.questions.insert(key, due);
            self.questions_by_time.insert((due, key));
        }
    }
    /// Questions that are to end, in the order in which that fell due.
    pub(crate) fn due_questions(&self, now: Timestamp) -> Vec<QuestionKey> {
        let due = self.questions_by_time.iter();
        let due = due.take_while(|(due, _)| *due <= now);
        due.map(|(_, key)| *key).collect()
    }
    /// When the next of them is due after `now`.
    pub(crate) fn next_question(&self, now: Timestamp) -> Option<Timestamp> {
        let mut later = self.questions_by_time.iter().map(|(due, _)| *due);
        later.find(|due| *due > now)
    }
    /// Notes the end of a question by itself as under way.
    pub(crate) fn start_question(&mut self, key: QuestionKey) {
        self.schedule_question(key, None);
        self.questions_under_way.insert(key);
        self.held.hold(&question_scopes(key));
    }
    /// Notes that an end of a question was met; `None` if it was another's than one under way by itself.
    pub(crate) fn question_met(&mut self, key: QuestionKey) {
        if self.questions_under_way.remove(&key) {
            self.held.release(&question_scopes(key));
        }
    }
    /// When the next change of a topology is given up after `now`.
    pub(crate) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let later = self.changing.values().copied();
        later.filter(|due| *due > now).min()
    }
    /// Notes additions to a swarm that lacks agents as under way.
    pub(crate) fn start_short(&mut self, key: SwarmKey, decisions: usize) {
        self.short_under_way.insert(key, decisions);
        self.held.hold(&swarm_scope(key));
    }
    /// Notes that one of them was met; answers whether it was the last one.
    pub(crate) fn short_met(&mut self, key: SwarmKey) -> bool {
        let Some(left) = self.short_under_way.get_mut(&key) else {
            return false;
        };
        *left -= 1;
        if *left > 0 {
            return false;
        }
        self.short_under_way.remove(&key);
        self.held.release(&swarm_scope(key));
        true
    }
}

/// What a decision on an agent holds.
pub(crate) fn agent_scopes((org, swarm, agent): AgentKey) -> [(Scope, Mode); 2] {
    [
        (Scope::Swarm(org, swarm), Mode::Shared),
        (Scope::Agent(org, swarm, agent), Mode::Alone),
    ]
}

/// What a decision on a whole swarm holds.
pub(crate) const fn swarm_scope((org, swarm): SwarmKey) -> [(Scope, Mode); 1] {
    [(Scope::Swarm(org, swarm), Mode::Alone)]
}

/// The number of a swarm's open questions.
pub(crate) const fn questions_scope(org: OrgId, swarm: SwarmId) -> Scope {
    Scope::Questions(org, swarm)
}

/// What a question that is asked holds.
pub(crate) const fn ask_scopes((org, swarm, agent): AgentKey) -> [(Scope, Mode); 3] {
    [
        (Scope::Swarm(org, swarm), Mode::Shared),
        (Scope::Agent(org, swarm, agent), Mode::Shared),
        (questions_scope(org, swarm), Mode::Shared),
    ]
}

/// What the end of a question holds.
pub(crate) const fn question_scopes((org, swarm, id): QuestionKey) -> [(Scope, Mode); 2] {
    [
        (Scope::Swarm(org, swarm), Mode::Shared),
        (Scope::Question(org, swarm, id), Mode::Alone),
    ]
}
