//! The hosts of processes, as the watch sees them: silent or disconnected is gone, and their figures go into samples.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use swarm_events::{
    AgentId, InstanceId, OrgId, Partition, SwarmId, Timestamp,
    agent::{Evidence, LivenessRule},
    control::Observed,
    swarm::{HostBeat, ProcessFigures},
};
use swarm_health_core::{DISCONNECT_GRACE_MS, HOST_DOWN_GRACE_MS};

use crate::watch::{ASK_AGAIN, Key, RETURN_GRACE, millis};

/// A host that was not heard for this long is gone, in milliseconds: four of its beats, as for an agent at the default
/// interval. Nothing is suspected of hosts: whether their agents are alive is seen by the agents' own heartbeats.
pub const HOST_SILENT_MS: u64 = 4_000;
/// A host's figures of an agent are used for this long after they came, then the agent's own again.
pub const HOST_FIGURES_FRESH: Duration = Duration::from_millis(HOST_SILENT_MS);

#[derive(Debug)]
struct TrackedHost {
    /// Counted time from which on silence is reckoned.
    since: Duration,
    /// Counted time at which its connection was seen to close.
    disconnected: Option<Duration>,
    /// When its last beat came, by the wall clock: evidence only.
    last_beat_at: Option<Timestamp>,
    /// Agents whose processes it has claimed.
    agents: BTreeSet<(AgentId, OrgId, SwarmId)>,
    /// The last observation of it by partition, in counted time.
    asked: BTreeMap<Partition, Duration>,
}

/// The hosts that have claims on processes of the partitions that are watched.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    hosts: BTreeMap<InstanceId, TrackedHost>,
    /// Who has claimed an agent's process.
    claims: BTreeMap<Key, InstanceId>,
}

