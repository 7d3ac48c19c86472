//! The end of a swarm: `stopping`, then no open task, then no live agent and no process, then `deleted`.
//!
//! `stopping` makes the distributor cancel what is open and say so in a `measured` without open tasks. That word is waited
//! for, but not for ever. Where its last word was that nothing is open, or it never had anything to say, it has until
//! [`STOP_WAIT_IDLE_MS`] to speak of tasks that came in just before: it speaks only of what moves. Where tasks were open, it
//! has until [`STOP_WAIT_MS_MAX`] after its last word: a distributor that is down will cancel when it is back, since
//! `stopping` stands in the log. Processes are told to go at once, and waited for until their hosts say that they have gone,
//! or are lost, at most [`STOP_WAIT_PROCESSES_MS`]. So a termination cannot hang.

use swarm_events::{
    OrgId, SwarmId, Timestamp,
    agent::{Removed, StopThen},
    subject::{AgentVerb, SwarmVerb},
    swarm::Deleted,
};

use super::{Answer, agents::stop_of, join, swarm::about};
use crate::{Agent, Coordinator, Managed, Swarm, membership::DELETED};

/// How long a termination waits after the distributor's last word, in milliseconds of log time: the promised bound of a
/// failover. A distributor that works speaks every second while tasks are open.
pub const STOP_WAIT_MS_MAX: u64 = 30_000;
/// How long a termination waits when no task was open by the distributor's last word, in milliseconds of log time: twice
/// its interval, so that a task handed in just before is not overlooked.
pub const STOP_WAIT_IDLE_MS: u64 = 2_000;
/// How long a termination waits for processes that were told to go at once, in milliseconds of log time: a host kills them
/// within milliseconds, and one that is lost is held to be so after four seconds.
pub const STOP_WAIT_PROCESSES_MS: u64 = 10_000;

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

impl Swarm {
    /// Until when its end waits at `now`; `None` if there is something to do at once.
    pub(crate) fn end_wait(&self, now: Timestamp) -> Option<Timestamp> {
        let due = if let Some(due) = self.end_due().filter(|due| now < *due) {
            Some(due)
        } else if self.live_agents() > 0 {
            None
        } else {
            let processes = self.agents.values().map(process_left);
            let left = processes.collect::<Option<Vec<_>>>()?;
            left.into_iter().max()
        };
        due.filter(|due| now < *due)
    }
}

/// How long the end waits for an agent's process (zero: it has none), or `None` if that has not been told to go at once.
fn process_left(agent: &Agent) -> Option<Timestamp> {
    if !agent.managed.as_ref().is_some_and(Managed::has_process) {
        return Some(Timestamp::ZERO);
    }
    let draining = agent.draining.as_ref();
    let told = draining.filter(|d| d.then == StopThen::Remove && d.grace_ms == 0)?;
    Some(told.since.plus_millis(STOP_WAIT_PROCESSES_MS))
}

impl Coordinator {
    pub(super) fn end(&self, org: OrgId, swarm: SwarmId, room: usize) -> Answer {
        let Some(swarm) = self.swarm(org, swarm) else {
            return Answer::Wait;
        };
        if swarm.end_wait(self.head.now).is_some() {
            return Answer::Wait;
        }
        let left = swarm.agents.iter().filter_map(|(id, agent)| {
            if process_left(agent).is_none() {
                let stopping = stop_of(agent, 0, StopThen::Remove, DELETED.to_owned());
                return Some(join::about(swarm.place, AgentVerb::Stopping, *id, stopping));
            }
            let removed = Removed {
                incarnation: agent.incarnation,
                reason: DELETED.to_owned(),
            };
            let removal = || join::about(swarm.place, AgentVerb::Removed, *id, removed);
            agent.is_live().then(removal)
        });
        let decisions: Vec<_> = left.take(room.max(1)).collect();
        if decisions.is_empty() {
            if swarm.change.is_some() || swarm.questions().next().is_some() {
                // They end first: after the end nothing is said of a swarm any more.
                return Answer::Wait;
            }
            return Answer::Decide(vec![about(swarm.place, SwarmVerb::Deleted, Deleted {})]);
        }
        Answer::Decide(decisions)
    }
}
