//! What the distributor's figures and health's own samples do to the state, and the quarantines that follow from them.

use swarm_events::{
    AgentId, Body, Place, Recorded, Timestamp,
    agent::{Cause, Quarantined, Released},
    decider::Verdict,
    swarm::{AgentLoad, Measured, Sampled},
};
use uuid::Uuid;

use crate::{
    Health,
    agent::{Agent, Quarantine, Usage},
    fold::{Touched, Void, current},
    swarm::{count_names, risen},
    window::Window,
};

impl Health {
    pub(crate) fn measured(
        &mut self,
        place: Place,
        recorded: &Recorded,
        measured: &Measured,
        touched: &mut Touched,
    ) -> Result<Verdict, Void> {
        let now = self.head.now;
        let key = (place.org, place.swarm);
        let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
        let window_ms = swarm.policy.error_window_ms;
        // What the distributor had met when it took these figures.
        let taken = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        for (id, load) in &measured.agents {
            if let Some(agent) = swarm.agents.get_mut(id) {
                agent.measure(load, taken, now, &mut swarm.total);
                agent.measured = recorded.event.id.0;
                touched.agents.push((place.org, place.swarm, *id));
            }
        }
        count_names(&mut swarm.types, &measured.types, now, window_ms);
        count_names(
            &mut swarm.capabilities,
            &measured.capabilities,
            now,
            window_ms,
        );
        // An agent may have been spared only because the others failed as often.
        touched.others.push(key);
        Ok(Verdict::Applied)
    }

    pub(crate) fn sampled(
        &mut self,
        place: Place,
        sampled: &Sampled,
        event: Uuid,
        touched: &mut Touched,
    ) {
        let Some(swarm) = self.swarms.get_mut(&(place.org, place.swarm)) else {
            return;
        };
        for (id, sample) in &sampled.agents {
            let current = |agent: &&mut Agent| agent.member && agent.instance == sample.instance;
            if let Some(agent) = swarm.agents.get_mut(id).filter(current) {
                agent.usage = Some(Usage {
                    memory_kib: sample.memory_kib,
                    cpu_centipercent: sample.cpu_centipercent,
                    last_heartbeat_at: sample.last_heartbeat_at,
                    event,
                });
                touched.agents.push((place.org, place.swarm, *id));
            }
        }
    }

    /// `quarantined` and `released`; `None` if it is another event.
    pub(crate) fn quarantine_event(
        &mut self,
        place: Place,
        agent: AgentId,
        recorded: &Recorded,
        touched: &mut Touched,
    ) -> Option<Result<Verdict, Void>> {
        let incarnation = match &recorded.event.body {
            Body::AgentQuarantined(e) => e.incarnation,
            Body::AgentReleased(e) => e.incarnation,
            _ => return None,
        };
        let now = self.head.now;
        let swarm = self.swarms.get_mut(&(place.org, place.swarm));
        let outcome = swarm
            .ok_or("unknown-swarm")
            .and_then(|swarm| current(swarm, agent, incarnation))
            .and_then(|found| match &recorded.event.body {
                Body::AgentQuarantined(e) => found.quarantined(e, now, recorded.event.id.0),
                Body::AgentReleased(e) => found.released(e, recorded.sequence),
                _ => Ok(()),
            });
        if outcome.is_ok() {
            touched.agents.push((place.org, place.swarm, agent));
        }
        Some(outcome.map(|()| Verdict::Applied))
    }
}

impl Agent {
    fn measure(&mut self, load: &AgentLoad, taken: u64, now: Timestamp, total: &mut Window) {
        let before = std::mem::replace(&mut self.load, *load);
        if taken < self.joined {
            // Of an earlier incarnation: nothing but where its counters stood.
            self.load = AgentLoad {
                completed: load.completed,
                failed: load.failed,
                ..AgentLoad::default()
            };
            return;
        }
        if !std::mem::replace(&mut self.counts, true) {
            return;
        }
        let completed = risen(before.completed, load.completed);
        let failed = risen(before.failed, load.failed);
        self.window.add(now, completed, failed);
        total.add(now, completed, failed);
        if completed > 0 {
            self.in_a_row = 0;
        }
        if completed > 0 || load.fast_failures < self.dealt_with {
            self.dealt_with = 0;
        }
        if taken < self.released {
            self.dealt_with = load.fast_failures;
        }
    }

    fn quarantined(&mut self, e: &Quarantined, now: Timestamp, event: Uuid) -> Result<(), Void> {
        if self.quarantine.contains_key(&e.cause) {
            return Err("nothing-new");
        }
        if e.cause == Cause::FastFailures {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        let quarantine = Quarantine {
            since: now,
            until: e.until,
            figures: e.figures,
            event,
        };
        self.quarantine.insert(e.cause, quarantine);
        Ok(())
    }

    fn released(&mut self, e: &Released, sequence: u64) -> Result<(), Void> {
        self.quarantine.remove(&e.cause).ok_or("nothing-new")?;
        if e.cause == Cause::FastFailures {
            // It may try again: only a further failure counts.
            self.dealt_with = self.load.fast_failures;
            self.released = sequence;
        }
        Ok(())
    }
}
