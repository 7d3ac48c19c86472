//! Words for what becomes of agents while they run.

use swarm_distributor_core::AgentView;
use swarm_events::{
    Timestamp,
    agent::{Cause, Figures, Quarantined, Released, StopThen, Stopping, Updated},
    decider::Verdict,
    subject::{AgentVerb, TaskVerb},
    task::Declined,
};

use super::{Scene, profile};

/// Figures that a quarantine rests on: the distributor does not look at them.
const fn figures() -> Figures {
    Figures {
        value: 1,
        limit: 1,
        attempts: 0,
    }
}

impl Scene {
    /// The coordinator says that its present process is to go.
    pub fn drain(&mut self, name: &str) -> Verdict {
        let stopping = Stopping {
            incarnation: self.incarnations.get(name).copied().unwrap_or(0),
            spawn: 0,
            grace_ms: 30_000,
            then: StopThen::Remove,
            reason: "test".to_owned(),
        };
        self.member(name, AgentVerb::Stopping, stopping)
    }
    pub fn quarantine(&mut self, name: &str, cause: Cause) -> Verdict {
        self.quarantine_until(name, cause, None)
    }
    pub fn quarantine_until(
        &mut self,
        name: &str,
        cause: Cause,
        until: Option<Timestamp>,
    ) -> Verdict {
        let quarantined = Quarantined {
            incarnation: self.incarnations[name],
            cause,
            figures: figures(),
            until,
        };
        self.health(name, AgentVerb::Quarantined, quarantined)
    }
    pub fn release(&mut self, name: &str, cause: Cause) -> Verdict {
        let released = Released {
            incarnation: self.incarnations[name],
            cause,
            figures: figures(),
        };
        self.health(name, AgentVerb::Released, released)
    }
    /// An agent that runs is given another profile.
    pub fn update(
        &mut self,
        name: &str,
        slots: u32,
        waiting: u32,
        capabilities: &[&str],
    ) -> Verdict {
        let updated = Updated {
            incarnation: self.incarnations[name],
            profile: profile(name, slots, waiting, capabilities),
        };
        self.member(name, AgentVerb::Updated, updated)
    }
    /// Its agent gives a task back.
    pub fn decline(&mut self, task: &str) -> Verdict {
        let (agent, assignment, assigned) = self.assignment(task);
        let declined = Declined {
            assignment,
            incarnation: assigned.incarnation,
            reason: "not mine".to_owned(),
        };
        self.by_agent(task, agent, TaskVerb::Declined, declined)
    }
    pub fn agent(&mut self, name: &str) -> AgentView {
        let id = self.agent_id(name);
        self.world
            .state
            .agent(self.place, id)
            .expect("it has joined")
    }
}