impl Hosts {
    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }
    pub(crate) fn knows(&self, host: InstanceId) -> bool {
        self.hosts.contains_key(&host)
    }

    /// Takes note of whose claim on an agent's process holds.
    pub(crate) fn sync(&mut self, key: Key, claimed: Option<InstanceId>, counted: Duration) {
        let before = self.claims.get(&key).copied();
        if before == claimed {
            return;
        }
        let entry = (key.2, key.0, key.1);
        if let Some(before) = before {
            self.claims.remove(&key);
            if let Some(host) = self.hosts.get_mut(&before) {
                host.agents.remove(&entry);
                if host.agents.is_empty() {
                    self.hosts.remove(&before);
                }
            }
        }
        if let Some(claimed) = claimed {
            self.claims.insert(key, claimed);
            let host = self.hosts.entry(claimed).or_insert_with(|| TrackedHost {
                // One that never beats is found too.
                since: counted,
                disconnected: None,
                last_beat_at: None,
                agents: BTreeSet::new(),
                asked: BTreeMap::new(),
            });
            host.agents.insert(entry);
        }
    }

    /// Forgets the claims on processes of a partition.
    pub(crate) fn give_up(&mut self, partition: Partition, counted: Duration) {
        let gone: Vec<Key> = self
            .claims
            .keys()
            .filter(|key| Partition::of(key.1.0) == partition)
            .copied()
            .collect();
        for key in gone {
            self.sync(key, None, counted);
        }
    }

    /// A beat that came at `at` of the wall clock: the agents that it tells of. One whose id several agents of the host have
    /// is left out, as nobody can tell which is meant.
    pub(crate) fn beat(
        &mut self,
        beat: &HostBeat,
        at: Timestamp,
        counted: Duration,
    ) -> Vec<(Key, ProcessFigures)> {
        let Some(host) = self.hosts.get_mut(&beat.host) else {
            return Vec::new();
        };
        host.since = host.since.max(counted);
        host.disconnected = None;
        host.last_beat_at = Some(at);
        let mut told = Vec::new();
        for (agent, figures) in &beat.agents {
            let first = (*agent, OrgId(uuid::Uuid::nil()), SwarmId(uuid::Uuid::nil()));
            let mut same = host.agents.range(first..);
            let of = |found: Option<&(AgentId, OrgId, SwarmId)>| {
                found.filter(|e| e.0 == *agent).copied()
            };
            if let (Some((id, org, swarm)), None) = (of(same.next()), of(same.next())) {
                told.push(((org, swarm, id), *figures));
            }
        }
        told
    }

    pub(crate) fn closed(&mut self, host: InstanceId, counted: Duration) {
        if let Some(host) = self.hosts.get_mut(&host) {
            host.disconnected.get_or_insert(counted);
        }
    }
    pub(crate) fn opened(&mut self, host: InstanceId) {
        if let Some(host) = self.hosts.get_mut(&host) {
            host.disconnected = None;
        }
    }

    /// nats-server is back: every host starts afresh.
    pub(crate) fn back(&mut self, clock: Duration) {
        for host in self.hosts.values_mut() {
            host.since = clock + RETURN_GRACE;
            host.disconnected = None;
            host.asked.clear();
        }
    }

    /// The hosts that are down with all their agents: the connection of each closed, and none came back. With the counted
    /// time of the last one's end. `closed` tells of an agent that is watched when its connection closed.
    pub(crate) fn down(
        &self,
        closed: impl Fn(&Key) -> Option<Option<Duration>>,
    ) -> BTreeMap<InstanceId, Duration> {
        let mut down = BTreeMap::new();
        for (id, host) in &self.hosts {
            let Some(at) = host.disconnected else {
                continue;
            };
            let keys = host.agents.iter().map(|&(id, org, swarm)| (org, swarm, id));
            let ends: Option<Vec<Duration>> = keys.filter_map(|key| closed(&key)).collect();
            // A host without an agent that is heard of says too little.
            if let Some(last) = ends.and_then(|ends| ends.into_iter().max()) {
                down.insert(*id, last.max(at));
            }
        }
        down
    }

    /// The host that claimed the process of an agent.
    pub(crate) fn of(&self, key: &Key) -> Option<InstanceId> {
        self.claims.get(key).copied()
    }

    /// Who is gone, in each partition where that means something.
    pub(crate) fn look(
        &mut self,
        clock: Duration,
        down: &BTreeMap<InstanceId, Duration>,
        out: &mut Vec<(Partition, Observed)>,
    ) {
        for (id, host) in &mut self.hosts {
            let silent_ms = millis(clock.saturating_sub(host.since));
            let closed_ms = host.disconnected.map(|at| millis(clock.saturating_sub(at)));
            let down_ms = down.get(id).map(|at| millis(clock.saturating_sub(*at)));
            let (rule, age_ms, limit_ms) = match closed_ms {
                _ if down_ms.is_some_and(|age| age > HOST_DOWN_GRACE_MS) => (
                    LivenessRule::Disconnected,
                    down_ms.unwrap_or_default(),
                    HOST_DOWN_GRACE_MS,
                ),
                Some(age) if age > DISCONNECT_GRACE_MS => {
                    (LivenessRule::Disconnected, age, DISCONNECT_GRACE_MS)
                }
                _ if silent_ms > HOST_SILENT_MS => {
                    (LivenessRule::Silence, silent_ms, HOST_SILENT_MS)
                }
                _ => {
                    host.asked.clear();
                    continue;
                }
            };
            let partitions: BTreeSet<Partition> = host
                .agents
                .iter()
                .map(|(_, _, swarm)| Partition::of(swarm.0))
                .collect();
            for partition in partitions {
                let asked = host.asked.get(&partition);
                if asked.is_some_and(|at| clock.saturating_sub(*at) < ASK_AGAIN) {
                    continue;
                }
                host.asked.insert(partition, clock);
                let evidence = Evidence {
                    rule,
                    last_heartbeat_at: host.last_beat_at,
                    age_ms,
                    limit_ms,
                };
                out.push((
                    partition,
                    Observed::HostGone {
                        host: *id,
                        evidence,
                    },
                ));
            }
        }
    }
}
