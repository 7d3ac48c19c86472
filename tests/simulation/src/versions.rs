//! Versions of a service: what a rolling upgrade brings together on one log.

use serde::{Deserialize, Serialize};
use swarm_events::{
    Body, Input, Partition, Problem, Service, Timestamp,
    control::Observed,
    decider::{Decider, Decision, Head, Verdict},
    envelope::Source,
};
use swarm_log::simulated::SimulatedLog;

use crate::shells::{Ears, Letter, Shell};

/// A version of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// It does not know an event type that this one writes.
    Before,
    /// This one.
    This,
    /// It folds the same, and decides some things otherwise.
    After,
}

/// The service `D` as a later version has it: the same fold, another choice.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "D: Decider")]
pub struct Later<D: Decider>(D);

impl<D: Decider + Shell> Decider for Later<D> {
    const SERVICE: Service = D::SERVICE;
    const VERSION: u32 = D::VERSION + 1;
    const FORMAT: u32 = D::FORMAT;
    type Plan = D::Plan;

    fn new(partition: Partition) -> Self {
        Self(D::new(partition))
    }
    fn head(&self) -> &Head {
        self.0.head()
    }
    fn evolve(&mut self, input: &Input, plan: Option<&mut Self::Plan>) -> Verdict {
        self.0.evolve(input, plan)
    }
    fn plan(&self) -> Self::Plan {
        self.0.plan()
    }
    fn decide(&self, plan: &mut Self::Plan, limit: usize, out: &mut Vec<Decision>) {
        let before = out.len();
        // In smaller turns, too.
        self.0.decide(plan, limit.min(3), out);
        out[before..].iter_mut().for_each(D::otherwise);
    }
    fn next_deadline(&self, plan: &Self::Plan) -> Option<Timestamp> {
        self.0.next_deadline(plan)
    }
    fn reject(&mut self, sequence: u64, problem: &Problem) {
        self.0.reject(sequence, problem);
    }
}

impl<D: Decider + Shell> Shell for Later<D> {
    fn hydrate(log: &SimulatedLog, decision: Decision) -> Result<Decision, Problem> {
        D::hydrate(log, decision)
    }
    fn observe(state: &Self, ears: &mut Ears, now: u64, time: Timestamp) -> Vec<Observed> {
        D::observe(&state.0, ears, now, time)
    }
    fn letters(state: &Self, log: &SimulatedLog, source: &Source, time: Timestamp) -> Vec<Letter> {
        D::letters(&state.0, log, source, time)
    }
    fn owned(state: &Self, ears: &mut Ears, now: u64) {
        D::owned(&state.0, ears, now);
    }
    fn known_before(body: &Body) -> bool {
        D::known_before(body)
    }
}
