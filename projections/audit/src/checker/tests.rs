//! For each promise a log that keeps it, and one that breaks it and is found, by name and sequence.

mod declines;
mod distribution;
mod processes;
mod questions;
mod scene;
mod topologies;

use swarm_events::{
    Service, Timestamp,
    control::Observed,
    decider::{REMEMBERED_MAX, REMEMBERED_MS},
    ids::EventId,
};
use uuid::Uuid;

use self::scene::*;
use crate::{Checker, Invariant, VIOLATIONS_KEPT_MAX};

fn given() -> Scene {
    let mut scene = Scene::new(Checker::default());
    scene.join(agent(1), 1, 2);
    scene
}

/// A scene with one task that runs; answers with its assignment.
fn running() -> (Scene, u64) {
    let mut scene = given();
    scene.submit(task(1));
    let assignment = scene.assign(task(1), agent(1));
    scene.start(task(1), agent(1), assignment);
    (scene, assignment)
}

#[test]
fn given_a_task_that_completes_then_nothing_is_broken_and_all_is_quiet() {
    let mut scene = given();
    scene.whole(task(1), agent(1));
    scene.checker.finish(scene.sequence);
    scene.clean();
    assert!(scene.checker.quiet());
    let counts = scene.checker.counts();
    assert_eq!((counts.accepted, counts.ended, counts.doubled), (1, 1, 0));
}

#[test]
fn one_terminal_state() {
    // A second result is void, whoever sends it.
    let (mut scene, assignment) = running();
    scene.complete(task(1), agent(1), assignment);
    scene.complete(task(1), agent(1), assignment);
    scene.clean();
    assert_eq!(scene.checker.voids()["late"], 1);
    // A second end by decision is not.
    let second = scene.fail_task(task(1), 1);
    scene.broken(Invariant::OneTerminal, second);
    assert_eq!(scene.checker.counts().doubled, 1);
}

#[test]
fn one_terminal_state_holds_for_each_generation() {
    let (mut scene, assignment) = running();
    scene.fail_attempt(task(1), agent(1), assignment);
    scene.fail_task(task(1), 1);
    scene.retry(task(1), 2, None);
    let again = scene.assign_as(task(1), agent(1), 1, 2);
    scene.start(task(1), agent(1), again);
    scene.complete(task(1), agent(1), again);
    scene.clean();
    assert_eq!(scene.checker.counts().ended, 2);
    assert_eq!(scene.checker.counts().reopened, 1);
    let after = scene.assign_as(task(1), agent(1), 1, 2);
    scene.broken(Invariant::OneTerminal, after);
}

#[test]
fn every_task_ends() {
    let (mut scene, assignment) = running();
    scene.clean();
    assert!(!scene.checker.quiet());
    assert_eq!(scene.checker.open().tasks.len(), 1);
    scene.checker.finish(scene.sequence);
    scene.broken(Invariant::EveryTaskEnds, scene.sequence);
    scene.checker.violations.clear();
    scene.complete(task(1), agent(1), assignment);
    scene.checker.finish(scene.sequence);
    scene.clean();
}

#[test]
fn result_of_standing_assignment_when_figures_count_a_fenced_result() {
    let (mut scene, assignment) = running();
    scene.withdraw(task(1), agent(1), assignment);
    scene.complete(task(1), agent(1), assignment);
    scene.measure(0);
    scene.clean();
    let counted = scene.measure(1);
    scene.broken(Invariant::ResultOfStandingAssignment, counted);
}

#[test]
fn figures_are_held_against_what_their_owner_had_met() {
    let (mut scene, assignment) = running();
    let before = scene.sequence;
    scene.complete(task(1), agent(1), assignment);
    scene.forged.cause = Some(before);
    scene.measure(0);
    scene.measure(1);
    scene.clean();
}

#[test]
fn result_of_standing_assignment_when_a_fenced_failure_is_answered() {
    let (mut scene, assignment) = running();
    scene.fail_attempt(task(1), agent(1), assignment);
    scene.retry(task(1), 1, Some("no"));
    let second = scene.assign(task(1), agent(1));
    scene.withdraw(task(1), agent(1), second);
    scene.fail_attempt(task(1), agent(1), second);
    scene.clean();
    let retried = scene.retry(task(1), 1, Some("no"));
    scene.broken(Invariant::ResultOfStandingAssignment, retried);
}

