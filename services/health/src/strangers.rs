//! Heartbeats of processes that are no agents: told of when they go on, and not too often.

use std::{collections::BTreeMap, time::Duration};

use swarm_events::{InstanceId, OrgId, Partition, SwarmId, control::Observed};

use crate::watch::Key;

/// Whoever beats for this long without being an agent is a stranger. One that joins, or has just been removed, beats for a
/// moment too.
pub const STRANGER_AFTER: Duration = Duration::from_secs(10);
/// Strangers of a swarm are told of at most this often.
pub const STRANGERS_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Most strangers that are told apart; of more, nothing is known. Bounds memory (about 200 bytes each).
pub const STRANGERS_MAX: usize = 1_024;
/// Whoever has not beaten for this long has gone: longer than the longest heartbeat interval.
const STRANGER_GONE: Duration = Duration::from_secs(90);

#[derive(Debug)]
struct Stranger {
    first: Duration,
    last: Duration,
    count: u32,
}

/// The strangers of the swarms that are watched.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    seen: BTreeMap<(Key, InstanceId), Stranger>,
    /// When a swarm's strangers were told of last.
    told: BTreeMap<(OrgId, SwarmId), Duration>,
}

impl Strangers {
    pub(crate) fn len(&self) -> usize {
        self.seen.len()
    }

    /// A heartbeat.
    pub(crate) fn beat(&mut self, key: Key, instance: InstanceId, clock: Duration) {
        let is_full = self.seen.len() >= STRANGERS_MAX;
        match self.seen.get_mut(&(key, instance)) {
            Some(stranger) => {
                stranger.last = clock;
                stranger.count = stranger.count.saturating_add(1);
            }
            None if is_full => {}
            None => {
                let stranger = Stranger {
                    first: clock,
                    last: clock,
                    count: 1,
                };
                self.seen.insert((key, instance), stranger);
            }
        }
    }

    /// It has joined.
    pub(crate) fn is_known(&mut self, key: Key, instance: InstanceId) {
        self.seen.remove(&(key, instance));
    }

    /// Forgets the strangers of a partition.
    pub(crate) fn give_up(&mut self, partition: Partition) {
        self.seen
            .retain(|(key, _), _| Partition::of(key.1.0) != partition);
        self.told
            .retain(|(_, swarm), _| Partition::of(swarm.0) != partition);
    }

    /// Whom to tell of: the first that has gone on long enough, for all of its swarm.
    pub(crate) fn look(&mut self, clock: Duration, out: &mut Vec<(Partition, Observed)>) {
        self.seen
            .retain(|_, stranger| clock.saturating_sub(stranger.last) < STRANGER_GONE);
        self.told
            .retain(|_, at| clock.saturating_sub(*at) < STRANGERS_TOLD_EVERY);
        let mut tell: BTreeMap<(OrgId, SwarmId), (Key, InstanceId)> = BTreeMap::new();
        for ((key, instance), stranger) in &self.seen {
            let swarm = (key.0, key.1);
            let goes_on = stranger.last.saturating_sub(stranger.first) >= STRANGER_AFTER;
            if goes_on && stranger.count > 0 && !self.told.contains_key(&swarm) {
                tell.entry(swarm).or_insert((*key, *instance));
            }
        }
        for ((org, swarm), (key, instance)) in tell {
            let mut count = 0u32;
            for ((of, _), stranger) in &mut self.seen {
                if (of.0, of.1) == (org, swarm) {
                    count = count.saturating_add(std::mem::take(&mut stranger.count));
                }
            }
            self.told.insert((org, swarm), clock);
            let observed = Observed::Stranger {
                org_id: org,
                swarm_id: swarm,
                agent_id: key.2,
                instance,
                count,
            };
            out.push((Partition::of(swarm.0), observed));
        }
    }
}
