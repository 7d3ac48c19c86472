//! What follows when an attempt, a task or a part ends.

use std::{sync::Arc, time::Duration};

use swarm_events::{
    configuration::RetryPolicy,
    task::{Part, Step},
};
use tokio::time::sleep;

use super::{
    World,
    state::{Attempt, State},
};
use crate::protocol::Outcome;
use crate::testing::{DECLINES_MAX, TestEnd, TestEvent, TestTask};

impl World {
    pub(super) fn ended(self: &Arc<Self>, sequence: u64, outcome: Outcome) {
        let mut state = self.locked();
        let Some(attempt) = state.attempts.remove(&sequence) else {
            return; // taken away meanwhile: nobody wants it
        };
        let number = attempt.task;
        match outcome {
            Outcome::Completed(result) => {
                let result = state.resolve(&result);
                self.end_task(&mut state, number, TestEnd::Completed(result));
            }
            Outcome::Failed { error, retryable } => {
                let event = TestEvent::AttemptFailed {
                    error: error.clone(),
                    retryable,
                };
                self.tell(&state.tasks[number], event);
                self.again(&mut state, number, error, retryable);
            }
            Outcome::Split(parts) => self.split(&mut state, number, parts),
            Outcome::Declined { reason } => self.declined(&mut state, &attempt, reason),
        }
        self.dispatch(&mut state);
    }

    fn declined(&self, state: &mut State, attempt: &Attempt, reason: String) {
        let number = attempt.task;
        let agent = state.agents[attempt.agent].name.clone();
        let task = &mut state.tasks[number];
        task.attempts -= 1; // it was none
        task.declines += 1;
        task.declined_by.insert(attempt.agent);
        let (rank, too_often) = (task.rank, task.declines >= DECLINES_MAX);
        let error = reason.clone();
        self.tell(task, TestEvent::Declined { agent, reason });
        if too_often {
            self.end_task(state, number, TestEnd::Failed { error });
        } else {
            state.queue.insert((rank, number));
        }
    }

    pub(super) fn timed_out(self: &Arc<Self>, sequence: u64) {
        let mut state = self.locked();
        let Some(attempt) = state.attempts.remove(&sequence) else {
            return;
        };
        Self::take_away(&attempt);
        let task = &state.tasks[attempt.task];
        let limit = task.spec.timeout.as_millis();
        let event = TestEvent::TimedOut {
            attempt: task.attempts,
        };
        self.tell(task, event);
        let error = format!("ran longer than its limit of {limit} ms");
        self.again(&mut state, attempt.task, error, true);
        self.dispatch(&mut state);
    }

    /// Another attempt after a wait, or the end.
    pub(super) fn again(
        self: &Arc<Self>,
        state: &mut State,
        number: usize,
        error: String,
        retryable: bool,
    ) {
        let task = &state.tasks[number];
        if !retryable || task.attempts >= task.spec.max_attempts {
            self.end_task(state, number, TestEnd::Failed { error });
            return;
        }
        let wait = wait(&self.retry, task.attempts);
        let world = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(wait).await;
            if let Some(world) = world.upgrade() {
                let mut state = world.locked();
                if !state.tasks[number].ended {
                    world.queue(&mut state, number);
                    world.dispatch(&mut state);
                }
            }
        });
    }

    pub(super) fn end_task(&self, state: &mut State, number: usize, end: TestEnd) {
        let task = &mut state.tasks[number];
        task.ended = true;
        state.queue.remove(&(task.rank, number));
        self.tell(task, TestEvent::Ended(end.clone()));
        let part_of = task.part_of.clone();
        self.end_parts(state, number);
        if let Some((whole, key)) = part_of {
            self.part_ended(state, whole, key, end);
        }
    }

    /// The task waits for its parts.
    fn split(&self, state: &mut State, number: usize, parts: Vec<Part>) {
        let whole = &mut state.tasks[number];
        whole.parts_open = parts.len();
        whole.attempts = 0; // its last step has attempts of its own
        let (priority, count) = (whole.spec.priority, parts.len());
        self.tell(whole, TestEvent::Split { parts: count });
        for part in parts {
            let mut spec = TestTask::new(part.task_type, part.payload.to_value())
                .priority(part.priority.unwrap_or(priority))
                .requires(part.required_capabilities);
            if let Some(most) = part.max_attempts {
                spec = spec.max_attempts(most);
            }
            if let Some(limit) = part.timeout_ms {
                spec = spec.timeout(Duration::from_millis(limit));
            }
            self.add(state, spec, Some((number, part.key)));
        }
    }

    /// A part has ended: its task goes on to its last step when all have, or fails with it.
    fn part_ended(&self, state: &mut State, whole: usize, key: String, end: TestEnd) {
        if state.tasks[whole].ended {
            return;
        }
        match end {
            TestEnd::Completed(result) => {
                let task = &mut state.tasks[whole];
                task.parts.insert(key, result);
                task.parts_open -= 1;
                if task.parts_open == 0 {
                    task.step = Step::Reduce;
                    self.queue(state, whole);
                }
            }
            TestEnd::Failed { error } => {
                let error = format!("part {key}: {error}");
                self.end_task(state, whole, TestEnd::Failed { error });
            }
            TestEnd::Cancelled | TestEnd::Open => {}
        }
    }

    /// What was split off from it, and has not ended.
    fn end_parts(&self, state: &mut State, whole: usize) {
        let parts: Vec<usize> = (0..state.tasks.len())
            .filter(|part| {
                let task = &state.tasks[*part];
                !task.ended && matches!(&task.part_of, Some((of, _)) if *of == whole)
            })
            .collect();
        for part in parts {
            for attempt in state.attempts.extract_if(.., |_, a| a.task == part) {
                Self::take_away(&attempt.1);
            }
            self.end_task(state, part, TestEnd::Cancelled);
        }
    }
}

/// The wait after the `attempts`-th attempt.
fn wait(policy: &RetryPolicy, attempts: u32) -> Duration {
    let mut wait = policy.base_ms;
    for _ in 1..attempts {
        wait = (wait.saturating_mul(policy.factor_percent.into()) / 100).min(policy.cap_ms);
    }
    Duration::from_millis(wait.min(policy.cap_ms))
}
