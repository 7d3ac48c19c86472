use crate::world::{World, id, number, plain, ring, whose};

#[test]
fn everybody_works_and_talks_to_the_next_one_only() {
    let world = World::of(ring(), 4);
    assert_eq!(world.workers(), [1, 2, 3, 4]);
    assert!(world.talks(1, 2) && world.talks(4, 1) && !world.talks(2, 1) && !world.talks(1, 3));
    assert!(
        world.shape.may_reply(id(2), id(1)).is_ok(),
        "answers go back along an edge"
    );
    assert!(world.shape.may_reply(id(3), id(1)).is_err());
    assert!(
        !world.shape.may_steal(id(1), id(2)),
        "there is nothing to steal in a ring"
    );
    let edges: Vec<_> = world
        .shape
        .edges()
        .map(|(a, b)| (number(a), number(b)))
        .collect();
    assert_eq!(edges, [(1, 2), (2, 3), (3, 4), (4, 1)]);
}

#[test]
fn a_ring_of_one_works_and_has_nobody_to_talk_to() {
    let world = World::of(ring(), 1);
    assert_eq!((world.workers(), world.neighbours(1)), (vec![1], vec![]));
    assert_eq!(world.shape.next_in_ring(Some(id(1)), |_| true), Some(id(1)));
    assert_eq!(world.shape.edges().count(), 0);
}

#[test]
fn when_one_goes_the_circle_closes_and_a_newcomer_is_last() {
    let mut world = World::of(ring(), 4);
    assert_eq!(whose(&world.leave(2)), [2]);
    assert!(world.talks(1, 3));
    assert_eq!(whose(&world.join(plain(5))), [5]);
    assert!(world.talks(4, 5) && world.talks(5, 1));
    // Nobody gets the place of another.
    assert_eq!(whose(&world.leave(5)), [5]);
    world.join(plain(6));
    assert_eq!(world.seat(6).place, 6);
}

#[test]
fn the_next_is_the_first_after_it_for_whom_it_holds_and_itself_last() {
    let world = World::of(ring(), 4);
    let next = |after, not: &[u64]| {
        let next = world
            .shape
            .next_in_ring(after, |id| !not.contains(&number(id)));
        next.map(number)
    };
    assert_eq!(next(Some(id(2)), &[]), Some(3));
    assert_eq!(next(Some(id(2)), &[3, 4]), Some(1));
    assert_eq!(next(Some(id(2)), &[1, 3, 4]), Some(2));
    assert_eq!(next(Some(id(2)), &[1, 2, 3, 4]), None);
    assert_eq!(
        (next(None, &[]), next(Some(id(9)), &[])),
        (Some(1), Some(1))
    );
    let after = |place| world.shape.next_after_place(place, |_| true).map(number);
    assert_eq!(
        (after(Some(2)), after(Some(4)), after(None)),
        (Some(3), Some(1), Some(1))
    );
}

#[test]
fn after_one_that_has_gone_comes_the_one_behind_its_place() {
    let mut world = World::of(ring(), 4);
    let place = world.seat(2).place;
    world.leave(2);
    assert_eq!(
        world.shape.next_after_place(Some(place), |_| true),
        Some(id(3))
    );
}
