use serde_json::json;
use swarm_events::topology::Role;
use swarm_topology::Member;

use crate::world::{World, id, made, number, plain, tree, whose};

fn small() -> serde_json::Value {
    json!({"levels": [
        {"role": "coordinator", "count": 1},
        {"role": "supervisor", "count": 2},
        {"role": "worker", "count": 4},
    ], "parent_child_ratio": 3})
}
fn children(world: &World, of: u64) -> Vec<u64> {
    world.shape.children(id(of)).map(number).collect()
}
fn at(world: &World, level: u32) -> Vec<u64> {
    world.who(|seat| seat.level == level)
}

#[test]
fn given_plain_agents_then_the_first_are_above_the_others_and_all_work() {
    let world = World::of(tree(small()), 7);
    assert_eq!(
        (at(&world, 0), at(&world, 1), at(&world, 2)),
        (vec![1], vec![2, 3], vec![4, 5, 6, 7])
    );
    assert_eq!(
        (world.role(1), world.role(2), world.role(4)),
        (Role::Coordinator, Role::Supervisor, Role::Worker)
    );
    assert_eq!(world.workers(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(
        (
            children(&world, 1),
            children(&world, 2),
            children(&world, 3)
        ),
        (vec![2, 3], vec![4, 6], vec![5, 7])
    );
}

#[test]
fn those_made_for_it_are_above_and_do_only_that() {
    let mut world = World::new(tree(small()));
    for number in 1..=5 {
        world.join(plain(number));
    }
    world.join(made(6, "supervisor"));
    world.join(made(7, "coordinator"));
    assert_eq!((at(&world, 0), world.role(6)), (vec![7], Role::Supervisor));
    assert!(!world.seat(6).works && !world.seat(7).works);
    assert_eq!(world.workers(), [1, 2, 3, 4, 5]);
    // A second coordinator is one of the workers: there is place for one.
    world.join(made(8, "coordinator"));
    assert_eq!((world.role(8), world.seat(8).works), (Role::Worker, true));
}

#[test]
fn given_fewer_agents_than_the_tree_needs_then_the_lower_inner_levels_lack_some_and_one_alone_works()
 {
    let mut world = World::new(tree(small()));
    world.join(made(1, "coordinator"));
    assert_eq!(
        (world.role(1), world.workers()),
        (Role::Worker, vec![1]),
        "one agent suffices"
    );
    assert_eq!(world.seat(1).parent, None);
    world.join(plain(2));
    assert_eq!(
        (world.role(1), world.workers()),
        (Role::Coordinator, vec![2])
    );
    assert_eq!(
        world.seat(2).parent,
        Some(id(1)),
        "no supervisor: it is the coordinator's child"
    );
    world.join(plain(3));
    assert_eq!(
        (at(&world, 0), at(&world, 1), at(&world, 2)),
        (vec![1], vec![2], vec![3])
    );
    assert_eq!(world.seat(3).parent, Some(id(2)));
}

#[test]
fn a_newcomer_goes_to_the_parent_with_the_fewest_children_and_moves_nobody() {
    let mut world = World::of(tree(small()), 7);
    let changes = world.join(plain(8));
    assert_eq!(whose(&changes), [8]);
    assert_eq!(children(&world, 2), [4, 6, 8]);
    world.leave(5);
    assert_eq!(children(&world, 3), [7]);
    world.join(plain(9));
    assert_eq!(children(&world, 3), [7, 9]);
}

#[test]
fn the_ratio_is_kept_by_one_more_above_when_a_level_is_full() {
    let mut world = World::of(tree(small()), 9);
    assert_eq!(
        (children(&world, 2).len(), children(&world, 3).len()),
        (3, 3)
    );
    let changes = world.join(plain(10));
    // The first worker rises, and the newcomer has its place: a third supervisor comes before a seventh worker.
    assert_eq!(
        (at(&world, 1), whose(&changes)),
        (vec![2, 3, 4], vec![4, 10])
    );
    let changes = world.join(plain(11));
    assert_eq!(
        (whose(&changes), children(&world, 4)),
        (vec![11], vec![10, 11])
    );
}

#[test]
fn given_the_ratio_when_it_is_one_then_everybody_has_one_child() {
    let options = json!({"levels": [
        {"role": "coordinator", "count": 1}, {"role": "worker", "count": 1},
    ], "parent_child_ratio": 1});
    let world = World::of(tree(options), 6);
    assert_eq!((at(&world, 0).len(), at(&world, 1).len()), (3, 3));
    for top in at(&world, 0) {
        assert_eq!(children(&world, top).len(), 1);
    }
}

#[test]
fn when_a_supervisor_is_lost_then_its_oldest_child_rises_and_the_others_are_given_parents() {
    let mut world = World::of(tree(small()), 8);
    assert_eq!(children(&world, 2), [4, 6, 8]);
    let changes = world.leave(2);
    assert_eq!((at(&world, 0), at(&world, 1)), (vec![1], vec![3, 4]));
    assert_eq!(whose(&changes), [2, 4, 6, 8]);
    assert!(
        changes[1].reason.contains("oldest child"),
        "{}",
        changes[1].reason
    );
    assert_eq!(
        (children(&world, 3), children(&world, 4)),
        (vec![5, 7], vec![6, 8])
    );
}

#[test]
fn when_the_coordinator_is_lost_then_one_rises_at_each_level() {
    let mut world = World::of(tree(small()), 8);
    let changes = world.leave(1);
    assert_eq!(
        (at(&world, 0), at(&world, 1)),
        (vec![2], vec![3, 4]),
        "with seven agents two supervisors are wanted"
    );
    assert!(
        !whose(&changes).contains(&5) && !whose(&changes).contains(&7),
        "children of others stay"
    );
}

#[test]
fn given_one_made_for_it_among_the_workers_when_a_supervisor_is_lost_then_that_one_rises() {
    let mut world = World::new(tree(small()));
    for number in [1, 2, 3] {
        world.join(made(
            number,
            if number == 1 {
                "coordinator"
            } else {
                "supervisor"
            },
        ));
    }
    for member in [plain(4), plain(5), plain(6), made(7, "supervisor")] {
        world.join(member);
    }
    assert_eq!(world.role(7), Role::Worker);
    world.leave(2);
    assert_eq!(at(&world, 1), [3, 7]);
    assert_eq!(world.workers(), [4, 5, 6]);
}

#[test]
fn an_unhealthy_child_does_not_rise() {
    let mut world = World::of(tree(small()), 8);
    world.health(4, false);
    world.leave(2);
    assert_eq!(at(&world, 1), [3, 6]);
}

#[test]
fn parents_that_are_named_are_kept_where_both_are_there() {
    let mut options = small();
    options["parents"] = json!({"agent-5": "agent-7", "agent-4": id(7), "agent-7": "agent-6"});
    let mut world = World::of(tree(options), 5);
    assert_eq!(
        at(&world, 0),
        [1],
        "nobody that is named as a parent is there"
    );
    world.join(plain(7));
    assert_eq!(
        (world.role(7), world.seat(7).works),
        (Role::Supervisor, false)
    );
    assert_eq!(children(&world, 7), [4, 5]);
    world.join(plain(6));
    assert_eq!(
        (at(&world, 0), world.seat(7).parent),
        (vec![6], Some(id(6))),
        "the parent of a supervisor is a coordinator"
    );
    world.leave(7);
    assert_ne!(world.seat(5).parent, Some(id(7)));
    world.join(plain(7));
    assert_eq!(children(&world, 7), [4, 5], "they are back at it");
}

#[test]
fn given_more_named_children_than_the_ratio_allows_then_the_first_are_kept() {
    let mut options = small();
    options["parents"] = json!({"agent-3": "agent-1", "agent-4": "agent-1", "agent-5": "agent-1", "agent-6": "agent-1"});
    let world = World::of(tree(options), 8);
    assert_eq!(
        (world.role(1), children(&world, 1)),
        (Role::Supervisor, vec![3, 4, 5])
    );
    assert!(
        world
            .shape
            .seats()
            .all(|(id, _)| world.shape.children(id).count() <= 3)
    );
}

#[test]
fn given_a_named_child_that_skips_a_level_then_it_is_there_if_the_level_between_has_room_enough() {
    let mut options = small();
    options["parents"] = json!({"agent-7": "agent-1", "agent-6": "agent-2", "agent-2": "agent-1"});
    let world = World::of(tree(options), 7);
    assert_eq!(
        (world.role(7), world.seat(7).parent),
        (Role::Worker, Some(id(1)))
    );
    assert_eq!(world.seat(6).parent, Some(id(2)));
}

#[test]
fn messages_go_between_parent_and_child_and_among_those_at_the_top() {
    let mut options = small();
    options["levels"][0]["count"] = json!(2);
    let world = World::of(tree(options), 8);
    assert_eq!((at(&world, 0), at(&world, 1)), (vec![1, 2], vec![3, 4]));
    assert!(world.talks(1, 2) && world.talks(1, 3) && world.talks(3, 1) && world.talks(3, 5));
    assert!(!world.talks(3, 4) && !world.talks(1, 5) && !world.talks(5, 7));
    assert_eq!(
        (world.neighbours(1), world.neighbours(3)),
        (vec![2, 3], vec![1, 5, 7])
    );
}

#[test]
fn stealing_is_among_the_children_of_a_parent_and_who_was_drafted_is_one_of_its_own() {
    let world = World::of(tree(small()), 7);
    assert!(world.shape.may_steal(id(4), id(6)) && !world.shape.may_steal(id(4), id(5)));
    assert!(world.shape.may_steal(id(2), id(4)) && world.shape.may_steal(id(4), id(2)));
    assert!(!world.shape.may_steal(id(2), id(5)) && !world.shape.may_steal(id(2), id(3)));
    assert_eq!(
        (world.shape.group(id(4)), world.shape.group(id(2))),
        (Some(id(2)), Some(id(2)))
    );
}

#[test]
fn paths_and_subtrees_follow_the_parents() {
    let world = World::of(tree(small()), 7);
    assert_eq!(world.shape.path(id(6)), [id(1), id(2)]);
    assert_eq!(world.shape.path(id(1)), []);
    assert!(world.shape.is_below(id(1), id(6)) && world.shape.is_below(id(2), id(6)));
    assert!(!world.shape.is_below(id(3), id(6)) && !world.shape.is_below(id(6), id(6)));
    assert_eq!(world.shape.tops().map(number).collect::<Vec<_>>(), [1]);
    assert_eq!(
        world.shape.inner().map(number).collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[test]
fn before_it_is_seated_nobody_works() {
    let world = World::of(tree(small()), 3);
    assert!(!world.shape.works(id(99)) && world.shape.role(id(99)).is_none());
}

#[test]
fn one_that_is_made_for_two_roles_has_the_higher() {
    let both = Member {
        capabilities: vec!["coordinator".into(), "supervisor".into()],
        ..plain(5)
    };
    let mut world = World::of(tree(small()), 4);
    world.join(both);
    assert_eq!(world.role(5), Role::Coordinator);
}