#[test]
fn results_of_an_old_incarnation_are_void() {
    let (mut scene, assignment) = running();
    scene.join(agent(1), 2, 2);
    scene.complete(task(1), agent(1), assignment);
    assert_eq!(scene.checker.voids()["old-incarnation"], 1);
    scene.withdraw(task(1), agent(1), assignment);
    let again = scene.assign_as(task(1), agent(1), 2, 1);
    scene.clean();
    assert_eq!(scene.checker.open().tasks.len(), 1, "{again} stands");
}

#[test]
fn one_standing_assignment() {
    let (mut scene, assignment) = running();
    scene.withdraw(task(1), agent(1), assignment);
    scene.assign(task(1), agent(1));
    scene.clean();
    let second = scene.assign(task(1), agent(1));
    scene.broken(Invariant::OneStandingAssignment, second);
}

#[test]
fn slots_kept() {
    let mut scene = given();
    for n in 1..=2 {
        scene.submit(task(n));
        scene.assign(task(n), agent(1));
    }
    scene.clean();
    scene.submit(task(3));
    let third = scene.assign(task(3), agent(1));
    scene.broken(Invariant::SlotsKept, third);
}

#[test]
fn assigned_to_the_living_is_judged_at_the_cause() {
    let mut scene = given();
    let before = scene.submit(task(1));
    scene.submit(task(2));
    let failed = scene.fail_agent(agent(1), 1);
    // Decided before the verdict was met: repaired, not forbidden.
    scene.forged.cause = Some(before);
    scene.assign(task(1), agent(1));
    scene.clean();
    scene.forged.cause = Some(failed);
    let knowing = scene.assign(task(2), agent(1));
    scene.broken(Invariant::AssignedToTheLiving, knowing);
}

#[test]
fn assigned_to_the_living_names_the_incarnation() {
    let mut scene = given();
    scene.join(agent(1), 2, 2);
    scene.submit(task(1));
    let old = scene.assign_as(task(1), agent(1), 1, 1);
    scene.broken(Invariant::AssignedToTheLiving, old);
}

#[test]
fn assigned_to_the_living_wants_a_member() {
    let mut scene = given();
    scene.submit(task(1));
    let stranger = scene.assign(task(1), agent(7));
    scene.broken(Invariant::AssignedToTheLiving, stranger);
}

#[test]
fn no_start_after_withdrawal() {
    let mut scene = given();
    scene.submit(task(1));
    let first = scene.assign(task(1), agent(1));
    scene.withdraw(task(1), agent(1), first);
    let second = scene.assign(task(1), agent(1));
    scene.start(task(1), agent(1), second);
    scene.clean();
    let late = scene.start(task(1), agent(1), first);
    scene.broken(Invariant::NoStartAfterWithdrawal, late);
}

#[test]
fn one_start_per_assignment() {
    let (scene, _) = running();
    scene.clean();
    let (mut scene, assignment) = running();
    let again = scene.start(task(1), agent(1), assignment);
    scene.broken(Invariant::OneStart, again);
    assert_eq!(scene.checker.counts().started_again, 1);
}

#[test]
fn dependencies_respected() {
    let mut scene = given();
    scene.submit_part(task(1), 0, 2, None);
    scene.submit_part(task(2), 1, 2, Some(task(1)));
    scene.accept_graph(2);
    let first = scene.assign(task(1), agent(1));
    let started = scene.start(task(1), agent(1), first);
    scene.complete(task(1), agent(1), first);
    // The result is there, but the decision is older than it.
    scene.forged.cause = Some(started);
    let early = scene.assign(task(2), agent(1));
    scene.broken(Invariant::DependenciesRespected, early);
    scene.checker.violations.clear();
    scene.withdraw(task(2), agent(1), early);
    scene.assign(task(2), agent(1));
    scene.clean();
}

#[test]
fn graphs_decided() {
    let mut scene = given();
    scene.submit_part(task(1), 0, 2, None);
    let early = scene.accept_graph(2);
    scene.broken(Invariant::GraphsDecided, early);
    scene.checker.violations.clear();
    assert!(!scene.checker.quiet());
    scene.checker.finish(scene.sequence);
    scene.broken(Invariant::GraphsDecided, early - 1);
    scene.checker.violations.clear();
    scene.submit_part(task(2), 1, 2, None);
    scene.accept_graph(2);
    scene.clean();
    let again = scene.accept_graph(2);
    scene.broken(Invariant::GraphsDecided, again);
}

