//! How a swarm's agents come and go: what `added`, `joined`, `left`, `removed` and health's verdicts do, and when they are
//! void.

use std::collections::BTreeMap;

use swarm_events::{
    AgentId, Body, InstanceId, Json, Recorded, Timestamp,
    agent::{
        Added, AgentSpec, Cause, Joined, Profile, Quarantined, Released, SpawnReason, Updated,
    },
    configuration::Configuration,
};
use uuid::Uuid;

use crate::{
    Agent, Liveness, Managed, Membership, Phase, Quarantine, Swarm, agent::Dismissed, fold::Void,
};

/// When and by what an agent is changed.
#[derive(Clone, Copy)]
pub(crate) struct Met {
    /// Store time of the event.
    pub(crate) at: Timestamp,
    /// Log time.
    pub(crate) now: Timestamp,
    pub(crate) sequence: u64,
    pub(crate) id: Uuid,
}
impl Met {
    pub(crate) const fn new(recorded: &Recorded, now: Timestamp) -> Self {
        Self {
            at: recorded.time,
            now,
            sequence: recorded.sequence,
            id: recorded.event.id.0,
        }
    }
}

/// What the order held by which an agent is added: a repeat of it is told apart from another by these.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) body_sha256: Option<String>,
    pub(crate) content: u128,
}

/// What an event did to an agent.
pub(crate) enum Change {
    /// Nothing: it is of no concern here.
    None,
    /// Something. With the mark of a lost agent that is settled by it.
    Made(Option<u64>),
}

impl Swarm {
    /// Applies an agent's event, or finds it void. `origin` is there if an order to add an agent is answered by it.
    pub(crate) fn evolve_agent(
        &mut self,
        agent: AgentId,
        recorded: &Recorded,
        origin: Option<Origin>,
        now: Timestamp,
    ) -> Result<Change, Void> {
        let met = Met::new(recorded, now);
        self.uncount(agent);
        let outcome = self.change(agent, recorded, origin, met);
        if let (Ok(Change::Made(_)), Some(found)) = (&outcome, self.agents.get_mut(&agent)) {
            found.changed = (met.id, met.sequence);
            found.set_aside = false;
            self.settle_aside = false;
        }
        self.count(agent);
        outcome
    }

    fn change(
        &mut self,
        agent: AgentId,
        recorded: &Recorded,
        origin: Option<Origin>,
        met: Met,
    ) -> Result<Change, Void> {
        let mut settled = None;
        match &recorded.event.body {
            Body::AgentAdded(added) => self.add(agent, added, origin, met)?,
            Body::AgentJoined(joined) => settled = self.join(agent, joined, met)?,
            Body::AgentLeft(left) => {
                let (how, incarnation) = (Membership::Left, left.incarnation);
                settled = self.end(agent, incarnation, how, &left.reason, met)?;
            }
            Body::AgentRemoved(removed) => {
                let (how, incarnation) = (Membership::Removed, removed.incarnation);
                settled = self.end(agent, incarnation, how, &removed.reason, met)?;
            }
            Body::AgentSuspected(verdict) => {
                self.judge(agent, verdict.incarnation, Liveness::Suspected)?;
            }
            Body::AgentRecovered(verdict) => {
                self.judge(agent, verdict.incarnation, Liveness::Alive)?;
            }
            Body::AgentFailed(verdict) => {
                self.judge(agent, verdict.incarnation, Liveness::Failed)?
                    .lost = Some(met.sequence);
            }
            Body::AgentQuarantined(verdict) => self.quarantine(agent, verdict, met)?,
            Body::AgentReleased(verdict) => self.release(agent, verdict)?,
            Body::AgentUpdated(updated) => self.update(agent, updated)?,
            body => return self.process(agent, body, &recorded.event.source, met),
        }
        Ok(Change::Made(settled))
    }

    fn add(
        &mut self,
        agent: AgentId,
        added: &Added,
        origin: Option<Origin>,
        met: Met,
    ) -> Result<(), Void> {
        if !self.is_open() {
            return Err("swarm-stopping");
        }
        if self.agents.contains_key(&agent) {
            return Err("agent-exists");
        }
        let wanted = expected(agent, &added.spec, &self.configuration, met);
        if self.names.contains_key(&wanted.profile.agent_name) {
            return Err("name-taken");
        }
        if origin.is_none() {
            self.made += 1;
        }
        self.expect(agent, wanted, origin.unwrap_or_default());
        Ok(())
    }

    /// Notes a wanted agent; the caller counts it.
    pub(crate) fn expect(&mut self, agent: AgentId, mut wanted: Agent, origin: Origin) {
        if let Some(managed) = &mut wanted.managed {
            managed.body_sha256 = origin.body_sha256;
            managed.content = origin.content;
            if managed.has_adapter() {
                self.template = Some(agent);
            }
        }
        self.agents.insert(agent, wanted);
    }

