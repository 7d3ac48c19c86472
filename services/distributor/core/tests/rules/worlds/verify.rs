//! What must be true of a world that has come to rest.

use std::collections::BTreeMap;

use swarm_distributor_core::{TaskView, Touched};
use swarm_events::{
    AgentId, Body, Input, TaskId,
    decider::{Decider, Verdict},
};
use uuid::Uuid;

use super::Worlds;

impl Worlds {
    /// After the healing: each task ended once in each generation, and nothing is left.
    pub(super) fn verify(&mut self) {
        self.driver.nothing_is_left();
        let mut ends: BTreeMap<(Uuid, u32), u32> = BTreeMap::new();
        let mut generations: BTreeMap<Uuid, u32> = BTreeMap::new();
        for (stored, verdict) in self
            .driver
            .s
            .world
            .log
            .iter()
            .zip(&self.driver.s.world.verdicts)
        {
            let (Input::Event(recorded), Verdict::Applied) = (stored.input(), verdict) else {
                continue;
            };
            let id = recorded.event.about;
            let generation = generations.entry(id).or_insert(1);
            match recorded.event.body {
                Body::TaskRetried(retried) => *generation = retried.generation,
                Body::TaskCompleted(_)
                | Body::TaskFailed(_)
                | Body::TaskCancelled(_)
                | Body::TaskRejected(_) => {
                    *ends.entry((id, *generation)).or_default() += 1;
                }
                _ => {}
            }
        }
        assert!(ends.values().all(|n| *n == 1), "{ends:?}");
        for name in self.driver.names.clone() {
            let id = self.driver.s.task_id(&name);
            if let Some(view) = self.driver.s.world.state.task(self.driver.s.place, id) {
                assert!(view.status.ended(), "{name}: {view:?}");
                let generation = generations.get(&id.0).copied().unwrap_or(1);
                let once = ends.contains_key(&(id.0, generation));
                assert!(
                    once || view.rejected,
                    "{name} has no end in generation {generation}"
                );
            }
        }
        assert_eq!(self.driver.s.world.in_flight(), 0);
    }

    /// Nothing was assigned to an agent that rests, as far as the owner had met when it decided.
    pub(super) fn nothing_for_those_that_rest(&self) {
        let mut state = swarm_distributor_core::Distributor::new(self.driver.s.place.partition);
        // Who gets nothing from which sequence on.
        let mut rests: BTreeMap<(AgentId, u64), bool> = BTreeMap::new();
        let mut assigned = Vec::new();
        for input in self.driver.s.world.inputs() {
            state.evolve(&input, None);
            for agent in state.agents(self.driver.s.place) {
                let on_probation = agent.half_open && !agent.running.is_empty();
                let out = agent.draining
                    || !agent.quarantine.is_empty()
                    || agent.barred_until.is_some()
                    || on_probation;
                rests.insert((agent.id, state.head().sequence), out);
            }
            if let Input::Event(recorded) = &input
                && let (Body::TaskAssigned(_), Some(decided), Some(agent)) = (
                    &recorded.event.body,
                    recorded.event.decided,
                    recorded.subject.agent(),
                )
            {
                assigned.push((agent, decided.cause_sequence));
            }
        }
        for (agent, cause) in assigned {
            let then = rests.range((agent, 0)..=(agent, cause)).next_back();
            assert_eq!(
                then.map(|(_, out)| *out),
                Some(false),
                "{} got something at {cause}",
                self.driver.s.named(&agent.to_string())
            );
        }
    }

    /// A projector that follows row by row ends with the same state, and its rows with the same statuses.
    pub(super) fn trace(&mut self) {
        let mut state = swarm_distributor_core::Distributor::new(self.driver.s.place.partition);
        let mut rows: BTreeMap<TaskId, TaskView> = BTreeMap::new();
        // A setting moves it for all that wait, whose rows it does not touch.
        let row = |view: TaskView| TaskView {
            queue_timeout_at: None,
            ..view
        };
        let mut touched = Touched::default();
        for input in self.driver.s.world.inputs() {
            touched.clear();
            state.evolve_traced(&input, &mut touched);
            for (place, id) in &touched.tasks {
                let view = touched
                    .ended
                    .get(&(*place, *id))
                    .cloned()
                    .or_else(|| state.task(*place, *id));
                rows.insert(*id, row(view.expect("a touched task is there")));
            }
            for view in state.tasks(self.driver.s.place) {
                assert_eq!(
                    rows.get(&view.id),
                    Some(&row(view)),
                    "an untouched row is out of date"
                );
            }
        }
        assert!(state == self.driver.s.world.state);
    }
}