#[test]
fn epochs_rise() {
    let mut scene = given();
    let first = scene.epochs[&DISTRIBUTOR].0;
    scene.claim(DISTRIBUTOR, OTHER);
    scene.clean();
    scene.submit(task(1));
    scene.forged.epoch = Some(first);
    scene.forged.ordinal = Some(9);
    let stale = scene.assign(task(1), agent(1));
    scene.broken(Invariant::EpochsRise, stale);
    assert_eq!(scene.checker.voids()["stale-epoch"], 1);
    scene.checker.violations.clear();
    // Two replicas that both hold themselves for the next one.
    let second = scene.claim_after(DISTRIBUTOR, OWNER, first);
    scene.broken(Invariant::EpochsRise, second);
}

#[test]
fn epochs_rise_and_nothing_is_decided_before_the_claim_is_met() {
    let mut scene = given();
    let before = scene.submit(task(1));
    scene.claim(DISTRIBUTOR, OWNER);
    scene.forged.cause = Some(before);
    let early = scene.assign(task(1), agent(1));
    scene.broken(Invariant::EpochsRise, early);
}

#[test]
fn ordinals_rise() {
    let mut scene = given();
    scene.submit(task(1));
    scene.submit(task(2));
    let cause = scene.sequence;
    scene.forged.cause = Some(cause);
    let assignment = scene.assign(task(1), agent(1));
    let ordinal = scene.epochs[&DISTRIBUTOR].1;
    // A late copy is void.
    scene.forged.cause = Some(cause);
    scene.forged.ordinal = Some(ordinal);
    scene.assign(task(1), agent(1));
    scene.clean();
    assert_eq!(scene.checker.voids()["repeated-decision"], 1);
    // Another decision under the same number is not.
    scene.forged.ordinal = Some(ordinal);
    let other = scene.assign(task(2), agent(1));
    scene.broken(Invariant::OrdinalsRise, other);
    scene.checker.violations.clear();
    // Nor is one under an id of its own choice.
    scene.forged.id = Some(EventId(Uuid::from_u128(5)));
    let strange = scene.withdraw(task(1), agent(1), assignment);
    scene.broken(Invariant::OrdinalsRise, strange);
}

#[test]
fn skipped_ordinals_are_noted() {
    let mut scene = given();
    scene.submit(task(1));
    scene.epochs.entry(DISTRIBUTOR).and_modify(|e| e.1 += 3);
    scene.assign(task(1), agent(1));
    scene.clean();
    let skipped: u64 = scene
        .checker
        .owners()
        .map(|(_, _, owner)| owner.skipped)
        .sum();
    assert_eq!(skipped, 3);
}

#[test]
fn one_owner_per_epoch() {
    let mut scene = given();
    scene.submit(task(1));
    scene.assign(task(1), agent(1));
    scene.clean();
    scene.submit(task(2));
    scene.forged.instance = Some(OTHER);
    let foreign = scene.assign(task(2), agent(1));
    scene.broken(Invariant::OneOwnerPerEpoch, foreign);
    let owners: Vec<_> = scene
        .checker
        .owners()
        .map(|(service, _, owner)| (service, owner.claims[0].instance))
        .collect();
    assert_eq!(
        owners,
        [(COORDINATOR, OWNER), (DISTRIBUTOR, OWNER), (HEALTH, OWNER)]
    );
}

#[test]
fn commands_answered() {
    let mut scene = given();
    let command = scene.cancel(task(9));
    let at = scene.sequence;
    assert!(!scene.checker.quiet());
    scene.checker.finish(scene.sequence);
    scene.broken(Invariant::CommandsAnswered, at);
    scene.checker.violations.clear();
    scene.refuse(Some(command), at);
    scene.checker.finish(scene.sequence);
    scene.clean();
    assert!(scene.checker.quiet());
}

#[test]
fn cut_offs_well_formed() {
    let mut scene = given();
    let since = scene.now;
    let cut_off = |since: Timestamp, until| Observed::CutOff {
        instance: OTHER,
        since,
        until,
    };
    scene.later(2_000);
    scene.control(DISTRIBUTOR, cut_off(since, None));
    let until = Some(since.plus_millis(1_500));
    scene.control(DISTRIBUTOR, cut_off(since, until));
    scene.clean();
    let backwards = scene.control(DISTRIBUTOR, cut_off(since, Some(since.minus_millis(1))));
    let future = scene.control(HEALTH, cut_off(scene.now.plus_millis(60_001), None));
    let older = scene.control(DISTRIBUTOR, cut_off(since.minus_millis(1), None));
    let invariant = Invariant::CutOffsWellFormed;
    assert_eq!(
        scene.found(),
        [
            (invariant, backwards),
            (invariant, future),
            (invariant, older)
        ]
    );
}

