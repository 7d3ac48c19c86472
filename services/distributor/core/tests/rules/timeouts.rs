//! Limits of waiting and of silence: a task's own, else its swarm's setting at the time of judging.

use swarm_distributor_core::START_LIMIT_MS;
use swarm_events::{
    configuration::Configuration, decider::Verdict, subject::CommandVerb, task::DependencyType,
};

use crate::scene::Scene;

const WAITED: &str = "it waited longer than its queue_timeout_ms";
const SILENT: &str = "it made no progress for its progress_timeout_ms";

impl Scene {
    fn submit_waiting(&mut self, name: &str, limit_ms: u64) {
        self.submit_as(name, |t| t.queue_timeout_ms = Some(limit_ms));
    }
    fn submit_talking(&mut self, name: &str, limit_ms: u64) {
        self.submit_as(name, |t| t.progress_timeout_ms = Some(limit_ms));
    }
    fn set_queue_timeout(&mut self, limit_ms: u64) {
        self.configure(Configuration {
            queue_timeout_ms: limit_ms,
            ..Configuration::default()
        });
    }
}

#[test]
fn a_task_that_waits_too_long_in_the_queue_is_a_dead_letter() {
    let mut s = Scene::new();
    s.submit_waiting("t", 1_000);
    assert_eq!(s.news(), [""; 0]);
    let (view, now) = (s.view("t"), s.world.now);
    assert_eq!(view.queue_timeout_at, Some(now.plus_millis(1_000)));
    s.world.later(999);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    assert_eq!(s.news(), [format!("failed t: {WAITED}")]);
    let view = s.view("t");
    assert!(view.dead_lettered);
    assert_eq!((view.attempt_count, view.queue_timeout_at), (0, None));
    s.folds_agree();
}

#[test]
fn the_swarms_setting_holds_for_those_that_name_no_limit() {
    let mut s = Scene::with(|c| c.queue_timeout_ms = 1_000);
    s.submit("by the setting");
    s.submit_waiting("longer", 3_000);
    s.submit_waiting("for ever", 0);
    s.submit_waiting("shorter", 500);
    s.news();
    s.world.later(500);
    assert_eq!(s.news(), [format!("failed shorter: {WAITED}")]);
    s.world.later(500);
    assert_eq!(s.news(), [format!("failed by the setting: {WAITED}")]);
    s.world.later(2_000);
    assert_eq!(s.news(), [format!("failed longer: {WAITED}")]);
    s.world.run_out();
    assert_eq!(s.status("for ever"), "queued");
    s.folds_agree();
}

#[test]
fn a_task_with_a_limit_of_its_own_hides_nobody_behind_it() {
    let mut s = Scene::with(|c| c.queue_timeout_ms = 1_000);
    for n in 0..50 {
        s.submit_waiting(&format!("patient {n}"), 0);
    }
    s.submit("t");
    s.news();
    s.world.later(1_000);
    assert_eq!(s.news(), [format!("failed t: {WAITED}")]);
}

#[test]
fn the_eldest_go_first_whatever_their_priorities_and_capabilities() {
    let mut s = Scene::with(|c| c.queue_timeout_ms = 1_000);
    for (name, priority, word) in [("1", 1, "x"), ("2", 9, "y"), ("3", 5, "x"), ("4", 1, "z")] {
        s.submit_as(name, |t| {
            t.priority = priority;
            t.required_capabilities = vec![word.to_owned()];
        });
        s.world.later(10);
    }
    s.news();
    s.world.later(2_000);
    let failed = ["1", "2", "3", "4"].map(|name| format!("failed {name}: {WAITED}"));
    assert_eq!(s.news(), failed);
}

#[test]
fn more_than_fit_a_turn_end_in_several() {
    let mut s = Scene::with(|c| c.queue_timeout_ms = 1_000);
    for n in 0..300 {
        s.submit(&n.to_string());
    }
    s.news();
    s.world.now = s.world.now.plus_millis(1_000);
    s.wake();
    assert_eq!(s.world.decide(64), 64);
    assert_eq!(s.world.decide(64), 64);
    assert_eq!(s.news().len(), 300);
    assert_eq!(s.world.state.backlog(), 0);
    s.world.run_out();
    assert_eq!(s.world.next_deadline(), None);
}

#[test]
fn a_changed_setting_moves_the_limits_of_what_waits() {
    let mut s = Scene::new();
    s.submit("t");
    s.world.later(5_000);
    s.news();
    assert_eq!(s.view("t").queue_timeout_at, None);
    // Longer than it has waited yet; then longer still.
    s.set_queue_timeout(6_000);
    s.world.later(999);
    s.set_queue_timeout(8_000);
    s.world.later(2_000);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    assert_eq!(s.news(), [format!("failed t: {WAITED}")]);
    // Shorter than it has waited already.
    s.submit("u");
    s.world.later(3_000);
    s.set_queue_timeout(2_000);
    assert_eq!(s.news(), [format!("failed u: {WAITED}")]);
    // None at all.
    s.submit("v");
    s.world.settle();
    s.set_queue_timeout(0);
    s.world.run_out();
    assert_eq!(s.status("v"), "queued");
    s.folds_agree();
}

