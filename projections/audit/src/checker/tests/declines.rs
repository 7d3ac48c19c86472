//! Promises of tasks that agents give back.

use swarm_events::{
    AgentId, Subject, TaskId, configuration::RetryPolicy, envelope::Source, subject::TaskVerb,
    task::Declined,
};

use super::{given, scene::*};
use crate::Invariant;

/// The waits of the settings: 500 ms, 1 s, 1.5 s, 1.5 s.
const WAITS: RetryPolicy = RetryPolicy {
    base_ms: 500,
    factor_percent: 200,
    cap_ms: 1_500,
};

impl Scene {
    fn decline(&mut self, id: TaskId, by: AgentId, assignment: u64) -> u64 {
        let subject = Subject::Task(self.place, TaskVerb::Declined, Some(by));
        let body = Declined {
            assignment,
            incarnation: 1,
            reason: "no".to_owned(),
        };
        self.write(subject, Source::Agent(by), id.0, body)
    }
    /// What time it is shows with what is stored.
    fn after(&mut self, millis: u64) -> &mut Self {
        self.later(millis).measure(0);
        self
    }
}

/// A task that the first agent has declined, which is alone, or not.
fn declined(others: bool) -> Scene {
    let mut scene = given();
    scene.set(|settings| settings.retry = WAITS);
    if others {
        scene.join(agent(2), 1, 1);
    }
    scene.submit(task(1));
    let assignment = scene.assign(task(1), agent(1));
    scene.decline(task(1), agent(1), assignment);
    scene
}

#[test]
fn given_what_was_declined_then_it_goes_back_only_if_there_is_no_other() {
    let mut scene = declined(false);
    scene.after(WAITS.base_ms).assign(task(1), agent(1));
    scene.clean();
    let mut scene = declined(true);
    let back = scene.after(WAITS.base_ms).assign(task(1), agent(1));
    scene.broken(Invariant::DeclinesKept, back);
}

#[test]
fn given_what_was_declined_then_it_costs_no_attempt() {
    let mut scene = declined(true);
    let counted = scene.assign_with(task(1), agent(2), |a| a.attempt = 2);
    scene.broken(Invariant::DeclinesKept, counted);
}

#[test]
fn given_what_was_declined_when_its_wait_is_not_over_then_it_does_not_go_back() {
    let mut scene = declined(false);
    let back = scene.after(WAITS.base_ms - 1).assign(task(1), agent(1));
    scene.broken(Invariant::DeclinesWait, back);
}

#[test]
fn given_what_was_declined_then_another_gets_it_at_once() {
    let mut scene = declined(true);
    scene.assign(task(1), agent(2));
    scene.clean();
}

#[test]
fn given_what_is_declined_again_and_again_then_its_wait_grows_to_the_cap() {
    for (times, wait) in [(2, 1_000), (3, 1_500), (4, 1_500)] {
        for early in [0, 1] {
            let mut scene = declined(false);
            for _ in 1..times {
                let assignment = scene.after(WAITS.cap_ms).assign(task(1), agent(1));
                scene.decline(task(1), agent(1), assignment);
            }
            scene.clean();
            let back = scene.after(wait - early).assign(task(1), agent(1));
            match early {
                0 => scene.clean(),
                _ => scene.broken(Invariant::DeclinesWait, back),
            }
        }
    }
}

#[test]
fn given_a_wait_when_another_declines_too_then_it_begins_anew_for_both() {
    let mut scene = declined(true);
    let assignment = scene.after(400).assign(task(1), agent(2));
    scene.decline(task(1), agent(2), assignment);
    let back = scene.after(999).assign(task(1), agent(1));
    scene.broken(Invariant::DeclinesWait, back);
}

#[test]
fn given_a_wait_when_somebody_retries_the_task_then_whoever_declined_it_gets_it_at_once() {
    let mut scene = declined(false);
    scene.cancel_task(task(1));
    scene.retry(task(1), 2, None);
    scene.assign_as(task(1), agent(1), 1, 2);
    scene.clean();
}