    fn join(&mut self, agent: AgentId, joined: &Joined, met: Met) -> Result<Option<u64>, Void> {
        if !self.is_open() {
            return Err("swarm-stopping");
        }
        let last = self.agents.get_mut(&agent);
        if joined.incarnation != last.as_ref().map_or(0, |a| a.incarnation) + 1 {
            return Err("other-incarnation");
        }
        let mut next = Agent {
            profile: joined.profile.clone(),
            incarnation: joined.incarnation,
            instance: joined.instance,
            created_at: met.at,
            joined_at: met.at,
            joined_seq: met.sequence,
            arrived_seq: met.sequence,
            membership: Membership::Live,
            ..nobody(met)
        };
        let settled = last.and_then(|last| {
            next.created_at = last.created_at;
            if last.is_live() {
                next.arrived_seq = last.arrived_seq;
            }
            next.managed = last.managed.take();
            next.draining = last.draining.take();
            next.dismissed = last.dismissed.take();
            last.lost
        });
        if let Some(managed) = next.managed.as_ref().filter(|m| m.has_adapter()) {
            next.joined_spawn = managed.spawn;
            next.stillborn = managed.host().is_none() && !managed.host_lost;
        }
        self.agents.insert(agent, next);
        Ok(settled)
    }

    fn end(
        &mut self,
        agent: AgentId,
        incarnation: u64,
        how: Membership,
        reason: &str,
        met: Met,
    ) -> Result<Option<u64>, Void> {
        let found = self.live_incarnation(agent, incarnation)?;
        found.left_at = Some(met.at);
        found.left_reason = Some(reason.to_owned());
        found.quarantine.clear();
        found.quarantined_since = None;
        if how == Membership::Removed {
            found.process_unfit(met.now);
        }
        found.membership = if found.is_wanted() {
            Membership::Expected
        } else {
            how
        };
        found.settle(met);
        Ok(found.lost.take())
    }

    fn judge(
        &mut self,
        agent: AgentId,
        incarnation: u64,
        to: Liveness,
    ) -> Result<&mut Agent, Void> {
        let found = self.live_incarnation(agent, incarnation)?;
        match (found.liveness, to) {
            (Liveness::Alive, Liveness::Suspected | Liveness::Failed)
            | (Liveness::Suspected, Liveness::Alive | Liveness::Failed) => found.liveness = to,
            _ => return Err("nothing-new"),
        }
        Ok(found)
    }

    fn quarantine(&mut self, agent: AgentId, verdict: &Quarantined, met: Met) -> Result<(), Void> {
        let found = self.live_incarnation(agent, verdict.incarnation)?;
        let since = found.quarantine.get(&verdict.cause).map(|q| q.since);
        let entry = Quarantine {
            since: since.unwrap_or(met.at),
            until: verdict.until,
            figures: verdict.figures,
        };
        found.quarantine.insert(verdict.cause, entry);
        found.quarantined_since.get_or_insert(met.now);
        Ok(())
    }

    fn release(&mut self, agent: AgentId, verdict: &Released) -> Result<(), Void> {
        let found = self.live_incarnation(agent, verdict.incarnation)?;
        found
            .quarantine
            .remove(&verdict.cause)
            .ok_or("nothing-new")?;
        if found.quarantine.is_empty() {
            found.quarantined_since = None;
        }
        Ok(())
    }

    fn update(&mut self, agent: AgentId, updated: &Updated) -> Result<(), Void> {
        let found = self.agents.get_mut(&agent).ok_or("unknown-agent")?;
        if found.incarnation != updated.incarnation {
            return Err("other-incarnation");
        }
        if !found.holds_place() {
            return Err("not-a-member");
        }
        found.profile = updated.profile.clone();
        if let Some(managed) = &mut found.managed {
            let profile = &updated.profile;
            managed.spec.agent_name = Some(profile.agent_name.clone());
            managed.spec.capabilities.clone_from(&profile.capabilities);
            managed.spec.slots = Some(profile.slots);
            managed.spec.waiting = Some(profile.waiting);
            managed.spec.metadata = profile.metadata.clone();
        }
        Ok(())
    }

    fn live_incarnation(&mut self, agent: AgentId, incarnation: u64) -> Result<&mut Agent, Void> {
        let found = self.agents.get_mut(&agent).ok_or("unknown-agent")?;
        if found.incarnation != incarnation {
            return Err("other-incarnation");
        }
        if !found.is_live() {
            return Err("not-a-member");
        }
        Ok(found)
    }

    /// The agent that has this name: a live one, or one that is wanted.
    pub fn agent_named(&self, name: &str) -> Option<AgentId> {
        self.names.get(name).copied()
    }

    /// Whether this process is the agent's current one.
    pub(crate) fn is_current(&self, agent: AgentId, instance: InstanceId) -> bool {
        self.agents
            .get(&agent)
            .is_some_and(|a| a.incarnation > 0 && a.instance == instance)
    }