#[test]
fn a_task_that_waits_too_long_at_its_agent_is_withdrawn_first() {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join_as("A", 1, 1, &[]);
    s.submit("running");
    s.world.settle();
    s.start("running");
    s.submit_waiting("t", 1_000);
    s.news();
    s.world.later(1_000);
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: QueueTimeout, end if not started".to_owned(),
            format!("failed t: {WAITED}"),
        ]
    );
    assert!(s.view("t").dead_lettered);
    s.folds_agree();
}

#[test]
fn a_start_that_comes_first_wins_over_the_limit_of_waiting() {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join("A");
    s.submit_waiting("t", 1_000);
    s.news();
    s.world.now = s.world.now.plus_millis(1_000);
    s.wake();
    s.world.decide(64);
    assert_eq!(s.start("t"), Verdict::Applied);
    assert_eq!(
        s.news(),
        ["void (started): withdrawn t from A: QueueTimeout, end if not started"]
    );
    s.world.later(10_000);
    assert_eq!(s.status("t"), "running", "what has started waits no more");
}

#[test]
fn the_start_limit_and_the_limit_of_waiting_hold_both() {
    let mut s = Scene::new();
    s.join("A");
    s.submit_waiting("t", START_LIMIT_MS + 500);
    s.news();
    s.world.later(START_LIMIT_MS);
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: StartLimit, queue if not started",
            "assigned t to A"
        ]
    );
    s.world.later(500);
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: QueueTimeout, end if not started".to_owned(),
            format!("failed t: {WAITED}"),
        ]
    );
}

#[test]
fn a_task_that_lost_its_agent_waits_anew() {
    for own in [true, false] {
        let mut s = Scene::with(|c| c.queue_timeout_ms = if own { 0 } else { 1_000 });
        s.join("A");
        s.submit_as("t", |t| t.queue_timeout_ms = own.then_some(1_000));
        s.world.settle();
        s.start("t");
        s.world.later(60_000);
        s.fail("A");
        s.news();
        assert_eq!(s.status("t"), "queued");
        s.world.later(999);
        assert_eq!(s.news(), [""; 0]);
        s.world.later(1);
        assert_eq!(s.news(), [format!("failed t: {WAITED}")]);
        s.folds_agree();
    }
}

#[test]
fn a_changed_setting_moves_the_limit_of_one_that_lost_its_agent() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.world.later(60_000);
    s.fail("A");
    s.world.settle();
    s.news();
    s.set_queue_timeout(1_000);
    s.world.later(999);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    assert_eq!(s.news(), [format!("failed t: {WAITED}")]);
}

#[test]
fn a_retry_waits_from_its_own_queueing() {
    let mut s = Scene::with(|c| c.retry.base_ms = 5_000);
    s.join("A");
    s.submit_waiting("t", 1_000);
    s.world.settle();
    s.world.later(900);
    s.start("t");
    s.fail_attempt("t", true);
    s.leave("A");
    s.news();
    // The delay before the next attempt is no waiting.
    s.world.later(8_000);
    assert_eq!(s.news(), [""; 0]);
    assert_eq!(s.status("t"), "queued");
    s.world.later(1_000);
    assert_eq!(s.news(), [format!("failed t: {WAITED}")]);
    // And so does another generation.
    s.command(CommandVerb::Retry, "t");
    s.news();
    s.world.later(999);
    assert_eq!(s.status("t"), "queued");
    s.world.later(1);
    assert_eq!(s.news(), [format!("failed t: {WAITED}")]);
    s.folds_agree();
}

#[test]
fn a_task_that_waits_for_another_one_is_not_queued_yet() {
    let mut s = Scene::new();
    s.join("A");
    s.part("g", 0, 2, "up", &[]);
    let id = swarm_events::GraphId(s.id("g"));
    let edges = s.edges(&[("up", DependencyType::Success)]);
    s.submit_as("down", |t| {
        t.graph = Some(swarm_events::task::GraphPart {
            id,
            index: 1,
            of: 2,
        });
        t.depends_on = edges;
        t.queue_timeout_ms = Some(1_000);
    });
    s.world.settle();
    s.start("up");
    s.world.later(30_000);
    s.complete("up");
    s.leave("A");
    s.news();
    assert_eq!(s.status("down"), "queued");
    s.world.later(1_000);
    assert_eq!(s.news(), [format!("failed down: {WAITED}")]);
}

