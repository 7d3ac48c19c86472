//! How a swarm's agents come and go: what `joined`, `left`, `removed` and health's verdicts do, and when they are void.

use swarm_events::{
    AgentId, Body, InstanceId, Recorded, Timestamp,
    agent::{Joined, Profile},
    decider::Verdict,
};

use crate::{Agent, Liveness, Membership, Swarm, fold::Void};

impl Swarm {
    /// Applies an agent's event, or finds it void. Answers beside the verdict with the mark of a lost agent that is settled.
    pub(crate) fn evolve_agent(
        &mut self,
        agent: AgentId,
        recorded: &Recorded,
    ) -> Result<(Verdict, Option<u64>), Void> {
        let at = recorded.time;
        let settled = match &recorded.event.body {
            Body::AgentJoined(joined) => {
                self.join(agent, joined, at, recorded.sequence, recorded.event.id.0)?
            }
            Body::AgentLeft(left) => {
                self.end(agent, left.incarnation, Membership::Left, &left.reason, at)?
            }
            Body::AgentRemoved(removed) => {
                let how = Membership::Removed;
                self.end(agent, removed.incarnation, how, &removed.reason, at)?
            }
            Body::AgentSuspected(verdict) => {
                self.judge(agent, verdict.incarnation, Liveness::Suspected)?;
                None
            }
            Body::AgentRecovered(verdict) => {
                self.judge(agent, verdict.incarnation, Liveness::Alive)?;
                None
            }
            Body::AgentFailed(verdict) => {
                self.judge(agent, verdict.incarnation, Liveness::Failed)?;
                if let Some(found) = self.agents.get_mut(&agent) {
                    found.lost = Some(recorded.sequence);
                }
                None
            }
            _ => return Ok((Verdict::Ignored, None)),
        };
        Ok((Verdict::Applied, settled))
    }

    fn join(
        &mut self,
        agent: AgentId,
        joined: &Joined,
        at: Timestamp,
        sequence: u64,
        recorded_id: uuid::Uuid,
    ) -> Result<Option<u64>, Void> {
        if !self.is_open() {
            return Err("swarm-stopping");
        }
        let last = self.agents.get(&agent);
        if joined.incarnation != last.map_or(0, |a| a.incarnation) + 1 {
            return Err("other-incarnation");
        }
        let settled = last.and_then(|a| a.lost);
        let created_at = last.map_or(at, |a| a.created_at);
        self.forget_live(agent);
        self.live += 1;
        self.names.insert(joined.profile.agent_name.clone(), agent);
        self.agents.insert(
            agent,
            Agent {
                profile: joined.profile.clone(),
                incarnation: joined.incarnation,
                instance: joined.instance,
                created_at,
                joined_at: at,
                joined_seq: sequence,
                membership: Membership::Live,
                left_at: None,
                left_reason: None,
                joined_spawn: 0,
                liveness: Liveness::Alive,
                managed: None,
                draining: None,
                quarantine: std::collections::BTreeMap::new(),
                quarantined_since: None,
                lost: None,
                dismissed: None,
                changed: (recorded_id, sequence),
                set_aside: false,
            },
        );
        Ok(settled)
    }

    fn end(
        &mut self,
        agent: AgentId,
        incarnation: u64,
        how: Membership,
        reason: &str,
        at: Timestamp,
    ) -> Result<Option<u64>, Void> {
        self.live_incarnation(agent, incarnation)?;
        self.forget_live(agent);
        let Some(found) = self.agents.get_mut(&agent) else {
            return Err("unknown-agent");
        };
        found.membership = how;
        found.left_at = Some(at);
        found.left_reason = Some(reason.to_owned());
        Ok(found.lost.take())
    }

    fn judge(&mut self, agent: AgentId, incarnation: u64, to: Liveness) -> Result<(), Void> {
        let from = self.live_incarnation(agent, incarnation)?.liveness;
        match (from, to) {
            (Liveness::Alive, Liveness::Suspected | Liveness::Failed) => self.doubted += 1,
            (Liveness::Suspected, Liveness::Alive) => {
                self.doubted = self.doubted.saturating_sub(1);
            }
            (Liveness::Suspected, Liveness::Failed) => {}
            _ => return Err("nothing-new"),
        }
        if let Some(found) = self.agents.get_mut(&agent) {
            found.liveness = to;
        }
        Ok(())
    }

    fn live_incarnation(&self, agent: AgentId, incarnation: u64) -> Result<&Agent, Void> {
        let found = self.agents.get(&agent).ok_or("unknown-agent")?;
        if found.incarnation != incarnation {
            return Err("other-incarnation");
        }
        if !found.is_live() {
            return Err("not-a-member");
        }
        Ok(found)
    }

    /// Takes a live agent out of the counts.
    fn forget_live(&mut self, agent: AgentId) {
        let Some(found) = self.agents.get(&agent).filter(|a| a.is_live()) else {
            return;
        };
        self.live = self.live.saturating_sub(1);
        if found.liveness != Liveness::Alive {
            self.doubted = self.doubted.saturating_sub(1);
        }
        if self.names.get(&found.profile.agent_name) == Some(&agent) {
            self.names.remove(&found.profile.agent_name);
        }
    }

    /// The live agent that has this name.
    pub fn agent_named(&self, name: &str) -> Option<AgentId> {
        self.names.get(name).copied()
    }

    /// Whether this process is the agent's current one.
    pub(crate) fn is_current(&self, agent: AgentId, instance: InstanceId) -> bool {
        self.agents
            .get(&agent)
            .is_some_and(|a| a.instance == instance)
    }
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
