//! Samples of heartbeats: what the log keeps of them, so that it can rebuild what was shown.

use std::{collections::BTreeMap, time::Duration};

use swarm_events::{
    AgentId,
    swarm::{AgentSample, SAMPLE_AGENTS_MAX},
};

use crate::{hosts::HOST_FIGURES_FRESH, watch::Tracked};

/// No agent sorts before it.
const FIRST_AGENT: AgentId = AgentId(uuid::Uuid::nil());

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
    /// Where the next part of this time's sample begins; `None`: all is sampled.
    pub(crate) next: Option<AgentId>,
    due: Duration,
}

impl Sampling {
    pub(crate) fn starting(clock: Duration) -> Self {
        Self {
            agents: 0,
            next: None,
            due: clock + FIRST_SAMPLE,
        }
    }
    /// Where the next part begins, if one is due now.
    pub(crate) fn take_due(&mut self, clock: Duration) -> Option<AgentId> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        if clock < self.due {
            return None;
        }
        self.due = clock + interval(self.agents);
        Some(FIRST_AGENT)
    }
}

/// Time between the samples of a swarm of this many agents.
pub fn interval(agents: usize) -> Duration {
    let agents = u32::try_from(agents.max(SAMPLE_AGENTS_MAX)).unwrap_or(u32::MAX);
    let most = u32::try_from(SAMPLE_AGENTS_MAX).unwrap_or(u32::MAX);
    SAMPLE_INTERVAL.saturating_mul(agents) / most
}

/// Those of these agents whose figures moved. They count as sampled from here on.
pub(crate) fn part<'a>(
    agents: impl Iterator<Item = (AgentId, &'a mut Tracked)>,
    clock: Duration,
) -> BTreeMap<AgentId, AgentSample> {
    agents
        .filter_map(|(id, tracked)| Some((id, tracked.moved(clock)?)))
        .collect()
}

impl Tracked {
    /// Its figures, if they moved since they were sampled last.
    fn moved(&mut self, clock: Duration) -> Option<AgentSample> {
        let (beat, at) = self.beat.as_ref()?;
        if !self.is_fresh {
            return None;
        }
        let mut sample = AgentSample {
            messages_read: 0,
            messages_sent: 0,
            instance: beat.instance,
            status: beat.status.clone(),
            last_heartbeat_at: *at,
            cpu_centipercent: beat.cpu_centipercent,
            memory_kib: beat.memory_kib,
            active_connections: beat.active_connections,
            queue_depth: beat.queue_depth,
            current_tasks: beat.current_tasks.clone(),
        };
        // Its host sees the whole process tree, and has no reason to say less.
        if let Some((figures, said)) = &self.figures
            && clock.saturating_sub(*said) < HOST_FIGURES_FRESH
        {
            sample.cpu_centipercent = figures.cpu_centipercent;
            sample.memory_kib = figures.memory_kib;
            sample.active_connections = figures.active_connections;
        }
        if let Some((last, sampled_at)) = &self.sampled {
            let same = AgentSample {
                last_heartbeat_at: sample.last_heartbeat_at,
                ..last.clone()
            };
            if same == sample && clock.saturating_sub(*sampled_at) < SAMPLE_AGAIN {
                return None;
            }
        }
        self.is_fresh = false;
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