    /// What is left of the agents when their swarm is deleted.
    pub(crate) fn dismiss_all(&mut self, met: Met) -> Vec<AgentId> {
        let places = self.agents.iter().filter(|(_, agent)| agent.holds_place());
        let ids: Vec<AgentId> = places.map(|(id, _)| *id).collect();
        for id in &ids {
            self.uncount(*id);
            if let Some(found) = self.agents.get_mut(id) {
                found.membership = Membership::Removed;
                found.left_at = Some(met.at);
                found.left_reason = Some(DELETED.to_owned());
                found.dismissed = None;
                if let Some(managed) = &mut found.managed {
                    managed.wanted = false;
                }
            }
            self.count(*id);
        }
        ids
    }
}

/// Why agents are removed with their swarm.
pub(crate) const DELETED: &str = "swarm-deleted";

impl Agent {
    /// Its process was taken out by a verdict on its incarnation: it counts as ended, though its host has not said so.
    fn process_unfit(&mut self, now: Timestamp) {
        if self.draining.is_some() || self.dismissed.is_some() {
            return;
        }
        let spawn = self.joined_spawn;
        let Some(managed) = &mut self.managed else {
            return;
        };
        let (host, since) = match &managed.phase {
            Phase::Claimed { host, since } | Phase::Running { host, since, .. } => {
                (host.instance, *since)
            }
            Phase::Idle | Phase::Requested { .. } | Phase::GivenUp => return,
        };
        if spawn != managed.spawn {
            return;
        }
        let crashed = now.millis_since(since) < managed.spec.restart.stable_ms;
        if managed.judge_end(crashed, false, now) {
            managed.phase = Phase::Idle;
            managed.next = SpawnReason::Removed;
            managed.unfit = Some(host);
        } else {
            self.dismissed = Some(Dismissed {
                reason: "its policy does not start it again".to_owned(),
                by_policy: true,
            });
        }
    }
}

/// An agent of which nothing is known.
fn nobody(met: Met) -> Agent {
    Agent {
        profile: Profile {
            agent_type: String::new(),
            agent_name: String::new(),
            capabilities: Vec::new(),
            slots: 0,
            waiting: 0,
            metadata: Json::object(),
        },
        incarnation: 0,
        instance: InstanceId(Uuid::nil()),
        created_at: met.at,
        joined_at: Timestamp::ZERO,
        joined_seq: 0,
        arrived_seq: 0,
        joined_spawn: 0,
        membership: Membership::Expected,
        left_at: None,
        left_reason: None,
        liveness: Liveness::Alive,
        managed: None,
        draining: None,
        quarantine: BTreeMap::new(),
        quarantined_since: None,
        lost: None,
        dismissed: None,
        process_ended: false,
        stillborn: false,
        changed: (met.id, met.sequence),
        set_aside: false,
    }
}

/// An agent that is wanted from here on.
pub(crate) fn expected(
    agent: AgentId,
    spec: &AgentSpec,
    settings: &Configuration,
    met: Met,
) -> Agent {
    let profile = profile_of(agent, spec, settings);
    let mut spec = spec.clone();
    spec.agent_name = Some(profile.agent_name.clone());
    spec.capabilities.clone_from(&profile.capabilities);
    let managed = Managed {
        spec,
        wanted: true,
        spawn: 0,
        phase: Phase::Idle,
        crashes: 0,
        restarts: 0,
        last_exit: None,
        declined: None,
        restart_due: None,
        unlimited: Vec::new(),
        ended: false,
        added_seq: met.sequence,
        body_sha256: None,
        content: 0,
        next: SpawnReason::Added,
        unfit: None,
        host_lost: false,
    };
    Agent {
        profile,
        managed: Some(managed),
        ..nobody(met)
    }
}

/// What an agent is by its spec, before a process of it has spoken.
pub(crate) fn profile_of(agent: AgentId, spec: &AgentSpec, settings: &Configuration) -> Profile {
    let name = spec.agent_name.clone();
    canonical(Profile {
        agent_type: spec.agent_type.clone(),
        agent_name: name.unwrap_or_else(|| derived_name(&spec.agent_type, agent)),
        capabilities: spec.capabilities.clone(),
        slots: spec.slots.unwrap_or(settings.agent_slots),
        waiting: spec.waiting.unwrap_or(settings.agent_waiting),
        metadata: if spec.metadata.is_null() {
            Json::object()
        } else {
            spec.metadata.clone()
        },
    })
}

/// The name of an agent that gave none: its type and the end of its id, which is random in every version.
pub(crate) fn derived_name(profile_type: &str, agent: AgentId) -> String {
    let id = agent.0.simple().to_string();
    format!("{profile_type}-{}", &id[20..])
}

/// Sorted, without repeats.
pub(crate) fn canonical(mut profile: Profile) -> Profile {
    profile.capabilities.sort();
    profile.capabilities.dedup();
    profile
}

/// The cause of a quarantine as it is told in the reason of a removal.
pub(crate) fn quarantine_words(quarantine: &BTreeMap<Cause, Quarantine>) -> String {
    let parts = quarantine
        .iter()
        .map(|(cause, q)| crate::agent::quarantined(*cause, q));
    parts.collect::<Vec<_>>().join("; ")
}
