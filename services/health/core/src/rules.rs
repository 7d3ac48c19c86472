//! When an agent is unfit, and when it is fit again: what the state demands, by cause.

use swarm_events::{
    Timestamp,
    agent::{Cause, Figures},
    planted::{self, Bug},
};
use uuid::Uuid;

use crate::{
    agent::{Agent, Quarantine},
    swarm::Swarm,
};

/// Every cause.
pub(crate) const CAUSES: [Cause; 5] = [
    Cause::FastFailures,
    Cause::ErrorRate,
    Cause::Memory,
    Cause::Cpu,
    Cause::Stuck,
];
/// A quarantine for fast failures is doubled at most so many times: thirty-two times the first one.
const DOUBLINGS_MAX: u32 = 5;

/// What is to be said of an agent, and the event that it follows from.
pub(crate) enum Demand {
    Quarantine(Figures, Option<Timestamp>, Uuid),
    Release(Figures, Uuid),
}

/// What the figures say of a cause now.
struct Finding {
    figures: Figures,
    /// It is reason to begin a quarantine.
    is_unfit: bool,
    /// It is reason enough for one that holds already.
    is_still_unfit: bool,
    /// The event that the figures are from.
    event: Uuid,
}

impl Swarm {
    /// What the state demands about a cause; `None` if all is said.
    pub(crate) fn demand(&self, agent: &Agent, cause: Cause, now: Timestamp) -> Option<Demand> {
        let held = agent.quarantine.get(&cause);
        let finding = self.finding(agent, cause, held, now)?;
        match held {
            Some(_) if planted::is(Bug::QuarantineNeverEnds) => None,
            Some(held) if !finding.is_still_unfit => {
                Some(Demand::Release(finding.figures, held.event))
            }
            None if finding.is_unfit => {
                let until = (cause == Cause::FastFailures).then(|| {
                    let doublings = agent.in_a_row.min(DOUBLINGS_MAX);
                    now.plus_millis(self.policy.quarantine_ms.saturating_mul(1 << doublings))
                });
                Some(Demand::Quarantine(finding.figures, until, finding.event))
            }
            _ => None,
        }
    }

    fn finding(
        &self,
        agent: &Agent,
        cause: Cause,
        held: Option<&Quarantine>,
        now: Timestamp,
    ) -> Option<Finding> {
        let policy = &self.policy;
        let load = &agent.load;
        Some(match cause {
            Cause::FastFailures => {
                let (value, limit) = (load.fast_failures, policy.fast_failures_max);
                let is_on = limit > 0;
                Finding {
                    figures: figures(value, limit, value),
                    is_unfit: is_on && value >= limit && value > agent.dealt_with,
                    is_still_unfit: is_on
                        && held.is_some_and(|held| held.until.is_some_and(|until| now < until)),
                    event: agent.measured,
                }
            }
            Cause::ErrorRate => {
                let rate = agent.rate(now);
                let is_over = self.is_over(agent, now);
                Finding {
                    figures: figures(rate.percent, policy.error_rate_percent, rate.attempts),
                    is_unfit: is_over && self.others_do_better(agent, now),
                    is_still_unfit: is_over,
                    event: agent.measured,
                }
            }
            Cause::Stuck => Finding::simple(
                figures(load.stuck_ms, policy.stuck_after_ms, load.stuck),
                policy.stuck_after_ms > 0 && load.stuck > 0,
                agent.measured,
            ),
            Cause::Memory => {
                let usage = agent.usage?;
                let (value, limit) = (usage.memory_kib, policy.memory_kib_max);
                Finding::simple(
                    figures(value, limit, 0u64),
                    limit > 0 && value >= limit,
                    usage.event,
                )
            }
            Cause::Cpu => {
                let usage = agent.usage?;
                let (value, limit) = (usage.cpu_centipercent, policy.cpu_centipercent_max);
                Finding::simple(
                    figures(value, limit, 0u64),
                    limit > 0 && value >= limit,
                    usage.event,
                )
            }
        })
    }

    /// So many of its attempts failed that it may be unfit.
    fn is_over(&self, agent: &Agent, now: Timestamp) -> bool {
        let limit = u64::from(self.policy.error_rate_percent);
        let rate = agent.rate(now);
        limit > 0
            && rate.attempts >= u64::from(self.policy.error_attempts_min)
            && rate.failed.saturating_mul(100) >= rate.attempts.saturating_mul(limit)
    }

    /// Whether it is the agent and not the work: the others together fail less than half as often as they may.
    fn others_do_better(&self, agent: &Agent, now: Timestamp) -> bool {
        let limit = u64::from(self.policy.error_rate_percent);
        let others = self.rate(now).without(agent.rate(now));
        others.attempts > 0
            && others.failed.saturating_mul(200) < others.attempts.saturating_mul(limit)
    }

    /// It is spared only because the others fail too, or did: looked at again whenever theirs move.
    pub(crate) fn is_spared(&self, agent: &Agent, now: Timestamp) -> bool {
        !agent.quarantine.contains_key(&Cause::ErrorRate)
            && self.is_over(agent, now)
            && !self.others_do_better(agent, now)
    }

    /// When something about the agent may be demanded without any new event.
    pub(crate) fn timer(&self, agent: &Agent, now: Timestamp) -> Option<Timestamp> {
        if self.stopping || !agent.is_watched() {
            return None;
        }
        let held = |cause: Cause| agent.quarantine.get(&cause);
        let over = held(Cause::FastFailures).and_then(|quarantine| quarantine.until);
        let spared = self.is_spared(agent, now);
        let own = (spared || held(Cause::ErrorRate).is_some())
            .then(|| agent.window.next_slide(now))
            .flatten();
        let others = spared.then(|| self.total.next_slide(now)).flatten();
        [over, own, others]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }
}

impl Finding {
    /// Of a cause that holds as long as its figure is at the limit.
    const fn simple(figures: Figures, is_unfit: bool, event: Uuid) -> Self {
        Self {
            figures,
            is_unfit,
            is_still_unfit: is_unfit,
            event,
        }
    }
}

fn figures(value: impl Into<u64>, limit: impl Into<u64>, attempts: impl Into<u64>) -> Figures {
    Figures {
        value: value.into(),
        limit: limit.into(),
        attempts: attempts.into(),
    }
}
