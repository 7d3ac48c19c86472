//! Samples of heartbeats: what the log keeps of them, so that it can rebuild what was shown.

use std::{collections::BTreeMap, time::Duration};

use swarm_events::{
    AgentId,
    swarm::{AgentSample, SAMPLE_AGENTS_MAX},
};

use crate::watch::Tracked;

/// Time between the samples of a swarm of up to [`SAMPLE_AGENTS_MAX`] agents; with more it is stretched in proportion, so
/// that a large swarm costs the log no more per second than a small one.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// The first sample of a swarm comes sooner: a short run should not end unseen.
pub const FIRST_SAMPLE: Duration = Duration::from_secs(1);
/// An agent whose figures stand still is sampled all the same after this long, so that its `last_heartbeat_at` in the read
/// model is never older than this while it lives.
pub const SAMPLE_AGAIN: Duration = Duration::from_secs(60);

/// When a swarm is sampled next.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// Agents watched.
    pub(crate) agents: usize,
    due: Duration,
}

impl Sampling {
    pub(crate) fn starting(clock: Duration) -> Self {
        Self {
            agents: 0,
            due: clock + FIRST_SAMPLE,
        }
    }
    /// Whether it is due; if so, the next time is set.
    pub(crate) fn take_due(&mut self, clock: Duration) -> bool {
        if clock < self.due {
            return false;
        }
        self.due = clock + interval(self.agents);
        true
    }
}

/// Time between the samples of a swarm of this many agents.
pub fn interval(agents: usize) -> Duration {
    let agents = u32::try_from(agents.max(SAMPLE_AGENTS_MAX)).unwrap_or(u32::MAX);
    let most = u32::try_from(SAMPLE_AGENTS_MAX).unwrap_or(u32::MAX);
    SAMPLE_INTERVAL.saturating_mul(agents) / most
}

/// The agents whose figures moved, in parts that an event can hold. They count as sampled from here on.
pub(crate) fn parts<'a>(
    agents: impl Iterator<Item = (AgentId, &'a mut Tracked)>,
    clock: Duration,
) -> Vec<BTreeMap<AgentId, AgentSample>> {
    let mut parts: Vec<BTreeMap<AgentId, AgentSample>> = Vec::new();
    for (id, tracked) in agents {
        let Some(sample) = tracked.moved(clock) else {
            continue;
        };
        match parts.last_mut() {
            Some(part) if part.len() < SAMPLE_AGENTS_MAX => {
                part.insert(id, sample);
            }
            _ => parts.push(BTreeMap::from([(id, sample)])),
        }
    }
    parts
}

impl Tracked {
    /// Its figures, if they moved since they were sampled last.
    fn moved(&mut self, clock: Duration) -> Option<AgentSample> {
        let (beat, at) = self.beat.as_ref()?;
        let sample = AgentSample {
            instance: beat.instance,
            status: beat.status.clone(),
            last_heartbeat_at: *at,
            cpu_centipercent: beat.cpu_centipercent,
            memory_kib: beat.memory_kib,
            active_connections: beat.active_connections,
            queue_depth: beat.queue_depth,
            current_tasks: beat.current_tasks.clone(),
        };
        if let Some((last, sampled_at)) = &self.sampled {
            let same = AgentSample {
                last_heartbeat_at: sample.last_heartbeat_at,
                ..last.clone()
            };
            let unheard = last.last_heartbeat_at == sample.last_heartbeat_at;
            if unheard || (same == sample && clock.saturating_sub(*sampled_at) < SAMPLE_AGAIN) {
                return None;
            }
        }
        self.sampled = Some((sample.clone(), clock));
        Some(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_stretched_in_proportion_above_the_limit() {
        assert_eq!(interval(1), Duration::from_secs(10));
        assert_eq!(interval(256), Duration::from_secs(10));
        assert_eq!(interval(512), Duration::from_secs(20));
        assert_eq!(interval(2_560), Duration::from_secs(100));
    }
}
