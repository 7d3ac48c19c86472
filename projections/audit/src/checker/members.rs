//! What happens to swarms and their agents.

use swarm_events::{AgentId, Body, Place, Recorded};

use super::{
    Checker,
    cause::{News, Rules},
    swarm::Swarm,
};
use crate::Invariant;

type Outcome = Result<(), &'static str>;

impl Checker {
    pub(super) fn swarm_event(&mut self, place: Place, recorded: &Recorded) -> Outcome {
        match &recorded.event.body {
            Body::SwarmCreated(created) => {
                if self.number(place).is_ok() {
                    return Err("swarm-exists");
                }
                let number = self.swarms.len();
                self.numbers.insert((place.org, place.swarm), number);
                let home = usize::from(place.partition.number());
                self.swarms.push(Swarm::of(home));
                let rules = News::Rules(number, Rules::from(&created.configuration));
                self.homes[home].cause.tell(recorded.sequence, rules);
            }
            Body::SwarmUpdated(updated) => {
                let number = self.number(place)?;
                let rules = News::Rules(number, Rules::from(&updated.configuration));
                let home = self.swarms[number].home;
                self.homes[home].cause.tell(recorded.sequence, rules);
            }
            Body::SwarmStopping(_) => {
                let number = self.number(place)?;
                self.swarms[number].stopping = true;
            }
            Body::SwarmDeleted(_) => {
                let number = self.number(place)?;
                if std::mem::replace(&mut self.swarms[number].deleted, true) {
                    return Err("swarm-ended");
                }
            }
            Body::SwarmMeasured(measured) => {
                let number = self.number(place)?;
                let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
                if let Some(counted) = self.swarms[number].completed_at(cause) {
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
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn agent_event(
        &mut self,
        place: Place,
        id: AgentId,
        recorded: &Recorded,
    ) -> Outcome {
        let number = self.number(place)?;
        let swarm = &mut self.swarms[number];
        let sequence = recorded.sequence;
        if let Body::AgentJoined(joined) = &recorded.event.body {
            let agent = swarm.agents.entry(id).or_default();
            agent.joined(joined, sequence)?;
            let news = News::Joined {
                swarm: number,
                agent: id,
                incarnation: agent.incarnation,
                slots: agent.slots,
                places: agent.places,
                capabilities: agent.capabilities.clone(),
            };
            self.homes[swarm.home].cause.tell(sequence, news);
            return Ok(());
        }
        let agent = swarm.agents.get_mut(&id).ok_or("unknown-agent")?;
        match &recorded.event.body {
            Body::AgentLeft(e) => agent.gone(e.incarnation, sequence),
            Body::AgentRemoved(e) => agent.gone(e.incarnation, sequence),
            Body::AgentSuspected(e) => agent.suspect(e.incarnation, true, sequence),
            Body::AgentRecovered(e) => agent.suspect(e.incarnation, false, sequence),
            Body::AgentFailed(e) => agent.fail(e.incarnation, sequence),
            _ => Ok(()),
        }
    }
}
