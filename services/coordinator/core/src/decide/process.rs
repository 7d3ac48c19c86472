//! What follows from an agent's state by itself: a process is requested or given up, an agent is told to go, or removed.

use swarm_events::{AgentId, Timestamp};
use swarm_events::{
    agent::{CrashLooping, Removed, SpawnRequested, StopThen},
    decider::Decision,
    planted::{self, Bug},
    subject::AgentVerb,
};

use super::{agents::stop_of, join::about};
use crate::{
    Agent, Coordinator, Managed, Phase, Plan, Swarm,
    membership::quarantine_words,
    plan::{AgentKey, Scopes, agent_scopes},
};

/// What an agent's state demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Want {
    /// It is told to go.
    Stop,
    /// It is removed: its host said that its process has ended.
    RemoveEnded,
    /// It is removed: its grace is over.
    RemoveLate,
    /// It is removed: it has been quarantined for too long.
    RemoveQuarantined,
    /// Its process is not started again.
    GiveUp,
    /// A process is requested.
    Request,
}

impl Swarm {
    /// What an agent's state demands, and from when on by log time.
    pub(crate) fn want(&self, agent: &Agent) -> Option<(Timestamp, Want)> {
        // What health holds to be dead is removed first.
        if agent.set_aside || agent.lost.is_some() || self.deleted_at.is_some() {
            return None;
        }
        let at_once = |want| Some((Timestamp::ZERO, want));
        if agent.dismissed.is_some() {
            return at_once(Want::Stop);
        }
        if agent.stillborn && agent.is_live() {
            return at_once(Want::RemoveEnded);
        }
        if let Some(draining) = &agent.draining {
            let late = planted::is(Bug::RemovedStillDrains);
            return match (agent.is_live(), draining.then) {
                (true, _) if agent.process_ended => at_once(Want::RemoveEnded),
                (true, _) => Some((draining.due(), Want::RemoveLate)).filter(|_| !late),
                // Its process outlives its grace: a newer request makes its host kill it.
                (false, StopThen::Restart) if self.is_open() => {
                    Some((draining.due(), Want::Request))
                }
                (false, _) => None,
            };
        }
        if !self.is_open() {
            return None;
        }
        let process = agent
            .managed
            .as_ref()
            .and_then(|managed| wanted_process(agent, managed));
        let after = self.configuration.health.remove_after_ms;
        let quarantine = agent
            .quarantined_since
            .filter(|_| after > 0 && agent.is_live())
            .map(|since| (since.plus_millis(after), Want::RemoveQuarantined));
        [process, quarantine].into_iter().flatten().min()
    }
}

fn wanted_process(agent: &Agent, managed: &Managed) -> Option<(Timestamp, Want)> {
    let wanted = managed.wanted || planted::is(Bug::StoppedRespawns) && managed.spawn > 0;
    if !wanted || !managed.has_adapter() || managed.phase != Phase::Idle {
        return None;
    }
    if managed.is_crash_looping() {
        return Some((Timestamp::ZERO, Want::GiveUp));
    }
    let works_on = managed.host_lost && agent.is_healthy() && agent.joined_spawn == managed.spawn;
    if works_on {
        // Its host is lost, and it is not: it goes on until it ends.
        return None;
    }
    Some((
        managed.restart_due.unwrap_or(Timestamp::ZERO),
        Want::Request,
    ))
}

impl Coordinator {
    /// Decides on the agents about which something is due by itself.
    pub(super) fn reconcile(
        &self,
        plan: &mut Plan,
        waiting: &mut Scopes,
        room: &mut usize,
        out: &mut Vec<Decision>,
    ) {
        for key in plan.due_agents(self.head.now) {
            if *room == 0 {
                return;
            }
            let scopes = agent_scopes(key);
            if !plan.is_free(&scopes) || !waiting.free(&scopes) {
                continue;
            }
            let Some((decision, cause)) = self.demanded(key) else {
                plan.schedule(key, None);
                continue;
            };
            out.push(decision.caused_by(cause));
            plan.start_agent(key, cause);
            *room -= 1;
        }
    }

    /// The decision that an agent's state demands, and what it names as its cause.
    fn demanded(&self, (org, swarm, id): AgentKey) -> Option<(Decision, uuid::Uuid)> {
        let swarm = self.swarm(org, swarm)?;
        let agent = swarm.agents.get(&id)?;
        let (due, want) = swarm.want(agent)?;
        (due <= self.head.now).then(|| (self.carry_out(swarm, id, agent, want), agent.changed.0))
    }

    fn carry_out(&self, swarm: &Swarm, id: AgentId, agent: &Agent, want: Want) -> Decision {
        let place = swarm.place;
        let removed = |reason: String| {
            let incarnation = agent.incarnation;
            let body = Removed {
                incarnation,
                reason,
            };
            about(place, AgentVerb::Removed, id, body)
        };
        let draining = agent.draining.as_ref();
        match (want, &agent.managed) {
            (Want::GiveUp, Some(managed)) => {
                let last = managed.last_exit.as_ref();
                let looping = CrashLooping {
                    spawn: managed.spawn,
                    crashes: managed.crashes,
                    exit: last.map(|last| last.exit.clone()).unwrap_or_default(),
                };
                about(place, AgentVerb::CrashLooping, id, looping)
            }
            (Want::Request, Some(managed)) => {
                let requested = SpawnRequested {
                    spawn: managed.spawn + 1,
                    reason: managed.next,
                    crashes: managed.crashes,
                    spec: managed.spec.clone(),
                    grace_ms: swarm.configuration.drain_grace_ms,
                };
                about(place, AgentVerb::SpawnRequested, id, requested)
            }
            (Want::RemoveEnded, _) => {
                let why = draining.map_or("joined", |d| d.reason.as_str());
                removed(format!("{why}: its process has ended"))
            }
            (Want::RemoveLate, _) => {
                let why = draining.map_or("told to go", |d| d.reason.as_str());
                let grace_ms = draining.map_or(0, |d| d.grace_ms);
                removed(if grace_ms == 0 {
                    why.to_owned()
                } else {
                    format!("{why}: it did not go within the {grace_ms} ms that it had")
                })
            }
            (Want::RemoveQuarantined, _) => {
                let limit = swarm.configuration.health.remove_after_ms;
                let since = agent.quarantined_since.unwrap_or(self.head.now);
                let age = self.head.now.millis_since(since);
                let causes = quarantine_words(&agent.quarantine);
                removed(format!(
                    "in quarantine for {age} ms, the limit is {limit} ms: {causes}"
                ))
            }
            (Want::Stop | Want::GiveUp | Want::Request, _) => {
                let (grace_ms, reason) = match &agent.dismissed {
                    Some(d) if d.by_policy => (0, d.reason.clone()),
                    Some(d) => (swarm.configuration.drain_grace_ms, d.reason.clone()),
                    None => (0, "told to go".to_owned()),
                };
                let stopping = stop_of(agent, grace_ms, StopThen::Remove, reason);
                about(place, AgentVerb::Stopping, id, stopping)
            }
        }
    }
}
