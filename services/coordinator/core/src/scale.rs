//! What `scaled` does: it makes the wanted agents that it names, and has others told to go.

use swarm_events::{
    AgentId,
    agent::AgentSpec,
    planted::{self, Bug},
    swarm::Scaled,
};
use uuid::Uuid;

use crate::{
    Swarm,
    agent::Dismissed,
    fold::Void,
    membership::{Met, Origin, derived_name, expected},
};

/// Namespace of the ids of agents that the coordinator makes itself (RFC 9562 version 5).
const AGENT_NAMESPACE: Uuid = Uuid::from_u128(0x2f0c_9d5e_7b1a_5c44_8e63_51d0_aa7e_4b02);

/// The id of the `index`th agent that `cause` (a command or a swarm) leads to.
pub(crate) fn agent_of(cause: Uuid, index: u64) -> AgentId {
    let mut name = Vec::with_capacity(24);
    name.extend_from_slice(cause.as_bytes());
    name.extend_from_slice(&index.to_be_bytes());
    AgentId(Uuid::new_v5(&AGENT_NAMESPACE, &name))
}

/// The settings of an agent that is made like another: all but its name.
pub(crate) fn copied(spec: &AgentSpec) -> AgentSpec {
    AgentSpec {
        agent_name: None,
        ..spec.clone()
    }
}

impl Swarm {
    /// Whether an agent of this type may be made under this id: id and derived name are free.
    pub(crate) fn is_free(&self, agent: AgentId, agent_type: &str) -> bool {
        let name = derived_name(agent_type, agent);
        !self.agents.contains_key(&agent) && !self.names.contains_key(&name)
    }

    /// The settings that new agents get.
    pub(crate) fn spec_of(&self, like: AgentId) -> Option<&AgentSpec> {
        let managed = self.agents.get(&like)?.managed.as_ref()?;
        managed.has_adapter().then_some(&managed.spec)
    }

    /// Applies `scaled`. Answers with the agents that it changed.
    pub(crate) fn scale(&mut self, scaled: &Scaled, met: Met) -> Result<Vec<AgentId>, Void> {
        if !self.is_open() {
            return Err("swarm-stopping");
        }
        let mut changed = scaled.add.clone();
        if !changed.is_empty() {
            let spec = scaled.like.and_then(|like| self.spec_of(like));
            let spec = copied(spec.ok_or("nothing-alike")?);
            let free = |id: &AgentId| self.is_free(*id, &spec.agent_type);
            if !changed.iter().all(free) {
                return Err("agent-exists");
            }
            if planted::is(Bug::ScaleAddsTwice) {
                changed.extend(scaled.add.iter().map(|id| agent_of(id.0, 0)));
            }
            for id in &changed {
                let wanted = expected(*id, &spec, &self.configuration, met);
                self.expect(*id, wanted, Origin::default());
                self.count(*id);
            }
        }
        for id in &scaled.remove {
            let to_go = self.agents.get(id).is_some_and(|found| found.is_scaled());
            if !to_go {
                continue;
            }
            self.uncount(*id);
            if let Some(found) = self.agents.get_mut(id) {
                found.dismissed = Some(Dismissed {
                    reason: format!("scaled to {}: {}", scaled.desired, scaled.reason),
                    by_policy: false,
                });
                if let Some(managed) = &mut found.managed {
                    managed.wanted = false;
                }
                found.changed = (met.id, met.sequence);
                found.set_aside = false;
            }
            self.count(*id);
            changed.push(*id);
        }
        Ok(changed)
    }
}
