//! The distributor's pure core: which task goes to which agent, and how each ends exactly once.
//!
//! [`Distributor`] is the fold of a partition; its decisions are answers to what the fold shows undone ([`Plan`] knows
//! what that is, and what is under way). Nothing here knows a clock, randomness, IO, floats or hash order.
//!
//! Where things are: `evolve` holds the preconditions and effects of events, `decide` the answers, `plan` the owner's
//! indexes, `strategy` the algorithms, `view` what others may read.
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

pub mod affinity;
mod agent;
pub mod carried;
mod check;
mod class;
mod decide;
mod evolve;
pub mod explain;
mod figures;
mod graph;
mod memory;
pub mod outbox;
mod plan;
mod read;
mod state;
pub mod strategy;
mod swarm;
mod task;
mod trace;
pub mod view;

use swarm_events::{
    Input, Partition, Problem, Service, Timestamp,
    decider::{Decider, Decision, Head, Verdict},
};

pub use agent::{BARRED_MS, LAPSES_MAX, START_LIMIT_MS};
pub use evolve::{QUEUE_RETRY_AFTER_MS, SUMS_MAX};
pub use graph::{GRAPH_DEPENDENCIES_MAX, GRAPH_PARTS_MS_MAX};
pub use plan::{MEASURE_MS, Plan, STEAL_AFTER_MS, STEALS_MAX};
pub use state::Distributor;
pub use swarm::CAUSE_BYTES_MAX;
pub use task::{DECLINES_MAX, PAYLOAD_HELD_BYTES_MAX};
pub use view::{AgentView, Counters, DependencyView, PartsView, Status, TaskView, Touched};

use trace::Trace;

impl Decider for Distributor {
    const SERVICE: Service = Service::Distributor;
    const VERSION: u32 = 5;
    const FORMAT: u32 = 6;
    type Plan = Plan;

    fn new(partition: Partition) -> Self {
        Self::new(partition)
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn evolve(&mut self, input: &Input, plan: Option<&mut Plan>) -> Verdict {
        let Some(plan) = plan else {
            return self.step(input, &mut Trace::default());
        };
        let mut trace = std::mem::take(&mut plan.trace);
        trace.on = true;
        let verdict = self.step(input, &mut trace);
        plan.follow(self, &trace);
        trace.clear();
        plan.trace = trace;
        verdict
    }

    fn plan(&self) -> Plan {
        Plan::of(self)
    }

    fn decide(&self, plan: &mut Plan, limit: usize, out: &mut Vec<Decision>) {
        self.answer(plan, limit, out);
    }

    fn next_deadline(&self, plan: &Plan) -> Option<Timestamp> {
        let delayed = self.delayed.first().map(|&(until, ..)| until);
        let declined = self.declined.first().map(|&(until, ..)| until);
        let barred = self.barred.first().map(|&(until, ..)| until);
        let stuck = self.stuck_checks.first().map(|&(when, ..)| when);
        let timers = plan.next_timer().into_iter();
        let all = timers.chain(delayed).chain(declined);
        all.chain(barred).chain(stuck).min()
    }

    fn reject(&mut self, sequence: u64, problem: &Problem) {
        self.reject_marks(sequence, problem, &mut Trace::default());
    }
}
