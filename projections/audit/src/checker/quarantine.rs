//! What is promised of quarantine: it rests on figures that the log holds, and it ends.

use swarm_events::{
    AgentId, Body, Recorded,
    agent::{Cause, Quarantined, Released},
};

use super::{Checker, agent::Agent, processes::LATE_MS, swarm::Settings};
use crate::Invariant;

type Outcome = Result<(), &'static str>;

impl Checker {
    /// Judges a quarantine, or its end, by what health had met. `None`: the event is about something else.
    pub(super) fn quarantine_event(
        &mut self,
        number: usize,
        id: AgentId,
        recorded: &Recorded,
    ) -> Option<Outcome> {
        let sequence = recorded.sequence;
        Some(match &recorded.event.body {
            Body::AgentQuarantined(quarantined) => {
                self.quarantined(number, id, recorded, quarantined);
                let agent = self.swarms[number].agents.get_mut(&id)?;
                agent.quarantined(
                    quarantined.incarnation,
                    quarantined.cause,
                    quarantined.until,
                    sequence,
                    recorded.time,
                )
            }
            Body::AgentReleased(released) => self.released(number, id, recorded, released),
            _ => return None,
        })
    }

    fn quarantined(&mut self, number: usize, id: AgentId, recorded: &Recorded, told: &Quarantined) {
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let swarm = &self.swarms[number];
        let Some(agent) = swarm.agents.get(&id) else {
            return;
        };
        // A verdict on one that has come back since is void, and says nothing.
        if agent
            .seen_at(cause)
            .is_none_or(|seen| seen.incarnation != told.incarnation)
            || agent.incarnation != told.incarnation
        {
            return;
        }
        let Ok(settings) = swarm.settings.at(cause) else {
            return;
        };
        self.notes.checked(Invariant::QuarantinesHaveFigures);
        if let Some(wrong) = unfounded(agent, settings, told, cause) {
            self.notes
                .broken(Invariant::QuarantinesHaveFigures, recorded.sequence, || {
                    format!(
                        "agent {id} is put into quarantine for {:?} by {:?}: {wrong}",
                        told.cause, told.figures
                    )
                });
        }
    }

    fn released(
        &mut self,
        number: usize,
        id: AgentId,
        recorded: &Recorded,
        released: &Released,
    ) -> Outcome {
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let time = self.times.at(cause);
        let swarm = &mut self.swarms[number];
        let switched_off = swarm
            .settings
            .at(cause)
            .is_ok_and(|settings| settings.health.fast_failures_max == 0);
        let agent = swarm.agents.get_mut(&id).ok_or("unknown-agent")?;
        let until = agent.released(released.incarnation, released.cause, recorded.sequence)?;
        self.notes.checked(Invariant::QuarantinesEnd);
        if let (Some(until), Some(time)) = (until, time)
            && time < until
            && !switched_off
        {
            self.notes
                .broken(Invariant::QuarantinesEnd, recorded.sequence, || {
                    format!("agent {id} is released at {time}, and was in quarantine until {until}")
                });
        }
        Ok(())
    }

    /// At rest no quarantine lasts beyond its time.
    pub(super) fn quarantines_are_over(&mut self, last: u64) {
        let now = self.last.1.minus_millis(LATE_MS);
        for swarm in self.swarms.iter().filter(|swarm| !swarm.stopping()) {
            for (id, agent) in &swarm.agents {
                for (cause, until) in agent.overdue(now) {
                    self.notes.broken(Invariant::QuarantinesEnd, last, || {
                        format!(
                            "agent {id} is in quarantine for {cause:?}, and was to be until {until}"
                        )
                    });
                }
            }
        }
    }
}

/// Why the log's figures do not bear it.
fn unfounded(agent: &Agent, settings: &Settings, told: &Quarantined, cause: u64) -> Option<String> {
    let health = &settings.health;
    let figures = told.figures;
    let limit = match told.cause {
        Cause::FastFailures => u64::from(health.fast_failures_max),
        Cause::ErrorRate => u64::from(health.error_rate_percent),
        Cause::Memory => health.memory_kib_max,
        Cause::Cpu => u64::from(health.cpu_centipercent_max),
        Cause::Stuck => health.stuck_after_ms,
    };
    if limit == 0 {
        return Some("the swarm has no such rule".to_owned());
    }
    if figures.limit != limit {
        return Some(format!("its limit was {limit}"));
    }
    // How long something is stuck is told by a limit that may have changed since.
    if figures.value < limit && told.cause != Cause::Stuck {
        return Some("that is below the limit".to_owned());
    }
    let told_value = match told.cause {
        Cause::ErrorRate => {
            let least = u64::from(health.error_attempts_min);
            return (figures.attempts < least)
                .then(|| format!("fewer than {least} attempts say nothing"));
        }
        Cause::FastFailures => agent
            .loads
            .at(cause)
            .map(|load| u64::from(load.fast_failures)),
        Cause::Stuck => agent.loads.at(cause).map(|load| match load.stuck {
            0 => 0,
            _ => load.stuck_ms,
        }),
        Cause::Memory => agent.samples.at(cause).map(|(memory, _)| *memory),
        Cause::Cpu => agent.samples.at(cause).map(|(_, cpu)| u64::from(*cpu)),
    };
    match told_value {
        Ok(value) => (value != figures.value).then(|| format!("the last figure was {value}")),
        Err(true) => None,
        Err(false) => Some("no figure of it is in the log".to_owned()),
    }
}
