//! Answers to open marks, in the order in which they opened; then ends of what has waited too long; then assignments; then
//! steals, for those who still have nothing.

mod answers;
mod assign;
mod commands;
mod steal;

pub(crate) use answers::take_away;

use swarm_events::decider::Decision;

use crate::{
    plan::{Mark, Plan},
    state::Distributor,
    swarm::Swarm,
};

/// How many tasks of a stopping swarm are looked at in one go for each decision that may be made.
const SWEEP_FACTOR: usize = 4;

impl Distributor {
    pub(crate) fn answer(&self, plan: &mut Plan, limit: usize, out: &mut Vec<Decision>) {
        let end = out.len().saturating_add(limit);
        while out.len() < end {
            if plan.due.is_empty() && !self.sweep(plan, limit) {
                break;
            }
            let Some(&(_, mark)) = plan.due.first() else {
                continue;
            };
            self.answer_mark(plan, mark, end, out);
            if plan.due.first().is_some_and(|&(_, first)| first == mark) {
                // Whatever it was, it was looked at: it must not be the first for ever.
                plan.due.pop_first();
            }
        }
        while out.len() < end {
            let Some(&swarm) = plan.outwaited.first() else {
                break;
            };
            self.let_go(plan, swarm, end, out);
        }
        while out.len() < end {
            let Some(&swarm) = plan.assignable.first() else {
                break;
            };
            self.assign(plan, swarm, end, out);
        }
        while out.len() < end {
            let Some(&swarm) = plan.thieving.first() else {
                break;
            };
            self.steal(plan, swarm, end, out);
        }
    }

    /// Looks at more tasks of stopping swarms. False: all have been looked at.
    fn sweep(&self, plan: &mut Plan, limit: usize) -> bool {
        let Some((&number, &from)) = plan.sweeps.first_key_value() else {
            return false;
        };
        let Some(swarm) = self.swarm(number) else {
            plan.sweeps.remove(&number);
            return true;
        };
        let turn = u32::try_from(limit.saturating_mul(SWEEP_FACTOR))
            .unwrap_or(u32::MAX)
            .max(1);
        let to = swarm.tasks.end().min(from.saturating_add(turn));
        for at in from..to {
            plan.refresh_task(self, number, at);
        }
        if to >= swarm.tasks.end() {
            plan.sweeps.remove(&number);
        } else {
            plan.sweeps.insert(number, to);
        }
        true
    }

    fn answer_mark(&self, plan: &mut Plan, mark: Mark, end: usize, out: &mut Vec<Decision>) {
        let before = out.len();
        match mark {
            Mark::Refusal(sequence) => self.answer_refusal(sequence, out),
            Mark::Command(sequence) => return self.answer_command(plan, sequence, out),
            Mark::Graph(swarm, id) => self.answer_graph(swarm, id, out),
            Mark::Task(swarm, at) => self.answer_task(swarm, at, out),
            // They may be again what was written last, though they had moved in between.
            Mark::Measure(swarm) if !self.swarm(swarm).is_some_and(Swarm::figures_moved) => {
                plan.refresh_mark(self, mark);
            }
            Mark::Measure(swarm) => self.answer_measure(plan, swarm, end, out),
        }
        let decisions = (out.len() - before) as u32;
        if decisions > 0 {
            plan.depart(self, mark, decisions);
        }
    }
}
