//! Steals: what waits at a busy agent is withdrawn without force, so that the log referees between the withdrawal and the
//! agent's start, and goes back to the queue, where an idle agent gets it.

use swarm_events::{
    decider::Decision,
    planted::{self, Bug},
    task::{Then, WithdrawReason},
};

use super::answers::withdrawal;
use crate::{
    plan::{Mark, Plan, steal::Find},
    state::Distributor,
};

impl Distributor {
    pub(super) fn steal(&self, plan: &mut Plan, number: u32, end: usize, out: &mut Vec<Decision>) {
        let mut later = None;
        while out.len() < end {
            let found = match (self.swarm(number), plan.swarms.get(number as usize)) {
                (Some(swarm), Some(index)) if index.may_steal() => {
                    index.next_steal(swarm, self.head.now)
                }
                _ => Find::Nothing,
            };
            let (task, thief) = match found {
                Find::Steal { task, thief } => (task, thief),
                Find::Later(when) => {
                    later = Some(when);
                    plan.thieving.remove(&number);
                    break;
                }
                Find::Nothing => {
                    plan.thieving.remove(&number);
                    break;
                }
            };
            let Some(decision) = self.taking_over(number, task, thief) else {
                plan.thieving.remove(&number);
                break;
            };
            out.push(decision);
            if let Some(index) = plan.swarms.get_mut(number as usize) {
                index.reserve(task, thief);
            }
            plan.depart(self, Mark::Task(number, task), 1);
            plan.refresh_agent(self, number, thief);
        }
        plan.set_steal_timer(number, later);
    }

    fn taking_over(&self, number: u32, at: u32, thief: u32) -> Option<Decision> {
        let swarm = self.swarm(number)?;
        let task = swarm.tasks.get(at)?;
        let held = task.phase.held()?;
        let thief = swarm.agents.get(thief as usize)?.id;
        let (reason, then) = (WithdrawReason::Steal, Then::Queue);
        let force = planted::is(Bug::StealsWithForce);
        withdrawal(swarm, task, held, reason, force, then, Some(thief))
    }
}
