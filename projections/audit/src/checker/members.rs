//! What happens to swarms and their agents.

use swarm_events::{
    AgentId, Body, Place, Recorded,
    control::{Observed, Sighting},
    swarm::Measured,
};
use swarm_topology::Shape;

use super::{
    Checker,
    cause::{News, Rules},
    swarm::{Settings, Swarm},
};
use crate::Invariant;

type Outcome = Result<(), &'static str>;

impl Checker {
    pub(super) fn swarm_event(&mut self, place: Place, recorded: &Recorded) -> Outcome {
        let sequence = recorded.sequence;
        let configuration = match &recorded.event.body {
            Body::SwarmCreated(created) => {
                if self.number(place).is_ok() {
                    return Err("swarm-exists");
                }
                let number = self.swarms.len();
                self.numbers.insert((place.org, place.swarm), number);
                let home = usize::from(place.partition.number());
                let mut swarm = Swarm::of(home);
                swarm.shape = Some(Box::new(Shape::of(created)));
                self.swarms.push(swarm);
                let news = News::Shaped(number, None, Box::new(recorded.event.body.clone()));
                self.homes[home].cause.tell(sequence, news);
                &created.configuration
            }
            Body::SwarmUpdated(updated) => &updated.configuration,
            Body::SwarmStopping(_) => {
                let number = self.number(place)?;
                self.swarms[number].stop(sequence);
                return Ok(());
            }
            Body::SwarmDeleted(_) => {
                let number = self.number(place)?;
                if std::mem::replace(&mut self.swarms[number].deleted, true) {
                    return Err("swarm-ended");
                }
                return Ok(());
            }
            Body::SwarmMeasured(measured) => {
                let number = self.number(place)?;
                self.measured(number, recorded, measured);
                return Ok(());
            }
            Body::SwarmSampled(sampled) => {
                let number = self.number(place)?;
                for (id, sample) in &sampled.agents {
                    if let Some(agent) = self.swarms[number].agents.get_mut(id) {
                        agent.sampled(sample, sequence);
                    }
                }
                return Ok(());
            }
            Body::SwarmScaled(scaled) => {
                let number = self.number(place)?;
                self.scaled(number, recorded, scaled);
                self.swarms[number].changed = recorded.time;
                return Ok(());
            }
            Body::SwarmTopologyPlanned(_)
            | Body::SwarmTopologyChanged(_)
            | Body::SwarmTopologyKept(_)
            | Body::SwarmLeaderElected(_) => {
                let number = self.number(place)?;
                self.swarms[number].changed = recorded.time;
                return self.shape_event(number, None, recorded).unwrap_or(Ok(()));
            }
            _ => return Ok(()),
        };
        let number = self.number(place)?;
        let swarm = &mut self.swarms[number];
        swarm.settings.note(sequence, Settings::from(configuration));
        swarm.changed = recorded.time;
        let rules = News::Rules(number, Rules::from(configuration));
        let home = swarm.home;
        self.homes[home].cause.tell(sequence, rules);
        Ok(())
    }

    /// A measurement that is void to its owner, and that health goes by.
    pub(super) fn overtaken(&mut self, recorded: &Recorded) {
        if let Body::SwarmMeasured(measured) = &recorded.event.body
            && let Some(number) = self.swarm_of(recorded)
        {
            self.loads(number, recorded.sequence, measured);
        }
    }

    fn loads(&mut self, number: usize, sequence: u64, measured: &Measured) {
        let swarm = &mut self.swarms[number];
        for (id, load) in &measured.agents {
            if let Some(agent) = swarm.agents.get_mut(id) {
                agent.loads.note(sequence, *load);
            }
        }
    }

    fn measured(&mut self, number: usize, recorded: &Recorded, measured: &Measured) {
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        self.loads(number, recorded.sequence, measured);
        let swarm = &self.swarms[number];
        let Some(counted) = swarm.completed_at(cause) else {
            return;
        };
        self.notes.checked(Invariant::ResultOfStandingAssignment);
        if measured.completed != counted {
            self.notes.broken(
                Invariant::ResultOfStandingAssignment,
                recorded.sequence,
                || {
                    format!(
                        "the distributor counts {} completed tasks at {cause}, where {counted} results were valid",
                        measured.completed
                    )
                },
            );
        }
    }

    pub(super) fn agent_event(
        &mut self,
        place: Place,
        id: AgentId,
        recorded: &Recorded,
    ) -> Outcome {
        let number = self.number(place)?;
        let outcome = self
            .shape_event(number, Some(id), recorded)
            .or_else(|| self.question_event(number, id, recorded))
            .or_else(|| self.process_event(number, id, recorded))
            .or_else(|| self.quarantine_event(number, id, recorded))
            .unwrap_or_else(|| self.member_event(number, id, recorded));
        if outcome.is_ok() {
            self.swarms[number].changed = recorded.time;
        }
        outcome
    }

    fn member_event(&mut self, number: usize, id: AgentId, recorded: &Recorded) -> Outcome {
        let sequence = recorded.sequence;
        match &recorded.event.body {
            Body::AgentRemoved(removed) => self.removed(number, id, recorded, removed),
            Body::AgentFailed(failed) => self.failed(number, id, recorded, failed),
            _ => {}
        }
        let swarm = &mut self.swarms[number];
        if let Body::AgentJoined(joined) = &recorded.event.body {
            swarm
                .agents
                .entry(id)
                .or_default()
                .joined(joined, sequence)?;
            swarm
                .wishes
                .entry(id)
                .or_default()
                .joined(joined.incarnation, sequence);
            self.describe(number, id, sequence);
            return Ok(());
        }
        let agent = swarm.agents.get_mut(&id).ok_or("unknown-agent")?;
        match &recorded.event.body {
            Body::AgentLeft(e) => {
                agent.gone(e.incarnation, sequence)?;
                let wish = swarm.wishes.entry(id).or_default();
                wish.gone(e.incarnation, true, sequence, recorded.time);
                Ok(())
            }
            Body::AgentRemoved(e) => {
                agent.gone(e.incarnation, sequence)?;
                let wish = swarm.wishes.entry(id).or_default();
                wish.gone(e.incarnation, false, sequence, recorded.time);
                Ok(())
            }
            Body::AgentSuspected(e) => agent.suspect(e.incarnation, true, sequence),
            Body::AgentRecovered(e) => agent.suspect(e.incarnation, false, sequence),
            Body::AgentFailed(e) => agent.fail(e.incarnation, sequence),
            Body::AgentUpdated(e) => {
                agent.updated(e.incarnation, &e.profile, sequence)?;
                self.describe(number, id, sequence);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Health's shell saw something of an agent.
    pub(super) fn sighted(&mut self, sequence: u64, seen: &Observed) {
        if let Observed::Liveness {
            org_id,
            swarm_id,
            agent_id,
            incarnation,
            sighting: Sighting::Gone,
            ..
        } = seen
            && let Some(number) = self.numbers.get(&(*org_id, *swarm_id))
            && let Some(agent) = self.swarms[*number].agents.get_mut(agent_id)
        {
            agent.seen_to_be_gone(*incarnation, sequence);
        }
    }

    /// Tells what an agent can do from here on.
    fn describe(&mut self, number: usize, id: AgentId, sequence: u64) {
        let swarm = &self.swarms[number];
        let Some(agent) = swarm.agents.get(&id) else {
            return;
        };
        let news = News::Described {
            swarm: number,
            agent: id,
            incarnation: agent.incarnation,
            slots: agent.slots,
            places: agent.places,
            capabilities: agent.capabilities.clone(),
        };
        self.homes[swarm.home].cause.tell(sequence, news);
    }
}