#[test]
fn an_attempt_without_progress_is_taken_away_and_tried_again() {
    let mut s = Scene::with(|c| c.retry.base_ms = 0);
    s.join("A");
    s.submit_talking("t", 1_000);
    s.world.settle();
    s.start("t");
    let start = s.world.now;
    assert_eq!(s.view("t").timeout_at, Some(start.plus_millis(1_000)));
    s.news();
    // Each sign of life gives it the whole limit again.
    for _ in 0..3 {
        s.world.later(900);
        assert_eq!(s.progress("t"), Verdict::Applied);
    }
    assert_eq!(s.news(), [""; 0]);
    assert_eq!(s.view("t").timeout_at, Some(s.world.now.plus_millis(1_000)));
    s.world.later(999);
    assert_eq!(s.news(), [""; 0]);
    s.world.later(1);
    assert_eq!(
        s.news(),
        ["withdrawn t from A: NoProgress, retry", "assigned t to A"]
    );
    assert_eq!(s.view("t").error.as_deref(), Some(SILENT));
    // What the first attempt was heard of does not help the second one.
    s.start("t");
    s.news();
    s.world.later(1_000);
    assert_eq!(
        s.news(),
        ["withdrawn t from A: NoProgress, retry", "assigned t to A"]
    );
    s.folds_agree();
}

#[test]
fn the_last_attempt_without_progress_ends_the_task() {
    let mut s = Scene::with(|c| {
        c.progress_timeout_ms = 1_000;
        c.max_attempts = 1;
    });
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.news();
    s.world.later(1_000);
    assert_eq!(
        s.news(),
        [
            "withdrawn t from A: NoProgress, end".to_owned(),
            format!("failed t: {SILENT}"),
        ]
    );
    assert!(s.view("t").dead_lettered);
}

#[test]
fn whichever_limit_of_an_attempt_is_first_is_named() {
    let mut s = Scene::with(|c| c.progress_timeout_ms = 3_000);
    s.join_as("A", 2, 0, &[]);
    s.submit_as("short", |t| t.timeout_ms = Some(2_000));
    s.submit_as("silent for ever", |t| {
        t.timeout_ms = Some(10_000);
        t.progress_timeout_ms = Some(0);
    });
    s.world.settle();
    s.start("short");
    s.start("silent for ever");
    s.news();
    s.world.later(2_000);
    assert_eq!(s.news(), ["withdrawn short from A: Timeout, retry"]);
    s.world.later(2_000);
    assert_eq!(s.status("silent for ever"), "running");
}

#[test]
fn a_changed_setting_moves_the_limits_of_what_runs() {
    let mut s = Scene::new();
    s.join("A");
    s.submit("t");
    s.world.settle();
    s.start("t");
    s.world.later(2_000);
    s.news();
    s.configure(Configuration {
        progress_timeout_ms: 3_000,
        ..Configuration::default()
    });
    s.world.later(999);
    assert_eq!(s.news(), [""; 0]);
    s.configure(Configuration {
        progress_timeout_ms: 2_500,
        ..Configuration::default()
    });
    assert_eq!(s.news(), ["withdrawn t from A: NoProgress, retry"]);
    s.folds_agree();
}

#[test]
fn progress_of_an_assignment_that_does_not_stand_is_void() {
    let mut s = Scene::new();
    s.join("A");
    s.submit_talking("t", 1_000);
    s.world.settle();
    assert_eq!(s.progress("t"), Verdict::Void("not-started"));
    s.start("t");
    s.world.later(1_000);
    s.news();
    assert_eq!(s.progress("t"), Verdict::Void("late"));
}

#[test]
fn retries_are_counted_where_an_attempt_had_begun() {
    let mut s = Scene::with(|c| c.retry.base_ms = 0);
    let retries = |s: &Scene| s.world.state.counters(s.place).expect("known").retries;
    s.join("A");
    s.submit_talking("t", 1_000);
    s.world.settle();
    // Not started: no attempt.
    s.world.later(START_LIMIT_MS);
    assert_eq!(retries(&s), 0);
    s.start("t");
    s.fail_attempt("t", true);
    s.world.settle();
    assert_eq!(retries(&s), 1);
    s.start("t");
    s.world.later(1_000);
    assert_eq!(retries(&s), 2, "taken away for want of progress");
    s.world.settle();
    s.start("t");
    s.fail_attempt("t", true);
    s.world.settle();
    assert_eq!((s.status("t"), retries(&s)), ("failed", 2));
    s.command(CommandVerb::Retry, "t");
    s.world.settle();
    assert_eq!(retries(&s), 2, "a person's retry is none");
    s.start("t");
    s.fail("A");
    s.world.settle();
    assert_eq!(retries(&s), 3, "its agent was lost while it ran");
}
