//! The last heartbeats of a swarm's agents and of the hosts that run them, read afresh: what the log holds of them is older.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use swarm_coordinator_core::Swarm;
use swarm_events::{
    AgentId, InstanceId, Subject, Timestamp,
    subject::host_beat,
    swarm::{Heartbeat, HostBeat, ProcessFigures},
};

use crate::{
    agents,
    bus::{Bus, Last},
};

/// What is to be read of a swarm.
pub(super) struct Wanted {
    agents: Vec<(AgentId, InstanceId, String)>,
    hosts: BTreeSet<(InstanceId, String)>,
}

/// A heartbeat and when nats-server stored it.
pub(super) struct Beat<T> {
    /// By nats-server's clock.
    pub(super) at: Timestamp,
    /// What it says.
    pub(super) said: T,
}

/// What was read.
#[derive(Default)]
pub(super) struct Beats {
    /// They were: what is not here was not heard for a minute.
    pub(super) read: bool,
    agents: BTreeMap<AgentId, Beat<Heartbeat>>,
    hosts: BTreeMap<InstanceId, Beat<HostBeat>>,
}

impl Wanted {
    pub(super) fn of(swarm: &Swarm) -> Self {
        let shown = || agents::present(swarm);
        let live = shown().filter(|(_, agent)| agent.is_live());
        let hosts = shown().filter_map(|(_, agent)| agent.managed.as_ref()?.host());
        Self {
            agents: live
                .map(|(id, agent)| {
                    let subject = Subject::Heartbeat(swarm.place, id).to_string();
                    (id, agent.instance, subject)
                })
                .collect(),
            hosts: hosts
                .map(|host| (host.instance, host_beat(host.instance)))
                .collect(),
        }
    }

    /// Reads them. What cannot be read is missing: the log's own figures take its place.
    pub(super) async fn read(self, bus: Option<&Bus>) -> Beats {
        let Some(bus) = bus else {
            return Beats::default();
        };
        let of_agents = self.agents.iter().map(|(_, _, subject)| subject.clone());
        let of_hosts = self.hosts.iter().map(|(_, subject)| subject.clone());
        let subjects: Vec<String> = of_agents.chain(of_hosts).collect();
        let mut found = match bus.last_beats(&subjects).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the last heartbeats cannot be read");
                return Beats::default();
            }
        };
        let mut beats = Beats {
            read: true,
            ..Beats::default()
        };
        for (agent, instance, subject) in self.agents {
            // One of an earlier process says nothing of this one.
            if let Some(beat) = said::<Heartbeat>(found.remove(&subject))
                && beat.said.instance == instance
            {
                beats.agents.insert(agent, beat);
            }
        }
        for (host, subject) in self.hosts {
            let beat = said::<HostBeat>(found.remove(&subject));
            beats.hosts.extend(beat.map(|beat| (host, beat)));
        }
        beats
    }
}

fn said<T: DeserializeOwned>(last: Option<Last>) -> Option<Beat<T>> {
    let Last { at, payload } = last?;
    let said = serde_json::from_slice(&payload).ok()?;
    Some(Beat { at, said })
}

impl Beats {
    /// An agent's.
    pub(super) fn agent(&self, agent: AgentId) -> Option<&Beat<Heartbeat>> {
        self.agents.get(&agent)
    }
    /// A host's.
    pub(super) fn host(&self, host: InstanceId) -> Option<&Beat<HostBeat>> {
        self.hosts.get(&host)
    }
    /// What the operating system says of an agent's processes, and when: its host's word goes before its own, which knows of
    /// itself only.
    pub(super) fn figures(
        &self,
        agent: AgentId,
        host: Option<InstanceId>,
    ) -> Option<(Timestamp, ProcessFigures)> {
        let of_host = host.and_then(|host| {
            let beat = self.host(host)?;
            Some((beat.at, *beat.said.agents.get(&agent)?))
        });
        let own = || {
            let beat = self.agent(agent)?;
            let figures = ProcessFigures {
                cpu_centipercent: beat.said.cpu_centipercent,
                memory_kib: beat.said.memory_kib,
                active_connections: beat.said.active_connections,
                processes: 0,
            };
            Some((beat.at, figures))
        };
        of_host.or_else(own)
    }
}
