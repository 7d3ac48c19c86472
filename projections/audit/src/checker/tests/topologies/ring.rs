//! Turns of a ring.

use super::{super::scene::*, ring, star, worker};
use crate::Invariant;

#[test]
fn ring_order_is_that_of_submission() {
    let two = || {
        let mut scene = ring(3);
        scene.submit(task(1));
        scene.submit_with(task(2), |t| t.priority = 10);
        scene
    };
    let mut scene = two();
    let first = scene.turn(task(1), agent(1), 1);
    scene.start(task(1), agent(1), first);
    scene.complete(task(1), agent(1), first);
    scene.assign_with(task(2), agent(2), |a| (a.turn, a.priority) = (Some(2), 10));
    scene.clean();
    let mut scene = two();
    let urgent = scene.assign_with(task(2), agent(1), |a| (a.turn, a.priority) = (Some(1), 10));
    scene.broken(Invariant::RingOrder, urgent);
}

#[test]
fn ring_order_is_one_turn_at_a_time() {
    let one = || {
        let mut scene = ring(3);
        scene.submit(task(1));
        scene.submit(task(2));
        scene.turn(task(1), agent(1), 1);
        scene
    };
    let mut scene = one();
    let early = scene.turn(task(2), agent(2), 2);
    scene.broken(Invariant::RingOrder, early);
    // Its time is over.
    let mut scene = one();
    scene.later(5_000);
    scene.submit(task(3));
    scene.turn(task(2), agent(2), 2);
    scene.clean();
    // Another turn was under way.
    let mut scene = ring(3);
    scene.submit(task(1));
    let cause = scene.submit(task(2));
    for n in 1..=2 {
        scene.forged.cause = Some(cause);
        scene.turn(task(n), agent(n), n as u64);
    }
    scene.broken(Invariant::RingOrder, scene.sequence);
}

#[test]
fn ring_order_passes_nobody_over() {
    let mut scene = ring(3);
    for n in 1..=3 {
        scene.submit(task(n));
    }
    let first = scene.turn(task(1), agent(1), 1);
    scene.start(task(1), agent(1), first);
    scene.complete(task(1), agent(1), first);
    scene.clean();
    let over = scene.turn(task(2), agent(3), 2);
    scene.broken(Invariant::RingOrder, over);
    // Who is not there is.
    let mut scene = ring(3);
    scene.submit(task(1));
    scene.submit(task(2));
    let first = scene.turn(task(1), agent(1), 1);
    scene.start(task(1), agent(1), first);
    scene.complete(task(1), agent(1), first);
    scene.fail_agent(agent(2), 1);
    scene.turn(task(2), agent(3), 2);
    scene.clean();
}

#[test]
fn ring_order_goes_on_from_the_place_that_the_token_had() {
    let after_seats = |to: u128| {
        let mut scene = ring(2);
        scene.submit(task(1));
        scene.submit(task(2));
        let first = scene.turn(task(1), agent(2), 1);
        scene.start(task(1), agent(2), first);
        scene.complete(task(1), agent(2), first);
        // Both leave their places, and sit down again in this order.
        for n in 1..=2 {
            scene.seat(agent(n), 2, None);
        }
        scene.seat(agent(2), 2, Some(worker(3)));
        scene.seat(agent(1), 2, Some(worker(4)));
        let second = scene.turn(task(2), agent(to), 2);
        (scene, second)
    };
    let (scene, second) = after_seats(1);
    let order = |found: &(Invariant, u64)| *found == (Invariant::RingOrder, second);
    assert!(scene.found().iter().any(order));
    let (scene, second) = after_seats(2);
    let order = |found: &(Invariant, u64)| *found == (Invariant::RingOrder, second);
    assert!(!scene.found().iter().any(order));
}

#[test]
fn ring_order_numbers_its_turns() {
    let mut scene = ring(2);
    scene.submit(task(1));
    let none = scene.assign(task(1), agent(1));
    scene.broken(Invariant::RingOrder, none);
    let mut scene = ring(2);
    scene.submit(task(1));
    scene.submit(task(2));
    let first = scene.turn(task(1), agent(1), 1);
    scene.start(task(1), agent(1), first);
    scene.complete(task(1), agent(1), first);
    let again = scene.turn(task(2), agent(2), 1);
    scene.broken(Invariant::RingOrder, again);
    let mut scene = star();
    scene.submit(task(1));
    let no_ring = scene.turn(task(1), agent(2), 1);
    scene.broken(Invariant::RingOrder, no_ring);
}
