//! The end of a swarm: `stopping`, then no open task, then no live agent, then `deleted`.
//!
//! `stopping` makes the distributor cancel what is open and say so in a `measured` without open tasks. That word is waited
//! for, but not for ever. Where its last word was that nothing is open, or it never had anything to say, it has until
//! [`STOP_WAIT_IDLE_MS`] to speak of tasks that came in just before: it speaks only of what moves. Where tasks were open, it
//! has until [`STOP_WAIT_MS_MAX`] after its last word: a distributor that is down will cancel when it is back, since
//! `stopping` stands in the log. So a termination cannot hang.

use swarm_events::{
    OrgId, SwarmId, Timestamp,
    agent::Removed,
    subject::{AgentVerb, SwarmVerb},
    swarm::Deleted,
};

use super::{Answer, join, swarm::about};
use crate::{Coordinator, Swarm};

/// How long a termination waits after the distributor's last word, in milliseconds of log time: the promised bound of a
/// failover. A distributor that works speaks every second while tasks are open.
pub const STOP_WAIT_MS_MAX: u64 = 30_000;
/// How long a termination waits when no task was open by the distributor's last word, in milliseconds of log time: twice
/// its interval, so that a task handed in just before is not overlooked.
pub const STOP_WAIT_IDLE_MS: u64 = 2_000;

impl Swarm {
    /// When a termination goes on without the distributor's word; `None` if it needs not wait or is none.
    pub(crate) fn end_due(&self) -> Option<Timestamp> {
        let stopping = self.stopping.filter(|s| !s.drained)?;
        Some(match self.measured {
            None => stopping.since.plus_millis(STOP_WAIT_IDLE_MS),
            Some(last) if last.count == 0 => {
                stopping.since.max(last.at).plus_millis(STOP_WAIT_IDLE_MS)
            }
            Some(last) => stopping.since.max(last.at).plus_millis(STOP_WAIT_MS_MAX),
        })
    }
}

impl Coordinator {
    pub(super) fn end(&self, org: OrgId, swarm: SwarmId, room: usize) -> Answer {
        let Some(swarm) = self.swarm(org, swarm) else {
            return Answer::Wait;
        };
        if swarm.end_due().is_some_and(|due| self.head.now < due) {
            return Answer::Wait;
        }
        if swarm.live_agents() == 0 {
            return Answer::Decide(vec![about(swarm.place, SwarmVerb::Deleted, Deleted {})]);
        }
        let live = swarm.agents.iter().filter(|(_, agent)| agent.is_live());
        let removals = live.take(room.max(1)).map(|(id, agent)| {
            let removed = Removed {
                incarnation: agent.incarnation,
                reason: "swarm-deleted".to_owned(),
            };
            join::about(swarm.place, AgentVerb::Removed, *id, removed)
        });
        Answer::Decide(removals.collect())
    }
}