#[test]
fn a_refused_submission_is_no_task() {
    let mut scene = given();
    let refused = scene.submit(task(1));
    scene.refuse(None, refused);
    scene.checker.finish(scene.sequence);
    scene.clean();
    assert_eq!(scene.checker.accepted(), 0);
}

#[test]
fn only_what_lies_in_the_range_is_reported() {
    let broken = |range| {
        let mut scene = Scene::new(Checker::of_range(range));
        scene.join(agent(1), 1, 2);
        scene.submit(task(1));
        let first = scene.assign(task(1), agent(1));
        let second = scene.assign(task(1), agent(1));
        assert_eq!(second, first + 1);
        (second, scene)
    };
    let (at, whole) = broken(0..=u64::MAX);
    whole.broken(Invariant::OneStandingAssignment, at);
    broken(at..=at)
        .1
        .broken(Invariant::OneStandingAssignment, at);
    broken(at + 1..=u64::MAX).1.clean();
    broken(0..=at - 1).1.clean();
}

#[test]
fn violations_are_counted_beyond_those_that_are_kept() {
    let mut scene = given();
    scene.submit(task(1));
    scene.assign(task(1), agent(1));
    for _ in 0..=VIOLATIONS_KEPT_MAX {
        scene.assign(task(1), agent(1));
    }
    let (_, tally) = scene
        .checker
        .tallies()
        .find(|(i, _)| *i == Invariant::OneStandingAssignment)
        .expect("in the registry");
    assert_eq!(tally.violated, VIOLATIONS_KEPT_MAX + 1);
    assert_eq!(scene.checker.violations.len() as u64, VIOLATIONS_KEPT_MAX);
}

#[test]
fn ended_tasks_are_forgotten_a_day_after_their_end_unless_they_are_named() {
    let mut scene = given();
    scene.whole(task(1), agent(1));
    scene.whole(task(3), agent(1));
    scene.submit_part(task(2), 0, 1, Some(task(1)));
    scene.accept_graph(1);
    let remembered = |scene: &Scene| scene.checker.swarms[0].tasks.len();
    scene.later(REMEMBERED_MS);
    scene.measure(2);
    assert_eq!(remembered(&scene), 3, "a day has not passed");
    scene.later(1);
    scene.measure(2);
    assert_eq!(remembered(&scene), 2, "the first is named by the second");
    let assignment = scene.assign(task(2), agent(1));
    scene.start(task(2), agent(1), assignment);
    scene.complete(task(2), agent(1), assignment);
    assert_eq!(remembered(&scene), 1);
    scene.clean();
}

#[test]
fn at_most_so_many_ended_tasks_are_remembered() {
    let mut scene = given();
    for n in 0..REMEMBERED_MAX as u128 + 10 {
        scene.submit(task(n));
        scene.fail_task(task(n), 1);
    }
    scene.measure(0);
    scene.clean();
    assert_eq!(scene.checker.swarms[0].tasks.len(), REMEMBERED_MAX);
    assert_eq!(scene.checker.counts().ended, REMEMBERED_MAX as u64 + 10);
}

#[test]
fn a_gap_is_the_time_without_a_decision_while_work_waits_for_a_free_agent() {
    let mut scene = Scene::new(Checker::default().with_gaps(Service::Distributor));
    scene.join(agent(1), 1, 1);
    // Nothing waits: no gap.
    scene.later(60_000);
    let submitted = scene.submit(task(1));
    scene.later(700);
    let assignment = scene.assign(task(1), agent(1));
    // The only agent is busy: work waits, but nobody could take it.
    scene.submit(task(2));
    scene.later(5_000);
    scene.start(task(1), agent(1), assignment);
    let freed = scene.complete(task(1), agent(1), assignment);
    scene.later(300);
    scene.assign(task(2), agent(1));
    let gaps = scene.checker.gaps();
    let of: Vec<_> = gaps.iter().map(|g| (g.from, g.to, g.micros)).collect();
    assert_eq!(
        of,
        [
            (submitted, assignment, 700_000),
            (freed, freed + 1, 300_000)
        ]
    );
    scene.join(agent(2), 1, 1);
    let waiting = scene.submit(task(3));
    scene.later(2_000);
    scene.start(task(2), agent(1), freed + 1);
    let last = scene.checker.gaps()[0];
    assert!(last.lasting);
    assert_eq!((last.from, last.micros), (waiting, 2_000_000));
}
