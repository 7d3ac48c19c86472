//! Events of swarms and agents.

use swarm_events::{
    AgentId, Body, Place, Timestamp,
    agent::{Cause, Joined, Profile},
    configuration::Configuration,
    decider::Verdict,
    planted::{self, Bug},
    swarm::{AgentLoad, Measured},
};

use crate::{
    agent::{Agent, Health, Membership},
    state::{Distributor, number_of},
    swarm::{Life, Moment, Swarm},
    trace::Trace,
};

impl Distributor {
    pub(super) fn swarm_event(&mut self, place: Place, body: &Body, trace: &mut Trace) -> Verdict {
        if let Body::SwarmCreated(created) = body {
            if self.number(place).is_some() {
                return Verdict::Void("swarm-exists");
            }
            let number = self.swarms.len() as u32;
            self.numbers.insert(number_of(place), number);
            self.swarms.push(Swarm::new(number, place, created));
            trace.swarm(number);
            return Verdict::Applied;
        }
        if matches!(
            body,
            Body::SwarmRefused(_) | Body::SwarmSampled(_) | Body::SwarmTopologySuggested(_)
        ) {
            return Verdict::Ignored;
        }
        let Some(number) = self.number(place) else {
            return Verdict::Void("unknown-swarm");
        };
        let moment = self.moment();
        let now = moment.now;
        let Some(swarm) = self.swarms.get_mut(number as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        match body {
            Body::SwarmTopologyPlanned(_)
            | Body::SwarmTopologyChanged(_)
            | Body::SwarmTopologyKept(_)
            | Body::SwarmLeaderElected(_) => return swarm.reshape(body, moment, trace),
            Body::SwarmUpdated(updated) => {
                // It moves limits that the shape knows, and no seats.
                let _ = swarm.shape.apply(None, body);
                if swarm.configure(&updated.configuration, trace) {
                    let agents = swarm.agents.len() as u32;
                    (0..agents).for_each(|at| self.look_for_stuck(number, at, trace));
                }
            }
            Body::SwarmStopping(_) if swarm.life == Life::Running => swarm.life = Life::Stopping,
            Body::SwarmDeleted(_) if swarm.life != Life::Deleted => swarm.life = Life::Deleted,
            Body::SwarmMeasured(measured) => {
                swarm.measured(measured, now);
                return Verdict::Applied;
            }
            _ => return Verdict::Void("swarm-ended"),
        }
        trace.swarm(number);
        Verdict::Applied
    }

    pub(super) fn agent_event(
        &mut self,
        place: Place,
        id: AgentId,
        body: &Body,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let Some(number) = self.number(place) else {
            return Verdict::Void("unknown-swarm");
        };
        let Some(swarm) = self.swarms.get_mut(number as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        if let Body::AgentJoined(joined) = body {
            let verdict = swarm.joined(id, joined, moment, trace);
            if verdict == Verdict::Applied {
                // It may learn the name by which the topology's options name the agent.
                let _ = swarm.shape.apply(Some(id), body);
            }
            return verdict;
        }
        if matches!(body, Body::AgentSeated(_)) {
            return swarm.seated(id, body, trace);
        }
        let Some(incarnation) = judged(body) else {
            return Verdict::Ignored;
        };
        let Some(&at) = swarm.agent_numbers.get(&id) else {
            return Verdict::Void("unknown-agent");
        };
        let Some(agent) = swarm.agents.get_mut(at as usize) else {
            return Verdict::Void("unknown-agent");
        };
        if incarnation != agent.incarnation {
            return Verdict::Void("other-incarnation");
        }
        if agent.membership != Membership::Member {
            return Verdict::Void("not-a-member");
        }
        let failed = agent.health == Health::Failed;
        let mut unbarred = false;
        match body {
            Body::AgentLeft(_) => agent.membership = Membership::Left,
            Body::AgentRemoved(_) => agent.membership = Membership::Removed,
            Body::AgentFailed(_) => agent.health = Health::Failed,
            // To work again it must join anew.
            Body::AgentSuspected(_) | Body::AgentRecovered(_) if failed => {
                return Verdict::Void("failed");
            }
            Body::AgentSuspected(_) => agent.health = Health::Suspected,
            Body::AgentRecovered(_) => {
                agent.health = Health::Well;
                // It is heard again. It may hold nothing that it could write of, and must not stay out for that.
                agent.lapses = 0;
            }
            Body::AgentStopping(_) => agent.draining = true,
            Body::AgentQuarantined(e) => {
                agent.quarantine.insert(e.cause, e.until);
                // Health has judged: its word takes the place of the bar.
                unbarred = e.cause == Cause::FastFailures;
            }
            Body::AgentReleased(e) => {
                if agent.quarantine.remove(&e.cause).is_none() {
                    return Verdict::Void("not-quarantined");
                }
            }
            Body::AgentUpdated(_) if planted::is(Bug::UpdateNotHeard) => {}
            Body::AgentUpdated(e) => agent.take_over(&e.profile, moment.now),
            _ => return Verdict::Ignored,
        }
        trace.agent(number, at);
        trace.judged(number, at);
        if unbarred {
            self.unbar(number, at, trace);
        }
        Verdict::Applied
    }
}

/// The incarnation that an event is about which decides what an agent may be given.
const fn judged(body: &Body) -> Option<u64> {
    match body {
        Body::AgentLeft(e) => Some(e.incarnation),
        Body::AgentRemoved(e) => Some(e.incarnation),
        Body::AgentSuspected(e) => Some(e.incarnation),
        Body::AgentRecovered(e) => Some(e.incarnation),
        Body::AgentFailed(e) => Some(e.incarnation),
        Body::AgentQuarantined(e) => Some(e.incarnation),
        Body::AgentReleased(e) => Some(e.incarnation),
        Body::AgentUpdated(e) => Some(e.incarnation),
        // None has joined: there is nothing to drain.
        Body::AgentStopping(e) if e.incarnation == 0 => None,
        Body::AgentStopping(e) => Some(e.incarnation),
        _ => None,
    }
}

impl Agent {
    /// Takes over what it is and can do. What it holds stays, also beyond fewer slots.
    fn take_over(&mut self, profile: &Profile, now: Timestamp) {
        let mut capabilities: Vec<Box<str>> = profile
            .capabilities
            .iter()
            .map(|c| c.as_str().into())
            .collect();
        capabilities.sort_unstable();
        capabilities.dedup();
        self.capabilities = capabilities.into_boxed_slice();
        self.slots = profile.slots;
        self.places = profile.waiting + u32::from(planted::is(Bug::PlacesExceeded));
        self.wind(now);
    }
}

impl Swarm {
    fn joined(
        &mut self,
        id: AgentId,
        joined: &Joined,
        moment: Moment,
        trace: &mut Trace,
    ) -> Verdict {
        let before = self.agent(id);
        if joined.incarnation <= before.map_or(0, |(_, agent)| agent.incarnation) {
            return Verdict::Void("old-incarnation");
        }
        let at = match before {
            Some((at, _)) => at,
            None => {
                let at = self.agents.len() as u32;
                self.agents.push(Agent::new(id));
                self.agent_numbers.insert(id, at);
                at
            }
        };
        let Some(agent) = self.agents.get_mut(at as usize) else {
            return Verdict::Void("unknown-agent");
        };
        // What the old incarnation holds stays on its lists until it is withdrawn.
        agent.begin_anew(joined.incarnation, moment.sequence);
        agent.take_over(&joined.profile, moment.now);
        self.take_seat(at);
        self.note_load(at, trace);
        trace.agent(self.number, at);
        trace.judged(self.number, at);
        Verdict::Applied
    }

    /// Takes over settings. A new limit of progress moves the ends of what runs; fast failures that are none too many any
    /// more bar nobody. True: what is held to be stuck may have changed.
    fn configure(&mut self, configuration: &Configuration, trace: &mut Trace) -> bool {
        let before = std::mem::replace(&mut self.settings, configuration.into());
        let max = self.settings.fast_failures_max;
        for agent in &mut self.agents {
            if max == 0 || agent.fast_failures < max {
                // Its entry among the barred is passed over when its time comes.
                agent.barred_until = Timestamp::ZERO;
            }
        }
        let stuck = before.stuck_after_ms != self.settings.stuck_after_ms;
        if before.progress_timeout_ms == self.settings.progress_timeout_ms {
            return stuck;
        }
        for &(_, at) in self.agents.iter().flat_map(|agent| &agent.running) {
            if let Some(task) = self.tasks.get(at) {
                trace.task(self.number, at, task.id);
            }
        }
        stuck
    }

    fn measured(&mut self, measured: &Measured, now: Timestamp) {
        self.reported.pending = measured.pending;
        self.reported.queued = measured.queued;
        self.reported.assigned = measured.assigned;
        self.reported.running = measured.running;
        self.reported.completed = measured.completed;
        self.reported.failed = measured.failed;
        self.reported.cancelled = measured.cancelled;
        self.reported.affinity_hits = measured.affinity_hits;
        self.reported.affinity_misses = measured.affinity_misses;
        self.reported.steals = measured.steals;
        self.reported.retries = measured.retries;
        self.reported_at = now;
        self.by_type.told(&measured.types);
        self.by_capability.told(&measured.capabilities);
        for (id, load) in &measured.agents {
            if let Some(&at) = self.agent_numbers.get(id)
                && let Some(agent) = self.agents.get_mut(at as usize)
            {
                agent.reported = AgentLoad {
                    stuck_ms: 0,
                    ..*load
                };
                if agent.load() == agent.reported {
                    self.moved.remove(&at);
                } else {
                    self.moved.insert(at);
                }
            }
        }
    }
}
