//! Tasks that are split into parts.

use swarm_events::{
    TaskId,
    configuration::Algorithm,
    task::{Assigned, Step},
};

use super::super::scene::*;
use crate::{Checker, Invariant};

/// A task that was split in two.
fn parted() -> (Scene, [TaskId; 2]) {
    let mut scene = Scene::new(Checker::default());
    scene.join_with(agent(1), 1, 4, 4, &["a"]);
    scene.submit(task(1));
    let assignment = scene.assign(task(1), agent(1));
    scene.start(task(1), agent(1), assignment);
    let parts = scene.split(task(1), agent(1), assignment, &["a", "b"]);
    scene.clean();
    (scene, parts)
}
fn reduce(assigned: &mut Assigned) {
    assigned.step = Step::Reduce;
}

#[test]
fn parts_end_once() {
    let (mut scene, [first, second]) = parted();
    assert_eq!(scene.checker.accepted(), 3);
    scene.done(first, agent(1));
    scene.done(second, agent(1));
    let whole = scene.assign_with(task(1), agent(1), reduce);
    scene.start(task(1), agent(1), whole);
    scene.complete(task(1), agent(1), whole);
    scene.rest();
    scene.clean();
    assert_eq!(scene.checker.counts().ended, 3);
}

#[test]
fn circle_kept_leaves_out_who_makes_one_of_its_own_parts() {
    let after_parts = |reducer: u128| {
        let mut scene = Scene::new(Checker::default());
        scene.set(|c| c.distribution_algorithm = Algorithm::RoundRobin);
        for n in 1..=3 {
            scene.join_with(agent(n), 1, 4, 4, &["a"]);
        }
        scene.submit(task(1));
        let assignment = scene.assign(task(1), agent(1));
        scene.start(task(1), agent(1), assignment);
        let [first, second] = scene.split(task(1), agent(1), assignment, &["a", "b"]);
        scene.done(first, agent(2));
        let last = scene.assign(second, agent(3));
        scene.start(second, agent(3), last);
        scene.submit(task(2));
        scene.assign(task(2), agent(1));
        scene.complete(second, agent(3), last);
        scene.clean();
        let at = scene.assign_with(task(1), agent(reducer), reduce);
        (scene, at)
    };
    // It would be the second one's turn.
    after_parts(2).0.clean();
    after_parts(1).0.clean();
    let (scene, at) = after_parts(3);
    scene.broken(Invariant::CircleKept, at);
}

#[test]
fn parts_end_once_before_the_whole_goes_on() {
    let (mut scene, [first, second]) = parted();
    scene.done(first, agent(1));
    let before = scene.sequence;
    scene.done(second, agent(1));
    scene.forged.cause = Some(before);
    let early = scene.assign_with(task(1), agent(1), reduce);
    scene.broken(Invariant::PartsEndOnce, early);
    // One of them has not even ended.
    let (mut scene, [first, _]) = parted();
    scene.done(first, agent(1));
    let early = scene.assign_with(task(1), agent(1), reduce);
    scene.broken(Invariant::PartsEndOnce, early);
    let (mut scene, parts) = parted();
    for part in parts {
        scene.done(part, agent(1));
    }
    let again = scene.assign(task(1), agent(1));
    scene.broken(Invariant::PartsEndOnce, again);
    let mut scene = Scene::new(Checker::default());
    scene.join(agent(1), 1, 1);
    scene.submit(task(1));
    let never = scene.assign_with(task(1), agent(1), reduce);
    scene.broken(Invariant::PartsEndOnce, never);
}

#[test]
fn parts_end_once_another_has_failed() {
    let (mut scene, [first, second]) = parted();
    let assignment = scene.assign(first, agent(1));
    scene.start(first, agent(1), assignment);
    scene.fail_attempt(first, agent(1), assignment);
    scene.fail_with(first, |failed| failed.dead_lettered = false);
    scene.clean();
    let late = scene.assign(second, agent(1));
    scene.broken(Invariant::PartsEndOnce, late);
}

#[test]
fn a_task_fails_for_a_part_of_it() {
    let (mut scene, [first, second]) = parted();
    scene.cancel_task(second);
    scene.fail_for(task(1), &[second]);
    scene.cancel_task(first);
    scene.rest();
    scene.clean();
    // Not for a stranger.
    let (mut scene, [first, second]) = parted();
    scene.submit(task(9));
    scene.cancel_task(task(9));
    scene.cancel_task(second);
    scene.cancel_task(first);
    let wrong = scene.fail_for(task(1), &[task(9)]);
    scene.broken(Invariant::FailurePaths, wrong);
}

#[test]
fn parts_are_open_until_they_end() {
    let (mut scene, [first, _]) = parted();
    scene.done(first, agent(1));
    assert!(!scene.checker.quiet());
    assert_eq!(scene.checker.open().tasks.len(), 2, "a part, and the whole");
    let last = scene.rest();
    scene.broken(Invariant::EveryTaskEnds, last);
}

#[test]
fn what_could_not_be_split_has_no_parts() {
    for (keys, error) in [
        (["a", "a"], "two of one name"),
        // For want of room, which only the distributor knows.
        (["a", "b"], "it could not be split: the queue is full"),
    ] {
        let mut scene = Scene::new(Checker::default());
        scene.join(agent(1), 1, 1);
        scene.submit(task(1));
        let assignment = scene.assign(task(1), agent(1));
        scene.start(task(1), agent(1), assignment);
        scene.split(task(1), agent(1), assignment, &keys);
        scene.fail_with(task(1), |failed| failed.error = error.to_owned());
        scene.rest();
        scene.clean();
        assert_eq!(scene.checker.accepted(), 1);
    }
}
