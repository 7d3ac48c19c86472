//! What attempts that failed say of their agent.

use swarm_events::{Timestamp, agent::Cause, task::WithdrawReason};

use crate::{state::Distributor, trace::Trace};

impl Distributor {
    /// Failures before a success count no more.
    pub(super) fn succeeded(&mut self, swarm: u32, at: u32, trace: &mut Trace) {
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return;
        };
        let Some(agent) = state.agents.get_mut(at as usize) else {
            return;
        };
        if std::mem::take(&mut agent.fast_failures) > 0 {
            state.note_load(at, trace);
            self.unbar(swarm, at, trace);
        }
    }

    /// Counts an attempt that failed right after its start, and bars the agent if that happens too often.
    pub(super) fn failed_fast(&mut self, swarm: u32, at: u32, trace: &mut Trace) {
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return;
        };
        let max = state.settings.fast_failures_max;
        let Some(agent) = state.agents.get_mut(at as usize) else {
            return;
        };
        agent.fast_failures = agent.fast_failures.saturating_add(1);
        let bar = max > 0
            && agent.fast_failures >= max
            && agent.barred_until == Timestamp::ZERO
            && !agent.quarantine.contains_key(&Cause::FastFailures);
        state.note_load(at, trace);
        if bar {
            self.bar(swarm, at, trace);
        }
    }
}

/// Whether an attempt that is taken away for this has failed, and was not just in the way or lost.
pub(super) const fn failed_by(reason: WithdrawReason) -> bool {
    matches!(
        reason,
        WithdrawReason::Timeout | WithdrawReason::NoProgress | WithdrawReason::BadResult
    )
}
