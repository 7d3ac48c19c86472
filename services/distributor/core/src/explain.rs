//! Why a task is where it is, and what would change that.
//!
//! Computed from the state, and from a plan that was kept in step with it; nothing is decided here. What the state does not
//! keep (candidates and scores of an assignment, results) is in the events whose sequences an explanation names.
//!
//! The answer is bounded whatever the number of tasks: lists are cut at [`ITEMS_MAX`], and counting those before a task stops
//! at [`COUNT_MAX`].

mod agents;
mod ended;
mod held;
mod pending;
mod queued;
mod release;
mod rivals;
mod shape;
mod token;
mod words;

pub use shape::*;
pub use token::TokenLine;

use swarm_events::{Place, TaskId, Timestamp};

use crate::{
    class::of_class,
    plan::Plan,
    state::Distributor,
    swarm::Swarm,
    task::{Phase, Task},
};

/// Most agents that an explanation names: as many as an assignment names candidates.
pub const ITEMS_MAX: usize = 8;
/// Most open dependencies that are listed; their number is told beside it.
pub const DEPENDENCIES_SHOWN_MAX: usize = 20;
/// Counting the tasks before a task stops here. With 300,000 tasks queued an explanation takes 63 µs on average.
pub const COUNT_MAX: u64 = 1_000;
/// Most queues (one or two for each set of required capabilities and priority) that are looked at. With more, counts are
/// lower bounds, and what depends on all of them is left out.
pub const QUEUES_MAX: usize = 20_000;

impl Distributor {
    /// Why a task of `place` is where it is, and what would change that; `None` if it is not known here: it never was, or it
    /// has been forgotten. `plan` must have been kept in step with this state.
    pub fn explain(&self, plan: &Plan, place: Place, task: TaskId) -> Option<Explanation> {
        let swarm = self.swarm_at(place)?;
        let look = Look {
            state: self,
            swarm,
            plan,
        };
        let found = swarm.task(task);
        let (facts, reason, sentences) = match found {
            Some((at, task)) => {
                let (reason, sentences) = look.live(at, task);
                (Some(look.facts(task)), reason, sentences)
            }
            None => look.ended(swarm.ended.get(&task)?),
        };
        Some(Explanation {
            task_id: task,
            swarm_id: place.swarm,
            status: self.task(place, task)?.status,
            seq: self.head.sequence,
            at: self.head.now,
            task: facts,
            reason,
            sentences,
        })
    }
}

/// What an explanation is made from.
#[derive(Clone, Copy)]
struct Look<'a> {
    state: &'a Distributor,
    swarm: &'a Swarm,
    plan: &'a Plan,
}

impl Look<'_> {
    fn now(&self) -> Timestamp {
        self.state.head.now
    }

    fn live(&self, at: u32, task: &Task) -> (Reason, Vec<String>) {
        let held = task.phase.held().is_some();
        if let Some(deciding) = self.demanded(task).filter(|_| !held) {
            return pending::told(deciding);
        }
        match &task.phase {
            Phase::Staged => self.staged(task),
            Phase::Pending { open } => self.dependencies(task, *open),
            Phase::Delayed { until } => self.delay(task, *until),
            Phase::Queued => self.queued(at, task),
            Phase::Assigned(held) => self.assigned(task, held),
            Phase::Running(held) => self.running(task, held),
            Phase::Failing | Phase::Ending | Phase::Handing => self.deciding(task),
            Phase::Parted { open } => self.parted(task, *open),
            Phase::Away => self.away(task),
        }
    }

    fn facts(&self, task: &Task) -> TaskFacts {
        let more = task.more.as_deref();
        TaskFacts {
            task_type: self.swarm.types.get(task.task_type).to_owned(),
            priority: task.priority,
            required_capabilities: self.required(task),
            generation: task.generation,
            attempts: u32::from(task.attempts),
            max_attempts: u32::from(task.max_attempts),
            steals: more.map_or(0, |m| u32::from(m.steals)),
            declines: task.declines().map_or(0, |d| u32::from(d.count)),
            decline_reason: task.declines().map(|d| d.reason.to_string()),
            error: more.and_then(|m| m.error.as_deref().map(str::to_owned)),
            created_at: task.created_at,
            submitted: task.submitted,
            graph_id: more.and_then(|m| Some(m.graph?.0)),
        }
    }

    fn required(&self, task: &Task) -> Vec<String> {
        of_class(self.swarm.classes.get(task.class))
            .map(str::to_owned)
            .collect()
    }
}
