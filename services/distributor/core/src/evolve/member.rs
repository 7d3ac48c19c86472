//! Events of swarms and agents.

use swarm_events::{
    AgentId, Body, Place, Timestamp,
    agent::Joined,
    configuration::Configuration,
    decider::Verdict,
    planted::{self, Bug},
    swarm::{AgentLoad, Measured},
};

use crate::{
    agent::{Agent, Health, Membership},
    state::{Distributor, number_of},
    swarm::{Life, Swarm},
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
            self.swarms
                .push(Swarm::new(number, place, &created.configuration));
            trace.swarm(number);
            return Verdict::Applied;
        }
        if matches!(body, Body::SwarmRefused(_) | Body::SwarmSampled(_)) {
            return Verdict::Ignored;
        }
        let Some(number) = self.number(place) else {
            return Verdict::Void("unknown-swarm");
        };
        let now = self.head.now;
        let Some(swarm) = self.swarms.get_mut(number as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        match body {
            Body::SwarmUpdated(updated) => swarm.configure(&updated.configuration, trace),
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
            return swarm.joined(id, joined, moment.sequence, trace);
        }
        let Some(&at) = swarm.agent_numbers.get(&id) else {
            return Verdict::Void("unknown-agent");
        };
        let Some(agent) = swarm.agents.get_mut(at as usize) else {
            return Verdict::Void("unknown-agent");
        };
        let (incarnation, membership, health) = match body {
            Body::AgentLeft(e) => (e.incarnation, Membership::Left, agent.health),
            Body::AgentRemoved(e) => (e.incarnation, Membership::Removed, agent.health),
            Body::AgentSuspected(e) => (e.incarnation, agent.membership, Health::Suspected),
            Body::AgentRecovered(e) => (e.incarnation, agent.membership, Health::Well),
            Body::AgentFailed(e) => (e.incarnation, agent.membership, Health::Failed),
            _ => return Verdict::Ignored,
        };
        if incarnation != agent.incarnation {
            return Verdict::Void("other-incarnation");
        }
        if agent.membership != Membership::Member {
            return Verdict::Void("not-a-member");
        }
        if agent.health == Health::Failed && health != Health::Failed {
            // To work again it must join anew.
            return Verdict::Void("failed");
        }
        if matches!(body, Body::AgentRecovered(_)) {
            // It is heard again. It may hold nothing that it could write of, and must not stay out for that.
            agent.lapses = 0;
        }
        agent.membership = membership;
        agent.health = health;
        trace.agent(number, at);
        trace.judged(number, at);
        Verdict::Applied
    }
}

impl Swarm {
    fn joined(
        &mut self,
        id: AgentId,
        joined: &Joined,
        sequence: u64,
        trace: &mut Trace,
    ) -> Verdict {
        let mut capabilities: Vec<Box<str>> = joined
            .profile
            .capabilities
            .iter()
            .map(|c| c.as_str().into())
            .collect();
        capabilities.sort_unstable();
        capabilities.dedup();
        let capabilities = capabilities.into_boxed_slice();
        let waiting = joined.profile.waiting + u32::from(planted::is(Bug::PlacesExceeded));
        let at = match self.agent_numbers.get(&id) {
            Some(&at) => {
                let Some(agent) = self.agents.get_mut(at as usize) else {
                    return Verdict::Void("unknown-agent");
                };
                if joined.incarnation <= agent.incarnation {
                    return Verdict::Void("old-incarnation");
                }
                // What the old incarnation holds stays on its lists until it is withdrawn.
                agent.incarnation = joined.incarnation;
                agent.joined = sequence;
                agent.membership = Membership::Member;
                agent.health = Health::Well;
                agent.slots = joined.profile.slots;
                agent.places = waiting;
                agent.capabilities = capabilities;
                agent.lapses = 0;
                at
            }
            None => {
                let at = self.agents.len() as u32;
                self.agents.push(Agent {
                    id,
                    incarnation: joined.incarnation,
                    joined: sequence,
                    membership: Membership::Member,
                    health: Health::Well,
                    slots: joined.profile.slots,
                    places: waiting,
                    capabilities,
                    lapses: 0,
                    running: Vec::new(),
                    waiting: Vec::new(),
                    clock: None,
                    completed: 0,
                    failed: 0,
                    turn: 0,
                    reported: AgentLoad::default(),
                });
                self.agent_numbers.insert(id, at);
                at
            }
        };
        trace.agent(self.number, at);
        trace.judged(self.number, at);
        Verdict::Applied
    }

    /// Takes over settings. A new limit of progress moves the ends of what runs.
    fn configure(&mut self, configuration: &Configuration, trace: &mut Trace) {
        let before = std::mem::replace(&mut self.settings, configuration.into());
        if before.progress_timeout_ms == self.settings.progress_timeout_ms {
            return;
        }
        for &(_, at) in self.agents.iter().flat_map(|agent| &agent.running) {
            if let Some(task) = self.tasks.get(at) {
                trace.task(self.number, at, task.id);
            }
        }
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
        for (id, load) in &measured.agents {
            if let Some(&at) = self.agent_numbers.get(id)
                && let Some(agent) = self.agents.get_mut(at as usize)
            {
                agent.reported = *load;
                if agent.load() == *load {
                    self.moved.remove(&at);
                } else {
                    self.moved.insert(at);
                }
            }
        }
    }
}
